"""The checks on pictures that nobody here made: tested boards (DeepPCB) and steel strip (X-SDD)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from inspector.checks import classify, compare
from inspector.records import Frame, Plan, Stamp, View
from inspector.workshop import datasets

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("INSPECTOR_DATA", REPOSITORY.parent / "shared" / "data")) / "images"
PLAN = Plan("top", None, None, None, (), False)

pytestmark = pytest.mark.data


def folder(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} in INSPECTOR_DATA")
    return DATA / name


def view(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], uid: str) -> View:
    return View(Frame(Stamp("top", 1, 0, None, image.shape, uid=uid), image), None, None, image)


def test_hardly_a_defect_of_a_board_is_overlooked(tmp_path: Path) -> None:
    source = folder("deeppcb")
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    stems = sorted(path.stem.removesuffix("_test") for path in (source / "images").glob("*_test.png"))[::20]
    for stem in stems:
        for name in (f"images/{stem}_test.png", f"images/{stem}_temp.png", f"annotations/{stem}.txt"):
            (tmp_path / name).symlink_to((source / name).resolve())
    data = datasets.pairs(tmp_path)
    check = compare.build(compare.Settings(references=tmp_path / "images", name="{uid}_temp.png"), "board", PLAN)
    seen = boxes = 0
    for name, image, reference, truth in zip(data.names, data.images, data.references, data.boxes, strict=True):
        found = compare.groups(compare.differing(image, reference), 9, 9)
        finding = check([view(image, name)])[0][0]
        assert finding.ok == (not found)
        assert check([view(reference, name)])[0][0].value == 0.0
        boxes += len(truth)
        seen += sum(any(_touch(d.box_px, b) for d in found) for b in truth)
    assert len(data.names) == 50
    assert seen / boxes >= 0.99


def _touch(box: tuple[float, float, float, float], truth: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> bool:
    x, y, w, h = box
    return bool(x < truth[2] and x + w > truth[0] and y < truth[3] and y + h > truth[1])


def test_steel_strip_is_sorted_by_the_model_that_is_shipped() -> None:
    source = folder("x_sdd") / "images"
    check = classify.build(classify.Settings(model=REPOSITORY / "models" / "steel.onnx", accept=["red_iron"]), "class", PLAN)
    data = datasets.classification(source)
    right = [check([view(image, "")])[0][0].feature == data.classes[k] for image, k in zip(data.images, data.labels, strict=True)]
    assert np.mean(right) >= 0.94  # four fifths of them it was trained on: this proves the path, the card has the figure
