"""A line under test: the real daemon with three lanes of painted parts, a gateway for each (Python, C, Node), subscribers, histories.

Everything is a process of its own and writes JSON lines into the rig's folder; what goes wrong is written into files of `control/` or
done to the processes from outside. Where there is no C compiler or no Node, the Python client plays that gateway too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from inspector.client import Message, Subscriber
from tests.faults import clients, history
from tests.faults.history import Key, Line, Tail, Untrue
from tests.faults.proxy import Proxy

KINDS = Path(__file__).with_name("kinds")
STATION = "cell1"
LEASE_MS = 300
SLACK_MS = 250.0
"""What a machine that has no time may add to the lease: the gateway's own turn, and its being written down."""

RATE_PER_LANE = 15.0
WELL_S = 90.0
NAMES = ("python", "c", "node")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what: Callable[[], Any], within_s: float, why: str) -> Any:
    """What `what` returns once that is true; `Untrue` with `why` when it does not come."""
    end_s = time.monotonic() + within_s
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > end_s:
            raise Untrue(f"{why} within {within_s:g} s")
        time.sleep(0.01)


class Rig:
    """One line under test in `folder`. `changes` replace settings of its file, `environment` goes to the daemon, `proxied` puts a proxy
    between the gateways and the gate, `shimmed` loads the shim that makes disk and clock fail."""

    def __init__(
        self,
        folder: Path,
        *,
        changes: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        proxied: bool = False,
        shimmed: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.control, self.state = folder, folder / "control", folder / "state"
        self.control.mkdir(exist_ok=True)
        gate, events, replay, front = free_ports(4)
        self.gate_at, self.events_at, self.replay_at = (f"tcp://127.0.0.1:{port}" for port in (gate, events, replay))
        self.proxy = Proxy(front, gate) if proxied else None
        self.front_at = f"tcp://127.0.0.1:{front}" if proxied else self.gate_at
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(KINDS),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "INSPECTOR_TEST_CONTROL": str(self.control),
            **(environment or {}),
        }
        self.client_environment = {key: value for key, value in self.environment.items() if key != "PYTHONPATH"}
        self.shim = clients.preload(folder) if shimmed else None
        self.path = folder / "line.yaml"
        self.settings: dict[str, Any] = {
            "version": 1,
            "site": "test",
            "line": "line1",
            "station": STATION,
            "state_dir": "state",
            "ready_file": "ready.json",
            "conveyor": {"kind": "simulated", "rate_parts_per_s": 3 * RATE_PER_LANE, "lanes": [0, 1, 2], "counts_per_s": 1000.0, "seed": 1},
            "gate": {"bind": self.gate_at, "count": "conveyor", "window_counts": 20},
            "events": {"bind": self.events_at, "replay_bind": self.replay_at},
            "metrics": {"gate_bind": "127.0.0.1:0", "vision_bind": "127.0.0.1:0"},
            "journal": {"ballast_mib": 1},
            "archive": {"rejects": False, "every_nth_pass": 0},
            "cameras": [
                {"id": f"top{lane}", "lane": lane, "recipe": "plate", "source": {"kind": "painted", "lane": lane}} for lane in range(3)
            ],
            "recipes": {"plate": {"checks": {"watched": {"kind": "watched"}}}},
            **(changes or {}),
        }
        self.write_settings()
        self.daemon: subprocess.Popen[bytes] | None = None
        self.peers: list[subprocess.Popen[bytes]] = []
        self.tails: dict[str, Tail] = {}
        self.marks: set[tuple[Key, str]] = set()
        self.epochs: list[str] = []
        self.figures: dict[str, list[float]] = {}
        self.journal_whole = True
        self.left_out: list[str] = []

    # -- life

    def __enter__(self) -> Self:
        self._start_clients()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in [*self.peers, *([self.daemon] if self.daemon else [])]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        if self.proxy is not None:
            self.proxy.close()

    def write_settings(self, text: str | None = None) -> None:
        """Write the configuration as `settings` say, or as `text` does."""
        self.path.write_text(yaml.safe_dump(self.settings) if text is None else text)

    def _start_clients(self) -> None:
        python = [sys.executable, "-m", "tests.faults.plc"]
        c, node = clients.c_gateway(self.folder), clients.node(self.folder, "gateway.mjs")
        self.left_out = [why for have, why in ((c, clients.NO_C), (node, clients.NO_NODE)) if have is None]
        for lane, (name, command) in enumerate(zip(NAMES, (python, c or python, node or python), strict=True)):
            self.client(name, *command, self.front_at, STATION, name, str(lane), str(self.folder / f"{name}.last"))
        self.client("scada", sys.executable, "-m", "tests.faults.scada", self.events_at, self.replay_at)
        reader = clients.node(self.folder, "scada.mjs")
        if reader is not None:
            self.client("node-scada", *reader, self.events_at, self.replay_at, "q")

    def client(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that writes its history to NAME.jsonl."""
        path = self.folder / f"{name}.jsonl"
        with path.open("ab") as out, (self.folder / f"{name}.err").open("ab") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, env=self.client_environment, cwd=Path(__file__).parents[2])
        self.peers.append(process)
        self.tails[name] = Tail(path)
        return process

    def start(self, *, within_s: float = WELL_S, **extra: str) -> str:
        """Start the daemon and wait until it is ready; its epoch."""
        self.spawn(**extra)
        return self.ready(within_s)

    def spawn(self, **extra: str) -> None:
        """Start the daemon."""
        (self.folder / "ready.json").unlink(missing_ok=True)  # what a killed one left
        environment = {**self.environment, **extra}
        if self.shim is not None:
            environment["LD_PRELOAD"] = str(self.shim)
        with (self.folder / "err.txt").open("ab") as err, (self.folder / "out.txt").open("ab") as out:
            command = [sys.executable, "-m", "inspector", "run", str(self.path), "--allow-root", "--quiet"]
            self.daemon = subprocess.Popen(command, env=environment, stdout=out, stderr=err)

    def ready(self, within_s: float = WELL_S) -> str:
        """Wait for the ready file; the epoch."""

        def look() -> str | None:
            if self.process.poll() is not None:
                raise Untrue(f"the daemon ended with {self.process.returncode}: {self.said()[-400:]}")
            try:
                return str(json.loads((self.folder / "ready.json").read_text())["epoch"])
            except (FileNotFoundError, ValueError):
                return None

        epoch: str = until(look, within_s, "the daemon is not ready")
        if epoch in self.epochs:
            raise Untrue(f"epoch {epoch} is used again")
        self.epochs.append(epoch)
        return epoch

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon."""
        assert self.daemon is not None
        return self.daemon

    @property
    def vision_pid(self) -> int:
        """Of the vision that judges now."""
        return int(json.loads((self.folder / "ready.json").read_text())["vision_pid"])

    def said(self) -> str:
        """What the daemons have written to standard error."""
        return (self.folder / "err.txt").read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send the daemon a signal; when (monotonic nanoseconds)."""
        at_ns = time.monotonic_ns()
        self.process.send_signal(number)
        return at_ns

    def gone(self, within_s: float = 20.0) -> int:
        """Wait until the daemon has ended, and note what is committed; its exit code."""
        code = self.process.wait(within_s)
        self.marks |= history.committed(self.state / "journal.sqlite")
        return code

    # -- control and waiting

    def ask(self, whom: str, words: str) -> None:
        """Let something go wrong from now on: write a control file, whole or not at all."""
        part = self.control / f"{whom}.part"
        part.write_text(words)
        part.replace(self.control / whom)

    def stop_asking(self, *whom: str) -> None:
        """Let it go right again."""
        for name in whom:
            (self.control / name).unlink(missing_ok=True)

    def lines(self, name: str) -> list[Line]:
        """A client's history so far."""
        return self.tails[name].read()

    def permit(self, name: str) -> bool:
        """Whether a gateway has the permit, as it last said."""
        on = [line["on"] for line in self.lines(name) if line["what"] == "permit"]
        return bool(on and on[-1])

    def wait_permit(self, on: bool, within_s: float, *names: str) -> None:
        """Until these gateways (all) have the permit, or none has."""
        wanted = names or NAMES
        state = "have" if on else "lose"
        until(lambda: all(self.permit(name) == on for name in wanted), within_s, f"{', '.join(wanted)} do not {state} the permit")

    def well(self, within_s: float = WELL_S) -> None:
        """The line runs: every gateway has the permit, lets a part pass from now on, and the subscriber is told of this epoch."""
        began_ns = time.monotonic_ns()
        self.wait_permit(True, within_s)

        def passes(name: str) -> bool:
            return any(line["what"] == "verdict" and line["passes"] and line["at_ns"] > began_ns for line in self.lines(name)[-200:])

        until(lambda: all(passes(name) for name in NAMES), within_s, "parts do not pass")
        self.count("run again s", (time.monotonic_ns() - began_ns) / 1e9)

    def told(self, within_s: float = WELL_S) -> None:
        """Until the subscribers, whose connections come back after up to 5 s, have been told of this epoch."""
        names = [name for name in ("scada", "node-scada") if name in self.tails]

        def heard(name: str) -> bool:
            return any(
                line["what"] == "event" and line["epoch"] == self.epochs[-1] and line["stream"] == "q" for line in self.lines(name)[-50:]
            )

        until(lambda: all(heard(name) for name in names), within_s, "subscribers hear nothing of the new epoch")

    def alarm(self, code: str, since_ns: int, within_s: float = 15.0) -> Line:
        """Wait for an alarm that was told after `since_ns`."""

        def find() -> Line | None:
            return next((line for line in self.lines("scada") if line.get("code") == code and line["at_ns"] >= since_ns), None)

        found: Line = until(find, within_s, f"no alarm {code}")
        return found

    def verdicts(self, name: str, since_ns: int) -> list[Line]:
        """What a gateway was told since then."""
        return [line for line in self.lines(name) if line["what"] == "verdict" and line["at_ns"] >= since_ns]

    def reasons(self, since_ns: int) -> set[int]:
        """The reasons of all verdicts since then."""
        return {line["reason"] for name in NAMES for line in self.verdicts(name, since_ns)}

    def wait_reason(self, wanted: set[int], since_ns: int, within_s: float = 15.0) -> None:
        """Until a part was rejected for one of these reasons."""
        until(lambda: self.reasons(since_ns) & wanted, within_s, f"no verdict with a reason of {sorted(wanted)}")

    def permit_off(self, at_ns: int, *names: str) -> None:
        """The permit of every gateway that had it ends within the lease after `at_ns`."""
        time.sleep(0.1)  # what happened before is written down
        for name in names or NAMES:
            if not history.had_permit(self.lines(name), at_ns):
                continue
            until(lambda: history.permit_ended(self.lines(name), at_ns), 3.0, f"the permit of {name} does not go")  # noqa: B023
            after_ms = history.permit_ended(self.lines(name), at_ns)
            self.count("permit off ms", after_ms)
            if after_ms > LEASE_MS + SLACK_MS:
                raise Untrue(f"{name}: the permit went {after_ms:.0f} ms after the fault, the lease is {LEASE_MS} ms")

    def count(self, name: str, value: float) -> None:
        """Keep a figure for the table."""
        self.figures.setdefault(name, []).append(value)

    def page(self, process: str) -> str:
        """The metrics of "gate" or "vision"."""
        address = json.loads((self.folder / "ready.json").read_text())["endpoints"][f"metrics_{process}"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, process: str, name: str) -> float:
        """The sum of a metric's samples."""
        return sum(float(text.rpartition(" ")[2]) for text in self.page(process).splitlines() if text.startswith((f"{name} ", f"{name}{{")))

    def resident_mib(self) -> float:
        """Memory of the gate's process."""
        words = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(words[1]) * resource.getpagesize() / 2**20

    # -- the end

    def finish(self) -> None:
        """End the line, and hold every history against every promise."""
        bookmark = self._bookmark()
        self.kill(signal.SIGTERM)
        if self.gone() != 0:
            raise Untrue(f"the daemon ended with {self.process.returncode}: {self.said()[-400:]}")
        account = (self.folder / "out.txt").read_text().splitlines()[-1]
        if "unexplained=0" not in account or "pending=0" not in account:
            raise Untrue(f"the account does not add up: {account}")
        self.check()
        if bookmark is not None:
            self._check_bookmark(*bookmark)

    def check(self) -> None:
        """The histories so far against the journal."""
        time.sleep(0.3)  # what was sent last is written down
        path = self.state / "journal.sqlite"
        held = history.kept([path, *self.state.glob("journal.sqlite.bad-*[0-9]")])
        if self.journal_whole:
            history.check_journal(path, self.marks, held)
        for name in NAMES:
            history.check_gateway(name, self.lines(name), held)
        for name in ("scada", "node-scada"):
            if name in self.tails:
                history.check_subscriber(name, self.lines(name), held, whole=self.journal_whole)
        for name in self.tails:
            said = (self.folder / f"{name}.err").read_text()
            if said:
                raise Untrue(f"{name} said: {said[-300:]}")
        if "Traceback" in self.said() and "INSPECTOR_FAULT" not in self.said():
            raise Untrue(f"a traceback: {self.said()[-800:]}")

    def _bookmark(self) -> tuple[tuple[str, int], list[tuple[str, int]]] | None:
        """Read from a bookmark in the first epoch to now, over every start of the daemon since; what was read."""
        events = [line for line in self.lines("scada") if line["what"] == "event" and line["stream"] == "q"]
        if not self.journal_whole or not events:
            return None
        since = events[0]["epoch"], int(events[0]["seq"])
        newest = events[-1]["epoch"], int(events[-1]["seq"])
        read: list[tuple[str, int]] = []
        end_s = time.monotonic() + 60
        with Subscriber(self.events_at, replay=self.replay_at, since=since) as late:
            while (not read or read[-1] < newest) and time.monotonic() < end_s:
                item = late.receive(0.5)
                if isinstance(item, Message):
                    read.append((item.event.epoch, item.header.seq))
                elif item is not None:
                    raise Untrue(f"a hole for who reads from a bookmark: {item}")
        return since, read

    def _check_bookmark(self, since: tuple[str, int], read: list[tuple[str, int]]) -> None:
        held = history.kept([self.state / "journal.sqlite"])
        epochs = sorted({epoch for epoch, stream, _ in held.hashes if stream == "q"})  # UUIDv7: by time
        all_of = [(epoch, seq) for epoch in epochs for seq in held.of(epoch, "q") if (epoch, seq) > since]
        if read != all_of[: len(read)] or not read:
            wrong = next((i for i, (a, b) in enumerate(zip(read, all_of, strict=False)) if a != b), len(read))
            raise Untrue(f"bookmarkable: {read[wrong : wrong + 1]} was read where {all_of[wrong : wrong + 1]} is next, after {since}")
