"""Faults that nobody has seen, painted into pictures of good parts, so that a network can learn what does not belong there.

What is painted is not meant to look like a defect of any kind: scars, patches, cloudy spots and specks, filled with what was elsewhere in
the pictures, with the place's own grey made darker or lighter, or with another colour (after CutPaste, Li et al., 2021, and DRAEM,
Zavrtanik et al., 2021).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.records import Image

SEEN_GREY = 4.0
"""A change of fewer grey levels is not asked for: nobody could see it."""


def spoil(random: np.random.Generator, image: Image, other: Image) -> tuple[Image, Image]:
    """The picture uint8 (S, S[, 3]) with one fault, filled perhaps from `other` of its shape; the mask (S, S) of what can be seen of it."""
    shape = _shape(random, image.shape[0])
    before = image.astype(np.float32)
    edge = np.asarray(cv2.GaussianBlur(shape, (0, 0), float(random.uniform(0.3, 1.5))), np.float32) * np.float32(random.uniform(0.5, 1))
    edge = edge.reshape(edge.shape + (1,) * (image.ndim - 2))
    seen = (before * (1 - edge) + _filling(random, before, other) * edge).clip(0, 255).astype(np.uint8)
    change = np.abs(seen.astype(np.float32) - before).reshape(*shape.shape, -1).max(axis=2)
    mask = (shape > 0.5) & (np.asarray(cv2.blur(change, (3, 3))) > SEEN_GREY)
    return seen, mask.astype(np.uint8)


def _filling(random: np.random.Generator, before: NDArray[np.float32], other: Image) -> NDArray[np.float32]:
    """What shows where the fault is: float (S, S[, 3])."""
    how, half = random.random(), len(before) // 2
    if how < 0.45:
        moved = np.roll(other, tuple(int(v) for v in random.integers(-half, half, 2)), (0, 1)).astype(np.float32)
        return np.asarray(moved * random.uniform(0.6, 1.4) + random.uniform(-30, 30), np.float32)
    rough = random.standard_normal(before.shape, np.float32) * np.float32(random.uniform(0, 15))
    if how < 0.8:
        return np.asarray(before * (random.uniform(0.2, 0.85) if random.random() < 0.7 else random.uniform(1.15, 1.6)) + rough, np.float32)
    return np.asarray(random.uniform(0, 255, before.shape[2:]) + rough, np.float32)


def _shape(random: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Where the fault is: 0…1 (S, S)."""
    canvas = np.zeros((side, side), np.float32)
    centre = random.uniform(0.1, 0.9, 2) * side
    thin = max(2, side // 40)
    kind = random.integers(4)
    if kind == 0:  # a scar
        angle, points = random.uniform(0, 2 * np.pi), [centre]
        for _ in range(random.integers(2, 8)):
            angle += random.normal(0, 0.5)
            points.append(points[-1] + random.uniform(0.03, 0.1) * side * np.array([np.cos(angle), np.sin(angle)]))
        cv2.polylines(canvas, [np.array(points, np.int32)], False, 1.0, int(random.integers(1, thin)), cv2.LINE_AA)
    elif kind == 1:  # a patch with corners
        corners = int(random.integers(3, 9))
        angles = np.sort(random.uniform(0, 2 * np.pi, corners))
        radii = random.uniform(0.02, 0.14) * side * random.uniform(0.4, 1.3, corners)
        narrow, turn = random.uniform(0.3, 1), random.uniform(0, np.pi)
        points_px = np.stack([radii * np.cos(angles), narrow * radii * np.sin(angles)], axis=1)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        cv2.fillPoly(canvas, [(centre + points_px @ rotation).astype(np.int32)], 1.0)
    elif kind == 2:  # a cloudy spot
        cells = int(2 ** random.integers(2, 6))
        cloud = cv2.resize(random.standard_normal((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.circle(canvas, (int(centre[0]), int(centre[1])), int(random.uniform(0.05, 0.2) * side), 1.0, cv2.FILLED)
        canvas *= cloud > random.uniform(0.3, 1)
    else:  # specks
        for _ in range(random.integers(1, 6)):
            at = random.uniform(0.05, 0.95, 2) * side
            axes = (int(random.integers(1, thin)), int(random.integers(1, thin)))
            cv2.ellipse(canvas, (int(at[0]), int(at[1])), axes, float(random.uniform(0, 180)), 0, 360, 1.0, cv2.FILLED)
    return canvas
