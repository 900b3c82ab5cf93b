"""Where commands write: a folder is made before the work begins, and a place that takes nothing is refused by name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inspector.records import ConfigError

TAKES_NOTHING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def folder(path: Path, key: str = "--out", code: str = "E_OUT") -> Path:
    """Make the folder, unless it is there. Raises `code` where that is not possible, or where nothing can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(code, f"no folder can be made there: {error.strerror}", file=str(path), key=key) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(code, "nothing can be written into this folder", file=str(path), key=key)
    return path


@contextmanager
def written(path: Path, key: str = "--out") -> Iterator[None]:
    """Around what writes to `path`, or below it. Raises E_OUT where the disk is full or does not let it."""
    try:
        yield
    except OSError as error:
        if error.errno not in TAKES_NOTHING:
            raise
        raise ConfigError("E_OUT", f"cannot be written: {error.strerror}", file=str(error.filename or path), key=key) from error
