"""The encoder and what it can do: stop, run back, jump, wrap, fail (F20, F21)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.gate import arbiter as core
from inspector.gate.arbiter import Arbiter
from inspector.gate.ledger import Line
from inspector.records import DeviceError, Trigger
from inspector.runtime.belt import FIRST_WAIT_NS, LONGEST_WAIT_NS, Belt
from inspector.runtime.gate import settings as settings_of
from tests.gate import script
from tests.gate.line import body, running, settings, until
from tests.gate.script import MS
from tests.gate.test_arbiter import codes, permit, verdicts

TRAVEL_COUNTS = 600
BITS = 16


def line(wrap_counts: int | None = None) -> Arbiter:
    """An arbiter over a belt of one count a millisecond at its fastest, at position 0."""
    belt = Line({"top": 0}, "conveyor", 50, 600, 40, 10, travel_counts=TRAVEL_COUNTS, wrap_counts=wrap_counts)
    made = Arbiter(core.Settings("site", "line-1", "cell-1", belt, "permit", 300, 100, "0.1.0"), epoch=script.EPOCH, now_ns=0, chain={})
    made.step(0, core.Attached("ab" * 32, [], []))
    made.step(0, core.Begin())
    made.step(0, core.Position(0))
    return made


def part(made: Arbiter, at_ms: int, at_counts: int, *, shown_at: int | None = None, number: int = 1) -> list[core.Output]:
    """One part, triggered, seen and judged good."""
    out = made.step(at_ms * MS, core.Triggered(number, 0, at_ms * MS, at_counts))
    out += made.step(at_ms * MS, core.Seen("top", number, at_ms * MS, at_counts if shown_at is None else shown_at, True, None))
    return out + made.step((at_ms + 5) * MS, core.Judged("top", number, "pass", 0, "", body()))


def test_the_deadline_in_counts_holds_where_it_comes_first() -> None:
    made = line()
    act_counts = made.settings.line.act_counts
    assert act_counts == TRAVEL_COUNTS * 510 // 600
    made.step(MS, core.Triggered(1, 0, MS, 0))
    made.step(200 * MS, core.Position(act_counts // 2))
    assert not verdicts(made.step(400 * MS, core.Position(act_counts - 1)))
    out = made.step(410 * MS, core.Position(act_counts))
    out += made.step(410 * MS, core.Tick())
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 201)]


def test_the_deadline_in_time_holds_on_a_belt_that_stands() -> None:
    made = line()
    made.step(MS, core.Triggered(1, 0, MS, 0))
    made.step(MS, core.Seen("top", 1, MS, 0, True, None))
    out = [entry for at in range(20, 600, 20) for entry in made.step(at * MS, core.Position(0))]
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 208)]


@pytest.mark.parametrize(("to_counts", "code"), [(-100, "ENCODER_REVERSED"), (100_000, "ENCODER_JUMP")])
def test_a_belt_that_runs_back_or_jumps_takes_every_part_with_it(to_counts: int, code: str) -> None:
    made = line()
    assert verdicts(part(made, 1, 0)) == [("PASS", 0)]
    made.step(10 * MS, core.Triggered(2, 0, 10 * MS, 9))
    out = made.step(20 * MS, core.Position(to_counts))
    assert code in codes(out)
    assert "PURGE" in codes(out)
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]


def test_a_belt_of_twice_the_speed_has_no_permit_until_it_is_slow_again() -> None:
    made = line()
    at_counts = 0
    for at in range(20, 620, 20):
        at_counts += 20 if at < 300 else 40
        made.step(at * MS, core.Position(at_counts))
    assert "speed" in made.holds
    for at in range(620, 1240, 20):
        at_counts += 18
        made.step(at * MS, core.Position(at_counts))
    assert not made.holds


@given(
    turns=st.integers(0, 1000), of_vision=st.integers(-1000, 1000), at=st.integers(0, (1 << BITS) - 1), off=st.integers(-50, 50),
    seed=st.booleans(),
)  # fmt: skip
def test_a_count_of_another_process_is_the_same_but_for_whole_wraps(turns: int, of_vision: int, at: int, off: int, seed: bool) -> None:
    """A 16-bit counter, of which this gate has seen `turns` wraps, and vision or the PLC others since it was started again."""
    wrap = 1 << BITS
    made = line(wrap)
    made._position = turns * wrap + at  # what so many readings would have come to
    made._belt = None
    out = part(made, 1, turns * wrap + at, shown_at=of_vision * wrap + at + off)
    assert verdicts(out) == [("PASS", 0)]
    assert not codes(out)
    if seed:  # and one of the other half of the belt is no neighbour
        out = made.step(20 * MS, core.Triggered(2, 0, 20 * MS, at + wrap // 2))
        out += made.step(20 * MS, core.Seen("top", 2, 20 * MS, at, True, None))
        assert "TRIGGER_MISMATCH" in codes(out)


def test_an_encoder_that_fails_withholds_the_permit_and_every_part_until_it_is_back() -> None:
    made = script.running(count="plc")
    assert permit(made)
    out = made.step(10 * MS, core.EncoderState("encoder: gone"))
    assert "ENCODER_DOWN" in codes(out)
    assert not permit(made)
    out = made.step(20 * MS, core.Triggered(1, 0, 20 * MS, 5))
    assert verdicts(out) == [("REJECT_NOT_INSPECTED", 210)]
    made.step(30 * MS, core.EncoderState(""))
    assert permit(made)


class Flaky:
    """A conveyor whose device comes and goes; `broken` says when."""

    def __init__(self) -> None:
        self.broken, self.started, self.calls = False, 0, 0

    def start(self, at_ns: int) -> None:
        self.counts(at_ns)
        self.started += 1

    def counts(self, at_ns: int) -> int:
        self.calls += 1
        if self.broken:
            raise DeviceError("encoder: no such device")
        return at_ns // MS

    def triggers(self, after_ns: int, until_ns: int) -> Sequence[Trigger]:
        return ()


def test_a_device_that_fails_is_tried_again_later_each_time() -> None:
    device = Flaky()
    belt = Belt(device)
    assert belt.look(0, sensor=True, position=True) == ((), None, "")
    device.broken = True
    belt.begin(0)
    now_ns = 0
    for calls, wait_ns in enumerate((FIRST_WAIT_NS, 2 * FIRST_WAIT_NS, 4 * FIRST_WAIT_NS), 1):
        assert belt.look(now_ns, sensor=True, position=True).trouble == "encoder: no such device"
        assert belt.look(now_ns + wait_ns - 1, sensor=True, position=True).trouble
        assert device.calls == calls
        now_ns += wait_ns
    device.broken = False
    assert belt.look(now_ns, sensor=True, position=False) == ((), now_ns // MS, "")
    assert device.started == 1
    device.broken = True
    for _ in range(20):
        now_ns += LONGEST_WAIT_NS
        assert belt.look(now_ns, sensor=True, position=True).trouble


@pytest.mark.real
def test_the_gate_outlives_its_encoder(tmp_path: Path) -> None:
    device = Flaky()
    with running(tmp_path, conveyor=device, count="plc") as made:
        until(lambda: device.started == 1)
        device.broken = True
        until(lambda: "encoder" in made.gate.status().holds)
        device.broken = False
        until(lambda: "encoder" not in made.gate.status().holds)


def test_the_way_to_the_ejector_is_given_in_counts_or_in_mm(tmp_path: Path) -> None:
    assert settings_of(settings(tmp_path)).line.travel_counts is None
    assert settings_of(settings(tmp_path, travel_counts=300)).line.travel_counts == 300
    found = settings_of(settings(tmp_path, travel_mm=120.5, counts_per_mm=10.0), wrap_counts=65_536).line
    assert (found.travel_counts, found.wrap_counts) == (1205, 65_536)
