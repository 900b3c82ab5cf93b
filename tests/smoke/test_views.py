"""Cameras that look at the same part, each in its process of vision's: PASS needs every one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.smoke.conftest import line
from tests.smoke.test_daemon import Running, until

pytestmark = pytest.mark.real


def views(folder: Path, **second: Any) -> Path:
    """Two cameras over lane 0: the first sees good parts only, the second what the test says."""
    return line(
        folder,
        cameras=[
            {"id": "top", "lane": 0, "recipe": "plate", "source": {"kind": "painted", "levels": [100]}},
            {"id": "side", "lane": 0, "recipe": "plate", "isolated": True, "source": {"kind": "painted", **second}},
        ],
    )


def verdicts(running: Running, number: int) -> list[dict[str, Any]]:
    """The next so many verdicts, as their subscribers are told them."""
    command = [sys.executable, "-m", "inspector", "events", running.ready()["endpoints"]["events"], "--stream", "q", "--json"]
    told = subprocess.run([*command, "--count", str(number)], capture_output=True, text=True, check=True, timeout=100)
    return [json.loads(text) for text in told.stdout.splitlines()]


def settled(running: Running) -> None:
    until(lambda: running.metric("vision", "inspector_inspections_total") > 6)


def test_what_one_camera_refuses_the_other_cannot_pass(tmp_path: Path, environment: dict[str, str]) -> None:
    running = Running(views(tmp_path, levels=[100, 200]), environment)
    try:
        settled(running)
        for said in verdicts(running, 12):
            if said["verdict"] == "REJECT_NOT_INSPECTED":
                continue  # this machine was busy
            good = int(said["part_seq"]) % 2 == 1
            assert said["verdict"] == ("PASS" if good else "REJECT_DEFECT")
            assert [camera["cam_id"] for camera in said["cameras"]] == ["top", "side"]
            assert all(finding["ok"] for finding in said["findings"]) is good
    finally:
        assert running.end() == 0
    account = running.account()
    assert account["unexplained"] == 0
    assert account["reject"] > 0
    assert account["pass"] > 0


def test_a_part_that_one_camera_does_not_see_is_not_passed(tmp_path: Path, environment: dict[str, str]) -> None:
    """The second camera's cable is pulled while the line runs, and stays out."""
    pulled = tmp_path / "pulled"
    running = Running(views(tmp_path, down_while=str(pulled)), environment)
    try:
        settled(running)
        pulled.touch()
        until(lambda: "side is down" in running.said())
        said = verdicts(running, 8)[2:]
        assert {each["verdict"] for each in said} == {"REJECT_NOT_INSPECTED"}
        assert {each["reason"] for each in said} <= {201, 202, 203}
        assert any(each["reason"] == 203 and "side" in each["reason_text"] for each in said)
    finally:
        assert running.end() == 0
    account = running.account()
    assert account["unexplained"] == 0
    assert account["pass"] + account["reject"] + account["not_inspected"] == account["triggers"]
