"""The drawing at one scale of the full picture, and the measuring of a part that lies there: from edges to `Gauged`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.geometry import gauge
from inspector.geometry.oblique import Slanted, design, look_through, step
from inspector.geometry.raster import apply, inside, warp
from inspector.geometry.refine import (
    Level,
    moved,
    phase_bias,
    placement_matrix,
    predicted_shifts,
    profiles,
    resolved,
    solve,
    tukey,
    within,
)
from inspector.geometry.runs import Runs, redundancy, runs_of
from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, Floats32, Profiles, Samples, Shape, of_use
from inspector.geometry.twins import Twins, twins_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.records import Contour, Floats

POSE_SAMPLES = 1000
FEW_SAMPLES = 300
_JUMP_SAMPLES = 16
_LEAST_OF_DATUM = 0.5
_AS_IT_IS = np.array([[0.0, 0.0, 0.0, 1.0]])  # the placement that changes nothing
_ROUGH_PX = 0.08  # spread of the deviations above which they are more than noise of the camera


@dataclass(frozen=True, slots=True)
class Scaled:
    """What is needed at one scale: `few` catch the pose, `pose` profiles fit it, `every` (one a px) measure, `straight` tell the blur."""

    contours: tuple[Contour, ...]
    shape: Shape
    few: Samples
    pose: Profiles
    every: Profiles
    straight: Floats32
    twins: Twins
    inner_reach_px: Floats32
    grid: gauge.Grid
    holes: gauge.Holes
    points_mm: Floats
    trusted: NDArray[np.bool_]
    runs: Runs
    datum: tuple[int, ...]


def scaled(contours: tuple[Contour, ...], scale_px_per_mm: float, matches: Floats, roundness: float, datum: tuple[int, ...] = ()) -> Scaled:
    """The drawing at this scale; `matches` (K, 3) are its near-symmetries in px of this scale, `datum` the contours that fix the pose."""
    shape = Shape(contours, scale_px_per_mm)
    pose = Profiles(shape, _measurable(shape, shape.samples(max(1.0, shape.length_px / POSE_SAMPLES))))
    every = Profiles(shape, _measurable(shape, shape.samples(1.0)))
    for profile in (pose, every):
        profile.rows(DEFAULT_BLUR_PX)
    twins = twins_of(shape, pose, matches, roundness)
    reaches = gauge.inner_reaches(shape, contours, every.samples)
    straight, holes = gauge.straight_edges(every), gauge.holes_of(contours, every.samples)
    few = of_use(shape.samples(max(1.0, shape.length_px / FEW_SAMPLES)), 2 * FEW_SAMPLES)
    return Scaled(
        contours,
        shape,
        few,
        pose,
        every,
        straight,
        twins,
        reaches,
        gauge.grid_of(shape),
        holes,
        shape.to_mm(every.samples.points),
        every.samples.weight > 0,
        runs_of(every.samples),
        datum,
    )


def _measurable(shape: Shape, samples: Samples) -> Samples:
    """The samples, without weight where two contours come so close that the drawing itself shows no edge."""
    return resolved(samples, shape, by_contour=True)


def along(levels: Sequence[Level], at: Scaled, placement: Floats, sign: float, *, free_size: bool) -> tuple[Floats, gauge.Gauged]:
    """The whole outline measured, and the placement (4,) fitted to all of it, or to the datum where there is one.

    The datum may lie some px off the pose that all contours give: then the outline is measured once more from where the datum has it.
    """
    samples, blur = at.every.samples, DEFAULT_BLUR_PX
    for _ in range(2 if at.datum else 1):
        now = placement

        def look(design: Floats32, reach: int, now: Floats = now) -> Floats32:
            return profiles(levels[0], design, now[None], reach)

        blur = gauge.estimate_blur(look, at.straight)
        edges = _in_picture(levels[0], at, placement_matrix(now), gauge.find_edges(look, at.every, blur, sign, at.inner_reach_px))
        edges = replace(edges, shift_px=edges.shift_px - phase_bias(samples, placement_matrix(now), blur))
        weights, shift = fit_weights(samples, edges, 0.15, at.datum)
        steps = solve(samples, weights[None], shift[None], free_size)
        left = shift - predicted_shifts(samples, steps)[0]
        if spread(left) > _ROUGH_PX:
            steps = solve(samples, (weights / redundancy(at.runs, left, weights))[None], shift[None], free_size)
        edges = replace(edges, shift_px=edges.shift_px - predicted_shifts(samples, steps)[0])
        placement = moved(now[None], steps)[0]
    px_per_mm = at.shape.scale_px_per_mm * float(placement[3])
    return placement, gauged(levels, at, placement_matrix(placement), px_per_mm, edges, blur)


def along_view(levels: Sequence[Level], at: Scaled, found: Slanted) -> tuple[Slanted, gauge.Gauged]:
    """The whole outline measured through a homography, from the edges that its side walls put there, and both fitted to all of it.

    A datum moves, turns and sizes what is seen through it, in the plane of the drawing.
    """
    samples, columns, radius = at.every.samples, design(at.every.samples, at.shape.radius_px), at.shape.radius_px
    blur = DEFAULT_BLUR_PX
    for number in range(4 if at.datum else 2):
        now = found

        def look(chosen: Floats32, reach: int, now: Slanted = now) -> Floats32:
            return look_through(levels[0], now.view, now.wall_px, chosen, reach)

        blur = gauge.estimate_blur(look, at.straight)
        edges = _in_picture(levels[0], at, found.view, gauge.find_edges(look, at.every, blur, found.sign, at.inner_reach_px))
        if number >= 2:
            weights, shift = fit_weights(samples, edges, 0.3, at.datum)
            steps = solve(samples, weights[None], shift[None], free_size=True)
            edges = replace(edges, shift_px=edges.shift_px - predicted_shifts(samples, steps)[0])
            found = replace(found, view=found.view @ placement_matrix(moved(_AS_IT_IS, steps)[0]))
            continue
        weights, shift = fit_weights(samples, edges, 0.3)
        after = step(found, samples, columns, shift, weights, radius, 8)
        edges = replace(edges, shift_px=np.asarray(edges.shift_px - (shift - after.left_px), F32))
        found = replace(found, view=after.view, wall_px=after.wall_px)
    return found, gauged(levels, at, found.view, at.shape.scale_px_per_mm, edges, blur)


def _reaches_out(level: Level, at: Scaled, matrix: Floats, more_px: float = 0.0) -> bool:
    """Whether the drawing, or what is `more_px` of the model around it, may lie beyond the picture's border; by its box, which is quick."""
    if level.shown is not None:
        return True  # the border of what is shown may be bent, and the box's corners say nothing of it
    reach = at.shape.radius_px + more_px
    corners = apply(matrix, reach * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
    return not inside(corners, level.image.shape).all()


def _beyond(level: Level, at: Scaled, matrix: Floats) -> tuple[int, ...]:
    """The contours of which a part lies beyond the picture's border."""
    if not _reaches_out(level, at, matrix):
        return ()
    samples = at.every.samples
    return tuple(np.unique(samples.contour[~_inside(level, apply(matrix, samples.points))]).tolist())


def _inside(level: Level, points_px: Floats) -> NDArray[np.bool_]:
    return inside(points_px, level.image.shape, level.shown)


def _in_picture(level: Level, at: Scaled, matrix: Floats, edges: gauge.Edges) -> gauge.Edges:
    """The edges, not to be known where the drawing's edge, or the place up to which was searched, lies beyond the picture's border."""
    if not _reaches_out(level, at, matrix, gauge.FAR_PX):
        return edges
    samples = at.every.samples
    ends = samples.points + np.nan_to_num(edges.shift_px)[:, None] * samples.normals
    known = _inside(level, apply(matrix, samples.points)) & _inside(level, apply(matrix, ends))
    return replace(edges, shift_px=np.where(known, edges.shift_px, F32(np.nan)), seen=edges.seen & known)


def fit_weights(samples: Samples, edges: gauge.Edges, least_limit_px: float, datum: tuple[int, ...] = ()) -> tuple[Floats32, Floats32]:
    """Robust weights (n,) for fitting a pose to measured edges, and the shifts (n,) with nothing where nothing near was seen.

    Only the contours of the datum count, where there is one and at least half of each of them is seen.
    """
    near = edges.seen & (np.abs(edges.shift_px) < gauge.NEAR_PX)
    if datum and all(near[samples.contour == index].mean() >= _LEAST_OF_DATUM for index in datum):
        near &= np.isin(samples.contour, datum)
    shift = np.where(near, edges.shift_px, F32(0))
    trust = within(edges.contrast / F32(edges.typical), 0.0, 1.5)
    weights = samples.weight * near * tukey(shift, max(4.5 * spread(shift[near]), least_limit_px)) * trust * trust
    return np.asarray(weights, F32), shift


def gauged(levels: Sequence[Level], at: Scaled, matrix: Floats, px_per_mm: float, edges: gauge.Edges, blur_px: float) -> gauge.Gauged:
    """The measurements in the drawing's millimetres; `matrix` (3, 3): model px → picture px; shifts are px of `px_per_mm`."""
    samples = at.every.samples
    holes = gauge.hole_fits(at.holes, edges, px_per_mm)
    missing = tuple(h.contour for h in holes if h.seen_ratio < 0.35 and _buried(edges, samples, h.contour))
    return gauge.Gauged(
        points_mm=at.points_mm,
        contour=samples.contour,
        deviation_mm=edges.shift_px.astype(np.float64) / px_per_mm,
        seen=edges.seen,
        trusted=at.trusted,
        holes=holes,
        missing=missing,
        extra=_extra(levels, at, matrix, edges, missing),
        noise_mm=spread(edges.shift_px[edges.seen]) / px_per_mm,
        spacing_mm=at.shape.length_px / at.shape.scale_px_per_mm / max(len(samples), 1),
        blur_px=blur_px,
        contrast_counts=edges.typical,
        beyond=_beyond(levels[0], at, matrix),
    )


def unsteadiness_mm(measured: gauge.Gauged) -> float:
    """How much the edge's distance from the drawing jumps from one place to the next, 16 samples on, in mm (robust; NaN of nothing seen).

    Of an edge that is there it is the noise, however far it has gone astray or is bent; of texture, some pixels.
    """
    here, there = slice(None, -_JUMP_SAMPLES), slice(_JUMP_SAMPLES, None)
    both = measured.seen[here] & measured.seen[there] & (measured.contour[here] == measured.contour[there])
    return spread((measured.deviation_mm[there] - measured.deviation_mm[here])[both]) / math.sqrt(2.0)


def _extra(levels: Sequence[Level], at: Scaled, matrix: Floats, edges: gauge.Edges, missing: tuple[int, ...]) -> tuple[gauge.Extra, ...]:
    """What the drawing does not have, without the missing holes, which are told as such."""
    grid = at.grid
    from_grid = np.array([[grid.px, 0, grid.low_px[0]], [0, grid.px, grid.low_px[1]], [0, 0, 1]])
    if _reaches_out(levels[0], at, matrix):
        shown = np.zeros_like(grid.material)
        columns, rows = levels[0].image.shape[1] - 1, levels[0].image.shape[0] - 1
        border = apply(np.linalg.inv(matrix @ from_grid), [(0, 0), (columns, 0), (columns, rows), (0, rows)])
        cv2.fillConvexPoly(shown, np.rint(border).astype(np.int32), 255)
        if levels[0].shown is not None:
            shown &= warp(levels[0].shown, matrix @ from_grid, shown.shape, smooth=False)
        grid = replace(grid, material=grid.material & shown, in_hole=grid.in_hole & shown)
    size = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2])))) * grid.px
    level = min(levels, key=lambda one: abs(math.log(size / one.factor)))
    to_level = np.array([[1, 0, 0.5 - 0.5 * level.factor], [0, 1, 0.5 - 0.5 * level.factor], [0, 0, level.factor]])
    picture = warp(level.image, to_level @ matrix @ from_grid, grid.material.shape, smooth=False)
    out: list[gauge.Extra] = []
    for kind, place, area in gauge.extras(picture, grid, edges.material, edges.background):
        point = place * grid.px + grid.low_px
        hidden = any(cv2.pointPolygonTest(at.shape.contours_px[i].astype(F32), point.tolist(), False) >= 0 for i in missing)
        if not (kind == "material" and hidden):
            x, y = at.shape.to_mm(point)
            out.append(gauge.Extra(kind, (float(x), float(y)), area * (grid.px / at.shape.scale_px_per_mm) ** 2))
    return tuple(out)


def _buried(edges: gauge.Edges, samples: Samples, contour: int) -> bool:
    """Whether most of a hole's edge lies in material."""
    own = (samples.contour == contour) & ~edges.seen
    return bool(own.any()) and float((edges.shift_px[own] > 0).mean()) > 0.6


def spread(values: NDArray[np.floating]) -> float:
    """Robust standard deviation: 1.4826 × median absolute deviation; NaN of nothing."""
    if not len(values):
        return math.nan
    values = values[:: len(values) // 2000 + 1]
    return 1.4826 * float(gauge.middle(np.abs(values - gauge.middle(values))))
