"""What was done at the page, and by whom: one JSON line for each act, on disk before its answer is sent.

`state_dir/desk/audit.jsonl`; beyond 16 MiB it becomes `audit.jsonl.1`, and the one before that goes. The journal has what the daemon did.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from inspector.records import ConfigError

LARGEST_BYTES = 16 << 20
LARGEST_TEXT = 400


class Audit:
    """The file. Safe from several threads."""

    def __init__(self, folder: Path, *, utc: Callable[[], int] = time.time_ns) -> None:
        self._path, self._utc, self._lock = folder / "audit.jsonl", utc, threading.Lock()

    def say(self, who: str, address: str, act: str, **what: Any) -> None:
        """One line. Raises `ConfigError` E_STATE_PERM: what cannot be told must not be done."""
        cut = {key: value[:LARGEST_TEXT] if isinstance(value, str) else value for key, value in what.items()}
        line = json.dumps({"at_utc_ns": str(self._utc()), "who": who, "from": address, "act": act, **cut}, separators=(",", ":"))
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
                if self._path.exists() and self._path.stat().st_size > LARGEST_BYTES:
                    self._path.replace(self._path.with_suffix(".jsonl.1"))
                with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
                    file.write(line + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                text = f"the desk cannot write {self._path}: {error.strerror}; nothing is done that cannot be written down"
                raise ConfigError("E_STATE_PERM", text, key="state_dir") from error

    def last(self, most: int) -> list[dict[str, Any]]:
        """The newest lines, newest first."""
        found: deque[dict[str, Any]] = deque(maxlen=most)
        with suppress(OSError), self._path.open(encoding="utf-8", errors="replace") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most * 2048:
                file.seek(size - most * 2048)
                file.readline()
            for line in file:
                with suppress(ValueError):
                    found.append(json.loads(line))
        return list(found)[::-1]
