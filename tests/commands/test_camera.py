"""The tool of whoever sets a camera up, against a real GigE Vision camera, pictures in a folder, and nothing at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer import BadParameter
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.commands.camera import BRIGHT_GREY, Chosen, _chosen, _expose, better_exposure_us
from inspector.conveyor.timed import Timed
from inspector.records import ConfigError, DeviceError, Stamp
from inspector.sources.replay import load
from tests.contracts import REPOSITORY
from tests.sources import gigecam
from tests.sources.gigecam import Camera

needs_camera = pytest.mark.skipif(gigecam.missing() is not None, reason=str(gigecam.missing()))


def run(*words: str) -> str:
    """What the command prints; what it raises is raised here."""
    result = CliRunner().invoke(application(), ["camera", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*words, "--json").splitlines()]


@pytest.fixture(scope="module")
def lit() -> Iterator[Camera]:
    with gigecam.on_loopback("LIT1", "lit") as camera:
        yield camera


@pytest.fixture(autouse=True)
def _all_let_go() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("aravis-close"):
            thread.join(20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 200, (48, 64), np.uint8)
        cv2.imwrite(str(tmp_path / f"part{number}.png"), noise)
    return tmp_path


@pytest.mark.real
@needs_camera
def test_a_camera_is_listed_with_the_yaml_that_chooses_it(lit: Camera) -> None:
    found = told("list")
    assert {
        "kind": "aravis",
        "vendor": "Aravis",
        "model": "Fake",
        "serial": "LIT1",
        "address": "127.0.0.1",
        "select": {"serial": "LIT1"},
    } in found
    (line,) = [line for line in run("list").splitlines() if "LIT1" in line]
    assert yaml.safe_load(line.partition("source: ")[2]) == {"kind": "aravis", "serial": "LIT1"}


@pytest.mark.real
@needs_camera
def test_its_features_are_shown(lit: Camera) -> None:
    (exposure,) = told("show", "aravis", f"device={lit.device}", "--only", "exposuretime")
    assert (exposure["name"], exposure["low"], exposure["high"]) == ("ExposureTimeAbs", 10.0, 10_000_000.0)
    assert "  PixelFormat: Mono8  [BayerBG8, " in run("show", "aravis", f"device={lit.device}")
    with pytest.raises(ConfigError, match=r"none of 2. features has 'ExposurTimeAbs' .* did you mean ExposureTimeAbs"):
        run("show", "aravis", f"device={lit.device}", "--only", "ExposurTimeAbs")


@pytest.mark.real
@needs_camera
def test_it_is_tuned_to_an_exposure_that_loses_nothing(lit: Camera) -> None:
    words = ["aravis", f"device={lit.device}", "packet_bytes=1400", "region_px=[0, 0, 256, 256]", "rate_hz=50.0"]
    *rounds, end = told("tune", *words, "exposure_us=50000.0", "--focus", "0.5")
    assert "is good" in end["advice"]
    exposed = [line for line in rounds if "exposure_us" in line]
    assert exposed[0]["bright_grey"] == 255
    assert abs(exposed[-1]["bright_grey"] - BRIGHT_GREY) < 0.06 * BRIGHT_GREY
    assert end["source"]["exposure_us"] == exposed[-1]["exposure_us"]
    assert end["best_focus_ratio"] > 0.5
    threading.Event().wait(0.1)
    text = run("tune", *words, "exposure_us=50000.0", "--longest-us", "300", "--focus", "0")
    assert "too dark at 300 µs by a factor of" in text
    assert yaml.safe_load(text.splitlines()[-1])["source"]["exposure_us"] == 300


def test_pictures_are_kept_with_what_they_show(folder: Path, tmp_path: Path) -> None:
    (folder / "part1.png").write_bytes((folder / "part1.png").read_bytes()[:200])
    out = tmp_path / "grabbed"
    *lines, account = told("grab", "replay", f"files=[{folder}]", "--out", str(out))
    assert [line["complete"] for line in lines] == [True, False, True]
    assert (account["kept"], account["incomplete"], account["lost"]) == (2, 1, 0)
    assert sorted(path.name for path in out.iterdir()) == ["camera-000001.png", "camera-000003.png"]
    kept, shown = (load(Path(path), colour=False) for path in (lines[0]["file"], folder / "part0.png"))
    assert np.array_equal(kept, shown)
    assert abs(lines[0]["exposure_grey"] - kept.mean()) < 5


def test_the_rate_is_that_of_what_was_seen_whatever_number_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        max_bytes, seq = 4096, 1000

        def read(self, into: Any, timeout_s: float) -> Stamp:
            self.seq += 2
            into[:] = 100
            return Stamp("c", self.seq, self.seq * 10_000_000, None, (64, 64))

        def close(self) -> None:
            pass

    monkeypatch.setattr(Chosen, "built", lambda self: Counting())
    account = told("grab", "replay", "files=[nothing]", "--out", str(tmp_path / "out"), "--count", "3")[-1]
    assert account == {"kept": 3, "lost": 2, "incomplete": 0, "rate_hz": 100.0}


def test_a_camera_of_a_configuration(folder: Path) -> None:
    path = folder / "line.yaml"
    camera = {"id": "top", "recipe": "r", "source": {"kind": "replay", "files": [str(folder)]}}
    recipes = {"r": {"checks": {"c": {"kind": "outline"}}}}
    path.write_text(yaml.safe_dump({"version": 1, "site": "s", "line": "l", "station": "t", "cameras": [camera], "recipes": recipes}))
    (shown,) = told("show", str(path), "top")
    assert shown["shape"] == [48, 64]
    assert shown["focus_ratio"] > 0.5, "noise is as sharp as can be"
    with pytest.raises(ConfigError, match="no camera 'bottom'; there is top"):
        run("show", str(path), "bottom")


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (["show", "aravs"], ConfigError, "aravs is no kind of sources; did you mean aravis"),
        (["show", "replay", "fils=[x]"], ConfigError, "fils"),
        (["show", "opencv", "url=/nowhere.avi"], DeviceError, "cannot be opened"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(*words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([str(REPOSITORY / "configs" / "demo.yaml"), "plate", "rate_hz=3"], "rate_hz=3: a camera of a"),
        (["opencv", "url=a", "url=b"], "url is given"),
    ],
)
def test_words_that_nobody_heeds_are_wrong_usage(words: list[str], text: str) -> None:
    with pytest.raises(BadParameter, match=text):
        _chosen(words)


def test_how_dark_it_is_at_least(tmp_path: Path) -> None:
    class Black:
        max_bytes = 64

        def read(self, into: Any, timeout_s: float) -> Stamp:
            into[:] = 0
            return Stamp("c", 1, 0, None, (8, 8))

        def close(self) -> None:
            pass

    settings: Any = SimpleNamespace(exposure_us=100.0, model_copy=lambda update: settings)
    chosen = Chosen("c", "aravis", SimpleNamespace(__name__="aravis", build=lambda *_: Black()), settings, {}, Timed(1.0))
    assert "too dark at 100 µs by a factor of at least 8.0: " in _expose(chosen, 100.0, lambda line: None)


def test_a_serial_number_of_digits_is_text() -> None:
    words = ["aravis", "exposure_us=800", "region_px=[0, 0, 64, 64]"]
    for serial, meant in (("0022345678", "0022345678"), ("1e5", "1e5"), ('"17"', "17")):
        settings = _chosen([*words, f"serial={serial}"]).settings
        assert (settings.serial, settings.exposure_us, settings.region_px) == (meant, 800.0, (0, 0, 64, 64))


@given(st.floats(10, 10_000), st.floats(0.001, 1.0))
def test_the_exposure_settles_whatever_the_light(exposure_us: float, grey_per_us: float) -> None:
    for _ in range(40):
        exposure_us = better_exposure_us(exposure_us, min(255.0, grey_per_us * exposure_us))
    assert grey_per_us * exposure_us == pytest.approx(BRIGHT_GREY, rel=0.01)
