# mypy: ignore-errors
"""Kinds of a third-party package for the tests of faults: what they do wrong is written in a file while the line runs.

The folder of these files is INSPECTOR_TEST_CONTROL: `camera`, `check`; each holds a word or two, and nothing is wrong without it.
"""

import os
from pathlib import Path

CONTROL = Path(os.environ.get("INSPECTOR_TEST_CONTROL", "/nonexistent"))


def asked(whom: str) -> list[str]:
    """The words in a control file, none without it."""
    try:
        return (CONTROL / whom).read_text().split()
    except FileNotFoundError:
        return []
