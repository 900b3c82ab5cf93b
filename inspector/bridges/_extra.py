"""A library that only one bridge needs: looked for when the bridge first speaks, and named when it is not there."""

from __future__ import annotations

import importlib
import ipaddress
from typing import Any

from inspector.records import ConfigError


def library(name: str) -> Any:
    """The module; `ConfigError` E_EXTRA names what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError("E_EXTRA", f"this bridge needs {error.name}; pip install 'inspector[bridges]'") from error


def is_here(host: str) -> bool:
    """The host is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
