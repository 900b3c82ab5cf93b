"""A belt with a part sensor that exists only in numbers: whoever builds it with the same settings and starts it at the same moment
sees the same parts. That is how gate, cameras and the PLC of a simulated line, each in its own process, agree on what passed.

Part n of a lane comes every lanes / rate seconds, the lanes evenly one after the other, each a little off by the jitter.

```yaml
conveyor: {kind: simulated, rate_parts_per_s: 10, lanes: [0, 1, 2, 3], counts_per_s: 2000, jitter_ms: 5, seed: 1}
```
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from inspector.config import Strict
from inspector.records import Trigger

NS = 1_000_000_000
FAR = (1 << 63) - 1


class Settings(Strict):
    """`rate_parts_per_s` is of all lanes together. Faults, as shares of the parts: the sensor sees nothing (`missed_ratio`), or sees a
    part twice (`double_ratio`, the second time `double_ms` later). The belt stands still for `stall_s` after `stall_after_s` of running
    (0: never).
    """

    rate_parts_per_s: float = Field(default=10.0, gt=0, le=10_000)
    lanes: tuple[int, ...] = Field(default=(0,), min_length=1, strict=False)
    counts_per_s: float = Field(default=1000.0, gt=0)
    jitter_ms: float = Field(default=0.0, ge=0)
    seed: int = Field(default=0, ge=0)
    missed_ratio: float = Field(default=0.0, ge=0, le=1)
    double_ratio: float = Field(default=0.0, ge=0, le=1)
    double_ms: float = Field(default=8.0, gt=0)
    stall_after_s: float = Field(default=0.0, ge=0)
    stall_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _parts_stay_in_order(self) -> Settings:
        period_ms = 1000 * len(self.lanes) / self.rate_parts_per_s
        moved_ms = 2 * self.jitter_ms + (self.double_ms if self.double_ratio else 0)
        if moved_ms >= period_ms:
            raise ValueError(f"jitter and double edges move parts by {moved_ms:g} ms, but a lane has a part every {period_ms:g} ms")
        if len(set(self.lanes)) != len(self.lanes) or not all(0 <= lane <= 255 for lane in self.lanes):
            raise ValueError("lanes are different numbers from 0 to 255")
        return self


@dataclass(slots=True)
class Simulated:
    """The conveyor; see `interfaces.Conveyor`. `seed` is told to simulated cameras too, so that one number makes the whole line.

    Edges are numbered per lane as they come: `part_seq` counts what the sensor saw, doubles included. With faults that change the
    number of edges, counting starts at the first part, hence `_counted` remembers how far it got.
    """

    settings: Settings
    start_ns: int | None = None
    _edges: dict[int, tuple[int, int]] | None = None

    @property
    def seed(self) -> int:
        """The seed of the whole simulated line."""
        return self.settings.seed

    def start(self, at_ns: int) -> None:
        """Position 0 is now; the first part comes after one period."""
        self.start_ns = at_ns

    def counts(self, at_ns: int) -> int:
        """The encoder: counts run, none while the belt stands still."""
        if self.start_ns is None:
            return 0
        return math.floor(self._run_ns(at_ns - self.start_ns) * self.settings.counts_per_s / NS)

    def triggers(self, after_ns: int, until_ns: int) -> Sequence[Trigger]:
        """The edges in (after_ns, until_ns], by time; also those that are still to come."""
        if self.start_ns is None or until_ns <= after_ns or until_ns <= self.start_ns:
            return ()
        found = [t for lane in range(len(self.settings.lanes)) for t in self._lane(lane, after_ns, until_ns)]
        return sorted(found, key=lambda t: (t.at_ns, t.lane))

    def _lane(self, place: int, after_ns: int, until_ns: int) -> Iterator[Trigger]:
        """The edges of the lane at this place of the list, in order."""
        assert self.start_ns is not None
        s = self.settings
        period_ns = NS * len(s.lanes) / s.rate_parts_per_s
        margin_ns = (s.jitter_ms + s.double_ms) * 1e6
        first = max(1, math.floor((self._run_ns(after_ns - self.start_ns) - margin_ns) / period_ns - place / len(s.lanes)))
        n, seen = first, self._seen_before(place, first)
        while True:
            run_ns = (n + place / len(s.lanes)) * period_ns + (2 * _chance(s.seed, place, n, 0) - 1) * s.jitter_ms * 1e6
            edges = self._edges_of(place, n)
            if self.start_ns + self._wall_ns(run_ns) > until_ns:
                return
            for k in range(edges):
                seen += 1
                at_ns = self.start_ns + self._wall_ns(run_ns + k * s.double_ms * 1e6)
                if after_ns < at_ns <= until_ns:
                    yield Trigger(seen, s.lanes[place], at_ns, self.counts(at_ns))
            n += 1

    def _edges_of(self, place: int, n: int) -> int:
        """How often the sensor fires for part n: once, or by fault never or twice."""
        s = self.settings
        if s.missed_ratio and _chance(s.seed, place, n, 1) < s.missed_ratio:
            return 0
        return 2 if s.double_ratio and _chance(s.seed, place, n, 2) < s.double_ratio else 1

    def _seen_before(self, place: int, first: int) -> int:
        """How many edges parts 1 … first − 1 of a lane made, counted on from the last time that somebody asked."""
        s = self.settings
        if not s.missed_ratio and not s.double_ratio:
            return first - 1
        if self._edges is None:
            self._edges = {}
        n, seen = self._edges.get(place, (1, 0))
        if n > first:
            n, seen = 1, 0
        seen += sum(self._edges_of(place, i) for i in range(n, first))
        self._edges[place] = (first, seen)
        return seen

    def _run_ns(self, wall_ns: float) -> float:
        """Time that the belt has moved, by the time since the start."""
        s = self.settings
        if not s.stall_after_s or wall_ns <= s.stall_after_s * NS:
            return max(0.0, wall_ns)
        return max(s.stall_after_s * NS, wall_ns - s.stall_s * NS)

    def _wall_ns(self, run_ns: float) -> int:
        """The time since the start at which the belt has moved for so long."""
        s = self.settings
        stood = s.stall_s * NS if s.stall_after_s and run_ns > s.stall_after_s * NS else 0.0
        return round(run_ns + stood)


def _chance(seed: int, place: int, n: int, what: int) -> float:
    """A number in [0, 1) that depends on its arguments only (splitmix64, Steele et al. 2014): no state, so any part can be asked for."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03 + n * 0x8CB92BA72F3D8DD7 + what * 0xABC98388FB8FAC03) & mask
    for _ in range(2):
        z = (z + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
    return z / (1 << 64)


def build(settings: Settings, name: str) -> Simulated:
    """A conveyor that has not started."""
    return Simulated(settings)
