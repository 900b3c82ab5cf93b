"""The page in a real Chromium: it moves, it says when it is old or alone, and its own content policy breaks nothing of it.

Needs `chromium` on the PATH and the package playwright (no browser download); INSPECTOR_SHOTS keeps the pictures of the pages there.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from inspector.desk.app import create
from inspector.desk.recipes import Recipes
from inspector.desk.render import LIVE
from inspector.desk.serve import listen
from inspector.desk.state import Board
from inspector.desk.trial import Trial
from tests.desk.events import EPOCH, config, desk, finding, heartbeat, journal, png, verdict
from tests.desk.test_trial import photo

pytestmark = [pytest.mark.slow, pytest.mark.real]
FAILED = "Failed to load resource: "
EXPECTED = (
    f"{FAILED}net::ERR_",
    f"{FAILED}the server responded with a status of 401",
    f"{FAILED}the server responded with a status of 404",
)
"""How Chromium tells that the desk has gone, a password was wrong, and a picture is not kept or not written yet: these may happen."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Served:
    """A page that is served; `clock` runs unless `late_ns` is added, `stop` ends it as SIGTERM would."""

    url: str
    board: Board
    server: uvicorn.Server
    late_ns: list[int] = field(default_factory=lambda: [0])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    board = Board([("cam0", 0), ("cam1", 1)], utc=time.time_ns)
    late_ns = [0]

    def clock() -> int:
        return time.monotonic_ns() + late_ns[0]

    found = desk(
        tmp_path,
        board,
        clock=clock,
        picture=lambda reference: png(),
        stopping=lambda: server.should_exit,
        trial=Trial(Recipes(config()), clock=clock),
    )
    server = uvicorn.Server(uvicorn.Config(create(found), log_level="critical", timeout_graceful_shutdown=1, ws="none"))
    with listen("127.0.0.1:0") as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", board, server, late_ns)
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """A tab of a headless browser as large as a tablet; what it complains of fails the test."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    complaints: list[str] = []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        tab = browser.new_page(viewport={"width": 1024, "height": 768})
        tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        yield tab
        browser.close()
    assert [text for text in complaints if not text.startswith(EXPECTED)] == []


def shot(page: Any, name: str) -> None:
    folder = os.environ.get("INSPECTOR_SHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def feed(served: Served, seq: int, **changes: Any) -> None:
    now = time.monotonic_ns() + served.late_ns[0]
    served.board.beat(heartbeat(), now)
    bad = seq % 3 == 0
    event = verdict(seq, "REJECT_DEFECT" if bad else "PASS", image_ref=f"r{seq}" if bad else None, **changes)
    event["trigger"]["t_trigger_utc_ns"] = str(time.time_ns())
    served.board.verdict(event, now)


def test_the_line_moves_without_a_reload_and_grows_stale(served: Served, page: Any) -> None:
    for seq in range(1, 7):
        feed(served, seq)
    page.goto(served.url, wait_until="commit")
    page.wait_for_selector(".banner.run")
    assert page.title().startswith("Running")
    feed(served, 7)
    page.wait_for_selector(".tile .note >> text=/^7 since/")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shot(page, "line")
    served.late_ns[0] = 60_000_000_000
    page.wait_for_selector(".banner.stale")
    assert page.title().startswith("STALE")
    shot(page, "stale")


def test_what_is_held_stands_still_and_its_banner_moves(served: Served, page: Any) -> None:
    feed(served, 1)
    page.goto(f"{served.url}/parts", wait_until="commit")
    page.wait_for_selector("#hold:not([hidden])")
    page.click("#hold")
    feed(served, 2)
    served.late_ns[0] = 60_000_000_000
    page.wait_for_selector(".banner.stale")
    assert page.locator("table.parts tbody tr").count() == 1
    page.click("#hold")
    page.wait_for_selector("table.parts tbody tr:nth-child(2)")


def test_a_page_whose_desk_is_gone_says_so(served: Served, page: Any) -> None:
    feed(served, 1)
    page.goto(served.url, wait_until="commit")
    page.wait_for_selector(".banner.run")
    served.server.should_exit = True
    page.wait_for_selector("#gone:not([hidden])", timeout=15_000)
    assert "old" in page.inner_text("#gone")


def test_a_reject_is_shown_with_its_drawing(served: Served, page: Any) -> None:
    for seq in range(1, 4):
        feed(served, seq)
    page.goto(f"{served.url}/rejects", wait_until="commit")
    page.click("a.card.fail")
    page.wait_for_url(f"**/part/{EPOCH}/3")
    page.wait_for_selector("svg.picture image")
    assert page.locator("svg.picture use").is_visible()
    box = page.locator("svg.picture g.bad circle").bounding_box()
    frame = page.locator("svg.picture image").bounding_box()
    assert box is not None
    assert abs((box["x"] + box["width"] / 2 - frame["x"]) / frame["width"] - 160.5 / 600) < 0.01  # the finding lies where the pose says
    shot(page, "part")
    page.uncheck(".overlay")
    assert not page.locator("svg.picture .over").is_visible()


def test_no_page_is_wider_than_its_window(served: Served, page: Any, tmp_path: Path) -> None:
    begin = time.time_ns() - 5 * 3600 * 10**9
    named = (0, "plate-with-a-longer-name", 0.15), (1, "another-with-a-longer-name", 0.001)
    journal(tmp_path, begin, 1200, 15 * 10**9, of=lambda i: named[(i + i // 10) % 2], drift_mm=1e-6)
    for seq in range(1, 7):
        feed(served, 2_310_000 + seq, lane=seq % 2)
    for path in ("", *LIVE.keys() - {"line"}, "quality?minutes=480", "report", "try", "opinions"):
        for width, height in ((600, 1000), (800, 1280), (1366, 768)):
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"{served.url}/{path}", wait_until="commit")
            page.wait_for_selector("section")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path, width)
            shot(page, f"wide-{path.partition('?')[0] or 'line'}-{width}")
    page.goto(f"{served.url}/rejects", wait_until="commit")
    apart = """Array.from(document.querySelectorAll('.card .line')).every(line => {
        const boxes = Array.from(line.children).map(e => e.getBoundingClientRect());
        return boxes.every((b, i) => i === 0 || b.top >= boxes[i - 1].bottom - 1 || b.left - boxes[i - 1].right >= 4);
    })"""
    page.wait_for_selector("a.card")
    assert page.evaluate(apart)


def test_trends_are_drawn(served: Served, page: Any) -> None:
    for seq in range(1, 60):
        feed(served, seq, findings=[finding(0.02 + 0.01 * (seq % 5))])
    page.goto(f"{served.url}/trends", wait_until="commit")
    page.wait_for_selector("svg.chart circle")
    assert page.locator("svg.chart circle").count() == 59
    shot(page, "trends")


def test_a_picture_is_tried(served: Served, page: Any, tmp_path: Path) -> None:
    picture = tmp_path / "plate.png"
    picture.write_bytes(photo(without="hole-3"))
    page.goto(f"{served.url}/try", wait_until="commit")
    page.set_input_files("input[name=picture]", str(picture))
    assert page.inner_text("#said") == "plate.png"
    page.click("button[type=submit]")
    page.wait_for_selector("svg.picture", timeout=60_000)
    assert "reject" in page.inner_text("h1 .verdict")
    assert page.locator(".contours path.bad").count() >= 1
    shot(page, "try")
