"""Surfaces, made once per process from fixed seeds: grey tiles from which every picture cuts its own piece.

A tile is uint8 (TILE, TILE), repeats without a seam, and codes a texture of mean 0 and deviation 1 as ZERO + STEPS·value.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inspector.records import Floats, Image

TILE = 1024
ZERO = 128
STEPS = 30.0
NOISE_LENGTH = 1 << 21


def _smooth(white: Floats, across_px: float, along_px: float) -> Floats:
    """White noise through a Gaussian of these deviations (rows, columns), on a torus, brought to deviation 1."""
    fy = np.fft.fftfreq(white.shape[0])[:, None]
    fx = np.fft.rfftfreq(white.shape[1])[None, :]
    gain = np.exp(-2.0 * np.pi**2 * ((fy * across_px) ** 2 + (fx * along_px) ** 2))
    gain[0, 0] = 0.0
    out: Floats = np.fft.irfft2(np.fft.rfft2(white) * gain, s=white.shape)
    out /= out.std()
    return out


@cache
def tile(kind: str) -> Image:
    """The tile of a kind of surface: brushed, cast, painted, rolled, or the belt. Lines of brushed and rolled run along the rows."""
    kinds: dict[str, tuple[tuple[float, float, float], ...]] = {  # (weight, deviation across, along) in px
        "brushed": ((1.0, 0.6, 60.0), (0.5, 2.5, 200.0), (0.25, 0.5, 0.5)),
        "cast": ((1.0, 1.3, 1.3), (0.8, 4.0, 4.0), (0.5, 14.0, 14.0)),
        "painted": ((1.0, 5.0, 5.0), (0.5, 40.0, 40.0), (0.15, 0.6, 0.6)),
        "rolled": ((1.0, 6.0, 300.0), (0.5, 1.0, 90.0), (0.6, 0.8, 0.8)),
        "belt": ((1.0, 0.9, 0.9), (0.7, 25.0, 25.0)),
    }
    rng = np.random.default_rng([7, sorted(kinds).index(kind)])
    out = np.zeros((TILE, TILE))
    for weight, across_px, along_px in kinds[kind]:
        out += weight * _smooth(rng.standard_normal((TILE, TILE)), across_px, along_px)
    if kind == "belt":  # the weave
        y, x = np.ogrid[:TILE, :TILE]
        out += 0.8 * np.sin(2 * np.pi * x * 128 / TILE) * np.sin(2 * np.pi * y * 128 / TILE)
    out /= out.std()
    made: Image = np.clip(ZERO + STEPS * out + 0.5, 0, 255).astype(np.uint8)
    made.setflags(write=False)
    return made


@cache
def noise() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A store of NOISE_LENGTH standard normal numbers, float32; a sensor's noise is two pieces of it at random places, added."""
    made = np.random.default_rng(11).standard_normal(NOISE_LENGTH, dtype=np.float32)
    made.setflags(write=False)
    return made
