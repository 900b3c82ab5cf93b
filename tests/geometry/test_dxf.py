"""What is read from drawings, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ezdxf.filemanagement import new, readfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector.geometry import dxf, polygon
from inspector.geometry.dxf import Drawing
from inspector.records import ConfigError, ConfigErrors

TEMPLATES = Path(__file__).parents[2] / "dxf_templates"
SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def drawn(folder: Path, draw: Callable[[Any], object], *, version: str = "R2010", units: int | None = 4, name: str = "part.dxf") -> Path:
    document = new(version)
    if units is not None and version != "R12":
        document.header["$INSUNITS"] = units
    draw(document.modelspace())
    path = folder / name
    document.saveas(path)
    return path


def areas(drawing: Drawing) -> list[float]:
    return [polygon.signed_area(c.points_mm) for c in drawing.contours]


def refused(path: Path, units: str | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        dxf.read(path, units=units)
    assert str(path) in str(caught.value)
    return caught.value


def tags(*pairs: tuple[int, object]) -> str:
    return "".join(f"{code}\n{value}\n" for code, value in pairs)


def file_of(folder: Path, entities: str, *, blocks: str = "", end: str = "0\nENDSEC\n0\nEOF\n") -> Path:
    path = folder / "made.dxf"
    header = tags((0, "SECTION"), (2, "HEADER"), (9, "$ACADVER"), (1, "AC1009"), (9, "$INSUNITS"), (70, 4), (0, "ENDSEC"))
    if blocks:
        header += tags((0, "SECTION"), (2, "BLOCKS")) + blocks + tags((0, "ENDSEC"))
    path.write_text(header + tags((0, "SECTION"), (2, "ENTITIES")) + entities + end)
    return path


def line(x0: object, y0: object, x1: object, y1: object, layer: str = "CUT") -> str:
    return tags((0, "LINE"), (8, layer), (10, x0), (20, y0), (11, x1), (21, y1))


# --- our own drawings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "holes", "circles"), [("plate", 10, 9), ("bracket", 9, 5), ("gasket", 8, 6), ("gear", 6, 5)])
def test_our_own_drawings_are_one_part_each(name: str, holes: int, circles: int) -> None:
    drawing = dxf.read(TEMPLATES / f"{name}.dxf")
    assert (drawing.units, drawing.units_source) == ("mm", "$INSUNITS")
    assert len(drawing.parts) == 1
    assert [c.kind for c in drawing.contours] == ["outer"] + ["hole"] * holes
    assert [c.name for c in drawing.contours] == ["outer"] + [f"hole-{n}" for n in range(1, holes + 1)]
    assert sum(c.circle is not None for c in drawing.contours) == circles
    assert not drawing.warnings
    assert areas(drawing)[0] > 0
    assert all(area < 0 for area in areas(drawing)[1:])


def test_bends_and_text_of_the_bracket_are_told_apart() -> None:
    ignored = {(i.entity, i.layer): (i.reason, i.count) for i in dxf.read(TEMPLATES / "bracket.dxf").ignored}
    assert ignored["LINE", "BEND"] == ("not cut, by the layer's name", 2)
    assert ignored["TEXT", "TEXT"] == ("not an outline", 1)


def test_points_are_read_only_and_do_not_repeat_the_first() -> None:
    for contour in dxf.read(TEMPLATES / "plate.dxf").contours:
        assert not contour.points_mm.flags.writeable
        assert np.hypot(*(contour.points_mm[0] - contour.points_mm[-1])) > 1e-4


# --- entities ----------------------------------------------------------------------------------------------------------

Q = math.tan(math.pi / 8)


def spline_circle(msp: Any) -> None:
    k, control = 4 / 3 * Q, [(5.0, 0.0)]
    for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        control += [(5 * (c * x - s * y), 5 * (s * x + c * y)) for x, y in [(1, k), (k, 1), (0, 1)]]
    msp.add_open_spline(control, degree=3).knots = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]


def open_uniform_spline(msp: Any) -> None:
    count = 24
    ring = [(5 * math.cos(2 * math.pi * i / count), 5 * math.sin(2 * math.pi * i / count)) for i in range(count)]
    msp.add_open_spline([*ring, *ring[:3]], degree=3).knots = list(range(count + 3 + 4))


AREAS: dict[str, tuple[Callable[[Any], object], float, float]] = {
    "circle": (lambda m: m.add_circle((3, 4), 5), math.pi * 25, 1e-6),
    "two arcs": (lambda m: (m.add_arc((0, 0), 5, 0, 90), m.add_arc((0, 0), 5, 90, 360)), math.pi * 25, 1e-5),
    "ellipse": (lambda m: m.add_ellipse((0, 0), (6, 2), 0.4), math.pi * 40 * 0.4, 1.2e-5),
    "half an ellipse and a line": (
        lambda m: (m.add_ellipse((0, 0), (6, 0), 0.5, 0, math.pi), m.add_line((-6, 0), (6, 0))), math.pi * 9, 1.2e-5
    ),
    "a circle as a spline": (spline_circle, math.pi * 25, 1e-3),
    "a spline without clamped ends": (open_uniform_spline, 76.764, 1e-5),
    "lwpolyline": (lambda m: m.add_lwpolyline(SQUARE, close=True), 100, 1e-12),
    "lwpolyline with bulges": (
        lambda m: m.add_lwpolyline([(0, 0, 0), (10, 0, 1), (10, 10, 0), (0, 10, -Q)], format="xyb", close=True),
        100 + math.pi * 12.5 - (math.pi - 2) * 25 / 2, 1e-6,
    ),
    "lwpolyline as a circle": (lambda m: m.add_lwpolyline([(0, 0, 1), (10, 0, 1)], format="xyb", close=True), math.pi * 25, 1e-6),
    "polyline": (lambda m: m.add_polyline2d([*SQUARE, (0, 0)], close=False), 100, 1e-12),
    "polyline with bulges": (
        lambda m: m.add_polyline2d([(0, 0, 0), (10, 0, 1), (10, 10, 0), (0, 10, 0)], format="xyb", close=True), 100 + math.pi * 12.5, 1e-6
    ),
    "lines in any order and direction": (
        lambda m: [m.add_line(a, b) for a, b in [((0, 0), (10, 0)), ((0, 10), (10, 10)), ((10, 0), (10, 10)), ((0, 0), (0, 10))]],
        100, 1e-12,
    ),
    "extruded to −z": (lambda m: m.add_circle((3, 4), 5, dxfattribs={"extrusion": (0, 0, -1)}), math.pi * 25, 1e-6),
}  # fmt: skip


@pytest.mark.parametrize("name", AREAS)
def test_entities_have_their_area(tmp_path: Path, name: str) -> None:
    draw, area, tolerance = AREAS[name]
    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == [pytest.approx(area, rel=tolerance)]


@pytest.mark.parametrize("version", ["R12", "R2000", "R2004", "R2007", "R2010", "R2013", "R2018"])
def test_versions(tmp_path: Path, version: str) -> None:
    path = drawn(tmp_path, lambda m: (m.add_polyline2d(SQUARE, close=True), m.add_circle((5, 5), 2)), version=version)
    drawing = dxf.read(path, units="mm" if version == "R12" else None)
    assert drawing.dxf_version == version
    assert areas(drawing) == [pytest.approx(100), pytest.approx(-4 * math.pi)]


@pytest.mark.parametrize("version", ["R12", "R2010"])
def test_binary_files_say_the_same(tmp_path: Path, version: str) -> None:
    document = new(version)
    document.header["$INSUNITS"] = 1
    document.modelspace().add_circle((0, 0), 1)
    document.saveas(tmp_path / "binary.dxf", fmt="bin")
    if version == "R12":
        assert refused(tmp_path / "binary.dxf").code == "E_DXF_UNITS"  # its header cannot say it
        return
    drawing = dxf.read(tmp_path / "binary.dxf")
    assert drawing.units == "inch"
    assert areas(drawing) == [pytest.approx(math.pi * 25.4**2, rel=1e-6)]


TAU = math.tau


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 6.28319), (0, 6.283185), (-3.141593, 3.141593), (-math.pi, math.pi), (-math.pi / 2, 1.5 * math.pi), (TAU, 2 * TAU),
        (0, 2 * TAU), (-TAU, 0), (0, 0), (TAU, 0),
    ],
)  # fmt: skip
def test_a_whole_ellipse_is_whole_however_its_span_is_written(tmp_path: Path, start: float, end: float) -> None:
    ellipse = tags((0, "ELLIPSE"), (8, "0"), (10, 20), (20, 20), (11, 10), (21, 5), (40, 0.5), (41, start), (42, end))
    drawing = dxf.read(file_of(tmp_path, "".join(line(*ends) for ends in AROUND) + ellipse))
    assert areas(drawing) == pytest.approx([1e4, -125 * math.pi / 2], rel=1e-4)
    assert not drawing.warnings


@pytest.mark.parametrize(("start", "share"), [(0.75 * math.pi, 0.75), (-0.5 * math.pi, 0.5), (3.5 * math.pi, 0.5), (-math.pi, 1e-3)])
def test_a_part_of_an_ellipse_stays_a_part(tmp_path: Path, start: float, share: float) -> None:
    drawing = dxf.read(
        drawn(tmp_path, lambda m: (m.add_circle((0, 0), 99), m.add_ellipse((0, 0), (20, 0), 0.5, start, start + share * TAU)))
    )
    assert [(i.entity, i.reason) for i in drawing.ignored] == [("ELLIPSE", "open")]


@pytest.mark.parametrize(("start", "end"), [(-180, 180), (0, 360), (90, 450.00001), (0, 359.99999)])
@pytest.mark.parametrize("ccw", [True, False])
def test_a_whole_ellipse_around_a_hatch_is_whole(tmp_path: Path, start: float, end: float, *, ccw: bool) -> None:
    def draw(msp: Any) -> None:
        msp.add_hatch().paths.add_edge_path().add_ellipse((3, 4), (10, 5), 0.5, start, end, ccw=ccw)

    assert areas(dxf.read(drawn(tmp_path, draw))) == [pytest.approx(125 * math.pi / 2, rel=1e-4)]


@pytest.mark.parametrize(
    ("start", "end"),
    [(256.608408, 616.608408), (0, 360.00001), (180, 180.000001), (180, 179.999999), (0, 0), (0, 360), (360, 0), (90, 810), (-90, 270)],
)
def test_a_whole_circle_as_an_arc_is_whole_however_its_span_is_written(tmp_path: Path, start: float, end: float) -> None:
    (contour,) = dxf.read(file_of(tmp_path, tags((0, "ARC"), (8, "0"), (10, 7), (20, 8), (40, 5), (50, start), (51, end)))).contours
    assert polygon.signed_area(contour.points_mm) == pytest.approx(25 * math.pi, rel=1e-6)
    assert contour.circle == (7.0, 8.0, 5.0)


def test_a_short_arc_of_a_large_radius_stays_one(tmp_path: Path) -> None:
    """5e-5 rad of a radius of 1 km: 50 mm along the top of a plate."""
    radius, half = 1e6, 2.5e-5
    x, y = radius * math.sin(half), radius * math.cos(half)
    degrees = math.degrees(half)

    def draw(msp: Any) -> None:
        msp.add_arc((0, -y), radius, 90 - degrees, 90 + degrees)
        msp.add_lwpolyline([(-x, 0), (-x, -30), (x, -30), (x, 0)])

    assert areas(dxf.read(drawn(tmp_path, draw))) == [pytest.approx(60 * x, rel=1e-4)]


# --- mixed versions ----------------------------------------------------------------------------------------------------

AROUND = [(-50, -50, 50, -50), (50, -50, 50, 50), (50, 50, -50, 50), (-50, 50, -50, -50)]
VERSIONS = {"R12": "AC1009", "R10": "AC1006", "R2000": "AC1015", "none": ""}


def of_version(path: Path, version: str) -> Path:
    """The file with another version, or none; without a header where there is nothing else in it."""
    told = tags((9, "$ACADVER"), (1, version)) if version else ""
    path.write_text(path.read_text().replace(tags((9, "$ACADVER"), (1, "AC1009")), told))
    return path


@pytest.mark.parametrize("marks", [("AcDbEntity", "AcDbPolyline"), (), ("AcDbPolyline",)])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_closed_lwpolyline_is_closed_whatever_the_version_says(tmp_path: Path, version: str, marks: tuple[str, ...]) -> None:
    """Three sides of the hole are drawn and one is flag 70 = 1; its extrusion mirrors it."""
    entity, own = (*(tags((100, mark)) for mark in marks), "", "")[:2]
    hole = tags((0, "LWPOLYLINE"), (5, "FF")) + entity + tags((8, "INNER")) + own + tags((90, 4), (70, 1), (210, 0), (220, 0), (230, -1))
    hole += "".join(tags((10, x), (20, y)) for x, y in SQUARE)
    old = tags((0, "POLYLINE"), (8, "OLD"), (66, 1), (70, 1))
    old += "".join(tags((0, "VERTEX"), (8, "OLD"), (10, x + 20), (20, y), (42, Q)) for x, y in SQUARE) + tags((0, "SEQEND"))
    drawing = dxf.read(of_version(file_of(tmp_path, "".join(line(*ends) for ends in AROUND) + hole + old), VERSIONS[version]))
    assert areas(drawing) == pytest.approx([1e4, -100, -50 * math.pi], rel=1e-6)
    assert [c.layer for c in drawing.contours] == ["CUT", "INNER", "OLD"]
    assert drawing.contours[1].points_mm.min(axis=0) == pytest.approx((-10, 0))
    assert not drawing.warnings


def test_a_file_of_entities_alone_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "bare.dxf"
    body = tags((0, "LWPOLYLINE"), (8, "0"), (90, 4), (70, 1)) + "".join(tags((10, x), (20, y)) for x, y in SQUARE)
    path.write_text(tags((0, "SECTION"), (2, "ENTITIES")) + body + tags((0, "ENDSEC"), (0, "EOF")))
    assert areas(dxf.read(path, units="mm")) == [pytest.approx(100)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_spline_and_a_text_without_markers_are_read(tmp_path: Path, version: str) -> None:
    spline = tags((0, "SPLINE"), (8, "0"), (70, 8), (71, 3), (72, 8), (73, 4), *[(40, k) for k in (0, 0, 0, 0, 1, 1, 1, 1)])
    spline += tags(*[pair for x, y in ((0, 0), (0, 40), (100, 40), (100, 0)) for pair in ((10, x), (20, y), (30, 0))])
    text = tags((0, "MTEXT"), (8, "0"), (10, 1), (20, 1), (40, 3), (1, "x"))
    drawing = dxf.read(of_version(file_of(tmp_path, spline + text + line(0, 0, 100, 0)), VERSIONS[version]))
    assert areas(drawing) == [pytest.approx(2400, rel=1e-5)]
    assert [i.entity for i in drawing.ignored] == ["MTEXT"]


def test_a_mixed_file_keeps_its_code_page(tmp_path: Path) -> None:
    path = file_of(tmp_path, tags((0, "LWPOLYLINE"), (8, "Größe"), (70, 1)) + "".join(tags((10, x), (20, y)) for x, y in SQUARE))
    page = tags((9, "$DWGCODEPAGE"), (3, "ANSI_1252"))
    path.write_bytes(path.read_text().replace("AC1009\n", "AC1009\n" + page).encode("cp1252"))
    assert [c.layer for c in dxf.read(path).contours] == ["Größe"]


def test_the_circle_of_an_arc_is_known(tmp_path: Path) -> None:
    for draw in (AREAS["circle"][0], AREAS["two arcs"][0], AREAS["lwpolyline as a circle"][0], AREAS["a circle as a spline"][0]):
        (contour,) = dxf.read(drawn(tmp_path, draw)).contours
        assert contour.circle is not None
        assert contour.circle[2] == pytest.approx(5, rel=3e-4)
    (contour,) = dxf.read(drawn(tmp_path, AREAS["ellipse"][0])).contours
    assert contour.circle is None
    (contour,) = dxf.read(drawn(tmp_path, AREAS["extruded to −z"][0])).contours
    assert contour.circle == pytest.approx((-3, 4, 5))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angle=st.floats(0, 360), x=st.floats(-500, 500), y=st.floats(-500, 500), mirrored=st.booleans(), scale=st.sampled_from([0.5, 1.0, 3.0])
)
def test_a_block_may_be_turned_moved_scaled_and_mirrored(
    tmp_path: Path, angle: float, x: float, y: float, mirrored: bool, scale: float
) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    inner = document.blocks.new("INNER")
    inner.add_lwpolyline([(2, 2, 0), (6, 2, 1), (6, 4, 0), (2, 4, 1)], format="xyb", close=True, dxfattribs={"layer": "0"})
    outer = document.blocks.new("OUTER")
    outer.add_lwpolyline([(0, 0), (20, 0), (20, 8), (0, 10)], close=True)
    outer.add_arc((14, 4), 2, 90, 270)
    outer.add_line((14, 2), (14, 6))
    outer.add_blockref("INNER", (1, 1), dxfattribs={"rotation": 10})
    attributes = {"rotation": angle, "xscale": -scale if mirrored else scale, "yscale": scale, "zscale": 0, "layer": "CUT"}
    document.modelspace().add_blockref("OUTER", (x, y), dxfattribs=attributes)
    document.saveas(tmp_path / "blocks.dxf")
    drawing = dxf.read(tmp_path / "blocks.dxf")
    expected = [180.0, -(8 + math.pi), -2 * math.pi]
    found = areas(drawing)
    assert found[0] == pytest.approx(expected[0] * scale**2, rel=1e-6)
    assert sorted(found[1:]) == pytest.approx([a * scale**2 for a in expected[1:]], rel=2e-4)
    assert {c.layer for c in drawing.contours} == {"CUT"}
    assert len(drawing.parts) == 1


def test_a_block_scaled_unevenly_makes_ellipses(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    document.blocks.new("ROUND").add_circle((0, 0), 5)
    document.modelspace().add_blockref("ROUND", (0, 0), dxfattribs={"xscale": 2, "yscale": 0.5})
    document.saveas(tmp_path / "uneven.dxf")
    (contour,) = dxf.read(tmp_path / "uneven.dxf").contours
    assert polygon.signed_area(contour.points_mm) == pytest.approx(math.pi * 25, rel=2e-5)
    assert contour.circle is None


def test_a_turned_block_in_an_unevenly_scaled_one_is_sheared(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    inner = document.blocks.new("INNER")
    inner.add_lwpolyline(SQUARE, close=True)
    inner.add_arc((5, 5), 2, 0, 180)
    inner.add_line((3, 5), (7, 5))
    document.blocks.new("OUTER").add_blockref("INNER", (0, 0), dxfattribs={"rotation": 45})
    document.modelspace().add_blockref("OUTER", (0, 0), dxfattribs={"xscale": 3})
    document.saveas(tmp_path / "sheared.dxf")
    outer, hole = dxf.read(tmp_path / "sheared.dxf").contours
    assert polygon.signed_area(outer.points_mm) == pytest.approx(300)
    assert polygon.perimeter(outer.points_mm) == pytest.approx(4 * math.hypot(3 * 50**0.5, 50**0.5))
    assert polygon.signed_area(hole.points_mm) == pytest.approx(-6 * math.pi, rel=1e-4)


@pytest.mark.parametrize(("state", "holes"), [("frozen", 0), ("off", 2), ("invisible", 0), ("shown", 3)])
def test_what_a_hidden_insert_holds_is_not_shown(tmp_path: Path, state: str, holes: int) -> None:
    """A layer that is off hides what a block has on layer 0 only; one that is frozen, the whole block."""
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    layer = document.layers.add("SOME")
    if state == "frozen":
        layer.freeze()
    elif state == "off":
        layer.off()
    inner = document.blocks.new("INNER")
    inner.add_circle((30, 0), 2)
    document.blocks.new("HOLES").add_circle((10, 0), 3, dxfattribs={"layer": "CUT"})
    document.blocks.get("HOLES").add_circle((20, 0), 3, dxfattribs={"layer": "CUT"})
    document.blocks.get("HOLES").add_blockref("INNER", (0, 0))
    document.modelspace().add_circle((0, 0), 50)
    document.modelspace().add_blockref("HOLES", (0, 0), dxfattribs={"layer": "SOME", "invisible": int(state == "invisible")})
    document.saveas(tmp_path / "hidden.dxf")
    drawing = dxf.read(tmp_path / "hidden.dxf")
    assert len(drawing.contours) == 1 + holes
    entity = "CIRCLE" if state == "off" else "INSERT"
    assert [(i.entity, i.layer, i.reason) for i in drawing.ignored] == ([] if state == "shown" else [(entity, "SOME", "not shown")])


def test_an_array_of_blocks_is_so_many_parts(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    block = document.blocks.new("PART")
    block.add_lwpolyline(SQUARE, close=True)
    block.add_circle((5, 5), 2)
    attributes = {"row_count": 3, "column_count": 4, "row_spacing": 15, "column_spacing": 20}
    document.modelspace().add_blockref("PART", (0, 0), dxfattribs=attributes)
    document.saveas(tmp_path / "array.dxf")
    drawing = dxf.read(tmp_path / "array.dxf")
    assert len(drawing.parts) == 12
    assert all([drawing.contours[i].kind for i in part] == ["outer", "hole"] for part in drawing.parts)
    assert drawing.bbox_mm == pytest.approx((0, 0, 70, 40))
    assert [c.name for c in drawing.contours][:2] == ["outer", "outer-2"]


def test_a_closed_spline_of_fit_points_alone_runs_back_to_the_first(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        turns = np.arange(32) * math.tau / 32
        msp.add_spline([(40 * math.cos(t), 40 * math.sin(t)) for t in turns]).closed = True

    (contour,) = dxf.read(drawn(tmp_path, draw)).contours
    assert polygon.signed_area(contour.points_mm) == pytest.approx(math.pi * 1600, rel=1e-4)
    assert contour.circle is not None


@pytest.mark.parametrize("backwards", range(16))
def test_the_edges_of_a_hatch_may_run_either_way(tmp_path: Path, backwards: int) -> None:
    def draw(msp: Any) -> None:
        path = msp.add_hatch().paths.add_edge_path()
        for number, (a, b) in enumerate(zip(SQUARE, SQUARE[1:] + SQUARE[:1], strict=True)):
            path.add_line(*((b, a) if backwards >> number & 1 else (a, b)))

    assert areas(dxf.read(drawn(tmp_path, draw))) == [pytest.approx(100)]


def test_hatches_count_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    def hatch(msp: Any) -> object:
        fill = msp.add_hatch()
        fill.paths.add_polyline_path([(0, 0, 0), (10, 0, 1), (10, 10, 0), (0, 10, 0)], is_closed=True)
        edges = fill.paths.add_edge_path()
        edges.add_line((2, 3), (4, 3))
        edges.add_arc((4, 5), 2, -90, 90)
        edges.add_line((4, 7), (2, 7))
        edges.add_ellipse((2, 5), (0, 2), 0.5, 0, 180)
        return fill

    drawing = dxf.read(drawn(tmp_path, hatch))
    assert areas(drawing) == pytest.approx([100 + math.pi * 12.5, -(8 + 2 * math.pi + math.pi)], rel=1e-4)
    assert "hatches" in drawing.warnings[0]
    drawing = dxf.read(drawn(tmp_path, lambda m: (hatch(m), m.add_circle((5, 5), 20))))
    assert len(drawing.contours) == 1
    assert ("HATCH", "fills what lines outline", 2) in [(i.entity, i.reason, i.count) for i in drawing.ignored]


# --- what is not the outline -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", ["BEND", "Bend_Lines", "ENGRAVE", "Gravur", "TEXT", "Dimensions", "CENTER", "Hilfslinien", "defpoints", "CENTERLINES", "DIM"]
)
def test_layers_that_are_not_cut_are_left_out(tmp_path: Path, layer: str) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: (m.add_circle((0, 0), 9), m.add_circle((0, 0), 4, dxfattribs={"layer": layer}))))
    assert len(drawing.contours) == 1
    assert [(i.entity, i.layer) for i in drawing.ignored] == [("CIRCLE", layer)]


@pytest.mark.parametrize(
    "layer",
    [
        "0",
        "CUT",
        "OUTER_PROFILES",
        "Layer_1",
        "Frame-Arms",
        "Kontur",
        "INNEN",
        "DIMM_SLOT",
        "7",
        "outline",
        "SKETCH_1",
        "Center plate",
        "Border",
    ],
)
def test_other_layers_are_cut(tmp_path: Path, layer: str) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: (m.add_circle((0, 0), 9), m.add_circle((0, 0), 4, dxfattribs={"layer": layer}))))
    assert len(drawing.contours) == 2


@pytest.mark.parametrize(
    "layer",
    [
        "Stretch", "Denmark", "Landmark", "Benchmark", "Faux", "Part (auxetic)", "Dimensioned_outline", "Textil", "Bendix", "Footnote",
        "Titlebar panel", "Fletching", "Hidden_gem", "Kitchen_fetch", "context", "0_Bendability", "Prelabelled",
    ],
)  # fmt: skip
def test_a_keyword_within_another_word_says_nothing(layer: str) -> None:
    assert not dxf.NOT_CUT_LAYER.search(layer)


@pytest.mark.parametrize(
    "layer",
    [
        "bend_lines", "UP_BEND", "IV_BEND", "bendlines", "SheetBend", "textlayer", "Innentexte", "MARK_1", "LaserMark", "hole_marks",
        "OUTLINE_NOTE", "score", "Score_Lines", "Beschriftung", "grabado", "plegado", "piega", "cotas", "cotation", "quote", "Hidden",
        "HIDDEN_LINES", "Hidden (ISO)", "AM_HIDDEN2", "fold-lines", "AUXILIARY", "help-lines", "Title Block", "DIM_2", "Cut_Etch",
    ],
)  # fmt: skip
def test_a_keyword_of_its_own_says_that_a_layer_is_not_cut(layer: str) -> None:
    assert dxf.NOT_CUT_LAYER.search(layer)


def test_where_nothing_is_left_it_is_said_how_to_tell_that_a_layer_is_cut(tmp_path: Path) -> None:
    error = refused(drawn(tmp_path, lambda m: m.add_circle((0, 0), 9, dxfattribs={"layer": "TEXT"})))
    assert "if one of the layers TEXT is cut, part.yaml beside it says so (layers: {TEXT: {outline: true}})" in str(error)


def test_an_external_reference_is_told(tmp_path: Path) -> None:
    block = tags((0, "BLOCK"), (8, "0"), (2, "OTHER"), (70, 4), (10, 0), (20, 0), (1, "other.dwg"), (0, "ENDBLK"), (8, "0"))
    insert = tags((0, "INSERT"), (8, "0"), (2, "OTHER"), (10, 0), (20, 0))
    drawing = dxf.read(file_of(tmp_path, tags((0, "CIRCLE"), (8, "0"), (10, 0), (20, 0), (40, 9)) + insert, blocks=block))
    assert [(i.entity, i.reason) for i in drawing.ignored] == [("INSERT", "an external reference, not in this file")]
    assert "OTHER is an external reference" in drawing.warnings[0]


def test_what_lies_almost_on_another_is_doubted(tmp_path: Path) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: (m.add_circle((0, 0), 50), m.add_circle((0, 0), 5), m.add_circle((0, 0), 5.002))))
    assert len(drawing.contours) == 3
    assert "is it drawn twice?" in drawing.warnings[0]


def test_units_that_are_not_read_are_named(tmp_path: Path) -> None:
    error = refused(drawn(tmp_path, lambda m: m.add_circle((0, 0), 9), units=21))
    assert "the drawing is in USSurveyFeet ($INSUNITS 21), which is not read; give --units" in str(error)


def test_line_types_of_axes_and_hidden_edges_are_left_out(tmp_path: Path) -> None:
    document = new("R2010", setup=True)
    document.header["$INSUNITS"] = 4
    document.layers.add("AXES", linetype="CENTER")
    document.layers.add("OFF").off()
    msp = document.modelspace()
    msp.add_circle((0, 0), 9)
    msp.add_circle((0, 0), 5, dxfattribs={"layer": "AXES"})
    msp.add_circle((0, 0), 4, dxfattribs={"linetype": "DASHED"})
    msp.add_circle((0, 0), 3, dxfattribs={"layer": "OFF"})
    document.saveas(tmp_path / "types.dxf")
    drawing = dxf.read(tmp_path / "types.dxf")
    assert len(drawing.contours) == 1
    assert sorted(i.reason for i in drawing.ignored) == [
        "not cut, by the line type CENTER", "not cut, by the line type DASHED", "not shown"
    ]  # fmt: skip


def test_the_side_file_says_which_layers_are_cut(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        for radius, layer in ((9, "CUT"), (5, "TEXT"), (3, "SKETCH")):
            msp.add_circle((0, 0), radius, dxfattribs={"layer": layer})

    path = drawn(tmp_path, draw)
    plain = dxf.read(path)
    assert [c.layer for c in plain.contours] == ["CUT", "SKETCH"]
    path.with_suffix(".yaml").write_text("layers: {TEXT: {outline: true}, SKETCH: {outline: false}}\n")
    told = dxf.read(path)
    assert [c.layer for c in told.contours] == ["CUT", "TEXT"]
    assert told.digest != plain.digest


def test_a_frame_that_is_set_aside_is_doubted(tmp_path: Path) -> None:
    def draw(msp: Any, layer: str, size: float) -> None:
        for a, b in zip(SQUARE, SQUARE[1:] + SQUARE[:1], strict=True):
            msp.add_line(np.multiply(a, size), np.multiply(b, size), dxfattribs={"layer": layer})
        msp.add_circle((20, 20), 5, dxfattribs={"layer": "HOLES"})

    drawing = dxf.read(drawn(tmp_path, lambda m: draw(m, "TITLE", 5)))
    assert "on layer TITLE goes around all that is cut" in drawing.warnings[0]
    assert not dxf.read(drawn(tmp_path, lambda m: draw(m, "TITLE", 1))).warnings


def sheet(msp: Any, layer: str, *, written: bool = True) -> object:
    for x, y, w, h in ((0, 0, 297, 210), (10, 10, 277, 190), (187, 10, 100, 40)):
        msp.add_lwpolyline([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], close=True, dxfattribs={"layer": layer})
    if written:
        msp.add_text("PLATE", dxfattribs={"layer": layer, "insert": (190, 15)})
    return msp


def plate_on(msp: Any, layer: str) -> object:
    msp.add_lwpolyline([(50, 80), (150, 80), (150, 140), (50, 140)], close=True, dxfattribs={"layer": layer})
    return msp.add_circle((80, 110), 10, dxfattribs={"layer": layer})


@pytest.mark.parametrize("layer", ["FRAME", "Border", "RAHMEN", "Zeichnungsrahmen", "A4_FORMAT", "SHEET", "Blattrand", "CADRE"])
@pytest.mark.parametrize("written", [True, False])
def test_a_sheets_frame_is_told_from_the_part_by_its_name_and_place(tmp_path: Path, layer: str, *, written: bool) -> None:
    path = drawn(tmp_path, lambda m: (sheet(m, layer, written=written), plate_on(m, "CUT")))
    drawing = dxf.read(path)
    assert [(c.kind, c.layer) for c in drawing.contours] == [("outer", "CUT"), ("hole", "CUT")]
    assert ("LWPOLYLINE", layer, "not cut, a sheet's frame by its name and place", 3) in [
        (i.entity, i.layer, i.reason, i.count) for i in drawing.ignored
    ]
    assert any("goes around all that is cut" in warning for warning in drawing.warnings)
    path.with_suffix(".yaml").write_text(f"layers: {{{layer}: {{outline: true}}}}\n")
    assert len(dxf.read(path).contours) == 5


@pytest.mark.parametrize("layer", ["Platform", "FRAME", "SHEET_METAL", "Information"])
def test_a_part_on_a_layer_called_like_a_frame_is_a_part(tmp_path: Path, layer: str) -> None:
    def draw(msp: Any) -> None:
        plate_on(msp, layer)
        msp.add_text("7", dxfattribs={"layer": "TEXT"})

    assert len(dxf.read(drawn(tmp_path, draw)).contours) == 2
    drawing = dxf.read(drawn(tmp_path, lambda m: (plate_on(m, layer), m.add_circle((120, 100), 4, dxfattribs={"layer": "HOLES"}))))
    assert len(drawing.contours) == 3


def test_a_title_block_by_its_blocks_name_is_not_cut(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    sheet(document.blocks.new("A4_TITLE_BLOCK"), "0")
    document.blocks.get("A4_TITLE_BLOCK").add_attdef("DRAWN", (190, 20))
    document.modelspace().add_blockref("A4_TITLE_BLOCK", (0, 0)).add_auto_attribs({"DRAWN": "x"})
    plate_on(document.modelspace(), "0")
    document.saveas(tmp_path / "titled.dxf")
    drawing = dxf.read(tmp_path / "titled.dxf")
    assert areas(drawing) == pytest.approx([6000, -100 * math.pi])
    assert {(i.entity, i.reason) for i in drawing.ignored} == {
        ("ATTRIB", "not an outline"), ("TEXT", "not an outline"), ("LWPOLYLINE", "not cut, by the name of its block A4_TITLE_BLOCK")
    }  # fmt: skip


def test_an_outline_of_the_proportions_of_paper_is_doubted(tmp_path: Path) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: (sheet(m, "0"), plate_on(m, "CUT"))))
    assert any("has the proportions of paper" in warning for warning in drawing.warnings)
    assert not dxf.read(drawn(tmp_path, lambda m: plate_on(m, "CUT"))).warnings


def test_what_stands_in_paper_space_is_listed(tmp_path: Path) -> None:
    document = new("R2010")
    document.header["$INSUNITS"] = 4
    document.modelspace().add_circle((0, 0), 9)
    document.layout("Layout1").add_circle((0, 0), 4, dxfattribs={"layer": "SHEET"})
    document.saveas(tmp_path / "paper.dxf")
    drawing = dxf.read(tmp_path / "paper.dxf")
    assert [(i.entity, i.layer, i.reason) for i in drawing.ignored] == [("CIRCLE", "SHEET", "in paper space")]


def test_an_open_line_inside_is_no_outline(tmp_path: Path) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: (m.add_circle((0, 0), 9), m.add_line((-3, 0), (3, 0), dxfattribs={"layer": "X"}))))
    assert len(drawing.contours) == 1
    assert [(i.entity, i.layer, i.reason) for i in drawing.ignored] == [("LINE", "X", "open")]
    assert "on layer X is no outline" in drawing.warnings[0]


PLATE = [(0, 0), (20, 0), (30, 0), (50, 0), (50, 15), (50, 30), (30, 30), (20, 30), (0, 30), (0, 15)]


def ring(msp: Any, points: Sequence[tuple[float, float]], layer: str = "0") -> None:
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        msp.add_line(a, b, dxfattribs={"layer": layer})


@pytest.mark.parametrize(
    "bends",
    [
        [((20, 0), (20, 30))],
        [((20, 0), (20, 30)), ((30, 0), (30, 30))],
        [((0, 0), (50, 30)), ((50, 0), (0, 30))],
        [((25, 15), (20, 0)), ((25, 15), (50, 15)), ((25, 15), (30, 30)), ((25, 15), (0, 15))],
        [((20, 0), (20, 15)), ((20, 15), (20, 30)), ((20, 15), (50, 15)), ((30, 0), (29, 4))],
    ],
)
def test_straight_lines_that_divide_a_part_are_listed_and_its_outline_holds(
    tmp_path: Path, bends: list[tuple[tuple[float, float], tuple[float, float]]]
) -> None:
    def draw(msp: Any) -> None:
        ring(msp, PLATE)
        for a, b in bends:
            msp.add_line(a, b)
        msp.add_circle((10, 22), 2)

    path = drawn(tmp_path, draw)
    drawing = dxf.read(path)
    assert areas(drawing) == pytest.approx([1500, -4 * math.pi])
    assert sum(i.count for i in drawing.ignored if i.reason in ("divides a part", "open")) == len(bends)
    handles = [e.dxf.handle for e in readfile(path).modelspace()][len(PLATE) : len(PLATE) + len(bends)]
    assert all(any(f"LINE {handle} on layer 0" in warning for warning in drawing.warnings) for handle in handles)


def test_a_bend_from_where_arcs_run_into_lines_divides_a_part_too(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        msp.add_arc((10, 10), 10, 90, 270)
        msp.add_arc((40, 10), 10, 270, 90)
        for a, b in [((10, 0), (40, 0)), ((40, 20), (10, 20)), ((10, 0), (10, 20)), ((40, 0), (40, 20))]:
            msp.add_line(a, b)

    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == [pytest.approx(600 + 100 * math.pi, rel=1e-4)]
    assert [(i.reason, i.count) for i in drawing.ignored] == [("divides a part", 2)]


@pytest.mark.parametrize(
    ("within", "said"),
    [
        ([(20, 0), (20, 5), (30, 5), (30, 0)], "is not straight, as a bend would be"),  # a notch, and what it takes away
        ([(25, 0), (50, 15), (25, 30), (0, 15), (25, 0)], "may be a hole"),
    ],
)
def test_lines_within_that_may_be_cut_are_not_guessed_away(tmp_path: Path, within: list[tuple[float, float]], said: str) -> None:
    def draw(msp: Any) -> None:
        ring(msp, [*PLATE[:2], (25, 0), *PLATE[2:6], (30, 30), (25, 30), *PLATE[7:]])
        for a, b in itertools.pairwise(within):
            msp.add_line(a, b)
        msp.add_circle((10, 25), 1)

    error = refused(drawn(tmp_path, draw))
    assert error.code == "E_DXF_OPEN"
    assert "more than two lines meet; LINE " in str(error)
    assert said in str(error)
    assert "(layers: {NAME: {outline: false}})" in str(error)


def test_what_closes_on_a_layer_of_its_own_is_a_loop_whatever_meets_it(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        window = [(15, 10), (35, 10), (35, 20), (15, 20)]
        ring(msp, [(0, 0), (50, 0), (50, 30), (0, 30)], "A")
        ring(msp, window, "A")
        for a, b in zip([(0, 0), (50, 0), (50, 30), (0, 30)], window, strict=True):
            msp.add_line(a, b, dxfattribs={"layer": "F"})

    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == pytest.approx([1500, -200])
    assert [(i.layer, i.reason, i.count) for i in drawing.ignored] == [("F", "open", 4)]


def test_parts_that_share_an_edge_that_each_of_them_has_are_parts(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        for x in (0, 50, 100):
            ring(msp, [(x, 0), (x + 50, 0), (x + 50, 30), (x, 30)])
        msp.add_circle((20, 15), 4)

    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == pytest.approx([1500, 1500, 1500, -16 * math.pi], rel=1e-3)
    assert [len(part) for part in drawing.parts] == [2, 1, 1]


@pytest.mark.parametrize("off", [-2.0, -0.3, 0.1, 0.2])
def test_a_hole_is_not_taken_for_the_part_where_no_corner_of_the_outline_meets(tmp_path: Path, off: float) -> None:
    def draw(msp: Any) -> None:
        for (x0, y0), (x1, y1) in [((off, 0), (50, 0)), ((50, off), (50, 30)), ((50 - off, 30), (0, 30)), ((0, 30 - off), (0, 0))]:
            msp.add_line((x0, y0), (x1, y1), dxfattribs={"layer": "RAND"})
        msp.add_circle((14, 15), 4)

    error = refused(drawn(tmp_path, draw))
    assert error.code == "E_DXF_OPEN"
    assert "on layer RAND does not close" in str(error)


def test_the_axes_of_a_disc_are_no_outline_around_it(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        msp.add_circle((0, 0), 20)
        for x, y in ((25, 0), (0, 25)):
            msp.add_line((-x, -y), (x, y))
            msp.add_line((x, y), (1.5 * x, 1.5 * y))

    assert len(dxf.read(drawn(tmp_path, draw)).contours) == 1


def test_a_line_that_hangs_on_the_outline_is_left_out(tmp_path: Path) -> None:
    sides = list(zip(SQUARE, SQUARE[1:] + SQUARE[:1], strict=True))
    drawing = dxf.read(drawn(tmp_path, lambda m: [m.add_line(a, b) for a, b in [*sides, ((0, 0), (4, 5))]]))
    assert areas(drawing) == [pytest.approx(100)]
    assert [i.reason for i in drawing.ignored] == ["open"]


# --- what is doubtful --------------------------------------------------------------------------------------------------


def test_duplicates_zero_lengths_gaps_and_crossings_are_told_with_layer_and_handle(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        msp.add_circle((0, 0), 50)
        msp.add_circle((0, 0), 50)
        msp.add_line((1, 1), (1, 1), dxfattribs={"layer": "ZERO"})
        msp.add_lwpolyline([(5, 5), (9, 9), (9, 5), (5, 9)], close=True, dxfattribs={"layer": "EIGHT"})
        for a, b in (((-10, 0), (0, 0)), ((0, 0.03), (0, 10)), ((0, 10), (-10, 0))):
            msp.add_line(a, b, dxfattribs={"layer": "GAP"})

    path = drawn(tmp_path, draw)
    handles = {(e.dxftype(), e.dxf.layer): e.dxf.handle for e in readfile(path).modelspace()}
    drawing = dxf.read(path)
    text = "\n".join(drawing.warnings)
    assert f"CIRCLE {handles['CIRCLE', '0']} on layer 0 is left out: it lies on CIRCLE" in text
    assert f"LINE {handles['LINE', 'ZERO']} on layer ZERO is left out: no length" in text
    assert f"LWPOLYLINE {handles['LWPOLYLINE', 'EIGHT']} on layer EIGHT" in text
    assert "a gap of up to 0.05 mm was closed in the loop of LINE" in text
    assert len(drawing.contours) == 2  # the circle and the loop with the gap: a figure of eight with equal lobes encloses nothing


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-10, 1e-7, 2e-4])
@pytest.mark.parametrize("corner", [(0.0, 0.0), (3.175, 3.175), (12.345, 6.789), (0.001, 0.0005)])
def test_an_outline_drawn_twice_is_one_wherever_it_lies_and_whatever_the_noise(
    tmp_path: Path, corner: tuple[float, float], noise: float
) -> None:
    def draw(msp: Any) -> None:
        for off in (-noise, noise):
            x, y = corner[0] + off, corner[1] + off
            points = [(x, y), (x + 50, y), (x + 50, y + 30), (x, y + 30)]
            for a, b in zip(points, [*points[1:], points[0]], strict=True):
                msp.add_line(a, b) if off < 0 else msp.add_line(b, a)
            msp.add_circle((x + 20, y + 15), 4 + off)

    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == pytest.approx([1500, -16 * math.pi], abs=0.05)
    assert sum("is left out: it lies on" in warning for warning in drawing.warnings) == 5


def test_a_side_drawn_twice_in_other_pieces_is_one(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        ring(msp, SQUARE)
        ring(msp, [(0, 0), (4, 0), (10, 0), (10, 10), (0, 10)])
        msp.add_circle((5, 5), 1)

    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == pytest.approx([100, -math.pi], rel=1e-4)
    assert {i.reason for i in drawing.ignored} == {"duplicate"}


def test_a_disc_in_the_middle_of_a_round_hole_is_doubted(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        for radius in (9, 4, 2.5):
            msp.add_circle((0, 0), radius)

    drawing = dxf.read(drawn(tmp_path, draw))
    assert [c.name for c in drawing.contours] == ["outer", "hole-1", "island-1"]
    assert "island-1 on layer 0 is a loose disc within hole-1 on layer 0 (⌀ 5.000 mm in the middle of ⌀ 8.000 mm)" in drawing.warnings[0]


def test_what_is_not_flat_is_told(tmp_path: Path) -> None:
    tilted = dxf.read(drawn(tmp_path, lambda m: m.add_polyline3d([(x, y, x) for x, y in SQUARE], close=True)))
    assert "is not flat, its z goes from 0.000 to 10.000 mm" in tilted.warnings[0]
    raised = dxf.read(drawn(tmp_path, lambda m: m.add_polyline3d([(x, y, 7) for x, y in SQUARE], close=True)))
    assert not raised.warnings
    upright = refused(drawn(tmp_path, lambda m: [m.add_line((x, 0, y), (u, 0, v)) for (x, y), (u, v) in itertools.pairwise(SQUARE)]))
    assert "is not flat" in str(upright)


def test_bodies_are_to_be_exploded(tmp_path: Path) -> None:
    assert "explode SOLID to lines and arcs" in str(refused(drawn(tmp_path, lambda m: m.add_solid(SQUARE))))


def test_what_shares_a_box_and_a_length_only_is_no_double(tmp_path: Path) -> None:
    def draw(msp: Any) -> None:
        msp.add_lwpolyline([(0, 0), (10, 0), (10, 10)], close=True)
        msp.add_lwpolyline([(0, 0), (10, 10), (0, 10)], close=True)
        msp.add_line((20, 0), (30, 10))
        msp.add_line((20, 10), (30, 0))

    drawing = dxf.read(drawn(tmp_path, draw))
    assert areas(drawing) == pytest.approx([50, 50])
    assert [(i.reason, i.count) for i in drawing.ignored] == [("open", 2)]


def test_a_leaf_of_two_arcs_in_one_box_is_a_leaf(tmp_path: Path) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: (m.add_arc((10, 0), 10, 90, 180), m.add_arc((0, 10), 10, 270, 360))))
    assert areas(drawing) == [pytest.approx(50 * math.pi - 100, rel=1e-4)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.sampled_from([0.0, 1e-7, 1e-4, 5e-4, 2e-3, 5e-3, 0.02, 0.03, 0.049]), min_size=4, max_size=4))
def test_gaps_of_any_size_and_number_are_closed_and_the_outline_is_run_through_once(tmp_path: Path, gaps: list[float]) -> None:
    corners = [(0, 0), (50, 0), (50, 30), (0, 30)]
    steps = [(1, 0), (0, 1), (-1, 0), (0, -1)]

    def draw(msp: Any) -> None:
        for (x, y), end, (u, v), gap in zip(corners, corners[1:] + corners[:1], steps, gaps, strict=True):
            msp.add_line((x, y), (end[0] - gap * u, end[1] - gap * v))
        msp.add_circle((20, 15), 3)

    outer, hole = dxf.read(drawn(tmp_path, draw)).contours
    assert [outer.kind, hole.kind] == ["outer", "hole"]
    assert polygon.signed_area(outer.points_mm) == pytest.approx(1500, abs=6)
    assert polygon.perimeter(outer.points_mm) == pytest.approx(160, abs=0.2)


@pytest.mark.parametrize("gap", [5e-4, 5e-3, 0.03])
def test_a_polyline_whose_ends_nearly_meet_is_one_loop(tmp_path: Path, gap: float) -> None:
    (outer,) = dxf.read(drawn(tmp_path, lambda m: m.add_lwpolyline([(0, 0), (50, 0), (50, 30), (0, 30), (0, gap)]))).contours
    assert polygon.signed_area(outer.points_mm) == pytest.approx(1500, abs=1)


def test_a_loop_that_crosses_itself_is_told(tmp_path: Path) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: m.add_lwpolyline([(0, 0), (9, 9), (9, 0), (0, 7)], close=True)))
    assert "crosses itself at (3.938, 3.938) mm" in drawing.warnings[0]


def test_a_bow_tie_is_refused_with_what_is_wrong_and_where(tmp_path: Path) -> None:
    error = refused(drawn(tmp_path, lambda m: m.add_lwpolyline([(0, 0), (9, 9), (9, 0), (0, 9)], close=True, dxfattribs={"layer": "TIE"})))
    assert error.code == "E_DXF_EMPTY"
    assert "on layer TIE is left out: it crosses itself and encloses nothing" in str(error)
    assert "LWPOLYLINE 2F" in str(error)


@pytest.mark.parametrize("radius", [0.01, 0.05, 0.2, 1.0, 100.0])
def test_circles_of_all_sizes_have_their_area_and_length(tmp_path: Path, radius: float) -> None:
    (contour,) = dxf.read(drawn(tmp_path, lambda m: m.add_circle((0, 0), radius))).contours
    assert polygon.perimeter(contour.points_mm) == pytest.approx(2 * math.pi * radius, rel=5e-4)
    assert polygon.signed_area(contour.points_mm) == pytest.approx(math.pi * radius**2, rel=1e-4)


@pytest.mark.parametrize("gap", [0.2, 3.0])
def test_an_outline_with_a_gap_is_refused_with_layer_and_handle(tmp_path: Path, gap: float) -> None:
    def draw(msp: Any) -> None:
        msp.add_lwpolyline([(gap, 0), (40, 0), (40, 40), (0, 40), (0, 0)], close=False, dxfattribs={"layer": "RAND"})
        msp.add_circle((20, 20), 5)

    error = refused(drawn(tmp_path, draw))
    assert error.code == "E_DXF_OPEN"
    assert "on layer RAND does not close" in str(error)
    assert f"{gap:.3f} mm to the next end" in str(error)


def test_all_open_outlines_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        dxf.read(drawn(tmp_path, lambda m: [m.add_lwpolyline([(x, 0), (x + 5, 0), (x, 5)]) for x in (0, 20, 40)]))
    assert [e.code for e in caught.value.errors] == ["E_DXF_OPEN"] * 3


# --- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "name"), [(1, "inch"), (2, "foot"), (4, "mm"), (5, "cm"), (6, "m")])
def test_units_of_the_header(tmp_path: Path, code: int, name: str) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: m.add_circle((0, 0), 1), units=code))
    assert (drawing.units, drawing.units_source) == (name, "$INSUNITS")
    assert areas(drawing)[0] == pytest.approx(math.pi * dxf.UNITS_MM[name] ** 2, rel=1e-6)


def test_units_are_never_assumed(tmp_path: Path) -> None:
    path = file_of(tmp_path, tags((0, "CIRCLE"), (8, "0"), (10, 0), (20, 0), (40, 3)))
    path.write_text(path.read_text().replace("$INSUNITS\n70\n4", "$LUNITS\n70\n2"))
    error = refused(path)
    assert error.code == "E_DXF_UNITS"
    assert "--units mm|cm|m|inch|foot" in str(error)
    assert dxf.read(path, units="cm").bbox_mm == pytest.approx((-30, -30, 30, 30), abs=1e-3)
    path.write_text(path.read_text().replace("$LUNITS\n70\n2", "$MEASUREMENT\n70\n0"))
    assert refused(path).code == "E_DXF_UNITS"
    path.write_text(path.read_text().replace("$MEASUREMENT\n70\n0", "$MEASUREMENT\n70\n1"))
    drawing = dxf.read(path)
    assert (drawing.units, drawing.units_source) == ("mm", "$MEASUREMENT")
    assert drawing.warnings
    path.with_suffix(".yaml").write_text("units: inch\n")
    assert dxf.read(path).units_source == "side file"
    assert refused(path, units="parsec").code == "E_DXF_UNITS"


def test_given_units_hold_against_the_header_and_it_is_told(tmp_path: Path) -> None:
    drawing = dxf.read(drawn(tmp_path, lambda m: m.add_circle((0, 0), 10), units=1), units="mm")
    assert drawing.units_source == "given"
    assert "says inch" in drawing.warnings[0]


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_files_that_are_no_dxf(tmp_path: Path) -> None:
    path = tmp_path / "x.dxf"
    assert refused(path).code == "E_DXF_FORMAT"  # there is none
    for content, code in [
        (b"", "E_DXF_EMPTY"),
        (b"\n \r\n", "E_DXF_EMPTY"),
        (b"AC1027\x00\x00\x00\x00\x01", "E_DXF_FORMAT"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "E_DXF_FORMAT"),
        (b"AutoCAD Binary DXF\r\n\x1a\x00\x00SECTION\x00", "E_DXF_FORMAT"),
        (b"solid cube\nfacet normal 0 0 0\n", "E_DXF_FORMAT"),
    ]:
        path.write_bytes(content)
        assert refused(path).code == code, content
    assert refused(tmp_path).code == "E_DXF_FORMAT"  # a folder


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "marked.dxf"
    path.write_bytes(b"\xef\xbb\xbf" + (TEMPLATES / "bracket.dxf").read_bytes())
    drawing, plain = dxf.read(path), dxf.read(TEMPLATES / "bracket.dxf")
    assert not drawing.warnings
    assert areas(drawing) == pytest.approx(areas(plain))


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    whole = (TEMPLATES / "bracket.dxf").read_bytes()
    path = tmp_path / "cut.dxf"
    for share in (0.05, 0.3, 0.9, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert refused(path).code == "E_DXF_FORMAT"


def test_every_damage_ends_in_a_drawing_or_a_named_error(tmp_path: Path) -> None:
    whole = bytearray((TEMPLATES / "bracket.dxf").read_bytes())
    random = np.random.default_rng(1)
    path = tmp_path / "damaged.dxf"
    for _ in range(60):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), random.integers(1, 6)):
            damaged[at : at + int(random.integers(0, 3))] = bytes(random.integers(0, 256, random.integers(0, 3), dtype=np.uint8))
        path.write_bytes(damaged)
        with suppress(ConfigError):  # anything else is our bug
            assert dxf.read(path).contours


@pytest.mark.parametrize("value", ["0,5", "-12,25", ",5", "1,5E+01"])
def test_decimal_commas(tmp_path: Path, value: str) -> None:
    error = refused(file_of(tmp_path, line(value, 0, 10, 0)))
    assert (error.code, error.line) == ("E_DXF_FORMAT", 24)
    assert value in str(error)


@pytest.mark.parametrize("value", ["nan", "1e300", "-inf", "1e12"])
@pytest.mark.parametrize("kind", ["LINE", "CIRCLE", "ARC", "ELLIPSE", "POLYLINE", "SPLINE", "INSERT"])
def test_coordinates_that_are_no_place(tmp_path: Path, value: str, kind: str) -> None:
    entity = {
        "LINE": line(0, 0, value, 0),
        "CIRCLE": tags((0, "CIRCLE"), (8, "0"), (10, 0), (20, 0), (40, value)),
        "ARC": tags((0, "ARC"), (8, "0"), (10, value), (20, 0), (40, 3), (50, 0), (51, 90)),
        "ELLIPSE": tags((0, "ELLIPSE"), (8, "0"), (10, 0), (20, 0), (11, value), (21, 0), (40, 0.5), (41, 0), (42, 6)),
        "POLYLINE": tags((0, "POLYLINE"), (8, "0"), (66, 1), (70, 1))
        + "".join(tags((0, "VERTEX"), (8, "0"), (10, x), (20, y)) for x, y in ((0, 0), (value, 0), (0, 5)))
        + tags((0, "SEQEND")),
        "SPLINE": tags(
            (0, "SPLINE"),
            (100, "AcDbEntity"),
            (8, "0"),
            (100, "AcDbSpline"),
            (70, 8),
            (71, 3),
            (72, 8),
            (73, 4),
            *[(40, k) for k in (0, 0, 0, 0, 1, 1, 1, 1)],
        )
        + tags(*[pair for x, y in ((0, 0), (1, 5), (value, 5), (9, 0)) for pair in ((10, x), (20, y), (30, 0))]),
        "INSERT": tags((0, "INSERT"), (8, "0"), (2, "B"), (10, value), (20, 0)),
    }[kind]
    blocks = tags((0, "BLOCK"), (8, "0"), (2, "B"), (70, 0), (10, 0), (20, 0)) + line(0, 0, 1, 1) + tags((0, "ENDBLK"), (8, "0"))
    error = refused(file_of(tmp_path, entity + tags((0, "CIRCLE"), (8, "0"), (10, 0), (20, 0), (40, 9)), blocks=blocks))
    assert error.code == "E_DXF_COORD", error
    assert kind in str(error) or kind == "INSERT"


def test_a_curve_that_ezdxf_would_halve_for_ever(tmp_path: Path) -> None:
    """Its height is absurd, which nobody sees from above."""
    points = ((0, 0, 0), (1, 5, "-1e300"), (8, 5, 0), (9, 0, 0))
    spline = tags((0, "SPLINE"), (100, "AcDbEntity"), (8, "0"), (100, "AcDbSpline"), (70, 8), (71, 3), (72, 8), (73, 4))
    spline += tags(*[(40, k) for k in (0, 0, 0, 0, 1, 1, 1, 1)])
    spline += tags(*[pair for x, y, z in points for pair in ((10, x), (20, y), (30, z))])
    assert refused(file_of(tmp_path, spline)).code == "E_DXF_COORD"


def test_a_block_without_a_name_is_missing(tmp_path: Path) -> None:
    nameless = tags((0, "INSERT"), (8, "0"), (10, 0), (20, 0))
    drawing = dxf.read(file_of(tmp_path, nameless + tags((0, "CIRCLE"), (8, "0"), (10, 0), (20, 0), (40, 9))))
    assert [(i.entity, i.reason) for i in drawing.ignored] == [("INSERT", "block (no name) is missing")]


def block(name: str, content: str) -> str:
    return tags((0, "BLOCK"), (8, "0"), (2, name), (70, 0), (10, 0), (20, 0)) + content + tags((0, "ENDBLK"), (8, "0"))


def insert(name: str, rows: int = 1, columns: int = 1) -> str:
    return tags((0, "INSERT"), (8, "0"), (2, name), (10, 0), (20, 0), (70, columns), (71, rows), (44, 5), (45, 5))


def test_blocks_within_blocks_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    blocks = block("B0", line(0, 0, 1, 1))
    for level in range(1, 11):
        blocks += block(f"B{level}", insert(f"B{level - 1}") * 10)
    assert refused(file_of(tmp_path, insert("B10"), blocks=blocks)).code == "E_DXF_LIMIT"
    assert refused(file_of(tmp_path, insert("B6"), blocks=blocks)).code == "E_DXF_LIMIT"


def test_an_array_without_end_is_refused_at_once(tmp_path: Path) -> None:
    error = refused(file_of(tmp_path, insert("B", 32767, 32767), blocks=block("B", line(0, 0, 1, 1))))
    assert error.code == "E_DXF_LIMIT"
    assert "at most 100000" in str(error)


def test_blocks_too_deep_and_in_a_ring(tmp_path: Path) -> None:
    deep = block("B0", line(0, 0, 1, 1)) + "".join(block(f"B{n}", insert(f"B{n - 1}")) for n in range(1, 200))
    assert refused(file_of(tmp_path, insert("B9"), blocks=deep)).code == "E_DXF_LIMIT"
    assert refused(file_of(tmp_path, insert("B199"), blocks=deep)).code == "E_DXF_LIMIT"
    itself = block("A", line(0, 0, 1, 1) + insert("A"))
    error = refused(file_of(tmp_path, insert("A"), blocks=itself))
    assert error.code == "E_DXF_CYCLE"
    assert "A > A" in str(error)
    ring = block("A", insert("B")) + block("B", insert("C")) + block("C", insert("A"))
    assert refused(file_of(tmp_path, insert("B"), blocks=ring)).code == "E_DXF_CYCLE"


def test_too_many_entities_are_not_begun(tmp_path: Path) -> None:
    error = refused(file_of(tmp_path, line(0, 0, 1, 1) * 60_000))
    assert error.code == "E_DXF_LIMIT"


def test_nothing_to_cut(tmp_path: Path) -> None:
    error = refused(drawn(tmp_path, lambda m: (m.add_text("Hallo"), m.add_circle((0, 0), 1, dxfattribs={"layer": "BEND"}))))
    assert error.code == "E_DXF_EMPTY"
    assert "CIRCLE on BEND (not cut, by the layer's name), TEXT on 0 (not an outline)" in str(error)
    assert refused(drawn(tmp_path, lambda m: None)).code == "E_DXF_EMPTY"
    assert refused(drawn(tmp_path, lambda m: m.add_point((1, 1)))).code == "E_DXF_EMPTY"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("tolerance_mm: [", "E_SIDE_FORMAT", "not YAML"),
        ("tolerance: 3", "E_SIDE_KEY", "tolerance"),
        ("tolerance_mm: -1", "E_SIDE_KEY", "tolerance_mm"),
        ("tolerance_mm: .nan", "E_SIDE_KEY", "tolerance_mm"),
        ("zones: [{name: a, margin_mm: 1, polygon_mm: [[0, 0], [1, 0], [1, 1]]}]", "E_SIDE_KEY", "give one of"),
        ("- 3", "E_SIDE_KEY", "mapping"),
        ("units: mm\ntolerance_mm: 0.1\ntolerance_mm: 0.2", "E_SIDE_KEY", "part.yaml:3: tolerance_mm: stands here and in line 2"),
        (
            "units: mm\ntolerence_mm: 0.1",
            "E_SIDE_KEY",
            "part.yaml:2: tolerence_mm: tolerence_mm is not known here; did you mean tolerance_mm?",
        ),
        ("layers:\n  NOPE: {outline: false}", "E_SIDE_NAME", "part.yaml:2: layers.NOPE: the drawing has no layer 'NOPE'"),
        (
            "contours:\n  outr: {inward_mm: 0, outward_mm: 1}",
            "E_SIDE_NAME",
            "part.yaml:2: contours.outr: the drawing has no contour 'outr'; did you",
        ),
        ("datum:\n  - rim", "E_SIDE_NAME", "part.yaml:2: datum[0]: the drawing has no contour 'rim'"),
        ("datum:\n  - outer\n  - outer", "E_SIDE_NAME", "part.yaml:3: datum[1]: 'outer' stands twice"),
        ("layers: &a\n  X: *a", "E_SIDE_FORMAT", "aliases are not allowed"),
    ],
)
def test_side_files_that_are_refused(tmp_path: Path, text: str, code: str, said: str) -> None:
    path = drawn(tmp_path, lambda m: m.add_circle((0, 0), 1))
    path.with_suffix(".yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        dxf.read(path)
    assert caught.value.code == code
    assert said in str(caught.value)
    assert "part.yaml" in str(caught.value)


def test_an_empty_side_file_says_nothing_and_layers_may_be_numbers(tmp_path: Path) -> None:
    path = drawn(tmp_path, lambda m: (m.add_circle((0, 0), 5), m.add_circle((0, 0), 1, dxfattribs={"layer": "7"})))
    path.with_suffix(".yaml").write_text("# nothing yet\n")
    assert len(dxf.read(path).contours) == 2
    path.with_suffix(".yaml").write_text("layers: {7: {outline: false}}\n")
    assert len(dxf.read(path).contours) == 1
