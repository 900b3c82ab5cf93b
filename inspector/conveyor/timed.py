"""A belt of constant speed without encoder or part sensor: position is time.

```yaml
conveyor: {kind: timed, counts_per_s: 1000}
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from inspector.config import Strict
from inspector.records import Trigger

HAS_SENSOR = False


class Settings(Strict):
    """`counts_per_s` is the resolution that positions are given in; 1000 makes a count a millisecond of belt."""

    counts_per_s: float = Field(default=1000.0, gt=0)


@dataclass(slots=True)
class Timed:
    """The conveyor; see `interfaces.Conveyor`."""

    counts_per_s: float
    start_ns: int | None = None

    def start(self, at_ns: int) -> None:
        """Position 0 is now."""
        self.start_ns = at_ns

    def counts(self, at_ns: int) -> int:
        """Counts run since the start, 0 before it."""
        if self.start_ns is None:
            return 0
        return max(0, int((at_ns - self.start_ns) * self.counts_per_s // 1_000_000_000))

    def triggers(self, after_ns: int, until_ns: int) -> Sequence[Trigger]:
        """None: parts come from elsewhere."""
        return ()


def build(settings: Settings, name: str) -> Timed:
    """A conveyor that has not started."""
    return Timed(settings.counts_per_s)
