"""Real drawings: each ends in a drawing or a named error, and what they enclose agrees with an independent reading.

`index.csv` was made with shapely and chains of one tolerance per file; it is a reference, not the truth. Where the two differ,
`EXPLAINED` says why, and a test sees to it that nothing stands there without need.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from inspector.geometry import dxf, polygon
from inspector.geometry.dxf import Drawing
from inspector.records import ConfigError

DATA = Path(os.environ.get("INSPECTOR_DATA", Path(__file__).parents[3] / "shared" / "data")) / "dxf"
UNITS = {"mm", "cm", "m", "in"}

OPEN = "the outline, or what goes around the part, does not close at 0.05 mm; the index counts what else closes"
VIEWS = "several views with shared edges: lines meet in threes, so that no outline can be known; the index counts the circles in them"
TITLE = "the frame and title block, whose layer says so, are counted by the index and not by us"
TWICE = "lines drawn twice: the index counts them as contours of no area, or nests a contour in its double"
CROSSED = "an outline that crosses itself or another: even-odd of shapely's repaired polygon against the signed area as drawn"
COARSE = "a circle that touches its hexagon: a small area as the difference of two, the index's circle has coarse chords"
SPLINE = "two splines whose ends are not clamped: drawn over their domain alone, and closed by it"
CIRCLES = "half of its contours are circles around texts on a layer named title"

EXPLAINED = {
    "LibreCAD+LibreCAD/librecad/support/library/kinetics/kin116.dxf": OPEN,
    "LibreCAD+LibreCAD/librecad/support/library/kinetics/kin29.dxf": OPEN,
    "LibreCAD+LibreCAD/librecad/support/library/misc/a3.dxf": "help lines and hatches of a drawing sheet are counted by the index",
    "LibreCAD+LibreCAD/librecad/support/library/misc/tux.dxf": OPEN,
    "jscad+sample-files/dxf/autocad2017/2Ddonuts.dxf": TITLE,
    "jscad+sample-files/dxf/autocad2017/2Dhatch.dxf": TITLE,
    "jscad+sample-files/dxf/autocad2017/2Dlines.dxf": TITLE,
    "jscad+sample-files/dxf/autocad2017/2Dmlines.dxf": TITLE,
    "jscad+sample-files/dxf/autocad2017/2Dpoints.dxf": TITLE,
    "jscad+sample-files/dxf/autocad2017/2Dxlines.dxf": TITLE,
    "jscad+sample-files/dxf/autocad2017/empty2007.dxf": TITLE,
    "mozman+ezdxf/examples/edgeminer/1_polylines.dxf": CROSSED,
    "mozman+ezdxf/examples/edgeminer/4_world.dxf": TWICE,
    "mozman+ezdxf/examples_dxf/image/images.dxf": CIRCLES,
    "mozman+ezdxf/examples_dxf/text_alignments.dxf": TWICE,
    "mozman+ezdxf/examples_dxf/text_fonts.dxf": TWICE,
    "mozman+ezdxf/examples_dxf/text_mirror_shx_font.dxf": TWICE,
    "mozman+ezdxf/examples_dxf/text_stacked_true_type_font.dxf": TWICE,
    "mozman+ezdxf/examples_dxf/uncommon.dxf": "a loop with a gap of 0.01 to 0.05 mm is closed; the index stops at 1e-6",
    "mozman+ezdxf/integration_tests/data/Leica_Disto_S910.dxf": OPEN,
    "mozman+ezdxf/integration_tests/data/issue1106.dxf": OPEN,
    "mozman+ezdxf/integration_tests/data/recover02.dxf": "a viewport's frame, whose layer says so, is counted by the index",
    "qcad+qcad/examples/example00.dxf": VIEWS,
    "qcad+qcad/examples/flange.dxf": VIEWS,
    "qcad+qcad/examples/projection.dxf": VIEWS,
    "qcad+qcad/libraries/default/Mechanics/M4_DIN931_t.dxf": COARSE,
    "qcad+qcad/libraries/default/Mechanics/M4_DIN933_t.dxf": COARSE,
    "qcad+qcad/support/data/examples/rendering_ttf.dxf": VIEWS,
    "skymakerolof+dxf/test/resources/entities.dxf": SPLINE,
    "skymakerolof+dxf/test/resources/issue27a.dxf": CROSSED,
    "tbs-trappy+source_one/SO_v4_5inch_arm_4mm_4x.dxf": TWICE,
    "tbs-trappy+source_one/SO_v4_7inch_arm_6mm_front_2x.dxf": TWICE,
}

pytestmark = [
    pytest.mark.data,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (DATA / "index.csv").exists(), reason="no drawings at INSPECTOR_DATA/dxf"),
]


def rows() -> list[dict[str, str]]:
    with (DATA / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def outcome(file: str, insunits: str) -> Drawing | str:
    """The drawing, or the code of the error; units are given where the drawing has none."""
    try:
        return dxf.read(DATA / file, units=None if insunits in UNITS else "mm")
    except ConfigError as error:
        return error.code


def agrees(row: dict[str, str]) -> bool:
    drawing = outcome(row["file"], row["insunits"])
    if isinstance(drawing, str):
        return False
    mm = dxf.UNITS_MM[drawing.units]
    area = sum(polygon.signed_area(c.points_mm) for c in drawing.contours) / mm**2
    length = sum(polygon.perimeter(c.points_mm) for c in drawing.contours) / mm
    same = abs(area - float(row["net_area"])) <= 1e-3 * abs(area) and abs(length - float(row["perimeter"])) <= 1e-3 * length
    return same and len(drawing.contours) == int(row["contours"])


def test_every_drawing_ends_in_contours_or_a_named_error() -> None:
    ends = Counter[str]()
    for row in rows():
        found = outcome(row["file"], row["insunits"])
        if isinstance(found, str):
            ends[found] += 1
        else:
            assert found.contours, row["file"]
            assert found.contours[0].name == "outer"
            assert sorted(i for part in found.parts for i in part) == list(range(len(found.contours)))
            ends["contours"] += 1
    assert set(ends) <= {"contours", "E_DXF_OPEN", "E_DXF_EMPTY", "E_DXF_FORMAT", "E_DXF_COORD", "E_DXF_LIMIT"}
    assert ends["contours"] >= 160, ends


def test_what_they_enclose_agrees_with_the_index() -> None:
    wrong = [row["file"] for row in rows() if row["contours"] not in ("", "0") and not agrees(row) and row["file"] not in EXPLAINED]
    assert not wrong


def test_every_explanation_is_needed() -> None:
    needed = {row["file"] for row in rows() if row["contours"] not in ("", "0") and not agrees(row)}
    assert set(EXPLAINED) <= needed


def test_flat_parts_are_read_almost_all() -> None:
    parts = [row for row in rows() if row["part"] == "1"]
    read = [row for row in parts if not isinstance(outcome(row["file"], row["insunits"]), str)]
    assert len(parts) - len(read) <= 3


def test_broken_copies_are_refused() -> None:
    for path in (DATA / "derived_broken").glob("*.dxf"):
        with pytest.raises(ConfigError, match="E_DXF_FORMAT"):
            dxf.read(path)
