"""A camera whose driver runs in a process of its own (`isolated: true`), and that process.

    vision: Isolated ── slots to fill ──▶ capture process: the source, which writes the picture into the ring's shared memory
            ◀── slot, stamp ──

They speak JSON over a socket pair that keeps message borders; pictures are written once, by the driver, and never travel. What the driver
does to its process ends there: a crash, a hang (it is killed when it does not answer) and a leak (it is killed when it takes too much)
are a `DeviceError` like a pulled cable, and the camera is built anew, which means a new process. When vision ends, however it does, the
kernel kills the capture process, even while the driver holds the interpreter.
"""

from __future__ import annotations

import argparse
import faulthandler
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspector import config
from inspector.interfaces import Clock, Conveyor, EndOfPictures, FillsAhead, Source, fills_ahead
from inspector.records import ConfigError, ConfigErrors, DeviceError, Stamp, Web
from inspector.runtime.link import BUFFER_BYTES, LARGEST_MESSAGE_BYTES
from inspector.runtime.ring import Ring, mapped

if TYPE_CHECKING:
    from inspector.records import Bytes1D

HANG_S = 2.0
"""A source answers within the time that it is given; so much later it hangs."""
START_S = 60.0
LEAVE_S = 1.0
WATCH_EVERY_NS = 1_000_000_000
MOST_RESIDENT_BYTES = 1 << 30
OOM_SCORE = 500


class Isolated:
    """The camera as vision sees it; see `interfaces.FillsAhead`. `max_bytes` and `ahead` are known once `started` says so.

    One thread calls it. After `close` the process is gone, or `stuck` in the kernel, and then its ring must not be used again.
    """

    def __init__(self, camera: str, path: Path, text: str, clock: Clock) -> None:
        """Begin to start the process: `text` is what the configuration at `path` says. Raises `DeviceError` when there is no room."""
        self.max_bytes = self.ahead = 0
        self.stuck = False
        self.begun_ns: int | None = None
        self.counts: Mapping[str, int] = {}
        self._name, self._clock = camera, clock
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        life, self._life = os.pipe()
        command = [sys.executable, "-m", "inspector.runtime.capture", "--config", str(path), "--camera", camera]
        command += ["--link-fd", str(theirs.fileno()), "--life-fd", str(life)]
        try:
            self._process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(), life), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), env=_environment()
            )
        except OSError as error:
            self._end.close()
            os.close(self._life)
            raise DeviceError(f"camera {camera}: its capture process cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(life)
        self._until_ns = clock() + round(START_S * 1e9)
        self._watched_ns = clock()
        self._slots: list[int] = []
        self._asked = False
        self._text: bytes | None = text.encode()

    def started(self, timeout_s: float) -> bool:
        """The source is built. Raises what building it raised, and `DeviceError` when that takes too long."""
        if self._text is not None:
            self._say_text(self._text)
            self._text = None
        said = self._hear(timeout_s)
        if said is None:
            if self._clock() > self._until_ns:
                raise DeviceError(f"camera {self._name}: its capture process was not ready within {START_S:.0f} s")
            return False
        self.max_bytes, self.ahead = int(said["max_bytes"]), max(1, int(said["ahead"]))
        return True

    def _say_text(self, text: bytes) -> None:
        fd = os.memfd_create("inspector-config", os.MFD_CLOEXEC)
        try:
            os.write(fd, text)
            self._send({}, fd)
        finally:
            os.close(fd)

    def attach(self, ring: Ring) -> None:
        """Pictures go into this ring, which is shared."""
        assert ring.memory is not None
        memory = {"slots": len(ring.memory.slots), "stride_bytes": ring.memory.stride_bytes, "max_bytes": ring.max_bytes}
        self._send(memory, ring.memory.fd)

    def give(self, slot: int, into: Bytes1D) -> None:
        """The driver may fill this slot; it is told so with the next `take`."""
        self._slots.append(slot)

    def take(self, timeout_s: float) -> tuple[int, Stamp] | None:
        """The next picture; raises what the source raises, and `DeviceError` for what the process does."""
        now_ns = self._clock()
        if now_ns - self._watched_ns > WATCH_EVERY_NS:
            self._watched_ns = now_ns
            self._watch()
        if not self._asked:
            self._send({"take": timeout_s, "slots": self._slots, "begun_ns": self.begun_ns})
            self._slots, self._asked = [], True
            self._until_ns = now_ns + round((timeout_s + HANG_S) * 1e9)
        said = self._hear(timeout_s)
        if said is None:
            if self._clock() > self._until_ns:
                raise DeviceError(f"camera {self._name}: its driver hangs; the capture process is killed")
            return None
        self._asked = False
        self.counts = said.get("counts", self.counts)
        if said["slot"] is None:
            return None
        camera, seq, at_ns, at_counts, shape, complete, uid, web = said["stamp"]
        return said["slot"], Stamp(camera, seq, at_ns, at_counts, tuple(shape), complete, uid, None if web is None else Web(*web))

    def _watch(self) -> None:
        """What the process holds besides the ring."""
        with suppress(OSError, ValueError, IndexError):
            numbers = Path(f"/proc/{self._process.pid}/statm").read_text().split()
            own_bytes = (int(numbers[1]) - int(numbers[2])) * os.sysconf("SC_PAGESIZE")
            if own_bytes > MOST_RESIDENT_BYTES:
                raise DeviceError(f"camera {self._name}: its capture process leaks, it has taken {own_bytes >> 20} MiB; it is killed")

    def _send(self, message: dict[str, Any], fd: int | None = None) -> None:
        try:
            socket.send_fds(self._end, [json.dumps(message).encode()], [] if fd is None else [fd])
        except OSError as error:
            raise self._lost() from error

    def _hear(self, timeout_s: float) -> dict[str, Any] | None:
        if not select.select([self._end], [], [], timeout_s)[0]:
            return None
        try:
            data = self._end.recv(LARGEST_MESSAGE_BYTES)
        except OSError:
            data = b""
        if not data:
            raise self._lost()
        said: dict[str, Any] = json.loads(data)
        if "device" in said:
            raise DeviceError(said["device"])
        if "config" in said:
            raise ConfigErrors([ConfigError(code, text, file=file, line=line, key=key) for code, text, file, line, key in said["config"]])
        if "end" in said:
            raise EndOfPictures
        return said

    def _lost(self) -> DeviceError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_S)
        code = self._process.returncode
        how = "has closed its end" if code is None else f"ended with {code}" if code >= 0 else f"was killed by signal {-code}"
        return DeviceError(f"camera {self._name}: its capture process {how}")

    def close(self) -> None:
        """End the process: it may let its device go first, where it still listens."""
        if self._life < 0:
            return
        self._end.close()
        if not self._asked:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_S)
        os.close(self._life)  # the kernel kills it now
        self._life = -1
        self._process.kill()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.stuck = True


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


# --- the capture process -----------------------------------------------------------------------------------------------


class Capture:
    """One source, read when vision asks for it."""

    def __init__(self, source: Source | FillsAhead, conveyor: Conveyor, end: socket.socket) -> None:
        self._source, self._conveyor, self._end = source, conveyor, end
        self._memory: Sequence[Bytes1D] = ()
        self._slots: deque[int] = deque()
        self._begun = False
        self._counts: Mapping[str, int] | None = None

    def run(self) -> None:
        """Until vision closes its end."""
        ahead = self._source.ahead if fills_ahead(self._source) else 0
        _say(self._end, {"max_bytes": self._source.max_bytes, "ahead": ahead})
        while True:
            said, fds = _heard(self._end)
            if said is None:
                return
            if "take" not in said:
                self._memory = mapped(fds[0], said["slots"], said["stride_bytes"], said["max_bytes"])
                os.close(fds[0])
            else:
                _say(self._end, self._take(said))

    def _take(self, said: dict[str, Any]) -> dict[str, Any]:
        if said["begun_ns"] is not None and not self._begun:
            self._begun = True
            self._conveyor.start(said["begun_ns"])
        slot: int | None = None
        if fills_ahead(self._source):
            for given in said["slots"]:
                self._source.give(given, self._memory[given])
            slot, stamp = self._source.take(said["take"]) or (None, None)
        else:
            self._slots.extend(said["slots"])
            stamp = self._source.read(self._memory[self._slots[0]], said["take"]) if self._slots else None
            slot = self._slots.popleft() if stamp is not None else None
        answer: dict[str, Any] = {"slot": slot, "stamp": None if stamp is None else _fields(stamp)}
        counts = getattr(self._source, "counts", None)
        if counts is not self._counts:  # replaced whole when something was counted
            self._counts = counts
            answer["counts"] = dict(counts or {})
        return answer


def _fields(stamp: Stamp) -> list[Any]:
    return list(stamp)


def _say(end: socket.socket, message: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        end.send(json.dumps(message).encode())


def _heard(end: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    try:
        data, fds, _, _ = socket.recv_fds(end, LARGEST_MESSAGE_BYTES, 1)
    except ConnectionResetError:
        data, fds = b"", []
    return (json.loads(data) if data else None), fds


def _errors(error: ConfigError) -> list[list[Any]]:
    return [[e.code, e.text, e.file, e.line, e.key] for e in error.errors]


def _die_with(life: int) -> None:
    """The kernel kills this process when the other end of the pipe `life` closes. (Its parent's death would come with that of a thread.)"""
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([life], [], [], 0)[0]:
        os._exit(0)  # it had closed before


def main() -> int:
    """`python -m inspector.runtime.capture --config FILE --camera ID --link-fd N --life-fd N`; started by vision only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--camera", required=True)
    parser.add_argument("--link-fd", type=int, required=True)
    parser.add_argument("--life-fd", type=int, required=True)
    arguments = parser.parse_args()
    _die_with(arguments.life_fd)
    faulthandler.enable(all_threads=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # vision decides when this process ends
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))  # a driver that takes all memory pays for it itself
    end = socket.socket(fileno=arguments.link_fd)
    _, fds = _heard(end)
    if not fds:
        return 0
    with os.fdopen(fds[0], "rb") as file:
        file.seek(0)
        text = file.read().decode()
    try:
        settings = config.read(arguments.config, text=text)
        camera = next(camera for camera in settings.cameras if camera.id == arguments.camera)
        conveyor: Conveyor = config.build("conveyor", settings.conveyor, "conveyor")
        kind = config.plugin("sources", camera.source.kind)
        given = config.settings_of("sources", camera.source, kind.Settings)
        source = config.built(kind, given, camera.id, time.monotonic_ns, conveyor)
        try:
            Capture(source, conveyor, end).run()
        finally:
            source.close()
    except DeviceError as error:
        _say(end, {"device": str(error)})
    except ConfigError as error:
        _say(end, {"config": _errors(error)})
    except EndOfPictures:
        _say(end, {"end": True})
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a driver's thread must not keep the process
