"""Curves and sheets of pictures, drawn with OpenCV: no further package is needed to look at a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.checks.compare import Difference
from inspector.neural.pictures import as_channels, write
from inspector.records import Image
from inspector.workshop.fit import History

INK, PAPER = (60, 60, 60), 255
COLOURS = ((200, 90, 20), (40, 40, 220), (40, 160, 40), (180, 40, 160), (0, 140, 230), (140, 140, 0))
"""Blue, green, red; one after the other for curves and classes."""


def curves(path: Path, history: History, title: str) -> None:
    """The loss of every step (smoothed) on the left, the figures of every look on the right."""
    sheet = np.full((420, 1200, 3), PAPER, np.uint8)
    window = max(1, len(history.losses) // 100)
    smooth = np.convolve(history.losses, np.ones(window) / window, "valid") if history.losses else np.zeros(1)
    _axes(sheet, (60, 50, 560, 360), f"{title}: loss")
    _curve(
        sheet,
        (60, 50, 560, 360),
        np.arange(len(smooth)) + window,
        np.log10(np.maximum(smooth, 1e-6)),
        COLOURS[0],
        f"loss {smooth[-1]:.3g} (log)",
        0,
    )
    _axes(sheet, (660, 50, 1160, 360), f"best {history.best:.4f} at step {history.best_step}, {history.spent_s / 60:.1f} min")
    for number, name in enumerate(sorted({name for _, figures in history.looks for name in figures})):
        steps = np.array([step for step, _ in history.looks])
        values = np.array([figures.get(name, np.nan) for _, figures in history.looks])
        _curve(sheet, (660, 50, 1160, 360), steps, values, COLOURS[number % len(COLOURS)], f"{name} {values[-1]:.4f}", number, (0.0, 1.0))
    write(path, sheet)


def _axes(sheet: Image, box: tuple[int, int, int, int], title: str) -> None:
    cv2.rectangle(sheet, box[:2], box[2:], INK, 1)
    cv2.putText(sheet, title, (box[0], box[1] - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)


def _curve(
    sheet: Image,
    box: tuple[int, int, int, int],
    xs: np.ndarray[tuple[int], np.dtype[np.int64]],
    ys: np.ndarray[tuple[int], np.dtype[np.float64]],
    colour: tuple[int, int, int],
    name: str,
    row: int,
    limits: tuple[float, float] | None = None,
) -> None:
    """One line in the box, its limits by its values where none are given."""
    known = ys[np.isfinite(ys)]
    if not len(known):
        return
    low, high = limits or (float(known.min()), float(known.max()))
    low, high = min(low, float(known.min())), max(high, float(known.max()))
    right = max(1.0, float(xs[-1]) if len(xs) else 1.0)
    px = box[0] + (box[2] - box[0]) * xs / right
    py = box[3] - (box[3] - box[1]) * (ys - low) / max(high - low, 1e-9)
    good = np.isfinite(py)
    points = np.stack([px[good], py[good]], axis=1).round().astype(np.int32)
    cv2.polylines(sheet, [points.reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA)
    cv2.putText(
        sheet, name, (box[0] + 8 + 160 * (row % 3), box[3] + 20 + 18 * (row // 3)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA
    )


def heat(image: Image, scores: NDArray[np.float32], limit: float) -> Image:
    """The picture (H, W[, 3]) in colour, red where the scores (h, w) come near the limit, outlined where they are above it."""
    out = as_channels(image, 3).astype(np.float32)
    fine = np.asarray(cv2.resize(scores, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
    warm = ((fine / max(limit, 1e-6)).clip(0, 1) ** 2 * 0.5)[..., None]
    seen = (out * (1 - warm) + np.array([0, 0, 255], np.float32) * warm).astype(np.uint8)
    outlines, _ = cv2.findContours((fine > limit).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(seen, outlines, -1, COLOURS[1], max(1, max(image.shape[:2]) // 400))
    return seen


def overlay(image: Image, class_map: Image, classes: Sequence[str]) -> Image:
    """The picture (H, W[, 3]) in colour with the classes' outlines on it: uint8 (H, W, 3)."""
    out = as_channels(image, 3).copy()
    for k in range(1, len(classes) + 1):
        outlines, _ = cv2.findContours((class_map == k).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, COLOURS[(k - 1) % len(COLOURS)], 1)
    return out


def sheet(path: Path, pictures: Sequence[Image], captions: Sequence[str], columns: int = 6, side_px: int = 190) -> None:
    """Pictures in rows with a line below each."""
    rows = -(-len(pictures) // columns)
    out = np.full((max(1, rows) * (side_px + 22), columns * (side_px + 6), 3), PAPER, np.uint8)
    for number, (image, caption) in enumerate(zip(pictures, captions, strict=True)):
        y, x = (number // columns) * (side_px + 22), (number % columns) * (side_px + 6)
        ratio = side_px / max(image.shape[:2])
        small = cv2.resize(
            as_channels(image, 3),
            (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))),
            interpolation=cv2.INTER_AREA,
        )
        out[y : y + small.shape[0], x : x + small.shape[1]] = small
        cv2.putText(out, caption[:30], (x + 2, y + side_px + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    write(path, out)


def boxes(image: Image, found: Sequence[Difference], truth: NDArray[np.int64]) -> Image:
    """The picture in colour with the boxes found (by class) and the true ones (thin, grey)."""
    out = as_channels(image // 2, 3).copy()
    for x0, y0, x1, y1, k in truth:
        cv2.rectangle(out, (int(x0) - 2, int(y0) - 2), (int(x1) + 2, int(y1) + 2), (160, 160, 160), 1)
        cv2.putText(out, str(k), (int(x1) + 3, int(y1)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (160, 160, 160), 1, cv2.LINE_AA)
    names = sorted({d.class_name for d in found})
    for d in found:
        x, y, w, h = (int(v) for v in d.box_px)
        colour = COLOURS[names.index(d.class_name) % len(COLOURS)]
        cv2.rectangle(out, (x, y), (x + w, y + h), colour, 1)
        cv2.putText(out, f"{d.class_name} {d.score:.2f}", (x, y - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour, 1, cv2.LINE_AA)
    return out
