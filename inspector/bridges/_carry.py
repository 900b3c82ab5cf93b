"""Carries events to one bridge, each at least once: what cannot be delivered now is kept, what was missed meanwhile is replayed.

The place reached in each stream is kept in a file, so that a bridge that was started again goes on where it was. Whoever listens knows a
message that comes twice by (epoch, stream, seq).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from inspector.client import Hole, Keys, Message, Subscriber
from inspector.interfaces import Bridge, Clock
from inspector.records import DeviceError
from inspector.runtime.endpoints import Endpoints

STREAMS = ("q", "a")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
KEEP_EVERY_NS = 1_000_000_000
STALE = {"schema": "insp.stale"}


class Carrier:
    """One bridge and its subscribers. `turn` receives and delivers for a moment; it belongs to one thread."""

    def __init__(
        self,
        bridge: Bridge,
        at: Endpoints,
        *,
        prefix: str,
        place: Path,
        clock: Clock,
        wait: Callable[[float], bool],
        say: Callable[[str], None],
        keys: Keys | None = None,
    ) -> None:
        """`place` is the file of the places reached. `wait(seconds)` is True when the bridge is to end; `say` tells a person."""
        self._bridge, self._place, self._clock, self._wait, self._say = bridge, place, clock, wait, say
        self._reached = _read(place)
        self._kept_ns, self._changed = clock(), False
        self._beat: Mapping[str, Any] = {}
        self._stale = False
        self._stack = ExitStack()
        self._subscribers = {}
        for stream in STREAMS:
            since = self._reached.get(stream)
            made = Subscriber(at.events, stream=stream, replay=at.replay, since=since, prefix=prefix, clock=clock, keys=keys)
            self._subscribers[stream] = self._stack.enter_context(made)

    def turn(self) -> bool:
        """False when the bridge is to end."""
        for stream, subscriber in self._subscribers.items():
            for item in _waiting(subscriber, 0.1 if stream == "q" else 0.01):
                if isinstance(item, Hole):
                    self._say(str(item))
                    continue
                if not self._deliver(item.event.body):
                    return False
                self._reached[stream] = item.event.epoch, item.event.seq
                self._changed = True
        verdicts = self._subscribers["q"]
        if verdicts.status is not self._beat and verdicts.status:
            self._beat, self._stale = verdicts.status, False
            if not self._deliver(self._beat):
                return False
        if verdicts.stale and not self._stale:
            self._stale = True
            if not self._deliver(STALE):
                return False
        if self._changed and self._clock() - self._kept_ns >= KEEP_EVERY_NS:
            self._keep()
        return not self._wait(0.0)

    def _deliver(self, event: Mapping[str, Any]) -> bool:
        """Until it has arrived; False when the bridge is to end before."""
        wait_s, said = FIRST_WAIT_S, False
        while True:
            try:
                self._bridge.send(event)
            except DeviceError as error:
                if not said:
                    self._say(str(error))
                    said = True
                if self._wait(wait_s):
                    return False
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            if said:
                self._say("delivering again")
            return True

    def _keep(self) -> None:
        """Remember the places; a disk that refuses costs no more than events that come twice."""
        self._kept_ns, self._changed = self._clock(), False
        with suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            part = self._place.with_suffix(".part")
            part.write_text(json.dumps(self._reached))
            part.replace(self._place)

    def close(self) -> None:
        """Remember the places, let the sockets go, and let the bridge say goodbye."""
        if self._changed:
            self._keep()
        self._stack.close()
        self._bridge.close()


def _waiting(subscriber: Subscriber, timeout_s: float) -> Iterator[Message | Hole]:
    """What has come, waiting for the first for so long."""
    item = subscriber.receive(timeout_s)
    while item is not None:
        yield item
        item = subscriber.receive(0.0)


def _read(place: Path) -> dict[str, tuple[str, int]]:
    """The places reached; none where the file is none of ours."""
    try:
        return {str(stream): (str(epoch), int(seq)) for stream, (epoch, seq) in json.loads(place.read_text()).items() if stream in STREAMS}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
