"""A network that has seen good parts alone finds what is strange; its threshold keeps the promise that its card states."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from inspector.__main__ import application
from inspector.neural import model as models
from inspector.neural import pictures
from inspector.records import ConfigError
from inspector.workshop import datasets, evaluate, predict

torch = pytest.importorskip("torch")

from inspector.workshop import spoil, train, train_anomaly  # noqa: E402 - they need torch
from inspector.workshop.fit import Schedule  # noqa: E402


def stripes(folder: Path, count: int, *, bad: bool = False, seed: int = 0) -> Path:
    """Noisy stripes; a bad one has a dark spot."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rows = 128 + 40 * np.sin(np.arange(96) / 5 + random.uniform(0, 6))
        image = (rows[:, None] + random.normal(0, 5, (96, 128))).clip(0, 255).astype(np.uint8)
        if bad:
            x, y = (int(v) for v in random.integers(20, 76, 2))
            cv2.circle(image, (x, y), 9, 20, cv2.FILLED)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> models.Model:
    folder = tmp_path_factory.mktemp("anomaly")
    stripes(folder / "data" / "good", 20)
    order = train.Order(folder / "data", folder / "stripes.onnx", Schedule(1, 40, None, looks=2), threads=1)
    return train_anomaly.anomaly(order, lambda _: None)


def test_good_parts_alone_are_enough(model: models.Model, tmp_path: Path) -> None:
    stripes(tmp_path / "good", 12, seed=5)
    stripes(tmp_path / "spot", 12, bad=True, seed=6)
    figures = evaluate.anomaly(model, datasets.good_and_bad(tmp_path, 1), intervals=False)
    assert figures["image_auroc"] == 1.0
    assert figures["found"] == 1.0
    assert (figures["pictures"], figures["bad"]) == (24, 12)
    assert "pixel_auroc" not in figures  # no masks


def test_the_card_states_the_promise(model: models.Model) -> None:
    assert model.card.metrics["guarantee"]["held_out"] == 6
    assert model.card.metrics["guarantee"]["alpha"] == pytest.approx(1 / 7, abs=1e-4)
    assert (model.card.input.height, model.card.input.width, model.card.input.channels) == (96, 128, 1)
    assert model.path.stat().st_size < 1 << 20
    assert {"stripes.curves.png", "stripes.samples.png"} <= {path.name for path in model.path.parent.iterdir()}


def test_where_it_is_strange_is_told(model: models.Model, tmp_path: Path) -> None:
    spot = next(stripes(tmp_path / "spot", 1, bad=True, seed=9).iterdir())
    (found,) = predict.predict(model, [spot], [], tmp_path / "seen")
    grey = cv2.GaussianBlur(pictures.read(spot, 1), (0, 0), 4)
    y, x = np.unravel_index(int(grey.argmin()), grey.shape)
    x0, y0, x1, y1 = found["boxes"][0]["xyxy"]
    assert x0 <= x <= x1
    assert y0 <= y <= y1
    assert Path(found["mask"]).is_file()
    assert Path(found["overlay"]).is_file()


def test_masks_give_figures_of_places(model: models.Model, tmp_path: Path) -> None:
    stripes(tmp_path / "images", 6, bad=True, seed=11)
    for path in (tmp_path / "images").iterdir():
        (tmp_path / "masks").mkdir(exist_ok=True)
        grey = cv2.GaussianBlur(pictures.read(path, 1), (0, 0), 2)
        cv2.imwrite(str(tmp_path / "masks" / path.name), (grey < 60).astype(np.uint8) * 255)
    data, figures = evaluate.measure(model, tmp_path)
    assert isinstance(data, datasets.GoodAndBad)
    assert figures["pixel_auroc"]["value"] > 0.9
    assert figures["pro30"]["value"] > 0.5
    assert figures["false_rejects"]["value"] is None  # none is good


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner()
    stripes(tmp_path / "data" / "good", 6)
    stripes(tmp_path / "data" / "spot", 3, bad=True)
    out = str(tmp_path / "m.onnx")
    done = run.invoke(application(), ["train", "anomaly", str(tmp_path / "data"), "--out", out, "--steps", "2", "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    done = run.invoke(application(), ["evaluate", out, str(tmp_path / "data"), "--json", "--report", str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["pictures"] == 9
    assert (tmp_path / "page" / "index.html").is_file()


def test_too_few_good_parts_are_said(tmp_path: Path) -> None:
    stripes(tmp_path / "good", 3)
    with pytest.raises(ConfigError, match="E_DATA_EMPTY"):
        train_anomaly.anomaly(train.Order(tmp_path, tmp_path / "m.onnx", Schedule(0, 2, None)), lambda _: None)


@given(st.integers(1, 300), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_threshold_keeps_the_promise(n: int, asked: float) -> None:
    """Of n + 1 exchangeable scores each is as likely to be the new one: counting those above the threshold of the others is exact."""
    scores = np.random.default_rng(n).permutation(n + 1).astype(np.float64)
    rejected = 0
    for new in range(n + 1):
        threshold, alpha = train_anomaly.conformal(np.delete(scores, new), asked)
        rejected += bool(scores[new] > threshold)
    assert rejected / (n + 1) <= alpha + 1e-9
    assert alpha == pytest.approx(max(asked, 1 / (n + 1)), abs=1e-9)


@given(st.integers(0, 10_000), st.booleans())
def test_a_spoilt_picture_differs_where_its_mask_says_so(seed: int, colour: bool) -> None:
    random = np.random.default_rng(seed)
    shape = (64, 64, 3) if colour else (64, 64)
    image, other = (random.integers(60, 200, shape, np.uint8) for _ in range(2))
    seen, mask = spoil.spoil(random, image, other)
    assert seen.shape == image.shape
    assert seen.dtype == mask.dtype == np.uint8
    changed = np.abs(seen.astype(int) - image).reshape(64, 64, -1).max(axis=2) > 0
    assert (cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8)) >= mask).all()
