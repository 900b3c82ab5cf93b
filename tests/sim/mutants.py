"""Deliberate mistakes in the core, each of which the simulator must catch: what proves that its checks can fail.

A mutant patches one thing of the core for as long as its context lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import PropertyMock, patch

from inspector.gate import arbiter as core
from inspector.gate import ledger, protocol
from inspector.gate.arbiter import Arbiter
from inspector.gate.gateway import Gateway, Slot
from inspector.gate.ledger import Ledger, Part, Vote
from inspector.gate.session import Session
from inspector.records import Decision, Reason, Verdict
from tests.sim.world import Broken, World

Patch = Callable[[], Any]
PASS = (Verdict.PASS, 0, "")


def _fuse(keep: Callable[[list[Vote | None]], bool]) -> Patch:
    real = ledger.fuse

    def fuse(votes: Any) -> Any:
        cast = list(votes)
        return PASS if keep(cast) else real(cast)

    return lambda: patch.object(ledger, "fuse", fuse)


def _decisions(votes: list[Vote | None]) -> list[Decision]:
    return [vote.decision for vote in votes if vote is not None]


def _method(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    return lambda: patch.object(owner, name, make(getattr(owner, name)))


def _nothing(*_: Any, **__: Any) -> Any:
    return []


def _not_at_its_trigger(real: Any) -> Any:
    return lambda self, part, position: bool(part.bound) and real(self, part, position)


def _number_is_open(self: Ledger, part: Part) -> bool:
    return part.part_seq in self._lanes[part.lane].open


def _late(real: Any) -> Any:
    return lambda self, now_ns, position=None: real(self, now_ns - 200_000_000, position)


def _lost_forgotten(real: Any) -> Any:
    def exposure(self: Ledger, now_ns: int, camera: str, seq: int, *rest: Any, **kinds: Any) -> Any:
        if kinds["lost"]:
            return []
        self._next[camera] = seq
        return real(self, now_ns, camera, seq, *rest, **kinds)

    return exposure


def _twice(real: Any) -> Any:
    def exposure(self: Ledger, now_ns: int, camera: str, seq: int, *rest: Any, **kinds: Any) -> Any:
        self._next[camera] = min(self._next.get(camera, seq), seq)
        return real(self, now_ns, camera, seq, *rest, **kinds)

    return exposure


def _reused(real: Any) -> Any:
    def event(self: Arbiter, now_ns: int, stream: str, *rest: Any, **more: Any) -> Any:
        if self.heads[stream] % 20 == 19:
            self.heads[stream] -= 1
        return real(self, now_ns, stream, *rest, **more)

    return event


def _chain(real: Any) -> Any:
    def event(self: Arbiter, now_ns: int, stream: str, *rest: Any, **more: Any) -> Any:
        before = self._chain[stream]
        record = real(self, now_ns, stream, *rest, **more)
        if record.header.seq % 10 == 0:
            self._chain[stream] = before
        return record

    return event


def _no_hold(*prefixes: str) -> Patch:
    real = Arbiter._hold

    def hold(self: Arbiter, now_ns: int, name: str, text: str, code: str) -> None:
        if not name.startswith(prefixes):
            real(self, now_ns, name, text, code)

    return lambda: patch.object(Arbiter, "_hold", hold)


def _state_forgotten(real: Any) -> Any:
    def become(self: Arbiter, now_ns: int, state: core.State) -> None:
        self.state = state
        self._holds.pop("state", None)

    return become


def _permit_kept(real: Any) -> Any:
    def beats(self: Arbiter, now_ns: int, *, at_once: bool = False) -> None:
        holds, self._holds = self._holds, {} if any(self._permits.values()) else self._holds
        real(self, now_ns, at_once=at_once)
        self._holds = holds

    return beats


def _nan(real: Any) -> Any:
    def judged(self: Arbiter, now_ns: int, item: core.Judged) -> None:
        try:
            protocol.loads(item.body)
        except protocol.Refused:
            item = item._replace(body=b"{}")
        real(self, now_ns, item)

    return judged


def _complete(real: Any) -> Any:
    return lambda self, part, camera, seq, *, complete, uid: real(self, part, camera, seq, complete=True, uid=uid)


def _two_outcomes(real: Any) -> Any:
    def close(self: Ledger, part: Any, *rest: Any) -> Any:
        closed = real(self, part, *rest)
        if part.part_seq % 7 == 0 and rest[0] is not Verdict.PASS:
            self._lanes[part.lane].open[part.part_seq] = part
            self._due.append((part.act_by_ns + 1, part.lane, part.part_seq))
        return closed

    return close


def _miscounted(real: Any) -> Any:
    def close(self: Ledger, part: Any, verdict: Verdict, *rest: Any) -> Any:
        if verdict is Verdict.REJECT_NOT_INSPECTED:
            self._not_inspected -= 1
        return real(self, part, verdict, *rest)

    return close


def _forgotten(real: Any) -> Any:
    def close(self: Ledger, part: Any, verdict: Verdict, reason: int, text: str) -> Any:
        closed = real(self, part, verdict, reason, text)
        if reason == Reason.FRAME_LOST:
            self._lanes[part.lane].open.pop(part.part_seq, None)
            self._not_inspected -= 1
            self._triggers -= 1
        return closed

    return close


def _credit(real: Any) -> Any:
    def flow(self: Session, now_ns: int) -> Any:
        credit, self.credit = self.credit, 1000
        frames = real(self, now_ns)
        self.credit = credit
        return frames

    return flow


def _no_window(real: Any) -> Any:
    def shown(self: Ledger, room: Any, at_counts: int | None, at_ns: int) -> Any:
        parts = [part for part in (*room.recent, *room.open.values()) if not part.missed]
        return real(self, room, at_counts, at_ns) or tuple(sorted(parts, key=lambda part: self._off(part, at_counts, at_ns))[:1])

    return shown


def _first_camera(real: Any) -> Any:
    def vote(self: Ledger, part: Any, camera: str, said: Vote) -> Any:
        if said.decision is Decision.PASS and part.part_seq in self._lanes[part.lane].open:
            for other in part.votes:
                part.votes[other] = said
            return [self._close_by_votes(part)]
        return real(self, part, camera, said)

    return vote


def _uncounted(real: Any) -> Any:
    def opened(self: Ledger, *rest: Any) -> Any:
        part = real(self, *rest)
        if part.part_seq % 5 == 0:
            self._triggers -= 1
        return part

    return opened


def _gap_forgotten(real: Any) -> Any:
    def trigger(self: Ledger, now_ns: int, lane: int, part_seq: int, *rest: Any, **more: Any) -> Any:
        if lane in self._lanes and self._lanes[lane].last_seq and part_seq > self._lanes[lane].last_seq:
            self._lanes[lane].last_seq = part_seq - 1
        return real(self, now_ns, lane, part_seq, *rest, **more)

    return trigger


def _future(real: Any) -> Any:
    def opened(self: Ledger, now_ns: int, lane: int, part_seq: int, at_ns: int, at_counts: int | None) -> Any:
        return real(self, max(now_ns, at_ns), lane, part_seq, at_ns, at_counts)

    return opened


def _old_numbers(real: Any) -> Any:
    def present(self: Ledger) -> None:
        before = dict(self._next)
        real(self)
        self._next.update(before)

    return present


def _same_epoch(real: Any) -> Any:
    def begin(self: Arbiter, settings: Any, *, epoch: bytes, **more: Any) -> None:
        real(self, settings, epoch=bytes(16), **more)

    return begin


def _slots_kept(real: Any) -> Any:
    def told(self: Gateway, now_ns: int, name: str, body: Any) -> Any:
        slots = self.slots
        answers = real(self, now_ns, name, body)
        self.slots = slots
        return answers

    return told


@contextmanager
def _slots_of_a_restarted_plc() -> Iterator[None]:
    """What was said of part 5 is taken for the part that has this number now."""
    real = Gateway.trigger

    def recount(self: Gateway, now_ns: int) -> Any:
        self.lose()
        return []

    def trigger(self: Gateway, now_ns: int, lane: int, part_seq: int, *rest: Any, **more: Any) -> Any:
        before = self.slots.get((lane, part_seq))
        messages = real(self, now_ns, lane, part_seq, *rest, **more)
        if before is not None:
            self.slots[lane, part_seq] = before
        return messages

    with patch.object(Gateway, "recount", recount), patch.object(Gateway, "trigger", trigger):
        yield


def _guilty_no_more() -> Any:
    real = Slot.__init__

    def begin(self: Slot, *rest: Any, **more: Any) -> None:
        real(self, *rest, **more)
        self.passes = True

    return patch.object(Slot, "__init__", begin)


def _resend_other(real: Any) -> Any:
    def frames(order: Any, now_ns: int, add: Any) -> Any:
        sent = real(order, now_ns, add)
        return [sent[0], protocol.pack(protocol.parse(sent[1], sent[2])._replace(ttl_us=2_000_000), sent[2]), sent[2]]

    return staticmethod(frames)


def _wrong_byte(real: Any) -> Any:
    def event(self: Arbiter, now_ns: int, stream: str, kind: Any, body: Any, **more: Any) -> Any:
        if more.get("verdict") == Verdict.REJECT_UNDECIDABLE:
            more["verdict"] = Verdict.PASS
        return real(self, now_ns, stream, kind, body, **more)

    return event


def _no_lease_for_fire(real: Any) -> Any:
    def begin(self: Ledger, line: Any) -> None:
        real(self, replace(line, fire_lease_ms=0))

    return begin


def _counts_ignored(real: Any) -> Any:
    return lambda self, now_ns, position=None: real(self, now_ns, None)


def _belt_trusted(real: Any) -> Any:
    return lambda self, now_ns, text: None


def _speed_ignored(real: Any) -> Any:
    def position(self: Arbiter, now_ns: int, item: core.Position) -> None:
        real(self, now_ns, item)
        self._release(now_ns, "speed")

    return position


def _count_ignored(real: Any) -> Any:
    def heartbeat(self: Arbiter, now_ns: int, item: Any, gateway: Session, body: Any) -> None:
        gateway.counted_from.clear()
        real(self, now_ns, item, gateway, body)

    return heartbeat


def _heartbeats_ignore_counts() -> Any:
    return patch.dict(Arbiter._commands, {"HB": _count_ignored(Arbiter._commands["HB"])})


def _challenge_passes(real: Any) -> Any:
    def close(self: Ledger, part: Any) -> Any:
        part.challenge = False
        return real(self, part)

    return close


def _waits_for_no_disk(real: Any) -> Any:
    return lambda self, order: False


def _confirms_what_is_lost(real: Any) -> Any:
    return lambda self, now_ns, upto, seq=None: real(self, now_ns, upto)


def _back_from_the_last(real: Any) -> Any:
    def position(self: Arbiter, now_ns: int, item: core.Position) -> None:
        self._furthest = self._belt[1] if self._belt else item.counts
        real(self, now_ns, item)

    return position


def _from_arrival(real: Any) -> Any:
    def heartbeat(self: Gateway, now_ns: int, header: Any, payload: bytes) -> None:
        body = {key: value for key, value in protocol.loads(payload).items() if key != "echo"}
        real(self, now_ns, header, protocol.dumps(body))

    return heartbeat


MUTANTS: dict[str, Patch] = {
    "pass unless failed": _fuse(lambda votes: Decision.FAIL not in _decisions(votes)),
    "pass if any camera passes": _fuse(lambda votes: Decision.PASS in _decisions(votes)),
    "pass if nobody objects in words": _fuse(lambda votes: bool(votes) and set(_decisions(votes)) <= {Decision.PASS} and len(votes) > 0),
    "the first camera decides": _method(Ledger, "_vote", _first_camera),
    "late verdict accepted": _method(Ledger, "close_due", _late),
    "overdue parts are never closed": _method(Ledger, "close_due", lambda real: _nothing),
    "lost frame forgotten": _method(Ledger, "_exposure", _lost_forgotten),
    "repeated frame makes a part": _method(Ledger, "_exposure", _twice),
    "old picture judged": _method(Ledger, "_is_stale", lambda real: lambda self, now_ns, camera, at_ns: False),
    "exposure bound whatever its place": _method(Ledger, "_shown", _no_window),
    "what waits for credit is not missed": lambda: patch.object(
        Session, "unconfirmed", property(lambda self: any(order.overdue for order in self.sent))
    ),
    "of two parts too near to each other the nearer one is shown": _method(Ledger, "_shown", lambda real: lambda *given: real(*given)[:1]),
    "incomplete frame may pass": _method(Ledger, "_bind", _complete),
    "two outcomes for a part": _method(Ledger, "_close", _two_outcomes),
    "a reject is not counted": _method(Ledger, "_close", _miscounted),
    "a lost part is taken out of the books": _method(Ledger, "_close", _forgotten),
    "a trigger is not counted": _method(Ledger, "_open", _uncounted),
    "missing triggers forgotten": _method(Ledger, "trigger", _gap_forgotten),
    "a stamp from the future lengthens the deadline": _method(Ledger, "_open", _future),
    "exposure numbers kept over vision's restart": _method(Ledger, "present", _old_numbers),
    "what is not finite may pass": _method(Arbiter, "_on_judged", _nan),
    "sequence reused": _method(Arbiter, "_event", _reused),
    "chain not continued": _method(Arbiter, "_event", _chain),
    "header and payload differ": _method(Arbiter, "_event", _wrong_byte),
    "permit whatever the state": _method(Arbiter, "_become", _state_forgotten),
    "permit not dropped": _method(Arbiter, "_heartbeats", _permit_kept),
    "permit with a camera down": _no_hold("camera:"),
    "permit without a journal": _no_hold("journal"),
    "permit for a silent gateway": _method(Session, "fresh", lambda real: lambda self, now_ns: True),
    "permit with unconfirmed verdicts": lambda: patch.object(Session, "unconfirmed", PropertyMock(return_value=False)),
    "credit ignored": _method(Session, "_flow", _credit),
    "time to live made longer": lambda: patch.object(Session, "_frames", _resend_other(Session._frames)),
    "rolled back journal not told": _method(Arbiter, "_rollback", lambda real: _nothing),
    "epoch used again": _method(Arbiter, "__init__", _same_epoch),
    "slots kept over epochs": _method(Gateway, "_told", _slots_kept),
    "slots innocent from the start": _guilty_no_more,
    "the lease counts from the arrival of a heartbeat": _method(Gateway, "_heartbeat", _from_arrival),
    "a lease that ran out comes back by itself": _method(Gateway, "_look_at_lease", lambda real: _nothing),
    "slots kept over a restart of the PLC": _slots_of_a_restarted_plc,
    "fire with the deadline of permit": _method(Ledger, "__init__", _no_lease_for_fire),
    "deadline in counts ignored": _method(Ledger, "close_due", _counts_ignored),
    "a belt that went back or jumped is trusted": _method(Arbiter, "_distrust", _belt_trusted),
    "a belt that goes back slowly is trusted": _method(Arbiter, "_on_position", _back_from_the_last),
    "permit on a belt that is too fast": _method(Arbiter, "_on_position", _speed_ignored),
    "the PLC's count ignored": _heartbeats_ignore_counts,
    "a challenge part may pass": _method(Ledger, "_close_by_votes", _challenge_passes),
    "permit after a challenge that was not found": _no_hold("challenge"),
    "an ACK confirms what was lost before it": _method(Session, "acknowledge", _confirms_what_is_lost),
    "a PASS is sent before it is kept": _method(Session, "_waits", _waits_for_no_disk),
    "a TRIG that waited escapes the deadline in counts": _method(Ledger, "_is_past", _not_at_its_trigger),
    "a part is known by its number alone": _method(Ledger, "_is_open", lambda real: _number_is_open),
    "a belt that slips back a little is trusted": _method(Ledger, "slipped", lambda real: _nothing),
    "a TRIG is as old as the clocks tell": _method(Arbiter, "_was_beyond_ns", lambda real: lambda self, now_ns, counts: now_ns),
}
"""Name → patch. Each is caught within `SEEDS` seeds."""

SEEDS = 400


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """The core with one mistake in it."""
    with MUTANTS[name]():
        yield


RARE = {
    "a belt that goes back slowly is trusted": 200,
    "a belt that went back or jumped is trusted": 100,
    "a TRIG that waited escapes the deadline in counts": 1000,
    "a part is known by its number alone": 2_003_200,
    "a belt that slips back a little is trusted": 2_017_700,
    "a TRIG is as old as the clocks tell": 3_010_500,
    "what waits for credit is not missed": 6_023_300,
    "of two parts too near to each other the nearer one is shown": 5_012_700,
}
"""Where the seeds begin for a mistake that needs a rare story."""

CROWDED = {
    "a TRIG that waited escapes the deadline in counts",
    "a TRIG is as old as the clocks tell",
    "of two parts too near to each other the nearer one is shown",
}
"""What shows only where parts stand nearer to each other than the window."""


def caught(name: str, seeds: range | None = None) -> tuple[int, str] | None:
    """(the first seed that catches the mutant, what it says); None when none does. A crash counts too."""
    seeds = seeds or range(RARE.get(name, 0), RARE.get(name, 0) + SEEDS)
    with mutated(name), patch.object(World, "spaced", name not in CROWDED):
        for seed in seeds:
            try:
                World(seed).run()
            except Broken as error:
                return seed, str(error)
            except Exception as error:  # noqa: BLE001 - whatever the mistake leads to
                return seed, f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    for each in MUTANTS:
        print(f"{each}: {caught(each)}", flush=True)
