"""A picture against the picture of a good one: what differs is a candidate, and a network, where there is one, names and judges it.

The reference is looked up by the part's own identity (`uid`), or is one picture for all. It is moved onto the picture, each place by its
own up to `align_px`: boards stretch, cameras and line scans are off by some pixels. What differs then by more than `threshold_grey`, and
is still there after an opening of `open_px` (which takes away the seams of edges that lie a pixel apart), is a difference; differences
nearer than `join_px` are one. But for those few pixels the two must lie on each other already: by the camera, or on the template's raster.

Findings: without a model one of the feature "difference", with a model one for each class, each with the whole area in px of the picture
(0 where there is none) against its limit; then one for each further difference. A picture of which more than `most_ratio` differs, or in
more places than are looked at, is not of the same thing: that is a finding of its own (`picture`, `places`).

    compare:
      kind: compare
      references: pictures/references
      name: "{uid}_temp.png"
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from inspector.config import Strict
from inspector.neural import model as networks
from inspector.neural import pictures, tiles
from inspector.records import ConfigError, Evidence, Finding, Image, View

if TYPE_CHECKING:
    from inspector.records import Plan

NEEDS_RASTER = True
DIFFERENCE, GOOD = "difference", "good"
MOST_DEFECTS = 16
CHANNELS = 4
ALIGN_PX = 8
AROUND_PX, ZONE_PX = 32, 7
REGION_STEP = 32
"""One region more is so many grey levels above 128 in a plane of `regions`."""
WINDOW_PX, APART_PX = 15, 21
"""A window of 15 × 15 px counts up to 225, which a byte holds."""
CELL_PX, ALIGN_STEPS = 32, 3
NO_EDGE = 4.0
"""Where the mean square of the gradient (grey per px at a quarter of the size) is less, shifts are held back."""
MOST_CANDIDATES = 256
"""A picture with more is another picture than its reference; it is judged by the first so many, and is bad."""


class Settings(Strict):
    """`references`: a folder, `name` a file in it with `{uid}` for the part's identity. Limits are areas in px."""

    references: Path
    name: str = Field(default="{uid}.png", min_length=1)
    align_px: int = Field(default=ALIGN_PX, ge=0, le=32)
    threshold_grey: int = Field(default=64, ge=1, le=254)
    open_px: int = Field(default=3, ge=1, le=31)
    join_px: int = Field(default=9, ge=0, le=127)
    least_px: int = Field(default=9, ge=1)
    limit_px: float = Field(default=0.0, ge=0)
    most_ratio: float = Field(default=0.25, gt=0, le=1)
    limits_px: dict[str, float] = Field(default_factory=dict)
    model: Path | None = None
    keep: int = Field(default=64, ge=1)
    threads: int = Field(default=1, ge=1, le=64)


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs: its class, score (ratio), area and box (x, y, w, h) in px."""

    class_name: str
    score: float
    area_px: int
    box_px: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Compare:
    """The check. `kept` holds the last `settings.keep` references read."""

    name: str
    settings: Settings
    model: networks.Model | None
    kept: OrderedDict[str, Image] = field(default_factory=OrderedDict)

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """(name, sha256) of the network, for the recipe."""
        return () if self.model is None else (self.model.name_and_hash,)

    def __call__(self, views: Sequence[View]) -> list[tuple[Finding, ...]]:
        """The findings of each view, in order. Raises `ConfigError` E_REFERENCE, E_IMG_* where a reference is missing or does not fit."""
        return [self._judge(view) for view in views]

    def _judge(self, view: View) -> tuple[Finding, ...]:
        image = np.ascontiguousarray(pictures.as_channels(view.image, 1))
        reference = self._reference(view.frame.stamp.uid, image.shape)
        s = self.settings
        reference = aligned(image, reference, s.align_px)
        opened = differing(image, reference, s.threshold_grey, s.open_px)
        places: Sequence[tuple[int, int]] = ()
        if self.model is None:
            found, classes = groups(opened, s.join_px, s.least_px), [DIFFERENCE]
        else:
            places = peaks(opened)
            found, classes = judged(self.model, image, reference, opened, places=places), self.model.card.classes[1:]
        findings = [finding for c in classes for finding in self._findings(c, [d for d in found if d.class_name == c])]
        # What no look at one place after the other can say: too much differs, or in too many places.
        if (ratio := float(opened.mean())) > s.most_ratio:
            findings.append(Finding(self.name, "picture", ratio, None, s.most_ratio, "ratio"))
        if len(places) >= MOST_CANDIDATES:
            findings.append(Finding(self.name, "places", float(len(places)), None, float(MOST_CANDIDATES - 1), "count"))
        return tuple(findings)

    def _reference(self, uid: str | None, shape: tuple[int, ...]) -> Image:
        """The reference (H, W) of the part; the last ones read are kept."""
        if uid is None and "{uid}" in self.settings.name:
            raise ConfigError("E_REFERENCE", "the part has no identity (uid) by which its reference could be found", key=self.name)
        file = self.settings.name.replace("{uid}", uid or "")
        if Path(file).name != file:
            raise ConfigError("E_REFERENCE", f"{file!r} is no plain file name", key=self.name)
        image = self.kept.get(file)
        if image is None:
            image = pictures.read(self.settings.references / file, 1)
            self.kept[file] = image
            while len(self.kept) > self.settings.keep:
                self.kept.popitem(last=False)
        if image.shape != shape:
            raise ConfigError("E_REFERENCE", f"{image.shape[1]} × {image.shape[0]} px for a picture of {shape[1]} × {shape[0]}", file=file)
        return image

    def _findings(self, class_name: str, found: list[Difference]) -> list[Finding]:
        """The findings of one class: the whole area, then the further differences, largest first."""
        limit = self.settings.limits_px.get(class_name, self.settings.limit_px)
        found = sorted(found, key=lambda d: (-d.area_px, d.box_px))
        if not found:
            return [Finding(self.name, class_name, 0.0, None, limit, "px")]
        threshold = 0.5 if self.model is None else self.model.card.threshold(class_name)
        findings = []
        for number, d in enumerate(found[: 1 + MOST_DEFECTS]):
            value = float(sum(each.area_px for each in found) if number == 0 else d.area_px)
            evidence = Evidence(d.class_name, d.score, threshold, d.box_px)
            feature = class_name if number == 0 else f"{class_name}-{number + 1}"
            findings.append(Finding(self.name, feature, value, None, limit, "px", None, evidence))
        return findings


def build(settings: Settings, name: str, plan: Plan) -> Compare:
    """Load the network. Raises `ConfigError`: E_REFERENCE where there is no such folder, E_MODEL_*, E_CFG_CLASS."""
    if not settings.references.is_dir():
        raise ConfigError("E_REFERENCE", f"{settings.references} is no folder", key=f"{name}.references")
    load = plan.load_model or networks.load
    network = None if settings.model is None else load(settings.model, threads=settings.threads, task="compare")
    known = [DIFFERENCE] if network is None else network.card.classes[1:]
    unknown = sorted(set(settings.limits_px) - set(known))
    if unknown:
        raise ConfigError("E_CFG_CLASS", f"limits for {unknown}; known are {known}", key=f"{name}.limits_px")
    return Compare(name, settings, network)


def aligned(image: Image, reference: Image, most_px: int = ALIGN_PX) -> Image:
    """The reference (H, W) moved onto the picture (H, W), by no more than `most_px` and never so that more differs than before.

    A field of shifts on a coarse grid, by least squares of the grey values over some 150 px around each of its places (Lucas and Kanade,
    1981), so that a defect, which is smaller, moves nothing; where there is no edge to go by, nothing is moved.
    """
    if not most_px or min(image.shape) < 4 * CELL_PX:
        return reference
    small, still = (cv2.GaussianBlur(_half(_half(each)), (5, 5), 0).astype(np.float32) for each in (image, reference))
    cells = (image.shape[1] // CELL_PX, image.shape[0] // CELL_PX)
    shift = np.zeros((2, cells[1], cells[0]), np.float32)
    for _ in range(ALIGN_STEPS):
        moved = _moved(still, shift)
        gx, gy = (cv2.Sobel(moved, cv2.CV_32F, *along, ksize=3, scale=1 / 8) for along in ((1, 0), (0, 1)))
        left = small - moved
        xx, xy, yy, xt, yt = (_around(product, cells) for product in (gx * gx, gx * gy, gy * gy, gx * left, gy * left))
        xx, yy = xx + NO_EDGE, yy + NO_EDGE
        shift += np.stack([yy * xt - xy * yt, xx * yt - xy * xt]) / (xx * yy - xy * xy)
        np.clip(shift, -most_px / 4, most_px / 4, out=shift)
    found = _moved(reference, shift * 4)
    return found if cv2.norm(image, found, cv2.NORM_L1) < cv2.norm(image, reference, cv2.NORM_L1) else reference


def _half(image: Image) -> Image:
    """The mean of each 2 × 2 px."""
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _moved(image: NDArray[Any], shift: NDArray[np.float32]) -> NDArray[Any]:
    """(H, W), each pixel from where a coarse field of shifts (2, h, w), x and y in px, says; outside, the border is repeated."""
    height, width = image.shape
    x, y = (cv2.resize(coarse, (width, height)) for coarse in shift)
    x += np.arange(width, dtype=np.float32)
    y += np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _around(values: NDArray[np.float32], cells: tuple[int, int]) -> NDArray[np.float32]:
    """The mean (rows, columns) of the values around each cell."""
    return np.asarray(cv2.blur(cv2.blur(cv2.resize(values, cells, interpolation=cv2.INTER_AREA), (5, 5)), (5, 5)), np.float32)


def differing(image: Image, reference: Image, threshold_grey: int = 64, open_px: int = 3) -> NDArray[np.uint8]:
    """0 or 1 (H, W): where the pictures (H, W) differ by more than the threshold, opened."""
    apart = cv2.threshold(cv2.absdiff(image, reference), threshold_grey, 1, cv2.THRESH_BINARY)[1]
    return np.asarray(cv2.morphologyEx(apart, cv2.MORPH_OPEN, np.ones((open_px, open_px), np.uint8)), np.uint8)


def groups(opened: NDArray[np.uint8], join_px: int, least_px: int) -> list[Difference]:
    """What lies together in a map of differences (H, W), as one class; the score is 1."""
    joined = opened if join_px < 2 else cv2.dilate(opened, np.ones((join_px, join_px), np.uint8))
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    if count < 2:
        return []
    rows, columns = np.nonzero(opened)
    of = labels[rows, columns]
    found = []
    for label in range(1, count):
        mine = of == label
        area = int(mine.sum())
        if area >= least_px:
            x, y = int(columns[mine].min()), int(rows[mine].min())
            box = (float(x), float(y), float(columns[mine].max() - x + 1), float(rows[mine].max() - y + 1))
            found.append(Difference(DIFFERENCE, 1.0, area, box))
    return found


def regions(image: Image, reference: Image, opened: NDArray[np.uint8]) -> list[Image]:
    """Two planes (H, W): at each difference, how many dark and how many light regions it adds or takes; 128 is none.

    A cut track is one dark region more and one light region less, a bridge the reverse, an island one more: what a defect does to what is
    connected holds on a product never seen, where a small network that looks at pixels overlooks a link of one pixel. Dark and light part
    at Otsu's threshold of the reference; regions are those that touch the difference, within `AROUND_PX` around it.
    """
    level = cv2.threshold(reference, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    zones = cv2.dilate(opened, np.ones((ZONE_PX, ZONE_PX), np.uint8))
    rims, _ = cv2.findContours(zones, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    planes = [np.full(image.shape, 128, np.uint8) for _ in range(2)]
    for rim in sorted(rims, key=len, reverse=True)[:MOST_CANDIDATES]:
        x, y, w, h = cv2.boundingRect(rim)
        left, top = max(x - AROUND_PX, 0), max(y - AROUND_PX, 0)
        place = np.s_[top : y + h + AROUND_PX, left : x + w + AROUND_PX]
        zone = cv2.drawContours(np.zeros(image[place].shape, np.uint8), [rim], -1, 1, cv2.FILLED, offset=(-left, -top)) > 0
        for plane, kind in zip(planes, (cv2.THRESH_BINARY_INV, cv2.THRESH_BINARY), strict=True):
            more = _touching(image[place], level, kind, zone) - _touching(reference[place], level, kind, zone)
            plane[place][zone] = 128 + REGION_STEP * int(np.clip(more, -3, 3))
    return planes


def _touching(image: Image, level: float, kind: int, zone: NDArray[np.bool_]) -> int:
    """How many regions, dark or light by `kind`, have at least 4 px in the zone."""
    _, labels = cv2.connectedComponents(cv2.threshold(image, level, 1, kind)[1], connectivity=8)
    return int(np.count_nonzero(np.bincount(labels[zone], minlength=1)[1:] >= 4))


def planes(image: Image, reference: Image, opened: NDArray[np.uint8], channels: int) -> list[Image]:
    """What a network of so many channels looks at, each (H, W): the picture, the reference and, of 4 channels, the `regions`."""
    return [image, reference, *(regions(image, reference, opened) if channels == CHANNELS else ())]


def peaks(opened: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """(row, column) of the places where most differs: the maxima, `APART_PX` apart, of the differing pixels in a window; densest first."""
    density = cv2.boxFilter(opened, -1, (WINDOW_PX, WINDOW_PX), normalize=False, borderType=cv2.BORDER_CONSTANT)
    highest = cv2.compare(density, cv2.dilate(density, np.ones((APART_PX, APART_PX), np.uint8)), cv2.CMP_EQ)
    rims, _ = cv2.findContours(cv2.bitwise_and(highest, density), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [(round(float(y)), round(float(x))) for x, y in (rim.mean(axis=(0, 1)) for rim in rims)]
    return sorted(found, key=lambda at: -int(density[at]))[:MOST_CANDIDATES]


def compared(model: networks.Model, image: Image, reference: Image, least_score: float | None = None) -> list[Difference]:
    """What the network finds in a picture against its reference, both (H, W), with the defaults of `Settings`; see `judged`."""
    reference = aligned(image, reference)
    return judged(model, image, reference, differing(image, reference), least_score=least_score)


def judged(
    model: networks.Model,
    image: Image,
    reference: Image,
    opened: NDArray[np.uint8],
    *,
    least_score: float | None = None,
    places: Sequence[tuple[int, int]] | None = None,
) -> list[Difference]:
    """What the network says of each candidate: class, score, box; overlapping answers of one class are one, the surest.

    `least_score` replaces the card's thresholds, and gives every class of a place, not the `surest` (to measure a model); `places` are the
    candidates, None: the `peaks`.
    """
    card = model.card
    size, limits = (card.input.height, card.input.width), np.array(image.shape[::-1] * 2, np.float64)
    seen, found = planes(image, reference, opened, card.input.channels), []
    for row, column in peaks(opened) if places is None else places:
        window = np.dstack([tiles.crop(each, (row, column), size) for each in seen])
        scores, boxes = model.run(window[None])
        corner = (column - size[1] // 2, row - size[0] // 2)
        x0, y0, x1, y1 = (float(v) for v in (boxes[0] + np.array(corner * 2)).clip(0, limits))
        if not (x1 > x0 and y1 > y0):
            continue
        area = max(int(opened[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].sum()), 1)
        for name, score in zip(card.classes[1:], scores[0, 1:], strict=True):
            if score >= (card.threshold(name) if least_score is None else least_score):
                found.append(Difference(name, float(score), area, (x0, y0, x1 - x0, y1 - y0)))
    found = suppressed(found)
    return surest(found) if least_score is None else found


def suppressed(found: Sequence[Difference], most_iou: float = 0.3) -> list[Difference]:
    """Without those of the same class that overlap a surer one by more than `most_iou`."""
    kept: list[Difference] = []
    for d in sorted(found, key=lambda d: (-d.score, d.box_px)):
        if all(d.class_name != other.class_name or iou(d.box_px, other.box_px) <= most_iou for other in kept):
            kept.append(d)
    return kept


def surest(found: Sequence[Difference], most_iou: float = 0.7) -> list[Difference]:
    """Without those that say another class than a surer one of the very same place: that overlaps by more than `most_iou`."""
    kept: list[Difference] = []
    for d in sorted(found, key=lambda d: (-d.score, d.box_px)):
        if all(d.class_name == other.class_name or iou(d.box_px, other.box_px) <= most_iou for other in kept):
            kept.append(d)
    return kept


def iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0.0) * max(h, 0.0)
    return both / (a[2] * a[3] + b[2] * b[3] - both) if both > 0 else 0.0
