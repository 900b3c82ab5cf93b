"""Every fault that is injected into a line of real processes: what is done, what is expected, how its line is set up. One row each.

`inject(rig, run)` does it once, asserts what the fault must lead to, and leaves a line that runs again. Whether every history keeps every
promise (`history`) is asked at the end of all its runs.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import zmq

from inspector.client import Gateway, Terms
from inspector.gate import protocol, security
from inspector.gate.replay import EVENTS_PER_S
from tests.faults.history import Untrue
from tests.faults.kinds.failpoints import names as failpoints
from tests.faults.proxy import FROM_GATE, FROM_GATEWAY
from tests.faults.rig import NAMES, RATE_PER_LANE, STATION, Rig, free_ports, until

NS = 1_000_000_000
INNER_THREADS = ("arbiter", "journal", "events", "replay")
VISION_THREADS = ("capture", "inspect", "archive")


@dataclass(frozen=True)
class Fault:
    """A row. `quick`: it is done once in the ordinary tests; `runs`: how often in a whole round."""

    code: str
    what: str
    expected: str
    inject: Callable[[Rig, int], None]
    quick: bool = False
    runs: int = 3
    changes: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    proxied: bool = False
    shimmed: bool = False
    needs: Callable[[], str] = str
    """Why it cannot be done on this machine; empty where it can."""


def _random(run: int) -> Random:
    return Random(1000 + run)


def _descriptors_of(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _again(rig: Rig) -> None:
    """The daemon has ended: start another, and let it run."""
    began_ns = time.monotonic_ns()
    rig.start()
    rig.well()
    rig.count("ready again s", (time.monotonic_ns() - began_ns) / NS)
    rig.told()


# --- processes ---------------------------------------------------------------------------------------------------------


def _kill_gate(rig: Rig, run: int) -> None:
    time.sleep(_random(run).random() * 0.5)
    at_ns = rig.kill()
    rig.gone()
    rig.permit_off(at_ns)
    _again(rig)


def _kill_vision(rig: Rig, run: int) -> None:
    before, sessions = rig.vision_pid, rig.metric("gate", "inspector_gateways")
    at_ns = time.monotonic_ns()
    os.kill(before, signal.SIGKILL)
    rig.permit_off(at_ns)
    rig.wait_reason({209}, at_ns)
    until(lambda: rig.vision_pid != before, 15.0, "vision is not started again")
    rig.well()
    rig.count("vision back s", (time.monotonic_ns() - at_ns) / NS)
    if rig.metric("gate", "inspector_gateways") != sessions:
        raise Untrue("a session was lost")


def _stop_gate(seconds: float) -> Callable[[Rig, int], None]:
    def inject(rig: Rig, run: int) -> None:
        at_ns = rig.kill(signal.SIGSTOP)
        rig.permit_off(at_ns)
        time.sleep(seconds)
        on_ns = rig.kill(signal.SIGCONT)
        rig.well()
        overdue = [v for name in NAMES for v in rig.verdicts(name, on_ns) if v["at_ns"] < on_ns + NS // 4 and v["passes"]]
        if any(v["ttl_us"] <= 0 for v in overdue):
            raise Untrue("a PASS that is overdue was taken")

    return inject


def _stop_gate_long(rig: Rig, run: int) -> None:
    """Ten seconds: a watchdog would have started it again; without one it goes on by itself, or ends and is started again."""
    at_ns = rig.kill(signal.SIGSTOP)
    rig.permit_off(at_ns)
    time.sleep(10)
    rig.kill(signal.SIGCONT)
    rig.well()


def _freeze(rig: Rig, run: int) -> None:
    """The arbiter stands still: no WATCHDOG=1, the stacks in the log, the permit ends by itself, and the process ends."""
    rig.kill(signal.SIGTERM)
    rig.gone()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        path = rig.folder / f"notify{run}"
        systemd.bind(str(path))
        systemd.settimeout(0.05)
        rig.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="5000000", INSPECTOR_FAULT="freeze:arbiter:6")
        rig.well()
        rig.wait_permit(False, 20.0)
        frozen_s = time.monotonic()
        pinged_s = frozen_s
        while time.monotonic() < frozen_s + 5:
            with suppress(TimeoutError):
                if b"WATCHDOG=1" in systemd.recv(4096) and time.monotonic() > frozen_s + 1:
                    pinged_s = time.monotonic()
        if pinged_s > frozen_s:
            raise Untrue("the watchdog is told that all is well")
        if "frozen: arbiter" not in rig.said() or "Current thread" not in rig.said():
            raise Untrue("no stacks in the log")
    rig.kill(signal.SIGABRT)  # as the watchdog does
    rig.gone()
    _again(rig)


def _dead_thread(rig: Rig, run: int) -> None:
    threads = INNER_THREADS + VISION_THREADS
    rig.kill(signal.SIGTERM)
    rig.gone()
    for thread in threads:
        rig.start(INSPECTOR_FAULT=f"raise:{thread}:6")
        rig.wait_permit(True, 20.0)
        if thread in VISION_THREADS:
            before = rig.vision_pid
            until(lambda: rig.vision_pid != before, 20.0, "vision is not started again")  # noqa: B023 - called at once
            if f"thread {thread}" not in rig.said():
                raise Untrue(f"nobody says that {thread} died")
            rig.kill()
        if rig.gone() == 0:
            raise Untrue(f"the daemon ends well although {thread} died")
        rig.wait_permit(False, 1.0)
    _again(rig)


# --- vision ------------------------------------------------------------------------------------------------------------


def _check_says(words: str, reasons: set[int], *, for_s: float = 1.0) -> Callable[[Rig, int], None]:
    """A check that misbehaves costs its parts, never a PASS."""

    def inject(rig: Rig, run: int) -> None:
        at_ns = time.monotonic_ns()
        rig.ask("check", words)
        rig.wait_reason(reasons, at_ns + NS // 5)
        time.sleep(for_s)
        rig.stop_asking("check")
        time.sleep(0.3)
        rig.well()

    return inject


def _slow_check(rig: Rig, run: int) -> None:
    at_ns = time.monotonic_ns()
    rig.ask("check", f"slow {10 * 530}")
    rig.wait_reason({204, 208}, at_ns)
    rig.stop_asking("check")
    rig.well(60.0)


def _crash(words: str) -> Callable[[Rig, int], None]:
    def inject(rig: Rig, run: int) -> None:
        before, at_ns = rig.vision_pid, time.monotonic_ns()
        rig.ask("check", words)
        until(lambda: rig.vision_pid != before, 30.0, "vision is not started again")
        rig.wait_reason({205, 209}, at_ns)
        rig.well(60.0)

    return inject


def _memory(rig: Rig, run: int) -> None:
    """Address space that ends: the picture is not judged, or vision is started again; the gate does not notice."""
    pid, at_ns = rig.vision_pid, time.monotonic_ns()
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (128 << 20), resource.RLIM_INFINITY))
    rig.ask("check", "memory")
    rig.wait_reason({205, 209}, at_ns)
    rig.stop_asking("check")
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    rig.well(60.0)


def _camera(word: str, reasons: set[int], alarm: str) -> Callable[[Rig, int], None]:
    def inject(rig: Rig, run: int) -> None:
        at_ns = time.monotonic_ns()
        rig.ask("camera", word)
        rig.wait_reason(reasons, at_ns)
        if alarm:
            rig.alarm(alarm, at_ns)
            rig.wait_permit(False, 5.0)
        else:
            time.sleep(1.0)
        rig.stop_asking("camera")
        rig.well(60.0)

    return inject


def _burst(rig: Rig, run: int) -> None:
    """Ten times as many parts for a second: each has a verdict, the memory stays, and two seconds later all is as before."""
    before = rig.metric("gate", "inspector_triggers_total")
    mib = rig.resident_mib()
    rate = 3 * RATE_PER_LANE
    began_s = time.monotonic()

    def burst() -> bool:
        nonlocal before
        now = rig.metric("gate", "inspector_triggers_total")
        more, before = now - before, now
        return more > 3 * rate * 0.4

    while not burst():
        time.sleep(0.4)
        if time.monotonic() > began_s + 30:
            raise Untrue("no burst came")
    rig.count("memory MiB more", rig.resident_mib() - mib)
    time.sleep(3.0)
    if rig.metric("gate", "inspector_parts_pending") > 3 * rate:
        raise Untrue("the parts of the burst are still open")
    rig.well()


def _pressure(words: str) -> Callable[[Rig, int], None]:
    """Vision's interpreter is kept busy: the gate, in its own process, does not notice."""

    def inject(rig: Rig, run: int) -> None:
        at_ns = time.monotonic_ns()
        rig.ask("check", words)
        time.sleep(4.5)
        for name in NAMES:
            if any(line["what"] == "permit" and line["at_ns"] > at_ns for line in rig.lines(name)):
                raise Untrue(f"{name} lost the permit")
        rig.well()

    return inject


# --- gateways and the network ------------------------------------------------------------------------------------------


def _mute(rig: Rig, run: int) -> None:
    resent, at_ns = rig.metric("gate", "inspector_resent_total"), time.monotonic_ns()
    rig.ask("plc", "mute")
    rig.alarm("DELIVERY_UNCONFIRMED", at_ns)
    rig.wait_permit(False, 5.0, "python")
    if not all(rig.permit(name) for name in ("c", "node")):
        raise Untrue("other lanes lost their permit")
    if rig.metric("gate", "inspector_resent_total") <= resent:
        raise Untrue("nothing was sent again")
    rig.stop_asking("plc")
    rig.well()


def _stranger(rig: Rig, stack: ExitStack) -> zmq.Socket[bytes]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    end = context.socket(zmq.DEALER)
    end.connect(rig.gate_at)
    return end


def _say(end: zmq.Socket[bytes], name: str, body: Mapping[str, Any]) -> None:
    end.send_multipart(protocol.command(name, body))


def _hear(end: zmq.Socket[bytes], wanted: str, within_s: float = 5.0) -> dict[str, Any]:
    until_s = time.monotonic() + within_s
    while end.poll(max(0, round(1e3 * (until_s - time.monotonic())))):
        frames = end.recv_multipart()
        if frames[0] == wanted.encode():
            return protocol.loads(frames[2])
    raise Untrue(f"no {wanted} from the gate")


def _hello(name: str, lane: int) -> dict[str, Any]:
    terms = Terms(client=name, station=STATION, lanes=(lane,))
    found: dict[str, Any] = protocol.loads(Gateway("tcp://127.0.0.1:1", terms).core.tick(0)[0][2])
    return found


def _wrong_ack(rig: Rig, run: int) -> None:
    """The Python gateway makes way for one that confirms what was never sent, or what another daemon sent."""
    process = rig.peers[NAMES.index("python")]
    process.send_signal(signal.SIGSTOP)
    rig.alarm("GATEWAY_LOST", time.monotonic_ns(), 20.0)
    with ExitStack() as stack:
        stack.callback(process.send_signal, signal.SIGCONT)
        end = _stranger(rig, stack)
        for epoch, upto in ((rig.epochs[-1], "999999999"), (protocol.epoch_text(bytes(16)), "1")):
            at_ns = time.monotonic_ns()
            _say(end, "HELLO", _hello("liar", 0))
            _hear(end, "WELCOME")
            _say(end, "ACK", {"epoch": epoch, "upto": upto})
            if _hear(end, "REFUSE")["code"] != "E_ACK":
                raise Untrue("another refusal than E_ACK")
            rig.alarm("E_ACK", at_ns)
    rig.well()


def _busy(rig: Rig, run: int) -> None:
    at_ns = time.monotonic_ns()
    with ExitStack() as stack:
        end = _stranger(rig, stack)
        _say(end, "HELLO", _hello("second", run % 3))
        if _hear(end, "REFUSE")["code"] != "E_BUSY":
            raise Untrue("another refusal than E_BUSY")
        time.sleep(0.5)
    for name in NAMES:
        if any(line["what"] == "permit" and line["at_ns"] > at_ns for line in rig.lines(name)):
            raise Untrue(f"{name} lost the permit")
    rig.well()


def _bad_network(rig: Rig, run: int) -> None:
    """What loss and jitter look like above TCP: everything waits, each time for another while, and one direction stands still."""
    assert rig.proxy is not None
    rig.proxy.delay_s, rig.proxy.jitter_s = 0.02, 0.2
    time.sleep(3)
    rig.proxy.still = {(FROM_GATE, FROM_GATEWAY)[run % 2]}
    time.sleep(1)
    rig.proxy.calm()
    rig.well()


def _half_open(rig: Rig, run: int) -> None:
    assert rig.proxy is not None
    at_ns = time.monotonic_ns()
    rig.proxy.still = {FROM_GATE, FROM_GATEWAY}
    rig.permit_off(at_ns)
    until(lambda: rig.metric("gate", "inspector_permit") == 0, 2.0, "the gate does not see that its gateways are silent")
    time.sleep(0.5)
    rig.proxy.calm()
    rig.well()


def _resets(rig: Rig, run: int) -> None:
    assert rig.proxy is not None
    before = _descriptors_of(rig.process.pid)
    for _ in range(60):
        rig.proxy.reset()
        time.sleep(0.05)
    rig.well()
    after = _descriptors_of(rig.process.pid)
    if after > before + 12:
        raise Untrue(f"{before} descriptors became {after}")


def _flips(rig: Rig, run: int) -> None:
    assert rig.proxy is not None
    rig.proxy.flip_ratio, rig.proxy.cut_ratio = 0.1, 0.01
    time.sleep(5)
    rig.proxy.calm()
    rig.count("flipped", rig.proxy.flipped)
    rig.proxy.reset()
    rig.well()


def _replayed(rig: Rig, run: int) -> None:
    """What the gate said to gateways in one epoch is said to them again in the next one: nothing of it is acted on."""
    assert rig.proxy is not None
    rig.proxy.recording = True
    rig.proxy.reset()
    rig.well()
    time.sleep(1.0)
    rig.proxy.recording = False
    old = [message for message in rig.proxy.recorded if b"VERDICT" in message[:12] or b"HB" in message[:6]][-60:]
    if len(old) < 20:
        raise Untrue(f"only {len(old)} messages were recorded")
    rig.kill()
    rig.gone()
    _again(rig)
    at_ns = time.monotonic_ns()
    rig.proxy.insert = old
    until(lambda: any(n["what"] == "bad" and n["at_ns"] > at_ns for name in NAMES for n in rig.lines(name)), 10.0, "nobody noticed")
    rig.well()


# --- readers -----------------------------------------------------------------------------------------------------------


def _stalled(rig: Rig, run: int) -> None:
    """Twenty subscribers that never read."""
    at_ns = time.monotonic_ns()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        for _ in range(20):
            end = context.socket(zmq.SUB)
            end.setsockopt(zmq.RCVHWM, 1)
            end.setsockopt(zmq.SUBSCRIBE, b"insp1/")
            end.connect(rig.events_at)
        time.sleep(4)
        rig.well()
        if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
            raise Untrue("the permit was lost")
    finally:
        context.destroy(linger=0)


def _replay_storm(rig: Rig, run: int) -> None:
    """Ten clients ask for everything, again and again."""
    at_ns, got = time.monotonic_ns(), 0
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ends = []
    try:
        for _ in range(10):
            end = context.socket(zmq.DEALER)
            end.setsockopt(zmq.LINGER, 0)
            end.connect(rig.replay_at)
            ends.append(end)
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            for number, end in enumerate(ends):
                body = {"id": number, "stream": "q", "epoch": rig.epochs[-1], "from": "1", "to": "1000000"}
                with suppress(zmq.Again):
                    end.send_multipart(protocol.command("REPLAY", body), zmq.NOBLOCK)
                while end.poll(0):
                    frames = end.recv_multipart()
                    got += frames[0] == b"EVENT"
                    if frames[0] == b"CHUNK":
                        end.send_multipart(protocol.command("MORE", {"id": number}))
            time.sleep(0.01)
        if got > 5.5 * EVENTS_PER_S:
            raise Untrue(f"{got} events in 5 s are more than the rate allows")
        rig.count("replayed", got)
        if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
            raise Untrue("the permit was lost")
    finally:
        context.destroy(linger=0)
    rig.well()


def _long_reader(rig: Rig, run: int) -> None:
    """Somebody else reads the journal in one transaction; the write-ahead log grows meanwhile, and no more."""
    db = sqlite3.connect(f"file:{rig.state / 'journal.sqlite'}?mode=ro", uri=True, isolation_level=None)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM event").fetchone()
    time.sleep(10)
    rig.count("WAL MiB", (rig.state / "journal.sqlite-wal").stat().st_size / 2**20)
    db.execute("COMMIT")
    db.close()
    rig.well()


def _scraped(rig: Rig, run: int) -> None:
    """The metrics are asked for every 10 ms, and by some who never read the answer."""
    address = json.loads((rig.folder / "ready.json").read_text())["endpoints"]["metrics_gate"]
    host, port = address.split(":")
    at_ns = time.monotonic_ns()
    with ExitStack() as stack:
        for _ in range(20):
            end = stack.enter_context(socket.create_connection((host, int(port))))
            end.sendall(b"GET /metrics HTTP/1.1\r\n")
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            rig.page("gate")
            time.sleep(0.01)
    if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
        raise Untrue("the permit was lost")
    rig.well()


# --- strangers ---------------------------------------------------------------------------------------------------------


def _garbage(rig: Rig, run: int) -> None:
    """Noise, a frame that says it has 1 GiB, and a thousand connections that say nothing, on each port."""
    mib, random, at_ns = rig.resident_mib(), _random(run), time.monotonic_ns()
    ports = [int(address.rpartition(":")[2]) for address in (rig.gate_at, rig.events_at, rig.replay_at)]
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(1000):
            with suppress(OSError):
                end = stack.enter_context(socket.create_connection(("127.0.0.1", ports[number % 3]), timeout=1))
                if number % 10 == 0:
                    end.sendall(random.randbytes(500))
                elif number % 10 == 1:
                    end.sendall(greeting + ready + b"\x02" + struct.pack(">Q", 1 << 30) + bytes(4000))
        began_s = time.monotonic()
        with ExitStack() as inner:
            stranger = _stranger(rig, inner)
            _say(stranger, "PING", {})
            _hear(stranger, "PONG")
        rig.count("good client served s", time.monotonic() - began_s)
        time.sleep(1)
        rig.count("memory MiB more", rig.resident_mib() - mib)
    if rig.resident_mib() > mib + 50:
        raise Untrue(f"{rig.resident_mib() - mib:.0f} MiB more")
    if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
        raise Untrue("the permit was lost")
    rig.well()


def _descriptors(rig: Rig, run: int) -> None:
    """No more descriptors: nobody new comes in, who is there stays."""
    pid, at_ns = rig.process.pid, time.monotonic_ns()
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_descriptors_of(pid) + 3, before[1]))
    ports = [int(address.rpartition(":")[2]) for address in (rig.gate_at, rig.events_at, rig.replay_at)]
    with ExitStack() as stack:
        for number in range(60):
            with suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", ports[number % 3]), timeout=1))
        time.sleep(2)
        if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
            raise Untrue("who was there lost the permit")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    rig.well()


def _secure(rig: Rig, run: int) -> None:
    """With CURVE: while the thread that answers for ZAP dies again and again, no unknown key is let in, and a known one still is."""
    rig.kill(signal.SIGTERM)
    rig.gone()
    folder = rig.folder / f"keys{run}"
    folder.mkdir()
    server, known = security.write_pair(folder / "server.key"), security.write_pair(folder / "known.key")
    (folder / "clients").write_text(f"{known.public.decode()} gate known\n")
    plain = dict(rig.settings)
    rig.settings["security"] = {"server_key": str(folder / "server.key"), "clients": str(folder / "clients")}
    rig.write_settings()
    rig.start(INSPECTOR_FAULT="raise:zap:6")
    stranger = security.Pair(*zmq.curve_keypair())
    end_s = time.monotonic() + 16
    while time.monotonic() < end_s:
        if _answered(rig.gate_at, server, stranger):
            raise Untrue("a key that nobody knows is let in")
        if rig.process.poll() is not None:
            raise Untrue("the daemon ended")
    if 'code="ZAP"' not in rig.page("gate"):
        raise Untrue("the thread did not die")
    until(lambda: _answered(rig.gate_at, server, known), 10.0, "a known key is not let in")
    rig.settings.clear()
    rig.settings.update(plain)
    rig.write_settings()
    rig.kill(signal.SIGTERM)
    rig.gone()
    _again(rig)


def _answered(endpoint: str, server: security.Pair, keys: security.Pair) -> bool:
    """A PING over a connection of its own has its PONG within a second."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        end = context.socket(zmq.DEALER)
        for option, key in ((zmq.CURVE_SERVERKEY, server.public), (zmq.CURVE_PUBLICKEY, keys.public), (zmq.CURVE_SECRETKEY, keys.secret)):
            end.setsockopt(option, key)
        end.connect(endpoint)
        end.send_multipart(protocol.command("PING"))
        return bool(end.poll(1000))
    finally:
        context.destroy(linger=0)


# --- disk and clock ----------------------------------------------------------------------------------------------------


def _fsync_once(rig: Rig, run: int) -> None:
    """The disk fails once: this file is never tried again, and the chain goes on in another."""
    at_ns = time.monotonic_ns()
    rig.journal_whole = False
    rig.ask("disk", f"once {errno.EIO}")
    rig.alarm("JOURNAL", at_ns)
    rig.well()
    until(lambda: list(rig.state.glob("journal.sqlite.bad-*")), 10.0, "the file that failed was not left")


def _fails_for_long(words: str) -> Callable[[Rig, int], None]:
    def inject(rig: Rig, run: int) -> None:
        at_ns = time.monotonic_ns()
        rig.journal_whole = False
        rig.ask("disk", words)
        began_ns = time.monotonic_ns()
        alarm_s = (rig.alarm("JOURNAL", at_ns, 5.0)["at_ns"] - at_ns) / NS  # though it cannot be kept
        rig.count("alarm after s", alarm_s)
        if alarm_s > 1.0:
            raise Untrue(f"the alarm came after {alarm_s:.1f} s")
        rig.wait_permit(False, 15.0)  # the policy: stop after 5 s
        rig.count("permit off after s", (time.monotonic_ns() - began_ns) / NS)
        if not rig.verdicts("python", time.monotonic_ns() - NS):
            raise Untrue("verdicts have stopped")
        rig.stop_asking("disk")
        rig.well(60.0)

    return inject


def _slow_disk(rig: Rig, run: int) -> None:
    """Every sync takes 5 s: verdicts go on, the permit ends after 5 s without a durable journal."""
    at_ns = time.monotonic_ns()
    rig.ask("disk", "slow 5000")
    rig.alarm("JOURNAL", at_ns, 5.0)
    rig.wait_permit(False, 20.0)
    rig.count("permit off after s", (time.monotonic_ns() - at_ns) / NS)
    if not rig.verdicts("c", time.monotonic_ns() - NS):
        raise Untrue("verdicts have stopped")
    rig.stop_asking("disk")
    rig.well(60.0)


def _flipped_journal(rig: Rig, run: int) -> None:
    """A byte of what a killed daemon left is another: it is found at start, or changes nothing that is read."""
    rig.journal_whole = False
    rig.kill()
    rig.gone()
    random = _random(run)
    name = ("journal.sqlite", "journal.sqlite-wal", "journal.head")[run % 3]
    path = rig.state / name
    before = {str(p): p.read_bytes() for p in rig.state.glob("journal.*") if p.suffix != ".sqlite-shm"}
    if path.exists() and path.stat().st_size:
        broken = bytearray(path.read_bytes())
        broken[random.randrange(len(broken))] ^= 1 << random.randrange(8)
        path.write_bytes(broken)
    del before
    _again(rig)


def _robbed(rig: Rig, run: int) -> None:
    """The journal is gone, or an older copy stands in its place, with or without its witness; the gateways remember."""
    rig.journal_whole = False
    kept = rig.folder / "older"
    if run % 2:
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        rig.kill(signal.SIGTERM)
        rig.gone()
        for path in rig.state.glob("journal.*"):
            shutil.copy(path, kept)
        _again(rig)
        time.sleep(0.5)
    rig.kill()
    rig.gone()
    for path in rig.state.glob("journal.*"):
        path.unlink()
    if run % 2:
        for path in kept.iterdir():
            shutil.copy(path, rig.state)
    at_ns = time.monotonic_ns()
    rig.start()
    rig.alarm("JOURNAL_ROLLBACK", at_ns, 20.0)
    rig.well()
    rig.told()


def _clock(rig: Rig, run: int) -> None:
    """UTC jumps by an hour and back: an alarm, and no deadline moves."""
    for off_s in (3600, -3600, 0):
        at_ns = time.monotonic_ns()
        rig.ask("clock", str(off_s))
        rig.alarm("CLOCK_JUMP", at_ns)
        time.sleep(0.5)
        for name in NAMES:
            if any(line["what"] == "permit" and line["at_ns"] > at_ns for line in rig.lines(name)):
                raise Untrue(f"{name} lost the permit")
    rig.well()


# --- the operator and the system ---------------------------------------------------------------------------------------


def _log_storm(rig: Rig, run: int) -> None:
    """Vision writes a hundred thousand lines to the log, and nobody reads it."""
    rig.kill(signal.SIGTERM)
    rig.gone()
    environment = {**rig.environment}
    read, write = os.pipe()
    (rig.folder / "ready.json").unlink(missing_ok=True)
    with (rig.folder / "out.txt").open("ab") as out:
        command = [sys.executable, "-m", "inspector", "run", str(rig.path), "--allow-root", "--quiet"]
        rig.daemon = subprocess.Popen(command, env=environment, stdout=out, stderr=write)
    os.close(write)
    try:
        rig.ready()
        rig.well()
        at_ns = time.monotonic_ns()
        rig.ask("check", "storm 100000")
        time.sleep(4)
        if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
            raise Untrue("the permit was lost")
        rig.well()
    finally:
        drained = threading.Thread(target=_drain, args=(read,), daemon=True)
        drained.start()
    rig.kill(signal.SIGTERM)
    rig.gone()
    _again(rig)


def _drain(descriptor: int) -> None:
    with suppress(OSError):
        while os.read(descriptor, 1 << 16):
            pass
    os.close(descriptor)


def _reloads(rig: Rig, run: int) -> None:
    """Wrong, half-written and two at once: what is in force stays, and the log says why."""
    whole = rig.path.read_text()
    said = len(rig.said())
    for text in ("nonsense: [", whole[: len(whole) // 2], whole.replace("kind: watched", "kind: watced")):
        rig.write_settings(text)
        before = rig.said().count("the recipe stays as it is")
        rig.kill(signal.SIGHUP)
        until(lambda: rig.said().count("the recipe stays as it is") > before, 15.0, "a wrong file is not refused")  # noqa: B023
    rig.write_settings()
    for _ in range(2):
        rig.kill(signal.SIGHUP)
    rig.well()
    if str(rig.path) not in rig.said()[said:]:
        raise Untrue("the log does not name the file")


def _model_swap(rig: Rig, run: int) -> None:
    """A recipe whose model is not what its card says: refused, the old one goes on, no part is lost."""
    at_ns = time.monotonic_ns()
    models = Path(__file__).parents[2] / "models"
    folder = rig.folder / "models"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in models.glob("surface*"):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copy(path, folder)
    broken = bytearray((folder / "surface.onnx").read_bytes())
    if run % 2:
        broken = broken[: len(broken) // 2]
    else:
        broken[len(broken) // 2] ^= 1
    (folder / "surface.onnx").write_bytes(broken)
    drawing = Path(__file__).parents[2] / "dxf_templates" / "plate.dxf"
    recipe = {
        "template": {"drawing": str(drawing), "scale_px_per_mm": 1.0},
        "checks": {"surface": {"kind": "surface", "model": str(folder / "surface.onnx"), "limits_mm2": {"scratch": 1.0}}},
    }
    rig.write_settings(json.dumps({**rig.settings, "recipes": {"plate": recipe}}))
    before = rig.said().count("the recipe stays as it is")
    rig.kill(signal.SIGHUP)
    until(lambda: rig.said().count("the recipe stays as it is") > before, 30.0, "a wrong model is not refused")
    if "E_MODEL" not in rig.said():
        raise Untrue(f"no E_MODEL in the log: {rig.said()[-300:]}")
    rig.write_settings()
    rig.well()
    if lost := rig.reasons(at_ns) & {201, 202, 203, 205, 206, 207, 209}:
        raise Untrue(f"parts were lost: {lost}")


def _end(rig: Rig, run: int) -> None:
    """SIGTERM at work; a second one; one while it starts."""
    how = run % 3
    if how == 2:
        rig.kill(signal.SIGTERM)
        rig.gone()
        rig.spawn()
        time.sleep(0.3 + 0.4 * _random(run).random())
        rig.kill(signal.SIGTERM)
        if rig.gone() not in (0, -signal.SIGTERM):
            raise Untrue(f"it ends with {rig.process.returncode} when it is stopped while it starts")
    else:
        at_ns = rig.kill(signal.SIGTERM)
        if how == 1:
            time.sleep(0.05)
            rig.kill(signal.SIGTERM)
        if rig.gone() != 0:
            raise Untrue(f"it ends with {rig.process.returncode}")
        rig.permit_off(at_ns)
    _again(rig)


def _crash_loop(rig: Rig, run: int) -> None:
    """A daemon that dies again and again at its start: no gateway ever has the permit."""
    rig.kill(signal.SIGTERM)
    rig.gone()
    rig.wait_permit(False, 2.0)
    at_ns = time.monotonic_ns()
    for _ in range(5):
        rig.spawn(INSPECTOR_FAULT="raise:arbiter:0")
        if rig.gone() == 0:
            raise Untrue("it ends well")
    if any(line["what"] == "permit" and line["on"] and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
        raise Untrue("a gateway had the permit")
    _again(rig)


def _two_daemons(rig: Rig, run: int) -> None:
    command = [sys.executable, "-m", "inspector", "run", str(rig.path), "--allow-root", "--quiet"]
    second = subprocess.run(command, env=rig.environment, capture_output=True, text=True, timeout=60, check=False)
    if second.returncode != 78 or "E_LOCK" not in second.stderr or str(rig.process.pid) not in second.stderr:
        raise Untrue(f"the second ends with {second.returncode}: {second.stderr[-300:]}")
    rig.well()


def _desk_flood(rig: Rig, run: int) -> None:
    """A thousand requests a second to the operator's page, a hundred that stay, and a body of 1 GiB."""
    port = free_ports(1)[0]
    path = rig.folder / "desk.yaml"
    path.write_text(json.dumps({**rig.settings, "desk": {"bind": f"127.0.0.1:{port}"}}))
    command = [sys.executable, "-m", "inspector", "desk", str(path)]
    with (rig.folder / "desk.err").open("ab") as err:
        desk = subprocess.Popen(command, env=rig.client_environment | {"PYTHONPATH": rig.environment["PYTHONPATH"]}, stdout=err, stderr=err)
    try:
        url = f"http://127.0.0.1:{port}/"

        def answers() -> bool:
            with suppress(OSError):
                return bool(urllib.request.urlopen(url, timeout=2).status == 200)
            return False

        until(answers, 30.0, "the desk does not answer")
        at_ns = time.monotonic_ns()
        codes: dict[str, int] = {}
        with ExitStack() as stack:
            for _ in range(100):
                end = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2))
                end.sendall(b"GET /live/line HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
            until_s = time.monotonic() + 4
            while time.monotonic() < until_s:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as end:
                    end.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20)
                    code = end.recv(16)[9:12].decode()
                    codes[code] = codes.get(code, 0) + 20
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as end:
                end.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1073741824\r\n\r\n")
                end.sendall(bytes(1 << 20))
                code = end.recv(16)[9:12].decode()
                if code.startswith("2"):
                    raise Untrue(f"a body of 1 GiB is answered with {code}")
        rig.count("requests", sum(codes.values()))
        if any(line["what"] == "permit" and line["at_ns"] > at_ns for name in NAMES for line in rig.lines(name)):
            raise Untrue("the permit was lost")
    finally:
        desk.kill()
        desk.wait()
    rig.well()


# --- failpoints --------------------------------------------------------------------------------------------------------


def _failpoints(rig: Rig, run: int) -> None:
    """The daemon dies, or sleeps for a second, at each named point."""
    how, hit = ("die", "sleep")[run % 2], rig.control / "failpoint.hit"
    missed = []
    for name in failpoints():
        hit.unlink(missing_ok=True)
        rig.ask("failpoint", f"{how} {name}")
        end_s = time.monotonic() + 2.5
        while not hit.exists() and time.monotonic() < end_s:
            time.sleep(0.01)
        if not hit.exists() and rig.process.poll() is None:  # a point of the end or of the start
            rig.kill(signal.SIGTERM)
            rig.gone(30.0)
            if not hit.exists():
                rig.spawn()
                end_s = time.monotonic() + 10
                while not hit.exists() and time.monotonic() < end_s:
                    time.sleep(0.01)
        if not hit.exists():
            missed.append(name)
            rig.stop_asking("failpoint")
        rig.count("points", 1)
        time.sleep(0.4 if how == "die" else 1.2)
        if rig.process.poll() is not None:
            rig.gone()
            rig.wait_permit(False, 1.5)
            _again(rig)
        else:
            if len(rig.epochs) == 0 or not (rig.folder / "ready.json").exists():
                rig.ready()
            rig.well(60.0)
    if len(missed) > 2:
        raise Untrue(f"points that were never reached: {missed}")


def _root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def _shim() -> str:
    return "" if shutil.which("cc") else "no C compiler"


FAULTS = (
    Fault(
        "F01", "kill -9 of the gate at a random moment",
        "permit off within the lease, new epoch, nothing committed is lost, no number is reused",
        _kill_gate, quick=True, runs=100,
    ),
    Fault("F02", "kill -9 of vision", "parts are 209 until it is back, the gate's sessions stay", _kill_vision, quick=True),
    Fault("F03", "SIGSTOP of the gate for 1 s", "permit off within the lease, no overdue PASS afterwards", _stop_gate(1.0), quick=True),
    Fault("F03b", "SIGSTOP of the gate for 10 s", "as F03", _stop_gate_long),
    Fault("F04", "the arbiter stands still", "no WATCHDOG=1, stacks logged, permit off, runs again after the watchdog's kill", _freeze),
    Fault(
        "F05", "an exception in each thread in turn",
        "exit code not 0 (gate), or vision started again; never half alive",
        _dead_thread,
    ),
    Fault("F06", "judging takes ten times the deadline", "208 or 204 in time, then the next part", _slow_check),
    Fault("F07", "abort and segfault in native code", "vision started again, its parts rejected", _crash("segfault")),
    Fault(
        "F08", "NaN, infinity, too few answers of a check",
        "215, 205 or a reject; never PASS",
        lambda rig, run: _check_says(("nan", "inf", "shape")[run % 3], {101, 205, 215, 100, 102})(rig, run),
    ),
    Fault("F09", "memory of vision ends", "205, or vision started again; the gate does not notice", _memory),
    Fault(
        "F16", "frozen and black pictures",
        "211, BLIND, permit off",
        lambda rig, run: _camera(("frozen", "black")[run % 2], {211}, "BLIND")(rig, run),
    ),
    Fault(
        "F17", "a camera that has lost its settings",
        "203, CAMERA_DOWN, permit off until it is back",
        _camera("settings", {203}, "CAMERA_DOWN"),
    ),
    Fault("F18", "exposures lost", "201 or 208 for exactly these parts", _camera("lost", {201, 208, 210}, "")),
    Fault(
        "F19", "ten times as many parts for a second",
        "explicit rejects at most, memory bounded, normal again",
        _burst, changes={"conveyor": {"kind": "bursting", "rate_parts_per_s": RATE_PER_LANE, "lanes": [0, 1, 2], "every_s": 8.0}},
    ),
    Fault(
        "F22", "a gateway never acknowledges",
        "sent again, DELIVERY_UNCONFIRMED, its permit off, other lanes unaffected",
        _mute, quick=True,
    ),
    Fault("F23", "ACK of a future number and of another epoch", "E_ACK, session closed, alarm", _wrong_ack),
    Fault("F25", "a second gateway for a lane", "E_BUSY, the first unaffected", _busy),
    Fault("F26", "200 ms of jitter, one direction still", "no false PASS, runs again by itself", _bad_network, proxied=True),
    Fault("F27", "half-open connections", "both sides see it within the lease", _half_open, proxied=True, quick=True),
    Fault("F28", "TCP RST every 50 ms", "descriptors stable, runs again", _resets, proxied=True),
    Fault("F29", "bits flipped and bytes cut in the stream", "no message, counted, default reject", _flips, proxied=True),
    Fault("F30", "a recorded epoch said again", "ignored and counted", _replayed, proxied=True),
    Fault("F31", "20 subscribers that never read", "gateways keep the permit", _stalled),
    Fault("F32", "ten clients replay everything again and again", "rate bounded, gateways keep the permit", _replay_storm),
    Fault("F33", "the ZAP thread dies", "no stranger comes in, who is known does, the line goes on", _secure),
    Fault("F34", "garbage, giant frames, 1000 silent connections", "a good client is served, memory bounded", _garbage),
    Fault("F36", "fsync says EIO once", "the file is left, a new one follows its chain", _fsync_once, shimmed=True, needs=_shim),
    Fault(
        "F36b", "fsync says EIO always",
        "alarm within 1 s, permit off after 5 s, verdicts go on, runs again",
        _fails_for_long(f"fsync {errno.EIO}"), shimmed=True, needs=_shim,
    ),
    Fault(
        "F37", "writes say ENOSPC, EDQUOT, EROFS",
        "alarm within 1 s, permit off after 5 s, verdicts go on, runs again",
        lambda rig, run: _fails_for_long(f"write {(errno.ENOSPC, errno.EDQUOT, errno.EROFS)[run % 3]}")(rig, run),
        shimmed=True, needs=_shim,
    ),
    Fault("F38", "fsync takes 5 s", "verdicts go on, permit off after 5 s, runs again", _slow_disk, shimmed=True, needs=_shim),
    Fault("F39", "a bit flipped in database, log or witness", "found at start, or nothing that is read is changed", _flipped_journal),
    Fault("F40", "the journal is gone, or an older copy", "JOURNAL_ROLLBACK by witness or gateway", _robbed, runs=4),
    Fault("F41", "a reader holds a transaction", "the line runs, the log is bounded by it", _long_reader),
    Fault("F42", "UTC jumps by an hour and back", "CLOCK_JUMP, no deadline moves", _clock, shimmed=True, needs=_shim),
    Fault("F45", "three busy threads in vision's interpreter", "gateways keep the permit", _pressure("hogs")),
    Fault("F46", "two million objects collected in vision", "gateways keep the permit", _pressure("garbage")),
    Fault("F47", "100,000 lines to a log that nobody reads", "gateways keep the permit, runs on", _log_storm),
    Fault("F48", "no descriptors left", "who is there keeps the permit", _descriptors),
    Fault("F49", "SIGHUP with a wrong, a half and two files", "what is in force stays, the log names the file", _reloads, quick=True),
    Fault("F50", "a model that is not what its card says", "E_MODEL_*, the old one stays, no part is lost", _model_swap),
    Fault("F51", "SIGTERM at work, twice, while it starts", "ends well, permit off", _end),
    Fault("F52", "a daemon that dies at every start", "no gateway has the permit", _crash_loop),
    Fault("F56", "the operator's page is flooded", "gateways keep the permit, a giant body is refused", _desk_flood),
    Fault("F57", "metrics every 10 ms, and readers that hang", "gateways keep the permit", _scraped),
    Fault(
        "F58", "death, or a second's sleep, at each of the named points",
        "as F01",
        _failpoints, runs=2, environment={"INSPECTOR_TEST_FAILPOINTS": "1"},
    ),
    Fault("F59", "a second daemon for one state folder", "E_LOCK naming the process, the first unaffected", _two_daemons),
)  # fmt: skip
"""F10 to F13, F15, F35, F43, F53 to F55 and F60 need hardware, another machine or another version; F14, F20, F21 and F24 are the
simulator's."""
