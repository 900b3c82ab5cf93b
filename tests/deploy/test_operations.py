"""The guide says what to do about every alarm and every alert, and the metrics' table is what a daemon shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as families_of

from deploy import alarms
from tests.smoke.conftest import line
from tests.smoke.test_daemon import daemon, until

DEPLOY = Path(__file__).parents[2] / "deploy"
GUIDE = (DEPLOY / "OPERATIONS.md").read_text(encoding="utf-8")
RULES = DEPLOY / "prometheus" / "inspector.rules.yml"


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table whose first column has that heading."""
    lines = iter(text[text.index(f"| {heading} |") :].splitlines()[2:])
    found = []
    for row in lines:
        if not row.startswith("|"):
            break
        found.append([cell.strip() for cell in row.strip("|").split("|")])
    return found


def test_every_alarm_has_its_line() -> None:
    assert alarms.table() in GUIDE, "python -m deploy.alarms writes it anew"


def test_every_alert_has_its_line() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert [row[0] for row in rows(GUIDE, "Alert")] == [rule["alert"] for rule in rules]
    assert all(rule["labels"]["severity"] in ("critical", "warning") and rule["annotations"]["summary"] for rule in rules)


def test_what_the_guide_points_at_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (DEPLOY / link).exists(), link
    for name in re.findall(r"`([a-z-]+\.(?:conf|yml|sh))`", GUIDE):
        assert list(DEPLOY.rglob(name)), name


def documented() -> dict[str, tuple[str, set[str], set[str]]]:
    """By name: type, labels, processes."""
    return {
        name.strip("`"): (kind, set(labels.replace("–", "").split()), set(processes.split()))
        for name, kind, _, labels, processes, _ in rows((DEPLOY / "metrics.md").read_text(encoding="utf-8"), "Name")
    }


@pytest.mark.real
def test_the_table_of_metrics_is_what_a_daemon_shows(tmp_path: Path, environment: dict[str, str]) -> None:
    shown: dict[str, tuple[str, set[str], set[str]]] = {}
    with daemon(line(tmp_path), environment) as running:
        until(lambda: running.metric("vision", "inspector_inspections_total") > 5)
        for process in ("gate", "vision"):
            for family in families_of(running.page(process)):
                name = family.name + ("_total" if family.type == "counter" else "")
                labels = {label for sample in family.samples for label in sample.labels} - {"le"}
                _, before, processes = shown.get(name, ("", set(), set()))
                shown[name] = family.type, before | labels, processes | {process}
    table = documented()
    assert {name: (kind, where) for name, (kind, _, where) in shown.items()} == {
        name: (kind, where) for name, (kind, _, where) in table.items()
    }
    assert [name for name, (_, labels, _) in shown.items() if not labels <= table[name][1]] == []
    explained = {label.strip() for row in rows((DEPLOY / "metrics.md").read_text(encoding="utf-8"), "Label") for label in row[0].split(",")}
    assert set().union(*(labels for _, labels, _ in table.values())) == explained


def test_dashboards_and_rules_ask_for_nothing_else() -> None:
    names = {name for name, (kind, *_) in documented().items() if kind != "histogram"}
    names |= {f"{name}_{part}" for name, (kind, *_) in documented().items() if kind == "histogram" for part in ("bucket", "sum", "count")}
    for path in (RULES, *(DEPLOY / "grafana").glob("*.json")):
        asked = set(re.findall(r"\binspector_\w+", path.read_text()))
        assert asked - names == set(), path.name


def test_the_dashboards_are_what_their_tables_make() -> None:
    dashboards = pytest.importorskip("deploy.grafana.dashboards", reason="grafana-foundation-sdk is not installed", exc_type=ImportError)
    for name in dashboards.DASHBOARDS:
        assert (DEPLOY / "grafana" / f"{name}.json").read_text() == dashboards.built(name), "python -m deploy.grafana.dashboards"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_the_alerts_are_raised_by_what_they_are_for(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    tests = [shutil.copy(path, tmp_path) for path in Path(__file__).parent.glob("rules*_test.yml")]
    said = subprocess.run(["promtool", "test", "rules", *tests], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    said = subprocess.run(
        ["promtool", "check", "config", str(RULES.with_name("prometheus.yml"))], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
