"""The lease counts from the heartbeat that was answered: what waited in the network gives no permit, and a session ends with its lease."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from inspector.gate import arbiter as core
from inspector.gate import protocol
from inspector.gate.arbiter import Arbiter, Send
from inspector.gate.gateway import Gateway, Terms
from inspector.gate.protocol import Frames, Header, Kind
from inspector.records import Verdict
from tests.gate.line import until
from tests.gate.script import EPOCH, MS, running
from tests.gate.test_peers import c_gateway, node, speaking  # noqa: F401 - fixtures


def beat(echo: str | int | None = -1, *, permit: bool = True) -> Frames:
    """The daemon's heartbeat; without `echo` that of a daemon of before."""
    payload = protocol.dumps({"state": "RUN", **({} if echo == -1 else {"echo": echo})})
    header = Header(Kind.HB, 0, EPOCH, 0, 0, 0, 0, 4, int(Verdict.PASS) if permit else 0, 0, 0)
    return [b"HB", protocol.pack(header, payload), payload]


def welcomed(now_ns: int = 0) -> Gateway:
    """A gateway that has a session since then, and has sent its first heartbeat at that moment."""
    gateway = Gateway(Terms("g", "cell-1"))
    gateway.tick(now_ns)
    gateway.receive(now_ns, protocol.command("WELCOME", {"epoch": protocol.epoch_text(EPOCH), "session": 1, "heads": {"q": "0"}}))
    assert [frames[0] for frames in gateway.tick(now_ns)] == [b"HB"]
    return gateway


@dataclass
class Wire:
    """A daemon and a gateway with a delay between them, each way in ms; order is kept."""

    gate: Arbiter = field(default_factory=running)
    gateway: Gateway = field(default_factory=lambda: Gateway(Terms("g", "cell-1")))
    up_ms: int = 0
    down_ms: int = 0
    now_ms: int = 0
    up: deque[tuple[int, Frames]] = field(default_factory=deque)
    down: deque[tuple[int, Frames]] = field(default_factory=deque)
    heartbeats: list[int] = field(default_factory=list)
    hellos: int = 0

    def _say(self, messages: list[Frames]) -> None:
        self.hellos += sum(frames[0] == b"HELLO" for frames in messages)
        self.up += [(self.now_ms + self.up_ms, frames) for frames in messages]

    def run(self, ms: int) -> list[bool]:
        """So many milliseconds; whether parts might pass in each."""
        permits = []
        for _ in range(ms):
            self.now_ms += 1
            now_ns = self.now_ms * MS
            heard: list[core.Input] = []
            while self.up and self.up[0][0] <= self.now_ms:
                heard.append(core.Received(b"g", "", self.up.popleft()[1]))
            for out in self.gate.step(now_ns, *(heard or [core.Tick()])):
                if isinstance(out, Send):
                    self.down.append((self.now_ms + self.down_ms, out.frames))
                    self.heartbeats += [self.now_ms] * (out.frames[0] == b"HB")
            while self.down and self.down[0][0] <= self.now_ms:
                self._say(self.gateway.receive(now_ns, self.down.popleft()[1]))
            self._say(self.gateway.tick(now_ns))
            permits.append(self.gateway.permit(now_ns))
        return permits


def test_before_the_daemon_has_answered_there_is_no_permit() -> None:
    gateway = welcomed()
    gateway.receive(1 * MS, beat(None))
    assert not gateway.permit(1 * MS)
    gateway.receive(2 * MS, beat("0"))
    assert gateway.permit(2 * MS)


def test_the_lease_counts_from_the_heartbeat_that_was_answered() -> None:
    gateway = welcomed()
    gateway.receive(250 * MS, beat("0"))
    assert gateway.permit(300 * MS)
    assert not gateway.permit(301 * MS)


def test_a_daemon_of_before_does_not_answer_and_its_heartbeats_count_from_their_arrival() -> None:
    gateway = welcomed()
    for at_ms in (200, 400, 600):
        gateway.receive(at_ms * MS, beat())
        assert gateway.permit((at_ms + 300) * MS)
    assert not gateway.permit(901 * MS)


@pytest.mark.parametrize("echo", [str(5 * MS), 5 * MS, "x", "-1", 1.5, True, [], {}])
def test_an_answer_to_what_was_never_sent_is_a_fault_and_gives_nothing(echo: Any) -> None:
    gateway = welcomed()
    gateway.receive(1 * MS, beat("0"))
    gateway.receive(10 * MS, beat(echo))
    assert sum(gateway.faults.values()) == 1
    assert not gateway.permit(10 * MS)


def test_an_answer_to_another_session_gives_nothing() -> None:
    gateway = welcomed()
    gateway.receive(50 * MS, protocol.command("WELCOME", {"epoch": protocol.epoch_text(EPOCH), "session": 2, "heads": {"q": "0"}}))
    gateway.tick(50 * MS)
    gateway.receive(60 * MS, beat("0"))
    assert not gateway.permit(60 * MS)
    assert not gateway.faults
    gateway.receive(61 * MS, beat(str(50 * MS)))
    assert gateway.permit(61 * MS)


def test_a_lease_that_has_run_out_ends_the_session() -> None:
    gateway = welcomed()
    gateway.receive(1 * MS, beat("0"))
    slot = gateway.expect(0, 7)
    assert gateway.tick(300 * MS)[0][0] == b"HB"
    assert [frames[0] for frames in gateway.tick(301 * MS)] == [b"HELLO"]
    assert slot.void
    gateway.receive(302 * MS, beat(str(300 * MS)))  # young enough, and yet of a session that has ended
    assert not gateway.permit(302 * MS)


def test_what_has_waited_is_looked_at_after_the_lease() -> None:
    gateway = welcomed()
    gateway.receive(1 * MS, beat("0"))
    gateway.tick(100 * MS)
    gateway.receive(350 * MS, beat(str(100 * MS)))  # before any tick: in between the PLC has seen that there was no permit
    assert not gateway.permit(350 * MS)


@pytest.mark.parametrize(("up_ms", "down_ms"), [(0, 550), (550, 0), (200, 200)])
def test_a_network_that_delays_by_more_than_a_lease_gives_no_permit(up_ms: int, down_ms: int) -> None:
    wire = Wire()
    assert wire.run(1000)[-1]
    wire.up_ms, wire.down_ms = up_ms, down_ms
    assert not any(wire.run(3000)[301:])
    wire.up_ms = wire.down_ms = 0
    assert wire.run(1000)[-1]


@pytest.mark.parametrize("delay_ms", [0, 20, 80])
def test_a_network_that_delays_by_less_ends_nothing(delay_ms: int) -> None:
    wire = Wire(up_ms=delay_ms, down_ms=delay_ms)
    assert all(wire.run(3000)[400:])
    assert wire.hellos == 1


def test_the_daemon_answers_instead_of_saying_it_twice() -> None:
    wire = Wire()
    wire.run(10_000)
    assert 98 <= len(wire.heartbeats) <= 106


def test_however_fast_heartbeats_come_answers_are_few() -> None:
    made = running()
    sent = 0
    for at_ms in range(1, 5001):
        out = made.step(at_ms * MS, core.Received(b"g", "", protocol.command("HB", {"mono_ns": str(at_ms)})))
        sent += sum(isinstance(entry, Send) and entry.frames[0] == b"HB" for entry in out)
    assert sent <= 101


def test_heartbeats_go_on_where_the_gateways_do_not_come() -> None:
    wire = Wire()
    wire.run(1000)
    wire.gateway.lose()
    wire.gateway._next_hello_ns = 1 << 62
    wire.heartbeats.clear()
    wire.run(1000)
    assert len(wire.heartbeats) >= 9


@dataclass
class Daemon:
    """A gate socket that says what the test wants."""

    socket: zmq.Socket[bytes]
    endpoint: str
    client: bytes = b""
    sent_ns: int = 0
    """What the last heartbeat showed of the client's clock."""

    def hear(self, answer: Callable[[int], int] = int) -> bytes:
        """Take a message, WELCOME a HELLO, and answer a heartbeat with `answer(mono_ns)`; its name, empty where none came."""
        if not self.socket.poll(50):
            return b""
        self.client, name, _, payload = self.socket.recv_multipart()
        if name == b"HELLO":
            welcome = {"epoch": protocol.epoch_text(EPOCH), "session": 1, "heads": {"q": "0"}}
            self.socket.send_multipart([self.client, *protocol.command("WELCOME", welcome)])
            self.socket.send_multipart([self.client, *beat(None)])
        elif name == b"HB":
            self.sent_ns = int(json.loads(payload)["mono_ns"])
            self.socket.send_multipart([self.client, *beat(str(answer(self.sent_ns)))])
        return name


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    yield Daemon(socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    context.destroy(linger=0)


def _talk(daemon: Daemon, said: Callable[[], list[dict[str, Any]]]) -> None:
    """An answer to what was never sent, answers that are young, and then none that is."""

    def told(what: str, key: str) -> list[Any]:
        return [each[key] for each in said() if each["what"] == what]

    until(lambda: daemon.hear() == b"HELLO", 10.0)
    until(lambda: daemon.hear(lambda sent_ns: sent_ns + 10**12) == b"HB")
    until(lambda: told("bad", "why") == ["echo"])
    assert not told("permit", "on")
    until(lambda: daemon.hear() == b"HB" and told("permit", "on") == [1])
    daemon.socket.send_multipart([daemon.client, *protocol.command("REFUSE", {"code": "E_DUP", "text": "of one message, and no more"})])
    until(lambda: daemon.hear() == b"HB" and len(told("refused", "said")) == 1)
    assert daemon.hear() in (b"", b"HB")
    assert told("permit", "on") == [1]
    last_ns = daemon.sent_ns
    until(lambda: daemon.hear(lambda sent_ns: last_ns) == b"HELLO")  # although heartbeats come, the session ends with the lease
    until(lambda: told("permit", "on") == [1, 0])


@pytest.mark.real
def test_a_gateway_in_c_counts_so(tmp_path: Path, c_gateway: list[str], daemon: Daemon) -> None:  # noqa: F811
    with speaking([*c_gateway, daemon.endpoint, "cell-1", "c"], tmp_path / "said") as said:
        _talk(daemon, said)


@pytest.mark.real
def test_a_gateway_in_node_counts_so(tmp_path: Path, node: Callable[[str], list[str]], daemon: Daemon) -> None:  # noqa: F811
    with speaking([*node("gateway.mjs"), daemon.endpoint, "cell-1", "node"], tmp_path / "said") as said:
        _talk(daemon, said)
