"""Parts seen at an angle: a homography is fitted to the edges along all contours.

A *view* is a (3, 3) matrix, model px → picture px. First guesses are affine: blob and shape are both whitened (turned, by the square
roots of their covariances, into figures of equal spread in all directions); what is left between them is a rotation, found as in `coarse`.
Then Gauss–Newton along the normals: the edge of the model point p moves by v(p) = a + B p + p (h · p) in the model's frame, first with
h = 0 (affine), then with all eight numbers.

A thick part shows its side walls, as dark or bright as itself: on the side that faces the camera the edge seen is that of the lower face,
the upper one's moved by one and the same *wall* (model px). Where the normal n has n · wall > 0 the edge lies n · wall farther out; in
holes too. The wall is fitted with the rest, starting downwards in the picture (cameras stand upright).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.geometry.coarse import CIRCLE, RADII, Silhouette, otsu, rotations, silhouette
from inspector.geometry.refine import Level, sample, strongest_slopes, tukey
from inspector.geometry.shape import F32, Floats32, Samples, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.records import Floats

_STARTS_PER_BLOB = 8
_LEAST_BLOB_RATIO = 0.002  # of the picture
_MOST_SLANT = 6.0  # ratio of the axes of what a circle becomes
_STEPS_AFFINE = ((16, 1.5, 22.0), (12, 1.0, 12.0), (9, 1.0, 8.0))
_STEPS_ALL = ((9, 1.0, 7.0), (8, 1.0, 6.0), (7, 1.0, 5.0), (7, 1.0, 4.0), (6, 1.0, 4.0), (6, 1.0, 3.0))
_WITHIN_PX = 2.5  # of the base shape, about 2 % of the part's radius: side walls and bevels are no other part


@dataclass(frozen=True, slots=True)
class Whitened:
    """The base shape whitened: `root` (2, 2) with root · rootᵀ its covariance in px², its centroid, and the unrolled whitened shape."""

    root: Floats
    centroid_px: Floats
    outline: Silhouette


@dataclass(frozen=True, slots=True)
class Slanted:
    """A guess or a fit: the view (3, 3) of the base shape, the sign of its edges, the share of the contour seen, the wall (2,)."""

    view: Floats
    sign: float
    score: float
    wall_px: Floats


def whitened(shape: Shape) -> Whitened:
    """The shape, turned into one of equal spread in all directions."""
    extent = 2 * math.ceil(shape.radius_px) + 8
    grid = np.arange(extent) - extent / 2
    share = shape.material(np.stack(np.meshgrid(grid, grid), axis=2))
    centroid, covariance = _moments(share)
    root = _root(covariance)
    unrolled = _unroll(share, centroid, root)
    return Whitened(root, centroid - extent / 2, silhouette(unrolled, np.zeros(2), 1.0))


def _moments(mask: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Centroid (2,) and covariance (2, 2) of a picture's weight, in its px."""
    m = cv2.moments(np.ascontiguousarray(mask, F32))
    total = max(m["m00"], 1e-9)
    covariance = np.array([[m["mu20"], m["mu11"]], [m["mu11"], m["mu02"]]]) / total
    return np.array([m["m10"], m["m01"]]) / total, covariance


def _root(covariance: Floats) -> Floats:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors @ np.diag(np.sqrt(np.maximum(values, 1e-6))) @ vectors.T, np.float64)


_REACH = 3.2  # the unrolled picture goes to so many standard deviations


def _unroll(mask: NDArray[np.floating], centroid: Floats, root: Floats) -> Floats32:
    """The whitened picture about its centroid: one row a radius, one column a degree."""
    x, y = np.tensordot(root * _REACH / RADII, CIRCLE, 1) + centroid[:, None, None]
    return np.asarray(cv2.remap(np.ascontiguousarray(mask, F32), x.astype(F32), y.astype(F32), cv2.INTER_LINEAR), F32)


def guesses(level: Level, base: Shape, shape: Whitened, most: int) -> list[Slanted]:
    """Affine views from the blobs of the picture, the best covered first (`score` is intersection over union with the blob)."""
    black, sign = otsu(level.image)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(black, connectivity=8, ltype=cv2.CV_16U)
    out: list[Slanted] = []
    areas = stats[1:count, cv2.CC_STAT_AREA]
    for blob in 1 + np.argsort(-areas, kind="stable")[: 4 + 3 * most]:
        if stats[blob, cv2.CC_STAT_AREA] < _LEAST_BLOB_RATIO * level.image.size:
            break
        mask = (labels == blob).astype(F32)
        centroid, covariance = _moments(mask)
        linears = [*_rotations(mask, centroid, covariance, shape), *_tilts(covariance, shape)]
        x, y, w, h = stats[blob, :4].tolist()
        grid = np.stack(np.meshgrid(np.linspace(x - 2, x + w + 1, 72), np.linspace(y - 2, y + h + 1, 72)), axis=2).reshape(-1, 2)
        inside = cv2.remap(mask, grid[:, 0].astype(F32), grid[:, 1].astype(F32), cv2.INTER_LINEAR).ravel() > 0.5
        found = [(_overlap(base, linear, grid - centroid, shape.centroid_px, inside), linear) for linear in linears]
        for likeness, linear in sorted(found, key=lambda f: -f[0])[:_STARTS_PER_BLOB]:
            view = np.eye(3)
            view[:2, :2] = linear
            view[:2, 2] = centroid - linear @ shape.centroid_px
            out.append(Slanted(_to_full(level.factor) @ view, sign, likeness, np.zeros(2)))
    return sorted(out, key=lambda g: -g.score)


def _rotations(mask: Floats32, centroid: Floats, covariance: Floats, shape: Whitened) -> list[Floats]:
    """Linear maps (2, 2) of the shape that give the blob's covariance, at the likeliest rotations of the whitened figures."""
    root = _root(covariance)
    found = rotations(_unroll(mask, centroid, root), shape.outline, 4, least=math.inf)
    return [root @ _turned(turn) @ np.linalg.inv(shape.root) for turn, _ in found]


def _tilts(covariance: Floats, shape: Whitened) -> list[Floats]:
    """Linear maps of planes tilted by known angles, laid so that the long axis of shape and blob agree in direction and length.

    For long thick parts: their visible side walls spoil the blob's width, but not its long axis.
    """
    own = shape.root @ shape.root.T
    values, vectors = np.linalg.eigh(covariance)
    wanted = math.atan2(vectors[1, 1], vectors[0, 1])
    out: list[Floats] = []
    for tilt in np.radians((0.0, 25.0, 40.0, 50.0, 60.0)):
        for azimuth in np.radians(np.arange(0.0, 180.0, 22.5)) if tilt else (0.0,):
            across = np.array([[math.cos(azimuth)], [math.sin(azimuth)]])
            squeeze = np.eye(2) - (1 - math.cos(tilt)) * (across @ across.T)
            # where the long axis must point before the squeeze, to lie along the blob's afterwards
            before = np.linalg.solve(squeeze, np.array([math.cos(wanted), math.sin(wanted)]))
            own_axis = np.linalg.eigh(own)[1][:, 1]
            turn = math.atan2(before[1], before[0]) - math.atan2(own_axis[1], own_axis[0])
            for half in (0.0, math.pi):
                linear = squeeze @ _turned(turn + half)
                length = math.sqrt(float(np.linalg.eigvalsh(linear @ own @ linear.T)[1]))
                out.append(linear * math.sqrt(float(values[1])) / length)
    return out


def _turned(turn: float) -> Floats:
    c, s = math.cos(turn), math.sin(turn)
    return np.array([[c, -s], [s, c]])


def _overlap(base: Shape, linear: Floats, from_centre: Floats, centroid: Floats, inside: NDArray[np.bool_]) -> float:
    """Intersection over union of the blob and the shape under a linear map, on a grid about the blob's centre."""
    covered = base.material(from_centre @ np.linalg.inv(linear).T + centroid) > 0.5
    return float((covered & inside).sum()) / max(float((covered | inside).sum()), 1.0)


def _to_full(factor: float) -> Floats:
    """Level px → full px."""
    half = 0.5 * factor - 0.5
    return np.array([[factor, 0.0, half], [0.0, factor, half], [0.0, 0.0, 1.0]])


def look_through(level: Level, view: Floats, wall_px: Floats, design_px: Floats32, reach: int, step_px: float = 1.0) -> Floats32:
    """Grey values (2·reach + 1, n) along the normals of the model through a view, in steps of model px from the edge with its wall.

    `design_px` (5, n) as in `Samples`.
    """
    matrix = np.linalg.inv(_to_full(level.factor)) @ view
    px, py, _, nx, ny = design_px.astype(np.float64)
    wall = np.maximum(wall_px.astype(F32) @ design_px[3:], F32(0))  # how much farther out the edge is seen
    along = wall + (np.arange(-reach, reach + 1, dtype=F32) * F32(step_px))[:, None]
    x, y = px + nx * along, py + ny * along
    w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    w = np.where(np.abs(w) < 1e-9, 1e-9, w)
    u = (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / w
    v = (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / w
    return sample(level.image, np.clip(u, -1e4, 3e4).astype(F32), np.clip(v, -1e4, 3e4).astype(F32))


def design(samples: Samples, radius_px: float) -> Floats:
    """(n, 8): what the eight numbers (a, B by columns of x and y, h) do along the normals, with lengths in units of the radius."""
    x, y = (samples.points.astype(np.float64) / radius_px).T
    nx, ny = samples.normals.astype(np.float64).T
    along = nx * x + ny * y
    return np.column_stack([nx, ny, nx * x, nx * y, ny * x, ny * y, along * x, along * y])


@dataclass(frozen=True, slots=True)
class Stepped:
    """After one step: the view, the wall, and the shifts (n,) that are left."""

    view: Floats
    wall_px: Floats
    left_px: Floats32


def step(slanted: Slanted, samples: Samples, columns: Floats, shifts: Floats32, weights: Floats32, radius_px: float, count: int) -> Stepped:
    """Least squares of the first `count` (6 or 8) numbers of the view and of the wall."""
    wall = slanted.wall_px
    facing = (samples.normals @ (wall if wall.any() else down(slanted.view)).astype(F32) > 0)[:, None]
    used = np.concatenate([columns[:, :count], samples.normals * facing], axis=1)
    weighted = used * weights[:, None]
    normal = weighted.T @ used
    normal += np.diag(1e-6 * np.diagonal(normal) + 1e-9)
    normal[[-2, -1], [-2, -1]] += 1e-3 * float(weights.sum())
    solved = np.linalg.solve(normal, weighted.T @ shifts)
    a = np.zeros(8)
    a[:count] = solved[:-2]
    r = radius_px
    change = np.array([[1 + a[2] / r, a[3] / r, a[0]], [a[4] / r, 1 + a[5] / r, a[1]], [-a[6] / r**2, -a[7] / r**2, 1.0]])
    view = slanted.view @ change
    return Stepped(view / view[2, 2], wall + solved[-2:], np.asarray(shifts - used @ solved, F32))


def down(view: Floats) -> Floats:
    """The model's direction that is seen as straight down at the middle of the part, unit."""
    direction = np.linalg.solve(jacobian(view, np.zeros(2)), np.array([0.0, 1.0]))
    return np.asarray(direction / np.linalg.norm(direction), np.float64)


def refined(levels: Sequence[Level], guess: Slanted, samples: Samples, radius_px: float) -> Slanted:
    """The guess fitted to the edges on the level where the model's px is about a pixel, and scored."""
    now, columns = guess, design(samples, radius_px)
    for count, steps in ((6, _STEPS_AFFINE), (8, _STEPS_ALL)):
        for reach, step_px, limit in steps:
            level = _level_for(levels, now.view)
            if level is None:
                return replace(now, score=0.0)
            values = look_through(level, now.view, now.wall_px, samples.design, reach, step_px)
            places, sizes = strongest_slopes(values, now.sign)
            shifts = places * F32(step_px)
            typical = max(float(np.median(sizes)), 1e-6)
            base = samples.weight * np.clip(sizes / F32(typical), 0, F32(1.5))
            left = shifts
            for _ in range(2):
                after = step(now, samples, columns, shifts, np.asarray(base * tukey(left, limit), F32), radius_px, count)
                left = after.left_px
            now = replace(now, view=after.view, wall_px=after.wall_px)
    return replace(now, score=score(levels, now, samples))


def score(levels: Sequence[Level], slanted: Slanted, samples: Samples) -> float:
    """The share of the contour that shows an edge of the right sign within `_WITHIN_PX`; 0 for a view that no camera has."""
    level = _level_for(levels, slanted.view)
    if level is None:
        return 0.0
    places, sizes = strongest_slopes(look_through(level, slanted.view, slanted.wall_px, samples.design, 8), slanted.sign)
    rank = int(0.6 * len(sizes))
    typical = max(float(np.partition(sizes, rank)[rank]), 1e-3)
    good = (sizes > 0.35 * typical) & (np.abs(places) < _WITHIN_PX)
    return float(good @ samples.weight / max(float(samples.weight.sum()), 1.0))


def _level_for(levels: Sequence[Level], view: Floats) -> Level | None:
    """The level on which the view is about one to one; None for views that are degenerate, mirrored or too slanted."""
    if not np.isfinite(view).all() or abs(view[2, 0]) + abs(view[2, 1]) > 0.005:
        return None
    sizes = np.linalg.svd(jacobian(view, np.zeros(2)), compute_uv=False)
    if np.linalg.det(view[:2, :2]) <= 0 or sizes[0] > _MOST_SLANT * sizes[1]:
        return None
    size = math.sqrt(float(sizes[0] * sizes[1]))
    return min(levels, key=lambda one: abs(math.log(size / one.factor)))


def jacobian(view: Floats, point: Floats) -> Floats:
    """(2, 2): how picture px change with model px at a model point."""
    u, v, w = view @ (point[0], point[1], 1.0)
    top = view[:2, :2] * w - np.outer((u, v), view[2, :2])
    return np.asarray(top / w**2, np.float64)
