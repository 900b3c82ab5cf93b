"""The backup: what it holds, and that a restore changes nothing unless all of it can be put in place."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from inspector.gate.journal import Journal
from tests.gate import script

BACKUP = Path(__file__).parents[2] / "deploy" / "backup.sh"
STATE = Path("var/lib/inspector")


class Place:
    """A machine's folders below one of ours, with the few commands that the script needs of a real one."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._bin = folder / "bin"
        self._bin.mkdir()
        self.stub("inspector", f'exec {sys.executable} -m inspector "$@"')
        self.stub("python", f'exec {sys.executable} "$@"')
        self.stub("systemctl", "exit 3")
        self.stub("chown", "exit 0")

    def stub(self, name: str, text: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ROOT": str(self.root), "BIN": str(self._bin), "PATH": f"{self._bin}:{os.environ['PATH']}"}
        command = ["sh", str(BACKUP), *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def line(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.write(
        {
            "etc/inspector/line.yaml": "line: 1\n",
            "etc/inspector/keys/clients": "plc-1 gate KEY\nold scada KEY\n",
            "etc/default/inspector": "# as it was\n",
            f"{STATE}/quality/top.plate.npz": "learnt",
            f"{STATE}/desk/audit.jsonl": "{}\n",
        }
    )
    Journal.open(place.root / STATE, utc_clock=lambda: script.UTC_NS, ballast_bytes=0).close(clean=True)
    return place


def test_a_restore_moves_aside_what_was_there(line: Place, tmp_path: Path) -> None:
    archive = tmp_path / "line.tar"
    said = line.run(archive)
    assert said.returncode == 0, said.stderr
    with tarfile.open(archive) as tar:
        assert f"./{STATE}/quality/top.plate.npz" in tar.getnames()
    line.write({"etc/inspector/keys/clients": "plc-1 gate KEY\n", "etc/default/inspector": "# later\n", f"{STATE}/since": "kept"})
    said = line.run("--restore", archive)
    assert said.returncode == 0, said.stderr
    assert "may connect again" in said.stdout
    now = line.files()
    assert now["etc/inspector/keys/clients"] == b"plc-1 gate KEY\nold scada KEY\n"
    assert now["etc/default/inspector"] == b"# as it was\n"
    assert now[f"{STATE}/quality/top.plate.npz"] == b"learnt"
    assert f"{STATE}/since" not in now
    aside = {path.name.partition(".")[2] for path in (line.root / STATE).parent.glob("inspector.*")}
    (stamp,) = aside
    assert now[f"etc/inspector.{stamp}/keys/clients"] == b"plc-1 gate KEY\n"
    assert now[f"etc/default/inspector.{stamp}"] == b"# later\n"
    assert now[f"{STATE}.{stamp}/since"] == b"kept"


def test_what_cannot_be_restored_changes_nothing(line: Place, tmp_path: Path) -> None:
    archive = tmp_path / "line.tar"
    assert line.run(archive).returncode == 0
    line.write({f"{STATE}/since": "kept"})
    before = line.files()
    cut, other = tmp_path / "cut.tar", tmp_path / "other.tar"
    cut.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with tarfile.open(other, "w") as tar:
        tar.add(BACKUP, "backup.sh")
    for arguments in ([], [tmp_path / "nosuch.tar"], [cut], [other]):
        said = line.run("--restore", *arguments)
        assert said.returncode != 0
        assert said.stderr
        assert line.files() == before, arguments
    line.stub("mv", 'case "$1" in *.new.*/etc/inspector) exit 1 ;; esac; exec /bin/mv "$@"')
    assert line.run("--restore", archive).returncode != 0
    assert line.files() == before
