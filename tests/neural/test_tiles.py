"""Cutting and putting together are each other's inverse, and no tile is cut where nothing is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.neural import tiles

SIZES = st.integers(1, 70)


@settings(deadline=None)  # tiles of one pixel are many
@given(SIZES, SIZES, st.integers(1, 24), st.integers(1, 24), st.integers(0, 5), st.sampled_from([1, 3]), st.integers(0, 1 << 30))
def test_what_is_cut_can_be_put_together(height: int, width: int, h: int, w: int, margin: int, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    grid = tiles.plan(np.ones((height, width), np.bool_), (h + 2 * margin, w + 2 * margin), margin)
    picture = np.zeros_like(image)
    for number, tile in enumerate(tiles.cut(image, grid)):
        tiles.put(tile, picture, grid, number)
    np.testing.assert_array_equal(picture, image)


@given(SIZES, SIZES, st.sampled_from([1, 2, 4, 8]), st.integers(0, 7), st.integers(0, 1 << 30))
def test_an_answer_stands_for_all_of_its_pixels(height: int, width: int, down: int, margin: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    grid = tiles.plan(np.ones((height, width), np.bool_), (24, 32), margin)
    picture = np.zeros((height, width), np.uint8)
    for number, (row, column) in enumerate(grid.corners.tolist()):
        answer = random.integers(0, 256, (24 // down, 32 // down), np.uint8)
        tiles.put(answer, picture, grid, number)
        y, x = min(row + 23 - 2 * margin, height - 1), min(column + 31 - 2 * margin, width - 1)
        assert picture[row, column] == answer[margin // down, margin // down]
        assert picture[y, x] == answer[(y - row + margin) // down, (x - column + margin) // down]


@settings(max_examples=60)
@given(SIZES, SIZES, st.integers(0, 4), st.floats(0, 0.2), st.integers(0, 1 << 30))
def test_what_is_wanted_is_covered_once(height: int, width: int, margin: int, share: float, seed: int) -> None:
    wanted = np.random.default_rng(seed).random((height, width)) < share
    grid = tiles.plan(wanted, (16, 12), margin)
    covered = np.zeros((height, width), np.int64)
    for row, column in grid.corners:
        core = (slice(row, row + 16 - 2 * margin), slice(column, column + 12 - 2 * margin))
        assert wanted[core].any()
        covered[core] += 1
    assert covered.max(initial=0) <= 1
    assert (covered[wanted] == 1).all()


@settings(max_examples=60)
@given(SIZES, SIZES, st.integers(0, 3), st.floats(0, 0.2), st.integers(0, 1 << 30))
def test_the_fitting_size_is_the_cheapest(height: int, width: int, margin: int, share: float, seed: int) -> None:
    wanted = np.random.default_rng(seed).random((height, width)) < share
    sides = (8, 16, 24, 40)

    def cost(h: int, w: int) -> int:
        return len(tiles.plan(wanted, (h, w), margin).corners) * (h * w + tiles.CALL_PX)

    assert cost(*tiles.fitting(wanted, margin, sides)) == min(cost(h, w) for h in sides for w in sides)


def test_no_side_fits_within_the_margin() -> None:
    with pytest.raises(ValueError, match="margin"):
        tiles.fitting(np.ones((9, 9), np.bool_), 8, (8, 16))


def test_nothing_wanted_is_no_tile() -> None:
    grid = tiles.plan(np.zeros((50, 60), np.bool_), (16, 16))
    assert tiles.cut(np.zeros((50, 60), np.uint8), grid).shape == (0, 16, 16, 1)


def test_a_margin_must_leave_a_core() -> None:
    with pytest.raises(ValueError, match="core"):
        tiles.plan(np.ones((4, 4), np.bool_), (8, 8), 4)


def test_a_crop_repeats_the_border() -> None:
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.testing.assert_array_equal(tiles.crop(image, (0, 0), (3, 3)), [[0, 0, 1], [0, 0, 1], [5, 5, 6]])
    np.testing.assert_array_equal(tiles.crop(image, (2, 2), (2, 2)), image[1:3, 1:3])
