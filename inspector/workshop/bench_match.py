"""Finding and measuring a part: times and errors against rendered truth, and what OpenCV's own ways need on the same pictures.

Times are CPU milliseconds of this thread, medians over frames of the median of some repeats. `rmse_px` is the error of the part's middle,
`rmse_deg` of its angle, over the frames in which it was found within 3 px and 0.3°; `success` is their share. A peer's `ratio` is how many
times as long as ours it took on the same pictures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.geometry import dxf, kept, locate, template
from inspector.geometry.raster import to_picture
from inspector.records import Contour, Image, Pose, Template
from inspector.workshop import match_peers
from inspector.workshop.match_peers import Answer
from inspector.workshop.rendered import BACK_LIT, FRONT_LIT, LOW_CONTRAST, Scene, placed, render

if TYPE_CHECKING:
    from inspector.records import Floats

NAME = "match"

LARGE, SMALL = (2448, 2048), (1280, 1024)
FRAMES = 3
REPEATS = 5
SCENES = {"back-lit": BACK_LIT, "textured": FRONT_LIT, "low contrast": LOW_CONTRAST}


def measure() -> dict[str, dict[str, float]]:
    """A row for each size and light, for covered parts, for wrong parts, for gauging, and for each peer."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return _measure()
    finally:
        cv2.setNumThreads(threads)


def _measure() -> dict[str, dict[str, float]]:
    parts = {"plate": plate(), "bracket": bracket(), "gear": gear()}
    picture = np.zeros(LARGE[::-1], np.uint8)
    half = (LARGE[0] // 2, LARGE[1] // 2)
    halving_ms = _spent_ms(lambda: cv2.resize(picture, half, interpolation=cv2.INTER_AREA))
    rows: dict[str, dict[str, float]] = {"this machine: halving a picture of 2448 × 2048": {"ms": halving_ms}}
    for size in (LARGE, SMALL):
        scale = {name: 0.55 * size[1] / _length(contours) for name, contours in parts.items()}
        locators = {name: locate.compile(_template(c), scale_px_per_mm=scale[name]) for name, c in parts.items()}
        for light, scene in SCENES.items():
            shots = [_shot(name, c, scale[name], size, scene, i) for name, c in parts.items() for i in range(FRAMES)]
            row = f"{size[0]} × {size[1]} {light}"
            rows[row] = _ours(shots, locators)
            if size == LARGE and light != "low contrast":
                rows |= _peers(row, shots[::FRAMES], parts, scale, scene, rows[row]["found_ms"])
        if size == LARGE:
            shots = [_shot(name, c, scale[name], size, BACK_LIT, i, covered=True) for name, c in parts.items() for i in range(FRAMES)]
            rows[f"{size[0]} × {size[1]} back-lit, partly covered"] = _ours(shots, locators)
            rows["empty, mirrored and other parts"] = _refused(parts, scale, locators, size)
    rows["holes, back-lit"] = _holes()
    rows["notch 0.5 × 6 px, back-lit"] = _notches(replace(BACK_LIT, noise=4.0), 0.5, 6.0)
    rows["notch 3 × 10 px, textured"] = _notches(FRONT_LIT, 3.0, 10.0)
    rows["a drawing of 1,000 circles"] = _compiled()
    return rows


# --- pictures ----------------------------------------------------------------------------------------------------------


Shot = tuple[str, Pose, Image]


def _shot(
    name: str, contours: Sequence[Contour], scale: float, size: tuple[int, int], scene: Scene, seed: int, *, covered: bool = False
) -> Shot:
    """One picture with a random pose; `covered` lays a bar across the part."""
    rng = np.random.default_rng([seed, size[0], len(contours)])
    shift = tuple(rng.uniform(-0.07, 0.07, 2) * size[1])
    pose = placed(contours, size, rng.uniform(0, math.tau), scale, (shift[0], shift[1]))
    covers: list[tuple[Floats, float]] = []
    if covered:
        width, slant = 0.12 * size[0], rng.uniform(-0.2, 0.2) * size[0]
        left = size[0] / 2 + rng.uniform(-0.1, 0.1) * size[0]
        covers = [(np.array([(left, 0), (left + width, 0), (left + width + slant, size[1]), (left + slant, size[1])]), 120.0)]
    return name, pose, render([c.points_mm for c in contours], pose, size, scene, seed, covers=covers)


def _length(contours: Sequence[Contour]) -> float:
    points = np.concatenate([c.points_mm for c in contours])
    return float((points.max(axis=0) - points.min(axis=0)).max())


def _template(contours: tuple[Contour, ...]) -> Template:
    return Template("part", "", 1.0, (0.0, 0.0), contours, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8))


def _middle(contours: Sequence[Contour]) -> Floats:
    points = np.concatenate([c.points_mm for c in contours])
    return np.asarray(0.5 * (points.min(axis=0) + points.max(axis=0))[None], np.float64)


# --- ours --------------------------------------------------------------------------------------------------------------


def _ours(shots: Sequence[Shot], locators: dict[str, locate.Locator]) -> dict[str, float]:
    found_ms, measured_ms, errors = [], [], []
    for name, pose, image in shots:
        locator = locators[name]
        locator.find(image)
        found_ms.append(_spent_ms(lambda locator=locator, image=image: locator.find(image, gauge=False)))  # type: ignore[misc]
        measured_ms.append(_spent_ms(lambda locator=locator, image=image: locator.find(image)))  # type: ignore[misc]
        for one in locator.find(image):
            place = to_picture(_middle(locator.contours), one.pose)[0]
            errors.append(_error(Answer(float(place[0]), float(place[1]), one.pose.angle_rad), pose, locator.contours))
    row = {"found_ms": _median(found_ms), "measured_ms": _median(measured_ms), "slowest_ms": max(measured_ms)}
    return row | _errors(errors, len(shots))


def _spent_ms(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(REPEATS):
        start_ns = time.thread_time_ns()
        work()
        spent.append((time.thread_time_ns() - start_ns) / 1e6)
    return _median(spent)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _error(answer: Answer, true: Pose, contours: Sequence[Contour]) -> tuple[float, float, float]:
    """(dx px, dy px, degrees)."""
    x, y = to_picture(_middle(contours), true)[0]
    turn = (answer.angle_rad - true.angle_rad + math.pi) % math.tau - math.pi
    return answer.x_px - x, answer.y_px - y, math.degrees(turn)


def _errors(errors: Sequence[tuple[float, float, float]], asked: int) -> dict[str, float]:
    good = np.array([e for e in errors if max(abs(e[0]), abs(e[1])) < 3 and abs(e[2]) < 0.3]).reshape(-1, 3)
    px, degrees = (float(np.sqrt((v**2).mean())) if len(good) else math.nan for v in (good[:, :2], good[:, 2]))
    return {"rmse_px": px, "rmse_deg": degrees, "success": len(good) / asked}


def _refused(
    parts: dict[str, tuple[Contour, ...]], scale: dict[str, float], locators: dict[str, locate.Locator], size: tuple[int, int]
) -> dict[str, float]:
    """How many of the pictures that do not show the part are refused."""
    refused = []
    for name, contours in parts.items():
        other = next(n for n in parts if n != name)
        mirrored = tuple(replace(c, points_mm=c.points_mm[::-1] * (-1.0, 1.0)) for c in contours)
        for shown, outline in (("nothing", ()), (other, parts[other]), ("mirrored", mirrored)):
            if shown == "mirrored" and name == "gear":
                continue  # it is its own mirror image but for one key
            pose = placed(outline or contours, size, 1.0, scale.get(shown, scale[name]), (10.0, 20.0))
            refused.append(not locators[name].find(render([c.points_mm for c in outline], pose, size, BACK_LIT, 7)))
    return {"refused": float(np.mean(refused)), "pictures": len(refused)}


def _holes() -> dict[str, float]:
    """Bias and spread of hole diameters, px, over blurs that the locator must estimate by itself."""
    contours = plate()
    scale = 8.0
    errors = []
    for blur in (0.6, 0.9, 1.3):
        locator = locate.compile(_template(contours), scale_px_per_mm=scale)
        for seed in range(4):
            pose = placed(contours, SMALL, 0.4 + seed, scale, (seed * 3.3, -seed * 2.1))
            found = locator.find(
                render([c.points_mm for c in contours], pose, SMALL, replace(BACK_LIT, blur_px=blur), seed, oversampling=3)
            )
            errors += [2 * fit.dr_mm * scale for one in found if one.gauged is not None for fit in one.gauged.holes]
    return {"bias_px": float(np.mean(errors)), "sigma_px": float(np.std(errors)), "holes": len(errors)}


def _compiled() -> dict[str, float]:
    """Seconds of CPU from the file to what finds the part: compiled, and read from where it is kept."""
    holes = [(15 + 10 * (i % 37), 15 + 10 * (i // 37), 3) for i in range(999)]
    circles = [f"0\nCIRCLE\n8\n0\n10\n{x}\n20\n{y}\n40\n{radius}" for x, y, radius in [*holes, (195, 145, 260)]]
    with TemporaryDirectory() as folder:
        file = Path(folder, "sieve.dxf")
        file.write_text("\n".join(["0\nSECTION\n2\nENTITIES", *circles, "0\nENDSEC\n0\nEOF\n"]))

        def make() -> tuple[Template, locate.Locator]:
            made = template.build(dxf.read(file, units="mm"))
            return made, locate.compile(made, scale_px_per_mm=4.0)

        spent = []
        for _ in range(2):
            start_ns = time.thread_time_ns()
            kept.kept(Path(folder), lambda: "sieve", make)
            spent.append((time.thread_time_ns() - start_ns) / 1e9)
    return {"compiled_s": spent[0], "read_s": spent[1]}


def _notches(scene: Scene, deep_px: float, wide_px: float) -> dict[str, float]:
    """Share of notches seen, at a limit that one good part in a thousand would break by the spread of good ones."""
    contours, scale = plate(), 8.0
    outer = contours[0].points_mm
    locator = locate.compile(_template(contours), scale_px_per_mm=scale)
    deep, wide, run = deep_px / scale, wide_px / scale, max(5, round(0.8 * wide_px))
    worst: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(16):
        rng = np.random.default_rng(seed)
        pose = placed(contours, SMALL, rng.uniform(0, math.tau), scale, (0.0, 0.0))
        x = rng.uniform(15, 60)
        cut = np.array([(x, 0), (x, deep), (x + wide, deep), (x + wide, 0)])
        for spoiled in (False, True):
            outline = np.concatenate([outer[:1], cut, outer[1:]]) if spoiled else outer
            image = render([outline, *(c.points_mm for c in contours[1:])], pose, SMALL, scene, seed)
            for one in locator.find(image):
                if one.gauged is not None:
                    own = (one.gauged.contour == 0) & one.gauged.trusted & one.gauged.seen
                    worst[spoiled].append(-float(_mean_of(one.gauged.deviation_mm[own] * scale, run).min()))
    good = np.array(worst[False])
    limit = float(good.mean() + 3.1 * good.std())
    return {"seen": float((np.array(worst[True]) > limit).mean()), "limit_px": limit, "good_px": float(good.mean()), "parts": len(good)}


def _mean_of(values: Floats, run: int) -> Floats:
    return np.asarray(np.convolve(values, np.full(run, 1 / run), "same"), np.float64)


# --- the others --------------------------------------------------------------------------------------------------------


def _peers(
    row: str, shots: Sequence[Shot], parts: dict[str, tuple[Contour, ...]], scale: dict[str, float], scene: Scene, ours_ms: float
) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for peer in ("matchTemplate, rotated pyramid", "ECC from a start 2 px and 1° off", "SIFT"):
        spent, errors = [], []
        for name, pose, image in shots:
            goal = match_peers.template_picture(parts[name], scale[name], scene.part, scene.background)
            x, y = to_picture(_middle(parts[name]), pose)[0]
            start = Answer(float(x) + 2, float(y) - 2, pose.angle_rad + math.radians(1.0))
            start_ns = time.thread_time_ns()
            if peer.startswith("match"):
                answer = match_peers.match_template(image, goal)
            elif peer.startswith("ECC"):
                answer = match_peers.ecc(image, goal, start)
            else:
                answer = match_peers.sift(image, goal)
            spent.append((time.thread_time_ns() - start_ns) / 1e6)
            if answer is not None:
                errors.append(_error(answer, pose, parts[name]))
        rows[f"{row}: {peer}"] = {"found_ms": _median(spent), "ratio": _median(spent) / ours_ms} | _errors(errors, len(shots))
    return rows


# --- parts -------------------------------------------------------------------------------------------------------------


def _circle(x: float, y: float, radius: float) -> Floats:
    t = np.arange(720) * math.tau / 720
    return np.column_stack([x + radius * np.cos(t), y + radius * np.sin(t)])


def _slot(x: float, y: float, length: float, radius: float) -> Floats:
    t = np.linspace(-math.pi / 2, math.pi / 2, 180)
    right = np.column_stack([x + length / 2 + radius * np.cos(t), y + radius * np.sin(t)])
    left = np.column_stack([x - length / 2 - radius * np.cos(t), y - radius * np.sin(t)])
    return np.concatenate([right, left])


def _part(outer: Floats, *holes: Floats) -> tuple[Contour, ...]:
    contours = [Contour("outer", "outer", "0", outer, True, -0.1, 0.1)]
    contours += [Contour(f"hole-{i}", "hole", "0", np.ascontiguousarray(h[::-1]), True, -0.1, 0.1) for i, h in enumerate(holes, 1)]
    return tuple(contours)


def plate() -> tuple[Contour, ...]:
    """100 × 70 mm with a cut corner and six holes."""
    outer = np.array([(0, 0), (100, 0), (100, 58), (86, 70), (0, 70)], float)
    return _part(outer, *(_circle(*h) for h in ((10, 10, 3), (90, 10, 3), (10, 60, 3), (50, 35, 11), (28, 48, 2), (72, 22, 5))))


def bracket() -> tuple[Contour, ...]:
    """An L of 100 × 80 mm with a slot and three holes."""
    outer = np.array([(0, 0), (100, 0), (100, 25), (30, 25), (30, 80), (0, 80)], float)
    return _part(outer, _slot(65, 12.5, 30, 4), _circle(15, 65, 5), _circle(15, 40, 4), _circle(12, 12, 6))


def gear() -> tuple[Contour, ...]:
    """24 teeth, a bore with a keyway: 24 poses that differ by the key alone."""
    at = np.arange(96) * math.tau / 96
    radius = np.where(np.arange(96) % 4 < 2, 40.0, 35.0)
    bore = np.array([(10 * math.cos(t), 10 * math.sin(t)) for t in np.linspace(0.25, math.tau - 0.25, 400)])
    key = np.array([(13.0, bore[-1, 1]), (13.0, bore[0, 1])])
    return _part(np.column_stack([radius * np.cos(at), radius * np.sin(at)]), np.concatenate([bore, key]))
