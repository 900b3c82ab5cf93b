"""The line between vision and gate: one Unix socket pair that keeps message borders (SOCK_SEQPACKET), and what is said on it.

Vision says what it saw and judged; the gate says when to begin, to read its recipe again and to stop. Each message is one kind byte and
a JSON array of its fields; `Judged.body`, JSON already, follows raw. What is said together goes in one packet, with a byte between that
no JSON has. What the arbiter hears is its own input, made here of the bytes. Neither side blocks: `send` says False when the other side
does not read, and then the sender's rule for what is full holds.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from inspector.gate import protocol
from inspector.gate.arbiter import CameraState as CameraState
from inspector.gate.arbiter import Changed as Changed
from inspector.gate.arbiter import Dropped as Dropped
from inspector.gate.arbiter import Judged as Judged
from inspector.gate.arbiter import Lost as Lost
from inspector.gate.arbiter import Reloaded as Reloaded
from inspector.gate.arbiter import Seen as Seen

LARGEST_MESSAGE_BYTES = 65_536
BUFFER_BYTES = 1 << 20
_BETWEEN = b"\x1e"


class Ready(NamedTuple):
    """Vision holds its recipe and has tried its cameras. `models` are [name, sha256], `reasons` the recipe's reject classes in order.

    `metrics` is the address (host:port) where it shows its metrics.
    """

    recipe: str
    models: list[list[str]]
    reasons: list[str]
    pid: int
    metrics: str = ""


class Noted(NamedTuple):
    """Something that vision has to say as an alarm: `code` as in PROTOCOL.md, severity info, warning or critical."""

    code: str
    severity: str
    text: str


class Beat(NamedTuple):
    """Vision is alive: age in milliseconds of each worker's last step, sent by its main loop."""

    ages_ms: dict[str, float]


class Finished(NamedTuple):
    """Every source has shown all that it had and everything is judged, or the drain is complete."""

    drained: bool


class Begin(NamedTuple):
    """The line runs from this moment (monotonic) on."""

    at_ns: int


class Reload(NamedTuple):
    """Read the configuration again; answer with `Reloaded`."""


class Switch(NamedTuple):
    """Let the recipe with this name or number take over for the cameras of these lanes (none: all); answer with `Changed`.

    With `shadow` it judges beside the present one, and only that counts; an empty `recipe` then ends it.
    """

    request: str
    recipe: str | int
    lanes: list[int]
    shadow: bool = False


class Drain(NamedTuple):
    """Stop the sources, judge what waits, say `Finished`, and end."""


ToGate: TypeAlias = Ready | Reloaded | Changed | Seen | Lost | Dropped | Judged | CameraState | Noted | Beat | Finished
ToVision: TypeAlias = Begin | Reload | Switch | Drain

_KINDS: tuple[type[ToGate | ToVision], ...] = (
    Ready,
    Reloaded,
    Seen,
    Lost,
    Dropped,
    Judged,
    CameraState,
    Beat,
    Finished,
    Begin,
    Reload,
    Drain,
    Changed,
    Switch,
    Noted,
)
_CODE = {kind: bytes([65 + i]) for i, kind in enumerate(_KINDS)}
_KIND = {65 + i: kind for i, kind in enumerate(_KINDS)}


def encode(message: ToGate | ToVision) -> bytes:
    """The bytes of one message."""
    if isinstance(message, Judged):
        return b"%b%b\0%b" % (_CODE[Judged], protocol.dumps(message[:-1]), message.body)
    return _CODE[type(message)] + protocol.dumps(message)


def decode(data: bytes) -> ToGate | ToVision:
    """The message in these bytes; `ValueError` when there is none."""
    try:
        kind = _KIND[data[0]]
        if kind is Judged:
            end = data.index(b"\0")
            return Judged(*[*protocol.decode_json(data[1:end]), data[end + 1 :]])
        return kind(*protocol.decode_json(data[1:]))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a message of the link: {data[:40]!r}") from error


class End:
    """One end of the line. `fileno()` can be polled; one thread receives, sends are safe from any thread (the kernel keeps borders)."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._more: deque[bytes] = deque()

    def fileno(self) -> int:
        """The descriptor, to poll for reading or to pass to a child."""
        return self._socket.fileno()

    @property
    def waits(self) -> bool:
        """There is more to receive than `fileno()` shows."""
        return bool(self._more)

    def send(self, *messages: ToGate | ToVision) -> bool:
        """False when the other side's buffer is full; `BrokenPipeError` or `ConnectionResetError` when it is gone."""
        packets = [encode(message) for message in messages]
        try:
            for packet in packets if len(packets) == 1 else _together(packets):
                self._socket.send(packet)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> ToGate | ToVision | None:
        """The next message, None when there is none now; `EOFError` when the other side is gone."""
        if self._more:
            return decode(self._more.popleft())
        try:
            data = self._socket.recv(LARGEST_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError("the other end of the link is closed")
        if _BETWEEN in data:
            data, *more = data.split(_BETWEEN)
            self._more.extend(more)
        return decode(data)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _together(packets: Sequence[bytes]) -> Iterator[bytes]:
    """As few packets as these fit into."""
    some: list[bytes] = []
    for packet in packets:
        if some and sum(map(len, some)) + len(some) + len(packet) > LARGEST_MESSAGE_BYTES:
            yield _BETWEEN.join(some)
            some = []
        some.append(packet)
    yield _BETWEEN.join(some)


def pair() -> tuple[End, End]:
    """Two ends that belong together: one for the gate, one to be inherited by vision."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (a, b):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return End(a), End(b)
