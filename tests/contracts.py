"""What every plug-in of a folder must keep, whoever wrote it: one function for each shape of `inspector.interfaces`.

A kind is tried with the YAML at the end of its own docstring. The files that this names are looked for in a sandbox: the repository's
`models` and `dxf_templates` lie there as they are, and whatever else is named is made: pictures in folders and behind patterns.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml
from pydantic import BaseModel

from inspector import config
from inspector.interfaces import Bridge, Conveyor, EndOfPictures, Source
from inspector.records import DeviceError, Finding, Frame, Plan, Stamp, Trigger, View

if TYPE_CHECKING:
    from inspector.records import Image

FOLDERS = ("sources", "conveyor", "checks", "bridges")
REPOSITORY = Path(__file__).parent.parent
PICTURE_SIZE = (96, 128)
GUARD_BYTES = 64


def kinds() -> list[tuple[str, str]]:
    """(folder, kind) of every plug-in that there is."""
    return [(folder, kind) for folder in FOLDERS for kind in config.known_kinds(folder)]


def example(module: ModuleType) -> str:
    """The YAML at the end of a kind's docstring: its last block, indented or fenced."""
    text = inspect.cleandoc(module.__doc__ or "") + "\n"
    found = re.search(r"^```yaml\n(.*)```\n\Z", text, re.MULTILINE | re.DOTALL) or re.search(r"\n\n((?:    .*\n)+)\Z", text)
    if found is None:
        raise AssertionError(f"{module.__name__}: the docstring does not end with the YAML that turns it on")
    return textwrap.dedent(found[1])


def settings(folder: str, kind: str, sandbox: Path) -> Any:
    """The settings that the docstring's YAML gives, with the files that they name."""
    module = config.plugin(folder, kind)
    raw = yaml.safe_load(example(module))
    ((_, mapping),) = raw.items()
    assert mapping.pop("kind") == kind
    found = config.settings_of(folder, config.Kind.model_validate({"kind": kind, **mapping}), module.Settings)
    return _rooted(found, sandbox)


def sandbox_in(folder: Path) -> Path:
    """A folder in which the examples' paths lead somewhere, whether they begin in `configs` or above it."""
    base = folder / "configs"
    base.mkdir()
    for name in ("models", "dxf_templates"):
        for where in (folder, base):
            (where / name).symlink_to(REPOSITORY / name)
    return base


def _rooted(found: BaseModel, sandbox: Path) -> Any:
    return found.model_copy(update={name: _placed(getattr(found, name), sandbox) for name in type(found).model_fields})


def _placed(value: Any, sandbox: Path) -> Any:
    if isinstance(value, BaseModel):
        return _rooted(value, sandbox)
    if isinstance(value, (list, tuple)):
        return type(value)(_placed(each, sandbox) for each in value)
    if not isinstance(value, Path):
        return value
    if value.is_absolute():  # a device
        return value
    path = sandbox / value
    if "*" in path.name or path.suffix in (".png", ".jpg"):
        _pictures(path.parent)
    elif not path.suffix:
        _pictures(path)
    if path.suffix in (".png", ".jpg") and "*" not in path.name:
        cv2.imwrite(str(path), picture(0))
    return path


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        cv2.imwrite(str(folder / f"part{number}.png"), picture(number))


def picture(number: int) -> Image:
    """A grey picture (96, 128) that differs from the others: noise, from its number."""
    return np.random.default_rng(number).integers(0, 255, PICTURE_SIZE, np.uint8)


EVENTS: tuple[dict[str, Any], ...] = (
    {
        "schema": "insp.verdict",
        "part_seq": "1",
        "lane": 0,
        "verdict": "PASS",
        "reason": 0,
        "reason_text": "",
        "findings": [],
        "defects": [],
    },
    {"schema": "insp.alarm", "code": "SOMETHING_ELSE", "text": "of a kind that nobody knows"},
    {"schema": "insp.hb", "state": "RUN", "permit": True},
    {"schema": "insp.stale"},
    {},
)
"""What a bridge may be told; fields that it does not know or does not find are no reason to fail."""


@dataclass
class Belt:
    """A conveyor for those who ask for one: 1000 counts and ten parts a second."""

    start_ns: int = 0

    def start(self, at_ns: int) -> None:
        self.start_ns = at_ns

    def counts(self, at_ns: int) -> int:
        return max(0, at_ns - self.start_ns) // 1_000_000

    def triggers(self, after_ns: int, until_ns: int) -> Sequence[Trigger]:
        period_ns = 100_000_000
        first = max(1, (after_ns - self.start_ns) // period_ns + 1)
        times = [(n, self.start_ns + n * period_ns) for n in range(first, (until_ns - self.start_ns) // period_ns + 1)]
        return [Trigger(n, 0, at_ns, self.counts(at_ns)) for n, at_ns in times]


def keeps_source(source: Source, name: str) -> int:
    """A source writes its pictures into the buffer and nowhere else, times out rather than blocks, raises only what it may.

    Returns how many pictures it gave. A read that never returns is ended by the test's own time limit.
    """
    assert isinstance(source.max_bytes, int)
    assert source.max_bytes > 0
    memory = np.full(source.max_bytes + 2 * GUARD_BYTES, 0xA5, np.uint8)
    into = memory[GUARD_BYTES:-GUARD_BYTES]
    last, given = 0, 0
    with contextlib.suppress(DeviceError, EndOfPictures):
        for _ in range(60):
            stamp = source.read(into, 0.05)
            assert (memory[:GUARD_BYTES] == 0xA5).all()
            assert (memory[-GUARD_BYTES:] == 0xA5).all()
            if stamp is None:
                continue
            assert stamp.camera == name
            assert stamp.seq > last, "exposures are numbered upwards"
            assert 0 < stamp.at_ns <= time.monotonic_ns()
            assert int(np.prod(stamp.shape)) <= source.max_bytes
            assert len(stamp.shape) == 2 or (len(stamp.shape) == 3 and stamp.shape[2] == 3)
            last, given = stamp.seq, given + 1
            if given == 5:
                break
    source.close()
    source.close()
    return given


def keeps_conveyor(conveyor: Conveyor) -> None:
    """A conveyor never counts back while the belt runs on, and tells each trigger once, however the time is cut into pieces."""
    start_ns = 10_000_000_000
    conveyor.start(start_ns)
    times = [start_ns + step * 37_000_000 for step in range(120)]
    counts = [conveyor.counts(at_ns) for at_ns in times]
    assert all(isinstance(count, int) for count in counts)
    assert counts == sorted(counts)
    whole = list(conveyor.triggers(start_ns, times[-1]))
    pieces = [trigger for after, until in itertools.pairwise(times) for trigger in conveyor.triggers(after, until)]
    assert pieces == whole
    assert [t.at_ns for t in whole] == sorted(t.at_ns for t in whole)
    assert all(start_ns < t.at_ns <= times[-1] for t in whole)
    for lane in {t.lane for t in whole}:
        seqs = [t.part_seq for t in whole if t.lane == lane]
        assert seqs == list(range(1, len(seqs) + 1)), "the parts of a lane are numbered 1, 2, … as the sensor sees them"
    assert not list(conveyor.triggers(start_ns - 1_000_000_000, start_ns)), "no part before the line runs"


def keeps_check(check: Any, name: str, views: Sequence[View]) -> None:
    """A check answers each view, in order, the same alone as in a batch and the same again, under its own name, and changes no picture."""
    before = [(view.image.tobytes(), view.frame.image.tobytes()) for view in views]
    together = check(list(views))
    assert len(together) == len(views)
    for findings in together:
        assert isinstance(findings, tuple)
        assert all(isinstance(finding, Finding) and finding.check == name for finding in findings)
    alone = [check([view])[0] for view in views]
    assert _told(alone) == _told(together)
    assert _told(check(list(reversed(views)))) == list(reversed(_told(together)))
    assert before == [(view.image.tobytes(), view.frame.image.tobytes()) for view in views]
    assert list(check([])) == []


def keeps_bridge(bridge: Bridge) -> int:
    """A bridge takes every event or says `DeviceError`, whoever listens or not, and can be closed twice. Returns how many it took."""
    taken = 0
    for event in EVENTS:
        with contextlib.suppress(DeviceError):
            bridge.send(event)
            taken += 1
    bridge.close()
    bridge.close()
    return taken


def _told(answers: Sequence[tuple[Finding, ...]]) -> list[list[str]]:
    """Findings as text, because NaN is not equal to itself."""
    return [[repr(finding) for finding in findings] for findings in answers]


def views_of(plan: Plan, images: Sequence[Image], *, raster: bool) -> Iterator[View]:
    """What the judge would give to a check for these pictures: the part is found, and lies on the template's raster where that is asked."""
    from inspector.geometry import raster as rasters

    for seq, image in enumerate(images, 1):
        image = np.ascontiguousarray(image)
        image.flags.writeable = False
        frame = Frame(Stamp("camera", seq, seq * 1_000_000, None, image.shape, True, f"part{seq - 1}"), image)
        if plan.locator is None or plan.template is None:
            yield View(frame, None, None, image)
            continue
        (located,) = plan.locator.find(image, max_parts=1)
        on_raster = rasters.rectify(image, located.pose, plan.template) if raster else image
        on_raster.flags.writeable = False
        yield View(frame, located.pose, plan.template, on_raster, located.gauged)


def provide(found: BaseModel, views: Sequence[View]) -> None:
    """Where settings name a file of each part by "{uid}", it lies in the folders that they name: the part's picture."""
    values = [getattr(found, name) for name in type(found).model_fields]
    for pattern in (v for v in values if isinstance(v, str) and "{uid}" in v):
        for folder in (v for v in values if isinstance(v, Path) and v.is_dir()):
            for view in views:
                cv2.imwrite(str(folder / pattern.replace("{uid}", view.frame.stamp.uid or "")), view.image)
