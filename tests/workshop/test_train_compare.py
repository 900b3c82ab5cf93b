"""Pairs of a picture and its reference: the network learns gaps and islands; boxes turn as their windows do; figures by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.checks import compare as check
from inspector.records import ConfigError, Frame, Plan, Stamp, View
from inspector.workshop import datasets, evaluate
from tests.workshop import sets

torch = pytest.importorskip("torch")

from inspector.workshop import train, train_compare  # noqa: E402 - they need torch
from inspector.workshop.fit import Schedule  # noqa: E402


def test_a_network_learns_gaps_and_islands_and_the_check_uses_it(tmp_path: Path) -> None:
    folder = sets.pairs(tmp_path / "data", 16)
    order = train.Order(folder, tmp_path / "pcb.onnx", Schedule(0, 60, None, looks=3), size_px=48, threads=1)
    model = train_compare.compare(order, lambda _: None)
    assert model.card.classes == ["good", "gap", "island"]
    unseen = sets.pairs(tmp_path / "more", 6, seed=5)
    figures = evaluate.boxes(model, datasets.pairs(unseen), intervals=False)
    assert figures["boxes"] == 12
    assert figures["f_33"] >= 0.8
    settings = check.Settings(references=unseen, name="{uid}_temp.png", model=model.path)
    image = datasets.pairs(unseen).images[0]
    stamp = Stamp("top", 1, 0, None, image.shape, uid="000")
    findings = check.build(settings, "pcb", Plan("top", None, None, None, (), False))([View(Frame(stamp, image), None, None, image)])[0]
    assert {f.feature for f in findings if not f.ok} == {"gap", "island"}


def test_pairs_without_boxes_teach_nothing(tmp_path: Path) -> None:
    folder = sets.pairs(tmp_path, 2)
    for path in (folder / "annotations").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="E_DATA_BOX"):
        train_compare.compare(train.Order(folder, tmp_path / "x.onnx", Schedule(0, 2, None)), lambda _: None)


def without_boxes(folder: Path, names: list[str]) -> Path:
    """The pairs of these names without boxes, each picture its own reference."""
    for name in names:
        (folder / "annotations" / f"{name}.txt").unlink()
        (folder / f"{name}_test.png").write_bytes((folder / f"{name}_temp.png").read_bytes())
    return folder


def test_pairs_with_boxes_are_held_out_where_few_have_some(tmp_path: Path) -> None:
    folder = without_boxes(sets.pairs(tmp_path / "data", 12), [f"{i:03d}" for i in range(12) if i not in (4, 7)])
    for seed in range(3):
        order = train.Order(folder, tmp_path / f"{seed}.onnx", Schedule(seed, 2, None, looks=2), size_px=48, threads=1)
        card = train_compare.compare(order, lambda _: None).card
        assert card.metrics["held_out"]["boxes"] == 2
        assert card.training["best_step"] > 0


def test_pairs_to_test_by_have_no_other_classes(tmp_path: Path) -> None:
    folder, more = sets.pairs(tmp_path / "data", 3), sets.pairs(tmp_path / "more", 3)
    (more / "classes.txt").write_text("gap\nbridge\n")
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"E_DATA_CLASS.*bridge"):
        train_compare.compare(train.Order(folder, tmp_path / "x.onnx", Schedule(0, 2, None), test=more), said.append)
    assert not said


@pytest.mark.parametrize("count", [1, 4])
def test_one_pair_with_boxes_is_too_few(tmp_path: Path, count: int) -> None:
    folder = without_boxes(sets.pairs(tmp_path / "data", count), [f"{i:03d}" for i in range(1, count)])
    with pytest.raises(ConfigError, match="E_DATA_EMPTY"):
        train_compare.compare(train.Order(folder, tmp_path / "x.onnx", Schedule(0, 2, None)), lambda _: None)


@given(st.integers(0, 7), st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(1, 8))
def test_a_box_turns_as_its_window_does(which: int, x: int, y: int, w: int, h: int) -> None:
    window = np.zeros((20, 20, 2), np.uint8)
    window[y : y + h, x : x + w] = 1
    turned, box = train_compare._symmetry(which, window, np.array([x, y, x + w, y + h]) / 20)
    x0, y0, x1, y1 = (round(v) for v in box * 20)
    expected = np.zeros((20, 20, 2), np.uint8)
    expected[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(turned, expected)


def paired(boxes: list[list[int]]) -> datasets.Paired:
    blank = np.zeros((100, 100), np.uint8)
    return datasets.Paired(("a",), (blank,), (blank,), (np.array(boxes, np.int64).reshape(-1, 5),), ("gap", "island"))


def test_each_box_is_hit_once_by_its_own_class() -> None:
    data = paired([[0, 0, 10, 10, 1], [50, 50, 60, 60, 2]])
    found = [
        [
            check.Difference("gap", 0.9, 1, (0.0, 0.0, 10.0, 9.0)),
            check.Difference("gap", 0.8, 1, (0.0, 0.0, 10.0, 10.0)),
            check.Difference("gap", 0.7, 1, (50.0, 50.0, 10.0, 10.0)),
            check.Difference("island", 0.6, 1, (52.0, 50.0, 10.0, 10.0)),
        ]
    ]
    assert evaluate.match(found, data, 0.33).hit.tolist() == [True, False, False, True]
    assert evaluate.match(found, data, 0.95).hit.tolist() == [False, True, False, False]
    assert evaluate.best_threshold(found, data) == pytest.approx(0.85)  # F is 2/3 after the first and after the last: the surer of equals
    assert evaluate.match([[]], data, 0.33).truth.tolist() == [[1, 1]]
    assert evaluate.best_threshold([[]], data) == 0.5
