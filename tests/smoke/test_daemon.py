"""The whole daemon as real processes: starts, reloads, survives vision, drains, and its accounts balance."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inspector.client import Gateway, Terms
from inspector.runtime import child
from tests.smoke.conftest import line

pytestmark = pytest.mark.real


def until(what: Callable[[], Any], within_s: float = 60.0) -> Any:
    """What `what` returns once that is true."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s")


class Running:
    """A daemon that was started from `path`; everything that it says is in files beside it."""

    def __init__(self, path: Path, environment: dict[str, str], *arguments: str, under: Sequence[str] = ()) -> None:
        self.folder = path.parent
        self.err_path, self.out_path = self.folder / "err.txt", self.folder / "out.txt"
        with self.err_path.open("w") as err, self.out_path.open("w") as out:
            command = [*under, sys.executable, "-m", "inspector", "run", str(path), "--allow-root", *arguments]
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)

    def ready(self) -> dict[str, Any]:
        """The ready file's content, once it is there."""

        def look() -> Any:
            assert self.process.poll() is None, self.said()
            try:
                return json.loads((self.folder / "ready.json").read_text())
            except FileNotFoundError:
                return None

        found: dict[str, Any] = until(look)
        return found

    def said(self) -> str:
        return self.err_path.read_text()

    def metric(self, process: str, name: str) -> float:
        """The sum of a metric's samples."""
        return sum(float(text.rpartition(" ")[2]) for text in self.page(process).splitlines() if text.startswith((f"{name} ", f"{name}{{")))

    def page(self, process: str) -> str:
        """All of a process's metrics."""
        with urllib.request.urlopen(f"http://{self.ready()['endpoints'][f'metrics_{process}']}/metrics", timeout=5) as answer:
            found: str = answer.read().decode()
        return found

    def end(self, number: int = signal.SIGTERM, within_s: float = 60.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def account(self) -> dict[str, int]:
        """The last line, the ledger."""
        last = self.out_path.read_text().splitlines()[-1]
        return {name: int(number) for name, _, number in (part.partition("=") for part in last.split())}


@contextmanager
def daemon(path: Path, environment: dict[str, str], *arguments: str, under: Sequence[str] = ()) -> Iterator[Running]:
    running = Running(path, environment, *arguments, under=under)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def balanced(account: dict[str, int]) -> bool:
    return account["unexplained"] == account["pending"] == 0 and account["triggers"] == sum(
        account[name] for name in ("pass", "reject", "not_inspected")
    )


def test_it_starts_reloads_drains_and_its_accounts_balance(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path)
    with daemon(path, environment, "--quiet") as running:
        ready = running.ready()
        assert ready["pid"] == running.process.pid
        assert set(ready["endpoints"]) == {"gate", "events", "replay", "metrics_gate", "metrics_vision"}
        until(lambda: running.metric("vision", "inspector_inspections_total") > 20)
        path.write_text(path.read_text().replace("kind: bright", "kind: bright\n        high: 90.0"))
        os.kill(running.process.pid, signal.SIGHUP)
        fails = 'inspector_inspections_total{camera="top",decision="fail"}'
        passes = 'inspector_inspections_total{camera="top",decision="pass"}'
        until(lambda: running.metric("vision", fails) > running.metric("vision", passes))
        path.write_text("nonsense: [")
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: "the recipe stays as it is" in running.said())
        assert running.end() == 0
        account = running.account()
        assert balanced(account)
        assert account["pass"] > 5
        assert account["reject"] > 5
        assert "Traceback" not in running.said()
        assert not (tmp_path / "ready.json").exists()


class Plc:
    """A gateway that polls as a PLC does; remembers each change of (session, permit)."""

    def __init__(self, endpoint: str) -> None:
        self.changes: list[tuple[int, bool]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(endpoint,))
        self._thread.start()

    def _run(self, endpoint: str) -> None:
        with Gateway(endpoint, Terms(client="plc-1", station="cell1")) as gateway:
            while not self._stop.is_set():
                gateway.poll(5)
                now = (gateway.core.session, gateway.permit)
                if not self.changes or self.changes[-1] != now:
                    self.changes.append(now)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_the_gate_goes_first_where_it_may_and_no_child_of_it_does(tmp_path: Path, environment: dict[str, str]) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    ask = f"import os; os.setpriority(os.PRIO_PROCESS, 0, {ours - child.FIRST})"
    may = subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL, check=False).returncode == 0
    with daemon(line(tmp_path), environment, "--quiet") as running:
        pid = running.ready()["pid"]
        assert os.getpriority(os.PRIO_PROCESS, pid) == ours - child.FIRST * may
        tasks = Path(f"/proc/{pid}/task")
        threads = {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks.iterdir()}
        assert threads == {ours - child.FIRST * may}
        children = [int(found) for task in tasks.iterdir() for found in (task / "children").read_text().split()]
        assert running.ready()["vision_pid"] in children
        assert os.getpriority(os.PRIO_PROCESS, running.ready()["vision_pid"]) == ours
        assert all(os.getpriority(os.PRIO_PROCESS, each) >= ours for each in children)


@pytest.mark.parametrize("process", ["gate", "vision"])
def test_promtool_has_nothing_to_say(tmp_path: Path, environment: dict[str, str], process: str) -> None:
    with daemon(line(tmp_path), environment, "--quiet") as running:
        running.ready()
        until(lambda: running.metric("vision", "inspector_inspections_total") > 5)
        said = subprocess.run(["promtool", "check", "metrics"], input=running.page(process), capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_a_killed_vision_costs_parts_not_the_gate(tmp_path: Path, environment: dict[str, str]) -> None:
    with daemon(line(tmp_path), environment, "--json") as running:
        first = running.ready()
        plc = Plc(first["endpoints"]["gate"])
        try:
            until(lambda: plc.changes and plc.changes[-1][1])
            until(lambda: running.metric("vision", "inspector_inspections_total") > 5)
            os.kill(first["vision_pid"], signal.SIGKILL)
            second = until(lambda: (found := running.ready())["vision_pid"] != first["vision_pid"] and found)
            assert second["epoch"] == first["epoch"]
            assert second["begin_ns"] == first["begin_ns"]
            until(lambda: plc.changes[-1][1])
            until(lambda: running.metric("vision", "inspector_inspections_total") > 5)
        finally:
            plc.close()
        assert running.metric("gate", "inspector_vision_restarts_total") == 1
        assert running.end() == 0
        lines = [json.loads(text) for text in running.out_path.read_text().splitlines()]
    # One session throughout, because the gate's heartbeat never stopped; the permit went while vision was gone, and came back.
    session = plc.changes[-1][0]
    permits = [permit for number, permit in plc.changes if number == session]
    assert permits[permits.index(True) :] == [True, False, True]
    assert {number for number, _ in plc.changes} <= {0, session}
    verdicts, account = lines[:-1], lines[-1]
    assert balanced(account)
    codes = [each["reason"] for each in verdicts]
    codes = codes[: codes.index(212)] if 212 in codes else codes
    dead = [n for n, code in enumerate(codes) if code == 209]
    assert len(dead) >= 5
    assert set(codes[dead[0] : dead[-1] + 1]) == {209}
    assert 0 in codes[: dead[0]]
    assert 0 in codes[dead[-1] + 1 :]
    assert sorted(int(each["part_seq"]) for each in verdicts) == list(range(1, account["triggers"] + 1))


def test_a_vision_that_is_started_again_has_the_settings_in_force_not_those_being_edited(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = line(tmp_path)
    with daemon(path, environment, "--quiet") as running:
        first = running.ready()
        path.write_text(path.read_text().replace("kind: bright", "kind: bright\n        high: 90.0"))
        os.kill(running.process.pid, signal.SIGHUP)
        fails = 'inspector_inspections_total{camera="top",decision="fail"}'
        passes = 'inspector_inspections_total{camera="top",decision="pass"}'
        until(lambda: running.metric("vision", fails) > running.metric("vision", passes))
        path.write_text("nonsense: [")
        os.kill(first["vision_pid"], signal.SIGKILL)
        until(lambda: running.ready()["vision_pid"] != first["vision_pid"])
        until(lambda: running.metric("vision", fails) > 5)
        assert running.metric("vision", passes) == 0
        assert running.end() == 0
        assert balanced(running.account())


def test_a_hung_vision_is_killed_and_started_again(tmp_path: Path, environment: dict[str, str]) -> None:
    with daemon(line(tmp_path), environment, "--quiet") as running:
        first = running.ready()
        os.kill(first["vision_pid"], signal.SIGSTOP)
        until(lambda: running.ready()["vision_pid"] != first["vision_pid"], 60.0)
        assert "vision hangs" in running.said()
        assert running.end() == 0
        assert balanced(running.account())


@pytest.mark.parametrize("thread", ["arbiter", "journal", "events", "replay"])
def test_a_dead_thread_of_the_gate_ends_the_daemon(tmp_path: Path, environment: dict[str, str], thread: str) -> None:
    with daemon(line(tmp_path), {**environment, "INSPECTOR_FAULT": f"raise:{thread}:0.5"}, "--quiet") as running:
        assert running.process.wait(60) == 70
        assert f"thread {thread}" in running.said()


class NotifySocket:
    """systemd's end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.bind(self.path)
        self.end.settimeout(0.05)
        self.said: list[tuple[float, str]] = []

    def hear(self, for_s: float = 0.0) -> list[tuple[float, str]]:
        """All that was said so far, by time; listens `for_s` longer."""
        end_s = time.monotonic() + for_s
        while True:
            try:
                text = self.end.recv(4096).decode()
            except TimeoutError:
                if time.monotonic() >= end_s:
                    return self.said
                continue
            self.said += [(time.monotonic(), line) for line in text.splitlines()]

    def lines(self) -> list[str]:
        return [text for _, text in self.hear()]


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify")
    yield made
    made.end.close()


def test_systemd_hears_of_everything(tmp_path: Path, environment: dict[str, str], notify: NotifySocket) -> None:
    with daemon(line(tmp_path), {**environment, "NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "2000000"}, "--quiet") as running:
        until(lambda: "READY=1" in notify.lines())
        running.ready()
        until(lambda: notify.lines().count("WATCHDOG=1") >= 3)
        os.kill(running.process.pid, signal.SIGHUP)
        until(lambda: "RELOADING=1" in notify.lines() and notify.lines().count("READY=1") == 2)
        until(lambda: any(text.startswith("STATUS=triggers=") and "unexplained=0" in text for text in notify.lines()))
        assert running.end() == 0
        assert "STOPPING=1" in notify.lines()


def test_the_watchdog_is_withheld_when_a_thread_is_frozen(tmp_path: Path, environment: dict[str, str], notify: NotifySocket) -> None:
    faulty = {**environment, "NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "2000000", "INSPECTOR_FAULT": "freeze:arbiter:4"}
    with daemon(line(tmp_path), faulty, "--quiet") as running:
        until(lambda: "WATCHDOG=1" in notify.lines())
        until(lambda: any(text.startswith("STATUS=frozen: arbiter") for text in notify.lines()))
        said = len(notify.hear())
        assert "WATCHDOG=1" not in [text for _, text in notify.hear(2.0)[said:]]
        assert "Current thread" in running.said()


def test_the_second_signal_leaves_at_once(tmp_path: Path, environment: dict[str, str]) -> None:
    with daemon(line(tmp_path), {**environment, "INSPECTOR_FAULT": "freeze:inspect:0"}, "--quiet") as running:
        running.ready()
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert running.account()["unexplained"] == 0
        assert "leaving at once" in running.said()


def test_it_ends_by_itself(tmp_path: Path, environment: dict[str, str]) -> None:
    with daemon(line(tmp_path), environment, "--quiet", "--for", "1") as running:
        assert running.process.wait(60) == 0
        assert balanced(running.account())


def test_it_ends_with_its_pictures(tmp_path: Path, environment: dict[str, str]) -> None:
    """Files, each a part: the daemon has said everything when the last one has its verdict."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(12):
        (folder / f"part-{n:02}.pgm").write_bytes(b"P5 64 48 255\n" + bytes([100 + 10 * n]) * (64 * 48))
    (folder / "part-05.pgm").write_bytes(b"P5 64 48 255\n" + bytes(100))
    path = line(
        tmp_path,
        conveyor={"kind": "timed"},
        gate={"bind": "tcp://127.0.0.1:0", "count": "frames"},
        cameras=[
            {"id": "top", "recipe": "plate", "source": {"kind": "replay", "files": ["pictures"]}, "ring": {"slots": 4, "when_full": "wait"}}
        ],
    )
    with daemon(path, environment, "--json") as running:
        assert running.process.wait(60) == 0
        lines = [json.loads(text) for text in running.out_path.read_text().splitlines()]
    assert lines[-1] == {"triggers": 12, "pass": 5, "reject": 6, "not_inspected": 1, "pending": 0, "unexplained": 0}
    reasons = {each["part_uid"]: each["reason"] for each in lines[:-1]}
    assert reasons == {f"part-{n:02}": 0 if n < 5 else 202 if n == 5 else 101 for n in range(12)}
    assert "Traceback" not in running.said()


def test_it_can_be_stopped_while_it_starts(tmp_path: Path, environment: dict[str, str]) -> None:
    with daemon(line(tmp_path), environment, "--quiet") as running:
        until(lambda: (tmp_path / "state" / "lock").exists() and (tmp_path / "state" / "journal.sqlite").exists())
        assert running.end() == 0
        assert balanced(running.account())


def refused(path: Path, environment: dict[str, str], *arguments: str) -> str:
    """What a daemon that does not start says."""
    command = [sys.executable, "-m", "inspector", "run", str(path), *arguments]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 78, said
    assert "Traceback" not in said.stderr
    return said.stderr


def test_two_daemons_do_not_share_a_state_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path)
    with daemon(path, environment, "--quiet") as running:
        running.ready()
        said = refused(path, environment, "--allow-root")
        assert re.fullmatch(
            rf"E_LOCK {path}:\d+: state_dir: {tmp_path / 'state'}: the state folder is in use by process {running.process.pid}\n", said
        )
        assert running.end() == 0
        assert balanced(running.account())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    assert refused(line(tmp_path), environment).startswith("E_ROOT")


@pytest.mark.parametrize("section", ["gate", "events", "metrics-gate", "metrics-vision"])
def test_a_port_in_use_is_named(tmp_path: Path, environment: dict[str, str], section: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        bound: dict[str, Any] = {
            "gate": {"gate": {"bind": f"tcp://{address}", "count": "conveyor"}},
            "events": {"events": {"bind": f"tcp://{address}", "replay_bind": "tcp://127.0.0.1:0"}},
            "metrics-gate": {"metrics": {"gate_bind": address, "vision_bind": "127.0.0.1:0"}},
            "metrics-vision": {"metrics": {"gate_bind": "127.0.0.1:0", "vision_bind": address}},
        }
        said = refused(line(tmp_path, **bound[section]), environment, "--allow-root")
        name, _, key = section.partition("-")
        assert re.search(rf"E_BIND {tmp_path}/line.yaml:\d+: {name}\.{key + '_' if key else ''}bind: .*{address}", said)


def test_a_wrong_recipe_is_refused_in_a_line(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path, recipes={"plate": {"checks": {"bright": {"kind": "bright", "hihg": 3.0}}}})
    said = refused(path, environment, "--allow-root")
    assert "hihg" in said
    assert "high" in said


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare to make a small disk")
def test_a_full_disk_withholds_the_permit_and_nothing_else(tmp_path: Path, environment: dict[str, str]) -> None:
    path = line(tmp_path)
    state = tmp_path / "state"
    state.mkdir()
    small = ["unshare", "-m", "--propagation", "private", "sh", "-c", f'mount -t tmpfs -o size=4m tmpfs {state} && exec "$@"', "sh"]
    with daemon(path, environment, "--quiet", under=small) as running:
        first = running.ready()
        plc = Plc(first["endpoints"]["gate"])
        try:
            until(lambda: plc.changes and plc.changes[-1][1])
            filler = Path(f"/proc/{running.process.pid}/root{state}/filler")
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(bytes(8 << 20))
            until(lambda: not plc.changes[-1][1])  # the journal's policy is to stop
            judged = running.metric("vision", "inspector_inspections_total")
            until(lambda: running.metric("vision", "inspector_inspections_total") > judged + 10)
            assert running.metric("vision", "inspector_archive_pictures_dropped_total") > 0
            filler.unlink()
            until(lambda: plc.changes[-1][1])
        finally:
            plc.close()
        assert running.end() == 0
        assert balanced(running.account())
        assert "Traceback" not in running.said()


@pytest.mark.slow
def test_memory_stays_where_it_is(tmp_path: Path, environment: dict[str, str]) -> None:
    """100 parts a second, every picture kept for a moment: what a leak of 100 bytes a part would show within a minute."""
    path = line(
        tmp_path,
        conveyor={"kind": "simulated", "rate_parts_per_s": 100.0, "lanes": [0], "counts_per_s": 1000.0},
        gate={"bind": "tcp://127.0.0.1:0", "count": "conveyor", "window_counts": 4},
        archive={"every_nth_pass": 1, "keep_mib": 1},
    )

    def resident_mib() -> list[float]:
        return [running.metric(process, "inspector_process_resident_memory_bytes") / 2**20 for process in ("gate", "vision")]

    with daemon(path, environment, "--quiet") as running:
        running.ready()
        until(lambda: running.metric("vision", "inspector_inspections_total") > 2000, 60)
        before = resident_mib()
        until(lambda: running.metric("vision", "inspector_inspections_total") > 8000, 110)
        after = resident_mib()
        assert running.end() == 0
        assert balanced(running.account())
    assert all(late - early < 3.0 for early, late in zip(before, after, strict=True)), (before, after)
