"""How far errors along a contour go together, by the direction that it faces, and what that leaves each sample to say of the pose.

Brushed streaks shift an edge that runs along them by the same amount for a hundred pixels: a thousand samples there know no more than ten.
Edges across them know as much as they have pixels. So samples are gathered in runs of some 50 px that face one way, and where the means
of the runs vary more than those of independent errors would, each sample of that direction weighs less by as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.geometry.shape import F32, Floats32, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DIRECTIONS = 18  # of half a turn: the two sides of a part show the same streaks
_RUN = 48  # samples, about


@dataclass(frozen=True, slots=True)
class Runs:
    """The n samples in R runs: where each begins, how many it has, which of the directions it faces."""

    starts: NDArray[np.intp]
    counts: NDArray[np.intp]
    direction: NDArray[np.intp]


def runs_of(samples: Samples) -> Runs:
    """The runs of samples in order along each contour."""
    nx, ny = samples.design[3:]
    facing = np.rint(np.arctan2(ny, nx) * (_DIRECTIONS / math.pi)).astype(np.intp) % _DIRECTIONS
    ends = np.flatnonzero((np.diff(facing) != 0) | (np.diff(samples.contour) != 0)) + 1
    first, last = np.append(0, ends), np.append(ends, len(samples))
    pieces = np.maximum(1, np.rint((last - first) / _RUN).astype(np.intp))
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.repeat(first, pieces) + number * np.repeat(last - first, pieces) // np.repeat(pieces, pieces)
    return Runs(starts, np.diff(np.append(starts, len(samples))), facing[starts])


def redundancy(runs: Runs, errors: Floats32, weights: Floats32) -> Floats32:
    """How many samples (n,) know no more than one, 1 where all errors are their own."""
    total, again = np.add.reduceat(weights, runs.starts), np.add.reduceat(weights * weights, runs.starts)
    sums = np.add.reduceat(weights * errors, runs.starts)
    square = np.add.reduceat(weights * errors * errors, runs.starts)
    # the mean's square, times the weight, times how many of one weight there are: what `alone` is, were all errors independent
    together = np.bincount(runs.direction, sums * sums * total / np.maximum(again, F32(1e-9)), _DIRECTIONS)
    alone = np.bincount(runs.direction, square, _DIRECTIONS)
    ratio = np.maximum(together / np.maximum(alone, 1e-9), 1.0).astype(F32)
    return np.repeat(ratio[runs.direction], runs.counts)
