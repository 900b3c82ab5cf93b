"""The anomaly check: the highest score in the zones against the card's threshold, and where it is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inspector.checks import anomaly
from inspector.neural import model as models
from inspector.records import ConfigError, Frame, Image, Plan, Stamp, View
from tests.neural import nets

PLAN = Plan("top", None, None, None, (), False)


def view(image: Image) -> View:
    return View(Frame(Stamp("top", 1, 0, None, image.shape), image), None, None, image)


def part(size: int = 128) -> Image:
    image = np.full((size, size), 128, np.uint8)
    image[80:96, 32:48] = 228  # two by two cells, ten times as far as a sigma
    return image


def test_what_is_far_from_the_good_ones_is_found_where_it_is(tmp_path: Path) -> None:
    check = anomaly.build(anomaly.Settings(model=nets.stranger(tmp_path)), "odd", PLAN)
    (good,), (bad,) = check([view(np.full((128, 128), 120, np.uint8)), view(part())])
    assert (good.check, good.feature, good.high, good.unit, good.ok, good.evidence) == ("odd", "anomaly", 3.0, "sigma", True, None)
    assert good.value == pytest.approx(0.8)
    assert not bad.ok
    assert bad.value == pytest.approx(10.0, abs=0.1)
    assert bad.evidence is not None
    assert bad.evidence.bbox_px == (32.0, 80.0, 16.0, 16.0)
    assert check.models == (("strange", check.model.card.sha256),)


def test_a_limit_of_the_line_stands_for_the_cards(tmp_path: Path) -> None:
    check = anomaly.build(anomaly.Settings(model=nets.stranger(tmp_path), limit=11.0), "odd", PLAN)
    assert check([view(part())])[0][0].ok


def test_only_what_is_judged_counts(tmp_path: Path) -> None:
    model = models.load(nets.stranger(tmp_path))
    scores = anomaly.score_map(part(), model)
    judged = np.ones((128, 128), np.bool_)
    judged[80:96, 32:48] = False
    assert anomaly.score_of(scores, judged) == 0.0
    assert anomaly.strange_places(scores, 3.0, (128, 128), judged) == []
    (place,) = anomaly.strange_places(scores, 3.0, (128, 128))
    assert (place.box_px, place.at_px) == ((32, 80, 16, 16), (40, 88))


def test_a_score_that_is_no_number_is_never_good(tmp_path: Path) -> None:
    scores = np.zeros((8, 8), np.float32)
    scores[2, 2] = np.nan
    assert math.isnan(anomaly.score_of(scores))


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E_MODEL_TASK"):
        anomaly.build(anomaly.Settings(model=nets.classifier(tmp_path)), "odd", PLAN)
