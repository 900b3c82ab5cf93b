"""The real outline against the drawing: for each contour the signed deviation of largest size, against the contour's tolerance.

Positive is too much material, negative too little. A contour of which too little is seen, or that the picture's border cuts, has
a finding of its own (`outer.seen`), a missing hole one with the count 0, and so has every hole, or piece of material in a hole, that the
drawing does not have: from a diameter of 11 px, or of a 90th of the part's diagonal where that is more, smaller ones by chance.

    outline:
      kind: outline
      least_seen_ratio: 0.7
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from inspector.config import Strict
from inspector.records import ConfigError, Finding, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.geometry.gauge import Gauged
    from inspector.records import Contour, Floats, Plan

NEEDS_RASTER = False


class Settings(Strict):
    """`least_seen_ratio` of each contour must be seen, and all of it must lie in the picture. `run` samples (about one a pixel) are taken
    together by their median, so that noise and a speck of dust are no deviation; None chooses by the noise of the picture. `contours` are
    the names of those that are judged, where not all can be seen (a deep dark hole in a dark part); `extra` says whether what is not in
    the drawing is told.
    """

    least_seen_ratio: float = Field(default=0.7, ge=0, le=1)
    run: int | None = Field(default=None, ge=1, le=101)
    extra: bool = True
    contours: list[str] | None = Field(default=None, min_length=1)


@dataclass(frozen=True, slots=True)
class Outline:
    """The check for the contours of one template."""

    name: str
    settings: Settings
    contours: tuple[Contour, ...]

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """The findings of each view, contour by contour."""
        return [self._judge(view.gauged) for view in views]

    def _judge(self, gauged: Gauged) -> tuple[Finding, ...]:
        out: list[Finding] = []
        run = self.settings.run or chosen_run(gauged.noise_mm / max(gauged.spacing_mm, 1e-9))
        judged = self.settings.contours
        begins = np.searchsorted(gauged.contour, np.arange(len(self.contours) + 1)).tolist()
        for index, contour in enumerate(self.contours):
            if judged is not None and contour.name not in judged:
                continue
            out += self._contour(gauged, slice(begins[index], begins[index + 1]), index, contour, run)
        if self.settings.extra:
            count = {"hole": 0, "material": 0}
            for extra in gauged.extra:
                count[extra.kind] += 1
                feature = f"extra-{extra.kind}-{count[extra.kind]}"
                out.append(Finding(self.name, feature, 1.0, 0.0, 0.0, "count", extra.at_mm))
        return tuple(out)

    def _contour(self, gauged: Gauged, own: slice, index: int, contour: Contour, run: int) -> list[Finding]:
        points, every = gauged.points_mm[own], gauged.deviation_mm[own]
        if index in gauged.missing:
            middle = points.mean(axis=0)
            return [Finding(self.name, contour.name, 0.0, 1.0, 1.0, "count", (float(middle[0]), float(middle[1])))]
        out: list[Finding] = []
        known = np.isfinite(every)
        ratio = np.count_nonzero(known) / max(len(every), 1)
        least = 1.0 if index in gauged.beyond else max(self.settings.least_seen_ratio, 0.01)
        if ratio < least:
            out.append(Finding(self.name, f"{contour.name}.seen", ratio, least, None, "ratio"))
        used = np.flatnonzero(known & gauged.trusted[own])
        if len(used):
            deviations = running_median(every[used], min(run, len(used) | 1))
            worst = worst_of(deviations, contour.inward_mm, contour.outward_mm)
            x, y = points[used[worst]]
            value = float(deviations[worst])
            out.append(Finding(self.name, contour.name, value, contour.inward_mm, contour.outward_mm, "mm", (float(x), float(y))))
        elif not out:
            out.append(Finding(self.name, f"{contour.name}.seen", 0.0, least, None, "ratio"))
        return out


def chosen_run(noise_px: float) -> int:
    """How many samples go together: 5 for a clean back-lit edge (noise below 0.06 px), up to 15 for a textured or noisy one."""
    if not math.isfinite(noise_px):
        return 5
    return 5 + 2 * round(min(max((noise_px - 0.06) * 25.0, 0.0), 5.0))


def running_median(values: Floats, run: int) -> Floats:
    """The median of `run` (odd) neighbours around each value of a closed sequence."""
    half = run // 2
    ring: NDArray[np.float64] = np.concatenate([values[len(values) - half :], values, values[:half]]) if half else values
    if half == 2:
        return _median_of_five(*(ring[i : i + len(values)] for i in range(5)))
    windows = np.lib.stride_tricks.sliding_window_view(ring, 2 * half + 1)
    return np.ascontiguousarray(np.partition(windows, half, axis=1)[:, half])


def _median_of_five(a: Floats, b: Floats, c: Floats, d: Floats, e: Floats) -> Floats:
    """By ten comparisons of whole columns: a quarter of the time of parting each five for 500 values, a tenth for 4,000."""
    a, b = np.minimum(a, b), np.maximum(a, b)
    c, d = np.minimum(c, d), np.maximum(c, d)
    low, high = np.maximum(a, c), np.minimum(b, d)  # neither the least nor the most of four: the median is one of them, or e
    return np.asarray(np.maximum(np.minimum(low, high), np.minimum(np.maximum(low, high), e)), np.float64)


def worst_of(deviations: Floats, inward_mm: float, outward_mm: float) -> int:
    """The index of the largest deviation that is out of tolerance; when all are within, of the largest."""
    beyond = np.maximum(deviations - outward_mm, inward_mm - deviations)
    worst = int(beyond.argmax())
    return worst if beyond[worst] > 0 else int(np.abs(deviations).argmax())


def build(settings: Settings, name: str, plan: Plan) -> Outline:
    """The check. Raises `ConfigError` E_CFG_TEMPLATE where the recipe has no template, E_CFG_CONTOUR for a contour that it has not."""
    if plan.template is None:
        raise ConfigError("E_CFG_TEMPLATE", "the outline is measured against a drawing; the recipe has no template", key=f"{name}.kind")
    contours = tuple(c for c in plan.template.contours if c.closed and len(c.points_mm) >= 3)
    unknown = sorted(set(settings.contours or ()) - {c.name for c in contours})
    if unknown:
        known = ", ".join(c.name for c in contours)
        raise ConfigError("E_CFG_CONTOUR", f"{', '.join(unknown)}; the drawing has {known}", key=f"{name}.contours")
    return Outline(name, settings, contours)
