"""Where one camera's pictures wait: a few slots made once, written by the driver, read in place, given back.

    free ──slot()──▶ writing ──commit()──▶ ready ──borrow()──▶ lent ──give_back()──▶ free
                        ▲                     │
                        └────── dropped ──────┘   the rule says who gives way when nothing is free

One slot is always being written, so a ring of n slots holds n − 1 pictures that wait or are being judged; a driver that fills `ahead`
slots on its own holds so many instead of one. Whoever is dropped is returned to the writer, who tells the ledger. At every moment:
written = ready + lent + dropped + done. The slots of a `shared` ring lie in memory that another process can map, for a driver that
runs there; they are read in place all the same.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from inspector.records import Frame, Image, Stamp

if TYPE_CHECKING:
    from inspector.records import Bytes1D


class Lent(NamedTuple):
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


class Memory:
    """Slots of equal size, each beginning on a page, that several processes can map by `fd`; it lives as long as a slot is in use."""

    def __init__(self, slots: int, max_bytes: int) -> None:
        self.stride_bytes = -(-max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = os.memfd_create("inspector-ring", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, slots * self.stride_bytes)
        self.slots = mapped(self.fd, slots, self.stride_bytes, max_bytes)


def mapped(fd: int, slots: int, stride_bytes: int, max_bytes: int) -> list[Bytes1D]:
    """The slots of a `Memory` in this process."""
    whole = np.frombuffer(mmap.mmap(fd, slots * stride_bytes), np.uint8)
    return [whole[n * stride_bytes : n * stride_bytes + max_bytes] for n in range(slots)]


class Ring:
    """`slots` pictures of at most `max_bytes`. One thread writes; any number borrow. `bell` rings when a picture is ready.

    Several rings share one `bell`, so that one thread can wait for whichever camera is first. `memory` is set where the ring is shared.
    """

    def __init__(
        self,
        slots: int,
        max_bytes: int,
        when_full: Literal["drop_oldest", "drop_newest", "wait"],
        bell: threading.Condition | None = None,
        *,
        ahead: int = 1,
        shared: bool = False,
    ) -> None:
        self.max_bytes, self.when_full, self.ahead = max_bytes, when_full, ahead
        self.bell = bell or threading.Condition()
        slots += ahead - 1
        self.memory = Memory(slots, max_bytes) if shared else None
        self._buffers = self.memory.slots if self.memory else [np.empty(max_bytes, np.uint8) for _ in range(slots)]
        self._free = deque(range(ahead, slots))
        self._writing = deque(range(ahead))  # the writer's own
        self._given: set[int] = set()  # the writer's too, and handed on to its driver
        self._ready: deque[tuple[int, Stamp, int]] = deque()
        self._lent: set[int] = set()
        self._images: dict[int, tuple[tuple[int, ...], Image]] = {}
        self._written = self._dropped = self._done = 0

    def slot(self, timeout_s: float) -> Bytes1D | None:
        """The bytes that the next picture goes into. None when nothing became free in time (rule `wait` only)."""
        if not self._writing and not self._refill(timeout_s):
            return None
        return self._buffers[self._writing[0]]

    def give(self, timeout_s: float) -> tuple[int, Bytes1D] | None:
        """A further slot, with its number, for a driver that fills several ahead; None when it has all that it may have now.

        Waits only for the first one: with the rule `wait` nothing may be free.
        """
        if not self._writing and (len(self._given) >= self.ahead or not self._refill(0.0 if self._given else timeout_s)):
            return None
        slot = self._writing.popleft()
        self._given.add(slot)
        return slot, self._buffers[slot]

    def _refill(self, timeout_s: float) -> bool:
        with self.bell:
            if not self._free and not self.bell.wait_for(lambda: self._free, timeout_s):
                return False
            self._writing.append(self._free.popleft())
            return True

    def keep(self, slot: int) -> None:
        """What the driver has written into this slot is no picture; the slot is the writer's again."""
        self._given.remove(slot)
        self._writing.append(slot)

    def reclaim(self) -> None:
        """The driver is gone: all that it was given is the writer's again."""
        self._writing.extend(sorted(self._given))
        self._given.clear()

    def commit(self, stamp: Stamp, now_ns: int, slot: int | None = None) -> Stamp | None:
        """The picture in the slot (None: the one of `slot()`) is whole.

        Returns the exposure that gave way for the next one, which may be this one.
        """
        with self.bell:
            if slot is not None:
                self._given.remove(slot)
                self._writing.appendleft(slot)
            elif not self._writing:
                raise RuntimeError("commit without a slot")
            self._written += 1
            dropped = None
            if self._free:
                self._writing.append(self._free.popleft())
            elif self.when_full != "wait":
                self._dropped += 1
                if self.when_full == "drop_newest" or not self._ready:
                    return stamp
                gone, dropped, _ = self._ready.popleft()
                self._writing.append(gone)
            self._ready.append((self._writing.popleft(), stamp, now_ns))
            self.bell.notify()
            return dropped

    @property
    def waits(self) -> bool:
        """A picture waits."""
        return bool(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is lent."""
        return not self._ready and not self._lent

    @property
    def oldest_ns(self) -> int:
        """When the picture that waits longest was committed; only while one waits (hold the bell)."""
        return self._ready[0][2]

    @property
    def oldest(self) -> Stamp:
        """The picture that waits longest; only while one waits (hold the bell)."""
        return self._ready[0][1]

    def borrow(self, most: int) -> list[Lent]:
        """The pictures that wait, oldest first, at most `most`; never waits. Each must be given back."""
        with self.bell:
            lent: list[Lent] = []
            while self._ready and len(lent) < most:
                slot, stamp, committed_ns = self._ready.popleft()
                self._lent.add(slot)
                lent.append(Lent(Frame(stamp, self._seen_as(slot, stamp.shape)), committed_ns, slot))
            return lent

    def _seen_as(self, slot: int, shape: tuple[int, ...]) -> Image:
        """The slot's bytes as a picture that nobody may write; the same one as long as the camera's pictures have one shape."""
        known = self._images.get(slot)
        if known is not None and known[0] == shape:
            return known[1]
        image = self._buffers[slot][: math.prod(shape)].reshape(shape)
        image.flags.writeable = False
        self._images[slot] = shape, image
        return image

    def give_back(self, *lent: Lent) -> None:
        """The reader is done with them; their bytes may be written from now on. Giving back twice is an error."""
        with self.bell:
            for each in lent:
                self._lent.remove(each.slot)
                self._free.append(each.slot)
            self._done += len(lent)
            if self.when_full == "wait":
                self.bell.notify_all()

    def counts(self) -> Counts:
        """The accounts, all of one moment."""
        with self.bell:
            return Counts(self._written, len(self._ready), len(self._lent), self._dropped, self._done)
