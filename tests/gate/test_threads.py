"""One step of a thread of the gate at a time, without the thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inspector.gate import arbiter as core
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
