"""What happened in each minute: counts by lane, and why parts were rejected. Bounded; who uses it from several threads locks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

MINUTE_NS = 60_000_000_000
KEPT_MINUTES = 24 * 60
MOST_LABELS_PER_MINUTE = 64
OTHER = "other"

Feature = tuple[int, str, str]
"""What can fail: (lane, recipe, name). Two drawings may have a feature of the same name."""
Label = TypeVar("Label", bound=Hashable)


@dataclass(slots=True)
class Minute:
    """What happened in one minute of UTC; `reasons` and `features` count why parts were rejected and which of their features failed."""

    passed: int = 0
    rejected: int = 0
    not_inspected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    features: Counter[Feature] = field(default_factory=Counter)

    def add(self, other: Minute) -> None:
        """Count what the other has counted."""
        self.passed += other.passed
        self.rejected += other.rejected
        self.not_inspected += other.not_inspected
        self.reasons.update(other.reasons)
        self.features.update(other.features)


class Minutes:
    """The last `KEPT_MINUTES` minutes that anything is known of, by their number since 1970 and by lane."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, Minute]] = {}

    @property
    def oldest(self) -> int | None:
        """The number of the first minute that is kept."""
        return min(self._known, default=None)

    def of(self, minute: int, lane: int) -> Minute:
        """To be counted in."""
        lanes = self._known.get(minute)
        if lanes is None:
            lanes = self._known[minute] = {}
            if len(self._known) > KEPT_MINUTES:
                del self._known[min(self._known)]
        return lanes.setdefault(lane, Minute())

    def why(self, minute: int, lane: int, reason: str, recipe: str, failing: Iterable[str]) -> None:
        """Why a part was rejected, and which of its features failed."""
        known = self.of(minute, lane)
        _tally(known.reasons, reason, OTHER)
        for name in failing:
            _tally(known.features, (lane, recipe, name), (lane, "", OTHER))

    def add(self, other: Minutes) -> None:
        """Count what the others have counted."""
        for minute, lanes in other._known.items():
            for lane, counted in lanes.items():
                self.of(minute, lane).add(counted)

    def last(self, now_ns: int, count: int, lane: int | None = None) -> tuple[tuple[int, Minute], ...]:
        """The last `count` minutes up to now, oldest first, silent ones included: (minute's number, a copy), of one lane or of all."""
        now = now_ns // MINUTE_NS
        return tuple((minute, self._sum(minute, lane)) for minute in range(now - count + 1, now + 1))

    def _sum(self, minute: int, lane: int | None) -> Minute:
        whole = Minute()
        for of, counted in self._known.get(minute, {}).items():
            if lane in (None, of):
                whole.add(counted)
        return whole


def _tally(counter: Counter[Label], label: Label, other: Label) -> None:
    """Count; what would make a minute remember too many labels is counted as `other`."""
    counter[label if label in counter or len(counter) < MOST_LABELS_PER_MINUTE else other] += 1
