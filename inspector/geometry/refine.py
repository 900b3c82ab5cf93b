"""From a rough pose to a sub-pixel one: profiles along the predicted normals, and weighted Gauss–Newton steps.

A *placement* is the row (x, y, turn, size) float64: the model point p is seen at size · R(turn) · p + (x, y) in the full picture, with
R(turn) = ((cos, −sin), (sin, cos)) in picture axes (y down). K placements are (K, 4) and are refined together: one `cv2.remap` a step.

A picture's pyramid level l halves l times: x = (x_l + ½)·2^l − ½.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, PROFILE_REACH, TRIANGLE, Floats32, Rows, Samples

if TYPE_CHECKING:
    from inspector.records import Floats, Image

MOST_ROWS = 32_000  # cv2.remap wants sides below 32,767


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid: the picture, and how many full pixels one of its pixels spans."""

    image: Image
    factor: float


def pyramid(image: Image, count: int) -> tuple[Level, ...]:
    """The picture and `count` halvings of it (area mean of 2 × 2; an odd last row or column is left out)."""
    levels = [Level(image, 1.0)]
    for _ in range(count):
        last = levels[-1]
        height, width = (side // 2 for side in last.image.shape[:2])
        if min(height, width) < 8:
            break
        half = cv2.resize(last.image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        levels.append(Level(np.asarray(half, np.uint8), last.factor * 2))
    return tuple(levels)


def profiles(level: Level, samples: Samples, placements: Floats, offsets_px: Floats32) -> Floats32:
    """Grey values along the normals: (K·n, J) float32, offsets in px of the level, beyond the border the nearest pixel."""
    inverse = 1.0 / level.factor
    c, s = np.cos(placements[:, 2]), np.sin(placements[:, 2])
    size = placements[:, 3] * inverse
    across, down = np.empty((2, len(placements), 5, len(offsets_px)), F32)
    for rows, values in (
        (across, (c * size, -s * size, (placements[:, 0] + 0.5) * inverse - 0.5, c, -s)),
        (down, (s * size, c * size, (placements[:, 1] + 0.5) * inverse - 0.5, s, c)),
    ):
        for i, value in enumerate(values):
            rows[:, i] = value[:, None]
        rows[:, 3:] *= offsets_px
    count = len(placements) * len(samples)
    map_x = np.matmul(samples.design, across).reshape(count, len(offsets_px))
    map_y = np.matmul(samples.design, down).reshape(count, len(offsets_px))
    return sample(level.image, map_x, map_y)


def sample(image: Image, map_x: Floats32, map_y: Floats32) -> Floats32:
    """Grey values (n, J) float32 at these pixels, bilinear."""
    pieces = [
        cv2.remap(image, map_x[i : i + MOST_ROWS], map_y[i : i + MOST_ROWS], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for i in range(0, len(map_x), MOST_ROWS)
    ]
    return np.asarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces), F32)


@lru_cache
def slope_filter(length: int, margin: int = 2, prior: float = 0.0) -> Floats32:
    """(length, length − 2·margin): the smoothed slope −1 −2 0 2 1 along a profile, as a matrix; `prior` less at its ends."""
    count = length - 2 * margin
    out = np.zeros((length, count), F32)
    for j in range(count):
        away = (j - (count - 1) / 2) / max((count - 1) / 2, 1.0)
        out[j + margin - 2 : j + margin + 3, j] = (1.0 - prior * away**2) * np.array((-1, -2, 0, 2, 1))
    out.setflags(write=False)
    return out


def strongest_slopes(values: Floats32, signs: Floats32) -> tuple[Floats32, Floats32]:
    """The place (in steps from the middle, parabola through three) and size of the strongest slope of the wanted sign in each profile."""
    reach = values.shape[1] // 2
    slopes = values @ slope_filter(values.shape[1])
    slopes *= signs[:, None]
    top = slopes.argmax(axis=1)
    rows = np.arange(len(slopes))
    at = slopes[rows, top]
    before = slopes[rows, np.maximum(top - 1, 0)]
    after = slopes[rows, np.minimum(top + 1, slopes.shape[1] - 1)]
    bend = np.minimum(before - 2 * at + after, F32(-1e-6))
    offset = np.clip(F32(0.5) * (before - after) / bend, F32(-0.6), F32(0.6))
    return np.asarray(top + offset + F32(2 - reach), F32), at


def solve(samples: Samples, weights: Floats32, shifts: Floats32, sizes: Floats, free_size: bool) -> Floats:
    """Weighted least squares of the shifts (K, n) along the normals: (K, 4) of (x, y, turn, growth) in the model's axes."""
    products = (weights @ samples.products).astype(np.float64)
    right = ((weights * shifts) @ samples.lever).astype(np.float64)
    matrix = np.zeros((len(weights), 4, 4))
    matrix[:, TRIANGLE[0], TRIANGLE[1]] = products
    matrix[:, TRIANGLE[1], TRIANGLE[0]] = products
    scale = np.ones((len(weights), 4))
    scale[:, 2] = sizes
    matrix *= scale[:, :, None] * scale[:, None, :]
    right *= scale
    if not free_size:
        matrix[:, 3, :], matrix[:, :, 3], right[:, 3] = 0.0, 0.0, 0.0
        matrix[:, 3, 3] = 1.0
    matrix += np.eye(4) * (1e-7 * np.diagonal(matrix, axis1=1, axis2=2) + 1e-9)[:, :, None]
    return np.asarray(np.linalg.solve(matrix, right[:, :, None])[:, :, 0], np.float64)


def predicted_shifts(samples: Samples, steps: Floats, sizes: Floats) -> Floats32:
    """What `steps` (K, 4) in the model's axes do along the normals, (K, n) px."""
    scaled = steps.copy()
    scaled[:, 2] *= sizes
    return np.asarray(scaled.astype(F32) @ samples.lever.T, F32)


def moved(placements: Floats, steps: Floats) -> Floats:
    """The placements after `steps` (K, 4) in the model's axes."""
    c, s = np.cos(placements[:, 2]), np.sin(placements[:, 2])
    out = placements.copy()
    out[:, 0] += c * steps[:, 0] - s * steps[:, 1]
    out[:, 1] += s * steps[:, 0] + c * steps[:, 1]
    out[:, 2:] += steps[:, 2:]
    return out


def tukey(residuals: Floats32, limit: NDArray[np.floating] | float) -> Floats32:
    """Tukey's weights: (1 − (r/limit)²)² within, 0 beyond."""
    return np.asarray(np.square(np.clip(1 - np.square(residuals / limit), 0, None)), F32)


def edge_step(
    level: Level, samples: Samples, placements: Floats, signs: Floats32, *, reach: int, step_px: float, limit_px: float, free_size: bool
) -> Floats:
    """One step from the strongest slopes within ± (reach − 2)·step_px of the level; residuals beyond `limit_px` of the level count nothing.

    `signs` (K,) is +1 where the background is brighter than the part, −1 where it is darker.
    """
    count, n = len(placements), len(samples)
    offsets = np.arange(-reach, reach + 1, dtype=F32) * F32(step_px)
    values = profiles(level, samples, placements, offsets)
    places, sizes_of_slope = strongest_slopes(values, np.repeat(signs, n))
    shifts = (places * F32(step_px * level.factor)).reshape(count, n)
    slopes = sizes_of_slope.reshape(count, n)
    typical = np.maximum(np.partition(slopes, n // 2, axis=1)[:, n // 2 : n // 2 + 1], F32(1e-6))
    base = samples.weight * np.clip(slopes / typical, 0, F32(1.5))
    residuals, steps = shifts, np.zeros_like(placements)
    for _ in range(2):
        steps = solve(samples, base * tukey(residuals, limit_px * level.factor), shifts, placements[:, 3], free_size)
        residuals = shifts - predicted_shifts(samples, steps, placements[:, 3])
    return moved(placements, steps)


_OFFSETS = np.arange(-PROFILE_REACH, PROFILE_REACH + 1, dtype=F32)


_PHASE_BLURS_PX = (0.64, 0.78, 0.94, 1.12, 1.39, 1.68, 2.06, 2.55)
_PHASE_BIASES = (0.516, 0.292, 0.203, 0.158, 0.120, 0.096, 0.075, 0.056)


def phase_bias(samples: Samples, matrix: Floats, blur_px: float) -> Floats32:
    """What bilinear sampling adds to the shifts (n,) of edges that run along a row or column, px; `matrix` (3, 3): model → picture.

    Bilinear weights at the fraction f have the third moment g = f (1 − f)(1 − 2f). Along a slanted edge f takes all values and g
    averages out, along a straight row or column all samples share it: k·g, with k computed for ideal edges of each blur (and falling
    off quickly with the slant: ninth power of the normal's component).
    """
    flat = matrix.astype(F32)
    at = samples.design[:, :3] @ flat[:2].T
    if abs(matrix[2, 0]) + abs(matrix[2, 1]) > 0:
        at /= (samples.design[:, :3] @ flat[2])[:, None]
    normals = samples.normals @ (flat[:2, :2] / F32(math.sqrt(abs(np.linalg.det(matrix[:2, :2]))))).T
    f = at - np.floor(at)
    cubed = normals * normals * normals
    g = f * (1 - f) * (1 - 2 * f) * (cubed * cubed * cubed)
    return np.asarray((g[:, 0] + g[:, 1]) * F32(np.interp(blur_px, _PHASE_BLURS_PX, _PHASE_BIASES)), F32)


def placement_matrix(placement: Floats) -> Floats:
    """The (3, 3) matrix, model px → picture px."""
    x, y, turn, size = placement
    c, s = math.cos(turn) * size, math.sin(turn) * size
    return np.array([[c, -s, x], [s, c, y], [0.0, 0.0, 1.0]])


def profile_step(image: Level, samples: Samples, rows: Rows, placement: Floats, sign: float, *, free_size: bool, last: bool) -> Floats:
    """One step from the predicted profiles at full size: the new placement (4,). The last one minds the bias of the sampling, too."""
    values = profiles(image, samples, placement[None], _OFFSETS)
    contrast = np.einsum("ij,ij->i", values, rows.contrast) * F32(sign)
    shift = np.einsum("ij,ij->i", values, rows.shift) * F32(sign)
    middle = len(contrast) // 2
    typical = max(float(np.partition(contrast, middle)[middle]), 1e-3)
    shift /= np.maximum(contrast, F32(0.3 * typical))
    if last:
        shift -= phase_bias(samples, placement_matrix(placement), DEFAULT_BLUR_PX)
    centre = np.partition(shift, middle)[middle]
    spread = 1.4826 * float(np.partition(np.abs(shift - centre), middle)[middle]) + 0.02
    trust = np.square(np.clip(contrast / F32(typical), 0, F32(1.5)))
    weights = samples.weight * tukey(shift, max(4.0 * spread, 0.15)) * trust
    steps = solve(samples, weights[None], shift[None], placement[None, 3], free_size)
    return np.asarray(moved(placement[None], steps)[0], np.float64)


_INSIDE_OUT = np.array([-0.25] * 4 + [0] + [0.25] * 4, F32)
_LEAST_STEP = 0.6  # of a plain edge's, for a sample of a small shape to be of use
_MOMENTS = np.stack([np.ones(8, F32), np.arange(-3.5, 4, dtype=F32)], axis=1)


def resolved(samples: Samples, share: Floats32, *, by_contour: bool = False) -> Samples:
    """The samples with weight only where the shape itself shows an edge at this size; `share` (n, 9) is its material along the normals.

    Slots and holes of a pixel or two, and webs as thin, show none: they are left to the full picture. When too little would be left,
    all count; with `by_contour`, all of a contour of which less than half would be left.
    """
    step = -(share @ _INSIDE_OUT)
    slopes = np.maximum(-np.diff(share, axis=1), 0)
    moments = slopes @ _MOMENTS
    place = moments[:, 1] / (moments[:, 0] + F32(1e-3))
    good = (step > _LEAST_STEP * max(float(np.quantile(step, 0.6)), 1e-3)) & (np.abs(place) < 0.8)
    if by_contour:
        kept = np.bincount(samples.contour, good) / np.maximum(np.bincount(samples.contour), 1)
        good |= (kept < 0.5)[samples.contour]
    elif float((samples.weight * good).sum()) < min(40.0, 0.25 * float(samples.weight.sum())):
        return samples
    return replace(samples, weight=np.asarray(samples.weight * good, F32))


def seen(level: Level, samples: Samples, placements: Floats, signs: Floats32, *, within_px: float = 1.2) -> tuple[Floats32, Floats32]:
    """Which share of the contour (K,) shows an edge of the right sign within `within_px` of the level, and the typical contrast (K,).

    The edge's place is the centre of gravity of the slopes of the right sign within ± 4 px; typical is the 60 % quantile.
    """
    count, n = len(placements), len(samples)
    values = profiles(level, samples, placements, _OFFSETS)
    sign = np.repeat(signs, n)
    step = ((values @ _INSIDE_OUT) * sign).reshape(count, n)
    slopes = np.maximum(np.diff(values, axis=1) * sign[:, None], 0)
    moments = slopes @ _MOMENTS
    place = (moments[:, 1] / (moments[:, 0] + F32(1e-3))).reshape(count, n)
    rank = int(0.6 * n)
    typical = np.maximum(np.partition(step, rank, axis=1)[:, rank], F32(1e-3))
    good = (step > F32(0.35) * typical[:, None]) & (np.abs(place) < within_px)
    return np.asarray(good @ samples.weight / max(float(samples.weight.sum()), 1.0), F32), typical
