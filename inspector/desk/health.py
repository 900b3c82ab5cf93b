"""What vision says of its cameras and recipes at its metrics address, asked every two seconds; names as in deploy/metrics.md."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from inspector.config import Config
from inspector.interfaces import Clock

EVERY_NS = 2_000_000_000
OLD_NS = 8_000_000_000
ANSWER_S = 1.0
LARGEST_ANSWER_BYTES = 4 << 20
PREFIX = "inspector_"
DRIFTS = {
    "focus": "Focus",
    "exposure": "Brightness",
    "contrast": "Contrast",
    "saturated": "Black or white",
    "dirt": "Dirt",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """How one camera's pictures are. `drift`: by what, the share of the allowed drift that is used up; 1 is an alarm."""

    values: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: pictures by camera, the recipe that judges each camera's, and what a recipe in shadow said."""

    at_ns: int
    pictures: Mapping[str, Picture]
    in_use: Mapping[str, str]
    shadow: Mapping[str, int]


def read(text: str, at_ns: int) -> Said:
    """An answer in Prometheus' text format. Raises `ValueError` when it is none."""
    values: dict[str, dict[str, float]] = {}
    drift: dict[str, dict[str, float]] = {}
    in_use: dict[str, str] = {}
    shadow: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, labels = sample.name.removeprefix(PREFIX), sample.labels
            camera = labels.get("camera", "")
            if name == "picture_drift_ratio":
                drift.setdefault(camera, {})[labels["what"]] = sample.value
            elif name == "recipe_in_use" and sample.value:
                in_use[camera] = labels["name"]
            elif name == "shadow_pictures":
                shadow[labels["outcome"]] = int(sample.value)
            elif camera and name in _OF_A_CAMERA:
                values.setdefault(camera, {})[name] = sample.value
    pictures = {camera: Picture(values.get(camera, {}), drift.get(camera, {})) for camera in {**values, **drift}}
    return Said(at_ns, pictures, in_use, shadow)


_OF_A_CAMERA = frozenset(
    {
        "frames_total",
        "frames_lost_total",
        "frames_incomplete_total",
        "frames_dropped_total",
        "camera_rebuilds_total",
        "picture_exposure_grey",
        "picture_contrast_grey",
        "picture_focus_ratio",
        "picture_saturated_ratio",
        "picture_dirt_ratio",
        "ring_waiting_frames",
    }
)


class Health:
    """Asks; `step` is called by one worker, `said` by anybody."""

    def __init__(self, address: Callable[[], str], *, clock: Clock) -> None:
        self._address, self._clock = address, clock
        self._said: Said | None = None
        self._asked_ns = clock() - EVERY_NS

    def said(self) -> Said | None:
        """The last answer; None where it is old."""
        said = self._said
        return said if said is not None and self._clock() - said.at_ns < OLD_NS else None

    def step(self) -> None:
        """Ask if it is time, or wait a little."""
        if self._clock() - self._asked_ns < EVERY_NS:
            time.sleep(0.1)
            return
        self._asked_ns = self._clock()
        address = self._address()
        if not address:
            return
        with (
            suppress(OSError, ValueError, KeyError),
            urllib.request.urlopen(f"http://{address}/metrics", timeout=ANSWER_S) as answer,
        ):
            self._said = read(answer.read(LARGEST_ANSWER_BYTES).decode(), self._clock())


def address_of(config: Config, ready: Path | None) -> Callable[[], str]:
    """Where vision's metrics are now: as configured, or as the ready file says."""

    def said() -> str:
        if ready is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(json.loads(ready.read_text())["endpoints"]["metrics_vision"])
            return ""
        return config.metrics.vision_bind

    return said
