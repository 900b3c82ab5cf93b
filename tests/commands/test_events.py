"""`inspector events`: it says that nothing is heard and goes on waiting, and refuses keys that are none of a client."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import zmq
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.commands import events
from inspector.gate import protocol
from inspector.gate.journal import Journal
from inspector.gate.security import write_pair
from inspector.records import ConfigError
from tests.gate.test_journal import UTC_NS, _records


def test_silence_is_said_once_and_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENT_S", 0.2)
    journal = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    record = next(record for record in _records(1, journal) if record.stream == "q")
    journal.close(clean=False)
    heard = threading.Event()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.XPUB)
    at = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"

    def late() -> None:
        assert socket.poll(10_000)  # it listens
        while not heard.wait(0.8):
            socket.send_multipart([protocol.topic("site", "line", "cell", "q"), record.head, record.payload])
        context.destroy(linger=0)

    thread = threading.Thread(target=late)
    thread.start()
    try:
        run = CliRunner().invoke(application(), ["events", at, "--count", "1", "--json"])
    finally:
        heard.set()
        thread.join()
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["seq"] == "1"
    assert run.stderr == f"no heartbeat from {at} for 0.2 s: is the daemon there?\n"


def test_the_keys_of_the_daemon_are_no_client(tmp_path: Path) -> None:
    write_pair(tmp_path / "server.key")
    path = str(tmp_path / "server.key")
    run = CliRunner().invoke(application(), ["events", "tcp://127.0.0.1:9", "--keys", path])
    assert isinstance(run.exception, ConfigError)
    assert (run.exception.code, run.exception.file) == ("E_KEY_ROLE", path)
