"""Training learns what can be learned in seconds, gives the same bytes for the same seed, goes on where it stopped, and refuses well."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.neural import model as models
from inspector.records import ConfigError
from tests.workshop import sets

torch = pytest.importorskip("torch")

from inspector.workshop import datasets, evaluate, networks, train  # noqa: E402 - they need torch
from inspector.workshop.fit import History, Schedule, Task, fit  # noqa: E402


def order(data: Path, out: Path, steps: int, **more: object) -> train.Order:
    return train.Order(data, out, Schedule(3, steps, None, looks=4), threads=1, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    folder = tmp_path_factory.mktemp("segmenter")
    return train.segmentation(
        order(sets.segmentation(folder / "data", 20), folder / "spots.onnx", 60, size_px=64, width=16), lambda _: None
    )


def test_a_unet_learns_spots_and_lines(segmenter: models.Model, tmp_path: Path) -> None:
    unseen = datasets.segmentation(sets.segmentation(tmp_path, 12, seed=99))
    figures = evaluate.segmentation(segmenter, unseen, intervals=False)
    assert figures["defect_recall"] >= 0.9
    assert figures["miou"] >= 0.4
    assert figures["false_per_picture"] <= 0.5


def test_what_lies_beside_a_trained_model(segmenter: models.Model) -> None:
    beside = {path.name for path in segmenter.path.parent.iterdir() if path.is_file()}
    assert {"spots.onnx", "spots.yaml", "spots.curves.png", "spots.samples.png", "spots.proof-0.png"} <= beside
    assert "spots.training.pt" not in beside
    card = segmenter.card
    assert (card.task, card.classes, card.training["seed"], card.training["steps"]) == ("segmentation", ["spot", "line"], 3, 60)
    assert card.metrics["held_out"]["pictures"] == 4


def test_the_same_seed_gives_the_same_bytes_and_a_stop_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sets.classification(tmp_path / "data", 10)
    whole = train.classification(order(data, tmp_path / "a.onnx", 12), lambda _: None)
    said: list[str] = []

    def stop_at_half(text: str) -> None:
        said.append(text)
        if text.startswith("step 9/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.classification(order(data, tmp_path / "b.onnx", 12), stop_at_half)
    checkpoint = tmp_path / "b.training.pt"
    assert checkpoint.is_file()
    resumed = train.classification(order(data, tmp_path / "b.onnx", 12), said.append)
    assert any(text.startswith("resumed at step") for text in said)
    assert resumed.card.sha256 == whole.card.sha256
    assert not checkpoint.exists()
    other = train.classification(train.Order(data, tmp_path / "c.onnx", Schedule(4, 12, None), threads=1), lambda _: None)
    assert other.card.sha256 != whole.card.sha256


def test_a_training_resumes_in_the_folder_of_its_data(tmp_path: Path) -> None:
    data = sets.classification(tmp_path, 6)
    said: list[str] = []

    def stop_at_half(text: str) -> None:
        if text.startswith("step 4/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.classification(order(data, data / "a.onnx", 8), stop_at_half)
    train.classification(order(data, data / "a.onnx", 8), said.append)
    assert any(text.startswith("resumed at step") for text in said)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    data = sets.classification(tmp_path / "data", 6)
    (tmp_path / "a.training.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match=r"E_TRAIN_RESUME.*a\.training\.pt"):
        train.classification(order(data, tmp_path / "a.onnx", 4), lambda _: None)


def test_training_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)

    def batch(random: np.random.Generator) -> Any:
        return (torch.from_numpy(random.normal(size=(4, 2)).astype(np.float32)),)

    task = Task(network, batch, lambda net, sample: net(sample[0]).square().mean(), lambda _: {"score": 0.5})
    history = fit(task, Schedule(0, 400, None, looks=40, patience=3), tmp_path / "x.pt", "x", lambda _: None, threads=1)
    assert (len(history.losses), history.best_step) == (40, 10)


def test_minutes_become_steps(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)

    def batch(random: np.random.Generator) -> Any:
        return (torch.from_numpy(random.normal(size=(4, 2)).astype(np.float32)),)

    said: list[str] = []
    task = Task(
        network, batch, lambda net, sample: net(sample[0]).square().mean(), lambda _: {"score": float(np.random.default_rng().random())}
    )
    history = fit(task, Schedule(0, None, 0.01, looks=2), tmp_path / "x.pt", "x", said.append, threads=1)
    assert isinstance(history, History)
    assert f"--steps {history.total_steps}" in said[0]


def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path) -> None:
    task = Task(
        torch.nn.Linear(1, 1), lambda _: (torch.full((1, 1), float("nan")),), lambda net, x: net(x[0]).sum(), lambda _: {"score": 0.0}
    )
    with pytest.raises(ConfigError, match="E_TRAIN_NAN"):
        fit(task, Schedule(0, 3, None), tmp_path / "x.pt", "x", lambda _: None, threads=1)


def test_a_score_that_is_not_finite_ends_it(tmp_path: Path) -> None:
    task = Task(torch.nn.Linear(1, 1), lambda _: (torch.ones(1, 1),), lambda net, x: net(x[0]).sum(), lambda _: {"score": float("nan")})
    with pytest.raises(ConfigError, match="E_TRAIN_NAN"):
        fit(task, Schedule(0, 3, None), tmp_path / "x.pt", "x", lambda _: None, threads=1)


def test_deeplab_has_the_published_shape() -> None:
    network = networks.DeepLabV3Plus(3, 1).eval()
    parameters = sum(p.numel() for p in network.body.parameters())
    assert parameters == 42_500_160  # ResNet-101 of 44,549,160 without its last layer of 2048 × 1000 + 1000
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 2, 16, 16)


def test_the_command_trains_measures_and_verifies(tmp_path: Path) -> None:
    data = sets.classification(tmp_path / "data", 8)
    model = tmp_path / "kind.onnx"
    run = CliRunner()
    done = run.invoke(
        application(), ["train", "classification", str(data), "--out", str(model), "--steps", "8", "--threads", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["classes"] == ["dark", "light"]
    measured = json.loads(run.invoke(application(), ["evaluate", str(model), str(data), "--json"]).stdout)
    assert measured["pictures"] == 16
    assert 0 <= measured["accuracy"]["interval"][0] <= measured["accuracy"]["value"]
    assert run.invoke(application(), ["model", "verify", str(model)]).exit_code == 0
    assert json.loads(run.invoke(application(), ["model", "list", str(tmp_path), "--json"]).stdout)["task"] == "classification"
    model.write_bytes(b"broken")
    broken = run.invoke(application(), ["model", "verify", str(model), "--json"])
    assert broken.exit_code == 78
    assert json.loads(broken.stdout)["code"] == "E_MODEL_PARSE"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--arch", "resnet9000"], "E_TRAIN_ARCH"),
        (["--size", "30"], "E_TRAIN_SIZE"),
        (["--weights", "resnet.pth"], "E_TRAIN_WEIGHTS"),
        (["--against", "surface.onnx"], "E_TRAIN_AGAINST"),
    ],
)
def test_wrong_wishes_are_refused(tmp_path: Path, arguments: list[str], code: str) -> None:
    data = sets.classification(tmp_path / "data", 3)
    done = CliRunner().invoke(application(), ["train", "classification", str(data), "--out", str(tmp_path / "x.onnx"), *arguments])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.code == code
    other = CliRunner().invoke(
        application(), ["train", "classification", str(data), "--out", str(tmp_path / "x.onnx"), "--false-rejects", "0.1"]
    )
    assert other.exit_code == 2
    assert "allowed for anomaly" in other.output


@pytest.mark.parametrize(
    ("name", "code"), [("my model.onnx", "E_MODEL_NAME"), ("mod[1].onnx", "E_MODEL_NAME"), ("f/x.onnx", "E_MODEL_OUT")]
)
def test_a_model_that_could_not_be_written_is_refused_first(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "f").write_text("a file")
    with pytest.raises(ConfigError, match=code):
        train.classification(order(tmp_path / "no-data", tmp_path / name, 2), lambda _: None)


def test_a_model_whose_folder_takes_nothing_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ConfigError, match=r"E_MODEL_OUT .*--out: nothing can be written into this folder"):
        train.classification(order(tmp_path / "no-data", tmp_path / "x.onnx", 2), lambda _: None)


def test_a_picture_a_class_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E_DATA_EMPTY"):
        train.classification(order(sets.classification(tmp_path / "data", 1), tmp_path / "x.onnx", 2), lambda _: None)


def test_two_pictures_are_enough_to_try(tmp_path: Path) -> None:
    wish = order(sets.segmentation(tmp_path / "data", 2), tmp_path / "x.onnx", 2, size_px=32)
    assert train.segmentation(wish, lambda _: None).card.metrics["held_out"]["pictures"] == 1


def with_defects_in(folder: Path, names: list[str]) -> Path:
    """The segmentation set with defects in the masks of these names only."""
    for path in (folder / "masks").iterdir():
        if path.stem not in names:
            cv2.imwrite(str(path), np.zeros((96, 96), np.uint8))
    return folder


def test_defects_are_held_out_where_few_pictures_have_some(tmp_path: Path) -> None:
    data = with_defects_in(sets.segmentation(tmp_path / "data", 20), ["004", "011"])
    for seed in range(3):
        wish = train.Order(data, tmp_path / f"{seed}.onnx", Schedule(seed, 2, None, looks=2), size_px=32, threads=1)
        assert train.segmentation(wish, lambda _: None).card.metrics["held_out"]["defects"] > 0


def test_the_only_picture_with_defects_is_trained_on_and_judged_by(tmp_path: Path) -> None:
    said: list[str] = []
    data = with_defects_in(sets.segmentation(tmp_path / "data", 6), ["003"])
    card = train.segmentation(order(data, tmp_path / "x.onnx", 2, size_px=32), said.append).card
    assert any("trained on and judged by" in text for text in said)
    assert card.metrics["held_out"]["defects"] == 0
    assert any("spot" in text for text in said if text.startswith("step"))


def test_wrong_usage_is_64s_business(tmp_path: Path) -> None:
    for arguments in (["--out", "x.pt"], ["--out", "x.onnx", "--steps", "3", "--minutes", "1"]):
        assert CliRunner().invoke(application(), ["train", "classification", str(tmp_path), *arguments]).exit_code == 2
