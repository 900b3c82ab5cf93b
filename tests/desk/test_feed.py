"""The feed against the real gate: events over real sockets reach the board, also those from before the desk was started."""

from __future__ import annotations

import time
from pathlib import Path

from inspector.client import Hole
from inspector.desk.feed import Feed
from inspector.desk.state import Board
from inspector.runtime.endpoints import Endpoints
from tests.desk.events import board
from tests.gate.line import running, until

PREFIX = "insp1/site/line-1/cell-1/"


def feed(page: Board, stream: str, at: Endpoints | None) -> Feed:
    return Feed(page, stream, prefix=PREFIX, endpoints=lambda: at, clock=time.monotonic_ns)


def test_what_the_gate_tells_reaches_the_board(tmp_path: Path) -> None:
    with running(tmp_path) as line:
        at = Endpoints(line.gate.endpoints()["events"], line.gate.endpoints()["replay"])
        for seq in range(1, 6):  # before anybody listens
            line.expose(seq, "fail" if seq == 3 else "pass", 101 if seq == 3 else 0)
        until(lambda: line.gate.counters()["pass"] == 4)
        page = board(("top", 0))
        verdicts, alarms = feed(page, "q", at), feed(page, "a", at)
        try:

            def told(parts: int) -> bool:
                verdicts.step()
                alarms.step()
                return len(page.parts()) == parts and not page.glance(time.monotonic_ns()).stale

            until(lambda: told(5), within_s=20)
            glance = page.glance(time.monotonic_ns())
            assert (glance.stale, glance.state, glance.permit) == (False, "RUN", False)  # no gateway is there
            assert (glance.counters.passed, glance.counters.rejected, glance.counters.unexplained) == (4, 1, 0)
            line.expose(6, "pass")
            until(lambda: told(6), within_s=20)
            assert page.parts()[0].exposures[0].camera == "top"
            assert page.glance(time.monotonic_ns()).rate_per_min > 0
            line.gate.detach("killed")
            until(lambda: told(6) and bool(page.alarms()), within_s=20)
            assert page.alarms()[0].severity in ("critical", "state")
        finally:
            verdicts.close()
            alarms.close()


def test_a_feed_without_a_daemon_waits(tmp_path: Path) -> None:
    page = board()
    nobody = feed(page, "q", None)
    nobody.step()
    nobody.close()
    assert page.glance(time.monotonic_ns()).stale


def test_a_hole_of_unknown_length_counts_as_one_event_or_more() -> None:
    page = board()
    listener = feed(page, "q", None)
    for last in (7, None):
        listener._take(Hole("epoch", "q", 3, last, "no longer kept"))
    assert page.glance(time.monotonic_ns()).lost == 6
