"""INSP/1 on the wire: the 64-byte header, CRC-32C, topics, commands, and the chain that ties one event to the next.

Pure: bytes in, bytes and records out. A message of the gate or replay socket is `[command][header][payload]`, where a message that is no
event has its checksum instead of a header; one of the events socket is `[topic][header][payload]`. The payload is UTF-8 JSON; whole
numbers that may pass 2**53 are strings in it, because a Node reader would lose their last digits.

The chain: every event's payload ends with its own digest, `…,"hash":"<64 hex digits>"}`, and

    hash = SHA-256( hash of the event before (32 bytes) ‖ first 60 bytes of the header (all but its crc32c) with flags and ttl_us zero
                    ‖ payload without those last 75 bytes )

so the digest covers `prev_hash` too (it is a field), and any copy of an event, first sent, sent again, published or replayed, proves itself
by slicing bytes, with no parser. Each journalled stream (`q`, `a`) is one chain that runs on from epoch to epoch.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple, TypeAlias, cast

Frames: TypeAlias = list[bytes]

MAGIC: Final = b"INSP"
MAJOR: Final = 1
MINOR: Final = 1
VERSION: Final = f"{MAJOR}.{MINOR}"
HEADER_BYTES: Final = 64
LARGEST_PAYLOAD_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = 65_536
NO_HASH: Final = bytes(32)
"""What the first event of a new journal follows."""

SCHEMA_SHA256: Final = "aaee6cb05be108069c8ad795e19ac06c8772b12b94fbb609acaf95e800870297"
"""Of the event schemas: `cat deploy/protocol/insp.*.schema.json | sha256sum`."""

STREAM_IDS: Final = {"q": 1, "r": 2, "a": 3, "hb": 4}
STREAMS: Final = {number: name for name, number in STREAM_IDS.items()}


class Kind(IntEnum):
    """What a message is."""

    VERDICT = 1
    STATE = 2
    ALARM = 3
    HB = 4
    EPOCH_CLOSE = 5


class Flag(IntFlag):
    """How a copy of a message must be taken."""

    HISTORICAL = 1
    RESEND = 2
    DURABLE = 4
    CHALLENGE = 8
    LATE = 16


class Refused(ValueError):
    """Bytes that are no message of INSP/1. `why` is the counter's name: short, magic, major, kind, crc, json, frames, field."""

    def __init__(self, why: str, text: str) -> None:
        self.why = why
        super().__init__(f"{why}: {text}")


# --- CRC-32C -----------------------------------------------------------------------------------------------------------

_POLYNOMIAL: Final = 0x82F63B78
"""CRC-32C (Castagnoli), reflected: bit 31 is x^0."""


def _byte_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE: Final = _byte_table()


def _folds() -> tuple[tuple[int, tuple[int, ...]], ...]:
    """(k, the exponents of x^k mod P) for lengths k in bits, chosen by search for few exponents, each at most 1.3 times the one before."""
    lengths = (
        110, 142, 163, 200, 253, 309, 398, 498, 593, 685, 759, 887, 1030, 1266, 1425, 1662, 1863, 2313, 2798, 3196, 3867, 4765, 5264,
        6305, 7363, 8333, 9362, 10596, 12350, 13664, 14813, 16625, 19236, 21038, 23343, 26054, 29493, 32910, 36607, 41258, 49862, 57704,
        65410, 73444,
    )  # fmt: skip
    folds = []
    power, at = 1 << 31, 0
    for length in lengths:
        for _ in range(length - at):
            power = (power >> 1) ^ (_POLYNOMIAL if power & 1 else 0)
        at = length
        folds.append((length, tuple(31 - bit for bit in range(32) if power >> bit & 1)))
    return tuple(folds)


_FOLDS: Final = _folds()
_CHUNK_BYTES: Final = 16_384


def _advance(register: int, chunk: bytes) -> int:
    """The register after `chunk` (at most `_CHUNK_BYTES`)."""
    if len(chunk) < 16:
        for byte in chunk:
            register = _TABLE[(register ^ byte) & 0xFF] ^ (register >> 8)
        return register
    number = int.from_bytes(chunk, "little") ^ register
    bits = 8 * len(chunk)
    at = len(_FOLDS) - 1
    while bits > 248:
        while at and 2 * _FOLDS[at - 1][0] >= bits + 32:
            at -= 1
        length, exponents = _FOLDS[at]
        head = bits - length
        first = number & ((1 << head) - 1)
        number >>= head
        room = length - head
        for exponent in exponents:
            number ^= first << (room - exponent)
        bits = length
    pad = -bits % 8
    register = 0
    for byte in (number << pad).to_bytes((bits + pad) >> 3, "little"):
        register = _TABLE[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def portable_crc32c(data: bytes) -> int:
    """CRC-32C of `data`, several times faster than a table of bytes can be in Python.

    Read as one little-endian number, the message is a polynomial over GF(2) (bit 0 is the highest power). Its first bits are A·x^k, and
    A·x^k = A·(x^k mod P): for a k where x^k mod P has few terms that is a handful of shifts and exclusive-ors of whole numbers, and nearly
    halves the message. The last bytes go through the usual table (folding as in Gopal et al., Intel 2009, with sparse multiples of P).
    """
    register = 0xFFFFFFFF
    for start in range(0, len(data), _CHUNK_BYTES):
        register = _advance(register, data[start : start + _CHUNK_BYTES])
    return register ^ 0xFFFFFFFF


def _fastest_crc32c() -> Callable[[bytes], int]:
    """The CPU's own instruction through google-crc32c (extra `fast`) where it is installed: 0.2 µs for an event and not 17."""
    try:
        from google_crc32c import value
    except ImportError:
        return portable_crc32c
    return cast("Callable[[bytes], int]", value)


crc32c: Final = _fastest_crc32c()


# --- header ------------------------------------------------------------------------------------------------------------

_HEAD: Final = struct.Struct(">4s4B16sQQqIIBBH")
_CRC: Final = struct.Struct(">I")
_FLAGS_AT: Final = 7
_TTL_AT: Final = slice(48, 52)


class Header(NamedTuple):
    """The fields of the 64 bytes but magic, version and crc, which `pack` and `parse` write and check.

    `epoch` is 16 bytes; `t_event_utc_ns` labels only; `ttl_us` 0 is not actionable; `verdict` anything but 0x5A is a reject.
    """

    kind: int
    flags: int
    epoch: bytes
    seq: int
    part_seq: int
    t_event_utc_ns: int
    ttl_us: int
    stream_id: int
    verdict: int
    lane: int
    reason: int


def pack(header: Header, payload: bytes) -> bytes:
    """The 64 bytes that go before `payload`."""
    head = _HEAD.pack(MAGIC, MAJOR, MINOR, *header)
    return head + _CRC.pack(crc32c(head + payload))


def parse(head: bytes, payload: bytes) -> Header:
    """The header in these bytes, checked in the order length, magic, major, crc, kind; raises `Refused`."""
    if len(head) != HEADER_BYTES:
        raise Refused("short", f"header of {len(head)} bytes, not {HEADER_BYTES}")
    magic, major, _, kind, flags, *rest = _HEAD.unpack_from(head)
    if magic != MAGIC:
        raise Refused("magic", f"begins with {magic!r}")
    if major != MAJOR:
        raise Refused("major", f"major version {major}, this reader knows {MAJOR}")
    if _CRC.unpack_from(head, 60)[0] != crc32c(head[:60] + payload):
        raise Refused("crc", "checksum differs")
    if kind not in _KINDS:
        raise Refused("kind", f"kind {kind}")
    return Header(kind, flags, *rest)


_KINDS: Final = frozenset(int(kind) for kind in Kind)


def copy_of(head: bytes, payload: bytes, *, add: int, ttl_us: int) -> bytes:
    """Another copy of a message: flags added, another time to live, checksum renewed."""
    again = bytearray(head[:60])
    again[_FLAGS_AT] |= add
    again[_TTL_AT] = ttl_us.to_bytes(4, "big")
    return bytes(again) + _CRC.pack(crc32c(bytes(again) + payload))


# --- the chain ---------------------------------------------------------------------------------------------------------

_SEAL_BYTES: Final = 75
_SEAL: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}')


def seal(header: Header, open_payload: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """(payload, hash) of an event after the one with hash `previous`; `open_payload` is its JSON text without the closing brace."""
    kind, _, epoch, seq, part_seq, at, _, stream_id, verdict, lane, reason = header
    plain = _HEAD.pack(MAGIC, MAJOR, MINOR, kind, 0, epoch, seq, part_seq, at, 0, stream_id, verdict, lane, reason)
    digest = hashlib.sha256(previous + plain + open_payload).digest()
    return b'%s,"hash":"%s"}' % (open_payload, digest.hex().encode()), digest


def hash_of(head: bytes, payload: bytes, previous: bytes) -> bytes | None:
    """The hash of an event if header and payload agree with the one that the payload carries; None when they do not."""
    found = _SEAL.fullmatch(payload[-_SEAL_BYTES:])
    if found is None or len(head) != HEADER_BYTES:
        return None
    plain = bytearray(head[:60])
    plain[_FLAGS_AT] = 0
    plain[_TTL_AT] = bytes(4)
    digest = hashlib.sha256(previous + plain + payload[:-_SEAL_BYTES]).digest()
    return digest if digest.hex().encode() == found[1] else None


# --- topics ------------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(r"[a-z0-9_-]{1,32}")


class Topic(NamedTuple):
    """Where a message of the events socket comes from, and its stream: q, r, a or hb."""

    site: str
    line: str
    station: str
    stream: str


def topic(site: str, line: str, station: str, stream: str) -> bytes:
    """`insp1/<site>/<line>/<station>/<stream>/`; ends in a slash, because subscriptions match prefixes (line1 would match line10)."""
    for token in (site, line, station, stream):
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"{token!r} cannot stand in a topic: [a-z0-9_-], 1 to 32 characters")
    return f"insp1/{site}/{line}/{station}/{stream}/".encode()


def topic_of(data: bytes) -> Topic:
    """The parts of a topic; raises `Refused`."""
    parts = data.decode("ascii", "replace").split("/")
    if len(parts) != 6 or parts[0] != "insp1" or parts[5] or parts[4] not in STREAM_IDS:
        raise Refused("topic", f"{data[:80]!r}")
    return Topic(*parts[1:5])


# --- commands and JSON -------------------------------------------------------------------------------------------------


def _no_constant(text: str) -> Any:
    raise Refused("json", f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise Refused("json", f"{text[:20]} is not finite")
    return value


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))


def _portable_dumps(value: object) -> bytes:
    try:
        text = _ENCODER.encode(value)
    except ValueError:
        text = _ENCODER.encode(_without_nan(value))
    return text.encode("utf-8", "replace")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and value - value != 0.0 else value


def _portable_loads(data: bytes) -> Any:
    return _DECODER.decode(data.decode())


def _fastest_json() -> tuple[Callable[[object], bytes], Callable[[bytes], Any]]:
    """(dumps, loads) of msgspec (extra `fast`) where it is installed: some 3 µs for an event and not 20."""
    try:
        from msgspec.json import Decoder, Encoder
    except ImportError:
        return _portable_dumps, _portable_loads
    return Encoder().encode, Decoder().decode


_fast_dumps, decode_json = _fastest_json()
"""`decode_json`: any JSON value; raises `ValueError`, for NaN, infinity and numbers out of range too."""


def dumps(value: object) -> bytes:
    """Compact UTF-8 JSON: a number that is not finite becomes null, half a surrogate pair in a text a question mark."""
    try:
        return _fast_dumps(value)
    except UnicodeEncodeError:
        return _portable_dumps(value)


def loads(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; raises `Refused` for anything else, NaN, infinity and numbers out of range included."""
    try:
        value = decode_json(data)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("json", str(error)[:120]) from error
    if not isinstance(value, dict):
        raise Refused("json", f"{type(value).__name__}, not an object")
    return value


def command(name: str, body: Mapping[str, Any] | None = None) -> Frames:
    """A message without header: `[name][CRC-32C of name ‖ payload, 4 bytes][JSON]`."""
    payload = dumps(body if body is not None else {})
    return [name.encode(), _CRC.pack(crc32c(name.encode() + payload)), payload]


def said(frames: Sequence[bytes]) -> tuple[str, dict[str, Any]]:
    """(name, body) of a message without header; raises `Refused`. The checksum may be left out (an empty frame), not be wrong."""
    if len(frames) != 3:
        raise Refused("frames", f"{len(frames)} frames, 3 are allowed")
    name, check, payload = frames
    if len(payload) > LARGEST_PAYLOAD_BYTES:
        raise Refused("size", f"{len(payload)} bytes")
    if check and check != _CRC.pack(crc32c(name + payload)):
        raise Refused("crc", "checksum differs")
    return name.decode("ascii", "replace"), loads(payload or b"{}")


def u64(body: Mapping[str, Any], field: str, default: int | None = None) -> int:
    """A whole number 0 … 2**64 − 1 of a JSON object, written as string or number; raises `Refused`."""
    value = body.get(field, default)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise Refused("field", f"{field}: {str(value)[:40]!r}, a whole number 0 … 2**64 − 1 is allowed")
    return value


def i64(body: Mapping[str, Any], field: str) -> int | None:
    """A whole number of a JSON object that a journal can hold (below 2**63 either way), None where there is none; raises `Refused`."""
    value = body.get(field)
    if value is not None and (type(value) is not int or not -(1 << 63) < value < 1 << 63):
        raise Refused("field", f"{field}: {str(value)[:40]!r}, a whole number between −2**63 and 2**63 is allowed")
    return value


def epoch_text(epoch: bytes) -> str:
    """An epoch (16 bytes) as UUID text."""
    digits = epoch.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def epoch_bytes(text: object) -> bytes:
    """The 16 bytes of an epoch's UUID text; raises `Refused`."""
    if isinstance(text, str) and _UUID.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    raise Refused("field", f"epoch: {str(text)[:40]!r} is not a UUID")


_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def epoch(utc_ns: int, random: bytes) -> bytes:
    """The name of one daemon start: a UUIDv7 (RFC 9562) of the time and 10 random bytes. Only ever compared for equality."""
    raw = bytearray((utc_ns // 1_000_000 & (1 << 48) - 1).to_bytes(6, "big") + random[:10])
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


# --- timing ------------------------------------------------------------------------------------------------------------

NET_MARGIN_MS: Final = 20
ACT_EARLIER_MS: Final = 20


def deadline_ms(*, travel_min_ms: int, actuator_ms: int, scan_ms: int, fire_lease_ms: int = 0) -> int:
    """I3: how long after its trigger a part's verdict is good for anything.

    With profile `fire` that is a lease earlier: if the daemon dies before a REJECT is out, the permit must have ended, `fire_lease_ms`
    later, before the part is at the ejector.
    """
    return travel_min_ms - actuator_ms - scan_ms - NET_MARGIN_MS - fire_lease_ms


def timing_faults(*, lease_ms: int, hb_ms: int, travel_min_ms: int, actuator_ms: int, scan_ms: int, fire: bool = False) -> Sequence[str]:
    """What violates I1 to I3, in words that say which value would do; empty when the timing is sound."""
    faults = []
    if lease_ms + scan_ms + actuator_ms > travel_min_ms:
        largest = travel_min_ms - scan_ms - actuator_ms
        total = f"lease {lease_ms} + scan {scan_ms} + actuator {actuator_ms} ms"
        faults.append(f"I1: {total} > travel {travel_min_ms} ms; a lease of at most {largest} ms is allowed")
    if 3 * hb_ms > lease_ms:
        faults.append(f"I2: heartbeat {hb_ms} ms > lease {lease_ms} ms / 3; heartbeat of at most {lease_ms // 3} ms")
    fire_lease_ms = lease_ms if fire else 0
    if deadline_ms(travel_min_ms=travel_min_ms, actuator_ms=actuator_ms, scan_ms=scan_ms, fire_lease_ms=fire_lease_ms) <= ACT_EARLIER_MS:
        least = actuator_ms + scan_ms + NET_MARGIN_MS + ACT_EARLIER_MS + fire_lease_ms
        faults.append(f"I3: travel {travel_min_ms} ms leaves no time to judge; more than {least} ms is needed")
    return faults
