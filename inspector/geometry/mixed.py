"""DXF files that mix versions: entities that came with R13 in a file marked R12 or not at all, or without their subclass markers. Pure.

ezdxf goes by the version and by the markers: of such a file it would lose flags (a closed polyline is open), or refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

MARKERS = {
    b"LWPOLYLINE": b"AcDbPolyline",
    b"SPLINE": b"AcDbSpline",
    b"HATCH": b"AcDbHatch",
    b"MPOLYGON": b"AcDbMPolygon",
    b"MTEXT": b"AcDbMText",
}
"""The entities that ezdxf reads by subclass, with the name of theirs."""

_SINCE_R13 = re.compile(r"AC1(01[2-9]|0[2-9]\d|[1-9]\d\d)")


def as_one_version(codes: Sequence[bytes], values: Sequence[bytes], version: str) -> bytes | None:
    """The file with these group codes and values as a whole R2000 one; None where it is good as it is. `version` is its $ACADVER."""
    old = _SINCE_R13.fullmatch(version) is None
    starts = [number for number, code in enumerate(codes) if code == b"0"]
    newer = [(first, end) for first, end in pairwise([*starts, len(codes)]) if values[first : first + 1] and values[first] in MARKERS]
    unmarked = [(first, end) for first, end in newer if not {b"AcDbEntity", MARKERS[values[first]]} <= set(values[first:end])]
    if len(codes) != len(values) or not (unmarked or (old and newer)):
        return None
    pairs = list(zip(codes, values, strict=True))
    for first, end in reversed(unmarked):
        own = [pair for pair in pairs[first + 1 : end] if pair[0] != b"100"]
        handle = [pair for pair in own if pair[0] == b"5"]
        rest = [pair for pair in own if pair[0] != b"5"]
        pairs[first + 1 : end] = [*handle, (b"100", b"AcDbEntity"), (b"100", MARKERS[values[first]]), *rest]
    if old:
        _say_version(pairs)
    return b"".join(b"%b\n%b\n" % pair for pair in pairs)


def _say_version(pairs: list[tuple[bytes, bytes]]) -> None:
    """R2000 in the header, which is made where there is none."""
    told = [(b"9", b"$ACADVER"), (b"1", b"AC1015")]
    head = [(b"0", b"SECTION"), (b"2", b"HEADER")]
    if told[0] in pairs:
        at = pairs.index(told[0])
        pairs[at : at + 2] = told
    elif head[1] in pairs:
        at = pairs.index(head[1]) + 1
        pairs[at:at] = told
    else:
        pairs[:0] = [*head, *told, (b"0", b"ENDSEC")]
