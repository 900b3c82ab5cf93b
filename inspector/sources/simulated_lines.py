"""A line camera over an endless web that exists in numbers, with known truth: it exposes at its own rate whatever the web does.

The web's speed swings about its mean, the encoder trembles, blocks of lines get lost; what is on the web (its grain, its defects) depends
on the seed and the place only. Each picture is a block of lines, stamped with the encoder's counts at its first line; `linescan` stacks
them. The truth is written as the web comes by, one JSON object a line: `x_mm`, `y_mm` (along the web, the middle), `width_mm`, `length_mm`.

    source:
      kind: simulated_lines
      width_px: 1024
      mm_per_px: 0.2
      mm_per_count: 0.05
      line_hz: 5000
      speed_mm_s: 800
      defects_per_m: 3
      truth: ${INSPECTOR_TRUTH:-../state}/web.jsonl
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from inspector.config import Strict
from inspector.interfaces import Clock, Conveyor, EndOfPictures
from inspector.records import Stamp
from inspector.sources._truth import Truth

if TYPE_CHECKING:
    from inspector.records import Bytes1D, Image

GRAIN_ROWS = 509
MEAN_GREY, GRAIN_GREY, DEFECT_GREY = 150, 4.0, 60


class Settings(Strict):
    """The speed is `speed_mm_s` · (1 ± `speed_swing_ratio`), one swing in `swing_s`. The encoder is off by up to `jitter_counts`.

    `lost_ratio` of the blocks never arrive. The web is `end_mm` long, None: endless. `fast`: as fast as the lines are taken.
    """

    width_px: int = Field(default=1024, ge=16, le=16384)
    mm_per_px: float = Field(default=0.2, gt=0)
    mm_per_count: float = Field(default=0.05, gt=0)
    line_hz: float = Field(default=5000.0, gt=0, le=200_000)
    lines_per_block: int = Field(default=32, ge=1, le=4096)
    speed_mm_s: float = Field(default=800.0, gt=0)
    speed_swing_ratio: float = Field(default=0.0, ge=0, lt=1)
    swing_s: float = Field(default=5.0, gt=0)
    jitter_counts: float = Field(default=0.0, ge=0)
    lost_ratio: float = Field(default=0.0, ge=0, le=1)
    defects_per_m: float = Field(default=0.0, ge=0, le=100)
    defect_mm: tuple[float, float] = Field(default=(1.0, 6.0), strict=False)
    seed: int = Field(default=1, ge=0)
    end_mm: float | None = Field(default=None, gt=0)
    fast: bool = False
    truth: Path | None = None


class SimulatedLines:
    """The camera; see `interfaces.Source`."""

    def __init__(self, settings: Settings, name: str, clock: Clock) -> None:
        self._settings, self._name, self._clock = settings, name, clock
        self.max_bytes = settings.width_px * settings.lines_per_block
        rng = np.random.default_rng([settings.seed, 0])
        across = MEAN_GREY * (1 - 0.2 * np.linspace(-1, 1, settings.width_px) ** 2)  # less light towards the edges
        grain = across + GRAIN_GREY * rng.standard_normal((GRAIN_ROWS, settings.width_px))
        self._grain = grain.clip(0, 255).astype(np.uint8)
        self._block = 0
        self._began_ns: int | None = None
        self._told_m = -1
        self._truth = None if settings.truth is None else Truth(settings.truth)

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The next block of lines, when its last one is exposed; exposures are numbered by block."""
        s = self._settings
        now_ns = self._clock()
        if self._began_ns is None:
            self._began_ns = now_ns
        block_s = s.lines_per_block / s.line_hz
        while s.lost_ratio and np.random.default_rng([s.seed, 1, self._block]).random() < s.lost_ratio:
            self._block += 1
        begins_s = self._block * block_s
        if s.end_mm is not None and self.place_mm(begins_s) >= s.end_mm:
            raise EndOfPictures
        if not s.fast:
            wait_s = (self._began_ns + round((begins_s + block_s) * 1e9) - now_ns) / 1e9
            if wait_s > 0:
                time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        self._block += 1
        self._expose(into[: self.max_bytes].reshape(s.lines_per_block, s.width_px), begins_s)
        at_ns = self._clock() if s.fast else self._began_ns + round(begins_s * 1e9)
        jitter = s.jitter_counts * (2 * np.random.default_rng([s.seed, 2, self._block]).random() - 1) if s.jitter_counts else 0.0
        counts = math.floor(self.place_mm(begins_s) / s.mm_per_count + jitter)
        return Stamp(self._name, self._block, at_ns, counts, (s.lines_per_block, s.width_px))

    def place_mm(self, at_s: float) -> float:
        """How far the web has come: the integral of its speed."""
        s = self._settings
        omega = 2 * math.pi / s.swing_s
        return s.speed_mm_s * (at_s + s.speed_swing_ratio * (1 - math.cos(omega * at_s)) / omega)

    def _expose(self, lines: Image, begins_s: float) -> None:
        """Each line sees what is under it in the middle of its exposure."""
        s = self._settings
        first_mm, end_mm = (self.place_mm(begins_s + n * s.lines_per_block / s.line_hz) for n in (0, 1))
        places_mm = first_mm + (np.arange(s.lines_per_block) + 0.5) * (end_mm - first_mm) / s.lines_per_block
        np.take(self._grain, (places_mm / s.mm_per_px).astype(np.int64) % GRAIN_ROWS, axis=0, out=lines, mode="clip")
        reach_mm = s.defect_mm[1] / 2
        for metre in range(int((first_mm - reach_mm) // 1000), int((end_mm + reach_mm) // 1000) + 1):
            self._tell(metre)
            for x_mm, y_mm, width_mm, length_mm in self.defects(metre):
                if abs(y_mm - (first_mm + end_mm) / 2) > (length_mm + end_mm - first_mm) / 2:
                    continue
                columns = slice(round((x_mm - width_mm / 2) / s.mm_per_px), round((x_mm + width_mm / 2) / s.mm_per_px))
                lines[np.abs(places_mm - y_mm) <= length_mm / 2, columns] -= DEFECT_GREY

    def defects(self, metre: int) -> list[tuple[float, float, float, float]]:
        """(x_mm, y_mm, width_mm, length_mm) of the rectangular defects with their middle on this metre, none in another's way."""
        s = self._settings
        rng = np.random.default_rng([s.seed, 3, max(0, metre)])
        number = 0 if metre < 0 else int(rng.poisson(s.defects_per_m))
        low, high = s.defect_mm
        slots = np.sort(rng.choice(max(1, int(1000 // (3 * high))), size=min(number, int(1000 // (3 * high))), replace=False))
        found = []
        for slot in slots:
            width_mm, length_mm = rng.uniform(low, high, 2)
            x_mm = float(rng.uniform(width_mm, max(width_mm * 1.01, s.width_px * s.mm_per_px - width_mm)))
            found.append((x_mm, 1000.0 * metre + (slot + rng.uniform(0.34, 0.66)) * 3 * high, float(width_mm), float(length_mm)))
        return found

    def _tell(self, metre: int) -> None:
        if self._truth is None or metre <= self._told_m:
            return
        self._told_m = metre
        for defect in self.defects(metre):
            self._truth.tell(dict(zip(("x_mm", "y_mm", "width_mm", "length_mm"), defect, strict=True)))

    def close(self) -> None:
        """Close the truth."""
        if self._truth is not None:
            self._truth.close()


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> SimulatedLines:
    """A line camera whose web begins with the first reading."""
    return SimulatedLines(settings, name, clock)


def line_shape(settings: Settings) -> tuple[int, ...]:
    """(W,) of a line."""
    return (settings.width_px,)
