"""Connections as the page wants them: uvicorn waits for ever for who does not ask, and sends an answer's header and body one by one."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
BODY_S = 60.0


class Impatient(H11Protocol):
    """Closes a connection on which no request has come within `REQUEST_S` of its beginning, or of the last answer.

    The body of one has `BODY_S` more.
    """

    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count from here."""
        super().connection_made(Together(transport, self.loop))  # type: ignore[arg-type]
        self._count()

    def on_response_complete(self) -> None:
        """Count anew."""
        super().on_response_complete()
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is counted any more."""
        if self._hurry is not None:
            self._hurry.cancel()
        super().connection_lost(exc)

    def _count(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
        self._hurry = self.loop.call_later(REQUEST_S, self._too_slow)

    def _too_slow(self, waited_for: object = None) -> None:
        """`waited_for`: the request whose body had its time already."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and cycle is waited_for):
            if not self.transport.is_closing():
                self.transport.close()
        elif cycle.more_body:
            self._hurry = self.loop.call_later(BODY_S, self._too_slow, cycle)


class Together:
    """A transport on which what is written in one turn of the loop goes out in one piece: a system call less for each answer."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Soon."""
        if not self._pieces:
            self._loop.call_soon(self._send)
        self._pieces.append(data)

    def close(self) -> None:
        """After what was written."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._transport.write(b"".join(pieces))
