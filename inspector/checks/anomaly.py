"""How far the picture is from those of good parts: a network that has seen nothing else says it place by place.

The whole picture, or the part on the template's raster, is brought to the size of the network's input. One finding: the highest score in
the drawing's zones (everywhere without a drawing) against the card's threshold, which good parts that were held out have set: of further
good parts at most the card's `alpha` are rejected. `limit` stands for the threshold where a line is to be stricter or milder. Scores are
standard deviations of what good parts give, so that they compare between models.

    strange:
      kind: anomaly
      model: models/plate.onnx
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inspector.checks import surface
from inspector.checks.classify import fit
from inspector.config import Strict
from inspector.neural import model as networks
from inspector.records import Evidence, Finding, Image, View

if TYPE_CHECKING:
    from inspector.records import Plan

NEEDS_RASTER = True
CLASS = "anomaly"


class Settings(Strict):
    """`limit` overrides the card's threshold. So near a contour as `edge_mm` nothing is judged (None: 3 px)."""

    model: Path
    limit: float | None = None
    edge_mm: float | None = Field(default=None, ge=0)
    threads: int | None = Field(default=None, ge=1, le=64)


@dataclass(frozen=True, slots=True)
class Anomaly:
    """The check; `judged` (H, W) are the places of the raster that count."""

    name: str
    limit: float
    model: networks.Model
    judged: NDArray[np.bool_] | None

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """(name, sha256) of the network, for the recipe."""
        return (self.model.name_and_hash,)

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """One finding for each view, in order."""
        return [self._judge(view) for view in views]

    def _judge(self, view: View) -> tuple[Finding, ...]:
        scores = score_map(view.image, self.model)
        value = score_of(scores, self.judged)
        places = strange_places(scores, self.limit, view.image.shape[:2], self.judged)
        if not places:
            return (Finding(self.name, CLASS, value, None, self.limit, "sigma"),)
        box, at_mm = surface.in_picture(places[0].box_px, places[0].at_px, view)
        return (Finding(self.name, CLASS, value, None, self.limit, "sigma", at_mm, Evidence(CLASS, value, self.limit, box)),)


def score_map(image: Image, model: networks.Model) -> NDArray[np.float32]:
    """The scores (h, w) of a picture (H, W[, 3]) on the network's coarse grid, which covers all of it."""
    return np.asarray(model.run(fit(image, model.card)[None])[0][0], np.float32)


def score_of(scores: NDArray[np.float32], judged: NDArray[np.bool_] | None = None) -> float:
    """The highest score, of the places that count; NaN where one is not a number, so that nobody takes it for good."""
    counted = scores if judged is None else scores[_cells(judged, scores.shape)]
    return float(counted.max()) if counted.size else 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """What touches above the limit: its box (x, y, w, h) and where its score is highest (x, y), in px of the picture."""

    score: float
    box_px: tuple[int, int, int, int]
    at_px: tuple[int, int]


def strange_places(
    scores: NDArray[np.float32], limit: float, shape: tuple[int, ...], judged: NDArray[np.bool_] | None = None
) -> list[Place]:
    """What stands out of a picture of `shape` (H, W), strangest first."""
    above = scores > limit
    if judged is not None:
        above &= _cells(judged, scores.shape)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    across, down = shape[1] / scores.shape[1], shape[0] / scores.shape[0]
    found = []
    for label in range(1, count):
        x, y, w, h = (int(v) for v in stats[label, :4])
        mine = np.where(labels == label, scores, -np.inf)
        row, column = np.unravel_index(int(mine.argmax()), mine.shape)
        box = (int(x * across), int(y * down), max(1, round(w * across)), max(1, round(h * down)))
        found.append(Place(float(mine.max()), box, (int((column + 0.5) * across), int((row + 0.5) * down))))
    return sorted(found, key=lambda place: -place.score)


def _cells(judged: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The cells of a grid (h, w) of which at least half counts."""
    share = cv2.resize(judged.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= 0.5, np.bool_)


def build(settings: Settings, name: str, plan: Plan) -> Anomaly:
    """Load the network. Raises `ConfigError`: E_MODEL_*, E_CFG_ZONE."""
    load = plan.load_model or networks.load
    network = load(settings.model, threads=settings.threads, task="anomaly")
    judged = surface.judged_of(plan.template, settings.edge_mm, name)
    return Anomaly(name, network.card.threshold(CLASS) if settings.limit is None else settings.limit, network, judged)
