"""Who may connect, asked by libzmq in each process that has sockets of INSP/1: a thread that answers from the list of clients.

The list is read again when its file changes; while that is wrong the list stays as it was, and a person is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import zmq

from inspector.gate import security, sockets
from inspector.interfaces import Clock
from inspector.records import ConfigError
from inspector.runtime.worker import Worker

AGAIN_S: Final = 0.1
TURN_MS: Final = 100

Clients = Mapping[bytes, security.Client]
Tell = Callable[[str, str], None]


class Zap:
    """Answers from the moment that it is made, which is to be before any socket is bound; raises `ConfigError` of `read_clients`.

    `tell(code, text)` says what went wrong, `changed(before, clients)` that the list is another one.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        path: Path,
        *,
        clock: Clock,
        tell: Tell,
        changed: Callable[[Clients, Clients], None] = lambda before, clients: None,
    ) -> None:
        self.clients: Clients = security.read_clients(path)
        self._path, self._at_ns = path, path.stat().st_mtime_ns
        self._clock, self._tell, self._changed = clock, tell, changed
        self._ending = threading.Event()
        self._socket = sockets.zap(context)
        self._begin()

    def _begin(self) -> None:
        self.worker = Worker("zap", self._step, clock=self._clock, on_error=self._died)
        self.worker.start()

    def _died(self, name: str, error: BaseException) -> None:
        """Nobody was let in while nobody answered (ZAP_ENFORCE_DOMAIN); who is in stays, and another thread answers from now on."""
        if self._ending.is_set():
            return
        self._tell("ZAP", f"who may connect was not answered: {type(error).__name__}: {error}; answered again")
        time.sleep(AGAIN_S)
        self._begin()

    def _step(self) -> None:
        if self._socket.poll(TURN_MS, zmq.POLLIN):
            frames = self._socket.recv_multipart()
            border = frames.index(b"")
            self._socket.send_multipart([*frames[: border + 1], *security.answer(frames[border + 1 :], self.clients)])
        with suppress(OSError):
            at_ns = self._path.stat().st_mtime_ns
            if at_ns != self._at_ns:
                self._at_ns = at_ns
                before = self.clients
                try:
                    self.clients = security.read_clients(self._path)
                except ConfigError as error:
                    self._tell("CLIENTS", f"the list of clients stays as it was: {error}")
                else:
                    self._changed(before, self.clients)

    def knows(self, user: str) -> bool:
        """Somebody of this name is on the list now: who came in may have been taken off since."""
        return any(client.name == user for client in self.clients.values())

    def stop(self) -> None:
        """Answer no more; to be called before the context goes."""
        self._ending.set()
        self.worker.stop(2.0)
