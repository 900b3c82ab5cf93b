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

from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, PROFILE_REACH, Floats32, Rows, Samples, Shape

if TYPE_CHECKING:
    from inspector.records import Floats, Image


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid: the picture, and how many full pixels one of its pixels spans.

    `shown` (H, W), 0 or 255: which pixels of the full picture a camera has seen, where these are not all.
    """

    image: Image
    factor: float
    shown: NDArray[np.uint8] | None = None


def pyramid(image: Image, count: int, shown: NDArray[np.uint8] | None = None) -> tuple[Level, ...]:
    """The picture and `count` halvings of it (area mean of 2 × 2; an odd last row or column is left out)."""
    levels = [Level(image, 1.0, shown)]
    for _ in range(count):
        last = levels[-1]
        height, width = (side // 2 for side in last.image.shape[:2])
        if min(height, width) < 8:
            break
        half = cv2.resize(last.image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        levels.append(Level(np.asarray(half, np.uint8), last.factor * 2))
    return tuple(levels)


def profiles(level: Level, design: Floats32, placements: Floats, reach: int, step_px: float = 1.0) -> Floats32:
    """Grey values along the normals, beyond the border the nearest pixel: (2·reach + 1, K·n) float32, one profile a column.

    Profiles go from −reach to reach steps of `step_px` of the level. `design` (5, n) as in `Samples`.
    """
    shrink = 1.0 / level.factor
    rows = []
    for x, y, turn, size in placements.tolist():
        c, s, grow = math.cos(turn), math.sin(turn), size * shrink
        rows.append(((c * grow, -s * grow, (x + 0.5) * shrink - 0.5, c, -s), (s * grow, c * grow, (y + 0.5) * shrink - 0.5, s, c)))
    views = np.array(rows, F32).transpose(1, 0, 2)
    tables = np.asarray(views[:, None] * _ladder(reach, step_px), F32)
    across, down = (tables.reshape(-1, 5) @ design).reshape(2, -1, design.shape[1])
    return sample(level.image, across, down).reshape(2 * reach + 1, -1)


@lru_cache
def _ladder(reach: int, step_px: float) -> Floats32:
    """(2·reach + 1, 1, 5): how often each row of a design counts at each place of a profile."""
    out = np.ones((2 * reach + 1, 1, 5), F32)
    out[..., 3:] = (np.arange(-reach, reach + 1) * step_px)[:, None, None]
    out.setflags(write=False)
    return out


def sample(image: Image, map_x: Floats32, map_y: Floats32) -> Floats32:
    """Grey values (J, n) float32 at these pixels, bilinear. Few long rows take half the time of many short ones."""
    return np.asarray(cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), F32)


@lru_cache
def _slope_filter(length: int) -> Floats32:
    """(length − 4, length): `slopes` as a matrix, which is quicker for short profiles."""
    out = slopes(np.eye(length, dtype=F32), 2)
    out.setflags(write=False)
    return out


def slopes(values: Floats32, margin: int) -> Floats32:
    """The smoothed slope −1 −2 0 2 1 along profiles (J, N), without `margin` rows (2 at least) at either end."""
    first, last = margin, len(values) - margin
    out = values[first + 1 : last + 1] - values[first - 1 : last - 1]
    out += out
    out += values[first + 2 : last + 2 if margin > 2 else None]
    out -= values[first - 2 : last - 2]
    return out


def steepest(slopes: Floats32) -> NDArray[np.int32]:
    """In which row (N,) each column of (J, N) is largest; the first of equals."""
    return np.asarray(cv2.reduceArgMax(slopes, 0)[0], np.int32)


def strongest_slopes(values: Floats32, signs: Floats32 | float) -> tuple[Floats32, Floats32]:
    """The place (in steps from the middle, parabola through three) and size of the strongest slope of the wanted sign in each column.

    `values` (J, N); `signs` (N,), or one for all.
    """
    slope = _slope_filter(len(values)) @ values
    slope *= signs
    top = steepest(slope)
    rows, count = slope.shape
    columns = np.arange(count)
    here, flat = top * count + columns, slope.ravel()
    at = flat.take(here)
    before = flat.take(np.maximum(here - count, columns))
    after = flat.take(np.minimum(here + count, (rows - 1) * count + columns))
    bend = np.minimum(before - 2 * at + after, F32(-1e-6))
    offset = within(F32(0.5) * (before - after) / bend, -0.6, 0.6)
    return np.asarray(top + offset - F32(rows // 2), F32), at


def within(values: Floats32, low: float, high: float) -> Floats32:
    """The values, none less than `low` or more than `high`: in a third of the time of `np.clip`, where there are few."""
    return np.minimum(np.maximum(values, F32(low)), F32(high))


_EYE = np.eye(4)


def solve(samples: Samples, weights: Floats32, shifts: Floats32, free_size: bool) -> Floats:
    """Weighted least squares of the shifts (K, n) along the normals: steps (K, 4) of (x, y, turn · size, growth) in the model's axes."""
    count = 4 if free_size else 3
    matrix = (weights @ samples.products.T).reshape(-1, 4, 4)[:, :count, :count].astype(np.float64)
    matrix += _EYE[:count, :count] * (1e-7 * matrix + 1e-9)
    right = ((weights * shifts) @ samples.lever.T)[:, :count, None]
    steps = np.zeros((len(matrix), 4))
    steps[:, :count] = np.linalg.solve(matrix, right)[:, :, 0]
    return steps


def predicted_shifts(samples: Samples, steps: Floats) -> Floats32:
    """What `steps` (K, 4) do along the normals, (K, n) px."""
    return np.asarray(steps.astype(F32) @ samples.lever, F32)


def moved(placements: Floats, steps: Floats) -> Floats:
    """The placements after `steps` (K, 4)."""
    c, s = np.cos(placements[:, 2]), np.sin(placements[:, 2])
    out = placements.copy()
    out[:, 0] += c * steps[:, 0] - s * steps[:, 1]
    out[:, 1] += s * steps[:, 0] + c * steps[:, 1]
    out[:, 2] += steps[:, 2] / placements[:, 3]
    out[:, 3] += steps[:, 3]
    return out


def tukey(residuals: Floats32, limit: float) -> Floats32:
    """Tukey's weights: (1 − (r/limit)²)² within, 0 beyond."""
    rest = residuals * F32(1.0 / limit)
    rest *= rest
    np.subtract(F32(1), rest, out=rest)
    np.maximum(rest, F32(0), out=rest)
    rest *= rest
    return rest


def edge_step(
    level: Level, samples: Samples, placements: Floats, signs: Floats32, *, reach: int, step_px: float, limit_px: float, free_size: bool
) -> Floats:
    """One step from the strongest slopes within ± (reach − 2)·step_px of the level; residuals beyond `limit_px` of the level count nothing.

    `signs` (K,) is +1 where the background is brighter than the part, −1 where it is darker.
    """
    count, n = len(placements), len(samples)
    places, sizes_of_slope = strongest_slopes(profiles(level, samples.design, placements, reach, step_px), _each(signs, n))
    shifts = (places * F32(step_px * level.factor)).reshape(count, n)
    slopes = sizes_of_slope.reshape(count, n)
    typical = np.maximum(np.partition(slopes, n // 2, axis=1)[:, n // 2 : n // 2 + 1], F32(1e-6))
    base = samples.weight * within(np.asarray(slopes / typical, F32), 0.0, 1.5)
    steps = solve(samples, base * tukey(shifts, limit_px * level.factor), shifts, free_size)
    left = shifts - predicted_shifts(samples, steps)
    return moved(placements, solve(samples, base * tukey(left, limit_px * level.factor), shifts, free_size))


def _each(signs: Floats32, count: int) -> Floats32 | float:
    """One sign for all, where it is one, else `count` times each."""
    return float(signs[0]) if (signs == signs[0]).all() else np.repeat(signs, count)


_PHASE_BLURS_PX = (0.64, 0.78, 0.94, 1.12, 1.39, 1.68, 2.06, 2.55)
_PHASE_BIASES = (0.516, 0.292, 0.203, 0.158, 0.120, 0.096, 0.075, 0.056)


def phase_bias(samples: Samples, matrix: Floats, blur_px: float) -> Floats32:
    """What bilinear sampling adds to the shifts (n,) of edges that run along a row or column, px; `matrix` (3, 3): model → picture.

    Bilinear weights at the fraction f have the third moment g = f (1 − f)(1 − 2f). Along a slanted edge f takes all values and g
    averages out, along a straight row or column all samples share it: k·g, with k computed for ideal edges of each blur (and falling
    off quickly with the slant: ninth power of the normal's component).
    """
    (a, b, _), (c, d, _), (e, f, _) = matrix.tolist()
    flat = np.zeros((4, 5), F32)
    flat[:2, :3], flat[2:, 3:] = matrix[:2], matrix[:2, :2] / math.sqrt(abs(a * d - b * c))
    at, normals = (flat @ samples.design).reshape(2, 2, -1)
    if abs(e) + abs(f) > 0:
        at /= matrix[2].astype(F32) @ samples.design[:3]
    at -= np.floor(at)
    third = at * (1 - at) * (1 - 2 * at)
    normals *= normals * normals
    normals *= normals * normals
    third *= normals
    return np.asarray((third[0] + third[1]) * F32(np.interp(blur_px, _PHASE_BLURS_PX, _PHASE_BIASES)), F32)


def placement_matrix(placement: Floats) -> Floats:
    """The (3, 3) matrix, model px → picture px."""
    x, y, turn, size = placement.tolist()
    c, s = math.cos(turn) * size, math.sin(turn) * size
    return np.array([[c, -s, x], [s, c, y], [0.0, 0.0, 1.0]])


def profile_step(
    image: Level, samples: Samples, rows: Rows, placement: Floats, sign: float, *, free_size: bool, last: bool
) -> tuple[Floats, float]:
    """One step from the predicted profiles at full size: the new placement (4,), and how far it moved the part's rim, px.

    The last one minds the bias of the sampling, too.
    """
    values = profiles(image, samples.design, placement[None], PROFILE_REACH)
    contrast, shift = (values * rows.contrast).sum(axis=0), (values * rows.shift).sum(axis=0)
    if sign < 0:
        contrast, shift = -contrast, -shift
    middle = len(contrast) // 2
    typical = max(float(np.partition(contrast, middle)[middle]), 1e-3)
    shift /= np.maximum(contrast, F32(0.3 * typical))
    if last:
        shift -= phase_bias(samples, placement_matrix(placement), DEFAULT_BLUR_PX)
    centre = np.partition(shift, middle)[middle]
    spread = 1.4826 * float(np.partition(np.abs(shift - centre), middle)[middle]) + 0.02
    trust = within(contrast / F32(typical), 0.0, 1.5)
    weights = samples.weight * tukey(shift, max(4.0 * spread, 0.15)) * trust * trust
    steps = solve(samples, weights[None], shift[None], free_size)
    return np.asarray(moved(placement[None], steps)[0], np.float64), float(np.abs(predicted_shifts(samples, steps)).max())


_INSIDE_OUT = np.array([-0.25] * 4 + [0] + [0.25] * 4, F32)
_LEAST_STEP = 0.6  # of a plain edge's, for a sample of a small shape to be of use
_MOMENTS = np.stack([np.ones(8, F32), np.arange(-3.5, 4, dtype=F32)])


def resolved(samples: Samples, shape: Shape, *, zoom: float = 1.0, by_contour: bool = False) -> Samples:
    """The samples with weight only where the shape itself shows an edge at this size, on pixels `zoom` times as large as its own.

    Slots and holes of a pixel or two, and webs as thin, show none: they are left to the full picture. When too little would be left,
    all count; with `by_contour`, all of a contour of which less than half would be left.
    """
    offsets = F32(zoom) * np.arange(-PROFILE_REACH, PROFILE_REACH + 1, dtype=F32)
    share = shape.material(samples.points + offsets[:, None, None] * samples.normals)
    step, place = -(_INSIDE_OUT @ share), _centre(share[:-1] - share[1:])
    good = (step > _LEAST_STEP * max(float(np.quantile(step, 0.6)), 1e-3)) & (np.abs(place) < 0.8)
    if by_contour:
        kept = np.bincount(samples.contour, good) / np.maximum(np.bincount(samples.contour), 1)
        good |= (kept < 0.5)[samples.contour]
    elif float((samples.weight * good).sum()) < min(40.0, 0.25 * float(samples.weight.sum())):
        return samples
    return replace(samples, weight=np.asarray(samples.weight * good, F32))


def _centre(slopes: Floats32) -> Floats32:
    """The centre of gravity (n,) of what is positive in the slopes (8, n) between nine places, px from the middle."""
    moments = _MOMENTS @ np.maximum(slopes, F32(0))
    return np.asarray(moments[1] / (moments[0] + F32(1e-3)), F32)


def seen(level: Level, samples: Samples, placements: Floats, signs: Floats32, *, within_px: float = 1.2) -> tuple[Floats32, Floats32]:
    """Which share of the contour (K,) shows an edge of the right sign within `within_px` of the level, and the typical contrast (K,).

    The edge's place is the centre of gravity of the slopes of the right sign within ± 4 px; typical is the 60 % quantile.
    """
    count, n = len(placements), len(samples)
    values = profiles(level, samples.design, placements, PROFILE_REACH)
    values *= _each(signs, n)
    step = (_INSIDE_OUT @ values).reshape(count, n)
    place = _centre(values[1:] - values[:-1]).reshape(count, n)
    rank = int(0.6 * n)
    typical = np.maximum(np.partition(step, rank, axis=1)[:, rank], F32(1e-3))
    good = (step > F32(0.35) * typical[:, None]) & (np.abs(place) < within_px)
    return np.asarray(good @ samples.weight / max(float(samples.weight.sum()), 1.0), F32), typical
