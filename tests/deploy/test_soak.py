"""A daemon at work for half an hour, or for INSPECTOR_SOAK_MINUTES: memory, threads and descriptors of its processes stay where they are.

    INSPECTOR_SOAK_MINUTES=480 .venv/bin/python -m pytest tests/deploy/test_soak.py -m slow -s

While it runs, everything is used that could leak: metrics are scraped, the recipe is read again, gateways come and go, events are replayed.
The slopes are printed; `soak.csv` in the test's folder has every sample.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import linear_regression, median

import pytest

from inspector.client import Gateway, Subscriber, Terms
from tests.smoke.conftest import line
from tests.smoke.test_daemon import Running, balanced, daemon, until

MINUTES = float(os.environ.get("INSPECTOR_SOAK_MINUTES", "30"))
EVERY_S = min(10.0, MINUTES * 60 / 100)
SETTLED_SHARE = 0.4
"""Of the time, before what is measured counts: caches, arenas and the journal's pages are filled once."""

MOST_GROWTH = {"rss_kib": 0.02, "threads": 0.0, "fds": 0.0}
"""From the first to the last third of what counts, as a share of what there is."""

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(MINUTES * 60 + 300)]


def sample(pid: int) -> dict[str, int]:
    """What a process holds now."""
    status = dict(text.split(":", 1) for text in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in text)
    fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"rss_kib": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "fds": fds}


def teller_of(gate: int) -> int:
    """The gate's child that replays."""
    children = [int(pid) for task in Path(f"/proc/{gate}/task").iterdir() for pid in (task / "children").read_text().split()]
    return next(pid for pid in children if b"inspector.runtime.replay" in Path(f"/proc/{pid}/cmdline").read_bytes())


def disturb(running: Running, turn: int) -> None:
    """One turn of what a day brings: somebody scrapes, connects, asks for what is past, reloads."""
    at = running.ready()["endpoints"]
    for process in ("gate", "vision"):
        running.page(process)
    with Gateway(at["gate"], Terms(client="soak", station="cell1")) as gateway:
        for _ in range(20):
            gateway.poll(50)
    with Subscriber(at["events"], replay=at["replay"], since=(running.ready()["epoch"], max(0, turn * 20 - 50))) as subscriber:
        for _ in range(20):
            subscriber.receive(0.05)
    if turn % 10 == 0:
        running.process.send_signal(1)  # SIGHUP


def slopes(rows: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Growth an hour by the best straight line, and from the first to the last third as a share."""
    values = [row[name] for row in rows]
    third = max(1, len(rows) // 3)
    hours = [row["at_s"] / 3600 for row in rows]
    return linear_regression(hours, values).slope, median(values[-third:]) / median(values[:third]) - 1


def test_nothing_grows(tmp_path: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = line(tmp_path, journal={"ballast_mib": 0, "keep_mib": 16}, archive={"every_nth_pass": 10, "keep_mib": 4})
    rows: dict[str, list[dict[str, float]]] = {"gate": [], "vision": [], "replay": []}
    with daemon(path, environment) as running:
        pids = {"gate": running.ready()["pid"], "vision": running.ready()["vision_pid"]}
        pids["replay"] = teller_of(pids["gate"])
        until(lambda: running.metric("vision", "inspector_inspections_total") > 5)
        began_s, turn = time.monotonic(), 0
        while (at_s := time.monotonic() - began_s) < MINUTES * 60:
            disturb(running, turn)
            for process, pid in pids.items():
                assert Path(f"/proc/{pid}").exists(), f"{process} has gone: {running.said()[-2000:]}"
                rows[process].append({"at_s": round(at_s, 1), **sample(pid)})
            turn += 1
            time.sleep(max(0.0, turn * EVERY_S - (time.monotonic() - began_s)))
        assert running.metric("gate", "inspector_vision_restarts_total") == 0
        assert running.metric("gate", "inspector_replay_restarts_total") == 0
        assert running.end() == 0
        assert balanced(running.account())
    with (tmp_path / "soak.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["process", "at_s", "rss_kib", "threads", "fds"])
        table.writeheader()
        table.writerows({"process": process, **row} for process, found in rows.items() for row in found)
    grown = []
    with capsys.disabled():
        print(f"\n{MINUTES:g} minutes, {sum(running.account()[k] for k in ('pass', 'reject', 'not_inspected'))} parts")
        for process, found in rows.items():
            counted = found[int(len(found) * SETTLED_SHARE) :]
            for name, most in MOST_GROWTH.items():
                an_hour, share = slopes(counted, name)
                print(f"{process:7}{name:8} {counted[0][name]:9.0f} → {counted[-1][name]:9.0f}   {an_hour:+10.1f} an hour   {share:+.2%}")
                if share > most:
                    grown.append(f"{process} {name} {share:+.2%}")
    assert grown == []
