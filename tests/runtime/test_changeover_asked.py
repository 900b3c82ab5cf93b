"""What those who ask for a changeover are told, vision there or not."""

from __future__ import annotations

import pytest

from inspector.records import ConfigError
from inspector.runtime import link
from inspector.runtime.admin import Peer
from inspector.runtime.changeover_asked import Changes, command

PEER = Peer(1, 0, 0)


def test_a_refusal_before_vision_is_ready_is_no_status() -> None:
    changes = Changes()

    def refuse(message: link.Switch) -> None:
        changes.heard(link.Changed("refused", message.request, "", [], [], {}, "vision cannot be asked now; ask again"))

    recipe = command(changes, refuse, 1.0)
    with pytest.raises(ConfigError, match="E_RECIPE: the recipe in force stays: vision cannot be asked now; ask again"):
        recipe({"do": "switch", "recipe": 2}, PEER)
    with pytest.raises(ConfigError, match="E_BUSY: vision is not ready yet"):
        recipe({"do": "status"}, PEER)
    changes.heard(link.Changed("begun", "", "ab" * 32, [], [], {"top": ["plate", 1]}))
    with pytest.raises(ConfigError, match="E_RECIPE"):
        recipe({"do": "switch", "recipe": 2}, PEER)
    assert recipe({"do": "status"}, PEER)["cameras"] == {"top": {"name": "plate", "number": 1}}


def test_a_status_is_told_as_one_whatever_was_refused_before() -> None:
    changes = Changes()
    changes.heard(link.Changed("refused", "r", "ab" * 32, [], [], {"top": ["plate", 1]}, "there is no lane 9"))
    told = command(changes, lambda message: None, 1.0)({"do": "status"}, PEER)
    assert (told["what"], told["text"], told["recipe"]) == ("status", "", "ab" * 32)
