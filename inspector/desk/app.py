"""The routes of the operator's page. They read the board and change nothing of the line.

Every page is whole without a script; with one, its banner and its moving part are renewed each second (`/live/…`, server-sent events).
No request names a file: pictures are asked for by their part, and the board knows the part's picture.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any

import cv2
import jinja2
import numpy as np
from fastapi import Depends, FastAPI, File, Form, Path, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from inspector.desk import charts, words
from inspector.desk.guard import LARGEST_BODY_BYTES, Guard, Refused, answer
from inspector.desk.overlay import overlay, places
from inspector.desk.state import KEPT_REJECTS, Board, Part
from inspector.desk.trial import Trial, Tried
from inspector.interfaces import Clock
from inspector.records import ConfigError, Contour, DeviceError

MOST_LISTENERS = 32
LIVE_EVERY_S = 1.0
LOOK_EVERY_S = 0.1
THUMB_PX = 360
KEPT_THUMBS = 128
PAGES = {"line": "Line", "parts": "Parts", "rejects": "Rejects", "trends": "Trends", "cameras": "Cameras"}
STATIC = {"desk.css": "text/css", "desk.js": "text/javascript", "icon.svg": "image/svg+xml"}
SPANS = {60: "last hour", 480: "last 8 hours", 1440: "last 24 hours"}


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes are given. `contours` by camera, in drawing mm; `picture` gives a stored picture's file by its reference."""

    board: Board
    station: str
    lanes: Sequence[tuple[int, str]]
    contours: Mapping[str, Sequence[Contour]]
    picture: Callable[[str], bytes | None]
    hosts: Sequence[str]
    clock: Clock
    stopping: Callable[[], bool]
    trial: Trial


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page may be asked for; only ever looked up, never used as a name of anything."""

    lane: Annotated[int | None, Query(ge=0, le=255)] = None
    minutes: Annotated[int, Query(ge=1, le=1440)] = 60
    check: Annotated[str, Query(max_length=64)] = ""
    feature: Annotated[str, Query(max_length=64)] = ""


Epoch = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,40}$")]
Token = Annotated[str, Path(pattern=r"^[0-9A-Za-z_-]{22}$")]
Seq = Annotated[int, Path(ge=1, le=2**64 - 1)]


def create(desk: Desk) -> FastAPI:
    """The application: routes, error answers, and the guard around it."""
    app = FastAPI(title="inspector", openapi_url=None, docs_url=None, redoc_url=None)
    pages = _Pages(desk)
    static = {name: (files("inspector.desk") / "static" / name).read_bytes() for name in STATIC}
    listeners = _Listeners()

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        return "ok\n"

    @app.get("/static/{name}")
    def static_file(name: str) -> Response:
        if name not in static:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        return Response(static[name], media_type=STATIC[name], headers={"Cache-Control": "max-age=60"})

    @app.get("/")
    def line(asked: Annotated[Asked, Depends()]) -> Response:
        return HTMLResponse(pages.whole("line", asked))

    @app.get("/try")
    def try_page() -> Response:
        return HTMLResponse(pages.trial(None))

    @app.post("/try")
    def try_picture(choice: Annotated[str, Form(max_length=8)], picture: Annotated[UploadFile, File()]) -> Response:
        chosen = next((c for c in desk.trial.choices() if c.key == choice), None)
        if chosen is None:
            raise Refused(400, "E_HTTP_VALUE", "a value is not allowed: choice")
        found = desk.trial.run(chosen, picture.file.read(LARGEST_BODY_BYTES))
        return RedirectResponse(f"/try/{found.token}", 303)

    @app.get("/try/{token}")
    def tried_page(token: Token) -> Response:
        return HTMLResponse(pages.trial(_tried(desk, token)))

    @app.get("/try/{token}/picture")
    def tried_picture(token: Token) -> Response:
        data = _tried(desk, token).data
        return Response(data, media_type=_media(data), headers=_kept("picture"))

    @app.get("/try/{token}/mask")
    def tried_mask(token: Token) -> Response:
        mask = _tried(desk, token).mask
        if mask is None:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        return Response(mask, media_type="image/png", headers=_kept("mask"))

    @app.get("/{page}")
    def page(page: str, asked: Annotated[Asked, Depends()]) -> Response:
        if page not in PAGES:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        return HTMLResponse(pages.whole(page, asked))

    @app.get("/live/{page}")
    async def live(page: str, asked: Annotated[Asked, Depends()]) -> Response:
        if page not in PAGES:
            raise Refused(404, "E_HTTP_404", "there is nothing here")
        if listeners.count >= MOST_LISTENERS:
            raise Refused(429, "E_HTTP_RATE", "too many open pages; close some")
        return StreamingResponse(_stream(desk, pages, page, asked, listeners), media_type="text/event-stream")

    @app.get("/part/{epoch}/{seq}")
    def part(epoch: Epoch, seq: Seq) -> Response:
        return HTMLResponse(pages.part(_found(desk.board, epoch, seq)))

    @app.get("/part/{epoch}/{seq}/picture")
    def picture(epoch: Epoch, seq: Seq) -> Response:
        data = _stored(desk, _found(desk.board, epoch, seq))
        return Response(data, media_type=_media(data), headers=_kept("part"))

    @app.get("/part/{epoch}/{seq}/thumb")
    def thumb(epoch: Epoch, seq: Seq) -> Response:
        return Response(pages.thumb(_found(desk.board, epoch, seq)), media_type="image/jpeg", headers=_kept("thumb"))

    _explain(app, pages)
    app.add_middleware(Guard, hosts=desk.hosts, clock=desk.clock)
    return app


class _Pages:
    """The templates and what they are given."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("inspector.desk", "pages"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "station": desk.station,
            "pages": PAGES | {"try": "Try a picture"},
            "spans": SPANS,
            "lanes": dict(desk.lanes),
            "words": words,
        }
        self._live: tuple[int, dict[tuple[str, Asked], str]] = (-1, {})
        self.thumb_of = lru_cache(KEPT_THUMBS)(self._thumb)

    def whole(self, page: str, asked: Asked) -> str:
        """The page as a document."""
        return self._templates.get_template(f"{page}.html").render(self._context(page, asked))

    def live(self, page: str, asked: Asked) -> str:
        """The page's moving parts as JSON; worked out once a second for all who look at the same."""
        tick = self._desk.clock() // 500_000_000
        if self._live[0] != tick:
            self._live = (tick, {})
        known = self._live[1]
        if (page, asked) not in known:
            base, template = self._templates.get_template("base.html"), self._templates.get_template(f"{page}.html")
            context = template.new_context(self._context(page, asked))
            blocks = {"title": base.blocks["title"], "banner": base.blocks["banner"], "live": template.blocks["live"]}
            known[page, asked] = json.dumps({name: "".join(block(context)) for name, block in blocks.items()})
        return known[page, asked]

    def part(self, part: Part) -> str:
        """The page of one part."""
        size = None
        if part.image_ref is not None and (data := self._desk.picture(part.image_ref)) is not None:
            size = size_of(data)
        contours = next((self._desk.contours[e.camera] for e in part.exposures if e.camera in self._desk.contours), ())
        drawn = None if size is None else overlay(part, size, contours)
        return self._templates.get_template("part.html").render(page="part", glance=self._glance(), part=part, drawn=drawn)

    def trial(self, tried: Tried | None) -> str:
        """The page on which pictures are tried, with a result or without."""
        choices = self._desk.trial.choices()
        page = self._templates.get_template("try.html")
        return page.render(page="try", glance=self._glance(), choices=choices, tried=tried, largest=LARGEST_BODY_BYTES)

    def error(self, status: int, code: str, text: str) -> str:
        """A page that says what is wrong."""
        return self._templates.get_template("error.html").render(page="error", glance=self._glance(), status=status, code=code, text=text)

    def thumb(self, part: Part) -> bytes:
        """A small JPEG of the part's picture."""
        if part.image_ref is None:
            raise Refused(404, "E_HTTP_404", "no picture of this part was kept")
        return self.thumb_of(part.image_ref)

    def _thumb(self, reference: str) -> bytes:
        data = self._desk.picture(reference)
        image = None if data is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
        if image is None:
            raise Refused(404, "E_HTTP_404", "the picture is no longer kept")
        scale = THUMB_PX / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()

    def _glance(self) -> Any:
        return self._desk.board.glance(self._desk.clock())

    def _context(self, page: str, asked: Asked) -> dict[str, Any]:
        board, now = self._desk.board, self._desk.clock()
        context: dict[str, Any] = {"page": page, "asked": asked, "glance": board.glance(now)}
        if page == "line":
            newest = [(lane, cameras, board.parts(lane=lane, pictured=True, most=1)) for lane, cameras in self._desk.lanes]
            return context | {
                "bars": charts.bars(board.minutes(60)),
                "latest": [(lane, cameras, parts[0] if parts else None) for lane, cameras, parts in newest],
                "rejects": board.parts(rejects_only=True, most=8),
                "alarms": board.alarms(8),
            }
        if page == "parts":
            return context | {"parts": board.parts(lane=asked.lane, most=60)}
        if page == "rejects":
            whole = charts.total(board.minutes(asked.minutes))
            kept = board.parts(lane=asked.lane, rejects_only=True, most=KEPT_REJECTS)
            return context | {
                "places": [found for name, contours in self._desk.contours.items() if (found := places(name, contours, kept)) is not None],
                "whole": whole,
                "reasons": charts.pareto(whole.reasons),
                "features": charts.pareto(whole.features),
                "parts": kept[:24],
            }
        if page == "trends":
            known = [key for key in board.dimensions() if key[0] == asked.lane or asked.lane is None]
            known = [key for key in known if key[0] == known[0][0]]
            wanted = (known[0][0], asked.check, asked.feature) if known else None
            chosen = wanted if wanted in known else known[0] if known else None
            series = board.series(*chosen) if chosen else ()
            unit = series[-1][1].unit if series else ""
            return context | {"known": known, "chosen": chosen, "chart": charts.control(series), "unit": unit}
        return context | {"cameras": board.cameras(now), "alarms": board.alarms(20)}


class _Listeners:
    """How many live pages are open."""

    count = 0


async def _stream(desk: Desk, pages: _Pages, page: str, asked: Asked, listeners: _Listeners) -> AsyncIterator[str]:
    """One message a second, also when nothing has changed: a page that hears none knows that the desk is gone. Ends when the desk stops."""
    listeners.count += 1
    try:
        last = ""
        while not desk.stopping():
            text = pages.live(page, asked)
            yield f"data: {'{}' if text == last else text}\n\n"
            last = text
            for _ in range(round(LIVE_EVERY_S / LOOK_EVERY_S)):
                if desk.stopping():
                    return
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        listeners.count -= 1


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a stored picture, None when it does not decode."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    return None if image is None else (image.shape[1], image.shape[0])


def _found(board: Board, epoch: str, seq: int) -> Part:
    part = board.part(epoch, seq)
    if part is None:
        raise Refused(404, "E_HTTP_404", "this part is no longer in the page's memory; the journal has it")
    return part


def _tried(desk: Desk, token: str) -> Tried:
    found = desk.trial.result(token)
    if found is None:
        raise Refused(404, "E_HTTP_404", "this result is no longer kept; try the picture again")
    return found


def _stored(desk: Desk, part: Part) -> bytes:
    data = None if part.image_ref is None else desk.picture(part.image_ref)
    if data is None:
        raise Refused(404, "E_HTTP_404", "no picture of this part is kept")
    return data


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


def _explain(app: FastAPI, pages: _Pages) -> None:
    """Refusals and failures: a page for who asks for pages, JSON for everybody else; never a traceback, never what was asked."""

    def said(request: Request, status: int, code: str, text: str) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(pages.error(status, code, text), status)
        return answer(status, code, text)

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Refused):
            return said(request, error.status_code, error.code, error.detail)
        text = {404: "there is nothing here", 405: "this cannot be done here"}.get(error.status_code, "the request cannot be answered")
        return said(request, error.status_code, f"E_HTTP_{error.status_code}", text)

    @app.exception_handler(ConfigError)
    def unusable(request: Request, error: ConfigError) -> Response:
        return said(request, 415 if error.code == "E_IMG_FORMAT" else 400, error.code, error.text)

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
