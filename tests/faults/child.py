"""`python -m tests.faults.child FOLDER GATE_PORT EVENTS_PORT REPLAY_PORT RATE`: the gate, with vision played by a thread, to be killed.

Prints one line with its epoch when it runs. Every fifth part is bad. SIGTERM ends it well.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from inspector.runtime import link
from inspector.runtime.gate import GateProcess
from tests.gate.line import body, settings


def main() -> int:
    """Until SIGTERM, or worse."""
    folder, gate, events, replay, rate = Path(sys.argv[1]), *sys.argv[2:6]
    made = settings(folder)
    made = made.model_copy(
        update={
            "gate": made.gate.model_copy(update={"bind": f"tcp://127.0.0.1:{gate}"}),
            "events": made.events.model_copy(update={"bind": f"tcp://127.0.0.1:{events}", "replay_bind": f"tcp://127.0.0.1:{replay}"}),
        }
    )
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    with ExitStack() as stack:
        process = GateProcess(made, folder / "state", clock=time.monotonic_ns, utc_clock=time.time_ns)
        process.start(stack)
        ours, theirs = link.pair()
        process.attach(ours, link.Ready("ab" * 32, [["net", "cd" * 32]], ["locate"], 1))
        process.begin(time.monotonic_ns())
        print(process.epoch, flush=True)
        seq, text = 0, body()
        while not ending.wait(1 / float(rate)):
            seq += 1
            theirs.send(link.Seen("top", seq, time.monotonic_ns(), None, True, str(seq)))
            bad = seq % 5 == 0
            theirs.send(link.Judged("top", seq, "fail" if bad else "pass", 101 if bad else 0, "", text))
        process.drain(2.0)
        ours.close()
        theirs.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
