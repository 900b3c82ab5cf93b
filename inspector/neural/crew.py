"""One picture's work, done by whoever is idle: an inspecting thread that has no picture of its own helps the one that has.

On a line that is not full a part is then judged by all the machine's cores; on a full one nobody is idle. Who helps does so until nothing
of that picture is left, so that parts are done in their order. There is no thread here: those who wait for pictures at the `bell` wait for
work too, and `lend_a_hand` when it rings. Work of other threads, as of a recipe that is tried beside the line, is their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from inspector.neural import limits

_mine = threading.local()
_change = threading.Lock()
_jobs: tuple[_Job, ...] = ()  # never changed, but replaced: whoever looks sees one moment


class _Job:
    """So many pieces of work, each of which one thread takes."""

    __slots__ = ("_at_it", "_change", "_closed", "_count", "_error", "_next", "_work")

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._count, self._work, self._change = count, work, threading.Condition(threading.Lock())
        self._next = 0
        self._at_it = {threading.get_ident()}
        self._closed = False
        self._error: Exception | None = None

    @property
    def open(self) -> bool:
        """A piece is left that nobody has taken."""
        return self._next < self._count

    def take_part(self) -> None:
        """Take pieces until none is left; the first error ends it for everyone, and the networks that run for it."""
        while True:
            with self._change:
                piece, self._next = self._next, self._next + 1
            if piece >= self._count:
                return
            try:
                self._work(piece)
            except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
                with self._change:
                    self._error, self._next = self._error or error, self._count
                    others = self._at_it - {threading.get_ident()}
                limits.end_those_of(others)
                return

    def join(self) -> bool:
        """Take part as a helper; False when it is over."""
        with self._change:
            if self._closed or not self.open:
                return False
            self._at_it.add(threading.get_ident())
        try:
            self.take_part()
        finally:
            with self._change:
                self._at_it.remove(threading.get_ident())
                self._change.notify()
        return True

    def close(self) -> None:
        """Wait for the helpers, and raise what went wrong."""
        with self._change:
            self._closed, self._next = True, self._count
            self._change.wait_for(lambda: len(self._at_it) == 1)
        if self._error is not None:
            raise self._error


def gather_at(bell: threading.Condition | None) -> None:
    """From now on those who wait at this bell are asked to help the calling thread; None: nobody is."""
    _mine.bell = bell


def each(count: int, work: Callable[[int], None]) -> None:
    """`work(0)` to `work(count - 1)`, in any order and by any thread; all are done when it returns. Raises the first error of any."""
    global _jobs  # noqa: PLW0603 - a process has one crew, as it has one set of cores
    bell: threading.Condition | None = getattr(_mine, "bell", None)
    if bell is None or count < 2:
        for piece in range(count):
            work(piece)
        return
    job = _Job(count, work)
    with _change:
        _jobs = (*_jobs, job)
    with bell:
        bell.notify_all()
    try:
        job.take_part()
    finally:
        with _change:
            _jobs = tuple(other for other in _jobs if other is not job)
        job.close()


def wants_help() -> bool:
    """A piece of somebody's work is left (for the one who waits at the bell)."""
    return any(job.open for job in _jobs)


def lend_a_hand() -> bool:
    """Help with the oldest work that is left; False when there is none."""
    return any(job.join() for job in _jobs)
