"""A fixed story told to an arbiter with fixed clocks: where the golden wire vectors come from.

`python -m tests.gate.script` writes `deploy/protocol/vectors.json` anew; do that only together with a line in its README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from inspector.gate import arbiter as core
from inspector.gate import protocol, replay
from inspector.gate.arbiter import Arbiter, Record, Send
from inspector.gate.ledger import Line
from tests.gate.line import body

VECTORS = Path(__file__).parents[2] / "deploy" / "protocol" / "vectors.json"
EPOCH = bytes.fromhex("0190a0b0c0d07e0f8a0b1c2d3e4f5061")
MS = 1_000_000
UTC_NS = 1_790_000_000_000_000_000

HELLO: dict[str, Any] = {
    "proto": {"majors": [1]},
    "client": "plc-1",
    "station": "cell-1",
    "profile": "permit",
    "travel_min_ms": 600,
    "scan_ms": 10,
    "actuator_ms": 40,
    "lease_ms": 300,
    "credit": 64,
    "last": {},
}


def settings(**more: Any) -> core.Settings:
    """A line with one camera and parts from its exposures."""
    line = Line(more.pop("cameras", {"top": 0}), more.pop("count", "frames"), 50, 600, 40, 10, more.pop("travel_counts", None))
    return core.Settings("site", "line-1", "cell-1", line, "permit", 300, 100, "0.1.0", **more)


def arbiter(now_ns: int = 0, **more: Any) -> Arbiter:
    """An arbiter at the beginning of its epoch."""
    return Arbiter(settings(**more), epoch=EPOCH, now_ns=now_ns, chain={})


def running(now_ns: int = 0, **more: Any) -> Arbiter:
    """An arbiter with vision attached, the line begun and one gateway, `g`."""
    made = arbiter(now_ns, **more)
    made.step(now_ns, core.Utc(UTC_NS, "ok"))
    made.step(now_ns, core.Attached("ab" * 32, [["net", "cd" * 32]], ["locate", "outline"]))
    made.step(now_ns, core.Begin())
    made.step(now_ns, core.Received(b"g", "", protocol.command("HELLO", HELLO)))
    return made


def story() -> Iterator[tuple[str, protocol.Frames]]:
    """(name, frames) of every message that the daemon and a gateway say to each other, and of every kind of event."""
    made = arbiter()
    kept = Told()
    topics = {"q": protocol.topic("site", "line-1", "cell-1", "q"), "a": protocol.topic("site", "line-1", "cell-1", "a")}

    def do(at_ms: int, item: core.Input) -> Iterator[tuple[str, protocol.Frames]]:
        for out in made.step(at_ms * MS, item):
            if isinstance(out, Send):
                yield f"gate {out.frames[0].decode()}", out.frames
            elif isinstance(out, Record):
                kept.records.append(out)
                kind = protocol.Kind(out.header.kind).name
                verdict = f" {out.header.verdict:#04x} reason {out.header.reason}" if kind == "VERDICT" else ""
                yield f"event {kind}{verdict}", [topics[out.stream], out.head, out.payload]

    def say(at_ms: int, name: str, said: dict[str, Any]) -> Iterator[tuple[str, protocol.Frames]]:
        frames = protocol.command(name, said)
        yield f"gateway {name}", frames
        yield from do(at_ms, core.Received(b"g", "", frames))

    epoch = protocol.epoch_text(EPOCH)
    yield from do(0, core.Utc(UTC_NS, "ok"))
    yield from do(1, core.Attached("ab" * 32, [["net", "cd" * 32]], ["locate", "outline"]))
    yield from say(2, "HELLO", {**HELLO, "proto": {"majors": [9]}})
    yield from say(3, "HELLO", HELLO)
    yield from do(4, core.Begin())
    yield from say(5, "HB", {"mono_ns": "5000000"})
    votes = (("pass", 0), ("fail", 101), ("unjudged", 202), ("unjudged", 302))
    for seq, (decision, reason) in enumerate(votes, 1):
        yield from do(10 * seq, core.Seen("top", seq, 10 * seq * MS, 1000 * seq, True, None))
        yield from do(10 * seq + 5, core.Judged("top", seq, decision, reason, "as judged" if reason else "", body()))
    yield from do(50, core.Lost("top", 5, 50 * MS, None))
    yield from say(60, "ACK", {"epoch": epoch, "upto": "4", "seq": "4"})
    yield from say(61, "CREDIT", {"n": 32})
    yield from say(62, "EXEC", {"epoch": epoch, "seq": "2", "part_seq": "2", "outcome": "EJECTED_CONFIRMED", "encoder": 2600})
    yield from do(90, core.Tick())
    yield from say(91, "ACK", {"epoch": epoch, "upto": "5", "seq": "5"})
    yield from do(95, core.CameraState("top", False, "cable"))
    yield from say(110, "TRIG", {"lane": 0, "part_seq": "6", "encoder": 6000, "gw_mono_us": "110000"})
    yield from say(111, "PING", {})
    yield from say(112, "RECIPE", {"number": 2, "id": "7"})
    yield from do(
        113, core.Changed("preparing", "1.7", "ab" * 32, [["net", "cd" * 32]], ["locate", "outline"], {"top": ["plate", 1]}, "", None)
    )
    yield from do(
        114, core.Changed("in_force", "1.7", "ef" * 32, [["net", "cd" * 32]], ["locate", "outline"], {"top": ["gear", 2]}, "", None)
    )
    yield from say(115, "RECIPE", {"number": 3, "id": "8"})
    no = "there is no recipe 3; there is plate (1), gear (2)"
    yield from do(
        116, core.Changed("refused", "1.8", "ef" * 32, [["net", "cd" * 32]], ["locate", "outline"], {"top": ["gear", 2]}, no, None)
    )
    yield from do(117, core.CameraState("top", True, ""))  # parts that nobody saw have no number: PURGE, and a new base by a new HELLO
    yield from say(118, "HELLO", {**HELLO, "last": {"q": {"epoch": epoch, "seq": "7"}}})
    witnessed = next(record for record in kept.records if record.stream == "q")
    returned = [b"RETURN", witnessed.head, witnessed.payload]
    yield "gateway RETURN", returned
    yield from do(119, core.Received(b"g", "", returned))
    yield from do(120, core.Stop())
    yield from _asked_again(kept, epoch)


@dataclass
class Told:
    """What a journal would hold of the story, for the replay to read."""

    records: list[Record] = field(default_factory=list)

    def events(self, stream: str, epoch: bytes, first: int, last: int, limit: int) -> list[Kept]:
        """Events in order."""
        stored = [Kept(r.head, r.payload, r.header.seq, r.r_seq) for r in self.records if r.stream == ("q" if stream == "r" else stream)]
        number = [entry.r_seq if stream == "r" else entry.seq for entry in stored]
        return [entry for entry, at in zip(stored, number, strict=True) if at is not None and first <= at <= last][:limit]

    def oldest(self, stream: str, epoch: bytes) -> int | None:
        """Everything of the one epoch is kept."""
        return 1 if epoch == EPOCH else None

    def rejects(self, epoch: bytes, count: int) -> list[Kept]:
        """The last rejects."""
        return self.events("r", epoch, 1, 1 << 62, 1 << 62)[-count:]

    def epochs(self, most: int) -> list[core.EpochHead]:
        """One that has ended well."""
        heads = {stream: max(r.header.seq for r in self.records if r.stream == stream) for stream in ("q", "a")}
        return [core.EpochHead(EPOCH, heads, True)]

    def after(self, epoch: bytes) -> tuple[bool, bytes | None]:
        """It ended well, and nothing came after it."""
        return (True, None) if epoch == EPOCH else (False, EPOCH)


class Kept(NamedTuple):
    """An event as a journal holds it."""

    header: bytes
    payload: bytes
    seq: int
    r_seq: int | None


def _asked_again(kept: Told, epoch: str) -> Iterator[tuple[str, protocol.Frames]]:
    """What a reader says at the replay socket, and what it hears."""
    server = replay.Server(kept)
    heads = {"q": kept.epochs(1)[0].last["q"], "r": len(kept.rejects(EPOCH, 100)), "a": kept.epochs(1)[0].last["a"]}
    now = replay.Now(EPOCH, heads, {"state": "STOPPED", "permit": 0, "holds": ["state"]})
    lost = protocol.epoch_text(bytes(16))
    said: list[tuple[str, dict[str, Any]]] = [
        ("SNAPSHOT", {"streams": ["q"]}),
        ("REPLAY", {"id": 1, "stream": "q", "epoch": epoch, "from": "1", "to": "2"}),
        ("MORE", {"id": 1}),
        ("REPLAY", {"id": 2, "stream": "q", "epoch": lost, "from": "1", "to": "2"}),
        ("REPLAY", {"id": 3, "stream": "q", "epoch": epoch, "from": "2", "to": "1"}),
    ]
    for second, (name, asked) in enumerate(said, 1):
        frames = protocol.command(name, asked)
        yield f"client {name}", frames
        for _, answer in server.step(1_000 * second * MS, b"c", frames, now):
            yield f"replay {answer[0].decode()}", answer


def header_fields(head: bytes, payload: bytes) -> dict[str, Any]:
    """What a reader must find in a header."""
    header = protocol.parse(head, payload)
    return {**header._asdict(), "epoch": protocol.epoch_text(header.epoch)}


def vectors() -> list[dict[str, Any]]:
    """The story as it is kept."""
    told = []
    for name, frames in story():
        entry: dict[str, Any] = {"name": name, "frames": [frame.hex() for frame in frames]}
        if len(frames) == 3 and len(frames[1]) == protocol.HEADER_BYTES:
            entry["header"] = header_fields(frames[1], frames[2])
        told.append(entry)
    return told


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=1) + "\n")
