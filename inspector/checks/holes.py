"""Diameter and position of every round hole of the drawing, in mm, each from all of its edge.

The position is the distance of the centre from where the drawing has it, with the part laid to its whole outline. Limits come from the
contour's tolerance, unless they are set here.

    holes:
      kind: holes
      position_mm: 0.1
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from inspector.config import Strict
from inspector.records import ConfigError, Finding, View

if TYPE_CHECKING:
    from inspector.geometry.gauge import Gauged, HoleFit
    from inspector.records import Contour, Plan

NEEDS_RASTER = False


class Settings(Strict):
    """`diameter_mm`: largest difference of a diameter, `position_mm`: of a position; None takes the contour's own tolerance.
    At least `least_seen_ratio` of a hole's edge must be seen.
    """

    diameter_mm: float | None = Field(default=None, gt=0)
    position_mm: float | None = Field(default=None, gt=0)
    least_seen_ratio: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Holes:
    """The check for the round holes of one template."""

    name: str
    settings: Settings
    contours: tuple[Contour, ...]

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """Two findings a hole for each view; one where the hole is missing or too little of it is seen."""
        return [self._judge(view.gauged) for view in views]

    def _judge(self, gauged: Gauged) -> tuple[Finding, ...]:
        out: list[Finding] = []
        for fit in gauged.holes:
            contour = self.contours[fit.contour]
            if contour.circle is not None:
                out += self._hole(contour, contour.circle, fit, fit.contour in gauged.missing)
        return tuple(out)

    def _hole(self, contour: Contour, circle: tuple[float, float, float], fit: HoleFit, missing: bool) -> list[Finding]:
        x, y, radius = circle
        if missing:
            return [Finding(self.name, contour.name, 0.0, 1.0, 1.0, "count", (x, y))]
        least = self.settings.least_seen_ratio
        if fit.seen_ratio < least or not math.isfinite(fit.dr_mm):
            return [Finding(self.name, f"{contour.name}.seen", fit.seen_ratio, max(least, 0.01), None, "ratio", (x, y))]
        low, high = -2.0 * contour.outward_mm, -2.0 * contour.inward_mm
        if self.settings.diameter_mm is not None:
            low, high = -self.settings.diameter_mm, self.settings.diameter_mm
        at = (x + fit.dx_mm, y + fit.dy_mm)
        position = self.settings.position_mm or max(contour.outward_mm, -contour.inward_mm)
        return [
            Finding(self.name, f"{contour.name}.diameter", 2.0 * (radius + fit.dr_mm), 2.0 * radius + low, 2.0 * radius + high, "mm", at),
            Finding(self.name, f"{contour.name}.position", math.hypot(fit.dx_mm, fit.dy_mm), None, position, "mm", at),
        ]


def build(settings: Settings, name: str, plan: Plan) -> Holes:
    """The check. Raises `ConfigError` E_CFG_TEMPLATE where the recipe has no template, E_CFG_HOLES where it has no round hole."""
    if plan.template is None:
        raise ConfigError("E_CFG_TEMPLATE", "holes are measured against a drawing; the recipe has no template", key=f"{name}.kind")
    contours = tuple(c for c in plan.template.contours if c.closed and len(c.points_mm) >= 3)
    if not any(c.kind == "hole" and c.circle is not None for c in contours):
        raise ConfigError("E_CFG_HOLES", f"the drawing {plan.template.name} has no round hole", key=f"{name}.kind")
    return Holes(name, settings, contours)
