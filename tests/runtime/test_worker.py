"""A thread beats with each step, says what it dies of, and can be left when it hangs."""

from __future__ import annotations

import threading
from itertools import count

import pytest

from inspector.runtime.health import stale
from inspector.runtime.worker import Ended, Worker


def test_it_steps_and_beats_until_stopped() -> None:
    ticks, stepped = count(1), threading.Event()
    died: list[str] = []

    def step() -> None:
        stepped.set()
        threading.Event().wait(0.001)

    worker = Worker("w", step, clock=lambda: next(ticks), on_error=lambda name, _: died.append(name))
    before = worker.beat_ns
    worker.start()
    assert stepped.wait(5)
    assert worker.stop(5)
    assert worker.beat_ns > before
    assert (worker.alive, worker.ended, died) == (False, False, [])


def test_an_end_is_no_error_and_stays_fresh() -> None:
    def step() -> None:
        raise Ended

    died: list[str] = []
    worker = Worker("w", step, clock=lambda: 5, on_error=lambda name, _: died.append(name))
    worker.start()
    assert worker.stop(5)
    assert worker.ended
    assert died == []
    assert worker.age_ms(10**15) == 0.0


def test_what_it_dies_of_is_reported_once() -> None:
    died: list[tuple[str, str]] = []

    def step() -> None:
        raise SystemExit("even this")

    worker = Worker("capture-top", step, clock=lambda: 0, on_error=lambda name, error: died.append((name, repr(error))))
    worker.start()
    assert worker.stop(5)
    assert died == [("capture-top", "SystemExit('even this')")]


def test_one_that_hangs_is_seen_and_left() -> None:
    forever = threading.Event()
    worker = Worker("inspect-0", lambda: (forever.wait(), None)[1], clock=lambda: 0, on_error=lambda *_: None)
    worker.start()
    assert not worker.stop(0.01)
    assert stale({"inspect-0": worker.age_ms(4_000_000_000)}) == []
    assert stale({"inspect-0": worker.age_ms(6_000_000_000), "journal": 10.0}) == ["inspect-0 6000 ms"]
    forever.set()
    assert worker.stop(5)


@pytest.mark.parametrize("how", ["raise", "freeze"])
def test_a_fault_can_be_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("INSPECTOR_FAULT", f"{how}:journal:0")
    died: list[str] = []
    for name in ("journal", "arbiter"):
        worker = Worker(name, lambda: None, clock=lambda: 0, on_error=lambda name, _: died.append(name))
        worker.start()
        assert worker.stop(0.2) == (name != "journal" or how == "raise")
    assert died == (["journal"] if how == "raise" else [])
