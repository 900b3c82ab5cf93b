"""A camera in a process of its own: whatever its driver does, the other cameras and vision go on, and nothing is left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.records import ConfigError, DeviceError
from inspector.runtime import capture, link
from inspector.runtime.capture import Isolated
from inspector.runtime.ring import Ring
from tests.smoke.conftest import line
from tests.smoke.test_daemon import Running, until
from tests.smoke.test_vision import begun, vision

pytestmark = pytest.mark.real

UNRULY = '''
"""A camera at a fixed rate that does what drivers do: with its `at`-th picture, and only while the file `once` is not there."""
import ctypes, os, time
from pathlib import Path
from inspector.config import Strict
from inspector.records import ConfigError, DeviceError, Stamp

class Settings(Strict):
    how: str = ""
    at: int = 5
    once: Path | None = None
    rate_hz: float = 50.0
    ahead: int = 0

class Unruly:
    max_bytes = 64 * 64

    def __init__(self, settings, name, clock):
        self.settings, self.name, self.clock, self.seq = settings, name, clock, 0
        self.next_ns, self.leak, self.slots, self.ahead = clock(), [], [], settings.ahead

    def read(self, into, timeout_s):
        wait_s = min(timeout_s, (self.next_ns - self.clock()) / 1e9)
        if wait_s > 0:
            time.sleep(wait_s)
        if self.clock() < self.next_ns:
            return None
        self.next_ns += round(1e9 / self.settings.rate_hz)
        self.seq += 1
        self.misbehave()
        into[:4096] = 50 + self.seq % 100
        into[:64] = self.seq % 200
        return Stamp(self.name, self.seq, self.clock(), self.seq, (64, 64))

    def give(self, slot, into):
        self.slots.append((slot, into))

    def take(self, timeout_s):
        assert len(self.slots) == self.settings.ahead
        stamp = self.read(self.slots[0][1], timeout_s)
        return None if stamp is None else (self.slots.pop(0)[0], stamp)

    def misbehave(self):
        how, once = self.settings.how, self.settings.once
        if self.seq < self.settings.at or (once is not None and once.exists()):
            return
        if once is not None:
            once.touch()
        if how == "crash":
            os.abort()
        if how == "hang":
            ctypes.PyDLL(None).sleep(3600)  # with the interpreter in its hand, as some do
        if how == "leak":
            self.leak.append(b"x" * (20 << 20))
        if how == "lost":
            raise DeviceError(f"camera {self.name}: control lost")

    def close(self):
        pass

def build(settings, name, clock, conveyor):
    if settings.how == "refuse":
        raise ConfigError("E_CAM_RANGE", "exposure 9 s; allowed: 1 us to 1 s", key="exposure")
    return Unruly(settings, name, clock)
'''


@pytest.fixture
def environment(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Processes know the camera `unruly` too."""
    folder = tmp_path / "kinds"
    info = folder / "unruly-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "unrulykind.py").write_text(UNRULY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unruly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[inspector.sources]\nunruly = unrulykind\n")
    found = {**environment, "PYTHONPATH": f"{folder}:{environment['PYTHONPATH']}"}
    monkeypatch.setattr(capture, "_environment", lambda: found)
    return found


def config_of(folder: Path, **source: Any) -> tuple[Path, str]:
    camera = {"id": "top", "recipe": "plate", "isolated": True, "source": {"kind": "unruly", **source}}
    path = line(folder, cameras=[camera])
    return path, path.read_text()


@contextmanager
def isolated(folder: Path, **source: Any) -> Iterator[tuple[Isolated, Ring]]:
    """A camera in its process, started, with its ring."""
    camera = Isolated("top", *config_of(folder, **source), time.monotonic_ns)
    try:
        until(lambda: camera.started(0.2))
        ring = Ring(4, camera.max_bytes, "drop_oldest", ahead=camera.ahead, shared=True)
        camera.attach(ring)
        camera.begun_ns = time.monotonic_ns()
        yield camera, ring
    finally:
        camera.close()


def pictures(camera: Isolated, ring: Ring, number: int) -> list[int]:
    """The first bytes of so many pictures, read in place and given back."""
    seen: list[int] = []
    while len(seen) < number:
        while (more := ring.give(0.2)) is not None:
            camera.give(*more)
        taken = camera.take(0.2)
        if taken is not None:
            slot, stamp = taken
            ring.commit(stamp, 0, slot)
            for lent in ring.borrow(9):
                assert lent.frame.stamp == stamp
                seen.append(int(lent.frame.image[0, 0]))
                assert (lent.frame.image[1:] == 50 + stamp.seq % 100).all()
                ring.give_back(lent)
    return seen


@pytest.mark.parametrize("ahead", [0, 3])
def test_pictures_are_written_by_the_driver_where_they_are_judged(tmp_path: Path, environment: dict[str, str], ahead: int) -> None:
    with isolated(tmp_path, ahead=ahead) as (camera, ring):
        assert camera.ahead == max(1, ahead)
        assert pictures(camera, ring, 12) == list(range(1, 13))
        pid = camera._process.pid
    assert not Path(f"/proc/{pid}").exists()
    camera.close()  # twice is harmless


@pytest.mark.parametrize(
    ("how", "said"),
    [("crash", "was killed by signal 6"), ("hang", "its driver hangs"), ("leak", "leaks, it has taken"), ("lost", "control lost")],
)
def test_what_a_driver_does_is_a_device_error(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.setattr(capture, "WATCH_EVERY_NS", 50_000_000)
    monkeypatch.setattr(capture, "MOST_RESIDENT_BYTES", 200 << 20)
    with isolated(tmp_path, how=how) as (camera, ring):
        with pytest.raises(DeviceError, match=said):
            pictures(camera, ring, 100)
        camera.close()
        assert not camera.stuck
        assert not Path(f"/proc/{camera._process.pid}").exists()


def test_what_a_person_must_change_is_said_as_if_it_had_no_process_of_its_own(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as refused, isolated(tmp_path, how="refuse"):
        pass
    assert "E_CAM_RANGE: exposure: exposure 9 s; allowed: 1 us to 1 s" in str(refused.value)


def test_it_dies_with_vision_even_while_its_driver_holds_the_interpreter(tmp_path: Path, environment: dict[str, str]) -> None:
    path, _ = config_of(tmp_path, how="hang")
    with vision(path, environment) as running:
        begun(running)
        running.wait_for(link.Seen)
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        (child,) = [pid for task in Path(f"/proc/{running.process.pid}/task").iterdir() for pid in (task / "children").read_text().split()]
        assert children in ([], [child])
        time.sleep(0.3)
        running.process.kill()
        running.process.wait()
        until(lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text(), 10.0)


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_other_cameras_go_on_and_its_parts_are_told_as_not_inspected(tmp_path: Path, environment: dict[str, str], how: str) -> None:
    """Two lanes at 10 parts/s each; the driver of one breaks once and comes back in a new process."""
    cameras = [
        {"id": "good", "lane": 0, "recipe": "plate", "source": {"kind": "painted", "lane": 0}},
        {
            "id": "bad",
            "lane": 1,
            "recipe": "plate",
            "isolated": True,
            "source": {"kind": "unruly", "how": how, "at": 15, "once": str(tmp_path / "once"), "rate_hz": 10.0},
        },
    ]
    belt = {"kind": "simulated", "rate_parts_per_s": 10.0, "lanes": [0], "counts_per_s": 1000.0, "seed": 1}
    gate = {"bind": "tcp://127.0.0.1:0", "count": "frames", "profile": "fire"}
    running = Running(line(tmp_path, cameras=cameras, conveyor=belt, gate=gate), environment)
    try:
        running.ready()
        until(lambda: 'inspector_camera_rebuilds_total{camera="bad"} 1.0' in running.page("vision"))
        page = running.page("vision")
        assert 'inspector_camera_rebuilds_total{camera="good"} 0.0' in page
        assert running.metric("gate", "inspector_parts_unexplained") == 0
        seen = frames(running, "bad")
        until(lambda: frames(running, "bad") > seen + 5)
        assert "bad is down: camera bad: its " in running.said()
        assert "vision ended" not in running.said()
    finally:
        assert running.end() == 0
    account = running.account()
    assert account["unexplained"] == 0
    assert account["pending"] == 0


def frames(running: Running, camera: str) -> float:
    (text,) = [t for t in running.page("vision").splitlines() if t.startswith(f'inspector_frames_total{{camera="{camera}"}}')]
    return float(text.rpartition(" ")[2])


@pytest.mark.parametrize("times", [20, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_flapping_camera_costs_neither_memory_nor_descriptors(tmp_path: Path, environment: dict[str, str], times: int) -> None:
    def flap() -> None:
        with isolated(tmp_path, how="lost", at=2) as (camera, ring), pytest.raises(DeviceError, match="control lost"):
            pictures(camera, ring, 100)

    for _ in range(5):
        flap()
    before = held()
    for _ in range(times):
        flap()
    after = held()
    assert after[1] <= before[1]
    assert after[0] - before[0] < 1 << 20, f"{before} → {after}"


def held() -> tuple[int, int]:
    """(resident bytes, descriptors) of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_a_shared_ring_lets_its_memory_go() -> None:
    before = held()
    for _ in range(50):
        ring = Ring(4, 1 << 20, "drop_oldest", shared=True)
        slot = ring.slot(0.0)
        assert slot is not None
        slot[:] = np.uint8(1)
        del ring, slot
    assert held()[1] == before[1]
    assert held()[0] - before[0] < 8 << 20
