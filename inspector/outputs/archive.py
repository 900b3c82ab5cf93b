"""Pictures kept: every reject and every n-th pass, without loss and as the camera gave them, each with the record of its inspection.

    <folder>/<yyyymmdd>/<reference>.png + .json      reference = yyyymmdd-<utc ns, hex>-<r|p|s>-<camera>-<exposure>

r is a reject, p a pass, s a picture on which a recipe in shadow disagreed. The reference is what events carry (`image_ref`); to everybody
else it is opaque, and `picture_of` turns it into a file without following it out of the folder. The record has every number of the
judgement exactly, so that the stored picture can be judged again and compared bit for bit. What is full (the queue, the budget, the disk)
costs pictures, oldest passes first and rejects last, and never a verdict.

Codec, measured on one core with pictures of 1.3 and 5 Mpx with sensor noise (share of the raw bytes, encoding): PNG as below 0.48, 73 MB/s;
PNG level 1 as it comes 0.56, 36; TIFF LZW 0.63, 54; TIFF deflate 0.58, 31; zstd level 1 of differences 0.51, 450. PNG is the smallest,
every program opens it, and its time is that of the archive's own thread, which goes behind all others.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2

from inspector import __version__
from inspector.config import Archive as Settings
from inspector.interfaces import Clock
from inspector.records import (
    FIRST_CLASS_REASON,
    LAST_CLASS_REASON,
    ConfigError,
    Decision,
    Evidence,
    Finding,
    Frame,
    Image,
    Inspection,
    Pose,
    Recipe,
    Stamp,
    Web,
)

FORMAT = 1
MOST_QUEUED_BYTES = 96 << 20
MOST_HELD_BYTES = 64 << 20
MOST_PARTS = 64
LEAST_FREE_BYTES = 64 << 20
DAY_NS = 86_400 * 10**9
QUICK_PNG = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
)
_REFERENCE = re.compile(r"(\d{8})-([0-9a-f]{16})-([rps])-([a-z0-9_-]{1,32})-(\d{1,20})")
_LETTERS = "psr"
"""Passes go first, rejects last."""


def picture_of(folder: Path, reference: str) -> Path | None:
    """The picture's file, or None when the reference is none or its picture is gone."""
    match = _REFERENCE.fullmatch(reference)
    path = folder / match[1] / f"{reference}.png" if match else None
    return path if path is not None and path.is_file() else None


def letter_of(reference: str) -> str:
    """r, p or s; empty for what is no reference."""
    match = _REFERENCE.fullmatch(reference)
    return match[3] if match else ""


def camera_of(reference: str) -> str:
    """The camera that took it; empty for what is no reference."""
    match = _REFERENCE.fullmatch(reference)
    return match[4] if match else ""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of an archive, or of one of its days, in order of time. Raises `ConfigError` E_ARCHIVE_OPEN where there is no folder."""
    if not folder.is_dir():
        raise ConfigError("E_ARCHIVE_OPEN", "no such folder", file=str(folder))
    found = [path for pattern in ("*.png", "*/*.png") for path in folder.glob(pattern) if _REFERENCE.fullmatch(path.stem)]
    return sorted(found, key=lambda path: path.stem)


# --- records -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one recipe said of one exposure, as it is stored and compared. `recipe` and `plan` are digests: of all cameras, of this one.

    `reason_class` is the reject class of a reason of 100 and more: the number depends on what other recipes are in use, the class does not.
    """

    recipe: str
    plan: str
    recipe_name: str
    recipe_number: int | None
    decision: Decision
    reason: int
    reason_class: str | None
    reason_text: str
    findings: tuple[Mapping[str, Any], ...]
    pose: Mapping[str, Any] | None

    @property
    def said(self) -> tuple[Any, ...]:
        """What must be the same for the judgement to be the same, bit for bit."""
        return self.decision, self.reason_class or self.reason, self.reason_text, self.findings, self.pose


@dataclass(frozen=True, slots=True)
class Stored:
    """The record of a stored picture. `judged`: by a recipe; where the picture itself was refused (black, frozen) it is False."""

    at_utc_ns: int
    lane: int
    app_version: str
    stamp: Stamp
    judged: bool
    judgement: Judgement
    shadow: Judgement | None


def judgement(inspection: Inspection, recipe: Recipe) -> Judgement:
    """The inspection as it is stored; `recipe` is the one that it was made with."""
    plan = recipe.plans[inspection.stamp.camera]
    classed = FIRST_CLASS_REASON <= inspection.reason <= LAST_CLASS_REASON
    index = inspection.reason - FIRST_CLASS_REASON
    return Judgement(
        recipe=inspection.recipe,
        plan=plan.digest,
        recipe_name=plan.recipe,
        recipe_number=plan.number,
        decision=inspection.decision,
        reason=int(inspection.reason),
        reason_class=recipe.reasons[index] if classed and index < len(recipe.reasons) else None,
        reason_text=inspection.reason_text,
        findings=tuple(_exact(_fields(finding)) for finding in inspection.findings),
        pose=None if inspection.pose is None else _exact(asdict(inspection.pose)),
    )


def _fields(finding: Finding) -> dict[str, Any]:
    return finding._asdict() | {"evidence": finding.evidence and asdict(finding.evidence)}


def encode(stored: Stored) -> bytes:
    """The record as JSON."""
    head = {"format": FORMAT, "at_utc_ns": str(stored.at_utc_ns), "lane": stored.lane, "app_version": stored.app_version}
    body = head | {"stamp": _exact(stored.stamp._asdict()), "judged": stored.judged} | _told(stored.judgement)
    if stored.shadow is not None:
        body["shadow"] = _told(stored.shadow)
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def read(picture: Path) -> Stored:
    """The record beside a stored picture. Raises `ConfigError` E_ARCHIVE_RECORD."""
    path = picture.with_suffix(".json")
    try:
        body = json.loads(path.read_bytes())
        if body["format"] != FORMAT:
            raise ConfigError("E_ARCHIVE_RECORD", f"format {body['format']}; this program knows {FORMAT}", file=str(path))
        web = body["stamp"].get("web")
        stamp = {**body["stamp"], "shape": tuple(body["stamp"]["shape"]), "web": web and Web(*web)}
        shadow = None if body.get("shadow") is None else _heard(body["shadow"])
        at_utc_ns, version = int(body["at_utc_ns"]), str(body["app_version"])
        return Stored(at_utc_ns, int(body["lane"]), version, Stamp(**stamp), bool(body["judged"]), _heard(body), shadow)
    except OSError as error:
        raise ConfigError("E_ARCHIVE_RECORD", error.strerror or str(error), file=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError("E_ARCHIVE_RECORD", f"not the record of a picture: {type(error).__name__}: {error}", file=str(path)) from error


def _exact(value: Any) -> Any:
    """Plain JSON values that give every number back exactly; what is not finite is its name."""
    if isinstance(value, dict):
        return {key: _exact(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(each) for each in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _told(judged: Judgement) -> dict[str, Any]:
    return {each.name: getattr(judged, each.name) for each in fields(judged)} | {
        "decision": judged.decision.value,
        "findings": list(judged.findings),
    }


def _heard(body: Mapping[str, Any]) -> Judgement:
    known = {each.name: body[each.name] for each in fields(Judgement)}
    _ = [Finding(**{**each, "evidence": each["evidence"] and Evidence(**each["evidence"])}) for each in known["findings"]]
    if known["pose"] is not None:
        Pose(**known["pose"])
    return Judgement(**(known | {"decision": Decision(known["decision"]), "findings": tuple(known["findings"])}))


# --- keeping -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    size: int
    at_utc_ns: int


@dataclass(slots=True)
class _Part:
    """One part that several cameras see: whether a picture of it is kept, and those that are kept only if another one is."""

    kept: bool = False
    held: list[tuple[str, Image, bytes]] | None = None


@dataclass(slots=True)
class Counts:
    """Pictures written, dropped (queue full, disk full or not to be written) and removed again to stay within the budget."""

    written: int = 0
    dropped: int = 0
    removed: int = 0


class Archive:
    """`wanted`, `put` and `hold` are called by the judging threads, `step` again and again by one thread that may be slow.

    Where several cameras see one part (`part` names it), a part of which one picture is kept is kept whole.
    """

    def __init__(self, settings: Settings, folder: Path, *, utc_ns: Clock) -> None:
        self.counts, self.trouble = Counts(), ""
        self._settings, self._folder, self._utc_ns = settings, folder, utc_ns
        self._queue: deque[tuple[str, Image, bytes]] = deque()
        self._queued_bytes = self._held_bytes = self._passes = self._kept_bytes = 0
        self._bell = threading.Condition()
        self._parts: OrderedDict[int, _Part] = OrderedDict()
        self._kept: dict[str, deque[_Kept]] = {letter: deque() for letter in _LETTERS}
        self._known = False

    def wanted(self, frame: Frame, decision: Decision, part: int | None = None) -> str | None:
        """The reference under which this picture will be kept, None when it will not."""
        if not frame.stamp.complete:
            return None
        with self._bell:
            if not self._chosen(decision, part):
                return None
            if self._queued_bytes + frame.image.nbytes > MOST_QUEUED_BYTES:
                self.counts.dropped += 1
                return None
            if part is not None:
                self._keep_whole(part)
        return self.reference(frame.stamp, "p" if decision is Decision.PASS else "r")

    def reference(self, stamp: Stamp, letter: str) -> str:
        """A new reference for a picture of this exposure."""
        utc_ns = self._utc_ns()
        day = datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y%m%d")
        return f"{day}-{utc_ns:016x}-{letter}-{stamp.camera}-{stamp.seq}"

    def put(self, reference: str, frame: Frame, record: bytes) -> None:
        """Copy the picture (it is the ring's) and leave it to the writing thread."""
        self._queue_up([(reference, frame.image.copy(), record)])

    def hold(self, frame: Frame, record: bytes, part: int) -> None:
        """A pass that is kept only if another picture of its part is."""
        if not frame.stamp.complete or not self._settings.rejects:
            return
        picture = (self.reference(frame.stamp, "p"), frame.image.copy(), record)
        with self._bell:
            entry = self._part(part)
            if not entry.kept:
                entry.held = [*(entry.held or ()), picture]
                self._held_bytes += picture[1].nbytes
                while self._held_bytes > MOST_HELD_BYTES:
                    self._let_go(self._parts.popitem(last=False)[1])
                return
        self._queue_up([picture])

    def _chosen(self, decision: Decision, part: int | None) -> bool:
        if decision is not Decision.PASS:
            return self._settings.rejects
        self._passes += 1
        nth = self._settings.every_nth_pass
        return bool(nth and self._passes % nth == 0) or (part is not None and self._part(part).kept)

    def _part(self, part: int) -> _Part:
        entry = self._parts.setdefault(part, _Part())
        while len(self._parts) > MOST_PARTS:
            self._let_go(self._parts.popitem(last=False)[1])
        return entry

    def _keep_whole(self, part: int) -> None:
        entry = self._part(part)
        held, entry.kept = entry.held or [], True
        self._let_go(entry)
        self._queue_up(held)

    def _let_go(self, entry: _Part) -> None:
        self._held_bytes -= sum(image.nbytes for _, image, _ in entry.held or ())
        entry.held = None

    def _queue_up(self, pictures: list[tuple[str, Image, bytes]]) -> None:
        with self._bell:
            self._queue.extend(pictures)
            self._queued_bytes += sum(image.nbytes for _, image, _ in pictures)
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
        self._kept[path.name[26]].append(_Kept(path, size, int(path.name[9:25], 16)))
        self._kept_bytes += size

    def _stay_within_budget(self) -> None:
        oldest_ns = self._utc_ns() - round(self._settings.keep_days * DAY_NS)
        for kept in self._kept.values():
            while kept and kept[0].at_utc_ns < oldest_ns:
                self._remove(kept.popleft())
        while self._kept_bytes > self._settings.keep_mib << 20 and self._remove_oldest():
            pass

    def _remove_oldest(self) -> bool:
        """The oldest pass, where there is none the oldest that a shadow saw otherwise, and at last the oldest reject."""
        kept = next((self._kept[letter] for letter in _LETTERS if self._kept[letter]), None)
        if kept is None:
            return False
        self._remove(kept.popleft())
        return True

    def _remove(self, oldest: _Kept) -> None:
        self._kept_bytes -= oldest.size
        self.counts.removed += 1
        oldest.path.unlink(missing_ok=True)
        oldest.path.with_suffix(".json").unlink(missing_ok=True)
        with suppress(OSError):  # not empty yet
            oldest.path.parent.rmdir()

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


def stored(inspection: Inspection, recipe: Recipe, *, at_utc_ns: int, lane: int, judged: bool, shadow: Judgement | None = None) -> Stored:
    """The record of a picture that was inspected just now."""
    return Stored(at_utc_ns, lane, __version__, inspection.stamp, judged, judgement(inspection, recipe), shadow)
