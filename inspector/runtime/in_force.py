"""The settings in force, kept as text in the state folder: a vision that is started again begins with them, whatever the file says by then.

The daemon writes them when it starts, vision when it has taken a new recipe. An edited file thus comes into force by SIGHUP alone, and one
that is half edited keeps no vision from starting again. Beside them stands which recipes were selected last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from inspector.config import Config

NAME, SELECTED = "in-force.yaml", "selected.json"


def file(folder: Path) -> Path:
    """Where it is kept."""
    return folder / NAME


def keep(folder: Path, text: str) -> Path:
    """Write the text whole or not at all; its file. Raises `OSError`."""
    return _write(file(folder), text)


def select(folder: Path, chosen: Mapping[str, str]) -> None:
    """Keep which recipe each camera has; none: as the settings say. Raises `OSError`."""
    _write(folder / SELECTED, json.dumps(dict(chosen)) + "\n")


def selected(settings: Config) -> dict[str, str]:
    """Which recipe each camera has by the last selection; a camera or a recipe that is no more has no part in it."""
    try:
        found = json.loads((settings.state_dir / SELECTED).read_text("utf-8"))
        return {c.id: found[c.id] for c in settings.cameras if found.get(c.id) in settings.recipes}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(kept: Path, text: str) -> Path:
    part = kept.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(kept)
    return kept
