"""Pixel formats against packing written bit by bit from the standard, numbers that wrap, clocks that drift."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from inspector.records import DeviceError
from inspector.sources._genicam import CameraClock, Feature, Numbering, PixelFormat, told

SIZES = [(4, 8), (3, 5), (1, 1), (7, 12)]


def packed(samples: NDArray[np.int64], bits: int, packing: str) -> NDArray[np.uint8]:
    """Samples as a camera sends them: little-endian words, PFNC `p` (a stream of bits, lowest first), or GigE Vision's `Packed`."""
    if not packing:
        return samples.astype("<u2" if bits > 8 else "u1").view(np.uint8)
    if packing == "p":
        stream = ((samples[:, None] >> np.arange(bits)) & 1).reshape(-1)
        return np.packbits(stream.astype(np.uint8), bitorder="little")
    out = []
    for first, second in np.append(samples, 0)[: len(samples) // 2 * 2 + 2 * (len(samples) % 2)].reshape(-1, 2):
        low = (1 << (bits - 8)) - 1
        out += [first >> (bits - 8), (first & low) | (second & low) << 4, second >> (bits - 8)]
    return np.array(out, np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["8", "10", "12", "14", "16", "10p", "12p", "14p", "10Packed", "12Packed"])
def test_monochrome_keeps_its_upper_eight_bits(name: str, size: tuple[int, int]) -> None:
    bits = int(name.rstrip("pPacked"))
    samples = np.random.default_rng(bits).integers(0, 1 << bits, size[0] * size[1])
    raw = packed(samples, bits, name.removeprefix(str(bits)))
    pixels = PixelFormat(f"Mono{name}", colour=False)
    assert pixels.bytes_of(*size) == len(raw)
    into = np.full(samples.size + 4, 77, np.uint8)
    assert pixels.convert(raw, *size, into) == size
    assert into[:-4].tolist() == (samples >> (bits - 8)).tolist()
    assert into[-4:].tolist() == [77] * 4
    assert pixels.direct == (name == "8")


@pytest.mark.parametrize("order", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("name", ["8", "12", "12p", "10Packed"])
def test_a_mosaic_of_one_colour_is_that_colour(order: str, name: str) -> None:
    bits = int(name.rstrip("pPacked"))
    blue_green_red = (40, 120, 200)
    places = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[order]
    mosaic = np.zeros((8, 8), np.int64)
    for place, letter in enumerate(places):
        mosaic[place // 2 :: 2, place % 2 :: 2] = blue_green_red["BGR".index(letter)] << (bits - 8)
    raw = packed(mosaic.reshape(-1), bits, name.removeprefix(str(bits)))
    into = np.zeros(8 * 8 * 3, np.uint8)
    assert PixelFormat(f"Bayer{order}{name}", colour=True).convert(raw, 8, 8, into) == (8, 8, 3)
    assert (into.reshape(8, 8, 3) == blue_green_red).all()
    assert PixelFormat(f"Bayer{order}{name}", colour=False).convert(raw, 8, 8, into) == (8, 8)
    assert np.abs(into[:64].astype(int) - round(0.114 * 40 + 0.587 * 120 + 0.299 * 200)).max() <= 1


@pytest.mark.parametrize(("name", "order"), [("RGB8", "RGB"), ("BGR8", "BGR"), ("RGBa8", "RGBA"), ("BGRa8", "BGRA")])
def test_colour_comes_as_blue_green_red(name: str, order: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    channels = {"B": picture[..., 0], "G": picture[..., 1], "R": picture[..., 2], "A": np.full((5, 7), 9, np.uint8)}
    raw = np.stack([channels[letter] for letter in order], axis=-1).reshape(-1)
    into = np.zeros(5 * 7 * 3, np.uint8)
    assert PixelFormat(name, colour=True).convert(raw, 5, 7, into) == (5, 7, 3)
    assert np.array_equal(into.reshape(5, 7, 3), picture)
    assert PixelFormat(name, colour=False).convert(raw, 5, 7, into) == (5, 7)
    assert np.abs(into[:35].reshape(5, 7).astype(int) - cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)).max() <= 1
    assert PixelFormat(name, colour=True).direct == (name == "BGR8")


def test_what_is_unknown_or_too_short_is_said() -> None:
    with pytest.raises(DeviceError, match="Coord3D_ABC32f is not known here"):
        PixelFormat("Coord3D_ABC32f", colour=False)
    with pytest.raises(DeviceError, match="has 95 bytes, not 96"):
        PixelFormat("Mono12p", colour=False).convert(np.zeros(95, np.uint8), 8, 8, np.zeros(64, np.uint8))


@given(st.integers(1, 65_535), st.lists(st.integers(1, 2000), max_size=60))
def test_sixteen_bit_numbers_wrap_past_zero_without_a_jump(first: int, steps: list[int]) -> None:
    numbering, frame_id, seq = Numbering(), first, 1
    assert numbering.of(frame_id) == 1
    for step in steps:
        frame_id, seq = (frame_id - 1 + step) % 65_535 + 1, seq + step
        assert numbering.of(frame_id) == seq
        assert numbering.of(frame_id) == seq, "again is the same number"
    late = (frame_id - 2) % 65_535 + 1
    assert numbering.of(late) == seq - 1, "late is an earlier number"
    assert numbering.of(frame_id % 65_535 + 1) == seq + 1


@given(st.integers(0, 2**63), st.lists(st.integers(1, 100_000), max_size=60))
def test_sixty_four_bit_numbers_do_not_wrap(first: int, steps: list[int]) -> None:
    numbering, frame_id, seq = Numbering(), first + 65_536, 1
    numbering.of(frame_id)
    for step in steps:
        frame_id, seq = frame_id + step, seq + step
        assert numbering.of(frame_id) == seq


def test_a_picture_that_waited_has_the_time_at_which_it_was_made() -> None:
    clock, ms = CameraClock(), 1_000_000
    for n in range(1, 400):
        made_ns = n * 20 * ms
        drift_ns = made_ns // 10_000  # 100 ppm
        way_ns = 3 * ms + (400 * ms if n % 50 == 0 else (n * 7919) % ms)
        arrived_ns = 5_000_000_000 + made_ns + way_ns
        at_ns = clock.at_ns(made_ns + drift_ns, arrived_ns)
        assert at_ns <= arrived_ns
        assert n < 5 or abs(at_ns - (5_000_000_000 + made_ns + 3 * ms)) < 2.1 * ms
    assert clock.at_ns(0, 17) == 17
    assert clock.at_ns(5, arrived_ns + 20 * ms) == arrived_ns + 20 * ms, "a clock that was set back begins anew"


@pytest.mark.parametrize(
    ("value", "asked", "same"),
    [
        ("true", True, True),
        ("1", True, True),
        ("false", True, False),
        ("On", "On", True),
        ("Off", "On", False),
        ("800.4", 800.0, True),
        ("10000", 800.0, False),
        ("16", 16, True),
        ("0x10", 16, True),
        ("16.0", 16, True),
        ("17", 16, False),
        ("-", 16, False),
        ("nan", 1.0, False),
    ],
)
def test_what_is_read_back_is_compared_as_what_it_is(value: str, asked: bool | float | str, same: bool) -> None:
    assert told(value, asked) is same


@pytest.mark.parametrize(
    ("feature", "allowed", "takes", "refuses"),
    [
        (Feature("Width", "", "integer", "8", "px", 16, 64, (), 16), "16 to 64 px in steps of 16", [16, 48, 64], [0, 24, 65, 80]),
        (Feature("Exposure", "", "float", "8", "µs", 10.0, 1e7), "10 to 10000000 µs", [10.0, 10.1, 1e7], [9.9, 1.1e7]),
        (Feature("Gain", "", "float", "8", "", 0.0, 10.0), "0 to 10", [10.0 + 1e-12], [-0.1]),
        (Feature("Odd", "", "float", "8"), "", [-1e9, 1e9], []),
        (Feature("Swapped", "", "integer", "8", "", 5, 1, (), 1), "5 to 1", [0, 9], []),
        (Feature("Format", "", "enumeration", "A", values=("A", "B")), "A, B", [], []),
    ],
)
def test_a_number_lies_within_what_the_camera_allows(feature: Feature, allowed: str, takes: list[float], refuses: list[float]) -> None:
    assert feature.allowed == allowed
    assert all(feature.takes(number) for number in takes)
    assert not any(feature.takes(number) for number in refuses)


@pytest.mark.parametrize("name", ["Mono16p", "BayerRG16p", "Mono8Packed"])
def test_whole_bytes_are_never_packed(name: str) -> None:
    with pytest.raises(DeviceError, match=f"pixel format {name} is not known here"):
        PixelFormat(name, colour=False)
