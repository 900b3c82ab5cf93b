"""The settings in force, kept as text in the state folder: a vision that is started again begins with them, whatever the file says by then.

The daemon writes them when it starts, vision when it has taken a new recipe. An edited file thus comes into force by SIGHUP alone, and one
that is half edited keeps no vision from starting again.
"""

from __future__ import annotations

from pathlib import Path

NAME = "in-force.yaml"


def file(folder: Path) -> Path:
    """Where it is kept."""
    return folder / NAME


def keep(folder: Path, text: str) -> Path:
    """Write the text whole or not at all; its file. Raises `OSError`."""
    kept = file(folder)
    part = kept.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(kept)
    return kept
