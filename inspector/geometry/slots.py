"""Slots of a drawing: which of its contours are one, and what a measured outline says of its width, length and place. Pure, mm.

A slot is a rectangle whose corners are rounded with one radius: with none a rectangular cut-out, with half its width two straight lines
and two half circles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.geometry.polygon import Points, signed_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.records import Floats

_OFF_MM, _OFF_RATIO = 2e-3, 5e-4  # how far a line may lie from a slot's, or by its width: exporters write arcs as Béziers
_LEAST_SAMPLES = 24
_ROUNDS = 4
_NEAR_MM = 1e-3  # what lies so near to the fit belongs to it


@dataclass(frozen=True, slots=True)
class Slot:
    """Centre, direction of the long axis (a unit vector), size along and across it, and radius of the corners."""

    centre_mm: tuple[float, float]
    axis: tuple[float, float]
    length_mm: float
    width_mm: float
    corner_mm: float

    @property
    def rounded(self) -> bool:
        """Whether its ends are half circles, which widen with it."""
        return self.corner_mm > 0.499 * self.width_mm


@dataclass(frozen=True, slots=True)
class SlotFit:
    """One slot against the drawing: its centre's shift, and its true length and width."""

    dx_mm: float
    dy_mm: float
    length_mm: float
    width_mm: float


def slot_of(points_mm: Points) -> Slot | None:
    """The slot that a closed line (N, 2) is, to 2 µm or 5e-4 of its width; None for others."""
    sides = np.roll(points_mm, -1, axis=0) - points_mm
    longest = sides[int(np.hypot(*sides.T).argmax())]
    axis = longest / np.hypot(*longest)
    turned = points_mm @ np.column_stack([axis, (-axis[1], axis[0])])
    low, high = turned.min(axis=0), turned.max(axis=0)
    length, width = (high - low).tolist()
    middle = 0.5 * (low + high)
    if length < width:
        axis, length, width, middle = np.array((-axis[1], axis[0])), width, length, np.array((middle[1], -middle[0]))
    centre = middle @ np.array([axis, (-axis[1], axis[0])])
    corner = math.sqrt(max(length * width - abs(signed_area(points_mm)), 0.0) / (4.0 - math.pi))
    if width <= 0 or corner > 0.501 * width:
        return None
    slot = Slot(_pair(centre), _pair(axis), length, width, min(corner, 0.5 * width))
    off = np.abs(_distance(slot, np.concatenate([points_mm, points_mm + 0.5 * sides]))).max()
    return slot if off <= max(_OFF_MM, _OFF_RATIO * width) else None


def fit(slot: Slot, points_mm: Floats, deviation_mm: Floats) -> SlotFit | None:
    """The slot through real edges: points (n, 2) of the drawing and how far outwards of the material the edge lies from each.

    Robust least squares over shift, turn, length and width; what is far off the fit (a burr, dust) counts nothing. None where less than
    24 samples, or none of a side or an end, are given.
    """
    if len(points_mm) < _LEAST_SAMPLES:
        return None
    arm = points_mm - slot.centre_mm
    normal = _normals(slot, arm)
    along = np.abs(normal @ np.array(slot.axis))
    across = np.abs(normal @ np.array((-slot.axis[1], slot.axis[0])))
    if slot.rounded:
        across = 1.0 - along
    turn = arm[:, 0] * normal[:, 1] - arm[:, 1] * normal[:, 0]
    design = np.column_stack([normal, turn, 0.5 * along, 0.5 * across])
    weight = np.ones(len(arm))
    found: NDArray[np.floating] = np.zeros(5)
    for _ in range(_ROUNDS):
        found, _, rank, _ = np.linalg.lstsq(design * weight[:, None], -deviation_mm * weight, rcond=1e-6)
        if rank < 5:
            return None
        rest = np.abs(-deviation_mm - design @ found)
        limit = max(4.0 * 1.4826 * float(np.median(rest)), _NEAR_MM)
        weight = np.clip(1.0 - (rest / limit) ** 2, 0.0, None)
    dx, dy, _, longer, wider = found.tolist()
    return SlotFit(dx, dy, slot.length_mm + longer, slot.width_mm + wider)


def _core(slot: Slot, arm: Floats) -> Floats:
    """From the core, which the slot's line is a corner's radius away from, to the points; in the slot's axes."""
    own = arm @ np.column_stack([slot.axis, (-slot.axis[1], slot.axis[0])])
    radius = max(slot.corner_mm, 1e-3 * slot.width_mm)  # sharp corners have normals, too
    half = np.array([0.5 * slot.length_mm - radius, 0.5 * slot.width_mm - radius])
    return np.asarray(own - np.clip(own, -half, half))


def _normals(slot: Slot, arm: Floats) -> Floats:
    """Unit normals (n, 2) out of the slot at points on its line, given from its centre."""
    core = _core(slot, arm)
    core /= np.maximum(np.hypot(*core.T), 1e-12)[:, None]
    return np.asarray(core @ np.array([slot.axis, (-slot.axis[1], slot.axis[0])]))


def _distance(slot: Slot, points_mm: Points) -> Floats:
    """Signed distances of points from the slot's line, outside positive."""
    own = np.abs((points_mm - slot.centre_mm) @ np.column_stack([slot.axis, (-slot.axis[1], slot.axis[0])]))
    beyond = own - (0.5 * slot.length_mm - slot.corner_mm, 0.5 * slot.width_mm - slot.corner_mm)
    return np.asarray(np.hypot(*np.maximum(beyond, 0.0).T) + np.minimum(beyond.max(axis=1), 0.0) - slot.corner_mm)


def _pair(values: Floats) -> tuple[float, float]:
    return float(values[0]), float(values[1])
