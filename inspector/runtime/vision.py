"""The child process that sees: cameras, rings, judging, archive. What it finds goes over the link to the gate, and nowhere else.

It may crash, hang or be killed at any moment: the gate then rejects every part as not inspected, and starts it again. It ends on its
own when the gate is gone. Threads: `capture-<camera>` for each camera, `inspect-<n>`, `archive`, and `main`, which talks with the gate.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from inspector import __version__, config, recipe
from inspector.config import Config
from inspector.config.document import text_of
from inspector.gate import protocol
from inspector.interfaces import Clock, Conveyor, EndOfPictures, FillsAhead, Source, fills_ahead
from inspector.neural import cpu, crew, limits
from inspector.outputs import metrics
from inspector.outputs.archive import Archive
from inspector.outputs.metrics import Family
from inspector.records import ConfigError, ConfigErrors, DeviceError
from inspector.runtime import in_force, link
from inspector.runtime.capture import Isolated
from inspector.runtime.changeover import Changeover, models_of
from inspector.runtime.changeover_board import Board
from inspector.runtime.child import obey_parent
from inspector.runtime.quality import Qualities, families
from inspector.runtime.quarantine import Quarantine
from inspector.runtime.ring import Ring
from inspector.runtime.stages import Capturing, Inspecting, Tell, capture, inspect
from inspector.runtime.worker import SWITCH_INTERVAL_S, Ended, Worker

BEAT_S = 0.1
FIRST_WAIT_S, LONGEST_WAIT_S, HEALTHY_AFTER_S = 0.5, 30.0, 60.0
DRAIN_S = 5.0
SLOW_NETWORK_RATIO, SLOW_AGAIN_S = 0.5, 60.0
"""Of the travel to the ejector; a second one so soon ends the process."""
CHANGEOVER_OUTCOMES = ("in_force", "refused", "rolled_back")
RETIRED = "~"
"""In the name of a ring that gets no more pictures; no camera's id has it."""


class Camera:
    """One camera over its life: built, read, lost, and built again after a wait that grows and is never the same for two cameras."""

    def __init__(
        self,
        settings: config.Camera,
        conveyor: Conveyor,
        inspecting: Inspecting,
        tell: Tell,
        clock: Clock,
        isolated: Callable[[], Isolated] | None = None,
    ) -> None:
        self.settings, self.up, self.text, self.rebuilt = settings, False, "not built yet", 0
        self._conveyor, self._inspecting, self._tell, self._clock, self._isolated = conveyor, inspecting, tell, clock, isolated
        self._kind = config.plugin("sources", settings.source.kind)
        self._source_settings = config.settings_of("sources", settings.source, self._kind.Settings)
        self._capturing: Capturing | None = None
        self._source: Source | FillsAhead | None = None
        self._starting: Isolated | None = None
        self._begun_ns: int | None = None
        self._retired = 0
        self._wait_s, self._not_before_ns, self._up_ns = FIRST_WAIT_S, 0, 0

    def build(self) -> None:
        """Try to build the source now; when it does not work, say so and try again later. `ConfigError` is for a person."""
        try:
            if self._isolated is None:
                self._came_up(config.built(self._kind, self._source_settings, self.settings.id, self._clock, self._conveyor))
            else:
                self._starting = self._isolated()
        except DeviceError as error:
            self._down(str(error))
        except ConfigError as error:
            raise self.settings.source.about(error) from error

    def started(self) -> bool:
        """The attempt to build it has come to its end; a capture process takes its time, and is waited for a little."""
        if self._starting is None:
            return True
        try:
            if not self._starting.started(0.2):
                return False
            starting, self._starting = self._starting, None
            starting.begun_ns = self._begun_ns
            self._came_up(starting)
        except DeviceError as error:
            self.close()
            self._down(str(error))
        except ConfigError as error:
            raise self.settings.source.about(error) from error
        return True

    def begin(self, at_ns: int) -> None:
        """The line runs from this moment on."""
        self._begun_ns = at_ns
        if isinstance(self._source, Isolated):
            self._source.begun_ns = at_ns

    def _came_up(self, source: Source | FillsAhead) -> None:
        self._source = source
        ahead, shared = source.ahead if fills_ahead(source) else 1, isinstance(source, Isolated)
        ring = self._inspecting.rings.get(self.settings.id)
        if ring is None or ring.max_bytes < source.max_bytes or (ring.ahead, ring.memory is not None) != (ahead, shared):
            rules = self.settings.ring
            ring = Ring(rules.slots, source.max_bytes, rules.when_full, self._inspecting.bell, ahead=ahead, shared=shared)
            with self._inspecting.bell:
                self._inspecting.rings = {**self._inspecting.rings, self.settings.id: ring}
        if isinstance(source, Isolated):
            source.attach(ring)
        if self._capturing is None:
            self._capturing = Capturing(self.settings.id, source, ring, self._tell, self._clock)
        else:
            self._capturing.renew(source, ring)
            self.rebuilt += 1
        self.up, self.text, self._up_ns = True, "", self._clock()
        self._tell(link.CameraState(self.settings.id, True, ""))

    def step(self) -> None:
        """One picture, or one attempt to have the camera back."""
        if not self.started():
            return
        if self._source is None or self._capturing is None:
            wait_ns = self._not_before_ns - self._clock()
            if wait_ns > 0:
                time.sleep(min(0.2, wait_ns / 1e9))
            else:
                self.build()
            return
        try:
            capture(self._capturing)
        except EndOfPictures as end:
            self.close()
            raise Ended from end
        except DeviceError as error:
            self.close()
            self._down(str(error))

    def _down(self, text: str) -> None:
        now_ns = self._clock()
        if self.up and now_ns - self._up_ns > HEALTHY_AFTER_S * 1e9:
            self._wait_s = FIRST_WAIT_S
        # Full jitter, so that the cameras of a switch that came back do not all call at once.
        self._not_before_ns = now_ns + round(random.uniform(0, self._wait_s) * 1e9)
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s)
        if self.up or self.text != text:
            print(f"camera {self.settings.id} is down: {text}", file=sys.stderr, flush=True)
        self.up, self.text = False, text
        self._tell(link.CameraState(self.settings.id, False, text))

    def close(self) -> None:
        """Let the device go."""
        if self._starting is not None:
            self._starting.close()
            self._starting = None
        if self._source is not None:
            source, self._source = self._source, None
            source.close()
            if source.stuck if isinstance(source, Isolated) else fills_ahead(source):
                self._retire_ring()

    def _retire_ring(self) -> None:
        """What is left of the driver may still write into the ring: no new picture goes there, and what waits in it is judged."""
        self._retired += 1
        with self._inspecting.bell:
            rings = {name: ring for name, ring in self._inspecting.rings.items() if not (RETIRED in name and ring.idle)}
            rings[f"{self.settings.id}{RETIRED}{self._retired}"] = rings.pop(self.settings.id)
            self._inspecting.rings = rings

    @property
    def counts(self) -> dict[str, int]:
        """What `capture` has counted."""
        return dict(self._capturing.counts) if self._capturing else {}

    @property
    def driver_counts(self) -> Mapping[str, int]:
        """What the driver has counted since the camera was built, where it counts."""
        return getattr(self._source, "counts", {})


class Vision:
    """The process, put together; `run` is its main thread."""

    def __init__(
        self, path: Path, end: link.End, begin_with: Path | None = None, *, clock: Clock = time.monotonic_ns, utc_ns: Clock = time.time_ns
    ) -> None:
        self._path, self._end, self._clock = path, end, clock
        self._failed: str | None = None
        self._draining = False
        self._drain_by_ns = 0
        text = text_of(begin_with or path)
        self._settings = config.read(path, text=text)
        if faults := [*config.count_faults(self._settings), *config.web_faults(self._settings)]:
            raise ConfigErrors(faults)
        shelf = recipe.Shelf(self._settings.changeover.keep_ready * len(self._settings.cameras), self._settings.state_dir / "templates")
        prepared = recipe.prepare(self._settings, time.time_ns(), chosen=in_force.selected(self._settings), shelf=shelf)
        lanes = {camera.id: camera.lane for camera in self._settings.cameras}
        board = Board(prepared, lanes, self._settings.gate.window_counts)
        self._archive = Archive(self._settings.archive, self._settings.state_dir / "pictures", utc_ns=utc_ns)
        self._inspecting = Inspecting(
            board, {}, threading.Condition(), self._tell, self._archive, clock, utc_ns, self._settings.vision.batch, lanes,
            lambda: self._changeover.shadow,
            Qualities({camera.id: camera.quality for camera in self._settings.cameras}, self._settings.state_dir / "quality"),
            to_judge_ns=_to_judge_ms(self._settings.gate) * 1_000_000,
        )  # fmt: skip
        try:
            threads, batch = self._settings.vision.inspect_threads, self._settings.vision.batch
            self._inspecting.quarantine = Quarantine(self._settings.state_dir / "quarantine", threads, batch)
        except OSError as error:
            print(f"pictures that end this process are not remembered: {error}", file=sys.stderr, flush=True)
        self._changeover = Changeover(
            path, self._settings, text, board, self._insist, self._archive, shelf=shelf, fixed=_fixed, clock=clock
        )
        self._conveyor: Conveyor = config.build("conveyor", self._settings.conveyor, "conveyor")
        self._cameras = [
            Camera(camera, self._conveyor, self._inspecting, self._tell, clock, partial(Isolated, camera.id, path, text, clock))
            if camera.isolated
            else Camera(camera, self._conveyor, self._inspecting, self._tell, clock)
            for camera in self._settings.cameras
        ]
        self._captures = [self._worker(f"capture-{camera.settings.id}", camera.step) for camera in self._cameras]
        self._inspects = [self._worker(f"inspect-{n}", self._inspect) for n in range(self._settings.vision.inspect_threads)]
        self._archiving = self._worker("archive", self._keep, nice=10)
        self._changing = self._worker("changeover", self._changeover.step)
        self._begun = self._stop_inspecting = False
        self._finished: link.Finished | None = None
        self._slow_ns: int | None = None

    # -- threads

    def _worker(self, name: str, step: Callable[[], None], nice: int = 0) -> Worker:
        return Worker(name, step, clock=self._clock, on_error=self._on_error, nice=nice)

    def _inspect(self) -> None:
        crew.gather_at(self._inspecting.bell if len(self._inspects) > 1 else None)
        # Looked at before, because what arrives in between is then inspected in the next step.
        last = self._stop_inspecting
        if not inspect(self._inspecting, timeout_s=0.05) and last:
            raise Ended

    def _keep(self) -> None:
        self._archive.step()
        if self._inspecting.quality is not None:
            try:
                self._inspecting.quality.keep()
            except OSError as error:
                print(f"what was learnt of the pictures is not kept: {error}", file=sys.stderr, flush=True)

    def _on_error(self, name: str, error: BaseException) -> None:
        traceback.print_exception(error, file=sys.stderr)
        self._failed = f"thread {name} died: {type(error).__name__}: {error}"
        if isinstance(error, ConfigError):
            self._failed = str(error)

    # -- saying

    def _tell(self, *messages: link.ToGate) -> bool:
        try:
            return self._end.send(*messages)
        except OSError:
            return False  # the main thread sees that the gate is gone

    def _insist(self, message: link.ToGate) -> None:
        """What must be said is said again until the gate hears it; it always does, or it is gone."""
        while not self._tell(message):
            if not select.select([], [self._end], [], 0.2)[1]:
                continue
            with suppress(BlockingIOError):
                if self._gone():
                    return

    def _gone(self) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))

    # -- the main thread

    def run(self) -> int:
        """Until the gate says so, the pictures end, or something dies; the exit code."""
        with ExitStack() as stack:
            for camera in self._cameras:
                stack.callback(camera.close)
            with ThreadPoolExecutor(len(self._cameras), "build") as builders:  # each may take seconds, most of them waiting
                list(builders.map(_built, self._cameras))
            with self._settings.blamed("metrics", "vision_bind"):
                server, _ = metrics.serve(self._settings.metrics.vision_bind, self.families)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            self._archiving.start()
            stack.callback(self._archiving.stop, 2.0)
            for worker in self._inspects:
                worker.start()
                stack.callback(worker.stop, 1.0)
            current = self._inspecting.board.recipe
            self._insist(
                link.Ready(current.digest, models_of(current), list(current.reasons), os.getpid(), f"127.0.0.1:{server.server_port}")
            )
            self._changing.start()
            stack.callback(self._changeover.end)
            stack.callback(self._changing.ask_to_stop)
            while True:
                code = self._turn()
                if code is not None:
                    return code

    def _turn(self) -> int | None:
        if self._failed is not None:
            print(f"vision ends: {self._failed}", file=sys.stderr, flush=True)
            return 70
        select.select([self._end], [], [], BEAT_S)
        try:
            while (message := self._end.receive()) is not None:
                self._hear(message)
        except EOFError:
            return 0
        self._tell(link.Beat(self.ages_ms()))
        self._end_slow_networks()
        return self._finish() if self._begun or self._draining else None

    def _end_slow_networks(self) -> None:
        """So early that the part is still told why; what hangs again within a minute may hang for ever, and this process begins anew."""
        limit_s = SLOW_NETWORK_RATIO * self._settings.gate.travel_min_ms / 1e3
        ended = limits.end_older(limit_s)
        if ended is not None:
            worked_s, began_s = ended
            now_ns = self._clock()
            print(f"a network was ended after {limit_s:.2f} s, of which it worked {worked_s:.2f} s", file=sys.stderr, flush=True)
            if worked_s < limit_s / 2:
                return  # it is the machine that is slow, and to begin anew would be slower still
            # What ran already when the last one was ended is of the same trouble: two threads may work at one picture.
            anew = self._slow_ns is not None and time.monotonic() - began_s < (now_ns - self._slow_ns) / 1e9
            if anew and self._slow_ns is not None and now_ns - self._slow_ns < SLOW_AGAIN_S * 1e9:
                self._failed = f"a network took more than {limit_s:.2f} s twice within {SLOW_AGAIN_S:.0f} s"
            self._slow_ns = now_ns

    def _hear(self, message: link.ToGate | link.ToVision) -> None:
        if isinstance(message, link.Begin) and not self._begun:
            self._begun = True
            self._conveyor.start(message.at_ns)
            for camera in self._cameras:
                camera.begin(message.at_ns)
            for worker in self._captures:
                worker.start()
            self._insist(self._changeover.told("begun"))
        elif isinstance(message, (link.Reload, link.Switch)):
            self._changeover.ask(message)
        elif isinstance(message, link.Drain) and not self._draining:
            self._draining = True
            self._drain_by_ns = self._clock() + round(DRAIN_S * 1e9)
            for worker in self._captures:
                worker.ask_to_stop()

    def _finish(self) -> int | None:
        """When no picture will come and all are judged: say so, keep what is to be kept, and end."""
        overdue = self._draining and self._clock() > self._drain_by_ns
        if any(worker.alive for worker in self._captures) and not overdue:
            return None
        self._stop_inspecting = True
        if any(worker.alive for worker in self._inspects) and not overdue:
            return None
        if self._finished != link.Finished(self._draining):
            self._finished = link.Finished(self._draining)
            self._insist(self._finished)
        if not self._draining or (self._archive.waiting() and not overdue):
            return None  # the gate decides when to leave, and pictures may still be under way to the disk
        return 0

    def ages_ms(self) -> dict[str, float]:
        """How long ago each thread has moved; those that have not begun, or have ended well, are fresh."""
        now_ns = self._clock()
        running = [*self._inspects, self._archiving, *(self._captures if self._begun else [])]
        return {worker.name: round(worker.age_ms(now_ns), 1) if worker.alive else 0.0 for worker in running}

    # -- metrics

    def families(self) -> Iterable[Family]:
        """What is shown at /metrics."""
        state, counts = self._inspecting, {camera.settings.id: camera.counts for camera in self._cameras}

        def of_cameras(key: str) -> list[tuple[dict[str, str], float]]:
            return [({"camera": name}, each.get(key, 0)) for name, each in counts.items()]

        yield Family("build", "info", "What runs.", [({"version": __version__, "process": "vision"}, 1)])
        yield Family("recipe", "info", "The recipe in force.", [({"digest": state.board.recipe.digest}, 1)])
        models = [({"name": name, "sha256": digest[:12]}, 1) for name, digest in state.board.recipe.models]
        yield Family("model", "info", "The networks of the recipe in force.", models)
        in_use = [({"camera": camera, "name": plan.recipe}, 1.0) for camera, plan in state.board.recipe.plans.items()]
        yield Family("recipe_in_use", "gauge", "1 for the recipe that each camera's pictures are judged by.", in_use)
        changes = self._changeover.counts
        yield Family(
            "changeovers", "counter", "Changeovers by what came of them.", [({"outcome": k}, changes[k]) for k in CHANGEOVER_OUTCOMES]
        )
        shadow = self._changeover.shadow
        beside = [] if shadow is None else [({"outcome": k}, n) for k, n in sorted(shadow.counts.items())]
        yield Family("shadow_pictures", "gauge", "What a recipe in shadow said: the same, otherwise (present_shadow), or skipped.", beside)
        yield Family("camera_up", "gauge", "1 while the camera works.", [({"camera": c.settings.id}, float(c.up)) for c in self._cameras])
        yield Family(
            "camera_rebuilds", "counter", "Times a camera was built anew.", [({"camera": c.settings.id}, c.rebuilt) for c in self._cameras]
        )
        yield Family("frames", "counter", "Exposures that arrived.", of_cameras("seen"))
        yield Family("frames_lost", "counter", "Exposures that never arrived.", of_cameras("lost"))
        yield Family("frames_incomplete", "counter", "Exposures that arrived damaged.", of_cameras("incomplete"))
        dropped = [({"camera": name}, each.get("dropped", 0) + state.gave_way[name]) for name, each in counts.items()]
        yield Family("frames_dropped", "counter", "Exposures that gave way to newer ones.", dropped)
        yield Family("frames_repeated", "counter", "Exposures that came twice and were ignored.", of_cameras("repeated"))
        driver = [({"camera": c.settings.id, "what": what}, n) for c in self._cameras for what, n in sorted(c.driver_counts.items())]
        yield Family("camera_driver", "gauge", "What the driver has counted since the camera was built.", driver)
        untold = sum(each.get("untold", 0) for each in counts.values()) + state.untold
        yield Family("link_untold", "counter", "Messages that the gate did not take in time.", [({}, untold)])
        waiting = [({"camera": name}, float(ring.counts().ready)) for name, ring in state.rings.items() if RETIRED not in name]
        yield Family("ring_waiting_frames", "gauge", "Pictures that wait to be judged.", waiting)
        judged = [({"camera": camera, "decision": decision}, n) for (camera, decision), n in sorted(state.counts.items())]
        yield Family("inspections", "counter", "Judgements by decision.", judged)
        latency = [({"camera": name}, histogram) for name, histogram in sorted(state.latency.items())]
        yield Family("inspection_latency_seconds", "histogram", "From exposure to judgement told to the gate.", latency)
        yield Family("ring_wait_seconds", "histogram", "How long pictures waited.", [({}, state.waited)])
        spent = [({"stage": stage}, histogram) for stage, histogram in sorted(state.spent.items())]
        yield Family("stage_seconds", "histogram", "Time of each stage of judging.", spent)
        for name, text, samples in families(state.quality) if state.quality is not None else ():
            yield Family(name, "gauge", text, samples)
        ages = [({"worker": name}, age / 1e3) for name, age in self.ages_ms().items()]
        yield Family("worker_age_seconds", "gauge", "Since the last step of each thread.", ages)
        archive = self._archive.counts
        yield Family("archive_pictures", "counter", "Pictures kept.", [({}, archive.written)])
        yield Family("archive_pictures_dropped", "counter", "Pictures not kept: queue or disk full.", [({}, archive.dropped)])
        yield Family("archive_pictures_removed", "counter", "Pictures removed to stay within the budget.", [({}, archive.removed)])
        yield Family("archive_bytes", "gauge", "What the kept pictures take.", [({}, self._archive.kept_bytes)])


def _built(camera: Camera) -> None:
    camera.build()
    while not camera.started():
        pass


def _to_judge_ms(gate: config.Gate) -> int:
    """From a part's trigger to the last moment for its verdict."""
    deadline_ms = protocol.deadline_ms(
        travel_min_ms=gate.travel_min_ms,
        actuator_ms=gate.actuator_ms,
        scan_ms=gate.scan_ms,
        fire_lease_ms=gate.lease_ms if gate.profile == "fire" else 0,
    )
    return deadline_ms - protocol.ACT_EARLIER_MS - gate.durable_pass_ms


def _fixed(settings: Config) -> dict[str, Any]:
    """What cannot change while the line runs: all but the guards, the recipes, how they change over, and which camera has which."""
    fixed = settings.model_dump(exclude={"recipes", "changeover", "guards"})
    for camera in fixed["cameras"]:
        del camera["recipe"]
    return fixed


def main() -> int:
    """`python -m inspector.runtime.vision --config FILE [--begin-with FILE] --link-fd N`; started by the daemon only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--begin-with", type=Path, help="a file with what the configuration said when it came into force")
    parser.add_argument("--link-fd", type=int, required=True)
    arguments = parser.parse_args()
    obey_parent()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    cv2.setNumThreads(1)  # our threads are the inspecting ones; more of them only get into each other's way
    end = link.End(socket.socket(fileno=arguments.link_fd))
    try:
        cpu.check()
        return Vision(arguments.config, end, arguments.begin_with).run()
    except (ConfigError, DeviceError) as error:
        print(error, file=sys.stderr, flush=True)
        return 78
    except Exception as error:  # noqa: BLE001 - the last one who can speak to the user
        if os.environ.get("INSPECTOR_TRACE") == "1":
            traceback.print_exc()
        print(f"our bug: {type(error).__name__}: {error} (INSPECTOR_TRACE=1 shows where; please report it)", file=sys.stderr, flush=True)
        return 70


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # an abandoned reader or driver thread must not keep the process
