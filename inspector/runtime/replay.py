"""The process that tells again what was missed (`inspector.gate.replay`), and the gate's end of it.

    gate ◀── JSON, one socket pair ──▶ replay ── ROUTER ──▶ who asks
                                         └── the journal, read only

A process of its own: a hundred thousand events told again are seconds of Python, and in the gate's interpreter a verdict would wait for
them. It gives way to every other process, keeps nothing, and is started again when it ends or hangs; no part and no permit depends on it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import zmq

from inspector.gate import protocol, replay, security, sockets
from inspector.gate.journal import Reader
from inspector.gate.protocol import Refused
from inspector.interfaces import Clock
from inspector.records import ConfigError
from inspector.runtime import child
from inspector.runtime.zap import Zap

NICE: Final = 10
LARGEST_BYTES: Final = 65_536
TURN_S: Final = 0.1
READY_WITHIN_S: Final = 20.0
SILENT_S: Final = 10.0
"""It asks each second; a disk may hold it for a while."""
ASK_EVERY_S: Final = 1.0
ANSWER_WITHIN_MS: Final = 2_000
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
KILL_S: Final = 1.0
ZAP_LIMIT_MS: Final = 2_000.0

Now = Callable[[], Mapping[str, Any]]
Tell = Callable[[str, str, str], None]


class Teller:
    """The gate's end: starts the process, answers what it asks, starts it again. `step` is one thread's; `tell(code, severity, text)`."""

    def __init__(self, state_dir: Path, bind: str, epoch: bytes, keys: tuple[Path, Path] | None, *, clock: Clock, tell: Tell) -> None:
        self._state_dir, self._bind, self._epoch, self._keys = state_dir, bind, epoch, keys
        self._clock, self._tell = clock, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None
        self._wait_s, self._start_at_s = FIRST_WAIT_S, 0.0
        self._heard_s = self._started_s = 0.0
        self._faults: Counter[str] = Counter()
        self._faults_before: Counter[str] = Counter()
        self.restarts = 0

    # -- life

    def start(self) -> None:
        """Start the process; `address` waits for it. Where the machine has no room for another one now, it is tried again later."""
        try:
            self._start()
        except OSError as error:
            self._lost(f"cannot be started: {error}")

    def _start(self) -> None:
        self._heard_s = self._started_s = self._seconds()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = ["--bind", self._bind, "--state-dir", str(self._state_dir), "--epoch", protocol.epoch_text(self._epoch)]
        if self._keys is not None:
            arguments += ["--server-key", str(self._keys[0]), "--clients", str(self._keys[1])]
        try:
            self._process = child.start("inspector.runtime.replay", *arguments, theirs=theirs)
        except OSError:
            ours.close()
            raise
        self._end = ours

    def address(self) -> str:
        """Where it listens, from its first word on. Raises `ConfigError`: what it refuses.

        One that does not come is no reason for the line to stand still: it is started again, at the same address.
        """
        while self._process is not None:
            said = self._receive(READY_WITHIN_S)
            if said is None:
                self._lost("did not start")
                break
            if "refused" in said:
                raise ConfigError(said["refused"], said["text"], file=said["file"], key=said["key"])
            if "at" in said:
                self._bind = str(said["at"])  # the same one when it is started again
                return self._bind
        if self._bind.endswith((":0", ":*")):
            raise RuntimeError("the process that replays did not start, and which port it would have is not known")
        return self._bind

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # what hangs in the kernel is not waited for
                process.wait(KILL_S)
        if self._end is not None:
            self._end.close()
            self._end = None

    @property
    def faults(self) -> Counter[str]:
        """What was no message, by why, of all that were started."""
        return self._faults + self._faults_before

    # -- the gate's thread

    def step(self, now: Now) -> None:
        """Answer what it asks within the next tenth of a second; start it again where that is due."""
        if self._process is None:
            wait_s = self._start_at_s - self._seconds()
            if wait_s > 0:
                time.sleep(min(wait_s, TURN_S))
                return
            self.start()
            return
        said = self._receive(TURN_S)
        if said is not None:
            self._heard_s = self._seconds()
            if "ask" in said:
                self._faults = Counter(said["faults"])
                self._answer({"ask": said["ask"], **now()})
                if said["zap_ms"] > ZAP_LIMIT_MS:
                    self._lost("does not answer who may connect")
            elif "refused" in said:
                self._lost(f"cannot go on: {said['refused']} {said['text']}")
            elif "at" in said and self.restarts:
                self._tell("REPLAY", "info", "what was missed can be asked for again")
            elif "alarm" in said:
                self._tell(said["alarm"], "critical", said["text"])
        elif self._process.poll() is not None:
            self._lost(f"ended with {self._process.returncode}")
        elif self._seconds() - self._heard_s > SILENT_S:
            self._lost(f"was not heard for {SILENT_S:.0f} s")

    def _lost(self, text: str) -> None:
        worked_s = self._seconds() - self._started_s
        self.stop()
        self._faults_before, self._faults = self.faults, Counter()
        self.restarts += 1
        self._wait_s = FIRST_WAIT_S if worked_s > LONGEST_WAIT_S else min(LONGEST_WAIT_S, 2 * self._wait_s)
        self._start_at_s = self._seconds() + self._wait_s
        self._tell("REPLAY", "warning", f"the process that replays {text}; started again in {self._wait_s:.1f} s")

    def _seconds(self) -> float:
        return self._clock() / 1e9

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """What it says; None when it says nothing in time, or is gone."""
        assert self._end is not None
        if not _readable(self._end, timeout_s):
            return None
        with suppress(OSError, ValueError):
            data = self._end.recv(LARGEST_BYTES)
            if data:
                said = json.loads(data)
                return said if isinstance(said, dict) else None
            time.sleep(TURN_S / 10)  # its end is closed before it is seen to have exited
        return None

    def _answer(self, said: Mapping[str, Any]) -> None:
        if self._end is not None:
            with suppress(OSError):
                self._end.send(json.dumps(said).encode(), socket.MSG_DONTWAIT)


def _readable(end: socket.socket, timeout_s: float) -> bool:
    poll = select.poll()  # `select` refuses the descriptors of a process that has many
    poll.register(end, select.POLLIN)
    return bool(poll.poll(1e3 * timeout_s))


class _Gone(Exception):
    """The gate is not there any more."""


class _Telling:
    """The process itself."""

    def __init__(self, end: socket.socket, state_dir: Path, epoch: bytes) -> None:
        self._end, self._epoch = end, epoch
        self._path = state_dir / "journal.sqlite"
        self._inode = 0
        self._reader: Reader | None = None
        self._server: replay.Server | None = None
        self._faults: dict[str, int] = {}
        self._asked = 0
        self._asked_s = 0.0
        self.zap: Zap | None = None

    def run(self, router: zmq.Socket[bytes]) -> None:
        """Until the gate is gone."""
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(self._end, zmq.POLLIN)
        while True:
            busy = self._server is not None and self._server.busy()
            heard = poller.poll(1 if busy else int(1000 * ASK_EVERY_S))
            if any(at == self._end.fileno() for at, _ in heard) and not self._end.recv(LARGEST_BYTES):
                raise _Gone  # anything else is an answer that came too late
            message = sockets.receive(router)
            self._ask_now_and_then()
            if message is None:
                answers = self._server.tick(time.monotonic_ns()) if self._server is not None and busy else []
            else:
                identity, user, frames = message
                answers = self._answers(identity, frames) if self.zap is None or self.zap.knows(user) else self._sent_away(identity)
            for identity, frames in answers:
                if not sockets.send(router, identity, frames) and self._server is not None:
                    self._server.forget(identity)

    def _sent_away(self, identity: bytes) -> list[replay.Answer]:
        """Who came in and was taken off the list since hears no more."""
        if self._server is not None:
            self._server.forget(identity)
        return [(identity, protocol.command("REFUSE", {"code": "E_AUTH", "text": "no longer on the list"}))]

    def _answers(self, identity: bytes, frames: protocol.Frames) -> list[replay.Answer]:
        try:
            server = self._serving()
            now = self._ask() if len(frames) == 3 and frames[0] in (b"SNAPSHOT", b"REPLAY") else None
        except (ConfigError, OSError, Refused) as error:
            self._faults["journal"] = self._faults.get("journal", 0) + 1
            return [(identity, protocol.command("REFUSE", {"code": "E_JOURNAL", "text": str(error)[:200]}))]
        return server.step(time.monotonic_ns(), identity, frames, now or replay.Now(self._epoch, {}, {}))

    def _serving(self) -> replay.Server:
        """With the journal as it is now: where it goes on in another file, nobody stays with the old one."""
        inode = self._path.stat().st_ino
        if self._server is None or inode != self._inode:
            reader = Reader(self._path)
            if self._reader is not None:
                self._reader.close()
            if self._server is None:
                self._server = replay.Server(reader, faults=self._faults)
            self._reader = self._server.store = reader
            self._inode = inode
        return self._server

    # -- the gate

    def _ask_now_and_then(self) -> None:
        if time.monotonic() - self._asked_s > ASK_EVERY_S:
            with suppress(Refused):  # that the gate is busy now is no reason to end
                self._ask()

    def _ask(self) -> replay.Now:
        """What has been published, and how the line is. Raises `Refused` when the gate does not say, `_Gone` when it is gone."""
        self._asked += 1
        self._asked_s = time.monotonic()
        zap_ms = 0.0 if self.zap is None else self.zap.worker.age_ms(time.monotonic_ns())
        self.say({"ask": self._asked, "faults": self._faults, "zap_ms": zap_ms})
        while _readable(self._end, ANSWER_WITHIN_MS / 1e3):
            data = self._end.recv(LARGEST_BYTES)
            if not data:
                raise _Gone
            said = json.loads(data)
            if said["ask"] == self._asked:
                return replay.Now(self._epoch, said["heads"], said["body"])
        raise Refused("busy", f"the gate did not answer within {ANSWER_WITHIN_MS} ms")

    def alarm(self, code: str, text: str) -> None:
        """Of the thread that answers who may connect, and of its list."""
        with suppress(_Gone):
            self.say({"alarm": code, "text": text})

    def say(self, said: Mapping[str, Any]) -> None:
        """To the gate, which always reads."""
        try:
            self._end.send(json.dumps(said).encode())
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _Gone from error


def _run(arguments: argparse.Namespace) -> None:
    end = socket.socket(fileno=arguments.link_fd)
    telling = _Telling(end, arguments.state_dir, protocol.epoch_bytes(arguments.epoch))
    with ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        keys = None
        try:
            if arguments.server_key is not None:
                keys = security.read_pair(arguments.server_key)
                telling.zap = Zap(context, arguments.clients, clock=time.monotonic_ns, tell=telling.alarm)
                stack.callback(telling.zap.stop)
            router, at = sockets.replay(context, arguments.bind, keys)
            if keys is not None and at.startswith("tcp:"):
                sockets.probe(context, at, keys, kind=zmq.DEALER)
        except ConfigError as error:
            telling.say({"refused": error.code, "text": error.text, "file": error.file, "key": error.key})
            return
        telling.say({"at": at})
        telling.run(router)


def main() -> int:
    """`python -m inspector.runtime.replay …`; started by the gate only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--epoch", required=True)
    parser.add_argument("--server-key", type=Path)
    parser.add_argument("--clients", type=Path)
    parser.add_argument("--link-fd", type=int, required=True)
    arguments = parser.parse_args()
    child.obey_parent()
    with suppress(OSError):
        os.nice(NICE)
    with suppress(_Gone):
        _run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
