"""The demo's judgement on trial: thousands of its parts, judged as fast as the cores allow and without a belt, against the truth.

The parts are those that the cameras of the configuration would show with this seed: number i of a lane is drawn from (seed, lane, i). What
is measured is vision's answer, exposure by exposure; the line's timing is the demo's business.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2

from inspector import config, recipe
from inspector.judge import judge
from inspector.records import ConfigError, Decision, Frame, Recipe, Stamp
from inspector.scene import Defect, draw, fitting_mm_per_px
from inspector.sources import simulated
from inspector.workshop.evaluate import wilson

CHUNK = 16
SIZES = 3
"""Into how many classes of size the parts of a kind are cut."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One part: what it was (`kind` "good" for none, `size_mm` its defect's size) and what was said of it."""

    camera: str
    index: int
    kind: str
    size_mm: float
    decision: Decision
    named: tuple[str, ...]
    spent_ms: float


def size_of(defect: Defect) -> float:
    """The one number in mm that decides whether a defect can be seen: width of a line, diameter of a spot or hole, height of a bump."""
    along, across = defect.size_mm
    if defect.kind in ("small_hole", "large_hole"):
        return abs(along - across)
    if defect.kind == "missing_hole":
        return along
    return min(along, across) if defect.kind in ("dent", "stain", "pit") else across


def put_on_trial(
    path: Path, count: int, *, seed: int | None, pool: Executor, progress: Callable[[int], None] = lambda done: None
) -> list[Tried]:
    """Draw and judge `count` parts of the configuration's simulated cameras, in turn. Raises `ConfigError` for a line that has none."""
    names = [camera.id for camera in _line(path)[0].cameras]
    jobs = [pool.submit(_try_some, path, names, start, min(start + CHUNK, count), seed) for start in range(0, count, CHUNK)]
    done = 0
    try:
        for job in as_completed(jobs):
            done += len(job.result())
            progress(done)
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    return [tried for job in jobs for tried in job.result()]


@cache
def _line(path: Path) -> tuple[config.Config, Recipe, Mapping[str, simulated.Settings]]:
    """Once per process: the configuration, its recipe, and the cameras' settings."""
    cv2.setNumThreads(1)
    settings = config.read(path)
    if any(camera.source.kind != "simulated" for camera in settings.cameras):
        raise ConfigError("E_DEMO", "every camera must be a simulated one: only they know what they show", file=str(path), key="cameras")
    cameras = {c.id: config.settings_of("sources", c.source, simulated.Settings) for c in settings.cameras}
    return settings, recipe.prepare(settings), cameras


def _try_some(path: Path, names: Sequence[str], start: int, stop: int, seed: int | None) -> list[Tried]:
    settings, prepared, cameras = _line(path)
    line_seed = int((settings.conveyor.model_extra or {}).get("seed", 0)) if seed is None else seed
    found = []
    for number in range(start, stop):
        name, index = names[number % len(names)], number // len(names)
        camera = cameras[name]
        part = prepared.plans[name].template
        if part is None:
            raise ConfigError("E_DEMO", "has no template, so nobody knows what its parts are", file=str(path), key=f"cameras.{name}")
        size_px = (camera.width_px, camera.height_px)
        mm_per_px = camera.mm_per_px or fitting_mm_per_px(part.contours, size_px, camera.look)
        seeds = (line_seed if camera.seed is None else camera.seed, camera.lane, index)
        drawn = draw(part, seed=seeds, size_px=size_px, mm_per_px=mm_per_px, look=camera.look)
        began_s = time.thread_time()
        stamp = Stamp(name, index + 1, time.monotonic_ns(), None, drawn.image.shape)
        (said,) = judge([Frame(stamp, drawn.image)], prepared, time.monotonic_ns)
        spent_ms = (time.thread_time() - began_s) * 1e3
        defect = drawn.defects[0] if drawn.defects else None
        named = tuple(sorted({f.check for f in said.findings if not f.ok}))
        found.append(
            Tried(name, index, defect.kind if defect else "good", size_of(defect) if defect else 0.0, said.decision, named, spent_ms)
        )
    return found


@dataclass(frozen=True, slots=True)
class Class:
    """The parts of a kind whose defects are between two sizes, and how many of them were rejected; `named` by which checks."""

    kind: str
    low_mm: float
    high_mm: float
    parts: int
    rejected: int
    named: Counter[str]


def by_size(tried: Iterable[Tried]) -> list[Class]:
    """Each kind cut into `SIZES` classes with the same number of parts, from small to large; good parts are one class."""
    kinds: dict[str, list[Tried]] = {}
    for one in tried:
        kinds.setdefault(one.kind, []).append(one)
    classes = []
    for kind, parts in sorted(kinds.items(), key=lambda item: (item[0] == "good", item[0])):
        ordered = sorted(parts, key=lambda one: one.size_mm)
        cuts = 1 if kind == "good" else min(SIZES, len(ordered))
        for k in range(cuts):
            piece = ordered[k * len(ordered) // cuts : (k + 1) * len(ordered) // cuts]
            rejected = [one for one in piece if one.decision is not Decision.PASS]
            named = Counter(check for one in rejected for check in one.named)
            classes.append(Class(kind, piece[0].size_mm, piece[-1].size_mm, len(piece), len(rejected), named))
    return classes


def summary(tried: Sequence[Tried]) -> dict[str, Any]:
    """Escapes and false rejects with their 95 % intervals (null where there was no such part), as JSON."""
    good = [one for one in tried if one.kind == "good"]
    bad = [one for one in tried if one.kind != "good"]
    false_rejects = sum(one.decision is not Decision.PASS for one in good)
    escapes = sum(one.decision is Decision.PASS for one in bad)
    spent = sorted(one.spent_ms for one in tried)
    return {
        "parts": len(tried),
        "bad": len(bad),
        "escapes": escapes,
        "escapes_95": wilson(escapes, len(bad)) if bad else None,
        "good": len(good),
        "false_rejects": false_rejects,
        "false_rejects_95": wilson(false_rejects, len(good)) if good else None,
        "cpu_ms_median": spent[len(spent) // 2] if spent else None,
    }
