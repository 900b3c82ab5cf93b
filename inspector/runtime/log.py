"""Lines for people, on standard error: at most so many of one kind, and never waited for.

Each kind (`key`) may speak 10 times a second, 50 at once; what was left out is counted and said with the next line. A thread writes, so
that a reader who has stopped reading (a full disk, a log service that hangs) stops nobody; what does not fit into its queue is lost and
counted too.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue
from typing import Final

from inspector.interfaces import Clock

LINES_PER_S: Final = 10
BURST: Final = 50
LARGEST_QUEUE: Final = 1000
KINDS: Final = 1000


def _to_stderr(text: str) -> None:
    with suppress(OSError, ValueError):  # who reads the log may go; the line stays
        print(text, file=sys.stderr, flush=True)


class Log:
    """One process's lines; `say` is safe from any thread."""

    def __init__(self, clock: Clock, write: Callable[[str], None] = _to_stderr) -> None:
        self._clock, self._write = clock, write
        self._buckets: dict[str, tuple[float, int]] = {}
        self._left_out: dict[str, int] = {}
        self._lock = threading.Lock()
        self._lines: Queue[str | None] = Queue(LARGEST_QUEUE)
        self._writer = threading.Thread(target=self._run, name="log", daemon=True)
        self._writer.start()

    def say(self, text: str, key: str = "") -> None:
        """One line; lines with the same key share their limit, and without one all lines of the same first word."""
        key = key or text.partition(" ")[0]
        with self._lock:
            now_ns = self._clock()
            left, at_ns = self._buckets.get(key, (float(BURST), now_ns))
            left = min(float(BURST), left + (now_ns - at_ns) / 1e9 * LINES_PER_S)
            missed = self._left_out.get(key, 0)
            if left >= 1.0:
                try:
                    self._lines.put_nowait(f"{text} ({missed} lines like this were left out)" if missed else text)
                except Full:
                    missed += 1
                else:
                    left, missed = left - 1.0, 0
            else:
                missed += 1
            if len(self._buckets) > KINDS:  # nobody makes so many kinds of lines but by mistake
                self._buckets.clear()
            self._buckets[key], self._left_out[key] = (left, now_ns), missed

    def close(self, within_s: float = 1.0) -> None:
        """Write what waits, if that is possible in time."""
        with suppress(Full):
            self._lines.put(None, timeout=within_s)
            self._writer.join(within_s)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            self._write(text)
