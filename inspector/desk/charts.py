"""Numbers to coordinates: what the pages draw as SVG is worked out here, pure, in the chart's own pixels (y down)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from inspector.desk.history import SUBGROUP, Count, Dimension
from inspector.desk.minutes import MINUTE_NS, Feature, Minute
from inspector.desk.state import Measured, Part, Series
from inspector.desk.words import clock, limits, moment, number

MEDIAN_RANGE_D4 = 0.954
"""Median of the range of two normal values, in standard deviations (Wheeler's d4 for n = 2)."""
RUN_OF_ONE_SIDE = 8
LABEL_TALL = 18.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute: a stack of three, from below; `x`, `width` and the pieces' (y, height)."""

    x: float
    width: float
    passed: tuple[float, float]
    rejected: tuple[float, float]
    not_inspected: tuple[float, float]
    label: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Parts per minute. The drawing area is `width` × `height`."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    hours: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """One row of a Pareto: how often, its share, and the share of it and all before it."""

    label: str
    count: int
    share_ratio: float
    running_ratio: float
    length_ratio: float


@dataclass(frozen=True, slots=True)
class Dot:
    """One value of a control chart. `bad`: out of the drawing's limits. `odd`: beyond the process's own limits."""

    x: float
    y: float
    bad: bool
    odd: bool
    label: str
    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Line:
    """A level line of a control chart; its label stands at `label_y`, clear of its neighbours'."""

    y: float
    kind: str
    label: str
    label_y: float


@dataclass(frozen=True, slots=True)
class Control:
    """A chart of single values: the process's median and its limits (3σ by the median moving range), and the drawing's limits.

    `cp`, `cpk` (None where they cannot be said: an open limit, fewer than 25 values, no spread). `notes` say what is odd.
    """

    width: float
    height: float
    dots: tuple[Dot, ...]
    path: str
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    median: float
    sigma: float
    cp: float | None
    cpk: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of subgroups over a time. `steps` are the paths of limits that change from one to the next."""

    width: float
    height: float
    dots: tuple[Dot, ...]
    path: str
    lines: tuple[Line, ...]
    steps: tuple[str, ...]
    ticks: tuple[Tick, ...]
    times: tuple[Tick, ...]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], roughly `about` of them, steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def bars(minutes: Sequence[tuple[int, Minute]], *, width: float = 900, height: float = 140) -> Bars:
    """Stacked bars of parts per minute."""
    tallest = max([m.passed + m.rejected + m.not_inspected for _, m in minutes] + [1])
    marks = ticks(0, tallest, 3)
    top = max(tallest, marks[-1])
    step = width / max(1, len(minutes))
    drawn = []
    for i, (at, m) in enumerate(minutes):
        y, pieces = height, []
        for count in (m.passed, m.rejected, m.not_inspected):
            tall = count / top * height
            y -= tall
            pieces.append((round(y, 2), round(tall, 2)))
        when = clock(at * MINUTE_NS)[:5]
        said = f"{when}: {m.passed} passed, {m.rejected} rejected, {m.not_inspected} not inspected"
        drawn.append(Bar(round(i * step, 2), round(step * 0.8, 2), pieces[0], pieces[1], pieces[2], said))
    return Bars(
        width,
        height,
        tuple(drawn),
        tuple(Tick(round(height - m / top * height, 2), number(m)) for m in marks),
        tuple(Tick(round((i + 0.4) * step, 2), clock(at * MINUTE_NS)[:5]) for i, (at, _) in enumerate(minutes) if at % 10 == 0),
    )


def pareto(counts: Mapping[str, int], *, most: int = 12) -> tuple[Slice, ...]:
    """The greatest first; what is beyond `most` rows is one row `other`."""
    ranked = Counter({k: v for k, v in counts.items() if v > 0}).most_common()
    if len(ranked) > most:
        ranked = [*ranked[: most - 1], ("other", sum(v for _, v in ranked[most - 1 :]))]
    total, greatest = sum(v for _, v in ranked), max([v for _, v in ranked], default=0)
    rows, running = [], 0
    for label, count in ranked:
        running += count
        rows.append(Slice(label, count, count / total, running / total, count / greatest))
    return tuple(rows)


def total(minutes: Sequence[tuple[int, Minute]]) -> Minute:
    """The minutes as one."""
    whole = Minute()
    for _, m in minutes:
        whole.add(m)
    return whole


def named(features: Mapping[Feature, int]) -> Counter[str]:
    """The counts by what a person reads: with the recipe where there are several, and with the lane where one recipe is on several."""
    lanes: dict[str, set[int]] = {}
    for lane, recipe, _ in features:
        lanes.setdefault(recipe, set()).add(lane)
    several = len(lanes.keys() - {""}) > 1
    found: Counter[str] = Counter()
    for (lane, recipe, name), count in features.items():
        where = [f"lane {lane}"] if recipe and len(lanes[recipe]) > 1 else []
        found[" · ".join([*where, *([recipe] if recipe and several else []), name])] += count
    return found


def titles(series: Sequence[Series]) -> dict[Series, str]:
    """What to call each of them: with the recipe where there are several, and with the limits where all else is the same."""
    several = len({s.recipe for s in series}) > 1
    known = Counter(s[:4] for s in series)

    def title(s: Series) -> str:
        name = f"{s.recipe} · {s.name}" if several and s.recipe else s.name
        return f"{name} ({limits(s.low, s.high)})" if known[s[:4]] > 1 else name

    return {s: title(s) for s in series}


def control(series: Sequence[tuple[Part, Measured]], *, width: float = 900, height: float = 300) -> Control | None:
    """The control chart of one dimension; None of fewer than two values.

    Individuals chart with σ = median moving range / 0.954 about the median, so that a bad part now and then does not hide what the
    process does (Wheeler and Chambers, Understanding Statistical Process Control); Cp = (high − low) / 6σ, Cpk = min(high − median,
    median − low) / 3σ (Montgomery, Introduction to Statistical Quality Control, ch. 8). Odd: beyond 3σ, or eight in a row on one side.
    """
    values = [f.value for _, f in series if f.value is not None]
    if len(values) < 2 or len(values) != len(series):
        return None
    low, high, unit = series[-1][1].low, series[-1][1].high, series[-1][1].unit
    median = statistics.median(values)
    sigma = statistics.median(abs(b - a) for a, b in itertools.pairwise(values)) / MEDIAN_RANGE_D4
    upper, lower = median + 3 * sigma, median - 3 * sigma
    shown = [*values, upper, lower, *(v for v in (low, high) if v is not None)]
    bottom, top = min(shown), max(shown)
    room = (top - bottom) * 0.06 or abs(top) * 0.1 or 1.0
    bottom, top = bottom - room, top + room

    def y_of(value: float) -> float:
        return round(height - (value - bottom) / (top - bottom) * height, 2)

    step = width / len(values)
    dots = tuple(
        Dot(
            round((i + 0.5) * step, 2),
            y_of(value),
            not finding.ok,
            not lower <= value <= upper,
            f"part {part.part_seq}, {clock(part.at_utc_ns)}: {number(value)} {unit}",
            part.epoch,
            part.seq,
        )
        for i, ((part, finding), value) in enumerate(zip(series, values, strict=True))
    )
    levels = [(y_of(median), "mean", f"median {number(median, 5)}")]
    if sigma > 0:
        levels += [(y_of(upper), "process", f"+3σ {number(upper, 5)}"), (y_of(lower), "process", f"−3σ {number(lower, 5)}")]
    named = (("low", low), ("high", high)) if low != high else (("exactly", low),)
    levels += [(y_of(v), "limit", f"{name} {number(v)}") for name, v in named if v is not None]
    capable = len(values) >= 25 and sigma > 0
    sides = [(median - low) / (3 * sigma)] if capable and low is not None else []
    sides += [(high - median) / (3 * sigma)] if capable and high is not None else []
    return Control(
        width,
        height,
        dots,
        "M" + "L".join(f"{d.x} {d.y}" for d in dots),
        _lines(levels, height),
        tuple(Tick(y_of(t), number(t)) for t in ticks(bottom, top, 5)),
        median,
        sigma,
        (high - low) / (6 * sigma) if capable and low is not None and high is not None else None,
        min(sides) if sides else None,
        _notes(dots, values, median),
    )


def _notes(dots: Sequence[Dot], values: Sequence[float], median: float) -> tuple[str, ...]:
    """What an experienced eye would say of the chart."""
    notes = []
    if bad := sum(d.bad for d in dots):
        notes.append(f"{bad} of the last {len(dots)} {'is' if bad == 1 else 'are'} out of the drawing's limits.")
    if odd := sum(d.odd and not d.bad for d in dots):
        notes.append(f"{odd} {'is' if odd == 1 else 'are'} within the drawing's limits, but unlike the others (beyond 3σ).")
    tail = values[-RUN_OF_ONE_SIDE:]
    if len(tail) == RUN_OF_ONE_SIDE and (min(tail) > median or max(tail) < median):
        notes.append(f"Drift: the last {RUN_OF_ONE_SIDE} are all {'above' if tail[-1] > median else 'below'} the median.")
    return tuple(notes)


def means(dimension: Dimension, *, width: float = 900, height: float = 260) -> Chart:
    """The X̄ chart: means of subgroups, with limits mean ± 3σ/√n by the mean range, and the drawing's limits where they are near.

    Montgomery, Introduction to Statistical Quality Control, ch. 6.
    """
    groups, series = dimension.groups, dimension.series
    half = None if dimension.sigma is None else 3 * dimension.sigma / math.sqrt(SUBGROUP)
    own = [] if half is None else [("process", "+3σ", dimension.mean + half), ("process", "−3σ", dimension.mean - half)]
    named = (("low", series.low), ("high", series.high)) if series.low != series.high else (("exactly", series.low),)
    levels = [("mean", "mean", dimension.mean), *own, *(("limit", name, v) for name, v in named if v is not None)]
    bottom, top = _room([*(g.mean for g in groups), *(v for *_, v in levels)])

    def y_of(value: float) -> float:
        return round(height - (value - bottom) / (top - bottom) * height, 2)

    step = width / len(groups)
    dots = tuple(
        Dot(
            round((i + 0.5) * step, 2),
            y_of(g.mean),
            g.bad > 0,
            half is not None and abs(g.mean - dimension.mean) > half,
            f"{moment(g.at_utc_ns)}: mean {number(g.mean)}, range {number(g.reach)} {series.unit}",
            g.epoch,
            g.seq,
        )
        for i, g in enumerate(groups)
    )
    return Chart(
        width,
        height,
        dots,
        "M" + "L".join(f"{d.x} {d.y}" for d in dots),
        _lines([(y_of(v), kind, f"{name} {number(v)}") for kind, name, v in levels], height),
        (),
        tuple(Tick(y_of(t), number(t)) for t in ticks(bottom, top, 5)),
        _times([(d.x, g.at_utc_ns) for d, g in zip(dots, groups, strict=True)]),
    )


def shares(counts: Sequence[Count], *, width: float = 900, height: float = 200) -> Chart | None:
    """The p chart: the share of rejects of what was inspected, with limits p̄ ± 3√(p̄(1 − p̄)/n); None where nothing was inspected.

    Montgomery, Introduction to Statistical Quality Control, ch. 7.
    """
    seen = [(i, c, c.passed + c.rejected) for i, c in enumerate(counts) if c.passed + c.rejected > 0]
    if not seen:
        return None
    share = sum(c.rejected for _, c, _ in seen) / sum(n for *_, n in seen)
    halves = [3 * math.sqrt(share * (1 - share) / n) for *_, n in seen]
    highest = min(1.0, max([share + h for h in halves] + [c.rejected / n for _, c, n in seen])) * 1.08 or 0.01

    def y_of(value: float) -> float:
        return round(height - min(value, highest) / highest * height, 2)

    step = width / len(counts)
    dots = tuple(
        Dot(
            round((i + 0.5) * step, 2),
            y_of(c.rejected / n),
            False,
            abs(c.rejected / n - share) > half,
            f"from {moment(c.from_ns)}: {c.rejected} of {n} rejected, {number(100 * c.rejected / n, 3)} %",
            "",
            0,
        )
        for (i, c, n), half in zip(seen, halves, strict=True)
    )
    edges = [(i * step, share + side * half) for side in (1, -1) for (i, *_), half in zip(seen, halves, strict=True)]
    steps = "".join(f"M{x:.1f} {y_of(max(0.0, v))}h{step:.1f}" for x, v in edges)
    return Chart(
        width,
        height,
        dots,
        "M" + "L".join(f"{d.x} {d.y}" for d in dots),
        _lines([(y_of(share), "mean", f"mean {number(100 * share, 3)} %")], height),
        (steps,),
        tuple(Tick(y_of(t), f"{number(100 * t, 3)} %") for t in ticks(0, highest, 4)),
        _times([((i + 0.5) * step, c.from_ns) for i, c in enumerate(counts)]),
    )


def _lines(levels: Sequence[tuple[float, str, str]], height: float) -> tuple[Line, ...]:
    """Level lines (y, kind, label) from above, their labels moved apart."""
    placed: list[Line] = []
    for y, kind, label in sorted(levels):
        placed.append(Line(y, kind, label, max([y, *(line.label_y + LABEL_TALL for line in placed[-1:])])))
    lowest = height
    for i in reversed(range(len(placed))):
        placed[i] = replace(placed[i], label_y=round(min(placed[i].label_y, lowest), 2))
        lowest = placed[i].label_y - LABEL_TALL
    return tuple(placed)


def _room(values: Sequence[float]) -> tuple[float, float]:
    bottom, top = min(values), max(values)
    room = (top - bottom) * 0.06 or abs(top) * 0.1 or 1.0
    return bottom - room, top + room


def _times(places: Sequence[tuple[float, int]], most: int = 9) -> tuple[Tick, ...]:
    """Some of the moments, to be written below."""
    each = max(1, -(-len(places) // most))
    return tuple(Tick(round(x, 2), moment(at)) for x, at in places[::each])
