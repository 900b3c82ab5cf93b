"""Runs of networks that take too long are ended: each run is known here while it lasts, and whoever watches the clock ends the old ones.

ONNX Runtime looks at its terminate flag between two nodes of the graph, also of an endless loop; one node cannot be interrupted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import onnxruntime as ort

T = TypeVar("T")

_runs: dict[int, tuple[float, float, Any]] = {}
"""By thread: when its run began (monotonic, and the thread's own CPU time), and its options. Written by that thread alone."""


def run(call: Callable[[Any], T]) -> T:
    """`call(options)` for `ort.RunOptions` that `end_older` can end it by; raises `TimeoutError` when it did."""
    options, thread = ort.RunOptions(), threading.get_ident()
    _runs[thread] = time.monotonic(), time.thread_time(), options
    try:
        return call(options)
    except Exception as error:
        if options.terminate:
            raise TimeoutError(f"the network was ended after {time.monotonic() - _runs[thread][0]:.2f} s") from error
        raise
    finally:
        del _runs[thread]


def end_older(limit_s: float) -> tuple[float, float] | None:
    """End every run that has lasted longer; of those ended now the CPU time of the busiest (s), and when the last one began (monotonic s).

    None where none was.
    """
    found, now_s = None, time.monotonic()
    with suppress(RuntimeError, OSError):  # a thread came or went meanwhile: the next look sees the rest
        for thread, (began_s, began_cpu_s, options) in _runs.items():
            if now_s - began_s > limit_s and not options.terminate:
                options.terminate = True
                spent_s = time.clock_gettime(time.pthread_getcpuclockid(thread)) - began_cpu_s
                worked_s, last_s = found or (0.0, began_s)
                found = max(worked_s, spent_s), max(last_s, began_s)
    return found


def end_those_of(threads: Iterable[int]) -> None:
    """End what runs in these threads now: nobody wants it any more."""
    for thread in threads:
        running = _runs.get(thread)
        if running is not None:
            running[2].terminate = True
