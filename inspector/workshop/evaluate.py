"""How good a model is on data it has not seen, with intervals: figures come from counts per picture, so that pictures can be drawn again.

Intervals are 95 %: Wilson's for ratios of independent pictures, the bootstrap over pictures (1,000 draws, seed 0) for everything else, of a
classification within each class. A draw without a class says nothing of it: means over classes take its figure of all pictures then. Few
pictures that are all alike say little, but drawing them again would never show it: what is the mean of ratios has no narrower an interval
than Wilson's of these ratios give together (Zou and Donner, 2008), and a share of found defects none than Wilson's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.checks import anomaly as strange
from inspector.checks import compare, surface
from inspector.checks.classify import fit
from inspector.neural import model as models
from inspector.neural.pictures import as_channels
from inspector.records import Image
from inspector.workshop import datasets
from inspector.workshop.datasets import Classified, GoodAndBad, Paired, Segmented

DRAWS = 1000
LEAST_PX = 4
"""A group of fewer pixels is neither a true defect nor a false one."""

Floats2D = NDArray[np.float64]


def confusion(truth: NDArray[Any], found: NDArray[Any], size: int) -> NDArray[np.int64]:
    """(size, size) counts, truth down, found across."""
    return np.bincount(truth.ravel().astype(np.int64) * size + found.ravel(), minlength=size * size).reshape(size, size)


def ious(counts: NDArray[Any]) -> Floats2D:
    """Intersection over union (size,) of each class by a confusion matrix (…, size, size); NaN where a class is nowhere."""
    both = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    either = counts.sum(axis=-1) + counts.sum(axis=-2) - both
    ratio: Floats2D = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    return ratio


def predict_maps(model: models.Model, image: Image) -> tuple[Image, Image]:
    """(class_map, score_map) uint8 (H, W) of a whole picture, as the check `surface` makes them."""
    image = np.ascontiguousarray(as_channels(image, model.card.input.channels))
    return surface.run(image, model, surface.grid_of(np.ones(image.shape[:2], np.bool_), model.card))


@dataclass(frozen=True, slots=True)
class Counts:
    """What pictures gave, one row each: confusion (n, K+1, K+1) of the likeliest classes, and of the masks that `predict` writes; score
    histograms of good and bad pixels (n, 256); per true region, histograms as shares, summed (n, 256), and how many (n,); found and all
    true defects by class (n, K); false detections (n,).
    """

    confusion: NDArray[np.int64]
    written: NDArray[np.int64]
    good: NDArray[np.int64]
    bad: NDArray[np.int64]
    regions: Floats2D
    region_count: NDArray[np.int64]
    found: NDArray[np.int64]
    defects: NDArray[np.int64]
    false: NDArray[np.int64]


def measure(model: models.Model, folder: Path) -> tuple[Segmented | Classified | Paired | GoodAndBad, dict[str, Any]]:
    """The data of the model's kind in the folder, of which some of its classes are enough, and its figures. Raises E_DATA_*, E_IMG_*."""
    known = tuple(model.card.classes)
    if model.card.task == "segmentation":
        segmented = datasets.segmentation(folder, known)
        return segmented, segmentation(model, segmented)
    if model.card.task == "compare":
        paired = datasets.pairs(folder, known[1:])
        return paired, boxes(model, paired)
    if model.card.task == "anomaly":
        mixed = datasets.good_and_bad(folder, model.card.input.channels)
        return mixed, anomaly(model, mixed)
    if model.card.task == "classification":
        classified = datasets.classified(folder, model.card.input.width, known)
        return classified, classification(model, classified)
    raise AssertionError(model.card.task)


def segmentation(model: models.Model, data: Segmented, *, intervals: bool = True) -> dict[str, Any]:
    """IoU of each class, mIoU, pixel AUROC, AP, PRO (to 30 % false positives), recall by class, false detections and ms a picture.

    "miou" and "iou_…" are of each pixel's likeliest class, whatever the card's thresholds; "mask_miou" and "mask_iou_…" of the masks that
    `inspector predict` writes: without the defects below their class's threshold.
    """
    begun = time.thread_time()
    maps = [predict_maps(model, image) for image in data.images]
    spent_ms = (time.thread_time() - begun) * 1e3 / len(maps)
    counts = _count(model, data, maps)
    whole = [ious(matrix.sum(axis=0))[1:] for matrix in (counts.confusion, counts.written)]

    def figures(weight: Floats2D) -> Floats2D:
        """(7 + 3K,) figures for pictures weighted (n,)."""
        each, masks = (ious(np.tensordot(weight, matrix, 1))[1:] for matrix in (counts.confusion, counts.written))
        good, bad = weight @ counts.good, weight @ counts.bad
        recall = np.divide(
            weight @ counts.found, weight @ counts.defects, out=np.full(len(each), np.nan), where=weight @ counts.defects > 0
        )
        defects = (weight @ counts.defects).sum()
        all_recall = (weight @ counts.found).sum() / defects if defects else np.nan
        pro = _pro(weight @ counts.regions, float(weight @ counts.region_count), good)
        means = [_mean(of, all_of) for of, all_of in zip((each, masks), whole, strict=True)]
        areas = [auroc(good, bad), average_precision(good, bad), pro]
        return np.array([*means, *areas, all_recall, weight @ counts.false / weight.sum(), *each, *masks, *recall])

    names = ["miou", "mask_miou", "pixel_auroc", "pixel_ap", "pro30", "defect_recall", "false_per_picture"]
    names += [f"{figure}_{c}" for figure in ("iou", "mask_iou", "recall") for c in data.classes]
    result = _with_intervals(names, figures, len(maps), intervals)
    if intervals:
        hits, truth = counts.found.sum(axis=0), counts.defects.sum(axis=0)
        for name, found, there in (
            ("defect_recall", hits.sum(), truth.sum()),
            *zip((f"recall_{c}" for c in data.classes), hits, truth, strict=True),
        ):
            if there:
                _widen(result[name], wilson(int(found), int(there)))
    return {"pictures": len(maps), "defects": int(counts.defects.sum()), **result, "ms_per_picture": round(spent_ms, 3)}


def classification(model: models.Model, data: Classified, *, intervals: bool = True) -> dict[str, Any]:
    """Accuracy, balanced accuracy, macro F1, F1, recall and precision of each class, the confusion matrix, ms a picture.

    Intervals of accuracy and of each class are Wilson's; that of F1 = 2J / (1 + J) is of J, the share of right pictures among those that
    are of the class or were called it.
    """
    begun = time.thread_time()
    answers = scores(model, data)
    spent_ms = (time.thread_time() - begun) * 1e3 / len(answers)
    return {**class_figures(answers, data, intervals=intervals), "ms_per_picture": round(spent_ms, 4)}


def class_figures(answers: NDArray[np.float32], data: Classified, *, intervals: bool = True) -> dict[str, Any]:
    """The figures of `classification` but for the time, of the scores (n, K)."""
    said, size = answers.argmax(axis=1), len(data.classes)
    counts = confusion(data.labels, said, size)
    right, truth, found = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    whole = _shares(counts)

    def figures(weight: Floats2D) -> Floats2D:
        matrix = np.bincount(data.labels * size + said, weights=weight, minlength=size * size).reshape(size, size)
        f1, recall, precision = _shares(matrix)
        return np.array([np.trace(matrix) / matrix.sum(), _mean(recall, whole[1]), _mean(f1, whole[0]), *f1, *recall, *precision])

    names = ["accuracy", "balanced_accuracy", "macro_f1"] + [f"{name}_{c}" for name in ("f1", "recall", "precision") for c in data.classes]
    result = {"pictures": len(answers), **_with_intervals(names, figures, len(answers), intervals, data.labels)}
    if intervals:
        ratios = {"f1": truth + found - right, "recall": truth, "precision": found}
        limits = {
            name: np.array([wilson(*each) if each[1] else (np.nan, np.nan) for each in zip(right, of, strict=True)])
            for name, of in ratios.items()
        }
        limits["f1"] = 2 * limits["f1"] / (1 + limits["f1"])
        for name, of in limits.items():
            for c, (low, high) in zip(data.classes, of, strict=True):
                result[f"{name}_{c}"]["interval"] = [_rounded(low), _rounded(high)]
        result["accuracy"]["interval"] = [_rounded(x) for x in wilson(int(right.sum()), len(said))]
        _widen(result["balanced_accuracy"], _of_mean(whole[1], limits["recall"]))
        _widen(result["macro_f1"], _of_mean(whole[0], limits["f1"]))
    return {**result, "confusion": counts.tolist()}


def _shares(matrix: NDArray[Any]) -> tuple[Floats2D, Floats2D, Floats2D]:
    """F1, recall and precision (size,) of each class by a confusion matrix; NaN where there is nothing to share."""
    right, truth, found = np.diag(matrix).astype(np.float64), matrix.sum(axis=1), matrix.sum(axis=0)
    f1, recall, precision = (
        np.divide(part, of, out=np.full(len(right), np.nan), where=of > 0)
        for part, of in ((2 * right, truth + found), (right, truth), (right, found))
    )
    return f1, recall, precision


def scores(model: models.Model, data: Classified) -> NDArray[np.float32]:
    """(n, K) of a classification model, one picture at a time, as the check `classify` sees them."""
    return np.concatenate([model.run(fit(image, model.card)[None])[0] for image in data.images])


def anomaly(model: models.Model, data: GoodAndBad, *, intervals: bool = True) -> dict[str, Any]:
    """AUROC of the pictures; the shares of good ones rejected and of bad ones found at the card's threshold (Wilson).

    Where masks are known: AUROC of the pixels and PRO. ms a picture.
    """
    begun = time.thread_time()
    maps = [strange.score_map(image, model) for image in data.images]
    spent_ms = (time.thread_time() - begun) * 1e3 / len(maps)
    scores = np.array([strange.score_of(each) for each in maps])
    rejected = scores > model.card.threshold(strange.CLASS)
    good, bad = (np.array([_histogram(np.array([s]), scores, 4096) for s in scores]) * of[:, None] for of in (~data.bad, data.bad))
    pixels = _places(data, maps)

    def figures(weight: Floats2D) -> Floats2D:
        found = [auroc(weight @ good, weight @ bad)]
        if pixels is not None:
            plain = weight @ pixels.good
            found += [auroc(plain, weight @ pixels.bad), _pro(weight @ pixels.regions, float(weight @ pixels.region_count), plain)]
        return np.array(found)

    names = ["image_auroc", *(("pixel_auroc", "pro30") if pixels is not None else ())]
    out = {"pictures": len(maps), "bad": int(data.bad.sum()), **_with_intervals(names, figures, len(maps), intervals)}
    for name, of in (("false_rejects", ~data.bad), ("found", data.bad)):
        count, hits = int(of.sum()), int(rejected[of].sum())
        ratio = round(hits / count, 4) if count else None
        low_high = [round(x, 4) for x in wilson(hits, count)] if count else [None, None]
        out[name] = {"value": ratio, "interval": low_high} if intervals else ratio
    return {**out, "ms_per_picture": round(spent_ms, 3)}


@dataclass(frozen=True, slots=True)
class _Pixels:
    """As in `Counts`, of pictures whose masks are known."""

    good: NDArray[np.int64]
    bad: NDArray[np.int64]
    regions: Floats2D
    region_count: NDArray[np.int64]


def _places(data: GoodAndBad, maps: Sequence[NDArray[np.float32]]) -> _Pixels | None:
    """The scores of good and bad pixels; None where no bad pixel is known."""
    if not any(mask is not None and mask.any() for mask in data.masks):
        return None
    every, nothing = np.concatenate([each.ravel() for each in maps]), np.zeros(256)
    rows: list[tuple[Any, ...]] = []
    for mask, coarse in zip(data.masks, maps, strict=True):
        if mask is None:
            rows.append((nothing, nothing, nothing, 0))
            continue
        fine = np.asarray(cv2.resize(coarse, mask.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        count, labels = cv2.connectedComponents(mask)
        regions = [_histogram(fine[labels == label], every, 256) / (labels == label).sum() for label in range(1, count)]
        good, bad = (_histogram(fine[part], every, 256) for part in (mask == 0, mask > 0))
        rows.append((good, bad, np.sum(regions, axis=0) if regions else nothing, len(regions)))
    return _Pixels(*(np.array(column) for column in zip(*rows, strict=True)))


def _histogram(scores: NDArray[Any], among: NDArray[Any], bins: int) -> Floats2D:
    """How many scores (n,) lie in each of so many steps from the lowest to the highest of `among`: (bins,)."""
    low, high = float(among.min()), float(among.max())
    steps = ((scores - low) * ((bins - 1) / max(high - low, 1e-9))).clip(0, bins - 1).astype(np.int64)
    return np.bincount(steps, minlength=bins).astype(np.float64)


def false_places(model: models.Model, data: Segmented, *, least_score: float = 0.3, most: int = 12) -> list[list[tuple[int, int]]]:
    """For each picture (row, column) of the surest detections that touch no true defect."""
    places = []
    for image, mask in zip(data.images, data.masks, strict=True):
        class_map, score_map = predict_maps(model, image)
        near = np.asarray(cv2.dilate((mask > 0).astype(np.uint8), np.ones((9, 9), np.uint8)), np.uint8)
        of = groups(class_map)
        found = [d for d in surface.defects(class_map, score_map, data.classes) if d.score >= least_score and not _touches(d, of, near)]
        places.append([d.at_px[::-1] for d in sorted(found, key=lambda d: -d.score)[:most]])
    return places


def calibrate(model: models.Model, data: Segmented, *, false_per_picture: float = 0.02) -> dict[str, float]:
    """For each class the lowest of 0.5, 0.55 … 0.95, 0.98 with at most so many false detections a picture on these pictures."""
    peaks: dict[str, list[float]] = {name: [] for name in data.classes}
    for image, mask in zip(data.images, data.masks, strict=True):
        class_map, score_map = predict_maps(model, image)
        near = np.asarray(cv2.dilate((mask > 0).astype(np.uint8), np.ones((9, 9), np.uint8)), np.uint8)
        of = groups(class_map)
        for defect in surface.defects(class_map, score_map, data.classes):
            if defect.area_px >= LEAST_PX and not _touches(defect, of, near):
                peaks[defect.class_name].append(defect.score)
    levels = np.append(np.arange(0.5, 0.96, 0.05), 0.98)
    allowed = false_per_picture * len(data.images) / len(data.classes)
    return {
        name: round(float(next((t for t in levels if sum(p >= t for p in found) <= allowed), levels[-1])), 2)
        for name, found in peaks.items()
    }


def look_thresholds(model: models.Model, data: Segmented) -> dict[str, float]:
    """For a first look, which must miss nothing: a quarter of what the least sure true defect of each class reaches here."""
    least = dict.fromkeys(data.classes, 1.0)
    for image, mask in zip(data.images, data.masks, strict=True):
        _, score_map = predict_maps(model, image)
        count, labels = cv2.connectedComponents((mask > 0).astype(np.uint8))
        for label in range(1, count):
            name = data.classes[int(np.bincount(mask[labels == label])[1:].argmax())]
            if (labels == label).sum() >= LEAST_PX:
                least[name] = min(least[name], float(score_map[labels == label].max()) / 255.0)
    return {name: round(max(0.25 * score, 0.01), 3) for name, score in least.items()}


def auroc(good: Floats2D, bad: Floats2D) -> float:
    """Area under the ROC of two histograms of scores (256,), ties counted by half."""
    below = np.cumsum(good) - good / 2
    return float((bad * below).sum() / max(good.sum() * bad.sum(), 1e-9)) if bad.sum() and good.sum() else float("nan")


def average_precision(good: Floats2D, bad: Floats2D) -> float:
    """Mean precision over recall, from the highest score down."""
    hits, misses = np.cumsum(bad[::-1]), np.cumsum(good[::-1])
    if not hits[-1]:
        return float("nan")
    precision = hits / np.maximum(hits + misses, 1e-9)
    return float((precision * bad[::-1]).sum() / hits[-1])


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a ratio."""
    p, n = right / count, count
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))


def _mean(each: Floats2D, whole: Floats2D) -> float:
    """The mean of the figures (K,) of a draw over the classes that have one in all pictures, `whole` (K,), which stands in for NaN."""
    return float(np.nanmean(np.where(np.isfinite(each), each, whole))) if np.isfinite(whole).any() else float("nan")


def _of_mean(values: Floats2D, limits: Floats2D) -> tuple[float, float]:
    """The interval of the mean of independent figures (K,) by their intervals (K, 2), those that are NaN left out."""
    known = np.isfinite(values)
    mean, apart = values[known].mean(), np.sqrt(((limits[known] - values[known, None]) ** 2).sum(axis=0)) / known.sum()
    return float(mean - apart[0]), float(mean + apart[1])


def _widen(figure: dict[str, Any], limits: tuple[float, float]) -> None:
    """Make the figure's interval no narrower than the limits."""
    low, high = figure["interval"]
    figure["interval"] = [_rounded(min(low, limits[0])), _rounded(max(high, limits[1]))]


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _pro(regions: Floats2D, count: float, good: Floats2D, most: float = 0.3) -> float:
    """Mean overlap of the true regions over the false positive rate from 0 to `most`, as a ratio (Bergmann et al., 2021)."""
    if not count or not good.sum():
        return float("nan")
    overlap = np.concatenate([[0.0], np.cumsum(regions[::-1]) / count])
    rate = np.concatenate([[0.0], np.cumsum(good[::-1]) / good.sum()])
    grid = np.linspace(0, most, 301)
    return float(np.trapezoid(np.interp(grid, rate, overlap), grid) / most)


def groups(class_map: Image) -> NDArray[np.int32]:
    """(H, W): 0, or the number of the defect that the pixel belongs to, as `surface.defects` groups them."""
    return np.asarray(cv2.connectedComponents((class_map > 0).astype(np.uint8), connectivity=8)[1], np.int32)


def kept_defects(model: models.Model, class_map: Image, score_map: Image) -> tuple[list[surface.Defect], Image]:
    """(defects of at least their class's threshold, the class map (H, W) without the other ones)."""
    found = surface.defects(class_map, score_map, model.card.classes)
    kept = [d for d in found if d.score >= model.card.threshold(d.class_name)]
    return kept, class_map if len(kept) == len(found) else np.where(_of(kept, groups(class_map)), class_map, np.uint8(0))


def _of(defects: Sequence[surface.Defect], of: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels (H, W) of these defects, by the `groups`."""
    theirs = np.zeros(int(of.max()) + 1, np.bool_)
    theirs[[of[d.at_px[::-1]] for d in defects]] = True
    return theirs[of]


def _touches(defect: surface.Defect, of: NDArray[np.int32], near: Image) -> bool:
    """Whether the found defect, of the `groups`, lies on a true one (dilated by 4 px)."""
    x, y, w, h = defect.box_px
    return bool((near[y : y + h, x : x + w] > 0)[of[y : y + h, x : x + w] == of[defect.at_px[::-1]]].any())


def _count(model: models.Model, data: Segmented, maps: Sequence[tuple[Image, Image]]) -> Counts:
    """One row for each picture; a defect is found when a detection of at least its class's threshold touches it."""
    size = len(data.classes)
    rows: list[tuple[Any, ...]] = []
    for mask, (class_map, score_map) in zip(data.masks, maps, strict=True):
        bad = mask > 0
        region_sum, region_count = np.zeros(256), 0
        found, defects = np.zeros(size, np.int64), np.zeros(size, np.int64)
        kept, written = kept_defects(model, class_map, score_map)
        large, of = [d for d in kept if d.area_px >= LEAST_PX], groups(class_map)
        wide = cv2.dilate(_of(large, of).astype(np.uint8), np.ones((9, 9), np.uint8))
        count, labels = cv2.connectedComponents(bad.astype(np.uint8))
        for label in range(1, count):
            mine = labels == label
            pixels = int(mine.sum())
            if pixels < LEAST_PX:
                continue
            k = int(np.bincount(mask[mine], minlength=size + 1)[1:].argmax())
            defects[k] += 1
            found[k] += bool(wide[mine].any())
            region_sum += np.bincount(score_map[mine], minlength=256) / pixels
            region_count += 1
        near = np.asarray(cv2.dilate(bad.astype(np.uint8), np.ones((9, 9), np.uint8)), np.uint8)
        false = sum(not _touches(d, of, near) for d in large)
        good_hist, bad_hist = (np.bincount(score_map[part], minlength=256) for part in (~bad, bad))
        matrices = (confusion(mask, each, size + 1) for each in (class_map, written))
        rows.append((*matrices, good_hist, bad_hist, region_sum, region_count, found, defects, false))
    return Counts(*(np.array(column) for column in zip(*rows, strict=True)))


def _with_intervals(
    names: Sequence[str], figures: Callable[[Floats2D], Floats2D], count: int, intervals: bool, labels: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """{name: value}, or {name: {"value", "interval"}} by drawing the pictures again, as many as there are of each label (count,)."""
    values = figures(np.ones(count))
    if not intervals:
        return {name: _rounded(v) for name, v in zip(names, values, strict=True)}
    random = np.random.default_rng(0)
    of = np.zeros(count, np.int64) if labels is None else labels
    members = [np.flatnonzero(of == label) for label in np.unique(of)]

    def drawn() -> Floats2D:
        weight = np.zeros(count)
        for those in members:
            weight[those] = random.multinomial(len(those), np.full(len(those), 1 / len(those)))
        return figures(weight)

    draws = np.array([drawn() for _ in range(DRAWS)])
    out: dict[str, Any] = {}
    for k, name in enumerate(names):
        column = draws[:, k][np.isfinite(draws[:, k])]
        low, high = np.quantile(column, [0.025, 0.975]) if len(column) else (np.nan, np.nan)
        out[name] = {"value": _rounded(values[k]), "interval": [_rounded(low), _rounded(high)]}
    return out


def overlaps(a: Floats2D, b: Floats2D) -> Floats2D:
    """Intersection over union (n,) of boxes x0 y0 x1 y1, row by row."""
    w = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    h = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    both = w.clip(0) * h.clip(0)
    areas = [(c[:, 2] - c[:, 0]).clip(0) * (c[:, 3] - c[:, 1]).clip(0) for c in (a, b)]
    ratio: Floats2D = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    return ratio


def detect(model: models.Model, data: Paired, least_score: float = 0.02) -> list[list[compare.Difference]]:
    """What the model finds in each pair, down to a low score, as the check `compare` does it."""
    return [compare.compared(model, image, reference, least_score) for image, reference in zip(data.images, data.references, strict=True)]


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections (n,) by falling score: pair, class (1…K), score, and whether they hit; `truth` (pairs, K) counts the boxes."""

    pair: NDArray[np.int64]
    label: NDArray[np.int64]
    score: Floats2D
    hit: NDArray[np.bool_]
    truth: NDArray[np.int64]


def match(found: Sequence[Sequence[compare.Difference]], data: Paired, least_iou: float) -> Matches:
    """Each detection takes the box of its class that it overlaps most, if by `least_iou` and not yet taken by a surer one."""
    rows = []
    truth = np.zeros((len(data.names), len(data.classes)), np.int64)
    for pair, (ds, boxes) in enumerate(zip(found, data.boxes, strict=True)):
        truth[pair] = np.bincount(boxes[:, 4], minlength=1 + len(data.classes))[1:]
        free = np.ones(len(boxes), np.bool_)
        for d in sorted(ds, key=lambda d: -d.score):
            k = data.classes.index(d.class_name) + 1
            x, y, w, h = d.box_px
            of = np.where(
                free & (boxes[:, 4] == k), overlaps(np.tile([x, y, x + w, y + h], (len(boxes), 1)), boxes[:, :4].astype(np.float64)), 0.0
            )
            best = int(of.argmax()) if len(of) else -1
            hit = best >= 0 and bool(of[best] >= least_iou)
            if hit:
                free[best] = False
            rows.append((pair, k, d.score, hit))
    rows.sort(key=lambda row: -row[2])
    columns = [np.array(column) for column in zip(*rows, strict=True)] if rows else [np.zeros(0, np.int64)] * 4
    return Matches(columns[0], columns[1], columns[2].astype(np.float64), columns[3].astype(np.bool_), truth)


def best_threshold(found: Sequence[Sequence[compare.Difference]], data: Paired) -> float:
    """The score at which F (IoU 0.33, all classes together) is highest."""
    m = match([compare.surest(ds) for ds in found], data, 0.33)
    if not len(m.score):
        return 0.5
    hits = np.cumsum(m.hit)
    f = 2 * hits / (np.arange(1, len(hits) + 1) + m.truth.sum())
    at = int(f.argmax())
    after = float(m.score[at + 1]) if at + 1 < len(f) else 0.0
    return round(float(np.clip((m.score[at] + after) / 2, 0.05, 0.99)), 3)


def boxes(model: models.Model, data: Paired, *, intervals: bool = True) -> dict[str, Any]:
    """MAP and F at IoU 0.33 and 0.5, AP of each class at 0.33, ms a pair; F at the card's thresholds and of one class for each place."""
    begun = time.thread_time()
    found = detect(model, data)
    spent_ms = (time.thread_time() - begun) * 1e3 / len(found)
    return {**box_figures(found, data, thresholds(model, len(found)), intervals=intervals), "ms_per_pair": round(spent_ms, 3)}


def thresholds(model: models.Model, pairs: int) -> Floats2D:
    """(pairs, K): the least score at which each class of a compare model counts, the same for every pair."""
    return np.tile([model.card.threshold(c) for c in model.card.classes[1:]], (pairs, 1))


def box_figures(
    found: Sequence[Sequence[compare.Difference]], data: Paired, least_score: Floats2D, *, intervals: bool = True
) -> dict[str, Any]:
    """The figures of `boxes` but for the time, of what was found in each pair, with the thresholds (pairs, K)."""
    single = [compare.surest(ds) for ds in found]
    by_iou = {least: (match(found, data, least), match(single, data, least)) for least in (0.33, 0.5)}
    labels = range(1, len(data.classes) + 1)
    whole = {least: np.array([_ap(every, k, np.ones(len(found))) for k in labels]) for least, (every, _) in by_iou.items()}

    def figures(weight: Floats2D) -> Floats2D:
        out: list[float] = []
        each: list[float] = []
        for least, (every, m) in by_iou.items():
            aps = [_ap(every, k, weight) for k in labels]
            each = aps if least == 0.33 else each
            sure = m.score >= least_score[m.pair, m.label - 1]
            w = weight[m.pair]
            f = 2 * float(w[sure & m.hit].sum()) / max(float(w[sure].sum() + weight @ m.truth.sum(axis=1)), 1e-9)
            out += [_mean(np.array(aps), whole[least]), f]
        return np.array(out + each)

    names = ["map_33", "f_33", "map_50", "f_50"] + [f"ap_{c}" for c in data.classes]
    shown = _with_intervals(names, figures, len(found), intervals)
    return {"pairs": len(found), "boxes": int(by_iou[0.5][0].truth.sum()), **shown}


def _ap(m: Matches, label: int, weight: Floats2D) -> float:
    """Average precision of a class, the area under precision made monotonic (as in VOC since 2010), pairs weighted."""
    of = m.label == label
    truth = float(weight @ m.truth[:, label - 1])
    if not truth:
        return float("nan")
    w = weight[m.pair[of]]
    hits, all_found = np.cumsum(w * m.hit[of]), np.cumsum(w)
    precision = np.maximum.accumulate((hits / np.maximum(all_found, 1e-9))[::-1])[::-1]
    return float((precision * w * m.hit[of]).sum() / truth)
