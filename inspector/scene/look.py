"""How drawn pictures look: light, surface, optics, sensor and defects, as ranges from which each picture draws its own values."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from inspector.config import Strict

Texture: TypeAlias = Literal["brushed", "cast", "painted", "rolled"]
DefectKind: TypeAlias = Literal[
    "scratch",
    "dent",
    "stain",
    "pit",
    "crack",
    "burr",
    "notch",
    "missing_hole",
    "small_hole",
    "extra_material",
    "large_hole",
    "moved_hole",
    "extra_hole",
]

SURFACE: tuple[DefectKind, ...] = ("scratch", "dent", "stain", "pit", "crack")
"""Defects of the surface; the class in a mask is the index here plus one."""

GEOMETRIC: tuple[DefectKind, ...] = (
    "burr",
    "notch",
    "missing_hole",
    "small_hole",
    "extra_material",
    "large_hole",
    "moved_hole",
    "extra_hole",
)
"""Defects of the outline; they are found by gauging and never stand in a mask."""


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("a range is [least, most]")
    return pair


_Float = Annotated[float, Field(allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Grey = Annotated[float, Field(ge=0, le=255)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Bend = Annotated[float, Field(ge=-0.3, le=1)]
Range = Annotated[tuple[_Float, _Float], Field(strict=False), AfterValidator(_rising)]
NotNegative = Annotated[tuple[_NotNegative, _NotNegative], Field(strict=False), AfterValidator(_rising)]
Positive = Annotated[tuple[_Positive, _Positive], Field(strict=False), AfterValidator(_rising)]
Greys = Annotated[tuple[_Grey, _Grey], Field(strict=False), AfterValidator(_rising)]
Shares = Annotated[tuple[_Share, _Share], Field(strict=False), AfterValidator(_rising)]
Bends = Annotated[tuple[_Bend, _Bend], Field(strict=False), AfterValidator(_rising)]
"""A distortion below −1/3 would fold the picture at its corners."""


class Look(Strict):
    """Ranges are [least, most], uniform. Grey levels are of 255, ratios are relative to the grey level that they change.

    `defect_ratio` of the parts have one to `most_defects` defects out of `kinds`. Sizes of surface defects are in mm, their contrast is
    a ratio of the surface's grey level: of a hollow under light from 45° it is the slope of its flank, so a scratch 0.2 mm wide and 30 µm
    deep has 2 · 0.03 / 0.2 = 0.3; the truth says that depth. Geometric defects are as large as `beyond_tolerance_ratio` times the
    contour's tolerance, and no smaller than `least_edge_px`: what a caliper would call out of tolerance.
    """

    defect_ratio: float = Field(default=0.3, ge=0, le=1)
    most_defects: int = Field(default=1, ge=1, le=16)
    kinds: tuple[DefectKind, ...] = Field(
        default=("scratch", "dent", "stain", "burr", "notch", "missing_hole", "small_hole", "extra_material"), min_length=1, strict=False
    )
    textures: tuple[Texture, ...] = Field(default=("brushed", "cast", "painted", "rolled"), min_length=1, strict=False)

    angle_deg: Range = (0.0, 360.0)
    margin_px: float = Field(default=24.0, ge=0)
    distortion_ratio: Bends = (0.0, 0.0)

    part_grey: Greys = (130.0, 190.0)
    belt_grey: Greys = (30.0, 65.0)
    exposure_ratio: Positive = (0.85, 1.15)
    gradient_ratio: NotNegative = (0.0, 0.2)
    reflection_ratio: NotNegative = (0.0, 0.12)
    bevel_ratio: NotNegative = (0.0, 0.08)
    shadow_ratio: Shares = (0.0, 0.25)
    blur_px: NotNegative = (0.6, 1.0)
    noise_grey: NotNegative = (0.8, 2.0)
    electrons_per_grey: float = Field(default=40.0, gt=0)

    scratch_length_mm: Positive = (5.0, 25.0)
    scratch_width_mm: Positive = (0.2, 0.6)
    scratch_contrast_ratio: NotNegative = (0.3, 0.6)
    dent_radius_mm: Positive = (1.2, 3.0)
    dent_contrast_ratio: NotNegative = (0.25, 0.5)
    stain_radius_mm: Positive = (1.5, 4.5)
    stain_contrast_ratio: NotNegative = (0.2, 0.45)
    pit_radius_mm: Positive = (0.4, 0.9)
    pit_contrast_ratio: NotNegative = (0.4, 0.7)
    crack_length_mm: Positive = (4.0, 15.0)
    crack_width_mm: Positive = (0.15, 0.35)
    crack_contrast_ratio: NotNegative = (0.5, 0.8)

    beyond_tolerance_ratio: Positive = (1.6, 4.0)
    least_edge_px: float = Field(default=3.0, gt=0)
