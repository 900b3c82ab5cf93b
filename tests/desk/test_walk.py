"""A person walks through the page of a line at work, in a real Chromium as large as an old tablet: from the login to the shift report.

Needs `chromium` on the PATH and the package playwright (no browser download); INSPECTOR_SHOTS keeps the pictures of the pages there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contracts import REPOSITORY
from tests.desk.test_browser import page, shot  # noqa: F401 - a fixture
from tests.smoke.test_daemon import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
DEMO = REPOSITORY / "configs" / "demo.yaml"
PASSWORD = "correct-horse-9"


@dataclass
class Plant:
    """A line at work: the page's address, and the folder of its state."""

    url: str
    state: Path


def line(folder: Path) -> Path:
    """The demo's line with logins and one recipe more: the plate without a look at its surface."""
    settings = yaml.safe_load(DEMO.read_text().replace("../", f"{REPOSITORY}/"))
    plate = settings["recipes"]["plate"]
    outline = {name: check for name, check in plate["checks"].items() if name != "surface"}
    settings["recipes"]["plate-outline"] = {"number": 5, "template": plate["template"], "checks": outline}
    settings["gate"]["travel_min_ms"] = 5000  # a machine that is busy takes its time
    settings["conveyor"]["rate_parts_per_s"] = 6
    settings["desk"] = {"users": str(folder / "users")}
    path = folder / "line.yaml"
    path.write_text(json.dumps(settings))  # which is YAML without aliases
    return path


@pytest.fixture
def plant(page: Any, tmp_path: Path) -> Iterator[Plant]:  # noqa: F811 - skips without a browser, before anything is started
    path, state = line(tmp_path), tmp_path / "state"
    environment = {**os.environ, "INSPECTOR_STATE": str(state)}
    add = [sys.executable, "-m", "inspector", "desk-user", "set", str(path), "anna", "engineer", "--password-stdin"]
    subprocess.run(add, input=f"{PASSWORD}\n", env=environment, text=True, check=True, capture_output=True, timeout=60)
    command = [sys.executable, "-m", "inspector", "demo", "--config", str(path), "--state", str(state), "--json"]
    with (tmp_path / "out.txt").open("w") as out, (tmp_path / "err.txt").open("w") as err:
        demo = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
    try:
        said = until(lambda: demo.poll() is not None or ((state / "desk.out").exists() and (state / "desk.out").read_text()), 120)
        assert demo.poll() is None, (tmp_path / "err.txt").read_text()
        yield Plant(said.split()[-1], state)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(120) == 0, (tmp_path / "err.txt").read_text()
        assert json.loads((tmp_path / "out.txt").read_text())["faults"] == []
    finally:
        demo.kill()
        demo.wait()


def fits(tab: Any) -> None:
    """Nothing stands out to the right, on a tablet lying or standing."""
    for width, height in ((768, 1024), (1024, 768)):
        tab.set_viewport_size({"width": width, "height": height})
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (tab.url, width)


def seen(tab: Any, name: str) -> None:
    fits(tab)
    until(lambda: tab.evaluate("Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)"))
    shot(tab, name)


def again_until(tab: Any, selector: str) -> None:
    """Load a page that does not move until it shows this."""

    def there() -> bool:
        if tab.locator(selector).count():
            return True
        tab.wait_for_timeout(500)
        tab.reload()
        return False

    until(there, 120)


def test_from_the_login_to_the_shift_report(plant: Plant, page: Any) -> None:  # noqa: F811
    asked: set[str] = set()
    page.set_default_timeout(60_000)
    page.on("request", lambda request: asked.add(request.url))

    page.goto(plant.url, wait_until="commit")
    page.wait_for_url("**/login")
    page.fill("input[name=name]", "anna")
    page.fill("input[name=password]", "wrong-horse-9")
    page.click("button[type=submit]")
    page.wait_for_selector("[role=alert]")
    seen(page, "walk-01-login")
    page.fill("input[name=name]", "anna")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")

    # the line at a glance
    page.wait_for_selector(".banner.run")
    page.wait_for_selector("a.card img")
    page.wait_for_selector("table.parts .verdict.fail")
    seen(page, "walk-02-line")
    page.click("nav >> text=Parts")
    page.wait_for_selector("table.parts tbody tr:nth-child(5)")
    seen(page, "walk-03-parts")

    # rejects, and one of them with the drawing over it
    page.click("nav >> text=Rejects")
    page.wait_for_selector("table.pareto rect.bar")
    page.wait_for_selector("a.card.fail img")
    seen(page, "walk-04-rejects")
    page.locator("a.card.fail:has(img)").first.click()
    page.wait_for_url("**/part/**")
    page.wait_for_selector("svg.picture g.bad, svg.picture path.defect")
    assert page.locator(".contours path").count() > 3
    assert page.evaluate("fetch(document.querySelector('svg.picture image').href.baseVal).then(a => a.status)") == 200
    seen(page, "walk-05-part")
    page.fill("input[name=note]", "only a reflection")
    page.click("text=This was good")
    page.wait_for_selector("text=only a reflection")
    assert list((plant.state / "desk" / "opinions" / "images" / "good").glob("*.png"))
    seen(page, "walk-06-opinion")

    # what was measured
    page.click("nav >> text=Trends")
    page.wait_for_selector("svg.chart circle >> nth=5")
    seen(page, "walk-07-trends")
    page.click("nav >> text=Quality")
    again_until(page, "svg.chart circle >> nth=3")
    seen(page, "walk-08-quality")
    page.click("nav >> text=Cameras")
    page.wait_for_selector(".health >> nth=3")
    page.wait_for_selector(".gauge >> nth=3")
    seen(page, "walk-09-cameras")

    # another recipe takes over, and the one before goes on in shadow
    page.click("nav >> text=Changeover")
    page.wait_for_selector(".tile .value >> text=/^plate$/")
    page.click("tr:has-text('plate-outline') >> a:has-text('Lane 0')")
    page.wait_for_selector("h1:has-text('Change over: plate-outline?')")
    seen(page, "walk-10-confirm")
    page.click("section button[type=submit]")
    page.wait_for_selector(".tile .value >> text=/^plate-outline$/")
    page.click("tr:has-text('plate.dxf'):not(:has-text('plate-outline')) >> a:has-text('Shadow')")
    page.select_option("select[name=lane]", "0")
    page.click("section button[type=submit]")
    page.wait_for_selector("a.card:has-text('plate-outline → plate') img")
    seen(page, "walk-11-changeover")
    page.locator("a.card:has-text('plate-outline → plate')").first.click()
    page.wait_for_selector("h1:has-text('The shadow disagreed')")
    assert page.locator("svg.picture image").count() == 2
    seen(page, "walk-12-shadow")

    # a picture of the line, tried
    picture = next((plant.state / "pictures").glob("*/*-r-plate-*.png"))
    page.click("nav >> text=Try")
    page.set_input_files("input[name=picture]", str(picture))
    page.select_option("select[name=choice]", label="recipe plate")
    page.click("section button[type=submit]")
    page.wait_for_selector("svg.picture")
    assert re.search("reject|pass", page.inner_text("h1 .verdict"))
    seen(page, "walk-13-try")

    # the shift on paper
    page.click("nav >> text=Reports")
    page.wait_for_selector(".report .tile")
    seen(page, "walk-14-report")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    shot(page, "walk-15-paper")
    page.emulate_media(media="screen")
    with page.expect_download() as csv:
        page.click("text=CSV")
    assert "station" in Path(csv.value.path()).read_text().lower()

    page.click("text=Log out")
    page.wait_for_url("**/login")
    assert {url for url in asked if not url.startswith(plant.url)} == set(), "a page asks nobody but the desk"
