"""Data sets as plain folders, read whole into memory and refused with the file's name where something does not fit.

segmentation     images/ and masks/ with the same stems; a mask holds 0 and 1…K, as grey values or as indices of a palette, or 0 and 255.
                 Names of the classes: `classes.txt` (one a line, class 1 first), or the categories of a COCO file in the folder, or
                 "defect" for a single one; where no file names them, no number up to K is missing in the set. Without masks/ they are
                 drawn from the outlines of a COCO file or of YOLO's labels/ (names in data.yaml)
classification   a folder for each class (or in images/)
pairs            <id>_test.*, <id>_temp.* (or in images/), boxes `x1 y1 x2 y2 class` in annotations/<id>.txt, names as above
good             good/ with pictures of good parts, and nothing else is needed; to judge by, other folders hold bad ones (and masks/ of the
                 same stems what is bad of them), or it is a segmentation set, whose empty and missing masks are those of good parts

With the classes that a network knows, a set needs only some of them: they are found by their names, or by their numbers where no file
names them, and get the network's numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.neural import model as models
from inspector.neural import pictures
from inspector.records import ConfigError, Image
from inspector.workshop import outlines

MOST_PICTURES = 200_000
GOOD = "good"
"""What windows without a defect are called."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """Pictures uint8 (H, W) or (H, W, 3), all of one kind, and their masks uint8 (H, W) with 0…len(classes)."""

    names: tuple[str, ...]
    images: tuple[Image, ...]
    masks: tuple[Image, ...]
    classes: tuple[str, ...]
    channels: int


@dataclass(frozen=True, slots=True)
class Classified:
    """Pictures uint8 (H, W) or (H, W, 3), all of one kind, and the index of each one's class.

    `groups`: pictures of the same number come from one source and must not stand on both sides of a split.
    """

    names: tuple[str, ...]
    images: tuple[Image, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    channels: int
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Paired:
    """Pictures under test and their references uint8 (H, W), with boxes int64 (n, 5): x1 y1 x2 y2 and the class 1…K."""

    names: tuple[str, ...]
    images: tuple[Image, ...]
    references: tuple[Image, ...]
    boxes: tuple[NDArray[np.int64], ...]
    classes: tuple[str, ...]


def segmentation(folder: Path, known: Sequence[str] | None = None) -> Segmented:
    """The segmentation set in the folder, sorted by name; where `known` classes are given, every mask may be empty.

    Raises E_DATA_OPEN, _EMPTY, _PAIR, _MASK, _CLASS, _COCO, _YOLO, E_IMG_*, E_LABELS.
    """
    images = _by_stem(folder / "images")
    names = tuple(sorted(images))
    seen, channels = _of_one_kind([pictures.read(images[name]) for name in names])
    files, maps = _masks(folder, names, seen)
    held = [set(np.unique(mask).tolist()) - {0} for mask in maps]
    values = sorted(set().union(*held))
    if not values and known is None:
        raise ConfigError("E_DATA_MASK", "every mask is empty; there is nothing to learn", file=str(folder / "masks"))
    if values == [255]:
        if known is not None and len(known) > 1 and _stated_names(folder) is None:
            text = f"masks of 0 and 255 do not say which of {list(known)} it is; name the class in classes.txt, or write its number"
            raise ConfigError("E_DATA_CLASS", text, file=str(folder))
        maps = [np.asarray(mask > 0, np.uint8) for mask in maps]
        values = [1]
    elif known is None:
        allowed = set(_stated_names(folder) or set(range(1, len(values) + 1)) - {255})
        for file, each in zip(files, held, strict=True):
            if each - allowed:
                text = f"{_listed(each)} in it; allowed: 0 and 255, or 0 and 1…K without gaps in the set, or those that classes.txt names"
                raise ConfigError("E_DATA_MASK", text, file=str(file))
    if known is not None:
        number = _numbers(folder, values, known).astype(np.uint8)
        return Segmented(names, seen, tuple(number[mask] for mask in maps), tuple(known), channels)
    return Segmented(names, seen, tuple(maps), _class_names(folder, values, "E_DATA_MASK"), channels)


def _masks(folder: Path, names: Sequence[str], seen: Sequence[Image]) -> tuple[list[Path], list[Image]]:
    """(the files, the masks uint8 (H, W)) of the pictures: in masks/, else drawn from annotations."""
    if not (folder / "masks").is_dir():
        source, drawn = outlines.masks(folder, {name: image.shape[:2] for name, image in zip(names, seen, strict=True)})
        return [source] * len(names), [drawn[name] for name in names]
    found = _by_stem(folder / "masks")
    if set(names) != set(found):
        alone = sorted(set(names) ^ set(found))
        raise ConfigError("E_DATA_PAIR", f"{alone[:3]} stand only in one of images/ and masks/ ({len(alone)} in all)", file=str(folder))
    files = [found[name] for name in names]
    maps = [pictures.read_labels(file) for file in files]
    for file, mask, image in zip(files, maps, seen, strict=True):
        if mask.shape != image.shape[:2]:
            raise ConfigError("E_DATA_MASK", f"{mask.shape[::-1]} px for a picture of {image.shape[1::-1]} px", file=str(file))
    return files, maps


def classified(folder: Path, size: int, known: Sequence[str] | None = None, seed: int = 0) -> Classified:
    """The classification set in the folder, or windows of `size` px cut from the segmentation set in it. Raises E_DATA_*, E_IMG_*."""
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        cut = crops(segmentation(folder, None if known is None else [name for name in known if name != GOOD]), size, seed)
        return cut if known is None else _as_known(cut, known, folder)
    return classification(folder, known)


def classification(folder: Path, known: Sequence[str] | None = None, *, most_side_px: int = 1024) -> Classified:
    """The classification set in the folder (pictures larger than `most_side_px` are made smaller).

    Raises E_DATA_OPEN, E_DATA_EMPTY, E_DATA_CLASS, E_IMG_*.
    """
    folder = folder / "images" if (folder / "images").is_dir() else folder
    _exists(folder)
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if len(classes) < (2 if known is None else 1):
        raise ConfigError("E_DATA_CLASS", f"{len(classes)} folders; at least two classes are needed, a folder each", file=str(folder))
    paths = [(path, k) for k, name in enumerate(classes) for path in _pictures(folder / name)]
    images, channels = _of_one_kind([_at_most(pictures.read(path), most_side_px) for path, _ in paths])
    names = tuple(f"{classes[k]}/{path.name}" for path, k in paths)
    data = Classified(names, images, np.array([k for _, k in paths], np.int64), classes, channels)
    return data if known is None else _as_known(data, known, folder)


def _as_known(data: Classified, known: Sequence[str], folder: Path) -> Classified:
    """The set with the numbers of the known classes. Raises E_DATA_CLASS for a class that is none of them."""
    if set(data.classes) - set(known):
        raise ConfigError("E_DATA_CLASS", f"classes {list(data.classes)}; the model knows {list(known)}", file=str(folder))
    number = np.array([list(known).index(name) for name in data.classes], np.int64)
    return replace(data, labels=number[data.labels], classes=tuple(known))


def pairs(folder: Path, known: Sequence[str] | None = None) -> Paired:
    """The set of pairs in the folder, sorted by name; `known` are classes without "good".

    Raises E_DATA_OPEN, E_DATA_EMPTY, E_DATA_PAIR, E_DATA_BOX, E_DATA_CLASS, E_IMG_*, E_LABELS.
    """
    place = folder / "images" if (folder / "images").is_dir() else folder
    found = _by_stem(place)
    names = tuple(sorted(stem.removesuffix("_test") for stem in found if stem.endswith("_test")))
    missing = [name for name in names if f"{name}_temp" not in found]
    if missing or not names:
        raise ConfigError("E_DATA_PAIR", f"no <id>_temp for {missing[:3]}" if missing else "no <id>_test.* here", file=str(place))
    boxes = tuple(read_boxes(folder / "annotations" / f"{name}.txt") for name in names)
    values = sorted({int(k) for b in boxes for k in b[:, 4]})
    if known is None:
        classes = _class_names(folder, values or [1], "E_DATA_BOX")
    else:
        classes, number = tuple(known), _numbers(folder, values, known)
        boxes = tuple(np.column_stack([b[:, :4], number[b[:, 4]]]) for b in boxes)
    images = tuple(pictures.read(found[f"{name}_test"], 1) for name in names)
    references = tuple(pictures.read(found[f"{name}_temp"], 1) for name in names)
    for name, image, reference in zip(names, images, references, strict=True):
        if image.shape != reference.shape:
            raise ConfigError("E_DATA_PAIR", f"{image.shape[::-1]} px against {reference.shape[::-1]} px", file=str(found[f"{name}_test"]))
    return Paired(names, images, references, boxes, classes)


def good(folder: Path) -> tuple[tuple[str, ...], tuple[Image, ...], int]:
    """(names, pictures, channels) of good parts in `good/` of the folder, or in the folder. Raises E_DATA_OPEN, _EMPTY, E_IMG_*."""
    paths = _pictures(folder / "good" if (folder / "good").is_dir() else folder)
    images, channels = _of_one_kind([pictures.read(path) for path in paths])
    return tuple(path.stem for path in paths), images, channels


@dataclass(frozen=True, slots=True)
class GoodAndBad:
    """Pictures uint8 (H, W) or (H, W, 3), whether each one is bad, and the mask uint8 (H, W) of what is bad where that is known."""

    names: tuple[str, ...]
    images: tuple[Image, ...]
    bad: NDArray[np.bool_]
    masks: tuple[Image | None, ...]
    channels: int


def good_and_bad(folder: Path, channels: int) -> GoodAndBad:
    """Good and bad parts in the folder (see the module), all with so many channels. Raises E_DATA_*, E_IMG_*."""
    masks = {path.stem: path for path in _pictures(folder / "masks")} if (folder / "masks").is_dir() else {}
    flat = (folder / "images").is_dir()
    _exists(folder)
    among = [folder / "images"] if flat else sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "masks")
    paths = [path for place in among for path in _pictures(place)]
    if not paths:
        raise ConfigError("E_DATA_EMPTY", "no folders with pictures: good/ and others, or images/ and masks/", file=str(folder))
    images, found, bad = [], [], []
    for path in paths:
        image = pictures.read(path, channels)
        mask = np.zeros(image.shape[:2], np.uint8)
        if path.stem in masks and path.parent.name != "good":
            mask = pictures.read_marked(masks[path.stem])
            if mask.shape != image.shape[:2]:
                raise ConfigError("E_DATA_MASK", f"{mask.shape[::-1]} px, not {image.shape[1::-1]}", file=str(masks[path.stem]))
        images.append(image)
        bad.append(bool(mask.any()) if flat else path.parent.name != "good")
        found.append(mask if mask.any() or not bad[-1] else None)
    names = tuple(path.stem if flat else f"{path.parent.name}/{path.stem}" for path in paths)
    return GoodAndBad(names, tuple(images), np.array(bad, np.bool_), tuple(found), channels)


def crops(
    data: Segmented, size: int, seed: int, *, most_per_defect: int = 2, against: Sequence[Sequence[tuple[int, int]]] = ()
) -> Classified:
    """A classification set cut from a segmentation set: windows of `size` px on each defect, and "good" ones.

    The window lies as a check lays it: around one pixel of the defect, at the picture's own scale. `against`: for each picture,
    (row, column) of further good places, such as those that another network takes for defects.
    """
    random = np.random.default_rng(seed)
    windows: list[tuple[str, Image, int, int]] = []
    half = size // 2
    for group, (name, image, mask) in enumerate(zip(data.names, data.images, data.masks, strict=True)):
        padded = cv2.copyMakeBorder(image, half, size - half, half, size - half, cv2.BORDER_REPLICATE)
        places = [*_places(mask, half, random, most_per_defect), *((*at, 0) for at in (against[group] if against else ()))]
        for number, (row, column, label) in enumerate(places):
            window = np.asarray(padded[row : row + size, column : column + size], np.uint8).copy()
            windows.append((f"{name}-{number}", window, label, group))
    names, images, labels, groups = zip(*windows, strict=True)
    classes = (GOOD, *data.classes)
    return Classified(names, images, np.array(labels, np.int64), classes, data.channels, np.array(groups, np.int64))


def _places(mask: Image, half: int, random: np.random.Generator, most: int) -> Iterator[tuple[int, int, int]]:
    """(row, column, class) of window centres: on each defect, and where no defect is within `half`."""
    count, labels = cv2.connectedComponents((mask > 0).astype(np.uint8))
    for label in range(1, count):
        rows, columns = np.nonzero(labels == label)
        for pick in random.integers(len(rows), size=most):
            yield int(rows[pick]), int(columns[pick]), int(mask[rows[pick], columns[pick]])
    near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((2 * half + 1, 2 * half + 1), np.uint8))
    rows, columns = np.nonzero(near == 0)
    for pick in random.integers(len(rows), size=most + 1) if len(rows) else ():
        yield int(rows[pick]), int(columns[pick]), 0


def split(
    count: int, share: float, seed: int, labels: Sequence[int] | NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices kept for training, indices held out): `share` of each label, at least one of each held out where there are two or more."""
    random = np.random.default_rng(seed)
    kept, out = [], []
    of = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    for label in np.unique(of):
        mine = random.permutation(np.nonzero(of == label)[0])
        held = min(len(mine) - 1, max(1, round(share * len(mine))))
        out.append(mine[:held])
        kept.append(mine[held:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(out))


def _exists(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError("E_DATA_OPEN", "no such folder", file=str(folder))
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError("E_DATA_OPEN", "this folder cannot be read: permission denied", file=str(folder))


def _pictures(folder: Path) -> list[Path]:
    """The picture files of the folder, sorted. Raises E_DATA_OPEN, E_DATA_EMPTY, E_DATA_SIZE."""
    _exists(folder)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in pictures.SUFFIXES)
    if not found:
        raise ConfigError("E_DATA_EMPTY", f"no pictures ({', '.join(pictures.SUFFIXES)})", file=str(folder))
    if len(found) > MOST_PICTURES:
        raise ConfigError("E_DATA_SIZE", f"{len(found)} pictures; at most {MOST_PICTURES}", file=str(folder))
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    """The picture files of the folder by their stems. Raises as `_pictures`, and E_DATA_PAIR for two of one stem."""
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        if path.stem in found:
            raise ConfigError("E_DATA_PAIR", f"{found[path.stem].name} and {path.name} have one stem; keep one of them", file=str(folder))
        found[path.stem] = path
    return found


def _of_one_kind(images: Sequence[Image]) -> tuple[tuple[Image, ...], int]:
    """The pictures all grey when every one is grey in truth, else all in colour; and the number of channels."""
    grey = all(image.ndim == 2 or bool((np.ptp(image, axis=2) == 0).all()) for image in images)
    channels = 1 if grey else 3
    return tuple(
        np.ascontiguousarray(image[:, :, 0]) if grey and image.ndim == 3 else pictures.as_channels(image, channels) for image in images
    ), channels


def _at_most(image: Image, side_px: int) -> Image:
    """The picture, made smaller where its longer side has more than `side_px`."""
    ratio = side_px / max(image.shape[:2])
    return image if ratio >= 1 else np.asarray(cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA), np.uint8)


def _class_names(folder: Path, values: Sequence[int], code: str) -> tuple[str, ...]:
    """The names of the classes 1…K up to the highest of the values, made up where no file names any; `code` for a value without a name."""
    stated, count = _stated_names(folder), max(values)
    if stated is None:
        return ("defect",) if count == 1 else tuple(f"class-{k}" for k in range(1, count + 1))
    if nameless := [k for k in values if k not in stated]:
        text = f"class {nameless[0]} has no name; there are " + ", ".join(f"{k} {name}" for k, name in sorted(stated.items()))
        raise ConfigError(code, text, file=str(folder))
    return tuple(stated.get(k, f"class-{k}") for k in range(1, count + 1))


def _numbers(folder: Path, values: Sequence[int], known: Sequence[str]) -> NDArray[np.int64]:
    """(highest value + 1,): the number 1…K among the `known` classes of each of the folder's values. Raises E_DATA_CLASS."""
    stated = _stated_names(folder) or dict(enumerate(known, 1))
    number = np.zeros(max(values, default=0) + 1, np.int64)
    for k in values:
        if stated.get(k) not in known:
            what = f"class {k}" + (f", {stated[k]!r}" if k in stated else "")
            raise ConfigError("E_DATA_CLASS", f"{what}: the model knows {list(known)}", file=str(folder))
        number[k] = list(known).index(stated[k]) + 1
    return number


def _listed(values: set[int]) -> str:
    """The first values, and how many there are where they are many."""
    shown = ", ".join(str(v) for v in sorted(values)[:6])
    return shown if len(values) <= 6 else f"{shown}, … ({len(values)} values)"


def _stated_names(folder: Path) -> dict[int, str] | None:
    """The names of the classes by number in classes.txt, else in a COCO file, else YOLO's where it has the masks; None without any."""
    text = folder / "classes.txt"
    if text.is_file():
        names = [line.strip() for line in text.read_text("utf-8", "replace").splitlines() if line.strip()]
        if wrong := models.wrong_names(names):
            raise ConfigError("E_LABELS", wrong, file=str(text))
        return dict(enumerate(names, 1))
    if file := outlines.coco_file(folder):
        return dict(outlines.coco(file)["categories"])
    return None if (folder / "masks").is_dir() or not (folder / "labels").is_dir() else outlines.yolo_names(folder)


def read_boxes(path: Path) -> NDArray[np.int64]:
    """The boxes (n, 5) in the file, separated by spaces or commas; empty where there is no file. Raises E_DATA_BOX with the line."""
    if not path.is_file():
        return np.zeros((0, 5), np.int64)
    rows = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        fields = line.replace(",", " ").split()
        if not fields:
            continue
        try:
            x1, y1, x2, y2, label = (int(field) for field in fields)
        except ValueError as error:
            raise ConfigError("E_DATA_BOX", f"{line[:60]!r}; five whole numbers x1 y1 x2 y2 class", file=str(path), line=number) from error
        if x1 >= x2 or y1 >= y2 or label < 1:
            raise ConfigError("E_DATA_BOX", f"{line[:60]!r}; x1 < x2, y1 < y2 and class ≥ 1", file=str(path), line=number)
        rows.append((x1, y1, x2, y2, label))
    return np.array(rows, np.int64).reshape(-1, 5)


Set = TypeVar("Set", Segmented, Classified, Paired, GoodAndBad)


def part(data: Set, indices: Sequence[int] | NDArray[np.int64]) -> Set:
    """The pictures of these indices, with all that belongs to them."""
    chosen: dict[str, Any] = {}
    for each in fields(data):
        column = getattr(data, each.name)
        if isinstance(column, np.ndarray):
            chosen[each.name] = column[np.asarray(indices, np.int64)]
        elif isinstance(column, tuple) and each.name != "classes":
            chosen[each.name] = tuple(column[int(i)] for i in indices)
    return replace(data, **chosen)
