"""The same gate heard by clients that share no line of code with it: C (libzmq) and Node (zeromq)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults import clients
from tests.gate.line import Running, running, until


@pytest.fixture(scope="session")
def c_gateway(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return clients.c_gateway(tmp_path_factory.mktemp("c")) or pytest.skip(clients.NO_C)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    folder = tmp_path_factory.mktemp("node")
    return lambda program: clients.node(folder, program) or pytest.skip(clients.NO_NODE)


@contextmanager
def speaking(command: list[str], out: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """A client that writes JSON lines to `out`; gives what it has said so far."""
    with out.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield lambda: [json.loads(text) for text in out.read_text().splitlines(keepends=True) if text.endswith("\n")]
        finally:
            process.kill()
            process.wait()


def _drive(line: Running, said: Callable[[], list[dict[str, Any]]]) -> None:
    """A session, some parts, a death of vision: what every gateway must make of them."""

    def told(what: str) -> list[dict[str, Any]]:
        return [each for each in said() if each["what"] == what]

    def permits() -> list[int]:
        return [each["on"] for each in told("permit")]

    until(lambda: permits() == [1], 15.0)
    for seq, (decision, reason) in enumerate((("pass", 0), ("fail", 101), ("unjudged", 302)), 1):
        line.expose(seq, decision, reason)
    line.expose(4, None)
    until(lambda: len(told("verdict")) == 3)
    line.vision.close()
    until(lambda: permits() == [1, 0])
    until(lambda: len(told("verdict")) == 4)
    verdicts = [(each["lane"], each["part"], each["passes"], each["reason"]) for each in told("verdict")]
    assert verdicts == [(0, "1", 1, 0), (0, "2", 0, 101), (0, "3", 0, 302), (0, "4", 0, 209)]
    until(lambda: len(told("actuated")) == 4)  # each when its time to live is over
    assert {each["part"]: each["passes"] for each in told("actuated")} == {"1": 1, "2": 0, "3": 0, "4": 0}
    assert not told("bad")
    line.attach()
    until(lambda: permits()[-1] == 1)
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
            for _ in range(200):
                seq += 1
                line.expose(seq)
            until(lambda: said()[-1].get("seq") == str(seq), 10.0)
            numbers = [int(each["seq"]) for each in said() if each["what"] == "event"]
            assert numbers == list(range(numbers[0], seq + 1))
