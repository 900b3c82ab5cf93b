"""Outlines around masks, and masks drawn from outlines: of a COCO file (polygons or run lengths), or YOLO's labels/ (a polygon a row).

A mask's value is COCO's number of the category, or YOLO's class + 1. Polygons are in pixels whose borders are at whole numbers; a pixel is
inside where its middle is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from inspector.records import ConfigError, Image

FARTHEST_PX = 1e6
FINER = 5
"""Polygons are filled on a grid so many times finer; an odd number, so that a pixel has a middle."""


def masks(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> tuple[Path, dict[str, Image]]:
    """(what they were drawn from, the mask uint8 (H, W) of each picture) of pictures of these stems and shapes (H, W).

    Raises E_DATA_OPEN where there are no annotations, E_DATA_COCO, E_DATA_YOLO, E_DATA_PAIR, and E_DATA_MASK for boxes without outlines.
    """
    drawn = {stem: np.zeros(shape, np.uint8) for stem, shape in shapes.items()}
    file = coco_file(folder)
    if file is not None:
        _draw_coco(file, drawn)
    elif (folder / "labels").is_dir():
        for stem, mask in drawn.items():
            _draw_yolo(folder / "labels" / f"{stem}.txt", mask)
    else:
        raise ConfigError("E_DATA_OPEN", "no such folder, nor a COCO file or labels/ of YOLO beside it", file=str(folder / "masks"))
    return file or folder / "labels", drawn


def coco_file(folder: Path) -> Path | None:
    """The COCO file of the folder."""
    return next(iter(sorted(folder.glob("*coco*.json")) + sorted(folder.glob("annotations*.json"))), None)


def coco(path: Path) -> dict[str, Any]:
    """What a COCO file says: categories by number, images (stems) by id, annotations. Raises E_DATA_COCO."""
    try:
        said = json.loads(path.read_text("utf-8"))
        return {
            "categories": {int(c["id"]): str(c["name"]) for c in said["categories"]},
            "images": {i["id"]: Path(str(i["file_name"])).stem for i in said.get("images", ())},
            "annotations": [(a["image_id"], int(a["category_id"]), a.get("segmentation")) for a in said.get("annotations", ())],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("E_DATA_COCO", f"not a COCO file: {type(error).__name__}", file=str(path)) from error


def yolo_names(folder: Path) -> dict[int, str] | None:
    """The names of YOLO's classes + 1 in data.yaml; None where there is none. Raises E_DATA_YOLO."""
    path = folder / "data.yaml"
    if not path.is_file():
        return None
    try:
        names = yaml.safe_load(path.read_text("utf-8"))["names"]
        return {int(k) + 1: str(name) for k, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError("E_DATA_YOLO", f"no names of classes: {type(error).__name__}", file=str(path), key="names") from error


def _draw_coco(path: Path, drawn: Mapping[str, Image]) -> None:
    """Draw the annotations of a COCO file in their order."""
    said = coco(path)
    if alone := sorted(set(said["images"].values()) ^ set(drawn)):
        raise ConfigError("E_DATA_PAIR", f"{alone[:3]} are only in one of images/ and the COCO file ({len(alone)} in all)", file=str(path))
    for number, (image, category, outline) in enumerate(said["annotations"]):
        where = f"annotations[{number}]"
        if not outline:
            raise ConfigError("E_DATA_MASK", "a box without an outline; polygons or run lengths are needed", file=str(path), key=where)
        if image not in said["images"] or category not in said["categories"] or not 1 <= category <= 255:
            text = f"image {image!r}, category {category}; allowed: those of the file, categories from 1 to 255"
            raise ConfigError("E_DATA_COCO", text, file=str(path), key=where)
        mask = drawn[said["images"][image]]
        try:
            if isinstance(outline, dict):
                mask[_decoded(outline, mask.shape)] = category
                continue
            for polygon in outline:
                fill(mask, np.array(polygon, np.float64).reshape(-1, 2), category)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ConfigError("E_DATA_COCO", f"neither polygons nor run lengths: {error}", file=str(path), key=where) from error


def _draw_yolo(path: Path, mask: Image) -> None:
    """Draw the rows of a picture's file; without one there is nothing in the picture."""
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines() if path.is_file() else (), 1):
        fields = line.split()
        if len(fields) == 5:
            raise ConfigError("E_DATA_MASK", "a box without an outline; class x1 y1 x2 y2 x3 y3 … is needed", file=str(path), line=number)
        try:
            if fields:
                points = np.array(fields[1:], np.float64).reshape(-1, 2)
                if not 0 <= int(fields[0]) < 255 or not ((points >= 0) & (points <= 1)).all():
                    raise ValueError("class 0 … 254 and ratios 0 … 1 are allowed")
                fill(mask, points * mask.shape[::-1], int(fields[0]) + 1)
        except ValueError as error:
            raise ConfigError("E_DATA_YOLO", f"{line[:60]!r}: {error}", file=str(path), line=number) from error


def fill(mask: Image, polygon: NDArray[np.float64], value: int) -> None:
    """Give the pixels of a mask (H, W) in the polygon (n, 2) this value. Raises ValueError for what is no polygon."""
    if len(polygon) < 3 or not (np.abs(polygon) < FARTHEST_PX).all():
        raise ValueError(f"{len(polygon)} points; three at least, in the picture")
    left, top = np.floor(polygon.min(axis=0)).clip(0, mask.shape[::-1]).astype(int).tolist()
    right, bottom = np.ceil(polygon.max(axis=0)).clip(0, mask.shape[::-1]).astype(int).tolist()
    if left >= right or top >= bottom:
        return
    fine = np.zeros((FINER * (bottom - top), FINER * (right - left)), np.uint8)  # the middle of a pixel says whether it is inside
    cv2.fillPoly(fine, [np.rint(FINER * (polygon - (left, top)) - 0.5).astype(np.int32)], (1,))
    mask[top:bottom, left:right][fine[FINER // 2 :: FINER, FINER // 2 :: FINER] > 0] = value


def around(mask: Image, at_px: tuple[int, int] = (0, 0)) -> list[list[float]]:
    """COCO's polygons, x and y in turn, along the borders of the pixels of a mask (H, W) whose first pixel is at (x, y).

    Around a hole no polygon can go: there the mask is parted in two.
    """
    fine = np.repeat(np.repeat((mask > 0).astype(np.uint8), 3, axis=0), 3, axis=1)  # so that each border has a contour beside it
    found, nesting = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [contour for contour, (_, _, _, parent) in zip(found, nesting[0], strict=True) if parent >= 0] if found else []
    if holes:
        row = int(holes[0][:, 0, 1].min()) // 3 + 1
        return around(mask[:row], at_px) + around(mask[row:], (at_px[0], at_px[1] + row))
    polygons = [np.rint((contour[:, 0] + 0.5) / 3).astype(int) for contour in found]
    return [(p[(p != np.roll(p, 1, axis=0)).any(axis=1)] + at_px).ravel().astype(float).tolist() for p in polygons]


def _decoded(outline: Mapping[str, Any], shape: Sequence[int]) -> NDArray[np.bool_]:
    """(H, W) of COCO's run lengths, column by column, the first one outside. Raises ValueError, KeyError, IndexError, TypeError."""
    counts = outline["counts"]
    runs = _runs(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if list(outline["size"]) != list(shape) or min(runs) < 0 or sum(runs) != shape[0] * shape[1]:
        raise ValueError(f"run lengths of {sum(runs)} px for a picture of {shape[1]} × {shape[0]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape[1], shape[0]).T


def _runs(text: str) -> list[int]:
    """COCO's compressed run lengths: five bits a character, low ones first, from the third on as differences to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
