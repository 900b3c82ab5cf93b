r"""Pictures from files, in the order of their names: a stored day, a video, a data set, a test.

Each file is one exposure, and each frame of a video. A file that is not a whole picture is an exposure that came incomplete, never the end
of the line; its header is read before anything is decoded, so that a small file cannot fill the memory. Of a video only the frames that
nothing can be made of are left out: its decoder repairs damaged ones without a word, and those are judged. What has 16 bits keeps its
upper 8: pictures of 10 or 12 bits must fill them from the top. The archive of a station
(`state/pictures`, or one day of it) and videos know when their pictures were taken: with `speed` they come as they came then.

    source:
      kind: replay
      files: [pictures/good, "pictures/bad/*.png"]   # folders, patterns, videos; the archive's folder is that of all its days
      rate_hz: 10          # pictures a second, or `speed: 1.0` for their own times; leave both away for as fast as they are taken
      loop: true           # begin again after the last one
      colour: false
      uid: '(\d+)_test'    # the part's own name: the first group in the file's stem; leave it away for the stem
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from inspector.config import Strict
from inspector.interfaces import Clock, Conveyor, EndOfPictures
from inspector.records import ConfigError, Image, Stamp

if TYPE_CHECKING:
    from inspector.records import Bytes1D

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm"})
MOST_PIXELS = 64_000_000
LONGEST_SIDE = 32_766  # one more than OpenCV's remap takes
LARGEST_FILE_BYTES = 512 << 20
_HEAD_BYTES = 1 << 20  # a JPEG's size may come after long EXIF and ICC segments
_TIFF = (b"II*\0", b"MM\0*")


_STORED = re.compile(r"\d{8}-([0-9a-f]{16})-[a-z]-([a-z0-9_-]{1,32})-\d{1,20}")
"""What the archive calls a picture: the day, UTC nanoseconds, why it was kept, the camera, its exposure."""
_DAY = re.compile(r"\d{8}")


class Settings(Strict):
    """Where the files are, and how fast they come; of an archive's pictures only those of `camera`, where that is set.

    `speed` 1.0 is as they were taken, 2.0 twice as fast; a pause of more than `longest_pause_s` then (a night) is that long. With
    either, the first picture comes `first_after_ms` after it was first asked for, so that several cameras need not show theirs at once.
    """

    files: list[Path] = Field(min_length=1)
    camera: str | None = None
    rate_hz: float | None = Field(default=None, gt=0, le=10_000)
    speed: float | None = Field(default=None, gt=0, le=1_000)
    longest_pause_s: float = Field(default=10.0, gt=0)
    first_after_ms: float = Field(default=0.0, ge=0, le=60_000)
    loop: bool = False
    colour: bool = False
    uid: str | None = None

    @field_validator("uid")
    @classmethod
    def _pattern(cls, uid: str | None) -> str | None:
        try:
            re.compile(uid or "")
        except re.error as error:
            raise PydanticCustomError("E_CFG_TYPE", f"{str(uid)[:60]!r}; allowed: a regular expression, and in this {error}") from error
        return uid

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if self.rate_hz is not None and self.speed is not None:
            raise ValueError("give either rate_hz or speed")
        return self


class Header(NamedTuple):
    """What a picture file says of itself before it is decoded."""

    width: int
    height: int


def header_of(data: bytes, name: str) -> Header:
    """Width and height from the first bytes of a PNG, JPEG, BMP, TIFF or PNM file.

    Raises `ConfigError`: E_IMG_FORMAT when it is none of these, E_IMG_TRUNC when it ends too early, E_IMG_PIXELS or E_IMG_SIZE when
    it is too large to be a picture of a part.
    """
    try:
        width, height = _size(data, name)
    except (struct.error, IndexError) as error:
        raise ConfigError("E_IMG_TRUNC", "the file ends within its header", file=name) from error
    if width < 1 or height < 1 or max(width, height) > LONGEST_SIDE:
        raise ConfigError("E_IMG_SIZE", f"{width} × {height} pixels; each side 1 to {LONGEST_SIDE}", file=name)
    if width * height > MOST_PIXELS:
        raise ConfigError("E_IMG_PIXELS", f"{width} × {height} pixels; at most {MOST_PIXELS // 1_000_000} million", file=name)
    return Header(width, height)


def load(path: Path, *, colour: bool) -> Image:
    """The picture in a file, uint8 (H, W) or (H, W, 3) BGR, as it lies in the file (no turning by EXIF).

    Raises `ConfigError` as `header_of`, E_IMG_OPEN, and E_IMG_TRUNC when it cannot be decoded to its end.
    """
    name = str(path)
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError("E_IMG_SIZE", f"the file has more than {LARGEST_FILE_BYTES >> 20} MiB", file=name)
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError("E_IMG_OPEN", error.strerror or str(error), file=name) from error
    header_of(data, name)
    if not _ends_well(data):
        raise ConfigError("E_IMG_TRUNC", "the picture ends too early", file=name)
    flags = (cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ConfigError("E_IMG_TRUNC", f"the picture cannot be decoded: {error.err}", file=name) from error
    if image is None:
        raise ConfigError("E_IMG_TRUNC", "the picture cannot be decoded to its end", file=name)
    return np.asarray(image, np.uint8)


def listed(files: Sequence[Path], key: str = "files", suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """The picture files in these folders and matching these patterns, in order of name.

    Raises `ConfigError`: E_IMG_NONE when there is none, E_IMG_OPEN for a folder that cannot be looked into.
    """
    found: list[Path] = []
    for path in files:
        try:
            paths = _within(path, suffixes)
        except OSError as error:
            raise ConfigError("E_IMG_OPEN", error.strerror or str(error), file=str(path), key=key) from error
        except ValueError as error:
            raise ConfigError("E_IMG_NONE", f"{str(path)!r} is no pattern: {error}", key=key) from error
        if not paths:
            raise ConfigError("E_IMG_NONE", f"{str(path)!r} names no picture ({', '.join(sorted(suffixes))})", key=key)
        found += paths
    return found


def _within(path: Path, suffixes: Collection[str]) -> list[Path]:
    """The pictures of a folder or an archive, or matching a pattern; or the file."""

    def pictures(children: Iterable[Path]) -> list[Path]:
        return sorted(child for child in children if child.suffix.lower() in suffixes and child.is_file())

    if path.is_dir():
        days = (day for day in path.iterdir() if _DAY.fullmatch(day.name) and day.is_dir())
        return pictures(path.iterdir()) or pictures(child for day in days for child in day.iterdir())
    if path.is_file():
        return [path]
    if path.parent.is_dir():  # which may have brackets in its own name
        return pictures(path.parent.glob(path.name))
    anchor = Path(path.anchor)
    return pictures(anchor.glob(str(path.relative_to(anchor))))


class Shot(NamedTuple):
    """One exposure: its picture (None where that is not whole), its stem, and when it was taken by the clock of its own file or archive."""

    image: Image | None
    stem: str
    taken_ns: int | None


class Replay:
    """The files of `settings` as a camera; exposures are numbered from 1."""

    def __init__(self, settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> None:
        self._settings, self._name, self._clock, self._conveyor = settings, name, clock, conveyor
        self._paths = examine(settings)
        self._uid = None if settings.uid is None else re.compile(settings.uid)
        channels = 3 if settings.colour else 1
        self.max_bytes = max((header.width * header.height for header in _headers(self._paths)), default=1) * channels
        self._seq = 0
        self._shots = self._shown()
        self._next: Shot | None = None
        self._next_ns: int | None = None
        self._taken_ns: int | None = None

    def _shown(self) -> Iterator[Shot]:
        """All exposures, again and again if that is asked."""
        while True:
            for path in self._paths:
                if path.suffix.lower() in VIDEOS:
                    yield from _frames(path, colour=self._settings.colour)
                    continue
                try:
                    image = load(path, colour=self._settings.colour)
                except ConfigError:
                    image = None
                yield Shot(image, path.stem, _taken_ns(path))
            if not self._settings.loop:
                return

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The next picture, when its time has come."""
        if self._next is None:
            self._next = next(self._shots, None)
            if self._next is None:
                raise EndOfPictures
            self._next_ns = self._due_ns(self._next)
        shot, due_ns = self._next, self._next_ns
        image = shot.image if shot.image is not None and shot.image.size <= self.max_bytes else None
        picture = np.zeros((1, 1), np.uint8) if image is None else image
        wait_s = 0.0 if due_ns is None else (due_ns - self._clock()) / 1e9
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return None
        into[: picture.size] = picture.reshape(-1)  # before its time: a camera's picture is there when its exposure is over
        if due_ns is not None and (left_ns := due_ns - self._clock()) > 0:
            time.sleep(left_ns / 1e9)
        self._next = None
        self._seq += 1
        at_ns = self._clock() if due_ns is None else due_ns
        uid, counts = self._uid_of(shot.stem), self._conveyor.counts(at_ns)
        return Stamp(self._name, self._seq, at_ns, counts, picture.shape, image is not None, uid)

    def _due_ns(self, shot: Shot) -> int | None:
        """When its time comes, by our clock; None: now."""
        rate_hz, speed = self._settings.rate_hz, self._settings.speed
        if rate_hz is None and speed is None:
            return None
        if self._next_ns is None:
            due_ns = self._clock() + round(self._settings.first_after_ms * 1e6)
        elif rate_hz is not None:
            due_ns = self._next_ns + round(1e9 / rate_hz)
        else:
            pause_ns = max(0, (shot.taken_ns or 0) - (self._taken_ns or 0))
            due_ns = self._next_ns + round(min(pause_ns, self._settings.longest_pause_s * 1e9) / (speed or 1.0))
        self._taken_ns = shot.taken_ns
        return due_ns

    def _uid_of(self, stem: str) -> str | None:
        name = stem.encode(errors="replace").decode()  # a file's name may be any bytes
        if self._uid is None:
            return name[:64]
        match = self._uid.search(name)
        uid = None if match is None else match[1] if self._uid.groups else match[0]
        return None if uid is None else uid[:64]

    def close(self) -> None:
        """Nothing is held open."""


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> Replay:
    """A camera that shows files as if they were taken now, where the belt is now."""
    return Replay(settings, name, clock, conveyor)


def examine(settings: Settings) -> list[Path]:
    """The files that are shown, in their order; none is opened. Raises `ConfigError` E_IMG_NONE, E_IMG_TIME."""
    paths = [path for path in listed(settings.files, suffixes=SUFFIXES | VIDEOS) if _is_of(path, settings.camera)]
    if not paths:
        raise ConfigError("E_IMG_NONE", f"no picture of camera {settings.camera}", key="camera")
    if settings.speed is not None and (timeless := [path for path in paths if _taken_ns(path) is None]):
        raise ConfigError("E_IMG_TIME", "nothing says when this was taken; give rate_hz instead", file=str(timeless[0]), key="speed")
    return paths


def line_shape(settings: Settings) -> tuple[int, ...] | None:
    """(W,) or (W, 3) of a row of the first picture, None where that is not known."""
    with suppress(ConfigError):
        for header in _headers(examine(settings)):
            return (header.width, 3) if settings.colour else (header.width,)
    return None


def _headers(paths: Sequence[Path]) -> Iterator[Header]:
    """The headers of what can be shown; what cannot will be an incomplete exposure when its turn comes."""
    for path in paths:
        try:
            if path.suffix.lower() in VIDEOS:
                yield _video_header(path)
            else:
                yield header_of(_head(path), str(path))
        except (OSError, ConfigError):
            continue


def _head(path: Path) -> bytes:
    """The beginning of a picture file; of a TIFF its directory, which may lie behind the pixels, as if it lay at the beginning."""
    with path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
        if data[:4] not in _TIFF or len(data) < 8:
            return data
        order = "<" if data[:2] == b"II" else ">"
        file.seek(struct.unpack_from(order + "I", data, 4)[0])
        return data[:4] + struct.pack(order + "I", 8) + file.read(_HEAD_BYTES)


def _is_of(path: Path, camera: str | None) -> bool:
    stored = _STORED.fullmatch(path.stem)
    return camera is None or stored is None or stored[2] == camera


def _taken_ns(path: Path) -> int | None:
    """When a stored picture was taken (UTC), and 0 for a video, whose frames count from there."""
    stored = _STORED.fullmatch(path.stem)
    return int(stored[1], 16) if stored else 0 if path.suffix.lower() in VIDEOS else None


def _video_header(path: Path) -> Header:
    """Raises `ConfigError` E_IMG_OPEN for what is no video, E_IMG_PIXELS for one that is too large."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    video.release()
    if width < 1 or height < 1:
        raise ConfigError("E_IMG_OPEN", "no video that can be decoded", file=str(path))
    if width * height > MOST_PIXELS:
        raise ConfigError("E_IMG_PIXELS", f"{width} × {height} pixels; at most {MOST_PIXELS // 1_000_000} million", file=str(path))
    return Header(width, height)


def _frames(path: Path, *, colour: bool) -> Iterator[Shot]:
    """The frames of a video, each with its time since the first; where none can be decoded, one exposure that is not whole."""
    try:
        _video_header(path)
    except ConfigError:
        yield Shot(None, path.stem, 0)
        return
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        number = 0
        while True:
            seen, frame = video.read()
            if not seen:
                if number == 0:
                    yield Shot(None, path.stem, 0)
                return
            taken_ns = round(max(0.0, video.get(cv2.CAP_PROP_POS_MSEC)) * 1e6)
            number += 1
            grey = frame if colour or frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            yield Shot(np.asarray(grey, np.uint8), f"{path.stem}-{number:06d}", taken_ns)
    finally:
        video.release()


def _size(data: bytes, name: str) -> tuple[int, int]:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        return width, abs(height)
    if data[:4] in _TIFF:
        return _tiff_size(data)
    if data[:1] == b"P" and data[1:2] in b"123456":
        numbers = re.match(rb"P\d(?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s", data[:4096])
        if numbers is None:
            raise ConfigError("E_IMG_FORMAT", "the PNM header has no size", file=name)
        return int(numbers[1]), int(numbers[2])
    raise ConfigError("E_IMG_FORMAT", f"neither PNG, JPEG, BMP, TIFF nor PNM: it begins with {data[:8]!r}", file=name)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from the frame header (SOFn); segments before it are skipped by their lengths."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise IndexError
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Width (tag 256) and height (tag 257) of the first page."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, start)
    sides = {}
    for entry in range(entries):
        tag, kind = struct.unpack_from(order + "HH", data, start + 2 + 12 * entry)
        if tag in (256, 257):
            (sides[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 10 + 12 * entry)
    return sides.get(256, 0), sides.get(257, 0)


def _ends_well(data: bytes) -> bool:
    """PNG and JPEG have an end mark; decoders fill up with grey what is missing before it, which must not be judged."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-64:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in data[-4096:]
    return True
