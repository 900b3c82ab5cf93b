"""Coverage is exact: it adds up to the area, whatever the contours do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspector.geometry import polygon
from inspector.geometry.coverage import coverage, inside, levels

SHAPE = (48, 64)


def star(seed: int, x: float, y: float, radius: float, corners: int) -> NDArray[np.float64]:
    """A simple polygon about a centre: angles in order and never half a turn apart, radii at random."""
    random = np.random.default_rng(seed)
    angle = (np.arange(corners) + random.uniform(-0.4, 0.4, corners)) * 2 * np.pi / corners
    reach = radius * random.uniform(0.2, 1.0, corners)
    return np.column_stack([x + reach * np.cos(angle), y + reach * np.sin(angle)])


@st.composite
def stars(draw: st.DrawFn) -> NDArray[np.float64]:
    seed, corners = draw(st.integers(0, 2**32 - 1)), draw(st.integers(3, 60))
    x, y, radius = draw(st.floats(22, 40)), draw(st.floats(22, 24)), draw(st.floats(0.2, 21))
    return star(seed, x, y, radius, corners)


@given(stars(), st.booleans())
def test_the_sum_is_the_area(points: NDArray[np.float64], backwards: bool) -> None:
    area = abs(polygon.signed_area(points))
    covered = coverage([points[::-1] if backwards else points], SHAPE)
    assert covered.min() >= 0
    assert covered.max() <= 1
    assert covered.sum(dtype=np.float64) == pytest.approx(area, rel=1e-6, abs=1e-5)


@given(stars(), st.integers(-9, 9), st.integers(-9, 9))
def test_whole_pixels_move_the_picture_and_change_nothing(points: NDArray[np.float64], du: int, dv: int) -> None:
    still, moved = coverage([points], SHAPE), coverage([points + np.array([du, dv])], SHAPE)
    rows, columns = slice(max(dv, 0), SHAPE[0] + min(dv, 0)), slice(max(du, 0), SHAPE[1] + min(du, 0))
    back_rows, back_columns = slice(max(-dv, 0), SHAPE[0] + min(-dv, 0)), slice(max(-du, 0), SHAPE[1] + min(-du, 0))
    np.testing.assert_allclose(moved[rows, columns], still[back_rows, back_columns], atol=1e-6)


@given(stars(), st.booleans(), st.booleans())
def test_a_hole_is_taken_out_whichever_way_it_runs(points: NDArray[np.float64], first: bool, second: bool) -> None:
    frame = np.array([[0.3, 0.2], [62.7, 0.2], [62.7, 46.9], [0.3, 46.9]])
    both = coverage([frame[::-1] if first else frame, points[::-1] if second else points], SHAPE)
    np.testing.assert_allclose(both, coverage([frame], SHAPE) - coverage([points], SHAPE), atol=1e-6)


def test_a_thin_wall_between_a_hole_and_the_outside_is_exact_in_one_pixel() -> None:
    outer = np.array([[1.6, 1.6], [8.6, 1.6], [8.6, 8.6], [1.6, 8.6]])
    hole = np.array([[1.8, 2.0], [8.0, 2.0], [8.0, 8.0], [1.8, 8.0]])
    for way in (1, -1):
        assert coverage([outer, hole[::way]], (12, 12))[5, 2] == pytest.approx(0.2, abs=1e-6)


def test_a_pixel_is_the_square_around_a_whole_number() -> None:
    square = np.array([[1.5, 1.5], [2.5, 1.5], [2.5, 3.0], [1.5, 3.0]])
    expected = np.zeros((5, 5))
    expected[2, 2], expected[3, 2] = 1.0, 0.5
    np.testing.assert_allclose(coverage([square], (5, 5)), expected, atol=1e-7)


@pytest.mark.parametrize("shift", [(-30.0, 0.0), (30.0, 0.0), (0.0, -25.0), (0.0, 25.0), (1e6, 0.0), (-1e6, 1e6)])
def test_what_leaves_the_picture_is_cut_at_its_border(shift: tuple[float, float]) -> None:
    points = star(5, 32, 24, 20, 40) + shift
    wide = coverage([points + np.array([64, 48])], (3 * SHAPE[0], 3 * SHAPE[1])) if abs(shift[0]) < 100 else np.zeros((144, 192))
    np.testing.assert_allclose(coverage([points], SHAPE), wide[48:96, 64:128], atol=1e-6)


def test_a_figure_of_eight_has_two_lobes() -> None:
    eight = np.array([[2.5, 2.5], [20.5, 20.5], [20.5, 2.5], [2.5, 20.5]])
    covered = coverage([eight], (24, 24))
    assert covered[11, 4] == pytest.approx(1.0)
    assert covered[11, 18] == pytest.approx(1.0)
    assert covered[4, 11] == pytest.approx(0.0)


@settings(max_examples=20, deadline=None)
@given(stars())
def test_inside_asks_the_centres(points: NDArray[np.float64]) -> None:
    v, u = np.indices(SHAPE)
    expected = polygon.contains(points, np.column_stack([u.ravel(), v.ravel()]).astype(float)).reshape(SHAPE)
    assert (inside([points], SHAPE) == expected).all()


def test_nothing_covers_nothing() -> None:
    assert not coverage([], SHAPE).any()
    assert not coverage([np.array([[1.0, 1.0], [5.0, 5.0]])], SHAPE).any()
    assert not inside([], SHAPE).any()


@given(st.integers(0, 1 << 30), st.booleans())
def test_levels_are_the_coverage_in_255ths(seed: int, hole: bool) -> None:
    random = np.random.default_rng(seed)
    outer = np.array([(5, 5), (90, 5), (90, 60), (5, 60)]) + random.uniform(-20, 4, (4, 2))
    contours = [outer, random.uniform(20, 50, 2) + np.array([(0, 0), (9, 1), (5, 8)])] if hole else [outer]
    found = levels(contours, SHAPE)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found / 255.0, coverage(contours, SHAPE), atol=0.5 / 255 + 1e-6)
