"""Connections on which nobody asks: uvicorn waits for a first request for ever, and for the rest of one that has begun."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0


class Impatient(H11Protocol):
    """Closes a connection on which no request has come whole within `REQUEST_S` of its beginning, or of the last answer."""

    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count from here."""
        super().connection_made(transport)
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

    def _too_slow(self) -> None:
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()
