"""What a synthetic picture costs: drawn, and drawn with every file of the data set written. CPU time of one core, 1280 × 1024.

The limit is what nobody can leave out, done by OpenCV alone: optics (a Gaussian blur of a float32 picture), sensor noise (its own
random numbers, added), eight bits; with files also the compression of the picture to the same PNG.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.geometry import dxf, template
from inspector.scene import Look, draw, fitting_mm_per_px, textures
from inspector.workshop import synth
from inspector.workshop.demo import folder_of_ours

NAME = "synth"

SIZE_PX = (1280, 1024)
PICTURES = 24
DEMANDED_PER_S = 15.0


def measure() -> dict[str, dict[str, Any]]:
    """Milliseconds of CPU a picture, pictures a second and core, and the ratio to the limit, for each of our drawings and for `synth`."""
    cv2.setNumThreads(1)
    look = Look(defect_ratio=0.5)
    drawings = sorted(folder_of_ours("dxf_templates").glob("*.dxf"))
    pass_ms, png_ms = _limits()
    for surface in (*look.textures, "belt"):
        textures.tile(surface)
    textures.noise()
    rows: dict[str, dict[str, Any]] = {}
    for path in drawings:
        part = template.build(dxf.read(path))
        mm_per_px = fitting_mm_per_px(part.contours, SIZE_PX, look)
        began_s = time.process_time()
        for index in range(PICTURES):
            draw(part, seed=(1, index), size_px=SIZE_PX, mm_per_px=mm_per_px, look=look)
        rows[f"draw {path.stem}"] = _figures(began_s, pass_ms)
    with tempfile.TemporaryDirectory() as folder:
        job = synth.Job(tuple(drawings), Path(folder) / "set", PICTURES, 1, SIZE_PX, None, look, False)
        with synth.executor(1, None) as pool:
            pool.submit(time.process_time).result()
            synth.synthesise(job, pool)  # makes the surfaces
            job = synth.Job(job.drawings, Path(folder) / "again", PICTURES, 1, SIZE_PX, None, look, False)
            began_s = pool.submit(time.process_time).result()
            synth.synthesise(job, pool)
            spent_s = pool.submit(time.process_time).result() - began_s
    rows["synth, with files"] = _figures(time.process_time() - spent_s, pass_ms + png_ms)
    return rows


def _figures(began_s: float, limit_ms: float) -> dict[str, Any]:
    spent_ms = (time.process_time() - began_s) / PICTURES * 1e3
    return {
        "cpu_ms": spent_ms,
        "per_s": 1e3 / spent_ms,
        "demanded_per_s": DEMANDED_PER_S,
        "limit_ms": limit_ms,
        "ratio": spent_ms / limit_ms,
    }


def _limits() -> tuple[float, float]:
    """Milliseconds of blur, noise and eight bits for one picture, and of compressing it as `synth` does."""
    grey = np.full(SIZE_PX[::-1], 100, np.float32)
    noise = np.empty_like(grey)
    picture = np.empty(grey.shape, np.uint8)
    began_s = time.process_time()
    for _ in range(10):
        cv2.randn(noise, np.zeros(1), np.full(1, 3.0))
        cv2.add(cv2.GaussianBlur(grey, (0, 0), 0.8), noise, dst=picture, dtype=cv2.CV_8U)
    pass_ms = (time.process_time() - began_s) * 100
    began_s = time.process_time()
    for _ in range(5):
        cv2.imencode(".png", picture, synth.PNG_FAST)
    return pass_ms, (time.process_time() - began_s) * 200
