"""How the daemon starts a child process of its own, and what that does first."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

PR_SET_PDEATHSIG = 1
SYSTEMDS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Between systemd and the daemon only."""


class End(Protocol):
    """The child's end of a socket pair."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


def start(module: str, *arguments: str, theirs: End, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`python -m module ARGUMENTS --link-fd N`, which inherits its end, closed here; with `environment` on top of this process's.

    Raises `OSError` when the machine has no room for another process.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in SYSTEMDS}
    command = [sys.executable, "-m", module, *arguments, "--link-fd", str(theirs.fileno())]
    try:
        return subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            env=inherited | dict(environment or {}),
        )
    finally:
        theirs.close()


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
