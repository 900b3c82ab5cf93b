"""A picture's header is believed before its content, and what is not whole is refused."""

from __future__ import annotations

import errno
import os
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.neural import pictures
from inspector.records import ConfigError


def picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), picture())
    np.testing.assert_array_equal(pictures.read(path), picture())
    assert pictures.read(path, 1).shape == (40, 50)


def test_what_is_written_is_there_or_refused(tmp_path: Path) -> None:
    pictures.write(tmp_path / "seen", picture())
    np.testing.assert_array_equal(pictures.read(tmp_path / "seen"), picture())
    with pytest.raises(ConfigError, match=r"E_OUT .*nowhere/x\.png: cannot be written: No such file"):
        pictures.write(tmp_path / "nowhere/x.png", picture())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"E_OUT .*x\.png: cannot be written: File too large"):
            pictures.write(tmp_path / "x.png", picture())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "x.png").exists()


def test_what_was_there_and_takes_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "device"
    device.symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"E_OUT .*device: cannot be written: No space left"):
        pictures.write(device, picture())
    assert device.is_symlink()

    def protected(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    kept = tmp_path / "kept.png"
    kept.write_text("mine")
    monkeypatch.setattr(Path, "open", protected)
    with pytest.raises(ConfigError, match=r"E_OUT .*kept\.png: cannot be written: Permission denied"):
        pictures.write(kept, picture())
    monkeypatch.undo()
    assert kept.read_text() == "mine"


def test_a_mask_of_one_colour_on_nothing_is_seen_where_it_is_opaque(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    mask = np.zeros((4, 6, 4), np.uint8)
    mask[1:3, 1:5] = 54, 164, 35, 90
    mask[1:3, 2:4, 3] = 255
    cv2.imwrite(str(path), mask)
    assert np.unique(pictures.read_labels(path)).tolist() == [0, 255]
    np.testing.assert_array_equal(pictures.read_labels(path) > 0, mask[..., 3] > 128)
    np.testing.assert_array_equal(pictures.read_marked(path) > 0, mask[..., 3] > 128)
    with pytest.raises(ConfigError, match="E_IMG_MODE"):
        pictures.read(path)


def test_a_jpeg_has_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    cv2.imwrite(str(path), picture())
    assert pictures.read(path, 3).shape == (40, 50, 3)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
def test_a_picture_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), picture())
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"E_IMG_(TRUNC|FORMAT)"):
            pictures.read(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(ConfigError, match="E_IMG_PIXELS"):
        pictures.read(tmp_path / "x.png")


@pytest.mark.parametrize(("content", "code"), [(b"", "E_IMG_FORMAT"), (b"GIF89a" + bytes(40), "E_IMG_FORMAT"), (b"<svg/>", "E_IMG_FORMAT")])
def test_other_formats_are_refused(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ConfigError, match=code):
        pictures.read(tmp_path / "x.png")


def test_sixteen_bits_and_alpha_are_refused(tmp_path: Path) -> None:
    for image in (np.zeros((8, 8), np.uint16), np.zeros((8, 8, 4), np.uint8)):
        cv2.imwrite(str(tmp_path / "x.png"), image)
        with pytest.raises(ConfigError, match="E_IMG_MODE"):
            pictures.read(tmp_path / "x.png")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    path, pages = tmp_path / "seen.tif", [np.full((20, 30), grey, np.uint8) for grey in (50, 200)]
    cv2.imwritemulti(str(path), pages[:1])
    assert np.array_equal(pictures.read(path), pages[0])
    cv2.imwritemulti(str(path), pages)
    with pytest.raises(ConfigError, match=r"E_IMG_FORMAT .*: a TIFF of several pages"):
        pictures.read(path)


def test_pictures_for_print_are_refused(tmp_path: Path) -> None:
    image = np.full((20, 30, 3), 99, np.uint8)
    jpeg = bytearray(cv2.imencode(".jpg", image)[1].tobytes())
    jpeg[jpeg.index(b"\xff\xc0") + 9] = 4  # components
    tiff = bytearray(cv2.imencode(".tiff", image)[1].tobytes())
    tiff[tiff.index(b"\x06\x01\x03\x00") + 8] = 5  # tag 262, one short: separated
    for name, data in (("seen.jpg", jpeg), ("seen.tiff", tiff)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=r"E_IMG_MODE .*CMYK"):
            pictures.read(tmp_path / name)


def test_a_grey_picture_with_alpha_is_called_that(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "la.png"), np.full((8, 8, 4), 90, np.uint8))
    with pytest.raises(ConfigError, match="grey with alpha; 8-bit grey or colour without alpha"):
        pictures.read(tmp_path / "la.png")
