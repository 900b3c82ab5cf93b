"""Pictures from files, looked at before they are decoded: a small file can unpack to gigabytes.

The header of PNG, JPEG, BMP and TIFF is read by hand, sizes are checked, and only then OpenCV decodes. No picture is turned by its
EXIF mark; a picture that is cut short, animated, of several pages, of 16 bits, for print (CMYK) or of another format is refused, never
repaired in silence.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.records import ConfigError, Image

LARGEST_PX = 64_000_000
LARGEST_SIDE_PX = 32_766
LARGEST_FILE_BYTES = 512 << 20
SEPARATED = 5
"""The photometric interpretation of a TIFF whose samples are inks (TIFF 6.0, section 16)."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def read(path: Path, channels: int | None = None) -> Image:
    """The picture in the file as uint8 (H, W) for `channels` 1, (H, W, 3) BGR for 3, as it is stored for None.

    Raises `ConfigError`: E_IMG_OPEN, E_IMG_FORMAT, E_IMG_SIZE, E_IMG_PIXELS (more than 64 Mpx), E_IMG_TRUNC, E_IMG_MODE (not 8 bits).
    """
    return decode(_bytes(path), str(path), channels)


def write(path: Path, image: Image, how: Sequence[int] = ()) -> None:
    """The picture (H, W[, 3 or 4]) into a PNG, `how` as OpenCV's flags. Raises E_OUT, and leaves no half file.

    What cannot even be opened (a file that is write-protected) stays, and so does what is no file (a device).
    """
    encoded, opened = cv2.imencode(".png", image, how)[1].tobytes(), False
    try:
        with path.open("wb") as file:
            opened = True
            file.write(encoded)
    except OSError as error:
        with suppress(OSError):
            if opened and path.is_file():
                path.unlink()
        raise ConfigError("E_OUT", f"cannot be written: {error.strerror}", file=str(path)) from error


def read_labels(path: Path) -> Image:
    """The numbers uint8 (H, W) in the file of a mask: grey values, or the indices of a PNG with a palette (of black and white: 0, 255).

    Of a transparent picture of one colour, 255 where it is at least half opaque. Raises as `read`, and E_IMG_MODE for colours that are no
    palette.
    """
    image = decode(_indexed(_bytes(path)), str(path), alpha=True)
    if image.ndim == 3 and image.shape[2] == 4:
        colours, opaque = image[:, :, :3], image[:, :, 3]
        seen = colours[opaque > 0]
        image = np.where(opaque >= 128, np.uint8(255), np.uint8(0)) if len(seen) and not np.ptp(seen, axis=0).any() else colours
    if image.ndim == 3 and np.ptp(image, axis=2).any():
        raise ConfigError("E_IMG_MODE", "a mask in colours; allowed: grey values or a palette, the numbers of classes", file=str(path))
    return np.ascontiguousarray(image[:, :, 0]) if image.ndim == 3 else image


def read_marked(path: Path) -> Image:
    """Where the file of a mask marks something, in whatever colour and at least half opaque, uint8 (H, W) of 0 and 1. Raises as `read`."""
    image = decode(_bytes(path), str(path), alpha=True)
    image = image[:, :, None] if image.ndim == 2 else image
    marked = image[:, :, :3].any(axis=2)
    return np.asarray(marked & (image[:, :, 3] >= 128) if image.shape[2] == 4 else marked, np.uint8)


def _bytes(path: Path) -> bytes:
    """The file's bytes. Raises E_IMG_OPEN, E_IMG_SIZE."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError("E_IMG_SIZE", f"the file has more than {LARGEST_FILE_BYTES >> 20} MiB", file=str(path))
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("E_IMG_OPEN", error.strerror or str(error), file=str(path)) from error


def _indexed(data: bytes) -> bytes:
    """A PNG with a palette as one whose colours are greys, each its own index; anything else as it is, black and white and shades of
    transparency, too.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[25:26] != b"\x03":
        return data
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        if kind == b"PLTE":
            colours = {chunk[i : i + 3] for i in range(8, 8 + length, 3)}
            colours -= {b"\x00\x00\x00", b"\xff\xff\xff"}
            if not colours or (len(colours) == 1 and b"tRNS" in data):
                return data
            body = kind + bytes(i for i in range(min(length // 3, 256)) for _ in range(3))
            chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        if kind != b"tRNS":
            parts.append(chunk)
        at += 12 + length
    return b"".join(parts)


def decode(data: bytes, where: str, channels: int | None = None, *, alpha: bool = False) -> Image:
    """The picture in the bytes of a file, as `read` gives it, with `alpha` also (H, W, 4); `where` names them in errors."""
    width, height = _size(data, where)
    if width < 1 or height < 1 or max(width, height) > LARGEST_SIDE_PX:
        raise ConfigError("E_IMG_SIZE", f"{width} × {height} px; each side is 1 to {LARGEST_SIDE_PX} px", file=where)
    if width * height > LARGEST_PX:
        raise ConfigError("E_IMG_PIXELS", f"{width} × {height} px is more than {LARGEST_PX // 1_000_000} Mpx", file=where)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ConfigError("E_IMG_TRUNC", "the picture does not decode", file=where) from error
    if image is None or image.shape[:2] != (height, width):
        raise ConfigError("E_IMG_TRUNC", "the picture does not decode", file=where)
    if image.dtype != np.uint8 or (image.ndim == 3 and image.shape[2] not in (1, 3, 3 + alpha)):
        raise ConfigError(
            "E_IMG_MODE",
            f"{image.dtype} {_mode(image)}; 8-bit grey or colour without alpha",
            file=where,
        )
    return as_channels(image.astype(np.uint8, copy=False), channels)


def _mode(image: np.ndarray[Any, Any]) -> str:
    """What a picture has, in words. One of grey and alpha is decoded to four channels of which three are the same."""
    if image.ndim == 3 and image.shape[2] == 4 and (image[..., :1] == image[..., 1:3]).all():
        return "grey with alpha"
    return f"with {1 if image.ndim == 2 else image.shape[2]} channels"


def as_channels(image: Image, channels: int | None) -> Image:
    """The picture (H, W[, 3]) in grey (1), in BGR (3) or as it is (None)."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if channels == 1 and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    if channels == 3 and image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    return image


def _size(data: bytes, where: str) -> tuple[int, int]:
    """(width, height) by the header; E_IMG_FORMAT for what is no known picture, E_IMG_TRUNC where the end of the file is missing."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            if data[12:16] != b"IHDR":
                raise ConfigError("E_IMG_TRUNC", "the PNG has no header", file=where)
            width, height = struct.unpack_from(">II", data, 16)
            if b"acTL" in data[:4096]:
                raise ConfigError("E_IMG_FORMAT", "an animated picture", file=where)
            if b"IEND" not in data[-64:]:
                raise ConfigError("E_IMG_TRUNC", "the PNG has no end", file=where)
            return width, height
        if data[:2] == b"\xff\xd8":
            *size, components = _jpeg_frame(data)
            if b"\xff\xd9" not in data[-4096:]:
                raise ConfigError("E_IMG_TRUNC", "the JPEG has no end", file=where)
            if components not in (1, 3):
                raise ConfigError("E_IMG_MODE", f"a JPEG of {components} inks (CMYK); grey or colour", file=where)
            return size[0], size[1]
        if data[:2] == b"BM":
            width, height = struct.unpack_from("<ii", data, 18)
            if struct.unpack_from("<I", data, 2)[0] > len(data):
                raise ConfigError("E_IMG_TRUNC", "the BMP is shorter than it says", file=where)
            return width, abs(height)
        if data[:4] in (b"II*\x00", b"MM\x00*"):
            width, height, photometric, following = _tiff_page(data)
            if following:
                raise ConfigError("E_IMG_FORMAT", "a TIFF of several pages", file=where)
            if photometric == SEPARATED:
                raise ConfigError("E_IMG_MODE", "a TIFF of inks (CMYK); grey or colour", file=where)
            return width, height
    except (struct.error, IndexError) as error:
        raise ConfigError("E_IMG_TRUNC", "the header is cut short", file=where) from error
    raise ConfigError("E_IMG_FORMAT", "not PNG, JPEG, BMP or TIFF", file=where)


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """(width, height, components) in the frame header (SOF0…SOF15 without DHT, JPG and DAC) of a JPEG."""
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            return width, height, components
        at += 2 + length


def _tiff_page(data: bytes) -> tuple[int, int, int, int]:
    """(width, height, photometric interpretation) in the first directory of a TIFF, and where the next one begins (0: there is none)."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    found = {256: 0, 257: 0, 262: 0}
    count = struct.unpack_from(order + "H", data, at)[0]
    for entry in range(count):
        tag, kind, _, short = struct.unpack_from(order + "HHIH", data, at + 2 + 12 * entry)
        if tag in found:
            found[tag] = short if kind == 3 else struct.unpack_from(order + "I", data, at + 10 + 12 * entry)[0]
    return found[256], found[257], found[262], struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0]
