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
    monkeypatch.setattr(opencv, "CLOSE_S", 0.01)
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


@pytest.mark.parametrize("shape", [(8, 8, 3), (16, 8, 3), (16, 32, 3)])
def test_another_size_in_the_middle_of_a_stream_is_a_lost_camera(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]) -> None:
    capture = Hanging(1)
    monkeypatch.setattr(capture, "read", lambda: (True, np.zeros(shape, np.uint8)))
    monkeypatch.setattr(opencv, "_open", lambda target, settings: capture)
    source = build(Settings(url="http://camera/1"), "c", lambda: 0, Timed(1.0))
    with pytest.raises(DeviceError, match=f"sends {shape[1]} × {shape[0]} pixels now, 16 × 8 before"):
        source.read(np.empty(source.max_bytes, np.uint8), 5.0)
    source.close()


def test_nothing_there_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="cannot be opened"):
        build(Settings(url="/nowhere/at/all.avi"), "c", lambda: 0, Timed(1.0))


class Stream(Hanging):
    """An RTSP stream of 10 pictures a second: each comes when its list says, in ms, and is the picture of `pos_ms`."""

    def __init__(self, shots: list[tuple[int, int]], clock_ns: list[int]) -> None:
        super().__init__(0)
        self.shots, self.clock_ns, self.pos_ms = iter(shots), clock_ns, 0
        self.asked, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def get(self, prop: int) -> float:
        return float(self.pos_ms) if prop == cv2.CAP_PROP_POS_MSEC else super().get(prop)

    def read(self) -> tuple[bool, Any]:
        self.asked.release()
        self.go.acquire()
        arrived_ms, self.pos_ms = next(self.shots, (0, -1))
        self.clock_ns[0] = arrived_ms * 1_000_000
        return self.pos_ms >= 0, np.full((8, 16, 3), 100, np.uint8)


def streamed(monkeypatch: pytest.MonkeyPatch, shots: list[tuple[int, int]], url: str = "rtsp://camera/1") -> list[tuple[int, int, bool]]:
    """Seq, claimed time in ms and whether it was in time, of each picture that was shown, until the stream has ended."""
    clock_ns = [0]
    capture = Stream(shots, clock_ns)
    monkeypatch.setattr(opencv, "_open", lambda target, settings: capture)
    source = build(Settings(url=url), "c", lambda: clock_ns[0], Timed(1.0))
    into, seen = np.empty(source.max_bytes, np.uint8), []
    try:
        for _ in range(len(shots) + 1):
            while not capture.asked.acquire(timeout=0.02) and not source._reader.ended:
                pass
            stamp = source.read(into, 0.0)
            if stamp is not None:
                seen.append((stamp.seq, round(stamp.at_ns / 1e6), stamp.complete))
            capture.go.release()
        source.read(into, 5.0)
    except DeviceError as error:
        seen.append((0, 0, "in time" in str(error)))
    finally:
        capture.go.release()
        source.close()
    return seen


BURST = [(2000 + n, 100 * n) for n in range(20)]


def test_what_was_on_its_way_at_the_opening_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = streamed(monkeypatch, [*BURST, *((100 * n + 50, 100 * n) for n in range(20, 30))])
    assert seen == [*((n - 23, 100 * n + 50, True) for n in range(24, 30)), (0, 0, False)]


def test_a_stream_that_lags_is_dated_by_its_own_times_and_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay grows by 50 ms a picture."""
    good = [(100 * n + 50, 100 * n) for n in range(20, 30)]
    late = [(100 * n + 50 + min(1500, 50 * (n - 29)), 100 * n) for n in range(30, 60)]
    *seen, end = streamed(monkeypatch, [*BURST, *good, *late])
    assert [at for _, at, _ in seen] == pytest.approx([100 * n + 50 for n in range(24, 24 + len(seen))], abs=1)
    assert [complete for *_, complete in seen] == [True] * 10 + [False] * (len(seen) - 10)
    assert end == (0, 0, True), "no picture in time for stall_ms"


def test_a_stream_without_times_of_its_own_is_dated_by_its_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = [(100 * n, 40 * n) for n in range(1, 30)]
    assert streamed(monkeypatch, shots, "http://camera/1.mjpg") == [*((n, 100 * n, True) for n in range(1, 30)), (0, 0, False)]
    still = [(100 * n, 7) for n in range(1, 30)]
    assert streamed(monkeypatch, still) == [*((n - 1, 100 * n, True) for n in range(2, 30)), (0, 0, False)]


def test_a_clock_that_drifts_is_followed_and_a_jump_of_it_is_not() -> None:
    clock = opencv.StreamClock()
    lags = [clock.lag_ns(n * 100_000_000, n * 100_015_000 - 90_000_000, n * 100_015_000) for n in range(1, 36_000)]
    assert lags[:4] == [None] * 4
    assert max(lag for lag in lags[4:] if lag is not None) < 1_000_000, "150 ppm for an hour"
    jumped = clock.lag_ns(36_000 * 100_000_000 - 500_000_000, 0, 36_000 * 100_015_000)
    assert jumped == pytest.approx(500_000_000, rel=0.01)


@pytest.mark.parametrize("url", ["rtsp://anna:secret@127.0.0.1:1/cam1", "rtsp://anna:sec/r@et@127.0.0.1:1/cam1"])
def test_nobody_reads_the_password(url: str) -> None:
    with pytest.raises(DeviceError, match=r"camera c: rtsp://\*\*\*@127.0.0.1:1/cam1 cannot be opened"):
        build(Settings(url=url), "c", lambda: 0, Timed(1.0))
    from inspector.config import Kind
    from inspector.records import ConfigError

    with pytest.raises(ConfigError) as refused:
        settings_of("sources", Kind.model_validate({"kind": "opencv", "device": url}), Settings)
    assert "***@127.0.0.1" in str(refused.value)
    assert "anna" not in str(refused.value)


def test_one_of_url_and_device() -> None:
    from inspector.config import Kind
    from inspector.records import ConfigError

    for extra in ({}, {"url": "x", "device": 1}):
        with pytest.raises(ConfigError, match="either url or device"):
            settings_of("sources", Kind.model_validate({"kind": "opencv", **extra}), Settings)


def test_readers_that_hang_for_ever_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "CLOSE_S", 0.01)
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


def test_a_stream_of_another_size_than_it_must_have_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "_open", lambda target, settings: Hanging(0))
    with pytest.raises(DeviceError, match="size_px is 16 × 8, asked for 640 × 480"):
        build(Settings(url="rtsp://camera/1", size_px=(640, 480)), "c", lambda: 0, Timed(1.0))
    with pytest.raises(ValueError, match="rate_hz is for a device"):
        Settings(url="rtsp://camera/1", rate_hz=25.0)


def test_a_device_that_does_not_keep_its_size_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv, "_open", lambda target, settings: Hanging(0))
    with pytest.raises(DeviceError, match="size_px is 16 × 8, asked for 640 × 480"):
        build(Settings(device=0, size_px=(640, 480)), "c", lambda: 0, Timed(1.0))
    with pytest.raises(DeviceError, match="rate_hz is 8, asked for 30"):
        build(Settings(device=0, rate_hz=30.0), "c", lambda: 0, Timed(1.0))
