"""The last 24 hours by the minute, from the journal: a worker reads, and pages ask memory only, however often they are written.

The newest events come first and the past is read backwards, some at a time, so that a page has the last hour soon after its start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from inspector.desk.history import History
from inspector.desk.minutes import KEPT_MINUTES, MINUTE_NS, Minute, Minutes
from inspector.interfaces import Clock
from inspector.records import ConfigError

AT_ONCE = 1_000
EVERY_S, BREATH_S = 0.3, 0.02
OLD_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Told:
    """Minutes, oldest first. `since_ns`: what was before is not counted; None where all of it is. `journal`: that is what they are from."""

    minutes: tuple[tuple[int, Minute], ...]
    since_ns: int | None
    journal: bool


class Tally:
    """What the journal says of each minute; `step` reads a little more of it."""

    def __init__(self, history: History, *, clock: Clock, utc: Callable[[], int]) -> None:
        """`clock` measures how old what was read is, `utc` says what 24 hours ago was."""
        self._history, self._clock, self._utc = history, clock, utc
        self._lock = threading.Lock()
        self._minutes = Minutes()
        self._first = self._beyond = 0  # the events that are counted: [first, beyond)
        self._whole = False
        self._read_ns: int | None = None

    def step(self) -> None:
        """Read some events, and wait a little."""
        try:
            more = self._read()
        except ConfigError:
            more = False
        time.sleep(BREATH_S if more else EVERY_S)

    def _read(self) -> bool:
        """Whether there is more to read."""
        goal, beyond = self._history.span((self._utc() // MINUTE_NS - KEPT_MINUTES + 1) * MINUTE_NS)
        if self._read_ns is None or beyond < self._beyond:  # it begins, or another journal is in its place
            with self._lock:
                self._minutes, self._first, self._beyond = Minutes(), beyond, beyond
        if beyond > self._beyond:
            first, last = self._beyond, min(beyond, self._beyond + AT_ONCE)
        else:
            first, last = max(goal, self._first - AT_ONCE), self._first
        found = self._history.minutes(first, last) if first < last else Minutes()
        with self._lock:
            self._minutes.add(found)
            self._first, self._beyond = min(self._first, first), max(self._beyond, last)
            self._whole, self._read_ns = self._first <= goal, self._clock()
        return self._beyond < beyond or not self._whole

    def last(self, count: int, lane: int | None = None) -> Told | None:
        """The last `count` minutes of one lane or of all; None while the journal cannot be read."""
        with self._lock:
            if self._read_ns is None or self._clock() - self._read_ns > OLD_NS:
                return None
            now, oldest = self._utc(), self._minutes.oldest
            since = None if self._whole else now if oldest is None else (oldest + 1) * MINUTE_NS
            return Told(self._minutes.last(now, count, lane), since, journal=True)
