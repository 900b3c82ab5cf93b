"""A changeover as those who ask for it see it: what vision says of each request, and the admin command that asks and waits for it.

{"command": "recipe", "do": "status"}
{"command": "recipe", "do": "switch", "recipe": "gear" or 2, "lanes": [0]}      in force when it answers, or refused
{"command": "recipe", "do": "shadow", "recipe": "gear"}                         judges beside the present one; recipe null ends it
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from inspector.records import ConfigError
from inspector.runtime import link
from inspector.runtime.admin import Peer

ENDED: Final = frozenset({"in_force", "refused", "rolled_back", "shadow", "shadow_ended"})
REMEMBERED: Final = 64


class Changes:
    """What vision has said; `heard` by the thread that reads the link, asked by any. `latest` is the last that names a recipe."""

    def __init__(self) -> None:
        self.latest: link.Changed | None = None
        self.events: OrderedDict[str, link.Changed] = OrderedDict()
        self._bell = threading.Condition()

    def heard(self, message: link.Changed) -> None:
        """Vision has said this."""
        if message.what == "ready":
            return
        with self._bell:
            if message.recipe:
                self.latest = message
            if message.request and message.what in ENDED:
                self.events[message.request] = message
                while len(self.events) > REMEMBERED:
                    self.events.popitem(last=False)
            self._bell.notify_all()

    def wait(self, request: str, within_s: float) -> link.Changed:
        """What became of this request. Raises `ConfigError` E_BUSY when nothing has by then."""
        with self._bell:
            if not self._bell.wait_for(lambda: request in self.events, within_s):
                raise ConfigError("E_BUSY", f"no answer within {within_s:g} s; the recipe in force stays until there is one")
            return self.events[request]


def command(
    changes: Changes, select: Callable[[link.Switch], None], within_s: float
) -> Callable[[Mapping[str, Any], Peer], dict[str, Any]]:
    """The admin command `recipe`; `select` asks vision."""
    numbers = count(1)

    def recipe(asked: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        what, wanted, lanes = asked.get("do", "status"), asked.get("recipe"), asked.get("lanes", [])
        if what == "status":
            return _told(changes.latest) | {"what": "status", "text": ""}
        if what not in ("switch", "shadow"):
            raise ConfigError("E_USAGE", f"do: {str(what)[:40]!r}; status, switch or shadow is allowed")
        if not (isinstance(wanted, str) or type(wanted) is int) and not (what == "shadow" and wanted is None):
            raise ConfigError("E_USAGE", "recipe: a name or a number is allowed")
        if not isinstance(lanes, list) or not all(type(lane) is int for lane in lanes):
            raise ConfigError("E_USAGE", "lanes: a list of lane numbers is allowed")
        request = f"admin-{peer.pid}-{next(numbers)}"
        select(link.Switch(request, "" if wanted is None else wanted, lanes, what == "shadow"))
        answer = changes.wait(request, within_s)
        if answer.what == "refused":
            raise ConfigError("E_RECIPE", f"the recipe in force stays: {answer.text}")
        return _told(answer)

    return recipe


def _told(message: link.Changed | None) -> dict[str, Any]:
    if message is None:
        raise ConfigError("E_BUSY", "vision is not ready yet")
    cameras = {camera: {"name": name, "number": number} for camera, (name, number) in message.cameras.items()}
    return {"what": message.what, "recipe": message.recipe, "cameras": cameras, "text": message.text, "shadow": message.shadow}
