"""Stacked lines against the truth of a simulated web: nothing stretched, nothing twice, nothing lost unsaid."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector import config
from inspector.checks import web as check
from inspector.conveyor.timed import Timed
from inspector.interfaces import EndOfPictures
from inspector.records import ConfigError, DeviceError, Finding, Frame, Image, Stamp, View
from inspector.sources import linescan, simulated_lines

MM = 0.2
WIDTH = 160


def camera(*, length_mm: float = 100.0, overlap_mm: float = 10.0, fill_rows: int = 2, **lines: Any) -> linescan.LineScan:
    """1 m of web by default, as fast as it is taken, at a nominal row a line."""
    chosen = {"mm_per_px": MM, "mm_per_count": 0.02, "line_hz": 1000.0, "speed_mm_s": 200.0, "end_mm": 1000.0, "fast": True, **lines}
    kind = config.Kind.model_validate({"kind": "simulated_lines", "width_px": WIDTH, **chosen})
    own = {"width_px": WIDTH, "mm_per_px": MM, "mm_per_count": chosen["mm_per_count"], "fill_rows": fill_rows}
    found = linescan.Settings(lines=kind, length_mm=length_mm, overlap_mm=overlap_mm, **own)
    return linescan.build(found, "web", time.monotonic_ns, Timed(1000.0))


def seen(source: linescan.LineScan) -> list[tuple[Stamp, Image]]:
    """All the pictures of the web, each copied."""
    found = []
    memory = np.zeros(source.max_bytes, np.uint8)
    try:
        while True:
            stamp = source.read(memory, 0.1)
            if stamp is not None:
                found.append((stamp, memory[: math.prod(stamp.shape)].reshape(stamp.shape).copy()))
    except EndOfPictures:
        return found
    finally:
        source.close()


def judged(pictures: list[tuple[Stamp, Image]], limit_mm2: float = 0.0) -> list[tuple[Finding, ...]]:
    spots = check.WebCheck("spots", check.Settings(least_grey=30, least_mm2=0.3, limit_mm2=limit_mm2))
    views = [View(Frame(stamp, image), None, None, image) for stamp, image in pictures]
    return spots(views)


def truth(source: linescan.LineScan, end_mm: float) -> list[tuple[float, float, float, float]]:
    lines = source._lines
    assert isinstance(lines, simulated_lines.SimulatedLines)
    return [d for metre in range(int(end_mm // 1000) + 1) for d in lines.defects(metre) if d[1] + d[3] / 2 < end_mm]


@settings(max_examples=25, deadline=None)
@given(
    swing=st.sampled_from([0.0, 0.2, 0.4]),
    speed=st.sampled_from([120.0, 200.0]),
    jitter=st.sampled_from([0.0, 2.0]),
    block=st.sampled_from([1, 8, 32]),
    length_mm=st.sampled_from([50.0, 83.0, 250.0]),
    seed=st.integers(0, 1000),
)
def test_each_defect_is_found_once_where_it_is_and_as_long_as_it_is(
    swing: float, speed: float, jitter: float, block: int, length_mm: float, seed: int
) -> None:
    """Whatever the speed does: no end of a defect is off by more than a line, across borders and not."""
    slow: dict[str, Any] = {"speed_mm_s": speed, "speed_swing_ratio": swing, "swing_s": 0.7, "line_hz": 1500.0}
    source = camera(length_mm=length_mm, overlap_mm=8.0, defects_per_m=12, jitter_counts=jitter, lines_per_block=block, seed=seed, **slow)
    known = truth(source, 1000.0 - 10.0)
    pictures = seen(source)
    found = [(f, stamp) for (stamp, _), fs in zip(pictures, judged(pictures), strict=True) for f in fs if f.evidence is not None]
    found = [(f, stamp) for f, stamp in found if f.at_mm is not None and f.at_mm[1] < 1000.0 - 10.0 - 3.0]
    known = [d for d in known if d[1] < 1000.0 - 10.0 - 3.0]
    assert len(found) == len(known)
    origin_mm = pictures[0][0].web.start_mm - MM / 2  # type: ignore[union-attr]
    assert abs(origin_mm) <= (jitter + 1) * 0.02
    line_mm = max(MM, speed * (1 + swing) / 1500.0) + 2 * (jitter + 1) * 0.02
    for (finding, stamp), (x_mm, y_mm, width_mm, length) in zip(sorted(found, key=lambda f: f[0].at_mm[1]), known, strict=True):  # type: ignore[index]
        assert finding.evidence is not None
        assert stamp.web is not None
        x, y, w, h = finding.evidence.bbox_px
        begins_mm, ends_mm = stamp.web.place(0, y - 0.5)[1], stamp.web.place(0, y + h - 0.5)[1]
        assert abs(begins_mm - (y_mm - length / 2)) <= line_mm
        assert abs(ends_mm - (y_mm + length / 2)) <= line_mm
        assert abs((x + w / 2) * MM - x_mm) <= MM
        assert abs(w * MM - width_mm) <= 2 * MM


def test_lengths_follow_each_other_without_a_gap_and_share_their_overlap() -> None:
    pictures = seen(camera(defects_per_m=5))
    assert [stamp.seq for stamp, _ in pictures] == list(range(1, len(pictures) + 1))
    webs = [stamp.web for stamp, _ in pictures]
    for (_, before), (_, after), one, two in zip(pictures, pictures[1:], webs, webs[1:], strict=False):
        assert one is not None
        assert two is not None
        assert one.place(0, one.end_row)[1] == pytest.approx(two.place(0, two.first_row)[1])
        assert (two.end_row - two.first_row) * MM == pytest.approx(100.0)
        assert (before[-100:] == after[:100]).all()
    assert all(stamp.complete for stamp, _ in pictures[:-1])
    assert pictures[0][0].at_counts == pytest.approx(100.0 / 0.02, abs=2)


def test_a_defect_across_a_border_rejects_both_lengths_and_is_one_defect() -> None:
    source = camera(defects_per_m=0)
    lines = source._lines
    assert isinstance(lines, simulated_lines.SimulatedLines)
    lines.defects = lambda metre: [(16.0, 200.0, 4.0, 6.0)] if metre == 0 else []  # type: ignore[method-assign]
    pictures = seen(source)
    findings = judged(pictures)
    bad = [n for n, fs in enumerate(findings) if not all(f.ok for f in fs)]
    assert bad == [1, 2]
    (first,), (second,) = findings[1], findings[2]
    assert first.evidence is not None
    assert second.evidence is None, "it begins in the length before"
    assert first.value == second.value == pytest.approx(24.0, rel=0.1)
    assert first.at_mm == pytest.approx((15.9, 200.0), abs=0.3)
    assert second.at_mm == pytest.approx(first.at_mm)


def test_lost_lines_make_their_length_incomplete_and_no_other() -> None:
    pictures = seen(camera(lost_ratio=0.0))
    lossy = camera(lost_ratio=0.02, seed=4)
    lost = seen(lossy)
    assert len(lost) == len(pictures)
    missing = {n for n, (stamp, _) in enumerate(lost[:-1]) if not stamp.complete}
    assert missing
    assert len(missing) < len(lost) - 1
    for n, ((_, whole), (stamp, image)) in enumerate(zip(pictures[:-1], lost[:-1], strict=True)):
        if n not in missing:
            assert stamp.web is not None
            core = slice(stamp.web.first_row, stamp.web.end_row)
            assert np.abs(whole[core].astype(int) - image[core].astype(int)).mean() < 12


def test_a_web_slower_than_the_lines_repeats_nothing_and_a_faster_one_is_said_to_be_unseen() -> None:
    assert len(seen(camera(speed_mm_s=20.0, lines_per_block=8))) == len(seen(camera()))
    assert not any(stamp.complete for stamp, _ in seen(camera(speed_mm_s=900.0, fill_rows=0, lines_per_block=1))[:-1])


class Script:
    """Blocks of 4 lines at the counts that the test says."""

    max_bytes = 4 * WIDTH

    def __init__(self, counts: list[int]) -> None:
        self.counts, self.seq = counts, 0

    def read(self, into: Any, timeout_s: float) -> Stamp | None:
        if self.seq == len(self.counts):
            raise DeviceError("camera web: gone")
        into[: 4 * WIDTH] = 100 + self.seq
        self.seq += 1
        return Stamp("web", self.seq, time.monotonic_ns(), self.counts[self.seq - 1], (4, WIDTH))

    def close(self) -> None:
        pass


def test_a_web_that_runs_back_is_not_seen_twice_and_what_a_lost_camera_leaves_is_incomplete() -> None:
    source = camera(length_mm=8.0, overlap_mm=0.0)
    source.close()
    forth, back = list(range(0, 600, 40)), list(range(600, 300, -40))
    source._lines = Script([*forth, *back, *range(300, 1420, 40)])
    stamps: list[Stamp] = []
    with pytest.raises(DeviceError, match="gone"):
        read_all(source, stamps)
    assert [s.complete for s in stamps] == [True, True, True, False]
    assert [s.web and s.web.start_mm for s in stamps] == pytest.approx([0.1, 8.1, 16.1, 24.1])
    assert stamps == [s._replace(seq=n) for n, s in enumerate(stamps, 1)]


def test_a_jump_of_the_encoder_is_no_web() -> None:
    source = camera(length_mm=8.0, overlap_mm=0.0)
    source.close()
    source._lines = Script([0, 40, 80, 10_000_000, 10_000_040])
    with pytest.raises(DeviceError, match="jumped"):
        read_all(source, [])


class Damaged(Script):
    """Its block 12 did not arrive whole, and says so in a shape of its own."""

    def read(self, into: Any, timeout_s: float) -> Stamp | None:
        stamp = super().read(into, timeout_s)
        return stamp._replace(shape=(1, 1), complete=False) if stamp and stamp.seq == 12 else stamp


def test_a_damaged_block_makes_its_length_incomplete_and_no_other() -> None:
    source = camera(length_mm=8.0, overlap_mm=0.0)
    source.close()
    source._lines = Damaged(list(range(0, 1640, 40)))
    stamps: list[Stamp] = []
    with pytest.raises(DeviceError, match="gone"):
        read_all(source, stamps)
    assert [s.complete for s in stamps] == [True, False, True, True, False]


def test_a_web_that_runs_backwards_is_said() -> None:
    source = camera(length_mm=8.0, overlap_mm=0.0)
    source.close()
    source._lines = Script(list(range(10_000, 0, -40)))
    with pytest.raises(DeviceError, match=r"runs backwards, by 9 mm now; does its encoder want backwards: true\?"):
        read_all(source, [])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"length_mm": 1e9}, r"length_mm: 1e\+09 makes 300 × 5e\+09 pixels; at most 64 million, so .* up to 4.267e\+04"),
        ({"length_mm": 1e308, "mm_per_px": 1e-300}, "length_mm: 1e.308 makes 300 × inf pixels"),
        ({"length_mm": 20_000.0, "overlap_mm": 15_000.0}, r"overlap_mm: 15000 makes 300 × 2.5e\+05 pixels"),
        ({"mm_per_row": 250.0, "overlap_mm": 10.0}, "length_mm: length_mm 100 is less than a row of 250 mm"),
        ({"overlap_mm": 101.0}, "overlap_mm: overlap_mm 101 is more than length_mm 100"),
        ({"lines": {"kind": "linescan"}}, "lines: linescan has its lines from another kind"),
    ],
)
def test_what_no_memory_holds_and_no_line_camera_gives_is_refused(given: dict[str, Any], text: str) -> None:
    own = {"lines": {"kind": "aravis"}, "width_px": 300, "mm_per_px": 0.2, "mm_per_count": 0.1, "length_mm": 100.0, **given}
    with pytest.raises(ConfigError, match=text) as refused:
        config.settings_of("sources", config.Kind.model_validate({"kind": "linescan", **own}), linescan.Settings)
    assert {each.code for each in refused.value.errors} == {"E_CFG_RANGE"}
    assert len(refused.value.errors) == 1


def test_lines_that_are_known_to_be_of_another_width_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 300), np.uint8))
    files = {"kind": "replay", "files": [str(tmp_path)]}
    own: dict[str, Any] = {"mm_per_px": 0.2, "mm_per_count": 0.1, "length_mm": 100.0}
    for lines, width_px, allowed in (
        (files, 300, None),
        (files, 301, "allowed: 300"),
        ({**files, "colour": True}, 300, "allowed: 300 × 3"),
        ({"kind": "simulated_lines", "width_px": 512}, 300, "allowed: 512"),
        ({**files, "files": ["/nowhere"]}, 300, None),
        ({"kind": "opencv", "device": 0}, 300, None),
    ):
        kind = config.Kind.model_validate({"kind": "linescan", "lines": lines, "width_px": width_px, **own})
        settings = config.settings_of("sources", kind, linescan.Settings)
        if allowed is None:
            linescan.examine(settings)
        else:
            with pytest.raises(ConfigError, match=f"width_px: {width_px}; {allowed}, as"):
                linescan.examine(settings)


def read_all(source: linescan.LineScan, stamps: list[Stamp]) -> None:
    memory = np.zeros(source.max_bytes, np.uint8)
    for _ in range(1000):
        stamp = source.read(memory, 0.0)
        if stamp is not None:
            stamps.append(stamp)
