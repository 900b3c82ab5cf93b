"""The side file: what a drawing cannot say of itself, in `NAME.yaml` beside `NAME.dxf`. Every key may be left out.

Some of it layers can say too: closed lines on `ZONE_<name>` and `IGNORE` are zones, and `CUT@0.05` gives its contours ±0.05 mm.

units: mm                       # holds where the drawing does not say its own
tolerance_mm: 0.1               # both ways, for every contour that is not named below
contours:                       # by name, as `inspector template inspect` lists them
  hole-3: {inward_mm: -0.02, outward_mm: 0.05}   # of the material: a hole of a larger diameter is inward
layers:                         # by layer of the drawing: what its lines are, and the tolerance of its contours
  ENGRAVING_2: {outline: false}
  CUT_FINE: {outline: true, inward_mm: -0.03, outward_mm: 0.03}
datum: [outer, hole-1]          # the contours that fix the pose; all of them without this, or where not half of each is seen
distances:                      # for the check `distances`: between the middles of holes, or from or to a place on an edge
  - {name: pitch, between: [hole-1, hole-2], minus_mm: -0.05, plus_mm: 0.05}
  - {name: across, between: [[0, 35], [100, 35]], minus_mm: -0.1, plus_mm: 0.1}
zones:                          # in order, a later one lies over an earlier one; those of one name are one zone
  - {name: surface, margin_mm: 0.5}                              # the material, this far from every edge
  - {name: seal, contour: hole-6, within_mm: 4.0}                # the material around a contour
  - {name: ignore, polygon_mm: [[1, 1], [9, 1], [9, 5]]}         # a place; `ignore` takes it out of the surface
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from inspector.config import Strict
from inspector.config.document import Document, Loc, compose, nearest, text_of
from inspector.geometry import polygon
from inspector.geometry.distances import span
from inspector.records import ConfigError, ConfigErrors, Contour, Distance

Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class Tolerance(Strict):
    """How far the real edge may lie from the drawing, along the outward normal of the material."""

    inward_mm: float = Field(le=0)
    outward_mm: float = Field(ge=0)


class Layer(Strict):
    """`outline` says whether the lines of a layer are cut, against what its name suggests; None leaves it to the name."""

    outline: bool | None = None
    inward_mm: float | None = Field(default=None, le=0)
    outward_mm: float | None = Field(default=None, ge=0)


class Span(Strict):
    """A distance between two ends, each the name of a hole or a place on an edge, and how far it may be off."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    between: Annotated[list[str | Point], Field(min_length=2, max_length=2)]
    minus_mm: float = Field(le=0)
    plus_mm: float = Field(ge=0)

    def asked(self) -> Distance:
        """As templates have it."""
        first, second = (end if isinstance(end, str) else (end[0], end[1]) for end in self.between)
        return Distance(self.name, (first, second), self.minus_mm, self.plus_mm)


class Zone(Strict):
    """A part of the surface: all of it but a margin, a band around a contour, or a polygon."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    margin_mm: float | None = Field(default=None, ge=0)
    contour: str | None = None
    within_mm: float | None = Field(default=None, gt=0)
    polygon_mm: list[Point] | None = Field(default=None, min_length=3)

    @model_validator(mode="after")
    def _one_shape(self) -> Zone:
        shapes = [self.margin_mm is not None, self.contour is not None, self.polygon_mm is not None]
        if sum(shapes) != 1 or (self.contour is None) != (self.within_mm is None):
            raise ValueError("give one of: margin_mm; contour with within_mm; polygon_mm")
        return self


class Side(Strict):
    """The whole side file."""

    units: Literal["mm", "cm", "m", "inch", "foot"] | None = None
    tolerance_mm: float | None = Field(default=None, gt=0)
    contours: dict[str, Tolerance] = Field(default_factory=dict)
    layers: dict[str, Layer] = Field(default_factory=dict)
    datum: list[str] = Field(default_factory=list)
    distances: list[Span] = Field(default_factory=list)
    zones: list[Zone] = Field(default_factory=list)


def read(drawing: Path) -> tuple[Side, bytes, Document]:
    """The side file of the drawing at this path, its bytes, and where its values stand; the empty one where there is none.

    Raises `ConfigError`s E_SIDE_FORMAT what is no settings file, E_SIDE_KEY what is said in it.
    """
    path = drawing.with_suffix(".yaml")
    nothing = Side(), b"", Document(str(path), {}, {})
    if not path.exists():
        return nothing
    try:
        text = text_of(path)
        document = compose(str(path), text)
    except ConfigErrors as several:
        if several.errors[-1].code == "E_CFG_EMPTY":
            return nothing
        raise ConfigErrors([_of_side("E_SIDE_FORMAT", e, "not YAML: " * (e.code == "E_CFG_SYNTAX")) for e in several.errors]) from several
    side = document.validated(Side, (), None)
    if side is None or document.errors:
        raise ConfigErrors([_of_side("E_SIDE_KEY", error) for error in document.in_order()])
    return side, text.encode(), document


def examine(side: Side, document: Document, contours: Sequence[Contour], parts: Sequence[Sequence[int]], layers: Collection[str]) -> None:
    """Holds a side file against the drawing of these contours, parts (indices of contours) and layers.

    Raises `ConfigErrors` E_SIDE_NAME for what speaks of contours or layers that the drawing does not have, and what stands twice;
    E_SIDE_DATUM for a datum that does not fix the angle, E_SIDE_DISTANCE for a distance that cannot be measured.
    """
    wrong = [*_unknown(side, document, {c.name for c in contours}, layers), *_twice(side, document)]
    if not wrong:
        wrong = [*_loose(side, document, contours, parts), *_immeasurable(side, document, contours, parts)]
    if wrong:
        raise ConfigErrors(wrong)


def _unknown(side: Side, document: Document, contours: Collection[str], layers: Collection[str]) -> Iterator[ConfigError]:
    asked: list[tuple[Loc, str, str]] = [(("contours", name), "contour", name) for name in side.contours]
    asked += [(("layers", name), "layer", name) for name in side.layers]
    asked += [(("datum", i), "contour", name) for i, name in enumerate(side.datum)]
    asked += [
        (("distances", i, "between", k), "contour", end)
        for i, one in enumerate(side.distances)
        for k, end in enumerate(one.between)
        if isinstance(end, str)
    ]
    asked += [(("zones", i, "contour"), "contour", z.contour) for i, z in enumerate(side.zones) if z.contour is not None]
    for loc, kind, name in asked:
        known = layers if kind == "layer" else contours
        if name not in known:
            text = f"the drawing has no {kind} {name!r}{nearest(name, known)}; it has {', '.join(sorted(known))}"
            yield document.error("E_SIDE_NAME", text, loc)


def _twice(side: Side, document: Document) -> Iterator[ConfigError]:
    for i, name in enumerate(side.datum):
        if name in side.datum[:i]:
            yield document.error("E_SIDE_NAME", f"{name!r} stands twice in the datum", ("datum", i))
    names = [one.name for one in side.distances]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield document.error("E_SIDE_NAME", f"two distances are called {name!r}", ("distances", i, "name"))
    margins = [i for i, zone in enumerate(side.zones) if zone.name == "surface" and zone.margin_mm is not None]
    for i in margins[1:]:
        yield document.error("E_SIDE_NAME", "the surface has a margin already; give one", ("zones", i, "margin_mm"))


def _loose(side: Side, document: Document, contours: Sequence[Contour], parts: Sequence[Sequence[int]]) -> Iterator[ConfigError]:
    """A datum that leaves open how a part is turned, where the whole part does not."""
    for part in parts:
        own = [contours[i].points_mm for i in part if contours[i].name in side.datum]
        if own and not polygon.fix_angle(own) and polygon.fix_angle([contours[i].points_mm for i in part]):
            text = (
                f"{', '.join(side.datum)} cannot fix the angle: circles about one centre; add a contour beside it, or one that is no circle"
            )
            yield document.error("E_SIDE_DATUM", text, ("datum",))


def _immeasurable(side: Side, document: Document, contours: Sequence[Contour], parts: Sequence[Sequence[int]]) -> Iterator[ConfigError]:
    part_of = {index: number for number, part in enumerate(parts) for index in part}
    for i, one in enumerate(side.distances):
        loc = ("distances", i, "between")
        try:
            first, second = span(one.asked(), contours).ends
        except ConfigError as error:
            yield document.error(error.code, f"{one.name}: {error.text}", loc)
            continue
        if part_of[first.contour] != part_of[second.contour]:
            yield document.error("E_SIDE_DISTANCE", f"{one.name}: its ends lie on two parts of the drawing", loc)


def _of_side(code: str, error: ConfigError, before: str = "") -> ConfigError:
    """An error of the settings' reader, as one of side files."""
    return ConfigError(code, before + error.text, file=error.file, line=error.line, key=error.key)
