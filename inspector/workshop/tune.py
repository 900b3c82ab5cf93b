"""Which engine is the fastest for a model on this machine: provider × precision × threads, measured together, kept beside the model."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inspector.neural import engines
from inspector.neural import model as models
from inspector.neural.engines import Engine, Tune
from inspector.records import ConfigError, Image

ROUNDS = 40
LEAST_GAIN = 1.05
"""A change must be worth it: by so much faster than the engine that needs nothing."""


def tune(path: Path, threads: Sequence[int] | None = None) -> dict[str, Any]:
    """Measure every engine that there is and write the fastest that gives the model's own proof pictures' answers to x.tune.yaml.

    {"model", "machine", "engine", "measured": [{"provider", "precision", "threads", "ok", "why", "ms", "cpu_ms"}], "file"}; "ms" is one
    picture or tile by the clock, the median over rounds in which all take turns. The INT8 twin is tried where `inspector quantise` has made
    one. Raises E_MODEL_*.
    """
    plain = models.load(path, engine=Engine())
    precisions: list[Literal["fp32", "int8"]] = ["fp32", "int8"] if Engine(precision="int8").file(path).is_file() else ["fp32"]
    cores = os.cpu_count() or 1
    counts = threads or [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]
    pictures = [models.proof_of(plain, proof) for proof in plain.card.proof]
    rows: list[dict[str, Any]] = []
    running: list[tuple[dict[str, Any], models.Model]] = []
    for provider, precision, count in product(engines.available(), precisions, counts):
        engine = Engine(provider=provider, precision=precision, threads=count)
        row: dict[str, Any] = {**engine.model_dump(), "ok": True, "why": ""}
        rows.append(row)
        try:
            made = models.load(path, engine=engine)
            models.prove(models.Model(plain.path, plain.card, made.session, made.outputs, engine))  # the FP32 model's answers, not its own
            running.append((row, made))
        except ConfigError as error:
            row.update(ok=False, why=error.code, ms=None, cpu_ms=None)
    _measure(running, pictures)
    base = next(row for row in rows if Engine.model_validate(_engine(row)) == Engine(threads=counts[0]))
    best = min((row for row in rows if row["ok"]), key=lambda row: float(row["ms"]), default=base)
    if base["ok"] and base["ms"] < LEAST_GAIN * best["ms"]:
        best = base
    engine = Engine.model_validate(_engine(best))
    file = engines.write(path, Tune(machine=engines.machine(), model=plain.card.sha256, engine=engine, measured=rows))
    return {"model": str(path), "machine": engines.machine(), "engine": engine.model_dump(), "measured": rows, "file": str(file)}


def _engine(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("provider", "precision", "threads")}


def _measure(running: Sequence[tuple[dict[str, Any], models.Model]], pictures: Sequence[Image]) -> None:
    """Median milliseconds of a picture, by the clock and of CPU, all in turn on the same pictures, into the rows."""
    spent: list[list[tuple[float, float]]] = [[] for _ in running]
    for number in range(-3, ROUNDS):
        picture = pictures[number % len(pictures)]
        for (_, model), mine in zip(running, spent, strict=True):
            began, began_cpu = time.perf_counter(), time.process_time()
            model.run(picture)
            mine.append(((time.perf_counter() - began) * 1e3, (time.process_time() - began_cpu) * 1e3))
    for (row, _), mine in zip(running, spent, strict=True):
        ms, cpu_ms = np.median(np.array(mine[3:]), axis=0)
        row.update(ms=round(float(ms), 4), cpu_ms=round(float(cpu_ms), 4))
