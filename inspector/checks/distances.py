"""The distances that the drawing's side file asks for, in mm: between the middles of holes, and from or to places on edges.

An edge's place is the median of a stretch of it, so that noise and a speck of dust are no distance.

    distances:
      kind: distances
      over_mm: 3.0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from inspector.config import Strict
from inspector.geometry.distances import Span, measured, span
from inspector.records import ConfigError, Finding, View

if TYPE_CHECKING:
    from inspector.geometry.gauge import Gauged
    from inspector.records import Plan

NEEDS_RASTER = False


class Settings(Strict):
    """An edge's place is the median over ± `over_mm` along it; at least `least_seen_ratio` of that, or of a hole's edge, must be seen."""

    over_mm: float = Field(default=3.0, gt=0)
    least_seen_ratio: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Distances:
    """The check for the distances of one template."""

    name: str
    settings: Settings
    spans: tuple[Span, ...]

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """One finding a distance for each view."""
        return [tuple(self._judge(one, view.gauged) for one in self.spans) for view in views]

    def _judge(self, wanted: Span, gauged: Gauged) -> Finding:
        limits = wanted.distance
        value = measured(wanted, gauged, self.settings.over_mm, self.settings.least_seen_ratio)
        if value is None:
            return Finding(self.name, f"{limits.name}.seen", 0.0, 1.0, 1.0, "count", wanted.middle_mm)
        drawn = wanted.drawn_mm
        return Finding(self.name, limits.name, value, drawn + limits.minus_mm, drawn + limits.plus_mm, "mm", wanted.middle_mm)


def build(settings: Settings, name: str, plan: Plan) -> Distances:
    """The check. Raises `ConfigError` E_CFG_TEMPLATE where the recipe has no template, E_CFG_DISTANCES where the side file asks for none,
    E_SIDE_DISTANCE for one that cannot be measured.
    """
    if plan.template is None:
        raise ConfigError("E_CFG_TEMPLATE", "distances are measured against a drawing; the recipe has no template", key=f"{name}.kind")
    if not plan.template.distances:
        text = f"the side file of the drawing {plan.template.name} asks for no distance; list them there under distances:"
        raise ConfigError("E_CFG_DISTANCES", text, key=f"{name}.kind")
    contours = tuple(c for c in plan.template.contours if c.closed and len(c.points_mm) >= 3)
    return Distances(name, settings, tuple(span(one, contours) for one in plan.template.distances))
