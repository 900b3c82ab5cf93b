"""The journal: kept over restarts, proved byte by byte, moved aside when it lies, bounded, never silent when the disk fails."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspector.commands.journal import app
from inspector.gate import arbiter as core
from inspector.gate import protocol
from inspector.gate.arbiter import Record
from inspector.gate.journal import LARGEST_RETURNED, Journal, JournalError, Reader, export_csv, verify, verify_running
from inspector.records import ConfigError
from tests.gate import script
from tests.gate.line import body

UTC_NS = script.UTC_NS


def _records(count: int, journal: Journal, epoch: bytes = script.EPOCH) -> list[Record]:
    """Real events of so many parts, every third one bad, that follow what the journal holds."""
    chain = {stream: head.hash for stream, head in journal.heads.items()}
    made = core.Arbiter(script.settings(), epoch=epoch, now_ns=0, chain=chain, utc_offset_ns=UTC_NS)
    items: list[core.Input] = [core.Attached("ab" * 32, [], []), core.Begin()]
    for seq in range(1, count + 1):
        items.append(core.Seen("top", seq, seq, None, True, None))
        items.append(core.Judged("top", seq, "pass" if seq % 3 else "fail", 0 if seq % 3 else 101, "", body()))
    out = list(made.step(0, core.Utc(UTC_NS, "ok")))
    for at_ns, item in enumerate(items, 1):
        out += made.step(at_ns, item)
    return [o for o in out if isinstance(o, Record)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    made.begin(script.EPOCH)
    yield made
    made.close(clean=False)


def _rows(path: Path) -> list[tuple[object, ...]]:
    reader = Reader(path)
    try:
        return [tuple(row) for stream in "qa" for row in reader.events(stream, script.EPOCH, 1, 1 << 40, 1 << 30)]
    finally:
        reader.close()


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path, journal: Journal) -> None:
    records = _records(20, journal)
    journal.commit(records)
    journal.close(clean=True)
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert again.findings == []
    assert again.heads["q"].seq == 20
    assert again.heads["q"].hash == [r.hash for r in records if r.stream == "q"][-1]
    assert [(e.epoch, e.last["q"], e.last["r"], e.closed) for e in again.epochs] == [(script.EPOCH, 20, 6, True)]
    second = bytes(15) + b"\x02"
    again.begin(second)
    again.commit(_records(5, again, second))
    again.close(clean=False)
    assert list(verify(tmp_path / "journal.sqlite")) == []
    third = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert [e.closed for e in third.epochs] == [True, False]
    third.close(clean=False)


@pytest.mark.parametrize("checkpointed", [True, False])
def test_every_flipped_byte_is_found_or_changes_nothing(tmp_path: Path, journal: Journal, checkpointed: bool) -> None:
    records = _records(40, journal)
    for start in range(0, len(records), 10):
        journal.commit(records[start : start + 10])
    if checkpointed:
        assert journal._db is not None
        journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        journal.commit([core.Acked("plc", 1)])
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("journal.sqlite", "journal.sqlite-wal", "journal.head"):  # as kill -9 leaves them
        shutil.copy(tmp_path / name, kept / name)
    truth = _rows(tmp_path / "journal.sqlite")
    assert list(verify(kept / "journal.sqlite")) == []
    found = flipped = 0
    for name in ("journal.sqlite", "journal.sqlite-wal"):
        whole = (kept / name).read_bytes()
        for at in range(len(whole) // 2 % 997, len(whole), 997):
            trial = tmp_path / "trial"
            shutil.rmtree(trial, ignore_errors=True)
            trial.mkdir()
            for other in ("journal.sqlite", "journal.sqlite-wal", "journal.head"):
                shutil.copy(kept / other, trial / other)
            broken = bytearray(whole)
            broken[at] ^= 0x40
            (trial / name).write_bytes(broken)
            flipped += 1
            if list(verify(trial / "journal.sqlite")):
                found += 1
            else:
                assert _rows(trial / "journal.sqlite") == truth, f"byte {at} of {name} is changed, and what is read is not what was written"
    assert found > flipped // 3, f"{found} of {flipped}"


def test_a_changed_event_is_moved_aside_and_never_served(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(10, journal))
    journal.close(clean=True)
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("UPDATE event SET payload = CAST(replace(CAST(payload AS TEXT), 'REJECT_DEFECT', 'PASS') AS BLOB)")
    db.commit()
    db.close()
    assert list(verify(tmp_path / "journal.sqlite"))
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert again.findings
    assert again.heads["q"].seq == 0
    assert len(list(tmp_path.glob("journal.sqlite.bad-*"))) == 1
    again.close(clean=True)


def test_an_older_copy_is_a_rollback(tmp_path: Path, journal: Journal) -> None:
    records = _records(10, journal)
    journal.commit(records[:5])
    assert journal._db is not None
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(tmp_path / "journal.sqlite", tmp_path / "old")
    journal.commit(records[5:])
    journal.close(clean=False)
    for name in ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "old", tmp_path / "journal.sqlite")
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert any(finding.startswith("JOURNAL_ROLLBACK") for finding in again.findings)
    again.close(clean=False)


def test_a_deleted_journal_is_noticed(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(3, journal))
    journal.close(clean=True)
    for path in tmp_path.glob("journal.sqlite*"):
        path.unlink()
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert [finding.split(":")[0] for finding in again.findings] == ["JOURNAL_ROLLBACK"]
    again.close(clean=False)


def test_events_that_were_never_kept_are_a_known_hole(tmp_path: Path, journal: Journal) -> None:
    records = _records(10, journal)
    journal.commit(records[:4])
    journal.commit(records[7:])
    journal.close(clean=True)
    assert list(verify(tmp_path / "journal.sqlite")) == []
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("DELETE FROM hole")
    db.commit()
    db.close()
    assert list(verify(tmp_path / "journal.sqlite"))


def test_a_full_disk_gets_its_ballast_back(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, utc_clock=lambda: UTC_NS, ballast_bytes=1 << 16)
    assert (tmp_path / "ballast").stat().st_size == 1 << 16
    journal.begin(script.EPOCH)
    assert journal._db is not None
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")  # what a full disk looks like to SQLite
    records = _records(10, journal)
    with pytest.raises(JournalError) as caught:
        journal.commit(records)
    assert caught.value.full
    assert not caught.value.dead
    assert journal.free_ballast()
    assert not journal.free_ballast()
    assert journal.heads["q"].seq == 0
    journal._db.execute("PRAGMA max_page_count=1000000")
    journal.commit(records)
    assert journal.heads["q"].seq == 10
    journal.refill_ballast()
    assert (tmp_path / "ballast").exists()
    journal.close(clean=True)
    assert list(verify(tmp_path / "journal.sqlite")) == []


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "ballast"}


@pytest.mark.parametrize("ballast", [True, False])
def test_on_a_full_disk_it_begins_with_its_ballast_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ballast: bool) -> None:
    journal = Journal.open(tmp_path, utc_clock=lambda: UTC_NS, ballast_bytes=1 << 16)
    journal.begin(script.EPOCH)
    journal.commit(_records(10, journal))
    journal.close(clean=True)
    allocate = os.posix_fallocate

    def full(fd: int, offset: int, size: int) -> None:
        if (tmp_path / "ballast").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", full)
    kept = _files(tmp_path)
    if not ballast:
        monkeypatch.setattr(Journal, "free_ballast", lambda _: False)
        with pytest.raises(ConfigError, match=r"E_STATE_FULL.*the disk is full; at least 1 MiB"):
            Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
        assert _files(tmp_path) == kept
        return
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert (again.findings, again.heads["q"].seq) == ([], 10)
    assert not (tmp_path / "ballast").exists()
    again.close(clean=True)


def test_a_journal_of_another_user_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    journal.commit(_records(10, journal))
    journal.close(clean=True)
    kept = _files(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "journal.sqlite")
    with pytest.raises(ConfigError, match=r"E_STATE_PERM.*journal\.sqlite: user \d+ must be able to read and write it"):
        Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert _files(tmp_path) == kept


def test_a_file_that_failed_is_left_and_the_chain_runs_on(tmp_path: Path, journal: Journal) -> None:
    records = _records(10, journal)
    journal.commit(records[:6])
    journal.anchor()
    assert journal._db is not None
    journal._db.execute("PRAGMA query_only=1")  # as a disk that was remounted read-only
    with pytest.raises(JournalError) as caught:
        journal.commit(records[6:])
    assert caught.value.dead
    journal.replace()
    journal.commit(records[6:])
    journal.close(clean=True)
    assert list(verify(tmp_path / "journal.sqlite")) == []
    old = next(tmp_path.glob("journal.sqlite.bad-*[0-9]"))
    assert list(verify(old)) == []


def test_retention_keeps_the_end_and_the_chain(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(1800, journal))
    assert journal.retain(keep_ns=1 << 60, keep_bytes=1 << 40) == 0
    gone = 0
    while slice_ := journal.retain(keep_ns=1 << 60, keep_bytes=1):
        gone += slice_
    assert gone >= 500
    journal.close(clean=True)
    assert list(verify(tmp_path / "journal.sqlite")) == []
    reader = Reader(tmp_path / "journal.sqlite")
    oldest = reader.oldest("q", script.EPOCH)
    assert oldest is not None
    assert oldest > 400
    assert len(reader.events("q", script.EPOCH, 1, 1 << 40, 1 << 30)) == 1800 - oldest + 1
    reader.close()


def test_what_belongs_to_an_event_goes_with_it(tmp_path: Path, journal: Journal) -> None:
    records = _records(1800, journal)
    del records[100:110]
    journal.commit([*records, *(core.Executed(seq, 0, seq, "PASSED", None) for seq in range(1, 1801))])
    while journal.retain(keep_ns=1 << 60, keep_bytes=1):
        pass
    assert journal._db is not None
    oldest = journal._db.execute("SELECT min(seq) FROM event WHERE stream = 'q'").fetchone()[0]
    assert journal._db.execute("SELECT min(seq), count(*) FROM ledger").fetchone() == (oldest, 1800 - oldest + 1)
    assert journal._db.execute("SELECT count(*) FROM hole").fetchone() == (0,)
    assert list(verify(tmp_path / "journal.sqlite")) == []


def test_what_is_given_back_is_bounded(journal: Journal) -> None:
    for start in range(0, LARGEST_RETURNED + 2000, 1000):
        journal.commit([core.Returned("plc", b"%d" % number, b"") for number in range(start, start + 1000)])
    assert journal._db is not None
    assert journal._db.execute("SELECT count(*) FROM returned").fetchone() == (LARGEST_RETURNED,)


def test_two_bad_copies_are_kept(tmp_path: Path) -> None:
    for start in range(4):
        (tmp_path / "journal.sqlite").write_bytes(b"bad %d" % start)
        Journal.open(tmp_path, utc_clock=lambda start=start: UTC_NS + start * 1_000_000_000).close(clean=False)  # type: ignore[misc]
    assert sorted(path.read_bytes() for path in tmp_path.glob("journal.sqlite.bad-*")) == [b"bad 2", b"bad 3"]


def test_a_newer_format_is_refused(tmp_path: Path, journal: Journal) -> None:
    journal.close(clean=True)
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="E_DB_NEWER"):
        Journal.open(tmp_path, utc_clock=lambda: UTC_NS)


@pytest.mark.parametrize("text", [b"", b"not a database at all", b"SQLite format 3\0" + bytes(100)])
def test_what_is_no_database_is_moved_aside(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "journal.sqlite").write_bytes(text)
    journal = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    journal.begin(script.EPOCH)
    journal.commit(_records(2, journal))
    assert journal.heads["q"].seq == 2
    journal.close(clean=True)


def test_export_is_one_line_a_part(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(6, journal))
    out = io.StringIO()
    assert export_csv(tmp_path / "journal.sqlite", out) == 6
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("epoch,seq,")
    assert "REJECT_DEFECT,101" in lines[3]


def _change(folder: Path, statement: str, *bound: object) -> None:
    with sqlite3.connect(folder / "journal.sqlite") as db:
        db.execute(statement, bound)
    db.close()


_SECOND = "(SELECT id FROM event WHERE stream = 'q' AND seq = 3)"
DAMAGES = {
    "forged": "UPDATE event SET payload = CAST(replace(CAST(payload AS TEXT), 'REJECT_DEFECT', 'PASS') AS BLOB)",
    "swapped": "UPDATE event SET payload = (SELECT payload FROM event WHERE stream = 'q' AND seq = 1) WHERE id = " + _SECOND,
    "deleted": "DELETE FROM event WHERE id = " + _SECOND,
    "cut": "DELETE FROM event WHERE id >= " + _SECOND,
    "no JSON": "UPDATE event SET payload = CAST('[' || substr(CAST(payload AS TEXT), 2) AS BLOB) WHERE id = " + _SECOND,
    "empty": "UPDATE event SET payload = x'' WHERE id = " + _SECOND,
    "a list": "UPDATE event SET payload = CAST('[1]' AS BLOB) WHERE id = " + _SECOND,
    "no table": "DROP TABLE event",
    "no base": "DELETE FROM base",
    "a verdict in its column": "UPDATE event SET verdict = 90 WHERE id = " + _SECOND,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_is_exported_of_a_damaged_journal(tmp_path: Path, journal: Journal, damage: str) -> None:
    journal.commit(_records(6, journal))
    journal.close(clean=True)
    _change(tmp_path, DAMAGES[damage])
    out = tmp_path / "parts.csv"
    out.write_text("as it was\n")
    said = CliRunner().invoke(app, ["export", str(tmp_path), "--out", str(out)])
    assert isinstance(said.exception, ConfigError)
    assert said.exception.code == "E_DB_FORMAT"
    assert str(tmp_path / "journal.sqlite") in str(said.exception)
    assert damage in ("no table", "no base") or " of epoch " in str(said.exception)
    assert out.read_text() == "as it was\n"
    assert not list(tmp_path.glob("*.part"))


def test_lines_before_a_fault_are_whole(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(6, journal))
    journal.close(clean=True)
    _change(tmp_path, DAMAGES["empty"])
    out = io.StringIO()
    with pytest.raises(ConfigError, match="event q 3 of epoch"):
        export_csv(tmp_path / "journal.sqlite", out)
    assert [line.split(",")[1] for line in out.getvalue().splitlines()] == ["seq", "1", "2"]


def test_an_end_that_was_cut_off_is_known_by_the_last_anchor(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(6, journal))
    journal.close(clean=True)
    _change(tmp_path, DAMAGES["cut"])
    (tmp_path / "journal.head").unlink()
    problems = list(verify(tmp_path / "journal.sqlite"))
    assert [problem.partition(":")[0] for problem in problems] == ["JOURNAL_ROLLBACK", "E_DB_WITNESS"]
    assert "q 6 of epoch" in problems[0]
    with (tmp_path / "anchors.log").open("a") as torn:
        torn.write("1767225600000000000 a 00000000-0000")
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    assert [finding.partition(":")[0] for finding in again.findings] == ["JOURNAL_ROLLBACK", "E_DB_WITNESS"]
    assert list(tmp_path.glob("anchors.log.bad-*"))
    again.begin(bytes(15) + b"\x02")
    again.commit(_records(3, again, bytes(15) + b"\x02"))
    again.close(clean=True)
    assert list(verify(tmp_path / "journal.sqlite")) == []
    assert next(problem[:16] for problem in verify(next(tmp_path.glob("journal.sqlite.bad-*")))) == "JOURNAL_ROLLBACK"


def test_a_journal_with_events_has_its_witness(tmp_path: Path, journal: Journal) -> None:
    assert (tmp_path / "journal.head").stat().st_size
    journal.close(clean=True)
    (tmp_path / "journal.head").unlink()
    assert list(verify(tmp_path / "journal.sqlite")) == []
    again = Journal.open(tmp_path, utc_clock=lambda: UTC_NS)
    again.commit(_records(2, again))
    again.close(clean=False)
    (tmp_path / "journal.head").unlink()
    assert [problem.partition(":")[0] for problem in verify(tmp_path / "journal.sqlite")] == ["E_DB_WITNESS"]


def test_every_anchor_is_in_the_journal_or_was_taken_by_retention(tmp_path: Path, journal: Journal) -> None:
    for first in range(3):
        epoch = bytes(15) + bytes([2 + first])
        journal.begin(epoch)
        journal.commit(_records(600, journal, epoch))
        journal.anchor()
    while journal.retain(keep_ns=1 << 60, keep_bytes=1):
        pass
    journal.close(clean=True)
    assert list(verify(tmp_path / "journal.sqlite")) == []
    anchors = tmp_path / "anchors.log"
    whole = anchors.read_text()
    last = whole.splitlines()[-1].split()
    old = " ".join([*last[:8], "ab" * 32])
    anchors.write_text(f"{old}\n{whole}")  # as it was written before lines had a checksum
    problems = list(verify(tmp_path / "journal.sqlite"))
    assert len(problems) == 1
    assert "is not the event that the anchor of " in problems[0]
    anchors.write_text(whole.replace(last[4], "ab" * 32))
    assert list(verify(tmp_path / "journal.sqlite")) == []  # a damaged line says nothing


def test_what_no_database_can_hold_leaves_no_transaction_open(tmp_path: Path, journal: Journal) -> None:
    records = _records(4, journal)
    with pytest.raises(OverflowError):
        journal.commit([*records[:2], core.Executed(1, 0, 1, "PASSED", 10**30)])
    journal.commit(records)
    assert len(_rows(tmp_path / "journal.sqlite")) == len(records)


def test_nothing_of_a_failed_commit_is_kept(tmp_path: Path, journal: Journal) -> None:
    records = _records(4, journal)
    journal.commit(records)
    with pytest.raises(JournalError):
        journal.commit(records)  # numbers that are there already
    assert journal.heads["q"].hash != protocol.NO_HASH
    assert len(_rows(tmp_path / "journal.sqlite")) == len(records)


def test_a_journal_that_is_written_and_cut_meanwhile_is_proved_by_short_reads(tmp_path: Path, journal: Journal) -> None:
    path = tmp_path / "journal.sqlite"
    journal.commit(_records(2600, journal))
    assert list(verify_running(path)) == []
    journal.retain(keep_ns=1 << 60, keep_bytes=1)
    assert list(verify_running(path)) == []
    with sqlite3.connect(path) as other:
        other.execute("UPDATE event SET verdict = 90 - verdict WHERE id = 1500")
    other.close()
    found = list(verify_running(path))
    assert len(found) == 1
    assert "columns" in found[0]


def test_retention_leaves_a_gateway_that_saw_more_no_witness_of_a_rollback(tmp_path: Path, journal: Journal) -> None:
    journal.commit(_records(1200, journal))
    before = journal.epochs
    journal.begin(bytes(15) + b"\7")
    journal.commit(_records(1200, journal, bytes(15) + b"\7"))
    while journal.retain(keep_ns=1 << 60, keep_bytes=1):
        pass
    journal.close(clean=True)
    again = Journal.open(tmp_path, utc_clock=lambda: 0)
    first = next(epoch for epoch in again.epochs if epoch.epoch == script.EPOCH)
    assert (first.last["q"], first.last["r"]) == (1200, 400)
    assert not before
    again.close(clean=True)
