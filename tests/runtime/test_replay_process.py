"""The process that tells again what was missed: it may end, hang or be asked nonsense, and the gate goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from inspector.client import Hole, Message, Subscriber
from inspector.gate import protocol
from inspector.gate.journal import Item, Journal, JournalError
from inspector.records import ConfigError
from inspector.runtime import replay
from inspector.runtime.replay import Teller
from tests.faults.rig import free_ports
from tests.gate.line import Running, running, until

pytestmark = pytest.mark.real


def _alarms(line: Running, code: str) -> int:
    return line.gate._arbiter.alarms.get(code, 0)


def _pid(line: Running) -> int:
    process = line.gate._teller._process
    return process.pid if process is not None else 0


def _parts(line: Running, first: int, last: int) -> None:
    for seq in range(first, last + 1):
        line.expose(seq)
        time.sleep(0.001)
    until(lambda: line.gate.counters()["triggers"] == last and line.gate.counters()["pending"] == 0)


def _told(line: Running, count: int, *, meanwhile: Callable[[int], None] = lambda seq: None) -> list[int]:
    """The numbers of the first `count` events of stream q, asked for after the fact."""
    ends, seqs = line.gate.endpoints(), list[int]()
    until(lambda: line.gate._published["q"] >= count)
    with Subscriber(ends["events"], replay=ends["replay"], since=(line.gate.epoch, 0)) as late:
        until_s = time.monotonic() + 30
        while len(seqs) < count and time.monotonic() < until_s:
            item = late.receive(0.2)
            assert not isinstance(item, Hole)
            if isinstance(item, Message):
                assert item.historical
                seqs.append(item.header.seq)
                meanwhile(item.header.seq)
    return seqs


def test_what_was_missed_is_told_again_by_a_process_that_gives_way(tmp_path: Path) -> None:
    with running(tmp_path) as line:
        _parts(line, 1, 20)
        assert _told(line, 20) == list(range(1, 21))
        assert os.getpriority(os.PRIO_PROCESS, _pid(line)) > os.getpriority(os.PRIO_PROCESS, 0)


def test_it_may_be_killed_in_the_middle_and_who_asked_gets_everything_once(tmp_path: Path) -> None:
    with running(tmp_path) as line:
        _parts(line, 1, 600)
        before, at = _pid(line), line.gate.endpoints()["replay"]

        def kill(seq: int) -> None:
            if seq == 100:
                os.kill(before, signal.SIGKILL)

        assert _told(line, 600, meanwhile=kill) == list(range(1, 601))
        assert _pid(line) not in (0, before)
        assert line.gate.endpoints()["replay"] == at
        until(lambda: _alarms(line, "REPLAY") >= 2)  # that it ended, and that it can be asked again
        assert line.gate._teller.restarts == 1


def test_one_that_hangs_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "SILENT_S", 1.5)
    with running(tmp_path) as line:
        before = _pid(line)
        os.kill(before, signal.SIGSTOP)
        until(lambda: _pid(line) not in (0, before), 15.0)
        _parts(line, 1, 3)
        assert _told(line, 3) == [1, 2, 3]


def test_it_reads_the_journal_that_took_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, failed = Journal.commit, iter([False, True])
    with running(tmp_path) as line:
        _parts(line, 1, 3)
        assert _told(line, 3) == [1, 2, 3]

        def broken_once(journal: Journal, items: list[Item]) -> None:
            if next(failed, False):
                raise JournalError("disk I/O error", dead=True)
            commit(journal, items)

        monkeypatch.setattr(Journal, "commit", broken_once)
        _parts(line, 4, 5)
        time.sleep(0.1)
        _parts(line, 6, 8)
        until(lambda: line.gate._published["q"] >= 8)
        ends = line.gate.endpoints()
        with Subscriber(ends["events"], replay=ends["replay"], since=(line.gate.epoch, 0)) as late:
            seqs = [item.header.seq for item in iter(lambda: late.receive(1.0), None) if isinstance(item, Message)]
        assert seqs[-3:] == [6, 7, 8]  # of the file that failed nothing is told again, and it is said that it is missing


def test_a_gate_that_is_silent_for_a_while_is_no_reason_to_end(tmp_path: Path) -> None:
    told: list[str] = []
    teller = Teller(tmp_path, "tcp://127.0.0.1:0", bytes(16), None, clock=time.monotonic_ns, tell=lambda *said: told.append(said[2]))
    teller.start()
    teller.address()
    time.sleep(4.0)
    until_s = time.monotonic() + 3.0
    while time.monotonic() < until_s:
        teller.step(lambda: {"heads": {}, "body": {}})
    assert told == []
    teller.stop()


def test_where_there_is_no_room_for_it_it_is_tried_again_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    at = "tcp://127.0.0.1:9"
    teller = Teller(tmp_path, at, bytes(16), None, clock=time.monotonic_ns, tell=lambda *said: told.append(said[2]))

    def none(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", none)
    teller.start()
    assert teller.address() == at
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        teller.step(lambda: {"heads": {}, "body": {}})
    assert 2 <= len(told) <= 4


def test_its_port_may_be_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        teller = Teller(tmp_path, bind, bytes(16), None, clock=time.monotonic_ns, tell=lambda *_: None)
        teller.start()
        with pytest.raises(ConfigError, match=r"E_BIND.*another process has it"):
            teller.address()
        teller.stop()


@pytest.mark.parametrize("known", [True, False])
def test_one_that_does_not_come_up_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    bind = f"tcp://127.0.0.1:{free_ports(1)[0] if known else 0}"
    told: list[str] = []
    teller = Teller(tmp_path, bind, bytes(16), None, clock=time.monotonic_ns, tell=lambda *said: told.append(said[0]))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    teller.start()
    if not known:
        with pytest.raises(RuntimeError, match="did not start"):
            teller.address()
        return
    assert teller.address() == bind
    monkeypatch.undo()

    def again() -> bool:
        teller.step(lambda: {"heads": {}, "body": {}})
        return told.count("REPLAY") == 2

    until(again, 20.0)
    teller.stop()


def test_nonsense_is_refused_and_counted(tmp_path: Path) -> None:
    with running(tmp_path) as line:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            asker = context.socket(zmq.DEALER)
            asker.connect(line.gate.endpoints()["replay"])
            for frames in ([b"x"], [b"REPLAY", b"", b"{"], [b"REPLAY", b"", protocol.dumps({"stream": "q"})]):
                asker.send_multipart(frames)
                assert asker.poll(5000)
                assert asker.recv_multipart()[0] == b"REFUSE"
        finally:
            context.destroy(linger=0)

        def counted() -> bool:
            bad: Any = next(family for family in line.gate.metrics() if family.name == "bad_messages")
            return bool(sum(value for _, value in bad.samples) >= 3)

        until(counted)
