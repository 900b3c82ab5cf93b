"""Found poses against rendered truth."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from inspector.geometry import coarse, locate, shape
from inspector.geometry.raster import rectify, to_drawing, to_picture
from inspector.records import ConfigError, Contour, Floats, Image, Pose
from inspector.workshop.rendered import BACK_LIT, FRONT_LIT, LOW_CONTRAST, Scene, placed, render
from tests.geometry import parts

SIZE = (800, 640)
SCALE = 8.0
PLATE = parts.plate()


def picture(
    contours: tuple[Contour, ...], pose: Pose, scene: Scene = BACK_LIT, seed: int = 1, covers: tuple[tuple[Floats, float], ...] = ()
) -> Image:
    return render([c.points_mm for c in contours], pose, SIZE, scene, seed, covers=covers)


def off_by(found: Pose, true: Pose, contours: tuple[Contour, ...]) -> tuple[float, float]:
    """Largest distance of the part's middle in px, and difference of angle in degrees."""
    points = contours[0].points_mm
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))[None]
    turn = (found.angle_rad - true.angle_rad + math.pi) % math.tau - math.pi
    return float(np.abs(to_picture(middle, found) - to_picture(middle, true)).max()), abs(math.degrees(turn))


@pytest.fixture(scope="module")
def plate_locator() -> locate.Locator:
    return locate.compile(parts.template(*PLATE), scale_px_per_mm=SCALE)


INVERTED = Scene(part=200.0, background=40.0)


@pytest.mark.parametrize(
    ("scene", "px", "deg"), [(BACK_LIT, 0.012, 0.004), (INVERTED, 0.012, 0.004), (FRONT_LIT, 0.08, 0.05), (LOW_CONTRAST, 0.08, 0.03)]
)
@pytest.mark.parametrize("angle_deg", [0.0, 47.0, 133.0, -90.0, 301.5])
def test_found_at_any_angle_to_a_fraction_of_a_pixel(
    plate_locator: locate.Locator, scene: Scene, px: float, deg: float, angle_deg: float
) -> None:
    true = placed(PLATE, SIZE, math.radians(angle_deg), SCALE, (17.3, -11.8))
    found = plate_locator.find(picture(PLATE, true, scene))
    assert len(found) == 1
    distance, turn = off_by(found[0].pose, true, PLATE)
    assert distance < px
    assert turn < deg
    assert found[0].pose.score_ratio > 0.9
    assert not found[0].pose.ambiguous


def test_the_same_picture_gives_the_same_pose_bit_for_bit() -> None:
    true = placed(PLATE, SIZE, 0.7, SCALE, (3.3, 4.4))
    image = picture(PLATE, true, FRONT_LIT)
    first, second = (locate.compile(parts.template(*PLATE), scale_px_per_mm=SCALE) for _ in range(2))
    second.find(picture(PLATE, true, LOW_CONTRAST, 9))  # what was seen before changes nothing
    a, b = first.find(image)[0], second.find(image)[0]
    assert a.pose == b.pose
    assert a.gauged is not None
    assert b.gauged is not None
    assert a.gauged.deviation_mm.tobytes() == b.gauged.deviation_mm.tobytes()


@pytest.mark.parametrize("scale", [None, (5.0, 11.0)])
@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT, LOW_CONTRAST])
def test_the_scale_is_found_where_it_is_not_known(scale: tuple[float, float] | None, scene: Scene) -> None:
    true = placed(PLATE, SIZE, 2.0, 7.31, (-20.2, 5.0))
    found = locate.compile(parts.template(*PLATE), scale_px_per_mm=scale).find(picture(PLATE, true, scene))
    assert len(found) == 1
    assert found[0].pose.scale_px_per_mm == pytest.approx(7.31, rel=3e-4)
    assert off_by(found[0].pose, true, PLATE)[0] < 0.08


@pytest.mark.parametrize("angle", [0.4, 2.9, 4.6])
def test_a_light_that_slopes_by_more_than_the_contrast_hides_nothing(plate_locator: locate.Locator, angle: float) -> None:
    true = placed(PLATE, SIZE, angle, SCALE, (-14.0, 9.0))
    slope = np.add.outer(np.linspace(-12, 12, SIZE[1]), np.linspace(-20, 20, SIZE[0]))
    image = np.clip(picture(PLATE, true, LOW_CONTRAST).astype(float) + slope, 0, 255).astype(np.uint8)
    found = plate_locator.find(image)
    assert len(found) == 1
    assert off_by(found[0].pose, true, PLATE)[0] < 0.08


def test_streaks_along_the_edges_hardly_move_the_pose(plate_locator: locate.Locator) -> None:
    off = []
    for seed in range(8):
        true = placed(PLATE, SIZE, 0.7 * seed, SCALE, (1.3 * seed, -2.1 * seed))
        found = plate_locator.find(picture(PLATE, true, FRONT_LIT, seed))
        off.append(off_by(found[0].pose, true, PLATE)[0])
    assert float(np.sqrt(np.square(off).mean())) < 0.035


def test_colour_pictures_are_read_too(plate_locator: locate.Locator) -> None:
    true = placed(PLATE, SIZE, 1.0, SCALE, (0.0, 0.0))
    grey = picture(PLATE, true)
    found = plate_locator.find(np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2)))
    assert off_by(found[0].pose, true, PLATE)[0] < 0.012


@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT])
def test_a_part_that_is_partly_covered_is_found(plate_locator: locate.Locator, scene: Scene) -> None:
    true = placed(PLATE, SIZE, 0.4, SCALE, (0.0, 0.0))
    bar = np.array([(340, 0), (470, 0), (430, 639), (300, 639)], float)
    found = plate_locator.find(picture(PLATE, true, scene, covers=((bar, 110.0),)))
    assert len(found) == 1
    assert off_by(found[0].pose, true, PLATE)[0] < 0.15
    assert found[0].pose.score_ratio < 0.95


def test_a_part_that_leaves_the_picture_is_found(plate_locator: locate.Locator) -> None:
    true = placed(PLATE, SIZE, 0.9, SCALE, (-260.0, 0.0))
    found = plate_locator.find(picture(PLATE, true))
    assert len(found) == 1
    assert off_by(found[0].pose, true, PLATE)[0] < 0.05


def test_several_parts_among_other_things() -> None:
    small = locate.compile(parts.template(*PLATE), scale_px_per_mm=4.0)
    at = [(-210.0, -150.0, 0.3), (200.0, -140.0, 2.2), (20.0, 170.0, 4.0)]
    true = [placed(PLATE, SIZE, angle, 4.0, (x, y)) for x, y, angle in at]
    contours = [to_drawing(to_picture(c.points_mm, pose), true[0]) for pose in true for c in PLATE]
    clutter = to_drawing(parts.circle(120, 520, 60), true[0])
    bar = to_drawing(np.array([(560, 420), (780, 380), (785, 430), (570, 480)], float), true[0])
    image = render([*contours, clutter, bar], true[0], SIZE, BACK_LIT, 3)
    found = small.find(image, max_parts=5)
    assert len(found) == 3
    for pose in true:
        assert min(off_by(one.pose, pose, PLATE)[0] for one in found) < 0.03
    assert len(small.find(image)) == 1


@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT])
def test_an_empty_picture_a_mirrored_part_and_another_part_are_not_found(plate_locator: locate.Locator, scene: Scene) -> None:
    wrong_side = parts.mirrored(PLATE)
    assert plate_locator.find(render([], Pose(0, 0, 0, 1, 1, 0), SIZE, scene, 5)) == ()
    for angle in (0.1, 1.7, 3.3):
        assert plate_locator.find(picture(wrong_side, placed(wrong_side, SIZE, angle, SCALE, (4.0, 2.0)), scene)) == ()
        assert plate_locator.find(picture(parts.gear(), placed(parts.gear(), SIZE, angle, 12.0, (4.0, 2.0)), scene)) == ()


@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT, LOW_CONTRAST])
@pytest.mark.parametrize("angle", [0.2, 1.1, 2.9, 4.4])
def test_one_small_hole_tells_two_poses_apart(scene: Scene, angle: float) -> None:
    contours = parts.keyed()
    true = placed(contours, SIZE, angle, SCALE, (5.5, 1.2))
    found = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE).find(picture(contours, true, scene))
    assert off_by(found[0].pose, true, contours)[1] < 0.1
    assert not found[0].pose.ambiguous


def test_a_hidden_key_makes_the_pose_ambiguous() -> None:
    contours = parts.keyed()
    true = placed(contours, SIZE, 0.0, SCALE, (0.0, 0.0))
    x, y = to_picture(np.array([(10.0, 8.0)]), true)[0]
    lid = np.array([(x - 30, y - 30), (x + 30, y - 30), (x + 30, y + 30), (x - 30, y + 30)])
    mate = 2 * to_picture(np.array([(30.0, 15.0)]), true) - lid
    found = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE).find(
        picture(contours, true, covers=((lid, 90.0), (mate, 90.0)))
    )
    assert found[0].pose.ambiguous


@pytest.mark.parametrize("contours", [parts.rectangle(), parts.gear(), (parts.contour("outer", parts.circle(0, 0, 20)),)])
def test_a_symmetric_drawing_is_ambiguous_and_found(contours: tuple[Contour, ...]) -> None:
    true = placed(contours, SIZE, 0.3, SCALE, (9.0, -4.0))
    found = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE).find(picture(contours, true))
    assert found[0].pose.ambiguous
    assert off_by(found[0].pose, true, contours)[0] < 0.02


ONE_HOLE = parts.disc((30, 15, 2))
TINY_HOLE = parts.disc((10, 15, 0.6))
ONE_MISSING = parts.disc(*((30 * k, 18, 1.2) for k in range(11)))
UNEVEN = parts.disc((45, 8, 1.8), (140, 10, 2.2), (-77, 13, 1.2), (217, 14, 2.6), (18, 14, 1.5))


@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT, LOW_CONTRAST])
@pytest.mark.parametrize("contours", [ONE_HOLE, TINY_HOLE, ONE_MISSING, UNEVEN])
def test_the_holes_of_a_disc_tell_how_it_is_turned(contours: tuple[Contour, ...], scene: Scene) -> None:
    locator = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE)
    for angle in (0.4, 3.9):
        true = placed(contours, SIZE, angle, SCALE, (5.5, 1.2))
        found = locator.find(picture(contours, true, scene))
        assert off_by(found[0].pose, true, contours)[1] < 0.3
        assert not found[0].pose.ambiguous


@pytest.mark.parametrize(
    "contours", [parts.disc((0, 0, 6)), parts.disc((0, 15, 2), (180, 15, 2)), parts.disc((0, 15, 0.6), (180, 15, 0.6))]
)
def test_a_disc_whose_holes_do_not_tell_how_it_is_turned_is_ambiguous(contours: tuple[Contour, ...]) -> None:
    found = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE).find(
        picture(contours, placed(contours, SIZE, 1.0, SCALE, (0.0, 0.0)))
    )
    assert found[0].pose.ambiguous


@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT, LOW_CONTRAST])
def test_a_disc_whose_only_hole_is_missing_is_ambiguous_and_a_mirrored_one_is_not_found(scene: Scene) -> None:
    true = placed(ONE_HOLE, SIZE, 1.0, SCALE, (0.0, 0.0))
    found = locate.compile(parts.template(*ONE_HOLE), scale_px_per_mm=SCALE).find(picture(ONE_HOLE[:1], true, scene))
    assert found[0].pose.ambiguous
    assert not locate.compile(parts.template(*UNEVEN), scale_px_per_mm=SCALE).find(picture(parts.mirrored(UNEVEN), true, scene))


def test_pictures_without_sense_find_nothing(plate_locator: locate.Locator) -> None:
    assert plate_locator.find(np.zeros((20, 20), np.uint8)) == ()
    assert plate_locator.find(np.full((640, 800), 77, np.uint8)) == ()
    noise = np.random.default_rng(3).integers(0, 255, (640, 800), np.uint8)
    assert plate_locator.find(noise, max_parts=3) == ()


@pytest.mark.parametrize(("seed", "scale"), [(3, 2.0), (4, 2.0), (8, 2.0), (9, None)])
def test_texture_alone_is_no_part(seed: int, scale: float | None) -> None:
    """At a low resolution some of its edges lie near enough to the drawing's, but they jump from place to place."""
    noise = np.random.default_rng(seed).normal(0, 1, (320, 400)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), (2, 3, 4, 6, 8)[seed % 5])
    image = np.clip(128 + blurred / blurred.std() * 40, 0, 255).astype(np.uint8)
    assert locate.compile(parts.template(*PLATE), scale_px_per_mm=scale).find(image) == ()


@pytest.mark.parametrize("grown", [0.99, 1.015])
def test_a_part_of_another_size_is_found_at_the_known_scale(plate_locator: locate.Locator, grown: float) -> None:
    true = placed(PLATE, SIZE, 0.6, SCALE * grown, (0.0, 0.0))
    assert len(plate_locator.find(picture(PLATE, true, FRONT_LIT))) == 1


def test_a_template_without_closed_contours_is_refused() -> None:
    line = replace(PLATE[0], closed=False)
    with pytest.raises(ConfigError, match="E_TEMPLATE_EMPTY"):
        locate.compile(parts.template(line), scale_px_per_mm=1.0)


@pytest.mark.parametrize("scale", [1e-3, 0.5, (0.1, 10.0), (2.0, 1e4), 1e6])
def test_a_scale_at_which_the_part_cannot_be_worked_on_is_refused(scale: float | tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"E_SCALE.* 72.11 mm across, would be .* px large at .*; allowed: 48 to .* px") as caught:
        locate.compile(parts.template(*PLATE), scale_px_per_mm=scale)
    assert caught.value.code == "E_SCALE"


def test_the_smallest_part_is_found_and_in_a_large_picture_soon_given_up() -> None:
    scale = 48.01 / math.hypot(60, 40)
    locator = locate.compile(parts.template(*PLATE), scale_px_per_mm=scale)
    (found,) = locator.find(picture(PLATE, placed(PLATE, SIZE, 0.7, scale, (17.3, -11.8)), BACK_LIT))
    assert found.pose.score_ratio > 0.9
    assert not locator.find(np.full((4000, 6000), 128, np.uint8))


def test_rectify_lays_the_part_on_the_templates_raster() -> None:
    template = parts.template(*PLATE)
    shape = (100, 140)
    template = replace(template, mm_per_px=0.5, origin_mm=(-5.0, 45.0), sdf_mm=np.zeros(shape, np.float32), zone=np.zeros(shape, np.uint8))
    true = placed(PLATE, SIZE, 2.4, SCALE, (0.0, 0.0))
    flat = rectify(picture(PLATE, true), true, template)
    assert flat.shape == shape
    material, background, hole = flat[80, 20], flat[2, 2], flat[60, 70]
    assert material < 60
    assert background > 170
    assert hole > 170


def test_what_a_known_scale_needs_is_made_when_it_is_compiled_and_not_while_the_line_runs() -> None:
    locator = locate.compile(parts.template(*PLATE), scale_px_per_mm=SCALE)
    locator.find(picture(PLATE, placed(PLATE, SIZE, 1.0, SCALE, (0.0, 0.0))))
    assert list(locator._fines) == [SCALE]


def test_the_mirror_images_silhouette_and_samples_are_those_of_the_mirrored_drawing() -> None:
    own, other = (shape.Shape(contours, 2.0) for contours in (parts.plate(), parts.mirrored(parts.plate())))
    found, expected = coarse.mirrored(coarse.silhouette_of(own)), coarse.silhouette_of(other)
    np.testing.assert_allclose(found.centroid_px, expected.centroid_px, atol=1e-2)
    assert float(np.abs(found.unrolled - expected.unrolled).mean()) < 5e-3
    samples = shape.mirrored(own.samples(1.0))
    inwards, outwards = (other.material(samples.points + step * samples.normals) for step in (-2.0, 2.0))
    straight = samples.weight > 0
    assert (inwards[straight] > 0.8).all()
    assert (outwards[straight] < 0.2).all()
