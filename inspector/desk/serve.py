"""The desk's process: listens, feeds the board, serves the pages, and ends within two seconds when it is told to."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from inspector.client import Keys
from inspector.config import Config
from inspector.desk.app import Desk, create
from inspector.desk.feed import Feed
from inspector.desk.state import Board
from inspector.desk.trial import Trial
from inspector.geometry import dxf
from inspector.outputs.archive import picture_of
from inspector.records import ConfigError, Contour, DeviceError
from inspector.runtime.endpoints import endpoints_of
from inspector.runtime.worker import Worker

NICER = 5
HOSTS = ("127.0.0.1", "localhost", "[::1]")


def listen(bind: str) -> socket.socket:
    """A listening socket at `HOST:PORT` of this machine; port 0 takes a free one.

    Raises `ConfigError`: E_SEC_BIND beyond this machine, because the page has no logins; E_BIND when the port cannot be had.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]").replace("localhost", "127.0.0.1")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        text = f"{bind} can be reached from other machines, and this page has no logins yet: whoever reaches it sees everything; "
        raise ConfigError("E_SEC_BIND", text + "bind to 127.0.0.1 and use an SSH tunnel", key="desk.bind")
    try:
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64)
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError("E_BIND", f"{bind}: {error}; is another desk running?", key="desk.bind") from error


def contours_of(config: Config) -> dict[str, tuple[Contour, ...]]:
    """The part's contours in drawing mm by camera. A drawing that cannot be read is the daemon's trouble: the page goes without."""
    found = {}
    for camera in config.cameras:
        settings = config.recipes[camera.recipe].template
        if settings is None:
            continue
        with suppress(ConfigError):
            drawing = dxf.read(settings.drawing, units=settings.units)
            if settings.part < len(drawing.parts):
                found[camera.id] = tuple(drawing.contours[i] for i in drawing.parts[settings.part])
    return found


def lanes_of(config: Config) -> list[tuple[int, str]]:
    """(lane, its cameras' names) in order."""
    names: dict[int, list[str]] = {}
    for camera in config.cameras:
        names.setdefault(camera.lane, []).append(camera.id)
    return [(lane, ", ".join(names[lane])) for lane in sorted(names)]


def serve(config: Config, *, ready: Path | None, keys: Keys | None, say: Callable[[str], None]) -> None:
    """Serve the page until SIGTERM or SIGINT. `say` is told the address once the page can be opened; `keys` where the daemon has security.

    Raises `ConfigError` (see `listen`), and `DeviceError` when the listening to the daemon broke down.
    """
    with suppress(OSError):  # a unit may forbid it, and says Nice= itself
        os.nice(NICER)  # the line goes first
    pictures = config.state_dir / "pictures"

    def picture(reference: str) -> bytes | None:
        path = picture_of(pictures, reference)
        with suppress(OSError):
            return None if path is None else path.read_bytes()
        return None

    broken: list[str] = []

    def on_error(name: str, error: BaseException) -> None:
        broken.append(f"{name}: {type(error).__name__}: {error}")
        server.should_exit = True

    board = Board([(camera.id, camera.lane) for camera in config.cameras], utc=time.time_ns)
    prefix = f"insp1/{config.site}/{config.line}/{config.station}/"
    endpoints = endpoints_of(config, ready)
    feeds = [Feed(board, stream, prefix=prefix, endpoints=endpoints, clock=time.monotonic_ns, keys=keys) for stream in ("q", "a")]
    workers = [Worker(f"feed-{i}", feed.step, clock=time.monotonic_ns, on_error=on_error) for i, feed in enumerate(feeds)]
    contours = contours_of(config)
    desk = Desk(
        board,
        f"{config.site} · {config.line} · {config.station}",
        lanes_of(config),
        contours,
        picture,
        HOSTS,
        time.monotonic_ns,
        lambda: server.should_exit,
        Trial(config, contours, clock=time.monotonic_ns),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create(desk),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=5,
            limit_concurrency=256,
            ws="none",
        )
    )
    with listen(config.desk.bind) as listening:
        host, port = listening.getsockname()[:2]
        for worker in workers:
            worker.start()
        say(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        try:  # the server takes the signals while it runs, and raises them again afterwards, which must not end us untidily
            server.run(sockets=[listening])
        finally:
            for worker, feed in zip(workers, feeds, strict=True):
                if worker.stop(1.0):
                    feed.close()
            for number, handler in before.items():
                signal.signal(number, handler)
    if broken:
        raise DeviceError(f"the desk no longer hears the daemon: {broken[0]}")
