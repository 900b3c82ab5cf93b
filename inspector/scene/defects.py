"""Defects with physical sizes, and where they may be: edits of the outline, and changes of the surface's brightness.

Geometric defects return new contours, so that they are rendered as exactly as the part itself. Surface defects return a gain, a picture
patch by which the surface is multiplied, and the pixels that a network shall call defective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.records import Contour
from inspector.scene.look import DefectKind, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from inspector.records import Floats, Template

TRIES = 60


@dataclass(frozen=True, slots=True)
class Defect:
    """One known defect. `at_mm` its centre in the drawing; `size_mm` (along, across): a scratch's length and width, a dent's diameters,
    a burr's width and height, a hole's old and new diameter (as the drawing has it and as it is), a moved hole's diameter and way.
    `feature` is the contour that an outline defect spoils, else empty. `contrast_ratio` is the change of the surface's grey level (0 for
    the outline), `depth_um` the depth of a hollow that gives this contrast under light from 45°. `bbox_px` (x, y, w, h) in the picture.
    """

    kind: DefectKind
    at_mm: tuple[float, float]
    size_mm: tuple[float, float]
    feature: str = ""
    contrast_ratio: float = 0.0
    depth_um: float = 0.0
    bbox_px: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Mark:
    """A surface defect before it is painted: its outline in the drawing, and `paint` (X mm, Y mm, px mm, light rad) → (gain, mask).

    `paint` is given the drawing coordinates of the patch's pixels, the size of a pixel, and where the light comes from in the drawing; it
    returns the factor for the surface's grey level, float32, and which pixels are the defect, bool.
    """

    defect: Defect
    reach_mm: Floats
    paint: Callable[[NDArray[np.float32], NDArray[np.float32], float, float], tuple[NDArray[np.float32], NDArray[np.bool_]]]


def depth_mm(contours: Sequence[Contour], point_mm: tuple[float, float]) -> float:
    """Distance from a point to the nearest contour; negative inside the material."""
    inside, nearest = False, math.inf
    for contour in contours:
        d = cv2.pointPolygonTest(contour.points_mm.astype(np.float32), point_mm, True)
        inside ^= d > 0
        nearest = min(nearest, abs(d))
    return -nearest if inside else nearest


# --- the outline -------------------------------------------------------------------------------------------------------


def resampled(points_mm: Floats, step_mm: float) -> Floats:
    """The closed polygon with all its corners and no side longer than `step_mm`."""
    ends = np.roll(points_mm, -1, axis=0)
    counts = np.maximum(1, np.ceil(np.hypot(*(ends - points_mm).T) / step_mm)).astype(int)
    index = np.repeat(np.arange(len(points_mm)), counts)
    part = (np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[index]
    out: Floats = points_mm[index] + part[:, None] * (ends - points_mm)[index]
    return out


def _bumped(points_mm: Floats, at_mm: float, width_mm: float, height_mm: float, flat: bool, step_mm: float) -> tuple[Floats, Floats]:
    """The polygon with a bump of `height_mm` outward of the material around the arc length `at_mm`, and the bump's own points.

    The material lies to the left of the direction of travel (outer contours counter-clockwise, holes clockwise), so outward is right. The
    bump is a raised cosine, or flat with round shoulders. Its normal is the chord's, so that it does not fan out on curves.
    """
    dense = resampled(points_mm, step_mm)
    sides = np.hypot(*(np.roll(dense, -1, axis=0) - dense).T)
    length = float(sides.sum())
    along = np.concatenate([[0.0], np.cumsum(sides)[:-1]])
    t = ((along - at_mm + length / 2) % length - length / 2) / (width_mm / 2)
    touched = np.abs(t) < 1
    first, last = dense[touched][np.argmin(t[touched])], dense[touched][np.argmax(t[touched])]
    chord = last - first
    normal = np.array([chord[1], -chord[0]]) / max(float(np.hypot(*chord)), 1e-12)
    shape = np.clip((1 - np.abs(t)) * 3.0, 0, 1) if flat else 1 - np.abs(t)
    lift = np.where(touched, 0.5 - 0.5 * np.cos(np.pi * np.clip(shape, 0, 1)), 0.0) * height_mm
    out: Floats = dense + lift[:, None] * normal
    return out, out[touched]


def _at(points_mm: Floats, at_mm: float) -> tuple[Floats, Floats]:
    """Place and outward unit normal at an arc length of a closed polygon."""
    sides = np.roll(points_mm, -1, axis=0) - points_mm
    lengths = np.hypot(*sides.T)
    ends = np.cumsum(lengths)
    i = int(np.searchsorted(ends, at_mm % ends[-1], side="right")) % len(points_mm)
    part = (at_mm % ends[-1] - (ends[i] - lengths[i])) / max(lengths[i], 1e-12)
    direction = sides[i] / max(lengths[i], 1e-12)
    return points_mm[i] + part * sides[i], np.array([direction[1], -direction[0]])


EDGE: tuple[DefectKind, ...] = ("burr", "notch", "extra_material")
"""Outline defects of a place on an edge; the other ones are of a whole hole."""


def _edge(
    rng: np.random.Generator, contours: tuple[Contour, ...], kind: DefectKind, look: Look, mm_per_px: float, earlier: Sequence[Defect]
) -> tuple[tuple[Contour, ...], Defect, Floats] | None:
    """A burr, a notch or extra material somewhere along an edge that has room for it; None when no place was found."""
    whole = {d.feature for d in earlier if d.kind not in EDGE}
    lengths = [float(np.hypot(*(np.roll(c.points_mm, -1, axis=0) - c.points_mm).T).sum()) for c in contours]
    for _ in range(TRIES):
        i = int(rng.choice(len(contours), p=np.array(lengths) / sum(lengths)))
        contour = contours[i]
        sign = -1.0 if kind == "notch" else 1.0
        tolerance_mm = -contour.inward_mm if kind == "notch" else contour.outward_mm
        height_mm = max(tolerance_mm * rng.uniform(*look.beyond_tolerance_ratio), look.least_edge_px * mm_per_px * rng.uniform(1.0, 1.5))
        if kind == "extra_material":
            width_mm = max(height_mm * rng.uniform(3.0, 6.0), 16 * mm_per_px)
        else:
            width_mm = max(height_mm * rng.uniform(1.5, 3.0), 8 * mm_per_px)
        at_mm = rng.uniform(0, lengths[i])
        if lengths[i] < 4 * width_mm or contour.name in whole:
            continue
        foot, normal = _at(contour.points_mm, at_mm)
        _, normal_a = _at(contour.points_mm, at_mm - 0.7 * width_mm)
        _, normal_b = _at(contour.points_mm, at_mm + 0.7 * width_mm)
        if min(float(normal @ normal_a), float(normal @ normal_b)) < 0.75:
            continue  # a corner
        if any(math.dist(foot, d.at_mm) < width_mm + max(d.size_mm) for d in earlier if d.kind in EDGE):
            continue  # one would hide the other
        tip = foot + sign * 2 * height_mm * normal
        depth = sign * depth_mm(contours, (float(tip[0]), float(tip[1])))
        if depth < 1.5 * height_mm:
            continue  # no room: another edge is near
        points, bump = _bumped(contour.points_mm, at_mm, width_mm, sign * height_mm, kind == "extra_material", mm_per_px / 2)
        edited = (*contours[:i], replace(contour, points_mm=points, circle=None), *contours[i + 1 :])
        at = foot + sign * 0.5 * height_mm * normal
        return edited, Defect(kind, (float(at[0]), float(at[1])), (width_mm, height_mm), contour.name), bump
    return None


def _hole(
    rng: np.random.Generator, contours: tuple[Contour, ...], kind: DefectKind, look: Look, mm_per_px: float, earlier: Sequence[Defect]
) -> tuple[tuple[Contour, ...], Defect, Floats] | None:
    """A hole that is missing, of another size, or in another place; None for a part without a hole to spoil."""
    spoiled_names = {d.feature for d in earlier}
    islands = [c for c in contours if c.kind == "island"]
    holes = [
        i for i, c in enumerate(contours) if c.kind == "hole" and c.name not in spoiled_names and not any(_within(o, c) for o in islands)
    ]
    for i in rng.permutation(holes):
        contour = contours[int(i)]
        points = contour.points_mm
        x, y = points[:, 0], points[:, 1]
        across = x * np.roll(y, -1) - np.roll(x, -1) * y
        area = float(across.sum()) / 2
        centre = np.array([((x + np.roll(x, -1)) * across).sum(), ((y + np.roll(y, -1)) * across).sum()]) / (6 * area)
        at_mm = (float(centre[0]), float(centre[1]))
        radius_mm = math.sqrt(abs(area) / math.pi)
        if kind == "missing_hole":
            return (*contours[:i], *contours[i + 1 :]), Defect(kind, at_mm, (2 * radius_mm, 0.0), contour.name), points
        tolerance_mm = -contour.inward_mm if kind == "large_hole" else contour.outward_mm
        least_mm = look.least_edge_px / 2 * mm_per_px * rng.uniform(1.0, 1.5)
        by_mm = max(tolerance_mm * rng.uniform(*look.beyond_tolerance_ratio), least_mm)
        if kind == "moved_hole":
            turn = rng.uniform(0, 2 * math.pi)
            spoiled = points + by_mm * np.array([math.cos(turn), math.sin(turn)])
            size = (2 * radius_mm, by_mm)
        else:
            by_mm = by_mm if kind == "large_hole" else -by_mm
            spoiled = centre + (points - centre) * (1 + by_mm / radius_mm)
            size = (2 * radius_mm, 2 * (radius_mm + by_mm))
        others = [c for c in contours if c is not contour]
        if (
            abs(by_mm) > 0.6 * radius_mm
            or min(-depth_mm(others, (float(x), float(y))) for x, y in spoiled[:: max(1, len(spoiled) // 16)]) < by_mm
        ):
            continue
        changed = replace(contour, points_mm=spoiled, circle=None)
        return (*contours[:i], changed, *contours[i + 1 :]), Defect(kind, at_mm, size, contour.name), np.concatenate([points, spoiled])
    return None


def _extra_hole(
    rng: np.random.Generator, contours: tuple[Contour, ...], look: Look, mm_per_px: float, missing: Sequence[Contour]
) -> tuple[tuple[Contour, ...], Defect, Floats] | None:
    """A round hole where the drawing has none, as large as the smallest that a drill makes; None for a part without the room."""
    radius_mm = max(0.75, 4 * mm_per_px) * rng.uniform(1.0, 2.0)
    placed = _place(rng, (*contours, *missing), None, _circle(radius_mm, 48), 6 * mm_per_px)
    if placed is None:
        return None
    points, centre = placed
    diameter_mm = 2 * float(np.hypot(*(points[0] - centre)))
    hole = Contour("extra", "hole", contours[0].layer, points[::-1], True, 0.0, 0.0)
    return (*contours, hole), Defect("extra_hole", (float(centre[0]), float(centre[1])), (0.0, diameter_mm), "extra"), points


def _within(inner: Contour, outer: Contour) -> bool:
    x, y = inner.points_mm[0]
    return cv2.pointPolygonTest(outer.points_mm.astype(np.float32), (float(x), float(y)), False) > 0


def spoil_outline(
    rng: np.random.Generator,
    contours: tuple[Contour, ...],
    kind: DefectKind,
    look: Look,
    mm_per_px: float,
    *,
    drawing: Sequence[Contour] = (),
    earlier: Sequence[Defect] = (),
) -> tuple[tuple[Contour, ...], Defect, Floats] | None:
    """Contours with a geometric defect in them, the defect, and the points (N, 2) in mm that it spans; None where it fits nowhere.

    What the outline's `earlier` defects made of the `drawing` stays as they say: no hole is spoiled twice, none is drilled where one is
    missing, and on an edge they keep apart.
    """
    if kind == "extra_hole":
        missing = {d.feature for d in earlier if d.kind == "missing_hole"}
        return _extra_hole(rng, contours, look, mm_per_px, [c for c in drawing if c.name in missing])
    make = _edge if kind in EDGE else _hole
    return make(rng, contours, kind, look, mm_per_px, earlier)


# --- the surface -------------------------------------------------------------------------------------------------------


def _place(
    rng: np.random.Generator, contours: Sequence[Contour], template: Template | None, shape_mm: Floats, room_mm: float
) -> tuple[Floats, Floats] | None:
    """(`shape_mm` turned and moved to a random place where all of it lies in the material with `room_mm` to the edge, the place)."""
    outer = np.concatenate([c.points_mm for c in contours])
    low, high = outer.min(axis=0), outer.max(axis=0)
    for attempt in range(TRIES):
        centre = rng.uniform(low, high)
        turn = rng.uniform(0, 2 * math.pi)
        shape = shape_mm * (1 - 0.7 * attempt / TRIES)
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        points = centre + shape @ rotation
        ends = points[:: max(1, len(points) // 8)]
        if all(depth_mm(contours, (float(x), float(y))) < -room_mm for x, y in (centre, *ends)) and _in_zone(template, points):
            return points, centre
    return None


def _in_zone(template: Template | None, points_mm: Floats) -> bool:
    """All points in a zone of the surface that is inspected."""
    if template is None:
        return True
    u = np.rint((points_mm[:, 0] - template.origin_mm[0]) / template.mm_per_px).astype(int)
    v = np.rint((template.origin_mm[1] - points_mm[:, 1]) / template.mm_per_px).astype(int)
    height, width = template.zone.shape
    seen = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return bool(seen.all() and template.zone[v, u].all())


def _line(points: Floats, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance to an open polyline, and where along it (0 to 1) the nearest point lies."""
    distance = np.full(x.shape, np.inf, np.float32)
    along = np.zeros(x.shape, np.float32)
    sides = np.hypot(*np.diff(points, axis=0).T)
    starts = np.concatenate([[0.0], np.cumsum(sides)])
    for (ax, ay), (bx, by), start, side in zip(points[:-1], points[1:], starts[:-1], sides, strict=True):
        dx, dy = np.float32((bx - ax) / side), np.float32((by - ay) / side)
        px, py = x - np.float32(ax), y - np.float32(ay)
        t = np.clip(px * dx + py * dy, 0, np.float32(side))
        d = np.hypot(px - t * dx, py - t * dy)
        nearer = d < distance
        distance[nearer] = d[nearer]
        along[nearer] = (t[nearer] + np.float32(start)) / np.float32(starts[-1])
    return distance, along


def _stroke(distance: NDArray[np.float32], width_mm: float, px_mm: float) -> NDArray[np.float32]:
    """Share of a pixel that a stroke of this width covers, by the distance of its middle from the stroke's."""
    half = np.float32(width_mm / 2)
    p = np.float32(px_mm / 2)
    covered: NDArray[np.float32] = np.clip(np.minimum(distance + p, half) - np.maximum(distance - p, -half), 0, None) / (2 * p)
    return covered


def _scratch(rng: np.random.Generator, look: Look) -> tuple[Floats, float, dict[str, float]]:
    length_mm = rng.uniform(*look.scratch_length_mm)
    width_mm = rng.uniform(*look.scratch_width_mm)
    t = np.linspace(-0.5, 0.5, 6)
    bend = rng.uniform(-0.12, 0.12)
    points = length_mm * np.column_stack([t, bend * (4 * t * t - 1) + rng.normal(0, 0.004, 6)])
    sign = -1.0 if rng.random() < 0.5 else 1.0
    return points, width_mm, {"contrast": sign * rng.uniform(*look.scratch_contrast_ratio)}


def _crack(rng: np.random.Generator, look: Look) -> tuple[Floats, float, dict[str, float]]:
    length_mm = rng.uniform(*look.crack_length_mm)
    width_mm = rng.uniform(*look.crack_width_mm)
    n = 12
    wander = np.cumsum(rng.normal(0, 0.05, n))
    points = length_mm * np.column_stack([np.linspace(-0.5, 0.5, n), wander - wander.mean()])
    return points, width_mm, {"contrast": -rng.uniform(*look.crack_contrast_ratio)}


def _paint_line(points: Floats, width_mm: float, contrast: float, ridge: bool) -> Callable[..., tuple[Any, Any]]:
    """A stroke that tapers at its ends; a scratch throws up a ridge of the other brightness on one side."""

    def paint(x: NDArray[np.float32], y: NDArray[np.float32], px_mm: float, light_rad: float) -> tuple[Any, Any]:
        distance, along = _line(points, x, y)
        taper = np.clip(np.minimum(along, 1 - along) * 8 + 0.35, 0, 1)
        core = _stroke(distance, width_mm, px_mm) * taper
        gain = 1 + np.float32(contrast) * core
        if ridge:
            shift = np.float32(width_mm * 0.7)
            beside, _ = _line(points, x - shift * np.float32(math.cos(light_rad)), y - shift * np.float32(math.sin(light_rad)))
            gain -= np.float32(0.25 * contrast) * np.clip(_stroke(beside, width_mm * 0.5, px_mm) * taper - core, 0, 1)
        return gain, distance <= max(width_mm / 2, 0.75 * px_mm)

    return paint


def _paint_dent(centre: Floats, radii_mm: tuple[float, float], turn: float, contrast: float) -> Callable[..., tuple[Any, Any]]:
    """A shallow bowl under light from one side: one flank darker, the other brighter, strongest at half its radius."""

    def paint(x: NDArray[np.float32], y: NDArray[np.float32], px_mm: float, light_rad: float) -> tuple[Any, Any]:
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
        p, q = (c * dx + s * dy) / np.float32(radii_mm[0]), (c * dy - s * dx) / np.float32(radii_mm[1])
        towards = p * np.float32(math.cos(light_rad - turn)) + q * np.float32(math.sin(light_rad - turn))
        squared = p * p + q * q
        gain = 1 - np.float32(contrast * 2 * math.exp(0.5)) * towards * np.exp(-2 * squared)
        return gain, squared <= 1.2

    return paint


def _paint_stain(centre: Floats, radius_mm: float, waves: Floats, contrast: float) -> Callable[..., tuple[Any, Any]]:
    """A drop that dried: an uneven rim, darker towards its edge."""

    def paint(x: NDArray[np.float32], y: NDArray[np.float32], px_mm: float, light_rad: float) -> tuple[Any, Any]:
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        theta = np.arctan2(dy, dx)
        rim = np.ones_like(theta)
        for k, (a, phase) in enumerate(waves, start=2):
            rim += np.float32(a) * np.cos(k * theta + np.float32(phase))
        rho = np.hypot(dx, dy) / (np.float32(radius_mm) * rim)
        alpha = np.clip((1 - rho) / 0.12 + 0.5, 0, 1)
        gain = 1 + np.float32(contrast) * alpha * (0.75 + 0.25 * np.clip(rho, 0, 1) ** 4)
        return gain.astype(np.float32), rho <= 1

    return paint


def _paint_pit(centre: Floats, radius_mm: float, contrast: float) -> Callable[..., tuple[Any, Any]]:
    """A small hollow: dark inside, with a bright rim on the side away from the light."""

    def paint(x: NDArray[np.float32], y: NDArray[np.float32], px_mm: float, light_rad: float) -> tuple[Any, Any]:
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        rho = np.hypot(dx, dy)
        inside = np.clip((np.float32(radius_mm) - rho) / np.float32(px_mm) + 0.5, 0, 1)
        away = -(dx * np.float32(math.cos(light_rad)) + dy * np.float32(math.sin(light_rad))) / np.maximum(rho, 1e-6)
        rim = np.exp(-(((rho - np.float32(radius_mm)) / np.float32(0.35 * radius_mm)) ** 2)) * np.clip(away, 0, 1)
        return 1 - np.float32(contrast) * inside + np.float32(0.4 * contrast) * rim * (1 - inside), rho <= radius_mm + 0.3 * px_mm

    return paint


def _circle(radius_mm: float, sides: int = 8) -> Floats:
    t = np.arange(sides) * (2 * math.pi / sides)
    return radius_mm * np.column_stack([np.cos(t), np.sin(t)])


def mark_surface(
    rng: np.random.Generator, contours: Sequence[Contour], template: Template | None, kind: DefectKind, look: Look, mm_per_px: float
) -> Mark | None:
    """A surface defect somewhere in the material, in a zone where the template has zones; None where it fits nowhere."""
    room_mm = 4 * mm_per_px
    if kind in ("scratch", "crack"):
        shape, width_mm, more = (_scratch if kind == "scratch" else _crack)(rng, look)
        placed = _place(rng, contours, template, shape, room_mm + width_mm / 2)
        if placed is None:
            return None
        points, _ = placed
        length_mm = float(np.hypot(*np.diff(points, axis=0).T).sum())
        middle = points.mean(axis=0)
        reach = np.concatenate([points - width_mm, points + width_mm])
        depth_um = 500 * abs(more["contrast"]) * width_mm  # a groove with straight flanks
        defect = Defect(kind, (float(middle[0]), float(middle[1])), (length_mm, width_mm), "", more["contrast"], depth_um)
        return Mark(defect, reach, _paint_line(points, width_mm, more["contrast"], kind == "scratch"))
    ranges = {
        "dent": (look.dent_radius_mm, look.dent_contrast_ratio),
        "stain": (look.stain_radius_mm, look.stain_contrast_ratio),
        "pit": (look.pit_radius_mm, look.pit_contrast_ratio),
    }
    sizes, contrasts = ranges[kind]
    wanted_mm, contrast = rng.uniform(*sizes), rng.uniform(*contrasts)
    placed = _place(rng, contours, template, _circle(wanted_mm), room_mm)
    if placed is None:
        return None
    points, centre = placed
    radius_mm = float(np.hypot(*(points[0] - centre)))
    if kind == "dent":
        radii = (radius_mm, radius_mm * rng.uniform(0.7, 1.0))
        paint = _paint_dent(centre, radii, rng.uniform(0, math.pi), contrast)
        size, reach_mm = (2 * radii[0], 2 * radii[1]), 1.8 * radius_mm
    elif kind == "stain":
        waves = np.column_stack([rng.uniform(0, 0.14, 4) / np.arange(1, 5), rng.uniform(0, 2 * math.pi, 4)])
        contrast = -contrast
        paint = _paint_stain(centre, 0.8 * radius_mm, waves, contrast)
        size, reach_mm = (1.6 * radius_mm, 1.6 * radius_mm), 1.3 * radius_mm
    else:
        paint = _paint_pit(centre, radius_mm, contrast)
        size, reach_mm = (2 * radius_mm, 2 * radius_mm), 1.8 * radius_mm
    reach = centre + _circle(reach_mm)
    # A bowl of depth D, exp(−2ρ²) over ρ = r/R, is steepest at half its radius: there its slope is 2 exp(−½) D/R. A pit is a cone.
    depth_um = {"dent": 500 * math.exp(0.5), "pit": 1000.0, "stain": 0.0}[kind] * abs(contrast) * radius_mm
    return Mark(Defect(kind, (float(centre[0]), float(centre[1])), size, "", contrast, depth_um), reach, paint)
