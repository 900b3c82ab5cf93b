"""What counts as healthy: how long each kind of thread may take for a step, and whether a picture shows anything at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from inspector.records import Reason

if TYPE_CHECKING:
    from inspector.records import Image, Stamp

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
SAMPLE_ROWS, SAMPLE_COLUMNS = 32, 80
BLACK, WHITE = 2, 253
REMEMBERED = 4


def stage_limits(travel_ms: float) -> dict[str, float]:
    """The limits for a line whose parts travel so long: where judging may take seconds, it has not hung after them."""
    return {**STAGE_LIMITS_MS, "inspect": max(STAGE_LIMITS_MS["inspect"], 3 * travel_ms)}


def stale(ages_ms: Mapping[str, float], limits_ms: Mapping[str, float] = STAGE_LIMITS_MS) -> list[str]:
    """The workers that have not moved for longer than they may, with their ages, for a person to read."""
    return [f"{name} {age:.0f} ms" for name, age in ages_ms.items() if age > limits_ms.get(name.partition("-")[0], UNKNOWN_STAGE_LIMIT_MS)]


class PictureHealth:
    """Looks at a few thousand pixels of each picture of one camera, and remembers enough to see that it is frozen."""

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=REMEMBERED)
        self._times = 1

    def look(self, stamp: Stamp, image: Image) -> tuple[float, tuple[Reason, str] | None]:
        """The picture's quality, 0 (shows nothing) to 1 (neither black nor white anywhere), and what is wrong with it.

        A picture identical to one of the last few, noise and all, is that one again (stale buffers come round) and says nothing of this
        part: the first repetition is refused already. Only a source that names its parts (`uid`) may repeat itself.
        """
        rows, columns = max(1, image.shape[0] // SAMPLE_ROWS), max(1, image.shape[1] // SAMPLE_COLUMNS)
        sample = image[rows // 2 :: rows, columns // 2 :: columns]
        black, white = int((sample <= BLACK).sum()), int((sample >= WHITE).sum())
        quality = 1.0 - max(black, white) / sample.size
        if quality == 0.0:
            return 0.0, (Reason.IMAGE_QUALITY, "the picture is all " + ("black" if black else "white"))
        if stamp.uid is None:
            digest = hash(sample.tobytes())
            self._times = self._times + 1 if digest in self._last else 1
            self._last.append(digest)
            if self._times > 1:
                return quality, (Reason.IMAGE_QUALITY, f"the camera shows what it has shown already, {self._times} times now")
        return quality, None
