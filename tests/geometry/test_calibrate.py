"""Calibration: from boards and parts drawn through a known lens, to the file and back, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.geometry import calibrate, dxf, locate, raster, template
from inspector.geometry.coverage import coverage
from inspector.judge import judge
from inspector.records import (
    Calibration,
    ConfigError,
    ConfigErrors,
    Decision,
    Finding,
    Frame,
    Plan,
    Pose,
    Recipe,
    Stamp,
    Template,
    View,
)
from inspector.workshop import matching

Points: TypeAlias = NDArray[np.float64]
Picture: TypeAlias = NDArray[np.uint8]

PLATE = Path(__file__).parents[2] / "dxf_templates" / "plate.dxf"
ROWS, COLUMNS = 480, 640
TAKEN_NS = 1_800_000_000 * 10**9


def lens(k1: float, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Calibration:
    return Calibration("cam", 1.0, calibrate.nominal(*shape), np.array([k1, 0, 0, 0, 0]), 0.0, TAKEN_NS, shape)


def plate() -> Template:
    return template.build(dxf.read(PLATE))


def picture_of(outlines: list[Points], *, seed: int = 0, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Picture:
    """Dark material on a bright ground, blurred, with noise; outlines in raw pixels."""
    grey = 210.0 - 160.0 * cv2.GaussianBlur(coverage(outlines, shape), (0, 0), 0.8)
    return np.clip(grey + np.random.default_rng(seed).normal(0, 1.5, shape), 0, 255).astype(np.uint8)


def fine(points: Points, step: float) -> Points:
    """A closed line with more points: lenses bend straight lines."""
    following = np.roll(points, -1, axis=0)
    count = max(2, math.ceil(float(np.hypot(*(following - points).T).max()) / step))
    share = np.linspace(0, 1, count, endpoint=False)[:, None]
    return np.concatenate([a + share * (b - a) for a, b in zip(points, following, strict=True)])


def part_picture(pose: Pose, through: Calibration | None, seed: int = 0) -> Picture:
    outlines = [raster.to_picture(fine(c.points_mm, 2.0) if len(c.points_mm) < 300 else c.points_mm, pose) for c in plate().contours]
    return picture_of([calibrate.distorted(o, through) for o in outlines] if through else outlines, seed=seed)


def board_picture(to_picture: Points, through: Calibration, *, columns: int = 9, rows: int = 6, square_mm: float = 10.0) -> Picture:
    """A chessboard with so many inner corners, y up, its first inner corner at (0, 0), seen by a homography and a lens."""
    squares = []
    for row in range(rows + 1):
        for column in range(columns + 1):
            if (row + column) % 2 == 0:
                x, y = (column - 1) * square_mm, -(row - 1) * square_mm
                square = np.array([[x, y], [x + square_mm, y], [x + square_mm, y - square_mm], [x, y - square_mm]])
                squares.append(calibrate.distorted(raster.apply(to_picture, fine(square, 1.0)), through))
    return picture_of(squares)


def seen_from(tilt_x: float, tilt_y: float, distance_mm: float, matrix: Points) -> Points:
    """The homography, board mm (y up) → ideal pixels, of a camera that looks at the middle of the board (40, −25)."""
    turn_x, turn_y = cv2.Rodrigues(np.array([tilt_x, 0, 0]))[0], cv2.Rodrigues(np.array([0, tilt_y, 0]))[0]
    to_camera = np.asarray(turn_x @ turn_y @ np.diag([1.0, -1.0, -1.0]))
    middle = to_camera @ np.array([40.0, -25.0, 0.0])
    return np.asarray(matrix @ np.column_stack([to_camera[:, 0], to_camera[:, 1], np.array([0, 0, distance_mm]) - middle]))


def on_plane(points_px: Points, found: Calibration) -> Points:
    """Raw pixels → mm in the plane, as the calibration of a slanted camera says."""
    return raster.apply(np.array(found.homography).reshape(3, 3), calibrate.undistorted(points_px, found))


# --- from the part -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k1", [-0.12, 0.08])
def test_a_part_shows_the_scale_and_the_bend_of_the_lens(k1: float) -> None:
    truth = lens(k1)
    poses = [Pose(40, 430, 0.02, 5.4, 1, 0), Pose(600, 60, 3.3, 5.4, 1, 0)]
    pictures = [part_picture(pose, truth, seed) for seed, pose in enumerate(poses)]
    found = calibrate.from_part(pictures, plate(), camera="cam", taken_utc_ns=TAKEN_NS)
    assert found.mm_per_px == pytest.approx(1 / 5.4, rel=3e-4)
    outline = calibrate.distorted(raster.to_picture(plate().contours[0].points_mm, poses[0]), truth)
    off = calibrate.undistorted(outline, found) - calibrate.undistorted(outline, truth)
    assert np.hypot(*off.T).max() < 0.1
    assert np.hypot(*(outline - calibrate.undistorted(outline, truth)).T).max() > 3.0  # and it was worth it
    assert found.rms_px < 0.1


def test_a_plain_lens_is_not_given_a_bend() -> None:
    found = calibrate.from_part([part_picture(Pose(50, 420, 0.1, 5.0, 1, 0), None)], plate(), camera="cam", taken_utc_ns=TAKEN_NS)
    assert found.mm_per_px == pytest.approx(0.2, rel=1e-4)
    assert found.camera_matrix is None
    assert found.distortion is None
    assert found.homography is None
    assert calibrate.straightener(found) is None


def test_a_part_seen_at_a_slant_gives_the_plane() -> None:
    view = np.array([[5.0, -0.6, 70.0], [-0.5, -4.4, 410.0], [4e-4, 9e-4, 1.0]])
    outlines = [raster.apply(view, fine(c.points_mm, 2.0) if len(c.points_mm) < 300 else c.points_mm) for c in plate().contours]
    found = calibrate.from_part([picture_of(outlines)], plate(), camera="cam", taken_utc_ns=TAKEN_NS, perspective=True)
    points = np.array([[10.0, 10.0], [90.0, 10.0], [28.0, 48.0], [80.0, 56.0]])
    assert found.homography is not None
    np.testing.assert_allclose(on_plane(raster.apply(view, points), found), points, atol=0.02)


def test_what_is_no_part_is_refused() -> None:
    empty = picture_of([])
    with pytest.raises(ConfigError, match="E_CAL_PART: the part is not found in picture 2"):
        calibrate.from_part([part_picture(Pose(50, 420, 0.1, 5.0, 1, 0), None), empty], plate(), camera="cam", taken_utc_ns=TAKEN_NS)
    with pytest.raises(ConfigError, match="E_CAL_SIZE"):
        calibrate.from_part([empty, empty[:-2]], plate(), camera="cam", taken_utc_ns=TAKEN_NS)


def test_a_part_that_is_not_true_to_its_drawing_is_refused_with_what_to_do() -> None:
    outlines = [raster.to_picture(fine(c.points_mm, 0.5), Pose(50, 420, 0.1, 5.0, 1, 0)) for c in plate().contours]
    bent = [o + np.column_stack([2.0 * np.sin(o[:, 1] / 25.0), 2.0 * np.sin(o[:, 0] / 30.0)]) for o in outlines]
    with pytest.raises(ConfigError, match=r"E_CAL_FIT: the outlines are off by .* px \(rms\); at most 1\. Take a part that measures true"):
        calibrate.from_part([picture_of(bent)], plate(), camera="cam", taken_utc_ns=TAKEN_NS)


# --- from a board ------------------------------------------------------------------------------------------------------


def test_one_board_seen_straight_on_gives_scale_and_bend() -> None:
    truth = lens(-0.1)
    view = np.array([[5.8, 0.0, 88.0], [0.0, -5.8, 95.0], [0.0, 0.0, 1.0]])
    board = calibrate.Board(9, 6, 10.0)
    found = calibrate.from_board([board_picture(view, truth)], board, camera="cam", taken_utc_ns=TAKEN_NS)
    assert found.mm_per_px == pytest.approx(1 / 5.8, rel=3e-4)
    corners = calibrate.distorted(raster.apply(view, np.array([[x, -y] for x in (0.0, 80.0) for y in (0.0, 50.0)])), truth)
    off = calibrate.undistorted(corners, found) - calibrate.undistorted(corners, truth)
    assert np.hypot(*off.T).max() < 0.15


def test_several_tilted_boards_give_the_camera() -> None:
    matrix = np.array([[900.0, 0, 310.0], [0, 900.0, 250.0], [0, 0, 1]])
    truth = replace(lens(0), camera_matrix=matrix, distortion=np.array([-0.25, 0.1, 0, 0, 0]))
    tilts = [(0.0, 0.0), (0.5, 0.1), (-0.4, 0.3), (0.1, 0.55), (0.2, -0.5), (-0.45, -0.35)]
    pictures = [board_picture(seen_from(a, b, 170 + 8 * n, matrix), truth) for n, (a, b) in enumerate(tilts)]
    found = calibrate.from_board(pictures, calibrate.Board(9, 6, 10.0), camera="cam", taken_utc_ns=TAKEN_NS)
    assert found.camera_matrix is not None
    np.testing.assert_allclose(found.camera_matrix[:2], matrix[:2], atol=6.0)
    assert found.mm_per_px == pytest.approx(170 / 900, rel=2e-3)
    assert found.rms_px < 0.1
    at = np.array([[60.0, 60.0], [320.0, 240.0], [580.0, 420.0]])
    off = calibrate.undistorted(at, found) - calibrate.undistorted(at, truth)
    assert np.hypot(*(off - off[1]).T).max() < 1.0


def test_a_slanted_plane_is_known_by_its_homography() -> None:
    truth = lens(0.0)
    view = seen_from(0.3, 0.2, 130, calibrate.nominal(ROWS, COLUMNS))
    found = calibrate.from_board([board_picture(view, truth)], calibrate.Board(9, 6, 10.0), camera="cam", taken_utc_ns=TAKEN_NS)
    assert found.homography is not None
    ends = raster.apply(view, np.array([[0.0, 0.0], [80.0, -50.0]]))
    first, last = on_plane(ends, found)
    assert math.dist(first, last) == pytest.approx(math.hypot(80, 50), rel=1e-3)


def test_a_charuco_board_may_be_seen_in_part() -> None:
    words = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100)
    made = cv2.aruco.CharucoBoard((8, 6), 10.0, 7.0, words)
    picture = np.full((ROWS, COLUMNS), 255, np.uint8)
    drawn = made.generateImage((640, 480), marginSize=0)
    picture[20:, 30:] = drawn[: ROWS - 20, : COLUMNS - 30]
    board = calibrate.Board(8, 6, 10.0, 7.0)
    found = calibrate.from_board([np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.8), np.uint8)], board, camera="cam", taken_utc_ns=TAKEN_NS)
    assert found.mm_per_px == pytest.approx(10 / 80, rel=1e-3)


def test_no_board_is_told_by_picture() -> None:
    view = np.array([[5.8, 0.0, 88.0], [0.0, -5.8, 95.0], [0.0, 0.0, 1.0]])
    pictures = [board_picture(view, lens(0)), picture_of([])]
    with pytest.raises(ConfigError, match="no chessboard 9x6, 10 mm in picture 2"):
        calibrate.from_board(pictures, calibrate.Board(9, 6, 10.0), camera="cam", taken_utc_ns=TAKEN_NS)


# --- pixels ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(-0.2, 0.2), st.floats(0, COLUMNS - 1), st.floats(0, ROWS - 1))
def test_undistorting_is_undone_by_distorting(k1: float, x: float, y: float) -> None:
    point = np.array([[x, y]])
    np.testing.assert_allclose(calibrate.distorted(calibrate.undistorted(point, lens(k1)), lens(k1)), point, atol=1e-6)


def test_undistorted_pictures_agree_with_undistorted_points() -> None:
    truth = lens(-0.15)
    pose = Pose(60, 420, 0.05, 5.2, 1, 0)
    straight = calibrate.straightener(truth)
    assert straight is not None
    off = straight(part_picture(pose, truth)).astype(float) - part_picture(pose, None)
    assert np.abs(cv2.GaussianBlur(off, (0, 0), 2.0)[8:-8, 8:-8]).max() < 12
    with pytest.raises(ConfigError, match="E_CAL_SIZE"):
        straight(np.zeros((100, 100), np.uint8))


SLANTED = seen_from(0.3, 0.2, 130, calibrate.nominal(ROWS, COLUMNS))


def slanted() -> Calibration:
    """The calibration of a camera that looks at the plane at a slant, from one picture of a board in it."""
    return calibrate.from_board([board_picture(SLANTED, lens(-0.1))], calibrate.Board(9, 6, 10.0), camera="cam", taken_utc_ns=TAKEN_NS)


def test_a_slanted_picture_is_turned_to_the_front() -> None:
    found, raw = slanted(), board_picture(SLANTED, lens(-0.1))
    straight = calibrate.straightener(found)
    assert straight is not None
    before, after = (calibrate.corners(picture, calibrate.Board(9, 6, 10.0)) for picture in (raw, straight(raw)))
    assert before is not None
    assert after is not None
    mm = after.picture_px.reshape(6, 9, 2) * found.mm_per_px
    for axis in (0, 1):
        np.testing.assert_allclose(np.hypot(*np.moveaxis(np.diff(mm, axis=axis), 2, 0)), 10.0, atol=0.03)
    nearest = np.argmin(np.hypot(*(before.picture_px - (0.5 * (COLUMNS - 1), 0.5 * (ROWS - 1))).T))
    assert math.dist(before.picture_px[nearest], after.picture_px[nearest]) < 2.0  # the middle stays, and nothing is turned about it
    across = [c.picture_px.reshape(6, 9, 2)[:, 5] - c.picture_px.reshape(6, 9, 2)[:, 3] for c in (before, after)]
    angles = [math.atan2(*each[2][::-1]) for each in across]
    assert abs(angles[0] - angles[1]) < math.radians(4)


def steep(tilt: float) -> Calibration:
    """A camera that looks at the plane at this angle (rad) from the vertical, known exactly."""
    to_mm = np.asarray(np.linalg.inv(seen_from(tilt, 0.2, 130, calibrate.nominal(ROWS, COLUMNS))), np.float64)
    middle = np.array([0.5 * (COLUMNS - 1), 0.5 * (ROWS - 1)])
    scale = math.dist(*raster.apply(to_mm, np.array([middle, [middle[0] + 1.0, middle[1]]])))
    return replace(lens(-0.1), mm_per_px=scale, homography=tuple((to_mm / to_mm[2, 2]).ravel()))


def test_a_place_in_the_straightened_picture_is_found_again_in_the_raw_one() -> None:
    found, raw = slanted(), board_picture(SLANTED, lens(-0.1))
    straight = calibrate.straightener(found)
    assert straight is not None
    there = calibrate.corners(straight(raw), calibrate.Board(9, 6, 10.0))
    assert there is not None
    columns, rows = np.meshgrid(np.arange(9) * 10.0, np.arange(6) * -10.0)
    inner = np.column_stack([columns.ravel(), rows.ravel()])
    truth = calibrate.distorted(raster.apply(SLANTED, inner), lens(-0.1))
    front = there.picture_px[::-1] if there.picture_px[0, 0] > there.picture_px[-1, 0] else there.picture_px
    assert np.hypot(*(front - truth).T).max() > 10.0
    np.testing.assert_allclose(calibrate.as_taken(front, found), truth, atol=0.3)


@pytest.mark.parametrize("camera", [lens(-0.15), lens(0.1), steep(0.3), steep(1.1), steep(1.5)], ids=["in", "out", "0.3", "1.1", "1.5"])
def test_what_no_raw_pixel_shows_is_known(camera: Calibration) -> None:
    straight = calibrate.straightener(camera)
    assert straight is not None
    v, u = (each.ravel() for each in np.mgrid[:ROWS:3, :COLUMNS:3])
    front = np.eye(3) if camera.homography is None else calibrate._from_front(camera)
    ideal = raster.apply(front, np.column_stack([u, v]))
    raw = calibrate.distorted(ideal, camera)
    shown = ((raw >= -0.5) & (raw <= (COLUMNS - 0.5, ROWS - 0.5))).all(axis=1)
    ahead = np.column_stack([u, v, np.ones_like(u)]) @ front[2]
    shown &= ahead * (front[2] @ (COLUMNS / 2, ROWS / 2, 1.0)) > 0  # nothing that lies behind the camera
    shown[shown] = np.hypot(*(calibrate.undistorted(raw[shown], camera) - ideal[shown]).T) < 1.0  # nor a ray that the lens never saw
    known = np.ones(len(u), np.bool_) if straight.shown is None else straight.shown[v, u] > 0
    assert (known != shown).mean() < 1e-3
    assert (straight.shown is None) is bool(shown.all())


@pytest.mark.parametrize("on_the_raster", [False, True])
@pytest.mark.parametrize(("right_mm", "ok"), [(0.0, True), (16.0, False)])
def test_what_no_raw_pixel_shows_is_not_measured(right_mm: float, ok: bool, on_the_raster: bool) -> None:
    found, made = slanted(), plate()
    outlines = [fine(c.points_mm, 2.0) - (50.0, 35.0) + (40.0 + right_mm, -25.0) for c in made.contours]
    image = picture_of([calibrate.distorted(raster.apply(SLANTED, o), lens(-0.1)) for o in outlines])
    seen: list[View] = []

    def look(views: Sequence[View]) -> list[tuple[Finding, ...]]:
        seen.extend(views)
        return [(Finding("look", "part", 1.0, None, None, "count"),)]

    locator = locate.compile(made, scale_px_per_mm=1 / found.mm_per_px)
    plan = Plan("cam", made, locator, found, (("look", look),), on_the_raster, straighten=calibrate.straightener(found))
    frame = Frame(Stamp("cam", 1, 0, None, image.shape), image)
    (inspection,) = judge([frame], Recipe("", {"cam": plan}, (), ("locate", "look")), lambda: 0)
    (view,) = seen
    assert view.pose is not None
    gauged, places = view.gauged, raster.to_picture(view.gauged.points_mm, view.pose)
    assert ((places >= 0) & (places <= (COLUMNS - 1, ROWS - 1))).all()  # all of it lies on the straightened picture
    raw = calibrate.as_taken(places, found)
    hidden = ((raw < -1.0) | (raw > (COLUMNS, ROWS))).any(axis=1)
    assert hidden.any() is not np.bool_(ok)
    assert np.isnan(gauged.deviation_mm[hidden]).all()
    assert not gauged.seen[hidden].any()
    assert bool(gauged.beyond) is not ok
    assert gauged.extra == ()
    assert gauged.missing == ()
    assert np.nanpercentile(np.abs(gauged.deviation_mm[gauged.trusted]), 99) < 0.1
    in_view = [f for f in inspection.findings if f.feature == "in_view"]
    assert [f.ok for f in in_view] == ([ok] if on_the_raster else [])


@pytest.mark.parametrize(("larger", "ok"), [((1.0, 1.0), True), ((1.01, 1.01), False), ((0.99, 0.99), False), ((1.0, 1.012), False)])
def test_behind_a_calibrated_slant_sizes_are_sizes(tmp_path: Path, larger: tuple[float, float], ok: bool) -> None:
    calibrate.write(slanted(), tmp_path / "cam.yaml", "chessboard")
    made = [(fine(c.points_mm, 2.0) - (50.0, 35.0)) * larger + (40.0, -25.0) for c in plate().contours]
    cv2.imwrite(str(tmp_path / "part.png"), picture_of([calibrate.distorted(raster.apply(SLANTED, o), lens(-0.1)) for o in made]))
    plan = matching.prepare(PLATE, calibration=tmp_path / "cam.yaml", tolerance_mm=0.15)
    (found,) = matching.judge(plan, tmp_path / "part.png")
    assert (found["decision"] == "pass") is ok


# --- the file ----------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "version": 1,
    "camera": "cam0",
    "method": "chessboard 9x6, 10 mm, 3 pictures",
    "shape_px": [480, 640],
    "mm_per_px": 0.1,
    "camera_matrix": [[800.0, 0.0, 320.0], [0.0, 800.0, 240.0], [0.0, 0.0, 1.0]],
    "distortion": [-0.1, 0.01, 0.0, 0.0, 0.0],
    "homography": [0.1, 0.0, -32.0, 0.0, -0.1, 24.0, 0.0, 0.0001, 1.0],
    "rms_px": 0.05,
    "taken_utc_ns": TAKEN_NS,
    "max_age_days": 30.0,
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cal.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    first = calibrate.read(path, shape_px=(480, 640), now_utc_ns=TAKEN_NS + 29 * calibrate.DAY_NS)
    calibrate.write(first, tmp_path / "again.yaml", GOOD["method"], max_age_days=30.0)
    assert yaml.safe_load((tmp_path / "again.yaml").read_text()) == GOOD
    assert first.camera_matrix is not None
    assert not first.camera_matrix.flags.writeable


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mm_per_px": 0.0}, "E_CAL_SCALE"),
        ({"mm_per_px": -0.1}, "E_CAL_SCALE"),
        ({"mm_per_px": NAN}, "E_CAL_SCALE"),
        ({"mm_per_px": INF}, "E_CAL_SCALE"),
        ({"mm_per_px": 1e9}, "E_CAL_SCALE"),
        ({"mm_per_px": "0.1"}, "E_CAL_FORMAT"),
        ({"camera_matrix": [[0.0, 0.0, 0.0]] * 3}, "E_CAL_MATRIX"),
        ({"camera_matrix": [[800.0, 0.0, NAN], [0.0, 800.0, 240.0], [0.0, 0.0, 1.0]]}, "E_CAL_MATRIX"),
        ({"camera_matrix": [[800.0, 0.0, 320.0], [0.0, -800.0, 240.0], [0.0, 0.0, 1.0]]}, "E_CAL_MATRIX"),
        ({"camera_matrix": [[800.0, 0.0, 1e9], [0.0, 800.0, 240.0], [0.0, 0.0, 1.0]]}, "E_CAL_MATRIX"),
        ({"camera_matrix": [[800.0, 0.0], [0.0, 800.0]]}, "E_CAL_FORMAT"),
        ({"camera_matrix": None}, "E_CAL_LENS"),
        ({"homography": [1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 0.0, 0.0, 1.0]}, "E_CAL_MATRIX"),
        ({"homography": [INF] + [0.0] * 8}, "E_CAL_MATRIX"),
        ({"distortion": [0.1, 0.2, 0.3]}, "E_CAL_LENS"),
        ({"distortion": [-3.0, 0.0, 0.0, 0.0]}, "E_CAL_LENS"),
        ({"distortion": [NAN, 0.0, 0.0, 0.0]}, "E_CAL_LENS"),
        ({"shape_px": [480, 0]}, "E_CAL_FORMAT"),
        ({"shape_px": [960, 1280]}, "E_CAL_SIZE"),
        ({"version": 2}, "E_CAL_FORMAT"),
        ({"colour": "red"}, "E_CAL_FORMAT"),
        ({"taken_utc_ns": TAKEN_NS - 2 * calibrate.DAY_NS}, "E_CAL_AGE"),
    ],
)
def test_calibrations_that_cannot_be(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    path = tmp_path / "cal.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    with pytest.raises(ConfigError) as caught:
        calibrate.read(path, shape_px=(480, 640), now_utc_ns=TAKEN_NS + 29 * calibrate.DAY_NS)
    assert caught.value.code == code, str(caught.value)
    assert str(path) in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cal.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"mm_per_px": 0.0, "distortion": [0.1], "homography": [0.0] * 9}))
    with pytest.raises(ConfigErrors) as caught:
        calibrate.read(path)
    assert sorted(e.code for e in caught.value.errors) == ["E_CAL_LENS", "E_CAL_MATRIX", "E_CAL_SCALE"]


@pytest.mark.parametrize(("content", "code"), [(b"", "E_CAL_FORMAT"), (b"a: [", "E_CAL_FORMAT"), (b"\xff\xfe\x00", "E_CAL_FORMAT")])
def test_files_that_are_no_calibration(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "cal.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        calibrate.read(path)
    assert caught.value.code == code
    with pytest.raises(ConfigError, match="E_CAL_FILE"):
        calibrate.read(tmp_path / "none.yaml")


# --- the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_what_is_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "part.png"), part_picture(Pose(50, 420, 0.1, 5.0, 1, 0), None))
    arguments = ["calibrate", str(tmp_path / "part.png"), "--drawing", str(PLATE), "--out", str(tmp_path / "cal.yaml"), "--json"]
    result = CliRunner().invoke(application(), [*arguments, "--max-age-days", "90"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["mm_per_px"] == pytest.approx(0.2, rel=1e-4)
    assert calibrate.read(tmp_path / "cal.yaml").shape_px == (ROWS, COLUMNS)


@pytest.mark.parametrize(
    "options",
    [[], ["--chessboard", "9x6"], ["--chessboard", "9", "--square-mm", "1"], ["--charuco", "9x6", "--square-mm", "5"],
     ["--chessboard", "9x6", "--charuco", "9x6", "--square-mm", "5"],
     ["--charuco", "9x6", "--square-mm", "5", "--marker-mm", "3", "--dictionary", "X"]],
)  # fmt: skip
def test_the_command_refuses_what_is_no_board(tmp_path: Path, options: list[str]) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), picture_of([]))
    result = CliRunner().invoke(application(), ["calibrate", str(tmp_path / "p.png"), "--out", str(tmp_path / "c.yaml"), *options])
    assert result.exit_code == 2
    assert not (tmp_path / "c.yaml").exists()


def test_the_command_refuses_what_is_no_picture(tmp_path: Path) -> None:
    for content in (b"", b"no picture"):
        (tmp_path / "p.png").write_bytes(content)
        arguments = ["calibrate", str(tmp_path / "p.png"), "--drawing", str(PLATE), "--out", str(tmp_path / "c.yaml")]
        result = CliRunner().invoke(application(), arguments)
        assert isinstance(result.exception, ConfigError)
        assert result.exception.code == "E_IMAGE"


def test_the_judge_sees_straightened_pictures() -> None:
    truth = lens(-0.12)
    pose = Pose(50, 420, 0.1, 5.0, 1, 0)
    frame = Frame(Stamp("cam", 1, 0, None, (ROWS, COLUMNS)), part_picture(pose, truth))
    built = plate()
    seen: list[View] = []

    def look(views: Sequence[View]) -> list[tuple[Finding, ...]]:
        seen.extend(views)
        return [(Finding("look", "part", 1.0, None, None, "count"),)]

    locator = locate.compile(built, scale_px_per_mm=5.0)
    plan = Plan("cam", built, locator, truth, (("look", look),), False, straighten=calibrate.straightener(truth))
    (inspection,) = judge([frame], Recipe("", {"cam": plan}, (), ("locate", "look")), lambda: 0)
    assert inspection.pose is not None
    assert inspection.pose.x_px == pytest.approx(pose.x_px, abs=0.02)
    assert inspection.pose.angle_rad == pytest.approx(pose.angle_rad, abs=1e-4)
    assert "straighten" in inspection.spent_ns
    deviation = seen[0].gauged.deviation_mm[seen[0].gauged.seen & seen[0].gauged.trusted]
    assert np.percentile(np.abs(deviation), 99) < 0.03
    plain = judge([frame], Recipe("", {"cam": replace(plan, straighten=None)}, (), ("locate", "look")), lambda: 0)
    assert plain[0].pose is not None
    bent = seen[-1].gauged.deviation_mm[seen[-1].gauged.seen & seen[-1].gauged.trusted]
    assert np.percentile(np.abs(bent), 99) > 0.3


def test_a_picture_of_another_size_is_not_judged() -> None:
    plan = Plan("cam", None, None, lens(-0.1), (), False, straighten=calibrate.straightener(lens(-0.1)))
    frame = Frame(Stamp("cam", 1, 0, None, (100, 100)), np.zeros((100, 100), np.uint8))
    (inspection,) = judge([frame], Recipe("", {"cam": plan}, (), ()), lambda: 0)
    assert inspection.decision is Decision.UNJUDGED
    assert "E_CAL_SIZE" in inspection.reason_text
