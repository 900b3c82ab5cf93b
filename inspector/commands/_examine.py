"""Whether the files that a configuration names besides the recipes' are there and can be used; no device is opened, nothing is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from inspector.config import UNREAD, Config, Kind, plugin, settings_of
from inspector.desk import tls, users
from inspector.gate import security
from inspector.records import ConfigError
from inspector.runtime import state_dir

Look: TypeAlias = tuple[tuple[str, ...], Callable[[], object]]
"""The setting, and a function that raises `ConfigError` for what is wrong with what it names."""


def faults(config: Config) -> list[ConfigError]:
    """What is wrong with them, each with the line that names it; what this user may not read is left to who runs the daemon."""
    found: list[ConfigError] = []
    for loc, look in _looks(config):
        try:
            with config.blamed(*loc):
                look()
        except ConfigError as error:
            found += _known(error)
    for camera in config.cameras:
        if camera.source.kind != UNREAD:
            found += _of_source(camera.source)
    return found


def _looks(config: Config) -> Iterator[Look]:
    yield ("state_dir",), partial(state_dir.refuse, config.state_dir)
    if config.security is not None:
        yield ("security", "server_key"), partial(security.read_pair, config.security.server_key)
        yield ("security", "clients"), partial(security.read_clients, config.security.clients)
    if config.desk.users is not None:
        yield ("desk", "users"), partial(users.read, config.desk.users)
    yield ("desk", "tls_cert"), partial(tls.certificate, config.desk)
    for name, recipe in config.recipes.items():
        for key, folder in (("proof", recipe.proof), ("challenge", recipe.challenge)):
            if folder is not None:
                yield ("recipes", name, key), partial(_folder, folder, f"E_{key.upper()}")


def _folder(path: Path, code: str) -> None:
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise ConfigError(code, f"{path}: {error.strerror}; allowed: a folder of pictures") from error


def _of_source(kind: Kind) -> Iterator[ConfigError]:
    """What a source says of the files that it will need, and one that it has its lines from."""
    module = plugin("sources", kind.kind)
    settings = settings_of("sources", kind, module.Settings)
    examine: Callable[[Any], object] | None = getattr(module, "examine", None)
    if examine is not None:
        try:
            examine(settings)
        except ConfigError as error:
            yield from _known(kind.about(error), error)
    for name in type(settings).model_fields:
        if isinstance(within := getattr(settings, name), Kind):
            yield from _of_source(within)


def _known(error: ConfigError, cause: BaseException | None = None) -> tuple[ConfigError, ...]:
    """The errors, unless it is only that this user may not look."""
    cause = cause or error
    while cause is not None:
        if isinstance(cause, PermissionError):
            return ()
        cause = cause.__cause__
    return error.errors
