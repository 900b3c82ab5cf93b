"""A machine to install on: systemd as PID 1 in namespaces of its own, on a copy of this system that is thrown away (root, systemd-nspawn).

Nothing of this system is written: an overlay in memory takes all of it. The machine has no network but its own loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

CAN_BOOT = os.geteuid() == 0 and shutil.which("systemd-nspawn") is not None and shutil.which("unshare") is not None
WHY_NOT = "needs root and systemd-nspawn (Debian: systemd-container) to boot a machine"

BOOT = r"""
umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 41
mount -t tmpfs -o size=4g tmpfs /mnt && mkdir /mnt/up /mnt/work /mnt/root || exit 42
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root || exit 43
cd /mnt/root && for _ in $(seq 60); do  # a list of packages of its own: this system may be at work on its list, now and later
    rm -rf var/lib/dpkg.own; cp -a var/lib/dpkg var/lib/dpkg.own; [ -z "$(ls -A var/lib/dpkg.own/updates)" ] && break; sleep 1
done
rm -rf var/lib/dpkg && mv var/lib/dpkg.own var/lib/dpkg || exit 44
: > etc/machine-id && rm -f usr/sbin/policy-rc.d
for unit in $(find etc/systemd/system lib/systemd/system -name '*.service' -printf '%f\n' | grep -v -E '^(systemd-|dbus|-\.)'); do
    case $unit in *@*) ;; rescue*|emergency*|initrd*) ;; *) ln -sf /dev/null "etc/systemd/system/$unit" ;; esac
done
rm -rf etc/systemd/system/inspector* etc/inspector etc/default/inspector opt/inspector var/lib/inspector
exec systemd-nspawn -q --register=no --keep-unit -D /mnt/root --machine=line --console=pipe --private-network \
    --system-call-filter=bpf @BINDS@ --boot systemd.unit=multi-user.target  # bpf: what IPAddressDeny= of a unit is made of
"""


class Machine:
    """Booted by `start`; `__call__` runs a shell command in it and gives what that printed."""

    def __init__(self, *read_only: tuple[Path, str]) -> None:
        self._binds = " ".join(f"--bind-ro={ours}:{theirs}" for ours, theirs in read_only)

    def start(self, stack: ExitStack, log: Path) -> None:
        """Boot; ended with the stack. Raises `RuntimeError` where this kernel gives no mounts or control groups."""
        output = stack.enter_context(log.open("w"))
        command = ["unshare", "-m", "-C", "--propagation", "private", "bash", "-c", BOOT.replace("@BINDS@", self._binds)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        stack.callback(self._end)
        self._pid = ""
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError(f"no machine: {log.read_text()[-2000:]}")
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            self._pid = next((child for child in children if _is_systemd(child)), "")
            if self._pid and self.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the machine did not come up: {log.read_text()[-2000:]}")

    def run(self, script: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the machine, as root."""
        inside = ["nsenter", "-t", self._pid, "-m", "-u", "-i", "-n", "-p", "-C", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        command = [*inside, "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", f"cd /root; {script}"]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False, start_new_session=True
        )

    def __call__(self, script: str, timeout_s: float = 240.0) -> str:
        """What the command printed, its last newline taken away; it must end with 0."""
        done = self.run(script, timeout_s)
        assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")

    def until(self, what: Callable[[], bool], within_s: float = 120.0) -> None:
        """Wait until that is so."""
        by_s = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < by_s, self.run("systemctl status inspector; journalctl -n 60 --no-pager").stdout
            time.sleep(0.1)

    def _end(self) -> None:
        if self._pid:
            self.run("systemctl poweroff")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _is_systemd(pid: str) -> bool:
    try:
        return b"systemd.unit=" in Path(f"/proc/{pid}/cmdline").read_bytes() and Path(f"/proc/{pid}/exe").resolve().name == "systemd"
    except OSError:
        return False
