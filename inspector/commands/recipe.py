"""`inspector recipe`: which recipes there are, which one is in force, and another one to take over while the line runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from inspector.config import Config

app = typer.Typer(help="Say which recipes there are, and let another one take over while the line runs.", no_args_is_help=True)

STATUS_S = 10.0

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The daemon's configuration file.")]
Wanted = Annotated[str, typer.Argument(metavar="RECIPE", help="Its name, or its number.")]
Lanes = Annotated[list[int] | None, typer.Option("--lane", help="Only the cameras of this lane; may be given several times.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.command("list")
def list_(config: ConfigPath, as_json: AsJson = False) -> None:
    """List the recipes of a configuration: number, name, drawing, checks, and the cameras that begin with it.

    Example: inspector recipe list configs/demo.yaml
    """
    from inspector import config as settings

    found = settings.read(config)
    rows: list[dict[str, Any]] = [
        {
            "number": recipe.number,
            "name": name,
            "drawing": None if recipe.template is None else recipe.template.drawing.name,
            "checks": list(recipe.checks),
            "sides": list(recipe.cameras),
            "cameras": [camera.id for camera in found.cameras if camera.recipe == name],
        }
        for name, recipe in sorted(found.recipes.items(), key=lambda each: (each[1].number is None, each[1].number or 0, each[0]))
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        begins = f"; {', '.join(row['cameras'])} begin with it" if row["cameras"] else ""
        sides = f"; otherwise for {', '.join(row['sides'])}" if row["sides"] else ""
        number = "-" if row["number"] is None else row["number"]
        typer.echo(f"{number:>5}  {row['name']}: {row['drawing'] or 'no drawing'}, {', '.join(row['checks'])}{sides}{begins}")


@app.command()
def status(config: ConfigPath, as_json: AsJson = False) -> None:
    """Say which recipe judges each camera's pictures now, and what a recipe in shadow has said so far.

    Example: inspector recipe status configs/demo.yaml
    """
    _say(_ask(config, STATUS_S, do="status"), as_json)


@app.command()
def switch(config: ConfigPath, recipe: Wanted, lane: Lanes = None, as_json: AsJson = False) -> None:
    """Let a recipe take over between two parts; it is prepared and proved aside first, and what fails leaves the present one in force.

    Example: inspector recipe switch configs/demo.yaml 2 --lane 0
    """
    _say(_ask(config, None, do="switch", recipe=_wanted(recipe), lanes=lane or []), as_json)


@app.command()
def shadow(
    config: ConfigPath,
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Its name, or its number.")] = None,
    lane: Lanes = None,
    end: Annotated[bool, typer.Option("--end", help="Let no recipe judge beside the present one any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a recipe judge beside the present one: only the present one counts; where they disagree, it is counted and the picture kept.

    Example: inspector recipe shadow configs/demo.yaml bracket --lane 0
    """
    if end == (recipe is not None):
        raise typer.BadParameter("a recipe, or --end", param_hint="RECIPE")
    _say(_ask(config, None, do="shadow", recipe=None if recipe is None else _wanted(recipe), lanes=lane or []), as_json)


@app.command()
def prove(config: ConfigPath, recipe: Wanted, as_json: AsJson = False) -> None:
    """Prepare a recipe here and judge its proof and challenge pictures, where it has some, as before it takes over; asks no daemon.

    Example: inspector recipe prove configs/line.example.yaml plate
    """
    import time

    from inspector import config as settings
    from inspector import recipe as recipes
    from inspector.runtime.changeover import named
    from inspector.runtime.changeover_candidate import prove as judged

    found = settings.read(config)
    name = named(found, _wanted(recipe))
    prepared = recipes.prepare(found, time.time_ns(), chosen=dict.fromkeys((camera.id for camera in found.cameras), name))
    count = judged(found, prepared)
    if as_json:
        typer.echo(json.dumps({"recipe": name, "digest": prepared.digest, "proved": count}))
    elif count:
        typer.echo(f"{name}: {count} pictures as they must be")
    else:
        typer.echo(
            f"{name}: can be prepared, its networks answer as they must; it has no proof: or challenge: pictures, so none was judged"
        )


def _wanted(text: str) -> str | int:
    return int(text) if text.isascii() and text.isdigit() else text


def _ask(path: Path, timeout_s: float | None, **arguments: Any) -> dict[str, Any]:
    from inspector import config
    from inspector.runtime.admin import ask, socket_of

    found: Config = config.read(path)
    return ask(socket_of(found), "recipe", timeout_s=timeout_s or 2 * found.changeover.prepare_s + STATUS_S, **arguments)


def _say(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told))
        return
    for camera, recipe in told["cameras"].items():
        typer.echo(f"{camera}: {recipe['name']}" + (f" ({recipe['number']})" if recipe["number"] else ""))
    if told["shadow"]:
        counts = (
            ", ".join(f"{n} {what.replace('_', ' → ')}" for what, n in sorted(told["shadow"]["counts"].items())) or "nothing judged yet"
        )
        names = ", ".join(sorted(set(told["shadow"]["cameras"].values())))
        typer.echo(f"in shadow: {names}; {counts}")
    typer.echo(f"recipe {told['recipe']}")


def add(root: typer.Typer) -> None:
    """Register the commands."""
    root.add_typer(app, name="recipe")
