"""Everything that a verdict depends on, made ready: `prepare(config)` → `Recipe`.

For each recipe in use: the drawing becomes a template and its locator, the calibration is read, the checks are built with their
networks. Whatever is wrong with any of them is told at once, with the line of the configuration that names it. One digest covers the
settings, the drawings, the calibrations and the models: the same digest and the same frame give the same verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from inspector.config import Config, PartTemplate, plugin, settings_of
from inspector.geometry import calibrate, dxf, locate, template
from inspector.judge import LOCATE
from inspector.records import Check, ConfigError, ConfigErrors, Plan, Recipe

CHUNK_BYTES = 1 << 20


def prepare(config: Config, now_utc_ns: int | None = None) -> Recipe:
    """The recipe of all cameras. Cameras with the same recipe share its template, checks and networks, which no judging changes.

    With `now_utc_ns` a calibration may be too old. Raises `ConfigErrors` with everything that is wrong, each with file and line of the
    configuration.
    """

    @cache
    def load_model(path: Path, *, threads: int = 1, task: Any = None) -> Any:
        from inspector.neural import model  # not for a line without networks

        return model.load(path, threads=threads, task=task)

    errors: list[ConfigError] = []
    plans: dict[str, Plan] = {}
    prints: dict[str, Any] = {}
    for name in dict.fromkeys(camera.recipe for camera in config.cameras):
        plans[name], prints[name] = _plan(config, name, load_model, now_utc_ns, errors)
    if errors:
        raise ConfigErrors(errors)
    cameras = {camera.id: camera.recipe for camera in config.cameras}
    return Recipe(
        digest=hashlib.sha256(json.dumps({"cameras": cameras, "recipes": prints}, sort_keys=True).encode()).hexdigest(),
        plans={camera: replace(plans[name], camera=camera) for camera, name in cameras.items()},
        models=tuple(dict.fromkeys(model for plan in plans.values() for _, check in plan.checks for model in _models(check))),
        reasons=(LOCATE, *dict.fromkeys(check for plan in plans.values() for check, _ in plan.checks)),
    )


def _plan(
    config: Config, recipe: str, load_model: Callable[..., Any], now_utc_ns: int | None, errors: list[ConfigError]
) -> tuple[Plan, dict[str, Any]]:
    """What is done with the frames of one recipe's cameras, and what its digest is made of; what is wrong goes to `errors`."""
    settings, loc = config.recipes[recipe], ("recipes", recipe)
    plan = Plan(camera="", template=None, locator=None, calibration=None, checks=(), raster=False, load_model=load_model)
    prints: dict[str, Any] = {"template": None, "checks": []}
    if settings.template is not None:
        with _gathered(errors, config, *loc, "template"):
            plan, prints["template"] = _with_template(plan, settings.template, now_utc_ns), _print(settings.template)
    checks: list[tuple[str, Check]] = []
    raster = False
    for name, kind in settings.checks.items():
        with _gathered(errors, config, *loc, "checks", name, settings=kind.model_extra):
            module = plugin("checks", kind.kind)
            chosen = settings_of("checks", kind, module.Settings)
            if "threads" in type(chosen).model_fields and "threads" not in chosen.model_fields_set:
                chosen = chosen.model_copy(update={"threads": config.vision.network_threads})
            if settings.template is None or plan.template is not None:  # without its template a check would only err once more
                checks.append((name, module.build(chosen, name, plan)))
                raster |= bool(getattr(module, "NEEDS_RASTER", False))
                prints["checks"].append([name, kind.kind, _print(chosen)])
    return replace(plan, checks=tuple(checks), raster=raster and plan.template is not None, load_model=None), prints


def _with_template(plan: Plan, settings: PartTemplate, now_utc_ns: int | None) -> Plan:
    """The plan with drawing, calibration and locator."""
    drawing = _keyed("drawing", dxf.read, settings.drawing, units=settings.units)
    made = _keyed("drawing", template.build, drawing, mm_per_px=settings.mm_per_px, tolerance_mm=settings.tolerance_mm, part=settings.part)
    calibration = None
    if settings.calibration is not None:
        calibration = _keyed("calibration", calibrate.read, settings.calibration, now_utc_ns=now_utc_ns)
    scale = settings.scale_px_per_mm
    if scale is None and calibration is not None:
        scale = 1 / calibration.mm_per_px
    locator = _keyed("drawing", locate.compile, made, scale_px_per_mm=scale, perspective=settings.perspective)
    straighten = None if calibration is None else calibrate.undistorter(calibration)
    plan = replace(plan, template=made, locator=locator, calibration=calibration, straighten=straighten)
    return replace(plan, least_score_ratio=settings.least_score_ratio)


def _keyed(key: str, function: Any, *args: Any, **named: Any) -> Any:
    """What the function gives; its refusals belong to the setting `key`, which names the file that they are about."""
    try:
        return function(*args, **named)
    except ConfigErrors as several:
        raise ConfigErrors([_about(key, each) for each in several.errors]) from several
    except ConfigError as error:
        raise _about(key, error) from error


def _about(key: str, error: ConfigError) -> ConfigError:
    return ConfigError(error.code, str(error).removeprefix(error.code).lstrip(": "), key=f".{key}")


@contextmanager
def _gathered(errors: list[ConfigError], config: Config, *loc: str, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Keeps refusals for later, each with the line where `loc` stands. A key ".x" or "CHECK.x" is taken for the setting x there, and so
    is a file that one of the `settings` names.
    """
    try:
        yield
    except ConfigError as error:
        for each in error.errors if isinstance(error, ConfigErrors) else (error,):
            said = str(each).removeprefix(each.code).lstrip(": ")
            head, dot, rest = (each.key or "").partition(".")
            naming = [key for key, value in (settings or {}).items() if each.file and Path(str(value)).name == Path(each.file).name]
            if each.file is not None and each.file == config.file:
                errors.append(each)
            elif dot and head in ("", loc[-1]):
                errors.append(config.error(each.code, each.text, *loc, *rest.split(".")))
            else:
                errors.append(config.error(each.code, said, *loc, *naming[:1]))


def _models(check: Any) -> tuple[tuple[str, str], ...]:
    """(name, sha256) of the networks of a check that has some."""
    return tuple(getattr(check, "models", ()))


def _print(value: Any) -> Any:
    """Settings as JSON with every path replaced by what stands there: the same content elsewhere is the same recipe."""
    if isinstance(value, BaseModel):
        return {name: _print(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _print(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_print(each) for each in value]
    return digest(value) if isinstance(value, Path) else value


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file and of the `.yaml` beside it (a model's card, a drawing's tolerances), or of all files of a folder.

    Raises `ConfigError` E_CFG_OPEN.
    """
    found = hashlib.sha256()
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path, path.with_suffix(".yaml")]
        for file in files if path.is_dir() or files[1].is_file() else files[:1]:
            found.update(f"{file.relative_to(path) if path.is_dir() else file.suffix}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as opened:
                while chunk := opened.read(CHUNK_BYTES):
                    found.update(chunk)
    except OSError as error:
        raise ConfigError("E_CFG_OPEN", f"{path}: {error.strerror}") from error
    return found.hexdigest()
