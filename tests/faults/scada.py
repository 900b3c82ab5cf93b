"""`python -m tests.faults.scada EVENTS REPLAY`: subscribers to every verdict and every alarm, that say what they are told as JSON lines."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from inspector.client import Item, Message, Subscriber
from inspector.gate import protocol
from inspector.gate.protocol import Kind


def line_of(item: Item) -> dict[str, Any]:
    """An event or a hole as a line of a history."""
    if not isinstance(item, Message):
        upto = None if item.last is None else str(item.last)
        return {"what": "hole", "epoch": item.epoch, "stream": item.stream, "from": str(item.first), "to": upto, "why": item.why}
    header, body = item.header, item.event.body
    return {
        "what": "event",
        "epoch": protocol.epoch_text(header.epoch),
        "stream": item.stream,
        "seq": str(header.seq),
        "kind": Kind(header.kind).name,
        "lane": header.lane,
        "part": str(header.part_seq),
        "verdict": header.verdict,
        "reason": header.reason,
        "hash": body["hash"],
        "historical": item.historical,
        "code": body.get("code"),
        "text": body.get("text"),
    }


def main() -> None:
    """For ever."""
    events, replay = sys.argv[1:3]
    with Subscriber(events, replay=replay) as verdicts, Subscriber(events, stream="a", replay=replay) as alarms:
        stale = False
        while True:
            for subscriber in (verdicts, alarms):
                while (item := subscriber.receive(0.005)) is not None:
                    print(json.dumps({"at_ns": time.monotonic_ns(), **line_of(item)}), flush=True)
            if verdicts.stale != stale:
                stale = verdicts.stale
                print(json.dumps({"at_ns": time.monotonic_ns(), "what": "stale", "on": stale}), flush=True)


if __name__ == "__main__":
    main()
