"""A PLC for the simulated line, as a process of its own: it counts parts at the sensor, keeps a slot for each, and decides at the ejector.

Every part is to be ejected until a PASS for it has come in time. The belt is the configuration's own: with the same settings and the
same beginning it has the same part sensor as the daemon. One JSON object a part is written: `lane`, `part_seq`, `outcome` (PASSED,
EJECTED_CONFIRMED, DEFAULT_REJECT), `verdict`, `early_ms` (how long before the decision the verdict was there, null for none),
`permit`. It ends some time after the daemon has said goodbye, or its standard input has ended: what is on the belt goes first.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from inspector import config
from inspector.client import Decided, Gateway, Slot, Terms, Told
from inspector.interfaces import Clock, Conveyor
from inspector.records import ConfigError, Trigger, Verdict

CYCLE_MS = 5
CONNECT_S = 10.0


class Plc:
    """What the PLC knows. `step` is one cycle; `belt_ends_ns` is set when no further part may come on the belt."""

    def __init__(self, settings: config.Config, belt: Conveyor, gateway: Gateway, out: TextIO, begin_ns: int) -> None:
        self._gate, self._belt, self._gateway, self._out = settings.gate, belt, gateway, out
        self._seen_ns = begin_ns
        self._on_belt: deque[tuple[Trigger, Slot]] = deque()
        self._decided_ns: dict[tuple[int, int], int] = {}
        self._counts: dict[int, int] = {}
        self.belt_ends_ns: int | None = None

    def step(self, clock: Clock) -> bool:
        """Hear the daemon, watch the sensor, decide what has come to the ejector; False when the belt has ended and is empty."""
        heard = self._gateway.poll(CYCLE_MS)
        now_ns = clock()
        for happened in heard:
            if isinstance(happened, Decided):
                self._decided_ns[happened.slot.lane, happened.slot.part_seq] = now_ns
            elif isinstance(happened, Told) and happened.name == "BYE":
                self.end(now_ns)
        until_ns = now_ns if self.belt_ends_ns is None else min(now_ns, self.belt_ends_ns)
        for trigger in self._belt.triggers(self._seen_ns, until_ns):
            self._counts[trigger.lane] = trigger.part_seq
            self._gateway.count(trigger.lane, trigger.part_seq)
            self._on_belt.append((trigger, self._gateway.slot(trigger.lane, trigger.part_seq)))
        self._seen_ns = max(self._seen_ns, until_ns)
        decide_ns = (self._gate.travel_min_ms - self._gate.actuator_ms) * 1_000_000
        while self._on_belt and self._on_belt[0][0].at_ns + decide_ns <= now_ns:
            self._decide(*self._on_belt.popleft(), now_ns)
        return self.belt_ends_ns is None or bool(self._on_belt)

    def end(self, now_ns: int) -> None:
        """No further part comes on the belt."""
        if self.belt_ends_ns is None:
            self.belt_ends_ns = now_ns

    def _decide(self, trigger: Trigger, slot: Slot, now_ns: int) -> None:
        """Open the way for a part that was passed, blow every other one off."""
        outcome = "PASSED" if slot.passes else "EJECTED_CONFIRMED" if slot.decided else "DEFAULT_REJECT"
        self._gateway.execute(slot, outcome, trigger.at_counts)
        heard_ns = self._decided_ns.pop((trigger.lane, trigger.part_seq), None)
        line = {
            "lane": trigger.lane,
            "part_seq": trigger.part_seq,
            "outcome": outcome,
            "verdict": Verdict(slot.verdict).name if slot.decided else None,
            "early_ms": None if heard_ns is None else round((now_ns - heard_ns) / 1e6, 3),
            "permit": self._gateway.permit,
        }
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def run(path: Path, ready: Path, out: Path) -> int:
    """Play the PLC of the daemon that runs the configuration at `path`, as soon as it has written its ready file."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    settings = config.read(path)
    while not ready.exists():
        if asked or _alone():
            return 0
        time.sleep(0.01)
    said = json.loads(ready.read_text())
    belt: Conveyor = config.build("conveyor", settings.conveyor, "conveyor")
    belt.start(said["begin_ns"])
    gate = settings.gate
    terms = Terms(
        client="plc-1",
        station=settings.station,
        profile=gate.profile,
        travel_min_ms=gate.travel_min_ms,
        scan_ms=gate.scan_ms,
        actuator_ms=gate.actuator_ms,
        lease_ms=gate.lease_ms,
        executes=True,
    )
    with out.open("w") as file, Gateway(said["endpoints"]["gate"], terms) as gateway:
        plc = Plc(settings, belt, gateway, file, said["begin_ns"])
        while plc.step(time.monotonic_ns):
            if asked or _alone():
                plc.end(time.monotonic_ns())
    return 0


def _alone() -> bool:
    """Standard input has ended: whoever started this process is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0]) and not sys.stdin.read(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="inspector.workshop.plc", description=__doc__)
    for name in ("--config", "--ready", "--out"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        return run(given.config, given.ready, given.out)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 78


if __name__ == "__main__":
    sys.exit(main())
