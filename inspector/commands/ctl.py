"""`inspector ctl`: asks the daemon that runs on this machine, and tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True)

ANSWER_S, RELOADED_S = 10.0, 130.0

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback()
def _config(context: typer.Context, config: Annotated[Path, typer.Argument(help="The daemon's configuration file.")]) -> None:
    """Ask the daemon of a configuration that runs on this machine, or tell it something.

    Example: inspector ctl configs/demo.yaml status
    """
    context.obj = config


def _ask(context: typer.Context, command: str, *, timeout_s: float = ANSWER_S, **arguments: Any) -> dict[str, Any]:
    from inspector import config
    from inspector.runtime.admin import ask, socket_of

    return ask(socket_of(config.read(context.obj)), command, timeout_s=timeout_s, **arguments)


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Say how the line is: state, permit and what withholds it, the account of its parts, its gateways.

    Example: inspector ctl configs/demo.yaml status
    """
    said = _ask(context, "status")
    if as_json:
        typer.echo(json.dumps(said))
        return
    typer.echo(f"{said['state']}, {'permit' if said['permit'] else 'no permit'}")
    for name, text in said["holds"].items():
        typer.echo(f"withheld by {name}: {text}")
    for name, text in said["withheld"].items():
        typer.echo(f"withheld from {name}: {text}")
    typer.echo(" ".join(f"{name}={number}" for name, number in said["counters"].items()))
    if why := said.get("journal"):  # a daemon that has not been started anew since an update does not say
        typer.echo(f"journal fails: {why}")
    typer.echo(f"gateways: {', '.join(said['gateways']) or 'none'}")
    vision = "ready" if said["vision"]["ready"] else said["vision"]["trouble"].removeprefix("vision ") or "not ready"
    typer.echo(f"recipe {said['recipe'][:12] or 'not read yet'}, vision {vision}")


@app.command()
def reload(context: typer.Context, as_json: AsJson = False) -> None:
    """Read the recipes and guards again, between two parts, and wait for what comes of it; what is refused leaves the old ones in force.

    Example: inspector ctl configs/demo.yaml reload
    """
    said = _ask(context, "reload", timeout_s=RELOADED_S)
    typer.echo(json.dumps(said) if as_json else f"recipe {said['recipe']}")


@app.command()
def reset(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="line_stop, too_good, recipe; all where none is named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say that somebody has looked at why the guards stopped the line: they count anew, and parts may pass if nothing else withholds it.

    Example: inspector ctl configs/demo.yaml reset line_stop
    """
    said = _ask(context, "reset", names=names or [])
    if as_json:
        typer.echo(json.dumps(said))
        return
    for name, text in said["holds"].items():
        typer.echo(f"still withheld by {name}: {text}")
    if not said["holds"]:
        typer.echo("nothing withholds the permit any more")


@app.command()
def challenge(
    context: typer.Context,
    lane: Annotated[int, typer.Option(help="The ejector lane that it goes on.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say that the next part of a lane is one that is known to be bad: if it is not found bad, nothing passes until another one is.

    Example: inspector ctl configs/demo.yaml challenge --lane 2
    """
    said = _ask(context, "challenge", lane=lane)
    typer.echo(json.dumps(said) if as_json else f"the next part of lane {said['lane']} must be found bad")


def add(root: typer.Typer) -> None:
    """Register the commands."""
    root.add_typer(app, name="ctl")
