"""A camera whose pictures get worse is said to, with what is worse, and one whose pictures do not is left in peace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.config import Quality
from inspector.records import Image
from inspector.runtime.quality import PHASES, PictureQuality, Qualities, families

SHAPE = (240, 320)
LEARN = 240


def parts(number: int, seed: int = 1) -> Iterator[Image]:
    """A bright table with a dark plate near the middle, turned a little, with a hole; light and noise differ."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        image = np.full(SHAPE, 180, np.uint8)
        middle = float(rng.uniform(155, 165)), float(rng.uniform(115, 125))
        box = cv2.boxPoints((middle, (150, 100), float(rng.uniform(-5, 5))))
        cv2.fillPoly(image, [box.astype(np.int32)], (70,), cv2.LINE_AA)
        cv2.circle(image, (int(middle[0]), int(middle[1])), 20, (180,), -1, cv2.LINE_AA)
        noisy = image * rng.uniform(0.98, 1.02) + rng.normal(0, 3, SHAPE)
        yield np.asarray(cv2.GaussianBlur(noisy.clip(0, 255).astype(np.uint8), (0, 0), 0.8), np.uint8)


def learnt(limits: Quality | None = None) -> PictureQuality:
    limits = limits or Quality(learn_parts=LEARN)
    quality = PictureQuality(limits)
    for image in parts(limits.learn_parts):
        assert quality.see(image) == []
    assert quality.baseline is not None
    return quality


def said(quality: PictureQuality, change: Callable[[Image], Image], number: int = 300, seed: int = 2) -> list[tuple[str, str]]:
    return [each for image in parts(number, seed) for each in quality.see(change(image))]


def test_good_pictures_are_left_in_peace() -> None:
    quality = learnt()
    assert said(quality, lambda image: image, 500) == []
    assert max(quality.drift.values()) < 0.6


def blurred(image: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8)


def dusty(image: Image) -> Image:
    """A speck on the sensor's glass: soft, dark, always there."""
    speck = np.zeros(SHAPE, np.float32)
    cv2.circle(speck, (60, 200), 9, (1.0,), -1)
    return np.asarray(image * (1 - 0.5 * cv2.GaussianBlur(speck, (0, 0), 3.0)), np.uint8)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("focus", blurred),
        ("exposure", lambda image: cv2.convertScaleAbs(image, alpha=0.75)),
        ("contrast", lambda image: cv2.convertScaleAbs(image, alpha=0.6, beta=60)),
        ("saturated", lambda image: cv2.convertScaleAbs(image, alpha=1.1, beta=56)),
        ("dirt", dusty),
    ],
)
def test_what_gets_worse_is_said_once_and_when_it_is_over(what: str, change: Callable[[Image], Image]) -> None:
    quality = learnt()
    warned = said(quality, change, 700)
    about = [text for severity, text in warned if severity == "warning" and text.startswith(what)]
    assert len(about) == 1, warned
    if what == "dirt":
        x, y = (int(v) for v in about[0].partition("(")[2].partition(")")[0].split(","))
        assert np.hypot(x - 60, y - 200) < 12
        assert [severity for severity, _ in warned] == ["warning"], "nothing else is wrong"
    over = said(quality, lambda image: image, 500, seed=3)
    assert ("info", f"{what} is as it was") in over
    assert not [severity for severity, _ in over if severity == "warning"]


def test_a_baseline_outlives_a_restart_and_belongs_to_a_recipe(tmp_path: Path) -> None:
    limits = {"top": Quality(learn_parts=LEARN)}
    first = Qualities(limits, tmp_path / "quality")
    for image in parts(LEARN):
        first.of("top", "plate").see(image)
    first.keep()
    again = Qualities(limits, tmp_path / "quality")
    assert again.of("top", "gear").baseline is None
    assert again.of("top", "plate").baseline == first.of("top", "plate").baseline
    assert any("focus" in text for _, text in said(again.of("top", "plate"), blurred))
    shown = {name: samples for name, _, samples in families(again)}
    assert shown["picture_focus_ratio"][0][0] == {"camera": "top"}
    assert {labels["what"] for labels, _ in shown["picture_drift_ratio"]} == {"focus", "exposure", "contrast", "saturated", "dirt"}


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06 rubbish", b"\x93NUMPY"])
def test_a_file_that_is_none_is_learnt_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "top.plate.npz").write_bytes(content)
    quality = Qualities({"top": Quality(learn_parts=LEARN)}, tmp_path).of("top", "plate")
    assert quality.baseline is None
    for image in parts(PHASES):
        assert quality.see(image) == []


def test_pictures_of_another_size_are_learnt_anew() -> None:
    quality = learnt()
    for image in parts(LEARN, seed=5):
        assert quality.see(np.ascontiguousarray(image[:200])) == []
    assert said(quality, lambda image: np.ascontiguousarray(image[:200])) == []


def test_colour_and_pictures_that_are_too_small_do_no_harm() -> None:
    quality = PictureQuality(Quality(learn_parts=0))
    assert quality.see(np.zeros((8, 8), np.uint8)) == []
    for image in parts(40):
        assert quality.see(np.stack([image] * 3, axis=-1)) == []
    assert quality.now is not None
    assert quality.drift == {}


def test_a_small_speck_is_said_while_it_grows_where_parts_lie_differently() -> None:
    quality = learnt(Quality(learn_parts=2 * LEARN))
    speck = np.zeros(SHAPE, np.float32)
    cv2.circle(speck, (112, 120), 3, (1.0,), -1)
    warned: list[tuple[int, str]] = []
    for n, image in enumerate(parts(1000, 7)):
        dusty = np.asarray(image * (1 - n / 1600 * speck), np.uint8)
        warned += [(n, text) for severity, text in quality.see(dusty) if severity == "warning"]
    (when, text), *more = warned
    assert when < 700
    assert text.startswith("dirt")
    assert more == []
