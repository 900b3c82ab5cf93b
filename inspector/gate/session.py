"""One gateway's session as the daemon keeps it: what it said at HELLO, what was sent to it, and what it has confirmed. Pure.

Credit is a window, not a purse: at most `credit` verdicts are sent and not yet acknowledged, and ACK makes room again, so a lost or
repeated message cannot leak any. What cannot be sent before its deadline is never sent as an order; it counts as unconfirmed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from inspector.gate import protocol
from inspector.gate.protocol import Flag, Frames, Refused

RESEND_NS: Final = 20_000_000
RESEND_EXPIRED_NS: Final = 200_000_000
OFFSET_WINDOW_NS: Final = 60_000_000_000
LARGEST_CREDIT: Final = 64
LARGEST_QUEUE: Final = 4096
_NONE: Final = Flag(0)
_DURABLE: Final = Flag.DURABLE
PROFILES: Final = ("permit", "fire")


class Hello(NamedTuple):
    """What a gateway says first. Times in milliseconds; `lanes` are the ejectors it serves; `last` maps stream to (epoch, seq)."""

    client: str
    station: str
    profile: str
    lanes: tuple[int, ...]
    last: Mapping[str, tuple[bytes, int]]
    travel_min_ms: int
    scan_ms: int
    actuator_ms: int
    lease_ms: int
    credit: int
    executes: bool
    """It will send EXEC for every part, so that a missing one is an alarm."""
    recipes: bool = False
    """It wants to be told when another recipe takes over."""


class Refusal(Exception):
    """HELLO is refused: `code` is E_VERSION, E_TIMING, E_STATION, E_BUSY, E_AUTH or E_FIELD; the text says what is allowed."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(f"{code}: {text}")


def _whole(body: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refusal("E_FIELD", f"{key}: {str(value)[:40]}; a whole number {least} … {most} is allowed")
    return value


def hello(body: Mapping[str, Any], *, station: str, lanes: tuple[int, ...], profile: str) -> Hello:
    """Read a HELLO; raises `Refusal` with the code and the range that is allowed."""
    proto = body.get("proto")
    majors = proto.get("majors") if isinstance(proto, dict) else None
    if not isinstance(majors, list) or protocol.MAJOR not in majors:
        raise Refusal("E_VERSION", f"proto.majors: {str(majors)[:40]}; {protocol.MAJOR} must be among them")
    if body.get("station") != station:
        raise Refusal("E_STATION", f"station: {str(body.get('station'))[:40]!r}; this is {station!r}")
    if body.get("profile") not in PROFILES:
        raise Refusal("E_FIELD", f"profile: {str(body.get('profile'))[:40]!r}; permit or fire is allowed")
    if body["profile"] != profile:
        raise Refusal("E_FIELD", f"profile: {body['profile']!r}; this line is set up for {profile!r}")
    client = body.get("client")
    if not isinstance(client, str) or not 1 <= len(client) <= 64 or not client.isprintable():
        raise Refusal("E_FIELD", "client: 1 to 64 printable characters are allowed")
    wanted = body.get("lanes", list(lanes))
    if not isinstance(wanted, list) or not wanted or not all(type(lane) is int and lane in lanes for lane in wanted):
        raise Refusal("E_FIELD", f"lanes: {str(wanted)[:40]}; some of {list(lanes)} are allowed")
    last: dict[str, tuple[bytes, int]] = {}
    said = body.get("last", {})
    try:
        for stream, entry in said.items():
            if stream in ("q", "a") and entry is not None:
                last[stream] = protocol.epoch_bytes(entry["epoch"]), protocol.u64(entry, "seq")
    except (AttributeError, TypeError, KeyError, Refused) as error:
        raise Refusal("E_FIELD", "last: {stream: {epoch, seq}} is allowed") from error
    return Hello(
        client,
        station,
        body["profile"],
        tuple(sorted(set(wanted))),
        last,
        _whole(body, "travel_min_ms", 1, 600_000),
        _whole(body, "scan_ms", 0, 600_000),
        _whole(body, "actuator_ms", 0, 600_000),
        _whole(body, "lease_ms", 1, 600_000),
        _whole(body, "credit", 1, LARGEST_CREDIT),
        body.get("executes") is True,
        body.get("recipes") is True,
    )


@dataclass(slots=True)
class Order:
    """A verdict on its way to a gateway."""

    seq: int
    lane: int
    part_seq: int
    deadline_ns: int
    head: bytes
    payload: bytes
    sent_ns: int = 0
    overdue: bool = False
    passes: bool = False
    purged: bool = False
    """Taken back: it still goes out, so that no number is missing, but nobody may act on it."""


@dataclass(slots=True)
class Session:
    """One gateway. `queue` waits for credit, `sent` for ACK, both in order of seq; `acked` is the last seq confirmed in this epoch."""

    identity: bytes
    number: int
    user: str
    hello: Hello
    credit: int
    heard_ns: int
    acked: int = 0
    last_sent: int = 0
    durable: int | None = None
    """To here everything is kept; a PASS beyond waits, and what comes after it. None where nothing waits for the disk."""
    queue: deque[Order] = field(default_factory=deque)
    sent: deque[Order] = field(default_factory=deque)
    next_hb_ns: int = 0
    answer_from_ns: int = 0
    """The next answer to a heartbeat may go out at this moment, however fast they come."""
    echo: int | None = None
    """What the gateway's clock showed in its last heartbeat."""
    answers: bool = False
    """The next heartbeat is the answer to one that has come since the last."""
    triggered: set[int] = field(default_factory=set)
    """The lanes of which a TRIG has come: the first may count anew, no other."""
    counted_from: dict[int, int] = field(default_factory=dict)
    """By lane: the PLC's count minus ours when it was first told."""
    count_off_since_ns: int | None = None
    miscounted: bool = False
    """The PLC's count stayed another than ours."""
    _offsets_ns: tuple[int, int, int] | None = None
    """(since when, smallest of our clock minus the gateway's since then, and in the time before that)."""

    def when(self, now_ns: int, gateway_ns: int) -> int:
        """When, by our clock, something happened that the gateway's clock shows as `gateway_ns`; never later than now.

        The smallest difference of the clocks seen in the last minute or two is the one with the least delay in it; what is more is how
        long this message waited somewhere, and its deadline runs already. The minute bounds what two clocks can drift apart.
        """
        offset_ns = now_ns - gateway_ns
        since_ns, least, before = self._offsets_ns or (now_ns, offset_ns, offset_ns)
        if now_ns - since_ns > OFFSET_WINDOW_NS:
            since_ns, least, before = now_ns, offset_ns, least
        least = min(least, offset_ns)
        self._offsets_ns = since_ns, least, before
        return min(now_ns, gateway_ns + min(least, before))

    def beats(self, now_ns: int, mono_ns: int) -> None:
        """Its heartbeat has come: ours answers at once, but not sooner than half a period after the last answer, however fast they come."""
        self.echo, self.answers = mono_ns, True
        self.next_hb_ns = min(self.next_hb_ns, max(now_ns, self.answer_from_ns))

    def beat(self, now_ns: int, hb_ns: int) -> None:
        """Our heartbeat goes out; after an answer the next waits a little longer for the gateway's, so that not both are sent."""
        self.next_hb_ns = now_ns + hb_ns
        if self.answers:
            self.answers, self.answer_from_ns = False, now_ns + hb_ns // 2
            self.next_hb_ns += hb_ns // 4

    def fresh(self, now_ns: int) -> bool:
        """The gateway was heard within its lease."""
        return now_ns - self.heard_ns <= self.hello.lease_ms * 1_000_000

    @property
    def unconfirmed(self) -> bool:
        """A verdict passed its deadline without ACK, and no ACK has come for it since."""
        return any(order.overdue for orders in (self.sent, self.queue) for order in orders)

    def offer(self, now_ns: int, order: Order) -> list[Frames]:
        """Take a verdict to send; returns what can be sent now."""
        self.queue.append(order)
        return self._flow(now_ns)

    def kept(self, now_ns: int, upto: int) -> list[Frames]:
        """Everything to `upto` is on the disk; returns what waited for that."""
        self.durable = upto
        return self._flow(now_ns)

    def _waits(self, order: Order) -> bool:
        return self.durable is not None and order.passes and order.seq > self.durable

    def purge(self, lane: int, first: int, last: int) -> None:
        """Nobody may act any more on a verdict for these parts, whether it waits for credit or is sent again."""
        for orders in (self.queue, self.sent):
            for order in orders:
                if order.lane == lane and first <= order.part_seq <= last:
                    order.purged = True

    def acknowledge(self, now_ns: int, upto: int, seq: int | None = None) -> list[Frames]:
        """The verdict `seq` has arrived, or without it everything to `upto`; raises `Refused` (ack) for a number that was never sent."""
        if max(upto, seq or 0) > self.last_sent:
            raise Refused("ack", f"ACK {max(upto, seq or 0)}, but {self.last_sent} is the last that was sent")
        if seq is None:
            while self.sent and self.sent[0].seq <= upto:
                self.sent.popleft()
        else:
            self._arrived(seq)
        self.acked = max(self.acked, min(upto, self.sent[0].seq - 1) if self.sent else upto)
        return self._flow(now_ns)

    def _arrived(self, seq: int) -> None:
        """This one needs to be sent no more; one before it may have been lost on the way, and the gateway cannot know."""
        if self.sent and self.sent[0].seq == seq:
            self.sent.popleft()
            return
        for order in self.sent:
            if order.seq == seq:
                self.sent.remove(order)
                return

    def leave(self, lanes: Sequence[int]) -> deque[Order]:
        """Hand what was not confirmed in time for these lanes to the session that follows, which offers it again so that it may be."""
        left = deque(order for orders in (self.sent, self.queue) for order in orders if order.overdue and order.lane in lanes)
        self.sent = deque(order for order in self.sent if not order.overdue or order.lane not in lanes)
        self.queue = deque(order for order in self.queue if not order.overdue or order.lane not in lanes)
        return left

    def tick(self, now_ns: int) -> tuple[list[Frames], list[Order]]:
        """(frames to send again, verdicts whose deadline has just passed without ACK)."""
        frames: list[Frames] = []
        overdue: list[Order] = []
        for order in self.queue:  # in order of seq: one of another lane, or that was judged late, may have less time than those before it
            if order.deadline_ns <= now_ns and not order.overdue:
                order.overdue = True
                overdue.append(order)
        while self.queue and self.queue[0].overdue:  # never an order again; sent only so that its ACK may come
            order = self.queue.popleft()
            self.sent.append(order)
            self.last_sent = max(self.last_sent, order.seq)
            if self._waits(order):
                order.sent_ns = now_ns
            frames += self._flow(now_ns)
        while len(self.sent) > LARGEST_QUEUE:
            self.sent.popleft()
        for place, order in enumerate(self.sent):
            if order.deadline_ns <= now_ns and not order.overdue:
                order.overdue = True
                overdue.append(order)
            if now_ns - order.sent_ns >= (RESEND_EXPIRED_NS if order.overdue else RESEND_NS) and place < self.credit:
                order.sent_ns = now_ns
                if not self._waits(order):
                    frames.append(self._frames(order, now_ns, Flag.RESEND | self._durable(order)))
        return frames, overdue

    def due_ns(self) -> int:
        """When `tick` has something to do at the earliest."""
        due = self.next_hb_ns
        for order in self.queue:
            if not order.overdue:
                due = min(due, order.deadline_ns)
        for order in self.sent:
            due = min(due, order.sent_ns + (RESEND_EXPIRED_NS if order.overdue else RESEND_NS))
            break  # the oldest was sent first; the others follow at the next tick
        return due

    def _flow(self, now_ns: int) -> list[Frames]:
        frames: list[Frames] = []
        while self.queue and len(self.sent) < self.credit and not self._waits(self.queue[0]):
            order = self.queue.popleft()
            order.sent_ns = now_ns
            self.sent.append(order)
            self.last_sent = order.seq
            frames.append(self._frames(order, now_ns, self._durable(order)))
        return frames

    def _durable(self, order: Order) -> Flag:
        return _DURABLE if self.durable is not None and order.seq <= self.durable else _NONE

    @staticmethod
    def _frames(order: Order, now_ns: int, add: Flag) -> Frames:
        ttl_us = 0 if order.purged else max(0, (order.deadline_ns - now_ns) // 1000)
        if not add and ttl_us.to_bytes(4, "big") == order.head[48:52]:
            return [b"VERDICT", order.head, order.payload]
        return [b"VERDICT", protocol.copy_of(order.head, order.payload, add=int(add), ttl_us=ttl_us), order.payload]
