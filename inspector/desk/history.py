"""What the journal knows of a time that is past: counts, rejects, and samples of what was measured.

The journal's file is read by connections that only read and are never long in it. Its events are in the order of their numbers, and
so of time, which finds a moment in a dozen steps without an index; where a start of the daemon found the clock set back, a run of them
begins anew, and each run is looked through. Counting reads no payload. Dimensions are sampled as quality engineers
do: some parts in a row (a subgroup) at even distances, so that a week costs no more than an hour.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.desk.minutes import MINUTE_NS, Feature, Minutes
from inspector.desk.state import Measured, Part, Series, part_of
from inspector.desk.words import reason_name
from inspector.records import ConfigError, Verdict

LONGEST_READ_S = 0.5
SLICE_EVENTS = 20_000
SLICE_ROWS = 500
MOST_REJECTS = 20_000
MOST_KNOWN = 512
SUBGROUP = 5
SUBGROUPS = 40
D2 = 2.326
"""Mean range of five normal values in standard deviations (Montgomery, Introduction to Statistical Quality Control, appendix VI)."""


@dataclass(frozen=True, slots=True)
class Count:
    """Parts of one piece of time."""

    from_ns: int
    to_ns: int
    passed: int
    rejected: int
    not_inspected: int

    @property
    def parts(self) -> int:
        """All of them."""
        return self.passed + self.rejected + self.not_inspected


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why parts were rejected and which of their features failed; `read` of the rejects were looked at."""

    reasons: Counter[str]
    features: Counter[Feature]
    read: int


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Some values in a row: their mean and range, and the part that stands for them."""

    at_utc_ns: int
    mean: float
    reach: float
    bad: int
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Dimension:
    """One measured dimension over a time. `sigma` is that within subgroups (mean range / d2); None where it cannot be said.

    `drift_per_h` is the slope of the subgroups' means, None where it is not clear of their scatter (|t| < 3).
    """

    series: Series
    groups: tuple[Subgroup, ...]
    mean: float
    sigma: float | None
    drift_per_h: float | None

    @property
    def cp(self) -> float | None:
        """(high − low) / 6σ."""
        low, high = self.series.low, self.series.high
        return None if not self.sigma or low is None or high is None else (high - low) / (6 * self.sigma)

    @property
    def cpk(self) -> float | None:
        """The nearer limit's distance / 3σ."""
        sides = [side for side in (self._side(self.series.low, -1), self._side(self.series.high, 1)) if side is not None]
        return min(sides) / (3 * self.sigma) if sides and self.sigma else None

    def _side(self, limit: float | None, sign: int) -> float | None:
        return None if limit is None else sign * (limit - self.mean)

    @property
    def limit_in_h(self) -> float | None:
        """When the mean will reach a limit if it goes on like this."""
        if not self.drift_per_h:
            return None
        side = self._side(self.series.high, 1) if self.drift_per_h > 0 else self._side(self.series.low, -1)
        return None if side is None else max(0.0, side / abs(self.drift_per_h))


class History:
    """The journal at `path`. Each call opens it anew: the daemon may put another in its place. Raises `ConfigError` E_DB_OPEN."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts: dict[tuple[int, int], Counter[tuple[int, int]]] = {}

    def counts(self, from_ns: int, to_ns: int, pieces: int, *, now_ns: int, lane: int | None = None) -> tuple[Count, ...]:
        """[from, to) in so many pieces of equal length, of one lane or of all."""
        edges = [from_ns + (to_ns - from_ns) * i // pieces for i in range(pieces + 1)]
        with closing(self._open()) as reader:
            return tuple(_count(a, b, self._found(reader, a, b, now_ns), lane) for a, b in itertools.pairwise(edges))

    def _found(self, reader: _Reader, from_ns: int, to_ns: int, now_ns: int) -> Counter[tuple[int, int]]:
        """How many parts by (lane, verdict)."""
        if (known := self._counts.get((from_ns, to_ns))) is not None:
            return known
        found: Counter[tuple[int, int]] = Counter()
        for first, last in reader.ranges(from_ns, to_ns):
            for begin in range(first, last, SLICE_EVENTS):
                for _, lane, verdict, count in reader.verdicts(begin, min(last, begin + SLICE_EVENTS)):
                    found[lane, verdict] += count
        if to_ns < now_ns - 60 * 10**9:  # what is past stays
            if len(self._counts) >= MOST_KNOWN:
                self._counts.clear()
            self._counts[from_ns, to_ns] = found
        return found

    def reasons(self, from_ns: int, to_ns: int) -> Reasons:
        """Of the first `MOST_REJECTS` rejects of [from, to)."""
        found = Reasons(Counter(), Counter(), 0)
        read = 0
        with closing(self._open()) as reader:
            for _, part in itertools.chain.from_iterable(reader.rejects(*ids) for ids in reader.ranges(from_ns, to_ns)):
                read += 1
                found.reasons[reason_name(part.reason, part.reason_text)] += 1
                found.features.update((part.lane, part.recipe_name, name) for name in part.failing)
                if read == MOST_REJECTS:
                    break
        return Reasons(found.reasons, found.features, read)

    def dimensions(self, from_ns: int, to_ns: int) -> tuple[Dimension, ...]:
        """Everything that was measured in [from, to), from samples; by lane, recipe and name. A subgroup is of one recipe."""
        with closing(self._open()) as reader:
            samples = list(reader.samples(from_ns, to_ns))
        series: dict[Series, list[list[tuple[Part, Measured]]]] = {}
        for sample in samples:
            values: dict[Series, list[tuple[Part, Measured]]] = {}
            for part in sample:
                for found in part.findings:
                    if found.value is not None:
                        values.setdefault(Series.of(part, found), []).append((part, found))
            for key, group in values.items():
                if len(group) >= SUBGROUP:
                    series.setdefault(key, []).append(group[:SUBGROUP])
        return tuple(dimension(key, series[key]) for key in sorted(series, key=lambda key: key[:4]))

    def span(self, from_ns: int) -> tuple[int, int]:
        """The events from this moment on: the first one's number, and that beyond the last."""
        with closing(self._open()) as reader:
            return next((first for first, _ in reader.ranges(from_ns)), reader.beyond), reader.beyond

    def minutes(self, first: int, last: int) -> Minutes:
        """What these events, [first, last), say of each minute. Raises `ConfigError` E_DB_OPEN."""
        found = Minutes()
        with closing(self._open()) as reader:
            for number, lane, verdict, count in reader.verdicts(first, last, MINUTE_NS):
                minute = found.of(number, lane)
                if verdict == Verdict.PASS:
                    minute.passed += count
                elif verdict == Verdict.REJECT_NOT_INSPECTED:
                    minute.not_inspected += count
                else:
                    minute.rejected += count
            for at_ns, part in reader.rejects(first, last):
                reason = reason_name(part.reason, part.reason_text)
                found.why(at_ns // MINUTE_NS, part.lane, reason, part.recipe_name, part.failing)
        return found

    def part(self, epoch: str, seq: int) -> Part | None:
        """The part of this name, None where no such verdict is kept."""
        try:
            key = uuid.UUID(epoch).bytes
        except ValueError:
            return None
        with closing(self._open()) as reader:
            return reader.part(key, seq)

    def first_utc_ns(self) -> int | None:
        """The oldest verdict that is kept."""
        with closing(self._open()) as reader:
            return reader.first_utc_ns()

    def _open(self) -> _Reader:
        return _Reader(self._path)


def _count(from_ns: int, to_ns: int, found: Counter[tuple[int, int]], lane: int | None) -> Count:
    """What was found by (lane, verdict), of one lane or of all."""
    verdicts: Counter[int] = Counter()
    for (of, verdict), count in found.items():
        if lane in (None, of):
            verdicts[verdict] += count
    passed, blind = verdicts.pop(int(Verdict.PASS), 0), verdicts.pop(int(Verdict.REJECT_NOT_INSPECTED), 0)
    return Count(from_ns, to_ns, passed, verdicts.total(), blind)


def dimension(series: Series, groups: Sequence[Sequence[tuple[Part, Measured]]]) -> Dimension:
    """What the subgroups (each of `SUBGROUP` values of this series) say of a dimension."""
    drawn = []
    for group in groups:
        values = [found.value for _, found in group if found.value is not None]
        part = group[-1][0]
        bad = sum(not found.ok for _, found in group)
        drawn.append(Subgroup(part.at_utc_ns, statistics.fmean(values), max(values) - min(values), bad, part.epoch, part.seq))
    reach = statistics.fmean(g.reach for g in drawn)
    sigma = reach / D2 if len(drawn) >= 5 and reach > 0 else None
    mean = statistics.fmean(g.mean for g in drawn)
    return Dimension(series, tuple(drawn), mean, sigma, _drift(drawn))


def _drift(groups: Sequence[Subgroup]) -> float | None:
    """The slope of the means, an hour, by least squares; None of fewer than eight, or when it may be chance."""
    if len(groups) < 8 or len({g.at_utc_ns for g in groups}) < 3:
        return None
    hours = [(g.at_utc_ns - groups[0].at_utc_ns) / 3.6e12 for g in groups]
    means = [g.mean for g in groups]
    slope, intercept = statistics.linear_regression(hours, means)
    middle = statistics.fmean(hours)
    rest = sum((y - intercept - slope * x) ** 2 for x, y in zip(hours, means, strict=True)) / (len(groups) - 2)
    error = (rest / sum((x - middle) ** 2 for x in hours)) ** 0.5
    return slope if abs(slope) > 3 * error else None


class _Reader:
    """One reading connection; each question is one short transaction."""

    def __init__(self, path: Path) -> None:
        self._by_s = 0.0
        try:
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=0.5, check_same_thread=False)
            self._db.set_progress_handler(lambda: time.monotonic() > self._by_s, 10_000)
            self._ask("PRAGMA query_only=1")
            (low, high), *_ = self._ask("SELECT min(id), max(id) FROM event")
        except sqlite3.Error as error:
            raise ConfigError("E_DB_OPEN", f"the journal cannot be read: {error}", file=str(path)) from error
        self.beyond = (high or 0) + 1
        self._runs = self._ordered(low or 1)

    def close(self) -> None:
        self._db.close()

    def _ask(self, query: str, *bound: object) -> list[tuple[Any, ...]]:
        self._by_s = time.monotonic() + LONGEST_READ_S
        return self._db.execute(query, bound).fetchall()

    def _try(self, query: str, *bound: object) -> list[tuple[Any, ...]]:
        try:
            return self._ask(query, *bound)
        except sqlite3.Error as error:
            raise ConfigError("E_DB_OPEN", f"the journal cannot be read now: {error}") from error

    def _ordered(self, low: int) -> list[tuple[int, int]]:
        """The events from this one on in runs [first, last), each in the order of time: an epoch that begins earlier is one."""
        first = "SELECT id FROM event INDEXED BY event_seq WHERE epoch = e.epoch AND stream = '{}' ORDER BY seq LIMIT 1"
        begun = self._try(f"SELECT ({first.format('q')}), ({first.format('a')}) FROM epoch AS e")
        edges = [low]
        for number in sorted(min(ids) for row in begun if (ids := [n for n in row if n is not None])):
            around = self._try("SELECT t_utc_ns FROM event WHERE id <= ? ORDER BY id DESC LIMIT 2", number)
            if len(around) == 2 and around[0][0] < around[1][0]:
                edges.append(number)
        return list(itertools.pairwise([*edges, self.beyond]))

    def ranges(self, from_ns: int, to_ns: int = 2**63 - 1) -> list[tuple[int, int]]:
        """The events of [from, to): numbers [first, last), in their order."""
        found = [(self._id_at(from_ns, *run), self._id_at(to_ns, *run)) for run in self._runs]
        return [(first, last) for first, last in found if first < last]

    def _id_at(self, at_ns: int, low: int, high: int) -> int:
        """The first event of a run that is not before this moment."""
        while low < high:
            middle = (low + high) // 2
            found = self._try("SELECT id, t_utc_ns FROM event WHERE id >= ? ORDER BY id LIMIT 1", middle)
            if found and found[0][1] < at_ns:
                low = int(found[0][0]) + 1
            else:
                high = middle
        return low

    def first_utc_ns(self) -> int | None:
        found = self._try("SELECT t_utc_ns FROM event ORDER BY id LIMIT 1")
        return int(found[0][0]) if found else None

    def part(self, epoch: bytes, seq: int) -> Part | None:
        query = "SELECT id, payload FROM event WHERE epoch = ? AND stream = 'q' AND seq = ? AND kind = 1"
        return next(_parts(self._try(query, epoch, seq)), None) if seq < 2**63 else None

    def verdicts(self, first: int, last: int, piece_ns: int = 2**62) -> list[tuple[int, int, int, int]]:
        """(piece of time, lane, verdict, how many) of the events [first, last)."""
        query = """SELECT t_utc_ns / ?, lane, verdict, count(*) FROM event
            WHERE id >= ? AND id < ? AND stream = 'q' AND kind = 1 GROUP BY 1, 2, 3"""
        return [
            (int(piece), int(lane), int(verdict), int(count)) for piece, lane, verdict, count in self._try(query, piece_ns, first, last)
        ]

    def rejects(self, first: int, last: int) -> Iterator[tuple[int, Part]]:
        """(UTC ns, part) of each reject of the events [first, last)."""
        query = "SELECT id, payload, t_utc_ns FROM event WHERE id >= ? AND id < ? AND r_seq IS NOT NULL AND kind = 1 ORDER BY id LIMIT ?"
        while first < last:
            upto = min(last, first + SLICE_EVENTS)
            rows = self._try(query, first, upto, SLICE_ROWS)
            for row in rows:
                yield from ((row[2], part) for part in _parts([row]))
            first = int(rows[-1][0]) + 1 if len(rows) == SLICE_ROWS else upto

    def samples(self, from_ns: int, to_ns: int) -> Iterator[list[Part]]:
        """Parts in a row, inspected ones, from evenly spread places; enough for a subgroup of each lane and recipe that ran last."""
        ranges = self.ranges(from_ns, to_ns)
        query = "SELECT id, payload FROM event WHERE id >= ? AND id < ? AND stream = 'q' AND kind = 1 AND verdict != ? ORDER BY id LIMIT ?"
        if not ranges:
            return
        first, last = ranges[-1]
        newest = Counter((p.lane, p.recipe_name) for p in _parts(self._try(query, max(first, last - 200), last, 0, 64)))
        streams = max(1, len(newest))
        rarest = -(-newest.total() // min(newest.values(), default=1))  # one part in so many
        size = (SUBGROUP + 1) * min(max(streams, rarest), 2 * streams)
        step = max(size, sum(last - first for first, last in ranges) // SUBGROUPS)
        for first, last in ranges:
            for begin in range(first, last, step):
                yield list(_parts(self._try(query, begin, min(last, begin + step), int(Verdict.REJECT_NOT_INSPECTED), size)))


def _parts(rows: Sequence[tuple[Any, ...]]) -> Iterator[Part]:
    for _, payload, *_ in rows:
        try:
            yield part_of(json.loads(payload))
        except ValueError:
            continue
