"""The drawing laid over the picture: every place is seen where the pose says, at whatever scale the picture is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.geometry import raster
from inspector.records import Contour, Pose, Template

ROWS, COLUMNS = 60, 80


def template(mm_per_px: float = 0.5) -> Template:
    """A raster whose lower left pixel is at (1, 2) mm."""
    outer = Contour("outer", "outer", "0", np.array([(1.0, 2.0), (40.0, 2.0), (40.0, 31.0)]), True, -0.1, 0.1)
    place = (1.0, 2.0 + (ROWS - 1) * mm_per_px)
    return Template("t", "", mm_per_px, place, (outer,), np.zeros((ROWS, COLUMNS), np.float32), np.zeros((ROWS, COLUMNS), np.uint8))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.6, 9.0), st.floats(-math.pi, math.pi), st.booleans())
def test_a_slope_of_light_is_seen_in_its_place_at_every_scale(step: float, angle_rad: float, slanted: bool) -> None:
    part, size = template(), 900
    scale = step / part.mm_per_px
    pose = Pose(450.0, 450.0, angle_rad, scale, 1.0, 0.0)
    middle = raster.to_picture([(20.5, 16.5)], pose)[0]
    pose = Pose(900.0 - middle[0], 900.0 - middle[1], angle_rad, scale, 1.0, 0.0)
    if slanted:
        tilt = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2e-5, -1e-5, 1.0]])
        matrix = tilt @ raster.matrix_of(pose)
        pose = Pose(pose.x_px, pose.y_px, angle_rad, scale, 1.0, 0.0, homography=tuple((matrix / matrix[2, 2]).ravel().tolist()))
    v, u = np.mgrid[:size, :size]
    image = np.rint(40 + 0.1 * u + 0.08 * v).astype(np.uint8)
    found = raster.rectify(image, pose, part)
    at = raster.apply(raster.matrix_of(pose) @ raster.grid_matrix(part), [(x, y) for y in range(ROWS) for x in range(COLUMNS)])
    inside = ((at >= 2 * step) & (at <= size - 1 - 2 * step)).all(axis=1)
    expected = 40 + at @ (0.1, 0.08)
    assert np.abs(found.ravel()[inside] - expected[inside]).max(initial=0.0) <= 1.2


def test_fine_grain_is_averaged_where_the_raster_cannot_show_it() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (900, 900)).clip(0, 255).astype(np.uint8)
    spread = {}
    for step in (1.9, 4.0):
        spread[step] = float(raster.rectify(noise, Pose(200.0, 700.0, 0.3, step / 0.5, 1.0, 0.0), template()).std())
    assert spread[1.9] > 10.0
    assert spread[4.0] < 5.0


@pytest.mark.parametrize("place", [(-5_000.0, 300.0), (300.0, 9_000.0), (-150.0, 100.0), (40.0, 40.0)])
def test_what_lies_beyond_the_picture_is_its_border_repeated(place: tuple[float, float]) -> None:
    image = np.full((64, 90), 77, np.uint8)
    for step in (1.0, 2.5, 30.0):
        assert (raster.rectify(image, Pose(*place, 0.4, step / 0.5, 1.0, 0.0), template()) == 77).all()
    colour = np.dstack([image] * 3)
    assert raster.rectify(colour, Pose(*place, 0.4, 5.0, 1.0, 0.0), template()).shape == (ROWS, COLUMNS, 3)
