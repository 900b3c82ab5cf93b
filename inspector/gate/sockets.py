"""The ZeroMQ sockets of the gate with the options of PROTOCOL.md §2. One thread owns each socket; one context per process, after any fork.

`ROUTER_MANDATORY` because a router otherwise drops what it cannot deliver without a word; `MAXMSGSIZE` and `HANDSHAKE_IVL` bound what a
stranger can cost. With CURVE the identity of a peer is its ZAP User-Id and never something that it says itself.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

import zmq

from inspector.gate.protocol import LARGEST_FRAME_BYTES, Frames
from inspector.records import ConfigError

_LARGEST_SUBSCRIPTION_BYTES: Final = 256


def _bound(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str, options: Mapping[zmq.SocketOption, int]
) -> tuple[zmq.Socket[bytes], str]:
    socket = context.socket(kind)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        for option, value in options.items():
            socket.setsockopt(option, value)
        socket.bind(endpoint.replace("localhost", "127.0.0.1").replace(":0", ":*") if endpoint.endswith(":0") else endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        hint = "another process has it; is a daemon running already?" if error.errno == errno.EADDRINUSE else str(error)
        raise ConfigError("E_BIND", f"{endpoint}: {hint}", key="bind") from error
    last = socket.getsockopt(zmq.LAST_ENDPOINT)
    return socket, (last.decode() if isinstance(last, bytes) else str(last)).rstrip("\0")


def gate(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> tuple[zmq.Socket[bytes], str]:
    """(the gate's ROUTER, the address that it has); `ConfigError` E_BIND when the address cannot be had."""
    options = {
        zmq.ROUTER_MANDATORY: 1,
        zmq.ROUTER_HANDOVER: 0,
        zmq.SNDHWM: 64,
        zmq.RCVHWM: 1000,
        zmq.MAXMSGSIZE: LARGEST_FRAME_BYTES,
        zmq.HEARTBEAT_IVL: 200,
        zmq.HEARTBEAT_TIMEOUT: 600,
    }
    return _bound(context, zmq.ROUTER, endpoint, options)


def events(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> tuple[zmq.Socket[bytes], str]:
    """(the events' PUB, its address). A subscriber that does not keep up loses, sees the gap, and replays."""
    return _bound(context, zmq.PUB, endpoint, {zmq.SNDHWM: 2000, zmq.MAXMSGSIZE: _LARGEST_SUBSCRIPTION_BYTES})


def replay(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> tuple[zmq.Socket[bytes], str]:
    """(the replay's ROUTER, its address)."""
    return _bound(
        context, zmq.ROUTER, endpoint, {zmq.ROUTER_MANDATORY: 1, zmq.SNDHWM: 600, zmq.RCVHWM: 1000, zmq.MAXMSGSIZE: LARGEST_FRAME_BYTES}
    )


def receive(socket: zmq.Socket[bytes]) -> tuple[bytes, str, Frames] | None:
    """(identity, user, the frames after the identity) of the next message at a ROUTER, None when there is none."""
    try:
        frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    try:
        user = frames[-1].get("User-Id")
    except zmq.ZMQError:
        user = ""
    return frames[0].bytes, str(user), [frame.bytes for frame in frames[1:]]


def send(socket: zmq.Socket[bytes], identity: bytes, frames: Frames) -> bool:
    """False when the peer is gone (ROUTER_MANDATORY). Never blocks: a peer that does not read loses this copy, and it is sent again."""
    try:
        socket.send_multipart([identity, *frames], zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.EAGAIN):
            return error.errno == errno.EAGAIN
        raise
    return True
