"""A driver's own threads go before those that compute: packets do not wait until a network has had its turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

FIRST: Final = 10


@contextmanager
def going_first() -> Iterator[None]:
    """Threads that this one starts meanwhile go before the others of the machine, where they may (root, RLIMIT_NICE)."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, before - FIRST)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
