from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspector.runtime.endpoints import Endpoints, endpoints_of
from tests.gate.line import settings


def test_the_ready_file_says_where_the_daemon_is(tmp_path: Path) -> None:
    config, ready = settings(tmp_path), tmp_path / "ready.json"
    assert endpoints_of(config, None)() == Endpoints("tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    where = endpoints_of(config, ready)
    assert where() is None
    ready.write_text(json.dumps({"endpoints": {"events": "tcp://127.0.0.1:1", "replay": "tcp://127.0.0.1:2"}}))
    assert where() == Endpoints("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"endpoints": 3}', '{"endpoints": {"events": "x"}}'])
def test_a_ready_file_that_is_being_written_is_none_yet(tmp_path: Path, text: str) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text(text)
    assert endpoints_of(settings(tmp_path), ready)() is None
