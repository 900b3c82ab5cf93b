"""The parent alone, turn by turn, with a gate that only listens: whatever happens to vision, the daemon goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from inspector import __main__ as command_line
from inspector.runtime import daemon, link
from inspector.runtime.changeover_asked import Changes
from tests.gate.line import settings

READY = link.Ready("digest", [], ["locate"], 1)


class Gate:
    """What the daemon tells its gate."""

    epoch = "e"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.reloaded: SimpleQueue[link.Reloaded] = SimpleQueue()
        self.changes = Changes()

    def attach(self, end: link.End, ready: link.Ready) -> None:
        self.told.append("attach")

    def detach(self, text: str) -> None:
        self.told.append(f"detach {text}")

    def begin(self, at_ns: int) -> None:
        self.told.append("begin")

    def select(self, message: link.Switch) -> None:
        self.told.append(f"select {message.recipe}")

    def endpoints(self) -> dict[str, str]:
        return {}

    def counters(self) -> dict[str, int]:
        return {}

    def ages_ms(self) -> dict[str, float]:
        return {}

    def vision_ages_ms(self) -> dict[str, float]:
        return {}


def sleeping() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(daemon, gate, vision, their end) with a vision that is alive and has said nothing yet."""
    gate = Gate()
    monkeypatch.setattr(daemon, "GateProcess", lambda *_, **__: gate)
    under_test = daemon.Daemon(tmp_path / "line.yaml", settings(tmp_path), daemon.Asked(), on_ready=None, on_end=lambda _: None)
    ours, theirs = link.pair()
    process = sleeping()
    vision = daemon.Vision(process, ours, time.monotonic())
    under_test._vision = vision
    yield SimpleNamespace(daemon=under_test, gate=gate, vision=vision, theirs=theirs)
    process.kill()
    process.wait()
    ours.close()
    theirs.close()


def test_a_vision_that_dies_as_it_says_ready_is_lost_and_started_again(made: Any) -> None:
    made.theirs.send(READY)
    made.theirs.close()
    assert made.daemon._turn(1.0) is None
    assert made.daemon._vision is None
    assert made.gate.told == ["attach", "begin", "detach vision was lost before it began: Broken pipe"]
    assert made.vision.process.returncode is not None


def test_a_vision_that_dies_as_it_is_to_reload_is_lost_and_the_next_one_is_asked(made: Any) -> None:
    made.theirs.send(READY)
    assert made.daemon._turn(1.0) is None
    made.daemon._asked.reloads = 1
    made.theirs.close()
    assert made.daemon._turn(1.1) is None
    assert made.daemon._vision is None
    assert made.daemon._reloads == 0


def test_a_vision_that_talks_nonsense_is_ended(made: Any) -> None:
    made.theirs._socket.send(b"~nonsense")
    assert made.daemon._turn(1.0) is None
    assert made.daemon._vision is None
    assert made.vision.process.returncode is not None


def test_no_room_for_a_process_is_waited_for(made: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    made.daemon._vision = None
    attempts = []

    def full(*_: Any, **__: Any) -> Any:
        attempts.append(1)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for now_s in (1.0, 1.1, 1.3, 1.4, 1.8):
        assert made.daemon._turn(now_s) is None
    assert len(attempts) == 3
    made.daemon._log.close()
    assert "vision cannot be started" in capfd.readouterr().err
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_process_that_the_kernel_holds_is_not_waited_for(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(timeout: float | None = None) -> int:
        assert timeout is not None
        raise subprocess.TimeoutExpired("vision", timeout)

    with monkeypatch.context() as patch:
        patch.setattr(made.vision.process, "wait", held)
        made.vision.kill()


def test_a_broken_pipe_of_the_daemon_is_never_a_good_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        raise BrokenPipeError("link")

    monkeypatch.setattr(command_line, "application", lambda: lambda **_: broken())
    read, write = os.pipe()
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert command_line._run() == command_line.BUG
        os.close(read)
        assert command_line._run() == command_line.OK


def test_vision_is_not_told_where_the_keys_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    vision = daemon.Vision.start(tmp_path / "line.yaml", None, time.monotonic())
    try:
        told = Path(f"/proc/{vision.process.pid}/environ").read_bytes().split(b"\0")
    finally:
        vision.kill()
        vision.end.close()
    assert b"CREDENTIALS_DIRECTORY=/proc/nowhere" in told  # the configuration may name it, and vision reads the configuration
    assert not any(os.fsencode(tmp_path / "credentials") in each for each in told)
