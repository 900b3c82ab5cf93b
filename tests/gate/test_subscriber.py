"""The reference subscriber: what it cannot have any more it says, and a new start of the daemon needs no event to be noticed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from inspector.client import Hole, Message, Subscriber
from inspector.gate import journal as kept
from inspector.gate import protocol, replay
from inspector.gate.arbiter import Record
from inspector.gate.journal import Journal, Reader
from inspector.gate.protocol import Header, Kind
from tests.faults import clients
from tests.gate.line import until
from tests.gate.test_journal import UTC_NS, _records
from tests.gate.test_peers import speaking

FIRST, SECOND, THIRD, UNKNOWN = (protocol.epoch(UTC_NS + at, bytes(10)) for at in (0, 10**9, 2 * 10**9, -(10**9)))
PARTS = {FIRST: 7, SECOND: 30, THIRD: 4}
"""In stream q; a has two events, r every third part."""

pytestmark = pytest.mark.real


class Daemon:
    """The sockets of a daemon whose last start is `THIRD`: the heartbeat of `epoch`, and the replay of a real journal."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal.open(folder, utc_clock=lambda: UTC_NS)
        for epoch, parts in PARTS.items():
            self.journal.begin(epoch)
            self.records: list[Record] = _records(parts, self.journal, epoch)
            self.journal.commit(self.records)
        self.heads = {"q": PARTS[THIRD], "r": PARTS[THIRD] // 3, "a": len([r for r in self.records if r.stream == "a"])}
        self.server = replay.Server(Reader(folder / "journal.sqlite"))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pub, self._router = self._context.socket(zmq.PUB), self._context.socket(zmq.ROUTER)
        self.events, self.replay = (f"tcp://127.0.0.1:{s.bind_to_random_port('tcp://127.0.0.1')}" for s in (self._pub, self._router))
        self._beat_s, self.epoch = 0.0, THIRD

    def turn(self) -> None:
        """Say the heartbeat, answer what is asked."""
        if time.monotonic() - self._beat_s > 0.05:
            self._beat_s = time.monotonic()
            payload = protocol.dumps({"epoch": protocol.epoch_text(self.epoch), "head": {k: str(v) for k, v in self.heads.items()}})
            header = Header(Kind.HB, 0, self.epoch, 0, self.heads["q"], UTC_NS, 0, protocol.STREAM_IDS["hb"], 0, 0, 0)
            self._pub.send_multipart([protocol.topic("site", "line", "cell", "hb"), protocol.pack(header, payload), payload])
        while self._router.poll(0):
            identity, *frames = self._router.recv_multipart()
            for _, answer in self.server.step(time.monotonic_ns(), identity, frames, replay.Now(THIRD, self.heads, {})):
                self._router.send_multipart([identity, *answer])

    def close(self) -> None:
        """Let everything go."""
        self._context.destroy(linger=0)
        self.journal.close(clean=False)

    def told(self, **more: Any) -> list[tuple[str, int | None, int | None]]:
        """Everything up to the end of `THIRD` as (epoch, first, last), where what follows on is one; a hole has a `-` before its epoch."""
        names = {protocol.epoch_text(epoch): name for epoch, name in ((FIRST, "1"), (SECOND, "2"), (THIRD, "3"), (UNKNOWN, "0"))}
        told: list[tuple[str, int | None, int | None]] = []
        with Subscriber(self.events, clock=time.monotonic_ns, **{"replay": self.replay, **more}) as subscriber:

            def all_of_it() -> bool:
                self.turn()
                item = subscriber.receive(0.01)
                if isinstance(item, Hole):
                    told.append(("-" + names[item.epoch], item.first, item.last))
                elif isinstance(item, Message):
                    name, seq = names[item.event.epoch], item.header.seq
                    if told and told[-1][0] == name and told[-1][2] == seq - 1:
                        told[-1] = (name, told[-1][1], seq)
                    else:
                        told.append((name, seq, seq))
                return bool(told) and told[-1][0].endswith("3") and told[-1][2] == self.heads[subscriber.stream]

            until(all_of_it)
        return told


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.close()


def _since(epoch: bytes, seq: int) -> tuple[str, int]:
    return protocol.epoch_text(epoch), seq


def _prune(daemon: Daemon, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the first start, and of the second what came before its eleventh part."""
    monkeypatch.setattr(kept, "SLICE_ROWS", 1)
    db = sqlite3.connect(f"file:{folder / 'journal.sqlite'}?mode=ro", uri=True)
    while db.execute("SELECT min(seq) FROM event WHERE epoch = ? AND stream = 'q'", (SECOND,)).fetchone()[0] < 11:
        assert daemon.journal.retain(keep_ns=0, keep_bytes=0)
    db.close()


def test_a_new_start_is_seen_in_its_heartbeat(daemon: Daemon) -> None:
    assert daemon.told(since=_since(FIRST, 2)) == [("1", 3, 7), ("2", 1, 30), ("3", 1, 4)]
    assert daemon.told(since=_since(SECOND, 30)) == [("3", 1, 4)]
    assert daemon.told(since=_since(FIRST, 1), stream="r") == [("1", 2, 2), ("2", 1, 10), ("3", 1, 1)]
    assert daemon.told(since=_since(THIRD, 1)) == [("3", 2, 4)]


def test_what_retention_took_is_a_hole(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _prune(daemon, tmp_path, monkeypatch)
    assert daemon.told(since=_since(FIRST, 2)) == [("-1", 3, 7), ("-2", 1, 10), ("2", 11, 30), ("3", 1, 4)]
    assert daemon.told(since=_since(FIRST, 7)) == [("-2", 1, 10), ("2", 11, 30), ("3", 1, 4)]
    assert daemon.told(since=_since(SECOND, 2)) == [("-2", 3, 10), ("2", 11, 30), ("3", 1, 4)]
    assert daemon.told(since=_since(FIRST, 1), stream="r") == [("-1", 2, 2), ("-2", 1, 3), ("2", 4, 10), ("3", 1, 1)]
    assert daemon.told(since=_since(FIRST, 0), stream="a")[0] == ("-1", 1, len([r for r in daemon.records if r.stream == "a"]))


@pytest.mark.parametrize("seq", [0, 5])
def test_of_a_start_that_nobody_knows_any_more_nobody_knows_how_much_is_lost(daemon: Daemon, seq: int) -> None:
    assert daemon.told(since=_since(UNKNOWN, seq)) == [("-0", seq + 1, None), ("1", 1, 7), ("2", 1, 30), ("3", 1, 4)]


def test_a_stream_without_events_has_no_hole(daemon: Daemon) -> None:
    body = {"id": 1, "stream": "r", "epoch": protocol.epoch_text(THIRD), "from": "2", "to": "99"}
    answers = daemon.server.step(10**9, b"c", protocol.command("REPLAY", body), replay.Now(THIRD, daemon.heads, {}))
    assert [frames[0] for _, frames in answers] == [b"DONE"]


def test_without_a_replay_endpoint_what_was_missed_is_a_hole(daemon: Daemon) -> None:
    assert daemon.told(since=_since(SECOND, 2), replay=None) == [("-2", 3, None), ("-3", 1, 4)]


def test_a_replay_that_does_not_answer_is_a_hole(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.client.REPLAY_SILENT_NS", 10_000_000)
    monkeypatch.setattr(replay.Server, "step", lambda *_: [])
    assert daemon.told(since=_since(SECOND, 2)) == [("-2", 3, None), ("-3", 1, 4)]


def test_a_subscriber_in_node_says_the_same(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _prune(daemon, tmp_path, monkeypatch)
    program = clients.node(tmp_path, "scada.mjs") or pytest.skip(clients.NO_NODE)
    with speaking([*program, daemon.events, daemon.replay, "q"], tmp_path / "said") as said:

        def last(**fields: object) -> bool:
            daemon.turn()
            return bool(said()) and fields.items() <= said()[-1].items()

        until(lambda: bool(said()), 20.0)  # nothing was heard, so it is there
        daemon.epoch, daemon.heads["q"] = UNKNOWN, 9
        until(lambda: last(what="stale", on=False), 10.0)
        daemon.epoch, daemon.heads["q"] = THIRD, PARTS[THIRD]
        until(lambda: last(what="event", epoch=protocol.epoch_text(THIRD), seq="4"), 10.0)
        told = [(each["epoch"], each["from"], each["to"]) for each in said() if each["what"] == "hole"]
    holes = (UNKNOWN, "10", None), (FIRST, "1", "7"), (SECOND, "1", "10")
    assert told == [(protocol.epoch_text(epoch), *hole) for epoch, *hole in holes]


def test_a_hole_says_what_it_is() -> None:
    assert str(Hole("e", "q", 3, 7, "not kept")) == "stream q: events 3 to 7 of e are lost: not kept"
    assert str(Hole("e", "q", 3, None, "no longer kept")) == ("stream q: events 3 on, nobody knows how many, of e are lost: no longer kept")
