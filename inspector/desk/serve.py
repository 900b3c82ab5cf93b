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
from inspector.config import Desk as Settings
from inspector.desk.acts import Acts
from inspector.desk.app import create
from inspector.desk.audit import Audit
from inspector.desk.disagreements import Disagreements
from inspector.desk.feed import Feed
from inspector.desk.health import Health, address_of
from inspector.desk.history import History
from inspector.desk.impatient import Impatient
from inspector.desk.opinions import Opinions
from inspector.desk.recipes import Recipes
from inspector.desk.render import Desk
from inspector.desk.sessions import Sessions
from inspector.desk.state import Board
from inspector.desk.tally import Tally
from inspector.desk.tls import certificate
from inspector.desk.trial import Trial
from inspector.desk.users import Users
from inspector.outputs.archive import picture_of
from inspector.records import ConfigError
from inspector.runtime.endpoints import endpoints_of
from inspector.runtime.worker import Worker

NICER = 5
HOSTS = ("127.0.0.1", "localhost", "[::1]")


def listen(bind: str, *, guarded: bool = False) -> socket.socket:
    """A listening socket at `HOST:PORT`; port 0 takes a free one. `guarded`: there are logins and TLS.

    Raises `ConfigError`: E_SEC_BIND beyond this machine without them; E_BIND when the port cannot be had.
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]").replace("localhost", "127.0.0.1")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not (local or guarded):
        text = f"{bind} can be reached from other machines; set desk.users, desk.tls_cert and desk.tls_key too, "
        raise ConfigError("E_SEC_BIND", text + "or bind to 127.0.0.1 and use an SSH tunnel", key="desk.bind")
    try:
        listening = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64)
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError("E_BIND", f"{bind}: {error}; is another desk running?", key="desk.bind") from error
    # Each connection has it from here: asyncio sets it only where a socket names its protocol, and an answer's second part else waits
    # for the first one's acknowledgement, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def hosts_of(settings: Settings) -> tuple[str, ...]:
    """Under which names a browser may call the page: this machine's own, its address, and those of the configuration."""
    return (*HOSTS, settings.bind.rpartition(":")[0].lower(), *settings.hosts)


def serve(config: Config, path: Path, *, ready: Path | None, keys: Keys | None, say: Callable[[str], None]) -> None:
    """Serve the page of the daemon with the configuration at `path` until SIGTERM or SIGINT.

    `say` is told the address once the page can be opened; `keys` where the daemon has security.
    Raises `ConfigError` (see `listen`, `certificate` and `Users`), and `RuntimeError`, our bug, when a thread died: it is started again.
    """
    with suppress(OSError):  # a unit may forbid it, and says Nice= itself
        os.nice(NICER)  # the line goes first
    pictures, own, settings = config.state_dir / "pictures", config.state_dir / "desk", config.desk
    users = None if settings.users is None else Users(settings.users)
    tls = certificate(settings)

    def picture(reference: str) -> bytes | None:
        path = picture_of(pictures, reference)
        with suppress(OSError):
            return None if path is None else path.read_bytes()
        return None

    broken: list[str] = []

    def on_error(name: str, error: BaseException) -> None:
        broken.append(f"{name}: {type(error).__name__}: {error}")
        server.should_exit = True

    clock = time.monotonic_ns
    board = Board([(camera.id, camera.lane) for camera in config.cameras], utc=time.time_ns)
    prefix = f"insp1/{config.site}/{config.line}/{config.station}/"
    endpoints = endpoints_of(config, ready)
    feeds = [Feed(board, stream, prefix=prefix, endpoints=endpoints, clock=clock, keys=keys) for stream in ("q", "a")]
    audit, recipes = Audit(own), Recipes(config, path)
    acts, health = Acts(recipes, audit), Health(address_of(config, ready), clock=clock)
    history = History(config.state_dir / "journal.sqlite")
    tally = Tally(history, clock=clock, utc=time.time_ns)
    steps = {
        "feed-0": feeds[0].step,
        "feed-1": feeds[1].step,
        "acts": acts.step,
        "health": health.step,
        "recipes": recipes.step,
        "tally": tally.step,
    }
    workers = [Worker(name, step, clock=clock, on_error=on_error) for name, step in steps.items()]
    desk = Desk(
        config=config,
        board=board,
        recipes=recipes,
        picture=picture,
        hosts=hosts_of(settings),
        clock=clock,
        utc=time.time_ns,
        stopping=lambda: server.should_exit,
        trial=Trial(recipes, clock=clock),
        sessions=Sessions(users, idle_ns=round(settings.idle_min * 60e9), longest_ns=round(settings.session_h * 3600e9), clock=clock),
        audit=audit,
        acts=acts,
        opinions=Opinions(own / "opinions", lambda reference: picture_of(pictures, reference), utc=time.time_ns),
        history=history,
        tally=tally,
        disagreements=Disagreements(pictures, clock=clock),
        health=health,
        secure=bool(tls),
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
            http=Impatient,
            ws="none",
            ssl_certfile=tls.get("ssl_certfile"),
            ssl_keyfile=tls.get("ssl_keyfile"),
        )
    )
    with listen(settings.bind, guarded=users is not None and bool(tls)) as listening:
        host, port = listening.getsockname()[:2]
        for worker in workers:
            worker.start()
        say(f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}")
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        try:  # the server takes the signals while it runs, and raises them again afterwards, which must not end us untidily
            server.run(sockets=[listening])
        finally:
            for worker in workers:
                worker.ask_to_stop()
            ended = [worker.stop(1.0) for worker in workers]
            for feed, done in zip(feeds, ended, strict=False):
                if done:
                    feed.close()
            for number, handler in before.items():
                signal.signal(number, handler)
    if broken:
        raise RuntimeError(f"the desk no longer does its work: {broken[0]}")
