"""The gate's eye on the belt: the conveyor asked for its position and its part sensor's edges, and asked again when its device fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from inspector.interfaces import Conveyor
from inspector.records import DeviceError, Trigger

FIRST_WAIT_NS: Final = 100_000_000
LONGEST_WAIT_NS: Final = 5_000_000_000


class Look(NamedTuple):
    """What was seen: the edges since the last look, the position where it was asked for, and what is wrong with the device (else empty)."""

    triggers: Sequence[Trigger]
    counts: int | None
    trouble: str


class Belt:
    """One conveyor from `begin` on. A `DeviceError` is no end: it is told in each look, and the device tried again, later each time."""

    def __init__(self, conveyor: Conveyor) -> None:
        self._conveyor = conveyor
        self._begin_ns: int | None = None
        self._started = False
        self._after_ns = self._not_before_ns = 0
        self._wait_ns = FIRST_WAIT_NS
        self._trouble = ""

    def begin(self, at_ns: int) -> None:
        """The line runs from this moment on."""
        self._begin_ns = self._after_ns = at_ns

    def look(self, now_ns: int, *, sensor: bool, position: bool) -> Look:
        """Ask for the part sensor's edges and the position, whichever is wanted; nothing before `begin`."""
        if self._begin_ns is None or now_ns < self._not_before_ns:
            return Look((), None, self._trouble)
        try:
            if not self._started:
                self._conveyor.start(self._begin_ns)
                self._started = True
            counts = self._conveyor.counts(now_ns) if position or self._trouble else None
            triggers = self._conveyor.triggers(self._after_ns, now_ns) if sensor else ()
        except DeviceError as error:
            self._trouble = str(error)
            self._not_before_ns = now_ns + self._wait_ns
            self._wait_ns = min(LONGEST_WAIT_NS, 2 * self._wait_ns)
            return Look((), None, self._trouble)
        self._after_ns, self._trouble, self._wait_ns = now_ns, "", FIRST_WAIT_NS
        return Look(triggers, counts, "")
