"""One drawing against stored pictures: found, measured, judged, and drawn over the picture so that a person believes it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.config import Kind, PartTemplate, RecipeSettings, built, plugin, read_settings, settings_of
from inspector.geometry import calibrate, dxf, kept, locate, raster, template
from inspector.neural import pictures
from inspector.recipe import template_digest
from inspector.records import ConfigError, Frame, Image, Plan, Stamp, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspector.geometry.gauge import Gauged
    from inspector.records import Finding, Pose, Template

_COLOURS = 256


def scale_of(mm_per_px: float | None, scale_range: tuple[float, float] | None) -> float | tuple[float, float] | None:
    """What `locate.compile` wants: px per mm, a range of it, or None. Raises `ConfigError` E_SCALE for a range that is none."""
    if scale_range is None:
        return None if mm_per_px is None else 1.0 / mm_per_px
    if not 0 < scale_range[0] <= scale_range[1] < math.inf:
        raise ConfigError("E_SCALE", f"{scale_range[0]:g} to {scale_range[1]:g} is no range of scales", key="--scale-range")
    known = 1.0 if mm_per_px is None else 1.0 / mm_per_px
    return scale_range[0] * known, scale_range[1] * known


def prepare(
    drawing: Path,
    recipe: Path | None = None,
    *,
    scale: float | tuple[float, float] | None = None,
    perspective: bool = False,
    units: str | None = None,
    part: int = 0,
    tolerance_mm: float | None = None,
    calibration: Path | None = None,
) -> Plan:
    """What is looked for and measured: outline, holes and distances, or what the recipe says; arguments go before the recipe's settings.

    A calibration gives the scale where nothing else does, and straightens the pictures. Raises `ConfigError`s of drawing, recipe,
    calibration and checks.
    """
    settings = RecipeSettings(checks={name: Kind(kind=name) for name in ("outline", "holes", "distances")})
    if recipe is not None:
        settings = read_settings(recipe, RecipeSettings)
    said = settings.template or PartTemplate(drawing=drawing)
    file = calibration or said.calibration
    camera = None if file is None else calibrate.read(file, now_utc_ns=time.time_ns())
    known = scale or said.scale_px_per_mm or (None if camera is None else 1.0 / camera.mm_per_px)
    slanted = (perspective or said.perspective) and (camera is None or camera.homography is None)  # else they are turned to the front
    whole = said.model_copy(
        update={
            "drawing": drawing,
            "part": part,
            "units": units or said.units,
            "tolerance_mm": tolerance_mm or said.tolerance_mm,
            "scale_px_per_mm": known,
            "perspective": slanted,
            "calibration": None,
        }
    )

    def make() -> tuple[Template, locate.Locator]:
        read = dxf.read(drawing, units=whole.units)
        made = template.build(read, mm_per_px=whole.mm_per_px, tolerance_mm=whole.tolerance_mm, part=part)
        return made, locate.compile(made, scale_px_per_mm=known, perspective=slanted)

    if drawing.is_file():
        made, locator = kept.kept(kept.user_folder(), lambda: f"{drawing.stem} {template_digest(whole)}", make)
    else:
        made, locator = make()  # which says what is wrong with it
    straighten = None if camera is None else calibrate.straightener(camera)
    plan = Plan("", made, locator, camera, (), False, said.least_score_ratio, straighten=straighten)
    checks, needs_raster = [], False
    for name, kind in settings.checks.items():
        module = plugin("checks", kind.kind)
        try:
            check = built(module, settings_of("checks", kind, module.Settings), name, plan)
        except ConfigError as error:
            if recipe is None and error.code in ("E_CFG_HOLES", "E_CFG_DISTANCES"):
                continue  # nobody asked for what this drawing does not have
            raise
        checks.append((name, check))
        needs_raster |= bool(getattr(module, "NEEDS_RASTER", False))
    return replace(plan, checks=tuple(checks), raster=needs_raster)


def judge(plan: Plan, path: Path, max_parts: int = 1, overlay: Path | None = None) -> Iterator[dict[str, Any]]:
    """One JSON object for each part found in the picture, or one with `found` false; what is px is of the straightened picture.

    Raises `ConfigError` E_IMG_*, and E_CAL_SIZE where the calibration is for other pictures.
    """
    picture = pictures.read(path)
    if plan.calibration is not None:
        calibrate.fits(plan.calibration, picture.shape, file=str(path))
    if plan.straighten is not None:
        picture = plan.straighten(picture)
    made = plan.template
    if made is None:
        raise ValueError("a plan without template finds nothing")
    start_ns = time.thread_time_ns()
    found = plan.locator.find(picture, max_parts=max_parts, shown=calibrate.shown_by(plan.straighten))
    total_ms = (time.thread_time_ns() - start_ns) / 1e6
    found = tuple(one for one in found if one.pose.score_ratio >= plan.least_score_ratio)
    spent = {"locate": total_ms - sum(one.gauge_ms for one in found), "gauge": sum(one.gauge_ms for one in found), "total": total_ms}
    canvas = picture if picture.ndim == 3 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8)
    canvas = canvas.copy()
    for one in found:
        raster_picture = raster.rectify(picture, one.pose, made) if plan.raster else picture
        stamp = Stamp("", 1, 0, None, picture.shape)
        view = View(Frame(stamp, picture), one.pose, made, raster_picture, one.gauged)
        findings = [finding for _, check in plan.checks for finding in check([view])[0]]
        if overlay is not None:
            draw(canvas, one.pose, one.gauged, made, findings)
        yield {
            **_said(path, made, spent),
            "found": True,
            "x_px": one.pose.x_px,
            "y_px": one.pose.y_px,
            "angle_deg": math.degrees(one.pose.angle_rad),
            "scale_px_per_mm": one.pose.scale_px_per_mm,
            "score_ratio": one.pose.score_ratio,
            "residual_mm": one.pose.residual_mm if math.isfinite(one.pose.residual_mm) else None,
            "ambiguous": one.pose.ambiguous,
            "homography": None if one.pose.homography is None else list(one.pose.homography),
            "decision": "pass" if findings and all(f.ok for f in findings) else "fail",
            "findings": [_finding(f) for f in findings],
        }
    if overlay is not None:
        pictures.write(overlay, canvas)
    if not found:
        yield {**_said(path, made, spent), "found": False, "decision": "fail", "findings": []}


def _said(path: Path, made: Template, spent_ms: dict[str, float]) -> dict[str, Any]:
    return {"image": str(path), "part": made.name, "found": False, "spent_ms": {k: round(v, 3) for k, v in spent_ms.items()}}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "feature": finding.feature,
        "value": finding.value if math.isfinite(finding.value) else None,
        "low": finding.low,
        "high": finding.high,
        "unit": finding.unit,
        "ok": finding.ok,
        "at_mm": None if finding.at_mm is None else list(finding.at_mm),
    }


def in_words(said: dict[str, Any]) -> str:
    """The object as lines for a person: where the part lies, then what is out of tolerance, then the rest."""
    if not said["found"]:
        return f"{said['image']}: {said['part']} not found ({said['spent_ms']['total']:.1f} ms)"
    head = (
        f"{said['image']}: {said['part']} {said['decision'].upper()} at ({said['x_px']:.2f}, {said['y_px']:.2f}) px, "
        f"{said['angle_deg']:.3f}°, {said['scale_px_per_mm']:.5g} px/mm, score {said['score_ratio']:.3f}"
        f"{', ambiguous' if said['ambiguous'] else ''} ({said['spent_ms']['total']:.1f} ms)"
    )
    rows = [_row(f) for f in sorted(said["findings"], key=lambda f: f["ok"])]
    return "\n".join([head, *rows])


def _row(f: dict[str, Any]) -> str:
    limits = "…".join("" if f[k] is None else f"{f[k]:.4g}" for k in ("low", "high"))
    place = "" if f["at_mm"] is None else f" at ({f['at_mm'][0]:.2f}, {f['at_mm'][1]:.2f}) mm"
    value = "?" if f["value"] is None else f"{f['value']:.4f}"
    return f"  {'ok ' if f['ok'] else 'OUT'} {f['check']} {f['feature']}: {value} {f['unit']} [{limits}]{place}"


# --- the overlay -------------------------------------------------------------------------------------------------------


def draw(canvas: Image, pose: Pose, gauged: Gauged | None, made: Template, findings: list[Finding]) -> None:
    """Paint the contour over a BGR picture: blue too little, green right, red too much (full colour at the tolerance), grey not seen;
    and what is out of tolerance as a circle with its number.
    """
    width = max(1, round(max(canvas.shape[:2]) / 900))
    if gauged is None:
        for contour in made.contours:
            line = np.rint(raster.to_picture(contour.points_mm, pose) * 16).astype(np.int32)
            cv2.polylines(canvas, [line], contour.closed, (0, 200, 0), width, cv2.LINE_AA, 4)
        return
    at = np.rint(raster.to_picture(gauged.points_mm, pose) * 16).astype(np.int32)
    colours = _colours(gauged, made)
    for index in range(len(made.contours)):
        own = np.flatnonzero(gauged.contour == index)
        for first, second in zip(own, np.roll(own, -1), strict=True):
            cv2.line(canvas, tuple(at[first].tolist()), tuple(at[second].tolist()), colours[first].tolist(), width, cv2.LINE_AA, 4)
    for number, finding in enumerate((f for f in findings if not f.ok and f.at_mm is not None), 1):
        x, y = np.rint(raster.to_picture(np.array([finding.at_mm]), pose)[0]).astype(int).tolist()
        cv2.circle(canvas, (x, y), 10 * width, (0, 0, 255), width, cv2.LINE_AA)
        value = f"{finding.value:+.3f} mm" if finding.unit == "mm" else f"{finding.value:g} {finding.unit}"
        text = f"{number} {finding.feature} {value}"
        cv2.putText(canvas, text, (x + 12 * width, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5 * width, (0, 0, 255), width, cv2.LINE_AA)


def _colours(gauged: Gauged, made: Template) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(n, 3) BGR of each sample: its deviation relative to its contour's tolerance, in −1…1."""
    inward = np.array([max(-c.inward_mm, 1e-9) for c in made.contours])[gauged.contour]
    outward = np.array([max(c.outward_mm, 1e-9) for c in made.contours])[gauged.contour]
    deviation = np.nan_to_num(gauged.deviation_mm)
    relative = np.clip(np.where(deviation > 0, deviation / outward, deviation / inward), -1, 1)
    ramp = np.rint((relative + 1) * 0.5 * (_COLOURS - 1)).astype(np.uint8)
    colours = np.asarray(cv2.applyColorMap(ramp[:, None], cv2.COLORMAP_JET), np.uint8)[:, 0]
    colours[~np.isfinite(gauged.deviation_mm)] = 128
    return colours
