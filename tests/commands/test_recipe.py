"""`inspector recipe` where no daemon runs."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from inspector.__main__ import application

EXAMPLE = str(Path(__file__).parents[2] / "configs" / "line.example.yaml")


def test_a_recipe_without_pictures_to_prove_it_is_said_to_have_none() -> None:
    said = CliRunner().invoke(application(), ["recipe", "prove", EXAMPLE, "1"])
    assert said.exit_code == 0
    assert said.stdout.startswith("plate: can be prepared")
    assert "no proof: or challenge: pictures" in said.stdout
    told = json.loads(CliRunner().invoke(application(), ["recipe", "prove", EXAMPLE, "plate", "--json"]).stdout)
    assert (told["recipe"], told["proved"]) == ("plate", 0)
