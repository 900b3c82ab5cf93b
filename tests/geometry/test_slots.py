"""Which contours are slots, and slots measured from edges that were moved by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.geometry.slots import Slot, fit, slot_of
from inspector.records import Floats
from tests.geometry import parts


def rounded(length: float, width: float, corner: float, turn: float = 0.0, x: float = 0.0, y: float = 0.0, count: int = 90) -> Floats:
    """A rectangle with round corners, counter-clockwise, turned and moved."""
    t = np.linspace(0.0, math.pi / 2, count) if corner else np.zeros(1)
    quarters = []
    for quarter in range(4):
        away = np.array([length / 2 - corner, width / 2 - corner]) * ((1, 1), (-1, 1), (-1, -1), (1, -1))[quarter]
        angle = t + quarter * math.pi / 2
        quarters.append(away + corner * np.column_stack([np.cos(angle), np.sin(angle)]))
    c, s = math.cos(turn), math.sin(turn)
    return np.asarray(np.concatenate(quarters) @ np.array([[c, s], [-s, c]]) + (x, y))


lengths = st.floats(1.5, 5.0)
turns = st.floats(-math.pi, math.pi)


@given(ratio=lengths, corner=st.sampled_from([0.0, 0.2, 0.5]), turn=turns)
def test_a_rectangle_with_any_corners_at_any_angle_is_a_slot(ratio: float, corner: float, turn: float) -> None:
    found = slot_of(rounded(6.0 * ratio, 6.0, 6.0 * corner, turn, 40.0, -3.0))
    assert found is not None
    assert found.length_mm == pytest.approx(6.0 * ratio, abs=2e-3)
    assert found.width_mm == pytest.approx(6.0, abs=2e-3)
    assert found.corner_mm == pytest.approx(6.0 * corner, abs=2e-2)
    assert found.centre_mm == pytest.approx((40.0, -3.0), abs=2e-3)
    assert abs(math.sin(math.atan2(found.axis[1], found.axis[0]) - turn)) < 1e-3


@pytest.mark.parametrize("points", [parts.plate()[0].points_mm, parts.gear()[0].points_mm, np.array([(0, 0), (4, 0), (0, 3)], float)])
def test_other_outlines_are_none(points: Floats) -> None:
    assert slot_of(points) is None


@settings(deadline=None)
@given(
    corner=st.sampled_from([0.0, 1.0, 3.0]),
    turn=turns,
    move=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    longer=st.floats(-0.3, 0.3),
    wider=st.floats(-0.3, 0.3),
)
def test_width_length_and_shift_of_another_slot_are_found(
    corner: float, turn: float, move: tuple[float, float], longer: float, wider: float
) -> None:
    drawn = Slot((5.0, 7.0), (math.cos(turn), math.sin(turn)), 24.0, 6.0, corner)
    points = _spread(rounded(24.0, 6.0, corner, turn, 5.0, 7.0))
    grown = corner + wider / 2 if corner == 3.0 else corner
    real = rounded(24.0 + longer, 6.0 + wider, grown, turn, 5.0 + move[0], 7.0 + move[1])
    step = np.roll(real, -1, axis=0) - real
    share = np.clip(((points[:, None] - real) * step).sum(axis=2) / np.maximum((step * step).sum(axis=1), 1e-12), 0, 1)
    way = real + share[..., None] * step - points[:, None]
    size = np.hypot(*way.transpose(2, 0, 1))
    rows, best = np.arange(len(points)), size.argmin(axis=1)
    outwards = (way[rows, best] * (points - drawn.centre_mm)).sum(axis=1)
    away = -np.sign(outwards) * size[rows, best]
    straight = _off_corners(points, drawn)
    found = fit(drawn, points[straight], away[straight])
    assert found is not None
    assert found.width_mm == pytest.approx(6.0 + wider, abs=0.01)
    # A shift of 0.3 mm, seen along normals, is of the second order at the round ends.
    assert found.length_mm == pytest.approx(24.0 + longer, abs=0.03)
    assert (found.dx_mm, found.dy_mm) == pytest.approx(move, abs=0.01)


def test_a_burr_counts_nothing_and_too_little_is_not_guessed() -> None:
    drawn = Slot((0.0, 0.0), (1.0, 0.0), 24.0, 6.0, 3.0)
    points = _spread(rounded(24.0, 6.0, 3.0))
    away = np.full(len(points), -0.05) + 0.002 * np.sin(np.arange(len(points)))
    away[30:50] = 0.6
    found = fit(drawn, points, away)
    assert found is not None
    assert found.width_mm == pytest.approx(6.1, abs=0.003)
    assert fit(drawn, points[:20], away[:20]) is None
    one_side = points[:, 1] > 2.9
    assert fit(drawn, points[one_side], away[one_side]) is None


def _spread(points: Floats, count: int = 400) -> Floats:
    """Evenly spaced points along a closed line."""
    ring = np.concatenate([points, points[:1]])
    at = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    where = (np.arange(count) + 0.5) * at[-1] / count
    return np.column_stack([np.interp(where, at, ring[:, 0]), np.interp(where, at, ring[:, 1])])


def _off_corners(points: Floats, slot: Slot) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Not within 0.7 mm of where the corners of the rectangle around it are, nor in a rounded corner of another radius."""
    own = np.abs((points - slot.centre_mm) @ np.column_stack([slot.axis, (-slot.axis[1], slot.axis[0])]))
    reach = 0.7 + (slot.corner_mm if slot.corner_mm < 3.0 else -1.0)
    return np.asarray((own[:, 0] < 12.0 - reach) | (own[:, 1] < 3.0 - reach))
