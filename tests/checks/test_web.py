"""Blemishes of a plain surface are measured whatever the light does across it, and only the part's own are judged."""

from __future__ import annotations

import numpy as np
import pytest

from inspector.checks import web
from inspector.judge import decide
from inspector.records import Decision, Finding, Frame, Image, Stamp, View, Web


def plain() -> Image:
    """200 × 300, bright in the middle, with grain."""
    light = 170 * (1 - 0.4 * np.linspace(-1, 1, 300) ** 2)
    return (light + np.random.default_rng(1).normal(0, 3, (200, 300))).clip(0, 255).astype(np.uint8)


def found(image: Image, place: Web | None = None, **chosen: object) -> tuple[Finding, ...]:
    check = web.WebCheck("spots", web.Settings.model_validate({"mm_per_px": 0.1, "least_grey": 25, **chosen}))
    return check([View(Frame(Stamp("c", 1, 1, None, image.shape, web=place), image), None, None, image)])[0]


def test_a_clean_surface_passes_however_the_light_falls() -> None:
    (finding,) = found(plain())
    assert (finding.value, finding.ok, finding.evidence) == (0.0, True, None)
    assert decide((finding,), ("spots",))[0] is Decision.PASS


@pytest.mark.parametrize(("side", "grey", "seen"), [("both", -60, True), ("dark", -60, True), ("bright", -60, False), ("bright", 60, True)])
def test_a_blemish_is_measured_on_its_side(side: str, grey: int, seen: bool) -> None:
    image = plain().astype(np.int16)
    image[50:60, 100:120] += grey
    (finding,) = found(image.clip(0, 255).astype(np.uint8), side=side)
    assert finding.ok is not seen
    if seen:
        assert finding.value == pytest.approx(2.0, rel=0.05)
        assert finding.evidence is not None
        assert finding.evidence.bbox_px == pytest.approx((100, 50, 20, 10), abs=1)


def test_what_is_a_neighbours_is_not_this_lengths() -> None:
    """Rows 40 to 160 are the part: one blemish before it, one across its beginning, one across its end."""
    image = plain()
    for row in (10, 35, 155):
        image[row : row + 10, 200:210] -= 60
    findings = found(image, Web(1000.0, 0.1, 0.1, 40, 160))
    assert [round(f.at_mm[1], 1) for f in findings if f.at_mm] == [pytest.approx(1003.95, abs=0.1), pytest.approx(1015.95, abs=0.1)]
    assert [f.evidence is None for f in findings] == [True, False], "what begins before is the length before's"
    assert not any(f.ok for f in findings)


def test_without_a_scale_it_judges_nothing() -> None:
    with pytest.raises(ValueError, match="mm_per_px"):
        found(plain(), mm_per_px=None)
