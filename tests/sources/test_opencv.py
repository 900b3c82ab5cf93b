"""A reader that may hang is never waited for: time is judged by the clock, and what hangs is left behind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector.config import settings_of
from inspector.conveyor.timed import Timed
from inspector.interfaces import EndOfPictures
from inspector.records import DeviceError
from inspector.sources import opencv
from inspector.sources.opencv import Settings, build


class Hanging:
    """A capture that shows `good` pictures and then never returns, as OpenCV does when a camera stops in the middle of a picture."""

    def __init__(self, good: int) -> None:
        self.good, self.shown, self.released = good, 0, threading.Event()
        self.let_go = threading.Event()

    def isOpened(self) -> bool:
        return True

    def get(self, prop: int) -> float:
        return 16.0 if prop == cv2.CAP_PROP_FRAME_WIDTH else 8.0

    def read(self) -> tuple[bool, Any]:
        if self.shown == self.good:
            self.let_go.wait()
            return False, None
        self.shown += 1
        return True, np.full((8, 16, 3), self.shown, np.uint8)

    def release(self) -> None:
        self.released.set()


def taken(source: Any) -> list[tuple[int, int]]:
    into, seen = np.empty(source.max_bytes, np.uint8), []
    for _ in range(1000):
        try:
            stamp = source.read(into, 0.05)
        except EndOfPictures:
            break
        if stamp is not None:
            seen.append((stamp.seq, int(into[0])))
    return seen


def test_a_file_is_shown_whole_however_slowly_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in range(0, 200, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    source = build(Settings(url=str(path)), "c", lambda: 0, Timed(1.0))
    assert source.max_bytes == 64 * 48
    seen = taken(source)
    assert [seq for seq, _ in seen] == list(range(1, 11))
    assert [level for _, level in seen] == pytest.approx(range(0, 200, 20), abs=3)
    source.close()


def test_a_reader_that_hangs_is_a_lost_camera_and_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Hanging(1)
    monkeypatch.setattr(opencv, "_open", lambda target, settings: capture)
    now_ns = [0]
    source = build(Settings(device=0, stall_ms=500), "c", lambda: now_ns[0], Timed(1.0))
    into = np.empty(source.max_bytes, np.uint8)
    stamp = source.read(into, 5.0)
    assert stamp is not None
    assert (stamp.seq, stamp.shape, int(into[0])) == (1, (8, 16), 1)
    assert source.read(into, 0.01) is None
    now_ns[0] = 600_000_000
    with pytest.raises(DeviceError, match="no picture for 500 ms"):
        source.read(into, 0.01)
    source.close()
    assert not capture.released.is_set()
    capture.let_go.set()
    assert capture.released.wait(5)


def test_a_stream_that_ends_is_a_lost_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Hanging(0)
    capture.let_go.set()
    monkeypatch.setattr(opencv, "_open", lambda target, settings: capture)
    source = build(Settings(url="rtsp://camera/1"), "c", lambda: 0, Timed(1.0))
    with pytest.raises(DeviceError, match="ended"):
        taken(source)


def test_only_the_newest_picture_waits_and_what_it_replaced_shows_as_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Hanging(5)
    monkeypatch.setattr(opencv, "_open", lambda target, settings: capture)
    source = build(Settings(device=0), "c", lambda: 0, Timed(1.0))
    while capture.shown < 5 or source._reader.latest is None or source._reader.latest[0] < 5:
        threading.Event().wait(0.005)
    stamp = source.read(np.empty(source.max_bytes, np.uint8), 1.0)
    assert stamp is not None
    assert stamp.seq == 5
    capture.let_go.set()


def test_nothing_there_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="cannot be opened"):
        build(Settings(url="/nowhere/at/all.avi"), "c", lambda: 0, Timed(1.0))


def test_one_of_url_and_device() -> None:
    from inspector.config import Kind
    from inspector.records import ConfigError

    for extra in ({}, {"url": "x", "device": 1}):
        with pytest.raises(ConfigError, match="either url or device"):
            settings_of("sources", Kind.model_validate({"kind": "opencv", **extra}), Settings)


def test_readers_that_hang_for_ever_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = [Hanging(0) for _ in range(opencv.MOST_HANGING)]
    left = list(captures)
    monkeypatch.setattr(opencv, "_open", lambda target, settings: left.pop())
    for _ in captures:
        build(Settings(device=0), "hung", lambda: 0, Timed(1.0)).close()
    with pytest.raises(DeviceError, match=r"3 readers of 0 hang in OpenCV; isolated: true"):
        build(Settings(device=0), "hung", lambda: 0, Timed(1.0))
    for capture in captures:
        capture.let_go.set()


def test_opening_that_hangs_is_left_behind_too(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    def never(target: object, settings: Settings) -> Any:
        let_go.wait()
        return Hanging(0)

    monkeypatch.setattr(opencv, "_open", never)
    with pytest.raises(DeviceError, match="did not open within 100 ms"):
        build(Settings(device=0, open_ms=100), "slow", lambda: 0, Timed(1.0))
    let_go.set()


def test_a_device_that_does_not_keep_its_size_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "_open", lambda target, settings: Hanging(0))
    with pytest.raises(DeviceError, match="size_px is 16 × 8, asked for 640 × 480"):
        build(Settings(device=0, size_px=(640, 480)), "c", lambda: 0, Timed(1.0))
    with pytest.raises(DeviceError, match="rate_hz is 8, asked for 30"):
        build(Settings(device=0, rate_hz=30.0), "c", lambda: 0, Timed(1.0))
