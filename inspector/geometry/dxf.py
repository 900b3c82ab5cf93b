"""A flat DXF drawing → closed contours in millimetres, or an error that says what to change in it. The one file that knows ezdxf.

    the file's bytes ─ look at them first ─▶ ezdxf ─ count what blocks expand to ─▶ pieces ─ chain ─▶ loops ─ nest ─▶ Drawing

A *piece* is one flattened entity, a *loop* a closed chain of pieces, a *contour* a loop with its place in the nesting. What is not
the outline by its kind, layer or line type (text, dimensions, bend lines, engraving) is told apart and listed, never guessed in.

Errors (`ConfigError`): E_DXF_FORMAT not a readable DXF · E_DXF_LIMIT too large · E_DXF_CYCLE blocks that hold themselves · E_DXF_COORD
not a place on a drawing · E_DXF_UNITS the drawing does not say its units · E_DXF_EMPTY nothing to cut · E_DXF_OPEN an outline with a gap.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ezdxf
import numpy as np
from ezdxf import edgeminer, recover
from ezdxf.document import Drawing as Document
from ezdxf.entities.boundary_paths import ArcEdge, EdgePath, EllipseEdge, LineEdge, PolylinePath, SplineEdge
from ezdxf.entities.dxfgfx import DXFGraphic
from ezdxf.entities.insert import Insert
from ezdxf.math import OCS, BSpline, Vec3

from inspector.geometry import polygon
from inspector.geometry import side as side_file
from inspector.geometry.polygon import Points
from inspector.geometry.side import Side
from inspector.records import ConfigError, Contour

MAX_BYTES = 64 << 20
MAX_ENTITIES = 100_000
MAX_POINTS = 2_000_000
MAX_DEPTH = 8
MAX_SECONDS = 5.0
MAX_COORDINATE = 1e9
"""Drawing units; a survey's coordinates (some 6e6) are fine, 1e300 is a broken file."""

SAG_MM = 3e-4
"""How far a chord may lie from its arc: arcs are drawn ⅔ of it outside their chords, so that the mean error is nothing."""

GAPS_MM = (1e-5, 1e-3, 1e-2, 0.05)
"""Ends this near are taken for one, the nearest first; no single tolerance closes all real drawings."""

UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4, "foot": 304.8}
INSUNITS = {1: "inch", 2: "foot", 4: "mm", 5: "cm", 6: "m"}

NOT_OUTLINE_LAYER = re.compile(
    r"bend|biege|fold|pli\b|engrav|grav[iu]r|etch|scrib|mark(ing)?s?\b|text|annot|note|label|dim(?!m)|bema(ß|ss)|mass?e\b|title|border|frame_|"
    r"schriftfeld|defpoints|constr|hilfs|help|aux|cent(er|re)|mittell|hidden|verdeckt|viewport|vport|hatch|schraff|zone|ignore",
    re.IGNORECASE,
)
NOT_OUTLINE_LINETYPE = re.compile(
    r"cent(er|re)|hidden|dash|phantom|dot|divide|mitte|strich|verdeckt|ACAD_ISO0[2-9]|ACAD_ISO1", re.IGNORECASE
)
"""By drawing practice (ISO 128) these lines are axes, hidden or bend edges, never what is cut."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """What the drawing holds but the outline does not: `count` entities of a type on a layer, and why."""

    entity: str
    layer: str
    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one DXF file says, in millimetres, y up.

    `contours` are those of all parts; `parts` holds for each part the indices of its own, the outer one first, largest part first.
    `units_source` says who knows the units: "$INSUNITS", "$MEASUREMENT", "given" or "side file". `digest` is the SHA-256 of the file and
    its side file, which is in `side`.
    """

    file: Path
    name: str
    digest: str
    dxf_version: str
    units: str
    units_source: str
    bbox_mm: tuple[float, float, float, float]
    contours: tuple[Contour, ...]
    parts: tuple[tuple[int, ...], ...]
    ignored: tuple[Ignored, ...]
    warnings: tuple[str, ...]
    side: Side = field(default_factory=Side)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One flattened entity: points (N, 2) in mm; closed without its first point again.

    `curve` = (x, y, radius) where it is a circle or a part of one.
    """

    points: Points
    layer: str
    handle: str
    entity: str
    closed: bool
    curve: tuple[float, float, float] | None = None


class _Notes:
    """What is to be told of the drawing, gathered on the way, and the time that is left."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ignored: Counter[tuple[str, str, str]] = Counter()
        self.warnings: list[str] = []
        self.until = time.monotonic() + MAX_SECONDS

    def ignore(self, entity: str, layer: str, reason: str) -> None:
        self.ignored[entity, layer, reason] += 1

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def error(self, code: str, text: str, line: int | None = None) -> ConfigError:
        return ConfigError(code, text, file=str(self.file), line=line)

    def look_at_clock(self) -> None:
        if time.monotonic() > self.until:
            raise self.error("E_DXF_LIMIT", f"not read within {MAX_SECONDS:g} s; simplify the drawing, or export the part alone")


def read(path: Path, *, units: str | None = None) -> Drawing:
    """The drawing in the DXF file at `path`, ASCII or binary, R12 to R2018; `units` (mm, cm, m, inch, foot) where it does not say its own.

    Raises `ConfigError` E_DXF_… (see the module).
    """
    notes = _Notes(path)
    if units is not None and units not in UNITS_MM:
        raise notes.error("E_DXF_UNITS", f"units {units!r} are not known; one of {', '.join(UNITS_MM)}")
    data, header = _look(path, notes)
    side, side_bytes = side_file.read(path)
    document = _load(path, notes)
    known, source = _units(header, units, side.units, notes)
    _count(document, notes)
    pieces = _pieces(document, UNITS_MM[known], side, notes)
    loops = _loops(_without_duplicates(pieces, notes), notes)
    contours, parts = _nest(loops)
    points = np.concatenate([c.points_mm for c in contours])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return Drawing(
        file=path,
        name=path.stem,
        digest=hashlib.sha256(data + side_bytes).hexdigest(),
        dxf_version=document.acad_release,
        units=known,
        units_source=source,
        bbox_mm=(float(x0), float(y0), float(x1), float(y1)),
        contours=contours,
        parts=parts,
        ignored=tuple(Ignored(*key, count) for key, count in sorted(notes.ignored.items())),
        warnings=tuple(notes.warnings),
        side=side,
    )


# --- the file ----------------------------------------------------------------------------------------------------------


def _look(path: Path, notes: _Notes) -> tuple[bytes, dict[str, str]]:
    """The bytes and the header variables, after what a parser would let pass: other formats, a cut end, decimal commas."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise notes.error("E_DXF_LIMIT", f"{size / 2**20:.0f} MiB; at most {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise notes.error("E_DXF_FORMAT", f"cannot be read: {error.strerror}") from error
    if re.match(rb"AC1\d\d\d|AC2\.\d|MC0\.0", data):
        raise notes.error("E_DXF_FORMAT", "this is a DWG, whatever its name; export it as DXF")
    if not data.strip(b"\x00 \t\r\n"):
        raise notes.error("E_DXF_EMPTY", "the file is empty")
    if data.startswith(b"AutoCAD Binary DXF\r\n\x1a\x00"):
        if not data.rstrip(b"\x00").endswith(b"EOF"):
            raise notes.error("E_DXF_FORMAT", "the file is cut off: no EOF at its end; export it again")
        return data, _binary_header(data)
    lines = [line.strip() for line in re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))]
    while lines and not lines[-1]:
        lines.pop()
    if not any(line == b"SECTION" for line in lines[:2000]):
        raise notes.error("E_DXF_FORMAT", "this is not a DXF: no SECTION at its beginning")
    if lines[-1] != b"EOF":
        raise notes.error("E_DXF_FORMAT", "the file is cut off: no EOF at its end; export it again", line=len(lines))
    header: dict[str, str] = {}
    codes, values = lines[0::2], lines[1::2]
    section = b""
    for number, (code, value) in enumerate(zip(codes, values, strict=False)):
        if code == b"2" and number and values[number - 1] == b"SECTION":
            section = value
        elif code == b"9" and section == b"HEADER" and number + 1 < len(values):
            header[value.decode("ascii", "replace")] = values[number + 1].decode("ascii", "replace")
        elif b"," in value and code.isdigit() and 10 <= int(code) < 60 and re.fullmatch(rb"[-+]?\d+,\d+", value):
            text = f"{value.decode()} is a number with a decimal comma; export with decimal points"
            raise notes.error("E_DXF_FORMAT", text, line=2 * number + 2)
    return data, header


def _binary_header(data: bytes) -> dict[str, str]:
    """The two variables that name units, out of a binary file (group code in one byte before R13, in two since)."""
    found = {}
    for name in ("$INSUNITS", "$MEASUREMENT"):
        match = re.search(re.escape(name.encode()) + rb"\x00(?:\x46\x00?)(..)", data, re.DOTALL)
        if match:
            found[name] = str(int.from_bytes(match[1], "little", signed=True))
    return found


def _load(path: Path, notes: _Notes) -> Document:
    """The document, by the strict reader, and where that gives up by the one that repairs."""
    try:
        return ezdxf.filemanagement.readfile(path)
    except (ezdxf.lldxf.const.DXFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RecursionError) as strict:
        try:
            document, auditor = recover.readfile(path)
        except Exception as error:
            raise notes.error("E_DXF_FORMAT", f"not a readable DXF: {strict or type(strict).__name__}") from error
        notes.warn(f"the file is damaged and was repaired: {strict} ({len(auditor.fixes)} fixes, {len(auditor.errors)} errors)")
        return document


def _units(header: dict[str, str], given: str | None, beside: str | None, notes: _Notes) -> tuple[str, str]:
    """The name of the units and who says so.

    $MEASUREMENT = 1 is metric, which by convention is mm; 0 is every writer's default and says nothing.
    """
    said: str | None = None
    code = header.get("$INSUNITS", "")
    if code.lstrip("-").isdigit():
        said = INSUNITS.get(int(code))
        if said is None and int(code) != 0 and given is None and beside is None:
            raise notes.error("E_DXF_UNITS", f"$INSUNITS is {code}, no unit for parts; give --units {'|'.join(UNITS_MM)}")
    if given is not None:
        if said is not None and said != given:
            notes.warn(f"the drawing says {said} ($INSUNITS), {given} was given and holds")
        return given, "given"
    if said is not None:
        return said, "$INSUNITS"
    if beside is not None:
        return beside, "side file"
    if header.get("$MEASUREMENT") == "1":
        notes.warn("no $INSUNITS; taken for mm because $MEASUREMENT says metric")
        return "mm", "$MEASUREMENT"
    raise notes.error(
        "E_DXF_UNITS", f"the drawing does not say its units ($INSUNITS {code or 'missing'}); give --units {'|'.join(UNITS_MM)}"
    )


# --- entities ----------------------------------------------------------------------------------------------------------


def _count(document: Document, notes: _Notes) -> None:
    """Refuses blocks that hold themselves, too deep ones, and drawings that expand to too many entities, without expanding."""
    totals: dict[str, tuple[int, int]] = {}

    def measure(name: str, entities: Iterable[DXFGraphic], path: tuple[str, ...]) -> tuple[int, int]:
        if name in path:
            raise notes.error("E_DXF_CYCLE", f"block {name} holds itself: {' > '.join((*path[path.index(name) :], name))}")
        if len(path) > 10 * MAX_DEPTH:
            raise notes.error("E_DXF_LIMIT", f"blocks lie more than {MAX_DEPTH} deep in one another")
        if name in totals:
            return totals[name]
        total, depth = 0, 0
        for entity in entities:
            total += 1
            if isinstance(entity, Insert):
                block = document.blocks.get(entity.dxf.name)
                if block is not None:
                    inner, below = measure(entity.dxf.name, block, (*path, name))
                    total += inner * max(entity.mcount, 1)
                    depth = max(depth, below + 1)
        totals[name] = total, depth
        return total, depth

    total, depth = measure("*drawing", document.modelspace(), ())
    if depth > MAX_DEPTH:
        raise notes.error("E_DXF_LIMIT", f"blocks lie {depth} deep in one another; at most {MAX_DEPTH}")
    if total > MAX_ENTITIES:
        raise notes.error("E_DXF_LIMIT", f"{total} entities once blocks are expanded; at most {MAX_ENTITIES}")


def _pieces(document: Document, mm: float, side: Side, notes: _Notes) -> list[_Piece]:
    """Every entity that can be an outline, flattened, in mm; hatches count only where nothing else is closed."""
    shown = {layer.dxf.name.lower(): layer for layer in document.layers}
    pieces: list[_Piece] = []
    fills: list[_Piece] = []
    points = 0
    for entity, layer, handle in _expanded(document.modelspace(), None, None, notes):
        notes.look_at_clock()
        kind = entity.dxftype()
        style = shown.get(layer.lower())
        linetype = entity.dxf.get("linetype", "BYLAYER")
        if linetype.upper() in ("BYLAYER", "BYBLOCK") and style is not None:
            linetype = style.dxf.get("linetype", "Continuous")
        if kind not in _FLATTEN:
            notes.ignore(kind, layer, "not an outline")
        elif entity.dxf.get("invisible", 0) or (style is not None and (style.is_off() or style.is_frozen())):
            notes.ignore(kind, layer, "not shown")
        elif not _is_cut(layer, side):
            notes.ignore(kind, layer, "layer")
        elif NOT_OUTLINE_LINETYPE.search(linetype):
            notes.ignore(kind, layer, f"line type {linetype}")
        else:
            for flat in _flattened(entity, mm, layer, handle, notes):
                (fills if kind in ("HATCH", "MPOLYGON") else pieces).append(flat)
                points += len(flat.points)
                if points > MAX_POINTS:
                    raise notes.error("E_DXF_LIMIT", f"more than {MAX_POINTS} points once curves are flattened")
    if pieces or not fills:
        for fill in fills:
            notes.ignore(fill.entity, fill.layer, "fill of what others outline")
        return pieces
    notes.warn("no lines: the outline is taken from the boundaries of the hatches")
    return fills


def _is_cut(layer: str, side: Side) -> bool:
    """Whether the lines of a layer may be outlines: as the side file says, else by the layer's name."""
    said = side.layers[layer].outline if layer in side.layers else None
    return not NOT_OUTLINE_LAYER.search(layer) if said is None else said


def _expanded(entities: Iterable[Any], layer: str | None, handle: str | None, notes: _Notes) -> Iterator[tuple[DXFGraphic, str, str]]:
    """All entities with blocks exploded, in world coordinates, each with its layer ("0" in a block is the insert's) and handle."""
    for entity in entities:
        own = str(entity.dxf.get("layer", "0"))
        own = layer if layer is not None and own == "0" else own
        source = handle or str(entity.dxf.handle)
        if not isinstance(entity, Insert):
            yield entity, own, source
            continue
        if not entity.dxf.xscale or not entity.dxf.yscale:
            notes.ignore("INSERT", own, "scale is 0")
            continue
        if not entity.dxf.zscale:
            entity.dxf.zscale = 1.0  # flat: z says nothing, and 0 cannot be inverted
        if entity.block() is None:
            notes.ignore("INSERT", own, f"block {entity.dxf.name} is missing")
            continue
        for single in entity.multi_insert() if entity.mcount > 1 else (entity,):
            notes.look_at_clock()
            yield from _expanded(single.virtual_entities(), own, source, notes)


def _flattened(entity: DXFGraphic, mm: float, layer: str, handle: str, notes: _Notes) -> Iterator[_Piece]:
    """The pieces of one entity; tells of those that have no length."""
    kind = entity.dxftype()
    try:
        found = list(_FLATTEN[kind](entity, mm))
    except (ValueError, TypeError, ArithmeticError, IndexError, AttributeError, ezdxf.lldxf.const.DXFError) as error:
        notes.warn(f"{kind} {handle} on layer {layer} cannot be drawn and is left out: {error or type(error).__name__}")
        notes.ignore(kind, layer, "cannot be drawn")
        return
    for points, closed, curve in found:
        if not np.isfinite(points).all() or (len(points) and np.abs(points).max() > MAX_COORDINATE * mm):
            raise notes.error(
                "E_DXF_COORD", f"{kind} {handle} on layer {layer} has a coordinate that is not finite or beyond {MAX_COORDINATE:g}"
            )
        keep = np.ones(len(points), dtype=bool)
        keep[1:] = np.hypot(*np.diff(points, axis=0).T) > 1e-9
        points = points[keep]
        if not closed and len(points) > 2 and np.hypot(*(points[0] - points[-1])) <= GAPS_MM[0]:
            closed, points = True, points[:-1]
        if closed and len(points) > 1 and np.hypot(*(points[0] - points[-1])) <= 1e-9:
            points = points[:-1]
        if len(points) < 2 or np.hypot(*np.ptp(points, axis=0)) < GAPS_MM[1]:
            notes.warn(f"{kind} {handle} on layer {layer} has no length and is left out")
            continue
        if closed and (len(points) < 3 or abs(polygon.signed_area(points)) < 1e-9 * float(np.ptp(points, axis=0).max()) ** 2):
            notes.warn(f"{kind} {handle} on layer {layer} encloses nothing and is left out")
            continue
        yield _Piece(points, layer, handle, kind, closed, curve)


# Each flattener yields (points in mm, closed, circle or None).
_Flat = tuple[Points, bool, tuple[float, float, float] | None]


def _xy(vertices: Iterable[Any], mm: float) -> Points:
    return np.array([(v[0], v[1]) for v in vertices], dtype=np.float64).reshape(-1, 2) * mm


def _arc(x: float, y: float, radius: float, start: float, sweep: float) -> Points:
    """Points along an arc in mm, ends included; the inner ones lie ⅔ of the sag outside, so that the chords are right on average."""
    if not (math.isfinite(x + y + radius + start + sweep) and 0 <= radius <= 1e3 * MAX_COORDINATE):
        return np.full((2, 2), np.nan)
    sag = max(SAG_MM, 1e-7 * radius)
    step = 2.0 * math.acos(max(1.0 - sag / radius, 0.0)) if radius > sag else 1.0
    count = max(math.ceil(abs(sweep) / min(step, 0.5)), 2)
    angle = start + np.linspace(0.0, sweep, count + 1)
    out = np.full(count + 1, radius * (1.0 + (sweep / count) ** 2 / 12.0))
    if abs(abs(sweep) - 2.0 * math.pi) > 1e-9:
        out[[0, -1]] = radius
    return np.column_stack([x + out * np.cos(angle), y + out * np.sin(angle)])


def _in_world(points: Points, entity: DXFGraphic, elevation: float, mm: float) -> Points:
    """From the entity's own plane to the drawing's (an extrusion of −z mirrors)."""
    extrusion = Vec3(entity.dxf.get("extrusion", (0, 0, 1)))
    if extrusion.isclose((0, 0, 1)):
        return points
    return _xy(OCS(extrusion).points_to_wcs([Vec3(x, y, elevation * mm) for x, y in points]), 1.0)


def _line(entity: Any, mm: float) -> Iterator[_Flat]:
    yield _xy((entity.dxf.start, entity.dxf.end), mm), False, None


def _circle(entity: Any, mm: float) -> Iterator[_Flat]:
    centre, radius = Vec3(entity.dxf.center), abs(float(entity.dxf.radius)) * mm
    if entity.dxftype() == "CIRCLE":
        start, sweep = 0.0, 2.0 * math.pi
    else:
        start = math.radians(entity.dxf.start_angle)
        sweep = math.radians((entity.dxf.end_angle - entity.dxf.start_angle) % 360.0) or 2.0 * math.pi
    points = _in_world(_arc(centre.x * mm, centre.y * mm, radius, start, sweep), entity, centre.z, mm)
    flat = abs(abs(Vec3(entity.dxf.get("extrusion", (0, 0, 1))).normalize().z) - 1.0) < 1e-9
    middle = _in_world(np.array([(centre.x * mm, centre.y * mm)]), entity, centre.z, mm)[0]
    full = abs(sweep - 2.0 * math.pi) < 1e-9
    yield points[:-1] if full else points, full, (float(middle[0]), float(middle[1]), radius) if flat else None


def _ellipse(entity: Any, mm: float) -> Iterator[_Flat]:
    sag = max(SAG_MM / 3.0 / mm, 1e-7 * Vec3(entity.dxf.major_axis).magnitude)
    yield _xy(entity.flattening(sag), mm), False, None


def _spline(entity: Any, mm: float) -> Iterator[_Flat]:
    control = _xy(entity.control_points if len(entity.control_points) else entity.fit_points, mm)
    if not np.isfinite(control).all() or np.abs(control).max(initial=0.0) > MAX_COORDINATE * mm:
        yield np.full((2, 2), np.nan), False, None
        return
    sag = max(SAG_MM / 3.0, 1e-7 * float(np.ptp(control, axis=0).max()))
    yield _xy(entity.flattening(sag / mm), mm), False, None


def _bulged(vertices: Sequence[tuple[float, float, float]], closed: bool) -> tuple[Points, tuple[float, float, float] | None]:
    """A polyline of (x, y, bulge) in mm, flattened; bulge = tan(¼ of the arc's sweep) to the next vertex.

    Also its circle where it is one.
    """
    parts: list[Points] = []
    circles: list[tuple[float, float, float]] = []
    following = [*vertices[1:], vertices[0]] if closed else vertices[1:]
    for (x0, y0, bulge), (x1, y1, _) in zip(vertices, following, strict=False):
        chord = math.hypot(x1 - x0, y1 - y0)
        if not bulge or not chord:
            parts.append(np.array([(x0, y0)]))
            circles.append((math.nan, math.nan, math.nan))
            continue
        to_centre = chord * (1.0 - bulge * bulge) / (4.0 * bulge)
        x = 0.5 * (x0 + x1) - to_centre * (y1 - y0) / chord
        y = 0.5 * (y0 + y1) + to_centre * (x1 - x0) / chord
        radius = chord * (1.0 + bulge * bulge) / (4.0 * abs(bulge))
        parts.append(_arc(x, y, radius, math.atan2(y0 - y, x0 - x), 4.0 * math.atan(bulge))[:-1])
        circles.append((x, y, radius))
    if not closed:
        parts.append(np.array([vertices[-1][:2]]))
    same = len(circles) > 0 and float(np.ptp(np.array(circles), axis=0).max()) < 1e-4
    return np.concatenate(parts), circles[0] if same and closed else None


def _polyline(entity: Any, mm: float) -> Iterator[_Flat]:
    if entity.dxftype() == "LWPOLYLINE":
        vertices = [(x * mm, y * mm, b) for x, y, b in entity.get_points("xyb")]
        elevation = float(entity.dxf.get("elevation", 0.0))
    elif entity.is_poly_face_mesh or entity.is_polygon_mesh:
        return
    else:
        drawn = [v for v in entity.vertices if not v.dxf.get("flags", 0) & 16]  # 16: the frame of a fitted spline
        vertices = [(v.dxf.location[0] * mm, v.dxf.location[1] * mm, float(v.dxf.get("bulge", 0.0))) for v in drawn]
        elevation = float(drawn[0].dxf.location[2]) if drawn else 0.0
    if len(vertices) < 2:
        return
    if not np.isfinite(np.array(vertices)).all():
        yield np.full((2, 2), np.nan), False, None
        return
    closed = bool(entity.is_closed)
    points, circle = _bulged(vertices, closed)
    if entity.dxftype() == "LWPOLYLINE" or entity.is_2d_polyline:
        points = _in_world(points, entity, elevation, mm)
        if circle is not None:
            x, y = _in_world(np.array([circle[:2]]), entity, elevation, mm)[0]
            circle = (float(x), float(y), circle[2])
    yield points, closed, circle


def _hatch(entity: Any, mm: float) -> Iterator[_Flat]:
    elevation = Vec3(entity.dxf.get("elevation", (0, 0, 0))).z
    for path in entity.paths:
        if isinstance(path, PolylinePath):
            points = _bulged([(x * mm, y * mm, b) for x, y, b in path.vertices], True)[0]
        elif isinstance(path, EdgePath) and path.edges:
            points = np.concatenate([_edge(edge, mm)[:-1] for edge in path.edges])
        else:
            continue
        yield _in_world(points, entity, elevation, mm), True, None


def _edge(edge: Any, mm: float) -> Points:
    """One edge of a hatch's boundary, in its running direction."""
    if isinstance(edge, LineEdge):
        return np.array([edge.start, edge.end], dtype=np.float64)[:, :2] * mm
    if isinstance(edge, ArcEdge):
        start = math.radians(edge.start_angle)
        sweep = math.radians((edge.end_angle - edge.start_angle) % 360.0) or 2.0 * math.pi
        points = _arc(edge.center.x * mm, edge.center.y * mm, edge.radius * mm, start, sweep)
        return points if edge.ccw else points[::-1]
    if isinstance(edge, EllipseEdge):
        points = _xy((Vec3(v) for v in edge.construction_tool().flattening(SAG_MM / 3.0 / mm)), mm)
        return points if edge.ccw else points[::-1]
    if isinstance(edge, SplineEdge) and edge.control_points:
        spline = BSpline(edge.control_points, order=edge.degree + 1, knots=edge.knot_values, weights=edge.weights or None)
        return _xy(spline.flattening(SAG_MM / 3.0 / mm), mm)
    raise ValueError("a hatch edge without control points")


_FLATTEN = {
    "LINE": _line,
    "CIRCLE": _circle,
    "ARC": _circle,
    "ELLIPSE": _ellipse,
    "SPLINE": _spline,
    "LWPOLYLINE": _polyline,
    "POLYLINE": _polyline,
    "HATCH": _hatch,
    "MPOLYGON": _hatch,
}


# --- contours ----------------------------------------------------------------------------------------------------------


def _without_duplicates(pieces: Sequence[_Piece], notes: _Notes) -> list[_Piece]:
    """The pieces without those that lie on an earlier one (same ends, same middle, same length)."""
    seen: set[tuple[int, ...]] = set()
    kept = []
    for piece in pieces:
        ends = piece.points[[0, -1]] if not piece.closed else np.array([piece.points.min(axis=0), piece.points.max(axis=0)])
        ends = ends[np.lexsort(ends.T)]
        length = np.hypot(*np.diff(piece.points, axis=0).T).sum()
        key = tuple(np.round(np.array([*ends.ravel(), *piece.points.mean(axis=0), length]) / 1e-3).astype(np.int64).tolist())
        if key in seen:
            notes.warn(f"{piece.entity} {piece.handle} on layer {piece.layer} lies on another and is left out")
            notes.ignore(piece.entity, piece.layer, "duplicate")
            continue
        seen.add(key)
        kept.append(piece)
    return kept


def _loops(pieces: Sequence[_Piece], notes: _Notes) -> list[_Piece]:
    """All closed loops: the closed pieces, and what chains of open ones make. Raises E_DXF_OPEN where an outline stays open."""
    loops = [p for p in pieces if p.closed]
    rest: list[tuple[_Piece, ...]] = [(p,) for p in pieces if not p.closed]
    for gap in GAPS_MM:
        rest, closed = _chained(rest, gap)
        notes.look_at_clock()
        for chain in closed:
            loop = _loop(chain)
            if abs(polygon.signed_area(loop.points)) < 1e-9 * float(np.ptp(loop.points, axis=0).max()) ** 2:
                notes.warn(f"{loop.entity} {loop.handle} on layer {loop.layer} runs there and back, encloses nothing and is left out")
                continue
            if gap > 1e-3:
                notes.warn(f"a gap of up to {gap:g} mm was closed at {loop.entity} {loop.handle} on layer {loop.layer}")
            loops.append(loop)
    if not loops and not rest:
        seen = ", ".join(sorted({f"{entity} on {layer} ({reason})" for entity, layer, reason in notes.ignored})[:8])
        raise notes.error("E_DXF_EMPTY", f"nothing that is cut; the drawing holds {seen or 'no entity'}")
    outlines = [loop.points for loop in loops]
    for chain in rest:
        points = np.concatenate([p.points for p in chain])
        open_mm = float(np.hypot(*(points[0] - points[-1])))
        first = chain[0]
        where = f"{first.entity} {first.handle} on layer {first.layer}"
        if not loops or (len(points) > 2 and any(polygon.contains(points, outline[:1])[0] for outline in outlines)):
            raise notes.error(
                "E_DXF_OPEN", f"the outline that begins with {where} does not close: {open_mm:.3f} mm are missing at {_at(points[-1])}"
            )
        notes.warn(f"the line that begins with {where} does not close ({open_mm:.3f} mm) and is no outline")
        for piece in chain:
            notes.ignore(piece.entity, piece.layer, "open")
    return loops


def _at(point: Points) -> str:
    return f"({point[0]:.3f}, {point[1]:.3f}) mm"


def _chained(chains: Sequence[tuple[_Piece, ...]], gap_mm: float) -> tuple[list[tuple[_Piece, ...]], list[tuple[_Piece, ...]]]:
    """Joins chains whose ends lie within the gap, as far as no end meets two others: (still open, closed)."""
    edges = [edgeminer.make_edge(c[0].points[0], c[-1].points[-1], payload=c) for c in chains]
    if not edges:
        return [], []
    still: list[tuple[_Piece, ...]] = []
    closed: list[tuple[_Piece, ...]] = []
    for found in edgeminer.find_all_simple_chains(edgeminer.Deposit(edges, gap_tol=gap_mm)):
        joined: list[_Piece] = []
        for edge in found:
            part: tuple[_Piece, ...] = edge.payload
            joined += [replace(p, points=p.points[::-1]) for p in reversed(part)] if edge.is_reverse else part
        loop = edgeminer.is_loop(found, gap_tol=gap_mm) if len(found) > 1 else found[0].start.distance(found[0].end) <= gap_mm
        (closed if loop else still).append(tuple(joined))
    return still, closed


def _loop(chain: Sequence[_Piece]) -> _Piece:
    """One closed piece out of a chain; its layer is that of the longest part, and a circle where all parts are of one."""
    points = np.concatenate([p.points[:-1] for p in chain])
    longest = max(chain, key=lambda p: float(np.hypot(*np.diff(p.points, axis=0).T).sum()))
    curves = np.array([p.curve or (math.nan,) * 3 for p in chain])
    curve = chain[0].curve if float(np.ptp(curves, axis=0).max()) < 1e-3 else None
    return _Piece(points, longest.layer, longest.handle, longest.entity, True, curve)


def _nest(loops: Sequence[_Piece]) -> tuple[tuple[Contour, ...], tuple[tuple[int, ...], ...]]:
    """Contours named and turned by their nesting, and the parts: each outermost contour with all that lies in it."""
    around = polygon.enclosing([loop.points for loop in loops])
    kinds = ["outer" if not a else "hole" if len(a) % 2 else "island" for a in around]

    def place(i: int) -> tuple[Any, ...]:
        low, high = loops[i].points.min(axis=0), loops[i].points.max(axis=0)
        size = abs(polygon.signed_area(loops[i].points)) if kinds[i] == "outer" else 0.0
        return ("outer", "hole", "island").index(kinds[i]), -size, -round(float(low[1] + high[1]), 3), float(low[0] + high[0])

    order = sorted(range(len(loops)), key=place)
    contours, numbers = [], Counter[str]()
    for i in order:
        kind = kinds[i]
        numbers[kind] += 1
        name = kind if kind == "outer" and numbers[kind] == 1 else f"{kind}-{numbers[kind]}"
        points = loops[i].points
        if (polygon.signed_area(points) > 0) == (kind == "hole"):
            points = points[::-1]
        points = np.ascontiguousarray(points)
        points.setflags(write=False)
        contours.append(Contour(name, kind, loops[i].layer, points, True, -0.1, 0.1, loops[i].curve))
    parts = tuple(
        tuple(n for n, i in enumerate(order) if i == root or (around[i] and around[i][0] == root)) for root in order if not around[root]
    )
    return tuple(contours), parts
