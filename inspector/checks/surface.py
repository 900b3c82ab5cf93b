"""Defects of the surface: a network marks them on the template's raster, inside the drawing's zones, and their area is measured.

The picture is cut into tiles where zones are, each tile goes through the network, the answers are stitched, and what touches is one
defect, named by the class that most of it says. Where another class has a fair share of it, that share is a defect of its own too: two
that touch are judged by the limits of both. A defect counts when its highest score reaches its class's threshold and its area `least_mm2`.
A second network, the classifier, may look at each defect once more: it names the class, or says that it is none, where it sees all of it.
Another one, the first `look` (`inspector train segmentation --arch glance`), costs a tenth: it goes over everything, and the first one is
asked only around what it sees. Networks that take any size get tiles that fit the zones.

Findings: for each class one with the whole area of its defects (0.0 on a clean part), and the largest of them as evidence; then one for
each further defect, all against the class's limit.

    surface:
      kind: surface
      model: models/surface.onnx
      look: models/look.onnx
      classifier: models/defects.onnx
      limits_mm2: {scratch: 0.3, dent: 0.5, stain: 1.0}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inspector.config import Strict
from inspector.geometry import raster
from inspector.neural import crew, tiles
from inspector.neural import model as networks
from inspector.neural.pictures import as_channels
from inspector.records import ConfigError, Evidence, Finding, Image, View

if TYPE_CHECKING:
    from inspector.records import Plan

NEEDS_RASTER = True
GOOD = "good"
MOST_DEFECTS = 8
"""Further defects of a class that get findings of their own; the area counts all."""
SIDES_PX, LOOK_SIDES_PX = range(96, 321, networks.SIZE_STEP_PX), range(128, 513, networks.SIZE_STEP_PX)
"""Of the tiles: smaller ones are mostly margin, larger ones leave the processor's cache."""
KEPT_WAYS = 4
CELL_PX, AROUND_CELLS = 16, 1
"""How finely it is told where the first look saw something, and how far around that the network is asked."""
LEAST_SHARE_RATIO = 0.2
"""From this share of what touches a second class is one; below it is the fringe where a network wavers between two names."""


class Settings(Strict):
    """`limits_mm2` by class (a class that is not named: `limit_mm2`). So near a contour as `edge_mm` nothing is judged (None: 3 px).

    `threshold` overrides the card's thresholds. `mm_per_px` is needed where there is neither template nor calibration.
    """

    model: Path
    look: Path | None = None
    classifier: Path | None = None
    limits_mm2: dict[str, float] = Field(default_factory=dict)
    limit_mm2: float = Field(default=0.0, ge=0)
    least_mm2: float = Field(default=0.0, ge=0)
    edge_mm: float | None = Field(default=None, ge=0)
    threshold: float | None = Field(default=None, gt=0, le=1)
    classifier_least_score: float = Field(default=0.5, ge=0, le=1)
    mm_per_px: float | None = Field(default=None, gt=0)
    threads: int | None = Field(default=None, ge=1, le=64)


@dataclass(frozen=True, slots=True)
class Defect:
    """What touches, on the raster: its class, highest score, pixels and box (x, y, w, h); `at_px` (x, y) is where the score is highest.

    `others` are the shares of it that other classes have.
    """

    class_name: str
    score: float
    area_px: int
    box_px: tuple[int, int, int, int]
    at_px: tuple[int, int]
    others: tuple[Defect, ...] = ()


@dataclass(frozen=True, slots=True)
class Way:
    """How rasters of one shape are gone over: `mask` (H, W), 0 or 255, says where; `grid` are the tiles of the first network to see them.

    That is the `look`, where there is one, and else `models[0]`. Around what a look sees that one of the models is taken whose tiles fit
    best: they are the same network for tiles of several sizes. `counted` says of each of a look's tiles which of its answers lie where
    something is judged.
    """

    mask: NDArray[np.uint8]
    models: tuple[networks.Model, ...]
    look: networks.Model | None
    grid: tiles.Grid
    counted: tuple[NDArray[np.bool_], ...] = ()

    def run(self, image: Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(class_map, score_map) uint8 (H, W) of a picture (H, W[, C]); 0 where nothing is judged, and where the look has seen nothing."""
        model, grid = (self.models[0], self.grid) if self.look is None else self.asked(image, self.look)
        class_map, score_map = run(image, model, grid)
        return np.asarray(cv2.bitwise_and(class_map, self.mask), np.uint8), score_map

    def asked(self, image: Image, look: networks.Model) -> tuple[networks.Model, tiles.Grid]:
        """The model, and its tiles around what the look has seen where it is judged."""
        (height, width), down = self.mask.shape, look.down
        least = math.ceil(255.0 * min(look.card.threshold(name) for name in look.card.classes))
        cells = np.zeros((-(-height // CELL_PX), -(-width // CELL_PX)), np.uint8)

        def one(i: int) -> None:
            seen = np.nonzero((look.run(tiles.one(image, self.grid, i)[None])[1][0] >= least) & self.counted[i])
            if len(seen[0]):
                first = [at * down + corner - self.grid.margin for at, corner in zip(seen, self.grid.corners[i].tolist(), strict=True)]
                rows, columns = ([at.clip(0) // CELL_PX, (at + down - 1) // CELL_PX] for at in first)
                for row, column in product(rows, columns):
                    cells[row.clip(max=len(cells) - 1), column.clip(max=cells.shape[1] - 1)] = 1

        crew.each(len(self.grid.corners), one)
        around = cv2.dilate(cells, np.ones((1 + 2 * AROUND_CELLS,) * 2, np.uint8)) > 0
        model, cores = min(((model, _cores(around, model.card)) for model in self.models), key=_cost)
        size = (model.card.input.height, model.card.input.width)
        return model, tiles.Grid((height, width), size, model.card.margin_px, CELL_PX * cores.corners)


def _cores(around: NDArray[np.bool_], card: networks.Card) -> tiles.Grid:
    """The model's cores over cells."""
    core = [(side - 2 * card.margin_px) // CELL_PX for side in (card.input.height, card.input.width)]
    return tiles.plan(around, (core[0], core[1]))


def _cost(of: tuple[networks.Model, tiles.Grid]) -> int:
    """What it costs to ask a model so, in pixels."""
    size = of[0].card.input
    return len(of[1].corners) * (size.height * size.width + tiles.CALL_PX)


@dataclass(frozen=True, slots=True)
class Surface:
    """The check: settings, networks, and the tiles of the template laid out once."""

    name: str
    settings: Settings
    model: networks.Model
    look: networks.Model | None
    classifier: networks.Model | None
    way_over: Callable[[tuple[int, int]], Way]
    mm_per_px: float

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """(name, sha256) of each network, for the recipe."""
        return tuple(m.name_and_hash for m in (self.model, self.look, self.classifier) if m is not None)

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """The findings of each view, in order."""
        return [self._judge(view) for view in views]

    def _judge(self, view: View) -> tuple[Finding, ...]:
        image = np.ascontiguousarray(as_channels(view.image, self.model.card.input.channels))
        class_map, score_map = self.way_over((image.shape[0], image.shape[1])).run(image)
        found = []
        for whole in defects(class_map, score_map, self.model.card.classes):
            first, *others = (self._named(d, view.image) for d in (whole, *whole.others))
            found += [d for d in (first, *others) if d is not None and (d is first or first is None or d.class_name != first.class_name)]
        return tuple(
            finding for name in self._classes() for finding in self._findings(name, [d for d in found if d.class_name == name], view)
        )

    def _named(self, defect: Defect, image: Image) -> Defect | None:
        """The defect as it is to be called; None where it does not count."""
        if defect.score < self._threshold(defect.class_name) or defect.area_px * self.mm_per_px**2 < self.settings.least_mm2:
            return None
        return defect if self.classifier is None else self._name(defect, image, self.classifier)

    def _threshold(self, class_name: str) -> float:
        return self.model.card.threshold(class_name) if self.settings.threshold is None else self.settings.threshold

    def _classes(self) -> list[str]:
        """The classes of the model, then those that only the classifier knows."""
        more = (
            [] if self.classifier is None else [c for c in self.classifier.card.classes if c != GOOD and c not in self.model.card.classes]
        )
        return self.model.card.classes + more

    def _name(self, defect: Defect, image: Image, classifier: networks.Model) -> Defect | None:
        """The defect as the classifier calls it; None where that says good. Unsure, it leaves the first network's name.

        It looks at where the score is highest, moved so that it sees the whole defect; one that is too large for that is never good.
        """
        card = classifier.card
        size = (card.input.height, card.input.width)
        (x, y, w, h), (column, row) = defect.box_px, defect.at_px
        whole = w <= size[1] and h <= size[0]
        if whole:
            row = min(max(row, y + h - size[0] + size[0] // 2), y + size[0] // 2)
            column = min(max(column, x + w - size[1] + size[1] // 2), x + size[1] // 2)
        patch = tiles.crop(as_channels(image, card.input.channels), (row, column), size)
        scores = classifier.run(np.ascontiguousarray(patch).reshape(1, card.input.height, card.input.width, card.input.channels))[0][0]
        best = int(scores.argmax())
        if not np.isfinite(scores).all() or scores[best] < self.settings.classifier_least_score:
            return defect
        if card.classes[best] == GOOD:
            return None if whole else defect
        return Defect(card.classes[best], defect.score, defect.area_px, defect.box_px, defect.at_px)

    def _findings(self, class_name: str, found: list[Defect], view: View) -> list[Finding]:
        """The findings of one class: the whole area, then the further defects, largest first."""
        limit = self.settings.limits_mm2.get(class_name, self.settings.limit_mm2)
        if not found:
            return [Finding(self.name, class_name, 0.0, None, limit, "mm2")]
        found = sorted(found, key=lambda d: (-d.area_px, d.box_px))
        whole = sum(d.area_px for d in found) * self.mm_per_px**2
        findings = []
        for number, defect in enumerate(found[: 1 + MOST_DEFECTS]):
            area = defect.area_px * self.mm_per_px**2
            box, at_mm = in_picture(defect.box_px, defect.at_px, view)
            evidence = Evidence(defect.class_name, defect.score, self._threshold(defect.class_name), box, area)
            feature = class_name if number == 0 else f"{class_name}-{number + 1}"
            findings.append(Finding(self.name, feature, whole if number == 0 else area, None, limit, "mm2", at_mm, evidence))
        return findings


def in_picture(
    box_px: tuple[int, int, int, int], at_px: tuple[int, int], view: View
) -> tuple[tuple[float, float, float, float], tuple[float, float] | None]:
    """A box (x, y, w, h) of the view's raster in the camera's picture, and the drawing's point (mm) at (x, y) where there is a drawing."""
    x, y, w, h = box_px
    if view.template is None or view.pose is None:
        return (float(x), float(y), float(w), float(h)), None
    corners = np.array([[x, y], [x + w - 1, y], [x, y + h - 1], [x + w - 1, y + h - 1], at_px], np.float64)
    points_mm = raster.apply(raster.grid_matrix(view.template), corners)
    seen = raster.to_picture(points_mm[:4], view.pose)
    (left, top), (right, bottom) = seen.min(axis=0), seen.max(axis=0)
    box = (float(left), float(top), float(right - left + 1), float(bottom - top + 1))
    return box, (float(points_mm[4, 0]), float(points_mm[4, 1]))


def build(settings: Settings, name: str, plan: Plan) -> Surface:
    """Load the networks and lay the tiles out. Raises `ConfigError`: E_MODEL_*, E_CFG_CLASS for a limit on no class, E_CFG_SCALE."""
    load = plan.load_model or networks.load
    network = load(settings.model, threads=settings.threads, task="segmentation")
    look = None if settings.look is None else load(settings.look, threads=settings.threads, task="segmentation")
    if look is not None and look.card.input.channels != network.card.input.channels:
        raise ConfigError("E_MODEL_INPUT", f"the first look takes {look.card.input}, the model {network.card.input}", key=f"{name}.look")
    if look is not None and min(network.card.input.height, network.card.input.width) - 2 * network.card.margin_px < CELL_PX:
        text = f"after a first look the model's tiles need at least {CELL_PX} px within their margins of {network.card.margin_px} px"
        raise ConfigError("E_MODEL_INPUT", text, file=str(network.path), key=f"{name}.look")
    classifier = None if settings.classifier is None else load(settings.classifier, threads=settings.threads, task="classification")
    judged = judged_of(plan.template, settings.edge_mm, name)
    scale = settings.mm_per_px or (plan.template and plan.template.mm_per_px) or (plan.calibration and plan.calibration.mm_per_px)
    if not scale:
        raise ConfigError("E_CFG_SCALE", "without template or calibration mm_per_px must be given", key=name)
    check = Surface(name, settings, network, look, classifier, _ways(judged, network, look), float(scale))
    unknown = sorted(set(settings.limits_mm2) - set(check._classes()))  # noqa: SLF001
    if unknown:
        raise ConfigError("E_CFG_CLASS", f"limits for {unknown}; the model knows {check._classes()}", key=f"{name}.limits_mm2")  # noqa: SLF001
    return check


def judged_of(template: Any, edge_mm: float | None, name: str) -> NDArray[np.bool_] | None:
    """Where the surface is judged (see `zone_of`), None without a drawing. Raises E_CFG_ZONE where nothing is left of it."""
    judged = None if template is None else zone_of(template, edge_mm)
    if judged is not None and not judged.any():
        raise ConfigError("E_CFG_ZONE", "nothing of the drawing's zones is left to judge", key=name)
    return judged


def zone_of(template: Any, edge_mm: float | None) -> NDArray[np.bool_]:
    """Where the surface is judged: zones of the template, farther than `edge_mm` (None: 3 px) inside the material."""
    edge = 3.0 * template.mm_per_px if edge_mm is None else edge_mm
    return np.asarray((template.zone > 0) & (template.sdf_mm <= -edge), np.bool_)


def grid_of(judged: NDArray[np.bool_], card: networks.Card) -> tiles.Grid:
    """The tiles of the model's size that cover what is judged."""
    return tiles.plan(judged, (card.input.height, card.input.width), card.margin_px)


def way_of(judged: NDArray[np.bool_], network: networks.Model, look: networks.Model | None = None, *, fitted: bool = False) -> Way:
    """The way over rasters of this shape; `fitted` lets the tiles fit what is judged, which takes a moment and is worth it for a template.

    Raises as `Model.sized`.
    """
    first = network if look is None else look
    models = [network]
    if fitted:
        first = _fitted(first, judged, SIDES_PX if look is None else LOOK_SIDES_PX)
        if look is not None and network.any_size:
            models.append(
                network.sized(*(least_side(s, network.card.margin_px) for s in (network.card.input.height, network.card.input.width)))
            )
    mask, grid = judged.astype(np.uint8) * np.uint8(255), grid_of(judged, first.card)
    return Way(mask, (first,), None, grid) if look is None else Way(mask, tuple(models), first, grid, _counted(judged, grid, first.down))


def _counted(judged: NDArray[np.bool_], grid: tiles.Grid, down: int) -> tuple[NDArray[np.bool_], ...]:
    """Of each tile's answers, those that have something judged in the tile's core."""
    (h, w), margin, counted = grid.size, grid.margin, []
    for row, column in grid.corners.tolist():
        core = judged[row : row + h - 2 * margin, column : column + w - 2 * margin]
        tile = np.zeros((h, w), np.bool_)
        tile[margin : margin + core.shape[0], margin : margin + core.shape[1]] = core
        counted.append(np.asarray(tile.reshape(h // down, down, w // down, down).any(axis=(1, 3)), np.bool_))
    return tuple(counted)


def _ways(judged: NDArray[np.bool_] | None, network: networks.Model, look: networks.Model | None) -> Callable[[tuple[int, int]], Way]:
    """The way over rasters of a shape (H, W): the template's, or without a drawing that over all of a picture, kept for the last shapes."""
    if judged is not None:
        way = way_of(judged, network, look, fitted=True)
        return lambda _: way
    return lru_cache(KEPT_WAYS)(lambda shape: way_of(np.ones(shape, np.bool_), network, look))


def _fitted(network: networks.Model, judged: NDArray[np.bool_], sides_px: Sequence[int]) -> networks.Model:
    """The network for tiles that fit what is judged, where it takes any size and its margins leave something of these sides."""
    margin = network.card.margin_px
    if not network.any_size or max(sides_px) <= 2 * margin:
        return network
    return network.sized(*tiles.fitting(judged, margin, sides_px))


def least_side(side: int, margin: int) -> int:
    """About half of a tile's side, for what is seen alone: at least a cell within the margins, a multiple of `SIZE_STEP_PX`."""
    least = max(CELL_PX, side // 2 - 2 * margin) + 2 * margin
    return -(-least // networks.SIZE_STEP_PX) * networks.SIZE_STEP_PX


def run(image: Image, network: networks.Model, grid: tiles.Grid) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(class_map, score_map) uint8 (H, W) of a picture (H, W[, C]), 0 beyond the tiles.

    Tile by tile, and by all threads that are idle (`crew`): on a CPU a batch gains nothing and leaves the cache.
    """
    pictures = np.zeros((2, *grid.shape), np.uint8)

    def one(i: int) -> None:
        for picture, answer in zip(pictures, network.run(tiles.one(image, grid, i)[None]), strict=True):
            tiles.put(answer[0], picture, grid, i)

    crew.each(len(grid.corners), one)
    return pictures[0], pictures[1]


def defects(class_map: NDArray[np.uint8], score_map: NDArray[np.uint8], classes: Sequence[str]) -> list[Defect]:
    """What touches (8 neighbours) in a map (H, W) of classes 1…K: its class is the one that most of its score says.

    Only the box that has something in it is looked through: a clean part has none.
    """
    left, top, width, height = cv2.boundingRect(class_map)
    if not width:
        return []
    marked = (class_map[top : top + height, left : left + width] > 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[label])
        mine = labels[y : y + h, x : x + w] == label
        x, y = x + left, y + top
        said, scores = class_map[y : y + h, x : x + w], score_map[y : y + h, x : x + w]
        votes = np.bincount(said[mine], weights=scores[mine] + 1.0, minlength=len(classes) + 1)
        best = int(votes[1:].argmax()) + 1
        shares = {k: mine & (said == k) for k in range(1, len(classes) + 1) if k != best and votes[k]}
        others = [_defect(classes[k - 1], share, scores, (x, y)) for k, share in shares.items() if share.sum() >= LEAST_SHARE_RATIO * area]
        found.append(replace(_defect(classes[best - 1], mine, scores, (x, y)), others=tuple(others)))
    return found


def _defect(class_name: str, mine: NDArray[np.bool_], score_map: NDArray[np.uint8], at_px: tuple[int, int]) -> Defect:
    """The pixels `mine` (H, W) of a part of the map that begins at `at_px` (x, y), with their scores, as one defect."""
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    box = (at_px[0] + int(columns[0]), at_px[1] + int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    scores = np.where(mine, score_map, 0)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    return Defect(class_name, float(scores.max()) / 255.0, int(mine.sum()), box, (at_px[0] + int(column), at_px[1] + int(row)))
