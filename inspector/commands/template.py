"""`inspector template`: what a drawing says, in words and as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from inspector.geometry.dxf import Drawing
    from inspector.records import Contour

Units = Annotated[str | None, typer.Option("--units", metavar="UNITS", help="mm, cm, m, inch or foot, where the drawing does not say.")]


def inspect(
    dxf: Annotated[Path, typer.Argument(metavar="DXF", help="The drawing.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    units: Units = None,
) -> None:
    """Say what is read from a drawing: contours, what is ignored and why, and what is doubtful.

    Example: inspector template inspect dxf_templates/bracket.dxf
    """
    import json

    from inspector.geometry import dxf as drawings
    from inspector.geometry import template as templates

    drawing = drawings.read(dxf, units=units)
    if drawing.side.zones:
        templates.build(drawing)  # which refuses zones that cover nothing
    said = describe(drawing)
    if as_json:
        typer.echo(json.dumps(said, allow_nan=False))
        return
    x0, y0, x1, y1 = drawing.bbox_mm
    typer.echo(f"{drawing.name}: {drawing.dxf_version}, {drawing.units} ({drawing.units_source}), {x1 - x0:.3f} × {y1 - y0:.3f} mm")
    rows = [("part", "contour", "layer", "area mm²", "perimeter mm", "size mm")]
    for c in said["contours"]:
        size = "" if c["diameter_mm"] is None else f"⌀ {c['diameter_mm']:.3f}"
        if c["slot"] is not None:
            size = f"{c['slot']['length_mm']:.3f} × {c['slot']['width_mm']:.3f}"
        rows.append((str(c["part"]), c["name"], c["layer"], f"{c['area_mm2']:.3f}", f"{c['perimeter_mm']:.3f}", size))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        typer.echo("  ".join([*left, *right]).rstrip())
    for ignored in drawing.ignored:
        typer.echo(f"ignored: {ignored.count} {ignored.entity} on layer {ignored.layer}: {ignored.reason}")
    for warning in drawing.warnings:
        typer.echo(f"warning: {warning}")


def render(
    dxf: Annotated[Path, typer.Argument(metavar="DXF", help="The drawing.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="PNG", help="The picture: material white, exact to the covered area of each pixel.")
    ],
    mm_per_px: Annotated[
        float | None, typer.Option("--mm-per-px", min=1e-6, help="Its resolution; when not given, the long side has 640 px.")
    ] = None,
    units: Units = None,
    part: Annotated[int, typer.Option("--part", min=1, help="Which part of a sheet, the largest first.")] = 1,
) -> None:
    """Draw the part as the template sees it.

    Example: inspector template render dxf_templates/gear.dxf --out gear.png --mm-per-px 0.1
    """
    import numpy as np

    from inspector.geometry import dxf as drawings
    from inspector.geometry import template as templates
    from inspector.geometry.coverage import coverage
    from inspector.neural import pictures

    template = templates.build(drawings.read(dxf, units=units), mm_per_px=mm_per_px, part=part - 1)
    outlines = [templates.on_raster(c.points_mm, template.origin_mm, template.mm_per_px) for c in template.contours]
    picture = np.round(255.0 * coverage(outlines, template.sdf_mm.shape)).astype(np.uint8)
    pictures.write(out, picture)
    typer.echo(f"{out}: {picture.shape[1]} × {picture.shape[0]} px at {template.mm_per_px:g} mm/px", err=True)


def describe(drawing: Drawing) -> dict[str, Any]:
    """The drawing as JSON, lengths in mm; an area counts the whole inside of its contour.

    `slot` is given for holes that are one: rectangles with corners that are sharp, rounded, or half circles for ends.
    """
    from inspector.geometry import polygon, slots

    def slot(contour: Contour) -> dict[str, Any] | None:
        found = None if contour.kind != "hole" or contour.circle is not None else slots.slot_of(contour.points_mm)
        if found is None:
            return None
        sizes = {"length_mm": found.length_mm, "width_mm": found.width_mm, "corner_mm": found.corner_mm}
        return {**sizes, "centre_mm": list(found.centre_mm), "angle_deg": math.degrees(math.atan2(found.axis[1], found.axis[0])) % 180.0}

    part_of = {index: number for number, part in enumerate(drawing.parts, 1) for index in part}
    return {
        "name": drawing.name,
        "dxf_version": drawing.dxf_version,
        "units": drawing.units,
        "units_source": drawing.units_source,
        "bbox_mm": list(drawing.bbox_mm),
        "contours": [
            {
                "kind": c.kind,
                "layer": c.layer,
                "closed": c.closed,
                "area_mm2": abs(polygon.signed_area(c.points_mm)),
                "perimeter_mm": polygon.perimeter(c.points_mm),
                "name": c.name,
                "part": part_of[index],
                "diameter_mm": None if c.circle is None else 2.0 * c.circle[2],
                "slot": slot(c),
            }
            for index, c in enumerate(drawing.contours)
        ],
        "ignored": [{"entity": i.entity, "layer": i.layer, "reason": i.reason, "count": i.count} for i in drawing.ignored],
        "warnings": list(drawing.warnings),
    }


def add(app: typer.Typer) -> None:
    """Register the group."""
    group = typer.Typer(help="What a drawing says, in words and as a picture.", no_args_is_help=True)
    group.command()(inspect)
    group.command()(render)
    app.add_typer(group, name="template")
