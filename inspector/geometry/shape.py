"""The drawing at one scale, ready to be compared with pictures: points along its contours and the grey profile each must show.

Model frame: px at the scale of the shape, y down, origin at `centre_mm` of the drawing. A picture edge is blurred by optics, pixel area
and interpolation; all three together are one Gaussian of `blur_px`. So the profile along the normal at a point is I(t) = a + b·m(t − d)
with m the blurred background share of the drawing itself (curvature, small holes, thin webs and corners included). Least squares of
a + b·m(t) − b·d·m′(t) gives two weight rows per point, computed once: contrast b = contrast_row · I and shift d = shift_row · I / b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry.coverage import levels
from inspector.geometry.polygon import Points, box, perimeter, turned_left

if TYPE_CHECKING:
    from inspector.records import Contour, Floats

F32 = np.float32
Floats32 = NDArray[np.float32]

PROFILE_REACH = 4  # px on either side of a point that its predicted profile spans
_BLUR_STEP = 1.06
_BETWEEN = 12  # steps between two of these
_MOST_KEPT = 8  # a line's optics blur all pictures much alike
DEFAULT_BLUR_PX = _BLUR_STEP**2
MOST_SAMPLES = 24_000  # cv2.remap wants sides below 32,767
_OVERSAMPLING = 2
_PAD_PX = 24
_STRIP_ROWS = 64
_CORNER_COSINE = 0.90  # a turn of more than 26° within ± 2 px is a corner
_WINDOW_PX = 2.6  # spread of the weights of a profile about its point


@dataclass(frozen=True, slots=True)
class Samples:
    """n points along the contours, in the model frame, one column each. All arrays are float32 but `contour`.

    `design` (5, n) is (x, y, 1, nx, ny): position, one, outward normal of the material. `lever` (4, n) is what the shift along the
    normal does per unit of (shift x, shift y, turn, growth); `products` (16, n) its products, for normal equations.
    `weight` is 0 within 2 px of a corner, else 1. `contour` (n,) indexes the contours of the shape.
    """

    design: Floats32
    lever: Floats32
    products: Floats32
    weight: Floats32
    contour: NDArray[np.intp]

    @property
    def points(self) -> Floats32:
        """(n, 2) px."""
        return self.design[:2].T

    @property
    def normals(self) -> Floats32:
        """(n, 2), unit, out of the material."""
        return self.design[3:].T

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True, slots=True)
class Rows:
    """Weights (2·PROFILE_REACH + 1, n) float32 of the predicted profiles, a row for each offset −PROFILE_REACH … PROFILE_REACH px."""

    contrast: Floats32
    shift: Floats32


def subset(samples: Samples, chosen: NDArray[np.intp]) -> Samples:
    """The samples of these indices."""
    design, lever, products = (np.take(each, chosen, axis=1) for each in (samples.design, samples.lever, samples.products))
    return Samples(design, lever, products, samples.weight[chosen], samples.contour[chosen])


def of_use(samples: Samples, most: int) -> Samples:
    """Those that have weight (all, where none has), a part of them where they are more than `most`: a thousand holes have a dozen each."""
    used = np.flatnonzero(samples.weight > 0)
    return subset(samples, used[:: len(used) // (most + 1) + 1]) if len(used) else samples


def thinned(samples: Samples, most: int) -> Samples:
    """So many of them, where they are more, evenly: steps of whole numbers would meet every hole at the same sides."""
    return samples if len(samples) <= most else subset(samples, np.arange(most) * len(samples) // most)


def mirrored(samples: Samples) -> Samples:
    """Those of the part's mirror image, left for right."""
    x, y, one, nx, ny = samples.design
    return _samples(np.stack([-x, y, one, -nx, ny]), samples.weight, samples.contour)


def _samples(design: NDArray[np.floating], weight: NDArray[np.floating], contour: NDArray[np.intp]) -> Samples:
    """From the design (5, n): with what shifts along the normals do, and its products."""
    x, y, _, nx, ny = design
    lever = np.stack([nx, ny, ny * x - nx * y, x * nx + y * ny])
    products = (lever[:, None] * lever[None]).reshape(16, -1)
    return Samples(design.astype(F32), lever.astype(F32), products.astype(F32), weight.astype(F32), contour)


class Shape:
    """The contours of a drawing at `scale_px_per_mm`, with coverage, samples, and profile rows per blur (kept once computed)."""

    def __init__(self, contours: Sequence[Contour], scale_px_per_mm: float) -> None:
        self.scale_px_per_mm = scale_px_per_mm
        low, high = box(np.concatenate([c.points_mm for c in contours]))
        self.centre_mm: Points = 0.5 * (low + high)
        ends = np.cumsum([len(c.points_mm) for c in contours])[:-1]
        every = self.to_model(np.concatenate(_material_left(contours)))
        self.contours_px = np.split(every, ends)
        self.radius_px = float(np.hypot(*every.T).max())
        low, high = box(every)
        self.low_px: Points = np.floor(low) - _PAD_PX
        span = np.ceil(high) + _PAD_PX - self.low_px
        self._fine_shape = (int(span[1]) * _OVERSAMPLING, int(span[0]) * _OVERSAMPLING)
        self.length_px = perimeter(*self.contours_px)
        self._fine = levels([c[::-1] for c in np.split(self._to_fine(every), ends)], self._fine_shape, turned=True)
        self.area_px2 = cv2.sumElems(self._fine)[0] / 255.0 / _OVERSAMPLING**2
        self._blurred: dict[float, Floats32] = {}
        self._rings: list[_Rings] = []

    def to_model(self, points_mm: Floats) -> Points:
        """Drawing mm → model px."""
        return np.asarray((points_mm - self.centre_mm) * (self.scale_px_per_mm, -self.scale_px_per_mm))

    def to_mm(self, points_px: NDArray[np.floating]) -> Points:
        """Model px → drawing mm."""
        return np.asarray(points_px, np.float64) / (self.scale_px_per_mm, -self.scale_px_per_mm) + self.centre_mm

    def _to_fine(self, points_px: Points) -> Points:
        return (points_px - self.low_px + 0.5) * _OVERSAMPLING - 0.5

    def blurred(self, blur_px: float) -> Floats32:
        """The fine raster of the material's share (0…1) as a picture of `blur_px` (total) shows it."""
        if blur_px not in self._blurred:
            # pixel area of the fine raster is already in the coverage: variance 1/12 of a fine pixel
            sigma = math.sqrt(max((blur_px * _OVERSAMPLING) ** 2 - 1 / 12, 0.04))
            size = 2 * math.ceil(4 * sigma) + 1
            soft = np.empty(self._fine.shape, F32)
            height, reach = len(soft), size // 2
            for top in range(0, height, _STRIP_ROWS):  # what lies in the processor's cache takes half the time
                low, high, bottom = max(top - reach, 0), min(top + _STRIP_ROWS + reach, height), min(top + _STRIP_ROWS, height)
                strip = cv2.GaussianBlur(self._fine[low:high].astype(F32), (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
                np.divide(strip[top - low : bottom - low], F32(255), out=soft[top:bottom])
            self._blurred.clear()  # one at a time: it is only needed to compute rows
            self._blurred[blur_px] = soft
        return self._blurred[blur_px]

    def material(self, points_px: NDArray[np.floating], blur_px: float = DEFAULT_BLUR_PX) -> Floats32:
        """The material's share (…) at model points (…, 2), blurred by `blur_px` (total)."""
        raster = self.blurred(blur_px)
        fine = self._to_fine(np.asarray(points_px, np.float64)).reshape(-1, 2).astype(F32)
        pad = -len(fine) % 256
        maps = np.concatenate([fine, np.zeros((pad, 2), F32)]).reshape(-1, 256, 2)
        pieces = [
            cv2.remap(raster, part[..., 0], part[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
            for part in np.array_split(maps, len(maps) // 30_000 + 1)
        ]
        return np.asarray(np.concatenate(pieces).ravel()[: len(fine)].reshape(points_px.shape[:-1]), F32)

    def samples(self, spacing_px: float, *, most: int = MOST_SAMPLES) -> Samples:
        """Points every `spacing_px` along every contour (at least 12 on each), wider apart where that would be more than `most`."""
        spacing = max(spacing_px, self.length_px / most)
        if not self._rings:
            self._rings.append(_Rings(self.contours_px))
        points, normals, weight, contour = self._rings[0].spaced(spacing)
        return _samples(np.stack([*points.T, np.ones(len(points)), *normals.T]), weight, contour)


class Profiles:
    """The samples of a shape with their weight rows, computed once for each step of blur."""

    def __init__(self, shape: Shape, samples: Samples) -> None:
        self.shape, self.samples = shape, samples
        self._rows: dict[int, Rows] = {}
        self._between: dict[int, Rows] = {}

    def rows(self, blur_px: float) -> Rows:
        """The weight rows for pictures of this blur (to half a percent), interpolated between two steps of 6 %."""
        fine = round(math.log(blur_px) / math.log(_BLUR_STEP) * _BETWEEN)
        step, part = divmod(fine, _BETWEEN)
        if part == 0:
            return self._at(step)
        if fine not in self._between:
            below, above, share = self._at(step), self._at(step + 1), F32(part / _BETWEEN)
            if len(self._between) >= _MOST_KEPT:
                self._between.pop(next(iter(self._between)))
            self._between[fine] = Rows(
                below.contrast + share * (above.contrast - below.contrast), below.shift + share * (above.shift - below.shift)
            )
        return self._between[fine]

    def _at(self, step: int) -> Rows:
        if step not in self._rows:
            self._rows[step] = self._compute(_BLUR_STEP**step)
        return self._rows[step]

    def _compute(self, blur_px: float) -> Rows:
        t = np.arange(-PROFILE_REACH, PROFILE_REACH + 1, dtype=np.float64)
        points, normals = self.samples.points.astype(np.float64)[:, None], self.samples.normals.astype(np.float64)[:, None]

        halves = np.arange(-PROFILE_REACH - 0.5, PROFILE_REACH + 1.0, 0.5)
        background = 1.0 - self.shape.material(points + halves[None, :, None] * normals, blur_px).astype(np.float64)
        slope = background[:, 2::2] - background[:, :-2:2]
        basis = np.stack([np.ones(slope.shape), background[:, 1::2], -slope], axis=2)
        weighted = basis * np.exp(-0.5 * (t / _WINDOW_PX) ** 2)[None, :, None]
        normal = np.einsum("njk,njl->nkl", weighted, basis) + 1e-9 * np.eye(3)
        solved = np.linalg.solve(normal, np.swapaxes(weighted, 1, 2))
        return Rows(np.ascontiguousarray(solved[:, 1].T, F32), np.ascontiguousarray(solved[:, 2].T, F32))


def _material_left(contours: Sequence[Contour]) -> list[Points]:
    """The contours' points (y up), running with the material on the left."""
    left = turned_left([c.points_mm for c in contours])
    holes = np.array([c.kind == "hole" for c in contours])
    return [c.points_mm if good else c.points_mm[::-1] for c, good in zip(contours, (left != holes).tolist(), strict=True)]


class _Rings:
    """Closed contours (y down, material on the left as seen with y up), one after another, by the length along them."""

    def __init__(self, contours: Sequence[Points]) -> None:
        rings = np.concatenate([part for c in contours for part in (c, c[:1])])
        last = np.cumsum([len(c) + 1 for c in contours]) - 1
        sides = np.hypot(*np.diff(rings, axis=0).T)
        sides[last[:-1]] = 1.0  # from ring to ring: nobody asks there
        self._at = np.concatenate([[0.0], np.cumsum(sides)])
        self._points = rings.view(np.complex128).ravel()  # x + iy: one search for both
        self._begins = self._at[np.concatenate([[0], last[:-1] + 1])]
        self._lengths = self._at[last] - self._begins

    def spaced(self, spacing: float) -> tuple[Points, Points, Points, NDArray[np.intp]]:
        """Evenly spaced points, outward normals, weights, and whose they are."""
        counts = np.maximum(12, np.rint(self._lengths / spacing).astype(np.intp))
        whose = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(whose)) - np.repeat(np.cumsum(counts) - counts, counts)
        length, begin = self._lengths[whose], self._begins[whose]
        where = (number + 0.5) * length / counts[whose]

        def place(s: Points) -> NDArray[np.complex128]:
            return np.asarray(np.interp(s % length + begin, self._at, self._points), np.complex128)

        here = place(where)
        step = np.minimum(0.25, length / 64)
        tangent = place(where + step) - place(where - step)
        tangent /= np.maximum(np.abs(tangent), 1e-12)
        arm = np.minimum(2.0, length / 16)
        ahead, behind = place(where + arm) - here, here - place(where - arm)
        cosine = (ahead * behind.conj()).real / np.maximum(np.abs(ahead) * np.abs(behind), 1e-12)
        corner_free = (cosine > _CORNER_COSINE).astype(np.float64)
        return _columns(here), np.column_stack([-tangent.imag, tangent.real]), corner_free, whose


def _columns(values: NDArray[np.complex128]) -> Points:
    """Complex numbers as points (n, 2)."""
    return np.ascontiguousarray(values).view(np.float64).reshape(-1, 2)
