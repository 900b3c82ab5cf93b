"""What OpenCV can open: an RTSP or HTTP camera, a USB camera, a video file.

OpenCV's reader can block for ever, and after a stall goes on showing old pictures as new. So a thread of its own reads, time is
judged by the clock alone, and a reader that has stalled is abandoned (it ends when OpenCV lets it) while a new one is built. These cameras
do not number their exposures: the count is of the pictures that arrived, which is why the `permit` profile with `count: frames` refuses
them: it could not promise that no part was missed. Only the newest picture is kept; what is overwritten before it is taken shows as a gap
in `seq`.

    source:
      kind: opencv
      url: rtsp://192.168.1.20/stream1      # or a file, or device: 0 for /dev/video0
      colour: false
      stall_ms: 2000
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import cv2
from pydantic import Field, model_validator

from inspector.config import Strict
from inspector.interfaces import Clock, Conveyor, EndOfPictures
from inspector.records import DeviceError, Image, Stamp

if TYPE_CHECKING:
    from inspector.records import Bytes1D

NUMBERS_EXPOSURES = False
OPEN_TIMEOUT_MS = 3_000


class Settings(Strict):
    """One of `url` and `device`; `stall_ms` without a picture means that the camera is gone."""

    url: str | None = None
    device: int | None = Field(default=None, ge=0)
    colour: bool = False
    stall_ms: int = Field(default=2_000, ge=100, le=60_000)

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if (self.url is None) == (self.device is None):
            raise ValueError("give either url or device")
        return self


class _Reader:
    """A thread that reads as long as OpenCV lets it, and may be left behind at any moment."""

    def __init__(self, capture: Any, colour: bool, clock: Clock, waits: bool) -> None:
        self.latest: tuple[int, int, Image] | None = None
        self.ended = self.abandoned = False
        self.at_ns = clock()
        self._capture, self._colour, self._clock, self._waits = capture, colour, clock, waits
        self.bell = threading.Condition()
        threading.Thread(target=self._run, name="opencv-reader", daemon=True).start()

    def _run(self) -> None:
        seq = 0
        while not self.abandoned:
            ok, image = self._capture.read()
            now_ns = self._clock()
            if not ok:
                break
            if not self._colour and image.ndim == 3:
                image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            seq += 1
            with self.bell:
                if self._waits:
                    self.bell.wait_for(lambda: self.latest is None or self.abandoned)
                self.latest, self.at_ns = (seq, now_ns, image), now_ns
                self.bell.notify_all()
        with self.bell:
            self.ended = True
            self.bell.notify_all()
        self._capture.release()

    def take(self, timeout_s: float) -> tuple[int, int, Image] | None:
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
        self._is_file = isinstance(self._target, str) and os.path.isfile(self._target)  # noqa: PTH113 - a URL is no path
        capture = _open(self._target, settings.stall_ms)
        if not capture.isOpened():
            raise DeviceError(f"camera {name}: {self._target} cannot be opened")
        width, height = (int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width < 1 or height < 1:
            capture.release()
            raise DeviceError(f"camera {name}: {self._target} does not say the size of its pictures")
        self.max_bytes = width * height * (3 if settings.colour else 1)
        self._reader = _Reader(capture, settings.colour, clock, self._is_file)

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The newest picture; a stall or the end of a stream is a `DeviceError`, the end of a file is the end."""
        taken = self._reader.take(timeout_s)
        if taken is None:
            if self._reader.ended:
                if self._is_file:
                    raise EndOfPictures
                raise DeviceError(f"camera {self._name}: {self._target} ended")
            if self._clock() - self._reader.at_ns > self._settings.stall_ms * 1_000_000:
                raise DeviceError(f"camera {self._name}: no picture for {self._settings.stall_ms} ms")
            return None
        seq, at_ns, image = taken
        if image.size > self.max_bytes:
            raise DeviceError(f"camera {self._name}: its pictures have become larger: {image.shape}")
        into[: image.size] = image.reshape(-1)
        return Stamp(self._name, seq, at_ns, self._conveyor.counts(at_ns), image.shape)

    def close(self) -> None:
        """Leave the reader behind; it lets the device go when OpenCV returns to it."""
        self._reader.abandon()


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> OpenCvCamera:
    """A camera that OpenCV can open; raises `DeviceError` when it cannot now."""
    return OpenCvCamera(settings, name, clock, conveyor)


def _open(target: str | int, stall_ms: int) -> Any:
    if isinstance(target, int):
        return cv2.VideoCapture(target)
    return cv2.VideoCapture(
        target, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, stall_ms]
    )
