"""A picture against its reference: what differs is found, seams of edges are not, and a network names it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.checks import compare
from inspector.records import ConfigError, Frame, Plan, Stamp, View
from tests.neural import nets

PLAN = Plan("top", None, None, None, (), False)


def board() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = np.zeros((120, 160), np.uint8)
    image[20:40, 10:150] = 255
    image[60:80, 10:150] = 255
    return image


def view(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], uid: str | None = "7") -> View:
    return View(Frame(Stamp("top", 1, 0, None, image.shape, uid=uid), image), None, None, image)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "7_temp.png"), board())
    return tmp_path


def test_the_same_picture_has_no_difference(references: Path) -> None:
    check = compare.build(compare.Settings(references=references, name="{uid}_temp.png"), "pcb", PLAN)
    (finding,) = check([view(board())])[0]
    assert (finding.check, finding.feature, finding.value, finding.high, finding.unit, finding.ok) == (
        "pcb",
        "difference",
        0.0,
        0.0,
        "px",
        True,
    )


def test_an_edge_a_pixel_away_is_none(references: Path) -> None:
    check = compare.build(compare.Settings(references=references, name="{uid}_temp.png"), "pcb", PLAN)
    assert check([view(np.roll(board(), 1, axis=0))])[0][0].ok


def test_what_differs_has_area_and_box(references: Path) -> None:
    image = board()
    image[20:40, 50:60] = 0  # a gap of 200 px
    image[90:96, 100:110] = 255  # an island of 60 px
    check = compare.build(compare.Settings(references=references, name="{uid}_temp.png", limit_px=100.0), "pcb", PLAN)
    whole, second = check([view(image)])[0]
    assert (whole.feature, whole.value, whole.ok) == ("difference", 260.0, False)
    assert (second.feature, second.value, second.ok) == ("difference-2", 60.0, True)
    assert whole.evidence is not None
    assert whole.evidence.bbox_px == (50.0, 20.0, 10.0, 20.0)


def test_a_network_names_what_differs(references: Path) -> None:
    image = board()
    image[20:40, 50:60] = 0
    image[90:100, 100:110] = 255
    settings = compare.Settings(references=references, name="{uid}_temp.png", model=nets.comparer(references))
    findings = compare.build(settings, "pcb", PLAN)([view(image)])[0]
    assert [(f.feature, f.ok) for f in findings] == [("more", False), ("less", False)]
    evidence = findings[0].evidence
    assert evidence is not None
    assert evidence.bbox_px == (96.0, 86.0, 16.0, 16.0)
    assert all(f.value == 0.0 for f in compare.build(settings, "pcb", PLAN)([view(board())])[0])


def test_another_picture_is_never_good_whatever_the_network_says(references: Path) -> None:
    cv2.imwrite(str(references / "8_temp.png"), np.zeros((400, 400), np.uint8))
    settings = compare.Settings(references=references, name="{uid}_temp.png", model=nets.comparer(references), limit_px=1e9)
    check = compare.build(settings, "pcb", PLAN)
    other, speckled = np.full((400, 400), 255, np.uint8), np.zeros((400, 400), np.uint8)
    for row in range(5, 400, 24):
        for column in range(5, 400, 24):
            speckled[row : row + 4, column : column + 4] = 255
    assert [(f.feature, f.value, f.high) for f in check([view(other, "8")])[0] if not f.ok] == [("picture", 1.0, 0.25)]
    assert [(f.feature, f.value, f.high) for f in check([view(speckled, "8")])[0] if not f.ok] == [("places", 256.0, 255.0)]


def test_one_reference_for_all(references: Path) -> None:
    check = compare.build(compare.Settings(references=references, name="7_temp.png"), "pcb", PLAN)
    assert check([view(board(), None)])[0][0].ok


def test_a_missing_or_other_reference_is_an_error_not_a_pass(references: Path) -> None:
    check = compare.build(compare.Settings(references=references, name="{uid}_temp.png"), "pcb", PLAN)
    for uid, code in ((None, "E_REFERENCE"), ("8", "E_IMG_OPEN"), ("../7", "E_REFERENCE"), ("a/b", "E_REFERENCE")):
        with pytest.raises(ConfigError) as caught:
            check([view(board(), uid)])
        assert caught.value.code == code
    with pytest.raises(ConfigError, match="E_REFERENCE"):
        check([view(board()[:100])])
    with pytest.raises(ConfigError, match="E_REFERENCE"):
        compare.build(compare.Settings(references=references / "none"), "pcb", PLAN)
    with pytest.raises(ConfigError, match="E_CFG_CLASS"):
        compare.build(compare.Settings(references=references, limits_px={"short": 1.0}), "pcb", PLAN)


def test_only_the_last_references_are_kept(references: Path) -> None:
    for uid in "123":
        cv2.imwrite(str(references / f"{uid}.png"), board())
    check = compare.build(compare.Settings(references=references, keep=2), "pcb", PLAN)
    check([view(board(), uid) for uid in "1232"])
    assert list(check.kept) == ["2.png", "3.png"]


def tracks(height: int = 320, width: int = 320) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Slanted tracks and pads, so that both directions have edges everywhere."""
    image = np.zeros((height, width), np.uint8)
    for at in range(-height, width, 48):
        cv2.line(image, (at, 0), (at + height, height), 255, 9)
    for y in range(24, height, 64):
        for x in range(40, width, 64):
            cv2.circle(image, (x, y), 14, 255, -1)
    return image


@pytest.mark.parametrize(("dx", "dy", "turn_deg"), [(4.0, 0.0, 0.0), (-3.0, 5.0, 0.0), (1.5, -2.0, 0.8)])
def test_a_reference_a_few_pixels_off_is_moved_onto_the_picture(dx: float, dy: float, turn_deg: float) -> None:
    reference = tracks()
    matrix = np.asarray(cv2.getRotationMatrix2D((160, 160), turn_deg, 1.0), np.float64) + np.array([[0, 0, dx], [0, 0, dy]])
    image = np.asarray(cv2.warpAffine(reference, matrix, (320, 320), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    image[150:170, 150:170] = 255 - image[150:170, 150:170]
    moved = compare.aligned(image, reference)
    found = compare.differing(image, moved)[40:-40, 40:-40]
    assert found.sum() < 0.1 * compare.differing(image, reference)[40:-40, 40:-40].sum() + 400
    assert found[110:130, 110:130].mean() > 0.9  # what differs in truth is not moved away
    assert moved.shape == reference.shape


def test_what_lies_well_or_has_no_edges_is_left_as_it_is() -> None:
    reference = tracks()
    assert np.array_equal(compare.aligned(reference, reference), reference)
    blank = np.full((320, 320), 90, np.uint8)
    assert np.array_equal(compare.aligned(blank, blank + 40), blank + 40)
    assert np.array_equal(compare.aligned(np.roll(reference, 3, axis=0), reference, 0), reference)


@pytest.mark.parametrize(
    ("rows", "columns", "grey", "dark", "light"),
    [
        ((18, 42), (50, 60), 0, -1, 1),  # a cut: two light pieces, and the dark on both sides is one
        ((38, 62), (50, 60), 255, 1, -1),  # a bridge: one light piece, and the dark between in two
        ((90, 96), (100, 110), 255, 0, 1),  # an island
        ((26, 32), (100, 110), 0, 1, 0),  # a hole
        ((20, 27), (50, 60), 0, 0, 0),  # a bite
        ((40, 46), (50, 60), 255, 0, 0),  # a spur
    ],
)
def test_regions_say_what_a_defect_does_to_what_is_connected(
    rows: tuple[int, int], columns: tuple[int, int], grey: int, dark: int, light: int
) -> None:
    image = board()
    image[slice(*rows), slice(*columns)] = grey
    opened = compare.differing(image, board())
    row, column = compare.peaks(opened)[0]
    assert [(int(plane[row, column]) - 128) // compare.REGION_STEP for plane in compare.regions(image, board(), opened)] == [dark, light]
    far = compare.regions(image, board(), np.zeros_like(opened))
    assert all((plane == 128).all() for plane in far)


def test_peaks_lie_where_most_differs() -> None:
    opened = np.zeros((100, 100), np.uint8)
    opened[20:30, 20:30] = 1
    opened[70:76, 60:66] = 1
    assert compare.peaks(opened) == [(24, 24), (72, 62)] or compare.peaks(opened) == [(25, 25), (73, 63)]
    assert compare.peaks(np.zeros((50, 50), np.uint8)) == []


BOX = st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(1, 50)] * 2)


@given(BOX, BOX)
def test_overlap_is_symmetric_and_at_most_one(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> None:
    assert compare.iou(a, b) == pytest.approx(compare.iou(b, a))
    assert 0 <= compare.iou(a, b) <= 1 + 1e-9
    assert compare.iou(a, a) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1), BOX), max_size=12))
def test_no_two_of_a_class_overlap_after_suppression(raw: list[tuple[str, float, tuple[float, float, float, float]]]) -> None:
    found = [compare.Difference(name, score, 1, box) for name, score, box in raw]
    kept = compare.suppressed(found)
    assert set(kept) <= set(found)
    for i, a in enumerate(kept):
        assert all(a.class_name != b.class_name or compare.iou(a.box_px, b.box_px) <= 0.3 for b in kept[i + 1 :])


def test_one_class_is_said_of_one_place() -> None:
    cut, bite, other = (
        compare.Difference(name, score, 1, box)
        for name, score, box in (
            ("cut", 0.5, (0.0, 0.0, 10.0, 10.0)),
            ("bite", 0.4, (0.0, 0.0, 10.0, 10.0)),
            ("bite", 0.3, (6.0, 0.0, 10.0, 10.0)),
        )
    )
    assert compare.surest([bite, other, cut]) == [cut, other]
