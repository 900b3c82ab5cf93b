"""The carrier against the real gate: every event once or more, in order, over refusals, silences and restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from inspector.bridges._carry import Carrier, _read
from inspector.records import DeviceError
from inspector.runtime.endpoints import Endpoints
from tests.gate.line import Running, running, until


class Listener:
    """Remembers what it is told; refuses while `down`."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.down = 0
        self.closed = False

    def send(self, event: Mapping[str, Any]) -> None:
        if self.down:
            self.down -= 1
            raise DeviceError("listener is down")
        self.told.append(event)

    def close(self) -> None:
        self.closed = True

    def parts(self) -> list[int]:
        return [int(e["part_seq"]) for e in self.told if e["schema"] == "insp.verdict"]

    def schemas(self) -> set[str]:
        return {e["schema"] for e in self.told}


class Ending:
    """Stands for the wait between attempts: never waits, and ends when it is told to."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = False

    def __call__(self, seconds: float) -> bool:
        if seconds:
            self.asked.append(seconds)
        return self.over


def carrier(
    line: Running, listener: Listener, place: Path, wait: Ending, said: list[str], clock: Callable[[], int] = time.monotonic_ns
) -> Carrier:
    at = Endpoints(line.gate.endpoints()["events"], line.gate.endpoints()["replay"])
    return Carrier(listener, at, prefix="insp1/site/line-1/cell-1/", place=place, clock=clock, wait=wait, say=said.append)


def test_events_arrive_in_order_also_those_that_were_refused_at_first(tmp_path: Path) -> None:
    listener, wait, said = Listener(), Ending(), list[str]()
    with running(tmp_path) as line:
        carry = carrier(line, listener, tmp_path / "place.json", wait, said)
        until(lambda: carry.turn() and "insp.hb" in listener.schemas(), within_s=20)
        listener.down = 3
        for seq in range(1, 6):
            line.expose(seq)
        until(lambda: carry.turn() and len(listener.parts()) == 5, within_s=20)
        carry.close()
    assert listener.parts() == [1, 2, 3, 4, 5]
    assert wait.asked == [0.5, 1.0, 2.0]
    assert said == ["listener is down", "delivering again"]
    assert listener.closed


def test_a_bridge_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    place, wait, said = tmp_path / "state" / "place.json", Ending(), list[str]()
    with running(tmp_path) as line:
        first = Listener()
        carry = carrier(line, first, place, wait, said)
        until(lambda: carry.turn() and "insp.hb" in first.schemas(), within_s=20)
        line.expose(1)
        until(lambda: carry.turn() and first.parts() == [1], within_s=20)
        carry.close()
        line.expose(2)
        line.expose(3)
        until(lambda: line.gate.counters()["pass"] == 3)
        second = Listener()
        carry = carrier(line, second, place, wait, said)
        until(lambda: carry.turn() and len(second.parts()) >= 2, within_s=20)
        carry.close()
    assert second.parts() == [2, 3]


def test_silence_is_told_once_and_ends_with_the_next_heartbeat(tmp_path: Path) -> None:
    listener, late_ns = Listener(), [0]
    with running(tmp_path) as line:
        carry = carrier(line, listener, tmp_path / "place.json", Ending(), [], lambda: time.monotonic_ns() + late_ns[0])
        until(lambda: carry.turn() and "insp.hb" in listener.schemas(), within_s=20)
        late_ns[0] = 10_000_000_000
        until(lambda: carry.turn() and "insp.stale" in listener.schemas(), within_s=20)
        until(lambda: carry.turn() and listener.told[-1]["schema"] == "insp.hb", within_s=20)
        carry.close()
    assert sum(e["schema"] == "insp.stale" for e in listener.told) == 1


def test_a_bridge_ends_although_its_listener_is_down(tmp_path: Path) -> None:
    listener, wait = Listener(), Ending()
    listener.down, wait.over = 1 << 30, True
    with running(tmp_path) as line:
        carry = carrier(line, listener, tmp_path / "place.json", wait, [])
        line.expose(1)
        until(lambda: not carry.turn(), within_s=20)
        carry.close()
    assert listener.told == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"q": 3}', '{"q": ["e"]}', '{"q": ["e", "one"]}', '{"hb": ["e", 1]}'])
def test_a_place_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    place = tmp_path / "place.json"
    place.write_text(text)
    assert _read(place) == {}
    place.write_text(json.dumps({"q": ["e", 5]}))
    assert _read(place) == {"q": ("e", 5)}
