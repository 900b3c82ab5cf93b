"""Changeover: another recipe takes over between two parts, while the line runs.

    asked (SIGHUP, PLC, person) ─▶ candidate, a process of its own: prepared, proved ─▶ taken here ─▶ in force ─▶ watched ─▶ settled
                                        └─ refused: the old one stays            shadow ◀┘              └─ rolled back

One thread does all of it, behind every other one; the judging threads only ever see one assignment on the `Board`. What was in force
before stays ready in memory, so that a line that goes to and fro waits for nothing but the digests of its files.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from inspector import config, recipe
from inspector.config import Config
from inspector.config.document import Loc, nearest, text_of
from inspector.interfaces import Clock
from inspector.outputs.archive import Archive, encode, stored
from inspector.records import ConfigError, ConfigErrors, DeviceError, Frame, Image, Inspection, Recipe
from inspector.runtime import in_force, link
from inspector.runtime.changeover_board import Board, Watch
from inspector.runtime.changeover_candidate import Candidate, Lost, Prepare, Refused

SHADOW_WAITING = 4
SHADOW_WITHIN_S = 10.0
SHADOW_TOLD_EVERY_NS = 10**9
TURN_S = 0.05


class _State(NamedTuple):
    """What was in force: enough to go back to it."""

    recipe: Recipe
    settings: Config
    text: str
    chosen: Mapping[str, str]


class Shadow:
    """A recipe that judges the pictures of some `cameras` (each with its recipe's name) beside the present one, in its own process.

    `offer` is called by the judging threads and never waits.
    """

    def __init__(self, candidate: Candidate, cameras: Mapping[str, str], digest: str) -> None:
        self.candidate, self.cameras, self.digest = candidate, cameras, digest
        self.counts: Counter[str] = Counter()
        self.waiting: SimpleQueue[tuple[Frame, Inspection, Recipe, int]] = SimpleQueue()

    def offer(self, frame: Frame, inspection: Inspection, judged_by: Recipe, at_utc_ns: int) -> None:
        """Take a copy of a picture that was just judged by another recipe, or count that there was no time for it."""
        camera = frame.stamp.camera
        if not frame.stamp.complete or self.cameras.get(camera, judged_by.plans[camera].recipe) == judged_by.plans[camera].recipe:
            return
        if self.waiting.qsize() >= SHADOW_WAITING:
            self.counts["skipped"] += 1
            return
        image: Image = frame.image.copy()
        self.waiting.put((frame._replace(image=image), inspection, judged_by, at_utc_ns))

    def told(self) -> dict[str, Any]:
        """What it is, and how often it said the same."""
        return {"recipe": self.digest, "cameras": dict(self.cameras), "counts": dict(self.counts)}


class Changeover:
    """The thread's side of it all: `ask` may be called by any thread, `step` by one."""

    def __init__(
        self,
        path: Path,
        settings: Config,
        text: str,
        board: Board,
        tell: Callable[[link.ToGate], None],
        archive: Archive,
        *,
        shelf: recipe.Shelf,
        fixed: Callable[[Config], Mapping[str, Any]],
        clock: Clock,
    ) -> None:
        self.shadow: Shadow | None = None
        self.counts: Counter[str] = Counter()
        self._path, self._settings, self._text, self._board, self._tell, self._archive = path, settings, text, board, tell, archive
        self._shelf, self._fixed, self._clock = shelf, fixed, clock
        self._asked: SimpleQueue[link.Reload | link.Switch] = SimpleQueue()
        self._proved: set[str] = set()
        self._before: _State | None = None
        self._candidate: Candidate | None = None
        self._shadow_told_ns = 0

    @property
    def settings(self) -> Config:
        """The settings in force."""
        return self._settings

    def ask(self, message: link.Reload | link.Switch) -> None:
        """Take this on, one after the other; each has its answer."""
        self._asked.put(message)

    def step(self) -> None:
        """One changeover, or one picture for the shadow, or a look at what is watched."""
        self._look_at_watch()
        try:
            message = self._asked.get(timeout=0 if self._shadow_waits() else TURN_S)
        except Empty:
            self._shadow_step()
            return
        if isinstance(message, link.Reload):
            self._reload()
        elif message.shadow:
            self._begin_shadow(message)
        else:
            self._switch(message)

    def end(self) -> None:
        """Let the other processes go."""
        for candidate in (self._candidate, self.shadow.candidate if self.shadow else None):
            if candidate is not None:
                candidate.end()

    def told(self, what: str, request: str = "", text: str = "", *, current: Recipe | None = None) -> link.Changed:
        """The state as the gate is told it; `current` is the recipe that it is about, where it is not the one in force."""
        current = current or self._board.recipe
        cameras: dict[str, list[Any]] = {camera: [plan.recipe, plan.number] for camera, plan in current.plans.items()}
        shadow = self.shadow.told() if self.shadow else None
        return link.Changed(what, request, current.digest, models_of(current), list(current.reasons), cameras, text, shadow)

    # -- what is asked

    def _reload(self) -> None:
        """The file is read again; who has selected a recipe keeps it, unless the file now gives that camera another one."""
        refused = ""
        try:
            text = text_of(self._path)
            settings = config.read(self._path, text=text)
            if moved := list(_moved(self._fixed(settings), self._fixed(self._settings))):
                why = "which cannot change while the line runs; recipes, changeover and guards can"
                raise ConfigErrors([settings.error("E_CFG_FIXED", f"{now}; in force is {ours}, {why}", *loc) for loc, now, ours in moved])
            before = {camera.id: camera.recipe for camera in self._settings.cameras}
            chosen = {
                camera.id: name
                for camera in settings.cameras
                if (name := self._chosen()[camera.id]) in settings.recipes and camera.recipe == before[camera.id]
            }
            self._in_force(self._ready(settings, text, chosen), settings, text, chosen)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new recipe, the old one stays
            refused = _said(error)
            print(f"the recipe stays as it is: {refused}", file=sys.stderr, flush=True)
        current = self._board.recipe
        self._tell(link.Reloaded(current.digest, models_of(current), list(current.reasons), refused))
        self._tell(self.told("begun"))

    def _switch(self, message: link.Switch) -> None:
        try:
            chosen = self._wanted(message)
            prepared = self._ready(self._settings, self._text, chosen, message.request)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(message.request, error)
            return
        self.counts["in_force"] += prepared.digest != self._board.recipe.digest
        self._in_force(prepared, self._settings, self._text, chosen)
        self._tell(self.told("in_force", message.request))

    def _begin_shadow(self, message: link.Switch) -> None:
        self._end_shadow()
        if not message.recipe:
            self._tell(self.told("shadow_ended", message.request))
            return
        try:
            chosen, present = self._wanted(message), self._chosen()
            cameras = {camera: name for camera, name in chosen.items() if name != present[camera]}
            if not cameras:
                raise ConfigError("E_RECIPE", f"{named(self._settings, message.recipe)} is in force there: in shadow it would say the same")
            self._tell(self.told("preparing", message.request))
            digest, candidate = self._candidate_for(self._settings, self._text, chosen)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(message.request, error)
            return
        self.shadow = Shadow(candidate, cameras, digest)
        self._tell(self.told("shadow", message.request))

    def _refuse(self, request: str, error: Exception) -> None:
        self.counts["refused"] += 1
        print(f"the recipe stays as it is: {_said(error)}", file=sys.stderr, flush=True)
        self._tell(self.told("refused", request, _said(error)))

    def _chosen(self) -> dict[str, str]:
        return {camera: plan.recipe for camera, plan in self._board.recipe.plans.items()}

    def _wanted(self, message: link.Switch) -> dict[str, str]:
        """Which recipe each camera would have. Raises `ConfigError` E_RECIPE."""
        name = named(self._settings, message.recipe)
        lanes = {camera.lane for camera in self._settings.cameras}
        if wrong := sorted(set(message.lanes) - lanes):
            raise ConfigError("E_RECIPE", f"there is no lane {wrong[0]}; there is {', '.join(map(str, sorted(lanes)))}")
        cameras = [camera.id for camera in self._settings.cameras if not message.lanes or camera.lane in message.lanes]
        return {**self._chosen(), **dict.fromkeys(cameras, name)}

    # -- the candidate

    def _ready(self, settings: Config, text: str, chosen: Mapping[str, str], request: str = "") -> Recipe:
        """The recipe, prepared and proved; at once where all of it lies on the shelf. Raises what is wrong with it."""
        self._shelf.most = settings.changeover.keep_ready * len(settings.cameras)
        if recipe.identity(settings, chosen, self._shelf) in (*self._proved, self._board.recipe.digest):
            return recipe.prepare(settings, chosen=chosen, shelf=self._shelf)
        self._tell(self.told("preparing", request))
        digest, candidate = self._candidate_for(settings, text, chosen)
        candidate.end()
        prepared = recipe.prepare(settings, time.time_ns(), chosen=chosen, shelf=self._shelf)
        if prepared.digest != digest:
            raise ConfigError("E_CFG_MOVED", "a drawing, model or calibration is another one than was proved; ask again when it is whole")
        self._proved.add(digest)
        return prepared

    def _candidate_for(self, settings: Config, text: str, chosen: Mapping[str, str]) -> tuple[str, Candidate]:
        """The digest and the process of a candidate that has proved itself."""
        self._candidate = candidate = Candidate()
        try:
            answer = candidate.prepare(Prepare(self._path, text, chosen), settings.changeover.prepare_s, self._look_at_watch)
            if isinstance(answer, Refused):
                raise ConfigError("E_RECIPE_REFUSED", answer.text)
            self._shelf.geometry |= answer.geometry
        except BaseException:
            candidate.end()
            raise
        finally:
            self._candidate = None
        return answer.digest, candidate

    def _in_force(self, prepared: Recipe, settings: Config, text: str, chosen: Mapping[str, str]) -> None:
        """It takes over for the exposures that are made from now on."""
        current = self._board.recipe
        if prepared.digest != current.digest:
            rules, plans = settings.changeover, current.plans
            cameras = frozenset(camera for camera, plan in prepared.plans.items() if plan.digest != plans[camera].digest)
            watch = Watch(prepared.digest, cameras, rules.watch_pictures, rules.most_rejects) if rules.watch_pictures else None
            self._before = _State(current, self._settings, self._text, self._chosen())
            self._tell(self.told("ready", current=prepared))  # so that no verdict names a recipe that the gate has not heard of
            self._board.switch(prepared, self._clock(), watch)
        self._settings, self._text = settings, text
        if self.shadow is not None and self.shadow.cameras.items() <= chosen.items():  # nothing is left to compare
            self._end_shadow()
        self._remember(text, chosen)

    def _remember(self, text: str, chosen: Mapping[str, str]) -> None:
        try:
            in_force.keep(self._settings.state_dir, text)
            in_force.select(self._settings.state_dir, chosen)
        except OSError as error:
            print(f"a restart of vision would begin with the recipe before this one: {error}", file=sys.stderr, flush=True)

    # -- afterwards

    def _look_at_watch(self) -> None:
        """Back to the recipe before, when the first pictures were rejected too often; no more watching, when they were not."""
        watch = self._board.watched()
        if watch is None:
            return
        before = self._before
        if watch.rejects > watch.most and before is not None:
            text = f"{watch.rejects} of the first pictures were rejected; at most {watch.most} may be"
            self._board.switch(before.recipe, self._clock())
            self._settings, self._text, self._before = before.settings, before.text, None
            self._remember(before.text, before.chosen)
            self.counts["rolled_back"] += 1
            print(f"the recipe before is in force again: {text}", file=sys.stderr, flush=True)
            self._tell(self.told("rolled_back", text=text))
        elif watch.left == 0:
            self._board.settled()

    def _shadow_waits(self) -> bool:
        return self.shadow is not None and not self.shadow.waiting.empty()

    def _shadow_step(self) -> None:
        shadow = self.shadow
        if shadow is None:
            return
        if not shadow.waiting.empty():
            frame, inspection, judged_by, at_utc_ns = shadow.waiting.get()
            try:
                theirs = shadow.candidate.judge(frame, SHADOW_WITHIN_S, self._look_at_watch)
            except Lost as error:
                self._end_shadow()
                self._tell(self.told("shadow_ended", text=str(error)))
                return
            shadow.counts["same" if theirs.decision is inspection.decision else f"{inspection.decision.value}_{theirs.decision.value}"] += 1
            if theirs.decision is not inspection.decision:
                lane = next(camera.lane for camera in self._settings.cameras if camera.id == frame.stamp.camera)
                record = stored(inspection, judged_by, at_utc_ns=at_utc_ns, lane=lane, judged=True, shadow=theirs)
                self._archive.put(self._archive.reference(frame.stamp, "s"), frame, encode(record))
        if self._clock() - self._shadow_told_ns > SHADOW_TOLD_EVERY_NS:
            self._shadow_told_ns = self._clock()
            self._tell(self.told("begun"))

    def _end_shadow(self) -> None:
        shadow, self.shadow = self.shadow, None
        if shadow is not None:
            shadow.candidate.end()


def named(settings: Config, wanted: str | int) -> str:
    """The recipe with this name or number. Raises `ConfigError` E_RECIPE."""
    numbers = {recipe.number: name for name, recipe in settings.recipes.items() if recipe.number is not None}
    name = numbers.get(wanted) if isinstance(wanted, int) else wanted
    if name is None or name not in settings.recipes:
        known = ", ".join(f"{name} ({recipe.number or 'no number'})" for name, recipe in settings.recipes.items())
        raise ConfigError("E_RECIPE", f"there is no recipe {wanted}{nearest(str(wanted), settings.recipes)}; there is {known}")
    return name


def models_of(current: Recipe) -> list[list[str]]:
    """The networks as the gate is told them."""
    return [list(model) for model in current.models]


def _moved(now: Any, ours: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str, str]]:
    """Where settings differ, what they are now, and what is in force."""
    if isinstance(now, dict) and isinstance(ours, dict):
        for key in now | ours:
            yield from _moved(now.get(key), ours.get(key), (*loc, key))
    elif isinstance(now, list) and isinstance(ours, list) and len(now) == len(ours):
        for i, (each, other) in enumerate(zip(now, ours, strict=True)):
            yield from _moved(each, other, (*loc, i))
    elif now != ours:
        yield loc, _told(now), _told(ours)


def _told(value: Any) -> str:
    return "nothing" if value is None else f"{len(value)} entries" if isinstance(value, (dict, list)) else str(value)[:60]


def _said(error: Exception) -> str:
    if isinstance(error, ConfigError) and error.code == "E_RECIPE_REFUSED":
        return error.text
    return str(error) if isinstance(error, (ConfigError, DeviceError, Lost)) else f"{type(error).__name__}: {error}"
