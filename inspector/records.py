"""Every record that flows, in the order in which it is made.

Units end the names: `_mm _px _rad _ns _ms _s _counts _ratio`. Arrays are (rows, columns) and read-only; points are (x, y).
A drawing has y up, a picture has y down; pixel centres are at whole numbers. Clocks: `at_ns` is monotonic (one clock for all
processes of a machine), `_counts` is the encoder, `_utc_ns` only labels.

What is made for every frame is a named tuple, which takes a third of the time of a frozen data class.
This module names array types under TYPE_CHECKING only: the gate imports it and loads neither NumPy nor OpenCV.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Bytes1D: TypeAlias = NDArray[np.uint8]
    Image: TypeAlias = NDArray[np.uint8]
    Floats: TypeAlias = NDArray[np.float64]
    Check: TypeAlias = Callable[[Sequence["View"]], Sequence[tuple["Finding", ...]]]
else:  # names without arrays behind them, for modules that import them beside the records
    Bytes1D = Image = Floats = Check = Any


def without_login(text: str) -> str:
    """The text with `***` for the user and the password in each URL of it."""
    return re.sub(r"(?<=://)\S*@", "***@", text)


class InspectorError(Exception):
    """The root of our own errors. The text is for the person who must act; it never needs a traceback."""


class ConfigError(InspectorError):
    """A person must change something: a setting, a drawing, a model, a calibration. Exit code 78, no restart.

    `code` is the stable name of the error (E_CFG_UNKNOWN, E_DXF_OPEN, …); the text reads
    `code file:line: key: what was seen; what is allowed`.
    """

    def __init__(self, code: str, text: str, *, file: str | None = None, line: int | None = None, key: str | None = None) -> None:
        text = without_login(text)
        self.code, self.text, self.file, self.line, self.key = code, text, file, line, key
        where = "" if file is None else f" {file}" if line is None else f" {file}:{line}"
        super().__init__(f"{code}{where}: {key}: {text}" if key else f"{code}{where}: {text}")

    def __reduce__(self) -> tuple[Any, ...]:
        """How another process is told of it: by all that it was made of."""
        return partial(type(self), file=self.file, line=self.line, key=self.key), (self.code, self.text)

    @property
    def errors(self) -> tuple[ConfigError, ...]:
        """Each one, where there are several."""
        return (self,)

    @property
    def said(self) -> str:
        """All but the code."""
        return str(self).removeprefix(self.code).lstrip(": ")

    def of(self, key: str) -> ConfigErrors:
        """The same as refusals of the setting `key`; the file and key that they named are a part of the text."""
        return ConfigErrors([ConfigError(each.code, each.said, key=key) for each in self.errors])


class ConfigErrors(ConfigError):
    """Several `ConfigError`s at once: everything that is wrong with one input, in its order."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self._errors = tuple(errors)
        first = self._errors[0]
        super().__init__(first.code, first.text, file=first.file, line=first.line, key=first.key)
        self.args = ("\n".join(str(e) for e in self._errors),)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._errors,)

    @property
    def errors(self) -> tuple[ConfigError, ...]:
        """Each of them."""
        return self._errors


class DeviceError(InspectorError):
    """A device did not do what it should: retry with back-off. The text names the device and what it said."""


# --- the drawing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contour:
    """One closed outline of the drawing, flattened; the last point is not the first again.

    `kind` is "outer", "hole" or "island"; outer contours and islands run counter-clockwise (y up), holes clockwise.
    `name` is how findings call it: "outer", "hole-3". Tolerance of the real edge: `inward_mm` ≤ 0 ≤ `outward_mm`, measured
    along the outward normal of the *material* (positive: too much material). `circle` is (x, y, radius) where the drawing says circle.
    """

    name: str
    kind: str
    layer: str
    points_mm: Floats
    closed: bool
    inward_mm: float
    outward_mm: float
    circle: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance that is asked for `between` two ends, each the name of a hole, whose middle counts, or a place (x, y) mm on an edge.

    It may be `minus_mm` (≤ 0) shorter and `plus_mm` longer than in the drawing.
    """

    name: str
    between: tuple[str | tuple[float, float], str | tuple[float, float]]
    minus_mm: float
    plus_mm: float


@dataclass(frozen=True, slots=True)
class Template:
    """What one drawing says of one part, on a raster of `mm_per_px` for who needs pictures.

    Raster pixel (column u, row v) has its centre at the drawing point x = origin_mm[0] + u·mm_per_px, y = origin_mm[1] − v·mm_per_px.
    `sdf_mm` float32 (H, W): distance to the nearest contour, inside the material < 0. `zone` uint8 (H, W): 0 outside and ignored,
    1… a zone of the surface (index into `zones`). `datum` names the contours that fix the pose (none: all of them).
    """

    name: str
    digest: str
    mm_per_px: float
    origin_mm: tuple[float, float]
    contours: tuple[Contour, ...]
    sdf_mm: NDArray[np.float32]
    zone: NDArray[np.uint8]
    zones: tuple[str, ...] = ("", "surface")
    datum: tuple[str, ...] = ()
    distances: tuple[Distance, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """How one camera sees the plane of the parts. `camera_matrix` (3, 3) and `distortion` (k,) as in OpenCV, or None for none.

    `mm_per_px` holds at the middle of the undistorted picture. `shape_px` (rows, columns) is that of the pictures it is good for.
    `homography` (9 numbers, row-major, undistorted pixel → plane mm) is set where the camera looks at the plane at a slant; its pictures
    are turned to the front before anything is measured in them.
    """

    camera: str
    mm_per_px: float
    camera_matrix: Floats | None
    distortion: Floats | None
    rms_px: float
    taken_utc_ns: int
    shape_px: tuple[int, int] | None = None
    homography: tuple[float, ...] | None = None


# --- one exposure ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trigger:
    """The part sensor fired: part number `part_seq` (1, 2, …) of ejector lane `lane` at the encoder's `at_counts`."""

    part_seq: int
    lane: int
    at_ns: int
    at_counts: int


class Web(NamedTuple):
    """Which stretch of an endless web a picture shows: row r is `start_mm` + r · `mm_per_row` along it, column c at c · `mm_per_column`.

    The part is the rows from `first_row` to before `end_row`; the rows around them are its neighbours', shown so that nothing is cut.
    """

    start_mm: float
    mm_per_row: float
    mm_per_column: float
    first_row: int
    end_row: int

    def place(self, x_px: float, y_px: float) -> tuple[float, float]:
        """Where a pixel is: mm across and mm along the web."""
        return x_px * self.mm_per_column, self.start_mm + y_px * self.mm_per_row


class Stamp(NamedTuple):
    """Where and when one exposure was made. (`camera`, `seq`) is its name until the ledger has found its part.

    `seq` is the camera's own exposure number, made gapless by the source (wraps undone): a jump is lost exposures.
    `at_ns` is the exposure (monotonic); `at_counts` the encoder then, None without one. `shape` is (H, W) or (H, W, 3).
    `uid` is the part's own identity where the source knows it (a code, a file's stem), else None. `web` where it is a length of one.
    """

    camera: str
    seq: int
    at_ns: int
    at_counts: int | None
    shape: tuple[int, ...]
    complete: bool = True
    uid: str | None = None
    web: Web | None = None


class Frame(NamedTuple):
    """One exposure's picture, lent by the ring: uint8 of `stamp.shape`, read-only, C-contiguous, good until given back."""

    stamp: Stamp
    image: Image


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the drawing lies in the picture.

    The drawing point (X, Y) in mm is seen at u = x_px + s (X cos a − Y sin a), v = y_px − s (X sin a + Y cos a), with
    s = `scale_px_per_mm` and a = `angle_rad` (counter-clockwise as seen). `score_ratio` 0…1: share of the contour seen where
    predicted. `residual_mm`: robust spread of the edge about the drawing. `ambiguous`: another pose fits as well.
    `homography` (9 numbers, row-major, drawing mm → pixel) is set where the view is oblique, and then holds instead.
    """

    x_px: float
    y_px: float
    angle_rad: float
    scale_px_per_mm: float
    score_ratio: float
    residual_mm: float
    ambiguous: bool = False
    homography: tuple[float, ...] | None = None


class View(NamedTuple):
    """A frame with its drawing laid over it: what a check is given.

    `image` is the picture on the template's raster (H, W[, 3]), or the frame's own where the plan has no template or no check
    asks for it (`NEEDS_RASTER`). Gauges read `frame.image` with `pose`, sub-pixel. `gauged` carries what locating has measured
    along the contours already, so that no check measures it twice; its type is the geometry's.
    """

    frame: Frame
    pose: Pose | None
    template: Template | None
    image: Image
    gauged: Any = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A defect's place: `bbox_px` (x, y, w, h) in the picture that was judged, straightened where `Plan` says so, area on the part, score
    against its threshold.
    """

    class_name: str
    score: float
    threshold: float
    bbox_px: tuple[float, float, float, float]
    area_mm2: float | None = None


class Finding(NamedTuple):
    """One number against its limits, with a unit: a deviation, a count, a defect's area, an anomaly score.

    `low` and `high` are inclusive; None is open. `at_mm` is the place in the drawing, or None.
    """

    check: str
    feature: str
    value: float
    low: float | None
    high: float | None
    unit: str
    at_mm: tuple[float, float] | None = None
    evidence: Evidence | None = None

    @property
    def ok(self) -> bool:
        """Finite and within; NaN and infinity are not ok."""
        if not math.isfinite(self.value):
            return False
        return bool((self.low is None or self.low <= self.value) and (self.high is None or self.value <= self.high))


# --- what to do with it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with the frames of one camera.

    `locator` finds the template (None: the whole picture is judged as it is); its type is the geometry's. `checks` are
    (name, check) in the order of the configuration; `raster` says whether any of them reads the part on the template's raster.
    `correct` evens out what the camera's pixels show of an even grey (None: they are good as they are), before all else.
    `straighten` takes a picture to what a lens without distortion would have shown straight on (None: as it does); all is then judged,
    and every px of pose, findings and evidence is, in the straightened picture. Its type is the geometry's.
    `load_model` is there while checks are built: (path, threads=, task=) → the network, loaded once for all recipes.
    `recipe` and `number` are the names of the recipe that this is a part of, `digest` covers what this plan alone depends on.
    """

    camera: str
    template: Template | None
    locator: Any
    calibration: Calibration | None
    checks: tuple[tuple[str, Check], ...]
    raster: bool
    least_score_ratio: float = 0.6
    load_model: Any = None
    straighten: Any = None
    correct: Callable[[Image], Image] | None = None
    recipe: str = ""
    number: int | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a verdict depends on, swapped whole. `digest` covers settings, drawings, calibrations and model files.

    `models` is (name, sha256 hex) of each model in use. `reasons` lists the reject classes; code 100 + index on the wire.
    """

    digest: str
    plans: Mapping[str, Plan]
    models: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]


class Decision(Enum):
    """What vision says of one exposure."""

    PASS = "pass"
    FAIL = "fail"
    UNJUDGED = "unjudged"


class Inspection(NamedTuple):
    """The judgement of one exposure. `reason` is a `Reason` code (0 with PASS); `spent_ns` by stage: locate, view, each check."""

    stamp: Stamp
    decision: Decision
    reason: int
    reason_text: str
    findings: tuple[Finding, ...]
    pose: Pose | None
    recipe: str
    spent_ns: Mapping[str, int]


# --- the promise -------------------------------------------------------------------------------------------------------


class Verdict(IntEnum):
    """The verdict byte of INSP/1: anything but PASS is a reject, and every reject differs from PASS in at least five bits."""

    PASS = 0x5A
    REJECT_DEFECT = 0xA1
    REJECT_NOT_INSPECTED = 0xA2
    REJECT_UNDECIDABLE = 0xA4
    REJECT_COMMANDED = 0xA8


class Reason(IntEnum):
    """The reason code of INSP/1. 100 to 199 are the reject classes of the recipe (`Recipe.reasons`)."""

    NONE = 0
    FRAME_LOST = 201
    FRAME_INCOMPLETE = 202
    CAMERA_DOWN = 203
    INFER_TIMEOUT = 204
    INFER_ERROR = 205
    QUEUE_OVERFLOW = 206
    MODEL_NOT_READY = 207
    DEADLINE = 208
    STAGE_DEAD = 209
    TRIGGER_MISMATCH = 210
    IMAGE_QUALITY = 211
    DRAINING = 212
    CONFIG_SWAP = 213
    CLOCK_FAULT = 214
    NON_FINITE = 215
    STARTUP = 216
    GREY_BAND = 301
    OUT_OF_DISTRIBUTION = 302
    CAMERAS_DISAGREE = 303
    CHALLENGE = 401
    PURGE = 402


FIRST_CLASS_REASON = 100
LAST_CLASS_REASON = 199


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a stream: `seq` is contiguous within (epoch, stream)."""

    epoch: str
    stream: str
    seq: int
    at_utc_ns: int
    body: Mapping[str, Any]
