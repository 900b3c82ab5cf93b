"""The door for people at this machine: a Unix socket on which one line of JSON asks and one line answers.

    client → daemon   {"command": "reset", …}
    daemon → client   {"ok": true, …}                    or {"ok": false, "code": "E_…", "text": "…"}

Who may knock is who may open the file (0660, the daemon's user and group); who did is asked from the kernel (SO_PEERCRED), never from the
peer. Each connection has a thread of its own, so that a command that takes long (a reload proves its models) holds up no other.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from inspector.config import Config
from inspector.config.document import nearest
from inspector.records import ConfigError

NAME = "ctl.sock"
LARGEST_LINE_BYTES = 65_536
SLOW_CLIENT_S = 5.0
AT_ONCE = 8


class Peer(NamedTuple):
    """Who asks, as the kernel says."""

    pid: int
    uid: int
    gid: int


Command: TypeAlias = Callable[[Mapping[str, Any], Peer], Mapping[str, Any]]
"""What is asked for (the whole JSON object) and by whom → the fields of the answer; raises `ConfigError` for what is refused."""


def socket_of(config: Config) -> Path:
    """Where the socket of this configuration's daemon is."""
    return config.admin.socket or config.state_dir / NAME


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path by way of its folder's descriptor: a Unix socket's name has 107 bytes, and folders may be deep."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Admin(socketserver.ThreadingUnixStreamServer):
    """The socket at work; `commands` may grow until `start`. `heard(name, peer)` is called for each command that is known."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 4 * AT_ONCE

    def __init__(self, path: Path, commands: Mapping[str, Command], heard: Callable[[str, Peer], None]) -> None:
        """Raises `ConfigError` E_BIND when the address is not to be had, or another daemon answers there."""
        self.path, self.commands, self.heard = path, commands, heard
        self.room = threading.BoundedSemaphore(AT_ONCE)
        try:
            with _short(path) as name:
                if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                    _refuse_if_served(name, path)
                    path.unlink()  # left by a daemon that was killed
                super().__init__(name, _Handler)
            path.chmod(0o660)
        except OSError as error:
            raise ConfigError("E_BIND", f"{error.strerror or error}", file=str(path)) from error

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, name="admin", daemon=True).start()

    def stop(self) -> None:
        """Answer no more, and take the file away."""
        self.shutdown()
        self.server_close()
        self.path.unlink(missing_ok=True)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """As many as there is room for."""
        return self.room.acquire(blocking=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up has its own trouble."""

    def answer(self, line: bytes, peer: Peer) -> dict[str, Any]:
        """The answer to one line."""
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise ConfigError("E_JSON", "one JSON object a line is allowed")
            name = str(asked.get("command", ""))
            command = self.commands.get(name)
            if command is None:
                known = ", ".join(self.commands)
                raise ConfigError("E_USAGE", f"{name[:40]!r} is no command{nearest(name, self.commands)}; known: {known}")
            self.heard(name, peer)
            return {"ok": True, **command(asked, peer)}
        except ConfigError as error:
            return {"ok": False, "code": error.code, "text": error.text}
        except (ValueError, RecursionError):
            return {"ok": False, "code": "E_JSON", "text": "this is no JSON"}


class _Handler(socketserver.StreamRequestHandler):
    timeout = SLOW_CLIENT_S
    server: Admin

    def handle(self) -> None:
        credentials = self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        line = self.rfile.readline(LARGEST_LINE_BYTES)
        if line.endswith(b"\n"):
            self.wfile.write(json.dumps(self.server.answer(line, Peer(*struct.unpack("3i", credentials)))).encode() + b"\n")

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.server.room.release()


def _refuse_if_served(name: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        if end.connect_ex(name) == 0:
            raise ConfigError("E_BIND", "another daemon answers there", file=str(path))


def ask(path: Path, command: str, *, timeout_s: float, **arguments: Any) -> dict[str, Any]:
    """What the daemon at this socket answers. Raises `ConfigError`: E_CTL_OPEN when none can be asked, or the code that it refuses with."""
    try:
        with _short(path) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
            end.settimeout(timeout_s)
            end.connect(name)
            end.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with end.makefile("rb") as stream:
                answer = json.loads(stream.readline(1 << 20))
    except TimeoutError as error:
        raise ConfigError("E_CTL_OPEN", f"the daemon did not answer within {timeout_s:g} s", file=str(path)) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it said nothing"
        text = f"no daemon can be asked here: {why}; is it running, and are you in its group?"
        raise ConfigError("E_CTL_OPEN", text, file=str(path)) from error
    if not answer.pop("ok", False):
        raise ConfigError(str(answer.get("code", "E_CTL")), str(answer.get("text", "")))
    return dict(answer)
