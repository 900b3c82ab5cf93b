"""Pictures of parts whose pose is exactly known, to prove and to time what finds and measures them.

Independent of what measures: exact area coverage of the contours, moved analytically; optics as a Gaussian; light with a gradient;
texture where the light falls from the front; noise. No profile, no gradient, no interpolation of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.geometry.coverage import coverage
from inspector.geometry.raster import to_picture
from inspector.records import Pose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.records import Contour, Floats, Image


@dataclass(frozen=True, slots=True)
class Scene:
    """Light and optics. Grey levels of part and background, Gaussian of the optics, noise, share by which the light falls off across the
    picture, and the grey levels by which brushed texture varies on the part (and blotches behind it).
    """

    part: float = 40.0
    background: float = 220.0
    blur_px: float = 0.9
    noise: float = 3.0
    fall_off_ratio: float = 0.1
    texture: float = 0.0


BACK_LIT = Scene(part=25.0, background=225.0)
FRONT_LIT = Scene(part=165.0, background=60.0, texture=14.0)
LOW_CONTRAST = Scene(part=110.0, background=123.0, noise=2.5)


def placed(
    contours: Sequence[Contour], size_px: tuple[int, int], angle_rad: float, scale_px_per_mm: float, shift_px: tuple[float, float]
) -> Pose:
    """The pose at which the middle of the contours' box is seen at the middle of the picture (width, height) plus `shift_px`."""
    points = np.concatenate([c.points_mm for c in contours])
    x, y = 0.5 * (points.min(axis=0) + points.max(axis=0))
    c, s = scale_px_per_mm * math.cos(angle_rad), scale_px_per_mm * math.sin(angle_rad)
    u, v = ((side - 1) / 2 + shift for side, shift in zip(size_px, shift_px, strict=True))
    return Pose(u - (c * x - s * y), v + (s * x + c * y), angle_rad, scale_px_per_mm, 1.0, 0.0)


def render(
    contours: Sequence[Floats],
    pose: Pose,
    size_px: tuple[int, int],
    scene: Scene,
    seed: int,
    *,
    covers: Sequence[tuple[Floats, float]] = (),
    oversampling: int = 2,
) -> Image:
    """The picture, uint8 (height, width), of the closed contours (N, 2) in mm at `pose`; `covers` (outline in px, grey) lie over it.

    Optics blur before pixels collect: the part is blurred on a raster `oversampling` times finer, then averaged over each pixel.
    Blurring the covered areas of whole pixels instead would move edges along a row or column by up to 0.015 px.
    """
    rng = np.random.default_rng(seed)
    width, height = size_px
    share = _seen_share([to_picture(c, pose) for c in contours], (height, width), scene.blur_px, oversampling)
    part = np.full((height, width), scene.part, np.float32)
    behind = np.full((height, width), scene.background, np.float32)
    if scene.texture:
        part += _streaks(rng, (height, width), pose.angle_rad) * np.float32(scene.texture)
        behind += _blotches(rng, (height, width)) * np.float32(0.5 * scene.texture)
    picture = behind + share * (part - behind)
    for outline, grey in covers:
        over = _seen_share([outline], (height, width), scene.blur_px, 1)
        picture += over * (np.float32(grey) - picture)
    toward = rng.uniform(0, math.tau)
    u = (np.arange(width, dtype=np.float32) / width - 0.5) * np.float32(math.cos(toward))
    v = (np.arange(height, dtype=np.float32) / height - 0.5) * np.float32(math.sin(toward))
    picture *= 1 + np.float32(scene.fall_off_ratio) * (u[None] + v[:, None])
    picture += rng.standard_normal((height, width), np.float32) * np.float32(scene.noise)
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _seen_share(outlines: Sequence[Floats], shape: tuple[int, int], blur_px: float, times: int) -> NDArray[np.float32]:
    """The share (H, W) of each pixel that the blurred inside of the outlines covers."""
    share = np.zeros(shape, np.float32)
    if not outlines:
        return share
    points = np.concatenate(outlines)
    more = math.ceil(4 * blur_px) + 2
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - more, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1 + more, shape[::-1])
    width, height = (high - low).tolist()
    if width <= 0 or height <= 0:
        return share
    fine = coverage([(o - low + 0.5) * times - 0.5 for o in outlines], (height * times, width * times))
    if blur_px > 0:
        size = 2 * math.ceil(4 * blur_px * times) + 1
        fine = np.asarray(cv2.GaussianBlur(fine, (size, size), blur_px * times, borderType=cv2.BORDER_REPLICATE), np.float32)
    share[low[1] : high[1], low[0] : high[0]] = fine.reshape(height, times, width, times).mean(axis=(1, 3)) if times > 1 else fine
    return share


def _blotches(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Slow random variation of unit spread."""
    small = rng.standard_normal((shape[0] // 24 + 4, shape[1] // 24 + 4), np.float32)
    return np.asarray(cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _streaks(rng: np.random.Generator, shape: tuple[int, int], angle_rad: float) -> NDArray[np.float32]:
    """Brushed streaks of unit spread, some hundred px long, along the part's x axis."""
    side = int(math.hypot(*shape)) + 2
    lines = rng.standard_normal((side, side // 100 + 4), np.float32)
    stretched = cv2.resize(lines, (side, side), interpolation=cv2.INTER_LINEAR)
    turned = cv2.getRotationMatrix2D((side / 2, side / 2), math.degrees(angle_rad), 1.0)
    turned[:, 2] -= np.array([(side - shape[1]) / 2, (side - shape[0]) / 2])
    streaks = cv2.warpAffine(stretched, turned, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(streaks / max(float(streaks.std()), 1e-6), np.float32)
