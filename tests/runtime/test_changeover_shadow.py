"""What a recipe in shadow is asked about: the pictures that another recipe judges, and no others."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from inspector.records import Decision, Frame, Inspection, Plan, Recipe, Stamp
from inspector.runtime.changeover import SHADOW_WAITING, Shadow


def frame(camera: str, *, complete: bool = True) -> Frame:
    return Frame(Stamp(camera, 1, 0, None, (4, 4), complete), np.zeros((4, 4), np.uint8))


def offered(shadow: Shadow, picture: Frame, present: str) -> bool:
    """Whether the shadow takes a picture that the recipe `present` has judged."""
    camera, before = picture.stamp.camera, shadow.waiting.qsize()
    judged_by = Recipe("0", {camera: Plan(camera, None, None, None, (), False, recipe=present)}, (), ())
    shadow.offer(picture, Inspection(picture.stamp, Decision.PASS, 0, "", (), None, "0", {}), judged_by, 0)
    return shadow.waiting.qsize() > before


def test_only_pictures_that_another_recipe_judges_are_compared() -> None:
    shadow = Shadow(cast("Any", None), {"a": "tight"}, "1")
    assert offered(shadow, frame("a"), "plate")
    assert not offered(shadow, frame("a", complete=False), "plate")
    assert not offered(shadow, frame("a"), "tight"), "it has taken over meanwhile"
    assert not offered(shadow, frame("b"), "plate"), "another lane, for which it was not asked"
    assert shadow.told()["cameras"] == {"a": "tight"}
    assert [offered(shadow, frame("a"), "plate") for _ in range(SHADOW_WAITING)] == [True] * (SHADOW_WAITING - 1) + [False]
    assert shadow.counts == {"skipped": 1}
