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
from inspector.geometry.polygon import Points
from inspector.geometry.refine import Level, sample
from inspector.geometry.shape import F32, Floats32, Shape

if TYPE_CHECKING:
    from inspector.records import Floats

_ANGLES = 1440
_MOST_RADII = 40
_DETAIL = 0.35
_ALIKE = 0.6  # of the drawing turned to itself: such angles are told apart as twins are
_SAME = 0.985
_LEAST_LIKENESS = 0.4  # the strength of the details: 1 as drawn, at the part's own contrast
_MOST_CONTRAST = 1.5
_LEAST_HANDED, _MOST_AS_DRAWN = 0.5, 0.5  # what is more like its mirror image is told from it by its edges
_LEAST_OF_ALL, _LEAST_MIRRORED = 0.4, 0.7  # of all that is seen: where something covers the part this says nothing
_LEAST_LEAD = 0.25  # of the drawing's own, over all angles that are not alike


@dataclass(frozen=True, slots=True)
class Spin:
    """`rings` (2, R, A): where the radii with details lie, in model px; `spectrum` (R, A/2 + 1) of what is drawn there, `size` of it.

    `unlike` (A,): the turns at which the drawing does not look like itself; `lead`: by how much. `same`: at another one it looks the same.
    `handed`: by how much it does not look like its mirror image at any turn.
    """

    centre: Floats
    rings: Floats32
    spectrum: NDArray[np.complex64]
    size: float
    unlike: NDArray[np.bool_]
    lead: float
    same: bool
    handed: float


def spin_of(shape: Shape) -> Spin | None:
    """That of a shape; None where it has no detail, and is the same at every angle."""
    outer = polygon.finely(max(shape.contours_px, key=lambda points: abs(polygon.signed_area(points))), 1.0)
    centre = _middle(outer)
    spacing = max(1.0, shape.radius_px / 140)
    radii = np.arange(2.0 * spacing, float(np.hypot(*(outer - centre).T).max()) + spacing, spacing)
    turns = np.arange(_ANGLES) * math.tau / _ANGLES
    rings = np.stack([np.cos(turns), np.sin(turns)])[:, None] * radii[:, None] + centre[:, None, None]
    share = shape.material(np.moveaxis(rings, 0, 2))
    level = share - share.mean(axis=1, keepdims=True)
    detailed = np.flatnonzero((np.abs(level) > _DETAIL).any(axis=1))
    if not len(detailed):
        return None
    chosen = detailed[:: len(detailed) // _MOST_RADII + 1]
    level = level[chosen] * _weights(radii[chosen])
    spectrum = np.fft.rfft(level, axis=1).astype(np.complex64)
    size = float(np.sqrt((level * level).sum()))
    alike = np.fft.irfft((spectrum * spectrum.conj()).sum(axis=0), _ANGLES) / size**2
    unlike = alike < _ALIKE
    beyond = np.flatnonzero(alike < 0.9)  # past the slope of the top at no turn at all
    same = bool(len(beyond)) and bool((alike[beyond[0] : beyond[-1] + 1] > _SAME).any())
    lead = 1.0 - float(alike[unlike].max(initial=-1.0))
    handed = 1.0 - float(np.fft.irfft((spectrum * spectrum).sum(axis=0), _ANGLES).max()) / size**2
    return Spin(centre, rings[:, chosen].astype(F32), spectrum, size, unlike, lead, same or not unlike.any(), handed)


def _middle(points: Points) -> Floats:
    """The middle of the circle through most of the points (N, 2), those of notches and tabs left out."""
    used = points
    middle = np.zeros(2)
    for _ in range(5):
        columns = np.column_stack([2.0 * used, np.ones(len(used))])
        x, y, square = np.linalg.lstsq(columns, (used * used).sum(axis=1))[0]
        middle = np.array([x, y])
        off = np.abs(np.hypot(*(points - middle).T) - math.sqrt(max(square + x * x + y * y, 0.0)))
        used = points[off <= max(0.5, 2.0 * float(np.median(off)))]
    return middle


def _weights(radii: NDArray[np.floating]) -> NDArray[np.floating]:
    """What the rings weigh, (R, 1), as their places are the closer together the smaller they are."""
    return np.asarray(np.sqrt(radii / radii.mean())[:, None])


def _seen(level: Level, spin: Spin, placement: Floats, sign: float, contrast: float) -> tuple[NDArray[np.complexfloating], float]:
    """The spectrum (R, A/2 + 1) of the picture along the rings, so that its product with that of the details is their strength.

    And the strength of all that is seen there.
    """
    c, s = math.cos(placement[2]) * placement[3], math.sin(placement[2]) * placement[3]
    x, y = spin.rings
    seen = sample(level.image, F32(c) * x - F32(s) * y + F32(placement[0]), F32(s) * x + F32(c) * y + F32(placement[1]))
    seen -= np.median(seen[:, ::8], axis=1, keepdims=True)
    most = _MOST_CONTRAST * contrast  # what covers the part may stand out more than its edges do
    seen = np.clip(seen, -most, most) * _weights(np.hypot(x[:, 0] - spin.centre[0], y[:, 0] - spin.centre[1]))
    unit = spin.size * max(contrast, 1.0)
    return np.fft.rfft(seen, axis=1) * (-sign / (spin.size * unit)), float(np.sqrt((seen * seen).sum())) / unit


def turned_right(level: Level, spin: Spin, placement: Floats, sign: float, contrast: float) -> tuple[Floats, bool]:
    """The placement (4,) at the turn that its details tell, and whether they do. `contrast` is that of the part's edges, in counts."""
    spectrum, whole = _seen(level, spin, placement, sign, contrast)
    likeness = np.fft.irfft((spectrum * spin.spectrum.conj()).sum(axis=0), _ANGLES)
    best = int(np.argmax(likeness))
    rival = float(likeness[np.roll(spin.unlike, best)].max(initial=-1.0))
    told = bool(likeness[best] >= _LEAST_LIKENESS and likeness[best] - rival >= _LEAST_LEAD * spin.lead)
    if not told or not spin.unlike[best]:  # as it was found, or one of its twins
        return placement, told
    if likeness[best] < _LEAST_OF_ALL * max(whole, 1.0):  # something else stands out there
        return placement, False
    turn = best * math.tau / _ANGLES
    c, s = math.cos(turn), math.sin(turn)
    shift = spin.centre - np.array([[c, -s], [s, c]]) @ spin.centre
    c, s = math.cos(placement[2]) * placement[3], math.sin(placement[2]) * placement[3]
    moved = np.array([[c, -s], [s, c]]) @ shift + placement[:2]
    return np.array([*moved, placement[2] + turn, placement[3]]), True


def is_mirrored(level: Level, spin: Spin, placement: Floats, sign: float, contrast: float) -> bool:
    """Whether the mirror image of the details is clearly more like the picture than they are, each at its best turn."""
    if spin.handed < _LEAST_HANDED:
        return False
    spectrum, whole = _seen(level, spin, placement, sign, contrast)
    likeness, other = (float(np.fft.irfft((spectrum * each).sum(axis=0), _ANGLES).max()) for each in (spin.spectrum.conj(), spin.spectrum))
    return other >= _LEAST_MIRRORED * max(whole, 1.0) and likeness <= _MOST_AS_DRAWN
