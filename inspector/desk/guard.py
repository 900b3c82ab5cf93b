"""What stands before every route: which hosts and origins may ask, how much and how often, and the headers of every answer.

A page in a foreign tab cannot read ours (hosts by allow-list: no DNS rebinding) nor write to it (origin checked on every write). Answers
that refuse are JSON, `{"error": {"code", "text"}}`, and never repeat what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspector.interfaces import Clock

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
LARGEST_BODY_BYTES = 32 << 20
"""Of a picture that is tried, by somebody who may."""
LARGEST_FORM_BYTES = 1 << 20
LARGEST_QUERY_BYTES = 2048
LARGEST_HEADER_BYTES = 16 << 10
NOT_STORED = (b"cache-control", b"no-store")
ASKED_PER_S = 200
ASKED_AT_ONCE = 400
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Refused(HTTPException):
    """A refusal with a stable code; the text is for a person."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(status, text)
        self.code = code


def answer(status: int, code: str, text: str) -> JSONResponse:
    """The one shape of every refusal."""
    return JSONResponse({"error": {"code": code, "text": text}}, status)


def host_of(authority: str) -> str:
    """The host in a Host header, without port, in lower case: `[::1]:8080` → `[::1]`."""
    host = authority.strip().lower()
    end = host.rfind(":")
    return host if end < 0 or end < host.rfind("]") else host[:end]


class Guard:
    """ASGI middleware: refuses, limits, and dresses every answer. `hosts` are the names under which the page may be called.

    `brings_picture` says of a request whether it may have a large body: bodies are read before a route asks who sends them.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str], clock: Clock, brings_picture: Callable[[Request], bool], secure: bool = False
    ) -> None:
        self._app, self._hosts, self._clock, self._brings_picture = app, frozenset(hosts), clock, brings_picture
        self._scheme = "https" if secure else "http"
        headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if secure else {})
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._tokens, self._filled_ns = float(ASKED_AT_ONCE), clock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        dressed = _dressed(send, self._headers)
        refused = self._refused(scope)
        if refused is not None:
            await answer(refused.status_code, refused.code, refused.detail)(scope, receive, dressed)
            return
        await self._app(scope, _limited(receive, self._largest(scope)), dressed)

    def _refused(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or host_of(host) not in self._hosts:
            return Refused(400, "E_HTTP_HOST", "this page is not served under that host name")
        if not self._token():
            return Refused(429, "E_HTTP_RATE", "too many requests; wait a moment")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEADER_BYTES:
            return Refused(431, "E_HTTP_HEADER", f"the header has more than {LARGEST_HEADER_BYTES >> 10} KiB")
        if len(scope.get("query_string", b"")) > LARGEST_QUERY_BYTES:
            return Refused(414, "E_HTTP_QUERY", f"the query has more than {LARGEST_QUERY_BYTES} bytes")
        if scope["method"] in WRITES:
            origin, site = headers.get("origin"), headers.get("sec-fetch-site")
            ours = origin in (None, f"{self._scheme}://{host}") and site in (None, "same-origin")
            if not ours or origin is site is None:
                return Refused(403, "E_HTTP_ORIGIN", "this page takes what is sent from itself only")
            length, largest = headers.get("content-length", "0"), self._largest(scope)
            if not length.isdigit() or int(length) > largest:
                return _too_large(largest)
        return None

    def _largest(self, scope: Scope) -> int:
        """Bytes of a body."""
        return LARGEST_BODY_BYTES if self._brings_picture(Request(scope)) else LARGEST_FORM_BYTES

    def _token(self) -> bool:
        """A bucket of `ASKED_AT_ONCE` tokens that fills with `ASKED_PER_S`."""
        now = self._clock()
        self._tokens = min(ASKED_AT_ONCE, self._tokens + (now - self._filled_ns) / 1e9 * ASKED_PER_S)
        self._filled_ns = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _too_large(largest: int) -> Refused:
    return Refused(413, "E_HTTP_SIZE", f"at most {largest >> 20} MiB")


def _limited(receive: Receive, largest: int) -> Receive:
    """The body, which must not grow beyond its limit whatever its header said."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > largest:
            raise _too_large(largest)
        return message

    return limited


def _dressed(send: Send, headers: Sequence[tuple[bytes, bytes]]) -> Send:
    """Every answer carries the headers; what says nothing about storing is not stored."""
    ours = {name for name, _ in headers}

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            said = [(name, value) for name, value in message["headers"] if name not in ours]
            stored = () if any(name == b"cache-control" for name, _ in said) else (NOT_STORED,)
            message = {**message, "headers": [*said, *headers, *stored]}
        await send(message)

    return dressed
