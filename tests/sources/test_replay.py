"""Files as a camera: in order, at their rate, and what is broken is an exposure that came incomplete."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inspector.conveyor.timed import Timed
from inspector.interfaces import EndOfPictures
from inspector.records import ConfigError, Stamp
from inspector.sources import replay
from inspector.sources.replay import Settings, build, header_of, load


def picture(folder: Path, name: str, level: int = 100, shape: tuple[int, ...] = (20, 30)) -> Path:
    path = folder / name
    assert cv2.imwrite(str(path), np.full(shape, level, np.uint8))
    return path


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1_000_000_000
        monkeypatch.setattr("inspector.sources.replay.time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def __call__(self) -> int:
        return self.now_ns


def shown(clock: Clock, limit: int = 100, **settings: Any) -> list[tuple[Stamp, int]]:
    """Stamps and the level of each picture, until the end."""
    conveyor = Timed(1000.0)
    conveyor.start(0)
    source = build(Settings(**settings), "c", clock, conveyor)
    into = np.empty(source.max_bytes, np.uint8)
    seen: list[tuple[Stamp, int]] = []
    try:
        while len(seen) < limit:
            stamp = source.read(into, 0.05)
            if stamp is not None:
                seen.append((stamp, int(into[0])))
    except EndOfPictures:
        pass
    return seen


def test_files_come_in_order_of_name_with_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in enumerate(["b_test.png", "a_test.png", "c_temp.png"]):
        picture(tmp_path, name, 10 + n)
    (tmp_path / "notes.txt").write_text("no picture")
    seen = shown(Clock(monkeypatch), files=[tmp_path], uid=r"^(\w)_")
    assert [(stamp.seq, stamp.uid, level) for stamp, level in seen] == [(1, "a", 11), (2, "b", 10), (3, "c", 12)]
    only = shown(Clock(monkeypatch), files=[tmp_path / "*_test.png"])
    assert [stamp.uid for stamp, _ in only] == ["a_test", "b_test"]


def test_the_rate_is_kept_and_the_loop_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        picture(tmp_path, f"{n}.png", n + 1)
    seen = shown(Clock(monkeypatch), limit=7, files=[tmp_path], rate_hz=10, loop=True)
    assert [stamp.at_ns for stamp, _ in seen] == [1_000_000_000 + n * 100_000_000 for n in range(7)]
    assert [stamp.at_counts for stamp, _ in seen] == [1000 + n * 100 for n in range(7)]
    assert [level for _, level in seen] == [1, 2, 3, 1, 2, 3, 1]


def test_the_first_picture_may_be_late_and_is_there_when_its_time_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path, "0.png", 7)
    clock = Clock(monkeypatch)
    seen = shown(clock, limit=2, files=[tmp_path], rate_hz=10, loop=True, first_after_ms=25)
    assert [(stamp.at_ns, level) for stamp, level in seen] == [(1_025_000_000, 7), (1_125_000_000, 7)]
    source = build(Settings(files=[tmp_path], rate_hz=1, first_after_ms=40), "c", clock, Timed(1000.0))
    into = np.zeros(source.max_bytes, np.uint8)
    assert source.read(into, 0.05) is not None
    again = build(Settings(files=[tmp_path], rate_hz=1, first_after_ms=100), "c", clock, Timed(1000.0))
    into[:] = 0
    assert again.read(into, 0.05) is None
    assert not into.any()
    assert again.read(into, 0.05) is not None
    assert into[0] == 7


def test_broken_files_are_incomplete_exposures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    for suffix in ("png", "jpg"):
        whole = cv2.imencode(f".{suffix}", noise)[1].tobytes()
        (tmp_path / f"a.{suffix}").write_bytes(whole)
        (tmp_path / f"b.{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.png").write_text("<svg/>")
    seen = shown(Clock(monkeypatch), files=[tmp_path])
    assert {stamp.uid: stamp.complete for stamp, _ in seen if stamp.uid in ("c", "d")} == {"c": False, "d": False}
    assert [stamp.complete for stamp, _ in seen] == [True, True, False, False, False, False]


def test_colour_is_kept_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path, "a.png", shape=(5, 7, 3))
    assert shown(Clock(monkeypatch), files=[tmp_path], colour=True)[0][0].shape == (5, 7, 3)
    assert shown(Clock(monkeypatch), files=[tmp_path])[0][0].shape == (5, 7)


def test_no_picture_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"E_IMG_NONE.*names no picture"):
        build(Settings(files=[tmp_path]), "c", lambda: 0, Timed(1.0))
    with pytest.raises(ValidationError, match=r"'\('; allowed: a regular expression"):
        Settings(files=[picture(tmp_path, "a.png")], uid="(")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is this large; few bytes, and as many pixels as it likes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bomb(30_000, 30_000), "E_IMG_PIXELS"),
        (bomb(40_000, 1), "E_IMG_SIZE"),
        (bomb(0, 5), "E_IMG_SIZE"),
        (bomb(5, 5), "E_IMG_TRUNC"),
        (b"GIF89a" + bytes(40), "E_IMG_FORMAT"),
        (b"\xff\xd8\xff\xe0", "E_IMG_TRUNC"),
        (b"II*\0\xff\xff\xff\xff", "E_IMG_TRUNC"),
        (b"", "E_IMG_FORMAT"),
    ],
)
def test_a_file_is_refused_before_it_is_decoded(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as refused:
        load(path, colour=False)
    assert refused.value.code == code
    assert refused.value.file == str(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "pgm"])
def test_headers_say_what_decoding_gives(tmp_path: Path, suffix: str) -> None:
    path = picture(tmp_path, f"x.{suffix}", shape=(21, 34))
    assert header_of(path.read_bytes(), "x") == (34, 21)
    assert load(path, colour=False).shape == (21, 34)


def test_a_photograph_is_not_turned_by_what_its_exif_says(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    jpeg = cv2.imencode(".jpg", np.zeros((20, 30), np.uint8))[1].tobytes()
    path = tmp_path / "x.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    assert header_of(path.read_bytes(), "x") == (30, 20)
    assert load(path, colour=False).shape == (20, 30)


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b"II*\0", b"MM\0*", b"P5 ", b""]), st.binary(max_size=200))
def test_any_bytes_are_a_size_or_a_refusal(start: bytes, rest: bytes) -> None:
    codes = []
    try:
        header = header_of(start + rest, "x")
    except ConfigError as error:
        codes.append(error.code)
    assert codes[0].startswith("E_IMG_") if codes else header.width * header.height <= replay.MOST_PIXELS


def stored(folder: Path, second: float, level: int, camera: str = "top", day: str = "20260105") -> Path:
    """A picture as the archive keeps it."""
    (folder / day).mkdir(exist_ok=True)
    return picture(folder / day, f"{day}-{round(second * 1e9) + 10**18:016x}-p-{camera}-{level}.png", level)


def test_a_stored_day_comes_as_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for second, level in ((0.0, 1), (0.25, 2), (1.0, 3), (4000.0, 4)):
        stored(tmp_path, second, level)
    stored(tmp_path, 5000.0, 5, day="20260106")
    stored(tmp_path, 0.5, 9, camera="side")
    for files in ([tmp_path], [tmp_path / "20260105", tmp_path / "20260106"]):
        seen = shown(Clock(monkeypatch), files=files, camera="top", speed=0.5, longest_pause_s=20.0)
        assert [level for _, level in seen] == [1, 2, 3, 4, 5]
        times = [stamp.at_ns - seen[0][0].at_ns for stamp, _ in seen]
        assert times == [0, 500_000_000, 2_000_000_000, 42_000_000_000, 82_000_000_000]
    assert [level for _, level in shown(Clock(monkeypatch), files=[tmp_path / "20260105"])] == [1, 2, 9, 3, 4]
    with pytest.raises(ConfigError, match="no picture of camera front"):
        build(Settings(files=[tmp_path], camera="front"), "c", lambda: 0, Timed(1.0))


def test_a_video_is_its_frames_in_their_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "x.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in range(0, 200, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    (tmp_path / "y.mp4").write_bytes(b"no video")
    seen = shown(Clock(monkeypatch), limit=22, files=[tmp_path], speed=2.0, loop=True)
    assert [stamp.complete for stamp, _ in seen[:11]] == [True] * 10 + [False]
    assert [level for _, level in seen[:10]] == pytest.approx(range(0, 200, 20), abs=3)
    assert [stamp.uid for stamp, _ in seen[:2]] == ["x-000001", "x-000002"]
    steps = np.diff([stamp.at_ns for stamp, _ in seen[:10]])
    assert steps == pytest.approx([20_000_000] * 9, rel=0.01)
    assert [level for _, level in seen[11:21]] == [level for _, level in seen[:10]]


def test_what_has_no_time_of_its_own_has_no_speed(tmp_path: Path) -> None:
    path = picture(tmp_path, "a.png")
    with pytest.raises(ConfigError, match=r"E_IMG_TIME.*give rate_hz instead"):
        build(Settings(files=[path], speed=1.0), "c", lambda: 0, Timed(1.0))


def test_a_video_without_frames_is_one_exposure_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "zero.avi"
    cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)).release()
    source = build(Settings(files=[path], loop=True), "c", lambda: 0, Timed(1.0))
    into = np.empty(source.max_bytes, np.uint8)
    stamps = [source.read(into, 0.1) for _ in range(3)]
    assert [(stamp.seq, stamp.complete) for stamp in stamps if stamp] == [(1, False), (2, False), (3, False)]


def test_a_tiff_whose_directory_lies_behind_its_pixels_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path, "a.tif", 7, (1500, 1000))
    whole = np.random.default_rng(0).integers(0, 255, (1500, 1000), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "b.tif"), whole)
    assert (tmp_path / "b.tif").stat().st_size > 1 << 20
    assert [(stamp.shape, stamp.complete) for stamp, _ in shown(Clock(monkeypatch), files=[tmp_path])] == [((1500, 1000), True)] * 2


def test_names_of_any_kind_are_names_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "line[1]"
    folder.mkdir()
    data = picture(folder, "a b.png").read_bytes()
    for name in (b"\xff.png", b"q*?.png", "\n\u00e9.png".encode(), b"x" * 100 + b".png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)
    (folder / "folder.png").mkdir()
    for files in ([folder], [folder / "*.png"]):
        seen = [stamp for stamp, _ in shown(Clock(monkeypatch), files=files)]
        assert {stamp.uid for stamp in seen} == {"a b", "?", "q*?", "\n\u00e9", "x" * 64}
        assert all(stamp.complete for stamp in seen)
    assert [stamp.uid for stamp, _ in shown(Clock(monkeypatch), files=[folder / "q*?.png"])] == ["q*?"]
    assert {stamp.uid for stamp, _ in shown(Clock(monkeypatch), files=[folder], uid="(b)?$")} == {"b", None}


def test_what_is_no_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"E_IMG_NONE: files: .*is no pattern.*entire path component"):
        build(Settings(files=[tmp_path / "a**"]), "c", lambda: 0, Timed(1.0))
