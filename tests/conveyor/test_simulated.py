from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspector.conveyor.simulated import NS, Settings, Simulated, build
from inspector.records import Trigger


def started(**settings: object) -> Simulated:
    belt = build(Settings.model_validate(settings), "belt")
    belt.start(5 * NS)
    return belt


def test_nothing_passes_before_the_start() -> None:
    belt = build(Settings(), "belt")
    assert belt.triggers(0, 100 * NS) == ()
    assert belt.counts(100 * NS) == 0
    belt.start(5 * NS)
    assert belt.triggers(0, 5 * NS) == ()
    assert belt.counts(5 * NS) == 0


def test_lanes_take_turns_and_number_their_own_parts() -> None:
    belt = started(rate_parts_per_s=10.0, lanes=[0, 3], counts_per_s=1000.0)
    found = belt.triggers(5 * NS, 6 * NS)
    assert [(t.lane, t.part_seq) for t in found] == [(0, 1), (3, 1), (0, 2), (3, 2), (0, 3), (3, 3), (0, 4), (3, 4), (0, 5)]
    assert [t.at_ns for t in found] == [5 * NS + (2 + i) * NS // 10 for i in range(9)]
    assert [t.at_counts for t in found] == [200 + 100 * i for i in range(9)]


@given(
    st.integers(0, 1000),
    st.floats(1, 200),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 1.5]),
    st.lists(st.integers(0, 6 * NS), min_size=2, max_size=8),
)
def test_any_cutting_of_time_sees_the_same_edges(
    seed: int, rate: float, lanes: int, missed: float, double: float, stall: float, cuts: list[int]
) -> None:
    settings = {
        "rate_parts_per_s": rate,
        "lanes": list(range(lanes)),
        "seed": seed,
        "missed_ratio": missed,
        "double_ratio": double,
        "double_ms": 0.5,
        "jitter_ms": 1.0,
        "stall_after_s": stall,
        "stall_s": 0.7,
    }
    cuts = sorted(5 * NS + c for c in cuts)
    whole = list(started(**settings).triggers(cuts[0], cuts[-1]))
    other = started(**settings)
    pieces: list[Trigger] = [t for a, b in pairwise(cuts) for t in other.triggers(a, b)]
    assert pieces == whole
    again = started(**settings)  # somebody who looks back
    assert [t for a, b in reversed(list(pairwise(cuts))) for t in reversed(again.triggers(a, b))] == whole[::-1]
    for lane in range(lanes):
        numbers = [t.part_seq for t in whole if t.lane == lane]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    assert all(a.at_ns <= b.at_ns and a.at_counts <= b.at_counts for a, b in pairwise(whole))


def test_a_stall_stops_counts_and_parts() -> None:
    belt = started(rate_parts_per_s=10.0, counts_per_s=100.0, stall_after_s=1.0, stall_s=2.0)
    assert belt.counts(6 * NS) == 100
    assert belt.counts(8 * NS) == 100
    assert belt.counts(9 * NS) == 200
    assert belt.triggers(6 * NS, 8 * NS) == []
    assert len(belt.triggers(8 * NS, 9 * NS)) == 10


def test_faults_happen_about_as_often_as_told() -> None:
    edges = len(started(rate_parts_per_s=100.0, missed_ratio=0.1).triggers(0, 105 * NS))
    assert 8_800 < edges < 9_200
    edges = len(started(rate_parts_per_s=100.0, double_ratio=0.1, double_ms=1.0).triggers(0, 105 * NS))
    assert 10_800 < edges < 11_200


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_parts_per_s": 100.0, "jitter_ms": 5.0},
        {"lanes": [0, 0]},
        {"lanes": [256]},
        {"lanes": []},
        {"rate_parts_per_s": 0.0},
        {"speed": 1},
    ],
)
def test_impossible_belts_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)
