"""Pictures larger than a network: cut where the drawing has zones, run, stitch.

A tile is `size` (h, w) px; its answer counts only in its core, `margin` px inside its border, because nearer the border the network
has not seen what lies beyond. Cores do not overlap and cover every pixel of the zones; tiles without a zone are never made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspector.records import Image


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the tiles lie on a picture of `shape` (H, W): `corners` int64 (N, 2) are the (row, column) of the cores' first pixels."""

    shape: tuple[int, int]
    size: tuple[int, int]
    margin: int
    corners: NDArray[np.int64]


def plan(wanted: NDArray[np.bool_], size: tuple[int, int], margin: int = 0) -> Grid:
    """The fewest bands of cores, each from the first wanted pixel on, that cover every wanted pixel of (H, W).

    Raises ValueError where the margin leaves no core.
    """
    core = (size[0] - 2 * margin, size[1] - 2 * margin)
    if min(core) < 1:
        raise ValueError(f"tiles of {size} px have no core inside a margin of {margin} px")
    corners = []
    row, rows = 0, np.asarray(wanted.any(axis=1))
    while row < len(rows):
        if not rows[row]:
            row += 1
            continue
        band = np.asarray(wanted[row : row + core[0]].any(axis=0))
        column = 0
        while column < len(band):
            if band[column]:
                corners.append((row, column))
                column += core[1]
            else:
                column += 1
        row += core[0]
    return Grid((wanted.shape[0], wanted.shape[1]), size, margin, np.array(corners, np.int64).reshape(-1, 2))


def cut(image: Image, grid: Grid) -> Image:
    """The tiles uint8 (N, h, w, C) of a picture (H, W[, C]); outside the picture its border is repeated."""
    (height, width), (h, w) = grid.shape, grid.size
    image = image.reshape(height, width, -1)
    tiles = np.empty((len(grid.corners), h, w, image.shape[2]), image.dtype)
    for tile, (row, column) in zip(tiles, grid.corners - grid.margin, strict=True):
        inside = row >= 0 and column >= 0 and row + h <= height and column + w <= width
        if inside:
            tile[:] = image[row : row + h, column : column + w]
        else:
            rows, columns = np.arange(row, row + h).clip(0, height - 1), np.arange(column, column + w).clip(0, width - 1)
            tile[:] = image[rows[:, None], columns]
    return tiles


def stitch(tiles: NDArray[np.uint8], grid: Grid, fill: int = 0) -> NDArray[np.uint8]:
    """Put the cores of the tiles (N, h, w[, C]) together to a picture (H, W[, C]), `fill` elsewhere. What was cut comes back."""
    picture = np.full(grid.shape + tiles.shape[3:], fill, tiles.dtype)
    m, (h, w) = grid.margin, grid.size
    for tile, (row, column) in zip(tiles, grid.corners, strict=True):
        place = picture[row : row + h - 2 * m, column : column + w - 2 * m]
        place[:] = tile[m : m + place.shape[0], m : m + place.shape[1]]
    return picture


def crop(image: Image, centre: tuple[int, int], size: tuple[int, int]) -> Image:
    """`size` (h, w) px of the picture (H, W[, C]) around (row, column), as it is; outside the picture its border is repeated."""
    rows = np.arange(centre[0] - size[0] // 2, centre[0] - size[0] // 2 + size[0]).clip(0, image.shape[0] - 1)
    columns = np.arange(centre[1] - size[1] // 2, centre[1] - size[1] // 2 + size[1]).clip(0, image.shape[1] - 1)
    window: Image = image[rows[:, None], columns]
    return window
