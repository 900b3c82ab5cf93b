"""What happened in a shift, from the journal: what the page and the PDF (`paper`) show, and the same as a table for a spreadsheet."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inspector.desk.history import SUBGROUP, Count, Dimension, History, Reasons

HOUR_NS = 3_600 * 10**9
MOST_DIMENSIONS = 30
"""So many are on the page and on paper; all are in the CSV."""
COLUMNS = ("section", "name", "count", "share", "lane", "mean", "sigma", "low", "high", "unit", "cp", "cpk", "drift_per_h", "recipe")


@dataclass(frozen=True, slots=True)
class Window:
    """[from, to) in UTC nanoseconds, and what it is called."""

    from_ns: int
    to_ns: int
    name: str = ""

    @property
    def hours(self) -> int:
        """Its length, begun hours counted whole."""
        return max(1, -(-(self.to_ns - self.from_ns) // HOUR_NS))

    @property
    def begin(self) -> str:
        """Its beginning as a browser's field writes it, local time: 2026-11-21T06:00."""
        return f"{_local(self.from_ns):%Y-%m-%dT%H:%M}"

    @property
    def stamp(self) -> str:
        """The same for a file's name."""
        return f"{_local(self.from_ns):%Y%m%d-%H%M}"

    @property
    def text(self) -> str:
        """In words."""
        return f"{_local(self.from_ns):%d.%m.%Y %H:%M} to {_local(self.to_ns):%d.%m.%Y %H:%M}"


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `hours` are the pieces, `whole` their sum."""

    window: Window
    hours: tuple[Count, ...]
    whole: Count
    reasons: Reasons
    dimensions: tuple[Dimension, ...]


def _local(at_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_ns / 1e9, datetime.UTC).astimezone()


def window_at(begin: str, hours: int) -> Window:
    """From a local time as a browser's field gives it. Raises `ValueError`."""
    at = datetime.datetime.strptime(begin, "%Y-%m-%dT%H:%M").astimezone()
    from_ns = round(at.timestamp()) * 10**9
    found = Window(from_ns, from_ns + hours * HOUR_NS)
    _local(found.from_ns), _local(found.to_ns)  # which no calendar has beyond the year 9999
    return found


def shifts(begins: Sequence[str], now_ns: int, most: int = 6) -> tuple[Window, ...]:
    """The shift that runs and those before it, newest first; `begins` are local times of day."""
    today = _local(now_ns).date()
    days = [today + datetime.timedelta(days=d) for d in range(-1 - most // len(begins), 2)]
    times = sorted({datetime.time.fromisoformat(text) for text in begins})
    edges = [round(datetime.datetime.combine(day, at).astimezone().timestamp()) * 10**9 for day in days for at in times]
    begun = [(a, b) for a, b in itertools.pairwise(edges) if a <= now_ns]
    return tuple(Window(a, b, f"{_local(a):%d.%m. %H:%M}") for a, b in begun[: -most - 1 : -1])


def of(history: History, window: Window, now_ns: int) -> Report:
    """The report of a window. Raises `ConfigError` E_DB_OPEN."""
    hours = history.counts(window.from_ns, window.to_ns, window.hours, now_ns=now_ns)
    whole = Count(window.from_ns, window.to_ns, *(sum(getattr(h, name) for h in hours) for name in ("passed", "rejected", "not_inspected")))
    reasons = history.reasons(window.from_ns, window.to_ns)
    return Report(window, hours, whole, reasons, history.dimensions(window.from_ns, window.to_ns))


def as_csv(report: Report, station: str) -> str:
    """One row a fact, `COLUMNS` wide. No cell begins as a spreadsheet's formula does."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in _rows(report, station):
        writer.writerow([_harmless(cell) for cell in row + ("",) * (len(COLUMNS) - len(row))])
    return out.getvalue()


def _rows(report: Report, station: str) -> Iterator[tuple[object, ...]]:
    whole = report.whole
    yield "station", station
    yield "window", report.window.text
    for name, count in (("passed", whole.passed), ("rejected", whole.rejected), ("not inspected", whole.not_inspected)):
        yield "parts", name, count, _share(count, whole.parts)
    named = Counter(f"{_local(hour.from_ns):%Y-%m-%d %H:%M}" for hour in report.hours)
    for hour in report.hours:
        begin = f"{_local(hour.from_ns):%Y-%m-%d %H:%M}"
        if named[begin] > 1:  # the hour that there is twice when clocks are set back
            begin += f"{_local(hour.from_ns):%z}"
        yield f"hour {begin}", "passed", hour.passed, _share(hour.passed, hour.parts)
        yield f"hour {begin}", "rejected", hour.rejected, _share(hour.rejected, hour.parts)
        yield f"hour {begin}", "not inspected", hour.not_inspected, _share(hour.not_inspected, hour.parts)
    for name, count in report.reasons.reasons.most_common():
        yield "reason", name, count, _share(count, report.reasons.read)
    for (lane, recipe, name), count in report.reasons.features.most_common():
        yield "feature", name, count, _share(count, report.reasons.read), lane, *[""] * 8, recipe
    for d in report.dimensions:
        s = d.series
        yield (
            *("dimension", s.name, SUBGROUP * len(d.groups), "", s.lane),
            *(_number(d.mean), _number(d.sigma), _number(s.low), _number(s.high), s.unit, _number(d.cp), _number(d.cpk)),
            *(_number(d.drift_per_h), s.recipe),
        )


def _share(count: int, of_all: int) -> str:
    return f"{count / of_all:.6f}" if of_all else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _harmless(cell: object) -> str:
    text = str(cell)
    formula = text[:1] in ("=", "+", "-", "@", "\t", "\r") and not text[1:2].isdigit()
    return f"'{text}" if formula else text
