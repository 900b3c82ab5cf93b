"""Closed polygons as arrays (N, 2) of points (x, y), the last not the first again: area, length, nesting. Pure, any unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]

_PROBES = 9


def signed_area(points: Points) -> float:
    """The area (shoelace formula), positive for a counter-clockwise run with y up; taken about the first point to keep its digits."""
    x, y = (points - points[0]).T
    return 0.5 * float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]))


def box(points: Points) -> Points:
    """The lowest x and y of points (N, 2), and the highest: (2, 2)."""
    columns = np.ascontiguousarray(points.T)  # in a tenth of the time that rows of two take
    return np.array([columns.min(axis=1), columns.max(axis=1)])


def boxes(contours: Sequence[Points]) -> tuple[Points, Points]:
    """The lowest and the highest x and y of each of several lines, both (K, 2)."""
    starts = np.cumsum([0, *(len(c) for c in contours[:-1])])
    columns = np.concatenate(contours).T.copy()
    low, high = (np.array([ends.reduceat(column, starts) for column in columns]).T for ends in (np.minimum, np.maximum))
    return low, high


def counted(first: NDArray[np.int64], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each i the whole numbers first[i] … last[i] − 1: (which i, the number), flat."""
    counts = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which]


def sides(contours: Sequence[Points]) -> tuple[Points, Points]:
    """Where the sides of closed lines begin and end, both (M, 2), in running order."""
    return np.concatenate(contours), np.concatenate([part for c in contours for part in (c[1:], c[:1])])


def turned_left(contours: Sequence[Points]) -> NDArray[np.bool_]:
    """Which closed lines (K,) run counter-clockwise with y up."""
    counts = np.array([len(c) for c in contours])
    starts = np.cumsum(counts) - counts
    start, end = sides(contours)
    origin = np.repeat(start[starts], counts, axis=0)
    (x0, y0), (x1, y1) = (start - origin).T, (end - origin).T
    return np.asarray(np.add.reduceat(x0 * y1 - x1 * y0, starts) > 0)


def perimeter(*contours: Points) -> float:
    """The length of closed lines, all together."""
    start, end = sides(contours)
    length = np.hypot(*(end - start).T)
    ends = np.cumsum([len(c) for c in contours]).tolist()
    return float(sum(length[first:last].sum() for first, last in zip([0, *ends], ends, strict=False)))


def fix_angle(contours: Sequence[Points]) -> bool:
    """Whether the closed lines tell how they are turned: not a circle, or several about one centre, to a thousandth of their size.

    What has sides all shorter than a twentieth of it is taken for the curve that it stands for.
    """
    start, end = sides(contours)
    step = end - start
    length = np.maximum(np.hypot(*step.T), 1e-12)
    straight = length > 0.05 * np.concatenate([np.full(len(c), perimeter(c)) for c in contours])
    middle = start + 0.5 * step - start.mean(axis=0)
    normal = np.column_stack([step[:, 1], -step[:, 0]]) / length[:, None]
    arm = (middle * normal[:, ::-1] * (1.0, -1.0)).sum(axis=1)
    root = np.sqrt(length)
    rest = arm - normal @ np.linalg.lstsq(normal * root[:, None], arm * root)[0]
    square = (length * (rest**2 + straight * length**2 / 12.0)).sum() / length.sum()
    return bool(square > (1e-3 * float(np.ptp(start, axis=0).max())) ** 2)


def is_upright_rectangle(points: Points) -> bool:
    """Whether the closed line is its own box, to a thousandth of it."""
    width, height = np.ptp(points, axis=0)
    whole = abs(signed_area(points)) >= 0.999 * float(width * height) > 0.0
    return whole and perimeter(points) <= 1.001 * 2.0 * float(width + height)


def finely(points: Points, step: float) -> Points:
    """The closed line (N, 2) with more points along its sides, at most `step` apart."""
    along = np.roll(points, -1, axis=0) - points
    count = np.maximum(np.ceil(np.hypot(*along.T) / step), 1).astype(np.intp)
    side = np.repeat(np.arange(len(points)), count)
    share = (np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count)) / count[side]
    return np.asarray(points[side] + share[:, None] * along[side], np.float64)


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
    x, y = np.concatenate([points, points[:1]]).T
    order = np.argsort(probes[:, 1], kind="stable")
    first, last = (np.searchsorted(probes[order, 1], ends(y[:-1], y[1:])) for ends in (np.minimum, np.maximum))
    i, place = counted(first, last)
    probe = order[place]
    at = x[i] + (probes[probe, 1] - y[i]) * (x[i + 1] - x[i]) / (y[i + 1] - y[i])
    return np.asarray(np.bincount(probe[at > probes[probe, 0]], minlength=len(probes)) % 2 == 1)


def enclosing(contours: Sequence[Points]) -> list[list[int]]:
    """For each contour, the indices of those it lies in, from the largest to the smallest.

    Nine of its points are asked and the majority holds, so that contours that touch do not deceive.
    """
    if not contours:
        return []
    low, high = boxes(contours)
    areas = [abs(signed_area(c)) for c in contours]
    slack = 1e-2 * (high - low).max(axis=1, keepdims=True)
    at_least, at_most = (low + slack).T, (high - slack).T
    (left, down), (right, up) = low.T.copy(), high.T.copy()
    probes = np.empty((len(contours), _PROBES, 2))
    lies_in: list[list[int]] = [[] for _ in contours]
    for i, contour in enumerate(contours):
        begins = (np.arange(0.03, 1.0, 0.11) * len(contour)).astype(np.int64)
        probes[i] = 0.5 * (contour[begins] + contour[(begins + 1) % len(contour)])
    for j, contour in enumerate(contours):
        near = (at_least[0] >= left[j]) & (at_least[1] >= down[j]) & (at_most[0] <= right[j]) & (at_most[1] <= up[j])
        near[j] = False
        asked = np.flatnonzero(near)
        if len(asked):
            inside = contains(contour, probes[asked].reshape(-1, 2)).reshape(-1, _PROBES).sum(axis=1) >= 5
            for i in asked[inside].tolist():
                lies_in[i].append(j)
    return [sorted((j for j in around if areas[j] > areas[i] or j < i), key=lambda j: -areas[j]) for i, around in enumerate(lies_in)]


def nested(contours: Sequence[Points]) -> list[Points]:
    """The contours, each turned so that those at even depth run counter-clockwise (y up) and those at odd depth clockwise."""
    depths = [len(outside) for outside in enclosing(contours)]
    return [c if (signed_area(c) > 0) == (depth % 2 == 0) else c[::-1] for c, depth in zip(contours, depths, strict=True)]


def crossings(contours: Sequence[Points], depth: float, most: int = 100) -> list[tuple[int, int, Points]]:
    """Where lines cross, their own or one another's, deeper than `depth`: (contour, contour, point), the first so many.

    Touching is no crossing.
    """
    if not contours:
        return []
    found: list[tuple[int, int, Points]] = []
    low, high = boxes(contours)
    (left, down), (right, up) = low.T.copy(), high.T.copy()
    plain = _once_around(contours)
    for i, one in enumerate(contours):
        meet = (left[i:] <= right[i]) & (right[i:] >= left[i]) & (down[i:] <= up[i]) & (up[i:] >= down[i])
        meet[0] = not plain[i]
        for j in (i + np.flatnonzero(meet)).tolist():
            found += [(i, j, point) for point in _crossings(one, contours[j], depth, same=i == j)]
            if len(found) >= most:
                return found[:most]
    return found


def _once_around(contours: Sequence[Points]) -> NDArray[np.bool_]:
    """Which closed lines (K,) run once around the mean of their points without turning back: such a line does not cross itself."""
    counts = np.array([len(c) for c in contours])
    starts = np.cumsum(counts) - counts
    start, end = sides(contours)
    middle = np.repeat(np.add.reduceat(start, starts) / counts[:, None], counts, axis=0)
    (x0, y0), (x1, y1) = (start - middle).T, (end - middle).T
    cross = x0 * y1 - y0 * x1
    turns = np.add.reduceat(np.arctan2(cross, x0 * x1 + y0 * y1), starts)
    one_way = (np.minimum.reduceat(cross, starts) > 0) | (np.maximum.reduceat(cross, starts) < 0)
    return np.asarray(one_way & (np.abs(turns) < 1.5 * math.tau))


def _crossings(one: Points, other: Points, depth: float, *, same: bool) -> list[Points]:
    """The crossings of two closed lines, or of one with itself."""
    a, b, number = one, np.roll(one, -1, axis=0), np.arange(len(one))
    c, d, other_number = other, np.roll(other, -1, axis=0), np.arange(len(other))
    if not same:  # only what lies where both are
        low, high = np.maximum(one.min(axis=0), other.min(axis=0)), np.minimum(one.max(axis=0), other.max(axis=0))
        near = ((np.maximum(a, b) >= low) & (np.minimum(a, b) <= high)).all(axis=1)
        a, b, number = a[near], b[near], np.full(np.count_nonzero(near), -1)
        near = ((np.maximum(c, d) >= low) & (np.minimum(c, d) <= high)).all(axis=1)
        c, d, other_number = c[near], d[near], other_number[near]
    found: list[Points] = []
    # Along x, a segment meets only those that begin at most the widest one's width before it: the few long ones go by themselves.
    width = np.abs(d[:, 0] - c[:, 0])
    long = width > 8.0 * np.median(width) if len(width) else np.zeros(0, dtype=bool)
    for group in (np.flatnonzero(~long), np.flatnonzero(long)):
        if not len(group) or not len(a):
            continue
        left = np.minimum(c[group, 0], d[group, 0])
        order = np.argsort(left)
        group, left = group[order], left[order]
        first = np.searchsorted(left, np.minimum(a[:, 0], b[:, 0]) - width[group].max())
        last = np.searchsorted(left, np.maximum(a[:, 0], b[:, 0]), side="right")
        for begin in range(0, len(a), 256):
            chunk = np.arange(begin, min(begin + 256, len(a)))
            count = last[chunk] - first[chunk]
            i = np.repeat(chunk, count)
            k = group[np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first[chunk], count)]
            meets = np.minimum(a[i, 1], b[i, 1]) <= np.maximum(c[k, 1], d[k, 1])
            meets &= (np.maximum(a[i, 1], b[i, 1]) >= np.minimum(c[k, 1], d[k, 1])) & (number[i] < other_number[k])
            i, k = i[meets], k[meets]
            found += list(_meetings(a[i], b[i], c[k], d[k], depth))
    return found


def _meetings(a: Points, b: Points, c: Points, d: Points, depth: float) -> Points:
    """The points where segments a–b and c–d cross, pair by pair, of those whose ends all lie deeper than `depth` beyond the other."""
    u, v = b - a, d - c
    c_off, d_off = _across(u, c - a), _across(u, d - a)
    a_off, b_off = _across(v, a - c), _across(v, b - c)
    deep = np.minimum(np.minimum(np.abs(a_off), np.abs(b_off)), np.minimum(np.abs(c_off), np.abs(d_off))) > depth
    crosses = deep & (c_off * d_off < 0) & (a_off * b_off < 0)
    share = a_off[crosses] / (a_off[crosses] - b_off[crosses])
    return np.asarray(a[crosses] + share[:, None] * u[crosses])


def _across(along: Points, to: Points) -> Points:
    """How far `to` lies to the left of the direction `along`."""
    return np.asarray((along[:, 0] * to[:, 1] - along[:, 1] * to[:, 0]) / np.maximum(np.hypot(*along.T), 1e-30))
