"""The ZeroMQ sockets of the gate with the options of PROTOCOL.md §2. One thread owns each socket; one context per process, after any fork.

`ROUTER_MANDATORY` because a router otherwise drops what it cannot deliver without a word; `MAXMSGSIZE` and `HANDSHAKE_IVL` bound what a
stranger can cost. With CURVE the identity of a peer is its ZAP User-Id and never something that it says itself.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from inspector.gate.protocol import LARGEST_FRAME_BYTES, Frames
from inspector.gate.security import Pair
from inspector.records import ConfigError

_LARGEST_SUBSCRIPTION_BYTES: Final = 1024
"""256 would do for subscriptions, but CURVE's INITIATE is larger, and every handshake would fail."""


def _bound(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    endpoint: str,
    options: Mapping[zmq.SocketOption, int],
    domain: str,
    keys: Pair | None,
) -> tuple[zmq.Socket[bytes], str]:
    socket = context.socket(kind)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        for option, value in options.items():
            socket.setsockopt(option, value)
        if keys is not None:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it CURVE lets everybody in when nobody answers for ZAP
        socket.bind(endpoint.replace("localhost", "127.0.0.1").replace(":0", ":*") if endpoint.endswith(":0") else endpoint)
    except zmq.ZMQError as error:
        socket.close(0)
        hint = "another process has it; is a daemon running already?" if error.errno == errno.EADDRINUSE else str(error)
        raise ConfigError("E_BIND", f"{endpoint}: {hint}") from error
    last = socket.getsockopt(zmq.LAST_ENDPOINT)
    return socket, (last.decode() if isinstance(last, bytes) else str(last)).rstrip("\0")


def gate(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: Pair | None = None) -> tuple[zmq.Socket[bytes], str]:
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
    return _bound(context, zmq.ROUTER, endpoint, options, "insp-gate", keys)


def events(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: Pair | None = None) -> tuple[zmq.Socket[bytes], str]:
    """(the events' PUB, its address). A subscriber that does not keep up loses, sees the gap, and replays."""
    options = {zmq.SNDHWM: 2000, zmq.MAXMSGSIZE: _LARGEST_SUBSCRIPTION_BYTES}
    return _bound(context, zmq.PUB, endpoint, options, "insp-events", keys)


def replay(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: Pair | None = None) -> tuple[zmq.Socket[bytes], str]:
    """(the replay's ROUTER, its address)."""
    options = {zmq.ROUTER_MANDATORY: 1, zmq.SNDHWM: 600, zmq.RCVHWM: 1000, zmq.MAXMSGSIZE: LARGEST_FRAME_BYTES}
    return _bound(context, zmq.ROUTER, endpoint, options, "insp-replay", keys)


def hang_up(socket: zmq.Socket[bytes], at: str) -> None:
    """End every connection of a socket that is bound to `at`: libzmq cannot end a single one. It is bound again with `listen`."""
    with suppress(zmq.ZMQError):
        socket.unbind(at)


def listen(socket: zmq.Socket[bytes], at: str) -> bool:
    """Bind a socket again; False while the address is not free, which after `hang_up` it is some milliseconds later."""
    try:
        socket.bind(at)
    except zmq.ZMQError:
        return False
    return True


def receive(socket: zmq.Socket[bytes], *, secured: bool = True) -> tuple[bytes, str, Frames] | None:
    """(identity, user, the frames after the identity) of the next message at a ROUTER, None when there is none.

    Only a `secured` socket knows its users.
    """
    try:
        if not secured:
            identity, *rest = socket.recv_multipart(zmq.NOBLOCK)
            return identity, "", rest
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


def zap(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The socket at which libzmq asks who may come in; to be bound before any other."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind("inproc://zeromq.zap.01")
    return socket


def probe(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: Pair, *, kind: int, within_ms: int = 3000) -> None:
    """Knock with a key that nobody knows: it must be refused, or nothing here may start (`ConfigError` E_SEC_PROBE)."""
    public, secret = zmq.curve_keypair()
    socket = context.socket(kind)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        socket.connect(endpoint.replace("0.0.0.0", "127.0.0.1"))
        if not monitor.poll(within_ms):
            raise ConfigError("E_SEC_PROBE", f"{endpoint} did not refuse an unknown key within {within_ms} ms")
        if recv_monitor_message(monitor)["event"] != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise ConfigError("E_SEC_PROBE", f"{endpoint} let an unknown key in")
    finally:
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)
