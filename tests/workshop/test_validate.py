"""Cross-validation: every picture is judged once by a model that has not seen it; groups stay together; what is done is not done again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.records import ConfigError
from tests.workshop import sets

torch = pytest.importorskip("torch")

from inspector.workshop import train, validate  # noqa: E402 - they need torch
from inspector.workshop.fit import Schedule  # noqa: E402


@given(st.integers(2, 6), st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=40), st.integers(0, 9), st.booleans())
def test_each_picture_is_in_one_fold_and_a_group_in_one(folds: int, letters: list[str], seed: int, grouped: bool) -> None:
    names = [f"{letter}{i}" for i, letter in enumerate(letters)]
    plan = validate.Plan("compare", folds, "^[a-z]" if grouped else None)
    if grouped and len(set(letters)) < folds:
        with pytest.raises(ConfigError, match="E_DATA_EMPTY"):
            validate.parted(names, None, plan, seed)
        return
    parts = validate.parted(names, None, plan, seed)
    assert sorted(int(i) for part in parts for i in part) == list(range(len(names)))
    if grouped:
        for letter in set(letters):
            assert sum(any(names[i][0] == letter for i in part) for part in parts) == 1
    else:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_class_is_dealt_out_evenly() -> None:
    labels = np.repeat([0, 1], [10, 5])
    parts = validate.parted([str(i) for i in range(15)], labels, validate.Plan("classification", 5), 3)
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[2, 1]] * 5


def test_a_name_without_its_group_is_refused() -> None:
    with pytest.raises(ConfigError, match="E_DATA_GROUP"):
        validate.parted(["board-1", "other"], None, validate.Plan("compare", 2, "board"), 0)


def test_a_class_in_one_fold_is_refused_before_any_training(tmp_path: Path) -> None:
    folder = sets.classification(tmp_path / "data", 4)
    for path in sorted((folder / "light").iterdir())[1:]:
        path.unlink()
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"E_DATA_CLASS.*light"):
        validate.validate(train.Order(folder, tmp_path / "folds", Schedule(0, 2, None)), validate.Plan("classification", 3), said.append)
    assert not said


def test_folds_without_a_class_are_judged(tmp_path: Path) -> None:
    folder = sets.classification(tmp_path / "data", 8)
    for path in sorted((folder / "light").iterdir())[2:]:
        path.unlink()
    order = train.Order(folder, tmp_path / "folds", Schedule(0, 2, None, looks=1), size_px=32, threads=1)
    assert validate.validate(order, validate.Plan("classification", 4), lambda _: None)["pooled"]["pictures"] == 10


def test_figures_that_are_not_defined_are_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled = {"pairs": 1, "map_33": {"value": None, "interval": [None, None]}, "f_33": {"value": 0.5, "interval": [0.25, 1.0]}}
    monkeypatch.setattr(validate, "validate", lambda *_: {"folds": [{}], "of": 2, "pooled": pooled})
    done = CliRunner().invoke(application(), ["validate", "compare", str(tmp_path), "--out", str(tmp_path)], catch_exceptions=False)
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [
        ["map_33", "–", "(–", "to", "–)"],
        ["f_33", "0.5000", "(0.2500", "to", "1.0000)"],
    ]


def test_pairs_are_judged_by_models_that_have_not_seen_them(tmp_path: Path) -> None:
    folder = sets.pairs(tmp_path / "data", 12)
    order = train.Order(folder, tmp_path / "folds", Schedule(0, 60, None, looks=3), threads=1)
    found = validate.validate(order, validate.Plan("compare", 3, only=2), lambda _: None)
    assert (len(found["folds"]), found["of"]) == (2, 3)
    assert (found["pooled"]["pairs"], found["pooled"]["boxes"]) == (8, 16)
    assert found["pooled"]["f_33"]["value"] >= 0.6
    seen = {path.name for path in (tmp_path / "folds/fold-0/train/images").glob("*")} if (folder / "images").is_dir() else set()
    assert not seen & {path.name for path in (tmp_path / "folds/fold-0/test/images").glob("*")}
    model = tmp_path / "folds/fold-0/model.onnx"
    written_ns = model.stat().st_mtime_ns
    again = validate.validate(order, validate.Plan("compare", 3, only=1), lambda _: None)
    assert model.stat().st_mtime_ns == written_ns
    assert again["folds"] == found["folds"][:1]


def test_pictures_in_folders_of_their_classes(tmp_path: Path) -> None:
    folder = sets.classification(tmp_path / "data/images", 8)
    (tmp_path / "data/labels.csv").write_text("file,class\n")
    order = train.Order(folder.parent, tmp_path / "folds", Schedule(0, 20, None, looks=2), threads=1)
    found = validate.validate(order, validate.Plan("classification", 2), lambda _: None)
    assert found["pooled"]["pictures"] == 16
    assert found["pooled"]["accuracy"]["value"] >= 0.9
    assert (tmp_path / "folds/fold-1/test/images/dark").is_dir()
