"""`inspector run`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    config: Annotated[Path, typer.Argument(help="The configuration file.")],
    for_s: Annotated[float | None, typer.Option("--for", metavar="SECONDS", min=0.0, help="Drain and end after this long.")] = None,
    allow_root: Annotated[bool, typer.Option("--allow-root", help="Run although this is root.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ledger at the end, and no verdicts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line: every verdict, then the ledger.")] = False,
) -> None:
    """Inspect: take pictures, judge them, and give every part its verdict in time.

    SIGTERM drains, a second one leaves at once, SIGHUP reads the recipe again between two parts.

    Example: inspector run configs/line.example.yaml --for 60
    """
    from inspector.runtime import daemon

    raise typer.Exit(daemon.run(config, for_s=for_s, allow_root=allow_root))


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(run)
