"""A camera behind its maker's GenTL producer (a `.cti` file), through Harvesters: CoaXPress, frame grabbers, what Aravis cannot do.

A producer is foreign code in this process: it may hold the interpreter, hang or crash, and most of them can be loaded only once. So such a
camera belongs into a process of its own (`isolated: true` beside `source:`), which is killed when it hangs. Features are set by
their GenICam names, in the order of the file, and read back. Harvesters throws away what arrives damaged, which then shows as a
lost exposure.

    source:
      kind: gentl
      producer: /opt/maker/lib/producer.cti
      serial: "40123456"          # or device: its GenTL id; the only camera needs neither
      features: {Width: 2448, Height: 2048, PixelFormat: Mono8, ExposureTime: 800.0, TriggerMode: "On"}
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from inspector.config import Strict
from inspector.config.document import nearest
from inspector.conveyor.timed import Timed
from inspector.interfaces import Clock, Conveyor
from inspector.records import ConfigError, DeviceError, Stamp
from inspector.sources._genicam import CameraClock, Feature, Found, Numbering, PixelFormat, told

if TYPE_CHECKING:
    from inspector.records import Bytes1D


class Settings(Strict):
    """`serial` or `device` chooses among the producer's cameras; `stall_ms` without a picture means that it is gone (None: never)."""

    producer: Path
    serial: str | None = None
    device: str | None = None
    features: dict[str, bool | int | float | str] = Field(default={})
    colour: bool = False
    buffers: int = Field(default=6, ge=2, le=64)
    stall_ms: int | None = Field(default=2_000, ge=100, le=3_600_000)


def _module(name: str) -> Any:
    """A module of the extra `gentl`, loaded when a camera needs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError("E_EXTRA", f"GenTL cameras need {error.name}; pip install 'inspector[gentl]'") from error


@contextmanager
def _saying(who: str) -> Iterator[None]:
    """What GenApi and GenTL raise becomes a `DeviceError`."""
    genapi, gentl = _module("genicam.genapi"), _module("genicam.gentl")
    try:
        yield
    except (genapi.GenericException, gentl.GenericException) as error:
        raise DeviceError(f"{who}: {str(error).partition(' : ')[0]}") from error


def _harvester(producer: Path) -> Any:
    """A new one, with the producer's cameras listed."""
    core = _module("harvesters.core")
    if not producer.is_file():
        raise DeviceError(f"{producer}: there is no such GenTL producer")
    _refuse_other_libraries(producer)
    found = core.Harvester()
    with _saying(str(producer)):
        found.add_file(str(producer))
        found.update()
    return found


def _refuse_other_libraries(producer: Path) -> None:
    """Harvesters passes over what is no library without a word, and calls into one that has no GenTL in it."""
    try:
        library = producer.read_bytes()
    except OSError as error:
        raise DeviceError(f"{producer}: cannot be loaded: {error.strerror}") from error
    if not library.startswith(b"\x7fELF") or b"GCInitLib\0" not in library:
        raise DeviceError(f"{producer}: cannot be loaded: it is no GenTL producer")


class GenTlCamera:
    """The camera; see `interfaces.Source`."""

    def __init__(self, settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> None:
        self._settings, self._name, self._clock, self._conveyor = settings, name, clock, conveyor
        self._who = f"camera {name}"
        self._harvester = _harvester(settings.producer)
        self._acquirer: Any = None
        try:
            with _saying(self._who):
                self._acquirer = self._harvester.create(self._chosen())
                self._nodes = self._acquirer.remote_device.node_map
                for feature, value in settings.features.items():
                    self._set(feature, value)
                for feature, value in settings.features.items():
                    self._verify(feature, value)
                self._shape = int(self._nodes.Height.value), int(self._nodes.Width.value)
                self._format = PixelFormat(str(self._nodes.PixelFormat.value), colour=settings.colour)
                self._acquirer.num_buffers = settings.buffers
        except BaseException:
            self.close()
            raise
        rows, columns = self._shape
        self.max_bytes = rows * columns * (3 if self._format.colour else 1)
        self._numbering, self._camera_clock = Numbering(), CameraClock()
        self._started, self._alive_ns = False, clock()

    def _chosen(self) -> int:
        devices = self._harvester.device_info_list
        wanted = {"serial_number": self._settings.serial, "id_": self._settings.device}
        for number, device in enumerate(devices):
            if all(value is None or getattr(device, key) == value for key, value in wanted.items()):
                return number
        known = ", ".join(device.serial_number or device.id_ for device in devices)
        hint = "a producer shows them to one camera of a process only: isolated: true" if not devices else f"there is {known}"
        raise DeviceError(f"{self._who}: no such camera at {self._settings.producer.name}; {hint}")

    def _node(self, feature: str) -> Any:
        try:
            return getattr(self._nodes, feature)
        except AttributeError as error:
            known = [name for name in dir(self._nodes) if name[0].isupper()]
            raise DeviceError(f"{self._who} has no feature {feature}{nearest(feature, known)}") from error

    def _set(self, feature: str, value: bool | float | str) -> None:
        node = self._node(feature)
        with _saying(f"{self._who} refuses {feature}: {value}"):
            if hasattr(node, "execute"):
                node.execute()
            else:
                node.from_string(str(value).lower() if isinstance(value, bool) else str(value))

    def _verify(self, feature: str, value: bool | float | str) -> None:
        node = self._node(feature)
        if not hasattr(node, "execute") and not told(got := node.to_string(), value):
            raise DeviceError(f"{self._who}: {feature} is {got}, asked for {value}")

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The next picture, converted into `into`; a stall is a `DeviceError`."""
        with _saying(self._who):
            if not self._started:
                self._acquirer.start()
                self._started, self._alive_ns = True, self._clock()
            fetched = self._acquirer.try_fetch(timeout=timeout_s)
            if fetched is None:
                stall_ms = self._settings.stall_ms
                if stall_ms is not None and self._clock() - self._alive_ns > stall_ms * 1_000_000:
                    raise DeviceError(f"{self._who}: no picture for {stall_ms} ms")
                return None
            try:
                return self._stamped(fetched, into)
            finally:
                fetched.queue()

    def _stamped(self, fetched: Any, into: Bytes1D) -> Stamp:
        self._alive_ns = now_ns = self._clock()
        picture = fetched.payload.components[0]
        if (picture.height, picture.width) != self._shape or picture.data_format != self._format.name:
            raise DeviceError(f"{self._who} sends {picture.width} × {picture.height} {picture.data_format}, which it was not set to")
        shape = self._format.convert(picture.data.view("u1"), *self._shape, into)
        camera_ns, gentl = 0, _module("genicam.gentl")
        with suppress(gentl.GenericException):  # not every producer has a clock
            camera_ns = int(fetched.module.timestamp_ns)
        at_ns = self._camera_clock.at_ns(camera_ns, now_ns)
        return Stamp(self._name, self._numbering.of(int(fetched.module.frame_id)), at_ns, self._conveyor.counts(at_ns), shape)

    def described(self, category: Any = None) -> Iterator[Feature]:
        """Every feature with its value, in the camera's own order."""
        category = category or self._nodes.Root
        for node in category.features:
            kind = type(node).__name__
            if kind == "ICategory":
                yield from self.described(node)
            elif kind != "IRegister":
                yield _described(node, category.node.name)

    def close(self) -> None:
        """Let the camera and its producer go, however long that takes them."""
        harvester, self._harvester = self._harvester, None
        if harvester is None:
            return
        with suppress(DeviceError), _saying(self._who):
            if self._acquirer is not None:
                self._acquirer.stop()
                self._acquirer.destroy()
        with suppress(DeviceError), _saying(self._who):
            harvester.reset()


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> GenTlCamera:
    """The camera, set and proved to be set; raises `DeviceError` when it is not there or does not obey."""
    return GenTlCamera(settings, name, clock, conveyor)


def producers() -> list[Path]:
    """The producers in GENICAM_GENTL64_PATH, where their makers' installers put them. Any of them may crash who loads it."""
    _module("harvesters.core")
    folders = [Path(folder) for folder in os.environ.get("GENICAM_GENTL64_PATH", "").split(":") if folder]
    return sorted(path for folder in folders for path in folder.glob("*.cti"))


def devices_of(producer: Path) -> list[Found]:
    """The cameras behind a producer, which is loaded into this process. Raises `DeviceError` for what cannot be loaded."""
    harvester = _harvester(producer)
    try:
        return [
            Found(
                "gentl",
                each.vendor,
                each.model,
                each.serial_number,
                each.tl_type,
                {"producer": str(producer), "serial": each.serial_number},
            )
            for each in harvester.device_info_list
        ]
    finally:
        harvester.reset()


def features(settings: Settings) -> list[Feature]:
    """What the camera can be told and asked, as it is now; only `features` are set."""
    camera = build(settings, "camera", time.monotonic_ns, Timed(1.0))
    try:
        return list(camera.described())
    finally:
        camera.close()


def _described(node: Any, category: str) -> Feature:
    kind = type(node).__name__.removeprefix("I").lower()
    try:
        value = "" if kind == "command" else str(node.to_string())
        numeric = kind in ("integer", "float")
        low, high = (float(node.min), float(node.max)) if numeric else (None, None)
        unit = str(node.unit) if numeric else ""
        values = tuple(str(each) for each in node.symbolics) if kind == "enumeration" else ()
    except _module("genicam.genapi").GenericException:  # not to be had now, as some are while others are set
        return Feature(node.node.name, category, kind, "-")
    return Feature(node.node.name, category, kind, value, unit, low, high, values)
