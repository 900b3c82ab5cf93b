"""Replay: chunks that are asked for, at the rate agreed, all historical; holes are said; who forgot to ask on is not locked out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.gate import protocol, replay
from inspector.gate.journal import Journal, Reader
from tests.gate import script
from tests.gate.test_journal import UTC_NS, _records

PARTS = 700
EPOCH = protocol.epoch_text(script.EPOCH)
NOW = replay.Now(script.EPOCH, {"q": PARTS, "r": PARTS // 3, "a": 3}, {"state": "RUN"})
SECOND = 1_000_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[replay.Server]:
    journal = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    journal.begin(script.EPOCH)
    journal.commit(_records(PARTS, journal))
    reader = Reader(tmp_path / "journal.sqlite")
    yield replay.Server(reader)
    reader.close()
    journal.close(clean=True)


def ask(server: replay.Server, at_ns: int, name: str, **body: Any) -> list[tuple[str, Any]]:
    out = []
    for _, frames in server.step(at_ns, b"c", protocol.command(name, body), NOW):
        told = frames[0].decode()
        out.append((told, protocol.parse(frames[1], frames[2]) if told == "EVENT" else protocol.said(frames)[1]))
    return out


def test_chunks_wait_for_more_and_end_with_done(server: replay.Server) -> None:
    first = ask(server, SECOND, "REPLAY", id=1, stream="q", epoch=EPOCH, **{"from": "1", "to": str(PARTS)})
    assert [name for name, _ in first] == ["EVENT"] * 256 + ["CHUNK"]
    assert ask(server, 2 * SECOND, "MORE", id=9) == []
    second = ask(server, 3 * SECOND, "MORE", id=1)
    third = ask(server, 4 * SECOND, "MORE", id=1)
    events = [header for name, header in first + second + third if name == "EVENT"]
    assert [header.seq for header in events] == list(range(1, PARTS + 1))
    assert all(header.flags & protocol.Flag.HISTORICAL and header.ttl_us == 0 for header in events)
    assert third[-1] == ("DONE", {"id": 1, "stream": "q", "epoch": EPOCH, "upto": str(PARTS), "closed": False, "next": None})
    assert not server.busy()


def test_stream_r_has_its_own_numbers(server: replay.Server) -> None:
    answers = ask(server, SECOND, "REPLAY", id=1, stream="r", epoch=EPOCH, **{"from": "10", "to": "20"})
    events = [header for name, header in answers if name == "EVENT"]
    assert [header.seq for header in events] == list(range(10, 21))
    assert {header.stream_id for header in events} == {protocol.STREAM_IDS["r"]}
    assert [header.part_seq for header in events] == [3 * n for n in range(10, 21)]


def test_the_rate_is_bounded(server: replay.Server) -> None:
    sent = 0
    for step in range(200):  # a tenth of a second
        answers = ask(server, SECOND + step * SECOND // 2000, "REPLAY", id=step, stream="q", epoch=EPOCH, **{"from": "1", "to": str(PARTS)})
        sent += sum(name == "EVENT" for name, _ in answers)
    assert sent <= replay.EVENTS_PER_S // 4 + replay.EVENTS_PER_S // 10 + replay.CHUNK


def test_who_never_says_more_can_ask_anew(server: replay.Server) -> None:
    for number in range(1, 6):
        answers = ask(server, number * SECOND, "REPLAY", id=number, stream="q", epoch=EPOCH, **{"from": "1", "to": str(PARTS)})
        assert answers[-1] == ("CHUNK", {"id": number, "stream": "q", "epoch": EPOCH, "upto": "256"})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"stream": "x"}, "E_FIELD"),
        ({"epoch": "x"}, "E_FIELD"),
        ({"from": "5", "to": "4"}, "E_RANGE"),
        ({"from": "1", "to": str(10**12)}, "E_RANGE"),
        ({"from": "0"}, "E_RANGE"),
    ],
)
def test_what_cannot_be_replayed(server: replay.Server, body: dict[str, Any], code: str) -> None:
    answers = ask(server, SECOND, "REPLAY", **{"id": 1, "stream": "q", "epoch": EPOCH, "from": "1", "to": "2", **body})
    assert [(name, said["code"]) for name, said in answers] == [("REFUSE", code)]


def test_an_epoch_that_is_not_kept_is_a_hole(server: replay.Server) -> None:
    other = protocol.epoch_text(bytes(16))
    answers = ask(server, SECOND, "REPLAY", id=1, stream="q", epoch=other, **{"from": "1", "to": "9"})
    assert [name for name, _ in answers] == ["HEAD_LOST", "DONE"]


def test_a_snapshot_has_the_last_rejects(server: replay.Server) -> None:
    answers = ask(server, SECOND, "SNAPSHOT", streams=["q"])
    assert answers[0][0] == "SNAP"
    assert answers[0][1]["upto"]["q"] == str(PARTS)
    assert len(answers) == 1 + replay.LAST_REJECTS == 1 + answers[0][1]["rejects"]
    assert answers[-1][1].seq == PARTS // 3


def test_who_was_away_for_more_starts_than_are_listed_is_told_of_each(tmp_path: Path) -> None:
    names = [protocol.epoch(UTC_NS + number * SECOND, bytes(10)) for number in range(replay.EPOCHS_TOLD + 6)]
    journal = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    for name in names:
        journal.begin(name)
    journal.close(clean=True)
    reader = Reader(tmp_path / "journal.sqlite")
    answers = replay.Server(reader)
    at, heard = names[0], [names[0]]
    while True:
        lost = ask(answers, len(heard) * SECOND, "REPLAY", id=1, stream="q", epoch=protocol.epoch_text(at), **{"from": "1", "to": "9"})
        if lost[-1][1]["next"] is None:
            break
        at = protocol.epoch_bytes(lost[-1][1]["next"])
        heard.append(at)
    reader.close()
    assert heard == names
