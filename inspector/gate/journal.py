"""What was decided, kept: SQLite with one writing connection, and a chain of hashes that shows whether anything was changed or lost.

SQLite alone can lose quietly (a flipped bit in the log drops every later transaction, and its own check says ok). So every event carries
the hash of the one before (`protocol.seal`), the head of the chain is written beside the database after each commit (`journal.head`), an
anchor is kept every 10,000 events (`anchors.log`), and gateways are asked at HELLO what they saw last. What these have seen must be in the
journal, or retention has taken it. What does not agree is moved aside, all of it together, and never repaired in place.

Files in the state folder: `journal.sqlite` (+ `-wal`, `-shm`), `journal.head`, `anchors.log`, `ballast`.
"""

from __future__ import annotations

import csv
import errno
import math
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO, TypeAlias

from inspector.gate import protocol
from inspector.gate.arbiter import Acked, EpochHead, Executed, Record, Returned
from inspector.gate.protocol import Header, Refused
from inspector.records import ConfigError

SCHEMA_VERSION: Final = 1
TAIL_EVENTS: Final = 10_000
ANCHOR_EVENTS: Final = 10_000
LONGEST_READ_S: Final = 1.0
"""A reader that stays longer in the file would keep its log from being cut."""
SLICE_VERIFIED: Final = 500
SLICE_ROWS: Final = 500
EPOCHS_KEPT: Final = 4096
"""A gateway that was away for more starts than these is a witness of nothing."""
LARGEST_RETURNED: Final = 4096
BAD_COPIES: Final = 2
ROOM_BYTES: Final = 1 << 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
FILES: Final = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "journal.head", "anchors.log")
"""What belongs together, and is moved aside together."""
LAST_BYTES: Final = 4096
"""The last anchor lies within so many."""
MOST_UNSEEN: Final = 10
"""So many of the missing events that witnesses saw are named; one is enough to know."""
OLDEST_SQLITE: Final = (3, 37, 0)
"""The first with STRICT tables; older ones are refused."""

Item: TypeAlias = Record | Executed | Acked | Returned

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE epoch (epoch BLOB PRIMARY KEY, number INTEGER NOT NULL, began_utc_ns INTEGER NOT NULL, clean INTEGER NOT NULL) STRICT;
CREATE TABLE event (id INTEGER PRIMARY KEY, epoch BLOB NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, r_seq INTEGER,
    t_utc_ns INTEGER NOT NULL, kind INTEGER NOT NULL, lane INTEGER NOT NULL, part_seq INTEGER NOT NULL, verdict INTEGER NOT NULL,
    reason INTEGER NOT NULL, header BLOB NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX event_seq ON event (epoch, stream, seq);
CREATE UNIQUE INDEX event_r_seq ON event (epoch, r_seq) WHERE r_seq IS NOT NULL;
CREATE TABLE base (stream TEXT PRIMARY KEY, epoch BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE hole (epoch BLOB NOT NULL, stream TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT;
CREATE TABLE ledger (epoch BLOB NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL, part_seq INTEGER NOT NULL, outcome TEXT NOT NULL,
    encoder INTEGER, PRIMARY KEY (epoch, seq)) STRICT;
CREATE TABLE gateway (id TEXT PRIMARY KEY, epoch BLOB NOT NULL, ack INTEGER NOT NULL) STRICT;
CREATE TABLE returned (client TEXT NOT NULL, header BLOB NOT NULL, payload BLOB NOT NULL, UNIQUE (header)) STRICT;
"""
_PRUNED: Final = """CREATE TABLE IF NOT EXISTS pruned (epoch BLOB NOT NULL, stream TEXT NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (epoch, stream)) STRICT"""
"""How far each epoch went whose events retention has taken: a gateway that saw them is no witness of a rollback."""


class JournalError(Exception):
    """The journal cannot be written now. `full`: the disk is; `dead`: this file must not be tried again (an error of the disk itself)."""

    def __init__(self, text: str, *, full: bool = False, dead: bool = False) -> None:
        self.full, self.dead = full, dead
        super().__init__(text)


class Row(NamedTuple):
    """One event as it is kept."""

    id: int
    epoch: bytes
    stream: str
    seq: int
    r_seq: int | None
    header: bytes
    payload: bytes
    hash: bytes


@dataclass(slots=True)
class Head:
    """Where a stream's chain ends."""

    epoch: bytes = bytes(16)
    seq: int = 0
    hash: bytes = protocol.NO_HASH


# --- the state folder --------------------------------------------------------------------------------------------------


def _allocate(path: Path, size: int) -> None:
    """A file that really has its blocks, so that deleting it gives room; left out where the disk is too full already."""
    if size and (not path.exists() or path.stat().st_size < size):
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            path.unlink(missing_ok=True)


def refusal_of(error: OSError) -> str:
    """How a state folder is refused that did not take something."""
    return "E_STATE_FULL" if error.errno in FULL else "E_STATE_PERM"


def _has_room(folder: Path) -> bool:
    """The disk takes `ROOM_BYTES` more. Raises `OSError` where it is not for want of room that it takes nothing."""
    path = folder / "room"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, ROOM_BYTES)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


# --- the witnesses beside the database ---------------------------------------------------------------------------------


class Claim(NamedTuple):
    """A witness says that `stream` once ended with this event."""

    witness: str
    stream: str
    seen: Head


def _beside(path: Path, name: str) -> Path:
    """The file of that name that belongs to this journal, which may have been moved aside."""
    aside = path.name.removeprefix("journal.sqlite") if path.name.startswith("journal.sqlite.bad-") else ""
    return path.with_name(name + aside)


def _witness_text(heads: Mapping[str, Head]) -> bytes:
    text = " ".join(f"{stream} {head.epoch.hex()} {head.seq} {head.hash.hex()}" for stream, head in sorted(heads.items()))
    return f"{text} {zlib.crc32(text.encode()):08x}".encode().ljust(400) + b"\n"


def _witness(path: Path) -> dict[str, Head] | None:
    """The heads written last, None where they cannot be read."""
    try:
        text, _, check = path.read_text("ascii").strip().rpartition(" ")
        if int(check, 16) != zlib.crc32(text.encode()):
            return None
        words = text.split()
        return {
            words[i]: Head(bytes.fromhex(words[i + 1]), int(words[i + 2]), bytes.fromhex(words[i + 3])) for i in range(0, len(words), 4)
        }
    except (OSError, ValueError, IndexError):
        return None


def _anchors(path: Path, *, last: bool = False) -> Iterator[Claim]:
    """What the lines of an `anchors.log` say, or the last of them only. A line that is damaged, by a power cut for one, says nothing."""
    try:
        with path.open("rb") as file:
            if last:
                file.seek(max(0, path.stat().st_size - LAST_BYTES))
                said = next(filter(None, map(_anchor, reversed(file.readlines()))), [])
                yield from said
                return
            for line in file:
                yield from _anchor(line)
    except OSError:
        return


def _anchor(line: bytes) -> list[Claim]:
    """One line: UTC ns, then stream, epoch, seq and hash of each stream, then a CRC-32 of all that, which older lines do not have."""
    try:
        words = line.decode("ascii").split()
        if len(words) % 4 == 2 and int(words.pop(), 16) != zlib.crc32(" ".join(words).encode()):
            return []
        who = f"the anchor of {datetime.fromtimestamp(int(words[0]) / 1e9, UTC):%Y-%m-%dT%H:%M:%SZ}"
        return [
            Claim(who, words[i], Head(protocol.epoch_bytes(words[i + 1]), int(words[i + 2]), bytes.fromhex(words[i + 3])))
            for i in range(1, len(words), 4)
        ]
    except (ValueError, IndexError, OverflowError, OSError):
        return []


def _claims(path: Path, *, last: bool) -> Iterator[Claim]:
    """What the witnesses beside a journal have seen of it; `last`: of the anchors only the last one."""
    for stream, head in (_witness(_beside(path, "journal.head")) or {}).items():
        yield Claim("journal.head", stream, head)
    yield from _anchors(_beside(path, "anchors.log"), last=last)


# --- writing -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Journal:
    """The one connection that writes.

    `heads` are the ends of the chains, `epochs` what earlier starts left, `findings` what was wrong at start.
    """

    folder: Path
    utc_clock: Callable[[], int]
    ballast_bytes: int
    heads: dict[str, Head] = field(default_factory=lambda: {"q": Head(), "a": Head()})
    epochs: list[EpochHead] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    anchored: str = ""
    """The last anchor."""
    _db: sqlite3.Connection | None = None
    _witness: int = -1
    _since_anchor: int = 0
    _epoch: bytes = b""

    @classmethod
    def open(cls, folder: Path, *, utc_clock: Callable[[], int], ballast_bytes: int = 0) -> Journal:
        """Open or make the journal in `folder`, check it, and move it aside when it does not agree with itself or its witness.

        Raises `ConfigError`: E_SQLITE_OLD, E_DB_NEWER, E_STATE_PERM, E_STATE_FULL where the ballast does not help either.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigError("E_SQLITE_OLD", f"SQLite {sqlite3.sqlite_version}, at least {'.'.join(map(str, OLDEST_SQLITE))} is needed")
        journal = cls(folder, utc_clock, ballast_bytes)
        path = folder / "journal.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            journal._prepare()
            if path.exists():
                journal.findings += verify(path, tail=TAIL_EVENTS)
            elif claim := next(_claims(path, last=True), None):
                journal.findings.append(f"JOURNAL_ROLLBACK: the journal is gone, {claim.witness} says that there was one")
            if journal.findings:
                journal._aside()
            journal._connect(path)
        except OSError as error:
            raise ConfigError(refusal_of(error), f"{folder}: {error.strerror}", key="state_dir") from error
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            raise ConfigError("E_STATE_FULL" if full else "E_STATE_PERM", f"{path}: {error}", key="state_dir") from error
        _allocate(folder / "ballast", ballast_bytes)
        return journal

    def _prepare(self) -> None:
        """What SQLite would say of a full disk, and of files that are another user's, is what it says of a damaged file: asked before."""
        for name in FILES:
            path = self.folder / name
            if path.exists() and not os.access(path, os.R_OK | os.W_OK):
                raise ConfigError("E_STATE_PERM", f"{path}: user {os.geteuid()} must be able to read and write it", key="state_dir")
        if not _has_room(self.folder) and not (self.free_ballast() and _has_room(self.folder)):
            text = f"{self.folder}: the disk is full; at least {ROOM_BYTES >> 20} MiB must be free to begin"
            raise ConfigError("E_STATE_FULL", text, key="state_dir")

    def _connect(self, path: Path) -> None:
        self._db = db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "mmap_size=0", "journal_size_limit=67108864", "busy_timeout=0"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ConfigError("E_DB_NEWER", f"{path} has format {version}, this program knows {SCHEMA_VERSION}")
        if version == 0:
            db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";")[:-1]:
                db.execute(statement)
            ends = [(stream, head.epoch, head.seq, head.hash) for stream, head in self.heads.items()]
            db.executemany("INSERT INTO base VALUES (?, ?, ?, ?)", ends)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            db.execute("COMMIT")
        else:
            self.heads = _heads(db)
        db.execute(_PRUNED)
        self.epochs = _epochs(db, EPOCHS_KEPT)
        self._witness = os.open(self.folder / "journal.head", os.O_RDWR | os.O_CREAT, 0o600)
        if not os.fstat(self._witness).st_size:  # from now on a journal with events has its witness, after a power cut too
            with suppress(OSError):
                os.pwrite(self._witness, _witness_text(self.heads), 0)
                os.fsync(self._witness)
                _sync_folder(self.folder)

    def _aside(self) -> None:
        """Keep what is wrong under another name, the last two of them; the chain begins anew."""
        stamp = datetime.fromtimestamp(self.utc_clock() / 1e9, UTC).strftime("%Y%m%dT%H%M%S.%f")
        for name in FILES:
            path = self.folder / name
            if path.exists():
                path.rename(self.folder / f"{name}.bad-{stamp}")
        stamps = sorted({path.name.rpartition(".bad-")[2] for name in FILES for path in self.folder.glob(f"{name}.bad-*")})
        for old in stamps[:-BAD_COPIES]:
            for name in FILES:
                (self.folder / f"{name}.bad-{old}").unlink(missing_ok=True)
        _sync_folder(self.folder)

    def begin(self, epoch: bytes) -> None:
        """A new epoch begins; the ones before that were not closed are known to have been cut off."""
        db = self._require()
        db.execute("INSERT INTO epoch VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM epoch), ?, 0)", (epoch, self.utc_clock()))
        self._epoch = epoch

    def commit(self, items: Sequence[Item]) -> None:
        """Keep these, all or none, and be back when they are on disk. Raises `JournalError`."""
        db = self._require()
        heads = {stream: Head(head.epoch, head.seq, head.hash) for stream, head in self.heads.items()}
        rows = []
        try:
            db.execute("BEGIN IMMEDIATE")
            for item in items:
                if isinstance(item, Record):
                    header = item.header
                    head = heads[item.stream]
                    expected = head.seq + 1 if head.epoch == header.epoch else 1
                    if header.seq > expected:
                        db.execute("INSERT INTO hole VALUES (?, ?, ?, ?)", (header.epoch, item.stream, expected, header.seq - 1))
                    head.epoch, head.seq, head.hash = header.epoch, header.seq, item.hash
                    rows.append(
                        (header.epoch, item.stream, header.seq, item.r_seq, header.t_event_utc_ns, header.kind, header.lane,
                         header.part_seq, header.verdict, header.reason, item.head, item.payload, item.hash)
                    )  # fmt: skip
                elif isinstance(item, Executed):
                    db.execute("INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?, ?, ?)", (self._epoch, *item))
                elif isinstance(item, Acked):
                    db.execute("INSERT OR REPLACE INTO gateway VALUES (?, ?, ?)", (item.client, self._epoch, item.seq))
                else:
                    db.execute("INSERT OR IGNORE INTO returned VALUES (?, ?, ?)", (item.client, item.head, item.payload))
            db.executemany(
                "INSERT INTO event (epoch, stream, seq, r_seq, t_utc_ns, kind, lane, part_seq, verdict, reason, header, payload, hash)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            if any(isinstance(item, Returned) for item in items):
                db.execute("DELETE FROM returned WHERE rowid <= (SELECT max(rowid) FROM returned) - ?", (LARGEST_RETURNED,))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except BaseException:  # what no database can hold: nothing of it stays half done
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        self.heads = heads
        with suppress(OSError):  # the witness is a help, not the record: it is one commit behind until the next
            os.pwrite(self._witness, _witness_text(heads), 0)
        self._since_anchor += len(rows)
        if self._since_anchor >= ANCHOR_EVENTS:
            self.anchor()

    def _failed(self, error: sqlite3.Error) -> JournalError:
        db = self._require()
        with suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return JournalError(str(error), full=code == sqlite3.SQLITE_FULL, dead=code in _DEAD)

    def anchor(self) -> str:
        """Write where the chains end to `anchors.log`; returns the line, for who keeps it elsewhere."""
        line = f"{self.utc_clock()} " + " ".join(
            f"{stream} {protocol.epoch_text(head.epoch)} {head.seq} {head.hash.hex()}" for stream, head in sorted(self.heads.items())
        )
        with suppress(OSError), (self.folder / "anchors.log").open("a", encoding="ascii") as file:
            file.write(f"{line} {zlib.crc32(line.encode()):08x}\n")
        self.anchored = line
        self._since_anchor = 0
        return line

    def log_bytes(self) -> int:
        """How large the write-ahead log is."""
        try:
            return (self.folder / "journal.sqlite-wal").stat().st_size
        except OSError:
            return 0

    def free_ballast(self) -> bool:
        """Give the disk back the room that was kept for this moment; False when there was none left."""
        path = self.folder / "ballast"
        if not path.exists():
            return False
        path.unlink()
        return True

    def refill_ballast(self) -> None:
        """Keep room again, where the disk has twice as much."""
        stat = os.statvfs(self.folder)
        if stat.f_bavail * stat.f_frsize > 2 * self.ballast_bytes:
            _allocate(self.folder / "ballast", self.ballast_bytes)

    def replace(self) -> None:
        """The disk failed under this file: leave it as it is and go on in a new one, with the chain running on. Raises `JournalError`."""
        self._drop()
        heads = self.heads
        try:
            self._aside()
            self.heads = heads
            self._connect(self.folder / "journal.sqlite")
            if self._epoch:
                self.begin(self._epoch)
        except (OSError, sqlite3.Error) as error:
            self._drop()
            raise JournalError(f"no new journal: {error}", dead=True) from error

    def retain(self, *, keep_ns: int, keep_bytes: int) -> int:
        """Delete one slice of the oldest events, and what belongs to them, when there are too old or too many; returns how many went."""
        db = self._require()
        try:
            size = db.execute(
                "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
            )
            too_big = size.fetchone()[0] > keep_bytes
            before = self.utc_clock() - keep_ns
            query = "SELECT id, t_utc_ns, epoch, seq, hash, stream, r_seq FROM event ORDER BY id LIMIT ?"
            rows = db.execute(query, (SLICE_ROWS,)).fetchall()
            rows = [row for row in rows if too_big or row[1] < before]
            if not rows or rows[-1][0] >= db.execute("SELECT max(id) FROM event").fetchone()[0] - SLICE_ROWS:
                return 0  # the last slice stays, so that the chain keeps its end
            db.execute("BEGIN IMMEDIATE")
            db.executemany("UPDATE base SET epoch = ?, seq = ?, hash = ? WHERE stream = ?", [row[2:6] for row in rows])
            db.execute("DELETE FROM event WHERE id <= ?", (rows[-1][0],))
            ends = {(epoch, stream): seq for _, _, epoch, seq, _, stream, _ in rows}
            ends_of_r = {(epoch, "r"): r_seq for _, _, epoch, _, _, _, r_seq in rows if r_seq is not None}
            db.executemany("INSERT OR REPLACE INTO pruned VALUES (?, ?, ?)", [(*end, seq) for end, seq in {**ends, **ends_of_r}.items()])
            db.executemany(
                "DELETE FROM ledger WHERE epoch = ? AND seq <= ?", [(epoch, seq) for (epoch, stream), seq in ends.items() if stream == "q"]
            )
            db.executemany("DELETE FROM hole WHERE epoch = ? AND stream = ? AND last < ?", [(*end, seq) for end, seq in ends.items()])
            db.execute(
                "DELETE FROM epoch WHERE number <= (SELECT max(number) FROM epoch) - ?"
                " AND NOT EXISTS (SELECT 1 FROM event WHERE event.epoch = epoch.epoch)",
                (EPOCHS_KEPT,),
            )
            for table in ("hole", "ledger", "pruned"):
                db.execute(f"DELETE FROM {table} WHERE epoch NOT IN (SELECT epoch FROM epoch)")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return len(rows)

    def close(self, *, clean: bool) -> None:
        """Let the file go; `clean` marks the epoch as closed."""
        if self._db is not None and clean and self._epoch:
            with suppress(sqlite3.Error):
                self._db.execute("UPDATE epoch SET clean = 1 WHERE epoch = ?", (self._epoch,))
                self.anchor()
        self._drop()

    def _drop(self) -> None:
        if self._witness >= 0:
            os.close(self._witness)
            self._witness = -1
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _require(self) -> sqlite3.Connection:
        if self._db is None:
            raise JournalError("the journal is closed", dead=True)
        return self._db


_DEAD: Final = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _heads(db: sqlite3.Connection) -> dict[str, Head]:
    heads = _base(db)
    for stream in heads:
        row = db.execute("SELECT epoch, seq, hash FROM event WHERE stream = ? ORDER BY id DESC LIMIT 1", (stream,)).fetchone()
        if row is not None:
            heads[stream] = Head(*row)
    return heads


def _epochs(db: sqlite3.Connection, most: int) -> list[EpochHead]:
    epochs = []
    for epoch, clean in db.execute("SELECT epoch, clean FROM epoch ORDER BY number DESC LIMIT ?", (most,)).fetchall():
        last = dict(db.execute("SELECT stream, last FROM pruned WHERE epoch = ?", (epoch,)).fetchall())
        for stream, column, where in (("q", "seq", "stream = 'q'"), ("a", "seq", "stream = 'a'"), ("r", "r_seq", "r_seq IS NOT NULL")):
            seq = db.execute(f"SELECT max({column}) FROM event WHERE epoch = ? AND {where}", (epoch,)).fetchone()[0]
            last[stream] = last.get(stream, 0) if seq is None else seq
        epochs.append(EpochHead(epoch, last, bool(clean)))
    return epochs[::-1]


# --- reading -----------------------------------------------------------------------------------------------------------

_COLUMNS: Final = "id, epoch, stream, seq, r_seq, header, payload, hash"


class Reader:
    """A connection that only reads and never checkpoints. Each call is one short transaction, ended after `LONGEST_READ_S`."""

    def __init__(self, path: Path) -> None:
        self._by_s = math.inf
        try:
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=0.2)
            self._db.execute("PRAGMA query_only=1")
            self._db.set_progress_handler(lambda: time.monotonic() > self._by_s, 10_000)
        except sqlite3.Error as error:
            raise ConfigError("E_DB_FORMAT", f"{path}: {error}") from error

    def events(self, stream: str, epoch: bytes, first: int, last: int, limit: int) -> list[Row]:
        """Events of (epoch, stream) with first ≤ seq ≤ last, in order, at most `limit`; stream "r" counts by its own numbers."""
        column = "r_seq" if stream == "r" else "seq"
        query = f"SELECT {_COLUMNS} FROM event WHERE epoch = ? AND stream = ? AND {column} BETWEEN ? AND ? ORDER BY {column} LIMIT ?"
        bound = (epoch, "q" if stream == "r" else stream, first, min(last, (1 << 63) - 1), limit)
        return [Row(*row) for row in self._ask(query, bound)]

    def _ask(self, query: str, bound: tuple[object, ...]) -> list[Any]:
        self._by_s = time.monotonic() + LONGEST_READ_S
        return self._db.execute(query, bound).fetchall()

    def oldest(self, stream: str, epoch: bytes) -> int | None:
        """The first seq that is still kept of (epoch, stream)."""
        column = "r_seq" if stream == "r" else "seq"
        query = f"SELECT min({column}) FROM event WHERE epoch = ? AND stream = ?"
        found = self._ask(query, (epoch, "q" if stream == "r" else stream))[0][0]
        return int(found) if found is not None else None

    def rejects(self, epoch: bytes, count: int) -> list[Row]:
        """The last rejects of an epoch, oldest first."""
        query = f"SELECT {_COLUMNS} FROM event WHERE epoch = ? AND r_seq IS NOT NULL ORDER BY r_seq DESC LIMIT ?"
        return [Row(*row) for row in self._ask(query, (epoch, count))][::-1]

    def epochs(self, most: int = EPOCHS_KEPT) -> list[EpochHead]:
        """The youngest that are kept, oldest of them first."""
        self._by_s = time.monotonic() + LONGEST_READ_S
        return _epochs(self._db, most)

    def after(self, epoch: bytes) -> tuple[bool, bytes | None]:
        """(whether this epoch ended well, the one that came after it), however many are kept; of one that is not, the next younger one."""
        self._by_s = time.monotonic() + LONGEST_READ_S
        known = self._db.execute("SELECT clean, number FROM epoch WHERE epoch = ?", (epoch,)).fetchone()
        if known is None:  # the names of epochs tell their order (UUIDv7)
            later = self._db.execute("SELECT epoch FROM epoch WHERE epoch > ? ORDER BY epoch LIMIT 1", (epoch,)).fetchone()
            return False, later and later[0]
        later = self._db.execute("SELECT epoch FROM epoch WHERE number > ? ORDER BY number LIMIT 1", (known[1],)).fetchone()
        return bool(known[0]), later and later[0]

    def close(self) -> None:
        """Let the file go."""
        self._db.close()


# --- proving -----------------------------------------------------------------------------------------------------------


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=1.0)


_UNREADABLE: Final = (sqlite3.Error, OverflowError, TypeError, ValueError)
"""What a file that is damaged may raise while it is read."""


def verify(path: Path, *, tail: int | None = None) -> Iterator[str]:
    """What is wrong with a journal, in words; nothing when every event, every link and what its witnesses saw holds. Changes nothing.

    `tail`: only the last so many events, and the last anchor. The file must not be written meanwhile by a process that is not its own.
    """
    try:
        with closing(_reading(path)) as db:
            yield from _verify(db, path, tail)
    except _UNREADABLE as error:
        yield f"E_DB_FORMAT: {error}"


def verify_running(path: Path) -> Iterator[str]:
    """The same of a journal that its daemon writes meanwhile: every event and link that was there at the beginning, in short reads.

    What retention takes while this goes on is left out. The file's own check and the witnesses are for a journal at rest.
    """
    try:
        with closing(_reading(path)) as db:
            for _, faults in _proved(db):
                yield from faults
    except _UNREADABLE as error:
        yield f"E_DB_FORMAT: {error}"


def _base(db: sqlite3.Connection) -> dict[str, Head]:
    """Where each stream begins: the last event that is not kept."""
    return {stream: Head(*rest) for stream, *rest in db.execute("SELECT stream, epoch, seq, hash FROM base").fetchall()}


def _holes(db: sqlite3.Connection) -> dict[tuple[bytes, str, int], int]:
    return {(epoch, stream, first): last for epoch, stream, first, last in db.execute("SELECT * FROM hole").fetchall()}


def _proved(db: sqlite3.Connection) -> Iterator[tuple[tuple[Any, ...], list[str]]]:
    """(event, what is wrong with it or its link) of every event that was there at the beginning, in order, in short reads."""
    upto = db.execute("SELECT max(id) FROM event").fetchone()[0] or 0
    last: dict[str, Head] = {}
    done = 0
    while done < upto:
        db.execute("BEGIN")
        holes, base = _holes(db), _base(db)
        oldest = db.execute("SELECT min(id) FROM event").fetchone()[0]
        entries = db.execute(f"{_EVERYTHING} WHERE id > ? AND id <= ? ORDER BY id LIMIT ?", (done, upto, SLICE_VERIFIED)).fetchall()
        db.execute("COMMIT")
        if not entries:
            return
        if oldest > done:  # the beginning, or retention has taken more than was looked at: what follows begins at its base
            last = base
        for entry in entries:
            yield entry, list(_event_faults(entry, last, holes))
        done = entries[-1][0]


def _verify(db: sqlite3.Connection, path: Path, tail: int | None) -> Iterator[str]:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise ConfigError("E_DB_NEWER", f"the journal has format {version}, this program knows {SCHEMA_VERSION}")
    check = db.execute("PRAGMA quick_check(5)").fetchall() if tail is not None else db.execute("PRAGMA integrity_check(5)").fetchall()
    if check != [("ok",)]:
        yield f"E_DB_FORMAT: SQLite says: {'; '.join(str(row[0]) for row in check)}"
        return
    last, holes = _base(db), _holes(db)
    newest = db.execute("SELECT max(id) FROM event").fetchone()[0]
    start = 0
    if tail is not None:
        start = (newest or 0) - tail
        for stream in last:
            row = db.execute(
                "SELECT epoch, seq, hash FROM event WHERE stream = ? AND id <= ? ORDER BY id DESC LIMIT 1", (stream, start)
            ).fetchone()
            if row is not None:
                last[stream] = Head(*row)
    for entry in db.execute(f"{_EVERYTHING} WHERE id > ? ORDER BY id", (start,)):
        yield from _event_faults(entry, last, holes)
    yield from _unseen(db, _claims(path, last=tail is not None))
    if newest is not None and _witness(witness := _beside(path, "journal.head")) is None:
        what = "cannot be read" if witness.exists() else "is missing"
        yield f"E_DB_WITNESS: {witness.name} {what}: it is beside every journal with events, and shows where they end"


def _unseen(db: sqlite3.Connection, claims: Iterable[Claim]) -> Iterator[str]:
    """What a witness has seen and the journal does not have, though retention has not taken it; the first few."""
    base, numbers = _base(db), dict(db.execute("SELECT epoch, number FROM epoch").fetchall())

    def missing() -> Iterator[str]:
        for witness, stream, seen in claims:
            where = (seen.epoch, stream, seen.seq)
            row = db.execute("SELECT hash FROM event WHERE epoch = ? AND stream = ? AND seq = ?", where).fetchone()
            event = f"{stream} {seen.seq} of epoch {protocol.epoch_text(seen.epoch)}"
            if row is not None and row[0] != seen.hash:
                yield f"JOURNAL_ROLLBACK: {event} is not the event that {witness} saw"
            elif row is None and seen.seq and not _before(seen, base.get(stream, Head()), numbers):
                yield f"JOURNAL_ROLLBACK: {event} is not in the journal, and {witness} saw it"

    yield from islice(missing(), MOST_UNSEEN)


def _before(seen: Head, base: Head, numbers: Mapping[bytes, int]) -> bool:
    """Whether an event is not kept rightly: its stream begins later, or the whole journal does (names of epochs tell their order)."""
    if seen.epoch == base.epoch:
        return seen.seq <= base.seq
    if seen.epoch in numbers:
        return base.epoch in numbers and numbers[seen.epoch] < numbers[base.epoch]
    return seen.epoch < min(numbers, default=b"")


_EVERYTHING: Final = (
    "SELECT id, epoch, stream, seq, r_seq, header, payload, hash, t_utc_ns, kind, lane, part_seq, verdict, reason FROM event"
)


def _event_faults(entry: tuple[Any, ...], last: dict[str, Head], holes: Mapping[tuple[bytes, str, int], int]) -> Iterator[str]:
    """What is wrong with one event, and with its link to `last`, which then is this one."""
    row = Row(*entry[:8])
    where = f"event {row.stream} {row.seq} of epoch {protocol.epoch_text(row.epoch)}"
    if row.stream not in last:
        yield f"{where}: unknown stream"
        return
    before = last[row.stream]
    try:
        header = protocol.parse(row.header, row.payload)
        body = protocol.loads(row.payload)
    except Refused as error:
        yield f"{where}: {error}"
        return
    jump_ok = _follows(before, row, holes) or (row.epoch != before.epoch and _begins(row, holes))
    previous = before.hash
    if not _linked(before, row, holes):
        previous = bytes.fromhex(str(body.get("prev_hash", ""))) if _hex(body.get("prev_hash")) else b""
    if not jump_ok:
        yield f"{where}: follows {before.seq}"
    if protocol.hash_of(row.header, row.payload, previous) != row.hash:
        yield f"{where}: the chain is broken here"
    stored = (header.epoch, protocol.STREAMS.get(header.stream_id), header.seq, *entry[8:])
    said = (
        row.epoch,
        row.stream,
        row.seq,
        header.t_event_utc_ns,
        header.kind,
        header.lane,
        header.part_seq,
        header.verdict,
        header.reason,
    )
    r_seq = body.get("r_seq")
    if stored != said or (None if r_seq is None else int(r_seq)) != row.r_seq:
        yield f"{where}: its columns are not its header's"
    last[row.stream] = Head(row.epoch, row.seq, row.hash)


def _hex(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _linked(before: Head, row: Row, holes: Mapping[tuple[bytes, str, int], int]) -> bool:
    """No hole lies before this event: it must follow the hash of the one before."""
    expected = before.seq + 1 if before.epoch == row.epoch else 1
    return (row.epoch, row.stream, expected) not in holes


def _follows(before: Head, row: Row, holes: Mapping[tuple[bytes, str, int], int]) -> bool:
    if before.epoch != row.epoch:
        return False
    return row.seq == before.seq + 1 or holes.get((row.epoch, row.stream, before.seq + 1)) == row.seq - 1


def _begins(row: Row, holes: Mapping[tuple[bytes, str, int], int]) -> bool:
    return row.seq == 1 or holes.get((row.epoch, row.stream, 1)) == row.seq - 1


# --- export ------------------------------------------------------------------------------------------------------------

EXPORTED: Final = (
    "epoch", "seq", "t_event_utc_ns", "lane", "part_seq", "part_uid", "verdict", "reason", "reason_text", "config_sha256", "image_ref",
    "hash",
)  # fmt: skip
"""The columns of an export, one line a part."""


def count(path: Path) -> int:
    """How many events a journal holds; 0 when it cannot be read."""
    try:
        with closing(_reading(path)) as db:
            return int(db.execute("SELECT count(*) FROM event").fetchone()[0])
    except sqlite3.Error:
        return 0


def parts(path: Path) -> Iterator[dict[str, Any]]:
    """Every verdict in a journal as the fields of `EXPORTED`, oldest first, each proved as `verify` does; its daemon may run.

    Raises `ConfigError` E_DB_FORMAT with the first event that does not hold, or that a witness saw and the journal does not have.
    """
    claims = list(_claims(path, last=True))
    try:
        with closing(_reading(path)) as db:
            for entry, faults in _proved(db):
                if faults:
                    raise _damaged(path, faults[0])
                row, kind = Row(*entry[:8]), entry[9]
                if row.stream == "q" and kind == protocol.Kind.VERDICT:
                    body = protocol.loads(row.payload)
                    yield {name: body.get(name) for name in EXPORTED}
            for fault in _unseen(db, claims):
                raise _damaged(path, fault)
    except _UNREADABLE as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, text: str) -> ConfigError:
    return ConfigError("E_DB_FORMAT", f"{text}; a journal is allowed that 'inspector journal verify' finds whole", file=str(path))


def export_csv(path: Path, out: TextIO) -> int:
    """Write every verdict as a line of CSV; returns how many. Raises `ConfigError` as `parts`, after whole lines."""
    writer = csv.DictWriter(out, EXPORTED)
    writer.writeheader()
    count = 0
    for part in parts(path):
        writer.writerow(part)
        count += 1
    return count


def header_of(row: Row) -> Header:
    """The header of a kept event; raises `Refused` when it is damaged."""
    return protocol.parse(row.header, row.payload)
