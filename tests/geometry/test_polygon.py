"""Areas, nesting and crossings of closed polygons."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspector.geometry import polygon

Points = NDArray[np.float64]


def square(x: float, y: float, half: float) -> Points:
    return np.array([[x - half, y - half], [x + half, y - half], [x + half, y + half], [x - half, y + half]])


def circle(x: float, y: float, radius: float, count: int = 200) -> Points:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])


@pytest.mark.parametrize(
    ("contours", "fixed"),
    [
        ([circle(40, 7, 5)], False),
        ([circle(40, 7, 5), circle(40, 7, 2, 30)], False),
        ([circle(40, 7, 5), circle(40.5, 7, 2, 30)], True),
        ([circle(0, 0, 3), circle(90, 0, 3)], True),
        ([square(500, -3, 2)], True),
        ([circle(0, 0, 5, 12) * (1.0, 1.02)], True),
    ],
)
def test_what_fixes_the_angle(contours: list[Points], fixed: bool) -> None:
    assert polygon.fix_angle(contours) is fixed


@given(st.floats(-np.pi, np.pi), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_turning_and_moving_keep_area_and_length(angle: float, x: float, y: float) -> None:
    points = np.array([[0.0, 0.0], [7.0, 1.0], [9.0, 6.0], [3.0, 4.0], [1.0, 8.0]])
    cos, sin = np.cos(angle), np.sin(angle)
    moved = points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
    assert polygon.signed_area(moved) == pytest.approx(polygon.signed_area(points), rel=1e-9)
    assert polygon.perimeter(moved) == pytest.approx(polygon.perimeter(points), rel=1e-9)
    np.testing.assert_allclose(polygon.centroid(moved), polygon.centroid(points) @ np.array([[cos, sin], [-sin, cos]]) + (x, y), atol=1e-7)


def test_area_counts_counter_clockwise_as_positive() -> None:
    assert polygon.signed_area(square(0, 0, 1)) == 4
    assert polygon.signed_area(square(0, 0, 1)[::-1]) == -4


def test_nesting_survives_contours_that_touch() -> None:
    # a circle that touches the sides of its square from within, and one that touches from without
    frame, within, without = square(0, 0, 5), circle(0, 0, 5.0), circle(10, 0, 5.0)
    assert polygon.enclosing([within, frame, without]) == [[1], [], []]


def test_enclosing_goes_from_the_largest_in() -> None:
    rings = [circle(0, 0, r) for r in (1.0, 4.0, 2.0, 3.0)]
    assert polygon.enclosing(rings) == [[1, 3, 2], [], [1, 3], [1]]
    turned = polygon.nested(rings)
    assert [polygon.signed_area(c) > 0 for c in turned] == [False, True, True, False]


def test_a_line_that_crosses_itself_says_where() -> None:
    eight = np.array([[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0]])
    ((i, j, point),) = polygon.crossings([eight], depth=1e-3)
    assert (i, j) == (0, 0)
    np.testing.assert_allclose(point, (2, 2))


def test_two_that_cross_say_where_and_touching_is_no_crossing() -> None:
    found = polygon.crossings([square(0, 0, 2), square(3, 0, 2)], depth=1e-3)
    assert not found  # sides lie on one another, none crosses
    found = polygon.crossings([square(0, 0, 2), square(3, 1, 2), circle(100, 0, 1)], depth=1e-3)
    assert sorted((round(p[0]), round(p[1])) for _, _, p in found) == [(1, 2), (2, -1)]
    assert not polygon.crossings([square(0, 0, 5), circle(0, 0, 5)], depth=1e-3)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 40))
def test_crossings_are_those_that_brute_force_finds(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 10, (count, 2))
    points[::3] *= 0.1  # long segments and short ones
    following = np.roll(points, -1, axis=0)
    expected = 0
    for i in range(count):
        for k in range(i + 1, count):
            a, b, c, d = points[i], following[i], points[k], following[k]
            u, v = (b - a) / np.hypot(*(b - a)), (d - c) / np.hypot(*(d - c))
            sides = [u[0] * w[1] - u[1] * w[0] for w in (c - a, d - a)] + [v[0] * w[1] - v[1] * w[0] for w in (a - c, b - c)]
            expected += min(map(abs, sides)) > 1e-6 and sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0
    assert len(polygon.crossings([points], depth=1e-6, most=10_000)) == expected


def test_a_line_that_runs_twice_around_crosses_itself_and_one_that_runs_once_does_not() -> None:
    turns = np.arange(5) * math.tau / 5
    star = np.column_stack([np.cos(2 * turns), np.sin(2 * turns)])
    assert len(polygon.crossings([star], depth=1e-3)) == 5
    assert len(polygon.crossings([star[::-1]], depth=1e-3)) == 5
    assert not polygon.crossings([circle(0, 0, 5), circle(0, 0, 5)[::-1] + 20.0], depth=1e-3)


def test_boxes_are_those_of_each_line() -> None:
    low, high = polygon.boxes([square(0, 0, 2), circle(5, 6, 1)])
    np.testing.assert_allclose(low, [(-2, -2), (4, 5)], atol=1e-3)
    np.testing.assert_allclose(high, [(2, 2), (6, 7)], atol=1e-3)
