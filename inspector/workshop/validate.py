"""Cross-validation: every picture is judged once, by a model that was trained without it.

The data is parted into folds, by the pictures or by groups of them (a product, a board, a place) that must not stand on both sides.
Each fold is a folder of links, `fold-<k>/train` and `fold-<k>/test`, so that it is trained by the same way as any data set, with the
same defaults; beside them lie its model and `figures.json`. A fold that has its figures is not trained again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inspector.neural import model as models
from inspector.records import ConfigError
from inspector.workshop import datasets, evaluate, export, train

Task = Literal["classification", "compare"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to part: `group_by` is a regular expression whose match in a name is the group of the picture; `only` takes so many folds."""

    task: Task
    folds: int = 5
    group_by: str | None = None
    only: int | None = None


def validate(order: train.Order, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """{"folds": [figures of each], "pooled": figures with intervals over all pictures judged, …}; the folds lie in the folder `order.out`.

    `order` is that of a training but for `out`. Raises `ConfigError`: E_DATA_*, E_IMG_*, E_TRAIN_*.
    """
    export.place(order.out / "fold-0/model.onnx")
    data: Any = datasets.pairs(order.data) if plan.task == "compare" else datasets.classification(order.data)
    labels = data.labels if plan.task == "classification" else None
    parts = parted(data.names, labels, plan, order.schedule.seed)
    of = [set(boxes[:, 4].tolist()) for boxes in data.boxes] if plan.task == "compare" else [{int(k) + 1} for k in data.labels]
    _each_class_trained(of, parts[: plan.only], data.classes, order.data)
    done: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for number, held in enumerate(parts[: plan.only]):
        place = order.out / f"fold-{number}"
        fold = _fold(place, order, plan, data.names, held, say)
        say(f"fold {number}: " + ", ".join(f"{k} {v:.4f}" for k, v in fold.items() if isinstance(v, float)))
        done.append(fold)
        model = models.load(place / "model.onnx", task=plan.task)
        unseen = datasets.part(data, held)
        if plan.task == "compare":
            unseen = replace(unseen, classes=tuple(model.card.classes[1:]))
            rows.append((unseen, evaluate.detect(model, unseen), evaluate.thresholds(model, len(held))))
        else:
            rows.append((unseen, evaluate.scores(model, unseen)))
    return {"task": plan.task, "folds": done, "of": len(parts), "pooled": _pooled(plan.task, rows)}


def _each_class_trained(of: Sequence[set[int]], parts: Sequence[NDArray[np.int64]], classes: Sequence[str], folder: Path) -> None:
    """`of`: the classes 1…K in each picture. Raises E_DATA_CLASS where a class is in one fold only."""
    for number, held in enumerate(parts):
        seen = set().union(*(each for i, each in enumerate(of) if i not in held))
        if alone := sorted(set().union(*of) - seen):
            text = (
                f"class {classes[alone[0] - 1]!r} is in fold {number} only: its network would not know it; each class must be in two folds"
            )
            raise ConfigError("E_DATA_CLASS", text, file=str(folder))


def parted(names: Sequence[str], labels: NDArray[np.int64] | None, plan: Plan, seed: int) -> list[NDArray[np.int64]]:
    """The indices of each fold, sorted: each label (or all) dealt out at random, or whole groups, the largest first to the smallest fold.

    Raises E_DATA_GROUP, E_DATA_EMPTY.
    """
    random = np.random.default_rng(seed)
    if plan.group_by is None:
        of = np.zeros(len(names), np.int64) if labels is None else labels
        dealt = np.concatenate([random.permutation(np.nonzero(of == label)[0]) for label in np.unique(of)])
        folds = [np.sort(dealt[k :: plan.folds]) for k in range(plan.folds)]
    else:
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            found = re.search(plan.group_by, name)
            if found is None:
                raise ConfigError("E_DATA_GROUP", f"{plan.group_by!r} is not in the name {name!r}", key="--group-by")
            groups.setdefault(found.group(0), []).append(index)
        shuffled = [list(groups)[i] for i in random.permutation(len(groups))]
        filled: list[list[int]] = [[] for _ in range(plan.folds)]
        for group in sorted(shuffled, key=lambda g: -len(groups[g])):
            min(filled, key=len).extend(groups[group])
        folds = [np.array(sorted(each), np.int64) for each in filled]
    if any(not len(each) for each in folds):
        raise ConfigError("E_DATA_EMPTY", f"{plan.folds} folds of {len(names)} pictures: one is empty; take fewer", key="--folds")
    return folds


def _fold(
    place: Path, order: train.Order, plan: Plan, names: Sequence[str], held: NDArray[np.int64], say: Callable[[str], None]
) -> dict[str, Any]:
    """Train and measure one fold, or read what was found when it was done with the same order."""
    out = {names[i] for i in held}
    identity = hashlib.sha256(repr((order, plan.task, sorted(out))).encode()).hexdigest()
    file = place / "figures.json"
    if file.is_file() and (read := json.loads(file.read_text("utf-8"))).get("identity") == identity:
        return dict(read["figures"])
    for side in ("train", "test"):
        shutil.rmtree(place / side, ignore_errors=True)
        _link(order.data, place / side, lambda name, test=side == "test": name is None or (name in out) == test, plan.task)  # type: ignore[misc]
    begun = time.process_time()
    trainer = import_module("inspector.workshop.train_compare" if plan.task == "compare" else "inspector.workshop.train")
    model = getattr(trainer, plan.task)(replace(order, data=place / "train", out=place / "model.onnx"), say)
    spent_s = time.process_time() - begun
    _, figures = evaluate.measure(model, place / "test")
    shown = {name: value["value"] if isinstance(value, dict) else value for name, value in figures.items() if name != "confusion"}
    shown |= {"minutes": model.card.training["minutes"], "cpu_minutes": round(spent_s / 60, 2), "steps": model.card.training["steps"]}
    file.write_text(json.dumps({"identity": identity, "figures": shown}, indent=1), "utf-8")
    return shown


def _link(source: Path, target: Path, wanted: Callable[[str | None], bool], task: Task) -> None:
    """Links in the folder `target` to the files of a data set that are wanted, by the name of their picture (None: they serve all)."""
    for file, name in _files(source, task):
        if wanted(name):
            link = target / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())


def _files(source: Path, task: Task) -> Iterator[tuple[Path, str | None]]:
    """Each file of a data set with its picture's name, as `datasets` names it."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        if task == "classification":
            yield file, None if file.parent == source else f"{file.parent.name}/{file.name}"
        else:
            stem = file.stem.removesuffix("_test").removesuffix("_temp")
            yield file, stem if file.parent.name == "annotations" or stem != file.stem else None


def _pooled(task: Task, rows: Sequence[Any]) -> dict[str, Any]:
    """The figures over the pictures of all folds, each judged by its own model at that model's thresholds."""
    if task == "classification":
        return evaluate.class_figures(np.concatenate([scores for _, scores in rows]), _joined([data for data, _ in rows]))
    return evaluate.box_figures(
        [ds for _, found, _ in rows for ds in found], _joined([data for data, _, _ in rows]), np.concatenate([t for _, _, t in rows])
    )


def _joined(parts: Sequence[Any]) -> Any:
    """The pictures of several parts of one data set as one."""
    joined: dict[str, Any] = {}
    for name in ("names", "images", "references", "boxes"):
        if hasattr(parts[0], name):
            joined[name] = tuple(each for part in parts for each in getattr(part, name))
    if hasattr(parts[0], "labels"):
        joined["labels"] = np.concatenate([part.labels for part in parts])
    return replace(parts[0], **joined)
