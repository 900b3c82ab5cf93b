"""Pictures on which a recipe in shadow disagreed with the one that judges: the newest of the archive, with what each of the two said.

The archive's folders are read when somebody looks, at most every few seconds, and only those in which something has changed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inspector.desk.judged import judged
from inspector.desk.state import Part
from inspector.interfaces import Clock
from inspector.outputs import archive
from inspector.records import ConfigError

LOOK_EVERY_NS = 3 * 10**9
KEPT = 200


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
        self._known: dict[str, Disagreement] = {}

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
        found: dict[str, Disagreement] = {}
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
