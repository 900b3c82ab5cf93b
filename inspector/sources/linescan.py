"""Lines of a line camera, stacked by encoder counts into pictures that overlap: each length of an endless web is a part.

Any source gives the lines: each of its pictures is a block of one or more lines, and its counts are those of the block's first line
(the conveyor's, where it has none). A row of the picture is a place on the web, not a moment: it shows the line that was exposed there, so
that a change of speed stretches nothing by more than a line, a slow web repeats nothing, and a web that runs back is not seen twice.

Length n is the part n. Its picture shows `overlap_mm` of both neighbours, so that a defect across a border is seen whole in both: choose
the overlap as long as the longest defect. `Stamp.web` says where the picture lies; findings are given in mm across and along the web. The
part's moment and counts are those of its end passing the camera. A row without a line shows its neighbour; where more than `fill_rows` are
missing, the length is incomplete, and rejected. What the web's end or a lost camera leaves of a length is an incomplete length.

    source:
      kind: linescan
      lines: {kind: simulated_lines, width_px: 1024, mm_per_px: 0.2, mm_per_count: 0.05}
      width_px: 1024
      mm_per_px: 0.2
      mm_per_count: 0.05
      length_mm: 100
      overlap_mm: 10
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from inspector import config
from inspector.config import Kind, Strict
from inspector.interfaces import Clock, Conveyor, EndOfPictures, Source
from inspector.records import ConfigError, DeviceError, Stamp, Web
from inspector.sources.replay import MOST_PIXELS

if TYPE_CHECKING:
    from inspector.records import Bytes1D, Image

GIVES_WEB = True
LARGEST_JUMP_LENGTHS = 20
"""More of the web than this unseen at once is no loss but another count."""


class Settings(Strict):
    """`lines` is the line camera, `width_px` the pixels of its line. A row is `mm_per_row` long, None: as long as a pixel is wide."""

    lines: Kind
    width_px: int = Field(ge=1, le=65_536)
    mm_per_px: float = Field(gt=0)
    mm_per_count: float = Field(gt=0)
    mm_per_row: float | None = Field(default=None, gt=0)
    length_mm: float = Field(gt=0)
    overlap_mm: float = Field(default=0.0, ge=0)
    fill_rows: int = Field(default=2, ge=0, le=65_536)

    @field_validator("lines")
    @classmethod
    def _lines_of_a_camera(cls, lines: Kind) -> Kind:
        if lines.kind == "linescan":
            raise ValueError("linescan has its lines from another kind of source, not from itself")
        return lines

    @field_validator("length_mm", "overlap_mm")
    @classmethod
    def _fits(cls, value_mm: float, info: ValidationInfo) -> float:
        known = {"overlap_mm": 0.0} | info.data | {str(info.field_name): value_mm}
        if not {"width_px", "mm_per_px", "mm_per_row", "length_mm"} <= known.keys():
            return value_mm  # which has its own error
        length_mm, overlap_mm, row_mm = known["length_mm"], known["overlap_mm"], known["mm_per_row"] or known["mm_per_px"]
        if row_mm > length_mm:
            raise ValueError(f"length_mm {length_mm:g} is less than a row of {row_mm:g} mm")
        if overlap_mm > length_mm:
            raise ValueError(f"overlap_mm {overlap_mm:g} is more than length_mm {length_mm:g}")
        rows = (length_mm + 2 * overlap_mm) / row_mm
        if rows * known["width_px"] > MOST_PIXELS:
            most_mm = MOST_PIXELS / known["width_px"] * row_mm
            raise ValueError(
                f"{value_mm:g} makes {known['width_px']} × {rows:.4g} pixels; at most {MOST_PIXELS // 1_000_000} million, "
                f"so length_mm + 2 overlap_mm up to {most_mm:.4g}"
            )
        return value_mm


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that were exposed one after the other, the first at `place_mm`."""

    seq: int
    lines: Image
    place_mm: float
    at_ns: int


@dataclass(slots=True)
class _Rows:
    """What is to be placed: row `first` + i of the web shows line `index[i]` of `lines`; `at_ns` and `end_ns` of the block."""

    lines: Image
    index: NDArray[np.int64]
    first: int
    at_ns: int
    end_ns: int


class LineScan:
    """The camera; see `interfaces.Source`. Rows of the web are numbered from 0 at the first line on."""

    def __init__(self, settings: Settings, name: str, clock: Clock, conveyor: Conveyor, lines: Source) -> None:
        self._settings, self._name, self._clock, self._conveyor, self._lines = settings, name, clock, conveyor, lines
        self._mm_per_row = settings.mm_per_row or settings.mm_per_px
        self._length = max(1, round(settings.length_mm / self._mm_per_row))
        self._overlap = math.ceil(settings.overlap_mm / self._mm_per_row)
        self.max_bytes = (self._length + 2 * self._overlap) * settings.width_px
        self._seq = 1
        self._origin_mm = self._furthest_mm = 0.0
        self._held: _Block | None = None
        self._line_mm = self._mm_per_row
        self._line_ns = 0.0
        self._pending: deque[_Rows] = deque()
        self._next_row = 0
        self._end_ns = self._end_counts = 0
        self._missing: list[tuple[int, int]] = []
        self._picture: Image | None = None
        self._tail: Image = np.empty((0, settings.width_px), np.uint8)
        self._ending: Exception | None = None

    def read(self, into: Bytes1D, timeout_s: float) -> Stamp | None:
        """The next length, when its overlap has passed too."""
        until_ns = self._clock() + round(timeout_s * 1e9)
        picture = self._begun(into)
        while True:
            while self._pending:
                if self._place(picture, self._pending[0]):
                    return self._finished(picture)
                self._pending.popleft()
            if self._ending is not None:
                if self._next_row > (self._seq - 1) * self._length:
                    return self._given_up(picture)
                raise self._ending
            left_s = (until_ns - self._clock()) / 1e9
            block = self._read_block(max(0.0, left_s))
            if block is None and left_s <= 0:
                return None
            if block is not None:
                self._resolve(block)

    # -- lines

    def _read_block(self, timeout_s: float) -> _Block | None:
        lines = np.empty(self._lines.max_bytes, np.uint8)
        try:
            stamp = self._lines.read(lines, timeout_s)
        except (EndOfPictures, DeviceError) as error:
            self._ending = error
            if self._held is not None:
                held, self._held = self._held, None
                self._queue(held, held.place_mm + len(held.lines) * self._line_mm, held.at_ns + round(len(held.lines) * self._line_ns))
            return None
        if stamp is None:
            return None
        if stamp.complete and stamp.shape[1:] != (self._settings.width_px,):
            raise DeviceError(f"camera {self._name}: lines of {_said(stamp.shape[1:])} pixels, not of {self._settings.width_px}")
        counts = stamp.at_counts if stamp.at_counts is not None else self._conveyor.counts(stamp.at_ns)
        whole = lines[: math.prod(stamp.shape)].reshape(stamp.shape)
        if not stamp.complete:
            whole = whole[:0]  # its rows will be missing
        return _Block(stamp.seq, whole, counts * self._settings.mm_per_count, stamp.at_ns)

    def _resolve(self, block: _Block) -> None:
        """Where the block before this one has ended is known now: where this one begins, unless something is lost between them."""
        held, self._held = self._held, block
        if held is None:
            self._origin_mm = self._furthest_mm = block.place_mm
            return
        self._furthest_mm = max(self._furthest_mm, block.place_mm)
        if (back_mm := self._furthest_mm - block.place_mm) > self._settings.length_mm:
            raise DeviceError(
                f"camera {self._name}: the web runs backwards, by {back_mm:.0f} mm now; does its encoder want backwards: true?"
            )
        number = len(held.lines)
        if number and block.seq == held.seq + 1:
            self._line_mm = max(0.0, block.place_mm - held.place_mm) / number
            self._line_ns = (block.at_ns - held.at_ns) / number
            self._queue(held, block.place_mm, block.at_ns)
        elif number:
            self._queue(held, held.place_mm + number * self._line_mm, held.at_ns + round(number * self._line_ns))

    def _queue(self, block: _Block, end_mm: float, end_ns: int) -> None:
        """The rows whose middle the lines have passed over, and before them those that nothing has seen."""
        first, end = (math.ceil((mm - self._origin_mm) / self._mm_per_row - 0.5) for mm in (block.place_mm, end_mm))
        known = self._pending[-1].first + len(self._pending[-1].index) if self._pending else self._next_row
        if max(first, end) - known > LARGEST_JUMP_LENGTHS * self._length:
            raise DeviceError(f"camera {self._name}: the web jumped by {(max(first, end) - known) * self._mm_per_row:.0f} mm")
        if first > known:
            if first - known > self._settings.fill_rows:
                self._missing.append((known, first))
            self._pending.append(_Rows(block.lines, np.zeros(first - known, np.int64), known, block.at_ns, block.at_ns))
        first = max(first, known)
        if end <= first:
            return
        if (end_mm - block.place_mm) / len(block.lines) > (self._settings.fill_rows + 1) * self._mm_per_row:
            self._missing.append((first, end))  # too fast for this camera: between its lines there is web that it has not seen
        middles_mm = self._origin_mm + (np.arange(first, end) + 0.5) * self._mm_per_row
        index = ((middles_mm - block.place_mm) * (len(block.lines) / (end_mm - block.place_mm))).astype(np.int64)
        self._pending.append(_Rows(block.lines, index.clip(0, len(block.lines) - 1), first, block.at_ns, end_ns))

    # -- pictures

    @property
    def _from_row(self) -> int:
        return max(0, (self._seq - 1) * self._length - self._overlap)

    def _begun(self, into: Bytes1D) -> Image:
        """The picture in this memory, with what it has so far: the end of the one before it, and what earlier readings have placed."""
        rows = self._seq * self._length + self._overlap - self._from_row
        picture: Image = into[: rows * self._settings.width_px].reshape(rows, -1)
        if self._picture is None:
            picture[: len(self._tail)] = self._tail
        elif self._picture.ctypes.data != picture.ctypes.data:
            done = self._next_row - self._from_row
            picture[:done] = self._picture[:done]
        self._picture = picture
        return picture

    def _place(self, picture: Image, rows: _Rows) -> bool:
        """Put rows where they belong; True when the picture is full and some may be left."""
        at = rows.first - self._from_row
        number = min(len(rows.index), len(picture) - at)
        np.take(rows.lines, rows.index[:number], axis=0, out=picture[at : at + number], mode="clip")
        ends = self._seq * self._length - 1
        if rows.first <= ends < rows.first + number:
            share = (ends - rows.first + 1) / len(rows.index)
            self._end_ns = rows.at_ns + round(share * (rows.end_ns - rows.at_ns))
            end_mm = self._origin_mm + (ends + 1) * self._mm_per_row
            self._end_counts = round(end_mm / self._settings.mm_per_count)
        rows.first += number
        rows.index = rows.index[number:]
        self._next_row = rows.first
        return at + number == len(picture)

    def _finished(self, picture: Image) -> Stamp:
        from_row, to_row = self._from_row, self._from_row + len(picture)
        core = (self._seq - 1) * self._length
        seen = not any(first < core + self._length and end > core for first, end in self._missing)
        self._missing = [(first, end) for first, end in self._missing if end > to_row - 2 * self._overlap]
        start_mm = self._origin_mm + (from_row + 0.5) * self._mm_per_row
        web = Web(start_mm, self._mm_per_row, self._settings.mm_per_px, core - from_row, core - from_row + self._length)
        stamp = Stamp(self._name, self._seq, self._end_ns, self._end_counts, picture.shape, seen, None, web)
        self._tail = picture[len(picture) - 2 * self._overlap :].copy()
        self._picture = None
        self._seq += 1
        return stamp

    def _given_up(self, picture: Image) -> Stamp:
        """The length that was begun when the lines ended: its part exists, whether all of it was seen or not."""
        done = self._next_row - self._from_row
        picture[done:] = picture[done - 1]
        self._missing.append((self._next_row, self._from_row + len(picture)))
        if done < self._seq * self._length - self._from_row:  # its end has not passed the camera
            self._end_ns, self._end_counts = self._clock(), round(self._conveyor.counts(self._clock()))
        stamp = self._finished(picture)
        self._tail = picture[:0].copy()
        self._next_row = self._from_row
        return stamp

    def close(self) -> None:
        """Let the line camera go."""
        self._lines.close()


def build(settings: Settings, name: str, clock: Clock, conveyor: Conveyor) -> LineScan:
    """A camera that stacks the lines of another; raises what building that one raises."""
    kind = config.plugin("sources", settings.lines.kind)
    lines = config.built(kind, config.settings_of("sources", settings.lines, kind.Settings), name, clock, conveyor)
    return LineScan(settings, name, clock, conveyor, lines)


def examine(settings: Settings) -> None:
    """Raises `ConfigError` E_CFG_RANGE where it is known beforehand that the lines are not `width_px` wide."""
    kind = config.plugin("sources", settings.lines.kind)
    line_shape: Callable[[Any], tuple[int, ...] | None] | None = getattr(kind, "line_shape", None)
    shape = line_shape and line_shape(config.settings_of("sources", settings.lines, kind.Settings))
    if shape and shape != (settings.width_px,):
        raise ConfigError("E_CFG_RANGE", f"{settings.width_px}; allowed: {_said(shape)}, as wide as the lines are", key="width_px")


def _said(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)
