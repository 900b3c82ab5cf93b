"""Modbus TCP: a server whose registers say how the line does, to be polled by an HMI or a PLC. They can be read and not written.

Holding and input registers are the same; addresses count from 0; numbers of two registers have the high word first.

    0  layout, 1                              4  state: 1 BOOT 2 SELFTEST 3 READY 4 RUN 5 DRAINING 6 STOPPED 7 ERROR, 0 unknown
    1  heartbeat, counts up, 65535 to 0       5  unexplained parts (at most 65535)
    2  1 while the daemon is heard            6-7 triggers   8-9 passed   10-11 rejected   12-13 not inspected   14-15 in flight
    3  1 while parts may pass
    100 + 10·lane: the lane's last verdict
       +0 verdicts seen, counts up   +1-2 part   +3 verdict byte (90 is PASS, anything else a reject)   +4 reason   +5 latency in ms

When the daemon falls silent, 2 and 3 become 0. Modbus knows no users and no secrets: beyond this machine `plain: true` must say that the
network may read.

    modbus:
      kind: modbus
      bind: 127.0.0.1:1502
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from inspector.bridges._extra import is_here, library
from inspector.config import Strict
from inspector.records import DeviceError, Verdict
from inspector.runtime.worker import Worker

LAYOUT = 1
STATES = ("", "BOOT", "SELFTEST", "READY", "RUN", "DRAINING", "STOPPED", "ERROR")
COUNTERS = ("triggers", "pass", "reject", "not_inspected", "pending")
HEARTBEAT, HEARD, PERMIT, STATE, UNEXPLAINED, FIRST_COUNTER = 1, 2, 3, 4, 5, 6
FIRST_LANE, LANE_REGISTERS, LANES = 100, 10, 256
REGISTERS = FIRST_LANE + LANE_REGISTERS * LANES
TURN_S = 0.05


class Settings(Strict):
    """`bind` is HOST:PORT, `unit` the device's number."""

    bind: str = Field(default="127.0.0.1:1502", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:/\s]{1,253}):[0-9]{1,5}$")
    unit: int = Field(default=1, ge=1, le=247)
    plain: bool = False

    @model_validator(mode="after")
    def _safe(self) -> Settings:
        host, _, port = self.bind.rpartition(":")
        if int(port) > 65535:
            raise PydanticCustomError("E_BIND", "ports end at 65535")
        if not self.plain and not is_here(host):
            raise PydanticCustomError("E_SEC_PLAIN", "others can read it there; `plain: true` says that they may")
        return self


def updated(registers: tuple[int, ...], event: Mapping[str, Any]) -> tuple[int, ...]:
    """The registers after an event; what an event lacks or has wrong leaves them as they were, but for the permit."""
    new = list(registers)
    match event.get("schema"):
        case "insp.hb":
            new[HEARTBEAT] = (new[HEARTBEAT] + 1) & 0xFFFF
            new[HEARD] = 1
            new[PERMIT] = int(event.get("permit") in (1, True))
            state = event.get("state")
            new[STATE] = STATES.index(state) if state in STATES else 0
            _count(new, event.get("counters"))
        case "insp.stale":
            new[HEARD] = new[PERMIT] = 0
        case "insp.verdict":
            with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
                at = FIRST_LANE + LANE_REGISTERS * (int(event["lane"]) % LANES)
                verdict = Verdict[event["verdict"]] if event.get("verdict") in Verdict.__members__ else 0
                part, reason = int(event["part_seq"]) & 0xFFFFFFFF, int(event.get("reason") or 0) & 0xFFFF
                latency = (event.get("timing_ms") or {}).get("trigger_to_verdict")
                latency_ms = min(0xFFFF, round(latency)) if isinstance(latency, int | float) and latency >= 0 else 0
                new[at : at + 6] = (new[at] + 1) & 0xFFFF, part >> 16, part & 0xFFFF, int(verdict), reason, latency_ms
            _count(new, event.get("counters"))
    return tuple(new)


def _count(registers: list[int], said: Any) -> None:
    with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
        numbers = [int(said[name]) for name in COUNTERS]
        for i, number in enumerate(numbers):
            at = FIRST_COUNTER + 2 * i
            registers[at : at + 2] = number >> 16 & 0xFFFF, number & 0xFFFF
        registers[UNEXPLAINED] = min(0xFFFF, abs(numbers[0] - sum(numbers[1:])))


class Modbus:
    """The server; it listens from the first event on."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._registers = (LAYOUT, *[0] * (REGISTERS - 1))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._worker: Worker | None = None
        self._broken = ""

    def send(self, event: Mapping[str, Any]) -> None:
        """Show one event. Raises `DeviceError` when the port cannot be had or the server broke down."""
        self._registers = updated(self._registers, event)
        if self._broken:
            self.close()
        if self._worker is None:
            self._listen()

    def close(self) -> None:
        """Stop listening."""
        if self._worker is not None:
            self._worker.stop(2.0)
            self._worker = None
        if self._loop is not None:
            if self._server is not None:
                self._loop.run_until_complete(self._server.shutdown())
            self._loop.close()
        self._loop = self._server = None
        self._broken = ""

    def _listen(self) -> None:
        simulator, server, constants = (library(f"pymodbus.{part}") for part in ("simulator", "server", "constants"))

        async def look(_code: int, start: int, _address: int, _count: int, current: list[int], wanted: list[Any] | None) -> Any:
            """Called by the library for each request: what is shown is one moment's."""
            if wanted is not None:
                return constants.ExcCodes.ILLEGAL_FUNCTION
            current[:] = self._registers[start : start + len(current)]
            return None

        host, _, port = self._settings.bind.rpartition(":")
        block = simulator.SimData(0, count=REGISTERS, values=0, datatype=simulator.DataType.REGISTERS)
        loop = asyncio.new_event_loop()

        async def start() -> Any:
            device = simulator.SimDevice(self._settings.unit, [block], action=look)
            made = server.ModbusTcpServer(device, address=(host.strip("[]"), int(port)))
            await made.serve_forever(background=True)
            return made

        try:
            self._server = loop.run_until_complete(start())
        except (OSError, RuntimeError) as error:
            loop.close()
            raise DeviceError(f"Modbus at {self._settings.bind}: {error}") from error
        self._loop = loop
        self._worker = Worker(
            f"modbus-{self._name}",
            lambda: loop.run_until_complete(asyncio.sleep(TURN_S)),
            clock=time.monotonic_ns,
            on_error=lambda _, error: setattr(self, "_broken", str(error) or type(error).__name__),
        )
        self._worker.start()


def build(settings: Settings, name: str) -> Modbus:
    """The bridge; it does not listen yet."""
    return Modbus(settings, name)
