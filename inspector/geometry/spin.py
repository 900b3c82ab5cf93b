"""How a round part is turned, of which only a few details (holes in a disc) tell it: all angles compared on the full picture.

The drawing is unrolled about the middle of its outer contour, on those radii alone where it is not the same all around, and so is the
picture where the part was found. Where a detail is covered, or one angle fits as well as another, nobody can know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inspector.geometry import polygon
from inspector.geometry.refine import Level, sample
from inspector.geometry.shape import F32, Floats32, Shape

if TYPE_CHECKING:
    from inspector.records import Floats

_ANGLES = 1440
_MOST_RADII = 40
_DETAIL = 0.35
_ALIKE = 0.6  # of the drawing turned to itself: such angles are told apart as twins are
_SAME = 0.985
_LEAST_LIKENESS = 0.4  # of the details as drawn, at the part's own contrast
_LEAST_LEAD = 0.25  # of the drawing's own, over all angles that are not alike


@dataclass(frozen=True, slots=True)
class Spin:
    """`rings` (2, R, A): where the radii with details lie, in model px; `spectrum` (R, A/2 + 1) of what is drawn there, `size` of it.

    `unlike` (A,): the turns at which the drawing does not look like itself; `lead`: by how much. `same`: at another one it looks the same.
    """

    centre: Floats
    rings: Floats32
    spectrum: NDArray[np.complex64]
    size: float
    unlike: NDArray[np.bool_]
    lead: float
    same: bool


def spin_of(shape: Shape) -> Spin | None:
    """That of a shape; None where it has no detail, and is the same at every angle."""
    outer = max(shape.contours_px, key=lambda points: abs(polygon.signed_area(points)))
    centre = np.asarray(polygon.centroid(outer), np.float64)
    reach = float(np.hypot(*(outer - centre).T).min())
    spacing = max(1.0, shape.radius_px / 140)
    radii = np.arange(2.0 * spacing, reach - 2.0 * spacing, spacing)
    turns = np.arange(_ANGLES) * math.tau / _ANGLES
    rings = np.stack([np.cos(turns), np.sin(turns)])[:, None] * radii[:, None] + centre[:, None, None]
    share = shape.material(np.moveaxis(rings, 0, 2))
    level = share - share.mean(axis=1, keepdims=True)
    detailed = np.flatnonzero((np.abs(level) > _DETAIL).any(axis=1))
    if not len(detailed):
        return None
    chosen = detailed[:: len(detailed) // _MOST_RADII + 1]
    level = level[chosen] * np.sqrt(radii[chosen] / radii[chosen].mean())[:, None]
    spectrum = np.fft.rfft(level, axis=1).astype(np.complex64)
    size = float(np.sqrt((level * level).sum()))
    alike = np.fft.irfft((spectrum * spectrum.conj()).sum(axis=0), _ANGLES) / size**2
    unlike = alike < _ALIKE
    beyond = np.flatnonzero(alike < 0.9)  # past the slope of the top at no turn at all
    same = bool(len(beyond)) and bool((alike[beyond[0] : beyond[-1] + 1] > _SAME).any())
    lead = 1.0 - float(alike[unlike].max(initial=-1.0))
    return Spin(centre, rings[:, chosen].astype(F32), spectrum, size, unlike, lead, same or not unlike.any())


def turned_right(level: Level, spin: Spin, placement: Floats, sign: float, contrast: float) -> tuple[Floats, bool]:
    """The placement (4,) at the turn that its details tell, and whether they do."""
    c, s = math.cos(placement[2]) * placement[3], math.sin(placement[2]) * placement[3]
    x, y = spin.rings
    seen = sample(level.image, F32(c) * x - F32(s) * y + F32(placement[0]), F32(s) * x + F32(c) * y + F32(placement[1]))
    radii = np.hypot(x[:, 0] - F32(spin.centre[0]), y[:, 0] - F32(spin.centre[1]))
    seen = (seen - seen.mean(axis=1, keepdims=True)) * np.sqrt(radii / radii.mean())[:, None]
    product = (np.fft.rfft(seen, axis=1) * spin.spectrum.conj()).sum(axis=0)
    likeness = -sign * np.fft.irfft(product, _ANGLES) / spin.size
    likeness /= max(float(np.sqrt((seen * seen).sum())), contrast * spin.size)
    best = int(np.argmax(likeness))
    rival = float(likeness[np.roll(spin.unlike, best)].max(initial=-1.0))
    sure = likeness[best] >= _LEAST_LIKENESS and likeness[best] - rival >= _LEAST_LEAD * spin.lead
    if not sure or not spin.unlike[best]:  # as it was found, or one of its twins
        return placement, bool(sure)
    turn = best * math.tau / _ANGLES
    c, s = math.cos(turn), math.sin(turn)
    shift = spin.centre - np.array([[c, -s], [s, c]]) @ spin.centre
    c, s = math.cos(placement[2]) * placement[3], math.sin(placement[2]) * placement[3]
    moved = np.array([[c, -s], [s, c]]) @ shift + placement[:2]
    return np.array([*moved, placement[2] + turn, placement[3]]), True
