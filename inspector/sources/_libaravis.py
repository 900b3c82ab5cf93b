"""The part of libaravis 0.8 that cameras need, through ctypes: GigE Vision and USB3 Vision without a module to build.

libaravis (LGPL-2.1) is the system's own shared library, Debian package libaravis-0.8-0. Calls release the interpreter lock, so a device
that does not answer delays nobody else. What a function says by GError becomes a `DeviceError`.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from functools import cache
from typing import Any

from inspector.records import ConfigError, DeviceError

SUCCESS = 0
CONTINUOUS = 0
NO_PACKET_SOCKET = 1
SOCKET_BUFFER_FIXED = 0
RESEND_NEVER, RESEND_ALWAYS = 0, 1
_SWAPPED = 2  # G_CONNECT_SWAPPED

_P, _S, _I, _U, _D, _L = c.c_void_p, c.c_char_p, c.c_int, c.c_uint, c.c_double, c.c_uint64
_FAILING: dict[str, tuple[Any, ...]] = {
    "arv_camera_new": (_P, _S),
    "arv_camera_set_region": (None, _P, _I, _I, _I, _I),
    "arv_camera_get_region": (None, _P, _P, _P, _P, _P),
    "arv_camera_set_pixel_format_from_string": (None, _P, _S),
    "arv_camera_get_pixel_format": (c.c_uint32, _P),
    "arv_camera_get_pixel_format_as_string": (_S, _P),
    "arv_camera_set_exposure_time": (None, _P, _D),
    "arv_camera_get_exposure_time": (_D, _P),
    "arv_camera_set_gain": (None, _P, _D),
    "arv_camera_get_gain": (_D, _P),
    "arv_camera_is_exposure_time_available": (_I, _P),
    "arv_camera_get_exposure_time_bounds": (None, _P, _P, _P),
    "arv_camera_is_gain_available": (_I, _P),
    "arv_camera_get_gain_bounds": (None, _P, _P, _P),
    "arv_camera_is_frame_rate_available": (_I, _P),
    "arv_camera_get_frame_rate_bounds": (None, _P, _P, _P),
    "arv_camera_set_frame_rate": (None, _P, _D),
    "arv_camera_get_frame_rate": (_D, _P),
    "arv_camera_set_acquisition_mode": (None, _P, _I),
    "arv_camera_set_trigger": (None, _P, _S),
    "arv_camera_get_trigger_source": (_S, _P),
    "arv_camera_clear_triggers": (None, _P),
    "arv_camera_software_trigger": (None, _P),
    "arv_camera_get_payload": (_U, _P),
    "arv_camera_gv_set_packet_size": (None, _P, _I),
    "arv_camera_gv_get_packet_size": (_U, _P),
    "arv_camera_gv_auto_packet_size": (_U, _P),
    "arv_camera_gv_set_packet_delay": (None, _P, c.c_int64),
    "arv_camera_set_chunks": (None, _P, _S),
    "arv_camera_create_stream": (_P, _P, _P, _P),
    "arv_camera_start_acquisition": (None, _P),
    "arv_camera_stop_acquisition": (None, _P),
    "arv_chunk_parser_get_integer_value": (c.c_int64, _P, _P, _S),
    "arv_chunk_parser_get_float_value": (_D, _P, _P, _S),
    "arv_device_execute_command": (None, _P, _S),
    "arv_device_get_integer_feature_bounds": (None, _P, _S, _P, _P),
    "arv_device_get_integer_feature_increment": (c.c_int64, _P, _S),
    "arv_device_get_float_feature_bounds": (None, _P, _S, _P, _P),
    "arv_device_dup_available_enumeration_feature_values_as_strings": (_P, _P, _S, _P),
    "arv_gc_feature_node_get_value_as_string": (_S, _P),
    "arv_gc_feature_node_set_value_from_string": (None, _P, _S),
}
_PLAIN: dict[str, tuple[Any, ...]] = {
    "arv_update_device_list": (None,),
    "arv_get_n_devices": (_U,),
    "arv_get_device_id": (_S, _U),
    "arv_get_device_serial_nbr": (_S, _U),
    "arv_get_device_vendor": (_S, _U),
    "arv_get_device_model": (_S, _U),
    "arv_get_device_address": (_S, _U),
    "arv_get_device_protocol": (_S, _U),
    "arv_camera_get_device": (_P, _P),
    "arv_camera_is_gv_device": (_I, _P),
    "arv_camera_create_chunk_parser": (_P, _P),
    "arv_camera_gv_set_stream_options": (None, _P, _I),
    "arv_gv_device_get_device_address": (_P, _P),
    "arv_gv_device_is_controller": (_I, _P),
    "arv_gv_stream_get_port": (c.c_uint16, _P),
    "arv_device_get_feature": (_P, _P, _S),
    "arv_device_get_genicam": (_P, _P),
    "arv_gc_get_node": (_P, _P, _S),
    "arv_gc_category_get_type": (c.c_size_t,),
    "arv_gc_category_get_features": (_P, _P),
    "arv_gc_command_get_type": (c.c_size_t,),
    "arv_gc_enumeration_get_type": (c.c_size_t,),
    "arv_gc_boolean_get_type": (c.c_size_t,),
    "arv_gc_float_get_type": (c.c_size_t,),
    "arv_gc_float_get_unit": (_S, _P),
    "arv_gc_integer_get_type": (c.c_size_t,),
    "arv_gc_integer_get_unit": (_S, _P),
    "arv_gc_string_get_type": (c.c_size_t,),
    "arv_buffer_new": (_P, c.c_size_t, _P),
    "arv_buffer_get_status": (_I, _P),
    "arv_buffer_get_frame_id": (_L, _P),
    "arv_buffer_set_frame_id": (None, _P, _L),
    "arv_buffer_get_timestamp": (_L, _P),
    "arv_buffer_get_system_timestamp": (_L, _P),
    "arv_buffer_get_image_width": (_I, _P),
    "arv_buffer_get_image_height": (_I, _P),
    "arv_buffer_get_image_pixel_format": (c.c_uint32, _P),
    "arv_buffer_get_image_padding": (None, _P, _P, _P),
    "arv_buffer_has_chunks": (_I, _P),
    "arv_stream_push_buffer": (None, _P, _P),
    "arv_stream_timeout_pop_buffer": (_P, _P, _L),
    "arv_stream_get_info_uint64_by_name": (_L, _P, _S),
    "arv_stream_stop_thread": (None, _P),
}


_CRITICAL = 1 << 3
_LOG_HANDLER = c.CFUNCTYPE(None, _S, _I, _S, _P)


class _Error(c.Structure):
    _fields_ = (("domain", c.c_uint32), ("code", _I), ("message", _S))


class _Names(c.Structure):
    """GSList."""


_Names._fields_ = [("data", _P), ("next", c.POINTER(_Names))]  # how ctypes declares what holds itself


class Library:
    """libaravis and the little of GObject around it; every function by its own name without `arv_`."""

    def __init__(self) -> None:
        try:
            names = ("aravis-0.8", "gobject-2.0", "glib-2.0", "gio-2.0")
            self._arv, self._gobject, self._glib, self._gio = (c.CDLL(f"lib{name}.so.0") for name in names)
        except OSError as error:
            raise ConfigError(
                "E_EXTRA", f"GigE Vision and USB3 Vision need libaravis: apt-get install libaravis-0.8-0 ({error})"
            ) from error
        for name, (result, *arguments) in _PLAIN.items():
            function = getattr(self._arv, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("arv_"), function)
        for name, (result, *arguments) in _FAILING.items():
            setattr(self, name.removeprefix("arv_"), self._failing(getattr(self._arv, name), result, arguments))
        self.unref: Any = self._gobject.g_object_unref
        self.unref.restype, self.unref.argtypes = None, [_P]
        self._is_a = self._gobject.g_type_check_instance_is_a
        self._is_a.restype, self._is_a.argtypes = _I, [_P, c.c_size_t]
        self._connect = self._gobject.g_signal_connect_data
        self._connect.restype, self._connect.argtypes = c.c_ulong, [_P, _S, _P, _P, _P, _I]
        self._glib.g_error_free.restype, self._glib.g_error_free.argtypes = None, [_P]
        self._glib.g_free.restype, self._glib.g_free.argtypes = None, [_P]
        self._gio.g_inet_socket_address_get_address.restype, self._gio.g_inet_socket_address_get_address.argtypes = _P, [_P]
        self._gio.g_inet_address_get_is_loopback.restype, self._gio.g_inet_address_get_is_loopback.argtypes = _I, [_P]

        self._logging = _LOG_HANDLER(self._log)
        self._glib.g_log_set_handler(None, _CRITICAL, self._logging, None)

    def _log(self, domain: bytes | None, level: int, message: bytes, _data: int | None) -> None:
        """Pass on what the library complains of, but for streams whose thread was stopped before they end, which we do on purpose."""
        if b"stop_thread: assertion" not in message:
            self._glib.g_log_default_handler(domain, level, message, None)

    def __getattr__(self, name: str) -> Any:  # only so that the type checker knows that there are more
        raise AttributeError(name)

    def _failing(self, function: Any, result: Any, arguments: list[Any]) -> Any:
        function.restype, function.argtypes = result, [*arguments, _P]

        def call(*given: Any) -> Any:
            error = c.POINTER(_Error)()
            answer = function(*given, c.byref(error))
            if error:
                text = (error.contents.message or b"").decode(errors="replace")
                self._glib.g_error_free(error)
                raise DeviceError(text)
            return answer

        return call

    def set_property(self, thing: int, name: str, value: int) -> None:
        """An integer, boolean or enumeration property of a GObject."""
        self._gobject.g_object_set(_P(thing), name.encode(), _I(value), None)

    def count_signal(self, thing: int, name: str) -> c.c_int:
        """A number that grows by one with each such signal, whatever thread it comes from; keep it as long as the thing lives.

        GLib's own atomic increment is the handler: no Python runs in the driver's threads.
        """
        number = c.c_int(0)
        self._connect(thing, name.encode(), c.cast(self._glib.g_atomic_int_inc, _P), c.addressof(number), None, _SWAPPED)
        return number

    def is_loopback(self, device: int) -> bool:
        """The GigE Vision camera is on this machine itself."""
        address = self._gio.g_inet_socket_address_get_address(self.gv_device_get_device_address(device))
        return bool(self._gio.g_inet_address_get_is_loopback(address))

    def kind_of(self, node: int) -> str:
        """command, enumeration, boolean, float, integer, string or category; empty for what is no feature with a value."""
        for kind in ("category", "command", "enumeration", "boolean", "float", "integer", "string"):
            if self._is_a(node, getattr(self, f"gc_{kind}_get_type")()):
                return kind
        return ""

    def values_of(self, device: int, feature: str) -> list[str]:
        """What an enumeration may be now."""
        count = _U()
        found = self.device_dup_available_enumeration_feature_values_as_strings(device, feature.encode(), c.byref(count))
        values = [text.decode() for text in c.cast(found, c.POINTER(_S))[: count.value]] if found else []
        self._glib.g_free(found)
        return values

    def names_in(self, category: int) -> Iterator[str]:
        """The names of a category's features, in the camera's own order."""
        item = c.cast(self.gc_category_get_features(category), c.POINTER(_Names))
        while item:
            yield c.cast(item.contents.data, _S).value.decode()  # type: ignore[union-attr]
            item = item.contents.next


@cache
def library() -> Library:
    """The library, loaded once; `ConfigError` E_EXTRA says what to install."""
    return Library()
