"""Stored pictures judged again: with the same recipe the same verdict, bit for bit; with a new one the list of all that would change.

What is read is an archive (`pictures/`, or one of its days), or a journal, which also says to which part each picture belongs. Each
picture is judged by the recipe of the name that judged it then, as the configuration has it now, or by the one that is asked for. A
picture that was refused for itself (black, frozen) was judged by no recipe and is not judged now. The work is spread over processes or a
Dask cluster, which must see the same folders; a summary adds up what they say.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from inspector import __version__, config, recipe
from inspector.config import Config
from inspector.config.document import nearest
from inspector.gate.journal import Reader
from inspector.judge import judge
from inspector.neural import pictures
from inspector.outputs import archive
from inspector.outputs.archive import Judgement, Stored
from inspector.records import ConfigError, Decision, Frame, Reason, Recipe

CHUNK = 16
"""Pictures that a worker judges between two words about its progress."""
NEAR_NS = 60 * 10**9
PAGE = 500
PASSED = "PASS"
LATE = "REJECT_NOT_INSPECTED"
FOR_ANOTHER_REASON = frozenset({LATE, "REJECT_COMMANDED"})
"""Verdicts of the gate that no recipe has a part in."""


class Task(NamedTuple):
    """One stored picture, the part that it belongs to, and the name of the recipe that judges it now."""

    picture: Path
    part: str
    camera: str
    recipe: str


class Seen(NamedTuple):
    """What became of one picture: what it was judged then and now; `identical` is bit for bit, `same_recipe` by the digest of its plan."""

    task: Task
    was: tuple[str, str]
    now: tuple[str, str]
    identical: bool
    same_recipe: bool
    version: str
    told: dict[str, Any] | None
    error: str = ""


@dataclass(slots=True)
class Work:
    """What is to be judged. `verdicts` are the journal's, by part; `left_out` counts the pictures that are not judged, by why."""

    tasks: list[Task]
    verdicts: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def find(settings: Config, source: Path, forced: str | None = None) -> Work:
    """The pictures at `source`: a journal, a state folder, an archive or a day of it. `forced` names one recipe for all.

    Raises `ConfigError`: E_ARCHIVE_OPEN, E_ARCHIVE_NONE, E_DB_FORMAT, E_RECIPE.
    """
    if forced is not None and forced not in settings.recipes:
        raise ConfigError(
            "E_RECIPE", f"there is no recipe {forced}{nearest(forced, settings.recipes)}; there is {', '.join(settings.recipes)}"
        )
    journal = source if source.is_file() else source / "journal.sqlite"
    folder = journal.parent / "pictures" if journal.is_file() else source
    named, verdicts = _parts_of(journal) if journal.is_file() else ({}, {})
    work = Work([], verdicts)
    grouped = _Groups(settings)
    for path in archive.pictures_in(folder):
        try:
            record = archive.read(path)
        except ConfigError:
            work.left_out["no_record"] += 1
            continue
        stamp = record.stamp
        name = forced or (record.judgement.recipe_name if record.judgement.recipe_name in settings.recipes else None)
        camera = next((camera for camera in settings.cameras if camera.id == stamp.camera), None)
        part = named.get((stamp.camera, stamp.seq, record.at_utc_ns)) if journal.is_file() else grouped.part(record)
        if part is None:  # judged too late to have a say
            part = f"late/{stamp.camera}-{stamp.seq}-{record.at_utc_ns}"
            verdicts[part] = LATE
        if not record.judged:
            work.left_out["picture_refused"] += 1
        elif record.judgement.reason == Reason.INFER_TIMEOUT:  # the time ran out, and time is no part of a recipe
            work.left_out["out_of_time"] += 1
        elif camera is None:
            work.left_out["unknown_camera"] += 1
        else:
            work.tasks.append(Task(path, part, stamp.camera, name or camera.recipe))
    if not work.tasks:
        why = ", ".join(f"{n} {why}" for why, n in work.left_out.items()) or "no picture is there"
        raise ConfigError("E_ARCHIVE_NONE", f"nothing to judge: {why}", file=str(folder))
    return work


def reinspect(
    path: Path,
    settings: Config,
    text: str,
    work: Work,
    pool: Executor,
    *,
    progress: Callable[[int], None],
    tell: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Judge it all; `tell` hears every picture that is judged otherwise, in order; returns the summary.

    Raises `ConfigErrors` for a recipe that cannot be prepared, before a process is started.
    """
    began_s = time.monotonic()
    shelf = recipe.Shelf(64)
    digests = {key: _line(settings, *key, shelf).plans[key[0]].digest for key in dict.fromkeys((t.camera, t.recipe) for t in work.tasks)}
    chunks = [
        pool.submit(_judge_some, path, text, [(task, digests[task.camera, task.recipe]) for task in work.tasks[start : start + CHUNK]])
        for start in range(0, len(work.tasks), CHUNK)
    ]
    done = 0
    try:
        for chunk in as_completed(chunks):
            done += len(chunk.result())
            progress(done)
    except BaseException:
        for chunk in chunks:
            chunk.cancel()
        raise
    seen = [each for chunk in chunks for each in chunk.result()]
    for each in seen:
        if each.told is not None:
            tell(each.told)
    return _summary(work, seen, digests, time.monotonic() - began_s)


def _line(settings: Config, camera: str, name: str, shelf: recipe.Shelf) -> Recipe:
    """The recipe of one camera alone."""
    alone = settings.model_copy(update={"cameras": [each for each in settings.cameras if each.id == camera]})
    return recipe.prepare(alone, chosen={camera: name}, shelf=shelf)


@lru_cache(maxsize=2)
def _opened(path: Path, text: str) -> tuple[Config, recipe.Shelf, dict[tuple[str, str], Recipe]]:
    return config.read(path, text=text), recipe.Shelf(64), {}


def _judge_some(path: Path, text: str, tasks: Sequence[tuple[Task, str]]) -> list[Seen]:
    """Judge these pictures, each by its recipe, which must have this digest. In a process that keeps what it has prepared."""
    settings, shelf, lines = _opened(path, text)
    found = []
    for task, digest in tasks:
        key = (task.camera, task.recipe)
        if key not in lines:
            lines[key] = _line(settings, *key, shelf)
        if lines[key].plans[task.camera].digest != digest:
            raise ConfigError("E_CFG_MOVED", f"a file of recipe {task.recipe} changed meanwhile, or is another one on another machine")
        found.append(_again(task, lines[key]))
    return found


def _again(task: Task, line: Recipe) -> Seen:
    try:
        record = archive.read(task.picture)
        image = pictures.read(task.picture)
        if image.shape != record.stamp.shape:
            raise ConfigError("E_ARCHIVE_RECORD", f"{image.shape} is not the shape of the record", file=str(task.picture))
    except ConfigError as error:
        wrong = {"picture": task.picture.stem, "part": task.part, "camera": task.camera, "error": str(error)}
        return Seen(task, ("", ""), ("", ""), False, False, "", wrong, str(error))
    (inspection,) = judge([Frame(record.stamp, image)], line, time.monotonic_ns)
    was, now = record.judgement, archive.judgement(inspection, line)
    identical, same_recipe = was.said == now.said, was.plan == now.plan
    told = _told(task, record, now) if was.decision is not now.decision or (same_recipe and not identical) else None
    return Seen(task, _short(was), _short(now), identical, same_recipe, record.app_version, told)


def _short(judged: Judgement) -> tuple[str, str]:
    """(decision, why): the reject class, or the reason's number."""
    return judged.decision.value, judged.reason_class or str(judged.reason)


def _told(task: Task, record: Stored, now: Judgement) -> dict[str, Any]:
    def words(judged: Judgement) -> dict[str, Any]:
        wrong = [each for each in judged.findings if not _within(each)]
        return {
            "decision": judged.decision.value,
            "reason": judged.reason,
            "reason_class": judged.reason_class,
            "text": judged.reason_text,
            "recipe": judged.recipe_name,
            "plan": judged.plan,
            "findings": wrong,
        }

    was = record.judgement
    return {
        "picture": task.picture.stem,
        "part": task.part,
        "camera": task.camera,
        "exposure": record.stamp.seq,
        "changed": "verdict" if was.decision is not now.decision else "findings",
        "was": words(was),
        "now": words(now),
    }


def _within(finding: Mapping[str, Any]) -> bool:
    value, low, high = finding["value"], finding["low"], finding["high"]
    return not isinstance(value, str) and (low is None or low <= value) and (high is None or value <= high)


# --- parts -------------------------------------------------------------------------------------------------------------


def _parts_of(journal: Path) -> tuple[dict[tuple[str, int, int], str], dict[str, str]]:
    """(the part of each exposure by (camera, number, UTC ns); the verdict of each part), as the journal has them."""
    named: dict[tuple[str, int, int], str] = {}
    verdicts: dict[str, str] = {}
    for body in _verdicts(journal):
        part = f"{body['epoch']}/{body['lane']}/{body['part_seq']}"
        verdicts[part] = body["verdict"]
        for camera in body["cameras"]:
            if "t_exposure_utc_ns" in camera:
                named[camera["cam_id"], camera["frame_id"], int(camera["t_exposure_utc_ns"])] = part
    return named, verdicts


def _verdicts(journal: Path) -> Iterator[dict[str, Any]]:
    reader = Reader(journal)
    try:
        for epoch in reader.epochs():
            first, last = 1, epoch.last.get("q", 0)
            while rows := reader.events("q", epoch.epoch, first, last, PAGE):
                first = rows[-1].seq + 1
                yield from (body for row in rows if (body := json.loads(row.payload))["schema"] == "insp.verdict")
    except sqlite3.Error as error:
        raise ConfigError("E_DB_FORMAT", f"it cannot be read: {error}", file=str(journal)) from error
    finally:
        reader.close()


class _Groups:
    """Parts by where their exposures were made, for pictures without a journal: cameras of one lane that saw the same place of the belt."""

    def __init__(self, settings: Config) -> None:
        self._near_counts = 2 * settings.gate.window_counts
        lanes = [camera.lane for camera in settings.cameras]
        self._shared = {lane for lane in lanes if lanes.count(lane) > 1}
        self._last: dict[int, list[tuple[str, int, int, set[str]]]] = {}

    def part(self, record: Stored) -> str:
        """The name of the part: that of the first picture of it."""
        stamp, name = record.stamp, f"{record.lane}/{record.stamp.camera}-{record.stamp.seq}-{record.at_utc_ns}"
        if record.lane not in self._shared or stamp.at_counts is None:
            return name
        recent = [each for each in self._last.get(record.lane, []) if abs(each[2] - record.at_utc_ns) < NEAR_NS]
        near = [each for each in recent if stamp.camera not in each[3] and abs(each[1] - stamp.at_counts) <= self._near_counts]
        counts = stamp.at_counts
        if near:
            best = min(near, key=lambda each: abs(each[1] - counts))
            best[3].add(stamp.camera)
            name = best[0]
        else:
            recent.append((name, counts, record.at_utc_ns, {stamp.camera}))
        self._last[record.lane] = recent
        return name


# --- adding up ---------------------------------------------------------------------------------------------------------


def _summary(work: Work, seen: Sequence[Seen], digests: Mapping[tuple[str, str], str], spent_s: float) -> dict[str, Any]:
    good = [each for each in seen if not each.error]
    changed = [each for each in good if each.was[0] != each.now[0]]
    same = [each for each in good if each.same_recipe]
    return {
        "pictures": len(seen),
        "identical": sum(each.identical for each in good),
        "same_recipe": len(same),
        "not_reproduced": sum(not each.identical for each in same),
        "verdicts_changed": len(changed),
        "unreadable": len(seen) - len(good),
        "left_out": dict(work.left_out),
        "confusion": _count(f"{each.was[0]} → {each.now[0]}" for each in good),
        "reasons": _count(f"{_why(each.was)} → {_why(each.now)}" for each in changed),
        "parts": _parts(work, good),
        "recipes": {f"{name}/{camera}": digest for (camera, name), digest in sorted(digests.items())},
        "version": __version__,
        "judged_by_versions": sorted({each.version for each in good}),
        "spent_s": round(spent_s, 3),
    }


def _parts(work: Work, good: Sequence[Seen]) -> dict[str, Any]:
    """The same by parts: one is good when all its stored pictures are. What the gate rejected for a reason of its own stays as it was."""
    decisions: dict[str, list[tuple[str, str]]] = {}
    for each in good:
        decisions.setdefault(each.task.part, []).append((each.was[0], each.now[0]))
    confusion: Counter[str] = Counter()
    for part, pairs in decisions.items():
        was, now = (all(pair[i] == Decision.PASS.value for pair in pairs) for i in (0, 1))
        verdict = work.verdicts.get(part)
        if verdict in FOR_ANOTHER_REASON:
            confusion["reject, for another reason"] += 1
            continue
        before = was if verdict is None else verdict == PASSED
        # A camera of which no picture is stored said what it said: a part that the journal has as rejected while all stored pictures pass
        # was rejected by that one, and stays so.
        after = now if before == was else before and now
        confusion[f"{_word(before)} → {_word(after)}"] += 1
    return {
        "judged": len(decisions),
        "changed": sum(n for k, n in confusion.items() if k in _CHANGED),
        "confusion": dict(sorted(confusion.items())),
    }


_CHANGED = ("pass → reject", "reject → pass")


def _word(passes: bool) -> str:
    return "pass" if passes else "reject"


def _why(said: tuple[str, str]) -> str:
    return said[0] if said[0] == Decision.PASS.value else said[1]


def _count(words: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))
