"""The unit that we ship under a real systemd: an instance of our own in namespaces of our own, as root and without a package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.smoke.conftest import line

SYSTEMD = Path("/lib/systemd/systemd")
UNIT = Path(__file__).parents[2] / "deploy" / "inspector.service"
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not SYSTEMD.exists() or not shutil.which("unshare"),
        reason="needs root, systemd and unshare to start an instance",
    ),
]

NOT_HERE = "User|Group|StateDirectory|RuntimeDirectory|WorkingDirectory|PrivateTmp|ProtectHome|ProtectKernelTunables|ProtectKernelLogs"
"""Settings that an instance in a namespace cannot give, or that would hide the test's own folder; all others stay as shipped."""

SETUP = """
mount -t tmpfs tmpfs /run || exit 41
mkdir -p /run/systemd/system /run/user/0/systemd && chmod 700 /run/user/0
umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 42
mkdir -p /sys/fs/cgroup/line && echo $$ > /sys/fs/cgroup/line/cgroup.procs || exit 43
export XDG_RUNTIME_DIR=/run/user/0 XDG_CONFIG_HOME=$PWD/config HOME=$PWD
unset DBUS_SESSION_BUS_ADDRESS
%s --user --log-target=console 2>systemd.log &
for i in $(seq 100); do [ -S /run/user/0/systemd/private ] && break; sleep .1; done
show() { echo "== $1"; systemctl --user show inspector -p MainPID,ActiveState,NRestarts,StatusText,Result,ExecMainStatus; }
until_() { for i in $(seq 300); do eval "$1" && return; sleep .1; done; echo "never: $1"; }
is() { [ "$(systemctl --user show inspector -p $1 --value)" = "$2" ]; }
systemctl --user start inspector; echo "start $?"
"""

Systemd = Callable[..., dict[str, dict[str, str]]]


@pytest.fixture
def systemd(tmp_path: Path, kinds: Path) -> Systemd:
    """Runs shell commands beside a systemd that has started our unit; gives what `show NAME` saw, by name."""

    def run(script: str, fault: str = "") -> dict[str, dict[str, str]]:
        path = line(tmp_path)
        unit = re.sub(rf"(?m)^({NOT_HERE})=.*\n", "", UNIT.read_text())
        unit = re.sub(
            r"(?m)^ExecStart=.*$",
            f"ExecStart={sys.executable} -m inspector run {path} --quiet --allow-root\n"
            f"Environment=PYTHONPATH={kinds} PYTHONDONTWRITEBYTECODE=1 INSPECTOR_FAULT={fault}\nReadWritePaths={tmp_path}\n"
            f"StandardOutput=append:{tmp_path}/out.txt\nStandardError=append:{tmp_path}/err.txt",
            unit,
        )
        folder = tmp_path / "config" / "systemd" / "user"
        folder.mkdir(parents=True)
        (folder / "inspector.service").write_text(unit)
        command = ["unshare", "-m", "-p", "-f", "-C", "--mount-proc", "--propagation", "private", "--kill-child", "bash", "-c"]
        said = subprocess.run(
            [*command, SETUP % SYSTEMD + script],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            start_new_session=True,
            check=False,
        )
        if said.returncode in (41, 42, 43):
            pytest.skip(f"no mounts or control groups here: {said.stderr.strip()}")
        assert "start 0" in said.stdout, f"{said.stdout}{said.stderr}{(tmp_path / 'err.txt').read_text()}"
        shown: dict[str, dict[str, str]] = {}
        for text in said.stdout.splitlines():
            assert not text.startswith("never:"), said.stdout
            if text.startswith("== "):
                current = shown.setdefault(text[3:], {})
            elif "=" in text and shown:
                key, _, value = text.partition("=")
                current[key] = value
        return shown

    return run


def test_it_is_ready_reloads_and_stops(systemd: Systemd, tmp_path: Path) -> None:
    shown = systemd(
        """
        show started; sleep 2; show running
        systemctl --user reload inspector; echo "reload $?"; sleep 1; show reloaded
        systemctl --user stop inspector; show stopped
        """
    )
    assert shown["started"]["ActiveState"] == "active"
    assert re.match(r"triggers=\d+ pass=[1-9]", shown["running"]["StatusText"])
    assert shown["reloaded"]["MainPID"] == shown["running"]["MainPID"] == shown["started"]["MainPID"]
    assert (shown["stopped"]["ActiveState"], shown["stopped"]["Result"], shown["stopped"]["NRestarts"]) == ("inactive", "success", "0")
    assert (tmp_path / "out.txt").read_text().splitlines()[-1].endswith("pending=0 unexplained=0")


def test_a_frozen_thread_makes_it_restart(systemd: Systemd, tmp_path: Path) -> None:
    shown = systemd(
        """
        show started; until_ 'is NRestarts 1 && is ActiveState active'; show again
        """,
        fault="freeze:arbiter:8",
    )
    assert shown["started"]["NRestarts"] == "0"
    assert shown["again"]["ActiveState"] == "active"
    assert shown["again"]["MainPID"] != shown["started"]["MainPID"]
    assert "frozen: arbiter" in (tmp_path / "err.txt").read_text()


def test_a_process_that_is_stopped_or_killed_is_started_again(systemd: Systemd) -> None:
    shown = systemd(
        """
        show started; kill -STOP $(systemctl --user show inspector -p MainPID --value)
        until_ 'is NRestarts 1 && is ActiveState active'; show thawed
        kill -KILL $(systemctl --user show inspector -p MainPID --value)
        until_ 'is NRestarts 2 && is ActiveState active'; show risen
        """
    )
    assert len({shown[name]["MainPID"] for name in ("started", "thawed", "risen")}) == 3


def test_what_a_person_must_change_is_not_tried_again(systemd: Systemd, tmp_path: Path) -> None:
    shown = systemd(
        """
        systemctl --user stop inspector; echo nonsense > line.yaml
        systemctl --user start inspector; show refused; sleep 2; show later
        """
    )
    assert (shown["refused"]["ExecMainStatus"], shown["refused"]["Result"]) == ("78", "exit-code")
    assert (shown["later"]["ActiveState"], shown["later"]["NRestarts"]) == ("failed", "0")
    assert "E_CFG" in (tmp_path / "err.txt").read_text()


def test_the_unit_is_known_to_systemd_and_hardened() -> None:
    verified = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [text for text in verified.stderr.splitlines() if "is not executable" not in text]
    assert complaints == []
    security = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(UNIT)], capture_output=True, check=False
    )
    assert security.returncode == 0
