"""Measured outlines against rendered truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from inspector.geometry import gauge, locate
from inspector.geometry.raster import to_picture
from inspector.records import Contour, Floats
from inspector.workshop.rendered import BACK_LIT, FRONT_LIT, Scene, placed, render
from tests.geometry import parts

SIZE = (800, 640)
SCALE = 8.0
PLATE = parts.plate()


def measured(real: list[Floats], *, scene: Scene = BACK_LIT, contours: tuple[Contour, ...] = PLATE, seed: int = 1) -> gauge.Gauged:
    """What is measured on a part that is `real` while the drawing says `contours`."""
    true = placed(contours, SIZE, 0.6, SCALE, (8.3, -3.1))
    found = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE).find(render(real, true, SIZE, scene, seed))
    assert len(found) == 1
    assert found[0].gauged is not None
    return found[0].gauged


def drawn() -> list[Floats]:
    return [c.points_mm for c in PLATE]


def near(gauged: gauge.Gauged, x: float, y: float, within_mm: float) -> Floats:
    """Deviations of the samples around a place."""
    close = np.hypot(*(gauged.points_mm - (x, y)).T) < within_mm
    return np.asarray(gauged.deviation_mm[close])


def test_a_good_part_deviates_by_noise_only() -> None:
    gauged = measured(drawn())
    assert gauged.seen.mean() > 0.99
    assert np.nanmax(np.abs(gauged.deviation_mm[gauged.trusted])) < 0.04
    assert gauged.noise_mm < 0.01
    assert gauged.missing == ()
    assert gauged.extra == ()


@pytest.mark.parametrize("deep_px", [0.5, 1.5, 4.0, 12.0, 30.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_step_in_the_edge_is_measured_with_its_sign(deep_px: float, sign: int) -> None:
    deep = sign * deep_px / SCALE
    outer = np.array([(0, 0), (20, 0), (20, -deep), (25, -deep), (25, 0), (60, 0), (60, 30), (50, 40), (0, 40)], float)
    gauged = measured([outer, *drawn()[1:]])
    assert np.median(near(gauged, 22.5, 0.0, 1.5)) == pytest.approx(deep, abs=0.02)
    assert np.abs(near(gauged, 40.0, 0.0, 4.0)).max() < 0.04


@pytest.mark.parametrize("part_px", [(-230.0, 0.0), (0.0, 200.0), (-300.0, 200.0)])
@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT])
def test_nothing_is_told_of_what_lies_beyond_the_picture(scene: Scene, part_px: tuple[float, float]) -> None:
    true = placed(PLATE, SIZE, 0.6, SCALE, part_px)
    found = locate.compile(parts.template(*PLATE), scale_px_per_mm=SCALE).find(render(drawn(), true, SIZE, scene, 1))
    told = found[0].gauged
    assert told is not None
    places = to_picture(told.points_mm, found[0].pose)
    within = ((places >= 0) & (places <= np.array(SIZE) - 1)).all(axis=1)
    assert not told.seen[~within].any()
    assert np.isnan(told.deviation_mm[~within]).all()
    assert told.seen[within].mean() > 0.95
    assert np.nanmax(np.abs(told.deviation_mm[told.seen & told.trusted])) < 0.2
    assert told.beyond == tuple(np.unique(told.contour[~within]).tolist())
    assert told.missing == ()
    assert told.extra == ()


def test_an_outline_one_pixel_over_the_border_is_cut_and_not_too_large() -> None:
    true = placed(PLATE, SIZE, 0.0, SCALE, (-0.5 * SIZE[0] + 30 * SCALE - 1.0, 0.0))
    (found,) = locate.compile(parts.template(*PLATE), scale_px_per_mm=SCALE).find(render(drawn(), true, SIZE, BACK_LIT, 1))
    assert found.gauged is not None
    assert found.gauged.beyond == (0,)
    assert np.nanmax(np.abs(found.gauged.deviation_mm[found.gauged.trusted])) < 0.05


def test_beyond_the_search_the_reach_is_told_and_not_nothing() -> None:
    outer = np.array([(0, 0), (20, 0), (20, -8), (30, -8), (30, 0), (60, 0), (60, 30), (50, 40), (0, 40)], float)
    gauged = measured([outer, *drawn()[1:]])
    assert near(gauged, 25.0, 0.0, 1.5).min() >= gauge.FAR_PX / SCALE * 0.99


@pytest.mark.parametrize("radius_mm", [0.9, 1.5, 4.0])
@pytest.mark.parametrize("blur_px", [0.6, 0.9, 1.4])
def test_hole_diameters_have_no_bias_whatever_the_blur(radius_mm: float, blur_px: float) -> None:
    contours = (PLATE[0], *(parts.hole(i, x, y, radius_mm) for i, (x, y) in enumerate([(10, 12), (30, 25), (45, 12)], 1)), PLATE[2])
    grown = []
    for seed in range(4):
        gauged = measured([c.points_mm for c in contours], contours=contours, scene=Scene(blur_px=blur_px), seed=seed)
        grown += [2 * fit.dr_mm * SCALE for fit in gauged.holes[:3]]
    assert abs(float(np.mean(grown))) < 0.012
    assert float(np.std(grown)) < 0.04


def test_shift_and_growth_of_a_hole() -> None:
    real = drawn()
    real[2] = parts.circle(45.2, 24.9, 5.15)[::-1]
    fit = measured(real).holes[1]
    assert fit.dx_mm == pytest.approx(0.2, abs=0.01)
    assert fit.dy_mm == pytest.approx(-0.1, abs=0.01)
    assert fit.dr_mm == pytest.approx(0.15, abs=0.01)
    assert fit.seen_ratio > 0.98


@pytest.mark.parametrize("wider_px", [1.2, 2.4, 3.5])
@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_an_edge_far_from_where_it_is_drawn_has_no_bias_nor_gives_one_to_others(wider_px: float, turn: float) -> None:
    def box(more: float) -> Floats:
        return np.array([(14 - more, 10 - more), (22 + more, 10 - more), (22 + more, 28 + more), (14 - more, 28 + more)], float)[::-1]

    contours = (*PLATE[:3], parts.contour("hole-3", box(0.0)))
    true = placed(contours, SIZE, turn, SCALE, (8.3, -3.1))
    image = render([*drawn()[:3], box(wider_px / SCALE)], true, SIZE, BACK_LIT, 1)
    (found,) = locate.compile(parts.template(*contours), scale_px_per_mm=SCALE).find(image)
    assert found.gauged is not None
    own = (found.gauged.contour == 3) & found.gauged.trusted
    assert -float(np.mean(found.gauged.deviation_mm[own])) * SCALE == pytest.approx(wider_px, abs=0.01)
    assert [2 * fit.dr_mm for fit in found.gauged.holes[:2]] == pytest.approx([0.0, 0.0], abs=0.0015)


HOLES = ("hole-1", "hole-2", "hole-3", "hole-4")


def with_datum(*datum: str, scale: float | tuple[float, float] = SCALE, perspective: bool = False) -> locate.Located:
    """The plate with its left edge 0.3 mm too far out."""
    real = [np.array([(-0.3, 0), (60, 0), (60, 30), (50, 40), (-0.3, 40)], float), *drawn()[1:]]
    made = replace(parts.template(*PLATE), datum=datum)
    image = render(real, placed(PLATE, SIZE, 0.6, SCALE, (8.3, -3.1)), SIZE, BACK_LIT, 1)
    (found,) = locate.compile(made, scale_px_per_mm=scale, perspective=perspective).find(image)
    return found


@pytest.mark.parametrize(("datum", "scale"), [(HOLES, SCALE), (HOLES[:2], SCALE), (HOLES, (7.0, 9.0))])
def test_the_datum_alone_fixes_the_pose(datum: tuple[str, ...], scale: float | tuple[float, float]) -> None:
    found = with_datum(*datum, scale=scale)
    assert found.gauged is not None
    assert np.median(near(found.gauged, 0.0, 20.0, 8.0)) == pytest.approx(0.3, abs=0.005)
    for fit in found.gauged.holes:
        assert (fit.dx_mm, fit.dy_mm) == pytest.approx((0.0, 0.0), abs=0.005)
    middle = np.array([(30.0, 15.0)])
    assert to_picture(middle, found.pose) == pytest.approx(to_picture(middle, placed(PLATE, SIZE, 0.6, SCALE, (8.3, -3.1))), abs=0.03)


def test_the_datum_lays_a_slanted_view_too() -> None:
    def shift_mm(*datum: str) -> float:
        """The mean over the edges of all holes."""
        found = with_datum(*datum, perspective=True)
        assert found.gauged is not None
        radii = [c.circle[2] for c in PLATE if c.circle is not None]
        return float(np.hypot(*np.average([(fit.dx_mm, fit.dy_mm) for fit in found.gauged.holes], axis=0, weights=radii)))

    assert shift_mm(*HOLES) < min(0.02, 0.5 * shift_mm())


def test_a_datum_of_which_too_little_is_seen_leaves_the_pose_to_all_contours() -> None:
    true = placed(PLATE, SIZE, 0.6, SCALE, (8.3, -3.1))
    image = render(drawn()[:1] + drawn()[2:], true, SIZE, BACK_LIT, 1)
    found = [
        locate.compile(replace(parts.template(*PLATE), datum=datum), scale_px_per_mm=SCALE).find(image)[0]
        for datum in ((), ("hole-1", "hole-2"))
    ]
    assert found[1].pose.angle_rad == pytest.approx(found[0].pose.angle_rad, abs=1e-5)


def test_missing_and_extra_holes_and_material() -> None:
    real = drawn()
    gauged = measured(real[:1] + real[2:])
    assert [PLATE[i].name for i in gauged.missing] == ["hole-1"]
    assert gauged.extra == ()
    gauged = measured([*real, parts.circle(12.0, 12.0, 1.5)[::-1]])
    assert [e.kind for e in gauged.extra] == ["hole"]
    assert gauged.extra[0].at_mm == pytest.approx((12.0, 12.0), abs=0.3)
    assert gauged.extra[0].area_mm2 == pytest.approx(math.pi * 1.5**2, rel=0.35)
    gauged = measured([*real, parts.circle(30.0, 15.0, 2.0)])
    assert [e.kind for e in gauged.extra] == ["material"]


@pytest.mark.parametrize("scene", [BACK_LIT, FRONT_LIT])
def test_an_extra_hole_of_14_px_in_a_part_of_1200_px(scene: Scene) -> None:
    size, scale = (1400, 1100), 20.0
    hole = parts.circle(12.0, 12.0, 7.0 / scale)[::-1]
    image = render([*drawn(), hole], placed(PLATE, size, 0.2, scale, (3.0, 4.0)), size, scene, 1)
    (found,) = locate.compile(parts.template(*PLATE), scale_px_per_mm=scale).find(image)
    assert found.gauged is not None
    assert [e.kind for e in found.gauged.extra] == ["hole"]
    assert found.gauged.extra[0].at_mm == pytest.approx((12.0, 12.0), abs=0.3)


def test_what_is_covered_is_not_known() -> None:
    true = placed(PLATE, SIZE, 0.0, SCALE, (0.0, 0.0))
    x, y = to_picture(np.array([(30.0, 0.0)]), true)[0]
    lid = np.array([(x - 60, y - 50), (x + 60, y - 50), (x + 60, y + 70), (x - 60, y + 70)])
    image = render(drawn(), true, SIZE, BACK_LIT, 2, covers=((lid, 125.0),))
    found = locate.compile(parts.template(*PLATE), scale_px_per_mm=SCALE).find(image)
    assert found[0].gauged is not None
    assert np.isnan(near(found[0].gauged, 30.0, 0.0, 5.0)).mean() > 0.9


def test_textured_parts_are_measured_too() -> None:
    gauged = measured(drawn(), scene=FRONT_LIT)
    assert gauged.seen.mean() > 0.97
    assert gauged.noise_mm < 0.03


@pytest.mark.parametrize("blur_px", [0.6, 1.0, 1.6])
def test_the_blur_is_estimated(blur_px: float) -> None:
    # the picture's own blur, the pixel's area (1/12) and bilinear sampling (up to 1/6 in the mean over places) add up
    gauged = measured(drawn(), scene=Scene(blur_px=blur_px))
    assert math.sqrt(blur_px**2 + 1 / 12) < gauged.blur_px < math.sqrt(blur_px**2 + 1 / 4) + 0.06


def test_the_size_of_a_part_of_known_scale_is_measured_and_not_fitted_away() -> None:
    gauged = measured([30 + (p - 30) * 1.004 for p in drawn()])
    wider = np.median(near(gauged, 0.0, 20.0, 5.0)) + np.median(near(gauged, 60.0, 15.0, 5.0))
    assert wider == pytest.approx(0.24, abs=0.01)
