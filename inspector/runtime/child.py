"""What every child process of the daemon does first."""

from __future__ import annotations

import ctypes
import faulthandler
import signal
from contextlib import suppress
from typing import Any

PR_SET_PDEATHSIG = 1


def obey_parent() -> None:
    """The parent alone decides when this process ends: signals to the whole group do nothing, SIGUSR1 prints what every thread is doing.

    The kernel ends it with the parent's thread that started it, even while a driver holds the interpreter.
    """
    with suppress(OSError, AttributeError):
        libc: Any = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
