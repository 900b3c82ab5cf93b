"""The routes that only look. They read the board, the journal and the archive, and change nothing of the line (`doing` does).

Every page is whole without a script; with one, its banner and its moving part are renewed each second (`/live/…`, server-sent events).
No request names a file: pictures are asked for by their part, and the board knows the part's picture.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from inspector.desk import doing, report
from inspector.desk.again import Again
from inspector.desk.disagreements import Disagreement
from inspector.desk.doing import Reading
from inspector.desk.guard import Guard, Refused, answer
from inspector.desk.render import LIVE, Asked, Desk, Pages, window_of
from inspector.desk.sessions import Who
from inspector.desk.trial import Tried
from inspector.desk.users import Role
from inspector.records import ConfigError, DeviceError

MOST_LISTENERS = 32
LIVE_EVERY_S = 1.0
LOOK_EVERY_S = 0.1
HEAVY_WAIT_S = 20.0
STATIC = {"desk.css": "text/css", "desk.js": "text/javascript", "icon.svg": "image/svg+xml"}
LOST = {"E_DB_OPEN": 503, "E_BUSY": 409, "E_STATE_PERM": 503, "E_OPINIONS_FULL": 507, "E_IMG_FORMAT": 415}

Epoch = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,40}$")]
Token = Annotated[str, Path(pattern=r"^[0-9A-Za-z_-]{22}$")]
Seq = Annotated[int, Path(ge=1, le=2**64 - 1)]
CameraName = Annotated[str, Path(pattern=r"^[a-z0-9_-]{1,32}$")]
Begin = Annotated[str, Query(max_length=16, pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2})?$")]
Hours = Annotated[int, Query(ge=1, le=168)]


def create(desk: Desk) -> FastAPI:
    """The application: routes, error answers, and the guard around it."""
    app = FastAPI(title="inspector", openapi_url=None, docs_url=None, redoc_url=None)
    pages = Pages(desk)
    static = {name: (files("inspector.desk") / "static" / name).read_bytes() for name in STATIC}
    listeners = _Listeners()
    heavy = threading.Lock()
    app.state.desk = desk

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        return "ok\n"

    @app.get("/static/{name}")
    def static_file(name: str) -> Response:
        if name not in static:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        return Response(static[name], media_type=STATIC[name], headers={"Cache-Control": "max-age=60"})

    doing.add(app, desk, pages)

    @app.get("/")
    def line(asks: Reading, asked: Annotated[Asked, Depends()]) -> Response:
        return HTMLResponse(pages.whole("line", asked, asks))

    @app.get("/try")
    def try_page(asks: Reading) -> Response:
        return HTMLResponse(pages.trial(None, asks))

    @app.get("/try/{token}")
    def tried_page(asks: Reading, token: Token) -> Response:
        return HTMLResponse(pages.trial(_tried(desk, token), asks))

    @app.get("/try/{token}/picture")
    def tried_picture(asks: Reading, token: Token) -> Response:
        data = _tried(desk, token).data
        return Response(data, media_type=_media(data), headers=_kept("picture"))

    @app.get("/try/{token}/mask")
    def tried_mask(asks: Reading, token: Token) -> Response:
        mask = _tried(desk, token).mask
        if mask is None:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        return Response(mask, media_type="image/png", headers=_kept("mask"))

    @app.get("/quality")
    def quality(asks: Reading, asked: Annotated[Asked, Depends()]) -> Response:
        with _alone(heavy):
            return HTMLResponse(pages.quality(asked, asks))

    @app.get("/report")
    def report_page(asks: Reading, begin: Begin = "", hours: Hours = 8) -> Response:
        with _alone(heavy):
            return HTMLResponse(pages.report(window_of(begin, hours, desk.config.desk.shifts, desk.utc()), asks))

    @app.get("/report.csv")
    def report_csv(asks: Reading, begin: Begin = "", hours: Hours = 8) -> Response:
        window = window_of(begin, hours, desk.config.desk.shifts, desk.utc())
        with _alone(heavy):
            text = report.as_csv(report.of(desk.history, window, desk.utc()), desk.station)
        name = f"report-{desk.config.station}-{window.stamp}.csv"
        return Response(text, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @app.get("/report.pdf")
    def report_pdf(asks: Reading, begin: Begin = "", hours: Hours = 8) -> Response:
        window = window_of(begin, hours, desk.config.desk.shifts, desk.utc())
        with _alone(heavy):
            data = pages.report_pdf(window)
        name = f"report-{desk.config.station}-{window.stamp}.pdf"
        return Response(data, media_type="application/pdf", headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @app.get("/opinions")
    def opinions(asks: Reading) -> Response:
        return HTMLResponse(pages.page("opinions.html", asks, opinions=desk.opinions.last(200)))

    @app.get("/opinion/{epoch}/{seq}/thumb")
    def opinion_thumb(asks: Reading, epoch: Epoch, seq: Seq) -> Response:
        return Response(pages.small(desk.opinions.picture(epoch, seq)), media_type="image/jpeg", headers=_kept("thumb"))

    @app.get("/{page}")
    def page(asks: Reading, page: str, asked: Annotated[Asked, Depends()]) -> Response:
        if page not in LIVE:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        return HTMLResponse(pages.whole(page, asked, asks))

    @app.get("/live/{page}")
    async def live(request: Request, page: str, asked: Annotated[Asked, Depends()]) -> Response:
        token = doing.token_of(request, desk)
        if not desk.sessions.who(token, clicked=False).may(Role.VIEWER):
            raise Refused(401, "E_HTTP_LOGIN", "log in first")
        if page not in LIVE:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        if listeners.count >= MOST_LISTENERS:
            raise Refused(429, "E_HTTP_RATE", "too many open pages; close some")
        return StreamingResponse(_stream(desk, pages, page, asked, token, listeners), media_type="text/event-stream")

    @app.get("/part/{epoch}/{seq}")
    def part(asks: Reading, epoch: Epoch, seq: Seq) -> Response:
        return HTMLResponse(pages.part(desk.part(epoch, seq), asks))

    @app.get("/part/{epoch}/{seq}/picture")
    def picture(asks: Reading, epoch: Epoch, seq: Seq) -> Response:
        return picture_of(asks, epoch, seq, "")

    @app.get("/part/{epoch}/{seq}/picture/{camera}")
    def picture_of(asks: Reading, epoch: Epoch, seq: Seq, camera: CameraName) -> Response:
        data = pages.picture(desk.part(epoch, seq), camera)
        if data is None:
            raise Refused(404, "E_HTTP_404", "no picture of this part is kept")
        return Response(data, media_type=_media(data), headers=_kept("part"))

    @app.get("/part/{epoch}/{seq}/thumb")
    def thumb(asks: Reading, epoch: Epoch, seq: Seq) -> Response:
        return Response(pages.thumb(desk.part(epoch, seq)), media_type="image/jpeg", headers=_kept("thumb"))

    @app.get("/shadow/{token}")
    def disagreement(asks: Reading, token: Token) -> Response:
        return HTMLResponse(pages.disagreement(_disagreed(desk, token), asks))

    @app.get("/shadow/{token}/picture")
    def disagreement_picture(asks: Reading, token: Token) -> Response:
        data = _disagreed(desk, token).data()
        if not data:
            raise Refused(404, "E_HTTP_404", "the picture is no longer kept")
        return Response(data, media_type=_media(data), headers=_kept("shadow"))

    @app.get("/shadow/{token}/thumb")
    def disagreement_thumb(asks: Reading, token: Token) -> Response:
        return Response(pages.small(_disagreed(desk, token).data()), media_type="image/jpeg", headers=_kept("thumb"))

    _explain(app, desk, pages)

    def who(request: Request) -> Who:
        return desk.sessions.who(doing.token_of(request, desk))

    def brings_picture(request: Request) -> bool:
        return request.scope["path"] == "/try" and who(request).may(Role.VIEWER)

    app.add_middleware(Again, paths=["/", *(f"/{page}" for page in LIVE)], who=who, clock=desk.clock)
    app.add_middleware(Guard, hosts=desk.hosts, clock=desk.clock, brings_picture=brings_picture, secure=desk.secure)
    return app


class _Listeners:
    """How many live pages are open."""

    count = 0


async def _stream(desk: Desk, pages: Pages, page: str, asked: Asked, token: str, listeners: _Listeners) -> AsyncIterator[str]:
    """One message a second, also when nothing has changed: a page that hears none knows that the desk is gone. Ends when the desk stops."""
    listeners.count += 1
    try:
        last = ""
        while not desk.stopping():
            who = desk.sessions.who(token, clicked=False)
            if not who.may(Role.VIEWER):
                yield 'data: {"ended": true}\n\n'
                return
            text = pages.live(page, asked, who)
            yield f"data: {'{}' if text == last else text}\n\n"
            last = text
            for _ in range(round(LIVE_EVERY_S / LOOK_EVERY_S)):
                if desk.stopping():
                    return
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        listeners.count -= 1


@contextmanager
def _alone(lock: threading.Lock) -> Iterator[None]:
    """One at a time: what reads the journal for long must not be asked for by everybody at once."""
    if not lock.acquire(timeout=HEAVY_WAIT_S):
        raise DeviceError("another report is being made; try again in a moment")
    try:
        yield
    finally:
        lock.release()


def _tried(desk: Desk, token: str) -> Tried:
    found = desk.trial.result(token)
    if found is None:
        raise Refused(404, "E_HTTP_404", "this result is no longer kept; try the picture again")
    return found


def _disagreed(desk: Desk, key: str) -> Disagreement:
    found = desk.disagreements.of(key)
    if found is None:
        raise Refused(404, "E_HTTP_404", "this picture is no longer among the newest; the archive may have it")
    return found


def _media(data: bytes) -> str:
    """The kind of picture that a file's first bytes say; nothing that a browser would run."""
    heads = (
        (b"\x89PNG", "image/png"),
        (b"\xff\xd8", "image/jpeg"),
        (b"BM", "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
    )
    return next((kind for head, kind in heads if data.startswith(head)), "application/octet-stream")


def _kept(name: str) -> dict[str, str]:
    """A part's picture never changes."""
    return {"Cache-Control": "private, max-age=3600, immutable", "Content-Disposition": f'inline; filename="{name}"'}


def _explain(app: FastAPI, desk: Desk, pages: Pages) -> None:
    """Refusals and failures: a page for who asks for pages, JSON for everybody else; never a traceback, never what was asked."""

    def said(request: Request, status: int, code: str, text: str) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            if status == 401:
                return RedirectResponse("/login", 303)
            return HTMLResponse(pages.error(status, code, text, desk.sessions.who(doing.token_of(request, desk))), status)
        return answer(status, code, text)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Refused):
            return said(request, error.status_code, error.code, error.detail)
        text = {404: "there is nothing here", 405: "this cannot be done here"}.get(error.status_code, "the request cannot be answered")
        return said(request, error.status_code, f"E_HTTP_{error.status_code}", text)

    @app.exception_handler(ConfigError)
    def unusable(request: Request, error: ConfigError) -> Response:
        return said(request, LOST.get(error.code, 400), error.code, error.text)

    @app.exception_handler(DeviceError)
    def busy(request: Request, error: DeviceError) -> Response:
        return said(request, 429, "E_HTTP_RATE", str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        where = ", ".join(
            sorted({str(e["loc"][-1]) for e in error.errors() if e["loc"][0] in ("query", "path", "body") and len(e["loc"]) == 2})
        )
        return said(request, 400, "E_HTTP_VALUE", f"a value is not allowed: {where}" if where else "a value is not allowed")

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> JSONResponse:
        del request, error
        return answer(500, "E_HTTP_500", "our bug; the desk's log has it")
