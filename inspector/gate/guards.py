"""What a healthy line cannot look like: too many rejects, or too few. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

LATCHED: Final = frozenset({"line_stop", "too_good", "recipe"})
"""What withholds the permit until a person has looked and says so."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Limits on what a healthy line can look like; 0 turns one off.

    `rejects_in_row` and `reject_ratio` (over the last `ratio_parts`) ask for a line stop; `passes_in_row` is implausible where a line is
    known to make bad parts; `blind_in_row` pictures of one camera that cannot be judged for their quality hold the permit; a challenge
    part must be found bad every `challenge_every_s`.
    """

    rejects_in_row: int = 0
    reject_ratio: float = 0.0
    ratio_parts: int = 100
    passes_in_row: int = 0
    blind_in_row: int = 3
    challenge_every_s: float = 0.0


class Trip(NamedTuple):
    """A limit was reached: `name` is what withholds the permit now (one of `LATCHED`), `code` its alarm."""

    name: str
    code: str
    text: str


@dataclass(slots=True)
class Watch:
    """Counts outcomes against the limits. Each limit trips once, and again only after it has been seen to hold or was reset."""

    guards: Guards
    _rejects: int = 0
    _passes: int = 0
    _recent: deque[bool] = field(default_factory=deque)
    _recent_rejects: int = 0

    def outcome(self, passed: bool) -> Trip | None:
        """One more part."""
        guards = self.guards
        if passed:
            self._passes, self._rejects = self._passes + 1, 0
        else:
            self._passes, self._rejects = 0, self._rejects + 1
        if guards.reject_ratio:
            self._recent.append(not passed)
            self._recent_rejects += not passed
            if len(self._recent) > guards.ratio_parts:
                self._recent_rejects -= self._recent.popleft()
        if guards.rejects_in_row and self._rejects == guards.rejects_in_row:
            return Trip("line_stop", "LINE_STOP_REQUEST", f"{self._rejects} rejects in a row")
        if len(self._recent) == guards.ratio_parts and self._recent_rejects > guards.reject_ratio * guards.ratio_parts:
            text = f"{self._recent_rejects} of the last {guards.ratio_parts} parts were rejected"
            self.reset("line_stop")
            return Trip("line_stop", "LINE_STOP_REQUEST", text)
        if guards.passes_in_row and self._passes == guards.passes_in_row:
            return Trip("too_good", "TOO_GOOD", f"{self._passes} passes in a row are more than this line is known for")
        return None

    def reset(self, name: str) -> None:
        """Count from nothing again towards this limit."""
        if name == "line_stop":
            self._rejects = self._recent_rejects = 0
            self._recent.clear()
        elif name == "too_good":
            self._passes = 0
