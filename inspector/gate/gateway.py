"""The gateway's half of a session: a slot for each part, guilty until a PASS for it comes in time. Pure; `client` gives it a socket.

This is the reference for PROTOCOL.md §9; the C and Node clients do the same. Bytes are checked in the order magic, major, checksum, epoch,
seq, flags, ttl; what fails is no message and counts once.

The lease counts from when the heartbeat was sent that the daemon has answered (`echo`), on this clock: what waited on the way, there or
back, gives nothing. So whoever has the permit has received all that the daemon sent until a lease ago.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from inspector.gate import protocol
from inspector.gate.protocol import Flag, Frames, Header, Kind, Refused
from inspector.records import Verdict

HELLO_AGAIN_NS: Final = 200_000_000
ENDS: Final = frozenset({"E_STATE", "E_ACK", "E_PROTO", "E_AUTH", "E_ORDER"})
"""The codes of REFUSE that end a session; the others are of one message."""
_REMEMBERED: Final = 8192
_PURGES: Final = 64
_HEARD: Final = 1024


@dataclass(frozen=True, slots=True)
class Terms:
    """What a gateway says of itself at HELLO; times in milliseconds. Empty `lanes`: all of the station."""

    client: str
    station: str
    lanes: tuple[int, ...] = ()
    profile: str = "permit"
    travel_min_ms: int = 600
    scan_ms: int = 10
    actuator_ms: int = 40
    lease_ms: int = 300
    credit: int = 64
    hb_ms: int = 100
    executes: bool = False
    recipes: bool = False
    """Be told (RECIPE) when another recipe takes over."""


@dataclass(slots=True)
class Slot:
    """One part at the ejector: REJECT from the start. `seq` is the verdict's, 0 before; `verdict` and `reason` are what the daemon said."""

    lane: int
    part_seq: int
    passes: bool = False
    decided: bool = False
    seq: int = 0
    verdict: int = int(Verdict.REJECT_NOT_INSPECTED)
    reason: int = 0
    purged: bool = False
    void: bool = False
    """The session in which it was expected has ended: no PASS can clear it any more."""


class Decided(NamedTuple):
    """A verdict was accepted for a slot."""

    slot: Slot
    header: Header
    payload: bytes


class Told(NamedTuple):
    """The daemon said something else: WELCOME, REFUSE, PURGE, RECIPE, BYE, or ANCHOR (new in a heartbeat); `body` is its JSON."""

    name: str
    body: Mapping[str, Any]


class Remember(NamedTuple):
    """Keep this before the ACK goes out: the last verdict received."""

    epoch: str
    seq: int


Happening: TypeAlias = Decided | Told | Remember


@dataclass(slots=True)
class Gateway:
    """The state of one gateway. Methods return the messages to send; `happenings` collects what the user wants to know."""

    terms: Terms
    last: dict[str, tuple[str, int]] = field(default_factory=dict)
    slots: OrderedDict[tuple[int, int], Slot] = field(default_factory=OrderedDict)
    happenings: list[Happening] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    epoch: bytes = b""
    session: int = 0
    state: str = ""
    anchor: str = ""
    """Where the daemon's journal ended when it last said so: kept elsewhere, a witness against whoever changes the journal."""
    plc_count: dict[int, int] = field(default_factory=dict)
    purges: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_PURGES))
    """(lane, first, last) of the parts that were taken back, for slots that are made only afterwards."""
    _permits: bool = False
    """What the last heartbeat said."""
    _lease_ns: int | None = None
    """The lease counts from here, on this clock; None before the daemon has answered in this session."""
    _since_ns: int = 0
    """When this session's WELCOME came."""
    _hb_ms: int = 0
    """Between two heartbeats: as often as both sides want."""
    _hb_ns: int = -1
    """When the last heartbeat was sent."""
    _next_hb_ns: int = 0
    _next_hello_ns: int = 0
    _seq: int = 0
    _before: int = 0
    """The last verdict of the epoch before this session."""
    _arrived: OrderedDict[int, None] = field(default_factory=OrderedDict)
    """The verdicts of this session: one that was lost comes again after those that followed it."""

    # -- what the PLC asks

    def permit(self, now_ns: int) -> bool:
        """Parts may pass: the last heartbeat says so, and the lease has not run out."""
        return self.session > 0 and self._permits and self._leased(now_ns)

    def expect(self, lane: int, part_seq: int) -> Slot:
        """The slot of a part that has been triggered (or of which the daemon has told): REJECT unless a PASS has come for it."""
        slot = self.slots.get((lane, part_seq))
        if slot is None:
            purged = any(at == lane and first <= part_seq <= last for at, first, last in self.purges)
            slot = self.slots[lane, part_seq] = Slot(lane, part_seq, purged=purged)
            while len(self.slots) > _REMEMBERED:
                self.slots.popitem(last=False)
        return slot

    # -- what happens

    def tick(self, now_ns: int) -> list[Frames]:
        """HELLO while there is no session, heartbeats while there is one."""
        self._look_at_lease(now_ns)
        if not self.session:
            if now_ns < self._next_hello_ns:
                return []
            self._next_hello_ns = now_ns + HELLO_AGAIN_NS
            return [protocol.command("HELLO", self._hello())]
        if now_ns < self._next_hb_ns:
            return []
        self._hb_ns, self._next_hb_ns = now_ns, now_ns + self._hb_ms * 1_000_000
        body: dict[str, Any] = {"mono_ns": str(now_ns)}
        if self.plc_count:
            body["plc_count"] = {str(lane): count for lane, count in self.plc_count.items()}
        return [protocol.command("HB", body)]

    def due_ns(self) -> int:
        """When `tick` has something to say at the latest."""
        return self._next_hb_ns if self.session else self._next_hello_ns

    def receive(self, now_ns: int, frames: Frames) -> list[Frames]:
        """Take one message of the daemon."""
        self._look_at_lease(now_ns)
        try:
            if len(frames) != 3:
                raise Refused("frames", f"{len(frames)} frames, 3 are allowed")
            name, head, payload = frames
            if name == b"VERDICT":
                return self._verdict(now_ns, protocol.parse(head, payload), payload)
            if name == b"HB":
                self._heartbeat(now_ns, protocol.parse(head, payload), payload)
                return []
            return self._told(now_ns, *protocol.said(frames))
        except Refused as error:
            self.faults[error.why] = self.faults.get(error.why, 0) + 1
            return []

    def execute(self, slot: Slot, outcome: str, encoder: int | None = None) -> list[Frames]:
        """Tell what became of a part; nothing to tell of a part without a verdict in this session."""
        if not slot.decided or slot.void:
            return []
        body = {"epoch": self.epoch_text, "seq": str(slot.seq), "part_seq": str(slot.part_seq), "outcome": outcome, "encoder": encoder}
        return [protocol.command("EXEC", body)]

    def trigger(self, now_ns: int, lane: int, part_seq: int, encoder: int | None = None, *, challenge: bool = False) -> list[Frames]:
        """The PLC's part sensor fired: open the slot, and tell the daemon where the PLC counts parts.

        A slot of this number is of another part, from before the PLC was restarted (`recount`), and nothing that was said of it holds.
        """
        self.slots.pop((lane, part_seq), None)
        self.expect(lane, part_seq)
        body = {"lane": lane, "part_seq": str(part_seq), "encoder": encoder, "gw_mono_us": str(now_ns // 1000), "challenge": challenge}
        return [protocol.command("TRIG", body)] if self.session else []

    def select(self, recipe: str | int, lanes: tuple[int, ...] = (), request: str = "") -> list[Frames]:
        """The PLC wants this recipe, by name or number, for these lanes (none: all of the session); RECIPE tells what comes of it."""
        body: dict[str, Any] = {"number" if isinstance(recipe, int) else "name": recipe, "id": request}
        if lanes:
            body["lanes"] = list(lanes)
        return [protocol.command("RECIPE", body)] if self.session else []

    def recount(self, now_ns: int) -> list[Frames]:
        """The PLC was restarted and counts its parts anew: nothing that was said of the others holds, and a new session begins."""
        bye = [protocol.command("BYE", {"text": "the PLC was restarted"})] if self.session else []
        self.lose()
        self.slots = OrderedDict()  # who holds a slot of before keeps it
        self.purges.clear()
        self.plc_count.clear()
        self._next_hello_ns = now_ns
        return bye

    def lose(self) -> None:
        """The session has ended: no permit, and what is undecided stays REJECT for ever."""
        self.session = 0
        self._permits, self._lease_ns = False, None
        for slot in self.slots.values():
            if not slot.decided:
                slot.void = True

    @property
    def epoch_text(self) -> str:
        """The epoch of this session, as in JSON."""
        return protocol.epoch_text(self.epoch) if self.epoch else ""

    # -- inside

    def _leased(self, now_ns: int) -> bool:
        return self._lease_ns is not None and now_ns - self._lease_ns <= self.terms.lease_ms * 1_000_000

    def _look_at_lease(self, now_ns: int) -> None:
        """A lease that has run out ends the session: what came later could be of any age, and only a new WELCOME begins anew."""
        since_ns = self._since_ns if self._lease_ns is None else self._lease_ns
        if self.session and now_ns - since_ns > self.terms.lease_ms * 1_000_000:
            self.lose()

    def _echoed(self, body: Mapping[str, Any]) -> int | None:
        """When the heartbeat was sent that this one answers; None where it answers none of this session."""
        if body["echo"] is None:
            return None  # it has heard none yet
        sent_ns = protocol.u64(body, "echo")
        if sent_ns > self._hb_ns:
            raise Refused("echo", f"{sent_ns} was not sent yet")
        return sent_ns if sent_ns >= self._since_ns else None

    def _hello(self) -> dict[str, Any]:
        terms = self.terms
        body = {
            "proto": {"majors": [protocol.MAJOR]},
            "client": terms.client,
            "station": terms.station,
            "profile": terms.profile,
            "travel_min_ms": terms.travel_min_ms,
            "scan_ms": terms.scan_ms,
            "actuator_ms": terms.actuator_ms,
            "lease_ms": terms.lease_ms,
            "credit": terms.credit,
            "executes": terms.executes,
            "recipes": terms.recipes,
            "last": {stream: {"epoch": epoch, "seq": str(seq)} for stream, (epoch, seq) in self.last.items()},
        }
        if terms.lanes:
            body["lanes"] = list(terms.lanes)
        return body

    def _verdict(self, now_ns: int, header: Header, payload: bytes) -> list[Frames]:
        if not self.session or header.epoch != self.epoch:
            raise Refused("epoch", "a verdict of another session")
        if header.kind != Kind.VERDICT:
            raise Refused("kind", f"kind {header.kind} as VERDICT")
        if header.seq <= self._before or header.seq in self._arrived:
            return [self._ack(header.seq)]  # sent again: it has been dealt with
        self._arrived[header.seq] = None
        if len(self._arrived) > _HEARD:
            self._arrived.popitem(last=False)
        if header.seq > self._seq:
            self._seq = header.seq
            self.last["q"] = self.epoch_text, header.seq
            self.happenings.append(Remember(self.epoch_text, header.seq))
        slot = self.expect(header.lane, header.part_seq)
        actionable = not header.flags & (Flag.HISTORICAL | Flag.LATE) and header.ttl_us > 0
        if not slot.decided and not slot.void and not slot.purged:
            slot.decided, slot.seq, slot.verdict, slot.reason = True, header.seq, header.verdict, header.reason
            slot.passes = header.verdict == Verdict.PASS and actionable and self._leased(now_ns)
            self.happenings.append(Decided(slot, header, payload))
        return [self._ack(header.seq)]

    def _ack(self, seq: int) -> Frames:
        return protocol.command("ACK", {"epoch": self.epoch_text, "upto": str(self._seq), "seq": str(seq)})

    def _heartbeat(self, now_ns: int, header: Header, payload: bytes) -> None:
        if not self.session or header.epoch != self.epoch:
            raise Refused("epoch", "a heartbeat of another session")
        if header.kind != Kind.HB:
            raise Refused("kind", f"kind {header.kind} as HB")
        self._permits = False
        body = protocol.loads(payload)
        lease_ns = self._echoed(body) if "echo" in body else now_ns  # a daemon of before does not answer
        if lease_ns is not None:
            self._lease_ns = lease_ns if self._lease_ns is None else max(self._lease_ns, lease_ns)
        self._permits = header.verdict == Verdict.PASS
        self.state = str(body.get("state", ""))
        if body.get("anchor", self.anchor) != self.anchor:
            self.anchor = str(body["anchor"])
            self.happenings.append(Told("ANCHOR", {"anchor": self.anchor}))

    def _told(self, now_ns: int, name: str, body: Mapping[str, Any]) -> list[Frames]:
        if name == "WELCOME":
            epoch = protocol.epoch_bytes(body.get("epoch"))
            self.lose()
            if epoch != self.epoch:
                self.slots = OrderedDict()  # numbers begin anew; who holds a slot of before keeps it
                self.purges.clear()
                self._seq = 0
            self.epoch = epoch
            self.session = protocol.u64(body, "session")
            self._seq = self._before = max(self._seq, protocol.u64(body.get("heads") or {}, "q", 0))
            self._arrived.clear()
            self._since_ns = self._next_hb_ns = now_ns
            self._hb_ms = max(1, min(self.terms.hb_ms, protocol.u64(body, "hb_ms", self.terms.hb_ms)))
            self.state = str(body.get("state", ""))
        elif name in ("BYE", "REFUSE"):
            code = body.get("code")
            if self.session and (name == "BYE" or code in ENDS):
                self.lose()
                self._next_hello_ns = now_ns + HELLO_AGAIN_NS // 10
        elif name == "PURGE":
            first, last = protocol.u64(body, "from_part"), protocol.u64(body, "to_part")
            lane = body.get("lane")
            if type(lane) is not int:
                raise Refused("field", f"lane: {str(lane)[:40]!r}")
            self.purges.append((lane, first, last))
            for slot in self.slots.values():
                if slot.lane == lane and first <= slot.part_seq <= last:
                    slot.passes, slot.purged = False, True
        elif name not in ("PONG", "RECIPE"):
            raise Refused("command", f"{name[:20]!r}")
        self.happenings.append(Told(name, body))
        return []
