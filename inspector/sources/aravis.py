"""A GigE Vision or USB3 Vision camera, through Aravis.

It is chosen by serial number, address or Aravis' own name for it, and everything that is set is read back: a camera that does not keep what
it was told is down, not wrong. The settings are read again now and then while pictures come, so that a camera that fell back to
its defaults without a word is noticed. Where its bytes need no converting (Mono8), the driver writes them into the ring itself.

Exposures carry the camera's own numbers and clock. What arrives damaged is an incomplete exposure; a camera that has lost us, or gives no
picture for `stall_ms`, is a `DeviceError`, and is built anew by whoever reads it. `counts` says what the driver saw.

    source:
      kind: aravis
      serial: "22345678"          # or address: 192.168.10.21, or device: Basler-22345678; `inspector camera list` shows them
      pixel_format: Mono8         # Mono, BayerXX, RGB, BGR of 8 to 16 bits, packed or not; what has more than 8 keeps its upper 8
      region_px: [0, 0, 2448, 2048]   # x, y, width, height; leave it away for the whole sensor
      exposure_us: 800.0
      gain: 0.0
      trigger: hardware           # free, software (fired by the belt's part sensor, or rate_hz), hardware
      trigger_line: Line1
      features: {BlackLevel: 16.0, LineDebouncerTime: 5.0}   # any GenICam feature by its name, set in this order
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from inspector.config import Strict
from inspector.config.document import nearest
from inspector.interfaces import Clock, Conveyor
from inspector.records import DeviceError, Stamp
from inspector.sources import _libaravis as lib
from inspector.sources._genicam import CameraClock, Feature, Found, Numbering, PixelFormat, told
from inspector.sources._libaravis import library
from inspector.sources._priority import going_first

if TYPE_CHECKING:
    from inspector.records import Bytes1D

STALL_MS = 2_000
SOCKET_PICTURES, LARGEST_ROOM_BYTES = 8, 64 << 20  # that the network may bring while nobody reads, two at least
SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>: beyond net.core.rmem_max, where this process may (CAP_NET_ADMIN)
SLICE_S = 0.002
LET_GO_S = 0.5
VERIFY_S = 5.0
DRIVER_COUNTS = {
    b"n_missing_packets": "packets_missing",
    b"n_resent_packets": "packets_resent",
    b"n_resend_requests": "resend_requests",
    b"n_underruns": "underruns",
}


class Settings(Strict):
    """One of `serial`, `address` and `device` chooses the camera. What is None stays as the camera has it.

    `trigger: software` fires for each part of `lane` that the belt's sensor sees, or `rate_hz` times a second. `buffers` pictures may be on
    their way at once. `packet_bytes` None lets the driver find the largest that the network carries. `chunks` asks for what the
    camera can write behind each picture: its number and time then count, and an exposure time that is not `exposure_us` is an error.
    `stall_ms` without a picture means that the camera is gone: 2 s where it runs freely; where no part is no picture, only if it is set.
    """

    serial: str | None = None
    address: str | None = None
    device: str | None = None
    pixel_format: str = "Mono8"
    colour: bool = False
    region_px: tuple[int, int, int, int] | None = None
    exposure_us: float | None = Field(default=None, gt=0)
    gain: float | None = None
    rate_hz: float | None = Field(default=None, gt=0, le=10_000)
    trigger: Literal["free", "software", "hardware"] = "free"
    trigger_line: str = "Line1"
    lane: int = Field(default=0, ge=0, le=255)
    features: dict[str, bool | int | float | str] = Field(default={})
    chunks: list[Literal["FrameID", "Timestamp", "ExposureTime"]] = Field(default=[])
    buffers: int = Field(default=6, ge=2, le=64)
    packet_bytes: int | None = Field(default=None, ge=576, le=16_384)
    packet_delay_ns: int | None = Field(default=None, ge=0)
    resend: bool = True
    stall_ms: int | None = Field(default=None, ge=100, le=3_600_000)

    @model_validator(mode="after")
    def _one(self) -> Settings:
        if sum(way is not None for way in (self.serial, self.address, self.device)) != 1:
            raise ValueError("give one of serial, address and device; `inspector camera list` shows them")
        if self.trigger == "hardware" and self.rate_hz is not None:
            raise ValueError("a camera with a hardware trigger has no rate_hz of its own")
        return self


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that was set: its name, what was asked for, and how it is read back."""

    name: str
    asked: bool | float | str
    read: Callable[[], str]


class Device:
    """An open camera: what it is told and asked. `DeviceError` when it does not answer or does not obey."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._lib, self._name = library(), name
        self.handle: int = self._said("cannot be opened", self._lib.camera_new, _id_of(settings, name).encode())
        self._device: int = self._lib.camera_get_device(self.handle)
        self._lost = self._lib.count_signal(self._device, "control-lost")
        self.is_gige = bool(self._lib.camera_is_gv_device(self.handle))

    @property
    def lost(self) -> bool:
        """Somebody else controls the camera now, or nobody does: it answers no longer."""
        return self._lost.value > 0

    @property
    def controls(self) -> bool:
        """It may be told something; a GigE Vision camera lets everybody ask, and one program tell."""
        return not self.is_gige or bool(self._lib.gv_device_is_controller(self._device))

    def call(self, function: str, *arguments: Any) -> Any:
        """`arv_camera_<function>`."""
        return self._said(f"refuses {function}", getattr(self._lib, f"camera_{function}"), self.handle, *arguments)

    def _said(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except DeviceError as error:
            raise DeviceError(f"camera {self._name} {what}: {error}") from error

    def configure(self, settings: Settings) -> list[Kept]:
        """Set everything in the order in which one setting allows the next, and read it back; returns what must stay so."""
        if not self.controls:
            raise DeviceError(f"E_CAM_ACCESS camera {self._name}: another program controls it")
        if self.is_gige:
            self._network(settings)
        kept = [*self._picture(settings), *self._timing(settings)]
        for feature, value in settings.features.items():
            kept += self._feature(feature, value)
        if settings.chunks:
            self.call("set_chunks", ",".join(settings.chunks).encode())
        for each in kept:
            self.verify(each)
        return kept

    def verify(self, kept: Kept) -> None:
        """`DeviceError` when the camera no longer has what it was told."""
        got = kept.read()
        if not told(got, kept.asked):
            raise DeviceError(f"camera {self._name}: {kept.name} is {got}, asked for {kept.asked}")

    def _network(self, settings: Settings) -> None:
        if settings.packet_bytes is None:
            self.call("gv_auto_packet_size")
        else:
            self.call("gv_set_packet_size", settings.packet_bytes)
        if settings.packet_delay_ns is not None:
            self.call("gv_set_packet_delay", settings.packet_delay_ns)
        if self._lib.is_loopback(self._device):
            self._lib.camera_gv_set_stream_options(self.handle, lib.NO_PACKET_SOCKET)  # such sockets are shown nothing there

    def _picture(self, settings: Settings) -> Iterator[Kept]:
        self.call("set_pixel_format_from_string", settings.pixel_format.encode())
        yield Kept("PixelFormat", settings.pixel_format, lambda: str(self.call("get_pixel_format_as_string").decode()))
        if settings.region_px is not None:
            self._region(*settings.region_px)
            for place, (key, value) in enumerate(zip(("OffsetX", "OffsetY", "Width", "Height"), settings.region_px, strict=True)):
                yield Kept(key, value, partial(lambda place: str(self.region_px()[place]), place))
        yield from self._number("exposure_time", settings.exposure_us, "µs")
        yield from self._number("gain", settings.gain)

    def _region(self, x: int, y: int, width: int, height: int) -> None:
        self.call("set_region", 0, 0, -1, -1)  # what lies beside the picture is room that it might take
        self._check(self._described("Width", ""), width)
        self._check(self._described("Height", ""), height)
        self.call("set_region", -1, -1, width, height)
        self._check(self._described("OffsetX", ""), x)
        self._check(self._described("OffsetY", ""), y)
        self.call("set_region", x, y, -1, -1)

    def _number(self, feature: str, number: float | None, unit: str = "") -> Iterator[Kept]:
        """Set what cameras call differently, and Aravis alike."""
        if number is None:
            return
        if not self.call(f"is_{feature}_available"):
            raise DeviceError(f"E_CAM_FEATURE camera {self._name} has no feature for {feature}")
        low, high = ctypes.c_double(-np.inf), ctypes.c_double(np.inf)
        with suppress(DeviceError):  # some do not say
            self.call(f"get_{feature}_bounds", ctypes.byref(low), ctypes.byref(high))
        self._check(Feature(feature, "", "float", "", unit, low.value, high.value), number)
        self.call(f"set_{feature}", number)
        yield Kept(feature, number, lambda: str(self.call(f"get_{feature}")))

    def _check(self, feature: Feature, number: float) -> None:
        """The camera's own limits, before it is told: not every camera refuses what it cannot do."""
        if not feature.takes(number):
            raise DeviceError(f"E_CAM_RANGE camera {self._name}: {feature.name}: {number:.10g}; allowed: {feature.allowed}")

    def _timing(self, settings: Settings) -> Iterator[Kept]:
        self.call("set_acquisition_mode", lib.CONTINUOUS)
        if settings.trigger == "free":
            self.call("clear_triggers")
            yield from self._number("frame_rate", settings.rate_hz, "Hz")
        else:
            source = "Software" if settings.trigger == "software" else settings.trigger_line
            self.call("set_trigger", source.encode())
            yield Kept("TriggerSource", source, lambda: str(self.call("get_trigger_source").decode()))
        if self._lib.device_get_feature(self._device, b"TriggerMode"):
            yield Kept("TriggerMode", "Off" if settings.trigger == "free" else "On", lambda: self._text("TriggerMode"))

    def _feature(self, feature: str, value: bool | float | str) -> Iterator[Kept]:
        node = self._lib.device_get_feature(self._device, feature.encode())
        if not node:
            known = nearest(feature, [each.name for each in self.features()])
            raise DeviceError(f"E_CAM_FEATURE camera {self._name} has no feature {feature}{known}")
        if self._lib.kind_of(node) == "command":
            self._said(f"refuses {feature}", self._lib.device_execute_command, self._device, feature.encode())
            return
        text, described = str(value).lower() if isinstance(value, bool) else str(value), self._described(feature, "")
        if not isinstance(value, (bool, str)):
            self._check(described, value)
        try:
            self._lib.gc_feature_node_set_value_from_string(node, text.encode())
        except DeviceError as error:
            allowed = f"; allowed: {described.allowed}" if described.allowed else ""
            raise DeviceError(f"camera {self._name} refuses {feature}: {text}: {error}{allowed}") from error
        yield Kept(feature, value, partial(self._text, feature))

    def _text(self, feature: str) -> str:
        node = self._lib.device_get_feature(self._device, feature.encode())
        found: bytes | None = self._said(f"does not tell {feature}", self._lib.gc_feature_node_get_value_as_string, node)
        return (found or b"").decode(errors="replace")

    def region_px(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the pictures."""
        numbers = [ctypes.c_int() for _ in range(4)]
        self.call("get_region", *(ctypes.byref(number) for number in numbers))
        x, y, width, height = (number.value for number in numbers)
        return x, y, width, height

    def features(self, category: str = "Root") -> Iterator[Feature]:
        """Everything that the camera can be told and asked, in its own order."""
        genicam = self._lib.device_get_genicam(self._device)
        root = self._lib.gc_get_node(genicam, category.encode())
        for name in self._lib.names_in(root) if root else ():
            node = self._lib.gc_get_node(genicam, name.encode())
            if node and self._lib.kind_of(node) == "category":
                yield from self.features(name)
            elif node and self._lib.kind_of(node):
                yield self._described(name, category)

    def _described(self, name: str, category: str) -> Feature:
        node = self._lib.device_get_feature(self._device, name.encode())
        kind, value, unit, bounds = self._lib.kind_of(node), "", b"", (None, None)
        values: tuple[str, ...] = ()
        step = None
        try:
            if kind != "command":
                value = self._text(name)
            if kind in ("integer", "float"):
                number: Any = ctypes.c_int64 if kind == "integer" else ctypes.c_double
                low, high = number(), number()
                getattr(self._lib, f"device_get_{kind}_feature_bounds")(self._device, name.encode(), ctypes.byref(low), ctypes.byref(high))
                if kind == "integer":
                    step = self._lib.device_get_integer_feature_increment(self._device, name.encode())
                bounds, unit = (low.value, high.value), getattr(self._lib, f"gc_{kind}_get_unit")(node)
            elif kind == "enumeration":
                values = tuple(self._lib.values_of(self._device, name))
        except DeviceError:  # not to be had now, as some are while others are set
            value = value or "-"
        return Feature(name, category, kind, value, (unit or b"").decode(errors="replace"), *bounds, values, step)

    def let_go(self, things: Sequence[int] = (), *, silent: bool = False) -> None:
        """Close it, and with it what was made of it. This tells the camera, and waits for seconds for one that is `silent`."""
        if not silent and self.controls:
            with suppress(DeviceError):
                self._lib.camera_stop_acquisition(self.handle)
        for thing in (*things, self.handle):
            self._lib.unref(thing)


def widen(port: int, room_bytes: int) -> bool:
    """Give our socket at this UDP port its room now, and say whether it was found: libaravis does so at the first packet, which may cost
    the first picture, and no further than net.core.rmem_max.
    """
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if not entry.is_socket():
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as found:
                if (found.family, found.type) == (socket.AF_INET, socket.SOCK_DGRAM) and found.getsockname()[1] == port:
                    with suppress(PermissionError):
                        found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, room_bytes)
                        return True
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
                    return True
    return False


class AravisCamera:
    """The camera; see `interfaces.Source` and, for formats that need no converting, `interfaces.FillsAhead`."""

    def __init__(self, settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> None:
        self._settings, self._name, self._clock, self._conveyor = settings, name, clock, conveyor
        self._lib, self._format = library(), PixelFormat(settings.pixel_format, colour=settings.colour)
        self._device = Device(settings, name)
        self._stream: int | None = None
        self._chunks: int | None = None
        self._taken: set[int] = set()  # the buffers that are not with the driver
        self._closed = self._silent = False
        try:
            self._kept = self._device.configure(settings)
            _, _, self._width, self._height = self._device.region_px()
            self._payload = int(self._device.call("get_payload"))
            self._stream = self._opened()
            if settings.chunks:
                self._chunks = self._lib.camera_create_chunk_parser(self._device.handle)
        except BaseException:
            self.close()
            raise
        self.max_bytes = int(np.prod(self._format.shape(self._height, self._width)))
        self.ahead = settings.buffers if self._format.direct else 0
        if self.ahead:
            self.max_bytes = max(self.max_bytes, self._payload)
        self.counts: Mapping[str, int] = {}
        self._incomplete = 0
        self._memory: dict[int, tuple[int, Bytes1D]] = {}  # the driver's buffers by their handles: slot and bytes
        self._handles: dict[int, int] = {}  # and by their slots
        self._numbering, self._camera_clock = Numbering(), CameraClock()
        self._started = False
        now_ns = clock()
        self._alive_ns = self._asked_ns = self._verified_ns = self._counted_ns = now_ns
        self._next_ns: int | None = None  # of our own triggers
        self._verify_next = 0

    def _opened(self) -> int:
        with going_first():
            stream = self._device.call("create_stream", None, None)
        if not stream:
            raise DeviceError(f"camera {self._name} gives no stream")
        if self._device.is_gige:
            room_bytes = max(2 * self._payload, min(SOCKET_PICTURES * self._payload, LARGEST_ROOM_BYTES))
            is_wide = widen(self._lib.gv_stream_get_port(stream), room_bytes)
            self._lib.set_property(stream, "socket-buffer", lib.SOCKET_BUFFER_FIXED)
            self._lib.set_property(stream, "socket-buffer-size", 0 if is_wide else room_bytes)  # 0: it stays as it is
            self._lib.set_property(stream, "packet-resend", lib.RESEND_ALWAYS if self._settings.resend else lib.RESEND_NEVER)
        return int(stream)

    # -- the driver fills the ring's slots

    def give(self, slot: int, into: Bytes1D) -> None:
        """The slot is the driver's; see `interfaces.FillsAhead`."""
        handle = self._handles.get(slot)
        if handle is None:
            handle = int(self._lib.buffer_new(len(into), into.ctypes.data))
            self._memory[handle], self._handles[slot] = (slot, into), handle
        self._push(handle)

    def _push(self, handle: int) -> None:
        self._taken.discard(handle)
        self._lib.buffer_set_frame_id(handle, 0)  # else an exposure whose first packet is lost would have its predecessor's number
        self._lib.stream_push_buffer(self._stream, handle)

    def take(self, timeout_s: float) -> tuple[int, Stamp] | None:
        """The slot that was filled next."""
        handle = self._pop(timeout_s)
        if handle is None:
            return None
        self._taken.add(handle)
        slot, raw = self._memory[handle]
        stamp = self._stamped(handle)
        if stamp.complete:
            self._close_up(handle, raw)
        return slot, stamp

    # -- or it is read

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The next picture, converted into `into`; an exposure that came damaged leaves there what it likes."""
        if not self._memory:
            for slot in range(self._settings.buffers):
                self.give(slot, np.empty(self._payload, np.uint8))
        handle = self._pop(timeout_s)
        if handle is None:
            return None
        try:
            stamp = self._stamped(handle)
            if stamp.complete:
                _, raw = self._memory[handle]
                self._close_up(handle, raw)
                self._format.convert(raw, self._height, self._width, into)
            return stamp
        finally:
            self._push(handle)

    # -- both

    def _pop(self, timeout_s: float) -> int | None:
        """The next buffer that the driver has finished, whole or not, if it has a number."""
        if not self._started:
            self._device.call("start_acquisition")
            self._started, self._alive_ns = True, self._clock()
        until_ns = self._clock() + round(timeout_s * 1e9)
        while True:
            self._fire()
            left_ns = max(0, until_ns - self._clock())
            wait_ns = left_ns if self._settings.trigger != "software" else min(left_ns, round(SLICE_S * 1e9))
            handle = self._lib.stream_timeout_pop_buffer(self._stream, wait_ns // 1000)
            if handle:
                self._alive_ns = self._clock()
                whole = self._lib.buffer_get_status(handle) == lib.SUCCESS
                self._incomplete += not whole
                if whole or self._lib.buffer_get_frame_id(handle):
                    return int(handle)
                self._push(handle)  # nobody knows which exposure that was; the next one shows the gap
            if self._device.lost:
                self._silent = True
                raise DeviceError(f"camera {self._name}: control lost")
            if left_ns == 0:
                self._look_after(None)
                return None

    def _fire(self) -> None:
        """Trigger by software for what the belt's sensor has seen since the last time, or by the clock."""
        if self._settings.trigger != "software":
            return
        now_ns = self._clock()
        if self._settings.rate_hz is not None:
            self._next_ns = self._next_ns or now_ns
            due = now_ns >= self._next_ns
            if due:
                self._next_ns = max(now_ns, self._next_ns + round(1e9 / self._settings.rate_hz))
        else:
            due = any(t.lane == self._settings.lane for t in self._conveyor.triggers(self._asked_ns, now_ns))
            self._asked_ns = now_ns
        if due:
            self._device.call("software_trigger")

    def _look_after(self, handle: int | None) -> None:
        """Judge by the clock: whether the camera still gives pictures, still has its settings; and what the driver counted."""
        now_ns = self._clock()
        stall_ms = self._settings.stall_ms
        if stall_ms is None and self._settings.trigger == "free":
            stall_ms = STALL_MS
        if handle is None and stall_ms is not None and now_ns - self._alive_ns > stall_ms * 1_000_000:
            self._silent = True
            raise DeviceError(f"camera {self._name}: no picture for {stall_ms} ms")
        if handle is not None and self._kept and now_ns - self._verified_ns > VERIFY_S * 1e9:
            self._verified_ns = now_ns
            self._device.verify(self._kept[self._verify_next % len(self._kept)])
            self._verify_next += 1
        if now_ns - self._counted_ns > 1e9:
            self._counted_ns = now_ns
            driver = {ours: self._lib.stream_get_info_uint64_by_name(self._stream, theirs) for theirs, ours in DRIVER_COUNTS.items()}
            self.counts = {"incomplete": self._incomplete} | driver

    def _stamped(self, handle: int) -> Stamp:
        self._look_after(handle)
        whole = self._lib.buffer_get_status(handle) == lib.SUCCESS
        height, width = self._height, self._width
        if whole:
            height, width = self._lib.buffer_get_image_height(handle), self._lib.buffer_get_image_width(handle)
        if (height, width) != (self._height, self._width):
            raise DeviceError(f"camera {self._name} sends {width} × {height} pixels, was set to {self._width} × {self._height}")
        camera_ns, frame_id = self._lib.buffer_get_timestamp(handle), self._lib.buffer_get_frame_id(handle)
        if whole and self._lib.buffer_has_chunks(handle):
            camera_ns, frame_id = self._chunk("Timestamp", handle, camera_ns), self._chunk("FrameID", handle, frame_id)
            self._exposed(handle)
        now_ns = self._clock()
        arrived_ns = min(now_ns, now_ns - time.time_ns() + self._lib.buffer_get_system_timestamp(handle))
        at_ns = self._camera_clock.at_ns(camera_ns, arrived_ns) - round((self._settings.exposure_us or 0.0) * 1e3)
        counts = self._conveyor.counts(at_ns)
        return Stamp(self._name, self._numbering.of(frame_id), at_ns, counts, self._format.shape(height, width), whole)

    def _chunk(self, name: str, handle: int, otherwise: int) -> int:
        if name not in self._settings.chunks:
            return otherwise
        return int(self._lib.chunk_parser_get_integer_value(self._chunks, handle, f"Chunk{name}".encode()))

    def _exposed(self, handle: int) -> None:
        asked = self._settings.exposure_us
        if asked is None or "ExposureTime" not in self._settings.chunks:
            return
        got = float(self._lib.chunk_parser_get_float_value(self._chunks, handle, b"ChunkExposureTime"))
        if not told(str(got), asked):
            raise DeviceError(f"camera {self._name} exposed {got:g} µs, asked for {asked:g}")

    def _close_up(self, handle: int, raw: Bytes1D) -> None:
        """Some cameras pad their rows; close the gaps."""
        padding, below = ctypes.c_int(), ctypes.c_int()
        self._lib.buffer_get_image_padding(handle, ctypes.byref(padding), ctypes.byref(below))
        if padding.value > 0:
            height, row = self._height, self._format.bytes_of(1, self._width)
            padded = raw[: height * (row + padding.value)].reshape(height, -1)
            raw[: height * row] = padded[:, :row].reshape(-1)  # which copies

    def close(self) -> None:
        """End the driver's writing now; the camera itself is let go by a thread, because that may take seconds."""
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._lib.stream_stop_thread(self._stream)  # some 30 ms, whatever the camera does
        things = [thing for thing in (self._stream, self._chunks, *self._taken) if thing is not None]
        threading.Thread(target=self._device.let_go, args=(things,), kwargs={"silent": self._silent}, name=_closing(self._name)).start()


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> AravisCamera:
    """The camera, set and proved to be set; raises `DeviceError` when it is not there or does not obey."""
    for closing in (thread for thread in threading.enumerate() if thread.name == _closing(name)):
        closing.join(LET_GO_S)
        if closing.is_alive():  # its last words would take control from us again
            raise DeviceError(f"camera {name} is still being let go")
    return AravisCamera(settings, name, clock, conveyor)


def _closing(name: str) -> str:
    return f"aravis-close-{name}"


def devices() -> list[Found]:
    """The cameras that answer now; takes a second."""
    found, arv = [], library()
    arv.update_device_list()
    for i in range(arv.get_n_devices()):
        words = (getattr(arv, f"get_device_{what}")(i) for what in ("vendor", "model", "serial_nbr", "address", "id"))
        vendor, model, serial, address, identity = ((word or b"").decode(errors="replace") for word in words)
        select = {"serial": serial} if serial else {"device": identity}
        found.append(Found("aravis", vendor, model, serial, address, select))
    return found


def features(settings: Settings) -> list[Feature]:
    """What the camera can be told and asked, as it is now; nothing is set."""
    device = Device(settings, "camera")
    try:
        return list(device.features())
    finally:
        device.let_go()


def _id_of(settings: Settings, name: str) -> str:
    """What Aravis opens a camera by: its own name for it, or its address."""
    if settings.serial is None:
        return str(settings.device or settings.address)
    arv = library()
    arv.update_device_list()
    known = {(arv.get_device_serial_nbr(i) or b"").decode(): arv.get_device_id(i).decode() for i in range(arv.get_n_devices())}
    if settings.serial not in known:
        raise DeviceError(f"camera {name}: no camera with serial {settings.serial} answers; {', '.join(known) or 'none'} does")
    return str(known[settings.serial])
