"""`inspector bench`: what things cost on this machine, each beside a limit or a peer measured in the same run."""

from __future__ import annotations

import json
import pkgutil
import sys
from importlib import import_module
from typing import Annotated

import typer

from inspector import workshop
from inspector.records import ConfigError


def bench(
    only: Annotated[str | None, typer.Option("--only", metavar="NAME", help="Only this benchmark.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Measure, and say how far each figure is from what is possible here.

    Example: inspector bench --only framework
    """
    names = sorted(
        module.name.removeprefix("bench_") for module in pkgutil.iter_modules(workshop.__path__) if module.name.startswith("bench_")
    )
    if only is not None and only not in names:
        raise ConfigError("E_BENCH", f"there is no benchmark {only!r}; there are {', '.join(names)}")
    for name in names if only is None else [only]:
        module = import_module(f"inspector.workshop.bench_{name}")
        if not as_json:
            print(f"{module.NAME} …", file=sys.stderr, flush=True)
        for row, figures in module.measure().items():
            if as_json:
                typer.echo(json.dumps({"bench": module.NAME, "row": row, **figures}))
            else:
                typer.echo(f"{module.NAME:12} {row:44} " + "  ".join(f"{key} {_short(value)}" for key, value in figures.items()))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(bench)
