"""What a frame costs beside its pictures and networks: ring, hand-offs, link, ledger, journal, event, metrics.

Two processes as in the daemon, with the daemon's own parts: `vision` runs capture, ring, judging (one check that says a constant), and
the link; `gate` runs arbiter, journal and events. The frames are 1280 × 1024 and nobody writes them. What is spent without frames (beats,
polling) is measured too and taken off, because it does not grow with them. `session` is what a gateway adds that is sent every verdict
and acknowledges it. At full speed frames come as fast as both processes take them: what is left is the work of a frame, without the waking
of threads that have nothing to do, which at a line's rates costs more than the work. The row at full speed is the least of several runs,
for what others do on this machine can only add to it, and so are the bare primitives; `median_us` is the median of the runs. The limit
is what the bare primitives cost with messages of the same sizes: a queue between two threads, a socket pair between two processes, a row
in SQLite (committed in the same groups), one message by ZeroMQ.

`frame_us` is the part that a verdict takes with it: ring, hand-offs, ledger, event, metrics; `kept_us` follows it, on threads of their
own: the journal's commits and the publishing. `look` is what is done with the picture itself (is it black, is it the one before), which
is a part of vision's, and no part of `frame_us`.
"""

from __future__ import annotations

import gc
import json
import queue
import select
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector.records import DeviceError

if TYPE_CHECKING:
    from inspector.runtime.gate import GateProcess

NAME = "framework"

SHAPE = (1024, 1280)
RATE_HZ = 500
SECONDS = 3.0
FRAMES = 6000
RUNS = 9
GROUP = 64
SLOTS = 16
TO_JUDGE_NS = 50_000_000_000
EVENT_BYTES, JUDGED_BYTES, SEEN_BYTES = 1600, 620, 70


def measure() -> dict[str, dict[str, float]]:
    """CPU microseconds of a frame in each process, at full speed and at a rate, and of the bare primitives in the same run."""
    idle, idle_session = _line(0), _line(0, gateway=True)
    look_us = _look_us()
    rows: dict[str, dict[str, float]] = {
        "idle": {f"{process}_share": idle[f"{process}_s"] / idle["wall_s"] for process in ("vision", "gate")},
        "look": {"cpu_us": look_us},
    }
    for name, rate_hz, frames, runs in (
        ("frame at full speed", 0, FRAMES, RUNS),
        (f"frame at {RATE_HZ}/s", RATE_HZ, round(RATE_HZ * SECONDS), 1),
    ):
        costs = sorted((_cost(_line(rate_hz, frames), idle, look_us) for _ in range(runs)), key=lambda cost: cost["frame_us"])
        limit_us = min(_primitives(rate_hz, frames) for _ in range(runs))
        cpu_us, gate_us = costs[0]["cpu_us"], costs[0]["gate_us"]
        rows[name] = {**costs[0], "median_us": costs[runs // 2]["frame_us"], "limit_us": limit_us, "ratio": cpu_us / limit_us}
    session = _line(RATE_HZ, round(RATE_HZ * SECONDS), gateway=True)
    rows[f"session at {RATE_HZ}/s"] = {"cpu_us": (session["gate_s"] - idle_session["gate_s"]) / session["frames"] * 1e6 - gate_us}
    return rows


def _cost(busy: Mapping[str, float], idle: Mapping[str, float], look_us: float) -> dict[str, float]:
    """Microseconds of a frame, without what is spent when there is none."""
    vision_us, gate_us, kept_us = (
        (busy[f"{who}_s"] - idle[f"{who}_s"] / idle["wall_s"] * busy["wall_s"]) / busy["frames"] * 1e6 for who in ("vision", "gate", "kept")
    )
    return {
        "frame_us": vision_us - look_us + gate_us - kept_us,
        "kept_us": kept_us,
        "cpu_us": vision_us + gate_us,
        "vision_us": vision_us,
        "gate_us": gate_us,
    }


def _look_us() -> float:
    import numpy as np

    from inspector.records import Stamp
    from inspector.runtime.quality import PictureHealth

    health, images = PictureHealth(), np.random.default_rng(1).integers(0, 255, (SLOTS, *SHAPE), np.uint8)
    spent_s = []
    for run in range(RUNS):
        began_s = time.process_time()
        for seq in range(1000 * run + 1, 1000 * run + 1001):
            health.look(Stamp("c", seq, 0, None, SHAPE, True, str(seq)), images[seq % SLOTS])
        spent_s.append(time.process_time() - began_s)
    return min(spent_s) * 1e3


# --- the line ----------------------------------------------------------------------------------------------------------


def _line(rate_hz: int, frames: int = 0, *, gateway: bool = False) -> dict[str, float]:
    """CPU seconds of both processes for so many frames at this rate, or as fast as they are taken (0); without frames, for `SECONDS`."""
    from inspector.config import Config
    from inspector.runtime import link
    from inspector.runtime.gate import GateProcess

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        gate = GateProcess(Config.model_validate(_CONFIG), Path(folder), clock=time.monotonic_ns, utc_clock=time.time_ns)
        gate.start(stack)
        if gateway:
            plc = _child("gateway", gate.endpoints()["gate"])
            stack.callback(plc.kill)
        ours, theirs = link.pair()
        vision = _child("vision", str(theirs.fileno()), str(rate_hz), str(frames), pass_fds=(theirs.fileno(),))
        stack.callback(vision.kill)
        theirs.close()
        gate.attach(ours, link.Ready("bench", [], ["locate", "c"], vision.pid))
        while gateway and not gate.status().sessions:
            time.sleep(0.01)
        began_ns = time.monotonic_ns()
        gate.begin(began_ns)
        gc.collect()
        gc.freeze()
        gc.disable()  # as the daemon does
        stack.callback(gc.enable)
        started_s, kept_started_s = time.process_time(), _thread_s(gate, "journal", "events")
        ours.send(link.Begin(began_ns))
        said = json.loads(vision.communicate()[0])
        while gate.backlog():
            time.sleep(0.001)
        gate_s, wall_s = time.process_time() - started_s, (time.monotonic_ns() - began_ns) / 1e9
        kept_s = _thread_s(gate, "journal", "events") - kept_started_s
        counters = gate.counters()
        gate.drain(2.0)
        if counters["pass"] < 0.7 * frames:
            raise DeviceError(f"the line did not keep up with {rate_hz} frames a second: {counters}; is this machine busy?")
        frames = max(1, counters["triggers"])
        return {"vision_s": said["cpu_s"], "gate_s": gate_s, "kept_s": kept_s, "wall_s": wall_s, "frames": float(frames)}


def _thread_s(gate: GateProcess, *names: str) -> float:
    """CPU seconds of these threads so far."""
    idents = [worker.ident for worker in gate.workers() if worker.name in names]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in idents if ident is not None)


_CONFIG: dict[str, Any] = {
    "version": 1,
    "site": "bench",
    "line": "bench",
    "station": "bench",
    "gate": {"bind": "tcp://127.0.0.1:0", "travel_min_ms": 60_000},
    "events": {"bind": "tcp://127.0.0.1:0", "replay_bind": "tcp://127.0.0.1:0"},
    "journal": {"ballast_mib": 0},
    "cameras": [{"id": "c", "recipe": "r", "source": {"kind": "replay"}}],
    "recipes": {"r": {"checks": {"c": {"kind": "outline"}}}},
}


def _child(*arguments: str, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "inspector.workshop.bench_framework", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=pass_fds)


def _gateway(endpoint: str) -> None:
    from inspector.client import Gateway, Terms

    with Gateway(endpoint, Terms(client="bench", station="bench", travel_min_ms=60_000)) as gateway:
        while True:
            gateway.poll(5)


class _Blank:
    """A camera whose pictures need no work: so many, at a fixed rate or as fast as they are taken."""

    max_bytes = SHAPE[0] * SHAPE[1]

    def __init__(self, rate_hz: int, frames: int) -> None:
        self._period_ns, self.left, self._seq = 1_000_000_000 // rate_hz if rate_hz else 0, frames, 0
        self._next_ns = time.monotonic_ns()

    def read(self, into: Any, timeout_s: float) -> Any:
        from inspector.records import Stamp

        if not self.left:
            time.sleep(timeout_s)
            return None
        if self._period_ns:
            wait_s = (self._next_ns - time.monotonic_ns()) / 1e9
            if wait_s > 0:
                time.sleep(min(timeout_s, wait_s))
            if time.monotonic_ns() < self._next_ns:
                return None
        self.left -= 1
        self._next_ns += self._period_ns
        self._seq += 1
        return Stamp("c", self._seq, time.monotonic_ns(), self._seq, SHAPE, True, str(self._seq))

    def close(self) -> None:
        """Nothing to let go."""


def _vision(descriptor: int, rate_hz: int, frames: int) -> None:
    from inspector.records import Finding, Plan, Recipe, Stamp
    from inspector.runtime import link
    from inspector.runtime.changeover_board import Board
    from inspector.runtime.ring import Ring
    from inspector.runtime.stages import Capturing, Inspecting, capture, inspect
    from inspector.runtime.worker import SWITCH_INTERVAL_S, Worker

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    end = link.End(socket.socket(fileno=descriptor))
    answer = (Finding("c", "part", 1.0, 0.0, 2.0, "mm", (1.0, 2.0)),)
    plan = Plan("c", None, None, None, (("c", lambda views: [answer] * len(views)),), False)
    bell = threading.Condition()
    source = _Blank(rate_hz, frames)
    ring = Ring(SLOTS, source.max_bytes, "drop_oldest" if rate_hz else "wait", bell)

    def tell(*messages: link.ToGate) -> bool:
        while not end.send(*messages):
            select.select([], [end], [], 1.0)
        return True

    capturing = Capturing("c", source, ring, tell, time.monotonic_ns)
    inspecting = Inspecting(
        Board(Recipe("bench", {"c": plan}, (), ("locate", "c"))), {"c": ring}, bell, tell, None, time.monotonic_ns, time.time_ns, 4,
        to_judge_ns=TO_JUDGE_NS,
    )  # fmt: skip

    for _ in range(2 * SLOTS):  # new memory is black, and black pictures are not judged
        into = ring.slot(0.0)
        if into is not None:
            into[:] = 128
            ring.commit(Stamp("c", 0, 0, None, SHAPE), 0)
            for lent in ring.borrow(1):
                ring.give_back(lent)

    def step() -> None:
        inspect(inspecting, 0.05)

    workers = [
        Worker("capture-c", lambda: capture(capturing), clock=time.monotonic_ns, on_error=_die),
        Worker("inspect-0", step, clock=time.monotonic_ns, on_error=_die),
    ]
    while end.receive() is None:
        time.sleep(0.001)
    began_s = time.process_time()
    for worker in workers:
        worker.start()
    until_s = time.monotonic() + SECONDS
    while source.left or ring.counts().ready or ring.counts().lent if frames else time.monotonic() < until_s:
        time.sleep(0.1 if rate_hz or not frames else 0.02)
        tell(link.Beat({worker.name: 0.0 for worker in workers}))
    for worker in workers:
        worker.stop(1.0)
    print(json.dumps({"cpu_s": time.process_time() - began_s}))


def _die(name: str, error: BaseException) -> None:
    raise SystemExit(f"{name}: {error!r}")


# --- the limit ---------------------------------------------------------------------------------------------------------


def _primitives(rate_hz: int, frames: int) -> float:
    """CPU microseconds of a frame when nothing is done but handing bytes on, keeping and publishing them."""
    import zmq

    from inspector.runtime.gate import GATHER_S

    group = max(1, round(rate_hz * GATHER_S)) if rate_hz else GROUP
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = _child("primitives", str(theirs.fileno()), str(rate_hz), str(frames), pass_fds=(theirs.fileno(),))
    theirs.close()
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "x.sqlite", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, payload BLOB)")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        publisher = context.socket(zmq.PUB)
        publisher.bind("tcp://127.0.0.1:*")
        event = bytes(EVENT_BYTES)
        started_s = time.process_time()
        ours.send(b"go")
        for seq in range(frames):
            ours.recv(4096)
            ours.recv(4096)
            if seq % group == 0:
                database.execute("BEGIN")
            database.execute("INSERT INTO event VALUES (?, ?)", (seq, event))
            if seq % group == group - 1:
                database.execute("COMMIT")
            publisher.send_multipart([b"insp1/bench/bench/bench/q/", bytes(64), event])
        spent_s = time.process_time() - started_s
        context.destroy(linger=0)
        database.close()  # what is left of the last group is not kept, which costs nothing either
    said = json.loads(child.communicate()[0])
    return (spent_s + float(said["cpu_s"])) / frames * 1e6


def _primitives_child(descriptor: int, rate_hz: int, frames: int) -> None:
    end = socket.socket(fileno=descriptor)
    between: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    seen, judged = bytes(SEEN_BYTES), bytes(JUDGED_BYTES)

    def judge() -> None:
        for _ in range(frames):
            between.get()
            end.send(judged)

    thread = threading.Thread(target=judge)
    end.recv(16)
    began_s, next_s = time.process_time(), time.monotonic()
    thread.start()
    for _ in range(frames):
        if rate_hz:
            next_s += 1 / rate_hz
            time.sleep(max(0.0, next_s - time.monotonic()))
        end.send(seen)
        between.put(seen)
    thread.join()
    print(json.dumps({"cpu_s": time.process_time() - began_s}))


if __name__ == "__main__":
    _PARTS: dict[str, Callable[..., None]] = {
        "vision": lambda *numbers: _vision(*map(int, numbers)),
        "gateway": _gateway,
        "primitives": lambda *numbers: _primitives_child(*map(int, numbers)),
    }
    _PARTS[sys.argv[1]](*sys.argv[2:])
