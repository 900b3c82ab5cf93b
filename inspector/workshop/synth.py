"""Synthetic pictures as a data set: drawn in parallel, the same bytes whatever draws them, with everything known written beside them.

A folder holds
  images/NNNNNN.png  the camera's pictures            masks/NNNNNN.png   surface classes (0, then `scene.SURFACE` from 1)
  labels/NNNNNN.txt  YOLO: class x y w h, relative     data.yaml          YOLO's names of the classes
  coco.json          COCO: boxes, outlines, names      truth.jsonl        a picture a line: drawing, seed, pose, defects in mm
  classes.txt        the names of the mask's classes, one a line, from 1 on
  raster/images, raster/masks, raster/classes.txt      with `raster`: the same on the template's raster, what networks are trained on
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.config import Kind, read_settings, settings_of
from inspector.geometry import dxf, template
from inspector.neural import pictures
from inspector.records import ConfigError, Template
from inspector.scene import GEOMETRIC, SURFACE, Defect, Drawn, Look, draw, fitting_mm_per_px, on_raster, place, truth_of
from inspector.workshop import outlines, places

KINDS = (*SURFACE, *GEOMETRIC)
CHUNK = 8
"""Pictures a worker draws between two words about its progress."""

PNG_FAST = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
]
"""Noise does not repeat: without the search for repetitions a picture is smaller and takes half the time."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is drawn. Picture i shows `drawings[i % len]` and depends on (`seed`, i); without `mm_per_px` the part fits at any angle."""

    drawings: tuple[Path, ...]
    out: Path
    count: int
    seed: int
    size_px: tuple[int, int]
    mm_per_px: float | None
    look: Look
    raster: bool


@contextmanager
def executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    """Who draws: processes of this machine, or the Dask cluster at `scheduler` (its workers must see the same folders)."""
    if scheduler is None:
        with ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("forkserver"), initializer=cv2.setNumThreads, initargs=(1,)
        ) as pool:
            yield pool
        return
    try:
        from distributed import Client
        from distributed.comm.addressing import parse_address, parse_host_port
    except ImportError:
        raise ConfigError("E_EXTRA_MISSING", "Dask is not installed; pip install 'inspector[cluster]'", key="--scheduler") from None
    try:
        parse_host_port(parse_address(scheduler)[1])  # before a client is half made
        client: Any = Client(scheduler, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call,unused-ignore]
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError("E_SCHEDULER", f"no Dask scheduler answers at {scheduler!r}: {error}", key="--scheduler") from error
    with client:
        yield client.get_executor()


def synthesise(job: Job, pool: Executor, progress: Callable[[int], None] = lambda done: None) -> dict[str, int]:
    """Draw all of the job into its folder; returns pictures, good parts and defects by kind. `progress` hears how many are done.

    Where defects fitted nowhere or showed in no pixel, "not_drawn" counts them.

    Raises `ConfigError` for a drawing that cannot be read or does not fit, E_SYNTH_OUT for a folder that holds pictures already, and E_OUT.
    """
    if (job.out / "images").exists():
        raise ConfigError("E_SYNTH_OUT", "holds pictures already; name a new folder or remove it", file=str(job.out), key="--out")
    _fitting(job)  # what is wrong is said before a folder is made or a process started
    for folder in ("images", "masks", "labels", *(("raster/images", "raster/masks") if job.raster else ())):
        places.folder(job.out / folder)
    with places.written(job.out):
        lines = _drawn(job, pool, progress)
        _write_lists(job, lines)
    kinds: dict[str, int] = {kind: sum(d["kind"] == kind for line in lines for d in line["defects"]) for kind in KINDS}
    kinds["not_drawn"] = sum(line["missed"] for line in lines)
    return {"pictures": len(lines), "good": sum(line["good"] for line in lines)} | {k: n for k, n in kinds.items() if n}


def _drawn(job: Job, pool: Executor, progress: Callable[[int], None]) -> list[dict[str, Any]]:
    """Every picture's line, in order."""
    starts = range(0, job.count, CHUNK)
    chunks = [pool.submit(_draw_some, job, start, min(start + CHUNK, job.count)) for start in starts]
    done = 0
    try:
        for chunk in as_completed(chunks):
            done += len(chunk.result())
            progress(done)
    except BaseException:
        for chunk in chunks:
            chunk.cancel()
        raise
    return [line for chunk in chunks for line in chunk.result()]


def _fitting(job: Job) -> None:
    """Read every drawing. Raises `ConfigError` E_DXF_*, and E_SCENE_SIZE where a part does not fit into one of its pictures."""
    for number, path in enumerate(job.drawings):
        contours = _part(path).contours
        try:
            at_any_angle = fitting_mm_per_px(contours, job.size_px, job.look)
            if job.mm_per_px is None or job.mm_per_px >= at_any_angle:
                continue
            for index in range(number, job.count, len(job.drawings)):
                place(contours, seed=(job.seed, index), size_px=job.size_px, mm_per_px=job.mm_per_px, look=job.look)
        except ConfigError as error:
            raise ConfigError(error.code, error.text, file=str(path), key="--mm-per-px" if job.mm_per_px else None) from error


def look_of(path: Path | None, given: dict[str, Any]) -> Look:
    """The look in a YAML file, or the default one, with the `given` settings in their places; `ConfigErrors` for what is wrong."""
    if path is not None:
        given = read_settings(path, Look).model_dump(mode="json", exclude_unset=True) | given
    return settings_of("look", Kind.model_validate({"kind": "look", **given}), Look)


@cache
def _part(path: Path) -> Template:
    return template.build(dxf.read(path))


def _draw_some(job: Job, start: int, stop: int) -> list[dict[str, Any]]:
    """Draw pictures `start` … `stop` − 1, write their files, and return their lines of truth with what the lists need."""
    return [_draw_one(job, i) for i in range(start, stop)]


def _draw_one(job: Job, index: int) -> dict[str, Any]:
    path = job.drawings[index % len(job.drawings)]
    part = _part(path)
    mm_per_px = job.mm_per_px or fitting_mm_per_px(part.contours, job.size_px, job.look)
    drawn = draw(part, seed=(job.seed, index), size_px=job.size_px, mm_per_px=mm_per_px, look=job.look)
    name = f"{index:06d}"
    pictures.write(job.out / "images" / f"{name}.png", drawn.image, PNG_FAST)
    pictures.write(job.out / "masks" / f"{name}.png", drawn.mask, PNG_FAST)
    if job.raster:
        image, mask = on_raster(drawn, part)
        pictures.write(job.out / "raster/images" / f"{name}.png", image, PNG_FAST)
        pictures.write(job.out / "raster/masks" / f"{name}.png", mask, PNG_FAST)
    (job.out / "labels" / f"{name}.txt").write_text("".join(_yolo(d, job.size_px) for d in drawn.defects))
    return truth_of(drawn) | {
        "image": f"{name}.png",
        "drawing": path.name,
        "seed": [job.seed, index],
        "coco": [_outline(drawn, d) for d in drawn.defects],
        "missed": drawn.missed,
    }


def _yolo(defect: Defect, size_px: tuple[int, int]) -> str:
    x, y, w, h = defect.bbox_px
    width, height = size_px
    return f"{KINDS.index(defect.kind)} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"


def _outline(drawn: Drawn, defect: Defect) -> dict[str, Any]:
    """COCO's area and polygons of a defect: around the mask's pixels in its box for the surface, the box itself for the part's outline."""
    x, y, w, h = defect.bbox_px
    box = {"area": w * h, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
    if defect.kind not in SURFACE:
        return box
    left, top = int(x), int(y)
    seen = (drawn.mask[top : top + int(h), left : left + int(w)] == 1 + SURFACE.index(defect.kind)).astype(np.uint8)
    polygons = outlines.around(seen, (left, top))
    return {"area": float(seen.sum()), "segmentation": polygons} if polygons else box


def _write_lists(job: Job, lines: list[dict[str, Any]]) -> None:
    """truth.jsonl, coco.json, data.yaml and classes.txt."""
    with (job.out / "truth.jsonl").open("w") as file:
        for line in lines:
            file.write(json.dumps({k: v for k, v in line.items() if k not in ("coco", "missed")}) + "\n")
    annotations = [
        {"image_id": i, "category_id": 1 + KINDS.index(d["kind"]), "bbox": list(d["bbox_px"]), "iscrowd": 0, **shape}
        for i, line in enumerate(lines)
        for d, shape in zip(line["defects"], line["coco"], strict=True)
    ]
    coco = {
        "images": [
            {"id": i, "file_name": line["image"], "width": job.size_px[0], "height": job.size_px[1]} for i, line in enumerate(lines)
        ],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [
            {"id": i, "name": kind, "supercategory": "surface" if kind in SURFACE else "outline"} for i, kind in enumerate(KINDS, start=1)
        ],
    }
    (job.out / "coco.json").write_text(json.dumps(coco) + "\n")
    names = "".join(f"  {i}: {kind}\n" for i, kind in enumerate(KINDS))
    (job.out / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{names}")
    for folder in (".", *(("raster",) if job.raster else ())):
        (job.out / folder / "classes.txt").write_text("".join(f"{kind}\n" for kind in SURFACE))
