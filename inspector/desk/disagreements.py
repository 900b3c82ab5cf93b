"""Pictures on which a recipe in shadow disagreed with the one that judges: the newest of the archive, with what each of the two said.

The archive's folders are read when somebody looks, at most every few seconds, and only those in which something has changed.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.desk.state import Defect, Exposure, Measured, Part
from inspector.interfaces import Clock
from inspector.outputs import archive
from inspector.outputs.archive import Judgement, Stored
from inspector.records import ConfigError, Decision, Verdict

LOOK_EVERY_NS = 3 * 10**9
KEPT = 200
VERDICTS = {Decision.PASS: Verdict.PASS, Decision.FAIL: Verdict.REJECT_DEFECT}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One picture. `key` names it to a browser, and tells nothing of its file; `parts` are what the present recipe and the shadow said."""

    key: str
    path: Path
    camera: str
    parts: tuple[Part, Part]

    def data(self) -> bytes:
        """The picture's file, empty when it is gone."""
        with suppress(OSError):
            return self.path.read_bytes()
        return b""


class Disagreements:
    """Those in an archive's folder. Safe from several threads."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder, self._clock, self._lock = folder, clock, threading.Lock()
        self._looked_ns = clock() - LOOK_EVERY_NS - 1
        self._days: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._known: OrderedDict[str, Disagreement] = OrderedDict()

    def last(self, most: int) -> list[Disagreement]:
        """The newest, newest first."""
        with self._lock:
            if self._clock() - self._looked_ns > LOOK_EVERY_NS:
                self._looked_ns = self._clock()
                with suppress(OSError):
                    self._look()
            return list(self._known.values())[:most]

    def of(self, key: str) -> Disagreement | None:
        """The one with this key, while it is among the newest."""
        return next((found for found in self.last(KEPT) if found.key == key), None)

    def _look(self) -> None:
        found: OrderedDict[str, Disagreement] = OrderedDict()
        for path in self._newest():
            key = hashlib.sha256(path.stem.encode()).hexdigest()[:22]
            known = self._known.get(key)
            if known is None:
                with suppress(ConfigError):  # gone meanwhile
                    known = _read(key, path)
            if known is not None:
                found[key] = known
        self._known = found

    def _newest(self) -> Iterator[Path]:
        left = KEPT
        for day in sorted((path for path in self._folder.iterdir() if path.is_dir()), reverse=True):
            changed_ns = day.stat().st_mtime_ns
            if self._days.get(day.name, (0,))[0] != changed_ns:
                with os.scandir(day) as files:
                    references = [file.name.removesuffix(".png") for file in files if file.name.endswith(".png")]
                found = sorted((name for name in references if archive.letter_of(name) == "s"), reverse=True)
                self._days[day.name] = changed_ns, tuple(found[:KEPT])
            for name in self._days[day.name][1][:left]:
                left -= 1
                yield day / f"{name}.png"


def _read(key: str, path: Path) -> Disagreement | None:
    stored = archive.read(path)
    if stored.shadow is None:
        return None
    return Disagreement(key, path, stored.stamp.camera, (judged(stored.judgement, stored), judged(stored.shadow, stored)))


def judged(judgement: Judgement, stored: Stored | None = None) -> Part:
    """A judgement in the shape in which the page shows parts; without `stored` it is of no part of the line."""
    stamp = None if stored is None else stored.stamp
    return Part(
        epoch="",
        seq=0,
        part_seq=0,
        lane=0 if stored is None else stored.lane,
        verdict=VERDICTS.get(judgement.decision, Verdict.REJECT_NOT_INSPECTED).name,
        reason=judgement.reason,
        reason_text=judgement.reason_text,
        at_utc_ns=0 if stored is None else stored.at_utc_ns,
        findings=tuple(_measured(each) for each in judgement.findings),
        defects=tuple(_defect(each["evidence"]) for each in judgement.findings if each["evidence"] is not None),
        exposures=() if stamp is None else (Exposure(stamp.camera, stamp.seq, stamp.complete, None, None),),
        pose=judgement.pose,
        recipe=judgement.recipe,
        recipe_name=judgement.recipe_name,
    )


def _measured(finding: Mapping[str, Any]) -> Measured:
    value, low, high, at_mm = (finding[key] for key in ("value", "low", "high", "at_mm"))
    number = _finite(value)
    ok = number is not None and (low is None or low <= number) and (high is None or number <= high)
    place = None if at_mm is None else (at_mm[0], at_mm[1])
    return Measured(finding["check"], finding["feature"], number, low, high, finding["unit"], ok, place)


def _defect(evidence: Mapping[str, Any]) -> Defect:
    score, threshold, area_mm2 = (_finite(evidence[key]) for key in ("score", "threshold", "area_mm2"))
    return Defect(evidence["class_name"], score, threshold, tuple(evidence["bbox_px"]), area_mm2)


def _finite(value: float | str | None) -> float | None:
    """A number of a record, where what is not finite is a word."""
    return None if value is None or not math.isfinite(float(value)) else float(value)
