from __future__ import annotations

import json
import resource
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.conveyor import simulated as belts
from inspector.records import ConfigError, DeviceError, Stamp
from inspector.sources import simulated
from inspector.sources._truth import Truth
from inspector.sources.simulated import Settings

DRAWINGS = Path(__file__).parents[2] / "dxf_templates"
pytestmark = pytest.mark.real


def settings(**given: Any) -> Settings:
    small = {"drawing": str(DRAWINGS / "plate.dxf"), "width_px": 320, "height_px": 256, "ahead": 6, "transfer_ms": 1.0}
    return Settings.model_validate_json(json.dumps(small | given))


def shown(given: Settings, parts: int, rate_parts_per_s: float = 40.0, lanes: tuple[int, ...] = (0, 1)) -> list[tuple[Stamp, bytes]]:
    """What the camera shows until so many parts of its lane have passed, and half a second longer."""
    belt = belts.build(belts.Settings(rate_parts_per_s=rate_parts_per_s, lanes=lanes, counts_per_s=1000.0, seed=4), "belt")
    camera = simulated.build(given, "cam", time.monotonic_ns, belt)
    belt.start(time.monotonic_ns())
    into = np.zeros(camera.max_bytes + 7, np.uint8)
    found: list[tuple[Stamp, bytes]] = []
    until_s = time.monotonic() + parts * len(lanes) / rate_parts_per_s + 0.5
    try:
        while time.monotonic() < until_s:
            stamp = camera.read(into, 0.05)
            if stamp is not None and stamp.seq <= parts:
                found.append((stamp, into[: camera.max_bytes].tobytes()))
    finally:
        camera.close()
    assert not into[camera.max_bytes :].any()
    return found


def test_exposures_are_the_lanes_triggers(tmp_path: Path) -> None:
    truth = tmp_path / "new" / "truth.jsonl"
    found = shown(settings(lane=1, truth=str(truth), buffers=64), parts=20)
    belt = belts.build(belts.Settings(rate_parts_per_s=40.0, lanes=(0, 1), counts_per_s=1000.0, seed=4), "belt")
    belt.start(0)
    expected = [t for t in belt.triggers(0, 5 * belts.NS) if t.lane == 1][:20]
    assert [s.seq for s, _ in found] == [t.part_seq for t in expected]
    assert [s.at_counts for s, _ in found] == [t.at_counts for t in expected]
    assert all(s.complete and s.shape == (256, 320) and s.camera == "cam" for s, _ in found)
    steps = np.diff([s.at_ns for s, _ in found])
    assert steps.tolist() == [50_000_000] * 19
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    assert [line["part_seq"] for line in lines][:20] == list(range(1, 21))
    assert {line["lane"] for line in lines} == {1}
    for line, (_, picture) in zip(lines, found, strict=False):  # one scene, one picture
        assert [p == picture for (_, p), other in zip(found, lines, strict=False) if other["scene"] == line["scene"]].count(False) == 0


def test_pictures_depend_on_the_seed_only() -> None:
    """Two runs, at different speeds, show the same first pictures."""
    slow = shown(settings(buffers=64), parts=4, rate_parts_per_s=20.0)
    fast = shown(settings(buffers=64), parts=4, rate_parts_per_s=100.0)
    assert [p for _, p in slow] == [p for _, p in fast]
    assert len({p for _, p in slow}) == 4
    other = shown(settings(buffers=64, seed=99), parts=1)
    assert other[0][1] != slow[0][1]


def test_a_belt_too_fast_for_the_painter_sees_parts_again(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    found = shown(settings(truth=str(truth), buffers=1000, width_px=1280, height_px=1024), parts=400, rate_parts_per_s=800.0, lanes=(0,))
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    assert [s.seq for s, _ in found] == list(range(1, len(found) + 1))
    assert any(line["again"] for line in lines)
    assert all(line["again"] == (line["scene"] in {o["scene"] for o in lines[:i]}) for i, line in enumerate(lines))


@pytest.mark.parametrize("fault", ["lost", "duplicate", "swapped", "stale", "frozen", "black", "white", "blurred", "incomplete", "late"])
def test_faults_are_what_they_are_called_and_stand_in_the_truth(fault: str, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    given = settings(truth=str(truth), buffers=64, faults={f"{fault}_ratio": 0.4, "late_ms": 120.0})
    found = shown(given, parts=24, rate_parts_per_s=80.0, lanes=(0,))
    lines = {line["seq"]: line for line in map(json.loads, truth.read_text().splitlines())}
    struck = {seq for seq, line in lines.items() if line["fault"] == fault and seq <= 24}
    assert 2 <= len(struck) <= 22
    seqs = [s.seq for s, _ in found]
    pictures = {s.seq: p for s, p in found}
    if fault == "lost":
        assert sorted(set(range(1, 25)) - set(seqs)) == sorted(struck)
    else:
        assert sorted(set(seqs)) == list(range(1, 25))
    late = {seq for before, seq in pairwise(seqs) if seq < before}
    assert late <= struck if fault == "swapped" else not late
    assert late or fault != "swapped"
    assert {seq for seq in seqs if seqs.count(seq) == 2} == (struck if fault == "duplicate" else set())
    assert {s.seq for s, _ in found if not s.complete} == (struck if fault == "incomplete" else set())
    assert {seq for seq, p in pictures.items() if not any(p)} == (struck if fault == "black" else set())
    assert {seq for seq, p in pictures.items() if all(byte == 255 for byte in p)} == (struck if fault == "white" else set())
    if fault == "stale":
        stamps = {s.seq: s for s, _ in found}
        old = {seq for seq in stamps if seq > 1 and stamps[seq].at_counts == stamps[seq - 1].at_counts}
        assert old == {seq for seq in struck if seq > 1}
        assert all(pictures[seq] == pictures[seq - 1] for seq in old)
    if fault == "blurred":
        steps = {seq: np.abs(np.diff(np.frombuffer(p, np.uint8).astype(int))).max() for seq, p in pictures.items()}
        assert max(steps[seq] for seq in struck) < min(steps[seq] for seq in steps.keys() - struck)
    if fault == "frozen":
        assert all(pictures[seq] == pictures[seq - 1] for seq in struck if seq > 1)


def test_faults_come_in_runs(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    shown(settings(truth=str(truth), buffers=64, faults={"black_ratio": 0.5, "run": 5}), parts=40, rate_parts_per_s=160.0, lanes=(0,))
    struck = [json.loads(line)["fault"] is not None for line in truth.read_text().splitlines()]
    assert any(struck)
    assert all(len(set(struck[first : first + 5])) == 1 for first in range(4, 35, 5)), "which begin at every fifth part"


def test_a_camera_that_has_lost_its_settings_is_down() -> None:
    with pytest.raises(DeviceError, match="nobody asked for"):
        shown(settings(faults={"reset_ratio": 1.0}), parts=5)


def test_a_cable_is_out_now_and_then() -> None:
    belt = belts.build(belts.Settings(rate_parts_per_s=100.0, lanes=(0,)), "belt")
    now_ns = [10**9 * 1000]
    given = settings(faults={"unplugged_every_s": 10.0, "unplugged_s": 2.0})
    camera = simulated.build(given, "cam", lambda: now_ns[0], belt)
    now_ns[0] += 7_900_000_000
    camera.read(np.zeros(camera.max_bytes, np.uint8), 0.0)
    now_ns[0] += 200_000_000
    with pytest.raises(DeviceError, match="unplugged"):
        camera.read(np.zeros(camera.max_bytes, np.uint8), 0.0)
    camera.close()
    with pytest.raises(DeviceError, match="unplugged"):
        simulated.build(given, "cam", lambda: now_ns[0], belt)
    now_ns[0] += 2_000_000_000
    simulated.build(given, "cam", lambda: now_ns[0], belt).close()


def test_it_exposes_by_its_own_clock_where_there_is_no_part_sensor() -> None:
    class Still:
        def start(self, at_ns: int) -> None: ...
        def counts(self, at_ns: int) -> int:
            return 0

        def triggers(self, after_ns: int, until_ns: int) -> tuple[()]:
            return ()

    camera = simulated.build(settings(rate_hz=100.0), "cam", time.monotonic_ns, Still())
    into = np.zeros(camera.max_bytes, np.uint8)
    stamps = [s for s in (camera.read(into, 0.2) for _ in range(5)) if s is not None]
    camera.close()
    assert len(stamps) == 5
    assert all(s.at_counts is None for s in stamps)
    assert np.unique(np.diff([s.at_ns for s in stamps])).tolist() == [10_000_000]


def test_what_is_wrong_with_the_drawing_is_said_and_no_process_stays(tmp_path: Path) -> None:
    belt = belts.build(belts.Settings(), "belt")
    with pytest.raises(ConfigError, match="E_DXF"):
        simulated.build(settings(drawing=str(tmp_path / "none.dxf")), "cam", time.monotonic_ns, belt)
    with pytest.raises(ConfigError, match="E_SCENE_SIZE"):
        simulated.build(settings(mm_per_px=0.01), "cam", time.monotonic_ns, belt)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="E_SOURCE_TRUTH"):
        simulated.build(settings(truth=str(tmp_path / "file" / "truth")), "cam", time.monotonic_ns, belt)


def test_a_full_disk_takes_whole_lines_of_the_truth_or_none_and_no_picture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, line = tmp_path / "truth.jsonl", {"seq": "x" * 100}
    size = len(json.dumps(line)) + 1
    truth = Truth(path)
    truth.tell(line)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size - 10, before[1]))
    try:
        truth.tell(line)
        truth.tell(line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == size
    truth.tell(line)
    truth.close()
    truth.close()
    assert [json.loads(each) for each in path.read_text().splitlines()] == [line, line]
    assert capfd.readouterr().err == f"{path} is not kept: no room for a whole line\n"
    assert len(shown(settings(truth="/dev/full"), parts=5)) >= 5
    assert capfd.readouterr().err == "/dev/full is not kept: No space left on device\n"


def test_a_camera_whose_painter_died_is_down() -> None:
    belt = belts.build(belts.Settings(rate_parts_per_s=100.0, lanes=(0,)), "belt")
    camera = simulated.build(settings(), "cam", time.monotonic_ns, belt)
    belt.start(time.monotonic_ns())
    into = np.zeros(camera.max_bytes, np.uint8)
    assert any(camera.read(into, 0.2) is not None for _ in range(5))
    camera._painted._painter.kill()
    with pytest.raises(DeviceError, match="has ended"):
        _ = [camera.read(into, 0.05) for _ in range(100)]
    camera.close()
    camera.close()
