"""The classification check: the accepted classes' scores against their limit, and the class that the network says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inspector.checks import classify
from inspector.records import ConfigError, Frame, Plan, Stamp, View
from tests.neural import nets

PLAN = Plan("top", None, None, None, (), False)


def view(grey: int, shape: tuple[int, ...] = (30, 40)) -> View:
    image = np.full(shape, grey, np.uint8)
    return View(Frame(Stamp("top", 1, 0, None, image.shape), image), None, None, image)


def test_the_accepted_classes_are_summed(tmp_path: Path) -> None:
    settings = classify.Settings(model=nets.classifier(tmp_path), accept=["bright"])
    check = classify.build(settings, "kind", PLAN)
    dark, bright = (found[0] for found in check([view(51), view(204, (60, 20, 3))]))
    assert (dark.feature, dark.low, dark.high, dark.unit, dark.ok) == ("dark", 0.5, None, "ratio", False)
    assert math.isclose(dark.value, 0.2, abs_tol=1e-6)
    assert dark.evidence is not None
    assert dark.evidence.bbox_px == (0.0, 0.0, 40.0, 30.0)
    assert (bright.feature, bright.ok, bright.evidence) == ("bright", True, None)
    both = classify.build(classify.Settings(model=nets.classifier(tmp_path), accept=["dark", "bright"]), "kind", PLAN)
    assert math.isclose(both([view(90)])[0][0].value, 1.0, abs_tol=1e-6)


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E_CFG_CLASS"):
        classify.build(classify.Settings(model=nets.classifier(tmp_path), accept=["brigth"]), "kind", PLAN)


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E_MODEL_TASK"):
        classify.build(classify.Settings(model=nets.segmenter(tmp_path), accept=["scratch"]), "kind", PLAN)
