"""Dark frame and flat field: what a camera shows of an even grey is made even, so that a limit means the same everywhere in the picture.

A pixel that shows `dark` with the lens closed and `flat` before an even, bright surface shows (raw − dark) · gain after correction, with
gain = mean(flat − dark) / (flat − dark) of its own. In colour the mean is over all channels, which balances the white too. The file
(`inspector calibrate --flat`) holds both averages in 1/256 grey levels; the correction is two passes of 8-bit arithmetic.

Errors (`ConfigError`): E_CAL_FILE the file · E_CAL_FLAT, E_CAL_DARK, E_CAL_SIZE the pictures.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.records import ConfigError, Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_GREY = 256
MOST_GAIN = 4.0
MOST_DEAD_RATIO = 0.001
BRIGHTEST, DARKEST_FLAT, BRIGHTEST_DARK = 250, 20, 64


@dataclass(frozen=True, slots=True)
class Correction:
    """`flat` and `dark` uint16 (H, W[, 3]) in 1/256 grey levels, and when the pictures were taken."""

    camera: str
    flat: NDArray[np.uint16]
    dark: NDArray[np.uint16]
    taken_utc_ns: int


def measure(flats: Sequence[Image], darks: Sequence[Image], *, camera: str, taken_utc_ns: int) -> Correction:
    """From pictures of an even surface, and of nothing (none: the camera shows 0 then). All of one shape."""
    shapes = {picture.shape for picture in (*flats, *darks)}
    if len(shapes) != 1:
        raise ConfigError("E_CAL_SIZE", f"the pictures are of different sizes: {', '.join(map(str, sorted(shapes)))}")
    flat, dark = _average(flats), _average(darks) if darks else np.zeros(flats[0].shape)
    if float((flat >= BRIGHTEST).mean()) > MOST_DEAD_RATIO:
        raise ConfigError("E_CAL_FLAT", f"{(flat >= BRIGHTEST).mean():.1%} of the picture is white; expose less: it stays below 250")
    if dark.mean() > BRIGHTEST_DARK:
        raise ConfigError("E_CAL_DARK", f"the dark picture has a mean of {dark.mean():.0f}; at most {BRIGHTEST_DARK}: close the lens")
    seen = flat - dark
    if seen.mean() < DARKEST_FLAT:
        raise ConfigError("E_CAL_FLAT", f"only {seen.mean():.0f} grey levels above dark; at least {DARKEST_FLAT}: expose more")
    if (short := float((seen * MOST_GAIN < seen.mean()).mean())) > MOST_DEAD_RATIO:
        raise ConfigError("E_CAL_FLAT", f"{short:.1%} of the picture has less than 1/{MOST_GAIN:g} of the mean light: too dark")
    flat16, dark16 = (np.rint(each * PER_GREY).astype(np.uint16) for each in (flat, dark))
    return Correction(camera, flat16, dark16, taken_utc_ns)


def _average(pictures: Sequence[Image]) -> NDArray[np.float64]:
    total = np.zeros(pictures[0].shape, np.float64)
    for picture in pictures:
        total += picture
    return total / len(pictures)


def write(correction: Correction, path: Path) -> None:
    """The correction as a file that `read` reads."""
    try:
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                camera=np.array(correction.camera),
                taken_utc_ns=np.array(correction.taken_utc_ns),
                flat=correction.flat,
                dark=correction.dark,
            )
    except OSError as error:
        raise ConfigError("E_CAL_FILE", f"cannot be written: {error.strerror}", file=str(path)) from error


def read(path: Path) -> Correction:
    """The correction in a file of `write`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            flat, dark = kept["flat"], kept["dark"]
            if flat.dtype != np.uint16 or flat.shape != dark.shape or dark.dtype != np.uint16 or flat.ndim not in (2, 3):
                raise ValueError("flat and dark are not two 16-bit pictures of one size")
            return Correction(str(kept["camera"]), flat, dark, int(kept["taken_utc_ns"]))
    except OSError as error:
        raise ConfigError("E_CAL_FILE", f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError("E_CAL_FILE", f"is no correction of `inspector calibrate --flat`: {error}", file=str(path)) from error


def corrector(correction: Correction) -> Callable[[Image], Image]:
    """A function from raw to corrected pictures, uint8 of the correction's shape; `ValueError` for another shape. For any thread."""
    seen = (correction.flat.astype(np.float64) - correction.dark) / PER_GREY
    gain = np.clip(seen.mean() / np.maximum(seen, 1e-3), 0.0, MOST_GAIN)
    step = float(gain.max()) / 255.0
    gain8, dark8 = (np.rint(each).astype(np.uint8) for each in (gain / step, correction.dark / PER_GREY))
    has_dark = bool(dark8.any())

    def correct(picture: Image) -> Image:
        if picture.shape != gain8.shape:
            raise ValueError(f"the picture is {picture.shape}, its correction {gain8.shape}; measure it again")
        lit = cv2.subtract(picture, dark8) if has_dark else picture
        return np.asarray(cv2.multiply(lit, gain8, dst=lit if has_dark else None, scale=step), np.uint8)

    return correct
