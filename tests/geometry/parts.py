"""Parts built by hand, in mm, for tests that measure: no drawing is read."""

from __future__ import annotations

import math

import numpy as np

from inspector.geometry.polygon import signed_area
from inspector.records import Contour, Floats, Template


def circle(x: float, y: float, radius: float, count: int = 720) -> Floats:
    """A polygon of the circle's area, counter-clockwise."""
    t = np.arange(count) * math.tau / count
    grown = radius * math.sqrt(math.tau / (count * math.sin(math.tau / count)))
    return np.column_stack([x + grown * np.cos(t), y + grown * np.sin(t)])


def contour(name: str, points: Floats, tolerance_mm: float = 0.1, round_: tuple[float, float, float] | None = None) -> Contour:
    kind = name.partition("-")[0]
    run = points if (signed_area(points) > 0) == (kind != "hole") else points[::-1]
    return Contour(name, kind, "0", np.ascontiguousarray(run), True, -tolerance_mm, tolerance_mm, round_)


def template(*contours: Contour) -> Template:
    """A template whose raster nobody asks for."""
    return Template("part", "0" * 64, 1.0, (0.0, 0.0), contours, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8))


def hole(number: int, x: float, y: float, radius: float) -> Contour:
    return contour(f"hole-{number}", circle(x, y, radius), round_=(x, y, radius))


def plate() -> tuple[Contour, ...]:
    """60 × 40 mm with one cut corner and four holes: no symmetry."""
    outer = np.array([(0, 0), (60, 0), (60, 30), (50, 40), (0, 40)], float)
    return contour("outer", outer), hole(1, 8, 32, 3), hole(2, 45, 25, 5), hole(3, 30, 15, 8), hole(4, 52, 8, 3)


def disc(*holes: tuple[float, float, float]) -> tuple[Contour, ...]:
    """A disc of 22 mm radius with such holes: their middle in degrees and mm from its own, and their radius."""
    at = [(far * math.cos(math.radians(turn)), far * math.sin(math.radians(turn)), radius) for turn, far, radius in holes]
    return contour("outer", circle(0, 0, 22)), *(hole(number, *one) for number, one in enumerate(at, 1))


def rectangle() -> tuple[Contour, ...]:
    """60 × 30 mm with a round hole in the middle: symmetric to the last detail."""
    return contour("outer", np.array([(0, 0), (60, 0), (60, 30), (0, 30)], float)), hole(1, 30, 15, 6)


def keyed() -> tuple[Contour, ...]:
    """The rectangle with one small hole, which alone tells its two sides apart."""
    outer, middle = rectangle()
    return outer, hole(1, 10, 8, 1.5), contour("hole-2", middle.points_mm, round_=middle.circle)


def mirrored(contours: tuple[Contour, ...]) -> tuple[Contour, ...]:
    return tuple(contour(c.name, c.points_mm * (-1.0, 1.0)) for c in contours)


def gear(teeth: int = 12) -> tuple[Contour, ...]:
    t = np.arange(teeth * 4) * math.tau / (teeth * 4)
    radius = np.where(np.arange(teeth * 4) % 4 < 2, 20.0, 16.0)
    return contour("outer", np.column_stack([radius * np.cos(t), radius * np.sin(t)])), hole(1, 0, 0, 5)
