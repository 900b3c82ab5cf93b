"""What one reader of a page was just answered, for the next: before any route is looked for, which costs ten times as much."""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspector.desk.render import WHOLE_PER_S
from inspector.desk.sessions import Who
from inspector.desk.users import Role
from inspector.interfaces import Clock

Headers = list[tuple[bytes, bytes]]


class Again:
    """ASGI middleware, inside `Guard`: answers GETs of `paths` whose reader may only look as it answered the same question of the same
    session in the same `1 / WHOLE_PER_S` seconds. `who` says whose request it is; it is asked each time, so a session that ended has ended.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str], who: Callable[[Request], Who], clock: Clock) -> None:
        self._app, self._paths, self._who, self._clock = app, frozenset(paths), who, clock
        self._tick, self._known = -1, dict[tuple[str, bytes, str], tuple[Headers, bytes]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        who = self._who(Request(scope))
        if who.role is not Role.VIEWER:  # who acts sees what came of it
            await self._app(scope, receive, send)
            return
        tick = self._clock() * WHOLE_PER_S // 1_000_000_000
        if self._tick != tick:
            self._tick, self._known = tick, {}
        known, key = self._known, (scope["path"], scope["query_string"], who.csrf)
        if key not in known:
            await self._app(scope, receive, _heard(send, lambda *page: known.setdefault(key, page)))
            return
        headers, body = known[key]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _heard(send: Send, take: Callable[[Headers, bytes], object]) -> Send:
    """The same, and `take` is told of an answer that is a page, in one piece."""
    headers: Headers | None = None

    async def heard(message: Message) -> None:
        nonlocal headers
        if message["type"] == "http.response.start":
            headers = list(message["headers"]) if message["status"] == 200 else None
        elif headers is not None and not message.get("more_body", False):
            take(headers, message["body"])
        await send(message)

    return heard
