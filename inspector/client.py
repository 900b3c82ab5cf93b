"""The reference client of INSP/1: `subscribe` for who watches (SCADA, historian, desk), `Gateway` for who acts (a PLC's gateway).

    for event in subscribe("tcp://127.0.0.1:5561", replay="tcp://127.0.0.1:5563"):
        print(event.seq, event.body["verdict"])

    with Gateway("tcp://127.0.0.1:5562", Terms(client="plc-1", station="demo")) as gateway:
        while running:
            gateway.poll(5)                              # in every PLC cycle: receives, acknowledges, keeps the heartbeat
            for slot in due_at_the_ejector:
                blow(slot.lane) unless slot.passes       # a slot is guilty until its PASS has come in time

Each object belongs to one thread.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

import zmq

from inspector.gate import gateway as core
from inspector.gate import protocol
from inspector.gate.gateway import Decided, Remember, Slot, Terms, Told
from inspector.gate.protocol import Flag, Frames, Header, Kind, Refused
from inspector.gate.security import Pair as Keys
from inspector.gate.security import read_client_pair as read_keys
from inspector.interfaces import Clock
from inspector.records import ConfigError, Event

__all__ = ["Decided", "Gateway", "Hole", "Keys", "Message", "Slot", "Subscriber", "Terms", "Told", "read_keys", "subscribe"]

RECEIVE_AHEAD: Final = 10_000
REDIAL_NS: Final = 6_000_000_000
"""Longer than libzmq waits between two attempts."""
STALE_NS: Final = 1_500_000_000
GAP_NS: Final = 50_000_000
REPLAY_AGAIN_NS: Final = 1_000_000_000
REPLAY_SILENT_NS: Final = 3_000_000_000
SNAIL_GAPS: Final = 3
MINUTE_NS: Final = 60_000_000_000
NS_PER_MS: Final = 1_000_000
_EVER: Final = (1 << 62) - 1
"""To the end of an epoch, wherever that is."""


# --- a PLC's session ---------------------------------------------------------------------------------------------------


class Gateway:
    """A session at the gate socket. `poll` must be called at least every `hb_ms`; between calls the slots say what may pass.

    Who does not call it for a lease, or hears nothing that is young enough, begins a new session, and parts without a verdict are rejected.

    `state_file` keeps the last verdict received over a restart (written before it is acknowledged), so that the daemon's journal has
    a witness.
    """

    def __init__(
        self,
        endpoint: str,
        terms: Terms,
        *,
        state_file: Path | None = None,
        clock: Clock = time.monotonic_ns,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: Keys | None = None,
    ) -> None:
        self.core = core.Gateway(terms, last=_remembered(state_file))
        self._endpoint, self._clock, self._state_file, self._keys = endpoint, clock, state_file, keys
        self._context = context if context is not None else zmq.Context()
        self._owns_context = context is None
        self._socket = self._dial()
        self._dialled_ns = clock()

    def _dial(self) -> zmq.Socket[bytes]:
        return _dialled(self._context, zmq.DEALER, self._endpoint, self._keys)

    def poll(self, timeout_ms: int = 0) -> list[Decided | Told]:
        """Receive what has come (waiting at most `timeout_ms` for the first), acknowledge it, keep the session; what there is to know."""
        self._dial_again()
        self._send(self.core.tick(self._clock()))
        if self._socket.poll(timeout_ms, zmq.POLLIN):
            for _ in range(256):
                try:
                    frames = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                answers = self.core.receive(self._clock(), frames)
                if self._state_file is not None:
                    _remember(self._state_file, [h for h in self.core.happenings if isinstance(h, Remember)])
                self._send(answers)
        self._send(self.core.tick(self._clock()))
        happenings, self.core.happenings = self.core.happenings, []
        return [h for h in happenings if not isinstance(h, Remember)]

    def _dial_again(self) -> None:
        """After an error of the protocol, which a flipped bit is, libzmq never connects again; this does."""
        now_ns = self._clock()
        if self.core.session:
            self._dialled_ns = now_ns
        elif now_ns - self._dialled_ns > REDIAL_NS:
            self._dialled_ns = now_ns
            self._socket.close(0)
            self._socket = self._dial()

    @property
    def permit(self) -> bool:
        """Parts may pass: to be asked in every PLC cycle, because it ends by itself."""
        return self.core.permit(self._clock())

    @property
    def connected(self) -> bool:
        """There is a session."""
        return self.core.session > 0

    @property
    def epoch(self) -> str:
        """The daemon start that this session belongs to."""
        return self.core.epoch_text

    def slot(self, lane: int, part_seq: int) -> Slot:
        """The slot of a part: REJECT until its PASS has come."""
        return self.core.expect(lane, part_seq)

    def trigger(self, lane: int, part_seq: int, encoder: int | None = None, *, challenge: bool = False) -> Slot:
        """The PLC's own part sensor fired (for lines with `count: plc`)."""
        self._send(self.core.trigger(self._clock(), lane, part_seq, encoder, challenge=challenge))
        return self.core.expect(lane, part_seq)

    def recount(self) -> None:
        """The PLC was restarted and counts its parts anew: all slots are void, and a new session begins (for lines with `count: plc`)."""
        self._send(self.core.recount(self._clock()))

    def select(self, recipe: str | int, lanes: tuple[int, ...] = (), request: str = "") -> None:
        """Ask for a recipe by name or number, for these lanes (none: all of the session); `poll` tells RECIPE with this request's `id`."""
        self._send(self.core.select(recipe, lanes, request))

    def execute(self, slot: Slot, outcome: str, encoder: int | None = None) -> None:
        """Tell what became of the part: EJECTED_CONFIRMED, EJECTED_UNCONFIRMED, PASSED, DEFAULT_REJECT, BIN_FULL, AIR_LOW or TEST_OK."""
        self._send(self.core.execute(slot, outcome, encoder))

    def count(self, lane: int, parts: int) -> None:
        """How many parts the PLC has counted in this lane; goes out with each heartbeat, and the daemon compares."""
        self.core.plc_count[lane] = parts

    def _send(self, messages: list[Frames]) -> None:
        for frames in messages:
            with suppress(zmq.Again):  # nobody there: the daemon hears nothing, and withholds the permit
                self._socket.send_multipart(frames, zmq.NOBLOCK)

    def close(self) -> None:
        """Say goodbye and let the socket go."""
        if not self._socket.closed:
            if self.core.session:
                self._send([protocol.command("BYE")])
            self._socket.close(100)
        if self._owns_context:
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _remembered(path: Path | None) -> dict[str, tuple[str, int]]:
    if path is None or not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text())
        return {"q": (str(kept["epoch"]), int(kept["seq"]))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(path: Path, news: list[Remember]) -> None:
    if news:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"epoch": news[-1].epoch, "seq": news[-1].seq}))
        part.replace(path)


def _dialled(context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str, keys: Keys | None) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_AHEAD)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000 if kind == zmq.SUB else 500)
        socket.setsockopt(zmq.MAXMSGSIZE, protocol.LARGEST_FRAME_BYTES)
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.HEARTBEAT_IVL, 200)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 600)
            socket.setsockopt(zmq.SNDHWM, 256)
            socket.setsockopt(zmq.IMMEDIATE, 1)  # what is said to nobody must not be said to the next daemon
        if keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        raise ConfigError("E_ENDPOINT", f"{endpoint}: {error}") from error
    return socket


# --- a subscriber ------------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """One message of a stream, in order and only once. `historical`: it was replayed."""

    topic: protocol.Topic | None
    header: Header
    payload: bytes
    historical: bool

    @property
    def stream(self) -> str:
        """q, r or a."""
        return protocol.STREAMS.get(self.header.stream_id, "")

    @property
    def event(self) -> Event:
        """As a record."""
        return Event(
            protocol.epoch_text(self.header.epoch), self.stream, self.header.seq, self.header.t_event_utc_ns, protocol.loads(self.payload)
        )


class Hole(NamedTuple):
    """Events that can no longer be had: a hole in the data, never to be filled by guessing.

    `last` None: nobody knows how many. Then it is all of `epoch` from `first` on, and whatever there was before the next event told.
    """

    epoch: str
    stream: str
    first: int
    last: int | None
    why: str

    def __str__(self) -> str:
        upto = "on, nobody knows how many," if self.last is None else f"to {self.last}"
        return f"stream {self.stream}: events {self.first} {upto} of {self.epoch} are lost: {self.why}"


Item: TypeAlias = Message | Hole


@dataclass(slots=True)
class _Fill:
    """A gap that is being filled: live messages wait in `held` until it is."""

    number: int
    epoch: bytes
    first: int
    last: int
    held: deque[Message]
    then: bytes | None
    """The epoch that runs, where `epoch` is an earlier one that is told to its end (`last` is `_EVER`)."""
    since_ns: int
    heard_ns: int
    asked: bool = False
    gone: bool = False
    """Nothing of it is kept."""
    next: bytes | None = None
    """The epoch that came after this one, as the daemon says when it has told it to its end."""


class Subscriber:
    """Receives one stream from the events socket, in order, each event once; asks the replay socket for what was lost.

    `receive` gives messages and holes. `stale` says that the daemon has not been heard for 1.5 s: values shown must be marked so.
    Without a replay endpoint a gap is a hole at once. `since` ((epoch, seq) of the last event known) resumes there.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        stream: str = "q",
        replay: str | None = None,
        since: tuple[str, int] | None = None,
        prefix: str = "insp1/",
        clock: Clock = time.monotonic_ns,
        keys: Keys | None = None,
    ) -> None:
        if stream not in ("q", "r", "a"):
            raise ConfigError("E_USAGE", f"stream {stream!r}; q, r or a is allowed")
        self.stream = stream
        self.faults: dict[str, int] = {}
        self.status: Mapping[str, Any] = {}
        self.gaps = 0
        self._clock = clock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ready: deque[Item] = deque()
        self._epoch: bytes | None = protocol.epoch_bytes(since[0]) if since else None
        self._last = since[1] if since else 0
        self._ended = False
        self._fill: _Fill | None = None
        self._gap_times: deque[int] = deque(maxlen=64)
        self._heard_ns = clock()
        self._asked = 0
        self._endpoint, self._replay_endpoint, self._prefix, self._keys = endpoint, replay, prefix.encode(), keys
        try:
            self._dial()
        except ConfigError:
            self._context.destroy(linger=0)
            raise

    def _dial(self) -> None:
        self._dialled_ns = self._clock()
        self._sub = _dialled(self._context, zmq.SUB, self._endpoint, self._keys)
        self._replay = _dialled(self._context, zmq.DEALER, self._replay_endpoint, self._keys) if self._replay_endpoint else None
        self._sub.setsockopt(zmq.SUBSCRIBE, self._prefix)
        self._poller = zmq.Poller()
        self._poller.register(self._sub, zmq.POLLIN)
        if self._replay is not None:
            self._poller.register(self._replay, zmq.POLLIN)

    def _dial_again(self, now_ns: int) -> None:
        """After an error of the protocol libzmq never connects again: who hears nothing for long begins anew."""
        if now_ns - max(self._heard_ns, self._dialled_ns) > REDIAL_NS:
            self._sub.close(0)
            if self._replay is not None:
                self._replay.close(0)
            self._dial()

    @property
    def joined(self) -> bool:
        """It is known where the stream stands: nothing is missed from here on."""
        return self._epoch is not None

    @property
    def silent_s(self) -> float:
        """Seconds since the daemon was last heard, its heartbeat included."""
        return (self._clock() - self._heard_ns) / 1e9

    @property
    def stale(self) -> bool:
        """Nothing was heard for 1.5 s."""
        return self._clock() - self._heard_ns > STALE_NS

    @property
    def too_slow(self) -> bool:
        """Three gaps or more within the last minute: this reader cannot keep up."""
        now_ns = self._clock()
        return sum(now_ns - at < MINUTE_NS for at in self._gap_times) >= SNAIL_GAPS

    def receive(self, timeout_s: float) -> Item | None:
        """The next message or hole; None when there was none in time."""
        until_ns = self._clock() + int(timeout_s * 1e9)
        while True:
            now_ns = self._clock()
            self._drive(now_ns)
            if self._ready:
                return self._ready.popleft()
            wait_ms = max(0, -(-(until_ns - now_ns) // NS_PER_MS))
            if self._fill is not None:
                wait_ms = min(wait_ms, 10)
            heard = self._poller.poll(min(wait_ms, 200))
            self._hear()
            if not self._ready and not heard and now_ns >= until_ns:
                return None

    def close(self) -> None:
        """Let the sockets go."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _hear(self) -> None:
        for _ in range(512):
            try:
                frames = self._sub.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                self._live(frames)
            except Refused as error:
                self.faults[error.why] = self.faults.get(error.why, 0) + 1
        for _ in range(512 if self._replay is not None else 0):
            assert self._replay is not None
            try:
                frames = self._replay.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                self._told(frames)
            except Refused as error:
                self.faults[error.why] = self.faults.get(error.why, 0) + 1

    def _live(self, frames: Frames) -> None:
        if len(frames) != 3:
            raise Refused("frames", f"{len(frames)} frames, 3 are allowed")
        topic = protocol.topic_of(frames[0])
        header = protocol.parse(frames[1], frames[2])
        self._heard_ns = self._clock()
        if topic.stream == "hb":
            self.status = protocol.loads(frames[2])
            head = protocol.u64(self.status.get("head") or {}, self.stream, 0)
            if self._epoch is None:
                self._epoch, self._last = header.epoch, head  # from here on nothing is lost in silence
            if self._epoch != header.epoch and self._fill is None:
                self._gap(self._epoch, _EVER, then=header.epoch)
            if self._epoch == header.epoch and head > self._last and self._fill is None:
                self._gap(header.epoch, head)  # the last message was lost, and no later one shows it
            return
        if topic.stream == self.stream:
            self._take(Message(topic, header, frames[2], False))

    def _take(self, message: Message) -> None:
        header = message.header
        if self._fill is not None:
            self._fill.held.append(message)
            if len(self._fill.held) > RECEIVE_AHEAD:
                self._give_up("the replay does not come")
            return
        if self._epoch is None:
            self._epoch, self._last = header.epoch, header.seq - 1
        if header.epoch != self._epoch and self._gap(self._epoch, _EVER, message, then=header.epoch):
            return
        if header.seq <= self._last:
            return
        if header.seq > self._last + 1 and self._gap(header.epoch, header.seq - 1, message):
            return
        self._give(message)

    def _give(self, message: Message) -> None:
        self._last = message.header.seq
        self._ended = message.header.kind == Kind.EPOCH_CLOSE
        self._ready.append(message)

    def _lose(self, last: int, why: str) -> None:
        """What is missing up to `last` cannot be had. To the end of an epoch nothing is missing where its last event was there."""
        assert self._epoch is not None
        if last > self._last and not self._ended:
            upto = last if last < _EVER else None
            self._ready.append(Hole(protocol.epoch_text(self._epoch), self.stream, self._last + 1, upto, why))
            self._last = last

    def _begin(self, epoch: bytes) -> None:
        """From here on another epoch, from its first event."""
        self._epoch, self._last, self._ended = epoch, 0, False

    def _gap(self, epoch: bytes, last: int, held: Message | None = None, *, then: bytes | None = None) -> bool:
        """Begin to fill a gap, with `held` for afterwards; False where it is a hole at once.

        With a new start of the daemon, `then`: first what is left of the epoch before, then that one from its beginning.
        """
        now_ns = self._clock()
        if then is None:
            self.gaps += 1
            self._gap_times.append(now_ns)
        if self._replay is None:
            self._lose(last, "no replay endpoint")
            if then is not None:
                self._begin(then)
            return False
        self._asked += 1
        self._fill = _Fill(self._asked, epoch, self._last + 1, last, deque([held] if held is not None else ()), then, now_ns, now_ns)
        return True

    def _drive(self, now_ns: int) -> None:
        """Ask for what is missing, 50 ms after the gap was seen, and again when no answer comes."""
        self._dial_again(now_ns)
        fill = self._fill
        if fill is None or self._replay is None:
            return
        if not fill.asked and now_ns - fill.since_ns >= GAP_NS:
            body = {
                "id": fill.number,
                "stream": self.stream,
                "epoch": protocol.epoch_text(fill.epoch),
                "from": str(fill.first),
                "to": str(min(fill.last, fill.first + 99_999_999)),
            }
            with suppress(zmq.Again):
                self._replay.send_multipart(protocol.command("REPLAY", body), zmq.NOBLOCK)
                fill.asked, fill.heard_ns = True, now_ns
        elif fill.asked and now_ns - fill.heard_ns > REPLAY_SILENT_NS:
            if now_ns - fill.since_ns > 10 * REPLAY_SILENT_NS:
                self._give_up("the replay does not answer")
            else:
                self._asked += 1
                fill.number, fill.asked = self._asked, False

    def _told(self, frames: Frames) -> None:
        fill = self._fill
        if len(frames) != 3:
            raise Refused("frames", f"{len(frames)} frames, 3 are allowed")
        name, head, payload = frames
        if name == b"EVENT":
            header = protocol.parse(head, payload)
            if fill is not None and header.epoch == fill.epoch and protocol.STREAMS.get(header.stream_id) == self.stream:
                fill.heard_ns = self._clock()
                if header.seq == self._last + 1:
                    self._give(Message(None, header, payload, bool(header.flags & Flag.HISTORICAL)))
                elif header.seq > self._last:
                    self._lose(header.seq - 1, "not kept")
                    self._give(Message(None, header, payload, True))
            return
        _, body = protocol.said(frames)
        if fill is None or body.get("id") != fill.number:
            if name == b"REFUSE" and fill is not None:
                fill.asked, fill.since_ns = False, self._clock() + REPLAY_AGAIN_NS
            return
        fill.heard_ns = self._clock()
        if name == b"CHUNK":
            assert self._replay is not None
            with suppress(zmq.Again):
                self._replay.send_multipart(protocol.command("MORE", {"id": fill.number}), zmq.NOBLOCK)
        elif name == b"HEAD_LOST":
            fill.gone = body.get("oldest") is None
            if not fill.gone:
                self._lose(min(protocol.u64(body, "oldest") - 1, fill.last), "no longer kept")
        elif name == b"DONE":
            upto = fill.last if fill.then is None else protocol.u64(body, "upto")
            if fill.gone and upto <= self._last:
                upto = fill.last  # nobody knows how much there was
            self._lose(upto, "no longer kept" if fill.gone else "not kept")
            fill.next = protocol.epoch_bytes(body["next"]) if body.get("next") else None
            self._finish(fill)

    def _give_up(self, why: str) -> None:
        fill = self._fill
        assert fill is not None
        self._lose(fill.last, why)
        self._finish(fill)

    def _finish(self, fill: _Fill) -> None:
        self._fill = None
        if fill.then is not None:  # an epoch is told to its end; of the one after it perhaps nothing was heard live
            self._begin(fill.next or fill.then)
            if self._epoch != fill.then:
                assert self._epoch is not None
                self._gap(self._epoch, _EVER, then=fill.then)
        for message in fill.held:
            self._take(message)


def subscribe(
    endpoint: str,
    *,
    stream: str = "q",
    replay: str | None = None,
    since: tuple[str, int] | None = None,
    keys: Keys | None = None,
    on_hole: Callable[[Hole], None] | None = None,
    until: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Every event of a stream, in order, each once, for ever or until `until()` says so (asked at least five times a second).

    What was lost on the way is asked for at `replay`; what cannot be had any more is told to `on_hole`.
    """
    with Subscriber(endpoint, stream=stream, replay=replay, since=since, keys=keys) as subscriber:
        while not until():
            item = subscriber.receive(0.2)
            if isinstance(item, Message):
                yield item.event
            elif item is not None and on_hole is not None:
                on_hole(item)
