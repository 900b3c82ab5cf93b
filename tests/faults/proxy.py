"""A TCP proxy between gateways and gate that can do to a connection what networks do: wait, jitter, cut, flip, stand still, say old things.

It knows where messages of ZMTP 3 (NULL mechanism) begin, so that a recorded message can be put in between two others.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from random import Random

GREETING_BYTES = 64
FROM_GATE, FROM_GATEWAY = "from gate", "from gateway"


def messages(stream: bytes) -> list[bytes]:
    """The whole messages (frames with their headers) in what a peer said after its greeting."""
    found, begin, at = [], 0, 0
    while at < len(stream):
        flags = stream[at]
        head = 9 if flags & 2 else 2
        if at + head > len(stream):
            break
        size = struct.unpack(">Q", stream[at + 1 : at + 9])[0] if flags & 2 else stream[at + 1]
        at += head + size
        if at > len(stream):
            break
        if flags & 4:
            begin = at  # a command, of which nobody speaks
        elif not flags & 1:
            found.append(stream[begin:at])
            begin = at
    return found


class Proxy:
    """Listens at `port` and passes everything on to `target_port`; its attributes say what goes wrong meanwhile."""

    def __init__(self, port: int, target_port: int) -> None:
        self.random = Random(port)
        self.delay_s = self.jitter_s = self.flip_ratio = self.cut_ratio = 0.0
        self.still: set[str] = set()
        """Directions in which nothing is passed on; the connections stay."""
        self.recorded: list[bytes] = []
        self.recording = False
        self.insert: list[bytes] = []
        """Messages to say to every gateway at the next border of messages."""
        self.connections = self.flipped = 0
        self._port, self._target_port = port, target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self._port))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, onwards = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, onwards}
        await asyncio.gather(self._pump(reader, onwards, FROM_GATEWAY), self._pump(there, writer, FROM_GATE), return_exceptions=True)
        self._writers -= {writer, onwards}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        told = b""
        try:
            while data := await reader.read(65536):
                if self.delay_s or self.jitter_s:
                    await asyncio.sleep(self.delay_s + self.random.random() * self.jitter_s)
                while direction in self.still:
                    await asyncio.sleep(0.01)
                if self.recording and direction == FROM_GATE:
                    told += data
                    self.recorded = messages(told[GREETING_BYTES:] if told[:1] == b"\xff" else told)
                writer.write(self._broken(data))
                if self.insert and direction == FROM_GATE and len(messages(data)) and b"".join(messages(data)) == data:
                    writer.write(b"".join(self.insert))
                    self.insert = []
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def _broken(self, data: bytes) -> bytes:
        if self.random.random() < self.cut_ratio:
            data = data[: self.random.randrange(len(data))]
        if self.random.random() < self.flip_ratio:
            self.flipped += 1
            broken = bytearray(data)
            broken[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            data = bytes(broken)
        return data

    def reset(self) -> None:
        """Every connection ends with a TCP RST."""

        def _reset() -> None:
            for writer in list(self._writers):
                end = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

        self._loop.call_soon_threadsafe(_reset)

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        self.delay_s = self.jitter_s = self.flip_ratio = self.cut_ratio = 0.0
        self.still = set()

    def close(self) -> None:
        """Stop listening and let everything go."""
        self.calm()
        time.sleep(0.05)
        if self._server is not None:
            self._loop.call_soon_threadsafe(self._server.close)
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
