"""First masks of parts in photographs, to correct by hand instead of drawing them: edges, colours, a model, or what they agree on.

canny      closed chains of strong edges, filled
grabcut    colours of the frame's rim against those inside (Rother et al., 2004)
mirror     the mean of GrabCut's mask and of the one of the mirrored picture: where the two disagree the answer hangs on chance
model      where a segmentation model sees any class
combined   their mean: canny once, mirror twice and, where there is one, the model twice

With rough boxes around what is meant (a defect, a part among others) each method works in the window around each box and marks nothing
beyond it: GrabCut begins with the box, and combined is canny, mirror, the model and the contrast to what surrounds the box, weighed with
how near a place is to the middle of the box, because people draw boxes around things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.neural import model as models
from inspector.neural import pictures
from inspector.records import ConfigError, Image
from inspector.workshop import datasets, evaluate, places, plots

Method = Literal["canny", "grabcut", "mirror", "model", "combined"]
Mask = NDArray[np.float32]
"""(H, W) of 0…1: how sure it is that here is the part."""

WORK_PX = 400
WINDOW_PX, AROUND_RATIO = 160, 0.6
"""The longer side of the window around a box as it is worked on, and how far it reaches beyond the box, by the box's longer side."""
NEARNESS = 0.4
"""The weight of how near a place is to the middle of the box; measured on photographs of pitting, where 0.3 to 0.5 do as well."""
RIM_RATIO = 0.04
CLEAR = 5.0
"""Two colours are so many times as far apart as each is wide."""
LEAST_RATIO = 0.005
"""A piece of less than this share of the picture is no part."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a person has said of the pictures.

    `boxes`: a folder with STEM.txt (`x1 y1 x2 y2 class` a line), or with masks STEM.png, around whose regions boxes are drawn, somewhat too
    large. `truth`: a folder with the true masks STEM.png, to compare with.
    """

    boxes: Path | None = None
    truth: Path | None = None


def label(
    images: Sequence[Path], out: Path, method: Method, model: models.Model | None, hints: Hints | None = None
) -> Iterator[dict[str, Any]]:
    """For each picture masks/STEM.png (0 or 255), cut/STEM.png (the part alone, with alpha) and a place on sheet.png, written at the end.

    Gives {"image", "mask", "cut", "share"}, with a truth also "iou"; share is the part's share of the picture. Raises E_OUT, E_IMG_*,
    E_LABEL_MODEL, E_DATA_PAIR, E_DATA_BOX, E_DATA_MASK.
    """
    hints = hints or Hints()
    if method == "model" and model is None:
        raise ConfigError("E_LABEL_MODEL", "the method needs a model of segmentation", key="--model")
    stems = [path.stem for path in images]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ConfigError(
            "E_DATA_PAIR", f"several pictures are named {twice[:3]}; their masks would overwrite each other", file=str(images[0].parent)
        )
    for folder in ("masks", "cut"):
        places.folder(out / folder)
    shown = []
    for path in images:
        image = pictures.read(path)
        if hints.boxes is None:
            found = solid(masks_of(image, method, model))
        else:
            found = in_boxes(image, _boxes_of(hints.boxes, path.stem, image.shape[:2]), method, model)
        mask = np.asarray(found * 255, np.uint8)
        files = {name: out / name / f"{path.stem}.png" for name in ("masks", "cut")}
        pictures.write(files["masks"], mask)
        pictures.write(files["cut"], np.dstack([pictures.as_channels(image, 3), mask]))
        shown.append(plots.overlay(image, mask // 255, ["part"]))
        said = {"image": str(path), "mask": str(files["masks"]), "cut": str(files["cut"]), "share": round(float(found.mean()), 6)}
        yield said if hints.truth is None else {**said, "iou": round(_iou(found, _mask_of(hints.truth, path.stem, image.shape[:2])), 4)}
    plots.sheet(out / "sheet.png", shown, stems)


def mean_iou(found: Sequence[float]) -> dict[str, Any]:
    """{"pictures", "miou", "interval"} of the pictures' IoU: 95 %, by drawing the pictures again (1,000 draws, seed 0)."""
    draws = np.random.default_rng(0).choice(np.asarray(found), (1000, len(found))).mean(axis=1)
    return {
        "pictures": len(found),
        "miou": round(float(np.mean(found)), 4),
        "interval": [round(float(q), 4) for q in np.quantile(draws, [0.025, 0.975])],
    }


def _iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    either = int((found | truth).sum())
    return float((found & truth).sum()) / either if either else 1.0


def _mask_of(folder: Path, stem: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    path = folder / f"{stem}.png"
    mask = pictures.read(path, 1)
    if mask.shape != shape:
        raise ConfigError("E_DATA_MASK", f"{mask.shape[::-1]} px for a picture of {shape[::-1]} px", file=str(path))
    return np.asarray(mask > 0, np.bool_)


def _boxes_of(folder: Path, stem: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """(n, 4) x0 y0 x1 y1 for a picture (H, W); see `Hints`."""
    text = folder / f"{stem}.txt"
    if text.is_file():
        return datasets.read_boxes(text)[:, :4].clip(0, [*shape[::-1], *shape[::-1]])
    _, _, stats, _ = cv2.connectedComponentsWithStats(_mask_of(folder, stem, shape).astype(np.uint8))
    random = np.random.default_rng(0)
    boxes = []
    for x, y, w, h, _ in stats[1:]:
        beyond = 1 + random.uniform(0.05, 0.25, 4) * [w, h, w, h]
        boxes.append((x - beyond[0], y - beyond[1], x + w + beyond[2], y + h + beyond[3]))
    return np.array(boxes, np.float64).reshape(-1, 4).round().astype(np.int64).clip(0, [*shape[::-1], *shape[::-1]])


def in_boxes(image: Image, boxes: NDArray[np.int64], method: Method, model: models.Model | None) -> NDArray[np.bool_]:
    """The mask (H, W) of what is meant by the boxes (n, 4) x0 y0 x1 y1."""
    mask = np.zeros(image.shape[:2], np.bool_)
    whole = _by_model(image, model) if model is not None and method in ("model", "combined") else None
    for x0, y0, x1, y1 in boxes:
        reach = int(AROUND_RATIO * max(x1 - x0, y1 - y0)) + 4
        place = (slice(max(0, y0 - reach), y1 + reach), slice(max(0, x0 - reach), x1 + reach))
        window = pictures.as_channels(image, 3)[place]
        ratio = WINDOW_PX / max(window.shape[:2])
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
        small = np.asarray(cv2.resize(window, None, fx=ratio, fy=ratio, interpolation=how), np.uint8)
        corners = np.array([x0 - place[1].start, y0 - place[0].start, x1 - place[1].start, y1 - place[0].start])
        left, top, right, bottom = (int(v) for v in (corners * ratio).round())
        inside = np.zeros(small.shape[:2], np.float32)
        inside[top:bottom, left:right] = 1
        seen = None if whole is None else cv2.resize(whole[place], small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        soft = _in_window(small, (left, top, right, bottom), method, None if seen is None else np.asarray(seen, np.float32)) * inside
        mask[place] |= cv2.resize(soft, window.shape[1::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
    return mask


def _in_window(window: Image, box: tuple[int, int, int, int], method: Method, seen: Mask | None) -> Mask:
    """The soft mask of a window (H, W, 3) in which the box x0 y0 x1 y1 lies; `seen` is the model's."""
    if method == "model" and seen is not None:
        return seen
    if method == "canny":
        return canny(window)
    if method == "grabcut":
        return grabcut(window, box)
    if method == "mirror":
        return mirror(window, box)
    said = [canny(window), mirror(window, box), contrast(window, box), *([seen] * 3 if seen is not None else ())]
    (x0, y0, x1, y1), (rows, columns) = box, np.ogrid[: window.shape[0], : window.shape[1]]
    across, down = (columns - (x0 + x1) / 2) / max(x1 - x0, 1), (rows - (y0 + y1) / 2) / max(y1 - y0, 1)
    near = np.exp(-2.4 * (across**2 + down**2))
    return np.asarray(cv2.GaussianBlur((1 - NEARNESS) * np.mean(said, axis=0) + NEARNESS * near, (0, 0), 2), np.float32)


def contrast(window: Image, box: tuple[int, int, int, int]) -> Mask:
    """What differs from the colours around the box by more than Otsu's threshold of these differences in the box."""
    lab = cv2.cvtColor(cv2.GaussianBlur(window, (0, 0), 1.2), cv2.COLOR_BGR2LAB).astype(np.float32)
    inside = np.zeros(window.shape[:2], np.bool_)
    inside[box[1] : box[3], box[0] : box[2]] = True
    around = lab[~inside] if not inside.all() else lab.reshape(-1, 3)
    middle = np.median(around, axis=0)
    spread = 1.48 * np.median(np.abs(around - middle), axis=0) + 3.0
    apart = (20 * np.sqrt((((lab - middle) / spread) ** 2).sum(axis=2))).clip(0, 255).astype(np.uint8)
    if not inside.any():
        return np.zeros(inside.shape, np.float32)
    threshold = cv2.threshold(apart[inside].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    return np.asarray((apart > threshold) & inside, np.float32)


def masks_of(image: Image, method: Method, model: models.Model | None) -> Mask:
    """The soft mask (H, W) by one method."""
    if method == "model" and model is not None:
        return _by_model(image, model)
    if method == "combined":
        seen = [
            _small(image, partial(canny, whole=True)),
            *[_small(image, mirror)] * 2,
            *([_by_model(image, model)] * 2 if model is not None else ()),
        ]
        return np.asarray(np.mean(seen, axis=0), np.float32)
    by_name: dict[str, Callable[[Image], Mask]] = {"canny": partial(canny, whole=True), "grabcut": grabcut, "mirror": mirror}
    return _small(image, by_name[method])


def canny(image: Image, *, whole: bool = False) -> Mask:
    """Edges as steep as Otsu's threshold of all gradients, closed, their outer outlines filled.

    In a `whole` picture where that finds nothing, the border counts as an edge between the ends of an outline that meets it.
    """
    grey = cv2.GaussianBlur(pictures.as_channels(image, 1), (5, 5), 0)
    dx, dy = (cv2.Sobel(grey, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    steep = np.minimum((np.abs(dx).astype(np.int32) + np.abs(dy)) // 4, 255).astype(np.uint8)
    strong = 4 * cv2.threshold(steep, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    edges = cv2.Canny(dx, dy, max(strong / 2, 30.0), max(strong, 60.0))
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    mask = _filled(np.asarray(closed, np.uint8))
    return mask if not whole or solid(mask).any() else _filled(_joined_along_the_border(np.asarray(closed, np.uint8)))


def _filled(edges: Image) -> Mask:
    """The inside of the outer outlines, without what is thin."""
    outlines, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros(edges.shape, np.uint8)
    cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), np.float32)


def _joined_along_the_border(edges: Image) -> Image:
    """Edges (H, W) whose ends at the picture's border are joined along it, all around but for the longest way without an end."""
    height, width = edges.shape
    count, labels = cv2.connectedComponents(edges)
    down, across = np.arange(height - 1), np.arange(width - 1)
    rows = np.concatenate([np.zeros_like(across), down, np.full_like(across, height - 1), down[::-1] + 1])
    columns = np.concatenate([across, np.full_like(down, width - 1), across[::-1] + 1, np.zeros_like(down)])
    around, joined = labels[rows, columns], edges.copy()
    for number in range(1, count):
        met = np.flatnonzero(around == number)
        if len(met) < 2:
            continue
        ways = np.diff(np.append(met, met[0] + len(around)))
        begin = met[(int(ways.argmax()) + 1) % len(met)]
        along = (begin + np.arange(len(around) - int(ways.max()) + 1)) % len(around)
        joined[rows[along], columns[along]] = 255
    return joined


def grabcut(image: Image, box: tuple[int, int, int, int] | None = None) -> Mask:
    """GrabCut from the box x0 y0 x1 y1 (None: all but the rim); what is outside is background. The same picture gives the same mask.

    A part that touches the rim is of its colours: where nothing is found without a box, it begins with the more central of two clear ones.
    """
    seen = np.ascontiguousarray(pictures.as_channels(image, 3))
    height, width = seen.shape[:2]
    rim = [max(1, round(RIM_RATIO * side)) for side in (height, width)]
    x0, y0, x1, y1 = box or (rim[1], rim[0], width - rim[1], height - rim[0])
    mask, back, front = np.zeros(seen.shape[:2], np.uint8), np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(seen, mask, (x0, y0, max(1, x1 - x0), max(1, y1 - y0)), back, front, 4, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # one colour only: nothing stands out
        return np.zeros(seen.shape[:2], np.float32)
    found = np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), np.float32)
    if box is not None or solid(found).any() or (central := _central(seen, rim)) is None:
        return found
    mask = np.where(central, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    cv2.setRNGSeed(0)
    cv2.grabCut(seen, mask, (0, 0, width, height), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    return np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), np.float32)


def _central(image: Image, rim: Sequence[int]) -> NDArray[np.bool_] | None:
    """Of the two colours of a picture (H, W, 3), where (H, W) the one is of which less lies on the rim; None where they are not clear."""
    colours = image.reshape(-1, 3).astype(np.float32)
    apart = colours - colours.mean(axis=0)
    first = (apart @ np.linalg.eigh(apart.T @ apart)[1][:, -1] > 0).astype(np.int32)
    if not 0 < first.sum() < len(first):
        return None
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.1)
    spread, labels, middles = cv2.kmeans(colours, 2, first[:, None], stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    if np.linalg.norm(middles[0] - middles[1]) < CLEAR * np.sqrt(spread / len(colours)):
        return None
    group = np.asarray(labels.reshape(image.shape[:2]) == 1, np.bool_)
    on_rim = np.ones(group.shape, np.bool_)
    on_rim[rim[0] : -rim[0], rim[1] : -rim[1]] = False
    return group if group[on_rim].mean() / group.mean() < (~group)[on_rim].mean() / (~group).mean() else ~group


def mirror(image: Image, box: tuple[int, int, int, int] | None = None) -> Mask:
    """The mean of GrabCut's mask and of the mirrored picture's."""
    width = image.shape[1]
    turned = None if box is None else (width - box[2], box[1], width - box[0], box[3])
    return np.asarray((grabcut(image, box) + grabcut(np.ascontiguousarray(image[:, ::-1]), turned)[:, ::-1]) / 2, np.float32)


def solid(soft: Mask) -> NDArray[np.bool_]:
    """The mask (H, W) of what is at least half sure: without crumbs, small holes filled."""
    mask = (soft >= 0.5).astype(np.uint8)
    least = LEAST_RATIO * mask.size
    for value in (1, 0):  # crumbs first, then holes
        count, labels, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=4)
        small = np.zeros(count, np.bool_)
        small[1:] = stats[1:, cv2.CC_STAT_AREA] < least
        mask[small[labels]] = 1 - value
    return mask > 0


def _by_model(image: Image, model: models.Model) -> Mask:
    return np.asarray(evaluate.predict_maps(model, image)[0] > 0, np.float32)


def _small(image: Image, method: Callable[[Image], Mask]) -> Mask:
    """The method on the picture made smaller, its mask as large as the picture."""
    ratio = WORK_PX / max(image.shape[:2])
    if ratio >= 1:
        return method(image)
    small = np.asarray(cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(method(small), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
