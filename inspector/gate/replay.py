"""What was missed, told again: SNAPSHOT and REPLAY from the journal, in chunks that the client asks for, never faster than agreed. Pure but
for the journal's reader, which is handed in.

    client → daemon   SNAPSHOT {streams}            REPLAY {id, stream, epoch, from, to}       MORE {id}
    daemon → client   SNAP {…}, EVENT × rejects     EVENT × up to 256, then CHUNK {id, upto}   … DONE {id, upto, closed, next}
                      HEAD_LOST {id, oldest}        REFUSE {id, code, text}

HEAD_LOST is said where something that was asked for is no longer kept, with `oldest` null where nothing of that epoch is; DONE's `upto` is
then the last that there was, 0 of an epoch that is not known. Every EVENT carries flag `historical` and ttl 0: nobody may act on it.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from inspector.gate import protocol
from inspector.gate.arbiter import EpochHead
from inspector.gate.journal import EPOCHS_KEPT
from inspector.gate.protocol import Flag, Frames, Refused

CHUNK: Final = 256
REPLAYS_PER_CLIENT: Final = 2
EVENTS_PER_S: Final = 25_000
CLIENTS: Final = 256
LAST_REJECTS: Final = 100
EPOCHS_TOLD: Final = 16
LARGEST_RANGE: Final = 100_000_000
LARGEST_SEQ: Final = (1 << 63) - 1
"""What a journal can hold."""

Answer: TypeAlias = tuple[bytes, Frames]


class Kept(Protocol):
    """One event of the journal."""

    @property
    def header(self) -> bytes:
        """The header as it was first sent."""
        ...

    @property
    def payload(self) -> bytes:
        """The payload."""
        ...

    @property
    def seq(self) -> int:
        """Its number in its stream."""
        ...

    @property
    def r_seq(self) -> int | None:
        """Its number in stream r."""
        ...


class Store(Protocol):
    """What the journal can be asked."""

    def events(self, stream: str, epoch: bytes, first: int, last: int, limit: int) -> Sequence[Kept]:
        """Events in order, at most `limit`."""
        ...

    def oldest(self, stream: str, epoch: bytes) -> int | None:
        """The first that is kept."""
        ...

    def rejects(self, epoch: bytes, count: int) -> Sequence[Kept]:
        """The last rejects, oldest first."""
        ...

    def epochs(self, most: int) -> list[EpochHead]:
        """The youngest that are kept, oldest of them first."""
        ...

    def after(self, epoch: bytes) -> tuple[bool, bytes | None]:
        """(whether this epoch ended well, the one that came after it), however many are kept; of one that is not, the next younger one."""
        ...


class Now(NamedTuple):
    """Of the epoch that runs: `heads` of what has been published."""

    epoch: bytes
    heads: dict[str, int]
    body: dict[str, Any]


@dataclass(slots=True)
class _Run:
    number: int
    stream: str
    epoch: bytes
    next: int
    last: int
    newest: int
    """The last number that there is: nobody is told to have heard more."""
    waits: bool = False


@dataclass(slots=True)
class Server:
    """The replays under way of every client. `step` takes a message, `tick` sends on what the rate allows."""

    store: Store
    runs: OrderedDict[bytes, list[_Run]] = field(default_factory=OrderedDict)
    faults: dict[str, int] = field(default_factory=dict)
    _tokens: float = EVENTS_PER_S / 4
    _at_ns: int = 0

    def step(self, now_ns: int, identity: bytes, frames: Frames, now: Now) -> list[Answer]:
        """The answers to one message."""
        try:
            name, body = protocol.said(frames)
            if name == "SNAPSHOT":
                return self._snapshot(identity, now)
            if name == "REPLAY":
                return self._replay(identity, body, now) + self.tick(now_ns)
            if name == "MORE":
                for run in self.runs.get(identity, []):
                    if run.number == body.get("id"):
                        run.waits = False
                return self.tick(now_ns)
            raise Refused("command", f"{name[:20]!r}")
        except (Refused, RecursionError) as caught:
            error = caught if isinstance(caught, Refused) else Refused("json", "nested too deeply")
            self.faults[error.why] = self.faults.get(error.why, 0) + 1
            code = {"range": "E_RANGE", "busy": "E_BUSY"}.get(error.why, "E_FIELD")
            return [(identity, protocol.command("REFUSE", {"code": code, "text": str(error)}))]
        except sqlite3.Error as error:
            return self._unreadable(identity, error)

    def _unreadable(self, identity: bytes, error: Exception) -> list[Answer]:
        """The journal cannot be read now: the client is told, and may ask again."""
        self.faults["journal"] = self.faults.get("journal", 0) + 1
        self.forget(identity)
        return [(identity, protocol.command("REFUSE", {"code": "E_JOURNAL", "text": str(error)[:200]}))]

    def busy(self) -> bool:
        """Something waits for the rate to allow it."""
        return any(not run.waits for runs in self.runs.values() for run in runs)

    def forget(self, identity: bytes) -> None:
        """The client is gone."""
        self.runs.pop(identity, None)

    def tick(self, now_ns: int) -> list[Answer]:
        """The next chunk of the replay whose turn it is, where the rate allows one."""
        self._tokens = min(EVENTS_PER_S / 4, self._tokens + max(0, now_ns - self._at_ns) / 1e9 * EVENTS_PER_S)
        self._at_ns = now_ns
        if self._tokens < CHUNK:
            return []
        for identity, runs in self.runs.items():
            for run in runs:
                if run.waits:
                    continue
                try:
                    answers = self._chunk(identity, run)
                except (sqlite3.Error, Refused) as error:  # a damaged event is no reason to end either
                    return self._unreadable(identity, error)
                if run.next > run.last:
                    runs.remove(run)
                else:
                    run.waits = True
                if runs:
                    self.runs.move_to_end(identity)
                else:
                    del self.runs[identity]
                return answers
        return []

    def _chunk(self, identity: bytes, run: _Run) -> list[Answer]:
        rows = self.store.events(run.stream, run.epoch, run.next, run.last, CHUNK)
        self._tokens -= max(len(rows), 1)
        answers = [(identity, [b"EVENT", _again(row, run.stream), row.payload]) for row in rows]
        if rows:
            newest = rows[-1]
            run.next = int(newest.r_seq or 0 if run.stream == "r" else newest.seq) + 1
        upto = min(run.next - 1, run.newest)
        if len(rows) < CHUNK:
            run.next = run.last + 1
        done = run.next > run.last
        body = {"id": run.number, "stream": run.stream, "epoch": protocol.epoch_text(run.epoch), "upto": str(upto)}
        if done:
            body |= self._end(run.epoch)
        answers.append((identity, protocol.command("DONE" if done else "CHUNK", body)))
        return answers

    def _end(self, epoch: bytes) -> dict[str, Any]:
        """What DONE says of an epoch: whether it ended well, and which one came after it."""
        closed, later = self.store.after(epoch)
        return {"closed": closed, "next": protocol.epoch_text(later) if later else None}

    def _snapshot(self, identity: bytes, now: Now) -> list[Answer]:
        rows = self.store.rejects(now.epoch, LAST_REJECTS)
        snap = {
            **now.body,
            "epoch": protocol.epoch_text(now.epoch),
            "upto": {stream: str(seq) for stream, seq in now.heads.items()},
            "epochs": [
                {"epoch": protocol.epoch_text(e.epoch), "last": {k: str(v) for k, v in e.last.items()}, "closed": e.closed}
                for e in self.store.epochs(EPOCHS_TOLD)
            ],
            "rejects": len(rows),
        }
        self._tokens -= len(rows)
        return [
            (identity, protocol.command("SNAP", snap)),
            *((identity, [b"EVENT", _again(row, "r"), row.payload]) for row in rows),
        ]

    def _replay(self, identity: bytes, body: dict[str, Any], now: Now) -> list[Answer]:
        stream, number = body.get("stream"), body.get("id", 0)
        if not isinstance(stream, str) or stream not in ("q", "r", "a") or type(number) is not int or abs(number) > LARGEST_SEQ:
            raise Refused("field", "stream: q, r or a is allowed; id: a whole number")
        epoch = protocol.epoch_bytes(body.get("epoch"))
        first, last = protocol.u64(body, "from"), protocol.u64(body, "to")
        if not 1 <= first <= last <= LARGEST_SEQ or last - first >= LARGEST_RANGE:
            raise Refused("range", f"from {first} to {last}; 1 ≤ from ≤ to < 2**63 is allowed, and at most {LARGEST_RANGE} events")
        if epoch == now.epoch:
            last = min(last, now.heads.get(stream, 0))
        runs = self.runs.get(identity, [])
        if len(runs) >= REPLAYS_PER_CLIENT:  # one that waits for a MORE which never came gives way; its client has asked anew
            forgotten = next((run for run in runs if run.waits), None)
            if forgotten is None:
                raise Refused("busy", f"{REPLAYS_PER_CLIENT} replays for a client at a time are allowed")
            runs.remove(forgotten)
        if not runs and len(self.runs) >= CLIENTS:
            self.runs.popitem(last=False)
        oldest, known = self.store.oldest(stream, epoch), self._newest(stream, epoch, now)
        newest = known or 0
        answers: list[Answer] = []
        if (known is None or known >= first) if oldest is None else oldest > first:
            lost = {"id": number, "stream": stream, "epoch": body["epoch"], "oldest": None if oldest is None else str(oldest)}
            answers.append((identity, protocol.command("HEAD_LOST", lost)))
            if oldest is None or oldest > last:
                done = {"id": number, "stream": stream, "epoch": body["epoch"], "upto": str(min(last, newest)), **self._end(epoch)}
                return [*answers, (identity, protocol.command("DONE", done))]
            first = oldest
        self.runs.setdefault(identity, []).append(_Run(number, stream, epoch, first, last, newest))
        return answers

    def _newest(self, stream: str, epoch: bytes, now: Now) -> int | None:
        """The last number of a stream in an epoch; None of one that is not known."""
        if epoch == now.epoch:
            return now.heads.get(stream, 0)
        return next((head.last.get(stream, 0) for head in self.store.epochs(EPOCHS_KEPT) if head.epoch == epoch), None)


def _again(row: Kept, stream: str) -> bytes:
    """The kept header as a copy that nobody may act on; in stream r with the number that it has there."""
    header = protocol.parse(row.header, row.payload)
    if stream == "r" and row.r_seq is not None:
        header = header._replace(seq=row.r_seq, stream_id=protocol.STREAM_IDS["r"])
    return protocol.pack(header._replace(flags=header.flags | Flag.HISTORICAL | Flag.DURABLE, ttl_us=0), row.payload)
