"""Curves → points, in mm. Arcs are cut by their own formula: as Béziers they would be off by 2.7e-4 of their radius. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from inspector.geometry.polygon import Points

Circle: TypeAlias = tuple[float, float, float]
"""x, y, radius."""

SAG_MM = 3e-4
"""How far a chord may lie from its arc."""

LARGEST_STEP_RAD = 0.1
"""Of the smallest arcs: their length is right to 0.05 %."""

MOST_POINTS = 1 << 16


_ALMOST_RAD, _NONE_RAD = 1e-4, 1e-6
"""What lacks this much of a whole turn, or exceeds one by it, is whole; and so is what has no length at all, as nobody draws that."""


def sag_mm(size_mm: float) -> float:
    """The sag for a curve of this size: `SAG_MM`, or 1e-7 of what is larger than 3 m."""
    return max(SAG_MM, 1e-7 * size_mm)


def swept(span_rad: float) -> float:
    """How far a curve runs counter-clockwise, from the difference of its end and start: 0 to 2π, exactly 2π where it is a whole one."""
    sweep = span_rad % math.tau
    over = _ALMOST_RAD if span_rad > math.pi else _NONE_RAD
    return math.tau if sweep < over or sweep > math.tau - _ALMOST_RAD else sweep


def arc(x: float, y: float, radius: float, start_rad: float, sweep_rad: float) -> Points:
    """Points along an arc, both ends included and exact; NaN where the numbers are none.

    The inner points lie ⅔ of the sag outside the arc, so that the chords are right on average: area π r² and no bias of the radius.
    """
    if not (math.isfinite(x + y + start_rad + sweep_rad) and 0.0 <= radius < 1e15):
        return np.full((2, 2), np.nan)
    step = 2.0 * math.acos(max(1.0 - sag_mm(radius) / radius, 0.0)) if radius > 0 else 1.0
    count = max(math.ceil(abs(sweep_rad) / min(step, LARGEST_STEP_RAD)), 2)
    angle = start_rad + np.linspace(0.0, sweep_rad, count + 1)
    reach = np.full(count + 1, radius * (1.0 + (sweep_rad / count) ** 2 / 12.0))
    if abs(abs(sweep_rad) - 2.0 * math.pi) > 1e-9:
        reach[[0, -1]] = radius
    return np.column_stack([x + reach * np.cos(angle), y + reach * np.sin(angle)])


def bulged(vertices: Sequence[tuple[float, float, float]], closed: bool) -> tuple[Points, Circle | None]:
    """A polyline of (x, y, bulge) as points, and its circle where it is a whole one; bulge = tan(¼ of the sweep to the next vertex)."""
    runs: list[Points] = []
    circles: list[Circle] = []
    following = [*vertices[1:], vertices[0]] if closed else vertices[1:]
    for (x0, y0, bulge), (x1, y1, _) in zip(vertices, following, strict=False):
        chord = math.hypot(x1 - x0, y1 - y0)
        if not bulge or not chord:
            runs.append(np.array([(x0, y0)]))
            circles.append((math.nan, math.nan, math.nan))
            continue
        to_centre = (1.0 - bulge * bulge) / (4.0 * bulge)
        x, y = 0.5 * (x0 + x1) - to_centre * (y1 - y0), 0.5 * (y0 + y1) + to_centre * (x1 - x0)
        radius = chord * (1.0 + bulge * bulge) / (4.0 * abs(bulge))
        runs.append(arc(x, y, radius, math.atan2(y0 - y, x0 - x), 4.0 * math.atan(bulge))[:-1])
        circles.append((x, y, radius))
    if not closed:
        runs.append(np.array([vertices[-1][:2]]))
    whole = closed and same_circle(circles)
    return np.concatenate(runs), circles[0] if whole else None


def same_circle(circles: Sequence[Circle]) -> bool:
    """Whether all of these are one circle, to a micrometre; NaN is none."""
    return bool(np.ptp(np.array(circles), axis=0).max() < 1e-3)


def sampled(point_at: Callable[[Points], Points], breaks: Points, sag: float) -> Points:
    """A smooth curve as points: between two breaks as many equal steps as keep every chord within the sag (same unit as the points)."""
    steps = 4
    while True:
        at = np.concatenate([*(np.linspace(a, b, steps, endpoint=False) for a, b in pairwise(breaks)), breaks[-1:]])
        points, middles = point_at(at), point_at(0.5 * (at[1:] + at[:-1]))
        off = np.hypot(*(0.5 * (points[1:] + points[:-1]) - middles).T).max()
        if not off > sag or len(at) > MOST_POINTS:
            return points
        steps *= 2
