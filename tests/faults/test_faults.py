"""Faults in lines of real processes: a few, once each, in the ordinary tests; all of them, as often as the table says, in the slow ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.__main__ import run
from tests.faults.kinds import failpoints
from tests.faults.proxy import messages
from tests.faults.table import FAULTS, Fault

RUNS = int(os.environ.get("INSPECTOR_FAULT_RUNS", "0"))


def _broken(fault: Fault, folder: Path, runs: int) -> None:
    outcome = run(fault, folder, runs)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert not outcome.broke, outcome.broke
    assert outcome.runs == runs


@pytest.mark.real
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.quick], ids=lambda fault: fault.code)
def test_once(fault: Fault, tmp_path: Path) -> None:
    _broken(fault, tmp_path / fault.code, 1)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code)
def test_many_times(fault: Fault, tmp_path: Path) -> None:
    _broken(fault, tmp_path / fault.code, RUNS or fault.runs)


def test_there_are_many_points_to_fail_at() -> None:
    names = failpoints.names()
    assert len(set(names)) == len(names) >= 40


def test_messages_of_a_stream_are_found_at_their_borders() -> None:
    command, short, long = b"\x04\x02ab", b"\x01\x01x\x00\x02yz", b"\x02" + (300).to_bytes(8, "big") + bytes(300)
    assert messages(command + short + long + b"\x00\x09rest") == [short, long]
