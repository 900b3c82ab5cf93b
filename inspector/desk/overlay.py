"""The drawing laid over a part's picture: outlines, findings and defects in the picture's own pixels, ready for an SVG of its size.

Where the camera is calibrated, judging was done in the straightened picture, and what is shown is the raw one: all is bent as that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.desk.state import Defect, Exposure, Part
from inspector.geometry import calibrate, polygon, raster
from inspector.records import Calibration, Contour, Pose

if TYPE_CHECKING:
    from inspector.records import Floats

LEAST_STEP_PX = 0.7
CLOSE_UP_PX = 60.0
MOST_CLOSE_UPS = 6
SIDE_PIECES = 16
"""Of so many straight pieces is the side of a box, or a line of the drawing as long as the part, where straight lines are bent."""


@dataclass(frozen=True, slots=True)
class Outline:
    """One contour as an SVG path; `bad`: one of its findings is out of limits."""

    name: str
    kind: str
    path: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Marker:
    """Where finding number `index` of the table is."""

    index: int
    x: float
    y: float
    ok: bool
    label: str


@dataclass(frozen=True, slots=True)
class Box:
    """A defect's box as an SVG path, and the upright rectangle around that."""

    path: str
    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class CloseUp:
    """A piece of the picture to show large: the SVG view box, and what is there."""

    view_box: str
    label: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """All that is drawn over a picture of `width` × `height` pixels; `line` is a line width that suits its size."""

    width: int
    height: int
    line: float
    outlines: tuple[Outline, ...]
    markers: tuple[Marker, ...]
    boxes: tuple[Box, ...]
    close_ups: tuple[CloseUp, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """A recipe's drawing in mm (y turned down) with the places where its parts failed: (x, y, what)."""

    recipe: str
    view_box: str
    line: float
    outlines: tuple[Outline, ...]
    dots: tuple[tuple[float, float, str], ...]
    parts: int


def places(recipe: str, contours: Sequence[Contour], parts: Sequence[Part]) -> Places | None:
    """Where the rejects of one recipe failed, on its drawing; None when none of them says where."""
    mine = [p for p in parts if recipe in (p.recipe_name, *(e.recipe_name for e in p.exposures))]
    dots = tuple(
        (round(f.at_mm[0], 3), round(-f.at_mm[1], 3), f"part {p.part_seq}, {f.name}")
        for p in mine
        for f in p.failed
        if f.at_mm and p.recipe_of(f.camera) == recipe
    )
    if not dots or not contours:
        return None
    points = np.concatenate([c.points_mm for c in contours])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    side = max(x1 - x0, y1 - y0)
    room = 0.06 * side
    box = f"{x0 - room:.4g} {-y1 - room:.4g} {x1 - x0 + 2 * room:.4g} {y1 - y0 + 2 * room:.4g}"
    outlines = tuple(Outline(c.name, c.kind, path_of(c.points_mm * (1, -1), least_step=side / 400), False) for c in contours)
    return Places(recipe, box, float(f"{side / 220:.3g}"), outlines, dots, len(mine))


def pose_of(said: Mapping[str, Any] | None) -> Pose | None:
    """The pose in an event, or None where there is none to be used."""
    if said is None:
        return None
    try:
        x, y, angle, scale = (float(said[k]) for k in ("x_px", "y_px", "angle_rad", "scale_px_per_mm"))
        homography = None if said.get("homography") is None else tuple(float(v) for v in said["homography"])
        pose = Pose(x, y, angle, scale, score_ratio=0.0, residual_mm=0.0, homography=homography)
    except (KeyError, TypeError, ValueError):
        return None
    numbers = pose.homography or (pose.x_px, pose.y_px, pose.angle_rad, pose.scale_px_per_mm)
    return pose if np.isfinite(numbers).all() and len(numbers) in (4, 9) else None


def path_of(points: Floats, *, least_step: float, closed: bool = True) -> str:
    """An SVG path through the points (N, 2) without those that lie closer to the last than `least_step`."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if not kept or abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= least_step:
            kept.append((float(x), float(y)))
    digits = 1 if least_step > 0.3 else 4
    return "M" + "L".join(f"{x:.{digits}f} {y:.{digits}f}" for x, y in kept) + ("Z" if closed else "")


def overlay(
    part: Part, size: tuple[int, int], contours: Sequence[Contour], calibration: Calibration | None = None, view: Exposure | None = None
) -> Overlay:
    """What is drawn over the part's picture of `size` (width, height) px; without a usable pose only the defects' boxes.

    `calibration` is the one by which the picture was straightened before it was judged. `view`: the picture is that of this one of several
    cameras, and only what that has found is drawn, with the numbers that it has among all findings.
    """
    width, height = size
    pose = pose_of(part.pose if view is None else view.pose)
    line = max(1.0, max(width, height) / 640)
    mine = [(i, f) for i, f in enumerate(part.findings, 1) if view is None or f.camera == view.camera]
    bad = {f.feature.split(".")[0] for _, f in mine if not f.ok}
    outlines: tuple[Outline, ...] = ()
    markers: tuple[Marker, ...] = ()
    if pose is not None:
        outlines = tuple(
            Outline(c.name, c.kind, path_of(points, least_step=LEAST_STEP_PX * line), c.name in bad)
            for c, points in zip(contours, _outlines(contours, pose, calibration), strict=True)
        )
        found = [(i, f, f.at_mm) for i, f in mine if f.at_mm is not None]
        markers = tuple(Marker(i, *_point(at_mm, pose, calibration), f.ok, f.name) for i, f, at_mm in found)
    defects = [d for d in part.defects if view is None or d.camera == view.camera]
    boxes = tuple(_box(d, d.bbox_px, markers, calibration) for d in defects if d.bbox_px is not None)
    markers = tuple(m for m in markers if not any(_within(m, box) for box in boxes))
    return Overlay(width, height, round(line, 2), outlines, markers, boxes, tuple(_close_ups(markers, boxes, line)))


def _outlines(contours: Sequence[Contour], pose: Pose, calibration: Calibration | None) -> Iterator[Floats]:
    """The contours' points (N, 2) in the raw picture."""
    if calibration is None:
        yield from (raster.to_picture(c.points_mm, pose) for c in contours)
        return
    step_mm = max((float(np.ptp(c.points_mm, axis=0).max()) for c in contours), default=1.0) / SIDE_PIECES
    for c in contours:
        yield calibrate.as_taken(raster.to_picture(polygon.finely(c.points_mm, step_mm), pose), calibration)


def _box(defect: Defect, bbox_px: Sequence[float], markers: Sequence[Marker], calibration: Calibration | None) -> Box:
    """The defect's box; a finding that lies in it gives it its number, and needs no mark of its own."""
    x, y, width, height = bbox_px
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    if calibration is not None:
        step = max(float(np.ptp(corners, axis=0).max()), 1.0) / SIDE_PIECES
        corners = calibrate.as_taken(polygon.finely(corners, step), calibration)
        (x, y), (width, height) = corners.min(axis=0).tolist(), np.ptp(corners, axis=0).tolist()
    label = defect.class_name if defect.score is None else f"{defect.class_name} {defect.score:.2f}"
    box = Box(path_of(corners, least_step=0.0), x, y, width, height, label)
    mine = next((m.index for m in markers if not m.ok and _within(m, box)), None)
    return box if mine is None else replace(box, label=f"{mine}: {label}")


def _within(marker: Marker, box: Box) -> bool:
    return box.x - 2 <= marker.x <= box.x + box.width + 2 and box.y - 2 <= marker.y <= box.y + box.height + 2


def _point(at_mm: tuple[float, float], pose: Pose, calibration: Calibration | None) -> tuple[float, float]:
    judged = raster.to_picture([at_mm], pose)
    ((x, y),) = judged if calibration is None else calibrate.as_taken(judged, calibration)
    return round(float(x), 1), round(float(y), 1)


def _close_ups(markers: Sequence[Marker], boxes: Sequence[Box], line: float) -> list[CloseUp]:
    """The places that made the part a reject, a few of them, each large enough to see."""
    side = CLOSE_UP_PX * line
    found = [(m.x, m.y, side, f"{m.index}: {m.label}") for m in markers if not m.ok]
    found += [(b.x + b.width / 2, b.y + b.height / 2, max(side, 1.25 * max(b.width, b.height)), b.label) for b in boxes]
    found = [f for i, f in enumerate(found) if all(math.dist(f[:2], before[:2]) > side / 10 for before in found[:i])]
    return [CloseUp(f"{x - wide / 2:.1f} {y - wide / 2:.1f} {wide:.1f} {wide:.1f}", label) for x, y, wide, label in found[:MOST_CLOSE_UPS]]
