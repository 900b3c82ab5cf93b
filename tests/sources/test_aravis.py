"""The camera driver against a real GigE Vision camera over the network stack: libaravis' emulator with pictures of ours inside it."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.conveyor.timed import Timed
from inspector.records import DeviceError, Stamp
from inspector.sources import aravis
from inspector.sources._priority import FIRST
from inspector.sources.aravis import AravisCamera, Settings
from tests.contracts import Belt
from tests.sources import gigecam
from tests.sources.gigecam import Camera, number_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(gigecam.missing() is not None, reason=str(gigecam.missing())),
]
SIDE = 256
_opened: list[AravisCamera] = []
needs_namespaces = pytest.mark.skipif(gigecam.without_namespaces() is not None, reason=str(gigecam.without_namespaces()))


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    with gigecam.on_loopback("L1") as found:
        yield found


@pytest.fixture(autouse=True)
def _all_let_go() -> Iterator[None]:
    """The next test finds the camera free."""
    yield
    for source in _opened:
        source.close()
    _opened.clear()
    for thread in threading.enumerate():
        if thread.name.startswith("aravis-close"):
            thread.join(20)


def opened(camera: Camera, name: str = "cam", conveyor: Any = None, **given: Any) -> AravisCamera:
    fixed: dict[str, Any] = {"device": camera.device, "packet_bytes": 1400, "region_px": (0, 0, SIDE, SIDE), "exposure_us": 1000.0}
    fixed["stall_ms"] = 10_000  # of a machine that has other things to do
    if given.get("trigger", "free") == "free":
        fixed["rate_hz"] = 50.0
    source = aravis.build(Settings.model_validate(fixed | given), name, time.monotonic_ns, conveyor or Timed(1000.0))
    _opened.append(source)
    return source


def pictures(source: AravisCamera, count: int, timeout_s: float = 10.0) -> list[tuple[Stamp, int | None]]:
    """So many exposures, each with the number that its picture shows."""
    into = np.zeros(source.max_bytes, np.uint8)
    found: list[tuple[Stamp, int | None]] = []
    until_s = time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < until_s:
        stamp = source.read(into, 0.2)
        if stamp is not None:
            found.append((stamp, number_of(into[: int(np.prod(stamp.shape))]) if stamp.complete else None))
    return found


def test_pictures_arrive_whole_under_their_own_numbers_past_the_wrap(camera: Camera) -> None:
    source = opened(camera, rate_hz=100.0, buffers=64)  # its first number is 65,400 or so
    before_ns = time.monotonic_ns()
    found = pictures(source, 200)
    source.close()
    assert all(stamp.shape == (SIDE, SIDE) and stamp.camera == "cam" for stamp, _ in found)
    whole = [(stamp, number) for stamp, number in found if number is not None]
    assert all(stamp.complete == (number is not None) for stamp, number in found)
    assert len(whole) > 150
    for (a, shown_a), (b, shown_b) in itertools.pairwise(whole):
        assert (shown_b - shown_a) % gigecam.BIT_PRIME == b.seq - a.seq, "what is lost shows as a gap, and nothing else does"
        assert a.at_ns < b.at_ns
    assert before_ns - 1_000_000_000 < whole[0][0].at_ns < whole[-1][0].at_ns < time.monotonic_ns()


def test_the_driver_s_own_threads_go_first_where_they_may_and_no_other_does(camera: Camera) -> None:
    def threads() -> dict[int, int]:
        return {int(task.name): os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path("/proc/self/task").iterdir()}

    ours, before = os.getpriority(os.PRIO_PROCESS, 0), threads()
    ask = f"import os; os.setpriority(os.PRIO_PROCESS, 0, {ours - FIRST})"
    may = subprocess.run([sys.executable, "-c", ask], stderr=subprocess.DEVNULL, check=False).returncode == 0
    opened(camera, buffers=3)
    after = threads()
    assert {nice for thread, nice in after.items() if thread not in before} >= {ours - FIRST * may}
    assert {thread: after[thread] for thread in before if thread in after} == {
        thread: before[thread] for thread in before if thread in after
    }
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours


def test_a_socket_gets_its_room_at_once_as_far_as_it_may() -> None:
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        port = end.getsockname()[1]
        assert aravis.widen(port, most + 65_536)
        has_bytes = end.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)  # twice what was asked for: the kernel's own is in it
        try:
            end.setsockopt(socket.SOL_SOCKET, aravis.SO_RCVBUFFORCE, most + 65_536)
        except PermissionError:
            assert has_bytes == 2 * most
        else:
            assert has_bytes == 2 * (most + 65_536)
    assert not aravis.widen(port, most)


def test_the_driver_writes_into_the_slots_that_it_is_given(camera: Camera) -> None:
    source = opened(camera, buffers=3)
    assert source.ahead == 3
    slots = [np.zeros(source.max_bytes + 100, np.uint8) for _ in range(5)]
    for slot in range(3):
        source.give(slot, slots[slot])
    seen: list[tuple[int, int | None]] = []
    spare = [3, 4]
    while len(seen) < 20:
        taken = source.take(0.5)
        assert taken is not None
        slot, stamp = taken
        assert stamp.complete
        seen.append((slot, number_of(slots[slot][: SIDE * SIDE])))
        spare.append(slot)
        slot = spare.pop(0)
        source.give(slot, slots[slot])
    source.close()
    assert {slot for slot, _ in seen} == {0, 1, 2, 3, 4}
    assert all(number is not None for _, number in seen)
    assert not any(each[SIDE * SIDE :].any() for each in slots)
    before = [each.copy() for each in slots]
    time.sleep(0.1)
    assert all(np.array_equal(a, b) for a, b in zip(before, slots, strict=True)), "nothing is written after the close"


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({"pixel_format": "RGB8", "colour": True}, (SIDE, SIDE, 3)),
        ({"pixel_format": "RGB8"}, (SIDE, SIDE)),
        ({"pixel_format": "BayerRG8", "colour": True}, (SIDE, SIDE, 3)),
        ({"pixel_format": "Mono16"}, (SIDE, SIDE)),
        ({"region_px": (64, 32, 128, 96)}, (96, 128)),
    ],
)
def test_formats_and_regions(camera: Camera, given: dict[str, Any], shape: tuple[int, ...]) -> None:
    source = opened(camera, **given)
    assert source.ahead == (0 if "pixel_format" in given else 6)
    assert [(stamp.complete, stamp.shape) for stamp, _ in pictures(source, 3)] == [(True, shape)] * 3
    source.close()


def test_the_camera_is_found_by_serial_address_or_name(camera: Camera) -> None:
    (found,) = [each for each in aravis.devices() if each.select == {"serial": "L1"}]
    assert (found.kind, found.vendor, found.address) == ("aravis", "Aravis", "127.0.0.1")
    ways: list[dict[str, Any]] = [{"serial": "L1", "device": None}, {"address": "127.0.0.1", "device": None}, {}]
    for way in ways:
        source = opened(camera, **way)
        assert len(pictures(source, 1)) == 1
        source.close()
    with pytest.raises(DeviceError, match=r"no camera with serial 4711 answers; L1"):
        opened(camera, serial="4711", device=None)
    with pytest.raises(DeviceError, match="cannot be opened: Device 'Nobody' not found"):
        opened(camera, device="Nobody")


def _wait_until_gone() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("aravis-close"):
            thread.join(20)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"features": {"ExposureTimAbs": 5.0}}, "has no feature ExposureTimAbs; did you mean ExposureTimeAbs?"),
        ({"features": {"TriggerSource": "Line7"}}, "refuses TriggerSource: Line7: .*; allowed: Line0, Software"),
        ({"features": {"ExposureTimeAbs": 30.0}}, "exposure_time is 30.0, asked for 1000.0"),
        ({"features": {"TriggerMode": "On"}}, "TriggerMode is On, asked for Off"),
        ({"features": {"TestRegister": "true"}}, "refuses TestRegister: true|TestRegister is .*, asked for true"),
        ({"pixel_format": "Mono12p"}, "refuses set_pixel_format"),
        ({"exposure_us": 1e9}, "E_CAM_RANGE camera cam: exposure_time: 1000000000; allowed: 10 to 10000000 µs$"),
        ({"gain": 1000.0}, "E_CAM_RANGE camera cam: gain: 1000; allowed: 0 to 10$"),
        ({"rate_hz": 5000.0}, "E_CAM_RANGE camera cam: frame_rate: 5000; allowed: 0.1 to 1000 Hz$"),
        ({"region_px": (0, 0, 99999, 10)}, "E_CAM_RANGE camera cam: Width: 99999; allowed: 1 to 2048$"),
        ({"region_px": (0, 3000, 10, 10)}, "E_CAM_RANGE camera cam: OffsetY: 3000; allowed: 0 to 2048$"),
        ({"features": {"BinningVertical": 17}}, "E_CAM_RANGE camera cam: BinningVertical: 17; allowed: 1 to 16$"),
    ],
)
def test_a_camera_that_does_not_obey_is_down(camera: Camera, given: dict[str, Any], text: str) -> None:
    with pytest.raises(DeviceError, match=text):
        opened(camera, **given)


def test_a_camera_that_another_program_controls_is_left_alone(camera: Camera) -> None:
    source = opened(camera)
    with pytest.raises(DeviceError, match="E_CAM_ACCESS camera other: another program controls it"):
        opened(camera, "other")
    assert len(pictures(source, 3)) == 3


def test_a_camera_that_falls_back_to_its_defaults_is_noticed(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aravis, "VERIFY_S", 0.0)
    source = opened(camera, features={"TestRegister": 17})
    assert len(pictures(source, 15)) == 15
    source._device.call("set_exposure_time", 10_000.0)
    with pytest.raises(DeviceError, match=r"exposure_time is 10000.0, asked for 1000.0"):
        pictures(source, 20)
    source.close()


def test_it_is_triggered_by_software_for_each_part_of_its_lane(camera: Camera) -> None:
    belt = Belt()
    belt.start(time.monotonic_ns())
    source = opened(camera, trigger="software", conveyor=belt)
    found = pictures(source, 12)
    source.close()
    parts = [t.at_ns for t in belt.triggers(0, time.monotonic_ns())]
    assert len(found) == 12
    assert abs(len([at_ns for at_ns in parts if at_ns <= found[-1][0].at_ns + 50_000_000]) - 12) <= 1
    other = opened(camera, trigger="software", conveyor=belt, lane=3)
    assert pictures(other, 1, timeout_s=0.5) == []
    other.close()
    own = opened(camera, trigger="software", rate_hz=40.0)
    assert len(pictures(own, 10)) == 10
    own.close()


def test_features_are_shown_with_what_they_may_be(camera: Camera) -> None:
    shown = {each.name: each for each in aravis.features(Settings(device=camera.device))}
    assert shown["DeviceVendorName"].value == "Aravis"
    assert (shown["ExposureTimeAbs"].low, shown["ExposureTimeAbs"].high) == (10.0, 10_000_000.0)
    assert set(shown["PixelFormat"].values) >= {"Mono8", "BayerRG8", "RGB8"}


def test_a_camera_that_is_killed_is_down_at_once_and_comes_back(camera: Camera) -> None:
    source = opened(camera, stall_ms=500)
    assert len(pictures(source, 5)) == 5
    camera.kill()
    try:
        with pytest.raises(DeviceError, match=r"no picture for 500 ms|control lost"):
            pictures(source, 1000)
        closing = threading.Thread(target=source.close)  # which tells nobody on the network
        closing.start()
        closing.join(2)
        assert not closing.is_alive()
        with pytest.raises(DeviceError, match="still being let go"):
            opened(camera)
        _wait_until_gone()
        with pytest.raises(DeviceError, match="cannot be opened"):
            opened(camera)
    finally:
        camera.start()
    source = opened(camera)
    assert [stamp.seq for stamp, _ in pictures(source, 3)] == [1, 2, 3]
    source.close()


def test_a_camera_that_hangs_is_a_stall_and_a_short_pause_is_none(camera: Camera) -> None:
    source = opened(camera, stall_ms=1500)
    assert len(pictures(source, 5)) == 5
    camera.signal(signal.SIGSTOP)
    assert len(pictures(source, 100, timeout_s=0.8)) <= 6
    camera.signal(signal.SIGCONT)
    assert len(pictures(source, 5)) == 5
    camera.signal(signal.SIGSTOP)
    try:
        with pytest.raises(DeviceError, match="no picture for 1500 ms"):
            pictures(source, 1000)
    finally:
        camera.signal(signal.SIGCONT)
    source.close()


@needs_namespaces
def test_of_three_cameras_the_lost_one_delays_nobody() -> None:
    with gigecam.in_namespaces(3) as cameras:
        sources = [opened(each, f"cam{n}", rate_hz=25.0, stall_ms=1500 if n == 1 else 10_000) for n, each in enumerate(cameras)]
        seen: list[list[tuple[Stamp, int | None]]] = [[], [], []]

        def watch(n: int) -> None:
            try:
                seen[n] = pictures(sources[n], 150, timeout_s=30)
            except DeviceError:
                sources[n].close()

        threads = [threading.Thread(target=watch, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        cameras[1].kill()
        for thread in threads:
            thread.join()
        assert sources[1]._closed
        for n in (0, 2):
            assert len(seen[n]) == 150
            sources[n].close()
        cameras[1].start()
        _wait_until_gone()
        back = opened(cameras[1], "cam1")
        assert len(pictures(back, 5)) == 5
        back.close()


@needs_namespaces
def test_lost_packets_cost_their_own_exposures_only() -> None:
    """The emulator sends nothing again, so that what the network loses is lost."""
    with gigecam.in_namespaces(1, subnet=50) as (camera,):
        source = opened(camera, rate_hz=50.0)
        device = next(p.name for p in Path("/sys/class/net").glob("ic*"))
        rules = (
            f"add table netdev lossy; add chain netdev lossy in {{ type filter hook ingress device {device} priority 0; }}; "
            "add rule netdev lossy in ip protocol udp meta length > 1000 numgen random mod 1000 < 5 drop"
        )
        if not shutil.which("nft") or subprocess.run(["nft", rules], capture_output=True, check=False).returncode:
            pytest.skip("nftables cannot drop packets here")
        try:
            found = pictures(source, 100, timeout_s=20)
        finally:
            subprocess.run(["nft", "delete table netdev lossy"], check=False, capture_output=True)
            source.close()
        broken = [stamp for stamp, _ in found if not stamp.complete]
        assert 5 <= len(broken) <= 70, "48 packets each, of which 1 in 200 is lost"
        assert all(number is not None for stamp, number in found if stamp.complete), "what is said to be whole is whole"
        seqs = [stamp.seq for stamp, _ in found]
        assert seqs == sorted(set(seqs)), "what is missing altogether shows as a gap"


def _resident_kib() -> int:
    return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flapping_camera_costs_neither_memory_nor_descriptors(camera: Camera) -> None:
    def again(times: int) -> tuple[int, int]:
        for _ in range(times):
            source = opened(camera, rate_hz=400.0)
            assert len(pictures(source, 2)) == 2
            source.close()
            _opened.clear()
            _wait_until_gone()
        gc.collect()
        return _resident_kib(), len(list(Path("/proc/self/fd").iterdir()))

    memory_kib, descriptors = again(100)
    later_kib, later = again(1000)
    assert later == descriptors
    assert later_kib - memory_kib < 1024
