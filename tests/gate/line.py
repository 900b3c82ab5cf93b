"""A line for tests: a configuration, vision's end of the link played by hand, and the daemon's gate around it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector import config
from inspector.gate.gateway import Terms
from inspector.interfaces import Conveyor
from inspector.runtime import link
from inspector.runtime.gate import GateProcess

TERMS = Terms(client="plc-1", station="cell-1")


def settings(
    folder: Path,
    *,
    count: str = "frames",
    cameras: Sequence[tuple[str, int]] = (("top", 0),),
    security: dict[str, Path] | None = None,
    **gate: Any,
) -> config.Config:
    """A configuration with free ports."""
    return config.Config.model_validate(
        {
            "version": 1,
            "site": "site",
            "line": "line-1",
            "station": "cell-1",
            "state_dir": folder / "state",
            "gate": {"bind": "tcp://127.0.0.1:0", "count": count, **gate},
            "events": {"bind": "tcp://127.0.0.1:0", "replay_bind": "tcp://127.0.0.1:0"},
            "security": security,
            "journal": {"ballast_mib": 0},
            "cameras": [{"id": name, "lane": lane, "recipe": "r", "source": {"kind": "replay"}} for name, lane in cameras],
            "recipes": {"r": {"checks": {"c": {"kind": "outline"}}}},
        }
    )


def body(camera: str = "top", **more: Any) -> bytes:
    """What vision adds to an event."""
    finding = {
        "check": "outline",
        "feature": "outer",
        "value": 0.01,
        "low": -0.1,
        "high": 0.1,
        "unit": "mm",
        "ok": True,
        "at_mm": [1.0, 2.0],
    }
    exposed = {"cam_id": camera, "frame_id": 1, "t_exposure_utc_ns": "1790000000000000000", "exposure_us": 100}
    return json.dumps(
        {
            "findings": [finding],
            "defects": [],
            "camera": {**exposed, "complete": True, "quality": 1.0},
            "timing_ms": {"acq": 1.0, "queue": 0.1, "infer": 5.0, "decide": 0.1, "total": 6.2},
            "pose": None,
            "image_ref": None,
            "part_uid": None,
            **more,
        },
        separators=(",", ":"),
    ).encode()


@dataclass
class Running:
    """A gate that runs, and vision's end of its link."""

    gate: GateProcess
    vision: link.End
    ends: list[link.End]

    def attach(self) -> None:
        """Vision is ready (again)."""
        ours, self.vision = link.pair()
        self.ends += [ours, self.vision]
        self.gate.attach(ours, link.Ready("ab" * 32, [["net", "cd" * 32]], ["locate", "outline"], 1))

    def expose(self, seq: int, decision: str | None = "pass", reason: int = 0, camera: str = "top") -> None:
        """One exposure, seen and judged."""
        now_ns = time.monotonic_ns()
        assert self.vision.send(link.Seen(camera, seq, now_ns, None, True, None))
        if decision is not None:
            assert self.vision.send(link.Judged(camera, seq, decision, reason, "", body(camera)))


@contextmanager
def running(folder: Path, *, conveyor: Conveyor | None = None, **gate: Any) -> Iterator[Running]:
    """A gate with vision attached and the line begun."""
    ends: list[link.End] = []
    with ExitStack() as stack:

        def close() -> None:
            for end in ends:
                end.close()

        stack.callback(close)
        gate_ = GateProcess(settings(folder, **gate), folder / "state", clock=time.monotonic_ns, utc_clock=time.time_ns, conveyor=conveyor)
        gate_.start(stack)
        ours, theirs = link.pair()
        ends += [ours, theirs]
        line = Running(gate_, theirs, ends)
        gate_.attach(ours, link.Ready("ab" * 32, [["net", "cd" * 32]], ["locate", "outline"], 1))
        gate_.begin(time.monotonic_ns())
        yield line


def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)
