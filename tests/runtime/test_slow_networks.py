"""A network that takes too long: once is a picture's trouble, twice within a minute is the process's."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from inspector.neural import limits
from inspector.runtime import vision


def seen(monkeypatch: pytest.MonkeyPatch, ended: list[tuple[float, float] | None], process: Any) -> None:
    """One look of the main thread at the networks, which ended these: (CPU seconds, seconds ago that it began)."""
    found = ended.pop(0)
    now_s = time.monotonic()
    monkeypatch.setattr(limits, "end_older", lambda _: None if found is None else (found[0], now_s - found[1]))
    vision.Vision._end_slow_networks(process)


@pytest.mark.parametrize(
    ("ended", "fails"),
    [
        ([(1.0, 1.0), None, None], False),
        ([(1.0, 1.0), (1.0, 0.8), None], False),  # it ran beside the first one: the same picture
        ([(1.0, 1.0), None, (1.0, 0.0)], True),  # it began after the first one had been ended
        ([(0.1, 1.0), (0.1, 0.0), None], False),  # it did not work: the machine is slow
    ],
)
def test_a_second_one_that_began_anew_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, ended: list[tuple[float, float] | None], fails: bool
) -> None:
    gate = SimpleNamespace(travel_min_ms=1_600)
    process = SimpleNamespace(_settings=SimpleNamespace(gate=gate), _clock=time.monotonic_ns, _slow_ns=None, _failed=None)
    while ended:
        seen(monkeypatch, ended, process)
        time.sleep(0.02)
    assert (process._failed is not None) == fails
