"""How the demo line looks: a table that renews itself on a terminal, plain lines elsewhere, and the account at the end."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inspector.workshop.demo import UNSEEN, Given, Line, Row, described, percentile
from inspector.workshop.trial import Tried, by_size, summary

COLOURS = {"PASS": "green", "REJECT_DEFECT": "red"}
LAST = 14
REFRESH_S = 0.25


class Screen(Protocol):
    """Shows each verdict; None means that time has passed."""

    def __call__(self, line: Line, verdict: Given | None) -> None:
        """Show it."""
        ...


@contextmanager
def screen(console: Console) -> Iterator[Screen]:
    """The screen that fits the console."""
    if not console.is_terminal:
        yield lambda line, verdict: _plain(console, line, verdict)
        return
    last: deque[Given] = deque(maxlen=LAST)
    began_s: float | None = None
    drawn_s = 0.0
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(line: Line, verdict: Given | None) -> None:
            nonlocal began_s, drawn_s
            began_s = began_s or time.monotonic()
            if verdict is not None:
                last.append(verdict)
            if time.monotonic() - drawn_s > REFRESH_S:
                live.update(_board(line, last, time.monotonic() - began_s), refresh=True)
                drawn_s = time.monotonic()

        yield show


def _plain(console: Console, line: Line, verdict: Given | None) -> None:
    if verdict is None:
        return
    v = verdict
    truth = described(line.truth.get(v.part))
    times = f"latency {v.latency_ms:6.1f} ms  margin {v.margin_ms:6.1f} ms"
    _say(console, f"{v.camera:<8} #{v.part_seq:<5} {v.verdict:<20} {v.worst or _why(v):<50} {times}  truth: {truth}")


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def _why(verdict: Given) -> str:
    return "" if verdict.verdict == "PASS" else f"{verdict.reason} {verdict.reason_text}"[:40]


def _board(line: Line, last: Sequence[Given], ran_s: float) -> Group:
    verdicts = line.verdicts.values()
    kinds = Counter(v.verdict for v in verdicts)
    latencies = [v.latency_ms for v in verdicts]
    head = Text.assemble(
        ("inspector demo", "bold"),
        f"   {len(verdicts)} parts   ",
        (f"{kinds['PASS']} pass   ", "green"),
        (f"{kinds['REJECT_DEFECT']} reject   ", "red"),
        (f"{len(verdicts) - kinds['PASS'] - kinds['REJECT_DEFECT']} not inspected   ", "yellow"),
        f"latency p50 {percentile(latencies, 0.5):.0f} ms, p99 {percentile(latencies, 0.99):.0f} ms   ",
        f"{ran_s:.0f} s   {line.desk}",
        overflow="ellipsis",
        no_wrap=True,
    )
    table = Table(box=None, pad_edge=False, expand=True)
    for name, justify in (("camera", "left"), ("part", "right"), ("verdict", "left"), ("worst finding", "left"), ("truth", "left")):
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for name in ("ms", "margin"):
        table.add_column(name, justify="right", no_wrap=True)
    for v in last:
        colour = COLOURS.get(v.verdict, "yellow")
        said = Text(v.verdict if v.worst else f"{v.verdict} {_why(v)}".rstrip(), style=colour)
        truth = described(line.truth.get(v.part))
        table.add_row(v.camera, str(v.part_seq), said, v.worst, truth, f"{v.latency_ms:.1f}", f"{v.margin_ms:.1f}")
    return Group(head, Text("Ctrl-C ends the line and shows the account.", style="dim"), table)


def account(console: Console, line: Line, rows: dict[str, Row], faults: Sequence[str]) -> None:
    """The account at the end: ledger, PLC, latency, and what became of each kind of part."""
    outcomes = Counter(o["outcome"] for o in line.outcomes().values())
    _say(console, f"ledger   {line.ledger_line or 'none'}")
    _say(
        console,
        f"plc      parts={outcomes.total()} passed={outcomes['PASSED']} ejected={outcomes['EJECTED_CONFIRMED']} "
        f"ejected_without_verdict={outcomes['DEFAULT_REJECT']}",
    )
    latencies = [v.latency_ms for v in line.verdicts.values()]
    margins = [v.margin_ms for v in line.verdicts.values()]
    shares = ", ".join(
        f"{name} {percentile(latencies, share):.1f}" for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("most", 1.0))
    )
    _say(console, f"latency  from part sensor to verdict, ms: {shares}; least margin to the deadline {min(margins, default=0.0):.1f}")
    _say(console, f"drawing  {len(line.truth)} exposures, {line.again} of them showed a part again")
    table = Table("parts that were", box=None, pad_edge=False)
    for name in ("parts", "rejected", "not inspected", "passed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("rejected by")
    order = sorted(rows, key=lambda kind: (kind == "good", kind == UNSEEN, kind))
    for kind in order:
        row = rows[kind]
        named = ", ".join(f"{name} {n}" for name, n in row.named.most_common())
        wrong = "red" if (row.passed and kind != "good") or (row.found and kind == "good") else None
        table.add_row(kind, str(row.parts), str(row.found), str(row.unjudged), str(row.passed), named, style=wrong)
    console.print(table)
    good, bad = rows.get("good", Row()), [row for kind, row in rows.items() if kind not in ("good", UNSEEN)]
    defective, escaped = sum(row.parts for row in bad), sum(row.passed for row in bad)
    _say(
        console,
        f"escapes {escaped} of {defective} bad parts ({_percent(escaped, defective)}), "
        f"false rejects {good.found} of {good.parts} good parts ({_percent(good.found, good.parts)})",
    )
    for fault in faults:
        _say(console, f"does not balance: {fault}", "bold red")


def trial(console: Console, tried: Sequence[Tried]) -> None:
    """What the trial found: a table by kind and size, and the shares with their 95 % intervals."""
    table = Table("parts that were", box=None, pad_edge=False)
    for name in ("size mm", "parts", "rejected", "passed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("rejected by")
    for c in by_size(tried):
        wrong = "red" if c.rejected != (0 if c.kind == "good" else c.parts) else None
        named = ", ".join(f"{name} {n}" for name, n in c.named.most_common())
        size = "" if c.kind == "good" else f"{c.low_mm:.2f} … {c.high_mm:.2f}"
        table.add_row(c.kind, size, str(c.parts), str(c.rejected), str(c.parts - c.rejected), named, style=wrong)
    console.print(table)
    s = summary(tried)
    for what, wrong, whole in (("escapes", "escapes", "bad"), ("false rejects", "false_rejects", "good")):
        low, high = s[f"{wrong}_95"] or (0.0, 1.0)
        text = f"{what} {s[wrong]} of {s[whole]} {whole} parts ({_percent(s[wrong], s[whole])}, 95 %: {100 * low:.2f} … {100 * high:.2f} %)"
        _say(console, text)
    _say(console, f"judging takes {s['cpu_ms_median']:.1f} ms of one core (median)")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "none"
