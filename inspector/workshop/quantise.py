"""The INT8 twin of a model beside it, and whether it is worth having on this machine: quality and speed of both, measured together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inspector.checks import compare
from inspector.checks.classify import fit
from inspector.neural import model as models
from inspector.neural import pictures, tiles
from inspector.neural import quantise as engine
from inspector.neural.engines import Engine
from inspector.records import ConfigError, Image
from inspector.workshop import datasets, evaluate, export

SEEN = 96
"""So many pictures or tiles set the ranges."""
LEAST_GAIN, MOST_LOSS = 1.1, 0.005
MEASURE = {"segmentation": "miou", "classification": "accuracy", "compare": "f_33"}


def quantise(path: Path, data: Path, *, seed: int = 0, reduce_range: bool | None = None) -> dict[str, Any]:
    """Write x.int8.onnx with its card; {"model", "measure", "fp32", "int8": {"quality", "ms", "bytes"}, "recommended", "why"}.

    Half of the data sets the ranges, the other half measures. "ms" is one picture or tile on one thread, both models in turn. Recommended
    is what is at least 1.1 × as fast and loses at most 0.005. Raises E_MODEL_*, E_DATA_*, E_IMG_*.
    """
    model = models.load(path, engine=Engine())
    if model.card.task not in MEASURE:
        raise ConfigError("E_MODEL_TASK", f"no measure is known for a model of {model.card.task}", file=str(path))
    seen, unseen = _halves(model, data, seed)
    inputs = list(_inputs(model, seen))[:SEEN]
    narrow = not engine.has_vnni() if reduce_range is None else reduce_range
    made = engine.int8(models.read_bytes(path), inputs, reduce_range=narrow)
    said = model.card.model_dump(exclude={"sha256", "proof"})
    said["training"] = {**said["training"], "quantised": "INT8 QDQ U8S8 per channel" + (", reduced range" if narrow else "")}
    proofs = [models.proof_of(model, proof)[0] for proof in model.card.proof]
    twin = export.save(path.with_suffix(".int8.onnx"), made, proofs, said)
    measure = MEASURE[model.card.task]
    qualities = [_quality(each, unseen)[measure] for each in (model, twin)]
    if None in qualities:
        raise ConfigError("E_DATA_EMPTY", f"{measure} cannot be measured: no defect is in the half that measures", file=str(data))
    spent_ms = _speeds((model, twin), inputs)
    figures = [
        {"quality": quality, "ms": ms, "bytes": each.path.stat().st_size}
        for each, quality, ms in zip((model, twin), qualities, spent_ms, strict=True)
    ]
    gain, loss = spent_ms[0] / spent_ms[1], qualities[0] - qualities[1]
    why = f"{gain:.2f} × as fast, {measure} {-loss:+.4f}"
    twin_card = twin.card.model_copy(update={"metrics": {"here": {"fp32": figures[0], "int8": figures[1]}}})
    models.write_card(twin.path.with_suffix(".yaml"), twin_card)
    recommended = gain >= LEAST_GAIN and loss <= MOST_LOSS
    return {"model": str(twin.path), "measure": measure, "fp32": figures[0], "int8": figures[1], "recommended": recommended, "why": why}


def _halves(model: models.Model, folder: Path, seed: int) -> tuple[Any, Any]:
    """The data of the model's kind in two halves, each with a share of each class, or of what has defects."""
    task = model.card.task
    if task == "segmentation":
        data: Any = datasets.segmentation(folder, model.card.classes)
        labels = np.array([int(mask.any()) for mask in data.masks])
    elif task == "compare":
        data = datasets.pairs(folder, model.card.classes[1:])
        labels = np.array([int(len(boxes) > 0) for boxes in data.boxes])
    else:
        data = datasets.classified(folder, model.card.input.width, model.card.classes, seed)
        labels = data.labels
    return tuple(datasets.part(data, half) for half in datasets.split(len(data.names), 0.5, seed, labels))


def _inputs(model: models.Model, data: Any) -> Iterator[Image]:
    """What the network would be given of the data, uint8 (1, H, W, C)."""
    size = (model.card.input.height, model.card.input.width)
    for number, image in enumerate(data.images):
        if model.card.task == "classification":
            yield fit(image, model.card)[None]
            continue
        if model.card.task == "compare":
            reference = compare.aligned(image, data.references[number])
            opened = compare.differing(image, reference)
            both = np.dstack(compare.planes(image, reference, opened, model.card.input.channels))
            at = compare.peaks(opened)[:2]
            yield from (np.ascontiguousarray(tiles.crop(both, place, size))[None] for place in at)
            continue
        image = pictures.as_channels(image, model.card.input.channels)
        cut = tiles.cut(image, tiles.plan(np.ones(image.shape[:2], np.bool_), size, model.card.margin_px))
        busy = np.argsort(-cut.reshape(len(cut), -1).std(axis=1))[:2]  # the liveliest tiles: part, edges, defects
        yield from (cut[i : i + 1] for i in busy)


def _quality(model: models.Model, data: Any) -> dict[str, Any]:
    """The figures of `inspector evaluate` without intervals."""
    if model.card.task == "segmentation":
        return evaluate.segmentation(model, data, intervals=False)
    if model.card.task == "compare":
        return evaluate.boxes(model, data, intervals=False)
    return evaluate.classification(model, data, intervals=False)


def _speeds(both: tuple[models.Model, ...], inputs: list[Image]) -> list[float]:
    """Median milliseconds of CPU of one run of each model, in turn on the same inputs."""
    spent: list[list[float]] = [[] for _ in both]
    for image in (inputs * 3)[:200]:
        for model, mine in zip(both, spent, strict=True):
            begun = time.thread_time()
            model.run(image)
            mine.append((time.thread_time() - begun) * 1e3)
    return [float(np.median(mine)) for mine in spent]
