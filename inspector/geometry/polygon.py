"""Closed polygons as arrays (N, 2) of points (x, y), the last not the first again: area, length, nesting. Pure, any unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]


def signed_area(points: Points) -> float:
    """The area (shoelace formula), positive for a counter-clockwise run with y up; taken about the first point to keep its digits."""
    x, y = (points - points[0]).T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def perimeter(points: Points) -> float:
    """The length of the closed line."""
    return float(np.hypot(*(np.roll(points, -1, axis=0) - points).T).sum())


def centroid(points: Points) -> Points:
    """The centre of the enclosed area, or of the points where the area is nothing."""
    shifted = points - points[0]
    following = np.roll(shifted, -1, axis=0)
    cross = shifted[:, 0] * following[:, 1] - shifted[:, 1] * following[:, 0]
    twice = float(cross.sum())
    if abs(twice) < 1e-12 * max(float(np.ptp(shifted, axis=0).max()) ** 2, 1e-300):
        return np.asarray(points.mean(axis=0))
    return np.asarray(points[0] + ((shifted + following) * cross[:, None]).sum(axis=0) / (3.0 * twice))


def contains(points: Points, probes: Points) -> NDArray[np.bool_]:
    """Which of the probes (M, 2) lie inside by the even-odd rule; one on the line itself may go either way."""
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    inside = np.zeros(len(probes), dtype=bool)
    for i, (px, py) in enumerate(probes):
        crosses = np.flatnonzero((y0 <= py) != (y1 <= py))
        at = x0[crosses] + (py - y0[crosses]) * (x1[crosses] - x0[crosses]) / (y1[crosses] - y0[crosses])
        inside[i] = np.count_nonzero(at > px) % 2 == 1
    return inside


def enclosing(contours: Sequence[Points]) -> list[list[int]]:
    """For each contour, the indices of those it lies in, from the largest to the smallest.

    Nine of its points are asked and the majority holds, so that contours that touch do not deceive.
    """
    if not contours:
        return []
    low = np.array([c.min(axis=0) for c in contours])
    high = np.array([c.max(axis=0) for c in contours])
    areas = [abs(signed_area(c)) for c in contours]
    found: list[list[int]] = []
    for i, contour in enumerate(contours):
        slack = 1e-2 * float((high[i] - low[i]).max())
        around = (low <= low[i] + slack).all(axis=1) & (high >= high[i] - slack).all(axis=1)
        around[i] = False
        middle = 0.5 * (contour + np.roll(contour, -1, axis=0))
        probes = middle[(np.arange(0.03, 1.0, 0.11) * len(middle)).astype(np.int64)]
        inside = [int(j) for j in np.flatnonzero(around) if contains(contours[int(j)], probes).sum() >= 5]
        found.append(sorted((j for j in inside if areas[j] > areas[i] or j < i), key=lambda j: -areas[j]))
    return found


def nested(contours: Sequence[Points]) -> list[Points]:
    """The contours, each turned so that those at even depth run counter-clockwise (y up) and those at odd depth clockwise."""
    depths = [len(outside) for outside in enclosing(contours)]
    return [c if (signed_area(c) > 0) == (depth % 2 == 0) else c[::-1] for c, depth in zip(contours, depths, strict=True)]
