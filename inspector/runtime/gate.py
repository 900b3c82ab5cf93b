"""The gate's threads: arbiter, journal, events and replay around the pure core of `inspector.gate`.

    arbiter ── link to vision, gate socket, belt ──▶ step ──▶ gateways
        └──▶ (queue) journal ──▶ (queue) events ──▶ subscribers            replay ──▶ the process that tells again

Each socket belongs to one thread. The arbiter never touches a disk: what it decides is sent first, then kept, then published. Only
stream `a` does not wait for a journal that fails: its events are published at once then, once and in order, and not said to be durable.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import zmq

from inspector import __version__
from inspector.config import Config, build
from inspector.gate import arbiter as core
from inspector.gate import protocol, security, sockets
from inspector.gate.arbiter import Arbiter, Record, Send
from inspector.gate.guards import Guards
from inspector.gate.journal import Item, Journal, JournalError, refusal_of
from inspector.gate.ledger import Line
from inspector.gate.protocol import Flag, Header, Kind
from inspector.interfaces import Clock, Conveyor
from inspector.outputs.metrics import Family, Histogram
from inspector.records import ConfigError, Verdict
from inspector.runtime import link, syslog
from inspector.runtime.belt import Belt
from inspector.runtime.changeover_asked import Changes
from inspector.runtime.replay import Teller
from inspector.runtime.worker import SWITCH_INTERVAL_S, Worker
from inspector.runtime.zap import Clients, Zap

LARGEST_BACKLOG: Final = 20_000
COMMIT_AT_ONCE: Final = 512
GATHER_S: Final = 0.003
HEARD_AT_ONCE: Final = 32
TURN_MESSAGES: Final = 256
SLOW_COMMIT_NS: Final = 1_000_000_000
FROZEN_COMMIT_MS: Final = 30_000.0
RETRY_S: Final = 0.5
EVENTS_HB_NS: Final = 500_000_000
DEAF_NS: Final = 2_000_000_000
UTC_EVERY_NS: Final = 1_000_000_000
AGES_EVERY_NS: Final = 100_000_000
ANCHOR_EVERY_NS: Final = 600_000_000_000
LARGEST_LOG_BYTES: Final = 64 << 20
POSITION_EVERY_NS: Final = 20_000_000
TURN_MS: Final = 50
DEADLINE_EVERY_NS, POSITION_TURN_MS = 10_000_000, 10
"""Where deadlines hold in counts."""
TRIGGER_TURN_MS: Final = 4
PROBE_COMMITS, PROBE_BYTES, COMMITS_WATCHED = 100, 4096, 1000
DURABLE_FACTOR: Final = 3
"""A PASS waits for the disk only where so many times the slowest commit is set aside for it."""
RETAIN_EVERY_NS: Final = 1_000_000_000
_PASSED_ON: Final = (link.Judged, link.Seen, link.Lost, link.Dropped, link.CameraState)
STEP_BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


def _clock_state() -> str:
    """Whether the kernel thinks that its clock follows a better one: ok, holdover or unsynced."""
    return "ok" if Path("/run/systemd/timesync/synchronized").exists() else "unsynced"


class GateProcess:
    """The gate's side of the daemon. Made, started on an `ExitStack` whose unwinding stops it, and asked by the main thread.

    A worker's error is given to `threading.excepthook`, as any thread's death is.
    """

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        *,
        clock: Clock,
        utc_clock: Callable[[], int],
        conveyor: Conveyor | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`say` writes a line to the log, from any thread, and waits for nothing."""
        self._config, self._state_dir, self._clock, self._utc_clock = config, state_dir, clock, utc_clock
        self._say = say
        self._epoch = protocol.epoch(utc_clock(), os.urandom(10))
        if conveyor is None:
            made: Conveyor = build("conveyor", config.conveyor, config.conveyor.kind)
            conveyor = made
        self._settings = settings(config, wrap_counts=getattr(conveyor, "wrap_counts", None))
        self._conveyor = Belt(conveyor)
        self._trouble = ""
        self._inbox: SimpleQueue[Callable[[], None] | core.Input] = SimpleQueue()
        self._to_journal: SimpleQueue[Item] = SimpleQueue()
        self._to_events: SimpleQueue[tuple[list[Record], bool]] = SimpleQueue()
        self._untold: deque[Record] = deque()
        """Events of stream `a` that are not published yet, in order."""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._link: link.End | None = None
        self._finished: link.Finished | None = None
        self.reloaded: SimpleQueue[link.Reloaded] = SimpleQueue()
        """Vision's answers to `Reload`, for who asked."""
        self.changes = Changes()
        self._vision_ages: dict[str, float] = {}
        self._vision_heard_ns = 0
        self._endpoints: dict[str, str] = {}
        self._workers: list[Worker] = []
        self._zap: Zap | None = None
        guard = config.security
        keys = None if guard is None else (guard.server_key, guard.clients)
        bind = config.events.replay_bind
        self._teller = Teller(state_dir, bind, self._epoch, keys, clock=clock, tell=self.report)
        self._begin_ns: int | None = None
        self._utc_ns = self._position_ns = self._ages_ns = self._stepped_ns = 0
        self._ending = threading.Event()
        self._published = {"q": 0, "r": 0, "a": 0}
        self._revoked = threading.Event()
        self._deaf_since_ns: int | None = None
        self._said_deaf = False
        self._topics = {stream: protocol.topic(config.site, config.line, config.station, stream) for stream in protocol.STREAM_IDS}
        self._committing_since_ns: int | None = None
        self._tried_ns = 0
        self._not_durable = ""
        self._lost_events = 0
        self._gave_up = False
        self._aside_asked = threading.Event()
        self._anchored, self._anchored_ns, self._log_too_long = "", clock(), False
        self._margin = Histogram()
        self._aside_ns = config.gate.durable_pass_ms * 1_000_000
        self._commits_ns: deque[int] = deque(maxlen=COMMITS_WATCHED)
        self._disk_slow = False
        self._steps, self._fsyncs = Histogram(STEP_BOUNDS_S), Histogram()

    # -- life

    def start(self, stack: ExitStack) -> None:
        """Open the journal, bind the sockets, start the threads; raises `ConfigError` for what a person must change."""
        config = self._config
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        stack.callback(os.close, self._bell)
        self._teller.start()
        stack.callback(self._teller.stop)
        with config.blamed("state_dir"):
            self._journal = Journal.open(self._state_dir, utc_clock=self._utc_clock, ballast_bytes=config.journal.ballast_mib << 20)
        stack.callback(self._journal.close, clean=False)
        if self._aside_ns:
            self._refuse_slow_disk()
        self._journal.begin(self._epoch)
        chain = {stream: head.hash for stream, head in self._journal.heads.items()}
        now_ns = self._clock()
        self._arbiter = Arbiter(
            self._settings,
            epoch=self._epoch,
            now_ns=now_ns,
            chain=chain,
            epochs=self._journal.epochs,
            utc_offset_ns=self._utc_clock() - now_ns,
        )
        self._status = self._arbiter.status()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        keys = self._guard(context, stack)
        with config.blamed("gate", "bind"):
            self._gate, gate_at = sockets.gate(context, config.gate.bind, keys)
        with config.blamed("events", "bind"):
            self._pub, events_at = sockets.events(context, config.events.bind, keys)
        with config.blamed("events", "replay_bind"):
            replay_at = self._teller.address()
        if keys is not None:
            for endpoint, kind in ((gate_at, zmq.DEALER), (events_at, zmq.SUB)):
                if endpoint.startswith("tcp:"):
                    sockets.probe(context, endpoint, keys, kind=kind)
        self._endpoints = {"gate": gate_at, "events": events_at, "replay": replay_at}
        self._poller = zmq.Poller()
        self._poller.register(self._gate, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        self._hb_ns = self._retained_ns = now_ns
        self._gate_worker = self._worker("arbiter", self._arbiter_step)
        self._journal_worker = self._worker("journal", self._journal_step)
        self._workers = [
            self._worker("replay", lambda: self._teller.step(self._now)),
            self._worker("events", self._events_step),
            self._journal_worker,
            self._gate_worker,
        ]
        self._feed(core.Utc(self._utc_clock() - self._clock(), _clock_state()))
        if self._zap is not None:
            self._feed(_allowed(self._zap.clients))
        for finding in self._journal.findings:
            code = "JOURNAL_ROLLBACK" if finding.startswith("JOURNAL_ROLLBACK") else "JOURNAL_DAMAGED"
            self._feed(core.Report(code, "critical", finding))
        for worker in self._workers:
            worker.start()
            stack.callback(worker.stop, 2.0)
        stack.callback(self._ending.set)

    def _refuse_slow_disk(self) -> None:
        """A PASS that waits for the disk must not wait longer than is set aside for it: measured before anybody counts on it."""
        path = self._state_dir / "fsync.probe"
        try:
            with path.open("wb", buffering=0) as file:
                for _ in range(PROBE_COMMITS):
                    began_ns = self._clock()
                    file.write(bytes(PROBE_BYTES))
                    os.fsync(file.fileno())
                    self._commits_ns.append(self._clock() - began_ns)
        except OSError as error:
            raise ConfigError(refusal_of(error), f"{error.strerror}", file=str(path)) from error
        finally:
            path.unlink(missing_ok=True)
        slowest_ns = self._slowest_commit_ns()
        if self._aside_ns < DURABLE_FACTOR * slowest_ns:
            need = f"{DURABLE_FACTOR} × {slowest_ns / 1e6:.3g} ms that the disk of {self._state_dir} takes to keep something"
            text = f"{self._aside_ns / 1e6:g} ms is less than {need}; more is allowed, or 0"
            raise self._config.error("E_DURABLE", text, "gate", "durable_pass_ms")

    def _slowest_commit_ns(self) -> int:
        """The 99.9th percentile of the last commits."""
        ordered = sorted(self._commits_ns)
        return ordered[min(len(ordered) - 1, len(ordered) * 999 // 1000)]

    def _watch_disk(self, spent_ns: int) -> None:
        """Say so when commits take so long that a PASS which waits for one may come too late, and when they no longer do."""
        self._commits_ns.append(spent_ns)
        slow = self._aside_ns < DURABLE_FACTOR * self._slowest_commit_ns()
        if slow is not self._disk_slow:
            self._disk_slow = slow
            text = f"p99.9 of commits is {self._slowest_commit_ns() / 1e6:.3g} ms, {self._aside_ns / 1e6:g} ms are set aside for one"
            self._tell(core.Report("DURABLE_SLOW", "critical" if slow else "info", text))

    # -- who may connect

    def _guard(self, context: zmq.Context[zmq.Socket[bytes]], stack: ExitStack) -> security.Pair | None:
        """Read the keys and let ZAP be answered, before anything is bound; None where the configuration has no keys."""
        settings = self._config.security
        if settings is None:
            return None
        with self._config.blamed("security", "server_key"):
            keys = security.read_pair(settings.server_key)

        def tell(code: str, text: str) -> None:
            self.report(code, "critical", text)

        def changed(before: Clients, clients: Clients) -> None:
            self._tell(_allowed(clients))
            if before.keys() - clients.keys():
                self._revoked.set()

        with self._config.blamed("security", "clients"):
            self._zap = Zap(context, settings.clients, clock=self._clock, tell=tell, changed=changed)
        stack.callback(self._zap.stop)
        return keys

    def _worker(self, name: str, step: Callable[[], None]) -> Worker:
        return Worker(name, step, clock=self._clock, on_error=_died)

    def attach(self, end: link.End, ready: link.Ready) -> None:
        """Vision is up; from here on the arbiter alone receives from `end`."""

        def _attach() -> None:
            self._unlink()
            self._link = end
            self._finished = None
            self._vision_heard_ns = self._clock()
            self._poller.register(end.fileno(), zmq.POLLIN)
            self._feed(core.Attached(ready.recipe, ready.models, ready.reasons))

        self._tell(_attach, wait=True)

    def detach(self, reason: str) -> None:
        """Vision is gone: every open part is rejected, and every one to come until `attach`. `end` may be closed afterwards."""

        def _detach() -> None:
            self._unlink()
            self._feed(core.Detached(reason))

        self._tell(_detach, wait=True)

    def begin(self, at_ns: int) -> None:
        """The line runs from this moment on."""

        def _begin() -> None:
            self._conveyor.begin(at_ns)
            self._begin_ns = at_ns
            self._feed(core.Begin())

        self._tell(_begin, wait=True)

    def drain(self, within_s: float) -> None:
        """No new parts; wait until the open ones have their outcome and vision has finished, then close everything, keep it, publish it.

        Back within that time whatever hangs: judging, the disk and the threads each leave the rest some of it.
        """
        end_s = time.monotonic() + within_s
        by_s = end_s - 0.3 * within_s
        self._tell(core.Drain())
        while (self._arbiter.ledger.counters.pending or self._still_judging()) and time.monotonic() < by_s and self._gate_worker.alive:
            time.sleep(0.005)
        self._tell(core.Stop())
        while self._gate_worker.alive and self._status.state != core.State.STOPPED.value and time.monotonic() < end_s - 0.2 * within_s:
            time.sleep(0.002)
        while self.backlog():
            if time.monotonic() > end_s - 0.1 * within_s or not self._journal_worker.alive:
                break
            time.sleep(0.005)
        self._ending.set()
        time.sleep(0.02)  # the I/O thread of ZeroMQ gets to say it
        for worker in self._workers:
            worker.ask_to_stop()
        stopped = [worker.stop(max(0.05, end_s - time.monotonic())) for worker in reversed(self._workers)]
        if all(stopped) and self._to_journal.empty():
            self._journal.close(clean=not self._gave_up)

    def _still_judging(self) -> bool:
        """Vision is there and has not said that it has nothing more to say."""
        return self._link is not None and self._finished is None

    # -- what can be asked

    @property
    def epoch(self) -> str:
        """The name of this start."""
        return protocol.epoch_text(self._epoch)

    @property
    def recipe(self) -> str:
        """The digest of the recipe in force, empty before vision was ready."""
        return self._arbiter.recipe

    @property
    def finished(self) -> link.Finished | None:
        """What vision said when it had nothing more to judge."""
        return self._finished

    def endpoints(self) -> dict[str, str]:
        """Where the sockets really are."""
        return dict(self._endpoints)

    def counters(self) -> dict[str, int]:
        """The account of all parts of this epoch."""
        now = self._arbiter.ledger.counters
        return {
            "triggers": now.triggers,
            "pass": now.passed,
            "reject": now.reject,
            "not_inspected": now.not_inspected,
            "pending": now.pending,
            "unexplained": now.unexplained,
        }

    def backlog(self) -> bool:
        """Events still wait to be kept or published."""
        committing = self._committing_since_ns is not None
        return not self._to_journal.empty() or committing or not self._to_events.empty() or bool(self._untold)

    def not_durable(self) -> str:
        """Why the journal keeps nothing now, from its first commit that failed or is late on; empty while it does."""
        return self._not_durable

    def status(self) -> core.Status:
        """State, permit and what withholds it."""
        return self._status

    def holds(self) -> dict[str, str]:
        """What withholds the permit from every gateway, by name, with the reason in words."""
        return dict(self._arbiter.holds)

    def workers(self) -> Sequence[Worker]:
        """The threads."""
        return tuple(self._workers)

    def withheld(self) -> dict[str, str]:
        """What withholds the permit from one gateway only, by its name, and the lanes that none serves."""
        return self._arbiter.withheld(self._clock())

    def guard(self, config: Config) -> None:
        """The limits of this configuration hold from now on."""
        self._tell(core.Guarded(guards(config)))

    def reset(self, names: Sequence[str]) -> dict[str, str]:
        """A person has looked at what latched the permit off (all of it where nothing is named); what still withholds it afterwards."""
        self._tell(lambda: self._feed(core.Reset(names)), wait=True)
        return self.holds()

    def challenge(self, lane: int) -> None:
        """The next part of this lane is known to be bad."""
        self._tell(core.Challenge(lane))

    def report(self, code: str, severity: str, text: str) -> None:
        """Say something as an alarm; `severity` is info, warning or critical."""
        self._tell(core.Report(code, severity, text))

    def ages_ms(self) -> dict[str, float]:
        """Milliseconds since each thread's last step. A commit that takes long withholds the permit, and is frozen only where a single
        try takes 30 s: a disk that stays full ends nothing.
        """
        now_ns = self._clock()
        ages = {worker.name: worker.age_ms(now_ns) for worker in self._workers}
        if self._zap is not None:
            ages["zap"] = self._zap.worker.age_ms(now_ns)
        if self._committing_since_ns is not None:
            trying_ms = (now_ns - self._tried_ns) / 1e6
            ages["journal"] = trying_ms if trying_ms > FROZEN_COMMIT_MS else 0.0
        return ages

    def vision_ages_ms(self) -> dict[str, float]:
        """The same of vision's threads, as it last told, and of its telling ("main")."""
        if self._link is None:
            return {}
        since_ms = (self._clock() - self._vision_heard_ns) / 1e6
        return {**{name: age + since_ms for name, age in self._vision_ages.items()}, "main": since_ms}

    def metrics(self) -> Iterable[Family]:
        """What the gate knows, for /metrics."""
        counters, status = self.counters(), self._status
        yield Family("parts", "counter", "Parts by outcome.", [({"outcome": k}, counters[k]) for k in ("pass", "reject", "not_inspected")])
        yield Family("triggers", "counter", "Parts triggered.", [({}, counters["triggers"])])
        yield Family("parts_pending", "gauge", "Parts without an outcome yet.", [({}, counters["pending"])])
        yield Family("parts_unexplained", "gauge", "Parts that nothing accounts for: 0, always.", [({}, counters["unexplained"])])
        yield Family("permit", "gauge", "1 while parts may pass.", [({}, float(status.permit))])
        states = [({"state": state.value}, float(status.state == state.value)) for state in core.State]
        yield Family("state", "gauge", "1 for the state of the daemon.", states)
        yield Family("alarms", "counter", "Alarms by code.", [({"code": k}, v) for k, v in sorted(self._arbiter.alarms.copy().items())])
        bad = Counter(self._arbiter.faults.copy())
        bad.update(self._teller.faults)
        yield Family("bad_messages", "counter", "What was no message.", [({"why": k}, v) for k, v in sorted(bad.items())])
        yield Family("replay_restarts", "counter", "Times the process that replays ended.", [({}, self._teller.restarts)])
        yield Family("late_results", "counter", "Judgements after the deadline.", [({}, self._arbiter.late)])
        yield Family("resent", "counter", "Verdicts sent again.", [({}, self._arbiter.resent)])
        yield Family("unconfirmed", "counter", "Verdicts not confirmed by their deadline.", [({}, self._arbiter.unconfirmed)])
        yield Family("gateways", "gauge", "Sessions at the gate.", [({}, len(status.sessions))])
        yield Family("journal_backlog", "gauge", "Events that wait for the disk.", [({}, self._to_journal.qsize())])
        yield Family("journal_healthy", "gauge", "0 while commits fail or take too long.", [({}, float(not self._not_durable))])
        yield Family("journal_lost_events", "counter", "Events that were not kept.", [({}, self._lost_events)])
        yield Family("deadline_margin_seconds", "histogram", "From the verdict to the part's deadline.", [({}, self._margin)])
        yield Family("gate_step_seconds", "histogram", "From vision's word to the verdict handed to the socket.", [({}, self._steps)])
        yield Family("fsync_seconds", "histogram", "One commit.", [({}, self._fsyncs)])

    # -- arbiter

    def _tell(self, item: Callable[[], None] | core.Input, *, wait: bool = False) -> None:
        """Hand something to the arbiter's thread, and wait until it has been dealt with where the caller must know."""
        if not wait or not callable(item):
            self._inbox.put(item)
            self._ring()
            return
        done = threading.Event()

        def _and_say() -> None:
            item()
            done.set()

        self._inbox.put(_and_say)
        self._ring()
        while not done.wait(0.1):
            if not self._gate_worker.alive:
                return

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def _feed(self, *items: core.Input) -> None:
        self._stepped_ns = now_ns = self._clock()
        margins_s: list[float] = []
        for out in self._arbiter.step(now_ns, *items):
            if isinstance(out, Record):
                if out.deadline_ns:
                    margins_s.append((out.deadline_ns - now_ns) / 1e9)
                if out.stream == "a":
                    self._untold.append(out)
            elif isinstance(out, Send):
                if not sockets.send(self._gate, out.identity, out.frames):
                    self._inbox.put(core.Unreachable(out.identity))
                continue
            elif isinstance(out, core.Select):
                self.select(link.Switch(*out))
                continue
            if self._to_journal.qsize() < LARGEST_BACKLOG:
                self._to_journal.put(out)
            else:
                self._lost_events += 1
                if isinstance(out, Record):
                    self._to_events.put(([out], False))
        if margins_s:
            self._margin.observe(*margins_s)

    def _unlink(self) -> None:
        if self._link is not None:
            with suppress(KeyError, ValueError, OSError):
                self._poller.unregister(self._link.fileno())
            self._link = None
        self._vision_ages = {}

    def _arbiter_step(self) -> None:
        now_ns = self._clock()
        line = self._settings.line
        turn_ms = TRIGGER_TURN_MS if line.count == "conveyor" else TURN_MS if line.travel_counts is None else POSITION_TURN_MS
        wait_ms = min(turn_ms, max(0, -(-(self._arbiter.due_ns() - now_ns) // 1_000_000)))
        more = self._link is not None and self._link.waits
        ready = dict(self._poller.poll(0 if more or not self._inbox.empty() else wait_ms))
        if self._bell in ready:
            os.eventfd_read(self._bell)
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            if callable(item):
                item()
            else:
                self._feed(item)
        self._belt()
        if self._link is not None and (more or self._link.fileno() in ready):
            self._hear_vision()
        if self._gate in ready:
            self._hear_gateways()
        if self._stepped_ns < now_ns:
            self._feed(core.Tick())
        self._status = self._arbiter.status()

    def _hear_gateways(self) -> None:
        for _ in range(TURN_MESSAGES):
            message = sockets.receive(self._gate, secured=self._config.security is not None)
            if message is None:
                return
            self._feed(core.Received(*message))

    def _belt(self) -> None:
        """Triggers before exposures, so that an exposure finds its part."""
        now_ns = self._clock()
        if now_ns - self._utc_ns > UTC_EVERY_NS:
            self._utc_ns = now_ns
            self._feed(core.Utc(self._utc_clock() - self._clock(), _clock_state()))
        if now_ns - self._ages_ns > AGES_EVERY_NS:
            self._ages_ns = now_ns
            self._feed(core.Ages({**self.ages_ms(), **{f"vision-{name}": age for name, age in self.vision_ages_ms().items()}}))
        since_ns = self._committing_since_ns
        if since_ns is not None and now_ns - since_ns > SLOW_COMMIT_NS and not self._not_durable:
            self._feed(self._fails("a commit takes more than 1 s"))
        if self._begin_ns is None or self._arbiter.state is core.State.STOPPED:
            return  # after the epoch's last event there is no other
        line = self._settings.line
        every_ns = POSITION_EVERY_NS if line.travel_counts is None else DEADLINE_EVERY_NS
        position = (line.count != "frames" or line.travel_counts is not None) and now_ns - self._position_ns > every_ns
        sensor = line.count == "conveyor"
        if not sensor and not position:
            return
        look = self._conveyor.look(now_ns, sensor=sensor, position=position)
        if look.trouble != self._trouble:
            self._trouble = look.trouble
            self._feed(core.EncoderState(look.trouble))
        for trigger in look.triggers:
            self._feed(core.Triggered(trigger.part_seq, trigger.lane, trigger.at_ns, trigger.at_counts))
        if position:
            self._position_ns = now_ns
        if look.counts is not None:
            self._feed(core.Position(look.counts))

    def _hear_vision(self) -> None:
        """What vision says is judged together, up to `HEARD_AT_ONCE`: one look at clock, deadlines, sessions and permit for all of it.

        The first of it, which on most lines is all, waits for no other.
        """
        more, most = True, 1
        for _ in range(TURN_MESSAGES // HEARD_AT_ONCE):
            began_ns = self._clock()
            heard: list[core.Input] = []
            while more and len(heard) < most:
                more = self._hear(heard)
            if heard:
                self._feed(*heard)
                self._vision_heard_ns = began_ns
                spent_s = (self._clock() - began_ns) / 1e9
                self._steps.observe(*[spent_s for item in heard if type(item) is link.Judged])
            if not more:
                return
            most = HEARD_AT_ONCE

    def _hear(self, heard: list[core.Input]) -> bool:
        """Take one message of vision and add what is the arbiter's to `heard`; False when there is none now."""
        if self._link is None:
            return False
        try:
            message = self._link.receive()
        except (EOFError, OSError):
            self._unlink()
            heard.append(core.Detached("vision has closed its end"))
            return False
        except ValueError as error:
            heard.append(core.Report("LINK", "critical", str(error)))
            return True
        if message is None:
            return False
        if isinstance(message, _PASSED_ON):
            heard.append(message)
        elif isinstance(message, link.Beat):
            self._vision_ages, self._vision_heard_ns = message.ages_ms, self._clock()
        elif isinstance(message, link.Reloaded):
            heard.append(message)
            self.reloaded.put(message)
        elif isinstance(message, link.Changed):
            heard.append(message)
            self.changes.heard(message)
        elif isinstance(message, link.Noted):
            heard.append(core.Report(*message))
        elif isinstance(message, link.Finished):
            self._finished = message
        elif isinstance(message, link.Ready):
            heard.append(core.Reloaded(message.recipe, message.models, message.reasons, ""))
        return True

    def select(self, message: link.Switch) -> None:
        """Ask vision for another recipe; safe from any thread, and answered in any case."""
        end = self._link
        with suppress(OSError):
            if end is not None and end.send(message):
                return
        latest = self.changes.latest or link.Changed("", "", "", [], [], {})
        refused = latest._replace(what="refused", request=message.request, text="vision cannot be asked now; ask again", shadow=None)
        self.changes.heard(refused)
        self._tell(core.Changed(*refused))

    # -- journal

    def distrust_journal(self, text: str) -> None:
        """What is kept was found to be damaged while the line runs: it is moved aside, and the journal goes on in a new file."""
        self.report("JOURNAL_DAMAGED", "critical", text)
        self._aside_asked.set()

    def _journal_step(self) -> None:
        if self._aside_asked.is_set():
            with suppress(JournalError):
                self._journal.replace()
            self._aside_asked.clear()
        try:
            items = [self._to_journal.get(timeout=0.1)]
        except Empty:
            self._retain()
            return
        self._tried_ns = self._committing_since_ns = self._clock()
        time.sleep(GATHER_S)  # what else comes in this while needs no commit of its own
        with suppress(Empty):
            while len(items) < COMMIT_AT_ONCE:
                items.append(self._to_journal.get_nowait())
        self._commit(items)
        self._retain()

    def _fails(self, text: str) -> core.JournalState:
        self._not_durable = text
        self._say(f"journal: {text}")
        return core.JournalState(False, text)

    def _commit(self, items: list[Item]) -> None:
        """Until it is kept, or the line ends; a disk that is full gets its ballast back, a file that failed is left."""
        self._committing_since_ns = began_ns = self._clock()
        failed = False
        kept = True
        while True:
            self._tried_ns = self._clock()
            try:
                self._journal.commit(items)
                break
            except JournalError as error:
                if error.full and self._journal.free_ballast():
                    text = "the disk is full; the ballast is spent"
                    self._say(f"journal: {text}")
                    self._tell(core.Report("JOURNAL_FULL", "critical", text))
                    continue
                if not failed:
                    failed = True
                    self._tell(self._fails(str(error)))
                if error.dead:
                    with suppress(JournalError):
                        self._journal.replace()
                        continue
                if self._ending.wait(RETRY_S):
                    kept = False  # the line ends: these are told, and not said to be kept
                    self._lost_events += len(items)
                    self._gave_up = True
                    break
        spent_ns = self._clock() - began_ns
        self._fsyncs.observe(spent_ns / 1e9)
        self._committing_since_ns = None
        if kept and (failed or (self._not_durable and spent_ns < SLOW_COMMIT_NS)):  # a disk that is always slow is never well
            self._not_durable = ""
            self._say("journal: durable again")
            self._tell(core.JournalState(True, ""))
        records = [item for item in items if isinstance(item, Record)]
        if self._aside_ns and kept:
            self._watch_disk(spent_ns)
            verdicts = [record.header.seq for record in records if record.stream == "q"]
            if verdicts:
                self._tell(core.Durable(verdicts[-1]))
        if records:
            self._to_events.put((records, kept))

    def _retain(self) -> None:
        """Once a second, on a busy line too: let go what is too old or too much, and keep room for a full disk."""
        now_ns = self._clock()
        if now_ns - self._retained_ns < RETAIN_EVERY_NS:
            return
        self._retained_ns = now_ns
        kept = self._config.journal
        with suppress(JournalError):
            self._journal.retain(keep_ns=int(kept.keep_days * 86_400e9), keep_bytes=kept.keep_mib << 20)
        with suppress(OSError):
            self._journal.refill_ballast()
        if now_ns - self._anchored_ns > ANCHOR_EVERY_NS:
            self._anchored_ns = now_ns
            self._journal.anchor()
        if self._journal.anchored != self._anchored:
            self._anchored = self._journal.anchored
            syslog.say(f"journal anchor {self._config.site}/{self._config.line}/{self._config.station} {self._anchored}")
            self._tell(core.Anchored(self._anchored))
        too_long = self._journal.log_bytes() > LARGEST_LOG_BYTES
        if too_long and not self._log_too_long:
            text = "the journal's write-ahead log is over 64 MiB: another process reads the journal for too long"
            self._tell(core.Report("JOURNAL_LOG", "warning", text))
        self._log_too_long = too_long

    # -- events

    def _events_step(self) -> None:
        try:
            records, durable = self._to_events.get(timeout=0.05)
        except Empty:
            pass
        else:
            for record in records:
                if record.stream != "a":
                    self._publish(record, int(Flag.DURABLE) if durable else 0)
                elif record.header.seq > self._published["a"]:
                    self._publish_untold(record.header.seq)
                    if self._untold:
                        self._untold.popleft()  # this one
                    self._publish(record, int(Flag.DURABLE) if durable else 0)
        if self._not_durable and self._to_events.empty():  # an alarm that cannot be kept must be told all the same
            self._publish_untold()
        now_ns = self._clock()
        self._hang_up(now_ns)
        if now_ns - self._hb_ns >= EVENTS_HB_NS:
            self._hb_ns = now_ns
            payload = protocol.dumps(
                {"schema": "insp.hb", "ver": protocol.VERSION, "epoch": self.epoch, **self._now_body(), "head": _texts(self._published)}
            )
            permit = int(Verdict.PASS) if self._status.permit else 0
            header = Header(Kind.HB, 0, self._epoch, 0, self._published["q"], self._utc_clock(), 0, protocol.STREAM_IDS["hb"], permit, 0, 0)
            self._pub.send_multipart([self._topics["hb"], protocol.pack(header, payload), payload])

    def _publish_untold(self, before: int | None = None) -> None:
        """What stream `a` has to tell (before this number), though it is not kept; when it is kept later, it is not told again."""
        while self._untold and (before is None or self._untold[0].header.seq < before):
            self._publish(self._untold.popleft(), 0)

    def _hang_up(self, now_ns: int) -> None:
        """A key was taken off the list: every subscriber is cut off; who is still on it comes back by itself and replays what it missed.

        The address is free again some milliseconds later; until then this is tried in each step.
        """
        revoked = self._revoked.is_set()
        if self._deaf_since_ns is None and not revoked:
            return
        at = self._endpoints["events"]
        self._revoked.clear()
        if self._deaf_since_ns is None:
            self._deaf_since_ns = now_ns
            sockets.hang_up(self._pub, at)
        if sockets.listen(self._pub, at):
            self._deaf_since_ns = None
            if self._said_deaf:
                self._said_deaf = False
                self.report("EVENTS", "info", f"{at} is free again, and subscribers come back")
        elif now_ns - self._deaf_since_ns > DEAF_NS and not self._said_deaf:
            self._said_deaf = True
            self.report("EVENTS", "critical", f"{at} is taken by another process: nobody hears the events until it is free; tried again")

    def _publish(self, record: Record, add: int) -> None:
        ttl_us = min(max(0, (record.deadline_ns - self._clock()) // 1000), 0xFFFFFFFF)
        header, payload = record.header, record.payload
        self._pub.send_multipart([self._topics[record.stream], protocol.copy_of(record.head, payload, add=add, ttl_us=ttl_us), payload])
        self._published[record.stream] = header.seq
        if record.r_seq is not None:
            header = header._replace(flags=header.flags | add, ttl_us=ttl_us, seq=record.r_seq, stream_id=protocol.STREAM_IDS["r"])
            self._pub.send_multipart([self._topics["r"], protocol.pack(header, payload), payload])
            self._published["r"] = record.r_seq

    def _now_body(self) -> dict[str, Any]:
        status = self._status
        counters = status.counters
        return {
            "site": self._config.site,
            "line": self._config.line,
            "station": self._config.station,
            "state": status.state,
            "permit": int(status.permit),
            "holds": list(status.holds),
            "counters": {
                "triggers": str(counters.triggers),
                "pass": str(counters.passed),
                "reject": str(counters.reject),
                "not_inspected": str(counters.not_inspected),
                "pending": str(counters.pending),
            },
            "sessions": list(status.sessions),
        }

    def _now(self) -> Mapping[str, Any]:
        """For who tells again what was missed."""
        return {"heads": dict(self._published), "body": self._now_body()}


def _allowed(clients: Clients) -> core.Allowed:
    return core.Allowed(frozenset(client.name for client in clients.values() if client.role == "gate"))


def _texts(heads: Mapping[str, int]) -> dict[str, str]:
    return {stream: str(seq) for stream, seq in heads.items()}


def _died(name: str, error: BaseException) -> None:
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread())))
    sys.stderr.flush()


def guards(config: Config) -> Guards:
    """The limits of the configuration."""
    return Guards(**config.guards.model_dump())


def settings(config: Config, *, wrap_counts: int | None = None) -> core.Settings:
    """What the arbiter needs of the configuration, and of the conveyor: at which count it begins anew, None for never."""
    gate = config.gate
    travel_counts = gate.travel_counts
    if gate.travel_mm is not None and gate.counts_per_mm is not None:
        travel_counts = round(gate.travel_mm * gate.counts_per_mm)
    line = Line(
        cameras={camera.id: camera.lane for camera in config.cameras},
        count=gate.count,
        window_counts=gate.window_counts,
        travel_min_ms=gate.travel_min_ms,
        actuator_ms=gate.actuator_ms,
        scan_ms=gate.scan_ms,
        travel_counts=travel_counts,
        fire_lease_ms=gate.lease_ms if gate.profile == "fire" else 0,
        commit_ms=gate.durable_pass_ms,
        wrap_counts=wrap_counts,
    )
    return core.Settings(
        site=config.site,
        line_name=config.line,
        station=config.station,
        line=line,
        profile=gate.profile,
        lease_ms=gate.lease_ms,
        hb_ms=gate.hb_ms,
        app_version=__version__,
        journal_stops=config.journal.required == "stop",
        guards=guards(config),
    )
