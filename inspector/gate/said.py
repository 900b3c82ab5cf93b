"""What vision says of one exposure, in the pieces of JSON text that go into the part's event as they are.

The gate reads of it only by what it was judged; the rest is proved to be JSON, numbers within range, and passed on without being taken
apart: it would be put together again a moment later, for every part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from inspector.gate import protocol
from inspector.gate.protocol import Refused


class Said(NamedTuple):
    """`findings` and `defects` are the JSON texts of an array's members, `camera`, `timing_ms` and `pose` that of an object, empty where
    vision does not say.

    `image_ref` is a text, `recipe` the digest of what it was judged by, `named` that recipe's name and number.
    """

    findings: bytes = b""
    defects: bytes = b""
    camera: bytes = b""
    timing_ms: bytes = b""
    pose: bytes = b""
    image_ref: str | None = None
    recipe: str = ""
    named: tuple[str, int | None] | None = None


NOTHING: Final = Said()


def _named(name: str | None, number: int | None) -> tuple[str, int | None] | None:
    return (name, number) if name else None


def _object(raw: Any) -> bytes:
    text = bytes(raw)
    return text if text[:1] == b"{" and text[1:-1].strip() else b""


def _members(raw: Any) -> bytes | None:
    """What stands between the brackets; None where there are none."""
    text = bytes(raw)
    return text[1:-1].strip() if text[:1] == b"[" else b"" if text == b"null" else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _portable(body: bytes) -> Said:
    said = protocol.loads(body)
    number = said.get("recipe_number")
    findings, defects = said.get("findings") or [], said.get("defects") or []
    if not isinstance(findings, list) or not isinstance(defects, list):
        raise Refused("json", "findings and defects: arrays are allowed")
    times = said.get("timing_ms")
    if isinstance(times, dict):
        times.pop("trigger_to_verdict", None)
    camera, timing, pose = (
        protocol.dumps(each) if isinstance(each, dict) and each else b"" for each in map(said.get, ("camera", "timing_ms", "pose"))
    )
    return Said(
        protocol.dumps(findings)[1:-1],
        protocol.dumps(defects)[1:-1],
        camera,
        timing,
        pose,
        _text(said.get("image_ref")),
        _text(said.get("recipe")) or "",
        _named(_text(said.get("recipe_name")), number if type(number) is int else None),
    )


def _fastest() -> Callable[[bytes], Said]:
    """With msgspec (extra `fast`), which finds the pieces without taking them apart, so that none is to be written again."""
    try:
        from msgspec import Raw, defstruct
        from msgspec.json import Decoder
    except ImportError:
        return _portable
    null = Raw(b"null")
    pieces = [(name, Raw, null) for name in ("findings", "defects", "camera", "timing_ms", "pose")]
    texts = [(name, str | None, None) for name in ("image_ref", "recipe", "recipe_name")]
    decode: Callable[[bytes], Any] = Decoder(defstruct("Body", [*pieces, *texts, ("recipe_number", int | None, None)], gc=False)).decode

    def read(body: bytes) -> Said:
        try:
            said = decode(body)
        except (ValueError, RecursionError):
            return _portable(body)  # which says what is wrong, or forgives
        findings, defects = _members(said.findings), _members(said.defects)
        if findings is None or defects is None:
            return _portable(body)
        camera, timing, pose = _object(said.camera), _object(said.timing_ms), _object(said.pose)
        whole = b" ".join((findings, defects, camera, timing, pose))
        shapes = whole.translate(_SHAPES)
        if not whole.isascii() or b"0e" in shapes or _LONG in shapes or _OURS in timing:
            return _portable(body)  # what is passed on must be UTF-8, no number may be out of range, and no member there twice
        named = _named(said.recipe_name, said.recipe_number)
        return Said(findings, defects, camera, timing, pose, said.image_ref, said.recipe or "", named)

    return read


_SHAPES: Final = bytes(0x30 if chr(c).isdigit() and c < 128 else 0x65 if c in b"eE" else c for c in range(256))
"""Every digit becomes 0 and every E an e: a number with an exponent has "0e" in it then."""
_LONG: Final = b"0" * 300
"""So many digits may be a number beyond all others without an exponent."""
_OURS: Final = b'"trigger_to_verdict"'
"""The gate's own among vision's times."""

read: Final = _fastest()
"""The pieces of an exposure's JSON text; raises `Refused` for what is no object, and for numbers that are not finite."""
