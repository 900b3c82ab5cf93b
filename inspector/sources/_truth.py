"""What a simulated camera has shown: a file of JSON objects, one a line. What a full disk does not take is left out, and that is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector.records import ConfigError


class Truth:
    """The file, which goes on where it ended. Raises `ConfigError` E_SOURCE_TRUTH where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path, self._trouble = path, ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigError("E_SOURCE_TRUTH", error.strerror or str(error), file=str(path), key="truth") from error

    def tell(self, line: Mapping[str, Any]) -> None:
        """Write one line, whole or not at all."""
        data, trouble = json.dumps(line).encode() + b"\n", ""
        try:
            written = self._file.write(data)
            if written < len(data):
                trouble = "no room for a whole line"
                self._file.truncate(self._file.tell() - written)
        except OSError as error:
            trouble = error.strerror or str(error)
        if trouble and not self._trouble:
            print(f"{self._path} is not kept: {trouble}", file=sys.stderr, flush=True)
        self._trouble = trouble

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        self._file.close()
