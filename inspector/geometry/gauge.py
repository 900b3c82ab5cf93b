"""Measures a located part along its whole outline: where the real edge lies, everywhere, in the drawing's millimetres.

At each contour sample the profile along the normal is read from the raw picture, the strongest slope of the right sign near the drawing's
edge is taken, and the predicted profile (see `shape`) gives its sub-pixel place. Where there is none the search goes farther; where
there is still none the grey level says whether the place is buried in material, bare, or not to be known (covered).

Signs: positive is outwards of the material (too much of it), negative inwards (too little).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry.refine import slopes, steepest, within
from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, PROFILE_REACH, Floats32, Profiles, Rows, Samples, Shape

if TYPE_CHECKING:
    from inspector.records import Contour, Floats

Look = Callable[[Floats32, int], Floats32]
"""Grey values (2·reach + 1, n) along the normals, from a design (5, n) as in `Samples` and a reach in model px."""

NEAR_PX = 6
FAR_PX = 40
_LEAST_CONTRAST = 0.35  # of the typical one, for an edge to count
_EXPECTED_PX = 0.5
_LIKELY_CONTRAST = 0.7
_PRIOR = 0.25  # how much less a slope counts at the end of the near search
_BLURS_PX = (0.55, 3.5)
_MOST_FAR = 400
_TINY_PX = 2.0
_HOLE_PX = 0.15  # what lies so near to a hole's fit belongs to it
_RIDGE = 1e-9 * np.eye(3)
_GRID_PX = 512  # extra holes are looked for on a raster of about this size
_LEAST_GRID_PX = 2.0  # and no finer than this, where a speck of dust would be one


@dataclass(frozen=True, slots=True)
class HoleFit:
    """One hole against the drawing: its centre's shift and its radius' growth in mm, and how much of its edge was seen (0…1)."""

    contour: int
    seen_ratio: float
    dx_mm: float
    dy_mm: float
    dr_mm: float


@dataclass(frozen=True, slots=True)
class Extra:
    """What the drawing does not have: a hole in the material, or material within a hole. `kind` is "hole" or "material"."""

    kind: str
    at_mm: tuple[float, float]
    area_mm2: float


@dataclass(frozen=True, slots=True)
class Gauged:
    """What was measured on one part; n samples along its contours.

    `deviation_mm` (n,) is NaN where the place could not be known, and ± the search's reach where the edge is farther than that.
    `seen` (n,): an edge was found. `trusted` (n,): not at a corner. `contour` (n,) indexes the template's contours, in order along
    each. `noise_mm`: robust spread of the deviations. `spacing_mm`: from sample to sample. `beyond`: the contours that the picture's
    border cuts, of which nothing is known out there.
    """

    points_mm: Floats
    contour: NDArray[np.intp]
    deviation_mm: Floats
    seen: NDArray[np.bool_]
    trusted: NDArray[np.bool_]
    holes: tuple[HoleFit, ...]
    missing: tuple[int, ...]
    extra: tuple[Extra, ...]
    noise_mm: float
    spacing_mm: float
    blur_px: float
    contrast_counts: float
    beyond: tuple[int, ...] = ()


def straight_edges(profiles: Profiles) -> Floats32:
    """The design (5, n), as in `Samples`, of up to 400 samples where the drawing shows a plain straight edge within ± 6 px.

    From these the blur is estimated; n is 0 where there are less than 40.
    """
    samples = profiles.samples
    plain = np.arange(len(samples))
    offsets = np.arange(-NEAR_PX, NEAR_PX + 1)
    for some in (np.abs(offsets) == NEAR_PX, np.abs(offsets) < NEAR_PX):  # the ends first: most of what is bent shows it there
        t = offsets[some].astype(np.float64)
        points = samples.points[plain].astype(np.float64) + t[:, None, None] * samples.normals[plain].astype(np.float64)
        share = 1.0 - profiles.shape.material(points, DEFAULT_BLUR_PX)
        plain = plain[np.abs(share - _edge(t / DEFAULT_BLUR_PX)[:, None]).max(axis=0) < 0.012]
    if len(plain) < 40:
        plain = plain[:0]
    chosen = plain[np.linspace(0, len(plain) - 1, min(400, len(plain))).astype(np.intp)] if len(plain) else plain
    return samples.design.take(chosen, axis=1)


def _edge(x: Floats) -> Floats:
    """The blurred step: the normal distribution's integral."""
    return np.array([0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x])


def _bell(x: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(math.tau))


@lru_cache
def _blur_solver(step: int) -> tuple[float, Floats]:
    """A blur of a grid of 5 %, and the matrix (4, 13) that turns a mean profile into (a, b, b·shift, b·(blur − it))."""
    sigma = 1.05**step
    x = np.arange(-NEAR_PX, NEAR_PX + 1) / sigma
    bell = _bell(x) / sigma
    basis = np.column_stack([np.ones(len(x)), _edge(x), -bell, -x * bell])
    return sigma, np.asarray(np.linalg.pinv(basis), np.float64)


def estimate_blur(look: Look, straight: Floats32) -> float:
    """The picture's total blur in px, from the mean profile of the straight edges that lie where most do: others would widen it.

    Least squares of a + b·Φ((t − d)/σ), linear about the nearest of a grid of blurs. Without straight edges the default.
    """
    if not straight.size:
        return DEFAULT_BLUR_PX
    values = look(straight, NEAR_PX)
    steps = np.abs(values[2:] - values[:-2]) ** 2
    places = np.arange(1 - NEAR_PX, NEAR_PX, dtype=F32) @ steps / np.maximum(steps.sum(axis=0), F32(1e-3))
    off = np.abs(places - middle(places))
    mean = values[:, off <= max(_EXPECTED_PX, 3.0 * float(middle(off)))].mean(axis=1, dtype=np.float64)
    sigma = DEFAULT_BLUR_PX
    for _ in range(4):
        about, solver = _blur_solver(round(math.log(sigma) / math.log(1.05)))
        _, contrast, _, growth = (solver @ mean).tolist()
        if abs(contrast) < 1e-3:
            return DEFAULT_BLUR_PX
        change = min(max(growth / contrast, -0.4 * about), 0.4 * about)
        sigma = min(max(about + change, _BLURS_PX[0]), _BLURS_PX[1])
    return sigma


@dataclass(frozen=True, slots=True)
class Edges:
    """Signed distances of the real edge from the samples, in px of the model, NaN where not to be known; which were really seen.

    `typical` is the contrast, `material` and `background` the grey levels 4 px on either side, all medians.
    """

    shift_px: Floats32
    seen: NDArray[np.bool_]
    contrast: Floats32
    typical: float
    material: float
    background: float


def find_edges(look: Look, profiles: Profiles, blur_px: float, sign: float, inner_reach_px: Floats32) -> Edges:
    """The edge at every sample. `inner_reach_px` (n,): how far outwards of the material an edge of the same contour can be.

    First the predicted profile where it is expected; what does not fit there within half a pixel is searched near, what has no edge
    there far. What was found by a search is looked at once more from there: whole steps and a fit about the nearest are biased.
    """
    samples, rows = profiles.samples, profiles.rows(blur_px)
    values = look(samples.design, PROFILE_REACH)
    contrast, places = _fitted(values, rows, sign)
    typical = max(float(middle(contrast)), 1e-3)
    near = np.flatnonzero((np.abs(places) > _EXPECTED_PX) | (contrast < _LIKELY_CONTRAST * F32(typical)))
    good = np.ones(len(samples), bool)
    material, background = float(middle(values[0, ::4])), float(middle(values[-1, ::4]))
    if len(near):
        values = look(samples.design.take(near, axis=1), NEAR_PX + PROFILE_REACH)
        places[near], contrast[near] = _strongest(values, _of(rows, near), sign, _PRIOR)
        good[near] = contrast[near] > _LEAST_CONTRAST * typical
        lost = near[~good[near]]
        if len(lost):  # where much is lost, one sample speaks for its neighbours: what is far needs no fine grain
            stride = len(lost) // _MOST_FAR + 1
            asked = lost[::stride]
            values = look(samples.design.take(asked, axis=1), FAR_PX + PROFILE_REACH)
            found = _far_edges(values, _of(rows, asked), inner_reach_px[asked], (material, background), typical)
            places[lost], good[lost] = (np.repeat(each, stride)[: len(lost)] for each in found)
        again = near[good[near]]
        if len(again):
            values = look(_moved(samples.design.take(again, axis=1), places[again]), PROFILE_REACH)
            contrast[again], rest = _fitted(values, _of(rows, again), sign)
            places[again] += within(rest, -1.0, 1.0)
    return Edges(places, good, contrast, typical, material, background)


def _moved(design: Floats32, shift_px: Floats32) -> Floats32:
    """The design (5, n) with its points so far along their normals."""
    out = design.copy()
    out[:2] += shift_px * design[3:]
    return out


def middle(values: Floats32) -> np.float32:
    """The upper median; quick."""
    middle = len(values) // 2
    return np.float32(np.partition(values, middle)[middle])


def _fitted(values: Floats32, rows: Rows, sign: float) -> tuple[Floats32, Floats32]:
    """Contrast, and place (px from the middle), of the predicted profiles in grey values (9, n)."""
    contrast, shift = (values * rows.contrast).sum(axis=0), (values * rows.shift).sum(axis=0)
    if sign < 0:
        contrast, shift = -contrast, -shift
    return contrast, shift / np.maximum(contrast, F32(1e-3))


def _of(rows: Rows, chosen: NDArray[np.intp]) -> Rows:
    return Rows(rows.contrast.take(chosen, axis=1), rows.shift.take(chosen, axis=1))


def _strongest(
    values: Floats32, rows: Rows, sign: float, prior: float = 0.0, inner_reach_px: Floats32 | None = None
) -> tuple[Floats32, Floats32]:
    """Place (px from the middle) and contrast of the strongest slope in each of the grey values (J, n); none beyond the inner reach."""
    width, count = values.shape
    slope = slopes(values, PROFILE_REACH)
    first = PROFILE_REACH - width // 2
    away = np.arange(first, len(slope) + first)[:, None]
    slope *= (sign * (1.0 - prior * (away / min(first, -1)) ** 2)).astype(F32)
    if inner_reach_px is not None:
        slope[away > inner_reach_px] = -np.inf
    best = steepest(slope)
    around = values.ravel().take((best + np.arange(2 * PROFILE_REACH + 1)[:, None]) * count + np.arange(count))
    contrast, shift = _fitted(around, rows, sign)
    return best + F32(first) + within(shift, -1.2, 1.2), contrast


def _far_edges(
    values: Floats32, rows: Rows, inner_reach_px: Floats32, levels: tuple[float, float], typical: float
) -> tuple[Floats32, NDArray[np.bool_]]:
    """The edge farther away where what lies between is all material or all background; else ± the reach, or NaN."""
    material, background = levels
    place, contrast = _strongest(values, rows, 1.0 if background >= material else -1.0, 0.0, inner_reach_px)
    share = (values - F32(material)) / F32(background - material if abs(background - material) > 1e-3 else 1e-3)
    total = np.concatenate([np.zeros((1, values.shape[1]), F32), np.cumsum(share, axis=0)])
    middle, columns = len(values) // 2, np.arange(values.shape[1])
    found = middle + np.rint(place).astype(np.intp)
    first, last = np.minimum(found, middle), np.maximum(found, middle) + 1
    between = (total[last, columns] - total[first, columns]) / (last - first)
    here = share[middle - 3 : middle + 4].mean(axis=0)
    real = (contrast > _LEAST_CONTRAST * typical) & np.where(place > 0, between < 0.45, between > 0.55)
    beyond = np.where(here < 0.3, np.minimum(inner_reach_px, F32(FAR_PX)), np.where(here > 0.7, F32(-FAR_PX), F32(np.nan)))
    beyond = np.where(inner_reach_px < _TINY_PX, F32(np.nan), beyond)
    return np.asarray(np.where(real, place, beyond), F32), real


def inner_reaches(shape: Shape, contours: tuple[Contour, ...], samples: Samples) -> Floats32:
    """For each sample how far outwards of the material its contour's edge can move: a hole's inner radius, elsewhere no limit.

    For contours too small to be told from their surroundings (`_TINY_PX`) it is their inner radius, whatever they are.
    """
    reaches = np.full(len(shape.contours_px), float(FAR_PX))
    for i, contour in enumerate(contours):
        radius = inner_radius(shape.contours_px[i]) if contour.circle is None else contour.circle[2] * shape.scale_px_per_mm
        if contour.kind == "hole" or radius < _TINY_PX:
            reaches[i] = min(FAR_PX, radius)
    return np.asarray(reaches[samples.contour], F32)


def inner_radius(points_px: Floats) -> float:
    """The radius of the largest circle within a contour, in px, to about half a pixel or 2 %."""
    low = points_px.min(axis=0)
    zoom = 100.0 / max(float((points_px.max(axis=0) - low).max()), 1e-6)
    mask = np.zeros((105, 105), np.uint8)
    cv2.fillPoly(mask, [np.rint((points_px - low) * zoom + 2).astype(np.int32)], 255)
    return float(cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()) / zoom


@dataclass(frozen=True, slots=True)
class Holes:
    """What fitting the holes needs, computed once, for the n samples (`chosen`) that lie on holes; those of hole k from `starts[k]` on.

    `contours` and `counts` (K,): which contour, how many samples; `hole` (n,): which hole; `basis` (3, n), `products` (9, n).
    """

    contours: NDArray[np.intp]
    counts: Floats
    starts: NDArray[np.intp]
    chosen: NDArray[np.intp]
    hole: NDArray[np.intp]
    basis: Floats32
    products: Floats32


def holes_of(contours: tuple[Contour, ...], samples: Samples) -> Holes:
    """For the samples of these contours."""
    indices = np.array([i for i, c in enumerate(contours) if c.kind == "hole"], np.intp)
    chosen = np.flatnonzero(np.isin(samples.contour, indices))
    hole = np.searchsorted(indices, samples.contour[chosen])
    starts = np.searchsorted(hole, np.arange(len(indices)))
    basis = np.concatenate([samples.design[3:, chosen], -np.ones((1, len(chosen)), F32)])
    counts = np.bincount(hole, minlength=len(indices)).astype(np.float64)
    return Holes(indices, counts, starts, chosen, hole, basis, (basis[:, None] * basis).reshape(9, -1))


def hole_fits(holes: Holes, edges: Edges, px_per_mm: float) -> tuple[HoleFit, ...]:
    """Shift and growth of every hole from its own samples: least squares of d = n·(dx, dy) − dr, twice again without what lies far off."""
    if not len(holes.contours):
        return ()
    found = edges.seen[holes.chosen]
    shift = np.where(found, edges.shift_px[holes.chosen], F32(0))
    seen = np.add.reduceat(found, holes.starts, dtype=np.float64)
    sums = np.concatenate([holes.products, holes.basis * shift, np.ones((1, len(shift)), F32)])
    fits: Floats = np.zeros((len(holes.starts), 3))
    used = found
    for last in (False, False, True):
        total = np.add.reduceat(sums * used.astype(F32), holes.starts, axis=1).astype(np.float64)
        fits = np.asarray(np.linalg.solve(total[:9].T.reshape(-1, 3, 3) + _RIDGE, total[9:12].T[:, :, None])[:, :, 0], np.float64)
        if not last:
            rest = np.abs(shift - np.einsum("ij,ij->j", holes.basis, fits.T.astype(F32).take(holes.hole, axis=1)))
            mean = np.add.reduceat(used * rest * rest, holes.starts) / np.maximum(total[12], 1.0)
            used = found & (rest <= np.maximum(1.8 * np.sqrt(mean), _HOLE_PX).astype(F32).take(holes.hole))
            if (used == found).all():
                break
    fits[seen < 8] = math.nan
    each = zip(holes.contours.tolist(), (seen / holes.counts).tolist(), (fits / px_per_mm).tolist(), strict=True)
    return tuple(HoleFit(contour, ratio, dx, -dy, dr) for contour, ratio, (dx, dy, dr) in each)


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarse raster of the shape: model point = low_px + pixel · px. Masks (0 or 255) that keep off edges: material, and within holes."""

    low_px: Floats
    px: float
    material: NDArray[np.uint8]
    in_hole: NDArray[np.uint8]


def grid_of(shape: Shape) -> Grid:
    """The raster of about 512 px on which extra holes and material are looked for."""
    px = max(_LEAST_GRID_PX, 2 * shape.radius_px / _GRID_PX)
    low = np.array([c.min(axis=0) for c in shape.contours_px]).min(axis=0) - 8 * px
    high = np.array([c.max(axis=0) for c in shape.contours_px]).max(axis=0) + 8 * px
    columns, rows = (low[i] + px * np.arange(math.ceil((high[i] - low[i]) / px)) for i in (0, 1))
    share = shape.material(np.stack(np.meshgrid(columns, rows), axis=2))
    solid = (share > 0.5).astype(np.uint8)
    kernel = np.ones((7, 7), np.uint8)
    inside = cv2.erode(solid, kernel, borderValue=0) * 255
    outside = cv2.dilate(solid, kernel) == 0
    flooded = np.pad(solid, 1)
    cv2.floodFill(flooded, None, (0, 0), 2)
    in_hole = (flooded[1:-1, 1:-1] == 0) & outside
    return Grid(low, px, np.asarray(inside, np.uint8), in_hole.astype(np.uint8) * 255)


def extras(picture: NDArray[np.uint8], grid: Grid, material: float, background: float) -> list[tuple[str, Floats, int]]:
    """Holes in the material and material in holes that the drawing does not have: (kind, centre (x, y) px, area in px) on the grid.

    A place differs when it is nearer to the other's grey level than to its own, over at least 12 px and 3 px across.
    """
    if abs(background - material) < 8:
        return []
    out: list[tuple[str, Floats, int]] = []
    for kind, mask, share in (("hole", grid.material, 0.6), ("material", grid.in_hole, 0.4)):
        level = material + share * (background - material)
        beyond = (background > material) == (kind == "hole")
        odd = cv2.bitwise_and(cv2.compare(picture, level, cv2.CMP_GT if beyond else cv2.CMP_LT), mask)  # type: ignore[call-overload]
        if cv2.countNonZero(odd) < 12:
            continue
        core = cv2.morphologyEx(odd, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, _, stats, centres = cv2.connectedComponentsWithStats(core, connectivity=8)
        out += [(kind, centres[i], int(stats[i, cv2.CC_STAT_AREA])) for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= 12]
    return out
