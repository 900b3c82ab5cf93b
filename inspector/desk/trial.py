"""Try a picture: a person gives one, chooses a recipe or a model, and sees what it would say. Nothing of it reaches the line.

One picture is tried at a time; the last results are kept in memory under names that nobody can guess, and on no disk.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector import judge, recipe
from inspector.checks import classify, surface
from inspector.config import plugin, settings_of
from inspector.desk.judged import judged
from inspector.desk.overlay import Overlay, overlay
from inspector.desk.recipes import Recipes
from inspector.desk.state import Defect, Part
from inspector.interfaces import Clock
from inspector.neural import model as networks
from inspector.neural.pictures import as_channels, decode
from inspector.outputs import archive
from inspector.records import DeviceError, Frame, Image, Recipe, Stamp

KEPT_RESULTS = 8
WAIT_S = 20.0
TASKS = ("segmentation", "classification")
NO_PART = ("", 0, 0, 0)
"""Epoch, seq, part_seq and lane of what is no part of the line."""
COLOURS = ((80, 80, 255), (60, 180, 255), (255, 160, 60), (120, 220, 80), (230, 90, 220), (220, 220, 60))
"""BGR, one for each class of a mask, in turn."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a picture can be tried with: a recipe, or one of its models. `key` is its number in the list, `text` what a person reads."""

    key: str
    text: str
    recipe: str
    model: Path | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A class with its score, and its share of the picture where the model marks pixels."""

    name: str
    score: float
    threshold: float
    area_px: int | None

    @property
    def counts(self) -> bool:
        """The score reaches the threshold."""
        return self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class Tried:
    """One result: the picture as it was given, and what was said of it. `mask` is a PNG with transparency, `part` a recipe's judgement."""

    token: str
    text: str
    data: bytes
    drawn: Overlay
    part: Part | None
    classes: tuple[Scored, ...]
    mask: bytes | None
    spent_ms: float


class Trial:
    """The choices that the recipes in force give, what was loaded for them, and the last results. Safe from several threads."""

    def __init__(self, recipes: Recipes, *, clock: Clock) -> None:
        self._known, self._clock, self._changes = recipes, clock, recipes.changes
        self._busy, self._lock = threading.Lock(), threading.Lock()
        self._recipes: dict[str, Recipe] = {}
        self._models: dict[Path, networks.Model] = {}
        self._results: OrderedDict[str, Tried] = OrderedDict()

    def choices(self) -> tuple[Choice, ...]:
        """Each recipe, then each of their models that judges a picture on its own."""
        found: dict[str, tuple[str, Path | None]] = {f"recipe {name}": (name, None) for name in self._known.config.recipes}
        for name, settings_of_recipe in self._known.config.recipes.items():
            for kind in settings_of_recipe.checks.values():
                settings = settings_of("checks", kind, plugin("checks", kind.kind).Settings)
                for path in (getattr(settings, key, None) for key in ("model", "classifier")):
                    if isinstance(path, Path) and networks.read_card(path.with_suffix(".yaml")).task in TASKS:
                        found.setdefault(f"model {path.stem}", (name, path))
        return tuple(Choice(str(i), text, *what) for i, (text, what) in enumerate(found.items()))

    def result(self, token: str) -> Tried | None:
        """A result, while it is kept."""
        with self._lock:
            return self._results.get(token)

    def run(self, choice: Choice, data: bytes) -> Tried:
        """Try the picture in the bytes of a file.

        Raises `ConfigError` when it is no picture (E_IMG_…) or the choice cannot be loaded, `DeviceError` when another picture takes long.
        """
        image = decode(data, "the picture")
        if not self._busy.acquire(timeout=WAIT_S):
            raise DeviceError("another picture is being looked at; try again in a moment")
        try:
            found = self._judged(choice, data, image) if choice.model is None else self._predicted(choice, choice.model, data, image)
        finally:
            self._busy.release()
        with self._lock:
            self._results[found.token] = found
            while len(self._results) > KEPT_RESULTS:
                self._results.popitem(last=False)
        return found

    def _judged(self, choice: Choice, data: bytes, image: Image) -> Tried:
        name, cameras = choice.recipe, self._known.config.cameras
        camera = next((c for c in cameras if c.recipe == name), cameras[0])  # a recipe that none begins with is tried as the first would
        if self._changes != self._known.changes:
            self._changes = self._known.changes
            self._recipes.clear()
            self._models.clear()
        if name not in self._recipes:
            self._recipes[name] = recipe.prepare(self._known.config.model_copy(update={"cameras": [camera]}), chosen={camera.id: name})
        ready, began = self._recipes[name], self._clock()
        frame = Frame(Stamp(camera.id, 1, began, None, image.shape), np.ascontiguousarray(image))
        (inspection,) = judge.judge([frame], ready, self._clock)
        stages = tuple((stage, ns / 1e6) for stage, ns in inspection.spent_ns.items())
        part = replace(judged(archive.judgement(inspection, ready)), stages_ms=stages)
        drawn = overlay(part, (image.shape[1], image.shape[0]), *self._known.view(name, camera.id))
        return Tried(_token(), choice.text, data, drawn, part, (), None, (self._clock() - began) / 1e6)

    def _predicted(self, choice: Choice, path: Path, data: bytes, image: Image) -> Tried:
        if path not in self._models:
            self._models[path] = networks.load(path, threads=self._known.config.vision.network_threads)
        model, began = self._models[path], self._clock()
        card, size = model.card, (image.shape[1], image.shape[0])
        if card.task == "classification":
            scores = model.run(classify.fit(image, card)[None])[0][0]
            order = np.argsort(-scores)
            ranked = tuple(Scored(card.classes[i], float(scores[i]), card.threshold(card.classes[i]), None) for i in order)
            drawn = overlay(Part(*NO_PART, verdict=""), size, ())
            return Tried(_token(), choice.text, data, drawn, None, ranked, None, (self._clock() - began) / 1e6)
        ready = np.ascontiguousarray(as_channels(image, card.input.channels))
        everywhere = np.ones(image.shape[:2], np.bool_)
        class_map, score_map = surface.run(ready, model, surface.grid_of(everywhere, card))
        found = [d for d in surface.defects(class_map, score_map, card.classes) if d.score >= card.threshold(d.class_name)]
        boxes = tuple(Defect(d.class_name, d.score, None, tuple(map(float, d.box_px)), None) for d in found)
        scored = []
        for k, name in enumerate(card.classes, 1):
            here = class_map == k
            best = float(score_map[here].max()) / 255 if here.any() else 0.0
            scored.append(Scored(name, best, card.threshold(name), sum(d.area_px for d in found if d.class_name == name)))
        spent_ms = (self._clock() - began) / 1e6
        mask = _mask(class_map, score_map, card)
        drawn = overlay(Part(*NO_PART, verdict="", defects=boxes), size, ())
        return Tried(_token(), choice.text, data, drawn, None, tuple(scored), mask, spent_ms)


def _mask(class_map: NDArray[np.uint8], score_map: NDArray[np.uint8], card: networks.Card) -> bytes:
    """The classes as colours, more opaque where the score is higher: PNG with transparency."""
    painted = np.zeros((*class_map.shape, 4), np.uint8)
    for k in range(1, len(card.classes) + 1):
        here = class_map == k
        painted[here, :3] = COLOURS[(k - 1) % len(COLOURS)]
        painted[here, 3] = np.maximum(64, score_map[here].astype(np.int64) * 200 // 255)
    return cv2.imencode(".png", painted)[1].tobytes()


def _token() -> str:
    return secrets.token_urlsafe(16)
