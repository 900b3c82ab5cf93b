"""What OpenCV can open: an RTSP or HTTP camera, a USB camera, a video file.

OpenCV can block for ever in opening and in reading, and after a stall goes on showing old pictures as new. So a thread of its own does
both, time is judged by the clock alone, and a reader that has stalled is abandoned (it ends when OpenCV lets it) while a new one is built.
A picture that was waited for as long as a stall is thrown away. Where more than a few abandoned readers hang, the camera stays down:
`isolated: true` on the camera then lets the whole process be killed.

An RTSP stream says when its pictures were taken, and each is dated by that: the shortest way that one has had since the opening is the way.
What was on its way before we listened (the burst at the opening) is thrown away. A picture that comes more than `lag_ms` later than the
quickest is an exposure that came incomplete, and no picture in time for `stall_ms` is a lost camera: a queue before us is left behind by
opening anew. A delay that is there from the opening on is part of the way: it belongs into the time that a part has. What is no RTSP
(USB, MJPEG over HTTP) does not say when, and is dated by its arrival; nor can OpenCV tell which frames of a video it has repaired.

A camera that begins to send another size is built anew, and is down where `size_px` asks for another one. H.264 and H.265 that change it
without a new connection are stretched to the size before by OpenCV, which does not say so: change a camera's size while it is disconnected.

These cameras do not number their exposures: the count is of the pictures that arrived, which is why the `permit` profile with
`count: frames` refuses them: it could not promise that no part was missed. Only the newest picture is kept; what is overwritten
before it is taken shows as a gap in `seq`.

    source:
      kind: opencv
      url: rtsp://192.168.1.20/stream1      # or a file, or device: 0 for /dev/video0
      size_px: [1920, 1080] # what it must send; leave it away for whatever it sends
      colour: false
      open_ms: 5000
      stall_ms: 2000
      lag_ms: 200
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
from pydantic import Field, model_validator

from inspector.config import Strict
from inspector.interfaces import Clock, Conveyor, EndOfPictures
from inspector.records import DeviceError, Image, Stamp, without_login
from inspector.sources._genicam import Found

if TYPE_CHECKING:
    from inspector.records import Bytes1D

NUMBERS_EXPOSURES = False
MOST_HANGING = 3
CLOSE_S = 1.0
DRIFT = 200e-6
"""So much faster or slower than ours a camera's clock may go; what is more is lag."""
SETTLED = 3
SETTLE_MS = 10_000
TIMED = ("rtsp://", "rtsps://", "rtspu://")
"""Streams whose pictures come with their times; for others FFmpeg makes some up."""


class Settings(Strict):
    """One of `url` and `device`; `open_ms` for the first word of the camera; `stall_ms` without a picture means that it is gone.

    A picture of an RTSP stream that comes more than `lag_ms` later than the quickest is not judged.
    `size_px` (width, height) and `rate_hz` are asked of a `device`, and read back; a stream or file must have that size, where it is set.
    """

    url: str | None = None
    device: int | None = Field(default=None, ge=0)
    size_px: tuple[int, int] | None = None
    rate_hz: float | None = Field(default=None, gt=0, le=10_000)
    colour: bool = False
    open_ms: int = Field(default=5_000, ge=100, le=60_000)
    stall_ms: int = Field(default=2_000, ge=100, le=60_000)
    lag_ms: int = Field(default=200, ge=10, le=60_000)

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if (self.url is None) == (self.device is None):
            raise ValueError("give either url or device")
        if self.device is None and self.rate_hz is not None:
            raise ValueError("rate_hz is for a device; a stream and a file have their own")
        return self


class _Taken(NamedTuple):
    """A picture: its number, when it was taken by our clock, and whether it came in time to be judged."""

    seq: int
    at_ns: int
    image: Image
    in_time: bool


class StreamClock:
    """How late the pictures of a stream come that says when they were taken.

    The way of a picture is the time from its exposure to its arrival, up to a constant. The shortest since the opening counts as
    the way itself, and becomes longer by no more than clocks drift: a delay that grows is never taken for the way.
    """

    def __init__(self) -> None:
        self._shortest_ns: float | None = None
        self._pos_ns = self._arrived_ns = 0
        self._rises = False
        self._waited = 0

    def lag_ns(self, pos_ns: int, asked_ns: int, arrived_ns: int) -> int | None:
        """How much longer this picture's way was than the shortest; None for one that had been on its way before we listened.

        `pos_ns` is the stream's own time of it. A burst's ways become shorter and shorter: it is over when several pictures have been
        waited for whose ways did not. A stream whose time stands still does not say how late it is: 0.
        """
        way_ns, step_ns = arrived_ns - pos_ns, pos_ns - self._pos_ns
        shortest_ns = way_ns if self._shortest_ns is None else self._shortest_ns + DRIFT * (arrived_ns - self._arrived_ns)
        first = self._shortest_ns is None
        self._shortest_ns, self._pos_ns, self._arrived_ns = min(shortest_ns, way_ns), pos_ns, arrived_ns
        if first:
            return None
        self._rises |= step_ns > 0
        if not self._rises:
            return 0
        if self._waited == SETTLED:
            return round(way_ns - self._shortest_ns)
        if shortest_ns - way_ns > step_ns / 10:
            self._waited = 0
        elif arrived_ns - asked_ns > step_ns / 2:
            self._waited += 1
        return None


class _Reader:
    """A thread that opens and reads as long as OpenCV lets it, and may be left behind at any moment.

    `size_px` is (width, height) once it is open, None before, and (0, 0) where it cannot be opened; `trouble` says why it ended.
    """

    def __init__(self, settings: Settings, target: str | int, clock: Clock, name: str, *, waits: bool) -> None:
        self.latest: _Taken | None = None
        self.size_px: tuple[int, int] | None = None
        self.ended = self.abandoned = False
        self.trouble = ""
        self.at_ns = clock()
        self.late = 0
        self._settings, self._target, self._clock, self._waits = settings, target, clock, waits
        self._times = StreamClock() if isinstance(target, str) and target.lower().startswith(TIMED) else None
        self.bell = threading.Condition()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            capture = _open(self._target, self._settings)
            self._opened(capture)
            if self.size_px != (0, 0):
                self._read(capture)
            capture.release()
        except cv2.error as error:
            self.trouble = f"failed: {error.err}"
        finally:
            with self.bell:
                self.ended = True
                self.bell.notify_all()

    def _opened(self, capture: Any) -> None:
        size_px = (0, 0)
        if not capture.isOpened():
            self.trouble = "cannot be opened"
        else:
            width, height = (int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            asked = self._settings.size_px or (width, height)
            rate_hz = capture.get(cv2.CAP_PROP_FPS) if self._settings.rate_hz is not None else 0.0
            if width < 1 or height < 1:
                self.trouble = "does not say the size of its pictures"
            elif asked != (width, height):
                self.trouble = f"size_px is {width} × {height}, asked for {asked[0]} × {asked[1]}"
            elif self._settings.rate_hz is not None and abs(rate_hz - self._settings.rate_hz) > 0.01 * self._settings.rate_hz:
                self.trouble = f"rate_hz is {rate_hz:g}, asked for {self._settings.rate_hz:g}"
            else:
                size_px = (width, height)
        with self.bell:
            self.size_px, self.at_ns = size_px, self._clock()
            self.bell.notify_all()

    def _read(self, capture: Any) -> None:
        seq, opened_ns = 0, self._clock()
        in_time_ns = opened_ns
        while not self.abandoned:
            asked_ns = self._clock()
            ok, image = capture.read()
            self.at_ns = now_ns = self._clock()
            if not ok:
                self.trouble = "ended"
                return
            if now_ns - asked_ns > self._settings.stall_ms * 1_000_000:
                self.trouble = f"no picture for {self._settings.stall_ms} ms"
                return
            lag_ns = 0
            if self._times is not None:
                settling = self._times.lag_ns(round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6), asked_ns, now_ns)
                if settling is None:
                    in_time_ns = now_ns
                    if now_ns - opened_ns > SETTLE_MS * 1_000_000:
                        self.trouble = f"shows what had been on its way before, {SETTLE_MS} ms after it was opened"
                        return
                    continue
                lag_ns = settling
            late = lag_ns > self._settings.lag_ms * 1_000_000
            if not late:
                in_time_ns = now_ns
            elif now_ns - in_time_ns > self._settings.stall_ms * 1_000_000:
                self.trouble = f"no picture in time for {self._settings.stall_ms} ms; the last one came {lag_ns // 1_000_000} ms late"
                return
            self.late += late
            if not self._settings.colour and image.ndim == 3:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            seq += 1
            with self.bell:
                if self._waits:
                    self.bell.wait_for(lambda: self.latest is None or self.abandoned)
                self.latest = _Taken(seq, now_ns - lag_ns, image, not late)
                self.bell.notify_all()

    def open(self, timeout_s: float) -> tuple[int, int] | None:
        """The size of its pictures, (0, 0) for none, None when it did not open in time."""
        with self.bell:
            self.bell.wait_for(lambda: self.size_px is not None or self.ended, timeout_s)
            return self.size_px or ((0, 0) if self.ended else None)

    def take(self, timeout_s: float) -> _Taken | None:
        """The newest picture that nobody has taken."""
        with self.bell:
            self.bell.wait_for(lambda: self.latest is not None or self.ended, timeout_s)
            taken, self.latest = self.latest, None
            self.bell.notify_all()
            return taken

    def abandon(self) -> None:
        """Nobody will take its pictures any more."""
        with self.bell:
            self.abandoned = True
            self.bell.notify_all()


class OpenCvCamera:
    """A camera or a file behind `cv2.VideoCapture`; a file waits for its reader and ends, a camera does neither."""

    def __init__(self, settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> None:
        self._settings, self._name, self._clock, self._conveyor = settings, name, clock, conveyor
        self._target: str | int = settings.url if settings.url is not None else settings.device or 0
        self._shown = without_login(str(self._target))
        self._is_file = isinstance(self._target, str) and os.path.isfile(self._target)  # noqa: PTH113 - a URL is no path
        thread = f"opencv-{name}"
        hanging = sum(other.name == thread for other in threading.enumerate())
        if hanging >= MOST_HANGING:
            raise DeviceError(f"camera {name}: {hanging} readers of {self._shown} hang in OpenCV; isolated: true would let them be killed")
        self._reader = _Reader(settings, self._target, clock, thread, waits=self._is_file)
        size_px = self._reader.open(settings.open_ms / 1e3)
        if not size_px or 0 in size_px:
            self._reader.abandon()
            why = self._reader.trouble if size_px else f"did not open within {settings.open_ms} ms"
            raise DeviceError(f"camera {name}: {self._shown} {why}")
        self.counts: Mapping[str, int] = {}
        self._shape = (size_px[1], size_px[0])
        self.max_bytes = size_px[0] * size_px[1] * (3 if settings.colour else 1)

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The newest picture; a stall or the end of a stream is a `DeviceError`, the end of a file is the end."""
        taken = self._reader.take(timeout_s)
        if taken is None:
            if self._reader.ended:
                if self._is_file:
                    raise EndOfPictures
                raise DeviceError(f"camera {self._name}: {self._shown} {self._reader.trouble}")
            if self._clock() - self._reader.at_ns > self._settings.stall_ms * 1_000_000:
                raise DeviceError(f"camera {self._name}: no picture for {self._settings.stall_ms} ms")
            return None
        seq, at_ns, image, in_time = taken
        self.counts = {"late": self._reader.late}
        if image.shape[:2] != self._shape:
            (height, width), (rows, columns) = image.shape[:2], self._shape
            raise DeviceError(f"camera {self._name} sends {width} × {height} pixels now, {columns} × {rows} before")
        into[: image.size] = image.reshape(-1)
        return Stamp(self._name, seq, at_ns, self._conveyor.counts(at_ns), image.shape, in_time)

    def close(self) -> None:
        """Wait a little for the reader; where OpenCV does not return to it, it is left behind, and lets the device go when that does."""
        self._reader.abandon()
        self._reader.thread.join(CLOSE_S)


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> OpenCvCamera:
    """A camera that OpenCV can open; raises `DeviceError` when it cannot now."""
    return OpenCvCamera(settings, name, clock, conveyor)


def devices() -> list[Found]:
    """The USB cameras that the kernel knows; cameras of the network are known by their addresses only."""
    found = []
    for entry in sorted(Path("/sys/class/video4linux").glob("video*")):
        name = (entry / "name").read_text().strip()
        found.append(Found("opencv", "", name, "", f"/dev/{entry.name}", {"device": int(entry.name.removeprefix("video"))}))
    return found


def _open(target: str | int, settings: Settings) -> Any:
    if isinstance(target, int):
        capture = cv2.VideoCapture(target)
        if settings.size_px is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.size_px[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.size_px[1])
        if settings.rate_hz is not None:
            capture.set(cv2.CAP_PROP_FPS, settings.rate_hz)
        return capture
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, settings.open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, settings.stall_ms]
    return cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits)
