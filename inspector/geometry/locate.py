"""Finds the part of a drawing in a picture, at any angle, and measures it.

How: a ½ pyramid; first guesses from silhouettes, and from edge directions when those do not convince (`coarse`); all guesses refined
together on a small level and scored by the share of the contour that they show (`refine`); near-symmetries told apart where the drawing
differs (`twins`); sub-pixel steps on the full picture against predicted profiles; the whole outline measured (`gauge`).
The full picture is only halved, and sampled along the normals of the contour.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.geometry import measure, oblique
from inspector.geometry.coarse import BASE_RADIUS_PX, Directions, Guess, from_silhouettes, large, silhouette_of
from inspector.geometry.gauge import Gauged
from inspector.geometry.measure import Scaled
from inspector.geometry.raster import apply
from inspector.geometry.refine import Level, edge_step, placement_matrix, profile_step, pyramid, resolved, seen
from inspector.geometry.shape import DEFAULT_BLUR_PX, F32, Samples, Shape, mirrored, of_use
from inspector.geometry.spin import is_mirrored
from inspector.geometry.twins import matches, resolve, turned
from inspector.records import ConfigError, Pose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.records import Contour, Floats, Image, Template

LEAST_SCORE_RATIO = 0.55
_CONVINCING = 0.90
_LIKELY = 0.6  # likeness of a blob that is refined before edge directions are asked
_LEAST_OF_BEST = 0.5  # of the likeness of the best guess by directions, for another to be refined
_SAME_BASE_PX, _SAME_RAD = 8.0, 0.045  # two guesses by directions, which go by steps of 5 px and 3°, are the same place and turn
_MIRROR_ASKED_BELOW = 0.985
_MIRROR_LEAD = 0.03
_SCALE_STEP = 1.04
_COARSE_STEP = 1.12
_LEAST_RADIUS_PX, _MOST_RADIUS_PX = 24.0, 6000.0
"""Half the diagonal of a part: for the smaller, pictures are enlarged without bound; for the larger, so is what is computed of the part."""

_MOST_UNSTEADY_PX = 1.5  # a real edge has 0.03 to 0.4, what texture shows for one 2.5 and more
_FAR_PX = 0.7  # from farther than that, predicted profiles do not lead to the edge in one step


@dataclass(frozen=True, slots=True)
class Located:
    """One part found: where it lies and, unless that was not asked for, what was measured on it, and how much CPU that took."""

    pose: Pose
    gauged: Gauged | None
    gauge_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A refined guess: placement of the base shape, sign, share of the contour seen, typical contrast of its edges in counts."""

    placement: Floats
    sign: float
    score: float
    contrast: float


def compile(template: Template, *, scale_px_per_mm: float | tuple[float, float] | None, perspective: bool = False) -> Locator:
    """A locator for the template's contours.

    `scale_px_per_mm`: known (it is then held, and a part that is too large as a whole measures so), a range (it is searched and fitted),
    or None (searched in all that fits the picture). With `perspective` a homography is fitted after the similarity. The pose of a part
    that is measured is that of the template's datum.
    Raises `ConfigError` E_TEMPLATE_EMPTY where the template has no closed contour, E_SCALE where the part would be too small or too large.
    """
    contours = tuple(c for c in template.contours if c.closed and len(c.points_mm) >= 3)
    if not contours:
        raise ConfigError("E_TEMPLATE_EMPTY", f"the template {template.name} has no closed contour to look for")
    across_mm = 2.0 * _radius_mm(contours)
    for scale in () if scale_px_per_mm is None else scale_px_per_mm if isinstance(scale_px_per_mm, tuple) else (scale_px_per_mm,):
        if not 2.0 * _LEAST_RADIUS_PX <= scale * across_mm <= 2.0 * _MOST_RADIUS_PX:
            text = f"{template.name}, {across_mm:.4g} mm across, would be {scale * across_mm:.3g} px large at {scale:.4g} px/mm; allowed: "
            least, most = 2.0 * _LEAST_RADIUS_PX / across_mm, 2.0 * _MOST_RADIUS_PX / across_mm
            sizes = f"{2 * _LEAST_RADIUS_PX:.0f} to {2 * _MOST_RADIUS_PX:.0f} px, {least:.4g} to {most:.4g} px/mm"
            raise ConfigError("E_SCALE", f"{text}{sizes} ({1 / most:.4g} to {1 / least:.4g} mm/px)")
    datum = tuple(i for i, c in enumerate(contours) if c.name in template.datum)
    return Locator(contours, scale_px_per_mm, perspective, datum)


def _radius_mm(contours: Sequence[Contour]) -> float:
    """How far the farthest point lies from the middle of the contours' box."""
    points = np.concatenate([c.points_mm for c in contours])
    return float(np.hypot(*(points - 0.5 * (points.min(axis=0) + points.max(axis=0))).T).max())


class Locator:
    """A drawing compiled for finding: immutable in effect; what depends on scale or blur is computed once when first met, and kept."""

    def __init__(
        self,
        contours: tuple[Contour, ...],
        scale_px_per_mm: float | tuple[float, float] | None,
        perspective: bool,
        datum: tuple[int, ...] = (),
    ) -> None:
        self.contours, self.perspective, self._datum = contours, perspective, datum
        self._known = float(scale_px_per_mm) if isinstance(scale_px_per_mm, int | float) else None
        self._range = scale_px_per_mm if isinstance(scale_px_per_mm, tuple) else None
        self._base = Shape(contours, BASE_RADIUS_PX / _radius_mm(contours))
        self._outline = silhouette_of(self._base)
        self._few = _for_small(self._base, 220, 600)
        self._fewest = of_use(large(self._base, self._base.samples(max(2.0, self._base.length_px / 120), most=300)), 300)
        self._directions = Directions(self._base, self._fewest)
        self._mirror_rival = _for_small(self._base, 140, 400)
        self._mirror = mirrored(self._mirror_rival)
        self._matches, self._mirrored = matches(self._base, self._outline)
        self._whitened = oblique.whitened(self._base) if perspective else None
        self._fines: dict[float, Scaled] = {}
        if self._known is not None:
            self._fine(self._known)

    def _fine(self, scale_px_per_mm: float) -> Scaled:
        """What is needed at this scale: exactly where it is known, else at the nearest step of 4 %."""
        scale = self._known or float(_SCALE_STEP ** round(math.log(scale_px_per_mm, _SCALE_STEP)))
        if scale not in self._fines:
            growth = scale / self._base.scale_px_per_mm
            near = self._matches * (growth, growth, 1.0)
            self._fines[scale] = measure.scaled(self.contours, scale, near, self._outline.roundness, self._datum)
        return self._fines[scale]

    # --- finding -------------------------------------------------------------------------------------------------------

    def find(
        self, image: NDArray[np.uint8], *, max_parts: int = 1, gauge: bool = True, shown: NDArray[np.uint8] | None = None
    ) -> tuple[Located, ...]:
        """The parts found in a picture uint8 (H, W[, 3]), best first; empty when there is none. Same picture, same answer, bit for bit.

        Where `shown` (H, W) is 0 nobody has seen anything, as beyond the picture's border.
        """
        grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        if min(grey.shape) < 32:
            return ()
        levels = pyramid(np.ascontiguousarray(grey), self._depth(grey), shown)
        if self._whitened is not None:
            return self._find_slanted(levels, self._whitened, max_parts, gauge)
        found = self._search(levels, max_parts)
        parts = [self._finish(levels, one, gauge) for one in found]
        return tuple(part for part in parts if part is not None)

    def _sizes(self, image: Image) -> tuple[float, float]:
        """The range of sizes of the base shape (full px per base px)."""
        scale = self._base.scale_px_per_mm
        if self._known is not None:
            return self._known / scale, self._known / scale
        if self._range is not None:
            return min(self._range) / scale, max(self._range) / scale
        longest = float(max(image.shape))
        return max(_LEAST_RADIUS_PX, 0.05 * longest) / BASE_RADIUS_PX, 0.75 * longest / BASE_RADIUS_PX

    def _depth(self, image: Image) -> int:
        largest = self._sizes(image)[1]
        return max(0, round(math.log2(largest)), round(math.log2(max(image.shape) / 320)))

    def _search(self, levels: Sequence[Level], max_parts: int) -> list[_Found]:
        low, high = self._sizes(levels[0].image)
        blobs = from_silhouettes(levels, self._base, self._outline, (low, high), max_parts)
        clear = [guess for guess in blobs if guess.likeness >= _LIKELY]
        found = self._refined(levels, clear, high > low, 3 * max_parts)
        chosen = self._apart(found, max_parts)
        if len(chosen) < max_parts or chosen[-1].score < _CONVINCING:
            count = 1 if high <= low else max(1, math.ceil(math.log(high / low) / math.log(_COARSE_STEP))) + 1
            guesses = [
                guess
                for size in np.geomspace(low, high, count)
                for guess in self._directions.guesses(levels, float(size), places=8 + 2 * max_parts, most=6 + 2 * max_parts)
            ]
            if count > 1:
                guesses = sorted(guesses, key=lambda g: -g.likeness)[: 30 + 10 * max_parts]
            least = _LEAST_OF_BEST * max((guess.likeness for guess in guesses), default=0.0)
            likely = self._distinct([guess for guess in guesses if guess.likeness >= least])
            found += self._refined(levels, likely + blobs[len(clear) :], True, 3 * max_parts)
            chosen = self._apart(found, max_parts)
            if len(chosen) < max_parts:
                kept = {id(guess) for guess in likely}
                found += self._refined(levels, [guess for guess in guesses if id(guess) not in kept], True, 3 * max_parts)
                chosen = self._apart(found, max_parts)
        return chosen

    def _refined(self, levels: Sequence[Level], guesses: Sequence[Guess], wide: bool, keep: int) -> list[_Found]:
        """All guesses refined on the level where the part's radius is about that of the base shape, and scored."""
        out: list[_Found] = []
        by_level: dict[int, list[Guess]] = {}
        for guess in guesses:
            by_level.setdefault(int(np.clip(round(math.log2(guess.placement[3])), 0, len(levels) - 1)), []).append(guess)
        for index, group in by_level.items():
            level, free = levels[index], self._known is None
            placements = np.array([g.placement for g in group])
            signs = np.array([g.sign for g in group], F32)
            if wide:  # from far: a third of the samples will do, and only what then looks good is worth more
                placements = edge_step(level, self._fewest, placements, signs, reach=14, step_px=1.5, limit_px=20.0, free_size=free)
                placements = edge_step(level, self._fewest, placements, signs, reach=10, step_px=1.0, limit_px=9.0, free_size=free)
                scores, _ = seen(level, self._fewest, _sane(placements), signs, within_px=3.0)
                kept = np.argsort(-scores, kind="stable")[: max(3, keep)]
                placements, signs = placements[kept], signs[kept]
            for reach, limit in ((7, 5.0),) if wide else ((8, 8.0), (6, 4.0)):
                placements = edge_step(level, self._few, _sane(placements), signs, reach=reach, step_px=1.0, limit_px=limit, free_size=free)
            placements = _sane(placements)
            scores, contrasts = seen(level, self._few, placements, signs)
            out += map(_Found, placements, signs.tolist(), scores.tolist(), contrasts.tolist())
        return out

    def _distinct(self, guesses: Sequence[Guess]) -> list[Guess]:
        """The guesses, best first, without those that are near-symmetries of a better one: these are told apart later."""
        chosen: list[Guess] = []
        taken = np.zeros((0, 4))
        for guess in guesses:
            x, y, turn, size = guess.placement
            off = np.hypot(taken[:, 0] - x, taken[:, 1] - y) < _SAME_BASE_PX * size
            off &= np.abs((taken[:, 2] - turn + math.pi) % math.tau - math.pi) < _SAME_RAD
            if not (off & (np.abs(taken[:, 3] - size) < 0.01 * size)).any():
                chosen.append(guess)
                taken = np.concatenate([taken, turned(guess.placement, self._matches)])
        return chosen

    def _apart(self, found: Sequence[_Found], most: int) -> list[_Found]:
        """The best of those that do not lie on each other."""
        chosen: list[_Found] = []
        for one in sorted(found, key=lambda f: -f.score):
            if one.score < LEAST_SCORE_RATIO or len(chosen) >= most:
                break
            if not any(self._overlap(one.placement, other.placement) > 0.3 for other in chosen):
                chosen.append(one)
        return chosen

    def _overlap(self, a: Floats, b: Floats) -> float:
        """Which share of the material at `a` lies on that at `b`, by the few samples drawn in by a few px."""
        points = self._few.points - 3.0 * self._few.normals
        c, s = math.cos(a[2]) * a[3], math.sin(a[2]) * a[3]
        picture = points @ np.array([[c, s], [-s, c]]) + a[:2]
        c, s = math.cos(b[2]) / b[3], math.sin(b[2]) / b[3]
        back = (picture - b[:2]) @ np.array([[c, -s], [s, c]])
        return float(self._base.material(back).mean())

    # --- the full picture ----------------------------------------------------------------------------------------------

    def _finish(self, levels: Sequence[Level], found: _Found, gauge: bool) -> Located | None:
        """Sub-pixel pose and measurements of one refined guess; None where it turns out to be the part's mirror image, or texture."""
        base_scale = self._base.scale_px_per_mm
        fine = self._fine(found.placement[3] * base_scale)
        ratio = base_scale / fine.shape.scale_px_per_mm
        placement = found.placement * (1.0, 1.0, 1.0, ratio)
        free, sign, signs = self._known is None, found.sign, np.array([found.sign], F32)
        placement, ambiguous = resolve(levels[0], fine.twins, placement, sign, found.contrast)
        placement = self._settled(levels[0], fine, placement, sign, once=gauge)
        small = placement * (1.0, 1.0, 1.0, 1.0 / ratio)
        level = levels[int(np.clip(round(math.log2(small[3])), 0, len(levels) - 1))]
        score = float(seen(level, self._few, small[None], signs)[0][0])
        if score < LEAST_SCORE_RATIO or self._is_mirrored(level, small, sign, score):
            return None
        if (
            score < _MIRROR_ASKED_BELOW
            and fine.twins.spin is not None
            and is_mirrored(levels[0], fine.twins.spin, placement, sign, found.contrast)
        ):
            return None
        if not gauge:
            return Located(_pose(fine.shape, placement, score, math.nan, ambiguous), None)
        start_ns = time.thread_time_ns()
        placement, gauged = measure.along(levels, fine, placement, sign, free_size=free)
        spent_ms = (time.thread_time_ns() - start_ns) / 1e6
        pose = _pose(fine.shape, placement, score, gauged.noise_mm, ambiguous)
        if score < _CONVINCING and measure.unsteadiness_mm(gauged) * pose.scale_px_per_mm > _MOST_UNSTEADY_PX:
            return None
        return Located(pose, gauged, spent_ms)

    def _settled(self, full: Level, fine: Scaled, placement: Floats, sign: float, *, once: bool) -> Floats:
        """The placement after sub-pixel steps: two, or `once` where measuring is a step of its own."""
        free, samples, rows = self._known is None, fine.pose.samples, fine.pose.rows(DEFAULT_BLUR_PX)
        after, moved_px = profile_step(full, samples, rows, placement, sign, free_size=free, last=False)
        if moved_px > _FAR_PX:
            signs = np.array([sign], F32)
            near = edge_step(full, fine.few, placement[None], signs, reach=6, step_px=1.0, limit_px=3.0, free_size=free)[0]
            after, _ = profile_step(full, samples, rows, near, sign, free_size=free, last=False)
        return after if once else profile_step(full, samples, rows, after, sign, free_size=free, last=True)[0]

    def _is_mirrored(self, level: Level, placement: Floats, sign: float, score: float) -> bool:
        """Whether the part's mirror image fits clearly better."""
        if score >= _MIRROR_ASKED_BELOW or not len(self._mirrored):
            return False
        asked = turned(placement, self._mirrored)
        signs = np.full(len(asked), sign, F32)
        for reach, limit in ((8, 6.0), (6, 3.0)):
            asked = edge_step(level, self._mirror, asked, signs, reach=reach, step_px=1.0, limit_px=limit, free_size=False)
        as_drawn = float(seen(level, self._mirror_rival, placement[None], signs[:1])[0][0])
        return float(seen(level, self._mirror, asked, signs)[0].max()) > max(score, as_drawn) + _MIRROR_LEAD

    # --- oblique views -------------------------------------------------------------------------------------------------

    def _find_slanted(self, levels: Sequence[Level], shape: oblique.Whitened, max_parts: int, gauge: bool) -> tuple[Located, ...]:
        """As `find`, with a homography: affine guesses from blobs, then from similarities; each fitted, scored, and the best kept."""
        level = min(levels, key=lambda one: abs(math.log(max(one.image.shape) / 500)))
        starts = oblique.guesses(level, self._base, shape, max_parts)[: 12 + 12 * max_parts]
        fits = [oblique.refined(levels, one, self._few, self._base.radius_px) for one in starts]
        chosen = self._views_apart(fits, max_parts)
        if not chosen or chosen[-1].score < _CONVINCING:
            similar = [
                oblique.Slanted(placement_matrix(f.placement), f.sign, f.score, np.zeros(2)) for f in self._search(levels, max_parts)
            ]
            fits += [oblique.refined(levels, one, self._few, self._base.radius_px) for one in similar]
            chosen = self._views_apart(fits, max_parts)
        return tuple(self._finish_slanted(levels, one, gauge) for one in chosen)

    def _views_apart(self, fits: Sequence[oblique.Slanted], most: int) -> list[oblique.Slanted]:
        """The best of those that do not lie on each other."""
        chosen: list[oblique.Slanted] = []
        inner = (self._few.points - 3.0 * self._few.normals).astype(np.float64)
        for one in sorted(fits, key=lambda f: -f.score):
            if one.score < LEAST_SCORE_RATIO or len(chosen) >= most:
                break
            backs = [apply(np.linalg.inv(other.view) @ one.view, inner) for other in chosen]
            if all(float(self._base.material(back).mean()) <= 0.3 for back in backs):
                chosen.append(one)
        return chosen

    def _finish_slanted(self, levels: Sequence[Level], found: oblique.Slanted, gauge: bool) -> Located:
        """The view fitted on the full picture, and the outline measured through it."""
        local = oblique.jacobian(found.view, np.zeros(2))
        fine = self._fine(math.sqrt(abs(float(np.linalg.det(local)))) * self._base.scale_px_per_mm)
        shrink = self._base.scale_px_per_mm / fine.shape.scale_px_per_mm
        to_base = np.diag([shrink, shrink, 1.0])
        start_ns = time.thread_time_ns()
        start = replace(found, view=found.view @ to_base, wall_px=found.wall_px / shrink)
        fit, gauged = measure.along_view(levels, fine, start)
        spent_ms = (time.thread_time_ns() - start_ns) / 1e6
        small = replace(fit, view=fit.view @ np.linalg.inv(to_base), wall_px=fit.wall_px * shrink)
        score = oblique.score(levels, small, self._few)
        return Located(_slanted_pose(fine.shape, fit.view, score, gauged.noise_mm), gauged if gauge else None, spent_ms)


def _slanted_pose(shape: Shape, view: Floats, score: float, residual_mm: float) -> Pose:
    """The homography in drawing millimetres, with the similarity that is nearest to it at the middle of the part."""
    to_model = np.array(
        [
            [shape.scale_px_per_mm, 0.0, -shape.scale_px_per_mm * shape.centre_mm[0]],
            [0.0, -shape.scale_px_per_mm, shape.scale_px_per_mm * shape.centre_mm[1]],
            [0.0, 0.0, 1.0],
        ]
    )
    matrix = view @ to_model
    local = oblique.jacobian(view, np.zeros(2))
    scale = math.sqrt(abs(float(np.linalg.det(local)))) * shape.scale_px_per_mm
    angle = -math.atan2(local[1, 0] - local[0, 1], local[0, 0] + local[1, 1])
    u, v = apply(view, np.zeros((1, 2)))[0]
    x, y = shape.centre_mm
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    homography = tuple(float(n) for n in (matrix / matrix[2, 2]).ravel())
    return Pose(float(u - (c * x - s * y)), float(v + (s * x + c * y)), angle, scale, score, residual_mm, False, homography)


def _for_small(base: Shape, count: int, most: int) -> Samples:
    """About `count` samples of the base shape, at most so many, where an edge can be seen at that size."""
    return of_use(resolved(base.samples(max(2.0, base.length_px / count), most=most), base), most)


def _sane(placements: Floats) -> Floats:
    """The placements, with sizes that no fit may leave."""
    out = placements.copy()
    np.clip(out[:, 3], 0.02, 50.0, out=out[:, 3])
    return out


def _pose(shape: Shape, placement: Floats, score: float, residual_mm: float, ambiguous: bool) -> Pose:
    """The placement in drawing millimetres."""
    x, y, turn, size = placement
    origin = shape.to_model(np.zeros((1, 2)))[0] * size
    c, s = math.cos(turn), math.sin(turn)
    angle = (-turn + math.pi) % math.tau - math.pi
    at = (float(x + c * origin[0] - s * origin[1]), float(y + s * origin[0] + c * origin[1]))
    return Pose(at[0], at[1], float(angle), float(size * shape.scale_px_per_mm), score, residual_mm, ambiguous)
