"""Dashboards and alerts against the real programs: Prometheus scrapes a daemon, Alertmanager calls a webhook."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
import yaml

from tests.smoke.conftest import line
from tests.smoke.test_daemon import Running, until

DEPLOY = Path(__file__).parents[2] / "deploy"
PROGRAMS = ("prometheus", "prometheus-alertmanager")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {' and '.join(PROGRAMS)}"),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def started(folder: Path, name: str, *arguments: str) -> Iterator[None]:
    with (folder / f"{name}.txt").open("w") as said, subprocess.Popen([name, *arguments], cwd=folder, stdout=said, stderr=said) as process:
        yield
        process.terminate()


class Monitored:
    """A daemon, a Prometheus with our configuration (other ports, shorter waits), an Alertmanager, and what the webhook was told."""

    def __init__(self, folder: Path, environment: dict[str, str], stack: ExitStack) -> None:
        self.told: SimpleQueue[dict[str, Any]] = SimpleQueue()
        webhook = HTTPServer(("127.0.0.1", 0), self._handler())
        stack.callback(webhook.server_close)
        stack.callback(webhook.shutdown)
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        self.daemon = Running(line(folder), environment)
        stack.callback(self.daemon.process.wait)
        stack.callback(self.daemon.process.kill)
        at = self.daemon.ready()["endpoints"]
        alerts, self.port = free_port(), free_port()
        self._configure(folder, at, alerts, webhook.server_port)
        stack.enter_context(
            started(folder, PROGRAMS[1], "--config.file=alertmanager.yml", f"--web.listen-address=127.0.0.1:{alerts}",
                    "--cluster.listen-address=", f"--storage.path={folder / 'alerts'}")
        )  # fmt: skip
        stack.enter_context(
            started(folder, PROGRAMS[0], "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{self.port}",
                    f"--storage.tsdb.path={folder / 'series'}")
        )  # fmt: skip

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _configure(self, folder: Path, at: dict[str, str], alerts: int, webhook: int) -> None:
        ours = DEPLOY / "prometheus"
        shutil.copy(ours / "inspector.rules.yml", folder)
        asked = yaml.safe_load((ours / "prometheus.yml").read_text())
        asked["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        asked["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alerts}"]
        for job in asked["scrape_configs"]:
            job |= {"scrape_timeout": "1s"}
            job["static_configs"][0]["targets"] = [at[f"metrics_{job['job_name'].removeprefix('inspector-')}"]]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(asked))
        tell = yaml.safe_load((ours / "alertmanager.yml").read_text())
        tell["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        tell["receivers"][0]["webhook_configs"][0]["url"] = f"http://127.0.0.1:{webhook}/alert"
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(tell))

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code != 503:  # starting
                raise AssertionError(f"{expression}: {error.read().decode()}") from error
            return []
        except OSError:
            return []  # not up yet
        return found


@pytest.fixture
def monitored(tmp_path: Path, environment: dict[str, str]) -> Iterator[Monitored]:
    with ExitStack() as stack:
        yield Monitored(tmp_path, environment, stack)


def test_every_panel_shows_something_of_a_running_line(monitored: Monitored) -> None:
    dashboards = pytest.importorskip("deploy.grafana.dashboards", reason="grafana-foundation-sdk is not installed", exc_type=ImportError)
    until(
        lambda: monitored.ask(
            'rate(inspector_triggers_total[10s]) > 0 and on () inspector_vision_up == 1 and on () up{job="inspector-vision"}'
        )
    )
    until(lambda: monitored.ask("rate(inspector_inspections_total[10s]) > 0"))
    until(lambda: monitored.ask("rate(inspector_fsync_seconds_count[10s]) > 0"))
    silent = []
    for name, (_, panels) in dashboards.DASHBOARDS.items():
        board = json.loads((DEPLOY / "grafana" / f"{name}.json").read_text())
        assert len(board["panels"]) == len(panels)
        for panel, shown in zip(panels, board["panels"], strict=True):
            for target in shown["targets"]:
                expression = target["expr"].replace("$line", "line1").replace("$__rate_interval", "10s")
                if not monitored.ask(expression) and not panel.may_be_empty:
                    silent.append(f"{name}: {panel.title}: {expression}")
    assert silent == []
    assert [series["metric"]["line"] for series in monitored.ask("inspector_triggers_total")] == ["line1"]  # what the variable lists


def test_a_daemon_that_dies_is_told_to_the_control_room(monitored: Monitored) -> None:
    until(lambda: monitored.ask("inspector_triggers_total > 0"))
    os.kill(monitored.daemon.process.pid, 9)
    alerts: dict[str, dict[str, Any]] = {}
    for _ in range(60):
        try:
            alerts |= {alert["labels"]["alertname"]: alert for alert in monitored.told.get(timeout=2)["alerts"]}
        except Empty:
            continue
        if "LineDown" in alerts:
            break
    assert alerts["LineDown"]["labels"]["line"] == "line1"
    assert alerts["LineDown"]["annotations"]["summary"] == "line1: the daemon does not answer"
