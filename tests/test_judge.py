"""The rule, and that one frame's trouble is its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.judge import decide, judge
from inspector.records import Check, Contour, Decision, Evidence, Finding, Frame, Plan, Pose, Reason, Recipe, Stamp, Template, View

REASONS = ("locate", "outline", "surface")
limits = st.none() | st.floats(allow_nan=False)
findings = st.builds(Finding, st.sampled_from(REASONS), st.just("f"), st.floats(), limits, limits, st.just("mm"))


def frame(seq: int, level: int = 100, complete: bool = True) -> Frame:
    return Frame(Stamp("c", seq, 0, None, (4, 4), complete), np.full((4, 4), level, np.uint8))


@dataclass
class Located:
    pose: Pose
    gauged: Any = None


class Locator:
    """Finds the part where the picture is brighter than 50, and dies where it is black."""

    def find(self, image: Any, *, max_parts: int = 1, shown: Any = None) -> tuple[Located, ...]:
        level = int(image[0, 0])
        if level == 0:
            raise RuntimeError("nothing to divide by")
        return (Located(Pose(1, 2, 0, 1, level / 255, 0.0)),) if level > 50 else ()


def recipe(*checks: tuple[str, Check], locator: Any = None, least: float = 0.5) -> Recipe:
    return Recipe("d", {"c": Plan("c", None, locator, None, checks, False, least)}, (), REASONS)


def brightness(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
    return [(Finding("surface", "mean", float(view.image.mean()), None, 150.0, "grey"),) for view in views]


def run(frames: Sequence[Frame], of: Recipe) -> list[tuple[Decision, int]]:
    ticks = count()
    return [(each.decision, each.reason) for each in judge(frames, of, lambda: next(ticks))]


@given(st.lists(findings, max_size=6))
def test_pass_is_every_number_finite_and_within_and_something_besides_locating(several: list[Finding]) -> None:
    decision, reason, text = decide(several, REASONS)
    judged = any(f.check != "locate" for f in several)
    assert (decision is Decision.PASS) == (judged and all(f.ok for f in several))
    assert (reason == 0) == (decision is Decision.PASS)
    if any(not math.isfinite(f.value) for f in several):
        assert (decision, reason) == (Decision.UNJUDGED, Reason.NON_FINITE)
    if decision is Decision.FAIL:
        assert REASONS[reason - 100] == next(f.check for f in several if not f.ok)
    assert len(text.encode()) <= 200


def test_the_reason_says_value_unit_and_limits() -> None:
    short = Finding("outline", "hole-3", -0.08123, -0.05, 0.05, "mm")
    assert decide([short], REASONS) == (Decision.FAIL, 101, "outline hole-3: -0.08123 mm, allowed -0.05 to 0.05")
    scratch = Finding("surface", "zone", 3.2, None, 1, "mm2", evidence=Evidence("scratch", 0.9, 0.5, (0, 0, 1, 1)))
    assert decide([scratch], REASONS)[2] == "surface scratch: 3.2 mm2, allowed at most 1"
    for low, high, text in ((2.0, None, "at least 2"), (1.0, 1.0, "1"), (-0.5, 0.5, "-0.5 to 0.5")):
        said = decide([Finding("outline", "hole-3", 0.9, low, high, "mm")], REASONS)[2]
        assert said == f"outline hole-3: 0.9 mm, allowed {text}"


def test_a_part_that_is_not_there_fails_and_is_not_checked() -> None:
    def never(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        raise AssertionError("a part that was not found cannot be checked")

    (seen,) = judge([frame(1, 20)], recipe(("surface", never), locator=Locator()), lambda: 0)
    assert (seen.decision, seen.reason, seen.pose) == (Decision.FAIL, 100, None)
    assert seen.findings == (Finding("locate", "part", 0.0, 0.5, None, "ratio"),)


@pytest.mark.parametrize(("x_px", "share"), [(200.0, 1.0), (90.0, 0.75), (-500.0, 0.0)])
def test_a_part_that_leaves_the_picture_is_not_judged_good_by_its_border(x_px: float, share: float) -> None:
    corners = np.array([[-40.0, -30.0], [40.0, -30.0], [40.0, 30.0], [-30.0, 20.0]])
    outer = Contour("outer", "outer", "0", corners, True, -0.1, 0.1)
    part = Template("plate", "d", 1.0, (-50.0, 40.0), (outer,), np.full((80, 100), -5.0, np.float32), np.ones((80, 100), np.uint8))
    pose = Pose(x_px, 100.0, 0.0, 2.4, 1.0, 0.0)
    locator = SimpleNamespace(find=lambda image, max_parts, shown: (Located(pose),))
    image = np.full((200, 400), 100, np.uint8)
    of = Recipe("d", {"c": Plan("c", part, locator, None, (("surface", brightness),), True)}, (), REASONS)
    (seen,) = judge([Frame(Stamp("c", 1, 0, None, image.shape), image)], of, lambda: 0)
    assert seen.findings[1] == Finding("locate", "in_view", share, 1.0, None, "ratio")
    assert (seen.decision, seen.reason) == ((Decision.PASS, 0) if share == 1.0 else (Decision.FAIL, 100))


def test_trouble_of_one_frame_is_its_own() -> None:
    def touchy(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        if any(view.image[0, 0] == 77 for view in views):
            raise RuntimeError("poison")
        return brightness(views)

    frames = [frame(1), frame(2, 77), frame(3, 200), frame(4, complete=False), frame(5, 0), frame(6)]
    assert run(frames, recipe(("surface", touchy), locator=Locator(), least=0.1)) == [
        (Decision.PASS, 0),
        (Decision.UNJUDGED, Reason.INFER_ERROR),
        (Decision.FAIL, 102),
        (Decision.UNJUDGED, Reason.FRAME_INCOMPLETE),
        (Decision.UNJUDGED, Reason.INFER_ERROR),
        (Decision.PASS, 0),
    ]


def test_a_check_that_answers_too_little_is_wrong_not_silent() -> None:
    def short(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        return brightness(views)[:-1]

    assert run([frame(1), frame(2)], recipe(("surface", short))) == [(Decision.UNJUDGED, Reason.INFER_ERROR)] * 2


def test_nothing_said_is_undecided() -> None:
    def silent(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        return [() for _ in views]

    assert run([frame(1)], recipe(("surface", silent), locator=Locator(), least=0.1)) == [(Decision.UNJUDGED, Reason.OUT_OF_DISTRIBUTION)]


def test_a_check_that_says_nothing_of_a_part_leaves_it_undecided_whatever_the_others_say() -> None:
    def blind(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        return [() if view.image[0, 0] == 77 else found for view, found in zip(views, brightness(views), strict=True)]

    of = recipe(("surface", brightness), ("outline", blind))
    assert run([frame(1), frame(2, 77)], of) == [(Decision.PASS, 0), (Decision.UNJUDGED, Reason.OUT_OF_DISTRIBUTION)]


@given(st.lists(st.integers(1, 255), min_size=1, max_size=8))
def test_a_batch_is_judged_as_each_frame_alone(levels: list[int]) -> None:
    of = recipe(("surface", brightness), locator=Locator(), least=0.3)
    frames = [frame(n, level) for n, level in enumerate(levels)]
    assert run(frames, of) == [run([each], of)[0] for each in frames]


def test_a_check_that_took_too_long_is_not_asked_again() -> None:
    asked = []

    def slow(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        asked.append(len(views))
        raise TimeoutError("the network was ended")

    inspections = judge([frame(1), frame(2)], recipe(("surface", slow)), lambda: 0)
    assert [inspection.reason for inspection in inspections] == [Reason.INFER_TIMEOUT] * 2
    assert asked == [2]
