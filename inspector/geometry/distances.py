"""Distances between the middles of holes and places on edges, as a side file asks for them: in the drawing, and on a measured part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.geometry.polygon import centroid
from inspector.records import ConfigError

if TYPE_CHECKING:
    from inspector.geometry.gauge import Gauged
    from inspector.records import Contour, Distance, Floats

_ON_EDGE_MM = 0.05  # how far from the line a place on an edge may be named
_STRAIGHT_MM = 0.005  # what lies so near to the edge's tangent is taken for the edge
_LEAST_COSINE = 0.5
_LEAST_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class End:
    """One end: the middle of the hole `contour`, or, where there is a `normal` (outwards of the material), a place on its edge."""

    contour: int
    at_mm: Floats
    normal: Floats | None


@dataclass(frozen=True, slots=True)
class Span:
    """A distance with both of its ends found in the drawing."""

    distance: Distance
    ends: tuple[End, End]

    @property
    def drawn_mm(self) -> float:
        """As the drawing has it."""
        return float(np.hypot(*(self.ends[1].at_mm - self.ends[0].at_mm)))

    @property
    def middle_mm(self) -> tuple[float, float]:
        """Half-way."""
        x, y = 0.5 * (self.ends[0].at_mm + self.ends[1].at_mm)
        return float(x), float(y)


def span(distance: Distance, contours: Sequence[Contour]) -> Span:
    """The distance with its ends. Raises `ConfigError` E_SIDE_DISTANCE for one that cannot be measured."""
    first, second = (_end(distance, place, contours) for place in distance.between)
    found = Span(distance, (first, second))
    if not found.drawn_mm > 0:
        raise _refused(distance, "both ends are one place")
    along = (second.at_mm - first.at_mm) / found.drawn_mm
    for end in found.ends:
        if end.normal is not None and abs(float(end.normal @ along)) < _LEAST_COSINE:
            raise _refused(distance, f"it runs along the edge at ({end.at_mm[0]:.3f}, {end.at_mm[1]:.3f}) mm, not across it")
    return found


def measured(wanted: Span, gauged: Gauged, over_mm: float, least_seen_ratio: float) -> float | None:
    """The distance on the part, in mm; an edge's place is the median over ± `over_mm` of it. None where an end is not seen."""
    along = (wanted.ends[1].at_mm - wanted.ends[0].at_mm) / wanted.drawn_mm
    places = []
    for end in wanted.ends:
        if end.normal is None:
            shift = _hole_shift(end.contour, gauged, least_seen_ratio)
        else:
            outwards = _edge_shift(end, end.normal, gauged, over_mm, least_seen_ratio)
            shift = None if outwards is None else along * (outwards / float(end.normal @ along))
        if shift is None:
            return None
        places.append(end.at_mm + shift)
    return float(np.hypot(*(places[1] - places[0])))


def _hole_shift(contour: int, gauged: Gauged, least_seen_ratio: float) -> Floats | None:
    """(dx, dy) of a hole's middle."""
    if contour in gauged.missing:
        return None
    seen = next((fit for fit in gauged.holes if fit.contour == contour), None)
    if seen is None or seen.seen_ratio < least_seen_ratio or not math.isfinite(seen.dx_mm):
        return None
    return np.array([seen.dx_mm, seen.dy_mm])


def _edge_shift(end: End, normal: Floats, gauged: Gauged, over_mm: float, least_seen_ratio: float) -> float | None:
    """How far the edge lies outwards of the drawing's."""
    own = np.flatnonzero(gauged.contour == end.contour)
    away = gauged.points_mm[own] - end.at_mm
    near = own[(np.hypot(*away.T) <= over_mm) & (np.abs(away @ normal) <= _STRAIGHT_MM)]
    used = near[gauged.seen[near] & gauged.trusted[near]]
    if len(used) < max(_LEAST_SAMPLES, least_seen_ratio * len(near)):
        return None
    return float(np.median(gauged.deviation_mm[used]))


def _end(distance: Distance, place: str | tuple[float, float], contours: Sequence[Contour]) -> End:
    if isinstance(place, str):
        index = next((i for i, c in enumerate(contours) if c.name == place), None)
        if index is None or contours[index].kind != "hole":
            holes = ", ".join(c.name for c in contours if c.kind == "hole")
            raise _refused(distance, f"{place!r} is no hole of this part; it has {holes or 'none'}")
        circle = contours[index].circle
        middle = centroid(contours[index].points_mm) if circle is None else circle[:2]
        return End(index, np.array(middle, np.float64), None)
    best = min(((*_nearest(c.points_mm, np.array(place)), i) for i, c in enumerate(contours)), key=lambda found: found[0])
    away, at, side, index = best
    if away > _ON_EDGE_MM:
        raise _refused(
            distance, f"({place[0]:g}, {place[1]:g}) mm is {away:.3f} mm from the nearest edge, at ({at[0]:.3f}, {at[1]:.3f}) mm"
        )
    return End(index, at, np.array([side[1], -side[0]]))


def _nearest(points_mm: Floats, place: Floats) -> tuple[float, Floats, Floats]:
    """How far a place is from a closed line that has the material on its left, where the line is nearest, its direction there."""
    sides = np.roll(points_mm, -1, axis=0) - points_mm
    share = np.clip(((place - points_mm) * sides).sum(axis=1) / np.maximum((sides * sides).sum(axis=1), 1e-30), 0.0, 1.0)
    on = points_mm + share[:, None] * sides
    best = int(np.hypot(*(on - place).T).argmin())
    return float(np.hypot(*(on[best] - place))), on[best], sides[best] / max(float(np.hypot(*sides[best])), 1e-30)


def _refused(distance: Distance, text: str) -> ConfigError:
    return ConfigError("E_SIDE_DISTANCE", text, key=f"distances.{distance.name}")
