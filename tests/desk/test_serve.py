"""The desk as a real process: where it listens, what it refuses, and that it goes when it is told to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inspector.desk.recipes import View, views_of
from inspector.desk.serve import listen
from inspector.records import ConfigError
from tests.desk.events import config

LINE = """
version: 1
site: site
line: line
station: station
desk: {{bind: "{bind}"}}
ready_file: ready.json
cameras: [{{id: cam0, recipe: r, source: {{kind: replay, folder: pictures}}}}]
recipes: {{r: {{checks: {{c: {{kind: outline}}}}}}}}
"""


@pytest.mark.parametrize("bind", ["0.0.0.0:8080", "192.0.2.1:8080", "[::]:8080", "example.org:8080", ":8080"])
def test_it_does_not_listen_beyond_this_machine(bind: str) -> None:
    with pytest.raises(ConfigError) as refused:
        listen(bind)
    assert refused.value.code == "E_SEC_BIND"
    assert "set desk.users, desk.tls_cert and desk.tls_key too" in refused.value.text


def test_a_port_that_is_taken_is_said() -> None:
    with listen("127.0.0.1:0") as taken, pytest.raises(ConfigError) as refused:
        listen(f"localhost:{taken.getsockname()[1]}")
    assert refused.value.code == "E_BIND"


def test_contours_come_from_the_configuration() -> None:
    settings = config()
    assert views_of(settings)["plate", ""].contours[0].name == "outer"


def test_a_drawing_that_cannot_be_read_leaves_the_page_without(tmp_path: Path) -> None:
    settings = config()
    broken = settings.recipes["plate"].model_copy(
        update={"template": settings.recipes["plate"].template.model_copy(update={"drawing": tmp_path / "gone.dxf"})}  # type: ignore[union-attr]
    )
    assert views_of(settings.model_copy(update={"recipes": {"plate": broken}})) == {("plate", ""): View()}


@contextmanager
def desk(folder: Path, bind: str = "127.0.0.1:0") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """(the process, its port)."""
    path = folder / "line.yaml"
    path.write_text(LINE.format(bind=bind))
    command = [sys.executable, "-m", "inspector", "desk", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            yield process, int(json.loads(said)["url"].rpartition(":")[2]) if said else 0
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.real
def test_it_stops_at_once_with_pages_open(tmp_path: Path) -> None:
    with desk(tmp_path) as (process, port):
        open_pages = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(3)]
        answers = []
        for page in open_pages:
            page.request("GET", "/live/line")
            answers.append(page.getresponse())
            assert answers[-1].status == 200
            assert answers[-1].readline().startswith(b"data: ")
        half = socket.create_connection(("127.0.0.1", port))  # says nothing, and never ends its request
        half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0  # one second of grace; without an end to its streams it would stay for ever
        half.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        for answer in answers:
            answer.close()
        for page in open_pages:
            page.close()


@pytest.mark.real
def test_it_lives_without_a_daemon_and_says_so(tmp_path: Path) -> None:
    with desk(tmp_path) as (_, port):
        page = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        page.request("GET", "/")
        answer = page.getresponse()
        assert answer.status == 200
        assert answer.getheader("server") is None
        assert "has not been heard yet" in answer.read().decode()
        page.close()


@pytest.mark.real
@pytest.mark.parametrize(("bind", "code"), [("0.0.0.0:8080", "E_SEC_BIND"), ("127.0.0.1:80", "E_BIND")])
def test_a_bad_address_is_refused_by_the_command(tmp_path: Path, bind: str, code: str) -> None:
    with desk(tmp_path, bind) as (process, _):
        assert process.wait(20) == 78
        assert process.stderr is not None
        said = process.stderr.read()
    assert code in said
    assert "Traceback" not in said


@pytest.mark.real
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"POST /try HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
    ids=["tls", "version", "header", "hosts", "smuggle", "nul"],
)
def test_garbage_is_refused_and_others_are_served(tmp_path: Path, request_bytes: bytes) -> None:
    with desk(tmp_path) as (process, port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(request_bytes)
            first = stranger.recv(64)
        assert first == b"" or first.split()[1][:1] == b"4", first
        page = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        page.request("GET", "/healthz")
        answer = page.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok\n")
        page.close()
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)


def test_no_answer_waits_for_an_acknowledgement() -> None:
    """An answer is written in two parts: without TCP_NODELAY the second waits 40 ms for the first one to be acknowledged."""
    with listen("127.0.0.1:0") as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
