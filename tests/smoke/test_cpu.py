"""A processor without AVX2 is refused in a sentence, by the check and by the daemon, before anything is loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.neural.cpu import CPUINFO, require_avx2
from inspector.records import ConfigError
from tests.smoke.conftest import line

OLD = "processor\t: 0\nmodel name\t: Old Processor 2500\nflags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 avx\n\n"
NEW = OLD.replace(" avx", " avx avx2 fma")


def test_avx2_is_looked_for_on_every_processor_of_x86_64() -> None:
    require_avx2(NEW + NEW, "x86_64")
    for text in (OLD, NEW + OLD):
        with pytest.raises(ConfigError, match="E_CPU: Old Processor 2500 has no AVX2"):
            require_avx2(text, "x86_64")


@pytest.mark.parametrize(("text", "machine"), [("", "x86_64"), ("processor\t: 0\nFeatures\t: fp asimd\n", "aarch64"), (OLD, "aarch64")])
def test_what_says_nothing_is_no_reason_to_refuse(text: str, machine: str) -> None:
    require_avx2(text, machine)


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare to show another processor")
@pytest.mark.parametrize("command", [["check"], ["run", "--allow-root"]], ids=lambda command: command[0])
def test_the_daemon_and_the_check_refuse_such_a_processor(command: list[str], tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "cpuinfo").write_text(OLD)
    said = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'mount --bind {tmp_path}/cpuinfo {CPUINFO} || exit 99; exec "$@"', "sh",
         sys.executable, "-m", "inspector", command[0], str(line(tmp_path)), *command[1:]],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if said.returncode == 99:
        pytest.skip("no mounts here")
    assert said.returncode == 78, said.stderr
    assert "E_CPU: Old Processor 2500 has no AVX2" in said.stderr
    assert "Traceback" not in said.stderr
