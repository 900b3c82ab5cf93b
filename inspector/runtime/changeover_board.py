"""Which recipe judges which exposure. Pure but for its lock: what changes is assigned whole, and an exposure asks once.

An exposure is judged by the recipe that was in force when it was made, however long it waits. Cameras that share a lane judge a part by
one recipe: whichever of them is judged first settles it for the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from inspector.records import Decision, Inspection, Recipe, Stamp

REMEMBERED_NS = 20 * 10**9
PARTS_REMEMBERED = 64


class _Turn(NamedTuple):
    """A recipe and the time (monotonic) from which on it is in force."""

    from_ns: int
    recipe: Recipe


@dataclass(slots=True)
class _Part:
    number: int
    at_counts: int
    recipe: Recipe
    cameras: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Watch:
    """The first pictures of these cameras after a changeover: `left` are still to come, `most` may be rejects, `rejects` were."""

    digest: str
    cameras: frozenset[str]
    left: int
    most: int
    rejects: int = 0


class Board:
    """The recipe in force, and those before it for the exposures that still wait. `lanes` names the lane of each camera."""

    def __init__(self, recipe: Recipe, lanes: Mapping[str, int] | None = None, window_counts: int = 0) -> None:
        lanes = lanes or {}
        shared = [lane for lane in set(lanes.values()) if list(lanes.values()).count(lane) > 1]
        self._lanes = {camera: lane for camera, lane in lanes.items() if lane in shared}
        self._near_counts = 2 * window_counts
        self._turns: tuple[_Turn, ...] = (_Turn(0, recipe),)
        self._parts: dict[int, deque[_Part]] = {lane: deque(maxlen=PARTS_REMEMBERED) for lane in shared}
        self._number = 0
        self._watch: Watch | None = None
        self._lock = threading.Lock()

    @property
    def recipe(self) -> Recipe:
        """The recipe in force."""
        return self._turns[-1].recipe

    def switch(self, recipe: Recipe, from_ns: int, watch: Watch | None = None) -> None:
        """Exposures made from this moment on are judged by this recipe."""
        recent = [turn for turn in self._turns[:-1] if turn.from_ns > from_ns - REMEMBERED_NS]
        with self._lock:
            self._turns = (*recent, self._turns[-1], _Turn(from_ns, recipe))
            self._watch = watch

    def of(self, stamp: Stamp) -> tuple[Recipe, int | None]:
        """The recipe of an exposure, and the number of its part where several cameras see one (None: they do not, or nobody can tell)."""
        turns = self._turns
        last = turns[-1]
        if last.from_ns > stamp.at_ns:
            last = next((turn for turn in reversed(turns) if turn.from_ns <= stamp.at_ns), turns[0])
        recipe = last.recipe
        lane, counts = self._lanes.get(stamp.camera), stamp.at_counts
        if lane is None or counts is None:
            return recipe, None
        with self._lock:
            parts = self._parts[lane]
            near = [p for p in parts if stamp.camera not in p.cameras and abs(p.at_counts - counts) <= self._near_counts]
            part = min(near, key=lambda p: abs(p.at_counts - counts), default=None)
            if part is None:
                self._number += 1
                part = _Part(self._number, counts, recipe)
                parts.append(part)
            part.cameras.add(stamp.camera)
        return part.recipe, part.number

    def judged(self, inspection: Inspection) -> None:
        """Count a judgement by a recipe that is watched."""
        watch = self._watch
        if watch is None or inspection.recipe != watch.digest or inspection.stamp.camera not in watch.cameras:
            return
        with self._lock:
            if watch.left > 0:
                watch.left -= 1
                watch.rejects += inspection.decision is not Decision.PASS

    def watched(self) -> Watch | None:
        """The watch over the recipe in force, while there is one."""
        return self._watch

    def settled(self) -> None:
        """Nothing is watched any more."""
        self._watch = None
