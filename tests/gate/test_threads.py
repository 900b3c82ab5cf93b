"""One step of a thread of the gate at a time, without the thread."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from inspector.gate import arbiter as core
from inspector.gate.journal import Journal
from inspector.runtime.gate import GateProcess
from tests.gate.line import settings


@pytest.fixture
def gate(tmp_path: Path) -> GateProcess:
    made = GateProcess(settings(tmp_path), tmp_path, clock=time.monotonic_ns, utc_clock=time.time_ns)
    made._journal = Journal.open(tmp_path, utc_clock=time.time_ns)
    made._journal.begin(made._epoch)
    made._retained_ns = 0
    return made


def test_a_busy_line_lets_old_events_go_too(gate: GateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    monkeypatch.setattr(Journal, "retain", lambda *_, **__: times.append(1))
    for seq in range(5):
        gate._to_journal.put(core.Acked("plc", seq))
        gate._journal_step()
    assert len(times) == 1
    gate._journal.close(clean=True)
