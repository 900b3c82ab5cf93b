"""The INT8 twin of a trained network answers like it, and is recommended by what was measured, not by belief."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.neural import model as models
from inspector.records import ConfigError
from inspector.workshop import datasets
from tests.neural import nets
from tests.workshop import sets

pytest.importorskip("torch")

from inspector.workshop import quantise, train
from inspector.workshop.fit import Schedule


def test_the_twin_of_a_classifier(tmp_path: Path) -> None:
    data = sets.classification(tmp_path / "data", 16)
    model = train.classification(train.Order(data, tmp_path / "kind.onnx", Schedule(0, 20, None, looks=2), threads=1), lambda _: None)
    done = CliRunner().invoke(
        application(), ["quantise", str(model.path), "--data", str(data), "--reduce-range", "--json"], catch_exceptions=False
    )
    report = json.loads(done.stdout)
    assert report["measure"] == "accuracy"
    assert report["int8"]["quality"] >= report["fp32"]["quality"] - 0.1
    assert report["int8"]["bytes"] < report["fp32"]["bytes"]
    faster = report["fp32"]["ms"] / report["int8"]["ms"] >= quantise.LEAST_GAIN
    assert report["recommended"] == (faster and report["fp32"]["quality"] - report["int8"]["quality"] <= quantise.MOST_LOSS)
    twin = models.load(tmp_path / "kind.int8.onnx")
    assert "reduced range" in twin.card.training["quantised"]
    image = datasets.classification(data).images[0].reshape(1, 32, 32, 1)
    np.testing.assert_allclose(twin.run(image)[0], model.run(image)[0], atol=0.1)


def test_the_twin_of_a_segmenter(tmp_path: Path) -> None:
    data = sets.segmentation(tmp_path / "data", 10)
    order = train.Order(data, tmp_path / "spots.onnx", Schedule(0, 12, None, looks=2), size_px=64, width=16, threads=1)
    report = quantise.quantise(train.segmentation(order, lambda _: None).path, data)
    assert abs(report["fp32"]["quality"] - report["int8"]["quality"]) < 0.2
    assert models.load(tmp_path / "spots.int8.onnx").card.margin_px == 8


def test_other_data_is_refused(tmp_path: Path) -> None:
    data = sets.classification(tmp_path / "data", 4)
    with pytest.raises(ConfigError, match="E_DATA_CLASS"):
        quantise.quantise(nets.classifier(tmp_path), data)


def test_a_part_has_all_that_belongs_to_it(tmp_path: Path) -> None:
    data = datasets.classification(sets.classification(tmp_path, 3))
    some = datasets.part(data, [4, 1])
    assert some.names == (data.names[4], data.names[1])
    assert some.labels.tolist() == [1, 0]
    assert some.classes == data.classes
