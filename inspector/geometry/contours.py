"""Closed loops → contours: nested by even-odd, turned, named, split into parts, and looked at for what is doubtful. Pure, mm."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.geometry import polygon
from inspector.geometry.curves import Circle
from inspector.geometry.polygon import Points
from inspector.records import Contour

KINDS = ("outer", "hole", "island")


@dataclass(frozen=True, slots=True)
class Piece:
    """One flattened entity: points (N, 2) in mm; a closed one does not repeat its first point.

    `circle` where it is one, or a part of one. `handle` is the entity's number in its file. `twice`: another one lay on it.
    """

    points: Points
    layer: str
    handle: str
    entity: str
    closed: bool
    circle: Circle | None = None
    twice: bool = False

    @property
    def where(self) -> str:
        """How warnings call it."""
        return f"{self.entity} {self.handle} on layer {self.layer}"

    @property
    def length_mm(self) -> float:
        """Along the points; a closed piece's last side is not counted."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())


def encloses_nothing(points: Points) -> bool:
    """Whether a closed line has no inside worth the name: it runs there and back, or is thinner than any cutter."""
    size = float(np.ptp(points, axis=0).max())
    return len(points) < 3 or abs(polygon.signed_area(points)) < 1e-6 * size * size


NEAR_MM = 1e-3
"""What lies this near to another in all that tells pieces apart lies on it."""


def doubles(pieces: Sequence[Piece], near_mm: float = NEAR_MM) -> dict[int, int]:
    """Of the pieces that lie on one another, to `near_mm`, all but one: {its number: the number of the one that it lies on}.

    Compared are their boxes, their lengths, where they end, and where their middle is.
    """
    if not pieces:
        return {}
    asked = np.flatnonzero(_beside_others(np.hstack(polygon.boxes([piece.points for piece in pieces])), near_mm))
    found = _doubles([pieces[number] for number in asked.tolist()], near_mm) if len(asked) else {}
    return {int(asked[number]): int(asked[first]) for number, first in found.items()}


def _on_a_line(values: Points) -> tuple[Points, float]:
    """Places (N,) of rows (N, K) so that rows that differ by no more than 1 in each value are not farther apart than the second."""
    weights = np.sqrt(np.arange(2.0, 2.0 + values.shape[1]))
    return values @ weights, float(weights.sum())


def _beside_others(values: Points, near: float) -> NDArray[np.bool_]:
    """Which rows (N, K) may have another one that differs by no more than `near` in each value; few others."""
    place, reach = _on_a_line(values)
    order = np.argsort(place, kind="stable")
    close = np.diff(place[order]) <= near * reach
    beside = np.empty(len(place), np.bool_)
    beside[order] = np.append(close, False) | np.append(False, close)
    return beside


def _doubles(pieces: Sequence[Piece], near_mm: float) -> dict[int, int]:
    """As `doubles`; all that tells pieces apart is asked of every one."""
    values = np.array([_told_apart_by(piece) for piece in pieces])
    place, reach = _on_a_line(values)  # so that only neighbours are to be compared
    reach *= near_mm
    found: dict[int, int] = {}
    kept: deque[int] = deque()
    for number in np.argsort(place, kind="stable").tolist():
        while kept and place[kept[0]] < place[number] - reach:
            kept.popleft()
        same = next((other for other in kept if np.abs(values[other] - values[number]).max() <= near_mm), None)
        if same is None:
            kept.append(number)
        elif same < number:
            found[number] = same
        else:
            kept[kept.index(same)] = number
            found[same] = number
    return found


def _told_apart_by(piece: Piece) -> list[float]:
    """A piece's box, the middle of its ends, the point halfway along it (both its centre where it is closed), an eighth of its length
    (what lies a little aside may be longer by more than that), and which of a box's two diagonals it runs along, in mm.
    """
    points = piece.points
    box = [*points.min(axis=0), *points.max(axis=0)]
    if piece.closed:
        centre = polygon.centroid(points)
        return [*box, *centre, *centre, polygon.perimeter(points) / 8.0, 0.0]
    x, y = points[-1] - points[0]
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    halfway = [np.interp(0.5 * along[-1], along, column) for column in points.T]
    return [*box, *(0.5 * (points[0] + points[-1])), *halfway, along[-1] / 8.0, x * y / max(math.hypot(x, y), NEAR_MM)]


def nest(loops: Sequence[Piece]) -> tuple[tuple[Contour, ...], tuple[tuple[int, ...], ...]]:
    """The contours in their order, and for each part, the largest first, the indices of its own, the outer one first.

    Outer contours come by size, holes and islands by place: from the top, then from the left. Even depth is material.
    """
    around = polygon.enclosing([loop.points for loop in loops])
    kinds = [KINDS[0] if not outside else KINDS[2 - len(outside) % 2] for outside in around]

    areas = [polygon.signed_area(loop.points) for loop in loops]
    low, high = polygon.boxes([loop.points for loop in loops])
    twice = (low + high).tolist()

    def place(i: int) -> tuple[Any, ...]:
        x, y = twice[i]
        return KINDS.index(kinds[i]), -abs(areas[i]) if kinds[i] == "outer" else 0.0, -round(y, 3), x

    order = sorted(range(len(loops)), key=place)
    contours, numbers = [], Counter[str]()
    for i in order:
        loop, kind = loops[i], kinds[i]
        numbers[kind] += 1
        name = kind if kind == "outer" and numbers[kind] == 1 else f"{kind}-{numbers[kind]}"
        backwards = (areas[i] > 0) == (kind == "hole")
        points = np.ascontiguousarray(loop.points[::-1] if backwards else loop.points)
        points.setflags(write=False)
        contours.append(Contour(name, kind, loop.layer, points, True, 0.0, 0.0, loop.circle or as_circle(points)))
    root = [outside[0] if outside else i for i, outside in enumerate(around)]
    parts = tuple(tuple(n for n, i in enumerate(order) if root[i] == outermost) for outermost in order if root[outermost] == outermost)
    return tuple(contours), parts


def as_circle(points: Points) -> Circle | None:
    """The circle that a closed line is to 5e-4 of its radius, chords included; None for others, a 64-gon too.

    Exporters write circles as splines, as Béziers (off by 2.7e-4 of the radius) or as many arcs.
    """
    if len(points) < 16:
        return None
    x, y = polygon.centroid(points)
    radius = float(np.sqrt(abs(polygon.signed_area(points)) / np.pi))
    middles = 0.5 * (points + np.roll(points, -1, axis=0))
    off = np.abs(np.hypot(*(np.concatenate([points, middles]) - (x, y)).T) - radius).max()
    return (float(x), float(y), radius) if off <= 5e-4 * radius else None
