"""Where one camera's pictures wait: a few slots made once, written by the driver, read in place, given back.

    free ──slot()──▶ writing ──commit()──▶ ready ──borrow()──▶ lent ──give_back()──▶ free
                        ▲                     │
                        └────── dropped ──────┘   the rule says who gives way when nothing is free

One slot is always being written, so a ring of n slots holds n − 1 pictures that wait or are being judged. Whoever is dropped is
returned to the writer, who tells the ledger. At every moment: written = ready + lent + dropped + done.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from inspector.records import Frame, Stamp

if TYPE_CHECKING:
    from inspector.records import Bytes1D


@dataclass(frozen=True, slots=True)
class Lent:
    """A picture that somebody reads; `committed_ns` is when it came into the ring."""

    frame: Frame
    committed_ns: int
    slot: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the pictures so far (`written`, `dropped`, `done`) and where the others are (`ready`, `lent`)."""

    written: int
    ready: int
    lent: int
    dropped: int
    done: int


class Ring:
    """`slots` pictures of at most `max_bytes`. One thread writes; any number borrow. `bell` rings when a picture is ready.

    Several rings share one `bell`, so that one thread can wait for whichever camera is first.
    """

    def __init__(
        self, slots: int, max_bytes: int, when_full: Literal["drop_oldest", "drop_newest", "wait"], bell: threading.Condition | None = None
    ) -> None:
        self.max_bytes, self.when_full = max_bytes, when_full
        self.bell = bell or threading.Condition()
        self._buffers = [np.empty(max_bytes, np.uint8) for _ in range(slots)]
        self._free = deque(range(1, slots))
        self._writing: int | None = 0
        self._ready: deque[tuple[int, Stamp, int]] = deque()
        self._lent: set[int] = set()
        self._written = self._dropped = self._done = 0

    def slot(self, timeout_s: float) -> Bytes1D | None:
        """The bytes that the next picture goes into. None when nothing became free in time (rule `wait` only)."""
        if self._writing is None:
            with self.bell:
                if not self._free and not self.bell.wait_for(lambda: self._free, timeout_s):
                    return None
                self._writing = self._free.popleft()
        return self._buffers[self._writing]

    def commit(self, stamp: Stamp, now_ns: int) -> Stamp | None:
        """The picture in the slot is whole. Returns the exposure that gave way for the next one, which may be this one."""
        with self.bell:
            written = self._writing
            if written is None:
                raise RuntimeError("commit without a slot")
            self._written += 1
            dropped = None
            if self._free:
                self._writing = self._free.popleft()
            elif self.when_full == "wait":
                self._writing = None
            else:
                self._dropped += 1
                if self.when_full == "drop_newest" or not self._ready:
                    return stamp
                self._writing, dropped, _ = self._ready.popleft()
            self._ready.append((written, stamp, now_ns))
            self.bell.notify()
            return dropped

    @property
    def waits(self) -> bool:
        """A picture waits."""
        return bool(self._ready)

    @property
    def oldest_ns(self) -> int:
        """When the picture that waits longest was committed; only while one waits (hold the bell)."""
        return self._ready[0][2]

    def borrow(self, most: int) -> list[Lent]:
        """The pictures that wait, oldest first, at most `most`; never waits. Each must be given back."""
        with self.bell:
            lent: list[Lent] = []
            while self._ready and len(lent) < most:
                slot, stamp, committed_ns = self._ready.popleft()
                self._lent.add(slot)
                image = self._buffers[slot][: math.prod(stamp.shape)].reshape(stamp.shape)
                image.flags.writeable = False
                lent.append(Lent(Frame(stamp, image), committed_ns, slot))
            return lent

    def give_back(self, lent: Lent) -> None:
        """The reader is done with it; its bytes may be written from now on. Giving back twice is an error."""
        with self.bell:
            self._lent.remove(lent.slot)
            self._free.append(lent.slot)
            self._done += 1
            if self.when_full == "wait":
                self.bell.notify_all()

    def counts(self) -> Counts:
        """The accounts, all of one moment."""
        with self.bell:
            return Counts(self._written, len(self._ready), len(self._lent), self._dropped, self._done)
