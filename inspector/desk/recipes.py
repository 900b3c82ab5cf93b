"""The line's recipes as they are in force, with the contours that the page draws, and how the cameras saw what they judged; read again
when the daemon has taken new ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from inspector import config as settings_of
from inspector.config import Config, PartTemplate
from inspector.config.document import text_of
from inspector.geometry import calibrate, dxf
from inspector.records import Calibration, ConfigError, Contour
from inspector.runtime import in_force

LOOK_S = 1.0


class View(NamedTuple):
    """What is laid over a camera's pictures: the part's contours in drawing mm, and the calibration that straightened what was judged."""

    contours: tuple[Contour, ...] = ()
    calibration: Calibration | None = None


Views = Mapping[tuple[str, str], View]
"""By recipe and camera; the camera is empty for all that the recipe says nothing of their own for."""


def views_of(config: Config) -> dict[tuple[str, str], View]:
    """Of all recipes. A drawing or calibration that cannot be read is the daemon's trouble: the page goes without."""
    found = {(name, ""): _view(recipe.template) for name, recipe in config.recipes.items()}
    of_cameras = ((name, camera, side) for name, recipe in config.recipes.items() for camera, side in recipe.cameras.items())
    return found | {(name, camera): _view(side.template) for name, camera, side in of_cameras}


def _view(settings: PartTemplate | None) -> View:
    if settings is not None:
        with suppress(ConfigError):
            drawing = dxf.read(settings.drawing, units=settings.units)
            calibration = None if settings.calibration is None else calibrate.read(settings.calibration)
            if settings.part < len(drawing.parts):
                return View(tuple(drawing.contours[i] for i in drawing.parts[settings.part]), calibration)
    return View()


class Recipes:
    """`config` is the configuration with the recipes in force, `views` theirs; `changes` counts how often they were read again.

    `path` is the daemon's configuration file, from whose folder names in it count; without one nothing is read again.
    """

    def __init__(self, config: Config, path: Path | None = None, *, views: Views | None = None) -> None:
        self.config = config
        self.views: Views = views or {}
        self.changes = 0
        self._path, self._kept, self._at_ns = path, in_force.file(config.state_dir), 0
        self.look()
        if views is None and not self.changes:
            self.views = views_of(config)

    @property
    def contours(self) -> dict[str, tuple[Contour, ...]]:
        """The contours of each recipe that has some, as most of its cameras see them."""
        return {recipe: view.contours for (recipe, camera), view in self.views.items() if view.contours and not camera}

    def view(self, recipe: str, camera: str) -> View:
        """What this camera's pictures were judged by; empty where that is not known."""
        return self.views.get((recipe, camera)) or self.views.get((recipe, "")) or View()

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
            self.views, self.config = views_of(config), config
            self.changes += 1
