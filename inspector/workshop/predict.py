"""What a model sees in pictures of a person's own: classes, boxes, masks, and an overlay to look at."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.checks import anomaly, compare
from inspector.checks.classify import fit
from inspector.neural import model as models
from inspector.neural import pictures
from inspector.records import ConfigError, Image
from inspector.workshop import evaluate, places, plots


def predict(model: models.Model, images: Sequence[Path], references: Sequence[Path], out: Path) -> Iterator[dict[str, Any]]:
    """For each picture {"image", "classes": [{"name", "score"}], "boxes": [{"xyxy", "class", "score"}], "mask", "overlay", "spent_ms"}.

    "mask" is the file with the class of each pixel (segmentation), with 1 where it is strange (anomaly), or None; "spent_ms" is the
    judging alone, without files. One reference serves all pictures, or each has its own. As many pictures are judged at a time as there are
    cores. Raises `ConfigError`: E_OUT, E_REFERENCE, E_IMG_*; what came before has been given and written.
    """
    needed = model.card.task == "compare"
    if needed != bool(references) or (needed and len(references) not in (1, len(images))):
        wanted = "one, or one for each picture" if needed else "none"
        raise ConfigError("E_REFERENCE", f"{len(references)} references; {wanted} for a model of {model.card.task}", key="--reference")
    places.folder(out)
    chosen: list[Path | None] = [references[k if len(references) > 1 else 0] if needed else None for k in range(len(images))]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(partial(_predicted, model, out), images, chosen, _names(images))


def _predicted(model: models.Model, out: Path, path: Path, reference: Path | None, name: str) -> dict[str, Any]:
    """One picture's answer, see `predict`; its overlay and mask are written."""
    image = pictures.read(path)
    mask = None
    if model.card.task == "segmentation":
        found, shown, spent_ms, class_map = _segmented(model, image)
        mask = out / f"{name}.mask.png"
        pictures.write(mask, class_map)
    elif model.card.task == "classification":
        found, shown, spent_ms = _classified(model, image)
    elif model.card.task == "anomaly":
        found, shown, spent_ms, strange = _strange(model, image)
        mask = out / f"{name}.mask.png"
        pictures.write(mask, strange)
    else:
        assert reference is not None
        found, shown, spent_ms = _compared(model, image, reference)
    overlay = out / f"{name}.overlay.png"
    pictures.write(overlay, shown)
    return {"image": str(path), **found, "mask": mask and str(mask), "overlay": str(overlay), "spent_ms": round(spent_ms, 3)}


def _segmented(model: models.Model, image: Image) -> tuple[dict[str, Any], Image, float, Image]:
    """Defects above their thresholds; the mask holds these only."""
    begun = time.perf_counter()
    class_map, score_map = evaluate.predict_maps(model, image)
    kept, class_map = evaluate.kept_defects(model, class_map, score_map)
    spent_ms = (time.perf_counter() - begun) * 1e3
    boxes = [_box(d.class_name, d.score, d.box_px) for d in kept]
    scores = [(name, max((d.score for d in kept if d.class_name == name), default=0.0)) for name in model.card.classes]
    return {"classes": _classes(scores), "boxes": boxes}, plots.overlay(image, class_map, model.card.classes), spent_ms, class_map


def _classified(model: models.Model, image: Image) -> tuple[dict[str, Any], Image, float]:
    begun = time.perf_counter()
    scores = model.run(fit(image, model.card)[None])[0][0]
    spent_ms = (time.perf_counter() - begun) * 1e3
    classes = _classes(zip(model.card.classes, (float(s) for s in scores), strict=True))
    shown = pictures.as_channels(image, 3).copy()
    cv2.putText(
        shown, f"{classes[0]['name']} {classes[0]['score']:.2f}", (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, plots.COLOURS[1], 1, cv2.LINE_AA
    )
    return {"classes": classes, "boxes": []}, shown, spent_ms


def _strange(model: models.Model, image: Image) -> tuple[dict[str, Any], Image, float, Image]:
    """The highest score, in standard deviations of good parts; boxes around what is above the threshold."""
    begun = time.perf_counter()
    scores, limit = anomaly.score_map(image, model), model.card.threshold(anomaly.CLASS)
    places = anomaly.strange_places(scores, limit, image.shape[:2])
    spent_ms = (time.perf_counter() - begun) * 1e3
    mask = cv2.resize((scores > limit).astype(np.uint8), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
    boxes = [_box(anomaly.CLASS, place.score, place.box_px) for place in places]
    found = {"classes": _classes([(anomaly.CLASS, anomaly.score_of(scores))]), "boxes": boxes}
    return found, plots.heat(image, scores, limit), spent_ms, np.asarray(mask, np.uint8)


def _compared(model: models.Model, image: Image, path: Path) -> tuple[dict[str, Any], Image, float]:
    grey, reference = pictures.as_channels(image, 1), pictures.read(path, 1)
    if grey.shape != reference.shape:
        raise ConfigError("E_REFERENCE", f"{reference.shape[::-1]} px for a picture of {grey.shape[::-1]} px", file=str(path))
    begun = time.perf_counter()
    kept = compare.compared(model, grey, reference)
    spent_ms = (time.perf_counter() - begun) * 1e3
    scores = [(name, max((d.score for d in kept if d.class_name == name), default=0.0)) for name in model.card.classes[1:]]
    found = {"classes": _classes(scores), "boxes": [_box(d.class_name, d.score, d.box_px) for d in kept]}
    return found, plots.boxes(grey, kept, np.zeros((0, 5), np.int64)), spent_ms


def _classes(scores: Any) -> list[dict[str, Any]]:
    """Name and score, the highest first."""
    return [{"name": name, "score": round(score, 4)} for name, score in sorted(scores, key=lambda item: -item[1])]


def _box(name: str, score: float, box: Sequence[float]) -> dict[str, Any]:
    x, y, w, h = box
    return {"xyxy": [round(float(v), 1) for v in (x, y, x + w, y + h)], "class": name, "score": round(score, 4)}


def _names(images: Sequence[Path]) -> list[str]:
    """The stems, numbered where two are the same."""
    names: list[str] = []
    for path in images:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}-{number}", number + 1
        names.append(name)
    return names
