"""Where a daemon's sockets are, for whoever listens to it: as configured, or as its ready file says; and with which keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from inspector.config import Config
from inspector.gate.security import Pair, read_client_pair
from inspector.records import ConfigError


class Endpoints(NamedTuple):
    """Where the daemon publishes, and where it can be asked for what is past."""

    events: str
    replay: str


def endpoints_of(config: Config, ready: Path | None) -> Callable[[], Endpoints | None]:
    """A function that says where the daemon is now; with a ready file None as long as that cannot be read."""

    def said() -> Endpoints | None:
        assert ready is not None
        with suppress(OSError, ValueError, KeyError, TypeError):
            at = json.loads(ready.read_text())["endpoints"]
            return Endpoints(str(at["events"]), str(at["replay"]))
        return None

    return said if ready is not None else lambda: Endpoints(config.events.bind, config.events.replay_bind)


def keys_of(config: Config, path: Path | None) -> Pair | None:
    """The listener's keys, none where the daemon has no security. Raises `ConfigError`: E_KEY_OPEN where they are needed and not given."""
    if path is not None:
        return read_client_pair(path)
    if config.security is not None:
        text = "the daemon has security: a client's key file is needed (--keys FILE; `inspector keys new` makes one, role scada)"
        raise ConfigError("E_KEY_OPEN", text, file=str(config.file), key="security")
    return None
