"""An incremental encoder behind the Linux counter subsystem: the kernel counts, we read a file.

The count is that of `counter0/count0/count` below /sys/bus/counter/devices (quadrature decoders of many boards and timers, the
interrupt-cnt driver on plain inputs). It wraps at 2^`bits` and may run either way; the position here does not wrap. Position 0 is the
counter's own zero and not the start, so that processes which start reading at different times speak of the same position, but for whole
wraps (`wrap_counts`), which the gate leaves out of account.

```yaml
conveyor: {kind: encoder, count: /sys/bus/counter/devices/counter0/count0/count, bits: 32}
```
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from inspector.config import Strict
from inspector.records import DeviceError, Trigger

HAS_SENSOR = False


class Settings(Strict):
    """`count` is the file, `bits` the width of the counter, `backwards` for a belt that counts down."""

    count: Path = Path("/sys/bus/counter/devices/counter0/count0/count")
    bits: int = Field(default=32, ge=8, le=64)
    backwards: bool = False


@dataclass(slots=True)
class Encoder:
    """The conveyor; see `interfaces.Conveyor`. Read it at least once in half a wrap, or a whole wrap is missed.

    The position can only be read now: `counts(at_ns)` is the position at the time of the call, which callers make at once.
    """

    file: Path
    bits: int
    backwards: bool
    _raw: int | None = None
    _position: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def wrap_counts(self) -> int:
        """The counter begins anew after so many counts."""
        return 1 << self.bits

    def start(self, at_ns: int) -> None:
        """Read the counter for the first time. Raises `DeviceError` when it cannot be read."""
        with self._lock:
            self._raw = self._position = self._read()

    def counts(self, at_ns: int) -> int:
        """The counter without its wrap; a step of more than half a wrap is taken as backwards."""
        with self._lock:
            raw = self._read()
            self._position = raw if self._raw is None else self._position + unwrapped_step(self._raw, raw, self.bits)
            self._raw = raw
            return -self._position if self.backwards else self._position

    def triggers(self, after_ns: int, until_ns: int) -> Sequence[Trigger]:
        """None: an encoder is no part sensor."""
        return ()

    def _read(self) -> int:
        try:
            return int(self.file.read_text())
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise DeviceError(f"encoder {self.file}: {said}") from error


def unwrapped_step(before: int, after: int, bits: int) -> int:
    """How far a counter of `bits` moved between two readings, taken the short way round: −2^(bits−1) … 2^(bits−1) − 1."""
    half = 1 << (bits - 1)
    return (after - before + half) % (1 << bits) - half


def build(settings: Settings, name: str) -> Encoder:
    """A conveyor that has not started; the file is first read then."""
    return Encoder(settings.count, settings.bits, settings.backwards)
