"""YAML → frozen settings. Refuses what it does not know and names the nearest; says file, line, key, value seen, what is allowed.

`Config` is the whole file, `read(path)` the way to it. The settings of a kind (`source:`, `conveyor:`, a check) stay a `Kind` here (its
name, its raw mapping and where it stood), and are read by `settings_of`, because only the process that uses a kind may import it:
the gate reads this file and loads neither NumPy nor OpenCV.

Of YAML there is what a settings file needs: mappings, lists and scalars, without aliases, tags and second documents. Scalars are those of
YAML 1.2 (`true`, `12`, `0.5`, `null`, text); what YAML 1.1 reads otherwise (`no`, `12:30:00`, `1_000`, `0o10`) is refused, not guessed.
A value can be set from outside: `INSPECTOR__GATE__LEASE_MS=200` stands for `gate: {lease_ms: 200}`. In paths `${NAME}` and
`${NAME:-default}` are taken from the environment, and relative ones begin at the file's folder.
"""

from __future__ import annotations

import difflib
import importlib
import ipaddress
import json
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from inspector.records import ConfigError, ConfigErrors

LARGEST_FILE_BYTES = 1 << 20
DEEPEST = 32

Loc: TypeAlias = tuple[str | int, ...]
"""Where a value stands: ("cameras", 2, "source", "exposure_us")."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
"""Site, line, station, camera, recipe, check: what may stand in a topic."""


def _port(host: str, port: str, curve: str) -> None:
    """Refuses ports that cannot be taken (E_BIND) and hosts beyond this machine (E_SEC_BIND)."""
    if not (port.isascii() and port.isdigit()) or not (int(port) == 0 or 1024 <= int(port) <= 65535):
        raise PydanticCustomError("E_BIND", f"port {port or 'missing'}; allowed: 1024 to 65535, or 0 for a free one")
    try:
        local = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        local = False
    if not local:
        raise PydanticCustomError("E_SEC_BIND", f"{host} can be reached from other machines, {curve}; bind to 127.0.0.1")


def _socket_address(text: str) -> str:
    """`tcp://HOST:PORT`, or `ipc:///PATH`, which file permissions guard."""
    if not re.fullmatch(r"ipc://(/|@).{1,100}", text):
        if not (found := re.fullmatch(r"tcp://(\[[^\]]+\]|[^:/]+):([^:/]*)", text)):
            raise PydanticCustomError("E_BIND", f"{text} is not an address; allowed: tcp://127.0.0.1:PORT or ipc:///PATH")
        _port(found[1], found[2], "and without CURVE keys anybody there could read or answer for the gate")
    return text


def _http_address(text: str) -> str:
    """`HOST:PORT`."""
    if not (found := re.fullmatch(r"(\[[^\]]+\]|[^:/]+):([^:/]*)", text)):
        raise PydanticCustomError("E_BIND", f"{text} is not an address; allowed: 127.0.0.1:PORT")
    _port(found[1], found[2], "and pages are served without TLS")
    return text


SocketAddress = Annotated[str, AfterValidator(_socket_address)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]


@dataclass(frozen=True, slots=True)
class _Place:
    """What paths are read with: the folder that relative ones begin at, and the environment."""

    folder: Path
    environment: Mapping[str, str]

    def path(self, value: Any) -> Any:
        """The path that is meant; a list or tuple of them likewise, and anything else as it is."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.path(v) for v in value)
        if not isinstance(value, Path):
            return value
        return Path(os.path.normpath(self.folder / re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", self._variable, str(value))))

    def _variable(self, found: re.Match[str]) -> str:
        value = self.environment.get(found[1]) or found[2]
        if value is None:
            raise PydanticCustomError("E_ENV", f"{found[0]}: {found[1]} is not set; set it, or write ${{{found[1]}:-default}}")
        return value


class Strict(BaseModel):
    """Settings: frozen, no unknown keys, no conversions between types, no NaN or infinity; paths begin at the file's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _given_paths(cls, value: Any, info: ValidationInfo) -> Any:
        return info.context.path(value) if isinstance(info.context, _Place) else value

    @model_validator(mode="after")
    def _default_paths(self, info: ValidationInfo) -> Any:
        if isinstance(info.context, _Place):
            for name in type(self).model_fields.keys() - self.model_fields_set:
                self.__dict__[name] = info.context.path(self.__dict__[name])  # frozen for everybody else
        return self


class Kind(Strict):
    """One plug-in of a folder: `kind` is its file's name, the other keys are its own `Settings`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)
    kind: Name
    _origin: tuple[Document, Loc] | None = PrivateAttr(default=None)


class Gate(Strict):
    """The gate socket, and the timing of the line (PROTOCOL.md §1, I1 to I3 are checked here).

    `lanes` lists the ejector lanes. `count` says where parts come from: `frames` (each exposure is a part; the camera numbers its
    exposures), `conveyor` (a part sensor on this machine), `plc` (TRIG messages). `window_counts` is how far the encoder's position
    of a frame may lie from its part's.
    """

    bind: SocketAddress = "tcp://127.0.0.1:5562"
    profile: Literal["permit", "fire"] = "permit"
    count: Literal["frames", "conveyor", "plc"] = "frames"
    window_counts: int = Field(default=50, ge=0)
    travel_min_ms: int = Field(default=600, gt=0, le=600_000)
    actuator_ms: int = Field(default=40, ge=0)
    scan_ms: int = Field(default=10, ge=0)
    lease_ms: int = Field(default=300, gt=0)
    hb_ms: int = Field(default=100, gt=0)


class Events(Strict):
    """The events socket (PUB) and the replay socket (ROUTER)."""

    bind: SocketAddress = "tcp://127.0.0.1:5561"
    replay_bind: SocketAddress = "tcp://127.0.0.1:5563"


class Metrics(Strict):
    """Where each process shows its metrics; port 0 takes a free one."""

    gate_bind: HttpAddress = "127.0.0.1:9400"
    vision_bind: HttpAddress = "127.0.0.1:9401"


class Journal(Strict):
    """`required: stop` withdraws the permit 5 s after the journal is no longer durable, `degrade` only alarms."""

    required: Literal["stop", "degrade"] = "stop"
    keep_days: float = Field(default=30.0, gt=0)
    keep_mib: int = Field(default=2048, ge=16)
    ballast_mib: int = Field(default=64, ge=0)


class Archive(Strict):
    """Pictures kept: every reject, every n-th pass (0: none); oldest passes go first when `keep_mib` is reached."""

    rejects: bool = True
    every_nth_pass: int = Field(default=50, ge=0)
    keep_mib: int = Field(default=4096, ge=1)


class Desk(Strict):
    """The operator's page."""

    bind: HttpAddress = "127.0.0.1:8080"


class Ring(Strict):
    """How many pictures wait for a camera, and what happens when that is full."""

    slots: int = Field(default=4, ge=2, le=1024)
    when_full: Literal["drop_oldest", "drop_newest", "wait"] = "drop_oldest"


class Camera(Strict):
    """One camera: where its pictures come from, which recipe judges them, which ejector lane its parts are in."""

    id: Name
    lane: int = Field(default=0, ge=0, le=255)
    recipe: Name
    source: Kind
    ring: Ring = Ring()


class PartTemplate(Strict):
    """The drawing, and how it is looked for.

    `part` numbers the parts of a drawing that has several. `scale_px_per_mm` is known or a range to search (with a calibration it is
    known already); `perspective` where the view is oblique; below `least_score_ratio` the part was not found.
    """

    drawing: Path
    part: int = Field(default=0, ge=0)
    units: Literal["mm", "cm", "m", "inch", "foot"] | None = None
    mm_per_px: float | None = Field(default=None, gt=0)
    scale_px_per_mm: float | tuple[float, float] | None = None
    perspective: bool = False
    least_score_ratio: float = Field(default=0.6, gt=0, le=1)
    tolerance_mm: float | None = Field(default=None, gt=0)
    calibration: Path | None = None

    @field_validator("scale_px_per_mm")
    @classmethod
    def _scale(cls, scale: float | tuple[float, float] | None) -> float | tuple[float, float] | None:
        low, high = scale if isinstance(scale, tuple) else (scale, scale)
        if low is not None and high is not None and not 0 < low <= high:
            raise PydanticCustomError("E_CFG_RANGE", "a scale is above 0, and a range of scales goes from low to high")
        return scale


class RecipeSettings(Strict):
    """What is done with one camera's pictures: the template where there is one, and the checks (name → kind and its settings)."""

    template: PartTemplate | None = None
    checks: dict[Name, Kind] = Field(min_length=1)


class Vision(Strict):
    """`inspect_threads` threads judge batches of at most `batch` frames; each network runs on `network_threads` threads."""

    inspect_threads: int = Field(default=1, ge=1, le=64)
    batch: int = Field(default=4, ge=1, le=64)
    network_threads: int = Field(default=1, ge=1, le=64)


class Config(Strict):
    """The whole file."""

    version: Literal[1]
    site: Name
    line: Name
    station: Name
    state_dir: Path = Path("state")
    ready_file: Path | None = None
    conveyor: Kind = Kind(kind="timed")
    gate: Gate = Gate()
    events: Events = Events()
    metrics: Metrics = Metrics()
    journal: Journal = Journal()
    archive: Archive = Archive()
    desk: Desk = Desk()
    vision: Vision = Vision()
    cameras: list[Camera] = Field(min_length=1, max_length=64)
    recipes: dict[Name, RecipeSettings] = Field(min_length=1)
    bridges: dict[Name, Kind] = {}
    _document: Document | None = PrivateAttr(default=None)

    @property
    def file(self) -> str:
        """The file that these settings come from, as it was named; empty without one."""
        return self._document.file if self._document else ""

    def error(self, code: str, text: str, *loc: str | int) -> ConfigError:
        """An error that names the line where `loc` stands in the file."""
        return (self._document or Document("", {}, {})).error(code, text, loc)


# --- reading -----------------------------------------------------------------------------------------------------------


def read(path: Path, *, kinds: bool = False, environment: Mapping[str, str] = os.environ) -> Config:
    """The settings in the file at `path`. Raises `ConfigErrors` with all that is wrong, in the order of the file.

    With `kinds` the settings of every source, conveyor, check and bridge are read too, which imports them: not for the gate.
    """
    document = _compose(str(path), _text(path))
    _override(document, environment)
    place = _Place(Path(path).absolute().parent, environment)
    config = document.validated(Config, (), place)
    for loc, code, text in _clashes(document.data):
        document.refuse(code, text, loc)
    for folder, loc in _kinds(document.data):
        kind = _at(document.data, *loc, "kind")
        if not isinstance(kind, str) or loc in document.faulty:
            continue
        try:
            if kinds:
                document.validated(plugin(folder, kind).Settings, loc, place)
            else:
                _known_kind(folder, kind)
        except ConfigError as error:
            document.refuse(error.code, error.text, (*loc, "kind"))
    if config is None or document.errors:
        raise ConfigErrors(sorted(document.errors, key=lambda e: e.line or len(document.lines) * LARGEST_FILE_BYTES))
    config._document = document  # noqa: SLF001 (pydantic's way to a field that is no setting)
    for kind, loc in _kind_objects(config):
        kind._origin = (document, loc)  # noqa: SLF001
    return config


S = TypeVar("S", bound=BaseModel)


def settings_of(folder: str, kind: Kind, settings: type[S]) -> S:
    """The `Settings` of a kind of `folder`, checked like everything else, errors with file and line."""
    document, loc = kind._origin or (Document("", {folder: {"kind": kind.kind, **(kind.model_extra or {})}}, {}), (folder,))  # noqa: SLF001
    judged = Document(document.file, document.data, document.lines, overrides=document.overrides)
    found = judged.validated(settings, loc, _Place(Path(document.file).absolute().parent if document.file else Path(), os.environ))
    if found is None:
        raise ConfigErrors(judged.errors)
    return found


def read_settings(path: Path, settings: type[S]) -> S:
    """Settings that have a file of their own, checked like the configuration. Raises `ConfigErrors` with all that is wrong."""
    document = _compose(str(path), _text(path))
    found = document.validated(settings, (), _Place(Path(path).absolute().parent, os.environ))
    if found is None:
        raise ConfigErrors(document.errors)
    return found


def known_kinds(folder: str) -> tuple[str, ...]:
    """The kinds of a folder ("sources", "conveyor", "checks", "bridges"): its files, and what other packages bring by entry point."""
    files = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    ours = [f.name for f in files if not f.name.startswith("_")]
    return tuple(sorted({*ours, *(e.name for e in entry_points(group=f"inspector.{folder}"))}))


def plugin(folder: str, kind: str) -> ModuleType:
    """The module of a kind, with `Settings` and `build` inside. Raises `ConfigError` E_CFG_KIND."""
    _known_kind(folder, kind)
    theirs = next(iter(entry_points(group=f"inspector.{folder}", name=kind)), None)
    try:
        module = importlib.import_module(theirs.value if theirs else f"inspector.{folder}.{kind}")
    except ModuleNotFoundError as error:
        raise ConfigError("E_CFG_KIND", f"{kind} needs the module {error.name}, which is not installed here") from error
    if not (hasattr(module, "Settings") and hasattr(module, "build")):
        raise ConfigError("E_CFG_KIND", f"{module.__name__} is no kind: it has no Settings and build")
    return module


def timing_faults(*, travel_min_ms: float, actuator_ms: float, scan_ms: float, lease_ms: float, hb_ms: float) -> Iterator[tuple[str, str]]:
    """(key, text) for each of the invariants I1 to I3 of PROTOCOL.md §1 that these times break."""
    total, largest = lease_ms + scan_ms + actuator_ms, travel_min_ms - scan_ms - actuator_ms
    if total > travel_min_ms:
        legal = f"the largest legal lease_ms is {largest:g}" if largest > 0 else "no lease is legal, travel_min_ms must grow"
        sums = f"lease_ms {lease_ms:g} + scan_ms {scan_ms:g} + actuator_ms {actuator_ms:g} = {total:g}"
        yield "lease_ms", f"I1: {sums} is more than travel_min_ms {travel_min_ms:g}; {legal}"
    if hb_ms > lease_ms / 3:
        yield "hb_ms", f"I2: hb_ms {hb_ms:g} is more than lease_ms / 3 = {lease_ms / 3:.4g}; two heartbeats may be lost within a lease"
    if largest <= 2 * NET_MARGIN_MS:
        need = f"actuator_ms {actuator_ms:g} + scan_ms {scan_ms:g} + 2 × {NET_MARGIN_MS} for the network"
        yield "travel_min_ms", f"I3: {need} leaves no time to judge within travel_min_ms {travel_min_ms:g}"


NET_MARGIN_MS = 20


def _known_kind(folder: str, kind: str) -> None:
    if kind not in (known := known_kinds(folder)):
        raise ConfigError("E_CFG_KIND", f"{kind} is no kind of {folder}{_nearest(kind, known)}; known: {', '.join(known) or 'none'}")


def _kinds(data: Any) -> Iterator[tuple[str, Loc]]:
    """(folder, where) of each kind in a file, whatever else is wrong in it."""
    yield "conveyor", ("conveyor",)
    for i, _ in enumerate(_list(_at(data, "cameras"))):
        yield "sources", ("cameras", i, "source")
    for recipe in _dict(_at(data, "recipes")):
        for check in _dict(_at(data, "recipes", recipe, "checks")):
            yield "checks", ("recipes", recipe, "checks", check)
    for bridge in _dict(_at(data, "bridges")):
        yield "bridges", ("bridges", bridge)


def _kind_objects(config: Config) -> Iterator[tuple[Kind, Loc]]:
    yield config.conveyor, ("conveyor",)
    yield from ((c.source, ("cameras", i, "source")) for i, c in enumerate(config.cameras))
    for name, recipe in config.recipes.items():
        yield from ((check, ("recipes", name, "checks", key)) for key, check in recipe.checks.items())
    yield from ((bridge, ("bridges", name)) for name, bridge in config.bridges.items())


def _clashes(data: Any) -> Iterator[tuple[Loc, str, str]]:
    """(where, code, text) of what is wrong between settings that are each right; reads the raw data, so that one error hides no other."""
    times = {key: _at(data, "gate", key) if _at(data, "gate", key) is not None else default for key, default in _TIMES.items()}
    if all(type(t) in (int, float) for t in times.values()):
        yield from ((("gate", key), "E_TIMING", text) for key, text in timing_faults(**times))

    cameras = _list(_at(data, "cameras"))
    one_each = [("id",), ("source", "serial")]
    if _at(data, "gate", "count") in (None, "frames"):
        one_each.append(("lane",))
    for keys in one_each:
        seen: dict[Any, int] = {}
        for i, camera in enumerate(cameras):
            value = _at(camera, *keys, default=0 if keys == ("lane",) else None)
            if isinstance(value, (str, int)) and (first := seen.setdefault(value, i)) != i:
                why = "; with gate.count: frames each exposure is a part, so a lane has one camera" if keys == ("lane",) else ""
                yield ("cameras", i, *keys), "E_CFG_CLASH", f"{value} is taken by cameras[{first}]{why}"

    recipes = list(_dict(_at(data, "recipes")))
    for i, camera in enumerate(cameras):
        wanted = _at(camera, "recipe")
        if isinstance(wanted, str) and recipes and wanted not in recipes:
            yield ("cameras", i, "recipe"), "E_CFG_CLASH", f"no recipe {wanted}{_nearest(wanted, recipes)}; there is {', '.join(recipes)}"

    taken: dict[str, Loc] = {}
    addresses = [(loc, _at(data, *loc, default=default), _at(data, *loc) is not None) for loc, default in _ADDRESSES.items()]
    for loc, address, _ in sorted(addresses, key=lambda a: a[2]):  # defaults first: the blame is the file's
        port = str(address).rpartition(":")[2]
        if port.isdigit() and port != "0" and (other := taken.setdefault(port, loc)) != loc:
            yield loc, "E_BIND", f"port {port} is taken by {_spelt(other)}"


_TIMES: dict[str, Any] = {k: Gate.model_fields[k].default for k in ("travel_min_ms", "actuator_ms", "scan_ms", "lease_ms", "hb_ms")}
_ADDRESSES: dict[Loc, str] = {
    ("gate", "bind"): Gate().bind,
    ("events", "bind"): Events().bind,
    ("events", "replay_bind"): Events().replay_bind,
    ("metrics", "gate_bind"): Metrics().gate_bind,
    ("metrics", "vision_bind"): Metrics().vision_bind,
    ("desk", "bind"): Desk().bind,
}


# --- the file as plain values ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Document:
    """A file as plain values, the line of each of them, and what is wrong with it so far.

    `faulty` says where a value is known to be wrong already: one mistake gives one error. `overrides` names the variable of the
    environment that a value comes from.
    """

    file: str
    data: Any
    lines: dict[Loc, int]
    errors: list[ConfigError] = field(default_factory=list)
    faulty: set[Loc] = field(default_factory=set)
    overrides: dict[Loc, str] = field(default_factory=dict)

    def error(self, code: str, text: str, loc: Loc) -> ConfigError:
        """The error of the value at `loc`, with the line of the nearest that stands in the file."""
        for n in range(len(loc), -1, -1):
            if loc[:n] in self.overrides:
                return ConfigError("E_ENV", text, key=self.overrides[loc[:n]])
            if loc[:n] in self.lines:
                return ConfigError(code, text, file=self.file, line=self.lines[loc[:n]], key=_spelt(loc) or None)
        return ConfigError(code, text, file=self.file or None, key=_spelt(loc) or None)

    def refuse(self, code: str, text: str, loc: Loc) -> None:
        """Note that the value at `loc` is wrong, unless it is known to be."""
        if not any(loc[:n] in self.faulty for n in range(len(loc) + 1)):
            self.errors.append(self.error(code, text, loc))
            self.faulty.add(loc)

    def validated(self, model: type[S], loc: Loc, place: _Place) -> S | None:
        """The model that the values at `loc` make (without `kind`, where that is not the model's own), or None and errors noted."""
        raw = _at(self.data, *loc)
        if isinstance(raw, dict) and "kind" not in model.model_fields:
            raw = {key: value for key, value in raw.items() if key != "kind"}
        try:
            # Strict JSON knows lists, text and numbers only: a tuple, a path and a set are made from them, and nothing else is converted.
            return model.model_validate_json(json.dumps(raw), context=place)
        except ValidationError as error:
            for where, code, text in self._explained(error, model, loc):
                self.refuse(code, text, where)
            return None

    def _explained(self, error: ValidationError, model: type[BaseModel], loc: Loc) -> Iterator[tuple[Loc, str, str]]:
        """(where, code, text) of each mistake; the alternatives of a union that one value misses are one mistake."""
        mistakes: dict[Loc, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            where = (*loc, *detail["loc"])
            if detail["type"] != "missing":
                while where not in self.lines and len(where) > len(loc) and _at(self.data, *where) is None:
                    where = where[:-1]
            mistakes.setdefault(where, []).append(detail)
        for where, details in mistakes.items():
            shape: Any = model
            for step in where[len(loc) : -1]:
                shape = _below(shape, step)
            yield where, *_explain(details, str(where[-1]) if where else "", _fields(shape))


def _text(path: Path) -> str:
    """What the file says. UTF-8, a byte order mark is no harm; E_CFG_OPEN, _SIZE, _EMPTY, _ENCODING."""

    def refusal(code: str, text: str, line: int | None = None) -> ConfigErrors:
        return ConfigErrors([ConfigError(code, text, file=str(path), line=line)])

    try:
        if path.exists() and not path.is_file():
            raise refusal("E_CFG_OPEN", "a folder" if path.is_dir() else "not a plain file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise refusal("E_CFG_OPEN", f"{said} (as user {os.geteuid()})") from error
    if len(data) > LARGEST_FILE_BYTES:
        raise refusal("E_CFG_SIZE", f"more than {LARGEST_FILE_BYTES} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refusal("E_CFG_ENCODING", "UTF-16; allowed: UTF-8")
    if (at := data.find(b"\0")) >= 0:
        raise refusal("E_CFG_ENCODING", f"a NUL byte at byte {at}; allowed: UTF-8 text", data.count(b"\n", 0, at) + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refusal("E_CFG_ENCODING", f"byte 0x{data[error.start]:02x} at byte {error.start}; allowed: UTF-8", line) from error
    if not text.strip():
        raise refusal("E_CFG_EMPTY", "nothing in it")
    return text


def _compose(file: str, text: str) -> Document:
    """The one document in `text`. What stops the reading (syntax, depth) raises `ConfigErrors`; the rest is noted in the document."""
    document = Document(file, None, {(): 1})
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    def stop(code: str, said: str, line: int) -> ConfigErrors:
        document.errors.append(ConfigError(code, said, file=file, line=line))
        return ConfigErrors(sorted(document.errors, key=lambda e: e.line or 0))

    def node(event: Any, loc: Loc) -> Any:
        line = _line(event)
        document.lines.setdefault(loc, line)
        if len(loc) > DEEPEST:
            raise stop("E_CFG_DEPTH", f"more than {DEEPEST} levels", line)
        if isinstance(event, yaml.AliasEvent):
            raise stop("E_CFG_ALIAS", f"*{event.anchor}: aliases are not allowed; write the value out", line)
        if getattr(event, "tag", None) is not None:
            document.refuse("E_CFG_TAG", f"{event.tag.replace('tag:yaml.org,2002:', '!!')}: tags are not allowed", loc)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(following := next(events), yaml.SequenceEndEvent):
                items.append(node(following, (*loc, len(items))))
            return items
        if isinstance(event, yaml.MappingStartEvent):
            return mapping(loc)
        if event.implicit[0]:  # a plain scalar; quoted ones and blocks are text
            try:
                return _plain(event.value)
            except ConfigError as error:
                document.refuse(error.code, error.text, loc)
        return event.value

    def mapping(loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise stop("E_CFG_SYNTAX", "a key is plain text", line)
            key, where = event.value, (*loc, event.value)
            if key in found:
                text = f"{_spelt(where)}: stands here and in line {document.lines[where]}"
                document.errors.append(ConfigError("E_CFG_DUP", text, file=file, line=line))
                node(next(events), (*loc, f"{key} (again)"))
                continue
            document.lines[where] = line
            found[key] = node(next(events), where)
        return found

    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if document.data is not None:
                    raise stop("E_CFG_SYNTAX", "a second document begins; allowed: one", _line(event))
                document.data = node(next(events), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, (error.context, error.problem)))
        if mark and "\t" in "".join(text.split("\n")[mark.line : mark.line + 1]):
            said += "; there is a tab in this line: indent with spaces"
        raise stop("E_CFG_SYNTAX", f"column {mark.column + 1}: {said}" if mark else said, mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise stop("E_CFG_ENCODING", str(error).splitlines()[0], 1) from error
    if document.data is None:
        raise stop("E_CFG_EMPTY", "nothing in it", 1)
    return document


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _plain(text: str) -> Any:
    """The value of a plain scalar: YAML 1.2's core schema, and `ConfigError` for what readers disagree about or no number can be."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"(?i)yes|no|on|off|y|n", text):
        truth = "true" if text.lower() in ("yes", "on", "y") else "false"
        raise ConfigError("E_CFG_TYPE", f'{text}: some read {truth} here, some text; for text quote it: "{text}", else write {truth}')
    if re.fullmatch(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", text):
        raise ConfigError("E_CFG_TYPE", f'{text}: some read a number to base 60 here; expected a string: quote it: "{text}"')
    if re.fullmatch(r"[-+]?(0[0-9_]+|0[box][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*)(\.[0-9_]*)?", text):
        said = f'{text}: readers disagree about this number; for text quote it: "{text}", else write plain decimal digits'
        raise ConfigError("E_CFG_TYPE", said)
    if re.fullmatch(r"-0+(\.0*)?([eE][-+]?[0-9]+)?", text):
        raise ConfigError("E_CFG_NUMBER", f"{text}: write 0")
    if re.fullmatch(r"[-+]?[0-9]{1,30}", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        number = float(text)
    elif re.fullmatch(r"(?i)[-+]?\.inf|\.nan", text):
        number = float(text.replace(".", ""))
    else:
        return text
    if number - number != 0:
        raise ConfigError("E_CFG_NUMBER", f"{text}: expected a finite number")
    return number


def _override(document: Document, environment: Mapping[str, str]) -> None:
    """Puts what `INSPECTOR__SECTION__KEY` says in its place; E_ENV where there is none."""
    for name in sorted(n for n in environment if n.startswith("INSPECTOR__")):
        *sections, key = name.removeprefix("INSPECTOR__").lower().split("__")
        target = document.data
        for section in sections:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            document.errors.append(ConfigError("E_ENV", f"nothing can be set at {'.'.join(sections)}", key=name))
            continue
        loc = (*sections, key)
        document.overrides[loc] = name
        try:
            target[key] = _plain(environment[name])
        except ConfigError as error:
            document.refuse(error.code, error.text, loc)


# --- words -------------------------------------------------------------------------------------------------------------


def _explain(details: list[ErrorDetails], key: str, known: tuple[str, ...]) -> tuple[str, str]:
    """Code and text of one mistake: value seen, what is allowed, the nearest known."""
    first = details[0]
    kind, seen, context = first["type"], first["input"], first.get("ctx", {})
    if kind.startswith("E_"):
        return kind, first["msg"]
    if kind == "extra_forbidden":
        return "E_CFG_UNKNOWN", f"{key} is not known here{_nearest(key, known)}; known: {', '.join(known)}"
    if kind == "missing":
        return "E_CFG_MISSING", "must be given"
    if kind == "string_pattern_mismatch":
        return "E_CFG_NAME", f"{_seen(seen)}; allowed: {context['pattern']}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return "E_CFG_RANGE", f"{_seen(seen)}{_nearest(str(seen), choices)}; allowed: {context['expected'].replace(chr(39), '')}"
    if kind == "value_error":
        return "E_CFG_RANGE", first["msg"].removeprefix("Value error, ")
    if bound := next((b for b in ("gt", "ge", "lt", "le", "multiple_of") if b in context), None):
        sign = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}[bound]
        return "E_CFG_RANGE", f"{_seen(seen)}; allowed: {sign} {context[bound]:g}{_unit(key)}"
    if "actual_length" in context:
        sign, length = ("at least", "min_length") if "min_length" in context else ("at most", "max_length")
        return "E_CFG_RANGE", f"{context['actual_length']} entries; allowed: {sign} {context[length]}"
    expected = " or ".join(dict.fromkeys(_EXPECTED.get(d["type"], d["msg"]) for d in details))
    if any(d["type"] in ("float_type", "int_type", "finite_number") for d in details):
        code = "E_CFG_NUMBER" if isinstance(seen, (str, float)) else "E_CFG_TYPE"
        return code, f"{_seen(seen)}; expected {expected}{_unit(key)}, without quotes or unit"
    if kind == "string_type" and isinstance(seen, (bool, int, float)):
        return "E_CFG_TYPE", f'{_seen(seen)}; expected a string: quote it: "{_seen(seen)}"'
    return "E_CFG_TYPE", f"{_seen(seen)}; expected {expected}"


_EXPECTED = {
    "string_type": "a string",
    "path_type": "a path",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "none_required": "null",
}


def _unit(key: str) -> str:
    found = re.search(r"_((?:[a-z]+_per_)?(?:ns|us|ms|s|days|mm2|mm|px|deg|rad|counts|ratio|mib))$", key)
    return f" ({found[1].replace('_per_', '/')})" if found else ""


def _seen(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return "nothing" if value is None else text if len(text) <= 60 else text[:57] + "…"


def _nearest(name: str, known: Any) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _spelt(loc: Loc) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def _at(data: Any, *loc: str | int, default: Any = None) -> Any:
    """The value at `loc` of raw data, `default` where there is none."""
    for step in loc:
        here: Any = _dict(data) if isinstance(step, str) else dict(enumerate(_list(data)))
        if step not in here:
            return default
        data = here[step]
    return data


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _below(shape: Any, step: str | int) -> Any:
    """The type that stands at `step` of a type: a model's field, a list's item, a mapping's value, whichever of a union has it."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        return shape.model_fields[step].annotation if step in shape.model_fields else None
    inner = get_args(shape)
    if get_origin(shape) is dict:
        return inner[1]
    if get_origin(shape) in (list, tuple):
        return inner[0]
    return next((found for arg in inner if (found := _below(arg, step)) is not None), None)


def _fields(shape: Any) -> tuple[str, ...]:
    """The keys that a type allows."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        return tuple(shape.model_fields)
    return tuple(name for arg in get_args(shape) for name in _fields(arg))
