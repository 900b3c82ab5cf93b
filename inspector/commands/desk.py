"""`inspector desk`: the operator's page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def desk(
    config: Annotated[Path, typer.Argument(help="The daemon's configuration file.")],
    ready: Annotated[
        Path | None, typer.Option("--ready", help="The daemon's ready file, which says at which ports it is; default: as configured.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="A client's key file, where the daemon has `security:`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say the address as a JSON object.")] = False,
) -> None:
    """Serve the operator's page: the line at a glance, parts with pictures and findings, rejects, trends, cameras.

    It only listens to the daemon and may be started and stopped at any time. Open the address in a browser on this machine; from
    another one use a tunnel: ssh -L 8080:127.0.0.1:8080 HOST.

    Example: inspector desk configs/demo.yaml
    """
    from inspector import config as settings
    from inspector.records import ConfigError
    from inspector.runtime.endpoints import keys_of

    try:
        from inspector.desk.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigError("E_EXTRA", f"the desk needs {error.name}; pip install 'inspector[desk]'") from error

    def say(url: str) -> None:
        text = json.dumps({"url": url, "pid": os.getpid()}) if as_json else f"the desk is at {url}"
        typer.echo(text)

    found = settings.read(config)
    serve(found, ready=found.ready_file if ready is None else ready, keys=keys_of(found, keys), say=say)


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(desk)
