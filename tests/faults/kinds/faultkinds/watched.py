# mypy: ignore-errors
"""The mean level within limits. Control `check`: what goes wrong with the next picture, or for as long as it stands there.

`nan`, `inf`, `shape`, `raise`, `memory`, `slow MS` last; `abort`, `segfault`, `hang`, `hogs`, `garbage`, `storm N` strike once.
"""

import ctypes
import gc
import os
import sys
import threading
import time

from faultkinds import CONTROL, asked

from inspector.config import Strict
from inspector.records import Finding

NEEDS_RASTER = False
HOG_S = 4.0


class Settings(Strict):
    high: float = 150.0


def _once():
    (CONTROL / "check").unlink(missing_ok=True)


def _hog():
    until = time.monotonic() + HOG_S
    while time.monotonic() < until:
        sum(range(1000))


def _strike(words):
    name = words[0]
    if name in ("abort", "segfault", "hang", "hogs", "garbage", "storm"):
        _once()
    if name == "abort":
        os.abort()
    elif name == "segfault":
        ctypes.string_at(0)
    elif name == "hang":
        time.sleep(3600)
    elif name == "hogs":
        for _ in range(3):
            threading.Thread(target=_hog, daemon=True).start()
    elif name == "garbage":
        held = [[n] for n in range(2_000_000)]
        gc.collect()
        del held
    elif name == "storm":
        threading.Thread(target=lambda: [print(f"storm {n}", file=sys.stderr) for n in range(int(words[1]))], daemon=True).start()
    elif name == "slow":
        time.sleep(float(words[1]) / 1e3)
    elif name == "raise":
        raise RuntimeError("asked for")
    elif name == "memory":
        held = [bytearray(64 << 20) for _ in range(1000)]
        del held


def build(settings, name, plan):
    def check(views):
        words = asked("check")
        if words:
            _strike(words)
        value = {"nan": float("nan"), "inf": float("-inf")}.get(words[0] if words else "")
        found = [
            (Finding(name, "mean", float(view.image[32, 32]) if value is None else value, None, settings.high, "grey"),) for view in views
        ]
        return found[:-1] if words[:1] == ["shape"] else found

    return check
