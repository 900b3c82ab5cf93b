"""`inspector predict` says what a model sees in each picture, and writes masks and overlays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.records import ConfigError
from tests.neural import nets


def predict(model: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    done = CliRunner().invoke(application(), ["predict", str(model), *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_defects_have_boxes_and_a_mask(tmp_path: Path) -> None:
    image = np.full((50, 70), 128, np.uint8)
    image[10:14, 20:30] = 250
    image[40:42, 40:42] = 190  # no class
    cv2.imwrite(str(tmp_path / "part.png"), image)
    (found,) = predict(nets.segmenter(tmp_path), tmp_path / "part.png", "--out", tmp_path / "seen")
    assert found["boxes"] == [{"xyxy": [20.0, 10.0, 30.0, 14.0], "class": "scratch", "score": round(245 / 255, 4)}]
    assert found["classes"][0] == {"name": "scratch", "score": round(245 / 255, 4)}
    mask = np.asarray(cv2.imread(found["mask"], cv2.IMREAD_GRAYSCALE))
    np.testing.assert_array_equal(mask, image == 250)
    assert Path(found["overlay"]).is_file()


def test_a_dropped_defect_leaves_the_others_in_its_box(tmp_path: Path) -> None:
    image = np.full((50, 70), 128, np.uint8)
    image[10:40, 10:12] = image[38:40, 10:60] = 205  # a faint corner, score 0.61
    image[20:24, 30:34] = 250  # a sure spot in the corner's box
    cv2.imwrite(str(tmp_path / "part.png"), image)
    (found,) = predict(nets.segmenter(tmp_path, thresholds={"scratch": 0.9}), tmp_path / "part.png", "--out", tmp_path / "seen")
    assert [box["xyxy"] for box in found["boxes"]] == [[30.0, 20.0, 34.0, 24.0]]
    np.testing.assert_array_equal(cv2.imread(found["mask"], cv2.IMREAD_GRAYSCALE), image == 250)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "part.png"
    cv2.imwrite(str(image), np.full((50, 70), 128, np.uint8))
    model, run = nets.segmenter(tmp_path), CliRunner()
    (tmp_path / "seen/part.overlay.png").mkdir(parents=True)
    for out in (Path("/proc/x"), image, tmp_path / "seen"):
        done = run.invoke(application(), ["predict", str(model), str(image), "--out", str(out)])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.code == "E_OUT"
        assert str(out) in str(done.exception)


def test_classes_come_with_the_surest_first(tmp_path: Path) -> None:
    for folder, grey in (("a", 51), ("b", 204)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "x.png"), np.full((20, 20), grey, np.uint8))
    dark, bright = predict(nets.classifier(tmp_path), tmp_path / "a/x.png", tmp_path / "b/x.png", "--out", tmp_path / "seen")
    assert [c["name"] for c in dark["classes"]] == ["dark", "bright"]
    assert bright["classes"][0] == {"name": "bright", "score": 0.8}
    assert (dark["boxes"], dark["mask"]) == ([], None)
    assert dark["overlay"] != bright["overlay"]


def test_a_picture_is_compared_with_its_reference(tmp_path: Path) -> None:
    reference = np.zeros((64, 64), np.uint8)
    image = reference.copy()
    image[30:40, 30:40] = 255
    for name, picture in (("test", image), ("good", reference)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    model = nets.comparer(tmp_path)
    (found,) = predict(model, tmp_path / "test.png", "--reference", tmp_path / "good.png", "--out", tmp_path / "seen")
    assert [(b["class"], b["xyxy"]) for b in found["boxes"]] == [("more", [26.0, 26.0, 42.0, 42.0])]
    for arguments in ((), ("--reference", str(tmp_path / "good.png")) * 3):
        done = CliRunner().invoke(application(), ["predict", str(model), str(tmp_path / "test.png"), "--out", str(tmp_path), *arguments])
        assert isinstance(done.exception, ConfigError)
        assert done.exception.code == "E_REFERENCE"


@pytest.mark.parametrize(("content", "code"), [(b"", "E_IMG_FORMAT"), (b"\x89PNG\r\n\x1a\n", "E_IMG_TRUNC")])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    done = CliRunner().invoke(application(), ["predict", str(nets.classifier(tmp_path)), str(tmp_path / "x.png"), "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.code == code
