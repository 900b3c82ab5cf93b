"""Pictures larger than a network: cut where the drawing has zones, run, stitch.

A tile is `size` (h, w) px; its answer counts only in its core, `margin` px inside its border, because nearer the border the network
has not seen what lies beyond. Cores do not overlap and cover every pixel of the zones; tiles without a zone are never made.
`fitting` finds the size of tiles that leaves the least to be run in vain.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.records import Image

CALL_PX = 2_000
"""What it costs to run one tile more, however small, in pixels."""


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
    corners = [(row, column) for row, columns in _bands(wanted, core[0]) for column in _firsts(columns, core[1])]
    return Grid((wanted.shape[0], wanted.shape[1]), size, margin, np.array(corners, np.int64).reshape(-1, 2))


def _bands(wanted: NDArray[np.bool_], height: int) -> list[tuple[int, list[int]]]:
    """The first row of each band of so many rows, and in which columns something is wanted there."""
    rows = np.flatnonzero(wanted.any(axis=1)).tolist()
    return [(row, np.flatnonzero(wanted[row : row + height].any(axis=0)).tolist()) for row in _firsts(rows, height)]


def _firsts(wanted: list[int], step: int) -> list[int]:
    """The fewest places, ascending, so that every wanted one is less than `step` after one of them."""
    firsts, at = [], 0
    while at < len(wanted):
        firsts.append(wanted[at])
        at = bisect_left(wanted, wanted[at] + step, at)
    return firsts


def fitting(wanted: NDArray[np.bool_], margin: int, sides: Iterable[int]) -> tuple[int, int]:
    """The size (h, w) with sides of these by which the least is run to cover every wanted pixel; the larger one of equals."""
    sides = sorted(side for side in sides if side > 2 * margin)
    best: tuple[int, int, int] | None = None
    for h in sides:
        bands = [columns for _, columns in _bands(wanted, h - 2 * margin)]
        for w in sides:
            cost = (h * w + CALL_PX) * sum(len(_firsts(columns, w - 2 * margin)) for columns in bands)
            if best is None or cost <= best[0]:
                best = cost, h, w
    if best is None:
        raise ValueError(f"no side is left inside a margin of {margin} px")
    return best[1:]


def cut(image: Image, grid: Grid) -> Image:
    """The tiles uint8 (N, h, w, C) of a picture (H, W[, C]); outside the picture its border is repeated."""
    (height, width), (h, w) = grid.shape, grid.size
    image = image.reshape(height, width, -1)
    tiles = np.empty((len(grid.corners), h, w, image.shape[2]), image.dtype)
    for tile, (row, column) in zip(tiles, (grid.corners - grid.margin).tolist(), strict=True):
        top, left = max(0, row), max(0, column)
        inside = image[top : row + h, left : column + w]
        before, after = (top - row, left - column), (row + h - top - inside.shape[0], column + w - left - inside.shape[1])
        if any(before) or any(after):
            tile[:] = cv2.copyMakeBorder(inside, before[0], after[0], before[1], after[1], cv2.BORDER_REPLICATE).reshape(tile.shape)
        else:
            tile[:] = inside
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
