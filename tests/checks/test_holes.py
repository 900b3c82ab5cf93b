"""Diameters and positions of round holes from measurements made by hand."""

from __future__ import annotations

import math

import pytest

from inspector.checks import holes
from inspector.geometry.gauge import HoleFit
from inspector.records import ConfigError, Finding, Plan
from tests.checks.test_outline import PLATE, gauged, plan, view
from tests.geometry import parts


def findings(*fits: HoleFit, settings: holes.Settings | None = None, missing: tuple[int, ...] = ()) -> dict[str, Finding]:
    check = holes.build(settings or holes.Settings(), "holes", plan())
    (found,) = check([view(gauged(holes=fits, missing=missing))])
    return {f.feature: f for f in found}


def test_diameter_and_position_in_millimetres() -> None:
    found = findings(HoleFit(1, 1.0, 0.03, -0.04, 0.02))
    assert found["hole-1.diameter"].value == pytest.approx(6.04)
    assert found["hole-1.diameter"].low == pytest.approx(5.8)
    assert found["hole-1.diameter"].high == pytest.approx(6.2)
    assert found["hole-1.position"].value == pytest.approx(0.05)
    assert found["hole-1.position"].at_mm == pytest.approx((8.03, 31.96))
    assert all(f.ok for f in found.values())


@pytest.mark.parametrize(("dr", "ok"), [(0.09, True), (0.11, False), (-0.09, True), (-0.11, False)])
def test_the_contours_tolerance_limits_the_radius_both_ways(dr: float, ok: bool) -> None:
    assert findings(HoleFit(1, 1.0, 0.0, 0.0, dr))["hole-1.diameter"].ok == ok


def test_limits_of_the_settings_go_before_the_drawings() -> None:
    settings = holes.Settings(diameter_mm=0.01, position_mm=0.02)
    found = findings(HoleFit(1, 1.0, 0.03, 0.0, 0.01), settings=settings)
    assert not found["hole-1.diameter"].ok
    assert not found["hole-1.position"].ok


def test_a_missing_hole_is_a_count_and_a_hidden_one_is_not_guessed() -> None:
    found = findings(HoleFit(1, 0.0, math.nan, math.nan, math.nan), HoleFit(2, 0.2, 0.0, 0.0, 0.0), missing=(1,))
    assert set(found) == {"hole-1", "hole-2.seen"}
    assert found["hole-1"].value == 0.0
    assert not any(f.ok for f in found.values())
    assert all(math.isfinite(f.value) for f in found.values())


def test_it_is_refused_without_template_or_round_holes() -> None:
    with pytest.raises(ConfigError, match="E_CFG_TEMPLATE"):
        holes.build(holes.Settings(), "holes", Plan("c", None, None, None, (), False))
    with pytest.raises(ConfigError, match="E_CFG_HOLES"):
        holes.build(holes.Settings(), "holes", Plan("c", parts.template(PLATE[0]), None, None, (), False))
