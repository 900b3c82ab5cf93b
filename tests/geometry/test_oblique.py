"""Oblique views against rendered truth: the contours go through a known homography."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inspector.geometry import locate
from inspector.geometry.raster import rectify, to_drawing, to_picture
from inspector.records import Floats, Pose
from inspector.workshop.rendered import BACK_LIT, FRONT_LIT, Scene, render
from tests.geometry import parts

SIZE = (800, 640)
PLATE = parts.plate()


def tilted(angle_rad: float, tilt_rad: float, scale: float = 8.0, distance_px: float = 2400.0) -> Pose:
    """The plate in a plane tilted away at the top of the picture, seen by a camera at `distance_px` (its focal length too)."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    flat = np.array([[c, -s, -30 * c + 20 * s], [s, c, -30 * s - 20 * c], [0, 0, 1]]) * [[scale], [scale], [1]]
    ct, st = math.cos(tilt_rad), math.sin(tilt_rad)
    project = np.array([[1, 0, 0], [0, -ct, 0], [0, st / distance_px, 1]])
    middle = np.array([[1, 0, (SIZE[0] - 1) / 2 + 7.3], [0, 1, (SIZE[1] - 1) / 2 - 4.1], [0, 0, 1]])
    matrix = middle @ project @ flat
    return Pose(0.0, 0.0, 0.0, scale, 1.0, 0.0, False, tuple((matrix / matrix[2, 2]).ravel().tolist()))


def corners_off(found: Pose, true: Pose) -> float:
    box = np.array([(0, 0), (60, 0), (60, 30), (50, 40), (0, 40), (30, 15)], float)
    return float(np.abs(to_picture(box, found) - to_picture(box, true)).max())


@pytest.mark.parametrize(("scene", "px"), [(BACK_LIT, 0.15), (FRONT_LIT, 0.5)])
@pytest.mark.parametrize("tilt_deg", [0.0, 20.0, 45.0])
@pytest.mark.parametrize("angle", [0.3, 2.2, 4.6])
def test_the_homography_is_found_at_any_angle(scene: Scene, px: float, tilt_deg: float, angle: float) -> None:
    true = tilted(angle, math.radians(tilt_deg))
    found = locate.compile(parts.template(*PLATE), scale_px_per_mm=None, perspective=True).find(
        render([c.points_mm for c in PLATE], true, SIZE, scene, 1)
    )
    assert len(found) == 1
    assert found[0].pose.homography is not None
    assert corners_off(found[0].pose, true) < px
    assert found[0].pose.score_ratio > 0.9


def test_the_similarity_of_an_oblique_pose_is_that_of_the_middle_of_the_part() -> None:
    true = tilted(0.4, math.radians(30.0))
    pose = (
        locate.compile(parts.template(*PLATE), scale_px_per_mm=None, perspective=True)
        .find(render([c.points_mm for c in PLATE], true, SIZE, BACK_LIT, 1))[0]
        .pose
    )
    middle = np.array([(30.0, 20.0)])
    similar = Pose(pose.x_px, pose.y_px, pose.angle_rad, pose.scale_px_per_mm, 1.0, 0.0)
    assert np.abs(to_picture(middle, similar) - to_picture(middle, pose)).max() < 1e-6
    assert pose.scale_px_per_mm == pytest.approx(8.0 * math.sqrt(math.cos(math.radians(30))), rel=0.02)


def test_deviations_of_an_oblique_part_are_drawing_millimetres() -> None:
    true = tilted(1.1, math.radians(35.0))
    real = [c.points_mm for c in PLATE]
    real[0] = np.array([(0, 0), (20, 0), (20, 0.8), (26, 0.8), (26, 0), (60, 0), (60, 30), (50, 40), (0, 40)], float)
    found = locate.compile(parts.template(*PLATE), scale_px_per_mm=None, perspective=True).find(render(real, true, SIZE, BACK_LIT, 1))
    gauged = found[0].gauged
    assert gauged is not None
    notch = np.hypot(*(gauged.points_mm - (23.0, 0.0)).T) < 2.0
    assert np.median(gauged.deviation_mm[notch]) == pytest.approx(-0.8, abs=0.05)


def test_a_thick_part_is_found_by_its_upper_face() -> None:
    true = tilted(0.8, math.radians(40.0))
    wall_px = np.array([0.0, 9.0])

    def face(points: Floats, share: float) -> Floats:
        return to_drawing(to_picture(points, true) + share * wall_px, true)

    pictures = [
        render([face(c.points_mm, share) for c in PLATE], true, SIZE, Scene(noise=0.0, fall_off_ratio=0.0), 1)
        for share in np.linspace(0, 1, 10)
    ]
    image = np.minimum.reduce(pictures)  # what any slice of the thickness covers is dark
    found = locate.compile(parts.template(*PLATE), scale_px_per_mm=None, perspective=True).find(image)
    assert len(found) == 1
    assert found[0].pose.score_ratio > 0.85
    assert corners_off(found[0].pose, true) < 2.5


def test_points_go_there_and_back_and_rectify_flattens() -> None:
    pose = tilted(0.5, 0.6)
    points = np.array([(1.0, 2.0), (59.0, 38.0)])
    assert np.abs(to_drawing(to_picture(points, pose), pose) - points).max() < 1e-9
    template = parts.template(*PLATE)
    shape = (84, 124)
    flat = rectify(
        render([c.points_mm for c in PLATE], pose, SIZE, BACK_LIT, 2),
        pose,
        type(template)("t", "", 0.5, (-1.0, 41.0), template.contours, np.zeros(shape, np.float32), np.zeros(shape, np.uint8)),
    )
    assert flat.shape == shape
    assert flat[41, 30] < 60
    assert flat[52, 62] > 150
