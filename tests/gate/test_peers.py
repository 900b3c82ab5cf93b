"""The same gate heard by clients that share no line of code with it: C (libzmq) and Node (zeromq)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gate.line import Running, running, until

CLIENTS = Path(__file__).parents[2] / "deploy" / "clients"
MODULES = Path(os.environ.get("INSPECTOR_NODE_MODULES", CLIENTS / "node" / "node_modules"))


@pytest.fixture(scope="session")
def c_gateway(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    built = tmp_path_factory.mktemp("c") / "gateway"
    compiler = shutil.which("cc")
    if compiler is None or not Path("/usr/include/zmq.h").exists():
        pytest.skip("no C compiler, or no libzmq3-dev")
    source = CLIENTS / "c" / "gateway.c"
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(source), "-lzmq"], check=True)
    return [str(built)]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    found = shutil.which("node")
    if found is None or not (MODULES / "zeromq").exists():
        pytest.skip("no Node, or no zeromq (npm install in deploy/clients/node, or INSPECTOR_NODE_MODULES)")
    folder = tmp_path_factory.mktemp("node")
    for path in (CLIENTS / "node").glob("*.*js*"):
        shutil.copy(path, folder)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(MODULES)
    return lambda name: [found, str(folder / name)]


@contextmanager
def speaking(command: list[str], out: Path) -> Iterator[Callable[[], list[str]]]:
    """A client that writes lines to `out`; gives what it has said so far."""
    with out.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield lambda: out.read_text().splitlines()
        finally:
            process.kill()
            process.wait()


def _drive(line: Running, said: Callable[[], list[str]]) -> None:
    """A session, some parts, a death of vision: what every gateway must make of them."""
    until(lambda: "permit 1" in said(), 15.0)
    for seq, (decision, reason) in enumerate((("pass", 0), ("fail", 101), ("unjudged", 302)), 1):
        line.expose(seq, decision, reason)
    line.expose(4, None)
    until(lambda: sum(text.startswith("verdict") for text in said()) == 3)
    line.vision.close()
    until(lambda: "permit 0" in said())
    until(lambda: sum(text.startswith("verdict") for text in said()) == 4)
    verdicts = [text.split()[2:] for text in said() if text.startswith("verdict")]
    assert verdicts == [["0", "1", "PASS", "0"], ["0", "2", "REJECT", "101"], ["0", "3", "REJECT", "302"], ["0", "4", "REJECT", "209"]]
    assert not [text for text in said() if text.startswith("bad")]
    line.attach()
    until(lambda: said()[-1] == "permit 1")
    assert line.gate.counters()["unexplained"] == 0


@pytest.mark.real
def test_a_gateway_in_c(tmp_path: Path, c_gateway: list[str]) -> None:
    with running(tmp_path) as line, speaking([*c_gateway, line.gate.endpoints()["gate"], "cell-1", "c"], tmp_path / "said") as said:
        _drive(line, said)


@pytest.mark.real
def test_a_gateway_in_node(tmp_path: Path, node: Callable[[str], list[str]]) -> None:
    command = [*node("gateway.mjs")]
    with running(tmp_path) as line, speaking([*command, line.gate.endpoints()["gate"], "cell-1", "node"], tmp_path / "said") as said:
        _drive(line, said)


@pytest.mark.real
def test_a_subscriber_in_node_hears_every_event_once(tmp_path: Path, node: Callable[[str], list[str]]) -> None:
    with running(tmp_path) as line:
        ends = line.gate.endpoints()
        with speaking([*node("scada.mjs"), ends["events"], ends["replay"], "q"], tmp_path / "said") as said:
            seq = 0

            def _heard() -> bool:
                nonlocal seq
                seq += 1
                line.expose(seq)
                time.sleep(0.05)
                return len(said()) > 3

            until(_heard, 20.0)
            first = json.loads(said()[0])
            for _ in range(200):
                seq += 1
                line.expose(seq)
            until(lambda: json.loads(said()[-1]).get("seq") == str(seq), 10.0)
            numbers = [int(json.loads(text)["seq"]) for text in said()]
            assert numbers == list(range(int(first["seq"]), seq + 1))
