"""What counts as healthy: how long each kind of thread may take for a step."""

from __future__ import annotations

from collections.abc import Mapping

STAGE_LIMITS_MS: Mapping[str, float] = {
    "main": 3_000,
    "capture": 10_000,
    "inspect": 5_000,
    "archive": 30_000,
    "arbiter": 200,
    "journal": 2_000,
    "events": 2_000,
    "replay": 2_000,
}
"""Longest age of a worker's last step, by the first word of its name (`capture-top` is a `capture`, which may be opening its camera)."""

UNKNOWN_STAGE_LIMIT_MS = 2_000.0


def stage_limits(travel_ms: float) -> dict[str, float]:
    """The limits for a line whose parts travel so long: where judging may take seconds, it has not hung after them."""
    return {**STAGE_LIMITS_MS, "inspect": max(STAGE_LIMITS_MS["inspect"], 3 * travel_ms)}


def stale(ages_ms: Mapping[str, float], limits_ms: Mapping[str, float] = STAGE_LIMITS_MS) -> list[str]:
    """The workers that have not moved for longer than they may, with their ages, for a person to read."""
    return [f"{name} {age:.0f} ms" for name, age in ages_ms.items() if age > limits_ms.get(name.partition("-")[0], UNKNOWN_STAGE_LIMIT_MS)]
