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
    from inspector import config as settings
    from inspector import recipe
    from inspector.neural import cpu

    try:
        cpu.check()
        found = settings.read(config, kinds=True)
        prepared = recipe.prepare(found, time.time_ns())
    except ConfigError as error:
        errors = error.errors if isinstance(error, ConfigErrors) else (error,)
        for each in errors:
            if as_json:
                fields = {"code": each.code, "file": each.file, "line": each.line, "key": each.key, "text": each.text}
                typer.echo(json.dumps({"ok": False, **fields}))
            else:
                typer.echo(str(each), err=True)
        if not as_json:
            typer.echo(f"{len(errors)} error{'s' * (len(errors) > 1)}; the daemon would not start", err=True)
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
