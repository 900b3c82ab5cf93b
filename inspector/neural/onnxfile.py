"""A look into an ONNX file before any runtime sees it: is it one, does it reach outside itself, which operators does it name.

ONNX Runtime reads files that a model names as external data, by hard link even outside the model's folder; so no tensor may have any.
The walk follows every path by which a tensor can be in the file (graph, nodes, attributes, inner graphs, functions, training
information) over the protobuf wire format; field numbers are those of onnx.proto, which never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from inspector.records import ConfigError

MOST_NODES = 100_000
DEEPEST = 16
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
ENDLESS = frozenset({"Loop", "Scan"})

# message kind → field number → kind of the message in that field; what is not listed is skipped
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


@dataclass(slots=True)
class _Seen:
    graphs: int = 0
    nodes: int = 0


def inspect(data: bytes, where: str) -> int:
    """The number of nodes. Raises `ConfigError`: E_MODEL_PARSE (not ONNX, cut short), E_MODEL_EXTERNAL, E_MODEL_OP (unknown),
    E_MODEL_TIMEOUT (loops), E_MODEL_SIZE.
    """
    seen = _Seen()
    try:
        _walk(memoryview(data), "model", seen, where, 0)
    except (ValueError, IndexError) as error:
        raise ConfigError("E_MODEL_PARSE", f"not an ONNX model: {error}", file=where) from error
    if seen.graphs == 0 or seen.nodes == 0:
        raise ConfigError("E_MODEL_PARSE", "not an ONNX model: it has no graph", file=where)
    return seen.nodes


def _walk(data: memoryview, kind: str, seen: _Seen, where: str, depth: int) -> None:
    """Visit every message below this one."""
    if depth > DEEPEST:
        raise ConfigError("E_MODEL_SIZE", f"graphs nested deeper than {DEEPEST}", file=where)
    inner = _FIELDS[kind]
    texts: dict[int, str] = {}
    external = False
    for number, value in _fields(data):
        if isinstance(value, int):
            external = external or (kind == "tensor" and number == 14 and value != 0)
        elif number in inner:
            _walk(value, inner[number], seen, where, depth + 1)
        elif kind == "tensor" and number == 13:
            external = True
        elif (kind, number) in (("tensor", 8), ("node", 3), ("node", 4), ("node", 7)):
            texts[number] = bytes(value).decode("utf-8", "replace")
    if external:
        raise ConfigError(
            "E_MODEL_EXTERNAL", f"tensor {texts.get(8, '')!r} lies outside the file; save the model with its weights inside", file=where
        )
    if kind == "graph":
        seen.graphs += 1
    if kind == "node":
        seen.nodes += 1
        if seen.nodes > MOST_NODES:
            raise ConfigError("E_MODEL_SIZE", f"more than {MOST_NODES} nodes", file=where)
        if texts.get(7, "") not in DOMAINS:
            raise ConfigError(
                "E_MODEL_OP", f"operator {texts.get(4)!r} of domain {texts[7]!r}; known are ai.onnx and com.microsoft", file=where
            )
        if texts.get(4) in ENDLESS:
            raise ConfigError(
                "E_MODEL_TIMEOUT", f"operator {texts[4]!r} ({texts.get(3, '')!r}) may never end; a model has no loops", file=where
            )


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one message: an int for a varint, the bytes for the rest. ValueError or IndexError when it is no message."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > end:
            raise ValueError("it is cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, next position)."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
