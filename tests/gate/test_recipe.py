"""RECIPE: a gateway asks for a recipe, is told what came of it, and nobody else hears a command that he does not know."""

from __future__ import annotations

from typing import Any

import pytest

from inspector.gate import arbiter as core
from inspector.gate import protocol
from inspector.gate.arbiter import Arbiter, Record, Select, Send
from tests.gate.script import HELLO, MS, running


def said(made: Arbiter, name: str, body: dict[str, Any], identity: bytes = b"g") -> list[core.Output]:
    return made.step(10 * MS, core.Received(identity, "", protocol.command(name, body)))


def changed(what: str, request: str = "", recipe: str = "ef" * 32, name: str = "gear", number: int | None = 2) -> core.Changed:
    return core.Changed(what, request, recipe, [["net", "01" * 32]], ["locate"], {"top": [name, number]})


def told(outs: list[core.Output]) -> list[dict[str, Any]]:
    return [protocol.said(out.frames)[1] for out in outs if isinstance(out, Send) and out.frames[0] == b"RECIPE"]


def test_who_asks_is_told_what_came_of_it() -> None:
    made = running()
    assert said(made, "RECIPE", {"number": 2, "id": "a"}) == [Select("1.a", 2, [0])]
    assert [each["state"] for each in told(made.step(11 * MS, changed("preparing", "1.a", "ab" * 32, "plate", 1)))] == ["preparing"]
    (answer,) = told(made.step(12 * MS, changed("in_force", "1.a")))
    assert (answer["state"], answer["id"], answer["recipes"]) == ("in_force", "a", {"0": {"name": "gear", "number": 2}})
    (other,) = told(made.step(13 * MS, changed("in_force", "2.a", "ab" * 32, "plate", 1)))
    assert other["id"] is None, "another session asked"
    assert told(made.step(14 * MS, changed("begun", "", "ab" * 32, "plate", 1))) == [], "nothing is new"


def test_a_gateway_of_1_0_hears_nothing_new_and_a_new_one_says_that_it_wants_to() -> None:
    made = running()
    assert told(made.step(11 * MS, changed("in_force"))) == []
    said(made, "HELLO", {**HELLO, "recipes": True})
    assert [each["state"] for each in told(made.step(12 * MS, changed("rolled_back", "", "ab" * 32, "plate", 1)))] == ["rolled_back"]


def test_welcome_and_an_alarm_name_the_recipe_in_force() -> None:
    made = running()
    outs = made.step(11 * MS, changed("in_force"))
    (alarm,) = [protocol.loads(out.payload) for out in outs if isinstance(out, Record)]
    assert (alarm["code"], alarm["recipes"]) == ("RECIPE", {"0": {"name": "gear", "number": 2}})
    welcome = next(out for out in said(made, "HELLO", HELLO) if isinstance(out, Send) and out.frames[0] == b"WELCOME")
    body = protocol.said(welcome.frames)[1]
    assert body["recipes"] == {"0": {"name": "gear", "number": 2}}
    assert body["config_sha256"] == "ef" * 32


def test_a_recipe_that_is_about_to_take_over_is_known_and_not_in_force() -> None:
    made = running()
    assert made.step(11 * MS, changed("ready")) == []
    assert made._recipe == "ab" * 32
    assert "ef" * 32 in made._models_of


@pytest.mark.parametrize(
    "body",
    [{}, {"number": 0}, {"number": 65_536}, {"number": True}, {"number": "2"}, {"name": ""}, {"name": "x" * 33}, {"number": 1, "lanes": []},
     {"number": 1, "lanes": [1]}, {"number": 1, "lanes": 0}, {"number": 1, "id": 7}, {"number": 1, "id": "x" * 65}],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: dict[str, Any]) -> None:
    made = running()
    (refused,) = said(made, "RECIPE", body)
    assert isinstance(refused, Send)
    assert protocol.said(refused.frames)[0] == "REFUSE"
