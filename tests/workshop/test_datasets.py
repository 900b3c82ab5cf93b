"""Folders of data are read as they are meant, and what does not fit is refused by name."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.records import ConfigError
from inspector.workshop import datasets
from tests.workshop import sets


def refused(act: Callable[[], object], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        act()
    assert caught.value.code == code


def test_segmentation_has_names_masks_and_classes(tmp_path: Path) -> None:
    data = datasets.segmentation(sets.segmentation(tmp_path, 6))
    assert data.names == tuple(f"{i:03d}" for i in range(6))
    assert (data.classes, data.channels) == (("spot", "line"), 1)
    assert all(image.shape == mask.shape for image, mask in zip(data.images, data.masks, strict=True))
    assert {int(v) for mask in data.masks for v in np.unique(mask)} == {0, 1, 2}


def test_masks_of_255_are_one_class(tmp_path: Path) -> None:
    folder = sets.segmentation(tmp_path, 4)
    (folder / "classes.txt").unlink()
    for path in (folder / "masks").iterdir():
        cv2.imwrite(str(path), 255 * (np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) > 0).astype(np.uint8))
    data = datasets.segmentation(folder)
    assert data.classes == ("defect",)
    assert max(int(mask.max()) for mask in data.masks) == 1


def with_masks(folder: Path, write: Callable[[Path, np.ndarray], object]) -> Path:
    """The set without names, its masks written anew from their values."""
    (folder / "classes.txt").unlink(missing_ok=True)
    for path in (folder / "masks").iterdir():
        values = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        path.unlink()
        write(path, values)
    return folder


def palette_png(path: Path, indices: np.ndarray, palette: bytes, transparent: bytes = b"") -> None:
    """A PNG of 8 bits with a palette."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], 8, 3, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in indices))
    chunks = [(b"IHDR", header), (b"PLTE", palette), *([(b"tRNS", transparent)] if transparent else ()), (b"IDAT", rows), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))


@pytest.mark.parametrize("transparent", [b"", b"\0"])
def test_a_palette_holds_the_numbers_of_the_classes(tmp_path: Path, transparent: bytes) -> None:
    folder = sets.segmentation(tmp_path, 4)
    expected = datasets.segmentation(folder).masks
    voc = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0]) + bytes(3 * 253)
    with_masks(folder, lambda path, values: palette_png(path, values, voc, transparent))
    data = datasets.segmentation(folder)
    assert data.classes == ("class-1", "class-2")
    for mask, wanted in zip(data.masks, expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)
    with_masks(folder, lambda path, values: palette_png(path, np.asarray(values == 0, np.uint8), b"\xff\xff\xff\0\0\0"))
    assert [int(mask.sum()) for mask in datasets.segmentation(folder).masks] == [int((mask > 0).sum()) for mask in expected]


def test_masks_that_are_no_numbers_of_classes_are_refused(tmp_path: Path) -> None:
    def jpeg(path: Path, values: np.ndarray) -> None:
        cv2.imwrite(str(path.with_suffix(".jpg")), np.asarray(255 * (values > 0), np.uint8))

    def coloured(path: Path, values: np.ndarray) -> None:
        cv2.imwrite(str(path), np.dstack([values * 0, values * 0, 100 * values]))

    def grey(path: Path, values: np.ndarray) -> None:
        cv2.imwrite(str(path), np.dstack([values] * 3))

    def gap(path: Path, values: np.ndarray) -> None:
        cv2.imwrite(str(path), np.where(values == 2, 3, values))

    for number, (write, code) in enumerate(((jpeg, "E_DATA_MASK"), (coloured, "E_IMG_MODE"), (gap, "E_DATA_MASK"))):
        folder = with_masks(sets.segmentation(tmp_path / str(number), 4), write)
        with pytest.raises(ConfigError, match=rf"{code} .*masks/00.*allowed"):
            datasets.segmentation(folder)
    (folder / "classes.txt").write_text("spot\nhole\nline\n")
    assert datasets.segmentation(folder).classes == ("spot", "hole", "line")
    assert datasets.segmentation(with_masks(sets.segmentation(tmp_path / "grey", 4), grey)).classes == ("class-1", "class-2")


def test_names_come_from_a_coco_file(tmp_path: Path) -> None:
    folder = sets.segmentation(tmp_path, 4)
    (folder / "classes.txt").unlink()
    (folder / "coco.json").write_text(
        json.dumps({"categories": [{"id": 2, "name": "crack"}, {"id": 1, "name": "pit"}, {"id": 3, "name": "burr"}]})
    )
    assert datasets.segmentation(folder).classes == ("pit", "crack")
    (folder / "coco.json").write_text("{}")
    refused(lambda: datasets.segmentation(folder), "E_DATA_COCO")


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sets.classification(tmp_path, 2)
    closed = sorted(path for path in folder.iterdir())[-1]
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)
    with pytest.raises(ConfigError, match=rf"^E_DATA_OPEN {closed}: this folder cannot be read"):
        datasets.classification(folder)


def test_what_is_wrong_with_a_segmentation_set(tmp_path: Path) -> None:
    refused(lambda: datasets.segmentation(tmp_path / "nowhere"), "E_DATA_OPEN")
    folder = sets.segmentation(tmp_path, 3)
    mask = folder / "masks" / "001.png"
    content = mask.read_bytes()
    mask.unlink()
    refused(lambda: datasets.segmentation(folder), "E_DATA_PAIR")
    cv2.imwrite(str(mask), np.zeros((5, 5), np.uint8))
    refused(lambda: datasets.segmentation(folder), "E_DATA_MASK")
    mask.write_bytes(content[: len(content) // 2])
    refused(lambda: datasets.segmentation(folder), "E_IMG_TRUNC")
    for path in (folder / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 96), np.uint8))
    refused(lambda: datasets.segmentation(folder), "E_DATA_MASK")
    for path in (folder / "images").iterdir():
        path.unlink()
    refused(lambda: datasets.segmentation(folder), "E_DATA_EMPTY")


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    folder = sets.segmentation(tmp_path, 4)
    (folder / "classes.txt").write_text("spot\n")
    refused(lambda: datasets.segmentation(folder), "E_DATA_MASK")
    (folder / "classes.txt").write_text("spot\nspot\n")
    refused(lambda: datasets.segmentation(folder), "E_LABELS")


def test_classification_is_a_folder_a_class(tmp_path: Path) -> None:
    data = datasets.classification(sets.classification(tmp_path, 3))
    assert data.classes == ("dark", "light")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.channels == 1
    refused(lambda: datasets.classification(tmp_path / "dark"), "E_DATA_CLASS")


def test_classes_that_a_network_knows_are_found_by_name_or_number(tmp_path: Path) -> None:
    folder = sets.segmentation(tmp_path / "masks", 6)
    for path in (folder / "masks").iterdir():
        mask = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        cv2.imwrite(str(path), np.where(mask == 1, 1, 0).astype(np.uint8))  # spots alone
    data = datasets.segmentation(folder, ("line", "spot", "hole"))
    assert data.classes == ("line", "spot", "hole")
    assert {int(v) for mask in data.masks for v in np.unique(mask)} == {0, 2}
    refused(lambda: datasets.segmentation(folder, ("line", "hole")), "E_DATA_CLASS")
    (folder / "classes.txt").unlink()
    assert max(int(mask.max()) for mask in datasets.segmentation(folder, ("line", "spot")).masks) == 1
    for path in (folder / "masks").iterdir():
        cv2.imwrite(str(path), np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) * 255)
    assert max(int(mask.max()) for mask in datasets.segmentation(folder, ("spot",)).masks) == 1
    refused(lambda: datasets.segmentation(folder, ("line", "spot")), "E_DATA_CLASS")
    for path in (folder / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((96, 96), np.uint8))
    assert not any(mask.any() for mask in datasets.segmentation(folder, ("line", "spot")).masks)
    assert set(datasets.classified(folder, 32, ("crack", "good")).labels.tolist()) == {1}
    kinds = sets.classification(tmp_path / "kinds", 2)
    assert datasets.classification(kinds, ("light", "grey", "dark")).labels.tolist() == [2, 2, 0, 0]
    refused(lambda: datasets.classification(kinds, ("light", "grey")), "E_DATA_CLASS")
    boards = sets.pairs(tmp_path / "pairs", 2)
    assert datasets.pairs(boards, ("island", "gap")).boxes[0][:, 4].tolist() == [2, 1]
    refused(lambda: datasets.pairs(boards, ("gap",)), "E_DATA_CLASS")


def test_one_coloured_picture_makes_all_coloured(tmp_path: Path) -> None:
    folder = sets.classification(tmp_path, 2)
    cv2.imwrite(str(folder / "dark" / "red.png"), np.full((20, 20, 3), (0, 0, 90), np.uint8))
    data = datasets.classification(folder)
    assert data.channels == 3
    assert {image.ndim for image in data.images} == {3}


def test_pairs_with_boxes(tmp_path: Path) -> None:
    for stem in ("a_test", "a_temp", "b_test", "b_temp"):
        cv2.imwrite(str(tmp_path / f"{stem}.png"), np.zeros((30, 40), np.uint8))
    (tmp_path / "annotations").mkdir()
    boxes = tmp_path / "annotations" / "a.txt"
    boxes.write_text("1 2 11 12 2\n3,4,9,9,1\n")
    data = datasets.pairs(tmp_path)
    assert (data.names, data.classes) == (("a", "b"), ("class-1", "class-2"))
    assert data.boxes[0].tolist() == [[1, 2, 11, 12, 2], [3, 4, 9, 9, 1]]
    assert data.boxes[1].shape == (0, 5)
    for bad in ("1 2 3\n", "1 2 x 4 1\n", "9 2 3 4 1\n", "1 2 3 4 0\n"):
        boxes.write_text(bad)
        refused(lambda: datasets.pairs(tmp_path), "E_DATA_BOX")
    boxes.unlink()
    cv2.imwrite(str(tmp_path / "b_temp.png"), np.zeros((30, 41), np.uint8))
    refused(lambda: datasets.pairs(tmp_path), "E_DATA_PAIR")
    (tmp_path / "b_temp.png").unlink()
    refused(lambda: datasets.pairs(tmp_path), "E_DATA_PAIR")


def test_windows_show_what_they_are_called(tmp_path: Path) -> None:
    data = datasets.segmentation(sets.segmentation(tmp_path, 6))
    windows = datasets.crops(data, 32, 0)
    assert windows.classes == ("good", "spot", "line")
    assert windows.groups is not None
    assert set(windows.labels.tolist()) == {0, 1, 2}
    for image, label in zip(windows.images, windows.labels, strict=True):
        assert image.shape == (32, 32)
        middle = int(image[16, 16])
        assert middle > 200 if label == 1 else middle < 60 if label == 2 else (image >= 60).all() and (image <= 200).all()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.floats(0.05, 0.6), st.integers(0, 99))
def test_a_split_holds_some_of_each_class_out(labels: list[int], share: float, seed: int) -> None:
    kept, held = datasets.split(len(labels), share, seed, labels)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label in set(labels):
        if labels.count(label) > 1:
            assert any(labels[i] == label for i in held)
        assert any(labels[i] == label for i in kept)
