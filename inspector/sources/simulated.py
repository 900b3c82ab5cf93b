"""A camera over its lane of a simulated belt: it exposes when the belt's part sensor fires, and what it sees is drawn, with known truth.

Pictures are drawn by a process of their own (`_painter`), `ahead` of the belt. When the belt is faster than the drawing, earlier pictures
are shown again; the truth says so and stays right. It is written as the exposures come, one JSON object a line: `camera`, `seq`,
`lane`, `part_seq`, `at_ns`, `scene` (the number of the picture), `again`, `fault`, `good`, `pose`, `defects`.

Whoever has no part sensor sets `rate_hz`, and the camera exposes by its own clock.

    source:
      kind: simulated
      drawing: ../dxf_templates/plate.dxf
      lane: 0
      look: {defect_ratio: 0.3, textures: [brushed, rolled]}     # ranges and kinds: scene/look.py
      faults: {lost_ratio: 0.001, black_ratio: 0.001}
      truth: ${INSPECTOR_TRUTH:-../state}/plate.jsonl
"""

from __future__ import annotations

import json
import mmap
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import cv2
import numpy as np
from pydantic import Field

from inspector.config import Strict
from inspector.conveyor import simulated as belt
from inspector.geometry import dxf, template
from inspector.interfaces import Clock, Conveyor
from inspector.records import ConfigError, DeviceError, Stamp, Trigger
from inspector.scene import Look
from inspector.sources._painter import Task
from inspector.sources._truth import Truth

if TYPE_CHECKING:
    from inspector.records import Bytes1D

POLL_S = 0.005
"""How often the belt is asked when it cannot say when its next part comes."""

DRAWN_S = 60.0
HELD_NS = 1 << 62
"""When an exposure is ready that waits for the one after it."""
END_S = 2.0


class Faults(Strict):
    """What goes wrong, as shares of the exposures; at most one thing with each. Which exposures depends on the seed only.

    A fault strikes `run` exposures in a row. `swapped` comes after the exposure that follows it, `stale` shows the picture and the time of
    the exposure before it under a new number, `blurred` is out of focus, `reset` finds a camera that has lost its settings and is down.
    Every `unplugged_every_s` the cable is out for `unplugged_s` (0: never), for all cameras of a machine that have it so at once.
    """

    lost_ratio: float = Field(default=0.0, ge=0, le=1)
    duplicate_ratio: float = Field(default=0.0, ge=0, le=1)
    swapped_ratio: float = Field(default=0.0, ge=0, le=1)
    stale_ratio: float = Field(default=0.0, ge=0, le=1)
    frozen_ratio: float = Field(default=0.0, ge=0, le=1)
    black_ratio: float = Field(default=0.0, ge=0, le=1)
    white_ratio: float = Field(default=0.0, ge=0, le=1)
    blurred_ratio: float = Field(default=0.0, ge=0, le=1)
    incomplete_ratio: float = Field(default=0.0, ge=0, le=1)
    reset_ratio: float = Field(default=0.0, ge=0, le=1)
    late_ratio: float = Field(default=0.0, ge=0, le=1)
    late_ms: float = Field(default=400.0, ge=0)
    run: int = Field(default=1, ge=1)
    unplugged_every_s: float = Field(default=0.0, ge=0)
    unplugged_s: float = Field(default=1.0, gt=0)

    def unplugged(self, now_ns: int) -> bool:
        """The cable is out now."""
        return self.unplugged_every_s > 0 and now_ns / 1e9 % self.unplugged_every_s >= self.unplugged_every_s - self.unplugged_s


RATIOS = tuple(name for name in Faults.model_fields if name.endswith("_ratio"))
BLUR_PX = 12.0


class Settings(Strict):
    """`mm_per_px` None: the part fits at any angle. `seed` None: the belt's, so that one number makes the whole line.

    `transfer_ms` is from exposure to picture; the camera holds `buffers` pictures that nobody fetched and loses older ones.
    """

    drawing: Path
    lane: int = Field(default=0, ge=0, le=255)
    width_px: int = Field(default=1280, ge=64, le=16384)
    height_px: int = Field(default=1024, ge=64, le=16384)
    mm_per_px: float | None = Field(default=None, gt=0)
    seed: int | None = Field(default=None, ge=0)
    rate_hz: float | None = Field(default=None, gt=0, le=1000)
    ahead: int = Field(default=8, ge=4, le=4096)
    transfer_ms: float = Field(default=4.0, ge=0)
    buffers: int = Field(default=4, ge=1, le=4096)
    look: Look = Look()
    faults: Faults = Faults()
    truth: Path | None = None


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure on its way: when its picture is there, where that lies, and what is wrong with it."""

    trigger: Trigger
    ready_ns: int
    slot: int
    fault: str | None


class Painted:
    """The pictures that the painter draws, and which of them is shown next. `again` counts pictures shown a further time.

    The painter always has two to draw. A picture may be drawn over when `buffers` and one more were shown after it.
    """

    def __init__(self, settings: Settings, seed: tuple[int, ...]) -> None:
        self._kept = settings.buffers + 1  # pictures shown last may still be on their way
        slots = settings.ahead + self._kept + 1
        size = slots * settings.width_px * settings.height_px
        fd = os.memfd_create("inspector-pictures", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, size)
            self._memory = mmap.mmap(fd, size)
            self._pictures = np.frombuffer(self._memory, np.uint8).reshape(slots, -1)
            self._painter = subprocess.Popen(
                [sys.executable, "-m", "inspector.sources._painter"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[fd],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            task = Task(
                str(settings.drawing),
                (settings.width_px, settings.height_px),
                settings.mm_per_px,
                seed,
                settings.look.model_dump_json(),
                fd,
                slots,
                settings.ahead,
            )
            self._say(json.dumps(asdict(task)))
        finally:
            os.close(fd)
        self._heard = b""
        self._truth: list[dict[str, Any]] = [{}] * slots
        self._fresh: deque[int] = deque()
        self._shown: deque[int] = deque()  # the one shown longest ago first
        self._drawing: set[int] = set(range(slots))
        self._index = slots
        self.again = 0
        for slot in range(slots):
            self._say(f"{slot} {slot}")

    @property
    def _out(self) -> IO[bytes]:
        assert self._painter.stdout is not None
        return self._painter.stdout

    def _say(self, line: str) -> None:
        assert self._painter.stdin is not None
        try:
            self._painter.stdin.write(line.encode() + b"\n")
            self._painter.stdin.flush()
        except BrokenPipeError as error:
            self._hear(0.0)
            raise DeviceError("the process that draws the pictures has ended") from error

    def _hear(self, timeout_s: float) -> None:
        """Take note of what has been drawn. Raises `ConfigError` for what the painter refuses, `DeviceError` when it has ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while selector.select(timeout_s):
                data = os.read(self._out.fileno(), 65536)
                if not data:
                    raise DeviceError("the process that draws the pictures has ended")
                *lines, self._heard = (self._heard + data).split(b"\n")
                for line in lines:
                    self._note(json.loads(line))
                timeout_s = 0.0

    def _note(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            code, text, file = answer["error"]
            raise ConfigError(code, text, file=file, key="drawing")
        slot = answer["slot"]
        self._truth[slot] = answer["truth"] | {"scene": answer["index"]}
        self._drawing.discard(slot)
        self._fresh.append(slot)

    def wait(self, pictures: int, timeout_s: float) -> None:
        """Until there are so many new pictures to show; `DeviceError` when they do not come in time."""
        until_s = time.monotonic() + timeout_s
        while len(self._fresh) < pictures:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise DeviceError(f"only {len(self._fresh)} pictures were drawn within {timeout_s:g} s")
            self._hear(left_s)

    def take(self) -> int:
        """The slot of the next picture: a new one where there is one, else the one shown longest ago; never the last one shown."""
        self._hear(0.0)
        if self._fresh:
            slot = self._fresh.popleft()
        else:
            slot = self._shown.popleft()
            self.again += 1
        if len(self._shown) > self._kept and len(self._drawing) < 2:
            old = self._shown.popleft()
            self._drawing.add(old)
            self._say(f"{self._index} {old}")
            self._index += 1
        self._shown.append(slot)
        return slot

    def picture(self, slot: int) -> Bytes1D:
        """The bytes of a slot's picture, row by row."""
        picture: Bytes1D = self._pictures[slot]
        return picture

    def truth(self, slot: int) -> dict[str, Any]:
        """What is known of a slot's picture."""
        return self._truth[slot]

    def close(self) -> None:
        """End the painter and let the memory go."""
        if self._painter.stdin is not None and not self._painter.stdin.closed:
            with suppress(BrokenPipeError):
                self._painter.stdin.close()
            try:
                self._painter.wait(END_S)
            except subprocess.TimeoutExpired:
                self._painter.kill()
                self._painter.wait()
            self._out.close()
            del self._pictures
            self._memory.close()


class Simulated:
    """The camera; see `interfaces.Source`. Exposure n of the lane has `Stamp.seq` n, whatever happens to its picture."""

    def __init__(self, settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> None:
        self._settings, self._name, self._clock = settings, name, clock
        self._shape = (settings.height_px, settings.width_px)
        self.max_bytes = settings.width_px * settings.height_px
        self._belt, self._free = conveyor, settings.rate_hz is not None
        if settings.rate_hz is not None:
            self._belt = belt.Simulated(belt.Settings(rate_parts_per_s=settings.rate_hz, lanes=(settings.lane,)))
        self._seed = settings.seed if settings.seed is not None else int(getattr(conveyor, "seed", 0))
        self._asked_ns: int | None = None
        self._waiting: deque[Exposure] = deque()
        self._last_slot: int | None = None
        self._last: Exposure | None = None
        self._painted = Painted(settings, (self._seed, settings.lane))
        try:
            self._painted.wait(settings.ahead, DRAWN_S)
            self._truth = None if settings.truth is None else Truth(settings.truth)
        except BaseException:
            self._painted.close()
            raise

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The picture of the next exposure, when it is there."""
        left_s = timeout_s
        while True:
            now_ns = self._clock()
            if self._settings.faults.unplugged(now_ns):
                raise DeviceError(f"camera {self._name}: unplugged")
            self._expose(now_ns)
            if self._waiting and self._waiting[0].ready_ns <= now_ns:
                return self._deliver(into, self._waiting.popleft())
            if left_s <= 0:
                return None
            until_ns = now_ns + round(left_s * 1e9)
            if self._waiting and self._waiting[0].ready_ns < HELD_NS:
                wait_s = (self._waiting[0].ready_ns - now_ns) / 1e9
            else:
                coming = [t.at_ns for t in self._belt.triggers(now_ns, until_ns) if t.lane == self._settings.lane]
                wait_s = (min(coming) - now_ns) / 1e9 if coming else POLL_S
            wait_s = min(wait_s, left_s)
            time.sleep(wait_s)
            left_s -= wait_s

    def _expose(self, now_ns: int) -> None:
        """Expose for every part that has come by; the camera's own clock starts with the first reading."""
        if self._asked_ns is None:
            self._asked_ns = now_ns - round(POLL_S * 1e9)
            if self._free:
                self._belt.start(now_ns)
        for trigger in self._belt.triggers(self._asked_ns, now_ns):
            if trigger.lane == self._settings.lane:
                self._expose_one(trigger)
        self._asked_ns = now_ns
        while sum(e.ready_ns <= now_ns for e in self._waiting) > self._settings.buffers:
            self._waiting.popleft()

    def _expose_one(self, trigger: Trigger) -> None:
        again = self._painted.again
        slot = self._painted.take()
        fault = self._fault(trigger.part_seq)
        if self._truth is not None:
            line = {
                "camera": self._name,
                "seq": trigger.part_seq,
                "lane": trigger.lane,
                "part_seq": trigger.part_seq,
                "at_ns": trigger.at_ns,
            }
            line |= {"again": self._painted.again > again, "fault": fault} | self._painted.truth(slot)
            self._truth.tell(line)
        late_ms = self._settings.faults.late_ms if fault == "late" else 0.0
        ready_ns = trigger.at_ns + round((self._settings.transfer_ms + late_ms) * 1e6)
        shown = self._last_slot if fault == "frozen" and self._last_slot is not None else slot
        self._last_slot = shown
        if fault == "lost":
            return
        exposed = Exposure(trigger, ready_ns, shown, fault)
        stale = self._last if fault == "stale" else None
        if stale is not None:
            exposed = Exposure(replace(stale.trigger, part_seq=trigger.part_seq), ready_ns, stale.slot, fault)
        self._last = exposed
        held = self._waiting.pop() if self._waiting and self._waiting[-1].ready_ns == HELD_NS else None
        if held is None and fault == "swapped":
            exposed = replace(exposed, ready_ns=HELD_NS)
        for _ in range(2 if fault == "duplicate" else 1):
            self._waiting.append(exposed)
        if held is not None:
            self._waiting.append(replace(held, ready_ns=ready_ns))

    def _fault(self, seq: int) -> str | None:
        faults = self._settings.faults
        shares = {name.removesuffix("_ratio"): float(getattr(faults, name)) for name in RATIOS}
        if not any(shares.values()):
            return None
        chance = float(np.random.default_rng([self._seed, self._settings.lane, seq // faults.run, 1]).random())
        for fault, share in shares.items():
            if chance < share:
                return fault
            chance -= share
        return None

    def _deliver(self, into: Bytes1D, exposure: Exposure) -> Stamp:
        picture = into[: self.max_bytes]
        if exposure.fault == "reset":
            raise DeviceError(f"camera {self._name}: exposure_us is 10000.0, which nobody asked for")
        if exposure.fault in ("black", "white"):
            picture[:] = 0 if exposure.fault == "black" else 255
        elif exposure.fault == "blurred":
            sharp = self._painted.picture(exposure.slot).reshape(self._shape)
            cv2.GaussianBlur(sharp, (0, 0), BLUR_PX, dst=picture.reshape(self._shape))
        else:
            picture[:] = self._painted.picture(exposure.slot)
        whole = exposure.fault != "incomplete"
        if not whole:
            picture[self.max_bytes // 3 :] = 0
        t = exposure.trigger
        return Stamp(self._name, t.part_seq, t.at_ns, None if self._free else t.at_counts, self._shape, whole)

    def close(self) -> None:
        """End the drawing."""
        self._painted.close()
        if self._truth is not None:
            self._truth.close()


def examine(settings: Settings) -> None:
    """The drawing can be drawn from. Raises `ConfigError` E_DXF_*."""
    try:
        template.build(dxf.read(settings.drawing))
    except ConfigError as error:
        raise error.of("drawing") from error


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> Simulated:
    """A camera whose first pictures are drawn; raises what is wrong with the drawing as `ConfigError`, `DeviceError` while unplugged."""
    if settings.faults.unplugged(clock()):
        raise DeviceError(f"camera {name}: unplugged")
    return Simulated(settings, name, clock, conveyor)
