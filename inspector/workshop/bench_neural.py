"""What networks cost: `Model.run` beside the bare engine on the same file, the classifier's crop, and a megapixel of part surface.

The surface is inspected twice, every tile by the shipped network and only around what the first look sees; what the
look loses of the defects that the network finds alone is counted on the same parts, drawn from seeds that no training has seen.
`network_px_ratio` is what the large network runs over, margins and all, per pixel of the zones. One thread, CPU time.
INSPECTOR_BENCH_PARTS sets how many parts (48).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from inspector.checks import surface
from inspector.geometry import dxf, template
from inspector.neural import model as models
from inspector.records import Image
from inspector.scene import Look, draw, fitting_mm_per_px, on_raster
from inspector.workshop.demo import folder_of_ours

NAME = "neural"

SIZE_PX = (1280, 1024)
PARTS = int(os.environ.get("INSPECTOR_BENCH_PARTS", "48"))
SEED = 990_001
ROUNDS = 200
DEMANDED_MS_PER_MPX = 25.0
NEAR_PX = 9


def measure() -> dict[str, dict[str, Any]]:
    """Milliseconds of CPU of a tile and a crop beside the bare engine, and of a megapixel of surface, dense and after a first look."""
    cv2.setNumThreads(1)
    folder = folder_of_ours("models")
    network, look, classifier = (models.load(folder / f"{name}.onnx", threads=1) for name in ("surface", "look", "defects"))
    rows = {f"{model.path.stem}, {_how(model)}": _beside_the_engine(model) for model in (network, look, classifier)}
    return rows | _surface(network, look)


def _how(model: models.Model) -> str:
    return f"{model.engine.provider} {model.engine.precision}"


def _beside_the_engine(model: models.Model) -> dict[str, Any]:
    """Both in turn on the same picture; medians."""
    picture = models.proof_of(model, model.card.proof[0])
    bare: Callable[[], Any] = lambda: model.session.run(None, {"pictures": picture})  # noqa: E731 - one expression beside the other
    ours_ms: list[float] = []
    bare_ms: list[float] = []
    for number in range(ROUNDS):
        for act, mine in ((lambda: model.run(picture), ours_ms), (bare, bare_ms))[:: 1 if number % 2 else -1]:
            began_ns = time.thread_time_ns()
            act()
            mine.append((time.thread_time_ns() - began_ns) / 1e6)
    ours, limit = float(np.median(ours_ms)), float(np.median(bare_ms))
    return {"cpu_ms": ours, "limit_ms": limit, "ratio": ours / limit}


def _surface(network: models.Model, look: models.Model) -> dict[str, dict[str, Any]]:
    """Rows "surface, every tile" and "surface, after a first look": ms per megapixel of zones, and the share of true defects found."""
    looks = Look(defect_ratio=0.7, kinds=("scratch", "dent", "stain"))
    drawings = sorted(folder_of_ours("dxf_templates").glob("*.dxf"))
    parts = [template.build(dxf.read(path)) for path in drawings]
    zones = [surface.zone_of(part, None) for part in parts]
    ways = [[surface.way_of(judged, network, first, fitted=True) for first in (None, look)] for judged in zones]
    spent_ms, asked_px, judged_px = np.zeros(2), np.zeros(2), 0
    defects, found = 0, np.zeros(2, np.int64)
    for number in range(PARTS):
        part, judged = parts[number % len(parts)], zones[number % len(parts)]
        scale = fitting_mm_per_px(part.contours, SIZE_PX, looks)
        image, truth = on_raster(draw(part, seed=(SEED, number), size_px=SIZE_PX, mm_per_px=scale, look=looks), part)
        judged_px += int(judged.sum())
        regions = _regions(truth, judged)
        defects += len(regions)
        for k, way in enumerate(ways[number % len(parts)]):
            began_ns = time.thread_time_ns()
            class_map, score_map = way.run(image)
            spent_ms[k] += (time.thread_time_ns() - began_ns) / 1e6
            asked = way.grid if way.look is None else way.asked(image, way.look)[1]
            asked_px[k] += len(asked.corners) * asked.size[0] * asked.size[1]
            sure = np.zeros(judged.shape, np.uint8)
            for defect in surface.defects(class_map, score_map, network.card.classes):
                if defect.score >= network.card.threshold(defect.class_name):
                    x, y, w, h = defect.box_px
                    sure[y : y + h, x : x + w] |= (class_map[y : y + h, x : x + w] > 0).astype(np.uint8)
            near = cv2.dilate(sure, np.ones((NEAR_PX, NEAR_PX), np.uint8))
            found[k] += sum(bool(near[region].any()) for region in regions)
    per_mpx = spent_ms / (judged_px / 1e6)
    return {
        name: {
            "cpu_ms_per_mpx": float(per_mpx[k]),
            "demanded_ms_per_mpx": DEMANDED_MS_PER_MPX,
            "network_px_ratio": float(asked_px[k]) / judged_px,
            "defects": defects,
            "found_ratio": int(found[k]) / max(defects, 1),
        }
        for k, name in enumerate(("surface, every tile", "surface, after a first look"))
    }


def _regions(truth: Image, judged: Any) -> list[Any]:
    """Where each true defect is (H, W), of those that lie in the zones."""
    count, labels = cv2.connectedComponents((truth > 0).astype(np.uint8))
    return [labels == label for label in range(1, count) if (judged & (labels == label)).sum() >= 4]
