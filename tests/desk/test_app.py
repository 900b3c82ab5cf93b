from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from inspector.desk import app as desk_app
from inspector.desk import render
from inspector.desk.app import create
from inspector.desk.guard import ASKED_AT_ONCE, host_of
from inspector.desk.render import LIVE as PAGES
from inspector.desk.sessions import Who
from inspector.desk.state import Board
from tests.desk.events import EPOCH, board, desk, heartbeat, png, verdict

with warnings.catch_warnings():  # the client asks for httpx2, and works with httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

S = 1_000_000_000
REFERENCE = "20261121-0000000000000001-r-cam0-1"


@dataclass
class Scene:
    """A page with its board, a clock that stands still until it is moved, and one kept picture."""

    board: Board
    folder: Path = Path("/nowhere")
    clock: list[int] = field(default_factory=lambda: [10 * S])
    stop: bool = False
    asked_for: list[str] = field(default_factory=list)

    def picture(self, reference: str) -> bytes | None:
        self.asked_for.append(reference)
        return png() if reference == REFERENCE else None

    def client(self) -> TestClient:
        found = desk(
            self.folder,
            self.board,
            clock=lambda: self.clock[0],
            picture=self.picture,
            stopping=lambda: self.stop,
        )
        return TestClient(create(found), base_url="http://127.0.0.1:8080", raise_server_exceptions=False)


@pytest.fixture
def scene() -> Scene:
    page = board(("cam0", 0), ("cam1", 1))
    page.beat(heartbeat(), 10 * S)
    page.verdict(verdict(1), 10 * S)
    defects = [{"class": "scratch", "score": 0.9, "threshold": 0.5, "bbox_px": [10, 20, 30, 40], "area_mm2": 3.1}]
    page.verdict(verdict(2, "REJECT_DEFECT", image_ref=REFERENCE, defects=defects), 10 * S)
    page.verdict(verdict(3, "REJECT_NOT_INSPECTED", findings=[], image_ref=None), 10 * S)
    page.alarm({"code": "CAMERA_DOWN", "severity": "critical", "text": "<script>alert(1)</script>"})
    return Scene(page)


@pytest.fixture
def client(scene: Scene) -> Iterator[TestClient]:
    with scene.client() as opened:
        yield opened


class Balanced(HTMLParser):
    """Fails on a tag that is closed twice or never."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name == "style" or name.startswith("on") for name, _ in attrs), "the content policy forbids inline style and script"
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag, attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


ALL_PAGES = [
    "/",
    *(f"/{name}" for name in PAGES),
    "/rejects?lane=0&minutes=480",
    "/parts?lane=7",
    f"/part/{EPOCH}/1",
    f"/part/{EPOCH}/2",
    "/try",
    "/opinions",
]


@pytest.mark.parametrize("path", ALL_PAGES)
def test_every_page_is_whole_and_escaped(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert "<script>alert" not in response.text
    assert "site · line · station" in response.text
    Balanced(response.text)


@pytest.mark.parametrize(
    "path", [*ALL_PAGES, "/healthz", "/static/desk.css", "/nothing", f"/part/{EPOCH}/2/picture", f"/part/{EPOCH}/2/thumb"]
)
def test_every_answer_carries_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "cache-control" in headers


@pytest.mark.parametrize("page", sorted(PAGES))
def test_an_empty_board_has_pages_too(page: str) -> None:
    with Scene(board(("cam0", 0))).client() as opened:
        response = opened.get("/" if page == "line" else f"/{page}")
    assert response.status_code == 200
    assert "has not been heard yet" in response.text


def test_however_many_look_the_page_is_written_a_few_times_a_second(
    client: TestClient, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = render.Pages._written

    def noted(pages: render.Pages, page: str, asked: render.Asked, who: Who) -> str:
        written.append(page)
        return write(pages, page, asked, who)

    asked_for: list[str] = []
    whole = render.Pages.whole

    def routed(pages: render.Pages, page: str, asked: render.Asked, who: Who) -> str:
        asked_for.append(page)
        return whole(pages, page, asked, who)

    monkeypatch.setattr(render.Pages, "_written", noted)
    monkeypatch.setattr(render.Pages, "whole", routed)
    first = client.get("/")
    assert [(c.content, c.headers) for c in (client.get("/") for _ in range(5))] == [(first.content, first.headers)] * 5
    client.get("/rejects")
    client.get("/?lane=1")
    assert asked_for == written == ["line", "rejects", "line"]  # the others came to no route
    scene.clock[0] += S // render.WHOLE_PER_S
    client.get("/")
    assert written[3:] == ["line"]


def test_the_line_says_what_it_does(client: TestClient, scene: Scene) -> None:
    assert "<b>Running</b>" in client.get("/").text
    scene.clock[0] += 2 * S
    gone = client.get("/").text
    assert "<b>Stale</b>" in gone
    assert "<b>Running</b>" not in gone
    scene.clock[0] += S
    scene.board.beat(heartbeat(permit=0, holds={"camera:cam1": "no answer"}), scene.clock[0])
    stopped = client.get("/").text
    assert "No permit" in stopped
    assert "camera cam1 is down: no answer" in stopped


def test_unexplained_parts_are_shown_as_bad(client: TestClient, scene: Scene) -> None:
    scene.board.verdict(verdict(4, counters={"triggers": 9, "pass": 4, "reject": 2, "not_inspected": 1, "pending": 0}), scene.clock[0])
    assert "2 parts are unexplained" in client.get("/").text


def test_a_part_is_shown_with_its_picture_drawing_and_findings(client: TestClient) -> None:
    text = client.get(f"/part/{EPOCH}/2").text
    assert 'viewBox="-0.5 -0.5 600 400"' in text
    assert f'href="/part/{EPOCH}/2/picture"' in text
    assert "outline: hole-1" in text
    assert "−0.1 … 0.1" in text
    assert "scratch 0.90" in text


def test_pictures_come_by_their_part(client: TestClient, scene: Scene) -> None:
    picture = client.get(f"/part/{EPOCH}/2/picture")
    assert (picture.headers["content-type"], picture.content) == ("image/png", png())
    thumb = client.get(f"/part/{EPOCH}/2/thumb")
    assert thumb.headers["content-type"] == "image/jpeg"
    image = cv2.imdecode(np.frombuffer(thumb.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert max(image.shape) <= render.THUMB_PX
    assert set(scene.asked_for) == {REFERENCE}


def test_a_picture_that_is_gone_is_said_and_not_remembered(client: TestClient, scene: Scene) -> None:
    scene.board.verdict(verdict(5, "REJECT_DEFECT", image_ref="gone"), scene.clock[0])
    for end in ("picture", "thumb"):
        response = client.get(f"/part/{EPOCH}/5/{end}")
        assert response.status_code == 404
        assert response.headers["cache-control"] == "no-store"
    assert "no longer kept" in client.get(f"/part/{EPOCH}/5").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e%2fapp.py", 404),
        ("/static/..%5capp.py", 404),
        ("/static/desk.css%00", 404),
        ("/openapi.json", 404),
        ("/docs", 404),
        (f"/part/{EPOCH}/99", 404),
        (f"/part/{EPOCH}/0", 400),
        (f"/part/{EPOCH}/18446744073709551616", 400),
        (f"/part/{EPOCH}/one", 400),
        ("/part/..%2f..%2fetc/1", 404),
        (f"/part/{EPOCH}%00/1", 400),
        ("/parts?lane=256", 400),
        ("/parts?lane=nan", 400),
        ("/rejects?minutes=0", 400),
        (f"/trends?check={'x' * 65}", 400),
        (f"/trends?check={'x' * 3000}", 414),
        (f"/parts?{'a=1&' * 10_000}", 414),
        ("/live/nothing", 404),
        ("/live/try", 404),
        ("/try/short", 400),
        ("/try/" + "A" * 22, 404),
        ("/try/" + "A" * 22 + "/mask", 404),
    ],
)
def test_bad_paths_and_values_are_refused_in_one_shape(client: TestClient, path: str, status: int) -> None:
    response = client.get(path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"].startswith("E_HTTP_")
    assert "xxx" not in response.text
    assert "etc" not in response.text


def test_who_asks_for_pages_is_refused_with_a_page(client: TestClient) -> None:
    response = client.get("/nothing", headers={"accept": "text/html,*/*"})
    assert response.status_code == 404
    assert "There is nothing here" in response.text
    Balanced(response.text)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1]:8080", "localhost.", "127.0.0.2"])
def test_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    response = client.get("/", headers={"host": host})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "E_HTTP_HOST"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:12345"])
def test_our_names_are_served_at_any_port(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_hosts_are_read_without_their_port() -> None:
    assert [host_of(h) for h in ("[::1]:80", "[::1]", "a:1", "A")] == ["[::1]", "[::1]", "a", "a"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:8080", "sec-fetch-site": "cross-site"}],
)
def test_writes_from_elsewhere_are_refused(client: TestClient, method: str, headers: dict[str, str]) -> None:
    response = client.request(method, "/", headers=headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "E_HTTP_ORIGIN"


def test_nothing_is_written_to_what_is_only_read(client: TestClient) -> None:
    ours = {"origin": "http://127.0.0.1:8080"}
    assert client.post("/", headers=ours).status_code == 405
    assert client.post("/", headers=ours | {"x-http-method-override": "GET"}).status_code == 405
    assert client.request("TRACE", "/").status_code == 405


def unread() -> Iterator[bytes]:
    """A body that must not be asked for beyond its first piece."""
    yield b"x"
    pytest.fail("the body was read")


@pytest.mark.parametrize("length", [str(1 << 30), "-1", "ten"])
def test_a_body_that_says_it_is_too_large_is_refused_unread(client: TestClient, length: str) -> None:
    response = client.post("/", headers={"origin": "http://127.0.0.1:8080", "content-length": length}, content=unread())
    assert response.status_code == 413


def test_a_flood_is_answered_with_429_and_ends(client: TestClient, scene: Scene) -> None:
    answers = [client.get("/healthz").status_code for _ in range(ASKED_AT_ONCE + 5)]
    assert answers == [200] * ASKED_AT_ONCE + [429] * 5
    scene.clock[0] += S
    assert client.get("/healthz").status_code == 200


def test_our_own_failure_shows_no_traceback(scene: Scene) -> None:
    def broken(reference: str) -> bytes | None:
        raise RuntimeError(f"secret {reference}")

    scene.picture = broken  # type: ignore[method-assign]
    with scene.client() as opened:
        response = opened.get(f"/part/{EPOCH}/2/picture")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "E_HTTP_500"
    assert "secret" not in response.text


def stream(scene: Scene, path: str) -> list[dict[str, str]]:
    """The messages of a live page until the desk stops."""
    with scene.client() as opened, opened.stream("GET", path) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]


def test_a_live_page_tells_its_banner_and_ends_with_the_desk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1, 0.4, 3])

    async def sleep(_: float) -> None:
        moved = next(seconds, None)
        scene.stop = moved is None
        scene.clock[0] += int((moved or 0) * S)

    monkeypatch.setattr("asyncio.sleep", sleep)
    monkeypatch.setattr(desk_app, "LIVE_EVERY_S", desk_app.LOOK_EVERY_S)
    said = stream(scene, "/live/line")
    assert "Running" in said[0]["banner"]
    assert said[1:3] == [{}, {}]  # nothing new, but alive
    assert "Stale" in said[3]["banner"]
    assert said[0]["title"].startswith("Running")
    assert 'class="tiles"' in said[0]["live"]


def test_only_so_many_pages_are_live(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_app, "MOST_LISTENERS", 0)
    with scene.client() as opened:
        response = opened.get("/live/line")
    assert (response.status_code, response.json()["error"]["code"]) == (429, "E_HTTP_RATE")


def test_nothing_is_fetched_from_elsewhere(client: TestClient) -> None:
    for path in [*ALL_PAGES, "/static/desk.css", "/static/desk.js", "/static/icon.svg"]:
        text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


def test_the_board_survives_what_it_cannot_read(client: TestClient, scene: Scene) -> None:
    scene.board.verdict({"verdict": 3}, scene.clock[0])
    response: httpx.Response = client.get("/")
    assert "1 messages could not be read" in response.text
