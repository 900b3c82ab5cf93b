"""The parent process: holds the gate, starts vision again when it dies, and answers to systemd.

    main ── gate (threads arbiter, journal, events, replay; never a picture)
      └──── vision (a child process; may crash, hang, be killed)

What main decides: when the line begins (vision ready), when vision has hung (killed and started again, after a wait that grows), whether
this process is healthy (WATCHDOG=1 only while every thread moves), and the end: SIGTERM drains, a second one leaves at once, SIGHUP
reads the recipe again. Signals only set flags.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, NoReturn, TypeAlias, TypeVar

from inspector import config
from inspector.config.document import text_of
from inspector.gate.guards import LATCHED
from inspector.gate.journal import refusal_of
from inspector.outputs import metrics
from inspector.outputs.metrics import Family
from inspector.records import ConfigError
from inspector.runtime import changeover_asked, child, in_force, link, state_dir
from inspector.runtime.admin import Admin, Command, Peer, socket_of
from inspector.runtime.gate import GateProcess
from inspector.runtime.health import stage_limits, stale
from inspector.runtime.log import Log
from inspector.runtime.quarantine import forget_judging

TURN_S = 0.05
READY_WITHIN_S = 60.0
FIRST_WAIT_S, LONGEST_WAIT_S, HEALTHY_AFTER_S = 0.2, 10.0, 60.0
PROVE_AFTER_S = 60.0
DRAIN_S, LEAVE_S = 7.5, 9.0
"""Both from the signal on; systemd kills what is left after TimeoutStopSec, 10 s."""
KILL_S = 1.0
STATUS_EVERY_S = 1.0
COLLECT_EVERY_S = 10.0
FROZEN_SAID_S, FROZEN_EXIT_S = 0.5, 10.0
ANSWER_S, RELOADED_WITHIN_S = 5.0, 120.0
REFUSED, BUG = 78, 70
KEYS, NOWHERE = "CREDENTIALS_DIRECTORY", "/proc/nowhere"

OnReady: TypeAlias = Callable[[Mapping[str, str], str], None]
OnEnd: TypeAlias = Callable[[Mapping[str, int]], None]
T = TypeVar("T")


class Lock:
    """The state folder belongs to one daemon; the lock's file names it."""

    def __init__(self, folder: Path) -> None:
        """Raises `ConfigError`: E_STATE_PERM when the folder is not ours, E_STATE_FULL without room, E_LOCK when another has it."""
        path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            text = f"{error.strerror}; user {os.geteuid()} must be able to write there"
            raise ConfigError(refusal_of(error), text, file=str(path)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise ConfigError("E_LOCK", f"the state folder is in use by process {owner}", file=str(folder)) from None
        os.ftruncate(self._file, 0)
        with suppress(OSError):  # a full disk: the lock holds without the name
            os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the folder back; the kernel does it too when the process dies."""
        os.close(self._file)


class Systemd:
    """sd_notify(3) over its socket; does nothing where there is none. `watchdog_s` is None when nobody watches this process."""

    def __init__(self, environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s: float | None = None
        self.warning = ""
        limit, owner = environment.get("WATCHDOG_USEC"), environment.get("WATCHDOG_PID", "")
        if limit:
            try:
                if owner and int(owner) != os.getpid():
                    raise ValueError(f"WATCHDOG_PID is {owner}, we are {os.getpid()}")
                self.watchdog_s = int(limit) / 1e6
            except ValueError as error:
                self.warning = f"watchdog off: {error}"

    def say(self, *lines: str) -> None:
        """Send the lines; a notify socket that does not listen is no reason to stop."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as end:
                end.sendto("\n".join(lines).encode(), self._address)


@dataclass(slots=True)
class Vision:
    """The child process from its start on; `ready` is what it said when it was."""

    process: subprocess.Popen[bytes]
    end: link.End
    started_s: float
    ready: link.Ready | None = None

    @staticmethod
    def start(path: Path, begin_with: Path | None, now_s: float) -> Vision:
        """A new child for the configuration at `path`, as it stands in `begin_with` where there is one.

        Raises `OSError` when the machine has no room for another process.
        """
        ours, theirs = link.pair()
        arguments = ["--config", str(path)]
        arguments += [] if begin_with is None or not begin_with.is_file() else ["--begin-with", str(begin_with)]
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # read when NumPy is loaded: small matrices gain nothing
        if KEYS in os.environ:  # the configuration names it; what lies there is the gate's
            environment[KEYS] = NOWHERE
        try:
            process = child.start("inspector.runtime.vision", *arguments, theirs=theirs, environment=environment)
        except OSError:
            ours.close()
            raise
        return Vision(process, ours, now_s)

    def kill(self, *, show_stacks: bool = False) -> None:
        """End it now, after a look at what its threads were doing."""
        if show_stacks:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.send_signal(signal.SIGUSR1)
                time.sleep(0.1)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it in the kernel; the line does not wait for that
            self.process.wait(KILL_S)


class Asked:
    """What signals have asked for, which only the main thread counts and reads, and a bell that ends its waiting.

    The bell is a pipe: the interpreter itself writes to it when a signal comes (`signal.set_wakeup_fd`), so that no handler takes a lock
    that the code which it interrupts may hold.
    """

    def __init__(self) -> None:
        self.terminations = self.reloads = 0
        self._listen, self.bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def on_signal(self, number: int, _: Any) -> None:
        """A handler for SIGTERM, SIGINT and SIGHUP."""
        if number == signal.SIGHUP:
            self.reloads += 1
        else:
            self.terminations += 1

    def ring(self) -> None:
        """Let the main thread look; from any thread."""
        with suppress(BlockingIOError):
            os.write(self.bell, b"!")

    def wait(self, longest_s: float) -> None:
        """Until somebody rings, or so long."""
        if select.select([self._listen], [], [], longest_s)[0]:
            os.read(self._listen, 4096)

    def close(self) -> None:
        """Let the pipe go."""
        os.close(self._listen)
        os.close(self.bell)


class Daemon:
    """One line's daemon: made by `run`, which is its only user."""

    def __init__(
        self,
        path: Path,
        settings: config.Config,
        asked: Asked,
        *,
        on_ready: OnReady | None,
        on_end: OnEnd,
        begin_with: Path | None = None,
    ) -> None:
        self._begin_with = begin_with
        self._path, self._settings, self._asked, self._on_ready, self._on_end = path, settings, asked, on_ready, on_end
        self._log = Log(time.monotonic_ns)
        self._gate = GateProcess(settings, settings.state_dir, clock=time.monotonic_ns, utc_clock=time.time_ns, say=self._log.say)
        self._systemd = Systemd()
        self._limits_ms = stage_limits(settings.gate.travel_min_ms)
        self._vision: Vision | None = None
        self._wait_s, self._start_at_s = FIRST_WAIT_S, 0.0
        self._restarts = 0
        self._begin_ns: int | None = None
        self._failed = ""
        self._frozen_since_s: float | None = None
        self._frozen_said = False
        self._pinged_s = self._status_s = self._collected_s = 0.0
        self._reloads = 0
        self._reloading = False
        self._waiting: list[Future[link.Reloaded]] = []
        self._answering: list[Future[link.Reloaded]] = []
        self._errands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.commands: dict[str, Command] = {
            "status": self._cmd_status,
            "reload": self._cmd_reload,
            "reset": self._cmd_reset,
            "challenge": self._cmd_challenge,
            "recipe": changeover_asked.command(self._gate.changes, self._gate.select, 2 * settings.changeover.prepare_s),
        }
        """What `inspector ctl` can ask for; each runs in a thread of its own, and what changes the daemon goes through `in_main`."""
        self._trouble = "starting"
        self._metrics_address = ""
        self._proof: subprocess.Popen[bytes] | None = None
        self._prove_at_s = time.monotonic() + PROVE_AFTER_S
        self._proof_says: IO[bytes] | None = None
        self._last = threading.Timer(LEAVE_S, self._leave, ["the end takes too long: something hangs", BUG])
        self._last.daemon = True

    # -- life

    def run(self, for_s: float | None) -> int:
        """Until the end; the exit code."""
        with ExitStack() as stack:
            stack.callback(self._last.cancel)
            stack.callback(self._log.close)
            threading.excepthook = self._on_dead_thread
            stack.callback(setattr, threading, "excepthook", threading.__excepthook__)
            self._gate.start(stack)
            forget_judging(self._settings.state_dir / "quarantine")  # no vision ran when this daemon began
            with self._settings.blamed("metrics", "gate_bind"):
                server, _ = metrics.serve(self._settings.metrics.gate_bind, self.families)
            self._metrics_address = f"{self._settings.metrics.gate_bind.rpartition(':')[0]}:{server.server_port}"
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            stack.callback(self._kill_vision)
            self._proof_says = stack.enter_context(tempfile.TemporaryFile())
            stack.callback(self._end_proof)
            with self._settings.blamed("admin", "socket"):
                door = Admin(socket_of(self._settings), self.commands, self._heard)
            door.start()
            stack.callback(door.stop)
            if self._systemd.warning:
                self._log.say(self._systemd.warning)
            if text := state_dir.volatile(self._settings.state_dir):
                self._log.say(text)
                self._gate.report("STATE_VOLATILE", "warning", text)
            gc.collect()
            gc.freeze()
            gc.disable()  # a full collection stops every thread; the garbage of the gate is young and is collected in the turns
            stack.callback(gc.enable)
            until_s = None
            while True:
                now_s = time.monotonic()
                code = self._turn(now_s)
                if code is not None:
                    return code
                if until_s is None and self._begin_ns is not None and for_s is not None:
                    until_s = now_s + for_s
                if self._asked.terminations or (until_s is not None and now_s >= until_s) or self._finished:
                    return self._drain()
                self._asked.wait(TURN_S)

    def _turn(self, now_s: float) -> int | None:
        """One look at everything; an exit code when it is over."""
        if self._failed:
            self._log.say(f"ends: {self._failed}")
            self._systemd.say(f"STATUS={self._failed}")
            return BUG
        code = self._look_after_vision(now_s)
        if code is not None:
            return code
        self._run_errands()
        self._prove_journal(now_s)
        self._reload_if_asked(now_s)
        return self._watch(now_s)

    # -- vision

    def _look_after_vision(self, now_s: float) -> int | None:
        vision = self._vision
        if vision is None:
            if now_s >= self._start_at_s:
                try:
                    self._vision = Vision.start(self._path, self._begin_with, now_s)
                except OSError as error:
                    self._start_later(f"vision cannot be started: {error}", now_s)
            return None
        exited = vision.process.poll()
        if exited is not None:
            if exited in (REFUSED, BUG) and self._begin_ns is None:
                return exited  # it has said why, and starting again would not help
            self._lost_vision(f"vision ended with {exited}" if exited >= 0 else f"vision was killed by signal {-exited}", now_s)
        elif vision.ready is None:
            self._hear_ready(vision, now_s)
        else:
            hung = stale(self._gate.vision_ages_ms(), self._limits_ms)
            if hung:
                self._log.say(f"vision hangs: {', '.join(hung)}")
                self._give_up_vision(f"vision hung: {', '.join(hung)}", now_s, show_stacks=True)
        return None

    def _hear_ready(self, vision: Vision, now_s: float) -> None:
        try:
            message = vision.end.receive()
            while message is not None and not isinstance(message, link.Ready):
                message = vision.end.receive()  # cameras that are down already; said again with their next attempt
        except EOFError:
            message = None  # its exit is seen in one of the next turns
        except ValueError as error:
            self._give_up_vision(f"vision cannot be understood: {error}", now_s)
            return
        if message is None:
            if now_s - vision.started_s > READY_WITHIN_S:
                self._give_up_vision(f"vision was not ready within {READY_WITHIN_S:.0f} s", now_s, show_stacks=True)
            return
        vision.ready = message
        self._gate.attach(vision.end, message)
        if self._begin_ns is None:
            if self._on_ready is not None:
                self._on_ready(self.endpoints(), self._gate.epoch)
            self._begin_ns = time.monotonic_ns()
            self._gate.begin(self._begin_ns)
        try:
            vision.end.send(link.Begin(self._begin_ns))
        except OSError as error:
            self._give_up_vision(f"vision was lost before it began: {error.strerror}", now_s)
            return
        self._write_ready_file(message)
        self._trouble = ""
        self._systemd.say("READY=1", f"STATUS={self._status()}")
        self._log.say(f"ready: {json.dumps(self.endpoints())}")

    def _lost_vision(self, text: str, now_s: float) -> None:
        """Every part is rejected from here on; start it again, later each time unless it had worked for long."""
        vision, self._vision = self._vision, None
        if vision is None:
            return
        self._restarts += 1
        if vision.ready is not None:
            self._gate.detach(text)
        if self._reloading:
            self._reload_ended(link.Reloaded(self._gate.recipe, [], [], text))
        vision.end.close()
        if now_s - vision.started_s > HEALTHY_AFTER_S:
            self._wait_s = FIRST_WAIT_S
        self._start_later(text, now_s)

    def _give_up_vision(self, text: str, now_s: float, *, show_stacks: bool = False) -> None:
        """End what is left of it, and go on as when it had ended by itself."""
        if self._vision is not None:
            self._vision.kill(show_stacks=show_stacks)
        self._lost_vision(text, now_s)

    def _start_later(self, text: str, now_s: float) -> None:
        self._log.say(text)
        self._trouble = text
        self._start_at_s = now_s + self._wait_s
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s)

    def _kill_vision(self) -> None:
        if self._vision is not None:
            self._vision.kill()

    @property
    def _finished(self) -> bool:
        return self._vision is not None and self._vision.ready is not None and self._gate.finished is not None

    # -- reload

    def _reload_if_asked(self, now_s: float) -> None:
        """Ask vision, one reload at a time; the line runs on meanwhile, and READY=1 follows when vision has answered or is gone."""
        with suppress(Empty):
            self._reload_ended(self._gate.reloaded.get_nowait())
        if self._reloading or self._asked.reloads == self._reloads or self._vision is None or self._vision.ready is None:
            return
        try:
            asked = self._vision.end.send(link.Reload())
        except OSError as error:
            self._give_up_vision(f"vision was lost: {error.strerror}", now_s)
            return  # the next one is asked
        if asked:
            self._reloads = self._asked.reloads
            self._reloading = True
            self._answering, self._waiting = self._waiting, []
            self._systemd.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reading the recipe again")

    def _reload_ended(self, answer: link.Reloaded) -> None:
        self._reloading = False
        if not answer.refused:
            self._guard()
        self._systemd.say("READY=1", f"STATUS={self._status()}")
        for each in self._answering:
            each.set_result(answer)

    def _guard(self) -> None:
        """The guards come into force with the recipes that were read with them."""
        try:
            self._gate.guard(config.read(self._path, text=text_of(in_force.file(self._settings.state_dir))))
        except ConfigError as error:
            self._log.say(f"the guards stay as they were: {error}")

    # -- the journal, whole

    def _prove_journal(self, now_s: float) -> None:
        """Once, in a process that gives way to all others: at its start the daemon has looked at the last events only."""
        if self._proof is None:
            if self._begin_ns is None or now_s < self._prove_at_s:
                return
            self._prove_at_s = math.inf
            command = [*child.behind(19), sys.executable, "-m", "inspector"]
            command += ["journal", "verify", "--running", str(self._settings.state_dir)]
            with suppress(OSError):
                self._proof = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._proof_says, stderr=subprocess.DEVNULL)
        elif self._proof.poll() is not None and self._proof_says is not None:
            exited, self._proof = self._proof.returncode, None
            self._proof_says.seek(0)
            said = self._proof_says.readline(400).decode(errors="replace").strip()
            if exited == REFUSED and "locked" not in said:
                self._gate.distrust_journal(said)
            self._log.say(f"journal: {said}")

    def _end_proof(self) -> None:
        if self._proof is not None:
            self._proof.kill()
            self._proof.wait(KILL_S)

    # -- what people at this machine ask for

    def in_main(self, errand: Callable[[], T], *, within_s: float = ANSWER_S) -> T:
        """Run it in the main thread, from any other; its result. Raises what it raises, and `ConfigError` E_BUSY when it takes too long."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(errand())
            except BaseException as error:  # noqa: BLE001 - who asked gets it, whatever it is
                done.set_exception(error)

        self._errands.put(run)
        self._asked.ring()
        return _within(done, within_s)

    def _run_errands(self) -> None:
        with suppress(Empty):
            while True:
                self._errands.get_nowait()()

    def _heard(self, name: str, peer: Peer) -> None:
        if name != "status":
            self._gate.report("ADMIN", "info", f"user {peer.uid} (process {peer.pid}) asks for {name}")

    def _cmd_status(self, asked: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        status = self._gate.status()
        vision = self._vision
        return {
            "state": status.state,
            "permit": status.permit,
            "holds": self._gate.holds(),
            "withheld": self._gate.withheld(),
            "counters": self._gate.counters(),
            "gateways": list(status.sessions),
            "epoch": self._gate.epoch,
            "journal": self._gate.not_durable(),
            "recipe": self._gate.recipe,
            "vision": {"ready": vision is not None and vision.ready is not None, "restarts": self._restarts, "trouble": self._trouble},
            "endpoints": self.endpoints(),
            "ages_ms": {name: round(age, 1) for name, age in {**self._gate.ages_ms(), **_named(self._gate.vision_ages_ms())}.items()},
        }

    def _cmd_reload(self, asked: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        """Answers when vision has: the recipe in force then. Raises `ConfigError` E_CFG_REFUSED with what is wrong with the new one."""
        done: Future[link.Reloaded] = Future()

        def order() -> None:
            self._waiting.append(done)
            self._asked.reloads += 1

        self.in_main(order)
        answer = _within(done, RELOADED_WITHIN_S)
        if answer.refused:
            raise ConfigError("E_CFG_REFUSED", f"the recipe in force stays: {answer.refused}")
        return {"recipe": answer.recipe}

    def _cmd_reset(self, asked: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        names = asked.get("names", [])
        if not isinstance(names, list) or not LATCHED.issuperset(map(str, names)):
            raise ConfigError(
                "E_USAGE", f"{str(names)[:80]}; some of {', '.join(sorted(LATCHED))} are allowed, the rest ends with its cause"
            )
        return {"holds": self._gate.reset(names)}

    def _cmd_challenge(self, asked: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        lane, lanes = asked.get("lane"), sorted({camera.lane for camera in self._settings.cameras})
        if type(lane) is not int or lane not in lanes:
            raise ConfigError("E_USAGE", f"lane {str(lane)[:20]}; one of {', '.join(map(str, lanes))} is allowed")
        self._gate.challenge(lane)
        return {"lane": lane}

    # -- health

    def _watch(self, now_s: float) -> int | None:
        frozen = stale(self._gate.ages_ms(), self._limits_ms)
        if frozen:
            if self._frozen_since_s is None:
                self._frozen_since_s = now_s
            if now_s - self._frozen_since_s > FROZEN_SAID_S and not self._frozen_said:
                self._frozen_said = True
                self._log.say(f"frozen: {', '.join(frozen)}")
                self._systemd.say(f"STATUS=frozen: {', '.join(frozen)}")
                faulthandler.dump_traceback(all_threads=True)
            if self._systemd.watchdog_s is None and now_s - self._frozen_since_s > FROZEN_EXIT_S:
                self._log.say("ends: nobody watches, and a frozen thread does not come back")
                self._log.close()
                sys.stderr.flush()
                os._exit(BUG)
            return None
        self._frozen_since_s, self._frozen_said = None, False
        if self._systemd.watchdog_s is not None and now_s - self._pinged_s > min(0.5, self._systemd.watchdog_s / 4):
            self._pinged_s = now_s
            self._systemd.say("WATCHDOG=1")
        if now_s - self._status_s > STATUS_EVERY_S:
            self._status_s = now_s
            self._systemd.say(f"STATUS={self._status()}")
        if now_s - self._collected_s > COLLECT_EVERY_S:
            self._collected_s = now_s
            gc.collect(1)
        return None

    def _status(self) -> str:
        return " ".join(filter(None, [ledger_line(self._gate.counters()), self._trouble, self._systemd.warning]))

    def _on_dead_thread(self, arguments: threading.ExceptHookArgs) -> None:
        """A thread that nobody started through `Worker` died: the process must not go on half alive."""
        name = arguments.thread.name if arguments.thread else "?"
        traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback, file=sys.stderr)
        self._failed = f"thread {name} died: {arguments.exc_type.__name__}: {arguments.exc_value}"
        self._asked.ring()

    # -- the end

    def _drain(self) -> int:
        """Stop the cameras, let what waits be judged, close every part, and say how it all went."""
        self._systemd.say("STOPPING=1", "STATUS=draining")
        self._last.start()
        leave_at = max(2, self._asked.terminations + 1)
        by_s = time.monotonic() + DRAIN_S
        vision = self._vision
        if vision is not None and vision.ready is None:
            vision.kill()  # it has nothing to finish yet
        elif vision is not None:
            with suppress(OSError):
                vision.end.send(link.Drain())
        # The gate refuses new parts at once, and waits for what vision has still to say of the open ones.
        draining = threading.Thread(target=self._gate.drain, args=(DRAIN_S,), name="drain", daemon=True)
        draining.start()
        while draining.is_alive() or (vision is not None and vision.process.poll() is None and time.monotonic() < by_s):
            if self._asked.terminations >= leave_at:
                self._on_end(self._gate.counters())
                self._leave("second signal: leaving at once; what is open was never passed", 0)
            time.sleep(0.01)
        self._on_end(self._gate.counters())
        return BUG if self._failed else 0

    def _leave(self, text: str, code: int) -> NoReturn:
        """Now, whatever any thread is doing."""
        self._log.say(f"{text} ({ledger_line(self._gate.counters())})")
        self._log.close(0.2)
        if self._vision is not None:
            self._vision.process.kill()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    # -- telling

    def endpoints(self) -> dict[str, str]:
        """Where everything can be reached, with the ports that were really taken."""
        ready = self._vision.ready if self._vision else None
        return {**self._gate.endpoints(), "metrics_gate": self._metrics_address, "metrics_vision": ready.metrics if ready else ""}

    def _write_ready_file(self, ready: link.Ready) -> None:
        path = self._settings.ready_file
        if path is None:
            return
        content = {
            "pid": os.getpid(),
            "vision_pid": ready.pid,
            "epoch": self._gate.epoch,
            "begin_ns": self._begin_ns,
            "endpoints": self.endpoints(),
            "config": str(self._path.absolute()),
        }
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content) + "\n")
            part.replace(path)
        except OSError as error:
            self._log.say(f"ready file {path}: {error.strerror}")

    def families(self) -> Iterable[Family]:
        """What is shown at /metrics."""
        yield from self._gate.metrics()
        yield Family(
            "vision_up", "gauge", "1 while vision judges.", [({}, float(self._vision is not None and self._vision.ready is not None))]
        )
        yield Family("vision_restarts", "counter", "Times vision ended and was started again.", [({}, self._restarts)])
        ages = [({"worker": name}, age / 1e3) for name, age in self._gate.ages_ms().items()]
        yield Family("worker_age_seconds", "gauge", "Since the last step of each thread.", ages)


def _named(vision_ages_ms: Mapping[str, float]) -> dict[str, float]:
    return {f"vision-{name}": age for name, age in vision_ages_ms.items()}


def _within(done: Future[T], longest_s: float) -> T:
    try:
        return done.result(longest_s)
    except TimeoutError as error:
        raise ConfigError("E_BUSY", f"the daemon has not come to it within {longest_s:g} s") from error


def ledger_line(counters: Mapping[str, int]) -> str:
    """The account of all parts in one line."""
    return " ".join(f"{name}={number}" for name, number in counters.items())


def run(path: Path, *, on_end: OnEnd, on_ready: OnReady | None = None, for_s: float | None = None, allow_root: bool = False) -> int:
    """The daemon from start to end; the exit code. Raises `ConfigError` for what a person must change before it can start.

    `on_ready` is given the endpoints and the epoch just before the line begins, `on_end` the account of all parts when every verdict
    has been published and the sockets still stand. Must be called from the main thread, which it keeps.
    """
    if os.geteuid() == 0 and not allow_root:
        raise ConfigError("E_ROOT", "this daemon needs no rights of root; run it as its own user, or with --allow-root")
    text = text_of(path)
    settings = config.read(path, text=text)
    with settings.blamed("state_dir"):
        state_dir.refuse(settings.state_dir)
        lock = Lock(settings.state_dir)
    asked = Asked()
    before = {number: signal.signal(number, asked.on_signal) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    bell_before = signal.set_wakeup_fd(asked.bell, warn_on_full_buffer=False)
    try:
        begin_with = None
        if settings.changeover.at_start == "configured":
            with suppress(OSError):
                in_force.select(settings.state_dir, {})
        with suppress(OSError):  # a full disk; vision then reads the file itself
            begin_with = in_force.keep(settings.state_dir, text)
        child.go_first()
        return Daemon(path, settings, asked, on_ready=on_ready, on_end=on_end, begin_with=begin_with).run(for_s)
    except BrokenPipeError as error:  # to the command line this is a reader who has seen enough, and the end of a daemon never is
        raise RuntimeError(f"the daemon lost a pipe: {error}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(bell_before)
        asked.close()
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)
        lock.release()
