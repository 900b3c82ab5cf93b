"""First guesses of where the part lies, all rotations at once: from its silhouette, or from the directions of its edges.

*Silhouettes*: Otsu's threshold on a picture of about 320 px, blobs of a plausible area, the blob unrolled about its centroid, and one
correlation by FFT over the angle, summed over the radius. A third of a millisecond, wherever the part stands out as one blob.

*Directions*: the unit-like gradient g / (|g| + 2·median|g|) as a complex picture in which the part's radius is 13 px, correlated by FFT
with the outward normals of the contour at 64 rotations; then at the best places 180 rotations by look-up at twice the size. Needs no
threshold and bears texture, low contrast, clutter and covers.

Placements (see `refine`) refer to a base shape whose radius is about `BASE_RADIUS_PX`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.geometry.refine import Level, resolved
from inspector.geometry.shape import F32, PROFILE_REACH, Floats32, Samples, Shape

if TYPE_CHECKING:
    from inspector.records import Floats, Image

BASE_RADIUS_PX = 130.0
_SMALL_PX = 320
ANGLES, RADII = 360, 48
_FIRST_RADIUS_PX, _FIRST_ROTATIONS = 13.0, 64
_SECOND_RADIUS_PX, _SECOND_ROTATIONS = 26.0, 180
_MOST_BLOBS = 400
_LARGE_PX = 3.0  # of the base shape
_DOUBTFUL = 0.6  # likeness below which the islands of a blob are looked at, too


@dataclass(frozen=True, slots=True)
class Guess:
    """A placement (4,) of the base shape, +1 or −1 for a background brighter or darker than the part, and how alike it looked (0…1)."""

    placement: Floats
    sign: float
    likeness: float


@dataclass(frozen=True, slots=True)
class Silhouette:
    """The base shape unrolled about its centroid: one row a degree, one column a radius.

    `spectrum`: conjugate, over the angle, weighted by the radius; `norm` of it; `roundness` is 1 for discs and rings.
    """

    centroid_px: Floats
    reach_px: float
    spectrum: NDArray[np.complex64]
    norm: float
    roundness: float
    unrolled: Floats32


_RADIUS_WEIGHT = (np.arange(RADII) + 0.5)[None].astype(F32)


def silhouette_of(shape: Shape) -> Silhouette:
    """The unrolled shape, computed from its own coverage."""
    extent = 2 * math.ceil(shape.radius_px) + 8
    grid = np.arange(extent) - extent / 2
    points = np.stack(np.meshgrid(grid, grid), axis=2)
    share = shape.material(points)
    total = float(share.sum())
    centroid = np.array([float((share * points[..., i]).sum()) / total for i in (0, 1)])
    reach = float(max(np.hypot(*(c - centroid).T).max() for c in shape.contours_px)) + 2.0
    centre = (float(centroid[0] + extent / 2), float(centroid[1] + extent / 2))
    flags = cv2.WARP_POLAR_LINEAR | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
    unrolled = cv2.warpPolar(share, (RADII, ANGLES), centre, reach, flags)
    return silhouette(np.asarray(unrolled, F32), centroid, reach)


def silhouette(unrolled: Floats32, centroid_px: Floats, reach_px: float) -> Silhouette:
    """An unrolled shape, ready to be correlated."""
    level = unrolled - unrolled.mean(axis=0, keepdims=True)
    norm = float(np.sqrt((level * level * _RADIUS_WEIGHT).sum()))
    spectrum = np.conj(np.fft.rfft(level * _RADIUS_WEIGHT, axis=0)).astype(np.complex64)
    ring = float(np.sqrt((unrolled * unrolled * _RADIUS_WEIGHT).sum()))
    return Silhouette(centroid_px, reach_px, spectrum, norm, 1.0 - (norm / max(ring, 1e-9)) ** 2, unrolled)


def otsu(image: Image) -> tuple[Image, float]:
    """The picture's parts white on black, and +1 where its background (most of the border) is brighter than they are, else −1."""
    _, found = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    black = np.asarray(found, np.uint8)
    border = float(black[0].mean() + black[-1].mean() + black[:, 0].mean() + black[:, -1].mean()) / 1020
    return (black, 1.0) if border <= 0.5 else (np.asarray(cv2.bitwise_not(black), np.uint8), -1.0)


def from_silhouettes(levels: Sequence[Level], shape: Shape, outline: Silhouette, sizes: tuple[float, float], most: int) -> list[Guess]:
    """Guesses from the blobs of the picture, best first; `sizes` bounds the size of the base shape (full px per base px)."""
    level = min(levels, key=lambda one: abs(math.log(max(one.image.shape) / _SMALL_PX)))
    black, sign = otsu(level.image)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(black, connectivity=8, ltype=cv2.CV_16U)
    if not 2 <= count <= _MOST_BLOBS:
        return []
    low, high = (shape.area_px2 * (size / level.factor) ** 2 for size in sizes)
    guesses: list[Guess] = []
    for blob in 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[: 1 + 2 * most]:
        area = float(stats[blob, cv2.CC_STAT_AREA])
        if not 0.6 * low < area < 1.5 * high or area < 60:
            continue
        size = min(max(level.factor * math.sqrt(area / shape.area_px2), sizes[0]), sizes[1])
        mask = np.asarray(cv2.inRange(labels, int(blob), int(blob)) if count > 2 else black, np.uint8)
        found = _rotations(mask, centres[blob], outline, size, level.factor, sign)
        if count > 2 and max((g.likeness for g in found), default=0.0) < _DOUBTFUL:
            found += _rotations(*_with_islands(black, stats[blob]), outline, size, level.factor, sign)
        guesses += found
    return sorted(guesses, key=lambda g: -g.likeness)[: 3 * most]


def _with_islands(black: Image, stats: NDArray[np.int32]) -> tuple[Image, Floats]:
    """All that is black in the box of a blob, and its centroid: the islands in a part's holes are blobs of their own."""
    x, y, w, h = stats[:4].tolist()
    mask = np.zeros_like(black)
    mask[y : y + h, x : x + w] = black[y : y + h, x : x + w]
    m = cv2.moments(mask, binaryImage=True)
    return mask, np.array([m["m10"], m["m01"]]) / max(m["m00"], 1.0)


def _rotations(mask: NDArray[np.uint8], centre: Floats, outline: Silhouette, size: float, factor: float, sign: float) -> list[Guess]:
    """The up to three best rotations of the outline over one blob."""
    flags = cv2.WARP_POLAR_LINEAR | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
    unrolled = cv2.warpPolar(mask, (RADII, ANGLES), (float(centre[0]), float(centre[1])), outline.reach_px * size / factor, flags).astype(
        F32
    )
    alike = correlate(unrolled / F32(255), outline)
    guesses: list[Guess] = []
    peaks = np.flatnonzero((alike >= np.roll(alike, 1)) & (alike > np.roll(alike, -1)))
    if not len(peaks):
        peaks = np.array([alike.argmax()])
    peaks = peaks[np.argsort(-alike[peaks], kind="stable")][:3]
    for peak in peaks[alike[peaks] >= alike[peaks[0]] - 0.10]:
        turn = math.tau * (peak + parabola(alike, int(peak))) / ANGLES
        c, s = math.cos(turn), math.sin(turn)
        x, y = ((centre[i] + 0.5) * factor - 0.5 for i in (0, 1))
        cx, cy = outline.centroid_px * size
        guesses.append(Guess(np.array([x - (c * cx - s * cy), y - (s * cx + c * cy), turn, size]), sign, float(alike[peak])))
    return guesses


def correlate(unrolled: Floats32, outline: Silhouette) -> Floats:
    """The correlation (360,) of an unrolled picture with the outline, one value per degree of turn."""
    level = unrolled - unrolled.mean(axis=0, keepdims=True)
    raw = np.fft.irfft((np.fft.rfft(level, axis=0) * outline.spectrum).sum(axis=1), ANGLES)
    norm = math.sqrt(float((level * level * _RADIUS_WEIGHT).sum())) * outline.norm
    return np.asarray(raw / (norm + 1e-9), np.float64)


def parabola(values: Floats, at: int) -> float:
    """Where the parabola through three neighbours (cyclic) has its top, −½ … ½ from `at`."""
    before, here, after = values[at - 1], values[at], values[(at + 1) % len(values)]
    return float(np.clip(0.5 * (before - after) / (before - 2 * here + after - 1e-12), -0.5, 0.5))


class Directions:
    """The edge directions of the base shape at all rotations; the spectra are kept for each picture shape met."""

    def __init__(self, shape: Shape) -> None:
        self.radius_px = shape.radius_px
        samples = large(shape, shape.samples(max(2.0, shape.length_px / 400), most=2000))
        used = samples.weight > 0
        self._points = samples.points[used].astype(np.float64)
        self._normals = samples.normals[used].astype(np.float64)
        sparse = large(shape, shape.samples(max(2.0, shape.length_px / 120), most=300))
        kept = sparse.weight > 0
        turn = np.arange(_SECOND_ROTATIONS) * math.tau / _SECOND_ROTATIONS
        c, s = np.cos(turn)[:, None].astype(F32), np.sin(turn)[:, None].astype(F32)
        x, y = (sparse.points[kept] * F32(_SECOND_RADIUS_PX / shape.radius_px)).T
        nx, ny = sparse.normals[kept].T
        self._x, self._y, self._nx, self._ny = c * x - s * y, s * x + c * y, c * nx - s * ny, s * nx + c * ny
        self._spectra: dict[tuple[int, int], NDArray[np.complex64]] = {}

    def guesses(self, levels: Sequence[Level], size: float, *, places: int, most: int) -> list[Guess]:
        """The best placements of this size (full px per base px), best first."""
        height, width = levels[0].image.shape
        shrink = _SECOND_RADIUS_PX / (self.radius_px * size)  # coarse px per full px
        level = max((one for one in levels if one.factor * shrink <= 1.0), key=lambda one: one.factor, default=levels[0])
        shape2 = (max(8, round(height * shrink)), max(8, round(width * shrink)))
        shape1 = (max(6, round(shape2[0] / 2)), max(6, round(shape2[1] / 2)))
        fine = np.asarray(cv2.resize(level.image, shape2[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        coarse = np.asarray(cv2.resize(fine.astype(F32), shape1[::-1], interpolation=cv2.INTER_AREA), F32)
        spots = self._places(coarse, places)
        scale = (shape2[1] / shape1[1], shape2[0] / shape1[0])
        at = np.array([((x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5) for x, y in spots])
        if not len(at):
            return []
        likeness = self._rotations(fine, at)
        return self._best(likeness, at, (width / shape2[1], height / shape2[0]), size, most)

    def _spectrum(self, shape: tuple[int, int]) -> NDArray[np.complex64]:
        if shape not in self._spectra:
            height, width = shape
            scale = _FIRST_RADIUS_PX / self.radius_px
            stack = np.zeros((_FIRST_ROTATIONS, height * width), np.complex64)
            for i, turn in enumerate(np.arange(_FIRST_ROTATIONS) * math.tau / _FIRST_ROTATIONS):
                rotation = np.exp(1j * turn)
                at = (self._points[:, 0] + 1j * self._points[:, 1]) * rotation * scale
                normal = (self._normals[:, 0] + 1j * self._normals[:, 1]) * rotation
                x, y = np.floor(at.real), np.floor(at.imag)
                for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
                    share = (1 - abs(at.real - x - dx)) * (1 - abs(at.imag - y - dy))
                    cell = ((y + dy) % height * width + (x + dx) % width).astype(np.intp)
                    value = normal * share
                    stack[i] += np.bincount(cell, value.real, height * width) + 1j * np.bincount(cell, value.imag, height * width)
                stack[i] /= np.sqrt((np.abs(stack[i]) ** 2).sum())
            self._spectra[shape] = np.conj(np.fft.fft2(stack.reshape(-1, height, width), axes=(1, 2))).astype(np.complex64)
        return self._spectra[shape]

    def _places(self, coarse: NDArray[np.float32], most: int) -> list[tuple[int, int]]:
        """The (x, y) where some rotation fits best, apart from each other."""
        height, width = coarse.shape
        pad = math.ceil(_FIRST_RADIUS_PX) + 1  # or the part would wrap around the border
        shape = (cv2.getOptimalDFTSize(height + pad), cv2.getOptimalDFTSize(width + pad))
        gx, gy = _directions(coarse)
        field = np.zeros(shape, np.complex64)
        field.real[:height, :width], field.imag[:height, :width] = gx, gy
        alike = np.abs(np.fft.ifft2(np.fft.fft2(field)[None] * self._spectrum(shape), axes=(1, 2)).real)[:, :height, :width]
        best = alike.max(axis=0)
        found: list[tuple[int, int]] = []
        for _ in range(most):
            y, x = divmod(int(best.argmax()), width)
            if best[y, x] <= 0:
                break
            found.append((x, y))
            best[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = 0
        return found

    def _rotations(self, fine: NDArray[np.uint8], at: Floats) -> Floats32:
        """Mean agreement of directions (places, rotations), signed: positive where the background is brighter."""
        height, width = fine.shape
        gx, gy = (cv2.blur(g, (3, 3)).ravel() for g in _directions(fine))
        x = np.clip(np.rint(self._x[None] + at[:, 0, None, None].astype(F32)), 0, width - 1).astype(np.int32)
        y = np.clip(np.rint(self._y[None] + at[:, 1, None, None].astype(F32)), 0, height - 1).astype(np.int32)
        cell = y * width + x
        return np.asarray((gx.take(cell) * self._nx + gy.take(cell) * self._ny).mean(axis=2), F32)

    @staticmethod
    def _best(likeness: Floats32, at: Floats, full: tuple[float, float], size: float, most: int) -> list[Guess]:
        """The best rotations of each place, each at least 8° and 4 px from a better one."""
        strength = np.abs(likeness)
        peaks = (strength >= np.roll(strength, 1, axis=1)) & (strength > np.roll(strength, -1, axis=1))
        places, turns = np.nonzero(peaks)
        order = np.argsort(-strength[places, turns], kind="stable")[: 6 * most]
        out: list[Guess] = []
        taken: list[tuple[float, float, int]] = []
        for place, turn in zip(places[order].tolist(), turns[order].tolist(), strict=True):
            x, y = at[place].tolist()
            if any((t - turn + 4) % _SECOND_ROTATIONS <= 8 and abs(x - u) < 4 and abs(y - v) < 4 for u, v, t in taken):
                continue
            taken.append((x, y, turn))
            value = float(likeness[place, turn])
            placement = np.array([(x + 0.5) * full[0] - 0.5, (y + 0.5) * full[1] - 0.5, math.tau * turn / _SECOND_ROTATIONS, size])
            out.append(Guess(placement, math.copysign(1.0, value), abs(value)))
            if len(out) >= most:
                break
        return out


def large(shape: Shape, samples: Samples) -> Samples:
    """The samples, with weight only where there is an edge even on the coarse pictures: plates full of small holes are plates."""
    offsets = F32(_LARGE_PX) * np.arange(-PROFILE_REACH, PROFILE_REACH + 1, dtype=F32)
    return resolved(samples, shape.material(samples.points[:, None] + offsets[None, :, None] * samples.normals[:, None]))


def _directions(image: NDArray[np.uint8] | NDArray[np.float32]) -> tuple[Floats32, Floats32]:
    """The gradient with its size squeezed to about 0…1: g / (|g| + 2·median|g|)."""
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    size = cv2.magnitude(gx, gy)
    weight = F32(1) / (size + F32(2.0 * float(np.median(size)) + 1e-3))
    return np.asarray(gx * weight, F32), np.asarray(gy * weight, F32)
