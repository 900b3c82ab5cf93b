"""What the help and the guide print can be typed: every command has these options, and names what its configuration has."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from inspector import config
from inspector.__main__ import application

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", ROOT / "deploy" / "OPERATIONS.md", *sorted((ROOT / "configs").glob("*.yaml"))]
EXAMPLE = re.compile(r"Example: inspector (.+)")
QUOTED = re.compile(r"`inspector ([a-z-]+ [^`…]*[/.A-Z][^`…]*)`")  # with what it is about: not the mere name of a command


def _examples() -> list[str]:
    help_texts = [text for path in sorted((ROOT / "inspector" / "commands").glob("*.py")) for text in EXAMPLE.findall(path.read_text())]
    return sorted({*help_texts, *(text for path in GUIDES for text in QUOTED.findall(path.read_text()))})


def test_the_tour_matches_a_picture_of_the_drawing_that_it_names() -> None:
    drawings = sorted(path.stem for path in (ROOT / "dxf_templates").glob("*.dxf"))  # `synth` draws them in turn
    named = re.findall(r"inspector match dxf_templates/(\w+)\.dxf out/set/images/(\d+)\.png", GUIDES[0].read_text())
    assert named
    assert all(drawings[int(number) % len(drawings)] == name for name, number in named)


def _parse(words: list[str]) -> None:
    """Up to where the command would run; raises click's own error for what it does not take."""
    command: Any = typer.main.get_command(application())
    context = command.make_context("inspector", list(words))
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("text", _examples())
def test_an_example_can_be_typed(text: str) -> None:
    words = shlex.split(text)
    _parse(words)
    for path, name in pairwise(words):
        if path.startswith("configs/") and words[0] in ("camera", "recipe") and words[1] not in ("list", "status"):
            found = config.read(ROOT / path)
            numbers = [str(recipe.number) for recipe in found.recipes.values()]
            assert name in ([camera.id for camera in found.cameras] if words[0] == "camera" else [*found.recipes, *numbers])
