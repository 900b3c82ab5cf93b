"""How a camera sees the plane of the parts: from pictures of a board or of the part itself, to a YAML file and back, and its use on pixels.

Lens: OpenCV's model, u = c + f·x·(1 + k₁r² + …), with the camera matrix of the undistorted picture the same as that of the raw one.
Plane: the first picture's board (or part) lies where the parts lie; `mm_per_px` is the scale at the middle of the picture.

A board in one or two pictures, and a part, fix the scale and one number of the lens (k₁, about the middle of the picture, with the focal
length set to the longer side: only k₁/f² can be seen in a plane); a board in three or more tilted pictures fixes the whole camera.

Errors (`ConfigError`): E_CAL_FILE, E_CAL_FORMAT the file · E_CAL_SCALE, E_CAL_MATRIX, E_CAL_LENS, E_CAL_SIZE, E_CAL_AGE what it says ·
E_CAL_BOARD, E_CAL_PART, E_CAL_FIT the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import numpy as np
import yaml
from pydantic import Field, ValidationError

from inspector.config import Strict
from inspector.geometry import locate, raster
from inspector.records import Calibration, ConfigError, ConfigErrors, Floats, Image, Pose, Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAY_NS = 86_400 * 10**9
LENS_NUMBERS = (4, 5, 8, 12, 14)
"""How many coefficients OpenCV's lens models have."""

MOST_RMS_PX = 1.0
_CURE_BOARD = (
    "Lay the board on something flat and rigid, count its inner corners and measure a square again, "
    "leave out pictures that are blurred or in which the board moved, and take three or more with the board tilted to different sides"
)
_CURE_PART = (
    "Take a part that measures true to its drawing, flat and without burrs, all of it in focus and in the picture; "
    "name the scale with --scale-range, and give --perspective where the camera looks at a slant and only there"
)
MOST_FOCAL_DOUBT = 0.02
_WHOLE_CAMERA = cv2.CALIB_USE_INTRINSIC_GUESS | cv2.CALIB_FIX_K3
_ONE_NUMBER = _WHOLE_CAMERA | cv2.CALIB_FIX_K2 | cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_FOCAL_LENGTH | cv2.CALIB_FIX_PRINCIPAL_POINT
SLANT_RATIO = 1e-3
"""A plane whose scale differs less over the picture is seen straight on."""

Row = Annotated[list[float], Field(min_length=3, max_length=3)]
Side = Annotated[int, Field(gt=0, le=65_535)]


class File(Strict):
    """The calibration file. Written by `inspector calibrate`; a person may set `max_age_days`."""

    version: Literal[1]
    camera: str
    method: str
    shape_px: Annotated[list[Side], Field(min_length=2, max_length=2)]
    mm_per_px: float
    camera_matrix: Annotated[list[Row], Field(min_length=3, max_length=3)] | None = None
    distortion: list[float] | None = None
    homography: Annotated[list[float], Field(min_length=9, max_length=9)] | None = None
    rms_px: float = Field(ge=0)
    taken_utc_ns: int = Field(gt=0)
    max_age_days: float | None = Field(default=None, gt=0)


def read(path: Path, *, shape_px: tuple[int, int] | None = None, now_utc_ns: int | None = None) -> Calibration:
    """The calibration in a file, refused where it cannot be one: E_CAL_….

    `shape_px` (rows, columns) of the camera's pictures and the time are held against it where they are given.
    """
    try:
        said = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError("E_CAL_FILE", f"cannot be read: {error.strerror}", file=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else None
        raise ConfigError("E_CAL_FORMAT", "not YAML", file=str(path), line=line) from error
    try:
        file = File.model_validate(said)
    except ValidationError as refused:
        raise ConfigErrors([_refusal(path, e["loc"], e["msg"], e["input"]) for e in refused.errors()]) from refused
    errors = [ConfigError(code, text, file=str(path), key=key) for code, key, text in _doubts(file)]
    if now_utc_ns is not None and file.max_age_days is not None and now_utc_ns - file.taken_utc_ns > file.max_age_days * DAY_NS:
        age = (now_utc_ns - file.taken_utc_ns) / DAY_NS
        errors.append(ConfigError("E_CAL_AGE", f"{age:.1f} days old; at most {file.max_age_days:g}", file=str(path), key="taken_utc_ns"))
    if errors:
        raise ConfigErrors(errors)
    calibration = Calibration(
        camera=file.camera,
        mm_per_px=file.mm_per_px,
        camera_matrix=None if file.camera_matrix is None else _frozen(file.camera_matrix),
        distortion=None if file.distortion is None else _frozen(file.distortion),
        rms_px=file.rms_px,
        taken_utc_ns=file.taken_utc_ns,
        shape_px=(file.shape_px[0], file.shape_px[1]),
        homography=None if file.homography is None else tuple(file.homography),
    )
    if shape_px is not None:
        fits(calibration, shape_px, file=str(path))
    return calibration


def fits(calibration: Calibration, shape: tuple[int, ...], *, file: str | None = None) -> None:
    """Refuses (E_CAL_SIZE) pictures of another shape (rows, columns[, channels]) than those that the calibration is good for."""
    if calibration.shape_px is not None and calibration.shape_px != tuple(shape[:2]):
        seen, good = (f"{columns} × {rows}" for rows, columns in (shape[:2], calibration.shape_px))
        text = f"the pictures of camera {calibration.camera} are {seen} px, the calibration is for {good} px; calibrate again"
        raise ConfigError("E_CAL_SIZE", text, file=file, key="shape_px")


def write(calibration: Calibration, path: Path, method: str, *, max_age_days: float | None = None) -> None:
    """The calibration as a file that `read` reads."""
    rows, columns = calibration.shape_px or (0, 0)
    said = File(
        version=1,
        camera=calibration.camera,
        method=method,
        shape_px=[rows, columns],
        mm_per_px=calibration.mm_per_px,
        camera_matrix=None if calibration.camera_matrix is None else calibration.camera_matrix.tolist(),
        distortion=None if calibration.distortion is None else calibration.distortion.tolist(),
        homography=None if calibration.homography is None else list(calibration.homography),
        rms_px=calibration.rms_px,
        taken_utc_ns=calibration.taken_utc_ns,
        max_age_days=max_age_days,
    ).model_dump(exclude_none=True)
    text = "# Written by `inspector calibrate`. Pixel centres are at whole numbers; shape_px is rows, columns.\n"
    try:
        path.write_text(text + yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=140), encoding="utf-8")
    except OSError as error:
        raise ConfigError("E_CAL_FILE", f"cannot be written: {error.strerror}", file=str(path)) from error


def _refusal(path: Path, place: tuple[int | str, ...], text: str, seen: object) -> ConfigError:
    """One thing that is wrong with the file's form; a number that is none gets the name of what it stands for."""
    key = ".".join(map(str, place))
    finite = isinstance(seen, float) and not math.isfinite(seen)
    codes = {"mm_per_px": "E_CAL_SCALE", "camera_matrix": "E_CAL_MATRIX", "homography": "E_CAL_MATRIX", "distortion": "E_CAL_LENS"}
    code = codes.get(str(place[0]), "E_CAL_FORMAT") if place and finite else "E_CAL_FORMAT"
    return ConfigError(code, f"{text} (seen: {seen!r:.60})", file=str(path), key=key or None)


def _doubts(file: File) -> list[tuple[str, str, str]]:
    """What is wrong with the numbers: (code, key, text)."""
    out = []
    if not 1e-6 <= file.mm_per_px <= 1e3:
        out.append(("E_CAL_SCALE", "mm_per_px", f"{file.mm_per_px:g} mm/px is no camera's; 1e-6 to 1000"))
    if file.camera_matrix is not None:
        (fx, _, cx), (below, fy, cy), last = file.camera_matrix
        if not (fx > 0 and fy > 0 and below == 0 and last == [0, 0, 1]):
            out.append(
                ("E_CAL_MATRIX", "camera_matrix", f"[[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0; seen {file.camera_matrix}")
            )
        elif not (-file.shape_px[1] < cx < 2 * file.shape_px[1] and -file.shape_px[0] < cy < 2 * file.shape_px[0]):
            out.append(("E_CAL_MATRIX", "camera_matrix", f"its centre ({cx:g}, {cy:g}) is far outside of the picture"))
    if file.homography is not None:
        matrix = np.array(file.homography).reshape(3, 3)
        if not np.linalg.cond(matrix / np.linalg.norm(matrix, axis=0).clip(1e-300)) < 1e9:
            out.append(("E_CAL_MATRIX", "homography", "singular: it takes the picture to a line or a point"))
    if file.distortion is not None:
        if len(file.distortion) not in LENS_NUMBERS:
            out.append(("E_CAL_LENS", "distortion", f"{len(file.distortion)} numbers; one of {LENS_NUMBERS}"))
        elif file.camera_matrix is None:
            out.append(("E_CAL_LENS", "distortion", "needs a camera_matrix"))
        elif not out and not _keeps_order(np.array(file.camera_matrix), np.array(file.distortion), file.shape_px):
            out.append(("E_CAL_LENS", "distortion", "folds the picture over: along a line from the middle, pixels would come back"))
    return out


def _keeps_order(matrix: Floats, distortion: Floats, shape_px: Sequence[int]) -> bool:
    """Whether rays to all corners of the picture are stretched without ever turning back."""
    rows, columns = shape_px
    corners = np.array([(x, y) for x in (0.0, columns - 1.0) for y in (0.0, rows - 1.0)])
    ideal = (corners - matrix[:2, 2]) / np.diagonal(matrix)[:2]
    rays = np.linspace(0.0, 1.2, 200)[:, None, None] * ideal
    seen = _through_lens(rays.reshape(-1, 2), matrix, distortion).reshape(len(rays), len(ideal), 2)
    return bool((np.diff(np.hypot(*np.moveaxis(seen - matrix[:2, 2], 2, 0)), axis=0) > 0).all())


def _frozen(values: object) -> Floats:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


# --- pixels ------------------------------------------------------------------------------------------------------------


def _through_lens(ideal: Floats, matrix: Floats, distortion: Floats) -> Floats:
    """Normalised coordinates (N, 2) → raw pixels (N, 2)."""
    rays = np.column_stack([ideal, np.ones(len(ideal))])
    return np.asarray(cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, distortion)[0], np.float64).reshape(-1, 2)


def undistorted(points_px: Floats, calibration: Calibration) -> Floats:
    """Points (N, 2) of the raw picture → where a lens without distortion would have shown them, to 1e-6 px."""
    if calibration.camera_matrix is None or calibration.distortion is None or not len(points_px):
        return np.asarray(points_px, np.float64)
    matrix, lens = calibration.camera_matrix, calibration.distortion
    until = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    raw = np.asarray(points_px, np.float64).reshape(-1, 1, 2)
    return np.asarray(cv2.undistortPoints(raw, matrix, lens, P=matrix, criteria=until), np.float64).reshape(-1, 2)


def distorted(points_px: Floats, calibration: Calibration) -> Floats:
    """The inverse of `undistorted`."""
    if calibration.camera_matrix is None or calibration.distortion is None or not len(points_px):
        return np.asarray(points_px, np.float64)
    matrix = calibration.camera_matrix
    rays = np.column_stack([points_px, np.ones(len(points_px))]) @ np.linalg.inv(matrix).T
    return _through_lens(rays[:, :2], matrix, calibration.distortion)


@dataclass(frozen=True, slots=True, eq=False)
class Straightener:
    """Takes raw pictures to those of the same shape that a camera without distortion would take straight on: of the plane of the parts,
    `mm_per_px` everywhere, its middle and its direction as in the raw picture. Bilinear, by tables (`x`, `y`, as OpenCV's remap) made once.

    `shown` (rows, columns), 0 or 255: which of its pixels the raw picture shows; None where it shows all. The others repeat its border.
    """

    calibration: Calibration
    x: NDArray[np.int16]
    y: NDArray[np.uint16]
    shown: NDArray[np.uint8] | None

    def __call__(self, picture: Image) -> Image:
        """The picture straightened. Raises `ConfigError` E_CAL_SIZE."""
        fits(self.calibration, picture.shape)
        return np.asarray(cv2.remap(picture, self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def shown_by(straighten: Straightener | None) -> NDArray[np.uint8] | None:
    """`Straightener.shown`; None, which is all, where nothing straightens."""
    return None if straighten is None else straighten.shown


def straightener(calibration: Calibration) -> Straightener | None:
    """What straightens this camera's pictures; None where nothing is to be done."""
    if calibration.shape_px is None or (calibration.homography is None and calibration.distortion is None):
        return None
    rows, columns = calibration.shape_px
    matrix = nominal(rows, columns) if calibration.camera_matrix is None else calibration.camera_matrix
    lens = np.zeros(5) if calibration.distortion is None else calibration.distortion
    shown = matrix if calibration.homography is None else np.linalg.inv(_from_front(calibration)) @ matrix
    x, y = cv2.initUndistortRectifyMap(matrix, lens, np.eye(3), shown, (columns, rows), cv2.CV_16SC2)
    return Straightener(calibration, np.asarray(x, np.int16), np.asarray(y, np.uint16), _shown(x, y))


def _shown(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint8] | None:
    """As in `Straightener`: where the tables stay in the raw picture, in one piece about the middle. They come into it again beyond the
    horizon, and where the formula of the lens turns back.
    """
    white = np.full(x.shape[:2], 255, np.uint8)
    within = cv2.threshold(cv2.remap(white, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), 127, 255, cv2.THRESH_BINARY)[1]
    if within.all():
        return None
    labels = cv2.connectedComponents(np.asarray(within, np.uint8), connectivity=4)[1]
    within[labels != labels[labels.shape[0] // 2, labels.shape[1] // 2]] = 0
    return np.asarray(within, np.uint8)


def as_taken(points_px: Floats, calibration: Calibration) -> Floats:
    """Points (N, 2) of the straightened picture → where the raw picture shows them."""
    if calibration.shape_px is None or not len(points_px):
        return np.asarray(points_px, np.float64)
    slanted = calibration.homography is not None
    return distorted(raster.apply(_from_front(calibration), points_px) if slanted else points_px, calibration)


def _from_front(calibration: Calibration) -> Floats:
    """The homography (3, 3) from pixels of the picture seen straight on to undistorted pixels of the one that is seen at a slant."""
    rows, columns = calibration.shape_px or (1, 1)
    to_mm = np.array(calibration.homography).reshape(3, 3)
    middle = np.array([0.5 * (columns - 1), 0.5 * (rows - 1)])
    around = np.array([(0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)])
    centre, right, left, down, up = raster.apply(to_mm, middle + around)
    along, across = right - left, up - down  # mm a pixel to the right, and a pixel up
    angle = math.atan2(along[1] - across[0], along[0] + across[1])  # of the rotation that is nearest to both
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn * calibration.mm_per_px @ np.diag([1.0, -1.0])
    front_to_mm = np.vstack([np.column_stack([linear, centre - linear @ middle]), [0.0, 0.0, 1.0]])
    return np.asarray(np.linalg.inv(to_mm) @ front_to_mm, np.float64)


# --- from a board ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Board:
    """A chessboard of `columns` × `rows` inner corners, or, with markers, a ChArUco board of so many squares (OpenCV's)."""

    columns: int
    rows: int
    square_mm: float
    marker_mm: float | None = None
    dictionary: str = "DICT_5X5_100"

    def __str__(self) -> str:
        return f"{'chessboard' if self.marker_mm is None else 'charuco'} {self.columns}x{self.rows}, {self.square_mm:g} mm"


@dataclass(frozen=True, slots=True)
class Corners:
    """Corners of a board seen in one picture: on the board in mm (y up, as the picture's), and in raw pixels; (N, 2) both."""

    board_mm: Floats
    picture_px: Floats


def corners(picture: NDArray[np.uint8], board: Board) -> Corners | None:
    """The board's corners in one picture, sub-pixel; None where it is not found whole (a ChArUco board: at least 8 of its corners)."""
    grey = picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    if board.marker_mm is None:
        flags = cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_NORMALIZE_IMAGE
        found, at = cv2.findChessboardCornersSB(grey, (board.columns, board.rows), flags=flags)
        if not found:
            return None
        y, x = np.divmod(np.arange(board.columns * board.rows), board.columns)
        at = _refined(grey, np.asarray(at, np.float32).reshape(-1, 2), board.columns)
    else:
        words = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
        made = cv2.aruco.CharucoBoard((board.columns, board.rows), board.square_mm, board.marker_mm, words)
        at, ids, _, _ = cv2.aruco.CharucoDetector(made).detectBoard(grey)
        if ids is None or len(ids) < 8:
            return None
        y, x = np.divmod(np.asarray(ids).ravel(), board.columns - 1)
    return Corners(np.column_stack([x, -y]) * board.square_mm, np.asarray(at, np.float64).reshape(-1, 2))


def _refined(grey: NDArray[np.uint8], at: NDArray[np.float32], columns: int) -> Floats:
    """Chessboard corners moved to the saddle points of the grey values: 0.04 px instead of the 0.2 px of the finder's own."""
    apart = float(np.hypot(*np.diff(at.reshape(-1, columns, 2), axis=1).reshape(-1, 2).T).min())
    half = int(np.clip(0.2 * apart, 2, 11))
    until = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 1e-4)
    found = cv2.cornerSubPix(grey, at.reshape(-1, 1, 2).copy(), (half, half), (-1, -1), until)
    return np.asarray(found, np.float64).reshape(-1, 2)


def from_board(pictures: Sequence[NDArray[np.uint8]], board: Board, *, camera: str, taken_utc_ns: int) -> Calibration:
    """The calibration from pictures of a board; the first shows it in the plane of the parts. Raises E_CAL_BOARD, E_CAL_SIZE, E_CAL_FIT."""
    rows, columns = _one_shape(pictures)
    views = [corners(picture, board) for picture in pictures]
    missing = [str(number) for number, view in enumerate(views, 1) if view is None]
    seen = [view for view in views if view is not None]
    if missing:
        raise ConfigError(
            "E_CAL_BOARD", f"no {board} in picture {', '.join(missing)}; the whole board must be seen, sharp, with a bright rim"
        )
    on_board = [np.column_stack([v.board_mm, np.zeros(len(v.board_mm))]).astype(np.float32) for v in seen]
    in_picture = [v.picture_px.astype(np.float32).reshape(-1, 1, 2) for v in seen]
    for flags in (_WHOLE_CAMERA, _ONE_NUMBER) if len(seen) >= 3 else (_ONE_NUMBER,):
        _, matrix, lens, _, _, sigma, _, _ = cv2.calibrateCameraExtended(
            on_board, in_picture, (columns, rows), nominal(rows, columns), np.zeros(5), flags=flags
        )
        if float(sigma[0, 0]) <= MOST_FOCAL_DOUBT * float(matrix[0, 0]):
            break  # else the views are too much alike to know the focal length
    found = Calibration(camera, 1.0, _frozen(matrix), _frozen(lens).ravel(), 0.0, taken_utc_ns, (rows, columns))
    views_px = [(v, undistorted(v.picture_px, found)) for v in seen]
    planes = [_homography(v.board_mm, px) for v, px in views_px]
    off = np.concatenate([raster.apply(plane, v.board_mm) - px for plane, (v, px) in zip(planes, views_px, strict=True)])
    return _on_plane(found, planes[0], float(np.sqrt((off**2).sum(axis=1).mean())), _CURE_BOARD)


def nominal(rows: int, columns: int) -> Floats:
    """A camera matrix whose focal length is the longer side: what stands for the unknown one where only a plane is seen."""
    focal = float(max(rows, columns))
    return np.array([[focal, 0.0, 0.5 * (columns - 1)], [0.0, focal, 0.5 * (rows - 1)], [0.0, 0.0, 1.0]])


def _homography(plane_mm: Floats, picture_px: Floats) -> Floats:
    found, _ = cv2.findHomography(plane_mm, picture_px, 0)
    if found is None:
        raise ConfigError("E_CAL_FIT", "the corners lie on a line. Take a picture that shows the board from above, and all of it")
    return np.asarray(found, np.float64)


def _on_plane(lens: Calibration, plane_to_px: Floats, rms_px: float, cure: str) -> Calibration:
    """The calibration with its plane: scale in the middle, and the homography where the scale differs over the picture.

    `cure` says what to do where the fit is bad.
    """
    rows, columns = lens.shape_px or (1, 1)
    back = np.asarray(np.linalg.inv(plane_to_px), np.float64)
    places = np.array([(0.5 * (columns - 1), 0.5 * (rows - 1)), (0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)])
    steps = [raster.apply(back, places + step) - raster.apply(back, places - step) for step in ((0.5, 0.0), (0.0, 0.5))]
    scales = np.sqrt(np.abs(steps[0][:, 0] * steps[1][:, 1] - steps[0][:, 1] * steps[1][:, 0]))
    slanted = float(np.ptp(scales) / scales[0]) > SLANT_RATIO
    if not (math.isfinite(rms_px) and rms_px <= MOST_RMS_PX):
        raise ConfigError("E_CAL_FIT", f"the fit is off by {rms_px:.2f} px (rms); at most {MOST_RMS_PX:g}. {cure}")
    homography = tuple((back / back[2, 2]).ravel().tolist()) if slanted else None
    return replace(lens, mm_per_px=float(scales[0]), rms_px=rms_px, homography=homography)


def _one_shape(pictures: Sequence[NDArray[np.uint8]]) -> tuple[int, int]:
    shapes = {picture.shape[:2] for picture in pictures}
    if len(shapes) != 1:
        raise ConfigError("E_CAL_SIZE", f"pictures of one size are needed; seen {sorted(f'{w} × {h}' for h, w in shapes)}")
    (rows, columns) = shapes.pop()
    return rows, columns


# --- from the part -----------------------------------------------------------------------------------------------------


def from_part(
    pictures: Sequence[NDArray[np.uint8]],
    template: Template,
    *,
    camera: str,
    taken_utc_ns: int,
    scale_px_per_mm: tuple[float, float] | None = None,
    perspective: bool = False,
) -> Calibration:
    """The calibration from pictures of a part whose drawing is known, and which is true to it.

    Seen straight on: one scale for all pictures, and k₁ where the outlines bend enough to know it; with `perspective`: the plane's
    homography, from the first picture. Raises E_CAL_PART, E_CAL_SIZE, E_CAL_FIT.
    """
    rows, columns = _one_shape(pictures)
    locator = locate.compile(template, scale_px_per_mm=scale_px_per_mm, perspective=perspective)
    plain = Calibration(camera, 1.0, None, None, 0.0, taken_utc_ns, (rows, columns))
    if perspective:
        first = _seen_outline(locator, pictures[0], 1, plain)
        return _on_plane(plain, raster.matrix_of(first.pose), first.spread_px, _CURE_PART)
    found = plain
    for _ in range(2):  # the second time in undistorted pictures, where the drawing predicts the edges better
        outlines = [_seen_outline(locator, picture, number, found) for number, picture in enumerate(pictures, 1)]
        scale, k1, rms_px = _scale_and_lens(outlines, nominal(rows, columns))
        if k1 is None:
            found = replace(plain, mm_per_px=1.0 / scale, rms_px=rms_px)
            break
        lens = _frozen([k1, 0.0, 0.0, 0.0, 0.0])
        found = replace(plain, mm_per_px=1.0 / scale, rms_px=rms_px, camera_matrix=_frozen(nominal(rows, columns)), distortion=lens)
    if not found.rms_px <= MOST_RMS_PX:
        raise ConfigError("E_CAL_FIT", f"the outlines are off by {found.rms_px:.2f} px (rms); at most {MOST_RMS_PX:g}. {_CURE_PART}")
    return found


@dataclass(frozen=True, slots=True)
class _Outline:
    """Edges of one part in one picture, (N, 2): on the drawing (mm), in the picture (raw px), and the unit normals there (px)."""

    pose: Pose
    drawn_mm: Floats
    seen_px: Floats
    normal_px: Floats
    spread_px: float


def _seen_outline(locator: locate.Locator, picture: NDArray[np.uint8], number: int, so_far: Calibration) -> _Outline:
    """The trusted edges of the part in a picture, looked for through the lens as it is known so far.

    Normals follow from the samples' order along each contour (material to the left, y up).
    """
    straight = straightener(so_far)
    found = locator.find(picture if straight is None else straight(picture), max_parts=1, shown=shown_by(straight))
    if not found or found[0].gauged is None:
        raise ConfigError("E_CAL_PART", f"the part is not found in picture {number}")
    pose, gauged = found[0].pose, found[0].gauged
    normal = np.full(gauged.points_mm.shape, np.nan)
    for contour in np.unique(gauged.contour):
        own = np.flatnonzero(gauged.contour == contour)
        along = np.roll(gauged.points_mm[own], -1, axis=0) - np.roll(gauged.points_mm[own], 1, axis=0)
        normal[own] = np.column_stack([along[:, 1], -along[:, 0]]) / np.hypot(*along.T).clip(1e-12)[:, None]
    good = gauged.seen & gauged.trusted & np.isfinite(gauged.deviation_mm)
    if good.sum() < 50 or good.mean() < 0.5:
        raise ConfigError("E_CAL_PART", f"too little of the part is seen in picture {number}: {good.mean():.0%} of its outline")
    drawn, off, outward = gauged.points_mm[good], gauged.deviation_mm[good], normal[good]
    seen = raster.to_picture(drawn + off[:, None] * outward, pose)
    step = 1e-3 * outward
    ends = [distorted(raster.to_picture(drawn + side * step, pose), so_far) for side in (-1.0, 1.0)]
    turned = ends[1] - ends[0]
    spread_px = float(np.median(np.abs(off * np.hypot(*turned.T) / 2e-3)) * 1.4826)
    return _Outline(pose, drawn, distorted(seen, so_far), turned / np.hypot(*turned.T)[:, None], spread_px)


def _scale_and_lens(outlines: Sequence[_Outline], matrix: Floats) -> tuple[float, float | None, float]:
    """One scale (px/mm) for all pictures, k₁ or None where it cannot be told from 0, and the rms of what is left along the normals (px).

    Gauss–Newton over a pose (x, y, angle) for each picture, the common scale and k₁, with Tukey's weights: a burr is no lens.
    """
    start = [value for o in outlines for value in (o.pose.x_px, o.pose.y_px, o.pose.angle_rad)]
    scale = float(np.mean([o.pose.scale_px_per_mm for o in outlines]))
    fitted = {with_lens: _fit(np.array([*start, scale, 0.0]), outlines, matrix, with_lens) for with_lens in (False, True)}
    values, sigma, rms_px = fitted[True]
    reach = max(float(np.hypot(*(o.seen_px - matrix[:2, 2]).T).max()) for o in outlines) / matrix[0, 0]
    bends_px = abs(values[-1]) * reach**3 * matrix[0, 0]
    if abs(values[-1]) > 6.0 * sigma and bends_px > 0.05:
        return float(values[-2]), float(values[-1]), rms_px
    values, _, rms_px = fitted[False]
    return float(values[-2]), None, rms_px


def _fit(values: Floats, outlines: Sequence[_Outline], matrix: Floats, with_lens: bool) -> tuple[Floats, float, float]:
    """The fitted values, the standard deviation of k₁, and the rms of the residuals that count."""
    free = len(values) if with_lens else len(values) - 1
    small = np.array([1e-3, 1e-3, 1e-7] * len(outlines) + [1e-6 * values[-2], 1e-6])
    for _ in range(8):
        left = _misses(values, outlines, matrix)
        slopes = np.column_stack([(_misses(values + d, outlines, matrix) - left) / d.max() for d in np.diag(small)[:free]])
        limit = max(4.685 * 1.4826 * float(np.median(np.abs(left))), 0.02)
        weight = np.where(np.abs(left) < limit, (1.0 - (left / limit) ** 2) ** 2, 0.0)
        normal = slopes.T @ (slopes * weight[:, None])
        values = values.copy()
        values[:free] -= np.linalg.solve(normal, slopes.T @ (weight * left))
    rms_px = float(np.sqrt((weight * left**2).sum() / weight.sum()))
    # Neighbouring edges err alike (a part is not white noise): count one in ten as independent.
    return values, rms_px * math.sqrt(10.0 * float(np.linalg.inv(normal)[-1, -1])) if with_lens else 0.0, rms_px


def _misses(values: Floats, outlines: Sequence[_Outline], matrix: Floats) -> Floats:
    """How far each seen edge lies beyond where the values put it, along its normal, px."""
    scale, k1 = values[-2:]
    centre, focal = matrix[:2, 2], matrix[0, 0]
    out = []
    for n, o in enumerate(outlines):
        x, y, angle = values[3 * n : 3 * n + 3]
        from_centre = raster.to_picture(o.drawn_mm, Pose(x, y, angle, scale, 1.0, 0.0)) - centre
        shown = centre + from_centre * (1.0 + k1 * (from_centre**2).sum(axis=1, keepdims=True) / focal**2)
        out.append(((o.seen_px - shown) * o.normal_px).sum(axis=1))
    return np.concatenate(out)
