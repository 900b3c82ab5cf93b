"""What `make package` makes, made once for all tests that install it; or what it has made already, in the folder INSPECTOR_BUILT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.smoke.conftest import environment, kinds  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, the bundle, the SBOM and, where dpkg-deb is there, the .deb."""
    if already := os.environ.get("INSPECTOR_BUILT"):
        return Path(already).absolute()
    out = tmp_path_factory.mktemp("built")
    command = [str(ROOT / "deploy" / "package" / "build.sh"), str(Path(sys.executable).parent), str(out)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return out
