"""Distances from measurements made by hand: the plate's holes and edges, moved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from inspector.checks import distances
from inspector.geometry.gauge import Gauged, HoleFit
from inspector.records import ConfigError, Distance, Finding, Plan
from tests.checks.test_outline import PLATE, gauged, view
from tests.geometry import parts

PITCH = Distance("pitch", ("hole-1", "hole-3"), -0.1, 0.2)
ACROSS = Distance("across", ((20.0, 0.0), (20.0, 40.0)), -0.1, 0.1)
TO_EDGE = Distance("to-edge", ("hole-1", (8.0, 40.0)), -0.1, 0.1)
AROUND = np.array([(x, y) for y in (0.0, 40.0) for x in np.linspace(5.0, 40.0, 141)])


def measured(top_mm: float = 0.0, bottom_mm: float = 0.0, holes: tuple[HoleFit, ...] = ()) -> Gauged:
    """Samples on the lower and the upper edge of the plate alone, moved outwards."""
    moved = np.where(AROUND[:, 1] > 20, top_mm, bottom_mm)
    count = len(AROUND)
    return replace(
        gauged(holes=holes),
        points_mm=AROUND,
        contour=np.zeros(count, np.intp),
        deviation_mm=moved,
        seen=np.ones(count, bool),
        trusted=np.ones(count, bool),
    )


def findings(seen: Gauged, *wanted: Distance) -> dict[str, Finding]:
    plan = Plan("c", replace(parts.template(*PLATE), distances=wanted), None, None, (), False)
    (found,) = distances.build(distances.Settings(), "distances", plan)([view(seen)])
    return {f.feature: f for f in found}


def test_between_the_middles_of_two_holes() -> None:
    found = findings(measured(holes=(HoleFit(1, 1.0, -0.1, 0.0, 0.3), HoleFit(3, 1.0, 0.2, 0.0, -0.1))), PITCH)["pitch"]
    assert found.value == pytest.approx(math.hypot(22.3, 17.0))
    assert found.low == pytest.approx(math.hypot(22.0, 17.0) - 0.1)
    assert found.high == pytest.approx(math.hypot(22.0, 17.0) + 0.2)
    assert found.unit == "mm"
    assert found.at_mm == pytest.approx((19.0, 23.5))


def test_across_the_part_and_from_a_hole_to_an_edge() -> None:
    found = findings(measured(0.03, 0.02, (HoleFit(1, 1.0, 0.0, 0.01, 0.0),)), ACROSS, TO_EDGE)
    assert found["across"].value == pytest.approx(40.05)
    assert found["to-edge"].value == pytest.approx(8.02)
    assert all(f.ok for f in found.values())
    assert not findings(measured(0.1, 0.05), ACROSS)["across"].ok


def test_what_is_not_seen_is_no_number() -> None:
    hidden = measured(holes=(HoleFit(1, 0.3, 0.0, 0.0, 0.0), HoleFit(3, 1.0, 0.0, 0.0, 0.0)))
    assert not findings(hidden, PITCH)["pitch.seen"].ok
    missing = replace(measured(holes=(HoleFit(1, 1.0, 0.0, 0.0, 0.0), HoleFit(3, 1.0, 0.0, 0.0, 0.0))), missing=(3,))
    assert not findings(missing, PITCH)["pitch.seen"].ok
    blind = replace(measured(), seen=np.zeros(len(AROUND), bool))
    assert not findings(blind, ACROSS)["across.seen"].ok


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (("outer", "hole-1"), "'outer' is no hole"),
        (((20.0, 3.0), (20.0, 40.0)), "3.000 mm from the nearest edge"),
        (((5.0, 0.0), (40.0, 0.0)), "runs along the edge"),
        (("hole-1", "hole-1"), "one place"),
    ],
)
def test_what_cannot_be_measured_is_refused(between: tuple[str | tuple[float, float], str | tuple[float, float]], said: str) -> None:
    with pytest.raises(ConfigError, match="E_SIDE_DISTANCE") as refused:
        findings(measured(), Distance("wrong", between, -0.1, 0.1))
    assert said in str(refused.value)
    assert "distances.wrong" in str(refused.value)


def test_it_is_refused_without_template_or_distances() -> None:
    with pytest.raises(ConfigError, match="E_CFG_TEMPLATE"):
        distances.build(distances.Settings(), "distances", Plan("c", None, None, None, (), False))
    with pytest.raises(ConfigError, match="E_CFG_DISTANCES"):
        distances.build(distances.Settings(), "distances", Plan("c", parts.template(*PLATE), None, None, (), False))
