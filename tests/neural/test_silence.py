"""A network that is loaded tells nobody: ONNX Runtime keeps no identifier of the machine, and has nothing to send."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "steel.onnx"
LOAD = "import sys; from pathlib import Path; from inspector.neural import model; model.load(Path(sys.argv[1]))"


def test_nothing_is_left_in_the_home_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", LOAD, MODEL], env=environment, check=True, timeout=100)
    assert list(tmp_path.iterdir()) == []
