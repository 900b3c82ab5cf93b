"""What the pages say of the past: charts and counts by lane and recipe, and the last hours by the minute."""

from __future__ import annotations

import io
import re
import sqlite3
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest

from inspector.desk import tally, words
from inspector.desk.app import create
from inspector.desk.charts import total
from inspector.desk.history import Count, Dimension, History, Reasons, Subgroup
from inspector.desk.opinions import Opinion
from inspector.desk.report import COLUMNS, Report, Window, as_csv, shifts
from inspector.desk.state import Series, part_of
from inspector.desk.tally import Tally
from tests.desk.events import board, desk, journal, verdict

with warnings.catch_warnings():  # the client asks for httpx2, and works with httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

S = 10**9
HOUR_NS = 3600 * S


def products(i: int) -> tuple[int, str, float]:
    """Lane 0 changes from plate to plate-tight, whose limits are edited later; two products take turns on lane 1."""
    if i % 2:
        return 1, "washer" if i % 4 == 1 else "ring", 0.1
    return 0, *(("plate", 0.15) if i < 800 else ("plate-tight", 0.001) if i < 1600 else ("plate-tight", 0.002))


def test_recipes_and_edited_limits_are_charted_apart(tmp_path: Path) -> None:
    begin = time.time_ns() // HOUR_NS * HOUR_NS - 3 * HOUR_NS
    journal(tmp_path, begin, 2400, 3 * HOUR_NS // 2400, of=products)
    found = {d.series: d for d in History(tmp_path / "journal.sqlite").dimensions(begin, begin + 4 * HOUR_NS)}
    assert [(s.lane, s.recipe, s.high) for s in found] == [
        (0, "plate", 0.15),
        (0, "plate-tight", 0.001),
        (0, "plate-tight", 0.002),
        (1, "ring", 0.1),
        (1, "washer", 0.1),
    ]
    assert sum(len(d.groups) for d in found.values()) > 60
    lasts = [max(g.seq for g in d.groups) for s, d in found.items() if s.lane == 0]
    assert lasts[0] < 810 <= lasts[1] < 1610 <= lasts[2]
    with TestClient(create(desk(tmp_path, board())), base_url="http://127.0.0.1:8080") as client:
        asked = {"minutes": 480, "lane": 0, "check": "outline", "feature": "hole-1", "recipe": "plate-tight"}
        chosen = [client.get("/quality", params=asked | {"limits": f"-{limit}..{limit}"}).text for limit in ("0.001", "0.002")]
        of_lane = client.get("/quality?minutes=480&lane=1").text
        whole = client.get("/quality?minutes=480").text
    assert all("lane 0, plate-tight, " in text and "recipe=plate&amp;" in text for text in chosen)
    rows = [re.findall(r'<tr class="here">.*?</tr>', text) for text in chosen]
    assert ["−0.001 … 0.001" in rows[0][0], "−0.002 … 0.002" in rows[1][0]] == [True, True]
    assert "p chart, 1200 parts" in of_lane
    assert "p chart, 2400 parts" in whole


def test_features_are_counted_by_lane_and_recipe(tmp_path: Path) -> None:
    begin = time.time_ns() // HOUR_NS * HOUR_NS - 3 * HOUR_NS
    journal(tmp_path, begin, 2400, 3 * HOUR_NS // 2400, of=lambda i: ((0, "plate", 0.1), (2, "washer", 0.1))[(i + i // 10) % 2])
    with TestClient(create(desk(tmp_path, board())), base_url="http://127.0.0.1:8080") as client:
        local = time.strftime("%Y-%m-%dT%H:%M", time.localtime(begin / S))
        page, table = (client.get(f"/report{end}", params={"begin": local, "hours": "3"}).text for end in ("", ".csv"))
    rows = [dict(zip(COLUMNS, line.split(","), strict=True)) for line in table.splitlines()]
    found = {(r["lane"], r["recipe"], r["count"]) for r in rows if r["section"] == "feature"}
    assert found == {("0", "plate", "120"), ("2", "washer", "120")}
    assert "plate · outline: hole-1" in page
    assert "washer · outline: hole-1" in page
    assert {(r["lane"], r["recipe"]) for r in rows if r["section"] == "dimension"} == {("0", "plate"), ("2", "washer")}


def test_a_start_with_the_clock_set_back_hides_nothing(tmp_path: Path) -> None:
    """A machine that lost its clock's battery begins in the past, and comes back: whatever has the time of a window is in its report."""
    begin = time.time_ns() // HOUR_NS * HOUR_NS - 10 * HOUR_NS
    journal(tmp_path, begin, 900, 4 * S)
    database = sqlite3.connect(tmp_path / "journal.sqlite")
    later = bytes(15) + b"\1"
    database.execute("INSERT INTO epoch SELECT ?, number + 1, began_utc_ns, 1 FROM epoch", (later,))
    database.execute("UPDATE event SET epoch = ?, t_utc_ns = t_utc_ns - ? WHERE id > 300", (later, 3 * HOUR_NS))
    database.execute("UPDATE event SET t_utc_ns = t_utc_ns + ? WHERE id > 600", (5 * HOUR_NS,))
    database.commit()
    history = History(tmp_path / "journal.sqlite")
    count = "SELECT count(*) FROM event WHERE stream = 'q' AND kind = 1 AND t_utc_ns >= ? AND t_utc_ns < ?"
    seen = 0
    for hour in range(-3, 4):
        window = begin + hour * HOUR_NS, begin + (hour + 1) * HOUR_NS
        (found,) = history.counts(*window, 1, now_ns=time.time_ns())
        assert found.parts == database.execute(count, window).fetchone()[0], hour
        assert history.reasons(*window).read == found.rejected + found.not_inspected
        seen += found.parts
    assert seen == 900
    assert history.dimensions(begin - 3 * HOUR_NS, begin + 4 * HOUR_NS)[0].groups
    database.close()


def test_the_hour_that_there_is_twice_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        begin = 1_792_872_000 * S  # 2026-10-24 22:00, before clocks are set back
        window = shifts(("06:00", "14:00", "22:00"), begin + HOUR_NS)[0]
        assert (window.from_ns, window.hours) == (begin, 9)
        hours = tuple(Count(begin + i * HOUR_NS, begin + (i + 1) * HOUR_NS, 1, 0, 0) for i in range(9))
        text = as_csv(Report(window, hours, Count(begin, window.to_ns, 9, 0, 0), Reasons(Counter(), Counter(), 0), ()), "line")
    finally:
        monkeypatch.undo()
        time.tzset()
    named = [line.split(",")[0] for line in text.splitlines() if ",passed," in line and line.startswith("hour")]
    assert named[3:7] == ["hour 2026-10-25 01:00", "hour 2026-10-25 02:00+0200", "hour 2026-10-25 02:00+0100", "hour 2026-10-25 03:00"]


def test_a_text_that_no_page_holds_is_cut_in_the_pdf() -> None:
    pytest.importorskip("reportlab")
    from inspector.desk import paper

    long = "W" * 20_000
    found = Report(Window(0, HOUR_NS), (), Count(0, HOUR_NS, 0, 9, 0), Reasons(Counter({long: 9}), Counter({(0, long, long): 9}), 9), ())
    dimension = Dimension(Series(0, long, long, long, 0.0, 1.0, "mm"), (Subgroup(0, 1.0, 0.1, 0, "e", 1),), 1.0, 0.1, None)
    said = Opinion(0, long, "e", 1, 1, 0, (), "PASS", long, long, long, long, None)
    assert paper.pdf(found, [said], [dimension], station=long, made_ns=0).startswith(b"%PDF")


def test_the_pdf_has_the_figures_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("reportlab")
    pypdf = pytest.importorskip("pypdf")
    begin = time.time_ns() // HOUR_NS * HOUR_NS - 3 * HOUR_NS
    journal(tmp_path, begin, 2400, 3 * HOUR_NS // 2400, of=lambda i: ((0, "plate", 0.1), (2, "washer", 0.1))[(i + i // 10) % 2])
    found = desk(tmp_path, board())
    for seq in range(1, 41):  # more than a page holds; and what no font has
        found.opinions.say(part_of(verdict(seq, "REJECT_DEFECT")), "anna", "good", "<b>a reflection</b> & Łódź")
    with TestClient(create(found), base_url="http://127.0.0.1:8080") as client:
        local = time.strftime("%Y-%m-%dT%H:%M", time.localtime(begin / S))
        answer = client.get("/report.pdf", params={"begin": local, "hours": "4"})
        page = client.get("/report", params={"begin": local, "hours": "4"}).text
        now = client.get("/report.pdf").status_code
    assert (answer.headers["content-type"], now) == ("application/pdf", 200)
    assert ".pdf" in answer.headers["content-disposition"]
    assert "/report.pdf?begin=" in page
    text = " ".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(answer.content)).pages)
    text = " ".join(text.split())
    for said in (
        "Parts 2400 ",
        "Passed 2136 89 %",
        "Rejected 240 10 %",
        "Not inspected 24 1 %",
        "plate · outline: hole-1 120 50 % 100 %",
        "washer · outline: hole-1 120 50 % 50 %",
        "-0.1 … 0.1",
        "<b>a reflection</b>",
        found.station,
    ):
        assert said in text, said
    cpk = {words.number(d.cpk, 3) for d in found.history.dimensions(begin, begin + 4 * HOUR_NS)}
    assert all(value in text for value in cpk)


def read_all(read: Tally) -> None:
    """Let the worker read until nothing is left."""
    while read._read():
        pass


def test_the_rejects_page_counts_what_the_journal_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "AT_ONCE", 300)
    now = time.time_ns()
    journal(tmp_path, now - 5 * HOUR_NS, 2500, 2 * HOUR_NS // 1000, of=lambda i: (i // 10 % 2, "washer" if i // 10 % 2 else "plate", 0.1))
    clock, page = [0], []
    found = desk(tmp_path, board(), clock=lambda: clock[0])
    with TestClient(create(found), base_url="http://127.0.0.1:8080") as client:
        page.append(client.get("/rejects?minutes=1440").text)
        clock[0] += S  # a page is written again after a quarter of a second
        assert found.tally._read()
        page.append(client.get("/rejects?minutes=1440").text)
        read_all(found.tally)
        clock[0] += S
        page += [client.get(f"/rejects?minutes={query}").text for query in ("1440", "480", "1440&lane=0", "60&lane=1")]
        page.append(client.get("/").text)
    assert "the journal cannot be read" in page[0]
    assert "still being read from the journal" in page[1]
    assert [re.findall(r"(\d+) rejected, (\d+) not inspected, (\d+) passed", text)[0] for text in page[2:5]] == [
        ("250", "25", "2225"),
        ("250", "25", "2225"),
        ("125", "0", "1125"),
    ]
    assert not [text for text in page[2:] if "Only since" in text]
    assert "plate · outline: hole-1" in page[2]
    assert "washer" not in page[4].split("Where they failed")[0]
    assert 23 <= int(re.findall(r"(\d+) rejected, \d+ not inspected", page[5])[0]) <= 25
    assert sum(map(int, re.findall(r"<title>[0-9:]+: (\d+) passed", page[6]))) > 430


def test_new_events_and_another_journal_are_counted(tmp_path: Path) -> None:
    now = time.time_ns()
    first, second, folder = tmp_path / "first", tmp_path / "second", tmp_path / "state"
    journal(first, now - HOUR_NS, 200, S)
    journal(second, now - HOUR_NS, 100, S)
    folder.mkdir()
    clock = [0]
    read = Tally(History(folder / "journal.sqlite"), clock=lambda: clock[0], utc=lambda: now)
    read.step()
    assert read.last(120) is None  # no journal
    counted = []
    for source in (first, second):
        (source / "journal.sqlite").replace(folder / "journal.sqlite")
        read_all(read)
        told = read.last(120)
        assert told is not None
        counted.append(total(told.minutes).passed)
    assert counted == [178, 89]
    (folder / "journal.sqlite").unlink()
    clock[0] = tally.OLD_NS + 1
    read.step()
    assert read.last(120) is None
