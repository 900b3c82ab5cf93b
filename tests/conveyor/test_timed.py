from __future__ import annotations

from inspector.conveyor.timed import Settings, build


def test_position_is_time() -> None:
    belt = build(Settings(counts_per_s=2000.0), "belt")
    assert belt.counts(10**9) == 0
    belt.start(10**9)
    assert [belt.counts(t) for t in (0, 10**9, 10**9 + 499_999, 10**9 + 500_000, 2 * 10**9)] == [0, 0, 0, 1, 2000]
    assert belt.triggers(0, 10**12) == ()
