"""What cameras that speak GenICam have in common: pixel formats, exposure numbers, clocks, and the record of a feature.

Pixel formats have the names of the PFNC (EMVA, GenICam Pixel Format Naming Convention 2.4). What has more than 8 bits keeps its upper 8.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.records import DeviceError

if TYPE_CHECKING:
    from inspector.records import Bytes1D

_FORMAT = re.compile(r"(Mono|Bayer(?:RG|GR|GB|BG)|RGBa?|BGRa?)(8|10|12|14|16)(p|Packed)?")
_MOSAIC = {"BayerRG": "BayerRGGB", "BayerGR": "BayerGRBG", "BayerGB": "BayerGBRG", "BayerBG": "BayerBGGR"}
WRAP_16 = 65_535
WINDOW_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """A device that answered: what `inspector camera list` shows. `select` is what stands in the YAML to choose it."""

    kind: str
    vendor: str
    model: str
    serial: str
    address: str
    select: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Feature:
    """One GenICam feature as it is now; `low`, `high`, `step` and `values` are what it may be, where the camera says so."""

    name: str
    category: str
    kind: str
    value: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    step: float | None = None

    @property
    def allowed(self) -> str:
        """What it may be, for a person to read; empty where the camera does not say."""
        if self.values or self.low is None or self.high is None:
            return ", ".join(self.values)
        steps = f" in steps of {self.step:.10g}" if (self.step or 1) != 1 else ""
        return f"{self.low:.10g} to {self.high:.10g} {self.unit}".rstrip() + steps

    def takes(self, number: float) -> bool:
        """The number lies within what the camera allows, as far as it says so."""
        if self.low is None or self.high is None or self.low > self.high:
            return True
        slack = 1e-9 * max(abs(self.low), abs(self.high)) if isinstance(number, float) else 0
        off = (number - self.low) % self.step if self.step else 0
        return self.low - slack <= number <= self.high + slack and off == 0


class PixelFormat:
    """How the pixels of one format become uint8 (H, W), or (H, W, 3) BGR where `colour` is asked for.

    `direct`: the bytes are that already. Raises `DeviceError` for a format that is not known here.
    """

    def __init__(self, name: str, *, colour: bool) -> None:
        match = _FORMAT.fullmatch(name)
        if match is None or (match[2] in ("8", "16") and match[3]):  # whole bytes are never packed
            raise DeviceError(f"pixel format {name} is not known here; known: Mono, BayerXX, RGB, BGR with 8 to 16 bits, packed or not")
        self._family, self._bits, self._packing = match[1], int(match[2]), match[3] or ""
        self.name, self.colour = name, colour and self._family != "Mono"
        self._channels = 1 if self._family[0] in "M" or self._family.startswith("Bayer") else 4 if self._family.endswith("a") else 3
        self.direct = self._bits == 8 and (self._family == "Mono" or (self._family == "BGR" and colour))

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of a picture of this size."""
        return (height, width, 3) if self.colour else (height, width)

    def bytes_of(self, height: int, width: int) -> int:
        """What a picture takes as the camera sends it."""
        samples = height * width * self._channels
        if self._bits == 8:
            return samples
        if self._packing == "Packed":
            return -(-samples // 2) * 3
        return -(-samples * self._bits // 8) if self._packing else 2 * samples

    def convert(self, raw: Bytes1D, height: int, width: int, into: Bytes1D) -> tuple[int, ...]:
        """Write the picture into the first bytes of `into`; returns its shape. `raw` has no padding between rows.

        Raises `DeviceError` when there are fewer bytes than the picture needs.
        """
        if len(raw) < self.bytes_of(height, width):
            raise DeviceError(f"a picture of {width} × {height} {self.name} has {len(raw)} bytes, not {self.bytes_of(height, width)}")
        shape = self.shape(height, width)
        picture = into[: int(np.prod(shape))].reshape(shape)
        if self._family == "Mono":
            self._upper_bits(raw, picture.reshape(-1))
            return shape
        samples = raw[: height * width * self._channels]
        if self._bits > 8:
            samples = np.empty(height * width * self._channels, np.uint8)
            self._upper_bits(raw, samples)
        if self._channels == 1:
            code = getattr(cv2, f"COLOR_{_MOSAIC[self._family]}2{'BGR' if self.colour else 'GRAY'}")
            cv2.cvtColor(samples.reshape(height, width), code, dst=picture)
            return shape
        pixels = samples.reshape(height, width, self._channels)
        source = self._family.upper()
        if source == "BGR" and self.colour:
            picture[:] = pixels
        else:
            cv2.cvtColor(pixels, getattr(cv2, f"COLOR_{source}2{'BGR' if self.colour else 'GRAY'}"), dst=picture)
        return shape

    def _upper_bits(self, raw: Bytes1D, into: Bytes1D) -> None:
        """The upper 8 bits of each sample."""
        count, packing = len(into), self._packing
        if self._bits == 8:
            into[:] = raw[:count]
        elif not packing:
            np.right_shift(raw[: 2 * count].view("<u2"), self._bits - 8, out=into, casting="unsafe")
        elif packing == "Packed":  # GigE Vision: upper 8 bits, both lower parts, upper 8 bits
            into[0::2] = raw[0::3][: len(into[0::2])]
            into[1::2] = raw[2::3][: len(into[1::2])]
        else:
            _upper_of_stream(raw, self._bits, into)


def _upper_of_stream(raw: Bytes1D, bits: int, into: Bytes1D) -> None:
    """The upper 8 bits of samples that follow each other bit by bit, lowest bit first (PFNC: `p`)."""
    group = {10: 4, 12: 2, 14: 4}[bits]  # so many samples fill whole bytes
    group_bytes = group * bits // 8
    for place in range(group):
        first_bit = place * bits + bits - 8
        at, shift = divmod(first_bit, 8)
        out = into[place::group]
        low = raw[at::group_bytes][: len(out)]
        if shift == 0:
            out[:] = low
        else:
            high = raw[at + 1 :: group_bytes][: len(out)]
            np.bitwise_or(low >> shift, high << (8 - shift), out=out)


class Numbering:
    """Exposure numbers without wrap: GigE Vision counts 1…65535 and again 1, unless the camera has 64-bit numbers.

    A number that lies up to half a turn back is a late or repeated one, and gives a number that was given already.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._seq = 0

    def of(self, frame_id: int) -> int:
        """The gapless number of the camera's own number; the first one is 1."""
        if self._last is None:
            self._last, self._seq = frame_id, 1
            return 1
        step = frame_id - self._last
        if max(frame_id, self._last) <= WRAP_16:
            step = (step + WRAP_16 // 2) % WRAP_16 - WRAP_16 // 2
        if step > 0:
            self._last, self._seq = frame_id, self._seq + step
            return self._seq
        return self._seq + step


class CameraClock:
    """The camera's time stamps on our clock: whoever has waited longest on the way is dated by its stamp, not by its arrival.

    The shortest way of the last 5 to 10 s is taken for the way itself, so that a drift of 100 ppm makes at most 1 ms. An old picture that
    comes late (a stale buffer) thus has its real time, and no part of now.
    """

    def __init__(self) -> None:
        self._ways: deque[tuple[int, int]] = deque()  # (when its window began, shortest way in it)
        self._last_ns = 0

    def at_ns(self, camera_ns: int, arrived_ns: int) -> int:
        """When the picture was made; `camera_ns` 0 means that the camera does not say."""
        if camera_ns <= 0:
            return arrived_ns
        way_ns = arrived_ns - camera_ns
        if camera_ns < self._last_ns - WINDOW_NS:  # the camera's clock was set back
            self._ways.clear()
        self._last_ns = max(camera_ns, self._last_ns) if self._ways else camera_ns
        if not self._ways or arrived_ns - self._ways[-1][0] > WINDOW_NS:
            self._ways.append((arrived_ns, way_ns))
            while len(self._ways) > 2:
                self._ways.popleft()
        else:
            began_ns, shortest_ns = self._ways[-1]
            self._ways[-1] = (began_ns, min(shortest_ns, way_ns))
        return camera_ns + min(way for _, way in self._ways)


def told(value: str, asked: Any) -> bool:
    """A feature reads back as what was asked for: numbers within 1 %, because cameras have steps of their own."""
    if isinstance(asked, bool):
        return value.strip().lower() in (("true", "1") if asked else ("false", "0"))
    if isinstance(asked, str):
        return value.strip() == asked
    try:
        number = float(int(value, 0)) if isinstance(asked, int) and value.isalnum() else float(value)
    except ValueError:
        return False
    return bool(abs(number - asked) <= (0.01 * abs(asked) if isinstance(asked, float) else 0))
