"""A flat field and a dark frame make an even grey even, whatever the light and the pixels do."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from inspector import config, recipe
from inspector.__main__ import application
from inspector.geometry import correct
from inspector.judge import judge
from inspector.records import ConfigError, Decision, Floats, Frame, Image, Reason, Stamp

SHAPE = (60, 80)


def light(falls: float, seed: int, channels: int = 1) -> Floats:
    """How much of the light each pixel sees: less towards the edges, and each pixel a little its own."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    own = np.random.default_rng(seed).normal(1, 0.02, (*SHAPE, channels))
    found = (1 - falls * (x**2 + y**2) / 2)[..., None] * own * np.linspace(1, 0.8, channels)
    return np.asarray(found[..., 0] if channels == 1 else found)


def dark_of(seed: int, channels: int = 1) -> Floats:
    found = np.random.default_rng([seed, 1]).uniform(2, 9, (*SHAPE, channels))
    return np.asarray(found[..., 0] if channels == 1 else found)


def picture(scene: float, seen: Floats, dark: Floats, noise: int | None = None) -> Image:
    value = scene * seen + dark
    if noise is not None:
        value = value + np.random.default_rng(noise).normal(0, 1.5, value.shape)
    return np.asarray(np.rint(value).clip(0, 255), np.uint8)


@settings(max_examples=30, deadline=None)
@given(falls=st.floats(0.0, 0.6), seed=st.integers(0, 99), grey=st.integers(20, 150), channels=st.sampled_from([1, 3]))
def test_an_even_scene_is_shown_even_and_dark_is_black(falls: float, seed: int, grey: int, channels: int) -> None:
    seen, dark = light(falls, seed, channels), dark_of(seed, channels)
    flats = [picture(180, seen, dark, noise) for noise in range(20)]
    darks = [picture(0, seen, dark, noise) for noise in range(20, 40)]
    even = correct.corrector(correct.measure(flats, darks, camera="c", taken_utc_ns=1))
    shown = even(picture(grey, seen, dark)).astype(float)
    assert abs(shown.mean() - grey * seen.mean()) < 1.5
    assert np.abs(shown - shown.mean()).max() <= 4.5
    assert shown.std() < 1.2, f"{shown.std()} of {grey * seen.std()}"
    assert even(picture(0, seen, dark)).max() <= correct.MOST_GAIN


def test_what_is_kept_is_what_was_measured(tmp_path: Path) -> None:
    seen, dark = light(0.3, 1), dark_of(1)
    measured = correct.measure([picture(180, seen, dark)], [picture(0, seen, dark)], camera="top", taken_utc_ns=7)
    correct.write(measured, tmp_path / "c.npz")
    again = correct.read(tmp_path / "c.npz")
    assert (again.camera, again.taken_utc_ns) == ("top", 7)
    assert (again.flat == measured.flat).all()
    assert (again.dark == measured.dark).all()


def test_what_cannot_be_a_flat_or_a_dark_picture_is_refused() -> None:
    even = np.full(SHAPE, 150, np.uint8)
    half = even.copy()
    half[:, :40] = 5
    for flats, darks, code in [
        ([even + np.uint8(105)], [], "E_CAL_FLAT"),
        ([np.full(SHAPE, 9, np.uint8)], [], "E_CAL_FLAT"),
        ([half], [], "E_CAL_FLAT"),
        ([even], [even], "E_CAL_DARK"),
        ([even], [even[:-1]], "E_CAL_SIZE"),
    ]:
        with pytest.raises(ConfigError) as refused:
            correct.measure(flats, darks, camera="c", taken_utc_ns=1)
        assert refused.value.code == code


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"flat"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="E_CAL_FILE"):
        correct.read(tmp_path / "c.npz")
    with pytest.raises(ConfigError, match="E_CAL_FILE"):
        correct.read(tmp_path / "none.npz")


def test_pictures_are_judged_even_and_the_digest_knows_by_what(tmp_path: Path) -> None:
    """The command's file in a configuration: what the check sees is even, the frame stays as it was."""
    seen, dark = light(0.5, 3), dark_of(3)
    for n in range(5):
        cv2.imwrite(str(tmp_path / f"flat{n}.png"), picture(180, seen, dark, n))
        cv2.imwrite(str(tmp_path / f"dark{n}.png"), picture(0, seen, dark, n))
    flats = [str(path) for path in sorted(tmp_path.glob("flat*.png"))]
    out = tmp_path / "top.npz"
    said = CliRunner().invoke(
        application(), ["calibrate", *flats, "--flat", "--dark", str(tmp_path / "dark*.png"), "--out", str(out), "--json"]
    )
    assert said.exit_code == 0, said.output
    figures = json.loads(said.stdout)
    assert (figures["flats"], figures["darks"]) == (5, 5)
    assert figures["left_ratio"] < 0.3 * figures["uneven_ratio"]

    text = """
version: 1
site: s
line: l
station: t
cameras: [{id: top, recipe: plain, CORRECTION source: {kind: replay, files: [.]}}]
recipes: {plain: {checks: {spots: {kind: web, least_grey: 8, side: dark, mm_per_px: 0.1}}}}
"""
    path = tmp_path / "line.yaml"
    raw = recipe.prepare(config.read(path, text=text.replace("CORRECTION", "")))
    even = recipe.prepare(config.read(path, text=text.replace("CORRECTION", "correction: top.npz,")))
    assert raw.digest != even.digest
    image = picture(120, seen, dark)
    image.flags.writeable = False
    stamp = Stamp("top", 1, 1, None, image.shape)
    assert judge([Frame(stamp, image)], raw, lambda: 0)[0].decision is Decision.FAIL
    (inspection,) = judge([Frame(stamp, image)], even, lambda: 0)
    assert inspection.decision is Decision.PASS
    assert "correct" in inspection.spent_ns
    (other,) = judge([Frame(Stamp("top", 2, 1, None, (10, 10)), image[:10, :10])], even, lambda: 0)
    assert (other.decision, other.reason) == (Decision.UNJUDGED, Reason.INFER_ERROR)

    with pytest.raises(ConfigError, match=r"line\.yaml:6: cameras\[0\].correction: .*none.npz"):
        recipe.prepare(config.read(path, text=text.replace("CORRECTION", "correction: none.npz,")))
