"""`inspector bridge`: tells a listener of another kind what the events say."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer


def bridge(
    config: Annotated[Path, typer.Argument(help="The daemon's configuration file.")],
    name: Annotated[str, typer.Argument(help="Which of its `bridges:`.")],
    ready: Annotated[
        Path | None, typer.Option("--ready", help="The daemon's ready file, which says at which ports it is; default: as configured.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="A client's key file, where the daemon has `security:`.")] = None,
) -> None:
    """Carry events to one bridge of the configuration (MQTT, Modbus, a plug-in), each at least once, until SIGTERM.

    It only listens to the daemon: it may be started and stopped at any time, and goes on where it was.

    Example: inspector bridge /etc/inspector/line.yaml mqtt
    """
    import time

    from inspector import config as settings
    from inspector.bridges._carry import Carrier
    from inspector.records import ConfigError
    from inspector.runtime.endpoints import endpoints_of, keys_of

    found = settings.read(config)
    pair = keys_of(found, keys)
    if name not in found.bridges:
        known = ", ".join(found.bridges) or "none"
        raise ConfigError("E_CFG_UNKNOWN", f"no bridge {name!r}; the configuration has: {known}", file=str(config), key="bridges")
    made = settings.build("bridges", found.bridges[name], name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    where = endpoints_of(found, found.ready_file if ready is None else ready)

    def say(text: str) -> None:
        typer.echo(f"bridge {name}: {text}", err=True)

    while not stop.is_set():
        at = where()
        if at is None:
            stop.wait(0.5)
            continue
        carrier = Carrier(
            made,
            at,
            prefix=f"insp1/{found.site}/{found.line}/{found.station}/",
            place=found.state_dir / f"bridge-{name}.json",
            clock=time.monotonic_ns,
            wait=stop.wait,
            say=say,
            keys=pair,
        )
        say(f"listens to {at.events}")
        try:
            while carrier.turn() and where() in (at, None):
                pass
        finally:
            carrier.close()


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(bridge)
