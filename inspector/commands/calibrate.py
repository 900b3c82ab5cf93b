"""`inspector calibrate`: how a camera sees the plane of the parts, from pictures of a board or of a part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def calibrate(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures; the first shows the board where the parts lie.")],
    out: Annotated[Path, typer.Option("--out", metavar="YAML", help="The calibration file.")],
    chessboard: Annotated[str | None, typer.Option(metavar="CxR", help="A chessboard of so many inner corners, such as 9x6.")] = None,
    charuco: Annotated[str | None, typer.Option(metavar="CxR", help="A ChArUco board of so many squares, such as 11x8.")] = None,
    square_mm: Annotated[float | None, typer.Option(min=1e-6, help="The side of a square of the board.")] = None,
    marker_mm: Annotated[float | None, typer.Option(min=1e-6, help="The side of a marker of a ChArUco board.")] = None,
    dictionary: Annotated[str, typer.Option(help="The markers of a ChArUco board.")] = "DICT_5X5_100",
    drawing: Annotated[Path | None, typer.Option(metavar="DXF", help="Instead of a board: the drawing of the part that is seen.")] = None,
    units: Annotated[
        str | None, typer.Option("--units", metavar="UNITS", help="mm, cm, m, inch or foot, where the drawing does not say.")
    ] = None,
    part: Annotated[int, typer.Option("--part", min=1, help="Which part of a sheet, the largest first.")] = 1,
    scale_range: Annotated[
        tuple[float, float] | None, typer.Option("--scale-range", metavar="A B", help="Look for the part from A to B px per mm.")
    ] = None,
    perspective: Annotated[bool, typer.Option("--perspective", help="With a drawing: the camera looks at a slant.")] = False,
    flat: Annotated[bool, typer.Option("--flat", help="Instead of a board: an even, bright surface, out of focus.")] = False,
    dark: Annotated[
        Path | None, typer.Option("--dark", metavar="PICTURES", help="With --flat: a folder or pattern of pictures with the lens closed.")
    ] = None,
    camera: Annotated[str, typer.Option(help="The camera's id in the configuration.")] = "cam0",
    max_age_days: Annotated[float | None, typer.Option(min=0.01, help="Refuse the calibration when it is older.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Calibrate a camera from pictures of a board, or of a part that is true to its drawing.

    Three or more pictures of a tilted board give the whole camera; fewer, or a part, give its scale and the bend of its lens.

    Example: inspector calibrate board*.png --chessboard 9x6 --square-mm 10 --out cam0.yaml

    Example: inspector calibrate part.png --drawing dxf_templates/plate.dxf --out cam0.yaml

    With --flat, what evens out light and pixels (the camera's `correction:`), from ten or more pictures of white paper out of focus.

    Example: inspector calibrate flat*.png --flat --dark "dark*.png" --out cam0.npz
    """
    import json
    import time

    import cv2
    import numpy as np

    from inspector.geometry import calibrate as cal
    from inspector.records import ConfigError

    if sum((chessboard is not None, charuco is not None, drawing is not None, flat)) != 1:
        raise typer.BadParameter("give one of --chessboard, --charuco, --drawing, --flat")
    if flat:
        _flat(images, dark, out, camera, as_json=as_json)
        return
    pictures = []
    for path in images:
        try:
            encoded = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise ConfigError("E_IMAGE", f"cannot be read: {error.strerror}", file=str(path)) from error
        picture = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE) if len(encoded) else None
        if picture is None:
            raise ConfigError("E_IMAGE", "not a picture that can be decoded", file=str(path))
        pictures.append(np.asarray(picture, np.uint8))
    taken_utc_ns = time.time_ns()
    if drawing is not None:
        from inspector.geometry import dxf, template

        built = template.build(dxf.read(drawing, units=units), part=part - 1)
        found = cal.from_part(
            pictures, built, camera=camera, taken_utc_ns=taken_utc_ns, scale_px_per_mm=scale_range, perspective=perspective
        )
        method = f"part {built.name}"
    else:
        board = _board(chessboard, charuco, square_mm, marker_mm, dictionary)
        found = cal.from_board(pictures, board, camera=camera, taken_utc_ns=taken_utc_ns)
        method = str(board)
    cal.write(found, out, f"{method}, {len(pictures)} picture{'s' * (len(pictures) > 1)}", max_age_days=max_age_days)
    cal.read(out)  # what cannot be read again must not be left to the line to find out
    said = _describe(found, out)
    if as_json:
        typer.echo(json.dumps(said, allow_nan=False))
        return
    typer.echo(f"{out}: {found.mm_per_px:.6g} mm/px in the middle, off by {found.rms_px:.3f} px (rms)")
    typer.echo(f"lens: bends the corners by {said['bend_px']:.2f} px" if found.distortion is not None else "lens: no bend to be seen")
    typer.echo("plane: seen at a slant" if found.homography else "plane: seen straight on")


def _flat(images: list[Path], dark: Path | None, out: Path, camera: str, *, as_json: bool) -> None:
    import json
    import time

    import cv2

    from inspector.geometry import correct
    from inspector.sources.replay import listed, load

    def pictures(paths: list[Path], key: str) -> list[Any]:
        loaded = [load(path, colour=True) for path in listed(paths, key)]
        grey = all((picture[..., 0] == picture[..., 1]).all() and (picture[..., 0] == picture[..., 2]).all() for picture in loaded)
        return [cv2.extractChannel(picture, 0) for picture in loaded] if grey else loaded

    flats, darks = pictures(images, "IMAGE"), pictures([dark], "--dark") if dark is not None else []
    if darks and flats[0].ndim == 3 and darks[0].ndim == 2:  # a closed lens shows no colour
        darks = [cv2.merge([picture] * 3) for picture in darks]
    found = correct.measure(flats, darks, camera=camera, taken_utc_ns=time.time_ns())
    correct.write(found, out)
    even = correct.corrector(correct.read(out))(flats[0])
    seen = (found.flat.astype(float) - found.dark) / correct.PER_GREY
    said = {
        "file": str(out),
        "camera": camera,
        "shape_px": list(flats[0].shape[:2]),
        "flats": len(flats),
        "darks": len(darks),
        "uneven_ratio": float(seen.std() / seen.mean()),
        "left_ratio": float(even.std() / even.mean()),
    }
    if as_json:
        typer.echo(json.dumps(said))
        return
    typer.echo(f"{out}: from {len(flats)} flat and {len(darks)} dark pictures; uneven by {said['uneven_ratio']:.1%} before", nl=False)
    typer.echo(f", {said['left_ratio']:.1%} after, noise included")


def _board(chessboard: str | None, charuco: str | None, square_mm: float | None, marker_mm: float | None, dictionary: str) -> Any:
    import cv2

    from inspector.geometry.calibrate import Board

    columns, cross, rows = (chessboard or charuco or "").partition("x")
    if not (cross and columns.isdecimal() and rows.isdecimal() and 3 <= int(columns) <= 100 and 3 <= int(rows) <= 100):
        raise typer.BadParameter(f"{chessboard or charuco!r} is not CxR with 3 to 100 each, such as 9x6")
    if square_mm is None:
        raise typer.BadParameter("a board needs --square-mm")
    if charuco is not None and (marker_mm is None or marker_mm >= square_mm):
        raise typer.BadParameter("a ChArUco board needs --marker-mm, smaller than --square-mm")
    if not (dictionary.startswith("DICT_") and hasattr(cv2.aruco, dictionary)):
        raise typer.BadParameter(f"{dictionary!r} is none of OpenCV's dictionaries, such as DICT_5X5_100")
    return Board(int(columns), int(rows), square_mm, None if charuco is None else marker_mm, dictionary)


def _describe(calibration: Any, out: Path) -> dict[str, Any]:
    import numpy as np

    from inspector.geometry.calibrate import undistorted

    rows, columns = calibration.shape_px
    corners = np.array([(x, y) for x in (0.0, columns - 1.0) for y in (0.0, rows - 1.0)])
    return {
        "file": str(out),
        "camera": calibration.camera,
        "mm_per_px": calibration.mm_per_px,
        "rms_px": calibration.rms_px,
        "shape_px": [rows, columns],
        "distortion": None if calibration.distortion is None else calibration.distortion.tolist(),
        "bend_px": float(np.hypot(*(undistorted(corners, calibration) - corners).T).max()),
        "slanted": calibration.homography is not None,
    }


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(calibrate)
