"""The routes that do something: log in and out, have the daemon act, say what one thinks of a verdict, try a picture.

Each is a POST of a form that carries the session's token (CSRF), is refused to whoever's role does not allow it, and leaves a line in the
audit. What the daemon is asked for is shown and confirmed first.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, FastAPI, File, Form, Path, Query, Request, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from inspector.desk.acts import ACTS, Act
from inspector.desk.guard import LARGEST_BODY_BYTES, Refused
from inspector.desk.opinions import GOOD, WITHDRAWN
from inspector.desk.render import Desk, Pages
from inspector.desk.sessions import Who
from inspector.desk.users import Role

SOON_S = 3.0
"""An act that ends within this is shown with its outcome at once."""
LAST_ACTS = 100

Csrf = Annotated[str, Form(max_length=128)]
Recipe = Annotated[str | None, Query(max_length=32)]
Lane = Annotated[int | None, Query(ge=0, le=255)]


def cookie(desk: Desk) -> str:
    """The cookie's name; with TLS the browser itself holds it to this host."""
    return "__Host-inspector" if desk.secure else "inspector"


def token_of(request: Request, desk: Desk) -> str:
    """The session's token, empty without one."""
    return request.cookies.get(cookie(desk), "")[:128]


async def asks(request: Request) -> Who:
    """Who asks."""
    desk: Desk = request.app.state.desk
    return desk.sessions.who(token_of(request, desk))


Asking = Annotated[Who, Depends(asks)]


async def reads(who: Asking) -> Who:
    """Who asks, if they may look. Raises `Refused` E_HTTP_LOGIN."""
    _may(who, Role.VIEWER)
    return who


Reading = Annotated[Who, Depends(reads)]


def address_of(request: Request) -> str:
    """From where: the other end of the connection, never what a header says."""
    return request.client.host if request.client else ""


def add(app: FastAPI, desk: Desk, pages: Pages) -> None:
    """Register the routes."""

    @app.get("/login")
    def login_page(who: Asking) -> Response:
        if not desk.sessions.logins or who.role is not None:
            return RedirectResponse("/", 303)
        return HTMLResponse(pages.page("login.html", who, wrong=""))

    @app.post("/login")
    def login(
        request: Request, who: Asking, csrf: Csrf, name: Annotated[str, Form()] = "", password: Annotated[str, Form()] = ""
    ) -> Response:
        _ours(who, csrf)
        address = address_of(request)
        if not desk.sessions.logins:
            return RedirectResponse("/", 303)
        if desk.sessions.held(name, address):
            raise Refused(429, "E_HTTP_RATE", "too many wrong passwords; wait five minutes")
        token = desk.sessions.log_in(name, password, address)
        desk.audit.say(name if token else name[:32], address, "login", outcome="done" if token else "refused")
        if token is None:
            return HTMLResponse(pages.page("login.html", who, wrong="This name and password do not fit."), 401)
        response = RedirectResponse("/", 303)
        longest_s = round(desk.config.desk.session_h * 3600)
        response.set_cookie(cookie(desk), token, max_age=longest_s, path="/", secure=desk.secure, httponly=True, samesite="strict")
        return response

    @app.post("/logout")
    def logout(request: Request, who: Asking, csrf: Csrf) -> Response:
        _ours(who, csrf)
        desk.sessions.log_out(token_of(request, desk))
        if who.name:
            desk.audit.say(who.name, address_of(request), "logout")
        response = RedirectResponse("/login", 303)
        response.delete_cookie(cookie(desk), path="/", secure=desk.secure, httponly=True, samesite="strict")
        return response

    @app.get("/confirm/{name}")
    def confirm(who: Asking, name: str, recipe: Recipe = None, lane: Lane = None) -> Response:
        act = _act(name)
        _may(who, act.role)
        desk.acts.check(name, recipe, lane)
        return HTMLResponse(pages.page("confirm.html", who, name=name, act=act, recipe=recipe, lane=lane))

    @app.post("/act/{name}")
    def act(
        request: Request,
        who: Asking,
        name: str,
        csrf: Csrf,
        recipe: Annotated[str | None, Form(max_length=32)] = None,
        lane: Annotated[int | None, Form(ge=0, le=255)] = None,
        why: Annotated[str, Form(max_length=300)] = "",
    ) -> Response:
        kind = _act(name)
        _may(who, kind.role)
        _ours(who, csrf)
        said = desk.health.said()
        before = {} if said is None else said.in_use
        order = desk.acts.order(name, who.name, address_of(request), recipe=recipe, lane=lane, why=why, before=before)
        desk.acts.wait(order, SOON_S)
        return RedirectResponse("/changeover", 303)

    @app.post("/part/{epoch}/{seq}/opinion")
    def opinion(
        request: Request,
        who: Asking,
        epoch: Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,40}$")],
        seq: Annotated[int, Path(ge=1, le=2**64 - 1)],
        csrf: Csrf,
        said: Annotated[str, Form(pattern=r"^(good|bad|withdrawn)$")],
        defect: Annotated[str, Form(max_length=32)] = "",
        note: Annotated[str, Form(max_length=300)] = "",
    ) -> Response:
        _may(who, Role.OPERATOR)
        _ours(who, csrf)
        part = desk.part(epoch, seq)
        wanted = {"good": GOOD, "withdrawn": WITHDRAWN}.get(said, defect.strip().lower().replace(" ", "-") or "defect")
        if said == "bad" and wanted in (GOOD, WITHDRAWN):
            raise Refused(400, "E_HTTP_VALUE", "a value is not allowed: defect")
        desk.audit.say(who.name, address_of(request), "opinion", epoch=epoch, seq=str(seq), said=wanted)
        desk.opinions.say(part, who.name, wanted, note)
        return RedirectResponse(f"/part/{epoch}/{seq}", 303)

    @app.get("/people")
    def people(who: Asking) -> Response:
        _may(who, Role.ADMIN)
        return HTMLResponse(pages.page("people.html", who, users=desk.sessions.users(), lines=pages.last_acts(LAST_ACTS)))

    @app.post("/people/end")
    def end_sessions(request: Request, who: Asking, csrf: Csrf, name: Annotated[str, Form(max_length=32)]) -> Response:
        _may(who, Role.ADMIN)
        _ours(who, csrf)
        desk.audit.say(who.name, address_of(request), "end sessions", of=name)
        desk.sessions.end_all_of(name)
        return RedirectResponse("/people", 303)

    @app.post("/try")
    def try_picture(
        who: Asking, csrf: Csrf, choice: Annotated[str, Form(max_length=8)], picture: Annotated[UploadFile, File()]
    ) -> Response:
        _may(who, Role.VIEWER)
        _ours(who, csrf)
        chosen = next((c for c in desk.trial.choices() if c.key == choice), None)
        if chosen is None:
            raise Refused(400, "E_HTTP_VALUE", "a value is not allowed: choice")
        found = desk.trial.run(chosen, picture.file.read(LARGEST_BODY_BYTES))
        return RedirectResponse(f"/try/{found.token}", 303)


def _act(name: str) -> Act:
    if name not in ACTS:
        raise Refused(404, "E_HTTP_404", "there is nothing here")
    return ACTS[name]


def _may(asks: Who, role: Role) -> None:
    if asks.may(role):
        return
    if asks.role is None:
        raise Refused(401, "E_HTTP_LOGIN", "log in first")
    text = f"this needs the role {role.name.lower()}"
    raise Refused(403, "E_HTTP_ROLE", text if asks.name else f"{text}, and nobody can log in here: set desk.users")


def _ours(asks: Who, csrf: str) -> None:
    if not hmac.compare_digest(csrf.encode(), asks.csrf.encode()):
        raise Refused(403, "E_HTTP_CSRF", "this page is old; load it again")
