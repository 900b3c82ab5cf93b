"""A drawing → the template of one part: its contours with their tolerances, and a raster with distances and zones."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry.coverage import inside
from inspector.geometry.distances import span
from inspector.geometry.dxf import Drawing
from inspector.geometry.polygon import Points, sides
from inspector.geometry.side import Side, Zone
from inspector.records import ConfigError, Contour, Distance, Floats, Template

LONG_SIDE_PX = 640
MARGIN_PX = 16
MAX_SIDE_PX = 8192
_BUNCH = 1 << 13
TOLERANCE_MM = 0.1
LAYER_TOLERANCE = re.compile(r"@\s*(\d+(?:\.\d+)?)\s*$")
"""A layer called `CUT@0.05` gives its contours ±0.05 mm."""


def build(drawing: Drawing, *, mm_per_px: float | None = None, tolerance_mm: float | None = None, part: int = 0) -> Template:
    """The template of one part of a drawing.

    `mm_per_px` is the raster's; without it the part's long side is some 640 px. `tolerance_mm` holds for contours to which the side
    file gives none of their own. Parts are numbered from the largest, 0. Raises `ConfigError` E_DXF_PART, E_DXF_LIMIT, E_SIDE_ZONE for a
    zone of the side file that covers nothing.
    """
    if not 0 <= part < len(drawing.parts):
        text = f"part number {part + 1}, counted from 1, is asked for; the drawing has {len(drawing.parts)}"
        raise ConfigError("E_DXF_PART", text, file=str(drawing.file))
    own = tuple(drawing.contours[i] for i in drawing.parts[part])
    contours = tuple(_tolerated(c, drawing.side, tolerance_mm) for c in own)
    points = np.concatenate([c.points_mm for c in contours])
    low, high = points.min(axis=0), points.max(axis=0)
    long_mm = float((high - low).max())
    mm_per_px = long_mm / LONG_SIDE_PX if mm_per_px is None else mm_per_px
    if not (math.isfinite(mm_per_px) and mm_per_px > 0 and long_mm / mm_per_px <= MAX_SIDE_PX):
        text = f"{long_mm:.3f} mm at {mm_per_px:g} mm/px are more than {MAX_SIDE_PX} px; take a larger --mm-per-px"
        raise ConfigError("E_DXF_LIMIT", text, file=str(drawing.file))
    width, height = (math.ceil(float(side) / mm_per_px) + 1 + 2 * MARGIN_PX for side in high - low)
    origin = (float(low[0]) - MARGIN_PX * mm_per_px, float(high[1]) + MARGIN_PX * mm_per_px)
    outlines = [on_raster(c.points_mm, origin, mm_per_px) for c in contours]
    sdf_mm = signed_distance(outlines, (height, width)) * np.float32(mm_per_px)
    zone, zones = _zones(drawing, contours, sdf_mm, origin, mm_per_px)
    sdf_mm.setflags(write=False)
    zone.setflags(write=False)
    said = f"{drawing.digest} {mm_per_px!r} {tolerance_mm!r} {part}"
    return Template(
        name=drawing.name if len(drawing.parts) == 1 else f"{drawing.name}-{part + 1}",
        digest=hashlib.sha256(said.encode()).hexdigest(),
        mm_per_px=mm_per_px,
        origin_mm=origin,
        contours=contours,
        sdf_mm=sdf_mm,
        zone=zone,
        zones=zones,
        datum=tuple(c.name for c in contours if c.name in drawing.side.datum),
        distances=_distances(drawing, drawing.parts[part]),
    )


def on_raster(points_mm: Points, origin_mm: tuple[float, float], mm_per_px: float) -> Points:
    """Drawing points (N, 2) → (column, row) on a template's raster."""
    return np.column_stack([points_mm[:, 0] - origin_mm[0], origin_mm[1] - points_mm[:, 1]]) / mm_per_px


def signed_distance(contours_px: Sequence[Points], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The distance of each pixel centre to the nearest contour, in pixels, inside (even-odd) negative; float32 (H, W).

    Exact to the rounding within 2 px of a contour. Farther off at most 1.5 px too large: there the nearest piece is the one that OpenCV's
    labelled distance transform names, which is only roughly the nearest, held against its precise one, which knows whole pixels only.
    """
    pieces = _pieces(*_short_segments(contours_px))
    middle_u, middle_v = (np.round(pieces[i] + 0.5 * pieces[i + 2]).astype(np.int64) for i in (0, 1))
    seen = np.full(shape, 255, dtype=np.uint8)
    within = (middle_u >= 0) & (middle_v >= 0) & (middle_u < shape[1]) & (middle_v < shape[0])
    owner = np.full(shape, -1, dtype=np.int64)
    owner[middle_v[within], middle_u[within]] = np.flatnonzero(within)
    seen[middle_v[within], middle_u[within]] = 0
    _, labels = cv2.distanceTransformWithLabels(seen, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    of_label[labels[seen == 0]] = owner[seen == 0]
    nearest = of_label[labels].ravel()
    square = (cv2.distanceTransform(seen, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).ravel().astype(np.float64) + 0.75) ** 2
    width = np.int64(shape[1])
    for some in _bunches(square.size):
        v, u = np.divmod(np.arange(some.start, some.stop), width)
        for offset in (-1, 0, 1):
            near = np.clip(nearest[some] + offset, 0, len(middle_u) - 1)
            np.minimum(square[some], _square(u, v, tuple(column[near] for column in pieces)), out=square[some])
    for some in _bunches(len(middle_u)):
        own = tuple(column[some] for column in pieces)
        for dv in range(-2, 3):
            for du in range(-2, 3):
                u, v = middle_u[some] + du, middle_v[some] + dv
                fits = (u >= 0) & (u < shape[1]) & (v >= 0) & (v < shape[0])
                np.minimum.at(square, np.where(fits, v * width + u, 0), np.where(fits, _square(u, v, own), np.inf))
    distance = np.sqrt(square).reshape(shape)
    return np.where(inside(contours_px, shape), -distance, distance).astype(np.float32)


def _short_segments(contours_px: Sequence[Points], longest_px: float = 0.5) -> tuple[Points, Points]:
    """The contours as segments of at most half a pixel: starts and steps, both (M, 2), in running order."""
    start, end = sides(contours_px)
    step = end - start
    count = np.maximum(np.ceil(np.hypot(*step.T) / longest_px).astype(np.int64), 1)
    which = np.repeat(np.arange(len(start)), count)
    number = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    short = step[which] / count[which, None]
    return start[which] + short * number[:, None], short


def _bunches(count: int) -> Iterator[slice]:
    """`count` things in bunches whose columns stay in the processor's cache."""
    return (slice(first, min(first + _BUNCH, count)) for first in range(0, count, _BUNCH))


_Pieces = tuple[Floats, ...]


def _pieces(start: Points, step: Points) -> _Pieces:
    """Segments by column, each of its own memory: where they start, their steps, and the squares of their lengths."""
    x, y, along_x, along_y = (np.ascontiguousarray(column) for column in (*start.T, *step.T))
    return x, y, along_x, along_y, np.maximum(along_x * along_x + along_y * along_y, 1e-30)


def _square(u: NDArray[np.int64], v: NDArray[np.int64], pieces: _Pieces) -> Floats:
    """The squared distance of points (u, v) to segments, pair by pair."""
    start_x, start_y, along_x, along_y, square = pieces
    x, y = u - start_x, v - start_y
    along = x * along_x
    along += y * along_y
    along /= square
    np.maximum(along, 0.0, out=along)
    np.minimum(along, 1.0, out=along)
    x -= along_x * along
    y -= along_y * along
    x *= x
    y *= y
    return np.asarray(np.add(x, y, out=x))


def _tolerated(contour: Contour, side: Side, tolerance_mm: float | None) -> Contour:
    """The contour with its tolerance: by its name, by its layer, by what was asked for, by the side file's general one, or ±0.1 mm."""
    on_layer = LAYER_TOLERANCE.search(contour.layer)
    general = float(on_layer[1]) if on_layer else tolerance_mm or side.tolerance_mm or TOLERANCE_MM
    layer = side.layers.get(contour.layer)
    named = side.contours.get(contour.name)
    inward = -general if layer is None or layer.inward_mm is None else layer.inward_mm
    outward = general if layer is None or layer.outward_mm is None else layer.outward_mm
    if named is not None:
        inward, outward = named.inward_mm, named.outward_mm
    return replace(contour, inward_mm=inward, outward_mm=outward)


def _distances(drawing: Drawing, part: Sequence[int]) -> tuple[Distance, ...]:
    """Those that the side file asks for, without those of the drawing's other parts."""
    asked = [one.asked() for one in drawing.side.distances]
    return tuple(one for one in asked if all(end.contour in part for end in span(one, drawing.contours).ends))


def _zones(
    drawing: Drawing, contours: Sequence[Contour], sdf_mm: NDArray[np.float32], origin_mm: tuple[float, float], mm_per_px: float
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """The zones of the surface, a later one over an earlier one: all material but a margin, the drawing's layers, the side file's."""
    material = sdf_mm < 0
    margin = next((z.margin_mm for z in drawing.side.zones if z.name == "surface" and z.margin_mm is not None), 0.0)
    places = [("surface", sdf_mm < -margin)]
    places += [(name, material & inside([on_raster(points, origin_mm, mm_per_px)], material.shape)) for name, points in drawing.zones]
    for i, wanted in enumerate(drawing.side.zones):
        if wanted.polygon_mm is not None:
            place = material & inside([on_raster(np.array(wanted.polygon_mm), origin_mm, mm_per_px)], material.shape)
        elif wanted.margin_mm is not None:
            place = sdf_mm < -wanted.margin_mm
        else:  # a contour of another part has no place here
            around = [on_raster(c.points_mm, origin_mm, mm_per_px) for c in contours if c.name == wanted.contour]
            near_px = float(wanted.within_mm or 0.0) / mm_per_px
            place = material & (np.abs(signed_distance(around, material.shape)) <= near_px) if around else np.zeros_like(material)
        if not place.any() and not _elsewhere(drawing, contours, wanted):
            deep = f"it spans {_box_in_words(contours)} mm, and its material lies up to {-float(sdf_mm.min()):.3f} mm from its edges"
            text = f"{wanted.name} covers nothing of the part, not a pixel of {mm_per_px:.3g} mm: {deep}"
            raise drawing.places.error("E_SIDE_ZONE", text, ("zones", i))
        if wanted.margin_mm is None or wanted.name != "surface":  # the surface's margin is minded already
            places.append((wanted.name, place))
    zone = np.zeros(material.shape, dtype=np.uint8)
    names = list(dict.fromkeys(["", "surface", *(name for name, _ in places if name != "ignore")]))
    for name, place in places:
        zone[place] = 0 if name == "ignore" else names.index(name)
    return zone, tuple(names)


def _elsewhere(drawing: Drawing, contours: Sequence[Contour], zone: Zone) -> bool:
    """Whether a zone is one of the drawing's other parts: around a contour of it, or a polygon that meets its box."""
    others = [c for c in drawing.contours if c.name not in {own.name for own in contours}]
    if zone.polygon_mm is None:
        return any(c.name == zone.contour for c in others)
    low, high = np.min(zone.polygon_mm, axis=0), np.max(zone.polygon_mm, axis=0)
    return any(((low < c.points_mm.max(axis=0)) & (high > c.points_mm.min(axis=0))).all() for c in others)


def _box_in_words(contours: Sequence[Contour]) -> str:
    points = np.concatenate([c.points_mm for c in contours])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return f"({x0:.3f}, {y0:.3f}) to ({x1:.3f}, {y1:.3f})"
