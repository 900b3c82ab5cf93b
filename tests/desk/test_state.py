from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.desk import charts, minutes, state
from tests.desk.events import EPOCH, board, finding, heartbeat, verdict

S = 1_000_000_000


def test_without_a_heartbeat_everything_is_stale() -> None:
    page = board()
    assert page.glance(0).stale
    page.beat(heartbeat(), 10 * S)
    assert not page.glance(10 * S + 1_500_000_000).stale
    assert page.glance(10 * S + 1_500_000_001).stale
    assert not page.glance(10 * S + 1_500_000_001).running


@pytest.mark.parametrize(
    ("said", "running"),
    [
        ({}, True),
        ({"permit": True}, True),
        ({"permit": 0}, False),
        ({"permit": None}, False),
        ({"state": "DRAINING"}, False),
        ({"permit": "1"}, False),
    ],
)
def test_runs_only_with_permit_and_in_state_run(said: dict[str, Any], running: bool) -> None:
    page = board()
    page.beat(heartbeat(**said), S)
    assert page.glance(S).running is running


def test_an_error_names_the_stage_that_died() -> None:
    page = board()
    page.alarm({"code": "STAGE_DEAD", "severity": "critical", "text": "vision hung"})
    page.beat(heartbeat(state="ERROR", permit=0, holds=["state"]), S)
    assert page.glance(S).why == ("no part is judged: vision hung",)
    page.beat(heartbeat(state="BOOT", permit=0, holds=["state"]), S)
    assert page.glance(S).why == ("no part is judged",)


def test_a_verdict_that_comes_twice_counts_once() -> None:
    page = board()
    page.verdict(verdict(1, "REJECT_DEFECT"), S)
    page.verdict(verdict(1, "REJECT_DEFECT"), S, historical=True)
    assert len(page.parts()) == 1
    ((_, minute),) = page.minutes(1)
    assert (minute.passed, minute.rejected) == (0, 1)


def test_history_does_not_turn_the_counters_back() -> None:
    page = board()
    page.verdict(verdict(9), S)
    page.verdict(verdict(3), S, historical=True)
    assert page.glance(S).counters.triggers == 9
    page.verdict(verdict(1, epoch="01935c1e-0000-7000-8000-000000000002"), S)
    assert page.glance(S).counters.triggers == 1


def test_unexplained_is_what_the_ledger_does_not_explain() -> None:
    page = board()
    page.verdict(verdict(1, counters={"triggers": "10", "pass": "4", "reject": "2", "not_inspected": 1, "pending": 1}), S)
    assert page.glance(S).counters.unexplained == 2


def test_reasons_and_features_are_counted_by_name() -> None:
    page = board()
    page.verdict(verdict(1, "REJECT_DEFECT", findings=[finding(0.2, ok=False), finding(0.3, ok=False), finding(0.0, feature="outer")]), S)
    page.verdict(verdict(2, "REJECT_NOT_INSPECTED", findings=[]), S)
    page.verdict(verdict(3, "SOMETHING_NEW", reason=999), S)
    ((_, minute),) = page.minutes(1)
    assert minute.reasons == {"outline": 1, "too late for the ejector": 1, "reason 999": 1}
    assert minute.features == {(0, "plate", "outline: hole-1"): 1}
    assert (minute.passed, minute.rejected, minute.not_inspected) == (0, 2, 1)


def test_the_second_scratch_is_a_scratch_and_the_second_hole_is_itself() -> None:
    page = board()
    found = [finding(2.0, ok=False, feature=name, check="surface") for name in ("scratch", "scratch-2", "hole-2")]
    page.verdict(verdict(1, "REJECT_DEFECT", findings=found, defects=[{"class": "scratch"}]), S)
    ((_, minute),) = page.minutes(1)
    assert minute.features == {(0, "plate", "surface: scratch"): 1, (0, "plate", "surface: hole-2"): 1}


def test_labels_of_one_minute_are_bounded() -> None:
    page = board()
    for i in range(1, 200):
        page.verdict(verdict(i, "REJECT_DEFECT", findings=[finding(0.2, ok=False, feature=f"hole-{i}")]), S)
    ((_, minute),) = page.minutes(1)
    assert len(minute.features) == minutes.MOST_LABELS_PER_MINUTE + 1
    assert sum(minute.features.values()) == 199


def test_everything_is_bounded() -> None:
    page = board()
    for i in range(1, state.KEPT_PARTS + 500):
        page.verdict(verdict(i, "REJECT_DEFECT", findings=[finding(0.2, ok=False, feature=f"hole-{i}")]), S)
    assert len(page.parts(most=10_000)) == state.KEPT_PARTS
    assert len(page.parts(most=10_000, rejects_only=True)) == state.KEPT_REJECTS
    assert page.parts()[0].seq == state.KEPT_PARTS + 499
    assert page.part(EPOCH, 1) is None


def test_a_reject_outlives_the_passes_after_it() -> None:
    page = board()
    page.verdict(verdict(1, "REJECT_DEFECT"), S)
    for i in range(2, state.KEPT_PARTS + 10):
        page.verdict(verdict(i), S)
    found = page.part(EPOCH, 1)
    assert found is not None
    assert not found.passed


def test_camera_health_follows_holds_and_parts() -> None:
    page = board(("cam0", 0), ("cam1", 1))
    page.verdict(
        verdict(1, "REJECT_NOT_INSPECTED", reason=202, cameras=[{"cam_id": "cam0", "frame_id": 7, "complete": False, "quality": 0.4}]), S
    )
    page.state({"state": "RUN", "holds": {"camera:cam1": "no answer"}})
    page.beat(heartbeat(holds=["camera:cam1"], permit=0), S)
    first, second = page.cameras(S)
    assert (first.seen, first.lost, first.quality_ratio, first.up) == (1, 1, 0.4, True)
    assert (second.seen, second.up, second.said) == (0, False, "camera cam1 is down: no answer")
    assert page.glance(S).why == ("camera cam1 is down: no answer",)
    assert [camera.up for camera in page.cameras(3 * S)] == [None, None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(verdict(1))), JSON))
def test_no_event_breaks_the_board(broken: dict[str, Any]) -> None:
    page = board()
    page.verdict(verdict(1) | broken, S)
    page.beat(broken, S)
    page.alarm(broken)
    page.state(broken)
    glance = page.glance(S)
    assert len(page.parts()) + glance.misread == 1


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=300))
def test_spread_is_of_the_values(values: list[float]) -> None:
    found = state.spread(values)
    assert found is not None
    assert found.least == min(values)
    assert found.greatest == max(values)
    assert found.least <= found.median <= found.p99 <= found.greatest
    assert sum(v <= found.p99 for v in values) >= 0.99 * len(values)


def test_many_threads_feed_and_ask() -> None:
    page = board()

    def feed(start: int) -> None:
        for i in range(start, start + 300):
            page.verdict(verdict(i, "REJECT_DEFECT" if i % 3 == 0 else "PASS"), i)

    feeders = [threading.Thread(target=feed, args=(1 + 300 * k,)) for k in range(4)]
    for thread in feeders:
        thread.start()
    while any(thread.is_alive() for thread in feeders):
        page.glance(S)
        page.cameras(S)
        page.minutes(60)
    for thread in feeders:
        thread.join()
    ((_, minute),) = page.minutes(1)
    assert minute.passed + minute.rejected == 1200


def test_each_recipe_and_an_edit_of_its_limits_has_a_series_of_its_own() -> None:
    page, seq = board(), 0
    for recipe, limit, count in (("plate", 0.15, 120), ("plate-tight", 0.001, 80), ("plate-tight", 0.002, 80)):
        for _ in range(count):
            seq += 1
            event = verdict(seq, findings=[finding(0.0005) | {"low": -limit, "high": limit}], recipe={"name": recipe, "number": None})
            event["trigger"]["t_trigger_utc_ns"] = str(seq * S)
            page.verdict(event, S)
    found = page.dimensions()
    assert [(s.recipe, s.high, len(page.series(s))) for s in found] == [
        ("plate-tight", 0.002, 80),
        ("plate-tight", 0.001, 80),
        ("plate", 0.15, 120),
    ]
    assert list(charts.titles(found).values()) == [
        "plate-tight · outline: hole-1 (−0.002 … 0.002)",
        "plate-tight · outline: hole-1 (−0.001 … 0.001)",
        "plate · outline: hole-1",
    ]
    assert {value.high for _, value in page.series(found[0])} == {0.002}
