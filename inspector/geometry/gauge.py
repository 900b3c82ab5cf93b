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
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, PROFILE_REACH, Floats32, Profiles, Samples, Shape, subset

if TYPE_CHECKING:
    from inspector.records import Contour, Floats

Look = Callable[[Samples, Floats32], Floats32]
"""Grey values (n, J) along the normals of n samples at J offsets in model px."""

NEAR_PX = 6
FAR_PX = 40
_LEAST_CONTRAST = 0.35  # of the typical one, for an edge to count
_PRIOR = 0.25  # how much less a slope counts at the end of the near search
_BLURS_PX = (0.55, 3.5)
_GRID_PX = 256  # extra holes are looked for on a raster of about this size


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
    each. `noise_mm`: robust spread of the deviations. `spacing_mm`: from sample to sample.
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


@dataclass(frozen=True, slots=True)
class Straight:
    """Samples whose predicted profile is that of a straight edge, for estimating the blur; empty where there are too few."""

    samples: Samples


def straight_samples(profiles: Profiles) -> Straight:
    """Up to 400 of the samples where the drawing shows a plain straight edge within ± 6 px."""
    samples = profiles.samples
    t = np.arange(-NEAR_PX, NEAR_PX + 1, dtype=np.float64)
    points = samples.points.astype(np.float64)[:, None] + t[None, :, None] * samples.normals.astype(np.float64)[:, None]
    share = 1.0 - profiles.shape.material(points, DEFAULT_BLUR_PX)
    plain = np.flatnonzero(np.abs(share - _edge(t / DEFAULT_BLUR_PX)).max(axis=1) < 0.012)
    if len(plain) < 40:
        plain = plain[:0]
    chosen = plain[np.linspace(0, len(plain) - 1, min(400, len(plain))).astype(np.intp)] if len(plain) else plain
    return Straight(subset(samples, chosen))


def _edge(x: Floats) -> Floats:
    """The blurred step: the normal distribution's integral."""
    return np.array([0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x])


def _bell(x: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(math.tau))


def estimate_blur(look: Look, straight: Straight) -> float:
    """The picture's total blur in px, from the mean profile of the straight edges.

    Least squares of a + b·Φ((t − d)/σ), Gauss–Newton in (a, b, d, σ). Without straight edges the default.
    """
    if not len(straight.samples):
        return DEFAULT_BLUR_PX
    t = np.arange(-NEAR_PX, NEAR_PX + 1, dtype=np.float64)
    mean = look(straight.samples, t.astype(F32)).mean(axis=0, dtype=np.float64)
    sigma, at = DEFAULT_BLUR_PX, 0.0
    for _ in range(5):
        x = (t - at) / sigma
        step, bell = _edge(x), _bell(x) / sigma
        basis = np.column_stack([np.ones(len(t)), step, -bell, -x * bell])
        solved, *_ = np.linalg.lstsq(basis, mean, rcond=None)
        if abs(solved[1]) < 1e-3:
            return DEFAULT_BLUR_PX
        at = float(np.clip(at + solved[2] / solved[1], -1.5, 1.5))
        sigma = float(np.clip(sigma + np.clip(solved[3] / solved[1], -0.4 * sigma, 0.4 * sigma), *_BLURS_PX))
    return sigma


@dataclass(frozen=True, slots=True)
class Edges:
    """Signed distances of the real edge from the samples, in px of the model, NaN where not to be known; which were really seen."""

    shift_px: Floats32
    seen: NDArray[np.bool_]
    contrast: Floats32
    typical: float


def find_edges(look: Look, profiles: Profiles, blur_px: float, sign: float, inner_reach_px: Floats32) -> Edges:
    """The edge at every sample. `inner_reach_px` (n,): how far outwards of the material an edge of the same contour can be."""
    samples, rows = profiles.samples, profiles.rows(blur_px)
    reach = NEAR_PX + PROFILE_REACH
    offsets = np.arange(-reach, reach + 1, dtype=F32)
    values = look(samples, offsets)
    places, contrast = _near_edges(values, rows.contrast, rows.shift, sign, _PRIOR)
    middle = len(contrast) // 2
    typical = max(float(np.partition(contrast, middle)[middle]), 1e-3)
    good = contrast > _LEAST_CONTRAST * typical
    if not good.all() and good.any():
        material, background = (float(np.median(values[good, at])) for at in (2, -3))
        lost = np.flatnonzero(~good)
        for part in np.array_split(lost, len(lost) // 8000 + 1):
            levels = (material, background)
            found, really = _far_edges(
                look, subset(samples, part), rows.contrast[part], rows.shift[part], inner_reach_px[part], levels, typical
            )
            places[part], good[part] = found, really
    return Edges(places, good, contrast, typical)


def _near_edges(values: Floats32, contrast_rows: Floats32, shift_rows: Floats32, sign: float, prior: float) -> tuple[Floats32, Floats32]:
    """Place (px from the middle) and contrast of the strongest slope in each profile."""
    count, width = values.shape
    reach = width // 2
    where = np.arange(PROFILE_REACH, width - PROFILE_REACH)
    liking = 1.0 - prior * ((where - reach) / max(reach - PROFILE_REACH, 1)) ** 2
    slopes = values @ _slopes_at(width, where, liking * sign)
    best = slopes.argmax(axis=1)
    window = (best + np.arange(count) * width)[:, None] + np.arange(2 * PROFILE_REACH + 1)
    around = values.ravel().take(window)
    contrast = np.einsum("ij,ij->i", around, contrast_rows) * F32(sign)
    shift = np.einsum("ij,ij->i", around, shift_rows) * F32(sign)
    shift /= np.maximum(contrast, F32(1e-3))
    return np.asarray(best + F32(PROFILE_REACH - reach) + np.clip(shift, F32(-1.2), F32(1.2)), F32), contrast


def _slopes_at(width: int, where: NDArray[np.intp], weight: Floats) -> Floats32:
    out = np.zeros((width, len(where)), F32)
    for j, (at, w) in enumerate(zip(where, weight, strict=True)):
        out[at - 2 : at + 3, j] = w * np.array((-1, -2, 0, 2, 1))
    return out


def _far_edges(
    look: Look,
    samples: Samples,
    contrast_rows: Floats32,
    shift_rows: Floats32,
    inner_reach_px: Floats32,
    levels: tuple[float, float],
    typical: float,
) -> tuple[Floats32, NDArray[np.bool_]]:
    """The edge farther away where what lies between is all material or all background; else ± the reach, or NaN."""
    material, background = levels
    sign = 1.0 if background >= material else -1.0
    reach = FAR_PX + PROFILE_REACH
    offsets = np.arange(-reach, reach + 1, dtype=F32)
    values = look(samples, offsets)
    share = (values - F32(material)) / F32(background - material if abs(background - material) > 1e-3 else 1e-3)
    where = np.arange(PROFILE_REACH, len(offsets) - PROFILE_REACH)
    slopes = values @ _slopes_at(len(offsets), where, np.full(len(where), sign))
    slopes[offsets[where][None] > inner_reach_px[:, None]] = -np.inf
    best = slopes.argmax(axis=1)
    n = len(samples)
    window = (best + np.arange(n) * len(offsets))[:, None] + np.arange(2 * PROFILE_REACH + 1)
    around = values.ravel().take(window)
    contrast = np.einsum("ij,ij->i", around, contrast_rows) * F32(sign)
    shift = np.einsum("ij,ij->i", around, shift_rows) * F32(sign) / np.maximum(contrast, F32(1e-3))
    place = offsets[where][best] + np.clip(shift, F32(-1.2), F32(1.2))
    total = np.concatenate([np.zeros((n, 1), F32), np.cumsum(share, axis=1)], axis=1)
    rows, middle = np.arange(n), reach
    found = best + PROFILE_REACH
    first, last = np.minimum(found, middle), np.maximum(found, middle) + 1
    between = (total[rows, last] - total[rows, first]) / (last - first)
    here = share[:, middle - 3 : middle + 4].mean(axis=1)
    real = (contrast > _LEAST_CONTRAST * typical) & np.where(place > 0, between < 0.45, between > 0.55)
    beyond = np.where(here < 0.3, np.minimum(inner_reach_px, F32(FAR_PX)), np.where(here > 0.7, F32(-FAR_PX), F32(np.nan)))
    return np.asarray(np.where(real, place, beyond), F32), real


def inner_reaches(shape: Shape, contours: tuple[Contour, ...], samples: Samples) -> Floats32:
    """For each sample how far outwards of the material its contour's edge can move: a hole's inner radius, elsewhere no limit."""
    reaches = np.full(len(shape.contours_px), float(FAR_PX))
    for i, contour in enumerate(contours):
        if contour.kind == "hole":
            reaches[i] = min(FAR_PX, inner_radius(shape.contours_px[i]))
    return np.asarray(reaches[samples.contour], F32)


def inner_radius(points_px: Floats) -> float:
    """The radius of the largest circle within a contour, in px, to about half a pixel or 2 %."""
    low = points_px.min(axis=0)
    zoom = 100.0 / max(float((points_px.max(axis=0) - low).max()), 1e-6)
    mask = np.zeros((105, 105), np.uint8)
    cv2.fillPoly(mask, [np.rint((points_px - low) * zoom + 2).astype(np.int32)], 255)
    return float(cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()) / zoom


def hole_fits(samples: Samples, contours: tuple[Contour, ...], edges: Edges, px_per_mm: float) -> tuple[HoleFit, ...]:
    """Shift and growth of every hole from its own samples: least squares of d = n·(dx, dy) − dr, then again without outliers."""
    out: list[HoleFit] = []
    for index, contour in enumerate(contours):
        if contour.kind != "hole":
            continue
        own = samples.contour == index
        used = own & edges.seen
        ratio = float(used.sum()) / max(int(own.sum()), 1)
        if used.sum() < 8:
            out.append(HoleFit(index, ratio, math.nan, math.nan, math.nan))
            continue
        basis = np.column_stack([samples.normals[used], -np.ones(int(used.sum()))]).astype(np.float64)
        shift = edges.shift_px[used].astype(np.float64)
        fit, *_ = np.linalg.lstsq(basis, shift, rcond=None)
        rest = np.abs(shift - basis @ fit)
        near = rest < 3 * 1.4826 * float(np.median(rest)) + 0.02
        if near.sum() >= 6:
            fit, *_ = np.linalg.lstsq(basis[near], shift[near], rcond=None)
        dx, dy, dr = (float(v) / px_per_mm for v in fit)
        out.append(HoleFit(index, ratio, dx, -dy, dr))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarse raster of the shape: model point = low_px + pixel · px. `inside` and `outside` keep off edges; `in_hole`: within holes."""

    low_px: Floats
    px: float
    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    in_hole: NDArray[np.bool_]


def grid_of(shape: Shape) -> Grid:
    """The raster of about 256 px on which extra holes and material are looked for."""
    px = max(1.0, 2 * shape.radius_px / _GRID_PX)
    low = np.array([c.min(axis=0) for c in shape.contours_px]).min(axis=0) - 8 * px
    high = np.array([c.max(axis=0) for c in shape.contours_px]).max(axis=0) + 8 * px
    columns, rows = (low[i] + px * np.arange(math.ceil((high[i] - low[i]) / px)) for i in (0, 1))
    share = shape.material(np.stack(np.meshgrid(columns, rows), axis=2))
    solid = (share > 0.5).astype(np.uint8)
    kernel = np.ones((7, 7), np.uint8)
    inside = cv2.erode(solid, kernel, borderValue=0) > 0
    outside = cv2.dilate(solid, kernel) == 0
    flooded = np.pad(solid, 1)
    cv2.floodFill(flooded, None, (0, 0), 2)
    return Grid(low, px, inside, outside, flooded[1:-1, 1:-1] == 0)


def extras(picture: NDArray[np.uint8], grid: Grid, sign: float) -> list[tuple[str, Floats, int]]:
    """Holes in the material and material in holes that the drawing does not have: (kind, centre (x, y) px, area in px) on the grid.

    Levels are the medians of both sides; a place differs when it is nearer to the other level than to its own, over at least 12 px
    and 3 px across.
    """
    inside, outside = grid.inside, grid.outside
    if inside.sum() < 50 or outside.sum() < 20:
        return []
    grey = picture.astype(F32)
    material, background = float(np.median(grey[inside])), float(np.median(grey[outside]))
    if (background - material) * sign < 8:
        return []
    towards = (grey - material) / (background - material)
    out: list[tuple[str, Floats, int]] = []
    for kind, odd in (("hole", inside & (towards > 0.6)), ("material", grid.in_hole & outside & (towards < 0.4))):
        core = cv2.morphologyEx(odd.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        count, _, stats, centres = cv2.connectedComponentsWithStats(core, connectivity=8)
        out += [(kind, centres[i], int(stats[i, cv2.CC_STAT_AREA])) for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= 12]
    return out
