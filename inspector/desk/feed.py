"""From the events socket to the board: one subscriber each for verdicts and for alarms, each in a worker of its own.

At its start the page asks the journal for the last parts, so that a desk that was started again knows as much as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from inspector.client import Hole, Keys, Message, Subscriber
from inspector.desk.state import KEPT_ALARMS, KEPT_PARTS, Board
from inspector.interfaces import Clock
from inspector.runtime.endpoints import Endpoints

RECEIVE_S = 0.1
LOOK_AGAIN_NS = 1_000_000_000
MOST_AT_ONCE = 256


class Feed:
    """One stream (`q` or `a`) on its way to the board; `step` receives what has come and waits a little for it."""

    def __init__(
        self,
        board: Board,
        stream: str,
        *,
        prefix: str,
        endpoints: Callable[[], Endpoints | None],
        clock: Clock,
        keys: Keys | None = None,
    ) -> None:
        self._board, self._stream, self._prefix, self._endpoints, self._clock, self._keys = board, stream, prefix, endpoints, clock, keys
        self._at: Endpoints | None = None
        self._subscriber: Subscriber | None = None
        self._beat: Mapping[str, Any] = {}
        self._caught_up = False
        self._looked_ns = clock() - LOOK_AGAIN_NS

    def step(self) -> None:
        """Receive for at most a tenth of a second."""
        subscriber = self._open()
        if subscriber is None:
            time.sleep(RECEIVE_S)
            return
        item = subscriber.receive(RECEIVE_S)
        for _ in range(MOST_AT_ONCE):
            if item is None:
                break
            self._take(item)
            item = subscriber.receive(0.0)
        if item is not None:
            self._take(item)
        self._hear(subscriber)

    def close(self) -> None:
        """Let the sockets go; the worker has ended before."""
        if self._subscriber is not None:
            self._subscriber.close()
            self._subscriber = None

    def _open(self) -> Subscriber | None:
        """The subscriber, made anew when the daemon is silent and has moved."""
        now = self._clock()
        if (self._subscriber is None or self._subscriber.stale) and now - self._looked_ns >= LOOK_AGAIN_NS:
            self._looked_ns = now
            at = self._endpoints()
            if at is not None and at != self._at:
                self.close()
                self._at, self._subscriber = at, self._subscribe(at, None)
        return self._subscriber

    def _subscribe(self, at: Endpoints, since: tuple[str, int] | None) -> Subscriber:
        return Subscriber(
            at.events, stream=self._stream, replay=at.replay, since=since, prefix=self._prefix, clock=self._clock, keys=self._keys
        )

    def _hear(self, subscriber: Subscriber) -> None:
        """A new heartbeat; the first one says how far back to ask."""
        beat = subscriber.status
        if not beat or beat is self._beat:
            return
        self._beat = beat
        if self._stream == "q":
            self._board.beat(beat, self._clock())
        if not self._caught_up and self._at is not None:
            self._caught_up = True
            with suppress(KeyError, TypeError, ValueError):
                kept = KEPT_PARTS if self._stream == "q" else KEPT_ALARMS
                since = str(beat["epoch"]), max(0, int(beat["head"][self._stream]) - kept)
                self.close()
                self._subscriber = self._subscribe(self._at, since)

    def _take(self, item: Message | Hole) -> None:
        if isinstance(item, Hole):
            self._board.hole(1 if item.last is None else item.last - item.first + 1)
            return
        try:
            body = item.event.body
        except ValueError:
            self._board.misread()
            return
        match body.get("schema"):
            case "insp.verdict":
                self._board.verdict(body, self._clock(), historical=item.historical)
            case "insp.alarm":
                self._board.alarm(body)
            case "insp.state":
                self._board.state(body)
