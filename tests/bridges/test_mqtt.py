"""The MQTT bridge against a real broker and a real subscriber: mosquitto and mosquitto_sub."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from inspector.bridges import mqtt
from inspector.records import ConfigError, DeviceError
from tests.desk.events import heartbeat, verdict
from tests.gate.line import running

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
LINE = """
version: 1
site: site
line: line-1
station: cell-1
cameras: [{id: top, recipe: r, source: {kind: replay, folder: pictures}}]
recipes: {r: {checks: {c: {kind: outline}}}}
"""
HB = heartbeat(schema="insp.hb", counters={"triggers": "1"}, epoch="e")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def settings(**changes: Any) -> mqtt.Settings:
    return mqtt.Settings.model_validate({"host": "127.0.0.1", "topic": "plant/line1"} | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "broker.example"},
        {"host": "192.0.2.1"},
        {"topic": "plant/#"},
        {"topic": "/plant"},
        {"topic": "plant/+/x"},
        {"topic": ""},
        {"port": 0},
        {"qos": 2},
    ],
)
def test_unsafe_and_unknown_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)


def test_beyond_this_machine_it_takes_tls_or_a_word(tmp_path: Path) -> None:
    assert settings(host="192.0.2.1", plain=True).plain
    assert settings(host="broker.example", ca=tmp_path / "ca.pem").ca


@pytest.mark.parametrize(
    ("event", "topic", "lasting"),
    [
        (verdict(1, lane=3), "verdict/3", False),
        ({"schema": "insp.alarm", "code": "X"}, "alarm", False),
        ({"schema": "insp.state", "state": "RUN"}, "alarm", False),
        (HB, "status", True),
        ({"schema": "insp.stale"}, "status", True),
    ],
)
def test_every_event_has_its_topic(event: dict[str, Any], topic: str, lasting: bool) -> None:
    found = mqtt.Mqtt._message(event)
    assert (found[0], found[2]) == (topic, lasting)
    if event is HB:
        assert found[1]["sessions"] == HB["sessions"], "who is connected says why nobody lets parts pass"


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "paho", None)
    monkeypatch.setitem(__import__("sys").modules, "paho.mqtt.client", None)
    with pytest.raises(ConfigError, match=r"inspector\[bridges\]"):
        mqtt.build(settings(), "mqtt").send(HB)


def test_a_broker_that_is_not_there_is_a_device_that_fails() -> None:
    pytest.importorskip("paho.mqtt.client", reason="the package paho-mqtt is not installed")
    bridge = mqtt.build(settings(port=free_port()), "mqtt")
    with pytest.raises(DeviceError, match="MQTT broker"):
        bridge.send(HB)
    bridge.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """A broker's port."""
    pytest.importorskip("paho.mqtt.client", reason="the package paho-mqtt is not installed")
    if MOSQUITTO is None or shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto and mosquitto_sub are not installed")
    port = free_port()
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([MOSQUITTO, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL) as process:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
        process.terminate()


def heard(port: int, count: int, topic: str = "plant/line1/#") -> subprocess.Popen[str]:
    """A subscriber that ends after so many messages."""
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-F", "%t %r %p", "-C", str(count), "-W", "20", "-q", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def messages(subscriber: subprocess.Popen[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """(topic, kept, payload) of what it heard."""
    out, _ = subscriber.communicate(timeout=30)
    split = [line.split(" ", 2) for line in out.splitlines()]
    return [(topic, kept, json.loads(payload)) for topic, kept, payload in split]


@pytest.mark.real
def test_a_subscriber_hears_verdicts_alarms_and_status(broker: int) -> None:
    bridge = mqtt.build(settings(port=broker), "mqtt")
    bridge.send(HB)  # kept: who comes later still learns of it
    subscriber = heard(broker, 4)
    try:
        assert subscriber.stdout is not None
        first = subscriber.stdout.readline().split(" ", 2)  # the subscriber is there once it has the kept status
        bridge.send(verdict(7, "REJECT_DEFECT", lane=2))
        bridge.send({"schema": "insp.alarm", "code": "CAMERA_DOWN", "severity": "critical", "text": "no answer"})
        bridge.close()
        later = messages(subscriber)
    finally:
        subscriber.kill()
    assert (first[0], first[1]) == ("plant/line1/status", "1")
    assert json.loads(first[2])["permit"] == 1
    assert [topic for topic, _, _ in later] == ["plant/line1/verdict/2", "plant/line1/alarm", "plant/line1/status"]
    assert later[0][2] == verdict(7, "REJECT_DEFECT", lane=2)
    assert later[1][2]["code"] == "CAMERA_DOWN"
    assert later[2][2] == {"online": False}


@pytest.mark.real
def test_the_broker_tells_of_a_bridge_that_died(broker: int) -> None:
    bridge = mqtt.build(settings(port=broker), "mqtt")
    bridge.send(HB)
    bridge._client.loop_stop()
    bridge._client.socket().shutdown(socket.SHUT_RDWR)  # as a killed process would
    for _ in range(100):
        with heard(broker, 1, "plant/line1/status") as subscriber:
            kept = messages(subscriber)[0][2]
        if not kept["online"]:
            break
    assert kept == {"online": False}


@pytest.mark.real
def test_the_command_carries_from_the_gate_to_the_broker(broker: int, tmp_path: Path) -> None:
    with running(tmp_path) as line:
        (tmp_path / "ready.json").write_text(json.dumps({"endpoints": line.gate.endpoints()}))
        bridges = f"bridges: {{out: {{kind: mqtt, host: 127.0.0.1, port: {broker}, topic: plant/line1}}}}\n"
        (tmp_path / "line.yaml").write_text(LINE + bridges)
        subscriber = heard(broker, 1, "plant/line1/verdict/0")
        command = [sys.executable, "-m", "inspector", "bridge", str(tmp_path / "line.yaml"), "out", "--ready", str(tmp_path / "ready.json")]
        with heard(broker, 1, "plant/line1/status") as status, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert messages(status)[0][2]["state"] == "RUN"
                line.expose(1)
                found = messages(subscriber)
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
                assert process.stderr is not None
                assert "Traceback" not in process.stderr.read()
            finally:
                process.kill()
                subscriber.kill()
    assert [(topic, body["verdict"]) for topic, _, body in found] == [("plant/line1/verdict/0", "PASS")]


@pytest.mark.real
def test_the_command_refuses_a_bridge_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "line.yaml").write_text(LINE)
    command = [sys.executable, "-m", "inspector", "bridge", str(tmp_path / "line.yaml"), "opc"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 78
    assert "E_CFG_UNKNOWN" in said.stderr
    assert "the configuration has: none" in said.stderr
