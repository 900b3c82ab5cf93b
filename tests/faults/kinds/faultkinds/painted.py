# mypy: ignore-errors
"""A camera that takes a picture a few milliseconds after each trigger of its lane: every fifth part is bad, which a mean level shows.

Control `camera`: `black`, `frozen`, `settings` (what was read back is not what was set), `lost` (every third exposure).
"""

import time
from collections import deque

import numpy as np
from faultkinds import asked

from inspector.config import Strict
from inspector.records import DeviceError, Stamp

GOOD, BAD = 100, 200


def level(part_seq):
    """What a part looks like: its truth."""
    return BAD if part_seq % 5 == 0 else GOOD


class Settings(Strict):
    lane: int = 0


class Painted:
    max_bytes = 64 * 64

    def __init__(self, settings, name, clock, conveyor):
        self.settings, self.name, self.clock, self.conveyor = settings, name, clock, conveyor
        self.after_ns, self.waiting, self.seq, self.asked, self.asked_ns = None, deque(), 0, [], 0

    def read(self, into, timeout_s):
        now_ns = self.clock()
        if now_ns - self.asked_ns > 50_000_000:
            self.asked, self.asked_ns = asked("camera"), now_ns
        if "settings" in self.asked:
            raise DeviceError(f"camera {self.name}: exposure_us is 8000, 2500 was set")
        if self.after_ns is None:
            self.after_ns = now_ns
        if not self.waiting:
            until_ns = now_ns + round(min(timeout_s, 0.05) * 1e9)
            self.waiting.extend(t for t in self.conveyor.triggers(self.after_ns, until_ns) if t.lane == self.settings.lane)
            self.after_ns = until_ns
        if not self.waiting:
            time.sleep(min(timeout_s, 0.05))
            return None
        trigger = self.waiting.popleft()
        time.sleep(max(0.0, (trigger.at_ns + 3_000_000 - self.clock()) / 1e9))
        self.seq += 1
        if "lost" in self.asked and self.seq % 3 == 0:
            return None
        into[:4096] = 0 if "black" in self.asked else level(trigger.part_seq)
        if "frozen" not in self.asked and "black" not in self.asked:
            into[:4096] += np.random.default_rng(trigger.at_ns).integers(0, 10, 4096, np.uint8)  # no two pictures are the same
        return Stamp(self.name, self.seq, trigger.at_ns, trigger.at_counts, (64, 64))

    def close(self):
        pass


def build(settings, name, clock, conveyor):
    return Painted(settings, name, clock, conveyor)
