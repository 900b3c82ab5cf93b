"""The .deb on a machine with systemd as its first process: installed, started, watched, broken, upgraded, removed. Units as shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.machine import CAN_BOOT, WHY_NOT, Machine

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CAN_BOOT or not shutil.which("dpkg-deb"), reason=WHY_NOT),
]

SHARE = "/opt/inspector/share/inspector"
LINE = f"""
version: 1
site: test
line: line1
station: cell1
state_dir: /var/lib/inspector
ready_file: /run/inspector/ready.json
conveyor: {{kind: simulated, rate_parts_per_s: 4.0, lanes: [0], counts_per_s: 1000.0, seed: 1}}
gate: {{count: conveyor}}
security: {{server_key: "${{CREDENTIALS_DIRECTORY:-/etc/inspector/keys}}/keys_server.key", clients: /etc/inspector/keys/clients}}
cameras:
  - {{id: top, recipe: plate, source: {{kind: simulated, drawing: {SHARE}/dxf_templates/plate.dxf, mm_per_px: 0.128}}}}
recipes:
  plate:
    template: {{drawing: {SHARE}/dxf_templates/plate.dxf, scale_px_per_mm: 7.8125}}
    checks:
      outline: {{kind: outline}}
      surface: {{kind: surface, model: {SHARE}/models/surface.onnx, limits_mm2: {{scratch: 1.0, dent: 3.0, stain: 3.0}}}}
"""
CONFFILE = "/etc/default/inspector"


@pytest.fixture(scope="module")
def machine(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Booted, the package installed, its line configured with keys; nothing started."""
    folder = tmp_path_factory.mktemp("machine")
    _next_version(built, folder)
    (folder / "line.yaml").write_text(LINE)
    (folder / "log_in.py").write_text(LOG_IN)
    found = Machine((built, "/media"), (folder, "/srv"))
    with ExitStack() as stack:
        try:
            found.start(stack, folder / "boot.txt")
        except RuntimeError as error:
            pytest.skip(str(error))
        found("apt-get install -y /media/inspector_*.deb")
        found("inspector keys new /etc/inspector/keys --client plc:gate --client desk:scada")
        found("install -m 640 -g inspector /srv/line.yaml /etc/inspector/line.yaml")
        found(f"install -D -m 644 {SHARE}/deploy/drop-ins/desk-keys.conf /etc/systemd/system/inspector-desk.service.d/keys.conf")
        found("systemctl daemon-reload")
        yield found


def _next_version(built: Path, folder: Path) -> None:
    """The same package with a higher number and another default environment, as the next release would be."""
    (package,) = built.glob("*.deb")
    tree = folder / "next"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 99.0.0", control.read_text()))
    conffile = tree / CONFFILE.lstrip("/")
    conffile.write_text(conffile.read_text() + "# a new default\n")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, folder / "next.deb"], check=True, capture_output=True
    )
    shutil.rmtree(tree)


def show(machine: Machine, name: str, unit: str = "inspector") -> str:
    return machine(f"systemctl show {unit} -p {name} --value")


@pytest.fixture
def running(machine: Machine) -> Iterator[Machine]:
    """The service, started afresh and working."""
    machine("systemctl stop inspector inspector-desk; systemctl reset-failed; systemctl unset-environment INSPECTOR_FAULT; true")
    machine("systemctl start inspector")
    machine.until(lambda: re.match(r"triggers=\d+ pass=[1-9]", show(machine, "StatusText")) is not None)
    yield machine
    machine("systemctl stop inspector; systemctl reset-failed; true")


def test_systemd_has_nothing_to_say_of_the_units(machine: Machine) -> None:
    said = machine.run("systemd-analyze verify /lib/systemd/system/inspector*.service")
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_it_is_ready_reloads_and_drains(running: Machine) -> None:
    before = show(running, "MainPID")
    running("systemctl reload inspector")
    running.until(lambda: show(running, "ActiveState") == "active")  # "reloading" until the new recipe is in force, or refused
    assert show(running, "MainPID") == before
    running("systemctl stop inspector")
    assert (show(running, "Result"), show(running, "NRestarts")) == ("success", "0")
    last = running("journalctl -u inspector -o cat --no-pager | grep ^triggers= | tail -1")
    assert last.endswith("pending=0 unexplained=0")
    running("inspector journal verify /var/lib/inspector")


def test_it_has_no_rights_and_writes_nowhere_else(running: Machine) -> None:
    pid = show(running, "MainPID")
    status = dict(line.split(":\t", 1) for line in running(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "inspector" in running(f"ps -o user= -p {pid}")
    theirs = running(
        "find / -xdev -user inspector -not -path '/proc/*' -not -path '/var/lib/inspector*'; find /run /tmp /var/tmp -user inspector"
    )
    told = running(f"tr '\\0' '\\n' < /proc/$(pgrep -P {pid} -f inspector.runtime.vision)/environ")
    assert "/run/credentials" not in told
    its_own = ("/run/inspector", "/run/credentials/inspector.service", "/tmp/systemd-private-")
    assert [path for path in theirs.splitlines() if not path.startswith(its_own)] == []
    inside = f"nsenter -t {pid} -m -S $(id -u inspector) -G $(id -g inspector)"
    for folder in ("/etc/inspector", "/opt/inspector", "/var/log", "/usr/lib", "/home"):
        assert running.run(f"{inside} touch {folder}/written").returncode != 0
    assert running.run(f"{inside} ls /dev/sda /dev/mem /dev/video0").returncode != 0
    assert running.run("setpriv --reuid inspector --regid inspector --clear-groups cat /etc/inspector/keys/server.key").returncode != 0


def test_a_frozen_thread_makes_it_restart(running: Machine) -> None:
    running("systemctl stop inspector; systemctl set-environment INSPECTOR_FAULT=freeze:arbiter:8")
    running.run("systemctl start inspector")  # frozen before it is ready, or after
    running("systemctl unset-environment INSPECTOR_FAULT")
    running.until(lambda: show(running, "NRestarts") == "1" and show(running, "ActiveState") == "active")
    said = running("journalctl -u inspector --no-pager")
    assert "frozen: arbiter" in said
    assert "Watchdog timeout" in said


def test_a_process_that_is_stopped_or_killed_is_started_again(running: Machine) -> None:
    for restarts, number in enumerate(("STOP", "KILL"), 1):
        running(f"kill -{number} {show(running, 'MainPID')}")
        running.until(lambda n=restarts: show(running, "NRestarts") == str(n) and show(running, "ActiveState") == "active")  # type: ignore[misc]
    running.until(lambda: re.match(r"triggers=\d+ pass=[1-9]", show(running, "StatusText")) is not None)


def test_what_a_person_must_change_is_said_and_not_tried_again(running: Machine) -> None:
    running("systemctl stop inspector; echo nonsense: 1 > /etc/inspector/line.yaml")
    try:
        assert running.run("systemctl start inspector").returncode != 0
        time.sleep(2)
        assert (show(running, "ExecMainStatus"), show(running, "ActiveState"), show(running, "NRestarts")) == ("78", "failed", "0")
        assert "E_CFG" in running("journalctl -u inspector -o cat --no-pager -n 20")
        assert "inspector.service has failed" in running("journalctl -t inspector-alarm -o cat --no-pager -n 1")
    finally:
        running("install -m 640 -g inspector /srv/line.yaml /etc/inspector/line.yaml")


def test_when_it_is_not_started_again_an_alarm_is_raised(running: Machine) -> None:
    running("printf '#!/bin/sh\\necho $1 > /var/local/alarm\\n' > /etc/inspector/on-failure && chmod 755 /etc/inspector/on-failure")
    for _ in range(40):
        if show(running, "ActiveState") == "failed":
            break
        if (pid := show(running, "MainPID")) != "0":
            running.run(f"kill -KILL {pid}")
        time.sleep(0.5)
    assert show(running, "ActiveState") == "failed"
    assert "Start request repeated too quickly" in running("journalctl -u inspector -o cat --no-pager -n 20")
    running.until(lambda: running("cat /var/local/alarm 2>/dev/null; true") == "inspector.service")


def test_the_page_runs_under_its_unit_with_a_key_of_its_own(running: Machine) -> None:
    running("systemctl start inspector-desk")
    page = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/').read().decode())\""
    running.until(lambda: "line1" in running.run(page).stdout)
    assert show(running, "ActiveState", "inspector-desk") == "active"


LOG_IN = """
import http.cookiejar, re, ssl, sys, urllib.parse, urllib.request
context = ssl.create_default_context(cafile="/etc/inspector/page.crt")
jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
browser = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), jar)
browser.addheaders = [("Origin", sys.argv[1]), ("Accept", "text/html")]
csrf = re.search('name="csrf" value="([^"]+)"', browser.open(f"{sys.argv[1]}/login", timeout=5).read().decode())[1]
said = urllib.parse.urlencode({"name": "anna", "password": "correct-horse-9", "csrf": csrf}).encode()
print(browser.open(f"{sys.argv[1]}/login", said, timeout=20).read().decode())
"""


def test_the_page_can_be_opened_to_the_plant_and_writes_its_own_folder_only(running: Machine) -> None:
    """As OPERATIONS.md says it, step by step; the plant's network is an address of this machine."""
    running("ip address add 198.51.100.5/24 dev lo")
    running(
        "cd /etc/inspector && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN=line1"
        " -addext subjectAltName=IP:198.51.100.5 -keyout page.key -out page.crt && chgrp inspector page.key && chmod 640 page.key"
    )
    running("echo 'desk: {bind: \"198.51.100.5:8443\", users: users, tls_cert: page.crt, tls_key: page.key}' >> /etc/inspector/line.yaml")
    try:
        running("echo correct-horse-9 | inspector desk-user set /etc/inspector/line.yaml anna operator --password-stdin")
        assert running("stat -c '%a %U' /etc/inspector/users") == "600 inspector"
        running("systemctl restart inspector-desk")
        log_in = "python3 /srv/log_in.py https://198.51.100.5:8443"
        running.until(lambda: "198.51.100.5:8443" in running("ss -ltnH"))
        assert "timed out" in running.run(log_in).stderr, "the unit lets nobody in but this machine"
        running(f"install -D -m 644 {SHARE}/deploy/drop-ins/desk-network.conf /etc/systemd/system/inspector-desk.service.d/network.conf")
        running("systemctl daemon-reload && systemctl restart inspector-desk")
        running.until(lambda: "Log out" in running.run(log_in).stdout)
        assert '"act":"login","outcome":"done"' in running("cat /var/lib/inspector/desk/audit.jsonl")
        inside = f"nsenter -t {show(running, 'MainPID', 'inspector-desk')} -m -S $(id -u inspector) -G $(id -g inspector)"
        running(f"{inside} touch /var/lib/inspector/desk/written")
        for folder in ("/var/lib/inspector", "/var/lib/inspector/pictures", "/etc/inspector"):
            assert running.run(f"{inside} touch {folder}/written").returncode != 0
    finally:
        running("install -m 640 -g inspector /srv/line.yaml /etc/inspector/line.yaml; systemctl stop inspector-desk")


def test_what_setup_writes_runs_with_its_keys(running: Machine) -> None:
    running(
        "systemctl stop inspector; rm -rf /etc/inspector/line.yaml /etc/inspector/keys; install -d -m 750 -g inspector /etc/inspector/keys"
    )
    drawing = f"{SHARE}/dxf_templates/plate.dxf"
    said = running(
        "inspector setup /etc/inspector/line.yaml --defaults --json --set cameras=simulated --set address=127.0.0.2 --set seen=5.5"
        f" --set drawing={drawing}"
    )
    try:
        assert "/etc/inspector/keys/server.key" in json.loads(said)["keys"]
        assert running("stat -c '%a %U %G' /etc/inspector/line.yaml") == "640 root inspector"
        running("inspector check /etc/inspector/line.yaml && systemctl start inspector")
        running.until(lambda: re.match(r"triggers=[1-9]", show(running, "StatusText")) is not None)
        assert running("ss -ltnH 'sport = :5562'").split()[3] == "127.0.0.2:5562"
    finally:
        running("install -m 640 -g inspector /srv/line.yaml /etc/inspector/line.yaml")


def test_a_backup_of_a_running_line_can_be_restored(running: Machine) -> None:
    backup = f"{SHARE}/deploy/backup.sh"
    assert "every link holds" in running(f"{backup} /var/local/line.tar")
    kept = running(
        "mkdir /var/local/kept && tar -xf /var/local/line.tar -C /var/local/kept ./var/lib/inspector"
        " && inspector journal verify /var/local/kept/var/lib/inspector --json"
    )
    assert json.loads(kept)["events"] > 0
    assert {"./var/lib/inspector/desk/audit.jsonl", "etc/inspector/line.yaml"} <= set(running("tar -tf /var/local/line.tar").splitlines())
    assert running.run(f"{backup} --restore /var/local/line.tar").returncode == 1  # the daemon runs
    running("systemctl stop inspector; rm -rf /etc/inspector /var/lib/inspector")
    assert "every link holds" in running(f"{backup} --restore /var/local/line.tar")
    running("systemctl reset-failed; systemctl start inspector")
    running.until(lambda: re.match(r"triggers=\d+ pass=[1-9]", show(running, "StatusText")) is not None)
    assert "JOURNAL_ROLLBACK" not in running("inspector journal verify /var/lib/inspector; journalctl -u inspector --no-pager")
    after = json.loads(running("inspector journal verify /var/lib/inspector --json"))
    assert after["events"] > json.loads(kept)["events"]


def test_an_upgrade_keeps_the_configuration_and_can_be_taken_back(running: Machine) -> None:
    running(f"echo INSPECTOR__GATE__TRAVEL_MIN_MS=700 >> {CONFFILE}")
    before = running("cat /etc/inspector/line.yaml"), show(running, "MainPID")
    for package, version in (("/srv/next.deb", "99.0.0"), ("/media/inspector_*.deb", "")):
        running(f"apt-get install -y --allow-downgrades -o Dpkg::Options::=--force-confold {package}")
        assert version in running("dpkg-query -W -f '${Version}' inspector")
        assert show(running, "ActiveState") == "active"
        assert running("cat /etc/inspector/line.yaml") == before[0]
        assert "TRAVEL_MIN_MS=700" in running(f"cat {CONFFILE}")
        running.until(lambda: re.match(r"triggers=\d+ pass=[1-9]", show(running, "StatusText")) is not None)
    assert show(running, "MainPID") != before[1]
    running("systemctl stop inspector; inspector journal verify /var/lib/inspector")


def test_it_leaves_nothing_behind_but_what_it_has_said(running: Machine) -> None:
    """The last test: afterwards there is no package."""
    running("systemctl enable inspector; apt-get remove -y inspector")
    assert running.run("test -e /opt/inspector -o -e /usr/bin/inspector -o -e /lib/systemd/system/inspector.service").returncode == 1
    assert show(running, "ActiveState") == "inactive"
    assert running("ls /etc/systemd/system/multi-user.target.wants | grep inspector; true") == ""
    assert {"keys", "line.yaml"} <= set(running("ls /etc/inspector").split())
    said = running("apt-get purge -y inspector")
    assert "kept: /var/lib/inspector" in said
    assert running.run(f"test -e /etc/inspector -o -e {CONFFILE}").returncode == 1
    assert "journal.sqlite" in running("ls /var/lib/inspector")
