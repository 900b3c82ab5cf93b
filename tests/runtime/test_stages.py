"""Capture and inspect, interleaved by hand: whatever happens to a picture, its part is known first and judged once."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.interfaces import EndOfPictures
from inspector.records import (
    Bytes1D,
    Check,
    Decision,
    DeviceError,
    Evidence,
    Finding,
    Inspection,
    Plan,
    Pose,
    Reason,
    Recipe,
    Stamp,
    View,
)
from inspector.runtime.changeover_board import Board
from inspector.runtime.link import LARGEST_MESSAGE_BYTES, Dropped, Judged, Lost, Seen, ToGate, decode, encode
from inspector.runtime.ring import Ring
from inspector.runtime.stages import Capturing, Inspecting, body_of, capture, inspect

SHAPE = (8, 8)


class Script:
    """A camera that shows what the test says: an exposure number, (number, complete), an error, or nothing."""

    max_bytes = 64

    def __init__(self, steps: Sequence[Any]) -> None:
        self.steps = list(steps)

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        if not self.steps:
            raise EndOfPictures
        step = self.steps.pop(0)
        if step is None:
            return None
        if isinstance(step, Exception):
            raise step
        seq, complete = step if isinstance(step, tuple) else (step, True)
        into[:64] = 100 + seq % 50
        return Stamp("c", seq, seq * 1_000, seq * 10, SHAPE, complete, None)

    def close(self) -> None:
        pass


class Gate:
    """What was told, in order; says False as often as `deaf` says."""

    def __init__(self, deaf: Sequence[bool] = ()) -> None:
        self.heard: list[ToGate] = []
        self.deaf = list(deaf)

    def tell(self, *messages: ToGate) -> bool:
        if self.deaf and self.deaf.pop(0):
            return False
        self.heard += messages
        return True

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]


def mean_is_low(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
    return [(Finding("mean", "picture", float(view.image.mean()), 0.0, 200.0, "grey"),) for view in views]


def recipe_of(check: Check = mean_is_low) -> Recipe:
    return Recipe("digest", {"c": Plan("c", None, None, None, (("mean", check),), False)}, (), ("locate", "mean"))


def line(
    steps: Sequence[Any], gate: Gate, slots: int = 4, when_full: Any = "drop_oldest", check: Check = mean_is_low
) -> tuple[Capturing, Inspecting]:
    ticks = iter(range(1, 1_000_000))
    bell = threading.Condition()
    ring = Ring(slots, 64, when_full, bell)
    clock = lambda: next(ticks) * 1_000  # noqa: E731
    return Capturing("c", Script(steps), ring, gate.tell, clock), Inspecting(
        Board(recipe_of(check)), {"c": ring}, bell, gate.tell, None, clock, clock, 4
    )


def run_all(capturing: Capturing, inspecting: Inspecting) -> None:
    try:
        while True:
            capture(capturing, 0.0)
    except EndOfPictures:
        while inspect(inspecting, 0.0):
            pass


def test_a_jump_makes_a_part_for_each_missing_exposure_before_the_one_that_shows_it() -> None:
    gate = Gate()
    run_all(*line([1, 2, 5], gate))
    names = [(type(m).__name__, m.seq) for m in gate.heard if isinstance(m, (Seen, Lost))]
    assert names == [("Seen", 1), ("Seen", 2), ("Lost", 3), ("Lost", 4), ("Seen", 5)]
    assert gate.of(Lost)[0] == Lost("c", 3, 5_000, 50)


def test_a_repeated_exposure_is_ignored() -> None:
    gate = Gate()
    capturing, inspecting = line([1, 1, 2, 1], gate)
    run_all(capturing, inspecting)
    assert [m.seq for m in gate.of(Seen)] == [1, 2]
    assert [m.seq for m in gate.of(Judged)] == [1, 2]
    assert capturing.counts["repeated"] == 2


@pytest.mark.parametrize(("batch", "slots", "took_ms"), [(1, 16, 60), (4, 16, 60), (4, 16, 20), (4, 6, 200)])
def test_in_an_overload_the_surplus_gives_way_and_what_is_judged_is_in_time(batch: int, slots: int, took_ms: int) -> None:
    """A fifth more than can be judged; once a process is stopped for 3 s, and is not believed to be so slow."""
    to_judge_ms, now_ms, stopped, gate = 500, [0], [False], Gate()
    late: list[int] = []

    def clock() -> int:
        return now_ms[0] * 1_000_000

    def slow(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        now_ms[0] += took_ms * len(views)
        if now_ms[0] > 30_000 and not stopped[0]:
            stopped[0] = True
            now_ms[0] += 3_000
        return mean_is_low(views)

    def tell(*messages: ToGate) -> bool:
        late.extend(m.seq for m in messages if isinstance(m, Judged) and now_ms[0] - arrived_ms(m.seq) > to_judge_ms)
        return gate.tell(*messages)

    def arrived_ms(seq: int) -> int:
        return seq * took_ms * 10 // 12

    bell = threading.Condition()
    ring = Ring(slots, 64, "drop_oldest", bell)
    inspecting = Inspecting(Board(recipe_of(slow)), {"c": ring}, bell, tell, None, clock, clock, batch, to_judge_ns=to_judge_ms * 1_000_000)
    seq, in_ring = 0, 0
    while now_ms[0] < 60_000:
        while arrived_ms(seq + 1) <= now_ms[0]:
            seq += 1
            into = ring.slot(0.0)
            assert into is not None
            into[:] = seq % 200
            in_ring += ring.commit(Stamp("c", seq, arrived_ms(seq) * 1_000_000, None, (8, 8)), clock()) is not None
        if not inspect(inspecting, 0.0):
            now_ms[0] += 1
    judged = [m.seq for m in gate.of(Judged)]
    gave_way = [m.seq for m in gate.of(Dropped)]
    assert len(judged) > 0.95 * (60_000 - 3_000) / took_ms, "nothing is judged in vain, and nobody is idle"
    assert len(late) <= batch, "those that were judged when the process was stopped"
    assert sorted(judged + gave_way) == sorted({*judged, *gave_way})
    assert inspecting.gave_way["c"] == len(gave_way)
    assert len(judged) + len(gave_way) + in_ring + ring.counts().ready == seq


def test_the_first_picture_which_is_cold_makes_none_behind_it_give_way() -> None:
    now_ms, gate, bell = [0], Gate(), threading.Condition()

    def cold(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        now_ms[0] += 300 if now_ms[0] < 300 else 5
        return mean_is_low(views)

    def clock() -> int:
        return now_ms[0] * 1_000_000

    ring = Ring(8, 64, "drop_oldest", bell)
    inspecting = Inspecting(Board(recipe_of(cold)), {"c": ring}, bell, gate.tell, None, clock, clock, 1, to_judge_ns=500_000_000)
    for seq in (1, 2, 3):
        into = ring.slot(0.0)
        assert into is not None
        into[:] = 100 + seq
        ring.commit(Stamp("c", seq, 0, None, (8, 8)), 0)
    while inspect(inspecting, 0.0):
        pass
    assert [m.seq for m in gate.of(Judged)] == [1, 2, 3]
    assert not gate.of(Dropped)


def test_an_incomplete_picture_is_a_part_that_was_not_inspected() -> None:
    gate = Gate()
    run_all(*line([1, (2, False), 3], gate))
    assert [m.complete for m in gate.of(Seen)] == [True, False, True]
    assert [(m.decision, m.reason) for m in gate.of(Judged)] == [("pass", 0), ("unjudged", Reason.FRAME_INCOMPLETE), ("pass", 0)]


def test_overflow_is_told_with_its_reason() -> None:
    gate = Gate()
    run_all(*line(range(1, 9), gate, slots=3))
    assert [m.seq for m in gate.of(Dropped)] == [1, 2, 3, 4, 5, 6]
    assert {m.reason for m in gate.of(Dropped)} == {Reason.QUEUE_OVERFLOW}
    assert [m.seq for m in gate.of(Judged)] == [7, 8]


def test_what_could_not_be_told_shows_as_a_gap() -> None:
    gate = Gate([False, True, False])
    capturing, inspecting = line([1, 2, 3], gate)
    run_all(capturing, inspecting)
    assert [(type(m).__name__, m.seq) for m in gate.heard if isinstance(m, (Seen, Lost))] == [("Seen", 1), ("Lost", 2), ("Seen", 3)]
    assert [m.seq for m in gate.of(Judged)] == [1, 3]
    assert capturing.counts["untold"] == 1


def test_a_camera_built_anew_goes_on_counting_and_its_first_pictures_do_not_count() -> None:
    gate = Gate()
    capturing, inspecting = line([7, DeviceError("gone")], gate)
    capture(capturing, 0.0)
    with pytest.raises(DeviceError):
        capture(capturing, 0.0)
    capturing.renew(Script([1, 2, 3, 4, 6]), capturing.ring)
    for _ in range(5):
        capture(capturing, 0.0)
        inspect(inspecting, 0.0)
    assert [(type(m).__name__, m.seq) for m in gate.heard if isinstance(m, (Seen, Lost))] == [
        *[("Seen", seq) for seq in (7, 8, 9, 10, 11)],
        ("Lost", 12),
        ("Seen", 13),
    ]
    assert [m.complete for m in gate.of(Seen)] == [True, False, False, False, True, True]


def test_a_jump_too_far_to_be_loss_is_a_trouble_of_the_camera() -> None:
    capturing, _ = line([1, 5000], Gate())
    capture(capturing, 0.0)
    with pytest.raises(DeviceError, match="jumped from 1 to 5000"):
        capture(capturing, 0.0)


def test_the_same_picture_again_and_again_is_a_camera_that_no_longer_sees() -> None:
    gate = Gate()
    run_all(*line([50, 100, 150, 200, 250, 251], gate, slots=8))  # the script paints 50, 100, … alike
    assert [m.reason for m in gate.of(Judged)] == [0, *[Reason.IMAGE_QUALITY] * 4, 0]


def test_a_check_that_dies_gives_its_slot_back_and_a_verdict() -> None:
    def dies(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        raise MemoryError

    gate = Gate()
    capturing, inspecting = line([1, 2], gate, check=dies)
    run_all(capturing, inspecting)
    assert [m.reason for m in gate.of(Judged)] == [Reason.INFER_ERROR] * 2
    assert inspecting.rings["c"].counts().lent == 0


def test_numbers_of_numpy_are_numbers() -> None:
    def measures(views: Sequence[View]) -> Sequence[tuple[Finding, ...]]:
        return [(Finding("mean", "picture", np.float32(view.image.mean()), np.float64(0), np.int64(120), "grey"),) for view in views]  # type: ignore[arg-type]

    gate = Gate()
    run_all(*line([1, 30], gate, check=measures))
    assert [(m.decision, m.reason) for m in gate.of(Judged)] == [("pass", 0), ("fail", 101)]
    assert [json.loads(m.body)["findings"][0]["ok"] for m in gate.of(Judged)] == [True, False]


GOOD = Finding("mean", "picture", 100.0, 0.0, 200.0, "grey")
NONSENSE: list[tuple[str, Any]] = [
    ("value", "bright"), ("value", None), ("value", 1j), ("low", "dark"), ("feature", object()), ("at_mm", ("here", 1.0))
]  # fmt: skip


@pytest.mark.parametrize(
    "nonsense",
    [
        7,
        None,
        (None,),
        *[(Finding(**{**GOOD._asdict(), key: value}),) for key, value in NONSENSE],
    ],
)
def test_a_check_that_says_nonsense_of_a_picture_costs_that_part_alone(nonsense: Any) -> None:
    gate = Gate()
    run_all(*line([1, 2, 3], gate, check=lambda views: [nonsense if view.frame.stamp.seq == 2 else (GOOD,) for view in views]))
    assert [(m.decision, m.reason) for m in gate.of(Judged)] == [("pass", 0), ("unjudged", Reason.INFER_ERROR), ("pass", 0)]
    assert json.loads(gate.of(Judged)[1].body)["image_ref"] is None


@given(
    st.lists(st.one_of(st.none(), st.integers(1, 3), st.just("error")), max_size=40),
    st.lists(st.booleans(), max_size=30),
    st.lists(st.integers(0, 2), min_size=1, max_size=10),
    st.sampled_from(["drop_oldest", "drop_newest", "wait"]),
    st.integers(2, 4),
)
def test_every_exposure_is_told_once_and_has_at_most_one_end(
    jumps: list[int | str | None], deaf: list[bool], pattern: list[int], when_full: str, slots: int
) -> None:
    seq, steps = 0, []
    for jump in jumps:
        seq += jump if isinstance(jump, int) else 0
        steps.append(DeviceError("lost") if jump == "error" else seq if jump else None)
    gate = Gate(deaf)
    capturing, inspecting = line(steps, gate, slots, when_full)
    script = capturing.source
    try:
        for turn in range(500):
            try:
                capture(capturing, 0.0)
            except DeviceError:
                capturing.renew(script, capturing.ring)
            for _ in range(pattern[turn % len(pattern)]):
                inspect(inspecting, 0.0)
    except EndOfPictures:
        while inspect(inspecting, 0.0):
            pass
    known = [m.seq for m in gate.heard if isinstance(m, (Seen, Lost))]
    assert known == list(range(known[0], known[0] + len(known))) if known else True
    ends = [m.seq for m in gate.heard if isinstance(m, (Judged, Dropped))]
    seen = [m.seq for m in gate.of(Seen)]
    assert len(ends) == len(set(ends))
    assert set(ends) <= set(seen)
    counts = inspecting.rings["c"].counts()
    assert counts.written == capturing.counts["seen"] == counts.dropped + counts.done + counts.ready + counts.lent
    if not deaf:
        assert set(ends) == set(seen) or counts.ready


def test_the_body_is_strict_json_within_one_message_whatever_the_findings() -> None:
    stamp = Stamp("c", 3, 0, None, SHAPE, uid="u")
    evidence = Evidence("scratch", 1.7, 0.5, (1, 2, 3, 4), float("nan"))
    findings = tuple(
        Finding("surface", f"feature-{n}", float("inf") if n % 2 else 1.0, None, 2.0, "mm", (float("nan"), 1.0), evidence)
        for n in range(500)
    )
    inspection = Inspection(stamp, Decision.FAIL, 101, "x", findings, Pose(1, 2, 0.1, 10, 0.9, 0.01), "r", {"locate": 1000})
    body = body_of(inspection, quality=0.5, utc_ns=5, timing_ms={"total": 1.23456, "stages": {"locate": 0.001}}, image_ref=None)
    content = json.loads(body, parse_constant=pytest.fail)
    assert len(content["findings"]) == 64
    assert not any(finding["ok"] for finding in content["findings"])
    assert len(content["defects"]) == 32
    assert content["recipe"] == "r"
    assert content["findings"][0]["value"] is None
    assert content["findings"][0]["at_mm"] == [None, 1.0]
    assert content["defects"][0]["score"] == 1.0
    assert content["defects"][0]["area_mm2"] is None
    assert {"cam_id" in each for each in (*content["findings"], *content["defects"])} == {False}
    shared = json.loads(body_of(inspection, quality=0.5, utc_ns=5, timing_ms={}, image_ref=None, shared=True))
    assert {each.pop("cam_id") for each in (*shared["findings"], *shared["defects"])} == {"c"}
    assert (shared["findings"], shared["defects"]) == (content["findings"], content["defects"])
    message = encode(Judged("c", 3, "fail", 101, "x", body))
    assert len(message) < LARGEST_MESSAGE_BYTES / 2
    assert decode(message) == Judged("c", 3, "fail", 101, "x", body)
