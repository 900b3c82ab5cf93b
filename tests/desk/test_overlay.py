from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inspector.desk.overlay import overlay, places, pose_of
from inspector.desk.render import Pages
from inspector.desk.sessions import Who
from inspector.desk.state import part_of
from inspector.desk.users import Role
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
