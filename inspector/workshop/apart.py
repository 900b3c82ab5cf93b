"""What a foreign model is asked for the first time is asked in a process of its own, with bounds: one that wants all memory, or all time,
takes nobody with it. What a graph needs cannot be read off it: a few bytes may ask for terabytes.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGKILL, SIGXCPU
from typing import Any

from inspector.records import ConfigError

MEMORY_BYTES = 12 << 30
"""Of address space, of which a proof may take `model.MOST_MEMORY_BYTES`."""
CPU_S, LONGEST_S = 120, 300
"""Of computing, on however many threads; and by the clock, for what waits."""


def run(function: Callable[..., Any], *args: Any, about: Path, cpu_s: int = CPU_S, longest_s: float = LONGEST_S) -> Any:
    """What the function gives in a bounded process of its own; function, arguments and result can be pickled.

    Raises the `ConfigError` that the function raises, E_MODEL_MEMORY, E_MODEL_TIMEOUT, and E_MODEL_PROOF where the runtime crashes.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_act, args=(theirs, cpu_s, function, args), daemon=True)
    process.start()
    theirs.close()
    where = str(about)
    try:
        if not ours.poll(longest_s):
            raise ConfigError("E_MODEL_TIMEOUT", f"no answer within {longest_s:.0f} s", file=where)
        refused, value = ours.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        if code == -SIGXCPU:
            raise ConfigError("E_MODEL_TIMEOUT", f"no answer within {cpu_s} s of computing", file=where) from None
        if code == -SIGKILL:
            raise ConfigError("E_MODEL_MEMORY", "there was not enough memory for it", file=where) from None
        raise ConfigError("E_MODEL_PROOF", f"the runtime crashes on this model (exit {code})", file=where) from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if refused is not None:
        raise refused
    return value


def _act(answer: Connection, cpu_s: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """In the process: bounds, then the function; (refusal, None) or (None, what it gives)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        answer.send((None, function(*args)))
    except MemoryError:
        answer.send((ConfigError("E_MODEL_MEMORY", f"it wants more than {MEMORY_BYTES >> 30} GiB"), None))
    except ConfigError as error:
        answer.send((error, None))
