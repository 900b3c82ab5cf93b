"""The vision process alone, with the test as its gate."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from inspector.runtime import link
from tests.smoke.conftest import line

pytestmark = pytest.mark.real
M = TypeVar("M")


class Vision:
    """The process and our end of its link; keeps all that it said."""

    def __init__(self, path: Path, environment: dict[str, str]) -> None:
        self.end, theirs = link.pair()
        command = [sys.executable, "-m", "inspector.runtime.vision", "--config", str(path), "--link-fd", str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), env=environment, stderr=subprocess.PIPE, text=True)
        theirs.close()
        self.heard: list[link.ToGate | link.ToVision] = []

    def wait_for(self, kind: type[M], within_s: float = 60.0) -> M:
        """The next message of this kind."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            select.select([self.end], [], [], 0.1)
            while (message := self.end.receive()) is not None:
                self.heard.append(message)
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} in {within_s} s; heard {self.heard[-3:]}")

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]


@contextmanager
def vision(path: Path, environment: dict[str, str]) -> Iterator[Vision]:
    running = Vision(path, environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()
        running.end.close()


def begun(running: Vision) -> link.Ready:
    ready = running.wait_for(link.Ready)
    running.end.send(link.Begin(time.monotonic_ns()))
    return ready


def test_it_sees_judges_reloads_and_drains(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path)
    with vision(path, environment) as running:
        ready = begun(running)
        assert ready.reasons == ["locate", "bright"]
        assert ready.pid == running.process.pid
        while len(running.of(link.Judged)) < 6:
            running.wait_for(link.Judged)
        assert [m.decision for m in running.of(link.Judged)[:6]] == ["pass", "pass", "fail"] * 2
        assert [m.seq for m in running.of(link.Seen)][:6] == [1, 2, 3, 4, 5, 6]
        with urllib.request.urlopen(f"http://{ready.metrics}/metrics", timeout=5) as page:
            assert 'inspector_inspections_total{camera="top",decision="fail"}' in page.read().decode()

        path.write_text(path.read_text().replace("kind: bright", "kind: bright\n        high: 250.0"))
        running.end.send(link.Reload())
        reloaded = running.wait_for(link.Reloaded)
        assert (reloaded.refused, reloaded.recipe == ready.recipe) == ("", False)
        seen = len(running.of(link.Judged))
        while len(running.of(link.Judged)) < seen + 4:
            running.wait_for(link.Judged)
        assert {m.decision for m in running.of(link.Judged)[seen + 1 :]} == {"pass"}

        path.write_text(path.read_text().replace("high:", "hihg:"))
        running.end.send(link.Reload())
        refused = running.wait_for(link.Reloaded)
        assert "hihg" in refused.refused
        assert refused.recipe == reloaded.recipe

        running.end.send(link.Drain())
        assert running.wait_for(link.Finished) == link.Finished(True)
        assert {m.seq for m in running.of(link.Seen)} == {m.seq for m in running.of(link.Judged)}
        assert running.process.wait(60) == 0


def test_it_says_when_the_pictures_end(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path, cameras=[{"id": "top", "recipe": "plate", "source": {"kind": "painted", "end_after": 3}}])
    with vision(path, environment) as running:
        begun(running)
        assert running.wait_for(link.Finished) == link.Finished(False)
        assert len(running.of(link.Judged)) == 3
        running.end.send(link.Drain())
        assert running.wait_for(link.Finished) == link.Finished(True)
        assert running.process.wait(60) == 0


def test_a_camera_that_is_lost_is_said_and_comes_back(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path, cameras=[{"id": "top", "recipe": "plate", "source": {"kind": "painted", "down_at": [5]}}])
    with vision(path, environment) as running:
        begun(running)
        while not any(not m.up for m in running.of(link.CameraState)):
            running.wait_for(link.CameraState)
        assert running.of(link.CameraState)[-1].text == "camera top: cable out"
        assert running.wait_for(link.CameraState).up
        seen = [running.wait_for(link.Seen) for _ in range(4)]
        assert [m.seq for m in seen] == [5, 6, 7, 8]
        assert [m.complete for m in seen] == [False, False, False, True]


@pytest.mark.parametrize("thread", ["capture", "inspect", "archive"])
def test_a_dead_thread_ends_the_process(tmp_path: Path, environment: dict[str, str], thread: str) -> None:
    with vision(line(tmp_path), {**environment, "INSPECTOR_FAULT": f"raise:{thread}:0"}) as running:
        begun(running)
        _, said = running.process.communicate(timeout=60)
        assert running.process.returncode == 70
        assert f"vision ends: thread {thread}" in said


def test_it_ends_with_its_gate(tmp_path: Path, environment: dict[str, str]) -> None:
    with vision(line(tmp_path), environment) as running:
        begun(running)
        running.end.close()
        assert running.process.wait(60) == 0


def test_signals_are_the_gates_business(tmp_path: Path, environment: dict[str, str]) -> None:
    with vision(line(tmp_path), environment) as running:
        begun(running)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(running.process.pid, number)
        running.wait_for(link.Judged)
        assert running.process.poll() is None


def test_a_camera_that_cannot_count_parts_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    camera = {"id": "top", "recipe": "plate", "source": {"kind": "opencv", "device": 0}}
    with vision(line(tmp_path, cameras=[camera], gate={"count": "frames"}), environment) as running:
        _, said = running.process.communicate(timeout=60)
        assert running.process.returncode == 78
        assert "E_CFG_COUNT" in said


def test_what_a_person_must_change_is_said_in_a_line(tmp_path: Path, environment: dict[str, str]) -> None:
    with vision(line(tmp_path, recipes={"plate": {"checks": {"bright": {"kind": "brigth"}}}}), environment) as running:
        _, said = running.process.communicate(timeout=60)
        assert running.process.returncode == 78
        assert "E_CFG_KIND" in said
        assert "Traceback" not in said
