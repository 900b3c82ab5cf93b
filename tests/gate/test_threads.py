"""One step of a thread of the gate at a time, without the thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import zmq

from inspector.gate import arbiter as core
from inspector.gate import protocol
from inspector.gate.journal import Item, Journal, JournalError
from inspector.runtime import link
from inspector.runtime.gate import GateProcess
from tests.gate import script
from tests.gate.line import running, settings, until


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[GateProcess]:
    made = GateProcess(settings(tmp_path), tmp_path, clock=time.monotonic_ns, utc_clock=time.time_ns)
    made._journal = Journal.open(tmp_path, utc_clock=time.time_ns)
    made._journal.begin(made._epoch)
    made._retained_ns = 0
    yield made
    made._journal.close(clean=True)
    os.close(made._bell)


def test_a_busy_line_lets_old_events_go_too(gate: GateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    monkeypatch.setattr(Journal, "retain", lambda *_, **__: times.append(1))
    for seq in range(5):
        gate._to_journal.put(core.Acked("plc", seq))
        gate._journal_step()
    assert len(times) == 1


def _record() -> core.Record:
    return next(o for o in script.running().step(script.MS, core.Report("X", "info", "x")) if isinstance(o, core.Record))


def test_what_could_not_be_kept_at_the_end_is_not_said_to_be(gate: GateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise JournalError("disk full", full=True)

    monkeypatch.setattr(Journal, "commit", full)
    gate._ending.set()
    record = _record()
    gate._commit([record])
    assert gate._to_events.get_nowait() == ([record], False)
    told = []
    while not gate._inbox.empty():
        told.append(gate._inbox.get_nowait())
    assert [item.healthy for item in told if isinstance(item, core.JournalState)] == [False]


def test_a_disk_that_stays_full_is_no_frozen_thread_and_one_try_that_hangs_is(gate: GateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns, ages = [10**9], []
    gate._clock = lambda: now_ns[0]

    def full(*_: object) -> None:
        ages.append(gate.ages_ms()["journal"])
        now_ns[0] += 20 * 10**9 if len(ages) < 5 else 40 * 10**9
        ages.append(gate.ages_ms()["journal"])
        if len(ages) == 6:
            gate._ending.set()
        raise JournalError("disk full", full=True)

    monkeypatch.setattr(Journal, "commit", full)
    monkeypatch.setattr("inspector.runtime.gate.RETRY_S", 0.0)
    gate._commit([_record()])
    assert ages == [0.0, 0.0, 0.0, 0.0, 0.0, 40_000.0]


class _Pub:
    """Where events are published, in a test: (topic's stream, seq, whether it is said to be durable)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, bool]] = []

    def send_multipart(self, frames: protocol.Frames) -> None:
        header = protocol.parse(frames[1], frames[2])
        if header.stream_id != protocol.STREAM_IDS["hb"]:
            self.told.append((protocol.STREAMS[header.stream_id], header.seq, bool(header.flags & protocol.Flag.DURABLE)))


@pytest.fixture
def told(gate: GateProcess) -> list[tuple[str, int, bool]]:
    gate._arbiter = core.Arbiter(gate._settings, epoch=gate._epoch, now_ns=0, chain={})
    gate._status, gate._hb_ns = gate._arbiter.status(), time.monotonic_ns()
    pub = _Pub()
    gate._pub = cast("zmq.Socket[bytes]", pub)
    return pub.told


def _publish(gate: GateProcess) -> None:
    while True:
        waits = not gate._to_events.empty()
        gate._events_step()
        if not waits:
            return


def test_an_alarm_that_cannot_be_kept_is_told_all_the_same_and_once(
    gate: GateProcess, told: list[tuple[str, int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    gate._say = said.append
    commit, full = Journal.commit, threading.Event()

    def sometimes(journal: Journal, items: list[Item]) -> None:
        if full.is_set():
            raise JournalError("disk full", full=True)
        commit(journal, items)

    monkeypatch.setattr(Journal, "commit", sometimes)
    gate._feed(core.Report("KEPT", "info", "x"))
    gate._journal_step()
    _publish(gate)
    kept = len(told)
    assert told == [("a", seq, True) for seq in range(1, kept + 1)]
    full.set()
    gate._feed(core.Report("NOT_KEPT", "info", "x"))
    committing = threading.Thread(target=gate._journal_step)
    committing.start()
    until(lambda: gate.not_durable() == "disk full")
    assert said == ["journal: disk full"]
    gate._feed(gate._inbox.get_nowait())  # type: ignore[arg-type]  # the alarm of the journal itself, behind the one that is tried
    _publish(gate)
    assert told[kept:] == [("a", kept + 1, False), ("a", kept + 2, False)]
    assert [family.samples[0][1] for family in gate.metrics() if family.name == "journal_healthy"] == [0.0]
    assert gate.backlog()
    full.clear()
    committing.join(5.0)
    gate._feed(gate._inbox.get_nowait())  # type: ignore[arg-type]
    gate._journal_step()
    _publish(gate)
    assert told[kept + 2 :] == [("a", kept + 3, True)]
    assert said == ["journal: disk full", "journal: durable again"]
    assert gate.not_durable() == ""
    assert not gate.backlog()


def test_alarms_stay_in_order_where_one_is_never_kept(gate: GateProcess, told: list[tuple[str, int, bool]]) -> None:
    gate._feed(core.Report("A", "info", "x"))
    first = [gate._to_journal.get_nowait() for _ in range(gate._to_journal.qsize())]
    gate._feed(core.Report("B", "info", "x"))
    second = gate._to_journal.get_nowait()
    assert isinstance(second, core.Record)
    gate._to_events.put(([second], False))  # the backlog is full: it overtakes what waits for the disk
    gate._to_events.put(([item for item in first if isinstance(item, core.Record)], True))
    _publish(gate)
    assert [(stream, seq) for stream, seq, _ in told] == [("a", seq) for seq in range(1, second.header.seq + 1)]
    assert not gate._untold


@pytest.mark.real
def test_a_drain_waits_for_vision(tmp_path: Path) -> None:
    with running(tmp_path) as line:
        draining = threading.Thread(target=line.gate.drain, args=(20.0,))
        draining.start()
        until(lambda: line.gate.status().state == core.State.DRAINING.value)
        line.expose(1, "fail", 101)
        until(lambda: line.gate.counters()["triggers"] == 1)
        assert line.gate.status().state == core.State.DRAINING.value
        assert line.vision.send(link.Finished(True))
        draining.join(15.0)
        assert not draining.is_alive()
        assert line.gate.status().state == core.State.STOPPED.value


@pytest.mark.real
def test_a_drain_comes_back_although_the_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, moves = Journal.commit, threading.Event()

    def stuck(journal: Journal, items: list[Item]) -> None:
        moves.wait()
        commit(journal, items)

    with running(tmp_path) as line:
        monkeypatch.setattr(Journal, "commit", stuck)
        line.expose(1)
        until(lambda: line.gate.counters()["triggers"] == 1)
        draining = threading.Thread(target=line.gate.drain, args=(2.0,))
        draining.start()
        draining.join(20.0)
        assert not draining.is_alive()
        assert line.gate.status().state == core.State.STOPPED.value
        moves.set()
