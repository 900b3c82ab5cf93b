"""Pictures kept: every reject and every n-th pass, as PNG (lossless: a stored picture gives its verdict again) beside the JSON record.

    <folder>/<yyyymmdd>/<reference>.png + .json      reference = yyyymmdd-<utc ns, hex>-<r|p>-<camera>-<exposure>

The reference is what events carry (`image_ref`); to everybody else it is opaque, and `picture_of` turns it into a file without following
it out of the folder. Whatever is full (the queue, the budget, the disk) costs pictures, oldest passes first, and never a verdict.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2

from inspector.config import Archive as Settings
from inspector.interfaces import Clock
from inspector.records import Decision, Frame, Image

MOST_QUEUED_BYTES = 96 << 20
LEAST_FREE_BYTES = 64 << 20
QUICK_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_REFERENCE = re.compile(r"(\d{8})-[0-9a-f]{16}-[rp]-[a-z0-9_-]{1,32}-\d{1,20}")


def picture_of(folder: Path, reference: str) -> Path | None:
    """The picture's file, or None when the reference is none or its picture is gone."""
    match = _REFERENCE.fullmatch(reference)
    path = folder / match[1] / f"{reference}.png" if match else None
    return path if path is not None and path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    size: int


@dataclass(slots=True)
class Counts:
    """Pictures written, dropped (queue full, disk full or not to be written) and removed again to stay within the budget."""

    written: int = 0
    dropped: int = 0
    removed: int = 0


class Archive:
    """`wanted` and `put` are called by the judging threads, `step` again and again by one thread that may be slow."""

    def __init__(self, settings: Settings, folder: Path, *, utc_ns: Clock) -> None:
        self.counts, self.trouble = Counts(), ""
        self._settings, self._folder, self._utc_ns = settings, folder, utc_ns
        self._queue: deque[tuple[str, Image, bytes]] = deque()
        self._queued_bytes = self._passes = self._kept_bytes = 0
        self._bell = threading.Condition()
        self._kept: dict[str, deque[_Kept]] = {"p": deque(), "r": deque()}
        self._known = False

    def wanted(self, frame: Frame, decision: Decision) -> str | None:
        """The reference under which this picture will be kept, None when it will not."""
        if not frame.stamp.complete:
            return None
        if decision is Decision.PASS:
            self._passes += 1
            if not self._settings.every_nth_pass or self._passes % self._settings.every_nth_pass:
                return None
        elif not self._settings.rejects:
            return None
        if self._queued_bytes + frame.image.nbytes > MOST_QUEUED_BYTES:
            self.counts.dropped += 1
            return None
        utc_ns, letter = self._utc_ns(), "p" if decision is Decision.PASS else "r"
        day = datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y%m%d")
        return f"{day}-{utc_ns:016x}-{letter}-{frame.stamp.camera}-{frame.stamp.seq}"

    def put(self, reference: str, frame: Frame, record: bytes) -> None:
        """Copy the picture (it is the ring's) and leave it to the writing thread."""
        image = frame.image.copy()
        with self._bell:
            self._queue.append((reference, image, record))
            self._queued_bytes += image.nbytes
            self._bell.notify()

    def waiting(self) -> int:
        """Pictures not yet written."""
        return len(self._queue)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all that is kept."""
        return self._kept_bytes

    def step(self, timeout_s: float = 0.2) -> None:
        """Write one picture, or wait a little for one. A disk that refuses is `trouble` and a dropped picture, never an error."""
        if not self._known:
            self._known = True
            try:
                self._take_stock()
            except OSError as error:
                self.trouble = f"pictures of earlier runs are not counted: {error}"
        with self._bell:
            if not self._queue and not self._bell.wait(timeout_s):
                return
            if not self._queue:
                return
            reference, image, record = self._queue.popleft()
            self._queued_bytes -= image.nbytes
        try:
            self._write(reference, image, record)
            self.counts.written += 1
            self.trouble = ""
            self._stay_within_budget()
        except (OSError, cv2.error) as error:
            self.counts.dropped += 1
            self.trouble = f"picture not kept: {error}"

    def _write(self, reference: str, image: Image, record: bytes) -> None:
        folder = self._folder / reference[:8]
        folder.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
            self._remove_oldest()
            raise OSError(f"less than {LEAST_FREE_BYTES >> 20} MiB left on the disk")
        _, png = cv2.imencode(".png", image, QUICK_PNG)
        path = folder / f"{reference}.png"
        part = path.with_suffix(".part")
        try:
            path.with_suffix(".json").write_bytes(record)
            part.write_bytes(png.tobytes())
            part.replace(path)
        except OSError:
            for file in (part, path.with_suffix(".json")):
                file.unlink(missing_ok=True)
            raise
        self._keep(path, png.nbytes + len(record))

    def _keep(self, path: Path, size: int) -> None:
        self._kept[path.name[26]].append(_Kept(path, size))
        self._kept_bytes += size

    def _stay_within_budget(self) -> None:
        while self._kept_bytes > self._settings.keep_mib << 20 and self._remove_oldest():
            pass

    def _remove_oldest(self) -> bool:
        """The oldest pass, or the oldest reject where there is no pass."""
        kept = self._kept["p"] or self._kept["r"]
        if not kept:
            return False
        oldest = kept.popleft()
        self._kept_bytes -= oldest.size
        self.counts.removed += 1
        oldest.path.unlink(missing_ok=True)
        oldest.path.with_suffix(".json").unlink(missing_ok=True)
        return True

    def _take_stock(self) -> None:
        for path, size in sorted(_pictures(self._folder)):
            self._keep(path, size)
        self._stay_within_budget()


def _pictures(folder: Path) -> Iterator[tuple[Path, int]]:
    """What an earlier run has kept; the unfinished is removed."""
    for path in folder.glob("*/*"):
        if path.suffix == ".part":
            path.unlink(missing_ok=True)
        elif path.suffix == ".png" and _REFERENCE.fullmatch(path.stem):
            with suppress(FileNotFoundError):  # gone meanwhile, or a link to nowhere
                yield path, path.stat().st_size + _size(path.with_suffix(".json"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
