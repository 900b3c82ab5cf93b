"""A flat DXF drawing → closed contours in millimetres, or an error that says what to change in it. The one file that knows ezdxf.

    bytes ─ look at them first ─▶ ezdxf ─ count what blocks expand to ─▶ pieces ─ chain ─▶ loops ─ nest ─▶ Drawing

A *piece* is one flattened entity, a *loop* a closed chain of pieces, a *contour* a loop with its place in the nesting. What is not
the outline by its kind, layer or line type (text, dimensions, bend lines, engraving) is told apart and listed, never guessed in.

Errors (`ConfigError`): E_DXF_FORMAT not a readable DXF · E_DXF_LIMIT too large · E_DXF_CYCLE blocks that hold themselves · E_DXF_COORD
not a place on a drawing · E_DXF_UNITS the drawing does not say its units · E_DXF_EMPTY nothing to cut · E_DXF_OPEN an outline with a gap.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import ezdxf
import numpy as np
from ezdxf import edgeminer, recover
from ezdxf.document import Drawing as Document
from ezdxf.entities.boundary_paths import ArcEdge, EdgePath, EllipseEdge, LineEdge, PolylinePath, SplineEdge
from ezdxf.entities.dxfgfx import DXFGraphic
from ezdxf.entities.insert import Insert
from ezdxf.enums import InsertUnits
from ezdxf.layouts.blocklayout import BlockLayout
from ezdxf.lldxf.const import DXFError
from ezdxf.math import OCS, BSpline, ConstructionEllipse, Matrix44, Vec3, fit_points_to_cad_cv

from inspector.config.document import Document as SideDocument
from inspector.geometry import meshes, polygon
from inspector.geometry import side as side_file
from inspector.geometry.contours import Piece, doubles, encloses_nothing, nest
from inspector.geometry.curves import MOST_POINTS, Circle, arc, bulged, sag_mm, same_circle, sampled, swept
from inspector.geometry.mixed import as_one_version
from inspector.geometry.polygon import Points
from inspector.geometry.side import Side
from inspector.records import ConfigError, ConfigErrors, Contour

logging.getLogger("ezdxf").addHandler(logging.NullHandler())  # what it finds is told in our own words

MAX_BYTES = 32 << 20
MAX_ENTITIES = 100_000
MAX_POINTS = 2_000_000
MOST_WARNINGS = 200
MAX_DEPTH = 8
MAX_SECONDS = 5.0
LINE_SECONDS, RECORD_SECONDS = 3e-6, 1e-4
"""CPU time that a line of the file and an entity take on their way to the contours: what could not end in time is not begun."""

MAX_COORDINATE = 1e9
"""Drawing units; a survey's coordinates (some 6e6) are fine, 1e300 is a broken file."""

INSCRIBED = 6.0
"""Splines and ellipses have their chords inside, which makes them smaller by ⅔ of the sag: theirs is so much finer, 0.05 µm."""

GAPS_MM = (1e-5, 1e-3, 1e-2, 0.05)
"""Ends this near are taken for one, the nearest first; no single tolerance closes all real drawings."""

HORIZON, LEAST_AROUND, MOST_LOOKED_AROUND = 2000, 0.985, 20
"""Of so many directions from the middle of a part that share, and open lines stand in them all: they are an outline with gaps. Asked of
so many parts, the largest.
"""

ALMOST_MM = 0.02
"""Two loops as near as that, but not on one another, are no web that can be cut."""

UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "inch": 25.4, "foot": 304.8, "mil": 0.0254, "um": 1e-3, "dm": 100.0, "yard": 914.4}
INSUNITS = {1: "inch", 2: "foot", 4: "mm", 5: "cm", 6: "m", 9: "mil", 10: "yard", 13: "um", 14: "dm"}
ASK_UNITS = "give --units mm|cm|m|inch|foot, or units: in the side file"

NOT_CUT_LAYER = re.compile(
    r"bend(?!ix|abil)|biege|pli(ure|age)s?\b|plegad|engrav|grav[iu]r|scrib|(?<!con)(?<!kon)text(?!ur|il)|annot|beschrift|bema(ß|ss)|"
    r"schriftfeld|defpoints|constr|hilfs|verdeckt|viewport|vport|hatch|schraff|tangent|arc_cent|tool_cent|unconsumed|mittell|"
    r"^cent(er|re)s?$|cent(er|re)[-_ ]?(line|mark)|"
    r"(?<![^\W\d_])("  # at the beginning of a word: inside others these are common
    r"fold(?!er)|(laser)?etch|label|help|aux(?!etic)|title(?!bar)|grabad|"
    r"hidden([-_ ]?(lines?|edges?|narrow|details?|contours?|layer))?(?![-_ ]?[^\W\d_])|"
    r"((laser)?mark(ing)?s?|notes?|dim(s|ens|ensions?|ensioning)?|scor(es?|ing|elines?)|pieg(a|he)|cota(s|tions?)|quot(e|atur[ae]))"
    r"(?![^\W\d_]))",
    re.IGNORECASE,
)
"""A layer whose name has such a word in it is not cut, where its side file does not say otherwise."""

SHEET_BLOCK = re.compile(r"title|schriftfeld|cartouche", re.IGNORECASE)
"""What such a block holds is a sheet's title block, never what is cut."""

SHEET = re.compile(r"frame|border|rahmen|cadre|blatt|(?<![a-z])(sheet(?![-_ ]?metal)|format|page)", re.IGNORECASE)
"""Layers and blocks of such a name are a sheet's frame where a rectangle on them goes around all that lies on others."""

PAPER_RATIOS = (2**0.5, 11 / 8.5, 17 / 11)
"""Long side to short side: ISO A, and in turn ANSI A, C, E and B, D."""

BODIES = {
    "3DFACE", "3DSOLID", "ACAD_PROXY_ENTITY", "BODY", "EXTRUDEDSURFACE", "HELIX", "LOFTEDSURFACE", "MESH", "MLINE", "PLANESURFACE",
    "REGION", "REVOLVEDSURFACE", "SOLID", "SURFACE", "SWEPTSURFACE", "TRACE",
}  # fmt: skip
"""What may show a part, and holds no line that could be its outline."""

WRITTEN = ("TEXT", "MTEXT", "ATTRIB")
ZONE_LAYER = re.compile(r"(?:zone[-_ ]+(?P<name>[a-z0-9_-]{1,32})|(?P<ignore>ignore)([-_ ].*)?)$", re.IGNORECASE)
"""What is closed on the layers ZONE_<name> and IGNORE bounds zones of the surface."""

NOT_CUT_LINETYPE = re.compile(r"cent(er|re)|hidden|dash|phantom|dot|divide|mitte|strich|verdeckt|ACAD_ISO0[2-9]|ACAD_ISO1", re.IGNORECASE)
"""By drawing practice (ISO 128) such lines are axes, hidden edges or bends, never what is cut."""


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
    its side file, which is in `side`; `places` knows where in that file its values stand. `zones` are (name, outline in mm) of the layers
    ZONE_<name>, and ("ignore", …) of IGNORE. Tolerances come with the template.
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
    zones: tuple[tuple[str, Points], ...] = ()
    side: Side = field(default_factory=Side)
    places: SideDocument = field(default_factory=lambda: SideDocument("", {}, {}))


class _Notes:
    """What is to be told of the drawing, gathered on the way, and the CPU time that is left: a busy machine refuses no drawing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ignored: Counter[tuple[str, str, str]] = Counter()
        self.warnings: list[str] = []
        self.until = time.thread_time() + MAX_SECONDS

    def ignore(self, piece: Piece, reason: str) -> None:
        self.ignored[piece.entity, piece.layer, reason] += 1

    def error(self, code: str, text: str, line: int | None = None) -> ConfigError:
        return ConfigError(code, text, file=str(self.file), line=line)

    def look_at_clock(self) -> None:
        if time.thread_time() > self.until:
            raise self.error(
                "E_DXF_LIMIT", f"not read within {MAX_SECONDS:g} s of CPU time; simplify the drawing, or export the part alone"
            )


def read(path: Path, *, units: str | None = None) -> Drawing:
    """The drawing in the DXF file at `path`, ASCII or binary, R12 to R2018; `units` (mm, cm, m, inch, foot) where it does not say its own.

    Raises `ConfigError` E_DXF_… (see the module) and E_SIDE_….
    """
    notes = _Notes(path)
    try:
        return _read(path, units, notes)
    except ConfigError:
        raise
    except Exception as error:  # what ezdxf's entities raise when a damaged file lacks what they must have is not said anywhere
        raise notes.error("E_DXF_FORMAT", f"not a readable DXF: {error or type(error).__name__}") from error


def _read(path: Path, units: str | None, notes: _Notes) -> Drawing:
    if units is not None and units not in UNITS_MM:
        raise notes.error("E_DXF_UNITS", f"units {units!r} are not known; one of {', '.join(UNITS_MM)}")
    data, mended, header = _look(path, notes)
    side, side_bytes, side_places = side_file.read(path)
    document = _load(path, data, mended, notes)
    notes.look_at_clock()
    known, source = _units(header, units, side.units, notes)
    _count(document, notes)
    for layout in document.layouts:
        if not layout.is_modelspace:
            notes.ignored.update((e.dxftype(), str(e.dxf.get("layer", "0")), "in paper space") for e in layout if e.dxftype() != "VIEWPORT")
    pieces, aside = _pieces(document, UNITS_MM[known], side, notes)
    loops = _without_duplicates(_loops(_without_duplicates(pieces, notes), notes), notes)
    for number, first in sorted(doubles(loops, ALMOST_MM).items()):
        notes.warnings.append(f"{loops[number].where} lies within {ALMOST_MM:g} mm of {loops[first].where}: is it drawn twice?")
    _warn_of_crossings(loops, notes)
    _warn_of_frames(loops, [p for p in aside if not ZONE_LAYER.match(p.layer)], notes)
    zones = _zones([p for p in aside if ZONE_LAYER.match(p.layer)], notes)
    contours, parts = nest(loops)
    layers = {c.layer for c in contours} | {layer for _, layer, _ in notes.ignored} | {layer.dxf.name for layer in document.layers}
    _warn_of_circles_within(contours, notes)
    side_file.examine(side, side_places, contours, parts, layers)
    points = np.concatenate([c.points_mm for c in contours])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    _warn_of_paper([contours[i] for i in parts[0]], (x0, y0, x1, y1), notes)
    if not 1.0 <= max(x1 - x0, y1 - y0) <= 20_000.0:
        notes.warnings.append(f"the drawing is {x1 - x0:.6g} × {y1 - y0:.6g} mm: are its units really {known} ({source})?")
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
        warnings=tuple(notes.warnings[:MOST_WARNINGS])
        + ((f"and {more} more",) if (more := len(notes.warnings) - MOST_WARNINGS) > 0 else ()),
        zones=zones,
        side=side,
        places=side_places,
    )


# --- the file ----------------------------------------------------------------------------------------------------------


def _look(path: Path, notes: _Notes) -> tuple[bytes, bytes | None, dict[str, str]]:
    """The bytes, what to read in their stead where versions are mixed, and the header variables.

    Refused is what a parser would let pass: other formats, a cut end, decimal commas.
    """
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
        return data, None, _binary_header(data)
    count = data.count(b"\n") or data.count(b"\r")
    if count * LINE_SECONDS > MAX_SECONDS:
        raise notes.error("E_DXF_LIMIT", f"{count} lines; at most {MAX_SECONDS / LINE_SECONDS:.0f}")
    lines = [line.strip() for line in re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\x00\x1a \t\r\n"))]
    if b"SECTION" not in lines[:2000]:
        raise notes.error("E_DXF_FORMAT", "this is not a DXF: no SECTION at its beginning")
    if lines[-1] != b"EOF":
        if lines[-1] != b"ENDSEC":
            raise notes.error("E_DXF_FORMAT", "the file is cut off: no EOF at its end; export it again", line=len(lines))
        notes.warnings.append("no EOF at the end of the file; its last section is whole")
    codes, values = lines[0::2], lines[1::2]
    records = codes.count(b"0")
    if len(lines) * LINE_SECONDS + records * RECORD_SECONDS > MAX_SECONDS:
        raise notes.error("E_DXF_LIMIT", f"{records} entities in {len(lines)} lines could not be read within {MAX_SECONDS:g} s")
    header: dict[str, str] = {}
    section = b""
    for number, (code, value) in enumerate(zip(codes, values, strict=False)):
        if code == b"2" and number and values[number - 1] == b"SECTION":
            section = value
        elif code == b"9" and section == b"HEADER" and number + 1 < len(values):
            header[value.decode("ascii", "replace")] = values[number + 1].decode("ascii", "replace")
        elif b"," in value and code.isdigit() and 10 <= int(code) < 60 and re.fullmatch(rb"[-+]?\d*,\d+([eE][-+]?\d+)?", value):
            text = f"{value.decode()} is a number with a decimal comma; export with decimal points"
            raise notes.error("E_DXF_FORMAT", text, line=2 * number + 2)
    return data, as_one_version(codes, values, header.get("$ACADVER", "")), header


def _binary_header(data: bytes) -> dict[str, str]:
    """The two variables that name units, out of a binary file: group code 70 in one byte before R13 and in two since, then 16 bits."""
    found = {}
    for name in ("$INSUNITS", "$MEASUREMENT"):
        match = re.search(re.escape(name.encode()) + rb"\x00\x46\x00?(..)", data, re.DOTALL)
        if match:
            found[name] = str(int.from_bytes(match[1], "little", signed=True))
    return found


def _load(path: Path, data: bytes, mended: bytes | None, notes: _Notes) -> Document:
    """The document, by the strict reader, and where that gives up by the one that repairs. What either may raise is not said anywhere."""
    try:
        if mended is not None or data.startswith(b"\xef\xbb\xbf"):  # a byte order mark is a group code for ezdxf
            encoding = "utf-8-sig" if mended is None else ezdxf.filemanagement.dxf_file_info(path).encoding
            text = (mended or data).decode(encoding, "surrogateescape")
            return ezdxf.filemanagement.read(io.StringIO(text, newline=None))
        return ezdxf.filemanagement.readfile(path)
    except Exception as strict:  # noqa: BLE001 - a stranger's parser on a stranger's file
        try:
            document, auditor = recover.readfile(path) if mended is None else recover.read(io.BytesIO(mended))
        except Exception as error:
            raise notes.error("E_DXF_FORMAT", f"not a readable DXF: {strict or type(strict).__name__}") from error
        repairs = f"{len(auditor.fixes)} repaired, {len(auditor.errors)} not"
        notes.warnings.append(f"the file is damaged ({strict}) and was read all the same: {repairs}; compare the contours")
        return document


def _units(header: dict[str, str], given: str | None, beside: str | None, notes: _Notes) -> tuple[str, str]:
    """The name of the units and who says so.

    $MEASUREMENT = 1 is metric, which by convention is mm; 0 is every writer's default and says nothing.
    """
    code = header.get("$INSUNITS", "")
    number = int(code) if re.fullmatch(r"-?\d+", code) else 0
    said = INSUNITS.get(number)
    if given is not None:
        if said is not None and said != given:
            notes.warnings.append(f"the drawing says {said} ($INSUNITS), {given} was given and holds")
        return given, "given"
    if said is not None:
        return said, "$INSUNITS"
    if beside is not None:
        return beside, "side file"
    if number == 0 and header.get("$MEASUREMENT") == "1":
        notes.warnings.append("no $INSUNITS; taken for mm because $MEASUREMENT says metric")
        return "mm", "$MEASUREMENT"
    if number in set(InsertUnits) - {InsertUnits.Unitless}:
        raise notes.error(
            "E_DXF_UNITS", f"the drawing is in {InsertUnits(number).name} ($INSUNITS {number}), which is not read; {ASK_UNITS}"
        )
    raise notes.error("E_DXF_UNITS", f"the drawing does not say its units ($INSUNITS {code or 'missing'}); {ASK_UNITS}")


# --- entities ----------------------------------------------------------------------------------------------------------


def _count(document: Document, notes: _Notes) -> None:
    """Refuses blocks that hold themselves, too deep ones, and drawings that expand to too many entities, without expanding."""
    totals: dict[str, tuple[int, int]] = {}

    def measure(name: str, entities: Iterable[DXFGraphic], path: tuple[str, ...]) -> tuple[int, int]:
        if name in path:
            raise notes.error("E_DXF_CYCLE", f"block {name} holds itself: {' > '.join((*path[path.index(name) :], name))}")
        if len(path) > 10 * MAX_DEPTH:
            raise notes.error("E_DXF_LIMIT", f"blocks lie more than {10 * MAX_DEPTH} deep in one another; at most {MAX_DEPTH}")
        if name in totals:
            return totals[name]
        total, depth = 0, 0
        for entity in entities:
            total += 1
            if isinstance(entity, Insert) and (block := document.blocks.get(entity.dxf.get("name", ""))) is not None:
                inner, below = measure(entity.dxf.name, block, (*path, name))
                total += inner * max(abs(entity.mcount), 1)
                depth = max(depth, below + 1)
        totals[name] = total, depth
        return total, depth

    total, depth = measure("*drawing", document.modelspace(), ())
    if depth > MAX_DEPTH:
        raise notes.error("E_DXF_LIMIT", f"blocks lie {depth} deep in one another; at most {MAX_DEPTH}")
    if total > MAX_ENTITIES:
        raise notes.error("E_DXF_LIMIT", f"{total} entities once blocks are expanded; at most {MAX_ENTITIES}")


def _pieces(document: Document, mm: float, side: Side, notes: _Notes) -> tuple[list[Piece], list[Piece]]:
    """Every entity that can be an outline, flattened, in mm; the boundaries of hatches only where there is nothing else.

    And those that were set aside for the name of their layer or line type, zones among them.
    """
    styles = {layer.dxf.name.lower(): layer for layer in document.layers}
    lines: list[Piece] = []
    fills: list[Piece] = []
    aside: list[Piece] = []
    sheet: set[int] = set()  # the numbers of those lines that may be a sheet's frame
    written = False
    points = 0
    for entity, place in _expanded(document.modelspace(), notes):
        notes.look_at_clock()
        kind, layer = entity.dxftype(), place.layer
        reason = _not_cut(entity, place, styles.get(layer.lower()), side)
        of_sheet = (layer not in side.layers or side.layers[layer].outline is None) and any(map(SHEET.search, (layer, *place.blocks)))
        written |= of_sheet and kind in WRITTEN
        if reason is not None:
            notes.ignored[kind, layer, reason] += 1
            if not reason.startswith(("not cut", "a zone")):
                continue
        for piece in _flattened(entity, mm, place, notes):
            (aside if reason is not None else fills if kind in ("HATCH", "MPOLYGON") else lines).append(piece)
            if of_sheet and lines and lines[-1] is piece:
                sheet.add(len(lines) - 1)
            points += len(piece.points)
            if points > MAX_POINTS:
                raise notes.error("E_DXF_LIMIT", f"more than {MAX_POINTS} points once curves are flattened")
    if fills and not lines:
        notes.warnings.append("no lines: the outline is taken from the boundaries of the hatches")
        return fills, aside
    for fill in fills:
        notes.ignore(fill, "fills what lines outline")
    rest = [line for number, line in enumerate(lines) if number not in sheet]
    if _is_frame([lines[number] for number in sorted(sheet)], rest, written=written):
        for number in sorted(sheet):
            notes.ignore(lines[number], "not cut, a sheet's frame by its name and place")
            aside.append(lines[number])
        return rest, aside
    return lines, aside


def _is_frame(sheet: Sequence[Piece], rest: Sequence[Piece], *, written: bool) -> bool:
    """Whether the lines whose layer or block is called like a sheet's frame are one: a rectangle around all others, written on or of
    the proportions of paper.
    """
    if not sheet or not rest:
        return False
    _, closed = _chained([(p,) for p in sheet if not p.closed], GAPS_MM[-1])
    low = np.min([p.points.min(axis=0) for p in rest], axis=0)
    high = np.max([p.points.max(axis=0) for p in rest], axis=0)
    return any(
        (frame.points.min(axis=0) <= low).all()
        and (frame.points.max(axis=0) >= high).all()
        and polygon.is_upright_rectangle(frame.points)
        and (written or _like_paper(frame.points))
        for frame in [p for p in sheet if p.closed] + [_loop(chain) for chain in closed]
    )


def _like_paper(points: Points) -> bool:
    short, long = sorted(np.ptp(points, axis=0).tolist())
    return any(math.isclose(long, ratio * short, rel_tol=2e-3) for ratio in PAPER_RATIOS)


def _not_cut(entity: DXFGraphic, place: _Place, style: Any, side: Side) -> str | None:
    """Why this entity is no outline; None where it may be one. What the side file says of a layer holds against its name and line type."""
    if entity.dxftype() not in _FLATTEN:
        return "not an outline"
    if entity.dxf.get("invisible", 0) or (style is not None and (style.is_off() or style.is_frozen())):
        return "not shown"
    layer = place.layer
    said = side.layers[layer].outline if layer in side.layers else None
    if said is not None:
        return None if said else "side file"
    if (block := next(filter(SHEET_BLOCK.search, place.blocks), None)) is not None:
        return f"not cut, by the name of its block {block}"
    if ZONE_LAYER.match(layer):
        return "a zone"
    if NOT_CUT_LAYER.search(layer):
        return "not cut, by the layer's name"
    linetype = entity.dxf.get("linetype", "BYLAYER")
    if linetype.upper() in ("BYLAYER", "BYBLOCK"):
        linetype = "CONTINUOUS" if style is None else style.dxf.get("linetype", "CONTINUOUS")
    return f"not cut, by the line type {linetype}" if NOT_CUT_LINETYPE.search(linetype) else None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something of the drawing stands: its layer, the handle that it is told by, from its block to the drawing, and the names of
    the blocks that it lies in.
    """

    layer: str
    handle: str
    to_world: Matrix44 | None = None
    blocks: tuple[str, ...] = ()


def _expanded(entities: Iterable[Any], notes: _Notes, within: _Place | None = None) -> Iterator[tuple[DXFGraphic, _Place]]:
    """All entities with those of blocks in place of inserts; a block's have the insert's handle and, where theirs is "0", its layer.

    They are as the block has them: uneven scales of turned blocks shear, and only points can be sheared.
    """
    for entity in entities:
        own = str(entity.dxf.layer) if entity.dxf.hasattr("layer") else "0"
        own = within.layer if within is not None and own == "0" else own
        source = str(entity.dxf.handle) if within is None else within.handle
        if not isinstance(entity, Insert):
            if within is None or entity.dxftype() != "ATTDEF":
                yield entity, _Place(own, source) if within is None else replace(within, layer=own)
            continue
        block = None if entity.doc is None else entity.doc.blocks.get(entity.dxf.get("name", ""))
        if (reason := _not_exploded(entity, own, block)) is not None:
            notes.ignored["INSERT", own, reason] += 1
            if reason == _ELSEWHERE:
                notes.warnings.append(f"INSERT {source} on layer {own} shows nothing: {entity.dxf.name} is {reason}")
            continue
        yield from ((attrib, _Place(str(attrib.dxf.layer), source)) for attrib in entity.attribs)
        if not entity.dxf.zscale:
            entity.dxf.zscale = 1.0  # flat: z says nothing, and 0 cannot be inverted
        for single in entity.multi_insert() if entity.mcount > 1 else (entity,):
            notes.look_at_clock()
            try:
                matrix = single.matrix44() if within is None or within.to_world is None else single.matrix44() * within.to_world
            except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, DXFError) as error:
                notes.warnings.append(f"INSERT {source} of block {entity.dxf.name} cannot be exploded: {error or type(error).__name__}")
                notes.ignored["INSERT", own, "cannot be exploded"] += 1
                continue
            blocks = (*(() if within is None else within.blocks), str(entity.dxf.name))
            yield from _expanded(block or (), notes, _Place(own, source, matrix, blocks))


_ELSEWHERE = "an external reference, not in this file"


def _not_exploded(insert: Insert, layer: str, block: BlockLayout | None) -> str | None:
    """Why nothing is seen of a block here, None where it is. One on a layer that is off but not frozen shows what is on others."""
    frozen = insert.doc is not None and layer in insert.doc.layers and insert.doc.layers.get(layer).is_frozen()
    if insert.dxf.get("invisible", 0) or frozen:
        return "not shown"
    if not insert.dxf.xscale or not insert.dxf.yscale:
        return "its scale is 0"
    if block is not None and block.block is not None and block.block.dxf.get("flags", 0) & 4 and not len(block):
        return _ELSEWHERE
    return None if block is not None else f"block {insert.dxf.get('name', '(no name)')} is missing"


def _flattened(entity: DXFGraphic, mm: float, place: _Place, notes: _Notes) -> Iterator[Piece]:
    """The pieces of one entity; tells of those that have no length or cannot be drawn."""
    kind, layer, handle = entity.dxftype(), place.layer, place.handle
    try:
        if place.to_world is None:
            found = list(_FLATTEN[kind](entity, mm))
        else:
            found = list(_out_of_block(entity, mm, place.to_world))
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError, DXFError) as error:
        notes.warnings.append(f"{kind} {handle} on layer {layer} cannot be drawn and is left out: {error or type(error).__name__}")
        notes.ignored[kind, layer, "cannot be drawn"] += 1
        return
    low, high = _heights(entity)
    if (high - low) * mm > ALMOST_MM:
        where = f"{kind} {handle} on layer {layer}"
        notes.warnings.append(f"{where} is not flat, its z goes from {low * mm:.3f} to {high * mm:.3f} mm: it is drawn as seen from above")
    for points, closed, circle in found:
        if not np.isfinite(points).all() or np.abs(points).max(initial=0.0) > MAX_COORDINATE * mm:
            text = f"{kind} {handle} on layer {layer} has a coordinate that is not finite or beyond {MAX_COORDINATE:g}"
            raise notes.error("E_DXF_COORD", text)
        moved = np.hypot(*np.diff(points, axis=0).T) > 1e-9
        points = points[np.concatenate([[True], moved])[: len(points)]]
        if len(points) > 2 and np.hypot(*(points[0] - points[-1])) <= (1e-9 if closed else GAPS_MM[0]):
            closed, points = True, points[:-1]
        piece = Piece(points, layer, handle, kind, closed, circle)
        if len(points) < 2 or np.hypot(*np.ptp(points, axis=0)) < GAPS_MM[1]:
            reason = "no length"
        elif closed and encloses_nothing(points):
            crosses = polygon.crossings([points], depth=GAPS_MM[1], most=1)
            reason = "it crosses itself and encloses nothing" if crosses else "encloses nothing"
        else:
            yield piece
            continue
        notes.warnings.append(f"{piece.where} is left out: {reason}")
        notes.ignore(piece, reason)


def _heights(entity: Any) -> tuple[float, float]:
    """The lowest and the highest z of an entity's points, in drawing units, as far as it has any of its own."""
    kind = entity.dxftype()
    if kind == "LINE":
        points = [entity.dxf.start, entity.dxf.end]
    elif kind == "SPLINE":
        points = [*entity.control_points, *entity.fit_points]
    elif kind == "POLYLINE" and entity.is_3d_polyline:
        points = [vertex.dxf.location for vertex in entity.vertices]
    else:
        points = []
    heights = [float(point[2]) for point in points] or [0.0]
    return min(heights), max(heights)


# Each flattener yields (points in mm, closed, the circle it is or is part of).
_Flat: TypeAlias = tuple[Points, bool, Circle | None]
_BROKEN: _Flat = (np.full((2, 2), np.nan), False, None)


def _xy(vertices: Iterable[Any], mm: float) -> Points:
    return np.array([(v[0], v[1]) for v in vertices], dtype=np.float64).reshape(-1, 2) * mm


def _curve(vertices: Iterable[Any], mm: float) -> Points:
    """As `_xy`, for what ezdxf flattens: it halves without end where numbers are absurd."""
    points = _xy(islice(vertices, MOST_POINTS + 1), mm)
    if len(points) > MOST_POINTS:
        raise ValueError(f"more than {MOST_POINTS} points on one curve")
    return points


def _broken(values: Iterable[float]) -> bool:
    """Whether any of these numbers is none for a drawing (ezdxf takes NaN and 1e300, and may never end with them)."""
    return not all(math.isfinite(v) and abs(v) <= MAX_COORDINATE for v in values)


def _in_world(points: Points, circle: Circle | None, entity: DXFGraphic, z_mm: float = 0.0) -> tuple[Points, Circle | None]:
    """From the entity's own plane to the drawing's; an extrusion of −z mirrors, and an oblique one makes circles ellipses."""
    extrusion = Vec3(entity.dxf.get("extrusion", (0, 0, 1)))
    if extrusion.isclose((0, 0, 1)):
        return points, circle
    ocs = OCS(extrusion)
    turned = _xy(ocs.points_to_wcs([Vec3(x, y, z_mm) for x, y in points]), 1.0)
    if circle is None or abs(extrusion.normalize().z) < 1.0 - 1e-9:
        return turned, None
    centre = ocs.to_wcs((circle[0], circle[1], z_mm))
    return turned, (centre.x, centre.y, circle[2])


def _out_of_block(entity: DXFGraphic, mm: float, to_world: Matrix44) -> Iterator[_Flat]:
    """An entity of a block, flattened as finely as it will be large, where the block stands."""
    linear = np.array([[to_world[row, column] for column in (0, 1)] for row in (0, 1)])
    shift = np.array([to_world[3, 0], to_world[3, 1]]) * mm
    if _broken((*linear.flat, *shift)):
        yield _BROKEN
        return
    growth = float(np.linalg.norm(linear, 2))  # the largest, of any direction
    round_still = bool(np.allclose(linear @ linear.T, growth * growth * np.eye(2), rtol=0.0, atol=1e-9 * growth * growth))
    for points, closed, circle in _FLATTEN[entity.dxftype()](entity, mm * growth):
        moved = points @ (linear / growth) + shift
        if circle is not None and round_still:
            x, y = np.array(circle[:2]) @ (linear / growth) + shift
            yield moved, closed, (float(x), float(y), circle[2])
        else:
            yield moved, closed, None


def _line(entity: Any, mm: float) -> Iterator[_Flat]:
    yield _xy((entity.dxf.start, entity.dxf.end), mm), False, None


def _circle(entity: Any, mm: float) -> Iterator[_Flat]:
    centre, radius = Vec3(entity.dxf.center) * mm, abs(float(entity.dxf.radius)) * mm
    start, sweep = 0.0, math.tau
    if entity.dxftype() == "ARC":
        if _broken((entity.dxf.start_angle, entity.dxf.end_angle)):
            yield _BROKEN
            return
        start, sweep = math.radians(entity.dxf.start_angle), swept(math.radians(entity.dxf.end_angle - entity.dxf.start_angle))
    if _broken((*centre, radius)):
        yield _BROKEN
        return
    points, circle = _in_world(arc(centre.x, centre.y, radius, start, sweep), (centre.x, centre.y, radius), entity, centre.z)
    whole = sweep == math.tau
    yield points[:-1] if whole else points, whole, circle


def _ellipse(entity: Any, mm: float) -> Iterator[_Flat]:
    major = Vec3(entity.dxf.major_axis)
    if _broken((*Vec3(entity.dxf.center), *major, entity.dxf.ratio, entity.dxf.start_param, entity.dxf.end_param)):
        yield _BROKEN
        return
    yield _of_ellipse(entity.construction_tool(), entity.dxf.end_param - entity.dxf.start_param, mm), False, None


def _of_ellipse(ellipse: ConstructionEllipse, span_rad: float, mm: float) -> Points:
    """An ellipse as points; `span_rad` is how far its file says that it runs, which ezdxf's own parameters do not tell any more."""
    if swept(span_rad) == math.tau:
        ellipse.start_param, ellipse.end_param = 0.0, math.tau
    return _curve(ellipse.flattening(sag_mm(ellipse.major_axis.magnitude * mm) / INSCRIBED / mm), mm)


def _spline(entity: Any, mm: float) -> Iterator[_Flat]:
    control = entity.control_points if len(entity.control_points) else entity.fit_points
    if _broken(number for point in control for number in point) or _broken(entity.knots):
        yield _BROKEN
        return
    if any(not w > 0.0 for w in entity.weights):
        raise ValueError("a weight is not positive")
    if entity.closed and not len(entity.control_points):  # through its fit points and back to the first, which is no corner
        fit = [Vec3(point) for point in entity.fit_points]
        along = fit[1] - fit[-1]
        yield _of_bspline(fit_points_to_cad_cv([*fit, fit[0]], [along, along]), mm), False, None
        return
    yield _of_bspline(entity.construction_tool(), mm), False, None


def _of_bspline(spline: BSpline, mm: float) -> Points:
    """A B-spline as points. One whose ends are not clamped is drawn over its domain alone, between knots p and n."""
    sag = sag_mm(max(spline.control_points[0].distance(p) for p in spline.control_points) * mm) / INSCRIBED / mm
    knots, degree = np.array(spline.knots()), spline.degree
    if np.ptp(knots[: degree + 1]) == 0 and np.ptp(knots[-degree - 1 :]) == 0:
        return _curve(spline.flattening(sag), mm)
    return sampled(lambda at: _xy(spline.points(at.tolist()), 1.0), np.unique(knots[degree : len(knots) - degree]), sag) * mm


def _polyline(entity: Any, mm: float) -> Iterator[_Flat]:
    z = 0.0
    if entity.dxftype() == "LWPOLYLINE":
        vertices = [(float(x), float(y), float(b)) for x, y, b in entity.get_points("xyb")]
        z = float(entity.dxf.get("elevation", 0.0))
    elif entity.is_poly_face_mesh or entity.is_polygon_mesh:
        raise ValueError("a mesh")
    else:
        drawn = [v for v in entity.vertices if not v.dxf.get("flags", 0) & 16]  # 16: the frame of a fitted spline
        vertices = [(v.dxf.location[0], v.dxf.location[1], float(v.dxf.get("bulge", 0.0))) for v in drawn]
        z = float(drawn[0].dxf.location[2]) if drawn else 0.0
    if len(vertices) < 2:
        raise ValueError("less than two vertices")
    if _broken(number for vertex in vertices for number in vertex):
        yield _BROKEN
        return
    closed = bool(entity.is_closed)
    points, circle = bulged([(x * mm, y * mm, b) for x, y, b in vertices], closed)
    if entity.dxftype() == "LWPOLYLINE" or entity.is_2d_polyline:
        points, circle = _in_world(points, circle, entity, z * mm)
    yield points, closed, circle


def _hatch(entity: Any, mm: float) -> Iterator[_Flat]:
    z = Vec3(entity.dxf.get("elevation", (0, 0, 0))).z
    for path in entity.paths:
        if isinstance(path, PolylinePath):
            if _broken(number for vertex in path.vertices for number in vertex):
                yield _BROKEN
                continue
            points = bulged([(x * mm, y * mm, b) for x, y, b in path.vertices], True)[0]
        elif isinstance(path, EdgePath) and path.edges:
            points = np.concatenate([run[:-1] for run in _head_to_tail([_hatch_edge(edge, mm) for edge in path.edges])])
        else:
            continue
        yield _in_world(points, None, entity, z * mm)[0], True, None


def _head_to_tail(runs: list[Points]) -> list[Points]:
    """The runs of a closed line in their order, each turned to begin where the one before it ends."""
    for number, run in enumerate(runs):
        before = runs[number - 1][-1] if number else runs[1 % len(runs)][[0, -1]]
        away = [np.hypot(*(end - before).T).min() for end in run[[0, -1]]]
        if (away[1] < away[0]) if number else (away[0] < away[1]):
            runs[number] = run[::-1]
    return runs


def _hatch_edge(edge: Any, mm: float) -> Points:
    """One edge of a hatch's boundary, in its running direction."""
    if isinstance(edge, LineEdge):
        return _xy((edge.start, edge.end), mm)
    if isinstance(edge, SplineEdge):
        spline = BSpline(edge.control_points, order=edge.degree + 1, knots=edge.knot_values, weights=edge.weights or None)
        return _of_bspline(spline, mm)
    if isinstance(edge, ArcEdge):
        start = math.radians(edge.start_angle)
        sweep = swept(math.radians(edge.end_angle - edge.start_angle))
        points = arc(edge.center.x * mm, edge.center.y * mm, edge.radius * mm, start, sweep)
    elif isinstance(edge, EllipseEdge):
        points = _of_ellipse(edge.construction_tool(), math.radians(edge.end_angle - edge.start_angle), mm)
    else:
        raise TypeError(f"an edge of kind {type(edge).__name__}")
    return points if edge.ccw else points[::-1]


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


# --- loops -------------------------------------------------------------------------------------------------------------


def _without_duplicates(pieces: Sequence[Piece], notes: _Notes) -> list[Piece]:
    """The pieces without those that lie on an earlier one."""
    left_out = doubles(pieces)
    for number, first in sorted(left_out.items()):
        notes.warnings.append(f"{pieces[number].where} is left out: it lies on {pieces[first].entity} {pieces[first].handle}")
        notes.ignore(pieces[number], "duplicate")
    kept = set(left_out.values())
    return [replace(p, twice=True) if n in kept else p for n, p in enumerate(pieces) if n not in left_out]


_Chain: TypeAlias = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class _Loose:
    """A chain that is in no loop. `why` its network cannot be read; `inner`: it divides a part whose outline is known."""

    chain: _Chain
    why: str = ""
    inner: bool = False


def _loops(pieces: Sequence[Piece], notes: _Notes) -> list[Piece]:
    """All closed loops: the closed pieces, and what chains of open ones make. Raises E_DXF_OPEN where an outline stays open."""
    loops = [p for p in pieces if p.closed]
    closed, loose = _closed([p for p in pieces if not p.closed], notes)
    loops += closed
    _judge_open(loose, loops, notes)
    return loops


def _closed(pieces: Sequence[Piece], notes: _Notes) -> tuple[list[Piece], list[_Loose]]:
    """The loops that open pieces make, the nearest ends joined first, and the chains that are left."""
    loops: list[Piece] = []
    loose: list[_Loose] = []
    rest: list[_Chain] = [(p,) for p in pieces]
    hanging: list[_Chain] = []
    for gap in GAPS_MM:
        rest, closed = _chained(rest, gap)
        loops += _told(closed, gap, notes)
    while True:  # without what only hangs on the others
        rest, hanging = _pruned(rest, GAPS_MM[-1])
        loose += [_Loose(chain) for chain in hanging]
        if not hanging:
            break
        rest, closed = _chained(rest, GAPS_MM[-1])
        loops += _told(closed, GAPS_MM[-1], notes)
    ends, networks = _networks(rest)
    for network in networks:
        chains = [rest[n] for n in network]
        if len(chains) == 1 or not meshes.ring([ends[n] for n in network]):
            loose += [_Loose(chain) for chain in chains]
            continue
        found, left = _unmeshed(chains, notes)
        loops += found
        loose += left
    return loops, loose


def _told(chains: Sequence[_Chain], gap_mm: float, notes: _Notes) -> Iterator[Piece]:
    """The loops of closed chains; tells of those that enclose nothing and of wide gaps."""
    notes.look_at_clock()
    for chain in chains:
        loop = _loop(chain)
        if encloses_nothing(loop.points):
            notes.warnings.append(f"{loop.where} is left out: it runs there and back")
            notes.ignore(loop, "encloses nothing")
            continue
        if gap_mm > GAPS_MM[1]:
            notes.warnings.append(f"a gap of up to {gap_mm:g} mm was closed in the loop of {loop.where}")
        yield loop


def _chained(chains: Sequence[_Chain], gap_mm: float) -> tuple[list[_Chain], list[_Chain]]:
    """Joins chains whose ends lie within the gap, as far as no end meets two others: (still open, closed)."""
    still: list[_Chain] = []
    closed: list[_Chain] = []

    def closes(chain: _Chain) -> bool:
        """Whether the chain closes by itself; one as short as the gap is no loop."""
        ends_meet = math.dist(chain[0].points[0], chain[-1].points[-1]) <= gap_mm
        return ends_meet and sum(p.length_mm for p in chain) > 4.0 * gap_mm

    for chain in chains:
        (closed if closes(chain) else still).append(chain)
    if not still:
        return still, closed
    edges = [edgeminer.make_edge(c[0].points[0], c[-1].points[-1], payload=c) for c in still]
    still = []
    for found in edgeminer.find_all_simple_chains(edgeminer.Deposit(edges, gap_tol=gap_mm)):
        joined: list[Piece] = []
        for edge in dict.fromkeys(found):  # what is as short as the gap meets itself and is found twice
            joined += _run(edge.payload, edge.is_reverse)
        (closed if closes(tuple(joined)) else still).append(tuple(joined))
    return still, closed


def _run(chain: _Chain, backwards: bool) -> _Chain:
    return tuple(replace(p, points=p.points[::-1]) for p in reversed(chain)) if backwards else chain


def _pruned(chains: Sequence[_Chain], gap_mm: float) -> tuple[list[_Chain], list[_Chain]]:
    """Parts the chains that end nowhere but hang on others at their other end (a bend line that meets the outline) from the rest."""
    edges = [edgeminer.make_edge(c[0].points[0], c[-1].points[-1], payload=c) for c in chains]
    if not edges:
        return [], []
    deposit = edgeminer.Deposit(edges, gap_tol=gap_mm)
    kept: list[_Chain] = []
    hanging: list[_Chain] = []
    for edge in edges:
        degrees = sorted((deposit.degree(edge.start), deposit.degree(edge.end)))
        (hanging if degrees[0] == 1 and degrees[1] > 2 else kept).append(edge.payload)
    return kept, hanging


def _networks(chains: Sequence[_Chain]) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """The nodes at which the chains begin and end, and the numbers of those that hang together."""
    ends = meshes.nodes([(c[0].points[0], c[-1].points[-1]) for c in chains], GAPS_MM[-1])
    return ends, meshes.networks(ends)


def _without_overlaps(network: Sequence[_Chain], notes: _Notes) -> list[_Chain]:
    """The chains without those that run along an earlier one between the same nodes: a side drawn twice, in other pieces."""
    kept: dict[frozenset[int], list[_Chain]] = {}
    for chain, both in zip(network, _networks(network)[0], strict=True):
        others = kept.setdefault(frozenset(both), [])
        for number, other in enumerate(others):
            end = chain[-1].points[-1]
            back = _run(other, math.dist(end, other[-1].points[-1]) < math.dist(end, other[0].points[0]))
            if encloses_nothing(np.concatenate([p.points for p in (*chain, *back)])):
                others[number] = tuple(replace(p, twice=True) for p in other)
                for piece in chain:
                    notes.warnings.append(f"{piece.where} is left out: it lies on {other[0].entity} {other[0].handle}")
                    notes.ignore(piece, "duplicate")
                break
        else:
            others.append(chain)
    return [chain for chains in kept.values() for chain in chains]


def _unmeshed(network: Sequence[_Chain], notes: _Notes) -> tuple[list[Piece], list[_Loose]]:
    """The loops of chains that meet in threes and more, where there is no doubt, and what is left of them.

    What closes on a layer of its own is a loop, then the outer boundary of what hangs together, where no more than bends lie within.
    """
    notes.look_at_clock()
    kept = _without_overlaps(network, notes)
    if len(kept) < len(network):
        return _closed([piece for chain in kept for piece in chain], notes)
    pieces = [piece for chain in network for piece in chain]
    own = {layer: _chained([(p,) for p in pieces if p.layer == layer], GAPS_MM[-1]) for layer in sorted({p.layer for p in pieces})}
    if len(own) > 1 and any(closed for _, closed in own.values()):
        loops = [loop for _, closed in own.values() for loop in _told(closed, GAPS_MM[0], notes)]
        found, loose = _closed([piece for rest, _ in own.values() for chain in rest for piece in chain], notes)
        return loops + found, loose
    lines = [np.concatenate([chain[0].points, *(p.points[1:] for p in chain[1:])]) for chain in network]
    mesh = meshes.read(lines, [all(p.twice for p in chain) for chain in network], GAPS_MM[-1])
    if mesh.unclear:
        begin, end = lines[mesh.of][[0, -1]]
        place = f"from ({begin[0]:.3f}, {begin[1]:.3f}) to ({end[0]:.3f}, {end[1]:.3f}) mm"
        return [], [_Loose(chain, f"{network[mesh.of][0].where} {place} {mesh.unclear}") for chain in network]
    closed = [tuple(p for n, backwards in loop for p in _run(network[n], backwards)) for loop in mesh.loops]
    inner = [_Loose(network[n], inner=True) for n in mesh.inner]
    return list(_told(closed, GAPS_MM[0], notes)), [*inner, *(_Loose(network[n]) for n in mesh.hang)]


def _judge_open(loose: Sequence[_Loose], loops: Sequence[Piece], notes: _Notes) -> None:
    """Lists open lines that are no outline, and refuses the drawing where one is: where it goes around a part, or there is no part."""
    if not loops and not loose:
        seen = ", ".join(sorted({f"{entity} on {layer} ({reason})" for entity, layer, reason in notes.ignored})[:6])
        told = "".join(f"; {warning}" for warning in notes.warnings[:3])
        named = sorted({layer for _, layer, reason in notes.ignored if reason.startswith("not cut")})
        if named:
            told += f"; if one of the layers {', '.join(named[:6])} is cut, {notes.file.with_suffix('.yaml').name} beside it says so"
            told += f" (layers: {{{named[0]}: {{outline: true}}}})"
        if bodies := sorted({entity for entity, _, _ in notes.ignored} & BODIES):
            told += f"; explode {', '.join(bodies)} to lines and arcs, or draw its outline, and export it again"
        raise notes.error("E_DXF_EMPTY", f"nothing that is cut; the drawing holds {seen or 'no entity'}{told}")
    if not loose:
        return
    around = polygon.enclosing([loop.points for loop in loops])
    outers = [loop.points for loop, outside in zip(loops, around, strict=True) if not outside]
    ends = np.array([p for one in loose for p in (one.chain[0].points[0], one.chain[-1].points[-1])])
    rings = _meshed_around(loose, outers) | _around(loose, outers, notes)
    errors: list[ConfigError] = []
    told_of: set[str] = set()
    for number, one in enumerate(loose):
        notes.look_at_clock()
        first = one.chain[0].where
        points = np.concatenate([p.points for p in one.chain])
        end = points[-1]
        if one.inner:
            places = f"from ({points[0, 0]:.3f}, {points[0, 1]:.3f}) to ({end[0]:.3f}, {end[1]:.3f}) mm"
            text = f"{first} divides a part, {places}, and is taken for a bend"
            notes.warnings.append(f"{text}; if it is cut, draw each of the parts beside it closed")
            for piece in one.chain:
                notes.ignore(piece, "divides a part")
            continue
        away = float(np.hypot(*(np.delete(ends, 2 * number + 1, axis=0) - end).T).min())
        what = f"more than two lines meet{one.why and '; '}{one.why}" if away <= GAPS_MM[-1] else f"it is {away:.3f} mm to the next end"
        gap = f"at its end, ({end[0]:.3f}, {end[1]:.3f}) mm, {what}"
        around_part = number in rings or (len(points) > 2 and any(polygon.contains(points, outer[:1])[0] for outer in outers))
        if not around_part and loops:
            notes.warnings.append(f"the line that begins with {first} is no outline: {gap}")
            for piece in one.chain:
                notes.ignore(piece, "open")
        elif one.why not in told_of or not one.why:  # once for all lines of a network
            told_of.add(one.why)
            text = (
                f"the outline that begins with {first} does not close"
                if around_part
                else f"nothing closes; of the line that begins with {first}"
            )
            flat = "" if loops else "".join(f"; {warning}" for warning in notes.warnings if "is not flat" in warning)[:200]
            errors.append(notes.error("E_DXF_OPEN", f"{text}: {gap}{_remedy(one, notes)}{flat}"))
    if errors:
        raise ConfigErrors(errors[:10])


def _remedy(one: _Loose, notes: _Notes) -> str:
    """What to do about a line of a network that cannot be read."""
    if not one.why:
        return ""
    beside = notes.file.with_suffix(".yaml").name
    return f"; put what is not cut on a layer of its own, and say so in {beside} beside it (layers: {{NAME: {{outline: false}}}})"


def _meshed_around(loose: Sequence[_Loose], outers: Sequence[Points]) -> set[int]:
    """The numbers of the chains that meet one another so that some of them run in rings, with a whole part within their common box."""
    ends, networks = _networks([one.chain for one in loose])
    found: set[int] = set()
    for network in networks:
        if meshes.ring([ends[n] for n in network]):
            points = np.concatenate([piece.points for n in network for piece in loose[n].chain])
            low, high = points.min(axis=0), points.max(axis=0)
            if any((low <= outer.min(axis=0)).all() and (high >= outer.max(axis=0)).all() for outer in outers):
                found |= set(network)
    return found


def _around(loose: Sequence[_Loose], outers: Sequence[Points], notes: _Notes) -> set[int]:
    """The numbers of the chains that together go around a part, gaps apart: an outline whose corners do not meet."""
    lines = [(n, p.points) for n, one in enumerate(loose) if not one.inner for p in one.chain]
    if not lines:
        return set()
    of = np.concatenate([np.full(len(points) - 1, n) for n, points in lines])
    begin, end = (np.concatenate([points[cut] for _, points in lines]) for cut in (slice(None, -1), slice(1, None)))
    found: set[int] = set()
    for outer in sorted(outers, key=lambda points: -abs(polygon.signed_area(points)))[:MOST_LOOKED_AROUND]:
        notes.look_at_clock()
        centre = polygon.centroid(outer)
        outside = ~polygon.contains(outer, 0.5 * (begin + end))
        (x0, y0), (x1, y1) = (begin[outside] - centre).T, (end[outside] - centre).T
        start = np.arctan2(y0, x0)
        sweep = np.arctan2(x0 * y1 - y0 * x1, x0 * x1 + y0 * y1)
        low = np.floor(np.where(sweep < 0.0, start + sweep, start) / math.tau * HORIZON).astype(np.int64)
        high = np.floor(np.where(sweep < 0.0, start, start + sweep) / math.tau * HORIZON).astype(np.int64)
        steps = np.zeros(3 * HORIZON + 1, np.int64)
        np.add.at(steps, low + HORIZON, 1)
        np.add.at(steps, high + HORIZON, -1)
        seen = np.cumsum(steps)[:-1].reshape(3, HORIZON).sum(axis=0) > 0
        if seen.mean() >= LEAST_AROUND:
            found |= set(of[outside].tolist())
    return found


def _loop(chain: _Chain) -> Piece:
    """One closed piece out of a chain; its layer is that of the longest part, and a circle where all parts are of one."""
    longest = max(chain, key=lambda p: p.length_mm)
    circles = [p.circle or (math.nan, math.nan, math.nan) for p in chain]
    points = np.concatenate([p.points[:-1] for p in chain])
    return Piece(points, longest.layer, longest.handle, longest.entity, True, circles[0] if same_circle(circles) else None)


def _warn_of_crossings(loops: Sequence[Piece], notes: _Notes) -> None:
    """Outlines that cross themselves or one another cannot be cut as drawn."""
    notes.look_at_clock()
    if sum(len(loop.points) for loop in loops) > MAX_POINTS // 10:
        notes.warnings.append("too many points to look for crossings")
        return
    for i, j, (x, y) in polygon.crossings([loop.points for loop in loops], depth=GAPS_MM[1], most=20):
        other = "itself" if i == j else loops[j].where
        notes.warnings.append(f"{loops[i].where} crosses {other} at ({x:.3f}, {y:.3f}) mm")


def _warn_of_frames(loops: Sequence[Piece], aside: Sequence[Piece], notes: _Notes) -> None:
    """What goes around all parts but was set aside for its name may be a sheet's frame, or the part itself."""
    _, closed = _chained([(p,) for p in aside if not p.closed], GAPS_MM[-1])
    lows, highs = (np.array([f(loop.points, axis=0) for loop in loops]) for f in (np.min, np.max))
    for frame in [p for p in aside if p.closed] + [_loop(chain) for chain in closed]:
        if (frame.points.min(axis=0) <= lows.min(axis=0)).all() and (frame.points.max(axis=0) >= highs.max(axis=0)).all():
            notes.warnings.append(
                f"{frame.where} goes around all that is cut; if it is cut too, say so in the side file (layers: outline: true)"
            )


def _warn_of_paper(part: Sequence[Contour], box: tuple[float, float, float, float], notes: _Notes) -> None:
    """An outline around all, with the proportions of paper and something within, may be a sheet's frame."""
    outer = part[0].points_mm
    around_all = (outer.min(axis=0) <= box[:2]).all() and (outer.max(axis=0) >= box[2:]).all()
    holds_more = any(c.kind == "island" for c in part) or any(kind in WRITTEN for kind, _, _ in notes.ignored)
    if around_all and holds_more and polygon.is_upright_rectangle(outer) and _like_paper(outer):
        text = f"the outline on layer {part[0].layer} has the proportions of paper: if it is a sheet's frame, put it on a layer of its own"
        notes.warnings.append(f"{text} and say so in the side file (layers: outline: false)")


def _warn_of_circles_within(contours: Sequence[Contour], notes: _Notes) -> None:
    """A disc in the middle of a round hole would fall out: more often the two are a countersink's or a thread's circles."""
    holes = [c for c in contours if c.kind == "hole" and c.circle is not None]
    rings = np.array([c.circle for c in holes]).reshape(-1, 3)
    for island in contours:
        if island.kind == "island" and island.circle is not None:
            away = np.hypot(*(rings[:, :2] - island.circle[:2]).T)
            for n in np.flatnonzero((away <= GAPS_MM[-1]) & (rings[:, 2] > island.circle[2]))[:1].tolist():
                sizes = f"⌀ {2.0 * island.circle[2]:.3f} mm in the middle of ⌀ {2.0 * rings[n, 2]:.3f} mm"
                text = f"{island.name} on layer {island.layer} is a loose disc within {holes[n].name} on layer {holes[n].layer} ({sizes})"
                notes.warnings.append(f"{text}: if they are a countersink or a thread, put the one that is not cut on a layer of its own")


def _zones(pieces: Sequence[Piece], notes: _Notes) -> tuple[tuple[str, Points], ...]:
    """The closed lines on layers that bound zones, in the order of the layers' names."""
    found: list[tuple[str, Points]] = []
    for layer in sorted({p.layer for p in pieces}):
        own = [p for p in pieces if p.layer == layer]
        still, closed = _chained([(p,) for p in own if not p.closed], GAPS_MM[-1])
        notes.warnings += [f"the zone that begins with {chain[0].where} does not close and is left out" for chain in still]
        match = ZONE_LAYER.match(layer)
        name = match["name"].lower() if match and match["name"] else "ignore"
        found += [(name, loop.points) for loop in [p for p in own if p.closed] + [_loop(chain) for chain in closed]]
    return tuple(found)
