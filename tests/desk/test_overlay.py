from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector.desk.overlay import overlay, places, pose_of
from inspector.desk.recipes import View
from inspector.desk.render import Pages
from inspector.desk.sessions import Who
from inspector.desk.state import Series, part_of
from inspector.desk.users import Role
from inspector.records import Calibration
from tests.desk.events import EPOCH, POSE, board, contours, desk, finding, png, verdict


def test_the_drawing_lies_where_the_pose_says() -> None:
    part = part_of(verdict(1, "REJECT_DEFECT", findings=[finding(0.01, feature="outer"), finding(0.2, ok=False)]))
    drawn = overlay(part, (600, 400), contours())
    outer, hole = drawn.outlines
    corners = [tuple(map(float, xy.split())) for xy in re.findall(r"[-\d.]+ [-\d.]+", outer.path)]
    assert corners == [(100, 300), (400, 300), (400, 100), (100, 100)]  # 5 px/mm, drawing up is picture up
    assert (outer.bad, hole.bad) == (False, True)
    assert [(m.index, m.x, m.y, m.ok) for m in drawn.markers] == [(1, 160, 150, True), (2, 160, 150, False)]
    assert [c.label for c in drawn.close_ups] == ["2: outline: hole-1"]


def test_a_homography_holds_instead_of_the_similarity() -> None:
    pose = POSE | {"homography": [2.0, 0, 7, 0, -2.0, 9, 0, 0, 1]}
    drawn = overlay(part_of(verdict(1, pose=pose)), (600, 400), contours())
    assert (drawn.markers[0].x, drawn.markers[0].y) == (2 * 12 + 7, -2 * 30 + 9)


@pytest.mark.parametrize(
    "pose",
    [None, {}, POSE | {"x_px": None}, POSE | {"x_px": "left"}, POSE | {"homography": [1, 2]}, POSE | {"scale_px_per_mm": float("nan")}],
)
def test_without_a_usable_pose_only_boxes_are_drawn(pose: dict[str, Any] | None) -> None:
    assert pose_of(pose) is None
    defects = [{"class": "scratch", "score": 0.9, "threshold": 0.5, "bbox_px": [10, 20, 30, 40]}]
    drawn = overlay(part_of(verdict(1, "REJECT_DEFECT", pose=pose, defects=defects)), (600, 400), contours())
    assert (drawn.outlines, drawn.markers) == ((), ())
    assert [(b.x, b.y, b.width, b.height, b.label) for b in drawn.boxes] == [(10, 20, 30, 40, "scratch 0.90")]


def test_a_defect_with_its_finding_is_marked_once() -> None:
    defects = [{"class": "scratch", "score": 0.9, "bbox_px": [150, 140, 30, 20]}]
    drawn = overlay(part_of(verdict(1, "REJECT_DEFECT", defects=defects)), (600, 400), contours())
    assert drawn.markers == ()
    assert [b.label for b in drawn.boxes] == [c.label for c in drawn.close_ups] == ["1: scratch 0.90"]


def points_of(path: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([tuple(map(float, xy.split())) for xy in re.findall(r"[-\d.]+ [-\d.]+", path)])


def test_behind_a_lens_all_is_drawn_where_the_raw_picture_shows_it() -> None:
    matrix, lens = np.array([[600.0, 0, 300], [0, 600, 200], [0, 0, 1]]), np.array([-0.25, 0.0, 0.0, 0.0, 0.0])
    camera = Calibration("cam0", 0.2, matrix, lens, 0.0, 1, (400, 600))

    def seen(x: float, y: float) -> list[float]:
        ray = np.array([[(x - 300) / 600, (y - 200) / 600, 1.0]])
        return cv2.projectPoints(ray, np.zeros(3), np.zeros(3), matrix, lens)[0].ravel().tolist()

    defects = [{"class": "scratch", "score": 0.9, "bbox_px": [380, 280, 100, 80]}]
    part = part_of(verdict(1, "REJECT_DEFECT", defects=defects))
    drawn = overlay(part, (600, 400), contours(), camera)
    outer = points_of(drawn.outlines[0].path)
    for x, y in ((100, 300), (400, 300), (400, 100), (100, 100), (250, 300), (400, 150), (250, 100)):  # corners, and points of the sides
        assert np.hypot(*(outer - seen(x, y)).T).min() < 10.0  # px: one of the points is near, and the line goes through it
        assert abs(cv2.pointPolygonTest(outer.astype(np.float32), seen(x, y), measureDist=True)) < 0.5
    (marker,), (box,) = drawn.markers, drawn.boxes
    assert (marker.x, marker.y) == pytest.approx(seen(160, 150), abs=0.06)
    corners = [seen(x, y) for x, y in ((380, 280), (480, 280), (480, 360), (380, 360))]
    assert all(abs(cv2.pointPolygonTest(points_of(box.path).astype(np.float32), c, measureDist=True)) < 0.1 for c in corners)
    assert (box.x, box.y + box.height) == pytest.approx((min(c[0] for c in corners), max(c[1] for c in corners)), abs=0.5)
    assert np.hypot(*(np.array(corners[2]) - (480, 360))) > 2.0  # and it was worth it


def test_a_part_is_drawn_as_the_camera_saw_it_that_took_the_picture(tmp_path: Path) -> None:
    parts = board(("cam0", 0))
    known = desk(tmp_path, parts, picture=lambda reference: png())
    camera = Calibration("cam1", 0.2, np.array([[600.0, 0, 300], [0, 600, 200], [0, 0, 1]]), np.array([-0.25, 0, 0, 0]), 0.0, 1, (400, 600))
    known.recipes.views = {("plate", ""): View(contours()), ("plate", "cam1"): View(contours()[:1], camera)}
    for seq, name in enumerate(("cam0", "cam1"), 1):
        parts.verdict(verdict(seq, image_ref=f"20260101-0000000000000001-r-{name}-{seq}"), 1)
    shown = [Pages(known).part(part, Who("", Role.VIEWER, "")) for seq in (1, 2) if (part := parts.part(EPOCH, seq)) is not None]
    assert ["M100.0 300.0L400.0 300.0L" in page for page in shown] == [True, False]
    assert [page.count("<path class=") for page in shown] == [2, 1]


def seen_by_two() -> dict[str, Any]:
    """A part that cam0 passes and cam1, by another recipe and from elsewhere, does not."""
    scratch = {"class": "scratch", "score": 0.9, "bbox_px": [10, 20, 30, 40], "cam_id": "cam1"}
    findings = [finding(0.01) | {"cam_id": "cam0"}, finding(0.2, ok=False) | {"cam_id": "cam1"}]
    cameras = [
        {"cam_id": name, "frame_id": 1, "complete": True, "image_ref": f"of-{name}", "pose": POSE | {"x_px": x_px}, "recipe": recipe}
        for name, x_px, recipe in (("cam0", 100.0, "plate"), ("cam1", 200.0, "gear"))
    ]
    more = {"recipe": {"name": "gear", "number": None}, "image_ref": "of-cam1", "pose": cameras[1]["pose"]}
    return verdict(1, "REJECT_DEFECT", findings=findings, defects=[scratch], cameras=cameras, **more)


def test_what_each_of_several_cameras_found_is_drawn_on_its_own_picture(tmp_path: Path) -> None:
    parts = board(("cam0", 0), ("cam1", 0))
    known = desk(tmp_path, parts, picture={"of-cam0": png(), "of-cam1": png()}.get)
    known.recipes.views = {("plate", ""): View(contours()), ("gear", ""): View(contours()[:1])}
    parts.verdict(seen_by_two(), 1)
    part = parts.part(EPOCH, 1)
    assert part is not None
    second, first = (overlay(part, (600, 400), contours(), None, view) for view in part.views)
    assert [view.camera for view in part.views] == ["cam1", "cam0"], "the one that decided comes first"
    assert ([(m.index, m.x, m.ok) for m in first.markers], first.boxes) == ([(1, 160.0, True)], ())
    assert [(m.index, m.x, m.ok) for m in second.markers] == [(2, 260.0, False)]
    assert len(second.boxes) == 1
    assert [[o.bad for o in drawn.outlines] for drawn in (first, second)] == [[False, False], [False, True]]
    page = Pages(known).part(part, Who("", Role.VIEWER, ""))
    assert [page.count(f'href="/part/{EPOCH}/1/picture/{name}"') > 0 for name in ("cam0", "cam1")] == [True, True]
    assert page.count('id="contours') == 2
    assert [Pages(known).picture(part, name) is None for name in ("", "cam0", "cam1", "cam2")] == [False, False, False, True]
    assert {(s.recipe, s.camera) for s in (Series.of(part, found) for found in part.findings)} == {("plate", "cam0"), ("gear", "cam1")}
    assert places("plate", contours(), [part]) is None
    assert places("gear", contours(), [part]) is not None


def test_a_part_is_drawn_with_the_drawing_of_the_recipe_that_judged_it(tmp_path: Path) -> None:
    parts = board(("cam0", 0))
    known = desk(tmp_path, parts, picture=lambda reference: png())
    who = Who("", Role.VIEWER, "")
    for seq, recipe in enumerate(("plate", "gear"), 1):
        parts.verdict(verdict(seq, image_ref="r", recipe={"name": recipe, "number": None}), 1)
    shown = [Pages(known).part(part, who) for seq in (1, 2) if (part := parts.part(EPOCH, seq)) is not None]
    assert ["<path" in page for page in shown] == [True, False]


def test_places_of_failure_are_on_the_drawing() -> None:
    parts = [part_of(verdict(i, "REJECT_DEFECT")) for i in (1, 2)]
    found = places("plate", contours(), parts)
    assert found is not None
    assert [(x, y) for x, y, _ in found.dots] == [(12.0, -30.0)] * 2
    assert found.view_box == "-3.6 -43.6 67.2 47.2"
    assert places("gear", contours(), parts) is None
