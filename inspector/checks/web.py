"""Blemishes of a plain surface, such as an endless web: what is darker or brighter than its surroundings across the web, by area.

The surroundings of a pixel are its column: light that falls off towards the edges, and pixels of unequal sight, are no blemish. What
touches is one blemish. On a web (`Stamp.web`) a blemish that crosses the border of two lengths is in both their pictures, whole as far
as the overlap goes: both lengths are judged by all of it, and the one that it begins in has it as evidence, so that it is counted once.

Findings: the largest blemish with its area (0.0 where there is none), then each further one, all against the limit.

    spots:
      kind: web
      least_grey: 25
      limit_mm2: 0.5
      mm_per_px: 0.1        # only where the camera is no line-scan camera
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from pydantic import Field

from inspector.config import Strict
from inspector.records import Evidence, Finding, Image, View, Web

if TYPE_CHECKING:
    from inspector.records import Plan

NEEDS_RASTER = False
MOST_BLEMISHES = 16
PROFILE_ROWS = 64
"""So many rows, evenly spread, say what a column looks like: their median is not moved by blemishes."""


class Settings(Strict):
    """A pixel that is `least_grey` levels off its column belongs to a blemish, which counts from `least_mm2` on."""

    least_grey: int = Field(default=25, ge=1, le=255)
    least_mm2: float = Field(default=0.05, ge=0)
    limit_mm2: float = Field(default=0.0, ge=0)
    side: Literal["both", "dark", "bright"] = "both"
    mm_per_px: float | None = Field(default=None, gt=0)


def needs_web(settings: Settings) -> str:
    """What to set for a camera that does not say how large its pixels are on the web; empty where it is set."""
    return "" if settings.mm_per_px else "mm_per_px, the size of a pixel"


@dataclass(frozen=True, slots=True)
class Blemish:
    """Its area, its box (x, y, w, h) in px, and how far it is off its column at most, in grey levels."""

    area_mm2: float
    box_px: tuple[int, int, int, int]
    grey: int


@dataclass(frozen=True, slots=True)
class WebCheck:
    """The check; it has nothing but its settings."""

    name: str
    settings: Settings

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """The findings of each view, in order."""
        return [self._judge(view) for view in views]

    def _judge(self, view: View) -> tuple[Finding, ...]:
        web = view.frame.stamp.web
        if web is None:
            if self.settings.mm_per_px is None:
                raise ValueError(f"{self.name}: mm_per_px must be set for a camera that is no line-scan camera")
            web = Web(0.0, self.settings.mm_per_px, self.settings.mm_per_px, 0, view.image.shape[0])
            found = list(self._blemishes(view.image, web))
        else:
            found = [b for b in self._blemishes(view.image, web) if b.box_px[1] < web.end_row and b.box_px[1] + b.box_px[3] > web.first_row]
        found.sort(key=lambda blemish: (-blemish.area_mm2, blemish.box_px))
        if not found:
            return (Finding(self.name, "largest", 0.0, None, self.settings.limit_mm2, "mm2"),)
        return tuple(self._finding(number, blemish, web) for number, blemish in enumerate(found[:MOST_BLEMISHES]))

    def _finding(self, number: int, blemish: Blemish, web: Web) -> Finding:
        x, y, width, height = blemish.box_px
        box = (float(x), float(y), float(width), float(height))
        evidence = Evidence("blemish", blemish.grey / 255.0, self.settings.least_grey / 255.0, box, blemish.area_mm2)
        feature = "largest" if number == 0 else f"blemish-{number + 1}"
        at_mm = web.place(x + (width - 1) / 2, y + (height - 1) / 2)
        begins_before = y < web.first_row
        return Finding(
            self.name, feature, blemish.area_mm2, None, self.settings.limit_mm2, "mm2", at_mm, None if begins_before else evidence
        )

    def _blemishes(self, image: Image, web: Web) -> Iterator[Blemish]:
        grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        rows = grey[:: max(1, grey.shape[0] // PROFILE_ROWS)]
        profile = np.partition(rows, len(rows) // 2, axis=0)[len(rows) // 2]
        column = np.broadcast_to(profile, grey.shape)
        if self.settings.side == "both":
            off = cv2.absdiff(grey, column)
        else:
            off = cv2.subtract(grey, column) if self.settings.side == "bright" else cv2.subtract(column, grey)
        _, mask = cv2.threshold(off, self.settings.least_grey - 1, 1, cv2.THRESH_BINARY)
        left, top, width, height = cv2.boundingRect(mask)
        if not width:
            return
        part = mask[top : top + height, left : left + width]
        _, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        px_mm2 = web.mm_per_row * web.mm_per_column
        for label in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] * px_mm2 >= self.settings.least_mm2):
            if label == 0:
                continue
            x, y, w, h, area = (int(v) for v in stats[label])
            mine = labels[y : y + h, x : x + w] == label
            most = int(off[top + y : top + y + h, left + x : left + x + w][mine].max())
            yield Blemish(area * px_mm2, (left + x, top + y, w, h), most)


def build(settings: Settings, name: str, plan: Plan) -> WebCheck:
    """A check for plain surfaces."""
    return WebCheck(name, settings)
