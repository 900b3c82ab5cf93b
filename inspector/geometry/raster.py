"""From the drawing to the picture and back: one 3 × 3 matrix per pose, and one warp.

Matrices act on homogeneous column vectors (x, y, 1): drawing mm (y up) → picture px (y down, pixel centres at whole numbers).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from inspector.records import Floats, Image, Pose, Template


def matrix_of(pose: Pose) -> Floats:
    """The (3, 3) matrix, drawing mm → picture px, of a pose: its homography where it has one, else its similarity."""
    if pose.homography is not None:
        return np.asarray(pose.homography, np.float64).reshape(3, 3)
    c = pose.scale_px_per_mm * math.cos(pose.angle_rad)
    s = pose.scale_px_per_mm * math.sin(pose.angle_rad)
    return np.array([[c, -s, pose.x_px], [-s, -c, pose.y_px], [0.0, 0.0, 1.0]])


def apply(matrix: Floats, points: ArrayLike) -> Floats:
    """`points` (N, 2) through a (3, 3) matrix; (N, 2) float64."""
    p = np.asarray(points, np.float64).reshape(-1, 2)
    q = p @ matrix[:, :2].T + matrix[:, 2]
    return q[:, :2] / q[:, 2:]


def to_picture(points_mm: ArrayLike, pose: Pose) -> Floats:
    """Drawing points (N, 2) in mm → picture points (N, 2) in px."""
    return apply(matrix_of(pose), points_mm)


def to_drawing(points_px: ArrayLike, pose: Pose) -> Floats:
    """Picture points (N, 2) in px → drawing points (N, 2) in mm."""
    return apply(np.asarray(np.linalg.inv(matrix_of(pose)), np.float64), points_px)


def inside(points_px: Floats, shape: tuple[int, ...], shown: NDArray[np.uint8] | None = None, border_px: float = 0.0) -> NDArray[np.bool_]:
    """Which points (N, 2) lie on a picture of `shape`, or up to `border_px` beyond its border, and not where `shown` (H, W) is 0."""
    last = np.array(shape[1::-1]) - 1
    on_it = np.asarray(((points_px >= -border_px) & (points_px <= last + border_px)).all(axis=1), np.bool_)
    if shown is not None:
        columns, rows = np.rint(np.clip(points_px[on_it], 0, last)).astype(np.intp).T
        on_it[on_it] = shown[rows, columns] > 0
    return on_it


def grid_matrix(template: Template) -> Floats:
    """The (3, 3) matrix, pixel of the template's raster → drawing mm."""
    x0, y0 = template.origin_mm
    return np.array([[template.mm_per_px, 0.0, x0], [0.0, -template.mm_per_px, y0], [0.0, 0.0, 1.0]])


def warp(image: NDArray[np.uint8], matrix: Floats, shape: tuple[int, int], *, smooth: bool = True) -> Image:
    """Sample `image` (H, W[, 3]) at `matrix` · (u, v, 1) for every pixel (u, v) of a new picture of `shape` (rows, columns).

    Bilinear, or the nearest pixel, which takes less than half the time; beyond the border the nearest pixel is repeated.
    """
    size, flags = (shape[1], shape[0]), (cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
    if abs(matrix[2, 0]) + abs(matrix[2, 1]) < 1e-12:
        flat = matrix[:2] / matrix[2, 2]
        out = cv2.warpAffine(image, flat, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    else:
        out = cv2.warpPerspective(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.uint8)


def rectify(image: NDArray[np.uint8], pose: Pose, template: Template) -> Image:
    """The picture on the template's raster: uint8 (H, W[, 3]) with H, W of `template.sdf_mm`. One warp, bilinear.

    Where the picture has twice as many pixels a millimetre as the raster, or more, it is halved first, where the raster lies: its
    detail would become noise (and what is read in small steps is read faster).
    """
    shape = (template.sdf_mm.shape[0], template.sdf_mm.shape[1])
    matrix = matrix_of(pose) @ grid_matrix(template)
    outline = np.array([(0, 0), (shape[1], 0), (shape[1], shape[0]), (0, shape[0])], np.float64)
    if (outline @ matrix[2, :2] + matrix[2, 2]).min() <= 0:
        return warp(image, matrix, shape)  # a corner beyond the horizon
    corners = apply(matrix, outline)
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T) / (shape[1], shape[0], shape[1], shape[0])
    step = 1.0001 * float(sides.min())
    if step < 2.0:
        return warp(image, matrix, shape)
    low = np.clip(np.floor(corners.min(axis=0) - 4 * sides.max()), 0, np.array(image.shape[1::-1]) - 1).astype(int).tolist()
    high = np.clip(np.ceil(corners.max(axis=0) + 4 * sides.max()), 1, image.shape[1::-1]).astype(int).tolist()
    part = image[low[1] : high[1], low[0] : high[0]]
    matrix = np.array([[1.0, 0.0, -low[0]], [0.0, 1.0, -low[1]], [0.0, 0.0, 1.0]]) @ matrix
    while step >= 2.0 and min(part.shape[:2], default=0) >= 16:
        rows, columns = part.shape[0] // 2, part.shape[1] // 2
        part = np.asarray(cv2.resize(part[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
        matrix = np.array([[0.5, 0.0, -0.25], [0.0, 0.5, -0.25], [0.0, 0.0, 1.0]]) @ matrix
        step /= 2.0
    return warp(part, matrix, shape)
