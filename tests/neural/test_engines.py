"""A tuning is taken on the machine and for the model that it was found for, and nowhere else."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.neural import engines
from inspector.neural import model as models
from inspector.neural.engines import Engine, Tune
from inspector.records import ConfigError
from tests.neural import nets


def tuned(path: Path, engine: Engine, **more: str) -> None:
    said = {"machine": engines.machine(), "model": models.read_card(path.with_suffix(".yaml")).sha256} | more
    engines.write(path, Tune.model_validate({**said, "engine": engine}))


def test_what_was_found_is_taken(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    assert models.load(path).engine == Engine()
    tuned(path, Engine(threads=2))
    assert models.load(path).engine.threads == 2
    assert models.load(path, threads=1).engine.threads == 1  # what is asked for comes first
    assert models.load(path, engine=Engine()).engine == Engine()


@pytest.mark.parametrize("other", [{"machine": "an abacus"}, {"model": "0" * 64}])
def test_what_was_found_elsewhere_is_not(tmp_path: Path, other: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    path = nets.classifier(tmp_path)
    tuned(path, Engine(threads=2), **other)
    with caplog.at_level(logging.WARNING):
        assert models.load(path).engine == Engine()
    assert "not taken" in caplog.text
    assert "inspector model tune" in caplog.text


@pytest.mark.parametrize("text", ["{", "format: 2", "engine: fast", "", "[" * 500])
def test_a_tuning_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    path = nets.classifier(tmp_path)
    engines.tune_file(path).write_text(text)
    with pytest.raises(ConfigError, match="E_MODEL_TUNE"):
        models.load(path)


def test_a_twin_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    tuned(path, Engine(precision="int8"))
    with pytest.raises(ConfigError, match="E_MODEL_OPEN"):
        models.load(path)
    other = nets.segmenter(tmp_path / "other")
    for suffix in (".onnx", ".yaml"):
        path.with_suffix(f".int8{suffix}").write_bytes(other.with_suffix(suffix).read_bytes())
    with pytest.raises(ConfigError, match="E_MODEL_CARD"):
        models.load(path)


def test_a_provider_that_is_not_installed_is_named(tmp_path: Path) -> None:
    if "openvino" in engines.available():
        pytest.skip("onnxruntime-openvino is installed")
    path = nets.classifier(tmp_path)
    with pytest.raises(ConfigError, match=r"E_MODEL_TUNE.*openvino; there is cpu"):
        models.load(path, engine=Engine(provider="openvino"))


def test_the_command_measures_and_keeps(tmp_path: Path) -> None:
    path = nets.classifier(tmp_path)
    twin = path.with_suffix(".int8.onnx")  # a twin whose answers are others than the model's
    data = nets.brightness()
    said = nets.card("classification", models.read_card(path.with_suffix(".yaml")).classes[::-1], 16, data)
    nets.write(twin, data, said, np.zeros((16, 16), np.uint8), [1.0, 0.0])
    done = CliRunner().invoke(application(), ["model", "tune", str(path), "--threads", "1", "--threads", "2"])
    assert done.exit_code == 0, done.output
    found = yaml.safe_load(engines.tune_file(path).read_text())
    assert found["machine"] == engines.machine()
    rows = {(row["provider"], row["precision"], row["threads"]): row for row in found["measured"]}
    assert {("cpu", "fp32", 1), ("cpu", "fp32", 2), ("cpu", "int8", 1)} <= set(rows)
    assert rows["cpu", "fp32", 1]["ms"] > 0
    assert not rows["cpu", "int8", 1]["ok"]
    models.load(path)
