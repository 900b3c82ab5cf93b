"""How long from vision's word to the verdict in a gateway's hands, in three processes, and what a part costs in the gate's pure core.

Open loop: vision speaks at the intended times whatever happens, and the latency is counted from the intended time, so that a gate that
falls behind cannot hide it. An exposure is told `SEEN_EARLIER_NS` before its judgement, as it is where pictures are looked at, and a
network judges one tile for each part beside it. 100 % is 200 parts a second. `stalled` has 20 subscribers that never read; `replay` has a
client, a process of its own, that reads the 100,000 events of an earlier start meanwhile; `page` has the operator's page asked 1,000 times
a second, with the priority that its unit has. The limit is the bare path in the same run: a socket pair, and ZeroMQ to another process.
Where this user may say so (`/dev/cpu_dma_latency`, as deploy/inspector-awake.service does), the CPUs are kept awake, but for the last
row: to wake one that sleeps takes longer than the verdict does.
"""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import zmq

NAME = "gate"

RATED_HZ = 200
SECONDS = 5.0
STEPS = 3000
STALLED = 20
REPLAYED, COMMITTED = 100_000, 500
PAGE_HZ, PAGE_ASKERS, PAGE_NICE = 1000, 8, 5
ELSEWHERE_NICE = 15
"""Of who asks and who reads: on a line they are other machines."""
WAKE = Path("/dev/cpu_dma_latency")
SEEN_EARLIER_NS = 2_000_000
SPIN_NS = 200_000
"""The rest of a wait that is not slept: what `time.sleep` oversleeps is not the gate's."""

_CONFIG: dict[str, Any] = {
    "version": 1,
    "site": "bench",
    "line": "bench",
    "station": "bench",
    "gate": {"bind": "tcp://127.0.0.1:0"},
    "events": {"bind": "tcp://127.0.0.1:0", "replay_bind": "tcp://127.0.0.1:0"},
    "journal": {"ballast_mib": 0},
    "cameras": [{"id": "top", "recipe": "r", "source": {"kind": "replay"}}],
    "recipes": {"r": {"checks": {"c": {"kind": "outline"}}}},
}
_FINDING = {
    "check": "outline",
    "feature": "hole-3",
    "value": 0.013,
    "low": -0.1,
    "high": 0.1,
    "unit": "mm",
    "ok": True,
    "at_mm": [12.5, -3.25],
}
_BODY = {
    "findings": [_FINDING] * 6,
    "defects": [],
    "camera": {"cam_id": "top", "frame_id": 1, "t_exposure_utc_ns": "1790000000000000000", "complete": True, "quality": 1.0},
    "timing_ms": {"acq": 1.0, "queue": 0.1, "infer": 20.0, "decide": 0.1, "total": 21.2},
}


def measure() -> dict[str, dict[str, float]]:
    """Rows of latencies in milliseconds (p50, p99, p999, most) and of microseconds of the pure core."""
    with awake() as kept:
        rows = {"pure core, one part": _core(), "bare path": _bare()}
        for share in (0.5, 1.0, 1.2):
            rows[f"verdict at {share:.0%}"] = _line(int(share * RATED_HZ))
        rows["verdict at 100%, stalled subscribers"] = _line(RATED_HZ, stalled=STALLED)
        rows["verdict at 100%, replay"] = _line(RATED_HZ, replay=True)
        rows["verdict at 100%, page"] = _line(RATED_HZ, page=True)
    if kept:
        rows["verdict at 100%, CPUs that sleep"] = _line(RATED_HZ)
    return rows


@contextmanager
def awake() -> Iterator[bool]:
    """No CPU of this machine sleeps meanwhile (Linux PM QoS); False where this user may not say so."""
    try:
        latency_us = WAKE.open("wb", buffering=0)
    except OSError:
        yield False
        return
    with latency_us:
        latency_us.write(bytes(4))
        yield True


def _core() -> dict[str, float]:
    """Median microseconds of the steps that one part makes: seen, judged (with the verdict's bytes), acknowledged."""
    from inspector.config import Config
    from inspector.gate import arbiter as core
    from inspector.gate import protocol
    from inspector.runtime.gate import settings

    made = core.Arbiter(settings(Config.model_validate(_CONFIG)), epoch=bytes(16), now_ns=0, chain={})
    clock = time.monotonic_ns
    hello = {"proto": {"majors": [1]}, "client": "bench", "station": "bench", "profile": "permit", "travel_min_ms": 600}
    hello |= {"scan_ms": 10, "actuator_ms": 40, "lease_ms": 300, "credit": 64}
    first: tuple[core.Input, ...] = (
        core.Attached("ab" * 32, [], []),
        core.Begin(),
        core.Received(b"g", "", protocol.command("HELLO", hello)),
    )
    for item in first:
        made.step(clock(), item)
    body, spent = json.dumps(_BODY).encode(), {"seen_us": [0.0], "judged_us": [0.0], "ack_us": [0.0]}
    for seq in range(1, STEPS + 1):
        ack = protocol.command("ACK", {"epoch": protocol.epoch_text(made.epoch), "upto": str(seq), "seq": str(seq)})
        steps: tuple[core.Input, ...] = (
            core.Seen("top", seq, clock(), None, True, None),
            core.Judged("top", seq, "pass", 0, "", body),
            core.Received(b"g", "", ack),
        )
        for name, step in zip(spent, steps, strict=True):
            began = time.perf_counter_ns()
            made.step(clock(), step)
            spent[name].append((time.perf_counter_ns() - began) / 1e3)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    return {**medians, "part_us": sum(medians.values())}


@contextmanager
def _first() -> Iterator[None]:
    """The gate goes first, where it may, as in the daemon."""
    from inspector.runtime import child

    before = os.getpriority(os.PRIO_PROCESS, 0)
    child.go_first()
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _line(rate_hz: int, *, stalled: int = 0, replay: bool = False, page: bool = False) -> dict[str, float]:
    """Latencies at this rate, in milliseconds."""
    from inspector.config import Config
    from inspector.runtime import link
    from inspector.runtime.gate import GateProcess

    with tempfile.TemporaryDirectory() as folder, _first(), ExitStack() as stack:
        earlier = _earlier(Path(folder)) if replay else ""
        gate = GateProcess(Config.model_validate(_CONFIG), Path(folder), clock=time.monotonic_ns, utc_clock=time.time_ns)
        gate.start(stack)
        ends = gate.endpoints()
        ours, theirs = link.pair()
        stack.callback(ours.close)
        gate.attach(ours, link.Ready("bench", [], ["locate", "c"], 0))
        gate.begin(time.monotonic_ns())
        plc = _child("gateway", ends["gate"], str(int(rate_hz * SECONDS)))
        stack.callback(plc.kill)
        while not gate.status().permit:
            time.sleep(0.01)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        for _ in range(stalled):
            deaf = context.socket(zmq.SUB)
            deaf.setsockopt(zmq.RCVHWM, 1)
            deaf.setsockopt(zmq.SUBSCRIBE, b"insp1/")
            deaf.connect(ends["events"])
        bind = _desk(Path(folder), ends, stack) if page else ""
        vision = _child("vision", str(theirs.fileno()), str(rate_hz), pass_fds=(theirs.fileno(),))
        stack.callback(vision.kill)
        theirs.close()
        reader = _child("reader", ends["events"], ends["replay"], earlier, nice=ELSEWHERE_NICE) if replay else None
        if reader is not None:
            stack.callback(reader.kill)
        flood = _child("flood", bind, nice=ELSEWHERE_NICE) if page else None
        if flood is not None:
            stack.callback(flood.kill)
        said, _ = plc.communicate(timeout=SECONDS * 4 + 30)
        vision.wait(10)
        answered = {} if flood is None else {"requests_hz": float(flood.communicate()[0])}
        replayed = {} if reader is None else {"replayed_s": float(reader.communicate()[0])}
        return {**json.loads(said), **answered, **replayed}


def _earlier(folder: Path) -> str:
    """A journal with the events of an earlier start; its epoch."""
    from inspector.config import Config
    from inspector.gate import arbiter as core
    from inspector.gate import protocol
    from inspector.gate.journal import Journal
    from inspector.runtime.gate import settings

    epoch = protocol.epoch(time.time_ns(), bytes(10))
    journal = Journal.open(folder, utc_clock=time.time_ns)
    journal.begin(epoch)
    utc_offset_ns = time.time_ns() - time.monotonic_ns()  # events of 1970 would be taken away by retention while they are read
    made = core.Arbiter(
        settings(Config.model_validate(_CONFIG)), epoch=epoch, now_ns=time.monotonic_ns(), chain={}, utc_offset_ns=utc_offset_ns
    )
    made.step(time.monotonic_ns(), core.Attached("ab" * 32, [], []), core.Begin())
    body = json.dumps(_BODY).encode()
    for first in range(1, REPLAYED + 1, COMMITTED):
        records: list[core.Record] = []
        for seq in range(first, first + COMMITTED):
            now_ns = time.monotonic_ns()
            out = made.step(now_ns, core.Seen("top", seq, now_ns, None, True, None), core.Judged("top", seq, "pass", 0, "", body))
            records += [each for each in out if isinstance(each, core.Record)]
        journal.commit(records)
    journal.close(clean=True)
    return protocol.epoch_text(epoch)


def _desk(folder: Path, ends: Mapping[str, str], stack: ExitStack) -> str:
    """The page of this line, at work; its address."""
    from inspector.runtime import child

    with socket.create_server(("127.0.0.1", 0)) as found:
        bind = f"127.0.0.1:{found.getsockname()[1]}"
    config = {
        **_CONFIG,
        "state_dir": str(folder),
        "gate": {"bind": ends["gate"]},
        "events": {"bind": ends["events"], "replay_bind": ends["replay"]},
        "desk": {"bind": bind},
    }
    path = folder / "bench.yaml"
    path.write_text(json.dumps(config))
    command = [*child.behind(PAGE_NICE), sys.executable, "-m", "inspector", "desk", str(path)]
    desk = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(desk.wait)
    stack.callback(desk.terminate)
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        with suppress(OSError), socket.create_connection(("127.0.0.1", int(bind.rpartition(":")[2]))):
            break
        time.sleep(0.1)
    time.sleep(1.0)
    return bind


def _bare() -> dict[str, float]:
    """The same messages by a socket pair and by ZeroMQ, with nothing between."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    try:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"")
        identity, _ = router.recv_multipart()
        body, spent = bytes(1800), []
        for _ in range(1000):
            began = time.perf_counter_ns()
            near.send(body)
            router.send_multipart([identity, b"VERDICT", bytes(64), far.recv(4096)])
            dealer.recv_multipart()
            spent.append((time.perf_counter_ns() - began) / 1e6)
        return _quantiles(spent)
    finally:
        near.close()
        far.close()
        context.destroy(linger=0)


def _quantiles(spent_ms: list[float]) -> dict[str, float]:
    ordered = sorted(spent_ms)
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
    return {**{name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in at.items()}, "most_ms": ordered[-1]}


def _child(*arguments: str, pass_fds: tuple[int, ...] = (), nice: int = 0) -> subprocess.Popen[str]:
    from inspector.runtime import child

    command = [*child.behind(nice), sys.executable, "-m", __name__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds)


def _vision(descriptor: int, rate_hz: int) -> None:
    """Speak at the intended times, which go along as the parts' names, while a network works."""
    from inspector.runtime import link
    from inspector.runtime.worker import SWITCH_INTERVAL_S

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    end, pictures = link.End(socket.socket(fileno=descriptor)), threading.Semaphore(0)
    threading.Thread(target=_judge, args=(pictures,), daemon=True).start()
    pictures.release()
    body, first_ns = json.dumps(_BODY).encode(), time.monotonic_ns() + 1_500_000_000
    for seq in range(1, int(rate_hz * SECONDS) + 1):
        at_ns = first_ns + seq * 1_000_000_000 // rate_hz
        _wait_until(at_ns - SEEN_EARLIER_NS)
        end.send(link.Seen("top", seq, at_ns, None, True, str(at_ns)))
        pictures.release()
        _wait_until(at_ns)
        end.send(link.Judged("top", seq, "pass", 0, "", body))
    time.sleep(1.0)


def _wait_until(at_ns: int) -> None:
    while (wait_ns := at_ns - time.monotonic_ns()) > 0:
        if wait_ns > SPIN_NS:
            time.sleep((wait_ns - SPIN_NS) / 1e9)


def _judge(pictures: threading.Semaphore) -> None:
    """One tile of the shipped network for each picture."""
    from inspector.neural import model as models
    from inspector.workshop.demo import folder_of_ours

    model = models.load(folder_of_ours("models") / "surface.onnx", threads=1)
    tile = models.proof_of(model, model.card.proof[0])
    while True:
        pictures.acquire()
        model.run(tile)


def _flood(bind: str) -> None:
    """Ask for the page `PAGE_HZ` times a second, by as many connections as that takes; print how many answers a second came."""
    from http.client import HTTPConnection, HTTPException

    answers = [0] * PAGE_ASKERS
    began_s = time.monotonic()
    until_s = began_s + SECONDS + 1.0

    def ask(n: int) -> None:
        end = HTTPConnection(bind, timeout=5)
        for turn in range(round(PAGE_HZ / PAGE_ASKERS * (until_s - began_s))):
            time.sleep(max(0.0, began_s + (turn + n / PAGE_ASKERS) * PAGE_ASKERS / PAGE_HZ - time.monotonic()))
            if time.monotonic() > until_s:
                return
            try:
                end.request("GET", "/")
                answers[n] += len(end.getresponse().read()) > 0
            except (OSError, HTTPException):
                end.close()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(PAGE_ASKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(answers) / (time.monotonic() - began_s))


def _reader(events: str, replay: str, epoch: str) -> None:
    """Read all verdicts of that epoch; print how many seconds it took."""
    from inspector.client import Message, Subscriber

    with Subscriber(events) as live:
        while live.receive(1.0) is None:
            pass
    with Subscriber(events, replay=replay, since=(epoch, 0)) as reader:
        began_s, left = time.monotonic(), REPLAYED
        while left and time.monotonic() < began_s + 60:
            item = reader.receive(0.05)
            left -= isinstance(item, Message) and item.historical
    print(time.monotonic() - began_s if not left else math.inf)


def _gateway(endpoint: str, count: int) -> None:
    """Take verdicts until so many have come, or none comes for 3 s; print the latencies."""
    from inspector.client import Decided, Gateway, Terms
    from inspector.gate import protocol

    spent: list[float] = []
    last_s = time.monotonic() + 30
    with Gateway(endpoint, Terms("bench", "bench")) as gateway:
        while len(spent) < count and time.monotonic() < last_s:
            for happening in gateway.poll(10):
                if isinstance(happening, Decided):
                    now_ns = time.monotonic_ns()
                    spent.append((now_ns - int(protocol.loads(happening.payload)["part_uid"])) / 1e6)
                    last_s = time.monotonic() + 3
    print(json.dumps({**_quantiles(spent), "missing": float(count - len(spent))}))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        if sys.argv[1] == "vision":
            _vision(int(sys.argv[2]), int(sys.argv[3]))
        elif sys.argv[1] == "flood":
            _flood(sys.argv[2])
        elif sys.argv[1] == "reader":
            _reader(*sys.argv[2:])
        else:
            _gateway(sys.argv[2], int(sys.argv[3]))
