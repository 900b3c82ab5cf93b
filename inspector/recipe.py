"""Everything that a verdict depends on, made ready: `prepare(config)` → `Recipe`.

For each recipe in use: the drawing becomes a template and its locator, the calibration is read, the checks are built with their
networks. Whatever is wrong with any of them is told at once, with the line of the configuration that names it. One digest covers the
settings, the drawings, the calibrations and the models: the same digest and the same frame give the same verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel

from inspector.config import Config, Judging, Kind, PartTemplate, RecipeSettings, built, plugin, settings_of
from inspector.geometry import calibrate, correct, dxf, kept, locate, template
from inspector.judge import LOCATE
from inspector.records import Check, ConfigError, ConfigErrors, Plan, Recipe, Template

CHUNK_BYTES = 1 << 20
OF_A_TEMPLATE = ("E_CFG_TEMPLATE", "E_CFG_SCALE")
"""How checks refuse to do without one: not to be said where the template has been refused already."""


class Shelf:
    """What was prepared and stays ready: plans by their digest, networks by what they were loaded from, and `geometry` that another
    process has made (template and locator by the digest of their settings). For one thread at a time.

    With a `folder`, templates lie there for the next start (see `geometry.kept`).
    """

    def __init__(self, most: int = 1, folder: Path | None = None) -> None:
        self.folder = folder
        self.geometry: dict[str, tuple[Template, Any]] = {}
        self.most = most
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._networks: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def plan(self, digest: str | None) -> Plan | None:
        """The plan with this digest, if it is here."""
        if digest is None or digest not in self._plans:
            return None
        self._plans.move_to_end(digest)
        return self._plans[digest]

    def keep(self, plan: Plan) -> None:
        """Keep this plan, and the last few before it."""
        self._plans[plan.digest] = plan
        while len(self._plans) > self.most:
            self._plans.popitem(last=False)

    def network(self, path: Path, *, threads: int = 1, task: Any = None) -> Any:
        """The network in the file, loaded once for all recipes that name it."""
        from inspector.neural import model  # not for a line without networks

        try:
            key = (path, digest(path), threads, task)
        except ConfigError:
            return model.load(path, threads=threads, task=task)  # says what is wrong with it
        if key not in self._networks:
            self._networks[key] = model.load(path, threads=threads, task=task)
            while len(self._networks) > 4 * self.most:
                self._networks.popitem(last=False)
        self._networks.move_to_end(key)
        return self._networks[key]


class _Side(NamedTuple):
    """A recipe as some camera sees it: the recipe's name, and the camera that it says something of its own for (empty: all others)."""

    recipe: str
    camera: str

    @property
    def loc(self) -> tuple[str, ...]:
        return ("recipes", self.recipe, "cameras", self.camera) if self.camera else ("recipes", self.recipe)

    def settings(self, config: Config) -> Judging | RecipeSettings:
        recipe = config.recipes[self.recipe]
        return recipe.cameras[self.camera] if self.camera else recipe


def prepare(
    config: Config, now_utc_ns: int | None = None, *, chosen: Mapping[str, str] | None = None, shelf: Shelf | None = None
) -> Recipe:
    """The recipe of all cameras. Cameras with the same recipe share its template, checks and networks, which no judging changes.

    `chosen` says which recipe a camera has, where it is not the one of the configuration; what lies on the `shelf` is not made again.
    With `now_utc_ns` a calibration may be too old. Raises `ConfigErrors` with everything that is wrong, each with file and line of the
    configuration; E_CFG_MOVED where a file was another one after it was read than before.
    """
    shelf = Shelf(len(config.cameras)) if shelf is None else shelf
    errors: list[ConfigError] = []
    sides = sides_of(config, chosen)
    plans = {side: _plan(config, side, shelf, now_utc_ns, errors) for side in dict.fromkeys(sides.values())}
    correctors: dict[str, Any] = {}
    for place, each in enumerate(config.cameras):
        if each.correction is not None:
            with _gathered(errors, config, "cameras", place, "correction"):
                correctors[each.id] = correct.corrector(correct.read(each.correction))
    if errors:
        raise ConfigErrors(errors)
    return Recipe(
        digest=_whole(config, sides, {side: plan.digest for side, plan in plans.items()}),
        plans={
            camera: replace(
                plans[side],
                camera=camera,
                recipe=side.recipe,
                number=config.recipes[side.recipe].number,
                correct=correctors.get(camera),
            )
            for camera, side in sides.items()
        },
        models=tuple(dict.fromkeys(model for plan in plans.values() for _, check in plan.checks for model in _models(check))),
        reasons=(LOCATE, *dict.fromkeys(check for plan in plans.values() for check, _ in plan.checks)),
    )


def identity(config: Config, chosen: Mapping[str, str], shelf: Shelf) -> str | None:
    """The digest that `prepare` would give now, where all that it takes lies on the shelf; None where something would have to be made."""
    sides, digests = sides_of(config, chosen), {}
    for side in dict.fromkeys(sides.values()):
        with suppress(ConfigError):
            if (ready := shelf.plan(_sha(_prints(config, side.settings(config))))) is not None:
                digests[side] = ready.digest
    if len(digests) == len(set(sides.values())):
        with suppress(ConfigError):
            return _whole(config, sides, digests)
    return None


def _whole(config: Config, sides: Mapping[str, _Side], digests: Mapping[_Side, str]) -> str:
    cameras = {camera: side.recipe for camera, side in sides.items()}
    prints: dict[str, Any] = {"cameras": cameras, "recipes": {"/".join(filter(None, side)): one for side, one in digests.items()}}
    if corrections := {camera.id: digest(camera.correction) for camera in config.cameras if camera.correction is not None}:
        prints["corrections"] = corrections
    return _sha(prints)


def sides_of(config: Config, chosen: Mapping[str, str] | None = None) -> dict[str, _Side]:
    """Which part of which recipe each camera has."""
    sides = {}
    for camera in config.cameras:
        name = (chosen or {}).get(camera.id, camera.recipe)
        sides[camera.id] = _Side(name, camera.id if camera.id in config.recipes[name].cameras else "")
    return sides


def _plan(config: Config, side: _Side, shelf: Shelf, now_utc_ns: int | None, errors: list[ConfigError]) -> Plan:
    """What is done with the frames of this side's cameras; what is wrong goes to `errors`."""
    settings = side.settings(config)
    before = None
    with suppress(ConfigError):  # what it is will be said where it stands
        before = _sha(_prints(config, settings))
    ready = shelf.plan(before)
    if ready is not None:
        return ready
    known = len(errors)
    plan = Plan(camera="", template=None, locator=None, calibration=None, checks=(), raster=False, load_model=shelf.network)
    if settings.template is not None:
        with _gathered(errors, config, *side.loc, "template"):
            plan = _calibrated(plan, settings.template, now_utc_ns)
        with _gathered(errors, config, *side.loc, "template"):
            if len(errors) > known:
                _drawn(settings.template)  # what is wrong with the drawing is told too
            else:
                plan = _with_template(plan, settings.template, shelf)
    blind = settings.template is not None and plan.template is None
    checks: list[tuple[str, Check]] = []
    raster = False
    for name, kind in settings.checks.items():
        with _gathered(errors, config, *side.loc, "checks", name, settings=kind.model_extra):
            module, given = _check(config, kind)
            try:
                checks.append((name, built(module, given, name, plan)))
            except ConfigError as error:
                if not (blind and error.code in OF_A_TEMPLATE):
                    raise
            raster |= bool(getattr(module, "NEEDS_RASTER", False))
            _print(given)
    if len(errors) > known:
        return plan
    with _gathered(errors, config, *side.loc):
        if (after := _sha(_prints(config, settings))) != before:
            raise ConfigError("E_CFG_MOVED", "a drawing, model or calibration changed while it was read; say it again when it is whole")
        plan = replace(plan, checks=tuple(checks), raster=raster and plan.template is not None, load_model=None, digest=after)
        shelf.keep(plan)
    return plan


def _check(config: Config, kind: Kind) -> tuple[ModuleType, Any]:
    """The module of a check and its settings; what a network's check does not say itself, vision says."""
    module = plugin("checks", kind.kind)
    given = settings_of("checks", kind, module.Settings)
    if "threads" in type(given).model_fields and "threads" not in given.model_fields_set:
        given = given.model_copy(update={"threads": config.vision.network_threads})
    return module, given


def _prints(config: Config, settings: Judging | RecipeSettings) -> dict[str, Any]:
    """What the digest of a plan is made of. Raises `ConfigError` for what cannot be read."""
    checks = [[name, kind.kind, _print(_check(config, kind)[1])] for name, kind in settings.checks.items()]
    return {"template": _print(settings.template), "checks": checks}


def _sha(prints: Any) -> str:
    return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()


def _calibrated(plan: Plan, settings: PartTemplate, now_utc_ns: int | None) -> Plan:
    """The plan with the calibration, where there is one."""
    if settings.calibration is None:
        return plan
    calibration = _keyed("calibration", calibrate.read, settings.calibration, now_utc_ns=now_utc_ns)
    return replace(plan, calibration=calibration, straighten=calibrate.straightener(calibration))


def _with_template(plan: Plan, settings: PartTemplate, shelf: Shelf) -> Plan:
    """The plan with drawing and locator."""
    key = ""
    with suppress(ConfigError):  # whoever reads it says better what is wrong
        key = template_digest(settings)
    scale = settings.scale_px_per_mm
    if scale is None and plan.calibration is not None:
        scale = 1 / plan.calibration.mm_per_px
    known = plan.calibration is not None and plan.calibration.homography is not None  # its pictures are turned to the front
    slanted = settings.perspective and not known
    made, locator = shelf.geometry.get(key) or _geometry(settings, scale, slanted, shelf.folder if key else None)
    shelf.geometry[key] = made, locator
    while len(shelf.geometry) > 2 * shelf.most:
        del shelf.geometry[next(iter(shelf.geometry))]
    return replace(plan, template=made, locator=locator, least_score_ratio=settings.least_score_ratio)


def template_digest(settings: PartTemplate) -> str:
    """What a template is made of but its name, as SHA-256 (hex). Raises `ConfigError` for what cannot be read."""
    return _sha(_print(settings))


def _geometry(
    settings: PartTemplate, scale: float | tuple[float, float] | None, perspective: bool, folder: Path | None
) -> tuple[Template, Any]:
    """The drawing as a template, and what finds it in pictures; from the folder where it lies there."""

    def make() -> tuple[Template, locate.Locator]:
        made = _drawn(settings)
        scaled_by = "drawing" if scale is None else "calibration" if settings.scale_px_per_mm is None else "scale_px_per_mm"
        return made, _keyed(scaled_by, locate.compile, made, scale_px_per_mm=scale, perspective=perspective)

    return make() if folder is None else kept.kept(folder, lambda: f"{settings.drawing.stem} {template_digest(settings)}", make)


def _drawn(settings: PartTemplate) -> Template:
    drawing = _keyed("drawing", dxf.read, settings.drawing, units=settings.units)
    size = {"mm_per_px": settings.mm_per_px, "tolerance_mm": settings.tolerance_mm, "part": settings.part}
    made: Template = _keyed("drawing", template.build, drawing, **size)
    return made


def _keyed(key: str, function: Any, *args: Any, **named: Any) -> Any:
    """What the function gives; its refusals belong to the setting `key`, which names the file that they are about."""
    try:
        return function(*args, **named)
    except ConfigError as error:
        raise error.of(f".{key}") from error


@contextmanager
def _gathered(errors: list[ConfigError], config: Config, *loc: str | int, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Keeps refusals for later, each with the line where `loc` stands. A key ".x" or "CHECK.x" is taken for the setting x there, and so
    is a file that one of the `settings` names.
    """
    try:
        yield
    except ConfigError as error:
        for each in error.errors:
            head, dot, rest = (each.key or "").partition(".")
            naming = [key for key, value in (settings or {}).items() if each.file and Path(str(value)).name == Path(each.file).name]
            if each.file is not None and each.file == config.file:
                errors.append(each)
            elif dot and head in ("", loc[-1]):
                errors.append(config.error(each.code, each.text, *loc, *rest.split(".")))
            else:
                errors.append(config.error(each.code, each.said, *loc, *naming[:1]))


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
    """SHA-256 (hex) of a file and of the `.yaml` beside it (a model's card and tuning, a drawing's tolerances), or of all in a folder.

    Raises `ConfigError` E_CFG_OPEN.
    """
    found = hashlib.sha256()
    try:
        beside = [side for side in (path.with_suffix(".yaml"), path.with_suffix(".tune.yaml")) if side.is_file()]
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path, *beside]:
            found.update(f"{file.relative_to(path) if path.is_dir() else file.suffix}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as opened:
                while chunk := opened.read(CHUNK_BYTES):
                    found.update(chunk)
    except OSError as error:
        raise ConfigError("E_CFG_OPEN", f"{path}: {error.strerror}") from error
    return found.hexdigest()
