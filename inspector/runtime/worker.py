"""The one way a thread runs here: a step in a loop, with a beat that the watchdog reads.

A step does one piece of work or waits a little for one (at most some tenths of a second), and returns. It never swallows what it does not
understand: whatever it raises ends the thread and is reported, and the process then ends too, because Python alone would keep a
half-alive process running. `Ended` says that there is nothing more to do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from inspector.interfaces import Clock

SWITCH_INTERVAL_S = 0.0001
"""How long one thread's Python may keep the others waiting; Python's own 5 ms would be the latency of the line."""


class Ended(Exception):
    """Raised by a step: the work is done and the thread ends well."""


class Worker:
    """One thread that calls `step` until it is stopped.

    `beat_ns` is the time of the last step's end, read by the watchdog. `on_error(name, error)` is called once, in the dying thread.
    `nice` > 0 lets every other thread of the machine go first.
    """

    def __init__(
        self, name: str, step: Callable[[], None], *, clock: Clock, on_error: Callable[[str, BaseException], None], nice: int = 0
    ) -> None:
        self.name, self.beat_ns = name, clock()
        self._step, self._clock, self._on_error, self._nice = _with_fault(name, step), clock, on_error, nice
        self._stopping = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.beat_ns = self._clock()
        self._thread.start()

    def _run(self) -> None:
        if self._nice:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        try:
            while not self._stopping.is_set():
                self._step()
                self.beat_ns = self._clock()
        except Ended:
            self._ended = True
        except BaseException as error:  # noqa: BLE001 - the thread must report what it dies of, whatever it is
            self._on_error(self.name, error)

    @property
    def ended(self) -> bool:
        """The step said that there is nothing more to do."""
        return self._ended

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    @property
    def ident(self) -> int | None:
        """The thread's number in `sys._current_frames()`."""
        return self._thread.ident

    def age_ms(self, now_ns: int) -> float:
        """Milliseconds since the last step ended; 0 when it has ended well."""
        return 0.0 if self._ended else (now_ns - self.beat_ns) / 1e6

    def ask_to_stop(self) -> None:
        """Let the thread end after the step that it is in; returns at once."""
        self._stopping.set()

    def stop(self, timeout_s: float) -> bool:
        """Ask the thread to stop and wait for it; False when it did not end in time (it is then left to the end of the process)."""
        self._stopping.set()
        if self._thread.ident is None or self._thread is threading.current_thread():
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()


def _with_fault(name: str, step: Callable[[], None]) -> Callable[[], None]:
    """The step, or for a test of the whole process the same step that fails: INSPECTOR_FAULT=raise:journal:2.5 or freeze:inspect:1."""
    how, _, rest = os.environ.get("INSPECTOR_FAULT", "").partition(":")
    whose, _, after_s = rest.partition(":")
    if not whose or name.partition("-")[0] != whose:
        return step
    fails_at = time.monotonic() + float(after_s or 0)

    def failing() -> None:
        if time.monotonic() > fails_at:
            if how == "raise":
                raise RuntimeError("fault asked for by INSPECTOR_FAULT")
            threading.Event().wait()
        step()

    return failing
