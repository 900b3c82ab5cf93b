"""`inspector reinspect`: stored pictures judged again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(reinspect)


def reinspect(
    config: Annotated[Path, typer.Argument(help="The configuration whose recipes judge now.")],
    source: Annotated[
        Path, typer.Argument(metavar="JOURNAL_OR_FOLDER", help="journal.sqlite or its state folder, or pictures/ or a day of it.")
    ],
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="This recipe for all; else each picture has that of the name it was judged by.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores when not given.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler instead: tcp://host:8786 (extra: cluster).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines: each picture that changes, then the summary.")] = False,
) -> None:
    """Judge stored pictures again and list every verdict that differs: none with the same recipe, and what would change with a new one.

    Example: inspector reinspect configs/demo.yaml state/demo/pictures/20261121
    """
    import json
    import os

    from inspector import config as settings
    from inspector.config.document import text_of
    from inspector.workshop import reinspect as workshop
    from inspector.workshop.progress import shown
    from inspector.workshop.synth import executor

    path = config.absolute()  # workers elsewhere have another current folder
    text = text_of(path)
    found = settings.read(path, text=text)
    work = workshop.find(found, source.absolute(), recipe)

    def tell(change: dict[str, Any]) -> None:
        typer.echo(json.dumps(change) if as_json else _line(change))

    with executor(workers or len(os.sched_getaffinity(0)), scheduler) as pool, shown("judged", len(work.tasks)) as progress:
        summary = workshop.reinspect(path, found, text, work, pool, progress=progress, tell=tell)
    if as_json:
        typer.echo(json.dumps({"summary": summary}))
        return
    for title, counts in (("pictures", summary["confusion"]), ("why", summary["reasons"]), ("parts", summary["parts"]["confusion"])):
        typer.echo(f"{title}: " + (", ".join(f"{n} {what}" for what, n in counts.items()) or "none changed"))
    left_out = "".join(f", {n} left out ({why})" for why, n in summary["left_out"].items())
    typer.echo(
        f"{summary['pictures']} pictures, {summary['verdicts_changed']} verdicts changed, {summary['identical']} identical bit for bit, "
        f"{summary['not_reproduced']} of {summary['same_recipe']} with the same recipe not reproduced, {summary['unreadable']} unreadable"
        f"{left_out}; {summary['spent_s']:.1f} s"
    )


def _line(change: dict[str, Any]) -> str:
    if "error" in change:
        return f"{change['picture']}: {change['error']}"
    was, now = change["was"], change["now"]
    why = now["text"] or was["text"]
    return f"{change['picture']}: {was['decision']} → {now['decision']} ({change['changed']}) {why}"
