from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.geometry import dxf, raster, template
from inspector.geometry.coverage import coverage
from inspector.records import ConfigError, Contour, Floats, Template
from inspector.scene import GEOMETRIC, SURFACE, DefectKind, Look, draw, fitting_mm_per_px, on_raster
from inspector.scene.defects import EDGE, depth_mm, resampled

DRAWINGS = Path(__file__).parents[2] / "dxf_templates"
SIZE = (640, 512)
PLAIN: dict[str, Any] = {
    "gradient_ratio": (0.0, 0.0),
    "reflection_ratio": (0.0, 0.0),
    "bevel_ratio": (0.0, 0.0),
    "shadow_ratio": (0.0, 0.0),
    "exposure_ratio": (1.0, 1.0),
}


@cache
def part(name: str = "plate") -> Template:
    return template.build(dxf.read(DRAWINGS / f"{name}.dxf"))


def mm_per_px(look: Look) -> float:
    return fitting_mm_per_px(part().contours, SIZE, look)


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(max_examples=6, deadline=None)
def test_the_same_seed_gives_the_same_bytes(seed: int, index: int) -> None:
    look = Look(defect_ratio=0.8)
    first, second = (draw(part(), seed=(seed, index), size_px=SIZE, mm_per_px=0.3, look=look) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()
    assert first.defects == second.defects
    other = draw(part(), seed=(seed, index + 1), size_px=SIZE, mm_per_px=0.3, look=look)
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("kind", [*SURFACE, *GEOMETRIC])
def test_a_defect_is_seen_where_the_truth_says(kind: DefectKind) -> None:
    bad = Look(defect_ratio=1.0, kinds=(kind,), noise_grey=(0.0, 0.0), electrons_per_grey=1e9, **PLAIN)
    for index in range(4):
        drawn = draw(part(), seed=(5, index), size_px=SIZE, mm_per_px=0.27, look=bad)
        (defect,) = drawn.defects
        assert defect.kind == kind
        assert not drawn.good
        x, y, w, h = defect.bbox_px
        u, v = raster.to_picture([defect.at_mm], drawn.pose)[0]
        assert x - 3 <= u <= x + w + 3
        assert y - 3 <= v <= y + h + 3
        if kind in SURFACE:
            assert set(np.unique(drawn.mask)) == {0, 1 + SURFACE.index(kind)}
            rows, columns = np.nonzero(drawn.mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + w, y + h)
            inside = drawn.image[drawn.mask > 0].astype(float)
            around = cv2.dilate(drawn.mask, np.ones((9, 9), np.uint8)) - drawn.mask > 0
            assert abs(inside - np.median(drawn.image[around])).max() > 12
        else:
            assert not drawn.mask.any()
            assert defect.feature


def test_the_part_lies_where_the_pose_says() -> None:
    """Least squares of picture = a + b·coverage + c·slope across + d·slope down: −c/b and −d/b are how far off the part is, in px."""
    look = Look(defect_ratio=0.0, noise_grey=(0.0, 0.0), electrons_per_grey=1e9, textures=("painted",), blur_px=(0.7, 0.7), **PLAIN)
    for index in range(3):
        drawn = draw(part("gear"), seed=(2, index), size_px=SIZE, mm_per_px=0.3, look=look)
        covered = coverage([raster.to_picture(c.points_mm, drawn.pose) for c in part("gear").contours], SIZE[::-1])
        covered = np.asarray(cv2.GaussianBlur(covered, (0, 0), 0.7))
        down, across = np.gradient(covered)
        columns = np.column_stack([np.ones(covered.size), covered.ravel(), across.ravel(), down.ravel()])
        (_, contrast, c, d), *_ = np.linalg.lstsq(columns, drawn.image.ravel().astype(float), rcond=None)
        assert contrast > 50
        assert math.hypot(c / contrast, d / contrast) < 0.03


def test_the_raster_shows_the_part_upright_with_its_mask() -> None:
    look = Look(defect_ratio=1.0, kinds=("stain", "dent"))
    for index, ratio in ((0, 0.0), (1, 0.01), (2, -0.01)):
        drawn = draw(
            part(), seed=(3, index), size_px=SIZE, mm_per_px=0.27, look=look.model_copy(update={"distortion_ratio": (ratio, ratio)})
        )
        image, mask = on_raster(drawn, part())
        assert image.shape == mask.shape == part().sdf_mm.shape
        deep, far = part().sdf_mm < -1, part().sdf_mm > 1
        assert np.median(image[deep]) > np.median(image[far]) + 40
        assert (image[deep] > (np.median(image[deep]) + np.median(image[far])) / 2).mean() > 0.98
        rows, columns = np.nonzero(mask)
        x = part().origin_mm[0] + columns.mean() * part().mm_per_px
        y = part().origin_mm[1] - rows.mean() * part().mm_per_px
        assert math.hypot(x - drawn.defects[0].at_mm[0], y - drawn.defects[0].at_mm[1]) < 0.6


def test_a_part_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"E_SCENE_SIZE.*larger mm_per_px"):
        draw(part(), seed=(0,), size_px=SIZE, mm_per_px=0.05, look=Look())
    fits = mm_per_px(Look())
    for index in range(5):
        draw(part(), seed=(0, index), size_px=SIZE, mm_per_px=fits, look=Look(angle_deg=(0.0, 360.0)))


def test_the_share_of_bad_parts_is_as_told() -> None:
    look = Look(defect_ratio=0.4, kinds=("missing_hole",))
    bad = sum(not draw(part(), seed=(1, i), size_px=(160, 128), mm_per_px=1.4, look=look).good for i in range(150))
    assert 40 <= bad <= 80


def square(side: float, at: float = 0.0, name: str = "outer") -> Contour:
    points: Floats = at + side * np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return Contour(name, "outer" if name == "outer" else "hole", "0", points if name == "outer" else points[::-1], True, -0.1, 0.1)


def test_depth_is_negative_in_the_material() -> None:
    contours = (square(10), square(2, 4, "hole-1"))
    assert [depth_mm(contours, p) for p in ((1.0, 5.0), (5.0, 5.0), (-2.0, 5.0), (3.0, 5.0))] == pytest.approx([-1, 1, 2, -1])


@given(st.floats(0.05, 3))
def test_resampling_keeps_corners_and_length(step_mm: float) -> None:
    points = square(10).points_mm
    dense = resampled(points, step_mm)
    assert {tuple(p) for p in points} <= {tuple(p) for p in dense}
    sides = np.hypot(*(np.roll(dense, -1, axis=0) - dense).T)
    assert sides.sum() == pytest.approx(40)
    assert sides.max() <= step_mm + 1e-9


@pytest.mark.parametrize(
    ("kind", "sign"),
    [
        ("burr", 1),
        ("notch", -1),
        ("missing_hole", 1),
        ("small_hole", 1),
        ("extra_material", 1),
        ("large_hole", -1),
        ("extra_hole", -1),
        ("scratch", 0),
    ],
)
def test_outline_defects_add_or_take_material(kind: DefectKind, sign: int) -> None:
    """Against the good part at the same place: the bright area within the defect's box grows with a burr and shrinks with a notch."""
    sharp = PLAIN | {"noise_grey": (0.0, 0.0), "electrons_per_grey": 1e9, "belt_grey": (0.0, 0.0), "textures": ("painted",)}
    contours = tuple(replace(c, inward_mm=-0.5, outward_mm=0.5) for c in part().contours)
    for index in range(4):
        good, bad = (
            draw(contours, seed=(9, index), size_px=SIZE, mm_per_px=0.27, look=Look(defect_ratio=ratio, kinds=(kind,), **sharp))
            for ratio in (0.0, 1.0)
        )
        x, y, w, h = (round(v) for v in bad.defects[0].bbox_px)
        box = (slice(max(y - 3, 0), y + h + 4), slice(max(x - 3, 0), x + w + 4))
        areas = [float((d.image[box] > np.median(d.image[d.image > 60]) / 2).sum()) for d in (good, bad)]
        if sign:
            assert sign * (areas[1] - areas[0]) > 8
        else:
            assert abs(areas[1] - areas[0]) <= 0.02 * areas[0]


def drilled() -> tuple[Contour, ...]:
    """A plate with three small holes, which is soon full of defects."""
    return (square(24), *(square(3, at, f"hole-{number}") for number, at in enumerate((3, 10, 17), 1)))


def test_no_defect_of_the_outline_undoes_another() -> None:
    look = Look(defect_ratio=1.0, most_defects=6, kinds=GEOMETRIC, **PLAIN)
    several = 0
    for index in range(40):
        drawn = draw(drilled(), seed=(2, index), size_px=(320, 240), mm_per_px=0.16, look=look)
        several += len(drawn.defects) > 1
        holes = [d for d in drawn.defects if d.feature.startswith("hole") and d.kind not in EDGE]
        others = [d for d in drawn.defects if d not in holes]
        assert len({d.feature for d in holes}) == len(holes)
        assert not {d.feature for d in others} & {d.feature for d in holes}
        assert all(d.kind == "extra_hole" for d in others if d.feature == "extra")
        edges = [d for d in others if d.kind in EDGE]
        assert all(math.dist(a.at_mm, b.at_mm) > max(*a.size_mm, *b.size_mm) for a in edges for b in edges if a is not b)
        missing = [c for c in drilled() if c.name in {d.feature for d in holes if d.kind == "missing_hole"}]
        for extra in (d for d in others if d.kind == "extra_hole"):
            assert all(depth_mm([c], extra.at_mm) > 0 for c in missing)
    assert several > 15


@pytest.mark.parametrize("bent", [0.0, 0.3])
def test_a_burr_beyond_the_picture_is_not_drawn(bent: float) -> None:
    """Tolerances as large as the part; the lens moves the corners of the picture outwards by `bent` of their way."""
    small = (replace(square(8), inward_mm=-3.0, outward_mm=3.0),)
    plain = PLAIN | {"distortion_ratio": (bent, bent)}
    look = Look(defect_ratio=1.0, kinds=("burr",), margin_px=2.0, beyond_tolerance_ratio=(0.3, 1.0), **plain)
    size = (160, 128)
    drawn = [draw(small, seed=(4, i), size_px=size, mm_per_px=fitting_mm_per_px(small, size, look), look=look) for i in range(60)]
    for each in drawn:
        for defect in each.defects:
            at_px, middle = raster.to_picture(np.array([defect.at_mm]), each.pose)[0], (np.array(size) - 1) / 2
            away = at_px - middle
            x, y = middle + away * (1 + bent * (away @ away) / (middle @ middle))
            assert 0 <= x < size[0]
            assert 0 <= y < size[1]
            assert min(defect.bbox_px[2:]) > 0
    assert sum(d.missed for d in drawn) == sum(d.good for d in drawn) > 0
