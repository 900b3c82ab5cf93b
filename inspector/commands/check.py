"""`inspector check`: everything that the daemon would read, read now; no device is opened."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inspector.records import ConfigError, ConfigErrors

if TYPE_CHECKING:
    from inspector.config import Config
    from inspector.records import Recipe

REFUSED = 78


def check(
    config: Annotated[Path, typer.Argument(help="The configuration file.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines: one object when all is well, else one for each error.")] = False,
) -> None:
    """Read a configuration with its drawings, models and calibrations; print the recipe's digest, or every error found.

    Example: inspector check configs/line.example.yaml
    """
    try:
        found, prepared = looked_through(config)
    except ConfigError as error:
        for each in error.errors:
            if as_json:
                fields = {"code": each.code, "file": each.file, "line": each.line, "key": each.key, "text": each.text}
                typer.echo(json.dumps({"ok": False, **fields}))
            else:
                typer.echo(str(each), err=True)
        if not as_json:
            typer.echo(f"{len(error.errors)} error{'s' * (len(error.errors) > 1)}; the configuration is refused", err=True)
        raise typer.Exit(REFUSED) from error
    summary = describe(found, prepared)
    if as_json:
        typer.echo(json.dumps({"ok": True, **summary}))
        return
    rows = [("camera", "lane", "source", "recipe", "template", "checks")]
    rows += [
        (r["camera"], str(r["lane"]), r["source"], r["recipe"], r["template"] or "none", " ".join(r["checks"])) for r in summary["cameras"]
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for model in summary["models"]:
        typer.echo(f"model {model['name']} sha256 {model['sha256']}")
    typer.echo(f"recipe {summary['recipe']}")


def looked_through(path: Path, *, text: str | None = None, keys: bool = True) -> tuple[Config, Recipe]:
    """The configuration at `path`, where it says `text` if that is given, and its recipe. Raises `ConfigErrors` with everything that is
    wrong with it and the files that it names, in the order of the file; without `keys` those are not looked for.
    """
    from inspector import config as settings
    from inspector import recipe
    from inspector.commands import _examine
    from inspector.neural import cpu

    cpu.check()
    found, errors = settings.read_partly(path, kinds=True, text=text)
    prepared = None
    if found is not None:
        try:
            prepared = recipe.prepare(found, time.time_ns())
        except ConfigError as error:
            errors = [*errors, *error.errors]
        errors = [*errors, *_examine.faults(found if keys else found.model_copy(update={"security": None}))]
    if found is None or prepared is None or errors:
        raise ConfigErrors(sorted(dict.fromkeys(errors), key=lambda each: (each.line is None, each.line or 0)))
    return found, prepared


def describe(config: Config, recipe: Recipe) -> dict[str, Any]:
    """What a line does, in a few words of JSON: cameras with their templates and checks, models, the recipe's digest."""
    cameras = []
    for camera in config.cameras:
        plan = recipe.plans[camera.id]
        cameras.append(
            {
                "camera": camera.id,
                "lane": camera.lane,
                "source": camera.source.kind,
                "recipe": camera.recipe,
                "template": plan.template.name if plan.template else None,
                "contours": len(plan.template.contours) if plan.template else 0,
                "checks": [name for name, _ in plan.checks],
            }
        )
    return {"recipe": recipe.digest, "cameras": cameras, "models": [{"name": n, "sha256": h} for n, h in recipe.models]}


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(check)
