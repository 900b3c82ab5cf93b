"""What is shipped: a bundle that installs without a network, and a list of all that is in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("unshare") or not Path("/usr/bin/python3").exists(), reason="needs unshare and /usr/bin/python3"),
]


@pytest.fixture(scope="module")
def bundle(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    (unpacked,) = folder.iterdir()
    return unpacked


def alone(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run where there is no network at all, and with nothing in the environment that pip would read."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh", *map(str, command)]
    return subprocess.run(
        inside, env={**environment, "PYTHON": "/usr/bin/python3"}, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_bundle_installs_and_judges_without_a_network(bundle: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "inspector"
    said = alone(bundle / "install.sh", "--prefix", prefix)
    assert said.returncode == 0, said.stdout + said.stderr
    inspector, configuration = prefix / "bin" / "inspector", prefix / "share" / "inspector" / "configs" / "demo.yaml"
    checked = alone(inspector, "check", configuration, "--json")
    assert (checked.returncode, json.loads(checked.stdout)["ok"]) == (0, True)
    judged = alone(inspector, "demo", "--parts", "8", "--workers", "1", "--json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["parts"] == 8


def test_a_damaged_bundle_is_refused_and_what_was_installed_stays(bundle: Path, tmp_path: Path) -> None:
    damaged, prefix = tmp_path / "damaged", tmp_path / "inspector"
    shutil.copytree(bundle, damaged)
    prefix.mkdir()
    (prefix / "before").touch()
    (wheel,) = (damaged / "wheels").glob("inspector-*.whl")
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"?")
    said = alone(damaged / "install.sh", "--prefix", prefix)
    assert said.returncode == 1
    assert "this bundle is damaged" in said.stderr
    assert [path.name for path in prefix.iterdir()] == ["before"]


def test_every_library_of_the_lock_is_in_the_list_of_what_it_is_made_of(built: Path) -> None:
    (path,) = built.glob("*.cdx.json")
    bill = json.loads(path.read_text())
    listed = {re.sub(r"[-_.]+", "-", component["name"].lower()): component for component in bill["components"]}
    locked = dict(re.findall(r"(?m)^([a-z0-9._-]+)==(\S+)", (ROOT / "deploy" / "requirements" / "run.txt").read_text()))
    assert {name: listed[name]["version"] for name in locked} == locked
    assert [name for name in locked if not listed[name].get("licenses")] == []
    assert bill["metadata"]["component"]["name"] == "inspector"
