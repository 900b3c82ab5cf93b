"""Every message without header keeps its schema, whoever says it: in the golden vectors, in simulated lines, and at the replay socket."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from inspector.gate import protocol, replay
from inspector.gate.arbiter import Arbiter
from inspector.gate.protocol import Frames
from tests.gate.script import VECTORS
from tests.gate.test_protocol import _strict
from tests.gate.test_replay_chunks import EPOCH, PARTS, SECOND, ask, server  # noqa: F401 - a fixture
from tests.sim.world import World

SCHEMAS = _strict(json.loads((VECTORS.parent / "commands.json").read_text()))
WITH_HEADER = {"VERDICT", "HB", "EVENT", "RETURN"}


def _keeps(speaker: str, name: str, body: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMAS[speaker][name]).validate(body)


def test_golden_vectors_keep_them() -> None:
    told = set()
    for entry in json.loads(VECTORS.read_text()):
        speaker, _, name = entry["name"].partition(" ")
        if speaker in SCHEMAS and name not in WITH_HEADER - {"HB"}:
            body = protocol.loads(bytes.fromhex(entry["frames"][2]))
            if body.get("proto") != {"majors": [9]}:
                _keeps(speaker, name, body)
            told.add(name)
    assert {"PURGE", "BYE", "SNAP", "REPLAY", "DONE", "HEAD_LOST"} <= told
    assert len(told) >= 18


def test_simulated_lines_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told: set[tuple[str, str]] = set()

    def hear(speaker: str, frames: Frames) -> None:
        name = frames[0].decode()
        if name not in WITH_HEADER or name == "HB":
            _keeps(speaker, name, protocol.loads(frames[2]))
            told.add((speaker, name))

    class Heard(World):
        def _to_gate(self, messages: list[Frames]) -> None:
            for frames in messages:
                hear("gateway", frames)
            super()._to_gate(messages)

        def _to_plc(self, identity: bytes, frames: Frames) -> None:
            hear("gate", frames)
            super()._to_plc(identity, frames)

    for seed in range(12):
        Heard(seed).run()
    assert {("gate", "PURGE"), ("gate", "BYE"), ("gate", "WELCOME"), ("gateway", "TRIG"), ("gateway", "ACK")} <= told


def test_the_replay_keeps_them(server: replay.Server) -> None:  # noqa: F811
    whole = {"from": "1", "to": str(PARTS)}
    lost = protocol.epoch_text(bytes(16))
    for name, asked in (
        ("SNAPSHOT", {}),
        ("REPLAY", {"id": 1, "stream": "q", "epoch": EPOCH, **whole}),
        ("MORE", {"id": 1}),
        ("MORE", {"id": 1}),
        ("REPLAY", {"id": 2, "stream": "q", "epoch": lost, **whole}),
        ("REPLAY", {"id": 3, "stream": "q", "epoch": EPOCH, "from": "9", "to": "1"}),
    ):
        _keeps("client", name, asked)
        for answer, body in ask(server, SECOND * (2 + asked.get("id", 0)) * 10, name, **asked):  # type: ignore[operator]
            if answer != "EVENT":
                _keeps("replay", answer, body)


def test_no_command_is_without() -> None:
    known = {name for each in SCHEMAS.values() for name in each}
    gate = Path(protocol.__file__).parent
    said = {
        name for path in [*gate.glob("*.py"), gate.parent / "client.py"] for name in re.findall(r'command\("([A-Z_]+)"', path.read_text())
    }
    assert said | set(Arbiter._commands) <= known | WITH_HEADER
