"""One picture of one part on the belt, with everything that is known about it. Pure: the same arguments give the same bytes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.geometry import raster
from inspector.geometry.coverage import coverage
from inspector.records import ConfigError, Pose, Template
from inspector.scene import defects, textures
from inspector.scene.look import SURFACE, DefectKind, Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inspector.records import Contour, Floats, Image

COARSE_PX = 32
"""Light changes slowly: it is computed every so many pixels and interpolated."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture and its truth.

    `image` uint8 (H, W); `mask` uint8 (H, W): 0, or 1 + the index in `look.SURFACE` where a surface defect is seen. `pose` is where the
    part really lies (the lens distortion not counted), `distortion_ratio` how far the lens moves the corner of the picture outwards.
    `missed` defects were wanted and are not drawn: they fit nowhere, or no pixel shows them.
    """

    image: Image
    mask: Image
    pose: Pose
    defects: tuple[defects.Defect, ...]
    distortion_ratio: float = 0.0
    missed: int = 0

    @property
    def good(self) -> bool:
        """No defect at all."""
        return not self.defects


def draw(part: Template | Sequence[Contour], *, seed: Sequence[int], size_px: tuple[int, int], mm_per_px: float, look: Look) -> Drawn:
    """A picture of `size_px` (width, height) of the part at a random place and angle, in a look and with defects drawn from `look`.

    `seed` is a sequence of whole numbers ≥ 0, say (seed of the run, number of the picture). A template confines surface defects to its
    zones; contours alone leave the whole material. Raises `ConfigError` E_SCENE_SIZE for a part that does not fit into the picture at
    any angle tried.
    """
    template, contours = (part, part.contours) if isinstance(part, Template) else (None, tuple(part))
    rng = np.random.default_rng(list(seed))
    pose = _pose(rng, contours, size_px, mm_per_px, look)
    distortion_ratio = rng.uniform(*look.distortion_ratio)
    lens = _Lens(pose, size_px, distortion_ratio)
    edited, outline_defects, marks, missed = _spoil(rng, template, contours, mm_per_px, look, lens)

    outlines = [lens.see(c.points_mm) for c in edited]
    x0, y0, x1, y1 = _box(np.concatenate(outlines), size_px, 16)
    covered = coverage([o - (x0, y0) for o in outlines], (y1 - y0, x1 - x0))

    light_rad = rng.uniform(0, 2 * math.pi)  # where the light comes from, counter-clockwise as seen
    surface = _surface(rng, covered, pose, (x0, y0), light_rad, look)
    mask = np.zeros((size_px[1], size_px[0]), np.uint8)
    truth = []
    for mark in marks:
        box = _paint(mark, surface, covered, mask, lens, (x0, y0), mm_per_px, light_rad - pose.angle_rad, size_px)
        if box is None:
            missed += 1
        else:
            truth.append(replace(mark.defect, bbox_px=box))
    for defect, span in outline_defects:
        seen = lens.see(span)
        low = np.clip(seen.min(axis=0), 0, np.array(size_px) - 1)
        high = np.clip(seen.max(axis=0), 0, np.array(size_px) - 1)
        truth.append(replace(defect, bbox_px=(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))))

    picture = _belt(rng, size_px, look)
    inner = picture[y0:y1, x0:x1]
    inner *= _shadow(rng, covered, light_rad, look)
    inner += covered * (surface - inner)
    picture *= _light(rng, size_px, look)
    sigma_px = rng.uniform(*look.blur_px)
    if sigma_px > 0:
        cv2.GaussianBlur(picture, (0, 0), sigma_px, dst=picture, borderType=cv2.BORDER_REFLECT_101)
    return Drawn(_sensed(rng, picture, look), mask, pose, tuple(truth), distortion_ratio, missed)


def place(contours: Sequence[Contour], *, seed: Sequence[int], size_px: tuple[int, int], mm_per_px: float, look: Look) -> Pose:
    """Where `draw` puts the part with the same arguments. Raises `ConfigError` E_SCENE_SIZE as it does."""
    return _pose(np.random.default_rng(list(seed)), contours, size_px, mm_per_px, look)


def on_raster(drawn: Drawn, template: Template) -> tuple[Image, Image]:
    """(picture, mask) on the template's raster, uint8 (H, W) each: what a check sees of a part that was located without error."""
    shape = template.sdf_mm.shape
    size_px = (drawn.image.shape[1], drawn.image.shape[0])
    matrix = raster.matrix_of(drawn.pose) @ raster.grid_matrix(template)
    if drawn.distortion_ratio == 0.0:
        image = raster.warp(drawn.image, matrix, shape)
        mask = cv2.warpAffine(drawn.mask, matrix[:2], shape[::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        return image, np.asarray(mask, np.uint8)
    v, u = np.mgrid[: shape[0], : shape[1]]
    seen = _distorted(raster.apply(matrix, np.column_stack([u.ravel(), v.ravel()])), size_px, drawn.distortion_ratio)
    across, down = (np.ascontiguousarray(s.reshape(shape), np.float32) for s in seen.T)
    image = np.asarray(cv2.remap(drawn.image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
    return image, np.asarray(cv2.remap(drawn.mask, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT), np.uint8)


def truth_of(drawn: Drawn) -> dict[str, Any]:
    """What is known of a picture, as JSON: pose (angle in degrees), defects in drawing mm, good or not."""
    pose = drawn.pose
    return {
        "good": drawn.good,
        "pose": {
            "x_px": pose.x_px,
            "y_px": pose.y_px,
            "angle_deg": math.degrees(pose.angle_rad),
            "scale_px_per_mm": pose.scale_px_per_mm,
            "distortion_ratio": drawn.distortion_ratio,
        },
        "defects": [asdict(d) for d in drawn.defects],
    }


def fitting_mm_per_px(contours: Sequence[Contour], size_px: tuple[int, int], look: Look) -> float:
    """The finest resolution, to two digits, at which the part fits into the picture at any angle.

    Raises `ConfigError` E_SCENE_SIZE where the margins leave no room.
    """
    points = np.concatenate([c.points_mm for c in contours])
    diagonal_mm = float(np.hypot(*(points.max(axis=0) - points.min(axis=0))))
    room_px = min(size_px) - 1 - 2 * look.margin_px
    if room_px <= 0:
        raise ConfigError(
            "E_SCENE_SIZE", f"a picture of {size_px[0]} × {size_px[1]} px has no room within margins of {look.margin_px:g} px"
        )
    exact = diagonal_mm / room_px
    step = 10.0 ** (math.floor(math.log10(exact)) - 1)
    return float(round(math.ceil(exact / step) * step, 9))


# --- geometry ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lens:
    """From the drawing to the picture: the pose, then the radial distortion."""

    pose: Pose
    size_px: tuple[int, int]
    ratio: float

    def see(self, points_mm: Floats) -> Floats:
        """(N, 2) in mm → (N, 2) in px. With distortion, long straight sides bend, hence more points."""
        if self.ratio == 0.0:
            return raster.to_picture(points_mm, self.pose)
        dense = defects.resampled(points_mm, 8.0 / self.pose.scale_px_per_mm)
        return _distorted(raster.to_picture(dense, self.pose), self.size_px, self.ratio)

    def shows(self, point_mm: tuple[float, float]) -> bool:
        """Whether the point is in the picture."""
        x, y = _distorted(raster.to_picture(np.array([point_mm]), self.pose), self.size_px, self.ratio)[0]
        return bool(0 <= x <= self.size_px[0] - 1 and 0 <= y <= self.size_px[1] - 1)

    def drawing_of(self, left: int, top: int, right: int, bottom: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The drawing coordinates (X, Y) of a patch's pixels; the distortion is that of the patch's middle."""
        middle = np.array([[(left + right - 1) / 2, (top + bottom - 1) / 2]])
        shift = (_distorted(middle, self.size_px, self.ratio) - middle)[0] if self.ratio else np.zeros(2)
        u = (np.arange(left, right) - shift[0]).astype(np.float32)
        v = (np.arange(top, bottom) - shift[1]).astype(np.float32)[:, None]
        m = np.linalg.inv(raster.matrix_of(self.pose)).astype(np.float32)
        return m[0, 0] * u + m[0, 1] * v + m[0, 2], m[1, 0] * u + m[1, 1] * v + m[1, 2]


def _distorted(points_px: Floats, size_px: tuple[int, int], ratio: float) -> Floats:
    """Radial: r → r (1 + ratio r²/R²), with R the half diagonal, about the middle of the picture."""
    centre = (np.array(size_px) - 1) / 2
    from_centre = points_px - centre
    squared = (from_centre**2).sum(axis=1, keepdims=True) / float(centre @ centre)
    out: Floats = centre + from_centre * (1 + ratio * squared)
    return out


def _pose(rng: np.random.Generator, contours: Sequence[Contour], size_px: tuple[int, int], mm_per_px: float, look: Look) -> Pose:
    """A random angle, and a random place where all of the part is in the picture."""
    points = np.concatenate([c.points_mm for c in contours])
    scale = 1 / mm_per_px
    width_px = height_px = 0.0
    for _ in range(defects.TRIES):
        angle_rad = math.radians(rng.uniform(*look.angle_deg))
        at_zero = raster.to_picture(points, Pose(0.0, 0.0, angle_rad, scale, 1.0, 0.0))
        low, high = at_zero.min(axis=0), at_zero.max(axis=0)
        width_px, height_px = (float(s) for s in high - low)
        room = np.array(size_px) - 1 - 2 * look.margin_px - (high - low)
        if (room >= 0).all():
            x_px, y_px = look.margin_px - low + rng.uniform(0, 1, 2) * room
            return Pose(float(x_px), float(y_px), angle_rad, scale, 1.0, 0.0)
    raise ConfigError(
        "E_SCENE_SIZE",
        f"the part is {width_px:.0f} × {height_px:.0f} px, the picture {size_px[0]} × {size_px[1]} with a margin of {look.margin_px:g}; "
        "a larger mm_per_px makes the part smaller",
    )


def _box(points_px: Floats, size_px: tuple[int, int], more_px: int) -> tuple[int, int, int, int]:
    """Whole-pixel box (left, top, right, bottom) around points, `more_px` larger, within the picture."""
    low = np.clip(np.floor(points_px.min(axis=0)).astype(int) - more_px, 0, np.array(size_px) - 1)
    high = np.clip(np.ceil(points_px.max(axis=0)).astype(int) + 1 + more_px, low + 1, size_px)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _spoil(
    rng: np.random.Generator, template: Template | None, contours: tuple[Contour, ...], mm_per_px: float, look: Look, lens: _Lens
) -> tuple[tuple[Contour, ...], list[tuple[defects.Defect, Floats]], list[defects.Mark], int]:
    """The contours as made, the outline's defects with their extent, the surface's, and how many have no place.

    A kind that fits nowhere gives way to another.
    """
    outline: list[tuple[defects.Defect, Floats]] = []
    marks: list[defects.Mark] = []
    missed = 0
    if rng.random() >= look.defect_ratio:
        return contours, outline, marks, missed
    edited = contours
    for _ in range(int(rng.integers(1, look.most_defects + 1))):
        for kind in _shuffled(rng, look.kinds):
            if kind in SURFACE:
                mark = defects.mark_surface(rng, edited, template, kind, look, mm_per_px)
                if mark is not None:
                    marks.append(mark)
                    break
            else:
                earlier = [defect for defect, _ in outline]
                spoiled = defects.spoil_outline(rng, edited, kind, look, mm_per_px, drawing=contours, earlier=earlier)
                if spoiled is not None and lens.shows(spoiled[1].at_mm):
                    edited = spoiled[0]
                    outline.append(spoiled[1:])
                    break
        else:
            missed += 1
    return edited, outline, marks, missed


def _shuffled(rng: np.random.Generator, kinds: Sequence[DefectKind]) -> list[DefectKind]:
    return [kinds[i] for i in rng.permutation(len(kinds))]


# --- light and matter --------------------------------------------------------------------------------------------------


def _belt(rng: np.random.Generator, size_px: tuple[int, int], look: Look) -> NDArray[np.float32]:
    """The belt alone, grey levels float32 (H, W)."""
    tile = textures.tile("belt")
    rows = (np.arange(size_px[1]) + rng.integers(textures.TILE)) % textures.TILE
    columns = (np.arange(size_px[0]) + rng.integers(textures.TILE)) % textures.TILE
    piece = tile.take(rows, axis=0).take(columns, axis=1)
    grey = rng.uniform(*look.belt_grey)
    per_step = grey * rng.uniform(0.03, 0.1) / textures.STEPS
    return _scaled(piece, per_step, grey - textures.ZERO * per_step)


def _scaled(piece: Image, factor: float, offset: float) -> NDArray[np.float32]:
    """The piece times `factor` plus `offset`, float32."""
    out = piece.astype(np.float32)
    out *= np.float32(factor)
    out += np.float32(offset)
    return out


def _surface(
    rng: np.random.Generator, covered: NDArray[np.float32], pose: Pose, corner: tuple[int, int], light_rad: float, look: Look
) -> NDArray[np.float32]:
    """The part's surface over its box, grey levels float32 (h, w): texture that turns with the part, a broad reflection, lit edges."""
    height, width = covered.shape
    kind = look.textures[int(rng.integers(len(look.textures)))]
    amplitude = {"brushed": 0.045, "cast": 0.06, "painted": 0.02, "rolled": 0.035}[kind] * rng.uniform(0.6, 1.3)
    turn = pose.angle_rad + (0.0 if rng.random() < 0.5 else math.pi / 2)
    stretch = rng.uniform(0.8, 1.25)
    c, s = math.cos(turn) / stretch, math.sin(turn) / stretch
    slack = max(0.0, textures.TILE - math.hypot(width, height) / stretch) / 2
    middle = textures.TILE / 2 + rng.uniform(-slack, slack, 2)
    tile_of = np.array(
        [
            [c, -s, middle[0] - c * width / 2 + s * height / 2],
            [s, c, middle[1] - s * width / 2 - c * height / 2],
        ]
    )
    piece = cv2.warpAffine(
        textures.tile(kind), tile_of, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
    )
    grey = rng.uniform(*look.part_grey)
    per_step = grey * amplitude / textures.STEPS
    surface = _scaled(np.asarray(piece, np.uint8), per_step, grey - textures.ZERO * per_step)

    reflection = rng.uniform(*look.reflection_ratio)
    y, x = np.mgrid[: height // COARSE_PX + 2, : width // COARSE_PX + 2].astype(np.float32) * COARSE_PX
    across = (x - width / 2) * math.cos(light_rad) - (y - height / 2) * math.sin(light_rad)
    far = math.hypot(width, height)
    band = 1 + reflection * np.exp(-(((across - rng.uniform(-0.4, 0.4) * far) / (rng.uniform(0.12, 0.4) * far)) ** 2))
    surface *= _enlarged(band, (width, height))

    bevel = rng.uniform(*look.bevel_ratio)
    if bevel > 0:
        slope = cv2.GaussianBlur(covered, (0, 0), 1.2)
        right = np.asarray(cv2.Sobel(slope, cv2.CV_32F, 1, 0, ksize=3), np.float32)
        down = np.asarray(cv2.Sobel(slope, cv2.CV_32F, 0, 1, ksize=3), np.float32)
        right *= np.float32(-bevel * grey * math.cos(light_rad))
        down *= np.float32(bevel * grey * math.sin(light_rad))
        surface += right
        surface += down
    return surface


def _enlarged(coarse: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A grid of every COARSE_PX-th pixel, interpolated to all pixels of `size` (width, height)."""
    matrix = np.array([[1 / COARSE_PX, 0, 0], [0, 1 / COARSE_PX, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(coarse.astype(np.float32), matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _shadow(rng: np.random.Generator, covered: NDArray[np.float32], light_rad: float, look: Look) -> NDArray[np.float32] | np.float32:
    """The factor by which the part darkens the belt beside it, on the side away from the light."""
    depth = rng.uniform(*look.shadow_ratio)
    height_px = rng.uniform(2.0, 7.0)
    if depth == 0:
        return np.float32(1)
    move = np.array([[1, 0, height_px * math.cos(light_rad)], [0, 1, -height_px * math.sin(light_rad)]])
    moved = cv2.warpAffine(covered, move, covered.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    soft = np.asarray(cv2.blur(moved, (7, 7)), np.float32)
    soft *= np.float32(-depth)
    soft += np.float32(1)
    return soft


def _light(rng: np.random.Generator, size_px: tuple[int, int], look: Look) -> NDArray[np.float32]:
    """How bright the lamp is at each pixel: exposure, a gradient to one side, and the lens' fall-off to the corners."""
    width, height = size_px
    y, x = np.mgrid[: height // COARSE_PX + 2, : width // COARSE_PX + 2].astype(np.float32) * COARSE_PX
    x, y = 2 * x / width - 1, 2 * y / height - 1
    side = rng.uniform(0, 2 * math.pi)
    gradient = rng.uniform(*look.gradient_ratio)
    exposure = rng.uniform(*look.exposure_ratio)
    falloff = rng.uniform(0, 0.08)
    coarse = exposure * (1 + gradient / 2 * (x * math.cos(side) + y * math.sin(side)) - falloff * (x * x + y * y))
    return _enlarged(coarse, size_px)


def _paint(
    mark: defects.Mark,
    surface: NDArray[np.float32],
    covered: NDArray[np.float32],
    mask: Image,
    lens: _Lens,
    corner: tuple[int, int],
    mm_per_px: float,
    light_rad: float,
    size_px: tuple[int, int],
) -> tuple[float, float, float, float] | None:
    """A surface defect into `surface` (the part's box) and `mask` (the picture); its box (x, y, w, h) in the picture.

    None, and nothing is painted, where it marks no pixel.
    """
    left, top, right, bottom = _box(lens.see(mark.reach_mm), size_px, 2)
    left, top = max(left, corner[0]), max(top, corner[1])
    right, bottom = min(right, corner[0] + surface.shape[1]), min(bottom, corner[1] + surface.shape[0])
    if right <= left or bottom <= top:
        return None
    x, y = lens.drawing_of(left, top, right, bottom)
    gain, seen = mark.paint(x, y, mm_per_px, light_rad)
    here: tuple[Any, Any] = (slice(top - corner[1], bottom - corner[1]), slice(left - corner[0], right - corner[0]))
    seen &= covered[here] > 0.5
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    surface[here] *= gain
    mask[top:bottom, left:right][seen] = 1 + SURFACE.index(mark.defect.kind)
    width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return (float(left + columns[0]), float(top + rows[0]), float(width), float(height))


def _sensed(rng: np.random.Generator, picture: NDArray[np.float32], look: Look) -> Image:
    """What the sensor makes of it: shot noise (variance grey / `electrons_per_grey`), read-out noise, 8 bits. Spoils `picture`."""
    read_grey = rng.uniform(*look.noise_grey)
    np.maximum(picture, 0, out=picture)
    deviation = picture * np.float32(1 / look.electrons_per_grey)
    deviation += np.float32(read_grey**2)
    np.sqrt(deviation, out=deviation)
    store = textures.noise()
    first, second = rng.integers(0, len(store), 2)
    flat = picture.reshape(-1)
    white = _repeated(store, int(first), flat.size)
    white += _repeated(store, int(second), flat.size)
    white *= np.float32(math.sqrt(0.5))
    white *= deviation.reshape(-1)
    flat += white
    flat += np.float32(0.5)
    np.clip(flat, 0, 255, out=flat)
    return picture.astype(np.uint8)


def _repeated(store: NDArray[np.float32], start: int, count: int) -> NDArray[np.float32]:
    """A copy of `count` numbers of the store from `start` on, from its beginning again after its end."""
    out = np.empty(count, np.float32)
    done = 0
    while done < count:
        piece = store[start : start + count - done]
        out[done : done + len(piece)] = piece
        done, start = done + len(piece), 0
    return out
