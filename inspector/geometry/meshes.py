"""Lines that meet in threes and more → the closed lines that they certainly hold, or why nobody can know. Pure, mm, y up.

A *line* is a run of points between two *nodes*, places where other than two ends meet. The *rim* is what can be seen of all lines from
outside, the *inner* lines are the rest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspector.geometry import polygon
from inspector.geometry.polygon import Points

_LOOK_MM = 0.5
_STRAIGHT = 1e-3
"""Off its chord, of its length: what a bend line may be."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """What a network of lines holds: `loops` of (number of the line, whether it is run backwards), the numbers of the `inner` lines, and of
    those that `hang`, on one loop or between two; `unclear` says why the loops are not to be trusted, of the line number `of`.
    """

    loops: tuple[tuple[tuple[int, bool], ...], ...]
    inner: tuple[int, ...] = ()
    hang: tuple[int, ...] = ()
    unclear: str = ""
    of: int = 0


def read(lines: Sequence[Points], twice: Sequence[bool], gap_mm: float) -> Mesh:
    """What one network of lines (N, 2) holds whose ends meet within the gap; `twice` marks those that another one lay on.

    Its rim is the outline, and inner lines divide the part (bends), as long as they are straight and ring nothing by themselves. Where
    the inner lines, and they alone, are drawn twice, each ring was drawn for itself: all of them are loops.
    """
    ends = nodes([(line[0], line[-1]) for line in lines], gap_mm)
    walks = _walks(lines, ends)
    areas = [polygon.signed_area(_points(lines, walk)) for walk in walks]
    outside = walks[int(np.argmin(areas))]
    on_rim = {n for n, _ in outside}
    hang = tuple(sorted(n for n in on_rim if {(n, False), (n, True)} <= set(outside)))
    rim = [tuple(loop) for loop in _cut_at_nodes([half for half in outside if half[0] not in hang], ends)]
    inner = tuple(n for n in range(len(lines)) if n not in on_rim)
    if inner and all(twice[n] for n in inner) and not any(twice[n] for n in on_rim):
        rings = tuple(tuple(walk) for walk, area in zip(walks, areas, strict=True) if area > 0)
        if all(len({ends[n][backwards] for n, backwards in loop}) == len(loop) for loop in rings):
            return Mesh(rings, (), hang)
    unclear = _unclear(lines, ends, twice, [_points(lines, loop) for loop in rim], inner)
    return Mesh(tuple(rim), inner, hang, *unclear)


def _unclear(
    lines: Sequence[Points], ends: Sequence[tuple[int, int]], twice: Sequence[bool], rim: Sequence[Points], inner: Sequence[int]
) -> tuple[str, int]:
    """Why the lines within are not known to be bends, and which of them it is said of; "" where they are."""
    known = _Sets()
    if not rim:
        return "is in no ring that can be told from others", 0
    for n in inner:
        if not _lies_in(lines[n], rim):
            return "crosses others where none of them ends", n
        if twice[n] and not all(twice):
            return "is drawn twice, as a line that two parts share, and others like it are not", n
        if not _is_straight(lines[n]):
            return "lies within and is not straight, as a bend would be", n
        if not known.join(*ends[n]):
            return "rings a place with others within that may be a hole", n
    return "", 0


def nodes(ends: Sequence[tuple[Points, Points]], gap_mm: float) -> list[tuple[int, int]]:
    """For each line the numbers of the nodes at which it begins and ends: ends within the gap are one, and what is one with them."""
    points = np.array(ends, np.float64).reshape(-1, 2)
    order = np.argsort(points[:, 0], kind="stable")
    known = _Sets()
    first = 0
    for place, i in enumerate(order.tolist()):
        while points[order[first], 0] < points[i, 0] - gap_mm:
            first += 1
        near = order[first:place]
        for j in near[np.hypot(*(points[near] - points[i]).T) <= gap_mm].tolist():
            known.join(i, j)
    return [(known.of(2 * n), known.of(2 * n + 1)) for n in range(len(ends))]


def networks(ends: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The numbers of the lines between such nodes in groups that hang together."""
    known = _Sets()
    for begin, end in ends:
        known.join(begin, end)
    groups: dict[int, list[int]] = defaultdict(list)
    for n, (begin, _) in enumerate(ends):
        groups[known.of(begin)].append(n)
    return list(groups.values())


def ring(ends: Sequence[tuple[int, int]]) -> bool:
    """Whether lines between such nodes ring anything."""
    known = _Sets()
    return not all(known.join(begin, end) for begin, end in ends)


class _Sets:
    """Disjoint sets of numbers."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def of(self, i: int) -> int:
        """The number that stands for the set of this one."""
        while self._above.setdefault(i, i) != i:
            self._above[i] = i = self._above[self._above[i]]
        return i

    def join(self, i: int, j: int) -> bool:
        """Make one of two sets; whether they were two."""
        i, j = self.of(i), self.of(j)
        self._above[i] = j
        return i != j


_Half = tuple[int, bool]


def _walks(lines: Sequence[Points], ends: Sequence[tuple[int, int]]) -> list[list[_Half]]:
    """The ways around all faces, each with its face on the left: every line is walked once in each direction."""
    leaving: dict[int, list[_Half]] = defaultdict(list)
    for n, (begin, end) in enumerate(ends):
        leaving[begin].append((n, False))
        leaving[end].append((n, True))
    following: dict[_Half, _Half] = {}
    for halves in leaving.values():
        look = min(_LOOK_MM, *(0.2 * _length(lines[n]) for n, _ in halves))
        around = sorted(halves, key=lambda half: _heading(lines[half[0]], half[1], look))
        for one, after in zip(around, around[1:] + around[:1], strict=True):
            following[after[0], not after[1]] = one
    walks = []
    left = dict.fromkeys(following)
    while left:
        half = next(iter(left))
        walk = []
        while half in left:
            del left[half]
            walk.append(half)
            half = following[half]
        walks.append(walk)
    return walks


def _length(line: Points) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


def _heading(line: Points, backwards: bool, look_mm: float) -> float:
    """Where the line has come to so far from its end; lines that leave in one direction bend away from one another by then."""
    run = line[::-1] if backwards else line
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(run, axis=0).T))])
    x, y = (np.interp(look_mm, along, column) - column[0] for column in run.T)
    return math.atan2(y, x)


def _points(lines: Sequence[Points], walk: Sequence[_Half]) -> Points:
    return np.concatenate([(lines[n][::-1] if backwards else lines[n])[:-1] for n, backwards in walk])


def _cut_at_nodes(walk: Sequence[_Half], ends: Sequence[tuple[int, int]]) -> list[list[_Half]]:
    """The closed lines, each passing its nodes once, of a walk that may pass some more often."""
    loops: list[list[_Half]] = []
    run: list[_Half] = []
    for half in walk:
        run.append(half)
        end = ends[half[0]][not half[1]]
        known = next((i for i, (m, turned) in enumerate(run) if ends[m][turned] == end), None)
        if known is not None:
            loops.append(run[known:])
            del run[known:]
    return loops


def _lies_in(line: Points, rim: Sequence[Points]) -> bool:
    """Whether the middle of each side of a line lies within one of the closed lines."""
    middles = 0.5 * (line[1:] + line[:-1])
    return bool(np.any([polygon.contains(loop, middles) for loop in rim], axis=0).all())


def _is_straight(line: Points) -> bool:
    along = line[-1] - line[0]
    reach = float(np.hypot(*along))
    off = np.abs((line[:, 0] - line[0, 0]) * along[1] - (line[:, 1] - line[0, 1]) * along[0])
    return bool(off.max() <= _STRAIGHT * reach * reach) and _length(line) <= (1.0 + _STRAIGHT) * reach
