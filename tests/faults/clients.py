"""The programs that a line under test has as its clients, each told in words that `subprocess` takes. None where it cannot be had here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CLIENTS = Path(__file__).parents[2] / "deploy" / "clients"
MODULES = Path(os.environ.get("INSPECTOR_NODE_MODULES", CLIENTS / "node" / "node_modules"))
NO_C = "no C compiler, or no libzmq3-dev"
NO_NODE = "no Node, or no zeromq (npm ci in deploy/clients/node, or INSPECTOR_NODE_MODULES)"


def c_gateway(folder: Path) -> list[str] | None:
    """The gateway in C, built into `folder`."""
    compiler = shutil.which("cc")
    if compiler is None or not Path("/usr/include/zmq.h").exists():
        return None
    built = folder / "gateway"
    source = CLIENTS / "c" / "gateway.c"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(source), "-lzmq"], check=True)
    return [str(built)]


def node(folder: Path, program: str) -> list[str] | None:
    """A program in Node, copied into `folder` beside its modules."""
    found = shutil.which("node")
    if found is None or not (MODULES / "zeromq").exists():
        return None
    for path in (CLIENTS / "node").glob("*.*js*"):
        shutil.copy(path, folder)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(MODULES)
    return [found, str(folder / program)]


def preload(folder: Path) -> Path | None:
    """The shim that makes disk and clock fail (`shim.c`), built into `folder`."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    built = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(built), str(source), "-ldl"], check=True)
    return built
