"""The surface check on a network whose answers can be foreseen: areas, classes, places, and nothing found where nothing is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inspector.checks import surface
from inspector.neural import model as networks
from inspector.records import ConfigError, Contour, Frame, Plan, Pose, Stamp, Template, View
from tests.neural import nets

MM_PER_PX = 0.5


def template() -> Template:
    """A plate of 50 × 40 mm on a raster with a border of 5 mm; the origin of the drawing is its lower left corner."""
    sdf = np.full((100, 120), 5.0, np.float32)
    sdf[10:90, 10:110] = -5.0
    zone = (sdf < 0).astype(np.uint8)
    corners = np.array([[0, 0], [50, 0], [50, 40], [0, 40]], np.float64)
    outer = Contour("outer", "outer", "0", corners, True, -0.1, 0.1)
    return Template("plate", "0" * 64, MM_PER_PX, (-5.0, 45.0), (outer,), sdf, zone)


def view(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], part: Template | None = None) -> View:
    """The raster's picture, seen by a camera at 2 px/mm, upright, with the drawing's origin at (200, 300)."""
    pose = None if part is None else Pose(200.0, 300.0, 0.0, 2.0, 1.0, 0.0)
    return View(Frame(Stamp("top", 1, 0, None, image.shape), image), pose, part, image)


def plan(part: Template | None = None) -> Plan:
    return Plan("top", part, None, None, (), True)


def grey() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((100, 120), 128, np.uint8)


def test_a_clean_part_has_a_finding_for_each_class(tmp_path: Path) -> None:
    part = template()
    settings = surface.Settings(model=nets.segmenter(tmp_path, margin_px=4), limits_mm2={"scratch": 1.0})
    check = surface.build(settings, "surface", plan(part))
    (findings,) = check([view(grey(), part)])
    assert [(f.check, f.feature, f.value, f.low, f.high, f.unit, f.ok) for f in findings] == [
        ("surface", "scratch", 0.0, None, 1.0, "mm2", True),
        ("surface", "stain", 0.0, None, 0.0, "mm2", True),
    ]


def test_area_class_and_place_of_a_defect(tmp_path: Path) -> None:
    part = template()
    image = grey()
    image[40:44, 60:70] = 250  # 40 px of 0.25 mm²; the upper left is the drawing's (25, 25) mm
    image[5, 5] = 250  # outside the part
    settings = surface.Settings(model=nets.segmenter(tmp_path, margin_px=4), limits_mm2={"scratch": 9.9, "stain": 1.0})
    check = surface.build(settings, "surface", plan(part))
    scratch, stain = check([view(image, part)])[0]
    assert (scratch.value, scratch.ok, stain.value, stain.ok) == (10.0, False, 0.0, True)
    assert scratch.at_mm == (25.0, 25.0)
    evidence = scratch.evidence
    assert evidence is not None
    assert evidence.bbox_px == (250.0, 250.0, 10.0, 4.0)
    assert (evidence.class_name, evidence.area_mm2, evidence.threshold) == ("scratch", 10.0, 0.5)
    assert math.isclose(evidence.score, 245 / 255)
    assert check([view(image, part), view(grey(), part)])[1][0].ok


def test_several_defects_of_a_class_are_summed_and_told_one_by_one(tmp_path: Path) -> None:
    part = template()
    image = grey()
    for column in (20, 40, 60):
        image[50:52, column : column + 4] = 5  # 8 px = 2 mm² each
    settings = surface.Settings(model=nets.segmenter(tmp_path, margin_px=4), limits_mm2={"stain": 5.0})
    findings = surface.build(settings, "surface", plan(part))([view(image, part)])[0]
    assert [(f.feature, f.value, f.ok) for f in findings] == [
        ("scratch", 0.0, True),
        ("stain", 6.0, False),
        ("stain-2", 2.0, True),
        ("stain-3", 2.0, True),
    ]


def test_small_and_weak_things_are_none(tmp_path: Path) -> None:
    part = template()
    image = grey()
    image[50, 50] = 250  # 0.25 mm²
    image[60:64, 60:64] = 200  # score 145/255 = 0.57
    settings = surface.Settings(model=nets.segmenter(tmp_path), least_mm2=0.3, threshold=0.6)
    assert all(f.ok for f in surface.build(settings, "surface", plan(part))([view(image, part)])[0])


def test_so_near_an_edge_nothing_is_judged(tmp_path: Path) -> None:
    part = template()
    settings = surface.Settings(model=nets.segmenter(tmp_path), edge_mm=6.0)
    with pytest.raises(ConfigError, match="E_CFG_ZONE"):
        surface.build(settings, "surface", plan(part))


def test_the_classifier_has_the_last_word(tmp_path: Path) -> None:
    part = template()
    image = grey()
    image[40:52, 40:52] = 250
    model = nets.segmenter(tmp_path)
    for classes, expected in (
        (("good", "burn"), {"scratch": 0.0, "stain": 0.0, "burn": 36.0}),
        (("burn", "good"), {"scratch": 0.0, "stain": 0.0, "burn": 0.0}),
    ):
        settings = surface.Settings(model=model, classifier=nets.classifier(tmp_path, classes))
        findings = surface.build(settings, "surface", plan(part))([view(image, part)])[0]
        assert {f.feature: f.value for f in findings} == expected


def test_the_classifier_cannot_dismiss_what_it_does_not_see_whole(tmp_path: Path) -> None:
    part = template()
    image = grey()
    image[40:42, 40:57] = 250  # one px longer than the classifier sees
    settings = surface.Settings(model=nets.segmenter(tmp_path), classifier=nets.classifier(tmp_path, ("burn", "good")))
    image[30:60, 30:70] = np.maximum(image[30:60, 30:70], 199)  # bright all around, and no defect
    findings = surface.build(settings, "surface", plan(part))([view(image, part)])[0]
    assert {f.feature: f.value for f in findings} == {"scratch": 8.5, "stain": 0.0, "burn": 0.0}
    image[40:42, 56] = 199
    assert all(f.ok for f in surface.build(settings, "surface", plan(part))([view(image, part)])[0])


def test_two_defects_that_touch_are_judged_by_the_limits_of_both(tmp_path: Path) -> None:
    part = template()
    image = grey()
    image[40:44, 40:44] = 250  # 4 mm² of a scratch
    image[40:44, 44:50] = 5  # 6 mm² of a stain beside it
    settings = surface.Settings(model=nets.segmenter(tmp_path), limits_mm2={"scratch": 3.0, "stain": 12.0})
    scratch, stain = surface.build(settings, "surface", plan(part))([view(image, part)])[0]
    assert (stain.value, stain.ok, scratch.value, scratch.ok) == (10.0, True, 4.0, False)
    assert scratch.evidence is not None
    assert scratch.evidence.bbox_px == (230.0, 250.0, 4.0, 4.0)
    image[40:44, 40:43] = 128  # what is left of it is a fringe
    assert all(f.ok for f in surface.build(settings, "surface", plan(part))([view(image, part)])[0])


def test_without_a_template_the_whole_picture_is_judged(tmp_path: Path) -> None:
    settings = surface.Settings(model=nets.segmenter(tmp_path), mm_per_px=0.1)
    check = surface.build(settings, "surface", plan())
    image = np.full((77, 50), 128, np.uint8)
    image[70:75, 0:10] = 250
    scratch = check([view(image)])[0][0]
    assert math.isclose(scratch.value, 0.5)
    assert scratch.evidence is not None
    assert scratch.evidence.bbox_px == (0.0, 70.0, 10.0, 5.0)
    with pytest.raises(ConfigError, match="E_CFG_SCALE"):
        surface.build(surface.Settings(model=nets.segmenter(tmp_path)), "surface", plan())


def test_a_limit_on_no_class_is_refused(tmp_path: Path) -> None:
    settings = surface.Settings(model=nets.segmenter(tmp_path), limits_mm2={"scrach": 1.0})
    with pytest.raises(ConfigError, match="scrach"):
        surface.build(settings, "surface", plan(template()))


def test_colour_pictures_are_seen_in_grey(tmp_path: Path) -> None:
    part = template()
    image = np.dstack([grey()] * 3)
    image[40:44, 60:70] = 250
    settings = surface.Settings(model=nets.segmenter(tmp_path), limit_mm2=1.0)
    assert surface.build(settings, "surface", plan(part))([view(image, part)])[0][0].value == 10.0


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("down", [1, 2, 8])
def test_around_what_a_first_look_sees_it_is_as_if_there_were_none(tmp_path: Path, any_size: bool, down: int) -> None:
    part = template()
    image = grey()
    image[40:44, 60:70] = 250
    image[52:60, 20:100] = 250  # longer than a tile
    model = nets.segmenter(tmp_path, margin_px=4, any_size=any_size)
    looking = nets.segmenter(tmp_path / "look", any_size=any_size, down=(down, down), thresholds={"scratch": 0.2})
    settings = surface.Settings(model=model, look=looking, limit_mm2=9.0)
    check = surface.build(settings, "surface", plan(part))
    dense = surface.build(settings.model_copy(update={"look": None}), "surface", plan(part))
    assert check([view(image, part), view(grey(), part)]) == dense([view(image, part), view(grey(), part)])
    assert len(check.models) == 2
    blind = surface.Settings(model=model, look=nets.segmenter(tmp_path / "blind", thresholds={"scratch": 1.0, "stain": 1.0}))
    assert surface.build(blind, "surface", plan(part))([view(image, part)])[0][0].value == 0.0


def test_the_network_is_asked_only_around_what_the_look_has_seen(tmp_path: Path) -> None:
    part = template()
    model, look = networks.load(nets.segmenter(tmp_path, margin_px=4)), networks.load(nets.segmenter(tmp_path / "look"))
    judged = surface.zone_of(part, None)
    image = grey()
    image[2, 2] = image[97, 117] = 250  # outside the part: nobody asks
    image[50, 60] = 250
    way = surface.way_of(judged, model, look, fitted=True)
    _, grid = way.asked(image, look)
    cores = np.zeros(judged.shape, np.uint8)
    for row, column in grid.corners:
        cores[row : row + 24, column : column + 24] += 1
    assert cores[34:66, 44:76].all()
    assert len(grid.corners) < len(surface.grid_of(judged, model.card).corners)
    assert not len(way.asked(grey(), look)[1].corners)


def test_a_network_of_any_size_gets_tiles_that_fit(tmp_path: Path) -> None:
    part = template()
    fixed, free = networks.load(nets.segmenter(tmp_path)), networks.load(nets.segmenter(tmp_path / "free", any_size=True))
    judged = surface.zone_of(part, None)
    image = np.random.default_rng(0).integers(0, 256, judged.shape, np.uint8)
    ways = [surface.way_of(judged, network, fitted=True) for network in (fixed, free)]
    assert [way.models[0].card.input.height for way in ways] == [32, 96]
    assert len(ways[1].grid.corners) == 1 < len(ways[0].grid.corners)
    for one, other in zip(ways[0].run(image), ways[1].run(image), strict=True):
        np.testing.assert_array_equal(one[judged], other[judged])


def test_a_first_look_of_other_channels_is_refused(tmp_path: Path) -> None:
    """Its size may be another."""
    settings = surface.Settings(model=nets.segmenter(tmp_path), look=nets.segmenter(tmp_path / "look", size=48))
    check = surface.build(settings, "surface", plan(template()))
    assert check.look is not None
    of_colours = check.look.card.model_copy(update={"input": check.look.card.input.model_copy(update={"channels": 3})})
    loaded = {"look": replace(check.look, card=of_colours)}
    asked = replace(plan(template()), load_model=lambda path, **how: loaded.get(path.parent.name) or networks.load(path, **how))
    with pytest.raises(ConfigError, match="E_MODEL_INPUT"):
        surface.build(settings, "surface", asked)


def test_without_a_drawing_a_first_look_needs_the_files_no_more(tmp_path: Path) -> None:
    """Any size of picture: one more pixel than a core each way, too."""
    model = nets.segmenter(tmp_path, margin_px=4, any_size=True)
    settings = surface.Settings(model=model, look=nets.segmenter(tmp_path / "look", margin_px=4), limit_mm2=1.0, mm_per_px=1.0)
    check = surface.build(settings, "surface", plan())
    for file in (*tmp_path.glob("*.onnx"), *(tmp_path / "look").glob("*.onnx")):
        file.unlink()
    for size in (24, 25, 49, 100):
        image = np.full((size, size), 128, np.uint8)
        image[-1, -1] = image[2:6, 3:8] = 250
        assert [f.value for f in check([view(image)])[0] if f.feature == "scratch"] == [21.0]


@pytest.mark.parametrize("margin_px", [0, 3, 12, 20, 160])
def test_any_margin_of_a_card_has_tiles(tmp_path: Path, margin_px: int) -> None:
    part, size = template(), 352
    image = grey()
    image[40:44, 60:70] = 250
    for any_size in (False, True):
        folder = tmp_path / f"{any_size}"
        settings = surface.Settings(model=nets.segmenter(folder, size, margin_px=margin_px, any_size=any_size))
        looking = settings.model_copy(update={"look": nets.segmenter(folder / "look", size, margin_px=margin_px, any_size=any_size)})
        for each in (settings, looking):
            assert surface.build(each, "surface", plan(part))([view(image, part)])[0][0].value == 10.0


def test_after_a_first_look_a_model_of_nothing_but_margin_is_refused(tmp_path: Path) -> None:
    settings = surface.Settings(model=nets.segmenter(tmp_path, margin_px=9), look=nets.segmenter(tmp_path / "look"))
    with pytest.raises(ConfigError, match=r"E_MODEL_INPUT.*at least 16 px"):
        surface.build(settings, "surface", plan(template()))
