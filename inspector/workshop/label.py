"""First masks of parts in photographs, to correct by hand instead of drawing them: edges, colours, a model, or what they agree on.

canny      closed chains of strong edges, filled
grabcut    colours of the frame's rim against those inside (Rother et al., 2004)
mirror     the mean of GrabCut's mask and of the one of the mirrored picture: where the two disagree the answer hangs on chance
model      where a segmentation model sees any class
combined   their mean: canny once, mirror twice and, where there is one, the model twice
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.neural import model as models
from inspector.neural import pictures
from inspector.records import ConfigError, Image
from inspector.workshop import evaluate, plots

Method = Literal["canny", "grabcut", "mirror", "model", "combined"]
Mask = NDArray[np.float32]
"""(H, W) of 0…1: how sure it is that here is the part."""

WORK_PX = 400
RIM_RATIO = 0.04
LEAST_RATIO = 0.005
"""A piece of less than this share of the picture is no part."""


def label(images: Sequence[Path], out: Path, method: Method, model: models.Model | None) -> Iterator[dict[str, Any]]:
    """For each picture masks/STEM.png (0 or 255), cut/STEM.png (the part alone, with alpha) and a place on sheet.png, written at the end.

    Gives {"image", "mask", "cut", "share"}; share is the part's share of the picture. Raises E_IMG_*, E_LABEL_MODEL, E_DATA_PAIR.
    """
    if method == "model" and model is None:
        raise ConfigError("E_LABEL_MODEL", "the method needs a model of segmentation", key="--model")
    stems = [path.stem for path in images]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ConfigError(
            "E_DATA_PAIR", f"several pictures are named {twice[:3]}; their masks would overwrite each other", file=str(images[0].parent)
        )
    for folder in ("masks", "cut"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    shown = []
    for path in images:
        image = pictures.read(path)
        mask = np.asarray(solid(masks_of(image, method, model)) * 255, np.uint8)
        files = {name: out / name / f"{path.stem}.png" for name in ("masks", "cut")}
        cv2.imwrite(str(files["masks"]), mask)
        cv2.imwrite(str(files["cut"]), np.dstack([pictures.as_channels(image, 3), mask]))
        shown.append(plots.overlay(image, mask // 255, ["part"]))
        yield {"image": str(path), "mask": str(files["masks"]), "cut": str(files["cut"]), "share": round(float((mask > 0).mean()), 4)}
    plots.sheet(out / "sheet.png", shown, stems)


def masks_of(image: Image, method: Method, model: models.Model | None) -> Mask:
    """The soft mask (H, W) by one method."""
    if method == "model" and model is not None:
        return _by_model(image, model)
    if method == "combined":
        seen = [_small(image, canny), *[_small(image, mirror)] * 2, *([_by_model(image, model)] * 2 if model is not None else ())]
        return np.asarray(np.mean(seen, axis=0), np.float32)
    return _small(image, {"canny": canny, "grabcut": grabcut, "mirror": mirror}[method])


def canny(image: Image) -> Mask:
    """Edges as steep as Otsu's threshold of all gradients, closed, their outer outlines filled."""
    grey = cv2.GaussianBlur(pictures.as_channels(image, 1), (5, 5), 0)
    dx, dy = (cv2.Sobel(grey, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    steep = np.minimum((np.abs(dx).astype(np.int32) + np.abs(dy)) // 4, 255).astype(np.uint8)
    strong = 4 * cv2.threshold(steep, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    edges = cv2.Canny(dx, dy, max(strong / 2, 30.0), max(strong, 60.0))
    closed = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    mask = np.zeros(grey.shape, np.uint8)
    cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), np.float32)


def grabcut(image: Image) -> Mask:
    """GrabCut from the inner rectangle; the rim is background. The same picture gives the same mask."""
    seen = np.ascontiguousarray(pictures.as_channels(image, 3))
    rim = [max(1, round(RIM_RATIO * side)) for side in seen.shape[:2]]
    box = (rim[1], rim[0], seen.shape[1] - 2 * rim[1], seen.shape[0] - 2 * rim[0])
    mask, back, front = np.zeros(seen.shape[:2], np.uint8), np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(seen, mask, box, back, front, 4, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # one colour only: nothing stands out
        return np.zeros(seen.shape[:2], np.float32)
    return np.asarray((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD), np.float32)


def mirror(image: Image) -> Mask:
    """The mean of GrabCut's mask and of the mirrored picture's."""
    return np.asarray((grabcut(image) + grabcut(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]) / 2, np.float32)


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
