"""One class for the whole picture, or for the part on the template's raster where there is one.

One finding: the sum of the scores of the accepted classes against `least_score`; its feature is the class that the network says.

    classify:
      kind: classify
      model: models/steel.onnx
      accept: [red_iron]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydantic import Field

from inspector.config import Strict
from inspector.neural import model as networks
from inspector.neural.pictures import as_channels
from inspector.records import ConfigError, Evidence, Finding, Image, View

if TYPE_CHECKING:
    from inspector.records import Plan

NEEDS_RASTER = True


class Settings(Strict):
    """`accept`: the classes of a good part."""

    model: Path
    accept: list[str] = Field(min_length=1)
    least_score: float = Field(default=0.5, ge=0, le=1)
    threads: int | None = Field(default=None, ge=1, le=64)


@dataclass(frozen=True, slots=True)
class Classify:
    """The check; `accepted` are the indices of the accepted classes."""

    name: str
    least_score: float
    model: networks.Model
    accepted: tuple[int, ...]

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """(name, sha256) of the network, for the recipe."""
        return (self.model.name_and_hash,)

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """One finding for each view, in order."""
        return [self._judge(view) for view in views]

    def _judge(self, view: View) -> tuple[Finding, ...]:
        card = self.model.card
        scores = self.model.run(fit(view.image, card)[None])[0][0]
        value = float(scores[list(self.accepted)].sum())
        best = int(np.nan_to_num(scores, nan=-1.0).argmax())
        height, width = view.frame.image.shape[:2]
        evidence = None
        if not value >= self.least_score:
            evidence = Evidence(card.classes[best], float(scores[best]), self.least_score, (0.0, 0.0, float(width), float(height)))
        return (Finding(self.name, card.classes[best], value, self.least_score, None, "ratio", None, evidence),)


def fit(image: Image, card: networks.Card) -> Image:
    """The picture (H, W[, 3]) in the size and channels of the model's input: uint8 (h, w, C), C-contiguous."""
    size = (card.input.width, card.input.height)
    image = as_channels(image, card.input.channels)
    if image.shape[1::-1] != size:
        smaller = image.shape[1] > size[0] or image.shape[0] > size[1]
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(image).reshape(size[1], size[0], card.input.channels)


def build(settings: Settings, name: str, plan: Plan) -> Classify:
    """Load the network. Raises `ConfigError`: E_MODEL_*, E_CFG_CLASS where an accepted class is none of the model's."""
    load = plan.load_model or networks.load
    network = load(settings.model, threads=settings.threads, task="classification")
    unknown = sorted(set(settings.accept) - set(network.card.classes))
    if unknown:
        raise ConfigError("E_CFG_CLASS", f"{unknown}; the model knows {network.card.classes}", key=f"{name}.accept")
    accepted = tuple(network.card.classes.index(c) for c in settings.accept)
    return Classify(name, settings.least_score, network, accepted)
