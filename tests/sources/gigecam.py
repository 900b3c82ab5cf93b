"""A real GigE Vision camera without hardware: libaravis' own fake camera, a process, with pictures of ours inside it.

`python -m tests.sources.gigecam INTERFACE SERIAL [lit]`: every picture is a ramp that begins at its number, so that whoever receives it can
tell which one it is and whether it is whole. With `lit` it is a scene: stripes, the brighter the longer the exposure, white at 2 ms.
"""

from __future__ import annotations

import contextlib
import ctypes as c
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspector.records import ConfigError

REPOSITORY = Path(__file__).parents[2]
BIT_PRIME = 251
PR_SET_PDEATHSIG = 1


def pattern(number: int, size: int) -> NDArray[np.uint8]:
    """The bytes of picture `number`."""
    return ((np.arange(size) + number) % BIT_PRIME).astype(np.uint8)


def number_of(picture: NDArray[np.uint8]) -> int | None:
    """Which picture this is, modulo 251; None when it is not whole."""
    flat = picture.reshape(-1)
    return int(flat[0]) if np.array_equal(flat, pattern(int(flat[0]), flat.size)) else None


def missing() -> str | None:
    """Why there can be no such camera here."""
    from inspector.sources._libaravis import library

    try:
        library()
    except ConfigError as error:
        return str(error)
    return None


def without_namespaces() -> str | None:
    """Why there can be no network namespaces here."""
    if os.getuid() != 0 or not shutil.which("ip") or not shutil.which("unshare") or not shutil.which("nsenter"):
        return "network namespaces need root, iproute2 and util-linux"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "no network namespaces here"


class Camera:
    """The camera's process; it can be killed, stopped and started again under the same name."""

    def __init__(self, interface: str, serial: str, *words: str, inside: int | None = None) -> None:
        self.serial, self.device = serial, f"Aravis-Fake-{serial}"
        self._command = [sys.executable, "-m", "tests.sources.gigecam", interface, serial, *words]
        if inside is not None:
            self._command = ["nsenter", "-t", str(inside), "-n", *self._command]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def on_loopback(serial: str, *words: str) -> Iterator[Camera]:
    """One camera at 127.0.0.1; there can be no second one."""
    camera = Camera("127.0.0.1", serial, *words)
    try:
        yield camera
    finally:
        camera.kill()


@contextlib.contextmanager
def in_namespaces(count: int, subnet: int = 40) -> Iterator[list[Camera]]:
    """Cameras with a network interface each: 169.254.<subnet + n>.2 at the other end of a cable that begins here."""
    with contextlib.ExitStack() as stack:
        cameras = []
        for n in range(count):
            here, there = f"ic{os.getpid() % 10000}x{n}", f"id{os.getpid() % 10000}x{n}"
            space = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
            stack.callback(space.wait)
            stack.callback(space.kill)
            while Path(f"/proc/{space.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
                time.sleep(0.01)
            _ip(f"link add {here} type veth peer name {there}")
            stack.callback(subprocess.run, ["ip", "link", "del", here], check=False, capture_output=True)
            _ip(f"link set {there} netns {space.pid}")
            _ip(f"addr add 169.254.{subnet + n}.1/24 dev {here}")
            _ip(f"link set {here} up")
            inside = ["nsenter", "-t", str(space.pid), "-n"]
            _ip("link set lo up", inside)
            _ip(f"addr add 169.254.{subnet + n}.2/24 dev {there}", inside)
            _ip(f"link set {there} up", inside)
            camera = Camera(there, f"N{os.getpid()}x{n}", inside=space.pid)
            stack.callback(camera.kill)
            cameras.append(camera)
        yield cameras


def _ip(words: str, inside: list[str] | None = None) -> None:
    subprocess.run([*(inside or []), "ip", *words.split()], check=True)


def main() -> int:
    """Be the camera until a signal comes."""
    interface, serial, *words = sys.argv[1:]
    c.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a camera that nobody owns would answer for the next one
    arv, p = c.CDLL("libaravis-0.8.so.0"), c.c_void_p
    fills = c.CFUNCTYPE(None, p, p, c.c_uint32, c.c_uint32, c.c_uint32)
    arv.arv_gv_fake_camera_new.restype, arv.arv_gv_fake_camera_new.argtypes = p, [c.c_char_p, c.c_char_p]
    arv.arv_gv_fake_camera_get_fake_camera.restype, arv.arv_gv_fake_camera_get_fake_camera.argtypes = p, [p]
    arv.arv_gv_fake_camera_is_running.argtypes = [p]
    arv.arv_fake_camera_get_payload.restype, arv.arv_fake_camera_get_payload.argtypes = c.c_size_t, [p]
    arv.arv_fake_camera_set_fill_pattern.argtypes = [p, fills, p]
    arv.arv_buffer_get_data.restype, arv.arv_buffer_get_data.argtypes = p, [p, p]
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    camera = arv.arv_gv_fake_camera_new(interface.encode(), serial.encode())
    if not camera or not arv.arv_gv_fake_camera_is_running(camera):
        return 1
    inner = arv.arv_gv_fake_camera_get_fake_camera(camera)
    ramps = np.concatenate([pattern(0, BIT_PRIME)] * (64 * 1024 * 1024 // BIT_PRIME))
    number = 0

    def fill(buffer: int, _user: int, exposure_us: int, _gain: int, _pixel_format: int) -> None:
        nonlocal number
        size = arv.arv_fake_camera_get_payload(inner)
        picture = ramps[number % BIT_PRIME :]
        if words == ["lit"]:
            picture = np.minimum(255, (10 + 100 * (np.arange(size) // 16 % 2)) * exposure_us / 860).astype(np.uint8)
        c.memmove(arv.arv_buffer_get_data(buffer, None), picture.ctypes.data, size)
        number += 1

    callback = fills(fill)
    arv.arv_fake_camera_set_fill_pattern(inner, callback, None)
    print("ready", flush=True)
    signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
