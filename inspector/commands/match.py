"""`inspector match`: finds the part of a drawing in pictures, and measures it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def match(
    dxf: Annotated[Path, typer.Argument(metavar="DXF", help="The drawing.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures of the part.")],
    mm_per_px: Annotated[
        float | None, typer.Option("--mm-per-px", min=1e-6, help="The scale, where it is known; else it is searched.")
    ] = None,
    scale_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--scale-range", metavar="A B", help="Search the scale from A to B px per mm; with --mm-per-px as factors of it."),
    ] = None,
    max_parts: Annotated[int, typer.Option("--max-parts", min=1, max=100, help="At most so many parts in a picture.")] = 1,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="YAML", help="Template settings and checks, as in a configuration's recipe.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="YAML", help="How the camera sees, from inspector calibrate: scale and lens.")
    ] = None,
    perspective: Annotated[bool, typer.Option("--perspective", help="The view is oblique and no calibration says how.")] = False,
    units: Annotated[
        str | None, typer.Option("--units", metavar="UNITS", help="mm, cm, m, inch or foot, where the drawing does not say.")
    ] = None,
    part: Annotated[int, typer.Option("--part", min=1, help="Which part of a sheet, the largest first.")] = 1,
    tolerance_mm: Annotated[float | None, typer.Option("--tolerance-mm", min=1e-6, help="Tolerance of contours that have none.")] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", metavar="PNG", help="The last picture with the deviation as colours along the contour.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each part found, or one with found false.")] = False,
) -> None:
    """Find a part by its drawing, at any angle, and say where its outline deviates from it.

    Example: inspector match dxf_templates/plate.dxf picture.png --mm-per-px 0.1 --overlay seen.png
    """
    import json

    from inspector.workshop import matching

    scale = matching.scale_of(mm_per_px, scale_range)
    plan = matching.prepare(
        dxf,
        recipe,
        scale=scale,
        perspective=perspective,
        units=units,
        part=part - 1,
        tolerance_mm=tolerance_mm,
        calibration=calibration,
    )
    for path in images:
        for said in matching.judge(plan, path, max_parts, overlay):
            typer.echo(json.dumps(said, allow_nan=False) if as_json else matching.in_words(said))


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(match)
