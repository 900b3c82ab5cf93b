"""The template of a part: tolerances, distances, zones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import pytest
from ezdxf.filemanagement import new
from numpy.typing import NDArray
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.geometry import dxf, polygon, template
from inspector.geometry.coverage import coverage
from inspector.records import ConfigError, ConfigErrors, Template

Floats: TypeAlias = NDArray[np.float64]

TEMPLATES = Path(__file__).parents[2] / "dxf_templates"
NAMES = ("plate", "bracket", "gasket", "gear")


def disc(folder: Path, side: str = "", radius: float = 20.0) -> Path:
    """A ring with a hole off its centre, and a second, smaller part."""
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    msp = document.modelspace()
    msp.add_circle((0, 0), radius, dxfattribs={"layer": "RIM"})
    msp.add_circle((5, 0), 4)
    msp.add_circle((100, 0), 6)
    path = folder / "disc.dxf"
    document.saveas(path)
    if side:
        path.with_suffix(".yaml").write_text(side)
    return path


def grid(built: Template) -> tuple[Floats, Floats]:
    """The drawing coordinates of every raster pixel."""
    v, u = np.indices(built.sdf_mm.shape, dtype=np.float64)
    return np.asarray(built.origin_mm[0] + u * built.mm_per_px), np.asarray(built.origin_mm[1] - v * built.mm_per_px)


@pytest.mark.parametrize("name", NAMES)
def test_our_own_drawings_have_640_pixels_and_a_margin(name: str) -> None:
    built = template.build(dxf.read(TEMPLATES / f"{name}.dxf"))
    assert max(built.sdf_mm.shape) == pytest.approx(640 + 2 * template.MARGIN_PX, abs=2)
    assert built.sdf_mm.dtype == np.float32
    assert (built.sdf_mm[0] > 0).all()
    assert (built.sdf_mm[-1] > 0).all()
    assert not built.sdf_mm.flags.writeable
    assert not built.zone.flags.writeable
    assert len(built.digest) == 64


@pytest.mark.parametrize("name", NAMES)
def test_the_distance_changes_its_sign_where_coverage_does(name: str) -> None:
    built = template.build(dxf.read(TEMPLATES / f"{name}.dxf"))
    covered = coverage([template.on_raster(c.points_mm, built.origin_mm, built.mm_per_px) for c in built.contours], built.sdf_mm.shape)
    far = np.abs(built.sdf_mm) > built.mm_per_px
    assert ((built.sdf_mm < 0) == (covered > 0.5))[far].all()
    area = sum(polygon.signed_area(c.points_mm) for c in built.contours)
    assert covered.sum(dtype=np.float64) * built.mm_per_px**2 == pytest.approx(area, rel=1e-6)


def test_distances_are_those_of_circles(tmp_path: Path) -> None:
    built = template.build(dxf.read(disc(tmp_path)), mm_per_px=0.1)
    x, y = grid(built)
    expected = np.maximum(np.hypot(x, y) - 20, 4 - np.hypot(x - 5, y))
    off = np.abs(built.sdf_mm - expected)
    assert off[np.abs(expected) < 0.2].max() < 2e-4
    assert (np.abs(built.sdf_mm) >= np.abs(expected) - 2e-4).all()
    assert off.max() <= 1.5 * 0.1


def test_points_of_the_drawing_fall_on_their_pixels(tmp_path: Path) -> None:
    built = template.build(dxf.read(disc(tmp_path)), mm_per_px=0.1)
    ((u, v),) = template.on_raster(np.array([[5.0, 0.0]]), built.origin_mm, built.mm_per_px)
    x, y = grid(built)
    assert x[round(v), round(u)] == pytest.approx(5.0, abs=0.05)
    assert y[round(v), round(u)] == pytest.approx(0.0, abs=0.05)
    assert built.sdf_mm[round(v), round(u)] == pytest.approx(4.0, abs=0.1)


def test_each_part_of_a_sheet_has_its_own(tmp_path: Path) -> None:
    drawing = dxf.read(disc(tmp_path))
    first, second = template.build(drawing), template.build(drawing, part=1)
    assert ([c.name for c in first.contours], [c.name for c in second.contours]) == (["outer", "hole-1"], ["outer-2"])
    assert (first.name, second.name) == ("disc-1", "disc-2")
    assert first.digest != second.digest
    with pytest.raises(ConfigError, match="E_DXF_PART"):
        template.build(drawing, part=2)


@pytest.mark.parametrize("mm_per_px", [0.0, -1.0, float("nan"), 1e-9])
def test_rasters_without_end_are_refused(tmp_path: Path, mm_per_px: float) -> None:
    with pytest.raises(ConfigError, match="E_DXF_LIMIT"):
        template.build(dxf.read(disc(tmp_path)), mm_per_px=mm_per_px)


def test_tolerances_by_name_by_layer_by_request_and_by_the_side_file(tmp_path: Path) -> None:
    def tolerances(side: str, asked: float | None = None) -> list[tuple[float, float]]:
        built = template.build(dxf.read(disc(tmp_path, side)), tolerance_mm=asked)
        return [(c.inward_mm, c.outward_mm) for c in built.contours]

    assert tolerances("{}\n") == [(-0.1, 0.1), (-0.1, 0.1)]
    assert tolerances("tolerance_mm: 0.3\n") == [(-0.3, 0.3), (-0.3, 0.3)]
    assert tolerances("tolerance_mm: 0.3\n", 0.2) == [(-0.2, 0.2), (-0.2, 0.2)]
    assert tolerances("layers: {RIM: {inward_mm: -0.4}}\n") == [(-0.4, 0.1), (-0.1, 0.1)]
    named = "layers: {RIM: {inward_mm: -0.4}}\ncontours: {outer: {inward_mm: 0, outward_mm: 1}}\n"
    assert tolerances(named, 0.2) == [(0.0, 1.0), (-0.2, 0.2)]


def test_zones(tmp_path: Path) -> None:
    side = """
datum: [hole-1, outer]
zones:
  - {name: surface, margin_mm: 1.0}
  - {name: seat, contour: hole-1, within_mm: 2.0}
  - {name: ignore, polygon_mm: [[-30, 5], [30, 5], [30, 30], [-30, 30]]}
"""
    built = template.build(dxf.read(disc(tmp_path, side)), mm_per_px=0.1)
    assert built.zones == ("", "surface", "seat")
    assert built.datum == ("outer", "hole-1")
    x, y = grid(built)
    to_hole = np.hypot(x - 5, y) - 4
    expected = np.where((np.hypot(x, y) < 19) & (to_hole > 1), 1, 0)
    expected[(to_hole > 0) & (to_hole < 2)] = 2
    expected[y > 5] = 0
    sharp = (np.abs(np.hypot(x, y) - 19) > 0.1) & (np.abs(y - 5) > 0.1)
    for border in (0.0, 1.0, 2.0):
        sharp &= np.abs(to_hole - border) > 0.1
    assert (built.zone == expected)[sharp].all()


def test_layers_may_carry_zones_and_tolerances(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    msp = document.modelspace()
    msp.add_circle((0, 0), 20, dxfattribs={"layer": "CUT@0.05"})
    msp.add_circle((5, 0), 4, dxfattribs={"layer": "FINE @ 0.02"})
    msp.add_circle((-8, 0), 5, dxfattribs={"layer": "ZONE_Logo"})
    for a, b in (((-30, 10), (30, 10)), ((30, 10), (30, 30)), ((30, 30), (-30, 30)), ((-30, 30), (-30, 10))):
        msp.add_line(a, b, dxfattribs={"layer": "IGNORE"})
    msp.add_line((0, 0), (1, 1), dxfattribs={"layer": "ZONE_open"})
    document.saveas(tmp_path / "layers.dxf")
    (tmp_path / "layers.yaml").write_text("zones: [{name: surface, margin_mm: 1.0}]\n")
    drawing = dxf.read(tmp_path / "layers.dxf")
    assert [(i.entity, i.layer, i.reason) for i in drawing.ignored][1] == ("LINE", "IGNORE", "a zone")
    assert "on layer ZONE_open does not close" in drawing.warnings[0]
    built = template.build(drawing, mm_per_px=0.1)
    assert [c.outward_mm for c in built.contours] == [0.05, 0.02]
    assert built.zones == ("", "surface", "logo")
    x, y = grid(built)
    sharp = np.ones(built.zone.shape, dtype=bool)
    for off in (np.hypot(x, y) - 19, np.hypot(x, y) - 20, np.hypot(x - 5, y) - 5, np.hypot(x + 8, y) - 5, y - 10):
        sharp &= np.abs(off) > 0.1
    expected = np.where((np.hypot(x, y) < 19) & (np.hypot(x - 5, y) > 5), 1, 0)
    expected[np.hypot(x + 8, y) < 5] = 2
    expected[(y > 10)] = 0
    assert (built.zone == expected)[sharp].all()


def test_without_a_side_file_all_material_is_surface(tmp_path: Path) -> None:
    built = template.build(dxf.read(disc(tmp_path)))
    assert ((built.zone == 1) == (built.sdf_mm < 0)).all()


def test_a_side_file_of_another_drawing_is_refused(tmp_path: Path) -> None:
    side = "contours: {hole-7: {inward_mm: 0, outward_mm: 1}}\ndatum: [rim]\n"
    with pytest.raises(ConfigErrors, match="hole-7") as caught:
        template.build(dxf.read(disc(tmp_path, side)))
    assert [e.code for e in caught.value.errors] == ["E_SIDE_NAME"] * 2


def test_a_datum_that_does_not_fix_the_angle_is_refused_where_the_part_has_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"E_SIDE_DATUM .*disc.yaml:2: datum: hole-1 cannot fix the angle"):
        dxf.read(disc(tmp_path, "units: mm\ndatum: [hole-1]\n"))
    assert template.build(dxf.read(disc(tmp_path, "datum: [outer-2, hole-1, outer]\n"))).datum == ("outer", "hole-1")
    assert template.build(dxf.read(disc(tmp_path, "datum: [outer-2]\n")), part=1).datum == ("outer-2",)


@pytest.mark.parametrize(
    ("side", "said"),
    [
        (
            "distances:\n  - {name: a, between: [hole-1, hole-1], minus_mm: 0, plus_mm: 0}",
            "E_SIDE_DISTANCE .*:2: .*between: a: both ends are",
        ),
        ("distances:\n  - {name: a, between: [hole-1, [500, 500]], minus_mm: 0, plus_mm: 0}", "E_SIDE_DISTANCE .*:2: .*nearest edge"),
        ("distances:\n  - {name: a, between: [[20, 0], [94, 0]], minus_mm: 0, plus_mm: 0}", "E_SIDE_DISTANCE .*:2: .*two parts"),
        (
            "distances:\n  - {name: a, between: [hole-1, [20, 0]], minus_mm: 0, plus_mm: 0}\n"
            "  - {name: a, between: [hole-1, [-20, 0]], minus_mm: 0, plus_mm: 0}",
            r"E_SIDE_NAME .*:3: distances\[1\].name: two distances are called 'a'",
        ),
        ("zones: [{name: surface, margin_mm: 1},\n  {name: surface, margin_mm: 2}]", r"E_SIDE_NAME .*:2: zones\[1\].margin_mm"),
        ("zones:\n  - {name: surface, margin_mm: 21}", r"E_SIDE_ZONE .*:2: zones\[0\]: surface covers nothing .* up to 10\.5"),
        ("zones:\n  - {name: logo, polygon_mm: [[200, 0], [210, 0], [210, 9]]}", "E_SIDE_ZONE .*:2: .*logo covers nothing"),
        ("zones:\n  - {name: ignore, polygon_mm: [[-15, 0], [-10, 0], [-5, 0]]}", "E_SIDE_ZONE .*:2: .*ignore covers nothing"),
    ],
)
def test_inspect_refuses_what_measures_or_covers_nothing(tmp_path: Path, side: str, said: str) -> None:
    result = CliRunner().invoke(application(), ["template", "inspect", str(disc(tmp_path, side + "\n"))])
    assert isinstance(result.exception, ConfigErrors | ConfigError)
    assert re.search(said, str(result.exception))


def test_distances_and_zones_of_another_part_have_no_place_in_this_one(tmp_path: Path) -> None:
    drawing = dxf.read(
        disc(
            tmp_path,
            "distances:\n  - {name: a, between: [hole-1, [20, 0]], minus_mm: 0, plus_mm: 0}\n"
            "  - {name: b, between: [[94, 0], [106, 0]], minus_mm: 0, plus_mm: 0}\n"
            "zones: [{name: logo, polygon_mm: [[98, 0], [102, 0], [102, 3]]}]\n",
        )
    )
    assert [one.name for one in template.build(drawing, part=0).distances] == ["a"]
    assert [one.name for one in template.build(drawing, part=1).distances] == ["b"]


def test_the_digest_follows_what_matters(tmp_path: Path) -> None:
    path = disc(tmp_path)
    plain = template.build(dxf.read(path))
    assert template.build(dxf.read(path)).digest == plain.digest
    assert template.build(dxf.read(path), tolerance_mm=0.2).digest != plain.digest
    assert template.build(dxf.read(path), mm_per_px=0.1).digest != plain.digest
    path.with_suffix(".yaml").write_text("tolerance_mm: 0.2\n")
    assert template.build(dxf.read(path)).digest != plain.digest


# --- the commands ------------------------------------------------------------------------------------------------------


def test_inspect_says_what_interfaces_promise() -> None:
    result = CliRunner().invoke(application(), ["template", "inspect", str(TEMPLATES / "bracket.dxf"), "--json"])
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    said = json.loads(line)
    assert list(said) == ["name", "dxf_version", "units", "units_source", "bbox_mm", "contours", "ignored", "warnings"]
    assert (said["name"], said["dxf_version"], said["units"], said["units_source"]) == ("bracket", "R2010", "mm", "$INSUNITS")
    assert said["bbox_mm"] == pytest.approx([0, 0, 110, 80], abs=1e-3)
    assert {"kind", "layer", "closed", "area_mm2", "perimeter_mm"} <= set(said["contours"][0])
    assert [c["kind"] for c in said["contours"]] == ["outer"] + ["hole"] * 9
    slot = said["contours"][3]["slot"]
    assert (slot["length_mm"], slot["width_mm"]) == pytest.approx((26.0, 7.0), abs=1e-3)
    assert slot["angle_deg"] == pytest.approx(20.0, abs=1e-3)
    assert said["contours"][1]["slot"] is None
    assert {"entity": "LINE", "layer": "BEND", "reason": "not cut, by the layer's name", "count": 2} in said["ignored"]
    words = CliRunner().invoke(application(), ["template", "inspect", str(TEMPLATES / "bracket.dxf")])
    assert "hole-6" in words.stdout
    assert "14.000" in words.stdout
    assert "26.000 × 7.000" in words.stdout


def test_inspect_asks_for_units(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 0
    document.header["$MEASUREMENT"] = 0
    document.modelspace().add_circle((0, 0), 10)
    document.saveas(tmp_path / "bare.dxf")
    arguments = ["template", "inspect", str(tmp_path / "bare.dxf"), "--json"]
    refused = CliRunner().invoke(application(), arguments)
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.code == "E_DXF_UNITS"
    assert not refused.stdout
    given = json.loads(CliRunner().invoke(application(), [*arguments, "--units", "cm"]).stdout)
    assert (given["units"], given["units_source"]) == ("cm", "given")
    assert given["contours"][0]["diameter_mm"] == pytest.approx(200)


def test_render_draws_the_material(tmp_path: Path) -> None:
    out = tmp_path / "gear.png"
    result = CliRunner().invoke(application(), ["template", "render", str(TEMPLATES / "gear.dxf"), "--out", str(out), "--mm-per-px", "0.2"])
    assert result.exit_code == 0
    picture = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    area = sum(polygon.signed_area(c.points_mm) for c in dxf.read(TEMPLATES / "gear.dxf").contours)
    assert picture.sum() / 255 * 0.2**2 == pytest.approx(area, rel=1e-3)
    missing = CliRunner().invoke(
        application(), ["template", "render", str(TEMPLATES / "gear.dxf"), "--out", str(tmp_path / "no" / "x.png")]
    )
    assert isinstance(missing.exception, ConfigError)
