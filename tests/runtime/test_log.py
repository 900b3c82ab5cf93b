from __future__ import annotations

import threading

from inspector.runtime.log import BURST, LARGEST_QUEUE, LINES_PER_S, Log


def test_a_storm_of_one_kind_leaves_room_for_the_others_and_is_counted() -> None:
    now, written = [0], list[str]()
    log = Log(lambda: now[0], written.append)
    for n in range(1000):
        log.say(f"camera top is down: {n}", "camera-top")
    log.say("vision was killed")
    now[0] += 1_000_000_000
    for n in range(LINES_PER_S + 5):
        log.say(f"again {n}", "camera-top")
    log.close()
    assert written[:BURST] == [f"camera top is down: {n}" for n in range(BURST)]
    assert written[BURST] == "vision was killed"
    assert written[BURST + 1] == f"again 0 ({1000 - BURST} lines like this were left out)"
    assert len(written) == BURST + 1 + LINES_PER_S


def test_a_reader_who_has_stopped_stops_nobody() -> None:
    reads, written = threading.Event(), list[str]()

    def write(text: str) -> None:
        reads.wait()
        written.append(text)

    log = Log(lambda: 0, write)
    for n in range(3 * LARGEST_QUEUE):
        log.say("line", f"kind {n}")
    log.close(within_s=0.01)
    reads.set()
    log.close()
    assert LARGEST_QUEUE <= len(written) <= LARGEST_QUEUE + 1
