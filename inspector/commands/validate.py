"""`inspector validate`: cross-validation of what `inspector train` makes of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from inspector.commands.model import say_figures
from inspector.records import ConfigError


def validate(
    task: Annotated[Literal["classification", "compare"], typer.Argument(help="What the network is to do.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The folder with the data set, as for train.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the folds go, each with its data, model and figures.")],
    folds: Annotated[int, typer.Option(min=2, max=100, help="Into how many parts; each is judged by a model of the others.")] = 5,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What it matches in a name is a group that stays together, as '^[0-9]{5}'."),
    ] = None,
    only: Annotated[int | None, typer.Option(min=1, help="The first so many folds, where time is short.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.05, help="How long each fold is trained.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Exactly so many steps a fold.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Folds, weights and order of the pictures.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the training.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with every figure.")] = False,
) -> None:
    """Train a network for each fold of a data set and judge the pictures that it has not seen; figures with 95 % intervals over all.

    A fold that is done is not trained again, so what was stopped goes on when called again.

    Example: inspector validate compare pictures/boards --out folds --minutes 20 --group-by '^[0-9]{5}'
    """
    import json
    import re
    from importlib import import_module

    if minutes is not None and steps is not None:
        raise typer.BadParameter("--minutes and --steps: one of them", param_hint="--steps")
    try:
        re.compile(group_by or "")
    except re.error as error:
        raise typer.BadParameter(f"{group_by!r}: {error}", param_hint="--group-by") from error
    try:
        workshop, train = (import_module(f"inspector.workshop.{name}") for name in ("validate", "train"))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("torch", "onnx"):
            raise
        raise ConfigError("E_EXTRA_MISSING", f"{error.name} is not installed; pip install 'inspector[train]'") from error
    from inspector.workshop import places
    from inspector.workshop.fit import Schedule

    order = train.Order(data, out, Schedule(seed, steps, minutes), threads=threads)
    with places.written(places.folder(out)):
        found = workshop.validate(order, workshop.Plan(task, folds, group_by, only), lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{len(found['folds'])} of {found['of']} folds")
    say_figures({name: value for name, value in found["pooled"].items() if not isinstance(value, list)})


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(validate)
