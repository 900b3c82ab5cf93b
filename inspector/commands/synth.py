"""`inspector synth`: training pictures drawn from drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(synth)


def synth(
    drawings: Annotated[list[Path], typer.Argument(metavar="DXF...", help="Drawings; pictures show them in turn.")],
    out: Annotated[Path, typer.Option(help="A new folder for the data set.")],
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores when not given.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler instead: tcp://host:8786 (extra: cluster).")
    ] = None,
    raster: Annotated[bool, typer.Option("--raster", help="Write raster/ too: pictures and masks as the networks see them.")] = False,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the pictures in pixels.")] = "1280x1024",
    mm_per_px: Annotated[float | None, typer.Option(min=1e-6, help="Resolution; when not given, the part fits at any angle.")] = None,
    defect_ratio: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the parts with defects.")] = None,
    most_defects: Annotated[int | None, typer.Option(min=1, max=16, help="A bad part has one to so many defects.")] = None,
    kinds: Annotated[
        str | None, typer.Option(metavar="KIND,...", help="Defects to draw: scratch,dent,stain,pit,crack,burr,notch,…")
    ] = None,
    look: Annotated[Path | None, typer.Option(metavar="YAML", help="Ranges of light, optics, noise and defects (scene.look.Look).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with what was drawn.")] = False,
) -> None:
    """Draw pictures of parts with known defects: images, masks, COCO, YOLO and the truth in millimetres.

    Example: inspector synth dxf_templates/*.dxf --out pictures --count 400 --raster
    """
    import json
    import os
    import time

    from inspector.workshop import synth as workshop
    from inspector.workshop.progress import shown

    width, cross, height = size.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and 64 <= int(width) <= 16384 and 64 <= int(height) <= 16384):
        raise typer.BadParameter(f"{size!r} is not WxH with 64 … 16384 pixels a side, such as 1280x1024", param_hint="--size")
    given: dict[str, Any] = {"defect_ratio": defect_ratio, "most_defects": most_defects, "kinds": kinds and kinds.split(",")}
    job = workshop.Job(
        tuple(path.absolute() for path in drawings),  # workers elsewhere have another current folder
        out.absolute(),
        count,
        seed,
        (int(width), int(height)),
        mm_per_px,
        workshop.look_of(look, {k: v for k, v in given.items() if v is not None}),
        raster,
    )
    began_s = time.monotonic()
    with workshop.executor(workers or len(os.sched_getaffinity(0)), scheduler) as pool, shown("drawn", count) as progress:
        drawn = workshop.synthesise(job, pool, progress)
    spent_s = time.monotonic() - began_s
    if missed := drawn.get("not_drawn"):
        typer.echo(f"{missed} defects were not drawn: no kind of {', '.join(job.look.kinds)} fits or shows at this resolution", err=True)
    if as_json:
        typer.echo(json.dumps(drawn | {"out": str(out), "spent_s": round(spent_s, 3)}))
    else:
        typer.echo(
            f"{out}: " + ", ".join(f"{n} {name}" for name, n in drawn.items()) + f"; {spent_s:.1f} s, {count / spent_s:.1f} pictures/s"
        )
