"""A line for tests of real processes: a belt in numbers, a camera that paints its pictures, and a check that can be made to misbehave.

The camera and the check are kinds of a third-party package, found by entry point as any integrator's would be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

KINDS = '''
"""Kinds for tests."""
'''

PAINTED = '''
"""A camera that takes a picture a few milliseconds after each trigger of its lane; `levels` are its grey levels, one after the other.

It is down at the pictures `down_at`, counted from when it was built, and while the file `down_while` is there.
"""
import os, time
from inspector.config import Strict
from inspector.interfaces import EndOfPictures
from inspector.records import DeviceError, Stamp

class Settings(Strict):
    lane: int = 0
    levels: list[int] = [100]
    down_at: list[int] = []
    down_while: str = ""
    end_after: int | None = None

class Painted:
    max_bytes = 64 * 64

    def __init__(self, settings, name, clock, conveyor):
        self.settings, self.name, self.clock, self.conveyor = settings, name, clock, conveyor
        self.after_ns, self.waiting, self.seq = None, [], 0

    def read(self, into, timeout_s):
        now_ns = self.clock()
        if self.after_ns is None:
            self.after_ns = now_ns
        if not self.waiting:
            until_ns = now_ns + round(timeout_s * 1e9)
            self.waiting = [t for t in self.conveyor.triggers(self.after_ns, until_ns) if t.lane == self.settings.lane]
            self.after_ns = until_ns
        if not self.waiting:
            time.sleep(timeout_s)
            return None
        trigger = self.waiting.pop(0)
        time.sleep(max(0.0, (trigger.at_ns + 3_000_000 - self.clock()) / 1e9))
        self.seq += 1
        if self.settings.end_after is not None and self.seq > self.settings.end_after:
            raise EndOfPictures
        if self.seq in self.settings.down_at or (self.settings.down_while and os.path.exists(self.settings.down_while)):
            raise DeviceError(f"camera {self.name}: cable out")
        into[:4096] = self.settings.levels[(trigger.part_seq - 1) % len(self.settings.levels)]
        into[:128] = trigger.part_seq % 200
        return Stamp(self.name, self.seq, trigger.at_ns, trigger.at_counts, (64, 64))

    def close(self):
        pass

def build(settings, name, clock, conveyor):
    return Painted(settings, name, clock, conveyor)
'''

BRIGHT = '''
"""The mean level within limits; on the levels named it crashes the process, or hangs."""
import os, time
from inspector.config import Strict
from inspector.records import Finding

NEEDS_RASTER = False

class Settings(Strict):
    high: float = 150.0
    crash_on: int | None = None
    hang_on: int | None = None

def build(settings, name, plan):
    def check(views):
        found = []
        for view in views:
            level = int(view.image[32, 32])
            if level == settings.crash_on:
                os.abort()
            if level == settings.hang_on:
                time.sleep(3600)
            found.append((Finding(name, "mean", float(level), None, settings.high, "grey"),))
        return found
    return check
'''


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the third-party kinds `painted` (a source) and `bright` (a check)."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "linekinds").mkdir()
    for name, text in (("__init__", KINDS), ("painted", PAINTED), ("bright", BRIGHT)):
        (folder / "linekinds" / f"{name}.py").write_text(text)
    info = folder / "linekinds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: linekinds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[inspector.sources]\npainted = linekinds.painted\n\n[inspector.checks]\nbright = linekinds.bright\n"
    )
    return folder


@pytest.fixture
def environment(kinds: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which the line's processes know the kinds."""
    return {**os.environ, "PYTHONPATH": str(kinds), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def line(folder: Path, **changes: Any) -> Path:
    """A line with one camera at 20 parts a second, its file in `folder`; `changes` replace top-level settings."""
    settings: dict[str, Any] = {
        "version": 1,
        "site": "test",
        "line": "line1",
        "station": "cell1",
        "state_dir": "state",
        "ready_file": "ready.json",
        "conveyor": {"kind": "simulated", "rate_parts_per_s": 20.0, "lanes": [0], "counts_per_s": 1000.0, "seed": 1},
        "gate": {"bind": "tcp://127.0.0.1:0", "count": "conveyor", "window_counts": 20},
        "events": {"bind": "tcp://127.0.0.1:0", "replay_bind": "tcp://127.0.0.1:0"},
        "metrics": {"gate_bind": "127.0.0.1:0", "vision_bind": "127.0.0.1:0"},
        "journal": {"ballast_mib": 0},
        "cameras": [{"id": "top", "recipe": "plate", "source": {"kind": "painted", "levels": [100, 120, 200]}}],
        "recipes": {"plate": {"checks": {"bright": {"kind": "bright"}}}},
        **changes,
    }
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
