"""Which parts there are, what each camera has said of them, and the one outcome that each gets. Pure.

A part is guilty from its trigger on. It is closed once: by `fuse` of what its cameras said, in time, or by what is missing. PASS has one
way in (`fuse`), and that way asks for a PASS of *every* camera of the lane for an exposure that was bound to *this* part while it was open.

Glossary. *Exposure*: (camera, seq), vision's name of a picture. *Part*: (lane, part_seq), numbered 1, 2, … in each ejector lane.
*Bound*: the ledger has found the part that an exposure shows. *Act by*: the last moment for a verdict, `ACT_EARLIER_MS` before the
deadline. Parts come from exposures (`count: frames`; then exposure and part are one), or from triggers (a sensor here, or a PLC), and then
an exposure belongs to the part whose place on the belt is nearest, within the window; where parts stand nearer to each other than that, to
none of them.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from inspector.gate import protocol
from inspector.gate.said import NOTHING, Said
from inspector.records import FIRST_CLASS_REASON, LAST_CLASS_REASON, Decision, Reason, Verdict

UNMATCHED_NS: Final = 100_000_000
"""How long an exposure may wait for its trigger."""

TWICE_NS: Final = 10_000_000_000
"""How long what is told late of a belt that went back may still be under way."""

AFTER_GAP_NS: Final = 20_000_000
"""How much earlier than its trigger an exposure may have been taken that shows the part after one whose trigger never came."""

LARGEST_GAP: Final = 1000
"""More missing numbers than this at once are no loss but a new count."""

_REMEMBERED: Final = 4096
_AHEAD: Final = 16
_GOOD: Final = Decision.PASS
_PASS: Final = Verdict.PASS
"""A name of its own: looking a member up in its class takes as long as a call."""


@dataclass(frozen=True, slots=True)
class Line:
    """What the ledger knows of the line.

    `cameras` maps camera to lane; `count` is "frames", "conveyor" or "plc". `travel_counts`: counts from trigger to ejector, None without
    an encoder; with it a deadline holds in counts too, and whichever comes first.
    """

    cameras: Mapping[str, int]
    count: str
    window_counts: int
    travel_min_ms: int
    actuator_ms: int
    scan_ms: int
    travel_counts: int | None = None
    fire_lease_ms: int = 0
    """With profile `fire`, the lease (`protocol.deadline_ms`)."""
    commit_ms: int = 0
    """What is set aside for the disk, where a PASS waits until it is kept."""
    wrap_counts: int | None = None
    """The encoder's counter begins anew after so many counts, and each process has undone its wraps from another start."""

    @property
    def deadline_ms(self) -> int:
        """From trigger to deadline."""
        return protocol.deadline_ms(
            travel_min_ms=self.travel_min_ms, actuator_ms=self.actuator_ms, scan_ms=self.scan_ms, fire_lease_ms=self.fire_lease_ms
        )

    @property
    def act_ms(self) -> int:
        """From trigger to the last moment for a verdict."""
        return self.deadline_ms - protocol.ACT_EARLIER_MS - self.commit_ms

    @property
    def act_counts(self) -> int | None:
        """From trigger to the place where the verdict must be out, at the fastest belt allowed."""
        if self.travel_counts is None:
            return None
        return self.travel_counts * self.act_ms // self.travel_min_ms


class Vote(NamedTuple):
    """What one camera says of one part."""

    decision: Decision
    reason: int
    text: str
    said: Said = NOTHING


@dataclass(slots=True)
class Part:
    """One part: when and where its trigger was, until when a verdict is good, and each camera's vote (None: not yet)."""

    lane: int
    part_seq: int
    at_ns: int
    at_counts: int | None
    act_by_ns: int
    deadline_ns: int
    votes: dict[str, Vote | None]
    bound: dict[str, int] = field(default_factory=dict)
    shown_at: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    """By camera: counts and time of the exposure that was bound."""
    old: dict[str, int] = field(default_factory=dict)
    """By camera: the exposure that came in place of this part's, and was an old picture."""
    uid: str | None = None
    other_uid: str | None = None
    """What another camera took it for."""
    challenge: bool = False
    missed: bool = False
    """Its trigger never came: where it was nobody knows, and so no exposure shows it."""
    shown_from_ns: int = -(1 << 63)
    """No exposure from before then shows it: one whose trigger never came may have been where it is. Such an exposure shows no part."""


class Closed(NamedTuple):
    """The outcome of a part: there is exactly one of these for each trigger."""

    part: Part
    verdict: Verdict
    reason: int
    text: str


class Late(NamedTuple):
    """A vote that came after its part was closed: kept as information, never acted on."""

    lane: int
    part_seq: int
    camera: str
    vote: Vote


class Crowded(NamedTuple):
    """Two triggers are so close that an exposure between them could show either part. It is taken to show the nearer one, and neither where
    they stand nearer to each other than the window.
    """

    lane: int
    text: str


class Mismatch(NamedTuple):
    """Triggers and exposures do not agree in a lane; what is on its belt now can no longer be trusted."""

    lane: int
    text: str


Note: TypeAlias = Closed | Late | Crowded | Mismatch
"""What can come of anything that happens."""


class Counters(NamedTuple):
    """Of this epoch. `unexplained` is not a counter but the promise: it is computed from the others and is always 0."""

    triggers: int
    passed: int
    reject: int
    not_inspected: int
    pending: int

    @property
    def unexplained(self) -> int:
        """Parts without an outcome that are not waiting for one either."""
        return self.triggers - self.passed - self.reject - self.not_inspected - self.pending


def fuse(votes: Iterable[Vote | None]) -> tuple[Verdict, int, str]:
    """(verdict, reason, text) of a part: PASS only if there is a vote and every vote is a PASS without a reason.

    Otherwise the first FAIL names the defect, then the first that could not judge says why; a missing vote is `DEADLINE`.
    """
    cast = tuple(votes)
    for vote in cast:
        if vote is None or vote.decision is not _GOOD or vote.reason != 0:
            break
    else:
        if cast:
            return _PASS, 0, ""
    said = [vote for vote in cast if vote is not None]
    for vote in said:
        if vote.decision is Decision.FAIL:
            known = FIRST_CLASS_REASON <= vote.reason <= LAST_CLASS_REASON
            return Verdict.REJECT_DEFECT, vote.reason if known else FIRST_CLASS_REASON, vote.text
    for vote in said:
        if vote.decision is Decision.UNJUDGED:
            if 301 <= vote.reason <= 399:
                return Verdict.REJECT_UNDECIDABLE, vote.reason, vote.text
            return Verdict.REJECT_NOT_INSPECTED, vote.reason if 201 <= vote.reason <= 299 else int(Reason.INFER_ERROR), vote.text
    if len(said) == len(cast) and said:  # a PASS with a reason: vision contradicts itself
        return Verdict.REJECT_UNDECIDABLE, int(Reason.GREY_BAND), "PASS with a reason"
    return Verdict.REJECT_NOT_INSPECTED, int(Reason.DEADLINE), "not judged before the deadline"


def _old(camera: str, seq: int) -> Vote:
    text = f"exposure {seq} of {camera} is older than the one before: a picture of another part"
    return Vote(Decision.UNJUDGED, Reason.TRIGGER_MISMATCH, text)


def _distance(near: tuple[int, Part]) -> int:
    return near[0]


class _Waiting(NamedTuple):
    camera: str
    seq: int
    at_counts: int | None
    at_ns: int
    complete: bool
    uid: str | None
    until_ns: int


@dataclass(slots=True)
class _Lane:
    """The parts of one ejector lane: the open ones in order, and where the closed ones of a moment ago were."""

    cameras: tuple[str, ...]
    last_seq: int = 0
    last_trigger: tuple[int, int | None] = 0, None
    """Its number, and where it was."""
    open: dict[int, Part] = field(default_factory=dict)
    waiting: dict[tuple[str, int], _Waiting] = field(default_factory=dict)
    early: dict[tuple[str, int], Vote] = field(default_factory=dict)
    recent: deque[Part] = field(default_factory=lambda: deque(maxlen=32))


class Ledger:
    """The parts of one epoch. Every method takes the time and returns what came of it; `close_due` must be called first at any moment."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._lanes = {lane: _Lane(tuple(c for c, at in line.cameras.items() if at == lane)) for lane in sorted({*line.cameras.values()})}
        self._due: list[tuple[int, int, int]] = []
        self._exposures: dict[tuple[str, int], Part] = {}
        self._past: OrderedDict[tuple[str, int], tuple[int, int]] = OrderedDict()
        self._next: dict[str, int] = {}
        self._last_at: dict[str, tuple[int, tuple[int, ...]]] = {}
        """By camera: the last exposure's time, at the latest when it was told, and the last stamps that lay ahead of that."""
        self._down: dict[str, str] = {}
        self._challenges: set[int] = set()
        self._twice: tuple[int, int] = (0, 0)
        """To which place the belt has been before it went back, and until when that matters."""
        self._stood: deque[tuple[int, int]] = deque(maxlen=64)
        """When the belt stood where, as triggers and exposures tell."""
        self._high = -(1 << 63)
        self._slipped: tuple[int, int, int] = (0, 0, 0)
        """Since when the belt has gone back a little, from where, and until when that matters."""
        self._unwatched: tuple[int, int] = (0, 0)
        """Since when, and until when, nobody looked where the belt was."""
        self._absent: tuple[Reason, str] | None = (Reason.STARTUP, "vision is not ready yet")
        self._triggers = self._passed = self._reject = self._not_inspected = 0
        self.duplicates = 0
        self._act_ns = line.act_ms * 1_000_000
        self._deadline_ns = line.deadline_ms * 1_000_000

    # -- what can be asked

    @property
    def counters(self) -> Counters:
        """The counts now; pending is counted, not computed."""
        pending = 0
        for lane in self._lanes.values():
            pending += len(lane.open)
        return Counters(self._triggers, self._passed, self._reject, self._not_inspected, pending)

    def unexplained(self) -> int:
        """`counters.unexplained`, which every step asks for."""
        without = self._triggers - self._passed - self._reject - self._not_inspected
        for lane in self._lanes.values():
            without -= len(lane.open)
        return without

    def oldest_pending_ns(self) -> int | None:
        """Trigger time of the oldest open part."""
        return min((part.at_ns for lane in self._lanes.values() for part in lane.open.values()), default=None)

    def due_ns(self) -> int | None:
        """When `close_due` has work at the earliest; None when there is nothing to wait for."""
        while self._due and self._due[0][2] not in self._lanes[self._due[0][1]].open:
            heapq.heappop(self._due)
        waiting = min((entry.until_ns for lane in self._lanes.values() for entry in lane.waiting.values()), default=None)
        if not self._due:
            return waiting
        return self._due[0][0] if waiting is None else min(waiting, self._due[0][0])

    def lanes(self) -> tuple[int, ...]:
        """The ejector lanes."""
        return tuple(self._lanes)

    def last_part(self, lane: int) -> int:
        """The number of the lane's last part."""
        return self._lanes[lane].last_seq

    def down(self) -> Mapping[str, str]:
        """Cameras that are down, with what they said."""
        return self._down

    # -- time

    def close_due(self, now_ns: int, position_counts: int | None = None) -> list[Note]:
        """Close what has waited to its last moment, in time or in counts, and give up on exposures that found no part."""
        notes: list[Note] = []
        while self._due and self._due[0][0] <= now_ns:
            _, lane, part_seq = heapq.heappop(self._due)
            part = self._lanes[lane].open.get(part_seq)
            if part is not None:
                notes.append(self._close_by_votes(part))
        for number, lane_ in self._lanes.items():
            if position_counts is not None and self.line.travel_counts is not None:
                there = [part for part in lane_.open.values() if self._is_past(part, position_counts)]
                notes += [self._close_by_votes(part) for part in there]
            if lane_.waiting:
                for entry in [entry for entry in lane_.waiting.values() if entry.until_ns <= now_ns]:
                    notes.append(Mismatch(number, f"exposure {entry.seq} of {entry.camera} at {entry.at_counts} counts belongs to no part"))
                    notes += self.distrust(number, notes[-1].text)  # type: ignore[union-attr]
        return notes

    # -- parts

    def trigger(
        self, now_ns: int, lane: int, part_seq: int, at_ns: int, at_counts: int | None, position_counts: int | None = None, *,
        challenge: bool = False,
    ) -> list[Note]:  # fmt: skip
        """A trigger of a part sensor or a PLC; the belt is at `position_counts` now.

        Numbers that were left out become parts of their own, rejected at once.
        """
        room = self._lanes.get(lane)
        if room is None:
            return [Mismatch(lane, f"trigger {part_seq} for lane {lane}, which no camera looks at")]
        if part_seq < 1:
            self.duplicates += 1
            return [Mismatch(lane, f"trigger {part_seq}: parts are numbered from 1 on")]
        notes: list[Note] = []
        if room.last_seq:
            if part_seq <= room.last_seq:
                self.duplicates += 1
                notes.append(Mismatch(lane, f"trigger {part_seq} after {room.last_seq}"))
                return notes + self.distrust(lane, f"trigger {part_seq} after {room.last_seq}")
            missing = part_seq - room.last_seq - 1
            if missing:
                text = f"triggers {room.last_seq + 1} to {part_seq - 1} are missing"
                notes.append(Mismatch(lane, text))
                for number in range(part_seq - min(missing, LARGEST_GAP), part_seq):
                    part = self._open(now_ns, lane, number, at_ns, None)
                    part.missed = True
                    notes.append(self._close(part, Verdict.REJECT_NOT_INSPECTED, Reason.TRIGGER_MISMATCH, text))
        after_gap = bool(notes)
        notes += self._stands(now_ns, at_ns, at_counts)
        part = self._open(now_ns, lane, part_seq, at_ns, at_counts)
        if after_gap:
            part.shown_from_ns = part.at_ns - AFTER_GAP_NS
        part.challenge = self._challenged(lane) or challenge
        last_seq, last_counts = room.last_trigger
        if at_counts is not None:
            room.last_trigger = part_seq, at_counts
        if at_counts is not None and last_counts is not None:
            apart = at_counts - last_counts
            if apart < 0:  # the next part comes from behind: however little it was, an exposure could show either
                text = f"the belt went back: trigger {part_seq} is at {at_counts} counts, trigger {last_seq} was at {last_counts}"
                told = [] if now_ns < self._twice[1] else [Mismatch(lane, text)]
                self.went_back(now_ns, last_counts)
                return [*notes, *told, *self.distrust(lane, text)]
            if apart < 2 * self.line.window_counts:
                text = f"triggers {last_seq} and {part_seq} are {apart} counts apart, the window is ± {self.line.window_counts} counts"
                neither = ": what lies in the windows of both shows neither" if self._is_crowded(at_counts, last_counts) else ""
                notes.append(Crowded(lane, text + neither))
        if self._absent is not None:
            notes.append(self._close(part, Verdict.REJECT_NOT_INSPECTED, *self._absent))
            return notes
        overdue = self._close_if_overdue(now_ns, part)
        if overdue:
            return notes + overdue
        if self._is_unwatched(part.at_ns):
            text = "nobody looked where the belt was when its trigger came: which exposure shows it is not sure"
            return [*notes, self._close(part, Verdict.REJECT_NOT_INSPECTED, Reason.TRIGGER_MISMATCH, text)]
        twice = at_counts is not None and at_counts <= self._twice[0] and now_ns < self._twice[1]
        if twice or self._is_again(now_ns, part.at_ns, at_counts):
            text = f"the belt has been at {at_counts} counts twice: which exposure shows this part is not sure"
            return [*notes, self._close(part, Verdict.REJECT_NOT_INSPECTED, Reason.TRIGGER_MISMATCH, text)]
        if self._is_past(part, position_counts):
            return [*notes, self._close_by_votes(part)]
        for other in (*room.recent, *room.open.values()):
            for camera, place in other.shown_at.items():
                if other is not part and self._off(part, *place) < self._off(other, *place):
                    text = f"exposure {other.bound[camera]} of {camera}, taken for part {other.part_seq}, lies nearer to part {part_seq}"
                    return [*notes, Mismatch(lane, text), *self.distrust(lane, text)]
        for other in [other for other in room.open.values() if other is not part]:
            for camera, place in other.shown_at.items():
                if self._is_open(other) and part in self._shown(room, *place):
                    notes.append(self._either(camera, other.bound[camera], (other, part), other))
        for key in [key for key, entry in room.waiting.items() if self._shown(room, entry.at_counts, entry.at_ns) == (part,)]:
            entry = room.waiting.pop(key)
            if entry.camera in part.bound:
                text = f"exposures {part.bound[entry.camera]} and {entry.seq} of {entry.camera} show the same part {part_seq}"
                return [*notes, Mismatch(lane, text), *self.distrust(lane, text)]
            part.shown_at[entry.camera] = entry.at_counts, entry.at_ns
            notes += self._bind(part, entry.camera, entry.seq, complete=entry.complete, uid=entry.uid)
            vote = room.early.pop(key, None)
            if vote is not None:
                notes += self._vote(part, entry.camera, vote)
        return notes

    def seen(self, now_ns: int, camera: str, seq: int, at_ns: int, at_counts: int | None, *, complete: bool, uid: str | None) -> list[Note]:
        """An exposure arrived in vision."""
        return self._exposure(now_ns, camera, seq, at_ns, at_counts, lost=False, complete=complete, uid=uid)

    def lost(self, now_ns: int, camera: str, seq: int, at_ns: int, at_counts: int | None) -> list[Note]:
        """An exposure never arrived in vision."""
        return self._exposure(now_ns, camera, seq, at_ns, at_counts, lost=True, complete=False, uid=None)

    def judged(self, now_ns: int, camera: str, seq: int, vote: Vote) -> list[Note]:
        """Vision's word on an exposure; `dropped` exposures come here too, as UNJUDGED with their reason."""
        key = camera, seq
        part = self._exposures.get(key)
        if part is not None:
            return self._vote(part, camera, vote)
        past = self._past.get(key)
        if past is not None:
            return [Late(*past, camera, vote)]
        lane = self.line.cameras.get(camera)
        if lane is not None and key in self._lanes[lane].waiting:
            self._lanes[lane].early.setdefault(key, vote)
            return []
        self.duplicates += 1
        return []

    def challenge(self, lane: int) -> None:
        """The next part of a lane is known to be bad."""
        if lane in self._lanes:
            self._challenges.add(lane)

    def _challenged(self, lane: int) -> bool:
        if lane not in self._challenges:
            return False
        self._challenges.remove(lane)
        return True

    # -- the world around

    def camera(self, camera: str, *, up: bool, text: str) -> None:
        """A camera went down or came back; parts that it never saw are closed with that reason."""
        if up:
            self._down.pop(camera, None)
        else:
            self._down[camera] = text

    def present(self) -> None:
        """Vision is ready: exposures are numbered anew, parts wait for it from now on."""
        self._absent = None
        self._next.clear()
        self._last_at.clear()
        self._past.clear()
        self._down.clear()
        for lane in self._lanes.values():
            lane.waiting.clear()
            lane.early.clear()

    def absent(self, reason: Reason, text: str) -> list[Note]:
        """Vision is gone: every open part and every one to come is rejected for that reason, until `present`."""
        self._absent = reason, text
        notes: list[Note] = []
        for lane in self._lanes.values():
            lane.waiting.clear()
            lane.early.clear()
            notes += [self._close(part, Verdict.REJECT_NOT_INSPECTED, reason, text) for part in list(lane.open.values())]
        return notes

    def refuse(self, reason: Reason, text: str) -> None:
        """Reject every part to come for that reason; what is open is still judged."""
        self._absent = reason, text

    def distrust(self, lane: int, text: str) -> list[Note]:
        """Reject every open part of a lane: which exposure shows which part is no longer sure there, nor whose those are that wait."""
        room = self._lanes.get(lane)
        if room is None:
            return []
        room.waiting.clear()
        room.early.clear()
        return [self._close(part, Verdict.REJECT_NOT_INSPECTED, Reason.TRIGGER_MISMATCH, text) for part in list(room.open.values())]

    def count_anew(self, lane: int) -> list[Note]:
        """The next trigger of a lane may have any number: who counts its parts has begun anew, and what is open is rejected."""
        room = self._lanes[lane]
        notes = self.distrust(lane, "the parts are counted anew")
        room.last_seq, room.last_trigger = 0, (0, None)
        self._due = [entry for entry in self._due if entry[1] != lane]
        heapq.heapify(self._due)
        return notes

    def unwatched(self, since_ns: int, now_ns: int, text: str) -> list[Note]:
        """Nobody looked where the belt was: it may have gone back and come again. What is open is rejected, and what was triggered then."""
        self._unwatched = since_ns, now_ns
        return [note for lane in self._lanes for note in self.distrust(lane, text)]

    def _is_unwatched(self, at_ns: int) -> bool:
        return self._unwatched[0] < at_ns <= self._unwatched[1]

    def slipped(self, since_ns: int, now_ns: int, furthest_counts: int) -> list[Note]:
        """The belt has gone back a little since it stood at `furthest_counts`: until it comes by again an exposure may show either part."""
        self._slipped = since_ns, furthest_counts, now_ns + TWICE_NS
        notes: list[Note] = []
        text = f"the belt went back a little from {furthest_counts} counts: which exposure shows this part is not sure"
        for room in self._lanes.values():
            for key in [key for key, entry in room.waiting.items() if self._is_again(now_ns, entry.at_ns, entry.at_counts)]:
                del room.waiting[key]
                room.early.pop(key, None)
            shown = [p for p in room.open.values() if any(self._is_again(now_ns, ns, counts) for counts, ns in p.shown_at.values())]
            notes += [self._close(part, Verdict.REJECT_NOT_INSPECTED, Reason.TRIGGER_MISMATCH, text) for part in shown]
        return notes

    def _is_again(self, now_ns: int, at_ns: int, at_counts: int | None) -> bool:
        since_ns, upto_counts, until_ns = self._slipped
        return at_counts is not None and now_ns < until_ns and at_ns > since_ns and at_counts <= upto_counts

    def went_back(self, now_ns: int, furthest_counts: int) -> None:
        """The belt is where it has been, having come as far as `furthest_counts`: on the way there a place names two parts."""
        upto = furthest_counts + self.line.window_counts
        if now_ns < self._twice[1]:
            upto = max(upto, self._twice[0])
        self._twice = upto, now_ns + TWICE_NS

    def _stands(self, now_ns: int, at_ns: int, at_counts: int | None) -> list[Note]:
        """The belt was here at that moment. If that does not fit what was told before, in whatever order, it went back in between."""
        if at_counts is None:
            return []
        at_ns, window = min(at_ns, now_ns), self.line.window_counts
        known = self._stood
        if not known or (at_ns >= known[-1][0] and at_counts >= self._high - window):
            known.append((at_ns, at_counts))
            self._high = max(self._high, at_counts)
            return []
        back = any(counts > at_counts + window if ns <= at_ns else counts < at_counts - window for ns, counts in known)
        self._high = max(at_counts, *(counts for _, counts in known))
        if at_ns >= known[-1][0]:
            known.append((at_ns, at_counts))
        if not back:
            return []
        text = f"the belt went back: it has been at {at_counts} counts and at {self._high}, and not in that order"
        told = now_ns < self._twice[1]
        self.went_back(now_ns, self._high)
        if told:
            return []
        return [note for lane in self._lanes for note in (Mismatch(lane, text), *self.distrust(lane, text))]

    # -- inside

    def _open(self, now_ns: int, lane: int, part_seq: int, at_ns: int, at_counts: int | None) -> Part:
        at_ns = min(at_ns, now_ns)  # a stamp from the future must never lengthen a deadline
        room = self._lanes[lane]
        votes: dict[str, Vote | None] = dict.fromkeys(room.cameras)
        part = Part(lane, part_seq, at_ns, at_counts, at_ns + self._act_ns, at_ns + self._deadline_ns, votes)
        room.open[part_seq] = part
        room.last_seq = part_seq
        self._triggers += 1
        heapq.heappush(self._due, (part.act_by_ns, lane, part_seq))
        return part

    def _exposure(
        self, now_ns: int, camera: str, seq: int, at_ns: int, at_counts: int | None, *, lost: bool, complete: bool, uid: str | None
    ) -> list[Note]:
        number = self.line.cameras.get(camera)
        if number is None:
            self.duplicates += 1
            return []
        expected = self._next.get(camera, seq)
        if seq < expected:
            self.duplicates += 1
            return []
        self._next[camera] = seq + 1
        notes: list[Note] = []
        if self.line.count == "frames":
            missing = seq - expected
            if missing > LARGEST_GAP:
                notes.append(Mismatch(number, f"{camera} jumps from exposure {expected - 1} to {seq}"))
                missing = LARGEST_GAP
            for gone in range(seq - missing, seq):
                notes += self._part_of_exposure(now_ns, number, camera, gone, at_ns, None, lost=True, complete=False, uid=None)
            return notes + self._part_of_exposure(now_ns, number, camera, seq, at_ns, at_counts, lost=lost, complete=complete, uid=uid)
        if lost:
            return notes  # its part has a trigger of its own, and is closed for want of an exposure
        if self._is_stale(now_ns, camera, at_ns):
            for part in reversed(self._lanes[number].open.values()):
                if camera not in part.bound:
                    part.old[camera] = seq
                    break
            return notes  # as above
        if self._is_unwatched(min(at_ns, now_ns)) or self._is_again(now_ns, min(at_ns, now_ns), at_counts):
            return notes  # whose it is, is not sure
        notes += self._stands(now_ns, at_ns, at_counts)
        room = self._lanes[number]
        shown = self._shown(room, at_counts, at_ns)
        if not shown:
            if self._absent is None:
                room.waiting[camera, seq] = _Waiting(camera, seq, at_counts, at_ns, complete, uid, now_ns + UNMATCHED_NS)
            return notes
        part = shown[0]
        if len(shown) > 1:
            self._remember((camera, seq), part)
            return [*notes, *(self._either(camera, seq, shown, each) for each in shown if self._is_open(each))]
        if camera in part.bound:
            text = f"exposures {part.bound[camera]} and {seq} of {camera} show the same part {part.part_seq}"
            return [*notes, Mismatch(number, text), *self.distrust(number, text)]
        part.shown_at[camera] = at_counts, at_ns
        return notes + self._bind(part, camera, seq, complete=complete, uid=uid)

    def _part_of_exposure(
        self,
        now_ns: int,
        number: int,
        camera: str,
        seq: int,
        at_ns: int,
        at_counts: int | None,
        *,
        lost: bool,
        complete: bool,
        uid: str | None,
    ) -> list[Note]:
        part = self._open(now_ns, number, self._lanes[number].last_seq + 1, at_ns, at_counts)
        part.challenge = not lost and self._challenged(number)
        if self._absent is not None:
            return [self._close(part, Verdict.REJECT_NOT_INSPECTED, *self._absent)]
        notes = self._bind(part, camera, seq, complete=complete or lost, uid=uid)
        stale = not lost and self._is_stale(now_ns, camera, at_ns)
        if stale:
            notes += self._vote(part, camera, _old(camera, seq))
        elif lost:
            notes += self._vote(part, camera, Vote(Decision.UNJUDGED, Reason.FRAME_LOST, f"exposure {seq} of {camera} was lost"))
        return notes + self._close_if_overdue(now_ns, part)

    def _is_stale(self, now_ns: int, camera: str, at_ns: int) -> bool:
        """The exposure is no later than the camera's one before: an old picture under a new number.

        A stamp ahead of us makes none of the next ones old, as long as they do not repeat it, at once or later.
        """
        was_ns, ahead = self._last_at.get(camera, (-1, ()))
        if at_ns <= was_ns or at_ns in ahead:
            return True
        self._last_at[camera] = min(at_ns, now_ns), (*ahead[1 - _AHEAD :], at_ns) if at_ns > now_ns else ahead
        return False

    def _shown(self, room: _Lane, at_counts: int | None, at_ns: int) -> tuple[Part, ...]:
        """The part, open or closed a moment ago, that is nearest to a place, within the window, and those that stand too near to it."""
        window = self.line.window_counts
        near: list[tuple[int, Part]] = []
        for parts in (room.recent, room.open.values()):
            for part in parts:
                off = self._off(part, at_counts, at_ns)
                if off <= window and not part.missed:
                    near.append((off, part))
        if len(near) > 1:
            near.sort(key=_distance)
        shown = tuple(part for _, part in near if part is near[0][1] or self._is_crowded(near[0][1].at_counts, part.at_counts))
        return () if shown and at_ns < shown[0].shown_from_ns else shown

    def _is_crowded(self, at_counts: int | None, other_counts: int | None) -> bool:
        """Two parts stand nearer to each other than an exposure may stand from its part."""
        return at_counts is not None and other_counts is not None and abs(at_counts - other_counts) < self.line.window_counts

    def _either(self, camera: str, seq: int, shown: tuple[Part, ...], part: Part) -> Closed:
        """Reject a part of which an exposure is, or of another part that stands too near to it."""
        parts = " and ".join(str(each.part_seq) for each in sorted(shown, key=lambda each: each.part_seq))
        text = f"exposure {seq} of {camera} lies in the windows of parts {parts}, which stand too near to each other"
        return self._close(part, Verdict.REJECT_NOT_INSPECTED, Reason.TRIGGER_MISMATCH, text)

    def _off(self, part: Part, at_counts: int | None, at_ns: int) -> int:
        """How far a place is from a part's, in counts."""
        if at_counts is not None and part.at_counts is not None:
            return abs(part.at_counts - at_counts)
        return abs(part.at_ns - at_ns) * (self.line.window_counts + 1) // UNMATCHED_NS

    def _bind(self, part: Part, camera: str, seq: int, *, complete: bool, uid: str | None) -> list[Note]:
        part.bound[camera] = seq
        if part.uid is None:
            part.uid = uid
        elif uid is not None and uid != part.uid:
            part.other_uid = uid
        if not self._is_open(part):
            self._remember((camera, seq), part)
            return []
        self._exposures[camera, seq] = part
        if not complete:
            return self._vote(part, camera, Vote(Decision.UNJUDGED, Reason.FRAME_INCOMPLETE, f"exposure {seq} of {camera} is incomplete"))
        return []

    def _vote(self, part: Part, camera: str, vote: Vote) -> list[Note]:
        before = part.votes[camera]
        if not self._is_open(part):
            return [Late(part.lane, part.part_seq, camera, vote)]
        if before is not None:
            self.duplicates += 1
            if vote.decision is _GOOD or before.decision is not _GOOD:
                return []  # a second word can only take a PASS away
        part.votes[camera] = vote
        if None in part.votes.values():
            return []
        return [self._close_by_votes(part)]

    def _is_open(self, part: Part) -> bool:
        """The part itself, and not another one that has its number since the PLC was restarted."""
        return self._lanes[part.lane].open.get(part.part_seq) is part

    def _is_past(self, part: Part, position_counts: int | None) -> bool:
        """The part is beyond the place where its verdict must be out."""
        act_counts = self.line.act_counts
        if act_counts is None or position_counts is None or part.at_counts is None:
            return False
        return position_counts - part.at_counts >= act_counts

    def _close_if_overdue(self, now_ns: int, part: Part) -> list[Note]:
        """A part that waited in a buffer until its time was over never waits in the ledger."""
        if part.act_by_ns > now_ns or not self._is_open(part):
            return []
        return [self._close_by_votes(part)]

    def _close_by_votes(self, part: Part) -> Closed:
        for camera, vote in part.votes.items():
            if vote is None and camera in self._down:
                part.votes[camera] = Vote(Decision.UNJUDGED, Reason.CAMERA_DOWN, f"{camera} is down: {self._down[camera]}")
            elif vote is None and camera not in part.bound and camera in part.old:
                part.votes[camera] = _old(camera, part.old[camera])
            elif vote is None and camera not in part.bound:
                part.votes[camera] = Vote(Decision.UNJUDGED, Reason.FRAME_LOST, f"{camera} made no exposure of this part")
        verdict, reason, text = fuse(part.votes.values())
        if len(part.votes) > 1:
            recipes = {vote.said.recipe for vote in part.votes.values() if vote is not None and vote.said.recipe}
            if len(recipes) > 1:
                verdict, reason = Verdict.REJECT_NOT_INSPECTED, int(Reason.CONFIG_SWAP)
                text = f"judged by recipes {' and '.join(sorted(recipe[:12] for recipe in recipes))}"
        if part.other_uid is not None and verdict is _PASS:
            verdict, reason = Verdict.REJECT_UNDECIDABLE, int(Reason.CAMERAS_DISAGREE)
            text = f"one camera says that this is {part.uid}, another {part.other_uid}"
        if part.challenge and verdict is _PASS:
            verdict, reason, text = Verdict.REJECT_COMMANDED, int(Reason.CHALLENGE), "a challenge part that vision let pass"
        return self._close(part, verdict, reason, text)

    def _close(self, part: Part, verdict: Verdict, reason: int, text: str) -> Closed:
        room = self._lanes[part.lane]
        del room.open[part.part_seq]
        room.recent.append(part)
        if verdict is _PASS:
            self._passed += 1
        elif verdict is Verdict.REJECT_NOT_INSPECTED:
            self._not_inspected += 1
        else:
            self._reject += 1
        for camera, seq in part.bound.items():
            if self._exposures.pop((camera, seq), None) is not None:
                self._remember((camera, seq), part)
        return Closed(part, verdict, int(reason), text)

    def _remember(self, exposure: tuple[str, int], part: Part) -> None:
        self._past[exposure] = part.lane, part.part_seq
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)
