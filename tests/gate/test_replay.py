"""What a client may ask of the replay: everything else is refused, and nothing that it asks ends the thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from inspector.gate import protocol
from inspector.gate.journal import Journal, Reader
from inspector.gate.replay import Now, Server
from tests.gate import script

NOW = Now(script.EPOCH, {"q": 3, "r": 1, "a": 2}, {})
ASKED: dict[str, Any] = {"id": 1, "stream": "q", "epoch": protocol.epoch_text(script.EPOCH), "from": "1", "to": "9"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers((1 << 63) - 2, 1 << 65) | st.floats(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    journal = Journal.open(tmp_path, utc_clock=lambda: 0)
    reader = Reader(tmp_path / "journal.sqlite")
    yield Server(reader)
    reader.close()
    journal.close(clean=False)


def ask(server: Server, body: dict[str, Any]) -> list[str]:
    answers = server.step(1_000_000_000, b"c", protocol.command("REPLAY", body), NOW)
    return [str(protocol.loads(frames[2]).get("code", frames[0].decode())) for _, frames in answers]


@pytest.mark.parametrize("change", [{"from": str(1 << 63)}, {"from": str((1 << 64) - 1)}, {"to": str(1 << 63)}])
def test_numbers_that_no_journal_can_hold_are_refused(server: Server, change: dict[str, Any]) -> None:
    wide = {"from": str((1 << 63) - 5), "to": str((1 << 63) - 1)}
    other = protocol.epoch_text(bytes(16))
    assert ask(server, {**ASKED, **wide, **change, "epoch": other}) == ["E_RANGE"]
    assert ask(server, {**ASKED, **wide, **({"to": str((1 << 64) - 1)} | change)}) == ["E_RANGE"]
    assert ask(server, {**ASKED, **wide, "epoch": other}) == ["HEAD_LOST", "DONE"]


@pytest.mark.parametrize(("epoch", "upto"), [(script.EPOCH, "3"), (bytes(16), "0")])
def test_nobody_is_told_to_have_heard_more_than_there_is(server: Server, epoch: bytes, upto: str) -> None:
    body = {**ASKED, "epoch": protocol.epoch_text(epoch), "from": "100000", "to": "100005"}
    last = server.step(1_000_000_000, b"c", protocol.command("REPLAY", body), NOW)[-1][1]
    assert last[0] == b"DONE"
    assert protocol.loads(last[2])["upto"] == upto


def test_a_journal_that_cannot_be_read_refuses_and_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(Reader, "oldest", lambda *_: 1)
        patched.setattr(Reader, "events", broken)
        assert ask(server, ASKED) == ["E_JOURNAL"]
        patched.setattr(Reader, "oldest", broken)
        assert ask(server, ASKED) == ["E_JOURNAL"]
    assert not server.busy()
    assert ask(server, ASKED) == ["HEAD_LOST", "DONE"]


@given(name=st.sampled_from(["SNAPSHOT", "REPLAY", "MORE"]), key=st.sampled_from(sorted(ASKED)), value=JSON)
@budget(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_any_field_is_answered(server: Server, name: str, key: str, value: object) -> None:
    server.step(1_000_000_000, b"c", protocol.command(name, {**ASKED, key: value}), NOW)
    server.tick(2_000_000_000)
