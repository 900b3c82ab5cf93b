from __future__ import annotations

import json
from pathlib import Path

import pytest

from inspector.config import Security
from inspector.gate.security import write_pair
from inspector.records import ConfigError
from inspector.runtime.endpoints import Endpoints, endpoints_of, keys_of
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


def test_security_needs_keys(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert keys_of(plain, None) is None
    secured = plain.model_copy(update={"security": Security(server_key=tmp_path / "s", clients=tmp_path / "c")})
    with pytest.raises(ConfigError, match="--keys"):
        keys_of(secured, None)
    with pytest.raises(ConfigError, match="E_KEY_OPEN"):
        keys_of(secured, tmp_path / "none.key")
    server = write_pair(tmp_path / "server.key")
    pair = write_pair(tmp_path / "desk.key", server=server.public)
    assert keys_of(secured, tmp_path / "desk.key") == pair
    with pytest.raises(ConfigError, match=r"E_KEY_ROLE.*server"):
        keys_of(secured, tmp_path / "server.key")
