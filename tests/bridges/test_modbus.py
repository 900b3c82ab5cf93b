"""The Modbus bridge: its registers, and a real client that polls them: mbpoll."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from inspector.bridges import modbus
from inspector.records import ConfigError, DeviceError
from tests.desk.events import heartbeat, verdict

EMPTY = (modbus.LAYOUT, *[0] * (modbus.REGISTERS - 1))
COUNTERS = {"triggers": "70005", "pass": "70000", "reject": "3", "not_inspected": "1", "pending": "0"}
HB = heartbeat(schema="insp.hb", counters=COUNTERS)


def u32(registers: tuple[int, ...], at: int) -> int:
    return registers[at] << 16 | registers[at + 1]


def test_a_heartbeat_shows_state_permit_and_counters() -> None:
    found = modbus.updated(EMPTY, HB)
    assert found[:6] == (1, 1, 1, 1, 4, 1)  # one part is unexplained
    assert [u32(found, at) for at in (6, 8, 10, 12, 14)] == [70005, 70000, 3, 1, 0]
    assert modbus.updated((*found[:1], 0xFFFF, *found[2:]), HB)[1] == 0


def test_silence_takes_the_permit_away() -> None:
    found = modbus.updated(modbus.updated(EMPTY, HB), {"schema": "insp.stale"})
    assert (found[modbus.HEARD], found[modbus.PERMIT]) == (0, 0)


@pytest.mark.parametrize(("name", "byte"), [("PASS", 0x5A), ("REJECT_DEFECT", 0xA1), ("UNHEARD_OF", 0)])
def test_a_verdict_shows_in_its_lane(name: str, byte: int) -> None:
    found = modbus.updated(EMPTY, verdict(1, name, lane=3, part_seq="65538", reason=7, timing_ms={"trigger_to_verdict": 41.6}))
    assert found[130:136] == (1, 1, 2, byte, 7, 42)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda s: st.lists(s, max_size=2), max_leaves=4
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # any JSON takes a while to make
@given(st.sampled_from(["insp.hb", "insp.verdict", "insp.alarm"]), st.dictionaries(st.sampled_from(sorted(verdict(1) | HB)), JSON))
def test_registers_stay_registers_whatever_comes(schema: str, broken: dict[str, Any]) -> None:
    found = modbus.updated(EMPTY, verdict(1) | HB | broken | {"schema": schema})
    assert len(found) == modbus.REGISTERS
    assert all(type(r) is int and 0 <= r <= 0xFFFF for r in found)


@pytest.mark.parametrize("changes", [{"bind": "0.0.0.0:1502"}, {"bind": "127.0.0.1"}, {"bind": "127.0.0.1:70000"}, {"unit": 0}])
def test_unsafe_and_wrong_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        modbus.Settings.model_validate(changes)


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pymodbus", "pymodbus.simulator"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigError, match=r"inspector\[bridges\]"):
        modbus.build(modbus.Settings(), "modbus").send(HB)


@pytest.fixture
def served() -> Iterator[tuple[modbus.Modbus, int]]:
    """A bridge that has had a heartbeat, and its port."""
    pytest.importorskip("pymodbus.simulator", reason="the package pymodbus is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    bridge = modbus.build(modbus.Settings(bind=f"127.0.0.1:{port}"), "modbus")
    bridge.send(HB)
    yield bridge, port
    bridge.close()


def mbpoll(port: int, first: int, *arguments: str, write: tuple[str, ...] = ()) -> str:
    """What the client says of the registers from `first` on."""
    if shutil.which("mbpoll") is None:
        pytest.skip("mbpoll is not installed")
    command = ["mbpoll", "-m", "tcp", "-p", str(port), "-a", "1", "-0", "-r", str(first), *arguments, "-1", "127.0.0.1", *write]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return said.stdout + said.stderr


def registers(port: int, first: int, count: int, kind: str) -> list[int]:
    said = mbpoll(port, first, "-c", str(count), "-t", kind)
    return [int(number) for number in re.findall(r"^\[\d+\]:\s+(\d+)", said, re.MULTILINE)]


@pytest.mark.real
@pytest.mark.parametrize("kind", ["3", "4"], ids=["input", "holding"])
def test_a_client_polls_the_registers(served: tuple[modbus.Modbus, int], kind: str) -> None:
    bridge, port = served
    assert registers(port, 0, 8, kind) == [1, 1, 1, 1, 4, 1, 1, 70005 - 65536]
    bridge.send(verdict(1, lane=2, part_seq="9", timing_ms={}))
    bridge.send({"schema": "insp.stale"})
    assert registers(port, 120, 5, kind) == [1, 0, 9, 0x5A, 0]
    assert registers(port, 2, 2, kind) == [0, 0]


@pytest.mark.real
def test_nothing_can_be_written(served: tuple[modbus.Modbus, int]) -> None:
    _, port = served
    assert "Illegal function" in mbpoll(port, 3, "-t", "4", write=("0",))
    assert registers(port, 3, 1, "4") == [1]


@pytest.mark.real
def test_a_port_that_is_taken_is_a_device_that_fails(served: tuple[modbus.Modbus, int]) -> None:
    _, port = served
    second = modbus.build(modbus.Settings(bind=f"127.0.0.1:{port}"), "second")
    with pytest.raises(DeviceError, match="Modbus"):
        second.send(HB)
    second.close()
