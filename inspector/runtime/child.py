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
from typing import Any, Final, Protocol

PR_SET_PDEATHSIG = 1
FIRST: Final = 10
"""So much less nice than its children is the process that decides and tells."""

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


_CAME_WITH: Final = os.getpriority(os.PRIO_PROCESS, 0)


def go_first() -> None:
    """This process goes before the others of the machine, where it may (root, or RLIMIT_NICE); its children do not.

    A verdict that is ready then does not wait until a network has had its turn. To be called before any other thread is started.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _CAME_WITH - FIRST)


def behind(nice: int = 0) -> list[str]:
    """What a child's command begins with, so that it goes where this process came from, or by `nice` behind that."""
    nicer = _CAME_WITH - os.getpriority(os.PRIO_PROCESS, 0) + nice
    return ["nice", "-n", str(nicer)] if nicer else []


def start(module: str, *arguments: str, theirs: End, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`python -m module ARGUMENTS --link-fd N`, which inherits its end, closed here; with `environment` on top of this process's.

    Raises `OSError` when the machine has no room for another process.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in SYSTEMDS}
    command = [*behind(), sys.executable, "-m", module, *arguments, "--link-fd", str(theirs.fileno())]
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
