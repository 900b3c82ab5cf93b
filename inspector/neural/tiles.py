"""Pictures larger than a network: cut where the drawing has zones, run, put together.

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
    image = image.reshape(*grid.shape, -1)
    tiles = np.empty((len(grid.corners), *grid.size, image.shape[2]), image.dtype)
    for number, tile in enumerate(tiles):
        tile[:] = one(image, grid, number)
    return tiles


def one(image: Image, grid: Grid, number: int) -> Image:
    """The tile uint8 (h, w, C) with this number of a picture (H, W[, C]), contiguous."""
    image = image.reshape(*grid.shape, -1)
    row, column = (grid.corners[number] - grid.margin).tolist()
    h, w = grid.size
    top, left = max(0, row), max(0, column)
    inside = image[top : row + h, left : column + w]
    before, after = (top - row, left - column), (row + h - top - inside.shape[0], column + w - left - inside.shape[1])
    if any(before) or any(after):
        wider = cv2.copyMakeBorder(inside, before[0], after[0], before[1], after[1], cv2.BORDER_REPLICATE)
        return np.asarray(wider.reshape(h, w, -1), image.dtype)
    return np.ascontiguousarray(inside)


def put(answer: NDArray[np.uint8], picture: NDArray[np.uint8], grid: Grid, number: int) -> None:
    """Lay the core of a tile's answer (h/d, w/d[, C]), each of which stands for d × d px, over its place in the picture (H, W[, C])."""
    m, (h, w), (row, column) = grid.margin, grid.size, grid.corners[number].tolist()
    place = picture[row : row + h - 2 * m, column : column + w - 2 * m]
    whole = answer if answer.shape[:2] == (h, w) else cv2.resize(answer, (w, h), interpolation=cv2.INTER_NEAREST)
    place[:] = whole[m : m + place.shape[0], m : m + place.shape[1]]


def crop(image: Image, centre: tuple[int, int], size: tuple[int, int]) -> Image:
    """`size` (h, w) px of the picture (H, W[, C]) around (row, column), as it is; outside the picture its border is repeated."""
    rows = np.arange(centre[0] - size[0] // 2, centre[0] - size[0] // 2 + size[0]).clip(0, image.shape[0] - 1)
    columns = np.arange(centre[1] - size[1] // 2, centre[1] - size[1] // 2 + size[1]).clip(0, image.shape[1] - 1)
    window: Image = image[rows[:, None], columns]
    return window
