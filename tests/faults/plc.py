"""`python -m tests.faults.plc ENDPOINT STATION NAME LANE STATE_FILE`: the Python client as a PLC's gateway that says what happens to it.

The same JSON lines as the gateways in C and Node. It polls every 2 ms; the control file `plc` makes it `mute` (it never acknowledges).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from pathlib import Path

from inspector.client import Decided, Gateway, Slot, Terms
from inspector.gate.protocol import Frames

CONTROL = Path(os.environ.get("INSPECTOR_TEST_CONTROL", "/nonexistent"))


def tell(what: str, **more: object) -> None:
    """A line."""
    print(json.dumps({"at_ns": time.monotonic_ns(), "what": what, **more}), flush=True)


class Mutable(Gateway):
    """A gateway that can be made not to acknowledge."""

    mute = False

    def _send(self, messages: list[Frames]) -> None:
        super()._send([frames for frames in messages if not (self.mute and frames[0] == b"ACK")])


def main() -> None:
    """For ever."""
    endpoint, station, name, lane, state_file = sys.argv[1:6]
    terms = Terms(client=name, station=station, lanes=(int(lane),))
    due: deque[tuple[int, str, Slot]] = deque()
    permit, looked_ns = False, 0
    faults: dict[str, int] = {}
    with Mutable(endpoint, terms, state_file=Path(state_file)) as gateway:
        while True:
            for each in gateway.poll(2):
                if isinstance(each, Decided):
                    header, slot = each.header, each.slot
                    now_ns = time.monotonic_ns()
                    tell(
                        "verdict",
                        epoch=gateway.epoch,
                        seq=str(header.seq),
                        lane=header.lane,
                        part=str(header.part_seq),
                        verdict=header.verdict,
                        reason=header.reason,
                        flags=header.flags,
                        ttl_us=header.ttl_us,
                        passes=int(slot.passes),
                    )
                    due.append((now_ns + header.ttl_us * 1000, gateway.epoch, slot))
                elif each.name in ("BYE", "REFUSE"):
                    tell("refused", said=dict(each.body))
                else:
                    tell(each.name.lower(), epoch=gateway.epoch)
            now_ns = time.monotonic_ns()
            while due and due[0][0] <= now_ns:
                _, epoch, slot = due.popleft()
                tell("actuated", epoch=epoch, lane=slot.lane, part=str(slot.part_seq), passes=int(slot.passes))
            if gateway.permit != permit:
                permit = gateway.permit
                tell("permit", on=int(permit))
            for why in [why for why, times in gateway.core.faults.items() if times > faults.get(why, 0)]:
                faults[why] = gateway.core.faults[why]
                tell("bad", why=why)
            if now_ns - looked_ns > 50_000_000:
                looked_ns = now_ns
                gateway.mute = (CONTROL / "plc").exists()


if __name__ == "__main__":
    main()
