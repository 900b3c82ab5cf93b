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

import importlib
import ipaddress
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from inspector.config.document import Document, Loc, compose, list_of, mapping_of, nearest, override, spelt, text_of, value_at
from inspector.records import ConfigError, ConfigErrors, InspectorError

Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
"""Site, line, station, camera, recipe, check: what may stand in a topic."""


def _port(port: str) -> None:
    """Refuses ports that cannot be taken (E_BIND)."""
    if not (port.isascii() and port.isdigit()) or not (int(port) == 0 or 1024 <= int(port) <= 65535):
        raise PydanticCustomError("E_BIND", f"port {port or 'missing'}; allowed: 1024 to 65535, or 0 for a free one")


def _local(host: str) -> bool:
    """The address cannot be reached from other machines."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _socket_address(text: str) -> str:
    """`tcp://HOST:PORT`, or `ipc:///PATH`, which file permissions guard."""
    if (port := _port_of(text)) is not None:
        _port(port)
    return text


def _port_of(text: str) -> str | None:
    """What stands for the port; None in `ipc:///PATH`."""
    if re.fullmatch(r"ipc://(/|@).{1,100}", text):
        return None
    if not (found := re.fullmatch(r"tcp://(\[[^\]]+\]|[^:/]+):([^:/]*)", text)):
        raise PydanticCustomError("E_BIND", f"{text} is not an address; allowed: tcp://127.0.0.1:PORT or ipc:///PATH")
    return found[2]


def refuse_unreachable(text: str) -> None:
    """Raises `ValueError` for what is no address of a socket that somebody could listen at."""
    port = _port_of(text)
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text}: port {port or 'missing'}; allowed: 1 to 65535")


def _page_address(text: str) -> str:
    """`HOST:PORT`."""
    if not (found := re.fullmatch(r"(\[[^\]]+\]|[^:/]+):([^:/]*)", text)):
        raise PydanticCustomError("E_BIND", f"{text} is not an address; allowed: 127.0.0.1:PORT")
    _port(found[2])
    return text


def _http_address(text: str) -> str:
    """`HOST:PORT` of this machine only."""
    if not _local(host := _page_address(text).rpartition(":")[0]):
        raise PydanticCustomError(
            "E_SEC_BIND", f"{host} can be reached from other machines, and pages are served without TLS; bind to 127.0.0.1"
        )
    return text


def _time_of_day(text: str) -> str:
    """`HH:MM`."""
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise PydanticCustomError("E_CFG_RANGE", f"{text[:40]} is no time of day; allowed: 00:00 to 23:59, in quotes")
    return text


SocketAddress = Annotated[str, AfterValidator(_socket_address)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]
PageAddress = Annotated[str, AfterValidator(_page_address)]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
HostName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\])$")]


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
        if value is None and found[1] == "CREDENTIALS_DIRECTORY":
            raise PydanticCustomError("E_KEY_OPEN", f"{found[0]}: no credentials are given; the unit gives them with LoadCredential=")
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

    def about(self, error: ConfigError) -> ConfigError:
        """A refusal of what was built from these settings, with the line where they stand; its key is one of them."""
        document, loc = self._origin or (Document("", {}, {}), ())
        return document.about(error, loc, keyed=True)


class Gate(Strict):
    """The gate socket, and the timing of the line (PROTOCOL.md §1, I1 to I3 are checked here).

    `lanes` lists the ejector lanes. `count` says where parts come from: `frames` (each exposure is a part; the camera numbers its
    exposures), `conveyor` (a part sensor on this machine), `plc` (TRIG messages). `window_counts` is how far the encoder's position
    of a frame may lie from its part's; of parts that stand nearer to each other a frame shows none, and they are rejected. With
    `travel_counts`, the encoder's counts from trigger to ejector (or `travel_mm` and the encoder's `counts_per_mm`), a deadline holds in
    counts too, and a belt faster than `travel_min_ms` allows withholds the permit. With `durable_pass_ms` a PASS is sent only once it is
    kept on the disk, and so much of the time to judge is set aside for that.
    """

    bind: SocketAddress = "tcp://127.0.0.1:5562"
    profile: Literal["permit", "fire"] = "permit"
    count: Literal["frames", "conveyor", "plc"] = "frames"
    window_counts: int = Field(default=50, ge=0, le=2**31)
    travel_counts: int | None = Field(default=None, gt=0, le=2**31)
    travel_mm: float | None = Field(default=None, gt=0)
    counts_per_mm: float | None = Field(default=None, gt=0)
    travel_min_ms: int = Field(default=600, gt=0, le=600_000)
    actuator_ms: int = Field(default=40, ge=0, le=600_000)
    scan_ms: int = Field(default=10, ge=0, le=600_000)
    lease_ms: int = Field(default=300, gt=0, le=600_000)
    hb_ms: int = Field(default=100, gt=0, le=600_000)
    durable_pass_ms: int = Field(default=0, ge=0, le=600_000)


class Events(Strict):
    """The events socket (PUB) and the replay socket (ROUTER)."""

    bind: SocketAddress = "tcp://127.0.0.1:5561"
    replay_bind: SocketAddress = "tcp://127.0.0.1:5563"


class Security(Strict):
    """CURVE for the three sockets: the daemon's key pair (0600), and the list of clients (`inspector keys new` makes both).

    Without it no socket may be bound to an address that other machines can reach.
    """

    server_key: Path
    clients: Path


class Metrics(Strict):
    """Where each process shows its metrics; port 0 takes a free one."""

    gate_bind: HttpAddress = "127.0.0.1:9400"
    vision_bind: HttpAddress = "127.0.0.1:9401"


class Guards(Strict):
    """What a healthy line cannot look like; 0 turns a limit off. A reload changes them.

    `rejects_in_row`, or more than `reject_ratio` of the last `ratio_parts`: a stop of the line is asked for, and nothing passes until
    `inspector ctl reset`. `passes_in_row`: the same, where a line is known to make bad parts. `blind_in_row` pictures of a camera that show
    nothing: nothing passes until one does. `challenge_every_s`: so often a part that is known to be bad must have been found bad.
    """

    rejects_in_row: int = Field(default=0, ge=0, le=2**31)
    reject_ratio: float = Field(default=0.0, ge=0, lt=1)
    ratio_parts: int = Field(default=100, ge=2, le=100_000)
    passes_in_row: int = Field(default=0, ge=0, le=2**31)
    blind_in_row: int = Field(default=3, ge=0, le=2**31)
    challenge_every_s: float = Field(default=0.0, ge=0, le=31_536_000)


class Admin(Strict):
    """The Unix socket of `inspector ctl`, 0660; null: `ctl.sock` in the state folder. The service has /run/inspector for it."""

    socket: Path | None = None


class Journal(Strict):
    """`required: stop` withdraws the permit 5 s after the journal is no longer durable, `degrade` only alarms."""

    required: Literal["stop", "degrade"] = "stop"
    keep_days: float = Field(default=30.0, gt=0, le=36_500)
    keep_mib: int = Field(default=2048, ge=16, le=2**30)
    ballast_mib: int = Field(default=64, ge=0, le=2**20)


class Archive(Strict):
    """Pictures kept: every reject, every n-th pass (0: none); older than `keep_days` they go, and at `keep_mib` the oldest pass first."""

    rejects: bool = True
    every_nth_pass: int = Field(default=50, ge=0, le=2**31)
    keep_mib: int = Field(default=4096, ge=1, le=2**30)
    keep_days: float = Field(default=90.0, gt=0, le=36_500)


class Desk(Strict):
    """The operator's page.

    Without `users` whoever reaches it sees everything and can do nothing; beyond this machine it needs `users`, `tls_cert` and `tls_key`.
    `hosts` are the names under which a browser may call it. A session ends after `idle_min` without a click, and after `session_h`.
    """

    bind: PageAddress = "127.0.0.1:8080"
    hosts: list[HostName] = []
    users: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    idle_min: float = Field(default=30.0, gt=0, le=720)
    session_h: float = Field(default=12.0, gt=0, le=12)
    shifts: list[TimeOfDay] = Field(default=["06:00", "14:00", "22:00"], min_length=1, max_length=12)


class Ring(Strict):
    """How many pictures wait for a camera, and what happens when that is full."""

    slots: int = Field(default=4, ge=2, le=1024)
    when_full: Literal["drop_oldest", "drop_newest", "wait"] = "drop_oldest"


class Quality(Strict):
    """When a camera's pictures have drifted too far from those of the first `learn_parts` parts (0: none are learnt, nothing is said).

    Shares: of the focus lost, of the exposure and contrast changed, of the picture that is black or white besides, and that dirt covers.
    """

    learn_parts: int = Field(default=400, ge=0, le=100_000)
    focus_ratio: float = Field(default=0.2, gt=0, lt=1)
    exposure_ratio: float = Field(default=0.15, gt=0, lt=1)
    contrast_ratio: float = Field(default=0.2, gt=0, lt=1)
    saturated_ratio: float = Field(default=0.02, gt=0, lt=1)
    dirt_ratio: float = Field(default=0.00005, gt=0, lt=1)


class Camera(Strict):
    """One camera: where its pictures come from, which recipe judges them, which ejector lane its parts are in.

    `correction` is what `inspector calibrate --flat` has measured: pictures are evened out by it before they are judged, and kept raw.
    `isolated`: its driver runs in a process of its own, which may crash, hang or leak without harm to another camera.
    """

    id: Name
    lane: int = Field(default=0, ge=0, le=255)
    recipe: Name
    isolated: bool = False
    correction: Path | None = None
    source: Kind
    ring: Ring = Ring()
    quality: Quality = Quality()


class PartTemplate(Strict):
    """The drawing, and how it is looked for.

    `part` numbers the parts of a drawing that has several. `scale_px_per_mm` is known or a range to search (with a calibration it is
    known already); `perspective` where the view is oblique and no calibration says how: then sizes are known only by their
    ratios; below `least_score_ratio` the part was not found.
    """

    drawing: Path
    part: int = Field(default=0, ge=0, le=65_535)
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


class Judging(Strict):
    """What is done with one camera's pictures: the template where there is one, and the checks (name → kind and its settings)."""

    template: PartTemplate | None = None
    checks: dict[Name, Kind] = Field(min_length=1)


class RecipeSettings(Strict):
    """How one product is judged: as `Judging`, and otherwise by the `cameras` that see another side of it.

    `number` is what a PLC selects it by. `proof` is a folder of stored pictures (each with its record, as the archive keeps them) that must
    be judged as they were, `challenge` one of pictures that must be rejected, before the recipe may take over on a running line.
    """

    number: int | None = Field(default=None, ge=1, le=65_535)
    template: PartTemplate | None = None
    checks: dict[Name, Kind] = Field(min_length=1)
    cameras: dict[Name, Judging] = {}
    proof: Path | None = None
    challenge: Path | None = None


class Changeover(Strict):
    """How another recipe takes over while the line runs.

    `at_start`: the daemon begins with the recipes that were selected `last`, or with those that `cameras` say. A candidate that is not
    ready after `prepare_s` is given up; `keep_ready` of them stay in memory and take over at once. Of the first `watch_pictures` (0: none)
    that a new recipe judges at most `most_rejects` may be rejected or undecided, or the one before takes over again.
    """

    at_start: Literal["last", "configured"] = "last"
    prepare_s: float = Field(default=120.0, gt=0, le=3600)
    keep_ready: int = Field(default=8, ge=1, le=64)
    watch_pictures: int = Field(default=0, ge=0, le=100_000)
    most_rejects: int = Field(default=0, ge=0, le=100_000)


class Vision(Strict):
    """`inspect_threads` threads judge batches of at most `batch` frames; each network runs on `network_threads` threads (None: as
    `inspector model tune` found best for it, else one).
    """

    inspect_threads: int = Field(default=1, ge=1, le=64)
    batch: int = Field(default=4, ge=1, le=64)
    network_threads: int | None = Field(default=None, ge=1, le=64)


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
    guards: Guards = Guards()
    events: Events = Events()
    security: Security | None = None
    metrics: Metrics = Metrics()
    admin: Admin = Admin()
    journal: Journal = Journal()
    archive: Archive = Archive()
    desk: Desk = Desk()
    vision: Vision = Vision()
    cameras: list[Camera] = Field(min_length=1, max_length=64)
    recipes: dict[Name, RecipeSettings] = Field(min_length=1)
    changeover: Changeover = Changeover()
    bridges: dict[Name, Kind] = {}
    _document: Document | None = PrivateAttr(default=None)

    @property
    def file(self) -> str:
        """The file that these settings come from, as it was named; empty without one."""
        return self._document.file if self._document else ""

    def error(self, code: str, text: str, *loc: str | int) -> ConfigError:
        """An error that names the line where `loc` stands in the file."""
        return (self._document or Document("", {}, {})).error(code, text, loc)

    @contextmanager
    def blamed(self, *loc: str | int) -> Iterator[None]:
        """What is refused within is refused with the line of the setting at `loc`, which names what it is about."""
        try:
            yield
        except ConfigError as error:
            raise (self._document or Document("", {}, {})).about(error, loc) from error


# --- reading -----------------------------------------------------------------------------------------------------------


def read(path: Path, *, kinds: bool = False, environment: Mapping[str, str] = os.environ, text: str | None = None) -> Config:
    """The settings in the file at `path`. Raises `ConfigErrors` with all that is wrong, in the order of the file.

    With `text` that is what the file says, and it is not opened. With `kinds` the settings of every source, conveyor, check and bridge are
    read too, which imports them: not for the gate.
    """
    config, errors = read_partly(path, kinds=kinds, environment=environment, text=text)
    if config is None or errors:
        raise ConfigErrors(errors)
    return config


def read_partly(
    path: Path, *, kinds: bool = False, environment: Mapping[str, str] = os.environ, text: str | None = None
) -> tuple[Config | None, list[ConfigError]]:
    """As `read`, with all that is wrong, and then the settings without the sections that something is wrong in, None where that leaves
    no recipe: for who wants to know of the files too that they name. A camera that something is wrong in has a source of kind `UNREAD`.

    Raises `ConfigErrors` where there is nothing to read.
    """
    document = compose(str(path), text_of(path) if text is None else text)
    override(document, environment)
    place = _Place(Path(path).absolute().parent, environment)
    config = document.validated(Config, (), place)
    for loc, code, text in _clashes(document.data):
        document.refuse(code, text, loc)
    for folder, loc in _kinds(document.data):
        kind = value_at(document.data, *loc, "kind")
        if not isinstance(kind, str) or loc in document.faulty:
            continue
        try:
            if kinds:
                document.validated(plugin(folder, kind).Settings, loc, place)
            else:
                _known_kind(folder, kind)
        except ConfigError as error:
            document.refuse(error.code, error.text, (*loc, "kind"))
    errors = document.in_order()
    if config is None or errors:
        config = Document(document.file, _whole(document), document.lines, overrides=document.overrides).validated(Config, (), place)
    if config is None:
        return None, errors
    for recipe in config.recipes.values():
        for checks in (recipe.checks, *(side.checks for side in recipe.cameras.values())):
            checks.pop(UNREAD, None)
    config._document = document  # noqa: SLF001 (pydantic's way to a field that is no setting)
    for kind, loc in _kind_objects(config):
        if kind.kind == UNREAD or value_at(document.data, *loc) is None:
            continue  # a default, which stands nowhere and is shared
        kind._origin = (document, loc)  # noqa: SLF001
    return config, errors or ([*count_faults(config), *web_faults(config)] if kinds else [])


UNREAD = "unread"


def _whole(document: Document) -> dict[str, Any]:
    """What nothing is wrong in: sections, recipes (with the checks that are right, where the template is), cameras. Where a camera or all
    checks of a recipe are wrong, something of kind `UNREAD` stands in for them.
    """
    data = mapping_of(document.data)

    def whole(*loc: str | int) -> bool:
        return not any(all(a == b for a, b in zip(loc, wrong, strict=False)) for wrong in document.faulty)

    def right(loc: Loc, model: type[BaseModel]) -> dict[str, Any]:
        given = mapping_of(value_at(data, *loc))
        return {key: value for key, value in given.items() if key in model.model_fields and whole(*loc, key)}

    def judging(*loc: str | int) -> dict[str, Any]:
        checks = mapping_of(value_at(data, *loc, "checks"))
        return right(loc, Judging) | {"checks": {n: c for n, c in checks.items() if whole(*loc, "checks", n)} or {UNREAD: {"kind": UNREAD}}}

    recipes = {}
    for name in mapping_of(data.get("recipes")):
        first, *others = _judgings(data, name)
        if whole(*first, "template"):
            sides = {loc[-1]: judging(*loc) for loc in others if whole(*loc, "template")}
            recipes[name] = right(first, RecipeSettings) | judging(*first) | {"cameras": sides}
    cameras = []
    for i, camera in enumerate(list_of(data.get("cameras"))):
        wanted, known = value_at(camera, "recipe"), value_at(camera, "id") if whole("cameras", i, "id") else None
        kept = camera if whole("cameras", i) else {"id": known or f"{UNREAD}-{i}", "source": {"kind": UNREAD}}
        cameras.append({**kept, "recipe": wanted if isinstance(wanted, str) and wanted in recipes else next(iter(recipes), None)})
    names = dict.fromkeys(("site", "line", "station"), UNREAD)
    return {"version": 1, **names, **right((), Config), "recipes": recipes, "cameras": cameras}


def count_faults(config: Config) -> list[ConfigError]:
    """E_CFG_COUNT where what makes the parts does not count them: asking the kinds imports them, which is not for the gate.

    With `conveyor` a belt without part sensor (`HAS_SENSOR = False`) would have no part at all. With `frames` a camera that does not number
    its exposures (`NUMBERS_EXPOSURES = False`) would lose parts unknown, and the `permit` profile promises that there are none.
    """
    if config.gate.count == "conveyor" and not getattr(plugin("conveyor", config.conveyor.kind), "HAS_SENSOR", True):
        text = f"{config.conveyor.kind} has no part sensor; allowed: gate.count: plc or frames, or a conveyor with a sensor"
        return [config.error("E_CFG_COUNT", text, "gate", "count")]
    if (config.gate.profile, config.gate.count) != ("permit", "frames"):
        return []
    why = "does not number its exposures, and with gate.count: frames a lost one would be a part that nobody knows of"
    allowed = "allowed: gate.count: conveyor or plc, gate.profile: fire, or a camera that numbers them"
    return [
        config.error("E_CFG_COUNT", f"{camera.source.kind} {why}; {allowed}", "cameras", i, "source", "kind")
        for i, camera in enumerate(config.cameras)
        if not getattr(plugin("sources", camera.source.kind), "NUMBERS_EXPOSURES", True)
    ]


def web_faults(config: Config) -> list[ConfigError]:
    """E_CFG_WEB for each check that must know where on a web its pictures lie (`needs_web`), of a camera that does not (`GIVES_WEB`)."""
    found: list[ConfigError] = []
    for camera in config.cameras:
        recipe = config.recipes[camera.recipe]
        if getattr(plugin("sources", camera.source.kind), "GIVES_WEB", False):
            continue
        for kind in recipe.cameras.get(camera.id, recipe).checks.values():
            module = plugin("checks", kind.kind)
            needs = getattr(module, "needs_web", None)
            if needs is not None and (text := needs(settings_of("checks", kind, module.Settings))):
                seen = f"{kind.kind}, but camera {camera.id} ({camera.source.kind}) is no line-scan camera; allowed: source.kind: linescan"
                found.append(kind.about(ConfigError("E_CFG_WEB", f"{seen}, or {text}", key="kind")))
    return found


S = TypeVar("S", bound=BaseModel)


def settings_of(folder: str, kind: Kind, settings: type[S]) -> S:
    """The `Settings` of a kind of `folder`, checked like everything else, errors with file and line."""
    document, loc = kind._origin or (Document("", {folder: {"kind": kind.kind, **(kind.model_extra or {})}}, {}), (folder,))  # noqa: SLF001
    judged = Document(document.file, document.data, document.lines, overrides=document.overrides)
    found = judged.validated(settings, loc, _Place(Path(document.file).absolute().parent if document.file else Path(), os.environ))
    if found is None:
        raise ConfigErrors(judged.errors)
    for name in type(found).model_fields:
        if isinstance(within := getattr(found, name), Kind):
            within._origin = (document, (*loc, name))  # noqa: SLF001
    return found


def read_settings(path: Path, settings: type[S]) -> S:
    """Settings that have a file of their own, checked like the configuration. Raises `ConfigErrors` with all that is wrong."""
    document = compose(str(path), text_of(path))
    found = document.validated(settings, (), _Place(Path(path).absolute().parent, os.environ))
    if found is None:
        raise ConfigErrors(document.errors)
    return found


@cache
def known_kinds(folder: str) -> tuple[str, ...]:
    """The kinds of a folder ("sources", "conveyor", "checks", "bridges"): its files, and what other packages bring by entry point."""
    files = pkgutil.iter_modules([str(Path(__file__).parent.parent / folder)])
    ours = [f.name for f in files if not f.name.startswith("_")]
    return tuple(sorted({*ours, *(e.name for e in entry_points(group=f"inspector.{folder}"))}))


def plugin(folder: str, kind: str) -> ModuleType:
    """The module of a kind, with `Settings` and `build` inside. Raises `ConfigError` E_CFG_KIND."""
    _known_kind(folder, kind)
    place = _place_of(folder, kind)
    with _theirs(place, "loaded"):
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ConfigError("E_CFG_KIND", f"{kind} needs the module {error.name}, which is not installed here") from error
    if not (hasattr(module, "Settings") and hasattr(module, "build")):
        raise ConfigError("E_CFG_KIND", f"{module.__name__} is no kind: it has no Settings and build")
    return module


def build(folder: str, kind: Kind, *others: Any) -> Any:
    """What a kind makes of its settings. Raises what `built` does, with the line where they stand."""
    module = plugin(folder, kind.kind)
    settings = settings_of(folder, kind, module.Settings)
    try:
        return built(module, settings, *others)
    except ConfigError as error:
        raise kind.about(error) from error


def built(module: ModuleType, settings: Any, *others: Any) -> Any:
    """`module.build(settings, *others)`. What the code of another package fails with is refused as its own: `ConfigError` E_CFG_KIND."""
    with _theirs(module.__name__, "built"):
        return module.build(settings, *others)


@contextmanager
def _theirs(module: str, when: str) -> Iterator[None]:
    """What fails within is refused as the fault of a plug-in, where the module is one of another package."""
    try:
        yield
    except InspectorError:
        raise
    except Exception as error:
        if module.startswith("inspector."):
            raise
        raise ConfigError("E_CFG_KIND", f"the plug-in {module} failed while it was {when}: {type(error).__name__}: {error}") from error


@cache
def _place_of(folder: str, kind: str) -> str:
    """The module's name; looking it up reads what every installed package says of itself."""
    theirs = next(iter(entry_points(group=f"inspector.{folder}", name=kind)), None)
    return theirs.value if theirs else f"inspector.{folder}.{kind}"


def timing_faults(
    *, travel_min_ms: float, actuator_ms: float, scan_ms: float, lease_ms: float, hb_ms: float, fire: bool = False
) -> Iterator[tuple[str, str]]:
    """(key, text) for each of the invariants I1 to I3 of PROTOCOL.md §1 that these times break; with profile `fire` I3 counts the lease."""
    total, largest = lease_ms + scan_ms + actuator_ms, travel_min_ms - scan_ms - actuator_ms
    if total > travel_min_ms:
        legal = f"the largest legal lease_ms is {largest:g}" if largest > 0 else "no lease is legal, travel_min_ms must grow"
        sums = f"lease_ms {lease_ms:g} + scan_ms {scan_ms:g} + actuator_ms {actuator_ms:g} = {total:g}"
        yield "lease_ms", f"I1: {sums} is more than travel_min_ms {travel_min_ms:g}; {legal}"
    if hb_ms > lease_ms / 3:
        yield "hb_ms", f"I2: hb_ms {hb_ms:g} is more than lease_ms / 3 = {lease_ms / 3:.4g}; two heartbeats may be lost within a lease"
    if largest - (lease_ms if fire else 0) <= 2 * NET_MARGIN_MS:
        lease = f"lease_ms {lease_ms:g} (profile fire) + " if fire else ""
        need = f"{lease}actuator_ms {actuator_ms:g} + scan_ms {scan_ms:g} + 2 × {NET_MARGIN_MS} for the network"
        yield "travel_min_ms", f"I3: {need} leaves no time to judge within travel_min_ms {travel_min_ms:g}"


NET_MARGIN_MS = 20


def _known_kind(folder: str, kind: str) -> None:
    if kind not in (known := known_kinds(folder)):
        raise ConfigError("E_CFG_KIND", f"{kind} is no kind of {folder}{nearest(kind, known)}; known: {', '.join(known) or 'none'}")


def _kinds(data: Any) -> Iterator[tuple[str, Loc]]:
    """(folder, where) of each kind in a file, whatever else is wrong in it."""
    yield "conveyor", ("conveyor",)
    for i, _ in enumerate(list_of(value_at(data, "cameras"))):
        yield "sources", ("cameras", i, "source")
        if mapping_of(value_at(data, "cameras", i, "source", "lines")):  # a source that stacks the lines of another
            yield "sources", ("cameras", i, "source", "lines")
    for recipe in mapping_of(value_at(data, "recipes")):
        for where in _judgings(data, recipe):
            yield from (("checks", (*where, "checks", check)) for check in mapping_of(value_at(data, *where, "checks")))
    for bridge in mapping_of(value_at(data, "bridges")):
        yield "bridges", ("bridges", bridge)


def _judgings(data: Any, recipe: str) -> list[Loc]:
    """Where a recipe says what is done with pictures: for all cameras, and for some."""
    cameras = mapping_of(value_at(data, "recipes", recipe, "cameras"))
    return [("recipes", recipe), *(("recipes", recipe, "cameras", camera) for camera in cameras)]


def _kind_objects(config: Config) -> Iterator[tuple[Kind, Loc]]:
    yield config.conveyor, ("conveyor",)
    yield from ((c.source, ("cameras", i, "source")) for i, c in enumerate(config.cameras))
    for name, recipe in config.recipes.items():
        yield from ((check, ("recipes", name, "checks", key)) for key, check in recipe.checks.items())
        for camera, judging in recipe.cameras.items():
            yield from ((check, ("recipes", name, "cameras", camera, "checks", key)) for key, check in judging.checks.items())
    yield from ((bridge, ("bridges", name)) for name, bridge in config.bridges.items())


def _clashes(data: Any) -> Iterator[tuple[Loc, str, str]]:
    """(where, code, text) of what is wrong between settings that are each right; reads the raw data, so that one error hides no other."""
    times = {key: value_at(data, "gate", key) if value_at(data, "gate", key) is not None else default for key, default in _TIMES.items()}
    if all(type(t) in (int, float) for t in times.values()):
        fire = value_at(data, "gate", "profile") == "fire"
        yield from ((("gate", key), "E_TIMING", text) for key, text in timing_faults(**times, fire=fire))
        aside, left = value_at(data, "gate", "durable_pass_ms"), times["travel_min_ms"] - times["actuator_ms"] - times["scan_ms"]
        if type(aside) is int and aside > 0 and fire:
            yield ("gate", "durable_pass_ms"), "E_CFG_CLASH", "profile fire acts on rejects, which wait for nothing; 0 is allowed"
        elif type(aside) is int and 0 < left - 2 * NET_MARGIN_MS <= aside:
            text = f"{aside} ms for the disk leave no time to judge; less than {left - 2 * NET_MARGIN_MS:g} is allowed"
            yield ("gate", "durable_pass_ms"), "E_TIMING", text

    counts, *in_mm = (value_at(data, "gate", key) is not None for key in ("travel_counts", "travel_mm", "counts_per_mm"))
    if counts and any(in_mm):
        yield ("gate", "travel_counts"), "E_CFG_CLASH", "travel_counts, or travel_mm with counts_per_mm, but not both"
    elif any(in_mm) and not all(in_mm):
        given, missing = ("travel_mm", "counts_per_mm") if in_mm[0] else ("counts_per_mm", "travel_mm")
        yield ("gate", given), "E_CFG_CLASH", f"needs {missing} too: together they are the counts from trigger to ejector"

    if value_at(data, "security") is None:
        for where in (("gate", "bind"), ("events", "bind"), ("events", "replay_bind")):
            found = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:/]+):.*", str(value_at(data, *where) or ""))
            if found and not _local(found[1]):
                why = "and without CURVE keys anybody there could read or answer for the gate"
                yield where, "E_SEC_BIND", f"{found[1]} can be reached from other machines, {why}; bind to 127.0.0.1, or set security:"

    said = {key for key in ("users", "tls_cert", "tls_key") if value_at(data, "desk", key) is not None}
    page = re.fullmatch(r"(\[[^\]]+\]|[^:/]+):[^:/]*", str(value_at(data, "desk", "bind") or ""))
    if page and not _local(page[1]) and (lacking := sorted({"users", "tls_cert", "tls_key"} - said)):
        text = f"{page[1]} can be reached from other machines; set {', '.join(lacking)} too, or bind to 127.0.0.1"
        yield ("desk", "bind"), "E_SEC_BIND", text
    elif len(said & {"tls_cert", "tls_key"}) == 1:
        (alone,) = said & {"tls_cert", "tls_key"}
        yield ("desk", alone), "E_CFG_CLASH", f"needs {'tls_key' if alone == 'tls_cert' else 'tls_cert'} too"

    cameras = list_of(value_at(data, "cameras"))
    one_each = [("id",), ("source", "serial")]
    if value_at(data, "gate", "count") in (None, "frames"):
        one_each.append(("lane",))
    for keys in one_each:
        seen: dict[Any, int] = {}
        for i, camera in enumerate(cameras):
            value = value_at(camera, *keys, default=0 if keys == ("lane",) else None)
            if isinstance(value, (str, int)) and (first := seen.setdefault(value, i)) != i:
                why = "; with gate.count: frames each exposure is a part, so a lane has one camera" if keys == ("lane",) else ""
                yield ("cameras", i, *keys), "E_CFG_CLASH", f"{value} is taken by cameras[{first}]{why}"

    recipes = list(mapping_of(value_at(data, "recipes")))
    for i, camera in enumerate(cameras):
        wanted = value_at(camera, "recipe")
        if isinstance(wanted, str) and recipes and wanted not in recipes:
            yield ("cameras", i, "recipe"), "E_CFG_CLASH", f"no recipe {wanted}{nearest(wanted, recipes)}; there is {', '.join(recipes)}"

    numbers: dict[int, str] = {}
    known = [camera["id"] for camera in cameras if isinstance(value_at(camera, "id"), str)]
    for recipe in recipes:
        number = value_at(data, "recipes", recipe, "number")
        if type(number) is int and (other := numbers.setdefault(number, recipe)) != recipe:
            yield ("recipes", recipe, "number"), "E_CFG_CLASH", f"{number} is recipe {other}'s"
        for name in mapping_of(value_at(data, "recipes", recipe, "cameras")):
            if known and name not in known:
                there = f"there is {', '.join(known)}"
                yield ("recipes", recipe, "cameras", name), "E_CFG_CLASH", f"no camera {name}{nearest(name, known)}; {there}"

    taken: dict[str, Loc] = {}
    addresses = [(loc, value_at(data, *loc, default=default), value_at(data, *loc) is not None) for loc, default in _ADDRESSES.items()]
    for loc, address, _ in sorted(addresses, key=lambda a: a[2]):  # defaults first: the blame is the file's
        port = str(address).rpartition(":")[2]
        if port.isdigit() and port != "0" and (holder := taken.setdefault(port, loc)) != loc:
            yield loc, "E_BIND", f"port {port} is taken by {spelt(holder)}"


_TIMES: dict[str, Any] = {k: Gate.model_fields[k].default for k in ("travel_min_ms", "actuator_ms", "scan_ms", "lease_ms", "hb_ms")}
_ADDRESSES: dict[Loc, str] = {
    ("gate", "bind"): Gate().bind,
    ("events", "bind"): Events().bind,
    ("events", "replay_bind"): Events().replay_bind,
    ("metrics", "gate_bind"): Metrics().gate_bind,
    ("metrics", "vision_bind"): Metrics().vision_bind,
    ("desk", "bind"): Desk().bind,
}
