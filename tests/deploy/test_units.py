"""The units that we ship, as systemd reads them: nothing to complain of, and little that they may do."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
DROP_INS = sorted((DEPLOY / "drop-ins").glob("*.conf"))
MOST_EXPOSED = "15"
"""1.5 of `systemd-analyze security`; a unit without any hardening has 9.6."""

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def test_systemd_has_nothing_to_say() -> None:
    said = subprocess.run(["systemd-analyze", "verify", *map(str, UNITS)], capture_output=True, text=True, check=False)
    assert [text for text in said.stderr.splitlines() if "/opt/inspector/bin/inspector is not executable" not in text] == []


def exposed(unit: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", [unit for unit in UNITS if "alarm" not in unit.name], ids=lambda unit: unit.name)
def test_a_unit_may_do_little(unit: Path) -> None:
    said = exposed(unit)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda drop_in: drop_in.name)
def test_and_little_more_with_cameras_and_a_plc(drop_in: Path, tmp_path: Path) -> None:
    unit = "inspector-desk.service" if "desk" in drop_in.name else "inspector.service"
    whole = tmp_path / unit
    whole.write_text((DEPLOY / unit).read_text().partition("[Install]")[0] + drop_in.read_text())
    said = exposed(whole)
    assert said.returncode == 0, said.stdout


@pytest.mark.skipif(not os.access("/dev/cpu_dma_latency", os.W_OK), reason="needs to write /dev/cpu_dma_latency")
def test_the_kernel_keeps_the_cpus_awake_while_the_unit_runs() -> None:
    def latency_us() -> int:
        with Path("/dev/cpu_dma_latency").open("rb", buffering=0) as file:
            return int.from_bytes(file.read(4), "little", signed=True)

    before_us = latency_us()
    (start,) = [line for line in (DEPLOY / "inspector-awake.service").read_text().splitlines() if line.startswith("ExecStart=")]
    script = start.partition("'")[2].rpartition("'")[0].replace("\\\\", "\\")  # as systemd reads it
    kept = subprocess.Popen(["/bin/sh", "-c", script])
    try:
        until_s = time.monotonic() + 10
        while latency_us() != 0 and time.monotonic() < until_s:
            time.sleep(0.01)
        assert latency_us() == 0
    finally:
        kept.kill()
        kept.wait()
    assert latency_us() == before_us
