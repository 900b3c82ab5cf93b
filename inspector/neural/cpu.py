"""Whether this computer can run networks in time: on x86-64 that needs AVX2, without which they are several times slower."""

from __future__ import annotations

import platform
from pathlib import Path

from inspector.records import ConfigError

CPUINFO = Path("/proc/cpuinfo")


def require_avx2(text: str, machine: str) -> None:
    """Raises `ConfigError` E_CPU when the kernel's account of the processors (`text`) has none with AVX2.

    An account without flags (no /proc, another kind of machine) says nothing, and the proof pictures of each model decide.
    """
    fields = [line.partition(":") for line in text.splitlines()]
    flags = [value.split() for name, _, value in fields if name.strip() == "flags"]
    if machine in ("x86_64", "AMD64") and flags and not all("avx2" in each for each in flags):
        model = next((value.strip() for name, _, value in fields if name.strip() == "model name"), "this processor")
        raise ConfigError(
            "E_CPU", f"{model} has no AVX2, and no verdict would come in time; allowed: x86-64 with AVX2 (Intel since 2013, AMD since 2015)"
        )


def check() -> None:
    """The same of this computer."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        text = ""
    require_avx2(text, platform.machine())
