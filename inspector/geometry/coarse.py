"""First guesses of where the part lies, all rotations at once: from its silhouette, or from the directions of its edges.

*Silhouettes*: Otsu's threshold on a picture of about 320 px, blobs of a plausible area, the blob unrolled about its centroid, and one
correlation by FFT over the angle, summed over the radius. A third of a millisecond, wherever the part stands out as one blob; where none is
like it, the slope of the light is taken away first.

*Directions*: the unit-like gradient g / (|g| + 2·median|g|) as a complex picture in which the part's radius is 13 px, correlated by FFT
with the outward normals of the contour at 53 rotations; then at the best places 120 rotations by look-up at twice the size. Needs no
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
from inspector.geometry.shape import F32, Floats32, Samples, Shape

if TYPE_CHECKING:
    from inspector.records import Floats, Image

BASE_RADIUS_PX = 130.0
_SMALL_PX = 320
ANGLES, RADII = 360, 32
_FIRST_RADIUS_PX, _FIRST_ROTATIONS = 13.0, 53  # a prime: no part's own steps are as wide as these
_SECOND_RADIUS_PX, _SECOND_ROTATIONS = 26.0, 120
_MOST_COARSE_PX = 1 << 20  # of the picture on which directions are correlated: a part that is tiny in a large picture must stand out
_MOST_BLOBS = 400
_MOST_BORDERS = 8000  # along the rows of the small picture: more is noise
_LARGE_PX = 3.0  # of the base shape
_CLEAR = 0.85  # likeness of a blob that needs no second look
_LEAST_LIKENESS = 0.3  # of a blob that is worth refining
_EVENINGS = 4
_EVEN_RIDGE = 1e-3 * np.eye(4)
_LEAST_SLOPE_RATIO = 0.4  # of the contrast, by which the light must differ from border to border


@dataclass(frozen=True, slots=True)
class Guess:
    """A placement (4,) of the base shape, +1 or −1 for a background brighter or darker than the part, and how alike it looked (0…1)."""

    placement: Floats
    sign: float
    likeness: float


@dataclass(frozen=True, slots=True)
class Silhouette:
    """The base shape unrolled about its centroid: one row a radius, one column a degree.

    `spectrum` over the angle (as `cv2.dft` packs it), weighted by the radius; `norm` of it; `roundness` is 1 for discs and rings.
    """

    centroid_px: Floats
    reach_px: float
    spectrum: Floats32
    norm: float
    roundness: float
    unrolled: Floats32


_RADIUS_WEIGHT = (np.arange(RADII) + 0.5).astype(F32)
_TURNS = np.arange(ANGLES) * math.tau / ANGLES
CIRCLE = (np.stack([np.cos(_TURNS), np.sin(_TURNS)])[:, None] * (np.arange(RADII) + 0.5)[:, None]).astype(F32)
"""Where an unrolled picture lies (x and y, RADII, ANGLES), in its steps of radius."""


def silhouette_of(shape: Shape) -> Silhouette:
    """The unrolled shape, computed from its own coverage."""
    extent = 2 * math.ceil(shape.radius_px) + 8
    grid = np.arange(extent) - extent / 2
    points = np.stack(np.meshgrid(grid, grid), axis=2)
    share = shape.material(points)
    total = float(share.sum())
    centroid = np.array([float((share * points[..., i]).sum()) / total for i in (0, 1)])
    reach = float(max(np.hypot(*(c - centroid).T).max() for c in shape.contours_px)) + 2.0
    return silhouette(unroll(share, (float(centroid[0] + extent / 2), float(centroid[1] + extent / 2)), reach), centroid, reach)


def mirrored(outline: Silhouette) -> Silhouette:
    """That of the shape's mirror image, left for right."""
    unrolled = np.ascontiguousarray(outline.unrolled[:, (ANGLES // 2 - np.arange(ANGLES)) % ANGLES])
    return silhouette(unrolled, outline.centroid_px * (-1.0, 1.0), outline.reach_px)


def unroll(picture: NDArray[np.uint8] | Floats32, centre: tuple[float, float], reach_px: float) -> Floats32:
    """A picture about a centre (x, y): one row a radius up to the reach, one column a degree; 0 beyond its border."""
    x, y = CIRCLE * F32(reach_px / RADII)
    return np.asarray(cv2.remap(picture, x + F32(centre[0]), y + F32(centre[1]), cv2.INTER_LINEAR), F32)


def silhouette(unrolled: Floats32, centroid_px: Floats, reach_px: float) -> Silhouette:
    """An unrolled shape, ready to be correlated."""
    level = unrolled - unrolled.mean(axis=1, keepdims=True)
    weight = _RADIUS_WEIGHT[:, None]
    norm = float(np.sqrt((level * level * weight).sum()))
    spectrum = np.asarray(cv2.dft(level * weight, flags=cv2.DFT_ROWS), F32)
    ring = float(np.sqrt((unrolled * unrolled * weight).sum()))
    return Silhouette(centroid_px, reach_px, spectrum, norm, 1.0 - (norm / max(ring, 1e-9)) ** 2, unrolled)


def otsu(image: Image) -> tuple[Image, float]:
    """The picture's parts white on black, and +1 where its background (most of the border) is brighter than they are, else −1."""
    _, found = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    black = np.asarray(found, np.uint8)
    border = sum(np.count_nonzero(side) / side.size for side in (black[0], black[-1], black[:, 0], black[:, -1])) / 4
    return (black, 1.0) if border <= 0.5 else (np.asarray(cv2.bitwise_not(black), np.uint8), -1.0)


def from_silhouettes(levels: Sequence[Level], shape: Shape, outline: Silhouette, sizes: tuple[float, float], most: int) -> list[Guess]:
    """Guesses from the blobs of the picture, best first; `sizes` bounds the size of the base shape (full px per base px).

    What lies within a blob's outer line belongs to it: the islands in a part's holes are blobs of their own, too.
    """
    level = min(levels, key=lambda one: abs(math.log(max(one.image.shape) / _SMALL_PX)))
    guesses = _blobs(level, shape, outline, sizes, most)
    if not guesses or guesses[0].likeness < _CLEAR:
        even = evened(level.image)
        guesses += [] if even is None else _blobs(Level(even, level.factor), shape, outline, sizes, most)
    return [g for g in sorted(guesses, key=lambda g: -g.likeness) if g.likeness > _LEAST_LIKENESS][: 3 * most]


def evened(image: Image) -> Image | None:
    """The picture without the slope of its light; None where that hides no part from a threshold.

    Least squares of grey = a + b·x + c·y + d·part, and Otsu's threshold of what is left without b and c, in turns, on every fourth pixel.
    """
    few = image[::4, ::4].astype(F32)
    y, x = (4 * each for each in np.indices(few.shape, F32))
    columns = np.stack([np.ones(few.size, F32), x.ravel(), y.ravel()])
    slope = np.zeros(4)
    for _ in range(_EVENINGS):
        normal = columns @ columns.T
        slope[: len(columns)] = np.linalg.solve(normal + _EVEN_RIDGE[: len(columns), : len(columns)], columns @ few.ravel())
        left = few - F32(slope[1]) * x - F32(slope[2]) * y
        low, high = float(left.min()), float(left.max())
        grain = 255.0 / max(high - low, 1.0)
        _, part = cv2.threshold(((left - F32(low)) * F32(grain)).astype(np.uint8), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        columns = np.concatenate([columns[:3], part.reshape(1, -1).astype(F32)])
    height, width = image.shape
    if abs(slope[1]) * width + abs(slope[2]) * height < _LEAST_SLOPE_RATIO * abs(slope[3]):
        return None
    light = (F32(slope[2]) * np.arange(height, dtype=F32))[:, None] + F32(slope[1]) * np.arange(width, dtype=F32) + F32(low)
    return np.asarray(np.clip((image - light) * F32(grain), 0, 255), np.uint8)


def _blobs(level: Level, shape: Shape, outline: Silhouette, sizes: tuple[float, float], most: int) -> list[Guess]:
    """The guesses from the blobs of one small picture."""
    black, sign = otsu(level.image)
    if np.count_nonzero(black[:, 1:] != black[:, :-1]) > _MOST_BORDERS:
        return []
    lines, tree = cv2.findContours(black, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [line for line, (_, _, _, around) in zip(lines, tree[0].tolist() if lines else (), strict=True) if around < 0]
    if not 1 <= len(outer) <= _MOST_BLOBS:
        return []
    low, high = (shape.area_px2 * (size / level.factor) ** 2 for size in sizes)
    guesses: list[Guess] = []
    for line in sorted(outer, key=cv2.contourArea, reverse=True)[: 1 + 2 * most]:
        x, y, w, h = cv2.boundingRect(line)
        mask = black[y : y + h, x : x + w]
        if len(outer) > 1:
            mask = np.asarray(cv2.bitwise_and(mask, cv2.fillPoly(np.zeros((h, w), np.uint8), [line - (x, y)], 255)), np.uint8)
        columns, rows = (cv2.reduce(mask, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() / 255 for axis in (0, 1))
        area = float(rows.sum())
        if not 0.6 * low < area < 1.5 * high or area < 60:
            continue
        centre = (float(columns @ np.arange(w)) / area, float(rows @ np.arange(h)) / area)
        size = min(max(level.factor * math.sqrt(area / shape.area_px2), sizes[0]), sizes[1])
        for turn, likeness in rotations(unroll(mask, centre, outline.reach_px * size / level.factor) * F32(1 / 255), outline, 3):
            c, s = math.cos(turn), math.sin(turn)
            u, v = (x + centre[0] + 0.5) * level.factor - 0.5, (y + centre[1] + 0.5) * level.factor - 0.5
            cx, cy = outline.centroid_px * size
            guesses.append(Guess(np.array([u - (c * cx - s * cy), v - (s * cx + c * cy), turn, size]), sign, likeness))
    return sorted(guesses, key=lambda g: -g.likeness)


def rotations(unrolled: Floats32, outline: Silhouette, most: int, *, least: float = 0.10) -> list[tuple[float, float]]:
    """The best rotations of the outline over an unrolled picture, and how alike they are; none that is `least` less alike than the best."""
    alike = correlate(unrolled, outline)
    at = peaks(alike)
    if not len(at):
        at = np.array([alike.argmax()])
    at = at[np.argsort(-alike[at], kind="stable")][:most]
    return [(math.tau * (p + parabola(alike, p)) / ANGLES, float(alike[p])) for p in at[alike[at] >= alike[at[0]] - least].tolist()]


def peaks(values: Floats) -> NDArray[np.intp]:
    """Where values (n,), cyclic, are largest among their neighbours."""
    around = np.concatenate([values[-1:], values, values[:1]])
    return np.flatnonzero((values >= around[:-2]) & (values > around[2:]))


def correlate(unrolled: Floats32, outline: Silhouette) -> Floats:
    """The correlation (360,) of an unrolled picture with the outline, one value per degree of turn."""
    found = cv2.dft(unrolled, flags=cv2.DFT_ROWS)
    power = float(((unrolled * unrolled).sum(axis=1) - np.square(found[:, 0]) / ANGLES) @ _RADIUS_WEIGHT)  # without each row's mean
    product = cv2.mulSpectrums(found, outline.spectrum, cv2.DFT_ROWS, conjB=True).sum(axis=0, keepdims=True)
    raw = cv2.idft(product, flags=cv2.DFT_ROWS | cv2.DFT_SCALE)[0]
    return np.asarray(raw / (math.sqrt(max(power, 0.0)) * outline.norm + 1e-9), np.float64)


def parabola(values: Floats, at: int) -> float:
    """Where the parabola through three neighbours (cyclic) has its top, −½ … ½ from `at`."""
    before, here, after = values[at - 1], values[at], values[(at + 1) % len(values)]
    return float(np.clip(0.5 * (before - after) / (before - 2 * here + after - 1e-12), -0.5, 0.5))


class Directions:
    """The edge directions of the base shape at all rotations; what depends on the picture's size is kept for each size met."""

    def __init__(self, shape: Shape, sparse: Samples) -> None:
        """`sparse`: some 100 samples, which are looked up at every rotation."""
        self.radius_px = shape.radius_px
        samples = large(shape, shape.samples(max(2.0, shape.length_px / 400), most=2000))
        used = samples.weight > 0
        self._points = samples.points[used].astype(np.float64)
        self._normals = samples.normals[used].astype(np.float64)
        turns = np.exp(1j * np.arange(_SECOND_ROTATIONS) * math.tau / _SECOND_ROTATIONS)[:, None]
        self._at = turns * (sparse.points @ (1, 1j)) * (_SECOND_RADIUS_PX / shape.radius_px)
        self._along = (turns * (sparse.normals @ (1, 1j))).conj().astype(np.complex64)
        self._spectra: dict[tuple[int, int], NDArray[np.complex64]] = {}

    def guesses(self, levels: Sequence[Level], size: float, *, places: int, most: int) -> list[Guess]:
        """The best placements of this size (full px per base px), best first; none for a part that is too small for its picture."""
        height, width = levels[0].image.shape
        shrink = _SECOND_RADIUS_PX / (self.radius_px * size)  # coarse px per full px
        level = max((one for one in levels if one.factor * shrink <= 1.0), key=lambda one: one.factor, default=levels[0])
        shape2 = (max(8, round(height * shrink)), max(8, round(width * shrink)))
        shape1 = (max(6, round(shape2[0] / 2)), max(6, round(shape2[1] / 2)))
        if shape1[0] * shape1[1] > _MOST_COARSE_PX:
            return []
        fine = np.asarray(cv2.resize(level.image, shape2[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        coarse = np.asarray(cv2.resize(fine.astype(F32), shape1[::-1], interpolation=cv2.INTER_AREA), F32)
        spots = self._places(coarse, places)
        scale = (shape2[1] / shape1[1], shape2[0] / shape1[0])
        at = np.rint([((x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5) for x, y in spots]).astype(np.int32).reshape(-1, 2)
        if not len(at):
            return []
        likeness = self._rotations(fine, at)
        return self._best(likeness, at.astype(np.float64), (width / shape2[1], height / shape2[0]), size, most)

    def _spectrum(self, shape: tuple[int, int]) -> NDArray[np.complex64]:
        """The conjugate spectra (2, rotations, height, width // 2 + 1) of the normals' x and y."""
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
            both = np.stack([stack.real, stack.imag]).reshape(2, -1, height, width)
            self._spectra[shape] = np.conj(np.fft.rfft2(both)).astype(np.complex64)
        return self._spectra[shape]

    def _places(self, coarse: NDArray[np.float32], most: int) -> list[tuple[int, int]]:
        """The (x, y) where some rotation fits best, apart from each other."""
        height, width = coarse.shape
        pad = math.ceil(_FIRST_RADIUS_PX) + 1  # or the part would wrap around the border
        shape = (cv2.getOptimalDFTSize(height + pad), 2 * cv2.getOptimalDFTSize((width + pad + 1) // 2))
        field = np.zeros((2, *shape), F32)
        field[:, :height, :width] = _directions(coarse)
        x, y = np.fft.rfft2(field)
        across, down = self._spectrum(shape)
        alike = np.fft.irfft2(x * across + y * down, shape)[:, :height, :width]
        best = np.maximum(alike.max(axis=0), -alike.min(axis=0))
        found: list[tuple[int, int]] = []
        for _ in range(most):
            y0, x0 = divmod(int(best.argmax()), width)
            if best[y0, x0] <= 0:
                break
            found.append((x0, y0))
            best[max(0, y0 - 1) : y0 + 2, max(0, x0 - 1) : x0 + 2] = 0
        return found

    def _rotations(self, fine: NDArray[np.uint8], at: NDArray[np.int32]) -> Floats32:
        """Mean agreement of directions (places, rotations), signed: positive where the background is brighter."""
        pad = math.ceil(_SECOND_RADIUS_PX) + 1
        height, width = (side + 2 * pad for side in fine.shape)
        field = np.zeros((height, width), np.complex64)
        inner = field[pad:-pad, pad:-pad]
        inner.real, inner.imag = (cv2.blur(g, (3, 3)) for g in _directions(fine))
        cells = (np.rint(self._at.imag) * width + np.rint(self._at.real)).astype(np.intp)
        middles = (at[:, 1] + pad) * width + at[:, 0] + pad
        found = [np.einsum("ij,ij->i", field.ravel().take(cells + int(middle)), self._along) for middle in middles]
        return np.asarray(np.real(found) / self._at.shape[1], F32)

    @staticmethod
    def _best(likeness: Floats32, at: Floats, full: tuple[float, float], size: float, most: int) -> list[Guess]:
        """The best rotations of each place, each at least 9° and 4 px from a better one."""
        strength = np.abs(likeness)
        places, turns = np.nonzero((strength >= np.roll(strength, 1, axis=1)) & (strength > np.roll(strength, -1, axis=1)))
        order = np.argsort(-strength[places, turns], kind="stable")[: 6 * most]
        out: list[Guess] = []
        taken: list[tuple[float, float, int]] = []
        for place, turn in zip(places[order].tolist(), turns[order].tolist(), strict=True):
            x, y = at[place].tolist()
            if any((t - turn + 3) % _SECOND_ROTATIONS <= 6 and abs(x - u) < 4 and abs(y - v) < 4 for u, v, t in taken):
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
    return resolved(samples, shape, zoom=_LARGE_PX)


def _directions(image: NDArray[np.uint8] | NDArray[np.float32]) -> tuple[Floats32, Floats32]:
    """The gradient with its size squeezed to about 0…1: g / (|g| + 2·median|g|)."""
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    size = cv2.magnitude(gx, gy)
    weight = F32(1) / (size + F32(2.0 * float(np.median(size)) + 1e-3))
    return np.asarray(gx * weight, F32), np.asarray(gy * weight, F32)
