"""Who connects and does not ask is let go; who waits for an answer, or listens, is not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from inspector.desk import impatient
from inspector.desk.serve import listen

pytestmark = pytest.mark.real


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers, and for /slow after a while."""
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/takes":
        while (await receive()).get("more_body", False):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    if scope["path"] == "/slow":
        await asyncio.sleep(1.2)
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(impatient, "REQUEST_S", 0.5)
    monkeypatch.setattr(impatient, "BODY_S", 0.5)
    server = uvicorn.Server(uvicorn.Config(app, http=impatient.Impatient, ws="none", lifespan="off", log_level="critical"))
    with listen("127.0.0.1:0") as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(10)


def ended_s(port: int, *said: bytes) -> float:
    """How long a connection on which this is said lives after the answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as end:
        for text in said:
            end.sendall(text)
            if text.endswith(b"\r\n\r\n"):
                heard = b""
                while not heard.endswith(b"ok"):
                    heard += end.recv(4096)
        began_s = time.monotonic()
        assert end.recv(4096) == b""
        return time.monotonic() - began_s


@pytest.mark.parametrize(
    "said",
    [
        (),
        (b"GET / HT",),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\nho"),
        (b"POST /takes HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n12",),
    ],
)
def test_who_does_not_ask_is_let_go(port: int, said: tuple[bytes, ...]) -> None:
    assert ended_s(port, *said) < 3.0


def test_who_waits_for_an_answer_gets_it(port: int) -> None:
    asked = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
    assert ended_s(port, asked, asked) < 3.0


def test_a_body_has_more_time(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as end:
        end.sendall(b"POST /takes HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n12")
        time.sleep(0.7)
        end.sendall(b"34")
        assert end.recv(4096).endswith(b"ok")  # header and body in one piece


class Wire:
    """A transport that notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")


def test_what_is_written_in_one_turn_goes_out_in_one_piece_and_before_the_end() -> None:
    wire = Wire()

    async def say() -> None:
        together: Any = impatient.Together(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        together.write(b"header ")
        together.write(b"body")
        await asyncio.sleep(0)
        together.write(b"last")
        together.close()
        await asyncio.sleep(0)

    asyncio.run(say())
    assert wire.done == [b"header body", b"last", "closed"]
