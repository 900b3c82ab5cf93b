"""Diameter of every round hole of the drawing, width and length of every slot, and the position of both, in mm, from all of the edge.

A slot is any rectangular hole, with sharp corners, rounded ones or half circles for ends. The position is the distance of the centre
from where the drawing has it, with the part laid to its whole outline, or to the datum that the side file names. Limits come from the
contour's tolerance, unless they are set here.

    holes:
      kind: holes
      position_mm: 0.1
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from inspector.config import Strict
from inspector.geometry.slots import Slot, fit, slot_of
from inspector.records import ConfigError, Finding, View

if TYPE_CHECKING:
    from inspector.geometry.gauge import Gauged, HoleFit
    from inspector.records import Contour, Plan

NEEDS_RASTER = False


class Settings(Strict):
    """`diameter_mm`: largest difference of a diameter, `width_mm`: of a slot's width and length, `position_mm`: of a position; None takes
    the contour's own tolerance. At least `least_seen_ratio` of a hole's edge must be seen.
    """

    diameter_mm: float | None = Field(default=None, gt=0)
    width_mm: float | None = Field(default=None, gt=0)
    position_mm: float | None = Field(default=None, gt=0)
    least_seen_ratio: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Holes:
    """The check for the round holes and slots of one template; `shapes` are the slots by the indices of their contours."""

    name: str
    settings: Settings
    contours: tuple[Contour, ...]
    shapes: Mapping[int, Slot]

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """Two findings a round hole and three a slot for each view; one where it is missing or too little of it is seen."""
        return [self._judge(view.gauged) for view in views]

    def _judge(self, gauged: Gauged) -> tuple[Finding, ...]:
        out: list[Finding] = []
        for seen in gauged.holes:
            contour = self.contours[seen.contour]
            slot = self.shapes.get(seen.contour)
            place = contour.circle[:2] if contour.circle is not None else slot.centre_mm if slot is not None else None
            if place is None:
                continue
            if seen.contour in gauged.missing:
                out.append(Finding(self.name, contour.name, 0.0, 1.0, 1.0, "count", place))
            elif seen.seen_ratio < self.settings.least_seen_ratio:
                out.append(self._unseen(contour, seen.seen_ratio, place))
            elif slot is not None:
                out += self._slot(contour, slot, gauged, seen)
            elif contour.circle is not None:
                out += self._round(contour, contour.circle, seen)
        return tuple(out)

    def _unseen(self, contour: Contour, ratio: float, place: tuple[float, float]) -> Finding:
        return Finding(self.name, f"{contour.name}.seen", ratio, max(self.settings.least_seen_ratio, 0.01), None, "ratio", place)

    def _round(self, contour: Contour, circle: tuple[float, float, float], seen: HoleFit) -> list[Finding]:
        x, y, radius = circle
        if not math.isfinite(seen.dr_mm):
            return [self._unseen(contour, 0.0, (x, y))]
        return [
            self._size(contour, "diameter", 2.0 * radius, 2.0 * seen.dr_mm, self.settings.diameter_mm, (x + seen.dx_mm, y + seen.dy_mm)),
            self._position(contour, (x, y), seen.dx_mm, seen.dy_mm),
        ]

    def _slot(self, contour: Contour, slot: Slot, gauged: Gauged, seen: HoleFit) -> list[Finding]:
        used = np.flatnonzero((gauged.contour == seen.contour) & gauged.seen & gauged.trusted)
        found = fit(slot, gauged.points_mm[used], gauged.deviation_mm[used])
        if found is None:
            return [self._unseen(contour, 0.0, slot.centre_mm)]
        at = (slot.centre_mm[0] + found.dx_mm, slot.centre_mm[1] + found.dy_mm)
        limit = self.settings.width_mm
        return [
            self._size(contour, "width", slot.width_mm, found.width_mm - slot.width_mm, limit, at),
            self._size(contour, "length", slot.length_mm, found.length_mm - slot.length_mm, limit, at),
            self._position(contour, slot.centre_mm, found.dx_mm, found.dy_mm),
        ]

    def _size(self, contour: Contour, what: str, drawn: float, more: float, limit: float | None, at: tuple[float, float]) -> Finding:
        low, high = (-2.0 * contour.outward_mm, -2.0 * contour.inward_mm) if limit is None else (-limit, limit)
        return Finding(self.name, f"{contour.name}.{what}", drawn + more, drawn + low, drawn + high, "mm", at)

    def _position(self, contour: Contour, drawn: tuple[float, float], dx_mm: float, dy_mm: float) -> Finding:
        limit = self.settings.position_mm or max(contour.outward_mm, -contour.inward_mm)
        at = (drawn[0] + dx_mm, drawn[1] + dy_mm)
        return Finding(self.name, f"{contour.name}.position", math.hypot(dx_mm, dy_mm), None, limit, "mm", at)


def shapes_of(contours: Sequence[Contour]) -> dict[int, Slot]:
    """The slots among the holes, by the indices of their contours."""
    found = {i: slot_of(c.points_mm) for i, c in enumerate(contours) if c.kind == "hole" and c.circle is None}
    return {i: slot for i, slot in found.items() if slot is not None}


def build(settings: Settings, name: str, plan: Plan) -> Holes:
    """The check. Raises `ConfigError` E_CFG_TEMPLATE where the recipe has no template, E_CFG_HOLES where it has no round hole or slot."""
    if plan.template is None:
        raise ConfigError("E_CFG_TEMPLATE", "holes are measured against a drawing; the recipe has no template", key=f"{name}.kind")
    contours = tuple(c for c in plan.template.contours if c.closed and len(c.points_mm) >= 3)
    shapes = shapes_of(contours)
    if not shapes and not any(c.kind == "hole" and c.circle is not None for c in contours):
        raise ConfigError("E_CFG_HOLES", f"the drawing {plan.template.name} has no round hole and no slot", key=f"{name}.kind")
    return Holes(name, settings, contours, shapes)
