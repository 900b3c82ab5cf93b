"""The figures are what their definitions say, on answers that can be counted by hand."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.checks import compare
from inspector.neural import model as models
from inspector.records import ConfigError
from inspector.workshop import datasets, evaluate
from tests.neural import nets
from tests.workshop import sets


def test_a_model_that_is_right_has_full_marks(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path))
    data = datasets.segmentation(sets.segmentation(tmp_path / "data", 6))
    masks = tuple(evaluate.predict_maps(model, image)[0] for image in data.images)
    same = datasets.Segmented(data.names, data.images, masks, data.classes, 1)
    figures = evaluate.segmentation(model, same)
    for name in ("miou", "pixel_ap", "pro30", "defect_recall", "pixel_auroc"):
        assert figures[name]["value"] == 1.0 if name != "pixel_auroc" else figures[name]["value"] > 0.999, name
    assert figures["false_per_picture"]["value"] == 0.0
    assert figures["pictures"] == 6


def test_missed_and_invented_defects_are_counted(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path))
    image = np.full((64, 64), 128, np.uint8)
    image[5:10, 5:10] = 255  # invented
    mask = np.zeros((64, 64), np.uint8)
    mask[40:44, 40:44] = 2  # missed
    data = datasets.Segmented(("a",), (image,), (mask,), ("scratch", "stain"), 1)
    figures = evaluate.segmentation(model, data, intervals=False)
    assert (figures["defects"], figures["defect_recall"], figures["false_per_picture"]) == (1, 0.0, 1.0)
    assert (figures["iou_scratch"], figures["iou_stain"], figures["recall_scratch"], figures["recall_stain"]) == (0.0, 0.0, None, 0.0)


def test_masks_are_measured_as_they_are_written(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path, thresholds={"scratch": 0.9}))
    image, mask = np.full((64, 64), 128, np.uint8), np.zeros((64, 64), np.uint8)
    image[10:50, 10:12] = image[48:50, 10:50] = 205  # faint, not there in truth, around what is there
    image[20:24, 30:34], mask[20:24, 30:34] = 250, 1
    figures = evaluate.segmentation(model, datasets.Segmented(("a",), (image,), (mask,), ("scratch", "stain"), 1), intervals=False)
    assert (figures["mask_iou_scratch"], figures["mask_miou"], figures["mask_iou_stain"]) == (1.0, 1.0, None)
    assert figures["iou_scratch"] == figures["miou"] == round(16 / (16 + 80 + 76), 4)
    assert (figures["defect_recall"], figures["false_per_picture"]) == (1.0, 0.0)


def test_what_lies_in_the_box_of_another_is_not_found_by_it(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path, thresholds={"scratch": 0.7}))
    image, mask = np.full((64, 64), 128, np.uint8), np.zeros((64, 64), np.uint8)
    image[10:50, 10:12] = image[48:50, 10:50] = 250  # sure, and false
    image[20:24, 30:34], mask[20:24, 30:34] = 205, 1  # true, and below the threshold
    figures = evaluate.segmentation(model, datasets.Segmented(("a",), (image,), (mask,), ("scratch", "stain"), 1), intervals=False)
    assert (figures["defect_recall"], figures["false_per_picture"], figures["mask_iou_scratch"]) == (0.0, 1.0, 0.0)


def test_good_parts_alone_have_no_recall(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path))
    blank = np.full((64, 64), 128, np.uint8)
    figures = evaluate.segmentation(model, datasets.Segmented(("a",), (blank,), (blank * 0,), ("scratch", "stain"), 1))
    assert (figures["defect_recall"]["value"], figures["miou"]["value"], figures["false_per_picture"]["value"]) == (None, None, 0.0)


def test_classification_counts_right_and_wrong(tmp_path: Path) -> None:
    model = models.load(nets.classifier(tmp_path, ("dark", "light")))
    data = datasets.classification(sets.classification(tmp_path / "data", 8))
    figures = evaluate.classification(model, data)
    assert (figures["accuracy"]["value"], figures["macro_f1"]["value"]) == (1.0, 1.0)
    low, high = figures["accuracy"]["interval"]
    assert 0.75 < low < high <= 1.0
    assert figures["confusion"] == [[8, 0], [0, 8]]


def said(labels: list[int], answers: list[int], size: int) -> dict[str, Any]:
    """The figures of a classification that answered so, of classes a, b, …"""
    blank = np.zeros((8, 8), np.uint8)
    data = datasets.Classified(("",) * len(labels), (blank,) * len(labels), np.array(labels), tuple("abcdef"[:size]), 1)
    return evaluate.class_figures(np.eye(size, dtype=np.float32)[answers], data)


def test_intervals_of_unequal_classes_hold_their_figures() -> None:
    """A rare class that is never seen right: no draw may leave it out."""
    found = said([0] * 40 + [1] * 40 + [2] * 2, [0] * 40 + [1] * 40 + [0] * 2, 3)
    for name in ("balanced_accuracy", "macro_f1"):
        low, high = found[name]["interval"]
        assert low <= found[name]["value"] <= high < 0.95
    assert found["recall_c"]["value"] == 0.0
    assert found["recall_c"]["interval"] == [0.0, round(evaluate.wilson(0, 2)[1], 4)]
    assert found["precision_c"] == {"value": None, "interval": [None, None]}
    assert found["precision_a"]["value"] == round(40 / 42, 4)


def test_three_pictures_prove_little() -> None:
    found = said([0] * 3 + [1] * 3, [0] * 3 + [1] * 3, 2)
    wilsons = evaluate.wilson(3, 3)[0]
    assert found["recall_a"] == {"value": 1.0, "interval": [round(wilsons, 4), 1.0]}
    for name in ("balanced_accuracy", "macro_f1", "f1_a"):
        assert found[name]["value"] == 1.0
        assert wilsons < found[name]["interval"][0] < 0.8
        assert found[name]["interval"][1] == 1.0


def test_a_mean_over_classes_is_of_the_same_classes_in_every_draw(tmp_path: Path) -> None:
    """One of eight pictures has the other class, which the model never sees: no draw's mean may be of the one class alone."""
    image, mask = np.full((64, 64), 128, np.uint8), np.zeros((64, 64), np.uint8)
    image[5:10, 5:10], mask[5:10, 5:10] = 255, 1
    rare = mask.copy()
    rare[40:44, 40:44] = 2
    data = datasets.Segmented(tuple("abcdefgh"), (image,) * 8, (rare, *[mask] * 7), ("scratch", "stain"), 1)
    figures = evaluate.segmentation(models.load(nets.segmenter(tmp_path)), data)
    assert figures["iou_stain"]["value"] == 0.0
    for name in ("miou", "mask_miou"):
        assert figures[name] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert figures["recall_stain"]["interval"] == [0.0, round(evaluate.wilson(0, 1)[1], 4)]


def test_a_mean_of_boxes_is_of_the_same_classes_in_every_draw() -> None:
    """The same of pairs: the second class is in one of eight, and is never found."""
    pictures, boxes = np.zeros((8, 64, 64), np.uint8), [np.array([[10, 10, 20, 20, 1]])] * 8
    boxes[0] = np.array([[10, 10, 20, 20, 1], [40, 40, 50, 50, 2]])
    data = datasets.Paired(tuple("abcdefgh"), tuple(pictures), tuple(pictures), tuple(boxes), ("gap", "island"))
    found = [[compare.Difference("gap", 0.9, 100, (10, 10, 10, 10))]] * 8
    figures = evaluate.box_figures(found, data, np.full((8, 2), 0.5))
    assert figures["ap_island"]["value"] == 0.0
    assert figures["map_33"] == {"value": 0.5, "interval": [0.5, 0.5]}


def test_a_threshold_leaves_few_false_detections(tmp_path: Path) -> None:
    model = models.load(nets.segmenter(tmp_path))
    image = np.full((64, 64), 128, np.uint8)
    image[5:10, 5:10] = 205  # score 155/255 = 0.61, and not in the mask
    mask = np.zeros((64, 64), np.uint8)
    data = datasets.Segmented(("a",), (image,), (mask,), ("scratch", "stain"), 1)
    assert evaluate.calibrate(model, data) == {"scratch": 0.65, "stain": 0.5}


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(good: list[int], bad: list[int]) -> None:
    pairs = [1.0 if b > g else 0.5 if b == g else 0.0 for g in good for b in bad]
    histograms = [np.bincount(values, minlength=256).astype(np.float64) for values in (good, bad)]
    assert math.isclose(evaluate.auroc(*histograms), sum(pairs) / len(pairs), abs_tol=1e-9)


def test_iou_by_hand() -> None:
    truth, found = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(evaluate.ious(evaluate.confusion(truth, found, 4)), [0.25, 0.5, 0.0, np.nan])


def test_wilsons_interval_by_the_book() -> None:
    low, high = evaluate.wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.49, 0.943)


def test_a_page_shows_the_figures_and_the_worst_cases(tmp_path: Path) -> None:
    run = CliRunner()
    segmented, classified = sets.segmentation(tmp_path / "a", 4), sets.classification(tmp_path / "b", 3)
    (segmented / "classes.txt").write_text("scratch\nstain\n")
    for model, data, word in (
        (nets.segmenter(tmp_path), segmented, "miou"),
        (nets.classifier(tmp_path, ("dark", "light")), classified, "Confusion"),
    ):
        pages = tmp_path / model.stem
        done = run.invoke(application(), ["evaluate", str(model), str(data), "--report", str(pages), "--json"], catch_exceptions=False)
        assert json.loads(done.stdout)["task"] == models.load(model).card.task
        text = (pages / "index.html").read_text("utf-8")
        assert word in text
        for name in re.findall(r'src="([^"]+)"', text):
            assert (pages / name).is_file()
        assert "worst-00.png" in text
        assert "http" not in text


def test_a_page_without_a_place_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nets.classifier(tmp_path, ("dark", "light"))
    monkeypatch.setattr(evaluate, "measure", lambda *_: pytest.fail("it was measured all the same"))
    done = CliRunner().invoke(application(), ["evaluate", str(model), str(tmp_path), "--report", "/proc/x"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("E_OUT /proc/x: --report: no folder can be made there")


def test_some_of_the_classes_are_enough(tmp_path: Path) -> None:
    data = sets.classification(tmp_path / "data", 3)
    shutil.rmtree(data / "light")
    _, figures = evaluate.measure(models.load(nets.classifier(tmp_path, ("dark", "light"))), data)
    assert figures["accuracy"]["value"] == 1.0
    assert figures["confusion"] == [[3, 0], [0, 0]]


def test_data_of_other_classes_is_refused(tmp_path: Path) -> None:
    data = sets.classification(tmp_path / "data", 3)
    done = CliRunner().invoke(application(), ["evaluate", str(nets.classifier(tmp_path)), str(data)])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.code == "E_DATA_CLASS"
