"""Logging in, roles, acts, opinions, the journal's past: through the application as a browser sees it."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from inspector.desk import sessions, users
from inspector.desk.app import create
from inspector.desk.history import History
from inspector.desk.render import Desk
from inspector.desk.report import COLUMNS, shifts
from inspector.desk.state import Series
from inspector.records import ConfigError
from tests.desk.events import EPOCH, board, csrf_of, desk, heartbeat, journal, png, verdict

with warnings.catch_warnings():  # the client asks for httpx2, and works with httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

PASSWORD = "correct-horse-9"
HERE = {"origin": "http://127.0.0.1:8080"}
ACCEPT = {"accept": "text/html"}
S = 10**9
HOUR_NS = 3600 * S
EDGES = ("9999-12-31T23:59", "0001-01-01T00:00")  # of what a calendar has; no report of a week lies within it
REFERENCE = "20261121-0000000000000001-r-cam0-1"


@lru_cache
def four() -> dict[str, users.User]:
    """One user of each role."""
    return {name: users.new(name, name, PASSWORD) for name in users.ROLES}


class Stage:
    """A desk with four users, a daemon that writes down what it is asked, and a part with a picture."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, [10 * S]
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.refuses = False
        users.write(folder / "users", four())
        page = board(("cam0", 0), ("cam1", 1))
        page.beat(heartbeat(), self.clock[0])
        page.verdict(verdict(1, "REJECT_DEFECT", image_ref=REFERENCE), self.clock[0])
        (folder / f"{REFERENCE}.png").write_bytes(png())
        (folder / f"{REFERENCE}.json").write_text("{}")
        self.desk: Desk = desk(folder, page, clock=lambda: self.clock[0], users=users.Users(folder / "users"), put=self.put)
        self.desk.opinions._picture_of = lambda reference: folder / f"{reference}.png"
        self.client = TestClient(create(self.desk), base_url="http://127.0.0.1:8080", raise_server_exceptions=False)

    def put(self, socket: Path, command: str, *, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        del socket, timeout_s
        self.asked.append((command, arguments))
        if self.refuses:
            raise ConfigError("E_RECIPE", "the recipe in force stays: it failed its proof")
        cameras = {"cam0": {"name": arguments.get("recipe"), "number": 1}}
        return {"what": "in_force", "recipe": "ab" * 32, "cameras": cameras, "text": "", "lane": arguments.get("lane"), "holds": {}}

    def log_in(self, name: str, password: str = PASSWORD) -> int:
        csrf = csrf_of(self.client.get("/login").text)
        answer = self.client.post("/login", headers=HERE, data={"name": name, "password": password, "csrf": csrf}, follow_redirects=False)
        return int(answer.status_code)

    def post(self, path: str, **data: str) -> int:
        """The status; an act that was ordered is done before this comes back."""
        csrf = data.pop("csrf", None) or csrf_of(self.client.get("/").text)
        sent = self.client.post(path, headers=HERE, data={"csrf": csrf, **data}, follow_redirects=False)
        while any(o.said is None for o in self.desk.acts.orders()):
            self.desk.acts.step()
        return int(sent.status_code)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "desk" / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(users, "LOG2_N", 14)
    monkeypatch.setattr(users, "PARALLEL", 1)
    monkeypatch.setattr("inspector.desk.doing.SOON_S", 0.0)
    made = Stage(tmp_path)
    with made.client:
        yield made


# --- logging in --------------------------------------------------------------------------------------------------------

EVERYTHING = [
    "/",
    "/parts",
    "/quality",
    "/report",
    "/report.csv",
    "/report.pdf",
    "/changeover",
    "/try",
    "/opinions",
    "/people",
    "/live/line",
]


@pytest.mark.parametrize("path", [*EVERYTHING, f"/part/{EPOCH}/1", f"/part/{EPOCH}/1/picture", "/confirm/switch?recipe=plate"])
def test_nothing_is_seen_without_a_login(stage: Stage, path: str) -> None:
    assert stage.client.get(path).status_code == 401
    to = stage.client.get(path, headers=ACCEPT, follow_redirects=False)
    assert (to.status_code, to.headers["location"]) == (303, "/login")
    assert stage.client.get("/healthz").status_code == 200
    assert "Running" not in stage.client.get("/login").text


def test_a_page_that_is_kept_is_for_the_session_that_was_given_it(stage: Stage) -> None:
    assert stage.log_in("viewer") == 303
    page = stage.client.get("/")
    assert "Running" in page.text
    again = stage.client.get("/")
    assert (again.content, again.headers) == (page.content, page.headers)
    theirs = dict(stage.client.cookies)
    stage.client.cookies.clear()
    assert stage.client.get("/").status_code == 401  # who has no session
    assert stage.log_in("operator") == 303
    assert csrf_of(stage.client.get("/").text) != csrf_of(page.text)
    stage.client.cookies.clear()
    stage.client.cookies.update(theirs)
    assert stage.client.get("/").content == page.content
    stage.desk.sessions.end_all_of("viewer")
    assert stage.client.get("/").status_code == 401


def test_who_acts_is_given_a_page_of_now(stage: Stage) -> None:
    stage.log_in("operator")
    before = stage.client.get("/").text
    stage.desk.board.verdict(verdict(2), stage.clock[0])
    assert stage.client.get("/").text != before


def test_every_route_but_the_login_asks_who_it_is(stage: Stage) -> None:
    """Whatever is added later, too: a path is filled in with what its parameters allow."""
    open_to_all = {"/healthz", "/static/{name}", "/login"}
    values = {"epoch": EPOCH, "seq": "1", "token": "x" * 22, "page": "line", "name": "switch", "camera": "cam0"}
    routes = [route for route in stage.client.app.routes if route.path not in open_to_all]  # type: ignore[attr-defined]
    assert len(routes) > 20
    for route in routes:
        path = route.path.format(**values)
        for method in route.methods - {"HEAD"}:
            sent = stage.client.request(method, path, headers=HERE, data={"csrf": csrf_of(stage.client.get("/login").text)})
            assert sent.status_code in (400, 401, 403) or route.path == "/logout", (method, route.path, sent.status_code)
            assert "Running" not in sent.text
    assert stage.asked == []


def test_only_who_is_logged_in_may_send_much(stage: Stage) -> None:
    large = {"picture": ("x.png", bytes(2 << 20))}
    assert stage.client.post("/try", headers=HERE, data={"choice": "0"}, files=large).status_code == 413
    stage.log_in("viewer")
    csrf = csrf_of(stage.client.get("/try").text)
    assert stage.client.post("/try", headers=HERE, data={"choice": "0", "csrf": csrf}, files=large).status_code == 415  # no picture
    assert stage.client.post("/logout", headers=HERE, files=large).status_code == 413


def test_a_session_begins_and_ends(stage: Stage) -> None:
    assert stage.log_in("viewer") == 303
    (cookie,) = stage.client.cookies.jar
    assert (cookie.name, cookie.has_nonstandard_attr("HttpOnly"), cookie.get_nonstandard_attr("SameSite")) == ("inspector", True, "strict")
    assert stage.client.get("/").status_code == 200
    assert stage.post("/logout") == 303
    assert stage.client.get("/").status_code == 401
    assert [(line["who"], line["act"]) for line in stage.audit()] == [("viewer", "login"), ("viewer", "logout")]


def test_with_tls_the_cookie_is_held_to_its_host(stage: Stage) -> None:
    from dataclasses import replace

    with TestClient(create(replace(stage.desk, secure=True)), base_url="https://127.0.0.1:8080") as client:
        csrf = csrf_of(client.get("/login").text)
        sent = {"name": "viewer", "password": PASSWORD, "csrf": csrf}
        answer = client.post("/login", headers={"origin": "https://127.0.0.1:8080"}, data=sent, follow_redirects=False)
        plain = client.post("/login", headers=HERE, data=sent)
    assert "__Host-inspector=" in answer.headers["set-cookie"]
    assert "Secure" in answer.headers["set-cookie"]
    assert "strict-transport-security" in answer.headers
    assert plain.status_code == 403


def test_a_session_grows_old(stage: Stage) -> None:
    stage.log_in("viewer")
    for _ in range(3):
        stage.clock[0] += 29 * 60 * S
        assert stage.client.get("/").status_code == 200
    stage.clock[0] += 31 * 60 * S
    assert stage.client.get("/").status_code == 401
    stage.log_in("viewer")
    for _ in range(12 * 3):
        stage.clock[0] += 20 * 60 * S + S
        alive = stage.client.get("/").status_code
    assert alive == 401


@pytest.mark.parametrize(
    ("name", "password"), [("viewer", "wrong-password"), ("nobody", PASSWORD), ("", ""), ("viewer", "x" * 200_000), ("vіewer", PASSWORD)]
)
def test_a_wrong_password_is_one_answer_for_all(stage: Stage, name: str, password: str) -> None:
    assert stage.log_in(name, password) == 401
    assert stage.client.get("/").status_code == 401


def test_guessing_is_stopped_and_ends(stage: Stage) -> None:
    answers = [stage.log_in("admin", "wrong-password") for _ in range(sessions.WRONG_OF_ONE)]
    assert answers == [401] * sessions.WRONG_OF_ONE
    assert stage.log_in("admin") == 429
    stage.clock[0] += 301 * S
    assert stage.log_in("admin") == 303


def test_who_is_taken_out_or_given_another_role_is_logged_out(stage: Stage) -> None:
    stage.log_in("engineer")
    found = users.read(stage.folder / "users")
    users.write(stage.folder / "users", {**found, "engineer": users.new("engineer", "viewer", PASSWORD)})
    assert stage.client.get("/").status_code == 401


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_users_that_root_makes_belongs_to_the_line(tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "users"
    state.mkdir()
    os.chown(state, 65534, 65534)
    users.write(path, four(), owner=state)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (65534, 0o600)
    os.chown(path, 1, 1)
    users.write(path, four(), owner=state)
    assert path.stat().st_uid == 1


def test_a_file_that_others_may_read_or_that_is_damaged_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "users"
    with pytest.raises(ConfigError, match="E_USERS_OPEN"):
        users.read(path)
    users.write(path, {"anna": users.new("anna", "admin", PASSWORD)})
    assert path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in path.read_text()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        users.read(path)
    path.chmod(0o600)
    path.write_text("anna admin plain\n")
    with pytest.raises(ConfigError, match="E_USERS_LINE"):
        users.read(path)


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [("An na", "viewer", PASSWORD), ("anna", "boss", PASSWORD), ("anna", "viewer", "short"), ("anna-maria-b", "viewer", "anna-maria-b")],
)
def test_bad_users_are_refused(name: str, role: str, password: str) -> None:
    with pytest.raises(ConfigError, match="E_USAGE"):
        users.new(name, role, password)


# --- acts --------------------------------------------------------------------------------------------------------------

RIGHTS = {
    "switch": ("operator", {"recipe": "plate", "lane": "1"}, ("recipe", {"do": "switch", "recipe": "plate", "lanes": [1]})),
    "shadow": ("engineer", {"recipe": "plate"}, ("recipe", {"do": "shadow", "recipe": "plate", "lanes": []})),
    "unshadow": ("engineer", {}, ("recipe", {"do": "shadow", "recipe": None})),
    "challenge": ("operator", {"lane": "1"}, ("challenge", {"lane": 1})),
    "reset": ("operator", {"why": "looked at it"}, ("reset", {"names": ["line_stop", "too_good"]})),
    "accept": ("engineer", {"why": "new drawing"}, ("reset", {"names": ["recipe"]})),
    "reload": ("engineer", {"why": "new limits"}, ("reload", {})),
}


@pytest.mark.parametrize("role", list(users.ROLES))
@pytest.mark.parametrize("act", list(RIGHTS))
def test_each_role_may_do_what_it_may(stage: Stage, act: str, role: str) -> None:
    least, data, asked = RIGHTS[act]
    stage.log_in(role)
    allowed = users.ROLES[role] >= users.ROLES[least]
    confirm = stage.client.get(f"/confirm/{act}", params={key: value for key, value in data.items() if key != "why"})
    assert confirm.status_code == (200 if allowed else 403)
    assert stage.asked == []
    assert stage.post(f"/act/{act}", **data) == (303 if allowed else 403)
    assert stage.asked == ([asked] if allowed else [])
    done = [line["outcome"] for line in stage.audit() if line["act"] == act]
    assert done == (["ordered", "done"] if allowed else [])


def test_an_act_needs_the_page_that_it_comes_from(stage: Stage) -> None:
    stage.log_in("admin")
    assert stage.post("/act/challenge", lane="0", csrf="x" * 32) == 403
    assert stage.client.get("/act/challenge").status_code == 405
    assert stage.post("/act/nothing") == 404
    assert stage.post("/act/switch", recipe="../../etc") == 400
    assert stage.post("/act/switch", recipe="plate", lane="9") == 400
    assert stage.post("/act/reset") == 400  # no reason given
    assert stage.asked == []


@pytest.mark.parametrize(("lane", "lanes"), [("", []), ("1", [1])])
def test_the_lane_of_a_shadow_is_chosen_when_it_is_confirmed(stage: Stage, lane: str, lanes: list[int]) -> None:
    stage.log_in("engineer")
    assert '<option value="1">1 (cam1)</option>' in stage.client.get("/confirm/shadow?recipe=plate").text
    assert stage.post("/act/shadow", recipe="plate", lane=lane) == 303
    assert stage.asked == [("recipe", {"do": "shadow", "recipe": "plate", "lanes": lanes})]


def test_what_the_daemon_refuses_is_shown_and_written_down(stage: Stage) -> None:
    stage.refuses = True
    stage.log_in("operator")
    stage.post("/act/switch", recipe="plate")
    assert "it failed its proof" in stage.client.get("/changeover").text
    assert stage.audit()[-1]["outcome"] == "refused"


def test_what_cannot_be_written_down_is_not_done(stage: Stage) -> None:
    stage.log_in("operator")
    csrf = csrf_of(stage.client.get("/").text)
    (stage.folder / "desk" / "audit.jsonl").unlink()
    (stage.folder / "desk" / "audit.jsonl").mkdir()
    assert stage.post("/act/challenge", lane="0", csrf=csrf) == 503
    assert stage.asked == []


def test_without_users_everybody_looks_and_nobody_acts(tmp_path: Path) -> None:
    found = desk(tmp_path, board())
    with TestClient(create(found), base_url="http://127.0.0.1:8080") as client:
        assert client.get("/changeover").status_code == 200
        csrf = csrf_of(client.get("/try").text)
        assert client.post("/act/challenge", headers=HERE, data={"csrf": csrf, "lane": "0"}).status_code == 403
        assert client.get("/people").status_code == 403


def test_the_admin_sees_who_did_what_and_ends_sessions(stage: Stage) -> None:
    stage.log_in("admin")
    text = stage.client.get("/people").text
    assert "operator" in text
    assert "login" in text
    assert stage.post("/people/end", name="admin") == 303
    assert stage.client.get("/").status_code == 401


# --- opinions ----------------------------------------------------------------------------------------------------------


def test_an_opinion_is_kept_as_train_reads_it(stage: Stage) -> None:
    stage.log_in("operator")
    own = stage.folder / "desk" / "opinions"
    path = f"/part/{EPOCH}/1/opinion"
    assert stage.post(path, said="good", note="only dust") == 303
    assert (own / "images" / "good" / f"{REFERENCE}.png").read_bytes() == png()
    assert "only dust" in stage.client.get("/opinions").text
    assert stage.client.get(f"/opinion/{EPOCH}/1/thumb").headers["content-type"] == "image/jpeg"
    assert stage.post(path, said="bad", defect="Deep Scratch") == 303
    assert sorted(str(p.relative_to(own)) for p in own.rglob("*.*")) == [
        f"images/deep-scratch/{REFERENCE}.json",
        f"images/deep-scratch/{REFERENCE}.png",
        "opinions.jsonl",
    ]
    assert [json.loads(line)["said"] for line in (own / "opinions.jsonl").read_text().splitlines()] == ["good", "deep-scratch"]
    assert stage.post(path, said="withdrawn") == 303
    assert list(own.rglob("*.png")) == []
    assert "Nobody has disagreed yet" in stage.client.get("/opinions").text


@pytest.mark.parametrize(
    "data",
    [{"said": "maybe"}, {"said": "bad", "defect": "../../etc"}, {"said": "bad", "defect": "good"}, {"said": "good", "note": "x" * 301}],
)
def test_bad_opinions_are_refused(stage: Stage, data: dict[str, str]) -> None:
    stage.log_in("operator")
    assert stage.post(f"/part/{EPOCH}/1/opinion", **data) == 400
    assert not (stage.folder / "desk" / "opinions").exists()


def test_a_viewer_has_no_opinion(stage: Stage) -> None:
    stage.log_in("viewer")
    assert "What do you say" not in stage.client.get(f"/part/{EPOCH}/1").text
    assert stage.post(f"/part/{EPOCH}/1/opinion", said="good") == 403


# --- the past ----------------------------------------------------------------------------------------------------------


def test_the_past_is_counted_and_measured_from_the_journal(tmp_path: Path) -> None:
    begin = time.time_ns() // HOUR_NS * HOUR_NS - 4 * HOUR_NS
    journal(tmp_path, begin, 2000, 2 * HOUR_NS // 2000, drift_mm=1e-5)
    history = History(tmp_path / "journal.sqlite")
    counts = history.counts(begin, begin + 4 * HOUR_NS, 4, now_ns=time.time_ns())
    assert [(c.passed, c.rejected, c.not_inspected) for c in counts] == [(890, 100, 10), (890, 100, 10), (0, 0, 0), (0, 0, 0)]
    assert counts == history.counts(begin, begin + 4 * HOUR_NS, 4, now_ns=time.time_ns())
    reasons = history.reasons(begin + HOUR_NS, begin + 4 * HOUR_NS)
    assert (reasons.read, reasons.features[0, "plate", "outline: hole-1"]) == (110, 100)
    (found,) = history.dimensions(begin, begin + 4 * HOUR_NS)
    assert found.series == Series(0, "plate", "outline", "hole-1", -0.1, 0.1, "mm")
    assert found.sigma is not None
    assert found.cp is not None
    assert found.cpk is not None
    assert found.cpk <= found.cp
    assert history.first_utc_ns() == begin


def test_a_drift_is_told_and_chance_is_not(tmp_path: Path) -> None:
    from inspector.desk.history import SUBGROUP, dimension
    from inspector.desk.state import Measured, Part

    def series(drift_mm_per_h: float) -> list[list[tuple[Part, Measured]]]:
        return [
            [
                (
                    Part(EPOCH, i + 1, i + 1, 0, "PASS", at_utc_ns=i * HOUR_NS // 10),
                    Measured("outline", "hole-1", 0.002 * ((i * 3 + k) % 5) + drift_mm_per_h * i / 10, -0.1, 0.1, "mm", True, None),
                )
                for k in range(SUBGROUP)
            ]
            for i in range(30)
        ]

    key = Series(0, "", "outline", "hole-1", -0.1, 0.1, "mm")
    wandering = dimension(key, series(0.01))
    assert wandering.drift_per_h == pytest.approx(0.01, rel=0.05)
    assert wandering.limit_in_h == pytest.approx((0.1 - wandering.mean) / 0.01, rel=0.05)
    still = dimension(key, series(0.0))
    assert (still.drift_per_h, still.limit_in_h) == (None, None)


def test_pages_and_csv_of_a_shift(tmp_path: Path) -> None:
    begin = time.time_ns() // HOUR_NS * HOUR_NS - 3 * HOUR_NS
    journal(tmp_path, begin, 600, 3 * HOUR_NS // 600)
    with TestClient(create(desk(tmp_path, board())), base_url="http://127.0.0.1:8080") as client:
        local = time.strftime("%Y-%m-%dT%H:%M", time.localtime(begin / S))
        shown = client.get("/report", params={"begin": local, "hours": "3"})
        table = client.get("/report.csv", params={"begin": local, "hours": "3"})
        quality = client.get("/quality?minutes=480")
        bad = [
            client.get(f"/report?{query}").status_code for query in ("begin=yesterday", "hours=0", "hours=999", "begin=2026-13-41T25:00")
        ]
        bad += [client.get(f"/report{end}?begin={at}&hours=168").status_code for end in ("", ".csv", ".pdf") for at in EDGES]
    assert shown.status_code == quality.status_code == 200
    assert "outline: hole-1" in shown.text
    assert "X̄ chart" in quality.text
    rows = [line.split(",") for line in table.text.splitlines()]
    assert tuple(rows[0]) == COLUMNS
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert ["parts", "rejected", "60"] in [row[:3] for row in rows]
    assert "attachment" in table.headers["content-disposition"]
    assert set(bad) == {400}


def test_a_part_of_the_past_is_shown_from_the_journal(tmp_path: Path) -> None:
    begin = time.time_ns() - 3 * HOUR_NS
    journal(tmp_path, begin, 600, 3 * HOUR_NS // 600)
    shown = desk(tmp_path, board(), picture=lambda reference: png())
    with TestClient(create(shown), base_url="http://127.0.0.1:8080") as client:
        points = set(re.findall(rf"/part/{EPOCH}/([0-9]+)", client.get("/quality?minutes=480").text))
        assert len(points) > 20
        assert {client.get(f"/part/{EPOCH}/{seq}").status_code for seq in points} == {200}
        page, other = client.get(f"/part/{EPOCH}/4").text, client.get(f"/part/{EPOCH}/601")
        pictures = [client.get(f"/part/{EPOCH}/4/{end}").status_code for end in ("picture", "thumb")]
        odd = [client.get(f"/part/{path}").status_code for path in (f"{EPOCH}/{2**64 - 1}", "nothing/1")]
    assert "REJECT" in page.upper()
    assert pictures == [200, 200]
    assert (other.status_code, other.json()["error"]["code"]) == (404, "E_HTTP_404")
    assert odd == [404, 404]


def test_no_journal_is_said(tmp_path: Path) -> None:
    with TestClient(create(desk(tmp_path, board())), base_url="http://127.0.0.1:8080") as client:
        answer = client.get("/quality")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "E_DB_OPEN")


def test_shifts_follow_each_other() -> None:
    found = shifts(["06:00", "14:00", "22:00"], time.time_ns())
    assert found[0].from_ns <= time.time_ns() < found[0].to_ns
    assert [a.from_ns for a in found[:-1]] == [b.to_ns for b in found[1:]]
    assert {w.begin[11:] for w in found} == {"06:00", "14:00", "22:00"}
