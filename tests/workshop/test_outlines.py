"""Masks drawn from COCO's and YOLO's outlines are the masks that the outlines were drawn around."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inspector.records import ConfigError
from inspector.workshop import datasets, outlines

L_SHAPE = [2, 1, 5, 1, 5, 2, 3, 2, 3, 4, 2, 4]


def expected() -> np.ndarray:
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 2:5] = mask[1:4, 2] = 2
    return mask


def pictures(folder: Path, *stems: str) -> Path:
    (folder / "images").mkdir()
    for stem in stems:
        cv2.imwrite(str(folder / "images" / f"{stem}.png"), np.zeros((6, 8), np.uint8))
    return folder


def coco(folder: Path, *shapes: Any) -> None:
    said = {
        "images": [{"id": 7, "file_name": "images/a.png"}, {"id": 9, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "pit"}, {"id": 2, "name": "crack"}],
        "annotations": [{"image_id": 7, "category_id": 2, "bbox": [2, 1, 3, 3], "segmentation": shape} for shape in shapes],
    }
    (folder / "coco.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    "shape",
    [
        [L_SHAPE],
        [[2, 1, 5, 1, 5, 2, 2, 2], [2, 2, 3, 2, 3, 4, 2, 4]],
        {"size": [6, 8], "counts": [13, 3, 3, 1, 5, 1, 22]},
    ],
)
def test_cocos_outlines(tmp_path: Path, shape: Any) -> None:
    coco(pictures(tmp_path, "a", "b"), shape)
    data = datasets.segmentation(tmp_path)
    assert (data.names, data.classes) == (("a", "b"), ("pit", "crack"))
    np.testing.assert_array_equal(data.masks[0], expected())
    assert not data.masks[1].any()


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)))
def test_polygons_around_a_mask_give_it_back(mask: np.ndarray) -> None:
    drawn, area = np.zeros((20, 20), np.uint8), 0.0
    for flat in outlines.around(mask, (3, 2)):
        polygon = np.array(flat).reshape(-1, 2)
        outlines.fill(drawn, polygon, 1)
        x, y = polygon.T
        area += abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    np.testing.assert_array_equal(drawn[2 : 2 + mask.shape[0], 3 : 3 + mask.shape[1]], mask)
    assert drawn.sum() == mask.sum() == area


def test_cocos_compressed_run_lengths() -> None:
    mask = np.zeros((6, 7), np.bool_)
    mask[1:4, 2:5], mask[2, 3], mask[5, 6] = True, False, True
    np.testing.assert_array_equal(outlines._decoded({"size": [6, 7], "counts": "=33NN022:N"}, (6, 7)), mask)


def test_yolos_outlines(tmp_path: Path) -> None:
    pictures(tmp_path, "a", "b")
    (tmp_path / "labels").mkdir()
    row = " ".join(str(v / side) for v, side in zip(L_SHAPE, [8, 6] * 6, strict=True))
    (tmp_path / "labels" / "a.txt").write_text(f"1 {row}\n")
    (tmp_path / "data.yaml").write_text("names: [pit, crack]\n")
    data = datasets.segmentation(tmp_path)
    np.testing.assert_array_equal(data.masks[0], expected())
    assert data.classes == ("pit", "crack")
    (tmp_path / "data.yaml").write_text("names: {0: hole, 1: dent}\n")
    assert datasets.segmentation(tmp_path).classes == ("hole", "dent")


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ([], "E_DATA_MASK"),
        ([[1, 2, 3]], "E_DATA_COCO"),
        ([[1, 2, 3, 4, 5, 1e9]], "E_DATA_COCO"),
        ("x", "E_DATA_COCO"),
        ({"size": [6, 8], "counts": [1, 2]}, "E_DATA_COCO"),
        ({"size": [6, 8], "counts": [-1, 49]}, "E_DATA_COCO"),
    ],
)
def test_what_is_no_outline_in_coco_is_named(tmp_path: Path, shape: Any, code: str) -> None:
    coco(pictures(tmp_path, "a", "b"), [L_SHAPE], shape)
    with pytest.raises(ConfigError, match=rf"{code}.*coco\.json.*annotations\[1\]"):
        datasets.segmentation(tmp_path)


@pytest.mark.parametrize(
    ("row", "code"), [("0 0.5 0.5 0.1 0.1", "E_DATA_MASK"), ("0 0.1 0.1 0.2 0.2 2 0", "E_DATA_YOLO"), ("x 0 0 1 1 0 1", "E_DATA_YOLO")]
)
def test_what_is_no_outline_in_yolo_is_named(tmp_path: Path, row: str, code: str) -> None:
    pictures(tmp_path, "a")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"\n{row}\n")
    with pytest.raises(ConfigError, match=rf"{code}.*a\.txt:2"):
        datasets.segmentation(tmp_path)


def test_pictures_without_their_annotations(tmp_path: Path) -> None:
    pictures(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"E_DATA_OPEN.*masks.*COCO.*YOLO"):
        datasets.segmentation(tmp_path)
    coco(tmp_path, [L_SHAPE])
    with pytest.raises(ConfigError, match=r"E_DATA_PAIR.*'b'"):
        datasets.segmentation(tmp_path)
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "a.bmp")
    with pytest.raises(ConfigError, match=r"E_DATA_PAIR.*a\.bmp and a\.png"):
        datasets.segmentation(tmp_path)
