from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from rich.console import Console

from inspector import config
from inspector.records import ConfigError
from inspector.workshop import demo, screen
from inspector.workshop.demo import Given, Line, against_truth, environment, faults_of_account, given, percentile, settings_of

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
PASS = Given(0, 1, "plate", "PASS", 0, "", "outline outer 0.1 mm [-0.2…0.2]", (), 60.0, 470.0)
REJECT = replace(PASS, part_seq=2, verdict="REJECT_DEFECT", reason=101, reason_text="outline outer", named=("outline",))
UNSEEN = replace(PASS, part_seq=3, verdict="REJECT_NOT_INSPECTED", reason=208, reason_text="late", worst="")
LEDGER = {"triggers": 3, "pass": 1, "reject": 1, "not_inspected": 1, "pending": 0, "unexplained": 0}


def verdicts(*given: Given) -> dict[demo.Part, Given]:
    return {v.part: v for v in given}


def outcomes(**by_part: str) -> dict[demo.Part, dict[str, Any]]:
    return {(0, int(name[1:])): {"outcome": outcome} for name, outcome in by_part.items()}


GOOD = {"good": True, "defects": [], "fault": None}
BURR = {"good": False, "defects": [{"kind": "burr", "feature": "outer", "size_mm": [1.5, 0.5]}], "fault": None}


def test_an_account_that_balances_has_no_faults() -> None:
    done = outcomes(p1="PASSED", p2="EJECTED_CONFIRMED", p3="DEFAULT_REJECT", p4="DEFAULT_REJECT")
    assert faults_of_account(LEDGER, verdicts(PASS, REJECT, UNSEEN), done, 0) == []


@pytest.mark.parametrize(
    ("ledger", "given", "done", "repeated", "words"),
    [
        ({}, verdicts(PASS), {}, 0, "not said its ledger"),
        ({**LEDGER, "unexplained": 1}, verdicts(PASS, REJECT, UNSEEN), None, 0, "does not balance"),
        ({**LEDGER, "pending": 1, "triggers": 4}, verdicts(PASS, REJECT, UNSEEN), None, 0, "does not balance"),
        ({**LEDGER, "pass": 2}, verdicts(PASS, REJECT, UNSEEN), None, 0, "does not balance"),
        (LEDGER, verdicts(PASS, REJECT), None, 0, "3 parts, but 2 of them"),
        (LEDGER, verdicts(PASS, REJECT, UNSEEN), None, 1, "1 more than one"),
        (
            LEDGER,
            verdicts(PASS, REJECT, UNSEEN),
            outcomes(p1="PASSED", p2="PASSED", p3="DEFAULT_REJECT"),
            0,
            "part 2 of lane 0 pass without",
        ),
        (LEDGER, verdicts(PASS, REJECT, UNSEEN), outcomes(p1="PASSED", p2="EJECTED_CONFIRMED"), 0, "1 parts never came"),
    ],
)
def test_what_does_not_add_up_is_said(
    ledger: dict[str, int], given: dict[demo.Part, Given], done: dict[demo.Part, Any] | None, repeated: int, words: str
) -> None:
    if done is None:
        done = outcomes(p1="PASSED", p2="EJECTED_CONFIRMED", p3="DEFAULT_REJECT")
    assert any(words in fault for fault in faults_of_account(ledger, given, done, repeated))


def test_parts_are_counted_by_what_they_were() -> None:
    truth = {(0, 1): GOOD, (0, 2): BURR, (0, 3): BURR, (0, 5): BURR, (0, 6): GOOD}
    passed_bad, late = replace(PASS, part_seq=5), replace(PASS, part_seq=6)
    done = outcomes(p1="PASSED", p2="EJECTED_CONFIRMED", p3="DEFAULT_REJECT", p5="PASSED", p6="DEFAULT_REJECT")
    rows = against_truth(verdicts(PASS, REJECT, UNSEEN, passed_bad, late, replace(UNSEEN, part_seq=7, reason=212)), done, truth)
    good, burr, unseen = rows["good"], rows["burr"], rows[demo.UNSEEN]
    assert (good.parts, good.found, good.unjudged, good.passed) == (2, 0, 1, 1)
    assert (burr.parts, burr.found, burr.unjudged, burr.passed) == (3, 1, 1, 1)
    assert burr.named == {"outline": 1, "DEADLINE": 1}
    assert unseen.named == {"DRAINING": 1}
    assert sum(row.parts for row in rows.values()) == 6


def event(findings: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    base = {"lane": 2, "part_seq": "17", "verdict": "PASS", "reason": 0, "reason_text": "", "findings": findings}
    return {**base, "timing_ms": {"trigger_to_verdict": 80.5}, "eject": {"deadline_ms_from_trigger": 530}, **more}


def finding(
    value: float | None, low: float | None, high: float | None, ok: bool = True, unit: str = "mm", feature: str = "outer"
) -> dict[str, Any]:
    return {"check": "outline", "feature": feature, "value": value, "low": low, "high": high, "unit": unit, "ok": ok, "at_mm": None}


def test_the_worst_finding_is_the_one_nearest_to_its_limit_or_beyond() -> None:
    fine, near, score = finding(0.01, -0.2, 0.2), finding(-0.15, -0.2, 0.2, feature="hole-1"), finding(0.99, 0.6, None, unit="ratio")
    v = given(event([fine, score, near]), {2: "gasket"})
    assert (v.camera, v.part, v.latency_ms, v.margin_ms) == ("gasket", (2, 17), 80.5, 449.5)
    assert v.worst == "outline hole-1 -0.15 mm [-0.2…0.2]"
    assert v.named == ()
    over = finding(0.5, None, 0.0, ok=False, unit="mm2", feature="scratch")
    v = given(event([near, over, fine]), {})
    assert v.worst.startswith("outline scratch 0.5 mm2 […0]")
    assert v.named == ("outline",)
    assert given(event([finding(None, 1.0, 1.0, ok=False), over]), {}).worst == "outline outer none mm [1…1]"
    assert given(event([]), {}).worst == ""


@for_all(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_percentiles_are_values_that_enough_values_do_not_exceed(values: list[float], share: float) -> None:
    p = percentile(values, share)
    assert p in values
    assert sum(v <= p for v in values) >= share * len(values) - 1e-9
    assert sum(v < p for v in values) <= share * len(values) + 1e-9 or p == min(values)


def test_no_values_have_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_what_the_demo_changes_it_says_in_the_environment(tmp_path: Path) -> None:
    variables = environment(tmp_path, rate_parts_per_s=3, seed=9, base={"INSPECTOR__DESK__BIND": "127.0.0.1:8080"})
    settings = settings_of(CONFIG, variables)
    assert settings.state_dir == tmp_path
    assert settings.ready_file == tmp_path / "ready.json"
    assert settings.gate.bind == settings.events.bind == "tcp://127.0.0.1:0"
    assert settings.desk.bind == "127.0.0.1:8080"
    kind = config.plugin("conveyor", "simulated")
    belt = config.settings_of("conveyor", settings.conveyor, kind.Settings)
    assert (belt.rate_parts_per_s, belt.seed) == (3.0, 9)


def test_a_real_belt_is_no_demo(tmp_path: Path) -> None:
    file = tmp_path / "line.yaml"
    file.write_text(CONFIG.read_text().replace("kind: simulated\n  rate", "kind: timed\n  rate"))
    with pytest.raises(ConfigError, match=r"E_DEMO.*simulated conveyor"):
        settings_of(file, environment(tmp_path, rate_parts_per_s=None, seed=None, base={}))


def test_truth_is_read_as_it_grows(tmp_path: Path) -> None:
    line = Line(tmp_path, settings_of(CONFIG, environment(tmp_path, rate_parts_per_s=None, seed=None, base={})))
    path = tmp_path / "plate.jsonl"
    first, second = ({"lane": 0, "part_seq": n, "again": n == 2, **GOOD} for n in (1, 2))
    path.write_text(json.dumps(first) + "\n" + json.dumps(second)[:20])
    line.read_truth()
    assert set(line.truth) == {(0, 1)}
    path.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    line.read_truth()
    line.read_truth()
    assert set(line.truth) == {(0, 1), (0, 2)}
    assert line.again == 1
    assert demo.described(line.truth[0, 1]) == "good"
    assert demo.described(BURR) == "burr outer 1.5×0.5 mm"
    assert demo.described(None) == ""


def shown(terminal: bool, line: Line) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, color_system=None)
    with screen.screen(console) as show:
        for verdict in line.verdicts.values():
            show(line, verdict)
        show(line, None)
    rows = against_truth(line.verdicts, line.outcomes(), line.truth)
    screen.account(console, line, rows, faults_of_account(line.ledger(), line.verdicts, line.outcomes(), line.repeated))
    return out.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_the_screen_shows_verdicts_and_the_account(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "REFRESH_S", 0.0)
    line = Line(tmp_path, settings_of(CONFIG, environment(tmp_path, rate_parts_per_s=None, seed=None, base={})))
    line.verdicts = verdicts(PASS, REJECT, UNSEEN)
    line.truth = {(0, 1): GOOD, (0, 2): BURR, (0, 3): BURR}
    line.ledger_line = "triggers=3 pass=1 reject=1 not_inspected=1 pending=0 unexplained=0"
    done = [{"lane": 0, "part_seq": n, "outcome": o} for n, o in ((1, "PASSED"), (2, "EJECTED_CONFIRMED"), (3, "DEFAULT_REJECT"))]
    (tmp_path / "plc.jsonl").write_text("".join(json.dumps(d) + "\n" for d in done))
    text = shown(terminal, line)
    assert "REJECT_DEFECT" in text
    assert "burr outer 1.5×0.5 mm" in text
    assert "unexplained=0" in text
    assert "passed=1 ejected=1 ejected_without_verdict=1" in text
    assert "escapes 0 of 2 bad parts (0.00 %), false rejects 0 of 1 good parts (0.00 %)" in text
    assert "does not balance" not in text
    line.ledger_line = ""
    assert "does not balance: the daemon has not said its ledger" in shown(terminal, line)


def demonstrate(*arguments: str, interrupt_after_s: float | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inspector", "demo", "--no-desk", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            out, err = process.communicate(timeout=interrupt_after_s or 100)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.real
@pytest.mark.slow
def test_the_demo_runs_and_its_account_balances() -> None:
    done = demonstrate("--for", "6", "--rate", "2", "--json")
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert account["faults"] == []
    assert account["ledger"]["triggers"] >= 8
    assert account["ledger"]["unexplained"] == 0
    assert sum(kind["parts"] for kind in account["kinds"].values()) == account["ledger"]["triggers"]


@pytest.mark.real
@pytest.mark.slow
def test_ctrl_c_ends_it_with_the_account() -> None:
    done = demonstrate("--rate", "2", interrupt_after_s=25)
    assert done.returncode == 0, done.stderr
    assert "unexplained=0" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    file = tmp_path / "line.yaml"
    text = CONFIG.read_text().replace("../dxf_templates", str(CONFIG.parents[1] / "dxf_templates"))
    file.write_text(text.replace("../models", str(tmp_path)))
    done = demonstrate("--config", str(file), "--for", "3")
    assert done.returncode == 78
    assert "E_DEMO" in done.stderr
    assert "E_MODEL" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "something").write_text("")
    done = demonstrate("--state", str(tmp_path / "state"))
    assert done.returncode == 78
    assert "E_DEMO_STATE" in done.stderr


def test_the_account_is_json(tmp_path: Path) -> None:
    row = demo.Row(parts=2, found=1)
    row.named.update(["outline"])
    told = json.loads(
        json.dumps(
            demo.account_of(
                Line(tmp_path, settings_of(CONFIG, environment(tmp_path, rate_parts_per_s=None, seed=None, base={}))), {"burr": row}, []
            )
        )
    )
    assert told["kinds"]["burr"]["named"] == {"outline": 1}
