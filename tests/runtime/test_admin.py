from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from inspector.records import ConfigError
from inspector.runtime.admin import AT_ONCE, Admin, Peer, _short, ask


def _twice(asked: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
    if asked["number"] < 0:
        raise ConfigError("E_RANGE", "0 and above are allowed")
    return {"number": 2 * asked["number"], "uid": peer.uid}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Admin]:
    folder = tmp_path / ("deep" * 30)  # deeper than the 107 bytes of a Unix socket's name
    folder.mkdir()
    heard: list[tuple[str, int]] = []
    made = Admin(folder / "ctl.sock", {"twice": _twice}, lambda name, peer: heard.append((name, peer.pid)))
    made.start()
    yield made
    assert all(pid == os.getpid() for _, pid in heard)
    made.stop()
    assert not made.path.exists()


def test_a_question_has_an_answer_and_the_kernel_says_who_asked(door: Admin) -> None:
    assert ask(door.path, "twice", timeout_s=5.0, number=21) == {"number": 42, "uid": os.geteuid()}
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    ("command", "number", "says"), [("twice", -1, "E_RANGE: 0 and above"), ("twize", 1, "E_USAGE: 'twize'.*did you mean twice")]
)
def test_what_is_refused_says_why(door: Admin, command: str, number: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ask(door.path, command, timeout_s=5.0, number=number)


@pytest.mark.parametrize("line", [b"\n", b"[1]\n", b"{\n", b"[" * 50_000 + b"\n", b'{"command": 3}\n', b"\xff\xfe\n"])
def test_what_is_no_question_is_answered_and_harms_nobody(door: Admin, line: bytes) -> None:
    with _short(door.path) as name, socket.socket(socket.AF_UNIX) as end:
        end.connect(name)
        end.sendall(line)
        with end.makefile("rb") as answer:
            assert json.loads(answer.readline())["ok"] is False
    assert ask(door.path, "twice", timeout_s=5.0, number=1)["number"] == 2


def test_who_says_nothing_takes_a_place_and_no_more(door: Admin) -> None:
    with _short(door.path) as name:
        silent = [socket.socket(socket.AF_UNIX) for _ in range(AT_ONCE)]
        for end in silent[1:]:
            end.connect(name)
        assert ask(door.path, "twice", timeout_s=5.0, number=1)["number"] == 2
        for end in silent:
            end.close()


def test_a_socket_left_behind_is_taken_over_and_one_that_is_served_is_not(door: Admin, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"E_BIND.*another daemon"):
        Admin(door.path, {}, lambda *_: None)
    left = tmp_path / "ctl.sock"
    with socket.socket(socket.AF_UNIX) as end, _short(left) as name:
        end.bind(name)
    again = Admin(left, {"twice": _twice}, lambda *_: None)
    again.start()
    assert ask(left, "twice", timeout_s=5.0, number=2)["number"] == 4
    again.stop()


def test_no_daemon_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"E_CTL_OPEN.*is it running"):
        ask(tmp_path / "ctl.sock", "status", timeout_s=1.0)
    with pytest.raises(ConfigError, match="E_BIND"):
        Admin(tmp_path / "none" / "ctl.sock", {}, lambda *_: None)
