"""Findings of the outline from measurements made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inspector.checks import outline
from inspector.geometry.gauge import Extra, Gauged, HoleFit
from inspector.records import ConfigError, Finding, Floats, Frame, Plan, Stamp, View
from tests.geometry import parts

PLATE = parts.plate()
PER_CONTOUR = 200


def gauged(
    deviation_mm: Floats | None = None, *, missing: tuple[int, ...] = (), extra: tuple[Extra, ...] = (), holes: tuple[HoleFit, ...] = ()
) -> Gauged:
    """Evenly many samples on every contour of the plate; no deviation unless given."""
    points = np.concatenate([c.points_mm[np.linspace(0, len(c.points_mm) - 1, PER_CONTOUR).astype(int)] for c in PLATE])
    count = len(points)
    deviations = np.zeros(count) if deviation_mm is None else deviation_mm
    return Gauged(
        points_mm=points,
        contour=np.repeat(np.arange(len(PLATE)), PER_CONTOUR),
        deviation_mm=deviations,
        seen=np.isfinite(deviations),
        trusted=np.ones(count, bool),
        holes=holes,
        missing=missing,
        extra=extra,
        noise_mm=0.003,
        spacing_mm=0.1,
        blur_px=1.0,
        contrast_counts=200.0,
    )


def view(measured: Gauged) -> View:
    image = np.zeros((4, 4), np.uint8)
    return View(Frame(Stamp("c", 1, 0, None, (4, 4)), image), None, None, image, measured)


def plan() -> Plan:
    return Plan("c", parts.template(*PLATE), None, None, (), False)


def findings(measured: Gauged, settings: outline.Settings | None = None) -> dict[str, Finding]:
    check = outline.build(settings or outline.Settings(), "outline", plan())
    (found,) = check([view(measured)])
    return {f.feature: f for f in found}


def test_a_contour_that_the_border_cuts_fails_however_much_is_seen() -> None:
    known = deviations()
    known[: PER_CONTOUR // 10] = np.nan
    assert all(f.ok for f in findings(gauged(known)).values())
    found = findings(replace(gauged(known), beyond=(0,)), outline.Settings(least_seen_ratio=0.1))
    assert [(f.feature, f.value, f.low) for f in found.values() if not f.ok] == [("outer.seen", 0.9, 1.0)]


def deviations() -> Floats:
    return np.zeros(len(PLATE) * PER_CONTOUR)


def test_a_good_part_has_one_finding_for_each_contour_and_all_are_within() -> None:
    found = findings(gauged())
    assert list(found) == ["outer", "hole-1", "hole-2", "hole-3", "hole-4"]
    assert all(f.ok and f.unit == "mm" and f.check == "outline" for f in found.values())


@pytest.mark.parametrize("value", [0.3, -0.3])
def test_the_largest_deviation_is_told_with_its_sign_and_place(value: float) -> None:
    deviation = deviations()
    deviation[40:52] = value
    measured = gauged(deviation)
    found = findings(measured)["outer"]
    assert not found.ok
    assert found.value == pytest.approx(value)
    assert found.at_mm is not None
    assert np.abs(measured.points_mm[40:52] - found.at_mm).sum(axis=1).min() < 1e-9
    assert findings(measured)["hole-1"].ok


def test_what_is_out_goes_before_what_is_larger() -> None:
    values = np.array([0.0, 0.5, 0.0, -0.2, 0.0])
    assert outline.worst_of(values, -0.1, 0.6) == 3
    assert outline.worst_of(values, -0.3, 0.6) == 1
    assert outline.worst_of(values, -0.1, 0.1) == 1


def test_a_speck_narrower_than_half_the_run_is_no_deviation() -> None:
    deviation = deviations()
    deviation[70:72] = 0.5
    assert findings(gauged(deviation))["outer"].ok
    assert not findings(gauged(deviation), outline.Settings(run=1))["outer"].ok


def test_missing_and_extra_are_counts() -> None:
    found = findings(gauged(missing=(2,), extra=(Extra("hole", (5.0, 6.0), 3.0), Extra("material", (45.0, 25.0), 2.0))))
    assert (found["hole-2"].value, found["hole-2"].low, found["hole-2"].unit, found["hole-2"].ok) == (0.0, 1.0, "count", False)
    assert not found["extra-hole-1"].ok
    assert found["extra-hole-1"].at_mm == (5.0, 6.0)
    assert not found["extra-material-1"].ok
    quiet = findings(gauged(extra=(Extra("hole", (5.0, 6.0), 3.0),)), outline.Settings(extra=False))
    assert "extra-hole-1" not in quiet


def test_too_little_seen_is_a_finding_of_its_own() -> None:
    deviation = deviations()
    deviation[:120] = math.nan
    found = findings(gauged(deviation))
    assert found["outer.seen"].value == pytest.approx(0.4)
    assert not found["outer.seen"].ok
    deviation[:200] = math.nan
    found = findings(gauged(deviation))
    assert "outer" not in found
    assert found["outer.seen"].value == 0.0
    assert all(math.isfinite(f.value) for f in found.values())


def test_a_batch_gives_as_many_answers() -> None:
    check = outline.build(outline.Settings(), "outline", plan())
    assert len(check([view(gauged())] * 3)) == 3


def test_only_the_named_contours_are_judged() -> None:
    check = outline.build(outline.Settings(contours=["outer"]), "outline", plan())
    assert {f.feature for f in check([view(gauged())])[0]} == {"outer"}
    with pytest.raises(ConfigError, match=r"E_CFG_CONTOUR.*hole-99; the drawing has outer"):
        outline.build(outline.Settings(contours=["outer", "hole-99"]), "outline", plan())


def test_without_a_template_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="E_CFG_TEMPLATE"):
        outline.build(outline.Settings(), "outline", Plan("c", None, None, None, (), False))


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1, 1)), st.integers(0, 7))
def test_the_running_median_is_the_median_of_the_ring(values: Floats, half: int) -> None:
    run = min(2 * half + 1, len(values) | 1)
    if run > len(values):
        run = max(1, run - 2)
    smooth = outline.running_median(values, run)
    assert smooth.shape == values.shape
    for i in range(len(values)):
        ring = [values[(i + k) % len(values)] for k in range(-(run // 2), run // 2 + 1)]
        assert smooth[i] == np.median(ring)


def test_noisy_pictures_take_longer_runs() -> None:
    runs = [outline.chosen_run(noise) for noise in (0.0, 0.05, 0.12, 0.3, 5.0, math.nan)]
    assert runs == [5, 5, 9, 15, 15, 5]


def test_a_contour_of_which_nothing_is_seen_is_never_good() -> None:
    unseen = np.full(PER_CONTOUR * len(PLATE), np.nan)
    found = findings(gauged(unseen), outline.Settings(least_seen_ratio=0.0))
    assert len(found) == len(PLATE)
    assert not any(f.ok for f in found.values())


@given(st.integers(1, 60), st.sampled_from([1, 3, 5, 7, 15]), st.integers(0, 1 << 30))
def test_the_running_median_is_the_median_of_the_neighbours(count: int, run: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 9, max(count, run)).astype(np.float64)
    expected = [np.median(np.take(values, range(i - run // 2, i + run // 2 + 1), mode="wrap")) for i in range(len(values))]
    np.testing.assert_array_equal(outline.running_median(values, run), expected)
