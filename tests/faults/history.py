"""What clients lived through, as they wrote it down, and what must be true of it afterwards.

Ordered: numbers only grow. Unique: a number, and a part, has one verdict, whoever tells it. Reliable: what was committed or published is in
the journal in the end, and whoever follows a stream has all of it. Resumable: so has who was cut off, over every start of the daemon.
Bookmarkable: so has who comes later with a number. Historical: nothing that was replayed, late or of another session is ever acted on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from inspector.gate import protocol
from inspector.gate.journal import verify
from inspector.gate.protocol import Flag
from inspector.records import Verdict

Line: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str, int]
"""(epoch, stream, seq)."""

BAD_EVERY = 5
"""Of the parts on the painted line, one in so many is bad."""


class Untrue(AssertionError):
    """A promise that a history breaks."""


@dataclass
class Tail:
    """A history that is still being written: `read` takes what is new."""

    path: Path
    lines: list[Line] = field(default_factory=list)
    _at: int = 0

    def read(self) -> list[Line]:
        """All lines so far."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._at += len(whole)
            self.lines += [json.loads(text) for text in whole.splitlines() if text.startswith(b"{")]
        return self.lines


@dataclass(frozen=True)
class Kept:
    """What journals hold: hash by key; `verdicts` by (epoch, lane, part)."""

    hashes: dict[Key, str]
    verdicts: dict[tuple[str, int, int], tuple[int, int]]

    def of(self, epoch: str, stream: str) -> list[int]:
        """The numbers of one stream."""
        return sorted(seq for e, s, seq in self.hashes if (e, s) == (epoch, stream))


def kept(paths: Iterable[Path]) -> Kept:
    """Everything in these journals that can be read."""
    hashes: dict[Key, str] = {}
    verdicts: dict[tuple[str, int, int], tuple[int, int]] = {}
    for path in paths:
        try:
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            rows = db.execute("SELECT epoch, stream, seq, hash, kind, lane, part_seq, verdict FROM event").fetchall()
            db.close()
        except sqlite3.Error:
            continue
        for epoch, stream, seq, digest, kind, lane, part, verdict in rows:
            name = protocol.epoch_text(epoch)
            if hashes.setdefault((name, stream, seq), digest.hex()) != digest.hex():
                raise Untrue(f"number reused: {stream} {seq} of {name} is two events")
            if kind == 1 and verdicts.setdefault((name, lane, part), (seq, verdict)) != (seq, verdict):
                raise Untrue(f"part {part} of lane {lane} has two verdicts in {name}")
    return Kept(hashes, verdicts)


def committed(path: Path) -> set[tuple[Key, str]]:
    """The last event of each stream of the newest epoch on disk now, with its hash: the chain holds all before it."""
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        rows = db.execute("SELECT epoch, stream, seq, hash FROM event WHERE id IN (SELECT max(id) FROM event GROUP BY stream)").fetchall()
        db.close()
    except sqlite3.Error:
        return set()
    return {((protocol.epoch_text(epoch), stream, seq), digest.hex()) for epoch, stream, seq, digest in rows}


def check_gateway(name: str, lines: list[Line], held: Kept) -> None:
    """Ordered, unique, and nothing acted on but a PASS in time of this session; no bad part (every `BAD_EVERY`th) passes."""
    told: dict[tuple[str, int, int], Line] = {}
    last: tuple[str, int] = ("", 0)
    welcomed = ""
    for line in lines:
        if line["what"] == "welcome":
            welcomed = line["epoch"]
        elif line["what"] == "verdict":
            epoch, seq, lane, part = line["epoch"], int(line["seq"]), line["lane"], int(line["part"])
            if epoch != welcomed:
                raise Untrue(f"{name}: a verdict of epoch {epoch} in a session of {welcomed}")
            if last[0] == epoch and seq <= last[1]:
                raise Untrue(f"{name}: {seq} after {last[1]}")
            last = epoch, seq
            if (epoch, lane, part) in told:
                raise Untrue(f"{name}: part {part} of lane {lane} was told twice in {epoch}")
            told[epoch, lane, part] = line
            known = held.verdicts.get((epoch, lane, part))
            if known is not None and known != (seq, line["verdict"]):
                raise Untrue(f"{name}: part {part} of lane {lane} is {line['verdict']:#04x} as {seq}, the journal says {known}")
            actionable = line["ttl_us"] > 0 and not line["flags"] & (Flag.HISTORICAL | Flag.LATE) and line["verdict"] == Verdict.PASS
            if line["passes"] and not actionable:
                raise Untrue(f"{name}: part {part} passes by what nobody may act on: {line}")
        elif line["what"] == "actuated" and line["passes"]:
            verdict = told.get((line["epoch"], line["lane"], int(line["part"])))
            if verdict is None or not verdict["passes"]:
                raise Untrue(f"{name}: part {line['part']} passed without its PASS")
            if int(line["part"]) % BAD_EVERY == 0:
                raise Untrue(f"{name}: bad part {line['part']} of lane {line['lane']} passed")


def check_subscriber(name: str, lines: list[Line], held: Kept, *, whole: bool) -> None:
    """Ordered, unique, reliable, resumable. `whole`: the journal was never replaced, so nothing may be missing and nothing unknown."""
    last: dict[tuple[str, str], int] = {}
    first: dict[tuple[str, str], int] = {}
    holes: set[tuple[str, str]] = set()
    order: dict[str, list[str]] = {}
    for line in lines:
        if line["what"] == "hole":
            holes.add((line["epoch"], line["stream"]))
            if line["to"] is not None:  # else it is the rest of its epoch, and nothing of that follows
                last[line["epoch"], line["stream"]] = int(line["to"])
            if whole:
                raise Untrue(f"{name}: a hole in the data: {line}")
        if line["what"] != "event":
            continue
        epoch, stream, seq = line["epoch"], line["stream"], int(line["seq"])
        before = last.get((epoch, stream))
        if before is None:
            first[epoch, stream] = seq
            order.setdefault(stream, []).append(epoch)
            if len(order[stream]) > 1 and seq != 1 and (epoch, stream) not in holes:
                raise Untrue(f"{name}: {stream} of the new epoch {epoch} begins with {seq}")
        elif seq != before + 1:
            raise Untrue(f"{name}: {stream} {seq} after {before} in {epoch}")
        elif order[stream][-1] != epoch:
            raise Untrue(f"{name}: {stream} goes back to epoch {epoch}")
        last[epoch, stream] = seq
        known = held.hashes.get((epoch, stream, seq))
        if known is None and whole:
            raise Untrue(f"{name}: {stream} {seq} of {epoch} was published and is not in the journal")
        if known is not None and known != line["hash"]:
            raise Untrue(f"{name}: {stream} {seq} of {epoch} is another event in the journal")
    if not whole:
        return
    for stream, epochs in order.items():
        for epoch in epochs[:-1]:  # of the last one the end was told after they were asked to leave
            missing = [seq for seq in held.of(epoch, stream) if seq > last[epoch, stream] or seq < first[epoch, stream]]
            if missing and epoch != epochs[0]:
                raise Untrue(f"{name}: {len(missing)} events of {stream} in {epoch} were never told, the first is {missing[0]}")


def check_journal(path: Path, marks: set[tuple[Key, str]], held: Kept) -> None:
    """The chain holds, and whatever was ever seen committed is there."""
    problems = list(verify(path))
    if problems:
        raise Untrue(f"the journal does not verify: {problems[:3]}")
    lost = [key for key, digest in marks if held.hashes.get(key) != digest]
    if lost:
        raise Untrue(f"committed and lost: {lost[:3]}")


def had_permit(lines: list[Line], at_ns: int) -> bool:
    """Whether a gateway had the permit then."""
    on = [line["on"] for line in lines if line["what"] == "permit" and line["at_ns"] <= at_ns]
    return bool(on and on[-1])


def permit_ended(lines: list[Line], at_ns: int) -> float:
    """How many milliseconds after `at_ns` the permit of a gateway ended; 0 while it has not."""
    ends = (line["at_ns"] for line in lines if line["what"] == "permit" and not line["on"] and line["at_ns"] > at_ns)
    return (next(ends, at_ns) - at_ns) / 1e6
