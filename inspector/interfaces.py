"""The shapes that a plug-in can take. `kind: x` in a configuration is the file `<folder>/x.py` with `Settings` and `build` inside.

    sources/<kind>.py    build(settings, name, clock, conveyor) -> Source     and NUMBERS_EXPOSURES = False, where it does not;
                         GIVES_WEB = True, where its stamps say what of a web they show (`Stamp.web`);
                         examine(settings), where it has files that `inspector check` can look at: raises ConfigError, opens no device
    conveyor/<kind>.py   build(settings, name) -> Conveyor             and HAS_SENSOR = False, where it only knows the position
    checks/<kind>.py     build(settings, name, plan) -> Check          and NEEDS_RASTER: bool;
                         needs_web(settings) -> str, empty, or what it must be told instead by a camera that gives no web
    bridges/<kind>.py    build(settings, name) -> Bridge

`Settings` is a `config.Strict` (pydantic, frozen, unknown keys refused). A third-party package adds a kind by an entry point of the
group `inspector.<folder>`. Nothing is registered. The docstring of each kind ends with the YAML that turns it on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from inspector.records import Finding, Stamp, Trigger, View

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from inspector.records import Bytes1D

Clock: TypeAlias = Callable[[], int]
"""Monotonic nanoseconds."""

Check: TypeAlias = Callable[[Sequence[View]], Sequence[tuple[Finding, ...]]]
"""A batch of views in, as many tuples of findings out, in order; views are never changed."""


class Source(Protocol):
    """A camera. One thread calls `read` again and again, and `close` once the reading has ended; closing twice is harmless.

    A driver that counts (packets sent again, pictures that came incomplete, …) shows that as `counts`, a mapping that is replaced whole.
    """

    max_bytes: int
    """No picture is larger than this."""

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """Write the next picture, row by row without padding, into the first bytes of `into`.

        Returns None when none came within `timeout_s` (never blocks longer), and raises `DeviceError` when the device must be
        built anew. `EndOfPictures` says that there will be no more.
        """
        ...

    def close(self) -> None:
        """Let the device go."""
        ...


class FillsAhead(Protocol):
    """The other shape of a source, for a driver that fills memory on its own: it is given slots of the ring. A kind may have both."""

    max_bytes: int
    """As of a `Source`."""

    ahead: int
    """How many slots the driver wants to hold at once; 0: it is read like any other."""

    def give(self, slot: int, into: Bytes1D) -> None:
        """This memory (`max_bytes` or more, it never moves) is the driver's until `take` returns `slot`, or until `close`."""
        ...

    def take(self, timeout_s: float) -> tuple[int, Stamp] | None:
        """The slot that was filled next and the `Stamp` of what is in it; else as `Source.read`."""
        ...

    def close(self) -> None:
        """Let the device go; nothing is written into any slot from here on."""
        ...


def fills_ahead(source: Source | FillsAhead) -> TypeIs[FillsAhead]:
    """It wants slots of the ring and not to be read."""
    return getattr(source, "ahead", 0) > 0


class EndOfPictures(Exception):
    """The source has shown all that it had."""


class Conveyor(Protocol):
    """Where the belt is, and the part sensor where it has one. Each method may raise `DeviceError`, and is then tried again later.

    Its `wrap_counts`, where it has that attribute: positions of two processes may differ by multiples of it.
    """

    def start(self, at_ns: int) -> None:
        """The line runs from this moment (monotonic) on: position 0, and no trigger before it."""
        ...

    def counts(self, at_ns: int) -> int:
        """The encoder's position then, in counts, without wrap."""
        ...

    def triggers(self, after_ns: int, until_ns: int) -> Sequence[Trigger]:
        """The part sensor's edges in (after_ns, until_ns], in order; empty for a conveyor without part sensor."""
        ...


class Bridge(Protocol):
    """Tells somebody else what the events say. It is a subscriber like any other and may fail without harm to the line."""

    def send(self, event: Mapping[str, Any]) -> None:
        """One event's JSON object; raises `DeviceError` when the listener cannot be reached."""
        ...

    def close(self) -> None:
        """Say goodbye."""
        ...
