"""The line's recipes as they are in force, with the contours that the page draws; read again when the daemon has taken new ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from inspector import config as settings_of
from inspector.config import Config
from inspector.config.document import text_of
from inspector.geometry import dxf
from inspector.records import ConfigError, Contour
from inspector.runtime import in_force

LOOK_S = 1.0

Contours = Mapping[str, Sequence[Contour]]


def contours_of(config: Config) -> dict[str, tuple[Contour, ...]]:
    """The part's contours in drawing mm by recipe. A drawing that cannot be read is the daemon's trouble: the page goes without."""
    found = {}
    for name, recipe in config.recipes.items():
        settings = recipe.template
        if settings is None:
            continue
        with suppress(ConfigError):
            drawing = dxf.read(settings.drawing, units=settings.units)
            if settings.part < len(drawing.parts):
                found[name] = tuple(drawing.contours[i] for i in drawing.parts[settings.part])
    return found


class Recipes:
    """`config` is the configuration with the recipes in force, `contours` theirs; `changes` counts how often they were read again.

    `path` is the daemon's configuration file, from whose folder names in it count; without one nothing is read again.
    """

    def __init__(self, config: Config, path: Path | None = None, *, contours: Contours | None = None) -> None:
        self.config = config
        self.contours: Contours = contours or {}
        self.changes = 0
        self._path, self._kept, self._at_ns = path, in_force.file(config.state_dir), 0
        self.look()
        if contours is None and not self.changes:
            self.contours = contours_of(config)

    def step(self) -> None:
        """Look once whether the daemon has others by now; what cannot be read leaves those that are known."""
        time.sleep(LOOK_S)
        self.look()

    def look(self) -> None:
        """The same at once."""
        if self._path is None:
            return
        with suppress(OSError, ConfigError):
            at_ns = self._kept.stat().st_mtime_ns
            if at_ns == self._at_ns:
                return
            self._at_ns = at_ns
            config = settings_of.read(self._path, text=text_of(self._kept))
            self.contours, self.config = contours_of(config), config
            self.changes += 1
