"""What is asked for wrongly is told, all of it, and ends with 64; a line that is not up yet says so."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inspector import __main__ as command_line
from inspector.records import ConfigError
from inspector.runtime import admin, changeover, daemon
from tests.contracts import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "demo.yaml")
Run = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code of a command line, and what it says on both streams."""

    def ran(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["inspector", *words])
        code = command_line._run()
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


def test_each_client_that_is_wrong_is_told(run: Run, tmp_path: Path) -> None:
    code, _, said = run("keys", "new", str(tmp_path / "keys"), "--client", "a b:gate", "--client", "x:gate", "--client", "y:boss")
    assert code == 64
    assert [line.split(";")[0] for line in said.splitlines()] == ["E_USAGE: --client: 'a b:gate'", "E_USAGE: --client: 'y:boss'"]
    assert not (tmp_path / "keys").exists()


def test_what_the_daemon_calls_wrong_usage_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any, **__: Any) -> dict[str, Any]:
        raise ConfigError("E_USAGE", "lane 7; one of 0, 1 is allowed")

    monkeypatch.setattr(admin, "ask", ask)
    code, _, said = run("ctl", CONFIG, "challenge", "--lane", "7")
    assert (code, said) == (64, "E_USAGE: lane 7; one of 0, 1 is allowed\n")


@pytest.mark.parametrize("words", [["tcp://127.0.0.1:99999"], ["nonsense"], ["tcp://127.0.0.1:5561", "--replay", "tcp://127.0.0.1:0"]])
def test_nobody_listens_where_nobody_can(run: Run, words: list[str]) -> None:
    code, _, said = run("events", *words, "--count", "1")
    assert code == 64
    assert "allowed: " in said


def test_a_line_that_starts_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {"ready": False, "restarts": 0, "trouble": "vision was not ready within 60 s"}
    said: dict[str, Any] = {"state": "INIT", "permit": False, "holds": {}, "withheld": {}, "counters": {"triggers": 0}, "gateways": []}
    monkeypatch.setattr(admin, "ask", lambda *_, **__: {**said, "recipe": "", "vision": vision})
    code, out, _ = run("ctl", CONFIG, "status")
    assert code == 0
    assert out.splitlines()[-1] == "recipe not read yet, vision was not ready within 60 s"
    monkeypatch.setattr(admin, "ask", lambda *_, **__: {**said, "recipe": "", "vision": vision, "journal": "disk I/O error"})
    assert "journal fails: disk I/O error" in run("ctl", CONFIG, "status")[1].splitlines()


def test_what_cannot_change_is_found_wherever_it_is() -> None:
    ours = {"gate": {"travel_min_ms": 600, "bind": "x"}, "cameras": [{"id": "top", "source": {"kind": "replay"}}], "bridges": {}}
    now = {
        "gate": {"travel_min_ms": 3000, "bind": "x"},
        "cameras": [{"id": "top", "source": {"kind": "replay", "loop": True}}],
        "bridges": {},
    }
    assert list(changeover._moved(ours, ours)) == []
    assert list(changeover._moved(now, ours)) == [
        (("gate", "travel_min_ms"), "3000", "600"),
        (("cameras", 0, "source", "loop"), "True", "nothing"),
    ]
    assert list(changeover._moved({"cameras": [1, 2]}, {"cameras": [1]})) == [(("cameras",), "2 entries", "1 entries")]


@pytest.mark.parametrize(("error", "code"), [("E_STATE_FULL", 75), ("E_STATE_PERM", 78), ("E_USAGE", 64)])
def test_a_full_disk_may_pass_and_is_no_refusal_for_good(run: Run, monkeypatch: pytest.MonkeyPatch, error: str, code: int) -> None:
    def start(*_: Any, **__: Any) -> int:
        raise ConfigError(error, "no")

    monkeypatch.setattr(daemon, "run", start)
    assert run("run", CONFIG)[0] == code


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "E_STATE_FULL"), (errno.EDQUOT, "E_STATE_FULL"), (errno.EACCES, "E_STATE_PERM")]
)
def test_a_state_folder_without_room_is_told_from_one_that_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=code):
        daemon.Lock(tmp_path / "state")
