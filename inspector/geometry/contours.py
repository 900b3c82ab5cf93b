"""Closed loops → contours: nested by even-odd, turned, named, split into parts, and looked at for what is doubtful. Pure, mm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.geometry import polygon
from inspector.geometry.curves import Circle
from inspector.geometry.polygon import Points
from inspector.records import Contour

KINDS = ("outer", "hole", "island")


@dataclass(frozen=True, slots=True)
class Piece:
    """One flattened entity: points (N, 2) in mm; a closed one does not repeat its first point.

    `circle` where it is one, or a part of one. `handle` is the entity's number in its file.
    """

    points: Points
    layer: str
    handle: str
    entity: str
    closed: bool
    circle: Circle | None = None

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


def signature(piece: Piece) -> tuple[int, ...]:
    """Equal for pieces that lie on one another, to a micrometre: their box, their length, their middle, and where it is closed or ends."""
    low, high = piece.points.min(axis=0), piece.points.max(axis=0)
    ends = piece.points[[0, -1]]
    joint = np.array([0.0, 0.0]) if piece.closed else ends.sum(axis=0)
    length = polygon.perimeter(piece.points) if piece.closed else piece.length_mm
    slope = 0.0 if piece.closed else float(np.prod(ends[1] - ends[0]))  # the two diagonals of a box
    values = np.array([*low, *high, *joint, length, slope])
    return tuple(np.round(values / np.array([*[2e-3] * 7, 1e-1])).astype(np.int64).tolist())


def nest(loops: Sequence[Piece]) -> tuple[tuple[Contour, ...], tuple[tuple[int, ...], ...]]:
    """The contours in their order, and for each part, the largest first, the indices of its own, the outer one first.

    Outer contours come by size, holes and islands by place: from the top, then from the left. Even depth is material.
    """
    around = polygon.enclosing([loop.points for loop in loops])
    kinds = [KINDS[0] if not outside else KINDS[2 - len(outside) % 2] for outside in around]

    def place(i: int) -> tuple[Any, ...]:
        low, high = loops[i].points.min(axis=0), loops[i].points.max(axis=0)
        size = abs(polygon.signed_area(loops[i].points)) if kinds[i] == "outer" else 0.0
        return KINDS.index(kinds[i]), -size, -round(float(low[1] + high[1]), 3), float(low[0] + high[0])

    order = sorted(range(len(loops)), key=place)
    contours, numbers = [], Counter[str]()
    for i in order:
        loop, kind = loops[i], kinds[i]
        numbers[kind] += 1
        name = kind if kind == "outer" and numbers[kind] == 1 else f"{kind}-{numbers[kind]}"
        backwards = (polygon.signed_area(loop.points) > 0) == (kind == "hole")
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
