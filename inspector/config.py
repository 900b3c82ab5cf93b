"""YAML → frozen settings. Refuses what it does not know and names the nearest; says file, line, key, value seen, what is allowed.

`Config` is the whole file, `read(path)` the way to it. The settings of a kind (`source:`, `conveyor:`, a check) stay a `Kind` here (its
name and its raw mapping with the lines), and are read by `settings_of`, because only the process that uses a kind may import it:
the gate reads this file and loads neither NumPy nor OpenCV.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
"""Site, line, station, camera, recipe, check: what may stand in a topic."""


class Strict(BaseModel):
    """Settings: frozen, no unknown keys, no conversions between types, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Kind(Strict):
    """One plug-in of a folder: `kind` is its file's name, the other keys are its own `Settings`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)
    kind: Name


class Gate(Strict):
    """The gate socket, and the timing of the line (PROTOCOL.md §1, I1 to I3 are checked here).

    `lanes` lists the ejector lanes. `count` says where parts come from: `frames` (each exposure is a part; the camera numbers its
    exposures), `conveyor` (a part sensor on this machine), `plc` (TRIG messages). `window_counts` is how far the encoder's position
    of a frame may lie from its part's.
    """

    bind: str = "tcp://127.0.0.1:5562"
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

    bind: str = "tcp://127.0.0.1:5561"
    replay_bind: str = "tcp://127.0.0.1:5563"


class Metrics(Strict):
    """Where each process shows its metrics; port 0 takes a free one."""

    gate_bind: str = "127.0.0.1:9400"
    vision_bind: str = "127.0.0.1:9401"


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

    bind: str = "127.0.0.1:8080"


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
    """The drawing, and how it is looked for. `scale_px_per_mm` is known or a range to search; `least_score_ratio` says what is found."""

    drawing: Path
    units: Literal["mm", "cm", "m", "inch", "foot"] | None = None
    mm_per_px: float | None = Field(default=None, gt=0)
    scale_px_per_mm: float | tuple[float, float] | None = None
    perspective: bool = False
    least_score_ratio: float = Field(default=0.6, gt=0, le=1)
    tolerance_mm: float | None = Field(default=None, gt=0)
    calibration: Path | None = None


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


def read(path: Path) -> Config:
    """The settings in the file at `path`; relative paths in it are relative to its folder. Raises `ConfigErrors` with all that is wrong."""
    raise NotImplementedError


def settings_of(folder: str, kind: Kind, settings: type[Any]) -> Any:
    """The `Settings` of a kind, checked like everything else, errors with file and line."""
    raise NotImplementedError
