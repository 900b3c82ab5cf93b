# mypy: ignore-errors
"""A belt whose parts come ten times as often for the first second of every `every_s`, but not of the first."""

import math

from pydantic import Field

from inspector.config import Strict
from inspector.records import Trigger

NS = 1_000_000_000


class Settings(Strict):
    rate_parts_per_s: float = 10.0
    lanes: tuple[int, ...] = Field(default=(0,), strict=False)
    every_s: float = 12.0


class Bursting:
    def __init__(self, settings):
        self.settings, self.start_ns = settings, None

    def start(self, at_ns):
        self.start_ns = at_ns

    def counts(self, at_ns):
        return 0 if self.start_ns is None else (at_ns - self.start_ns) // 1_000_000

    def _number(self, at_ns):
        """How many parts have come by then, as a real number."""
        s = self.settings
        spent_s = max(0.0, (at_ns - self.start_ns) / NS)
        whole = math.floor(spent_s / s.every_s)
        burst_s = max(0, whole - 1) + (min(1.0, spent_s - whole * s.every_s) if whole else 0.0)
        return s.rate_parts_per_s * (spent_s + 9 * burst_s)

    def triggers(self, after_ns, until_ns):
        if self.start_ns is None or until_ns <= max(after_ns, self.start_ns):
            return ()
        after_ns = max(after_ns, self.start_ns)
        first, last = math.floor(self._number(after_ns)) + 1, math.floor(self._number(until_ns))
        found = []
        for n in range(first, last + 1):
            low, high = after_ns, until_ns
            while high - low > 1000:
                middle = (low + high) // 2
                low, high = (middle, high) if self._number(middle) < n else (low, middle)
            found += [Trigger(n, lane, high, self.counts(high)) for lane in self.settings.lanes]
        return found


def build(settings, name):
    return Bursting(settings)
