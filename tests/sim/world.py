"""A line that exists only in numbers, driven by one seed: belt, encoder, part sensor, cameras, vision, journal, network, gateway and PLC,
with a random set of faults, around the very core that the daemon runs (`gate.arbiter`, `gate.gateway`). No thread, no socket, no clock.

The world knows the physical truth of each part, and after every step of the core it checks what must hold (`Broken` says what does not):
one outcome per part, conservation, no PASS without a PASS of every camera for that very part in time, permit only with all its
conditions, bounded queues, gapless chains, no number used twice, credit kept; and at the ejector: no bad part passes. In the end the
faults stop, and the line must run again within 30 simulated seconds.

Of profile `fire` the world knows what its PLC must do: it ejects on a REJECT, and when the permit goes it stops the line and takes off
what is on it. Nothing but that saves it from a part of which no verdict came.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from inspector.gate import arbiter as core
from inspector.gate import gateway, protocol
from inspector.gate.arbiter import Arbiter, EpochHead, Record, Send
from inspector.gate.guards import Guards
from inspector.gate.ledger import Line
from inspector.gate.protocol import Frames, Kind
from inspector.records import Reason, Verdict

MS = 1_000_000
S = 1_000 * MS
START_NS = 1_000 * S
COUNTS_PER_S = 1_000
TRAVEL_MS, FIRE_TRAVEL_MS, ACTUATOR_MS, SCAN_MS, LEASE_MS, HB_MS = 600, 1000, 40, 10, 300, 100
WINDOW_COUNTS = 50
TURN_MS = 50.0
POSITION_MS = 20.0
JUMP_COUNTS = 100_000
CHALLENGE_EVERY_S = 3.0
HEARD_AT_ONCE = 32
COMMIT_MS = 60
_OF_VISION = (core.Seen, core.Lost, core.Dropped, core.Judged, core.CameraState)
LIVE_AGAIN_NS = 30 * S
LARGEST_SESSION = 5_000


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Knobs:
    """What can go wrong in this run; probabilities are per part or per message, 0 where the fault is off."""

    profile: str
    count: str
    encoder: bool
    plc_counts: bool
    challenges: int
    lanes: int
    cameras_per_lane: int
    period_ms: int
    parts: int
    bad: float
    lost: float
    repeated: float
    stale: float
    swapped: float
    incomplete: float
    unheard: float
    slow: float
    nan: float
    dropped: float
    unjudged: float
    double_edge: float
    missed_edge: float
    corrupt: float
    vision_deaths: int
    camera_outages: int
    gate_deaths: int
    stalls: int
    link_resets: int
    gateway_hangs: int
    silent_acks: int
    journal_outages: int
    ahead: float
    lying_disk: bool
    clock_jumps: int
    late_hello: bool
    belt_stops: int
    belt_doubles: int
    belt_reversals: int
    encoder_jumps: int
    blind_challenge: float
    plc_clock_off: bool
    plc_restarts: int
    link_delays: int

    @staticmethod
    def draw(random: Random) -> Knobs:
        """A random subset of the faults, with random strength."""

        def maybe(most: float) -> float:
            return random.random() * most if random.random() < 0.4 else 0.0

        def some(most: int) -> int:
            return random.randint(1, most) if random.random() < 0.4 else 0

        count = random.choice(("frames", "conveyor", "conveyor", "plc"))
        # A legacy ejector lets pass what nobody told it to eject: what the sensor missed, and a number that was lost on its way here.
        fire = count == "conveyor" and random.random() < 0.3
        encoder = count != "frames" and random.random() < 0.5
        challenges = random.choice((0, 0, 3, 5)) if count == "plc" else 0
        return Knobs(
            profile="fire" if fire else "permit",
            count=count,
            encoder=encoder,
            plc_counts=random.random() < 0.3,
            challenges=challenges,
            lanes=random.choice((1, 1, 2)),
            cameras_per_lane=1 if count == "frames" else random.choice((1, 2)),
            period_ms=random.choice((110, 150, 200, 300)),
            parts=random.randint(20, 45),
            bad=random.choice((0.0, 0.1, 0.5)),
            lost=maybe(0.2),
            repeated=maybe(0.2),
            stale=maybe(0.1),
            swapped=maybe(0.1),
            incomplete=maybe(0.2),
            unheard=maybe(0.1),
            slow=maybe(0.3),
            nan=maybe(0.2),
            dropped=maybe(0.2),
            unjudged=maybe(0.2),
            double_edge=maybe(0.1),
            missed_edge=0.0 if fire else maybe(0.1),
            corrupt=maybe(0.1),
            vision_deaths=some(2),
            camera_outages=some(2),
            gate_deaths=some(2),
            stalls=some(3),
            link_resets=some(3),
            gateway_hangs=some(3),
            silent_acks=some(2),
            journal_outages=some(2),
            ahead=maybe(0.2),
            lying_disk=random.random() < 0.2,
            clock_jumps=some(3),
            late_hello=random.random() < 0.3,
            belt_stops=some(2) if encoder else 0,
            belt_doubles=some(2) if encoder and not fire else 0,
            belt_reversals=some(2) if encoder and not fire else 0,
            encoder_jumps=some(2) if encoder and not fire else 0,
            blind_challenge=maybe(0.3) if challenges else 0.0,
            plc_clock_off=random.random() < 0.3,
            plc_restarts=some(2) if count == "plc" else 0,
            link_delays=some(3),
        )

    @staticmethod
    def calm(knobs: Knobs) -> Knobs:
        """The same line without any fault."""
        off = {name: type(value)() for name, value in knobs.__dict__.items() if name not in _SHAPE}
        return Knobs(**{**knobs.__dict__, **off})


_SHAPE = frozenset({"profile", "count", "encoder", "plc_counts", "challenges", "lanes", "cameras_per_lane", "period_ms", "parts", "bad"})


@dataclass
class Part:
    """One thing on the belt. `numbers` are the sensor's edges that it made."""

    number: int
    lane: int
    good: bool
    at_ns: int
    at_belt: float
    challenge: bool = False
    numbers: list[int] = field(default_factory=list)


@dataclass
class Picture:
    """What one exposure shows: its part, and what vision will say of it."""

    camera: str
    seq: int
    part: Part
    present: Part
    """The part that stood before the camera; not the one shown where the camera delivers an old buffer."""
    at_ns: int
    at_counts: int


@dataclass
class Plc:
    """The gateway and the PLC behind it."""

    core: gateway.Gateway
    identity: bytes
    hung_until_ns: int = 0
    waits: list[Callable[[], None]] = field(default_factory=list)
    """What came while it hung, in order."""
    deaf_until_ns: int = 0
    """Does not acknowledge until then."""


class World:
    """One run. `run()` returns how many parts there were, or raises `Broken`.

    `spaced`: parts stand no nearer to each other than the window, as the setting asks for, even where the belt has stood meanwhile.
    """

    spaced = True

    def __init__(
        self, seed: int, *, make: Callable[..., Arbiter] = Arbiter, make_gateway: Callable[..., gateway.Gateway] = gateway.Gateway
    ) -> None:
        self.random = Random(seed)
        self.gather = Random(~seed)
        self.gathers = self.gather.random() < 0.5  # a busy daemon: what vision says is heard in heaps
        self.heap_of_vision: list[core.Input] = []
        self.commit_ms = COMMIT_MS if self.gather.random() < 0.3 else 0  # a PASS waits until it is kept
        self.make, self.make_gateway = make, make_gateway
        self.knobs = Knobs.draw(self.random)
        self.now_ns = START_NS
        self.utc_ns = 1_790_000_000 * S
        self.heap: list[tuple[int, int, Callable[[], None]]] = []
        self.order = 0
        self.faulty = True
        self.fire = self.knobs.profile == "fire"
        if self.fire:
            self.commit_ms = 0
        self.travel_ms = FIRE_TRAVEL_MS if self.fire and self.gather.random() < 0.5 else TRAVEL_MS
        act_by_ms = self.travel_ms - ACTUATOR_MS - SCAN_MS - 40 - (LEASE_MS if self.fire else 0) - self.commit_ms
        self.act_by_ns = act_by_ms * MS
        self.act_counts = act_by_ms * COUNTS_PER_S // 1000
        self.lanes = list(range(self.knobs.lanes))
        self.cameras = {f"c{lane}{i}": lane for lane in self.lanes for i in range(self.knobs.cameras_per_lane)}
        # vision
        self.generation = self.heard = 0
        self.vision_up = False
        self.camera_seq = dict.fromkeys(self.cameras, 0)
        self.camera_up = dict.fromkeys(self.cameras, True)
        self.pictures: dict[tuple[str, int, int], Picture] = {}
        self.incomplete: set[tuple[str, int, int]] = set()
        self.last_picture: dict[str, Picture] = {}
        self.first_told: dict[str, int] = {}
        # belt
        self.parts: list[Part] = []
        self.belt_ns, self.belt_counts, self.belt_speed = START_NS, 0.0, 1.0
        self.last_at = dict.fromkeys(self.lanes, -1e9)
        self.encoder_off = 0
        self.on_lane = dict.fromkeys(self.lanes, 0)
        self.edges = dict.fromkeys(self.lanes, 0)
        self.shown: dict[tuple[int, int], Part] = {}
        self.at_plc: dict[tuple[int, int], Part] = {}
        self.programs = 0
        self.restarts: list[tuple[int, dict[tuple[int, int], Part]]] = []
        """When the PLC was restarted, by its own clock, and the parts that it has numbered since, until the gate hears of them."""
        # gate
        self.alive = False
        self.stalled_until_ns = 0
        self.inbox: list[core.Input] = []
        self.epoch_number = 0
        self.began = False
        self.disk: list[Record] = []
        self.unsynced: list[Record] = []
        self.epoch_of_disk: list[bytes] = []
        self.closed_epochs: set[bytes] = set()
        self.journal_bad_since_ns: int | None = None
        self.used: dict[tuple[bytes, str, int], bytes] = {}
        self.base_parts = dict.fromkeys(self.lanes, 0)
        # network
        self.links_down_until_ns = 0
        self.identities = 0
        self.to_gate_at_ns = self.to_plc_at_ns = 0
        self.up_delay_ns = self.down_delay_ns = 0
        self.plc = Plc(make_gateway(self._terms()), self._identity())
        self.plc_off_ns, self.plc_rate = 0, 1.0
        if self.knobs.plc_clock_off:
            self.plc_off_ns, self.plc_rate = self.random.randint(0, 1 << 50), 1 + self.random.uniform(-2e-4, 2e-4)
        self.passed_physically = 0
        self.permit_heard = False
        self.permit_off_ns = START_NS
        self.beat_said_ns = START_NS
        """When the last heartbeat that came was said, and whether it gave the permit."""
        self.beat_permits = False
        self.lapsed: tuple[bytes, int] | None = None
        """The epoch and session whose lease has run out."""
        self.permit_of: tuple[bytes, int] = b"", 0
        self.hello_of: dict[bytes, int] = {}
        self.peer_heard_ns: dict[bytes, int] = {}
        self.window: dict[bytes, dict[int, int]] = {}
        self.live_since_ns: int | None = None
        self._boot()

    # -- the scheduler

    def at(self, when_ns: int, what: Callable[[], None]) -> None:
        """Do something later (or now), in an order that only the seed decides."""
        self.order += 1
        heapq.heappush(self.heap, (max(when_ns, self.now_ns), self.order, what))

    def after(self, ms: float, what: Callable[[], None]) -> None:
        """Do something in so many milliseconds."""
        self.at(self.now_ns + int(ms * MS), what)

    def chance(self, probability: float) -> bool:
        """Whether a fault strikes now; never once the faults are off."""
        return self.faulty and probability > 0 and self.random.random() < probability

    def run(self) -> int:
        """Until every part is through and the line has run again without faults."""
        knobs = self.knobs
        span_ms = knobs.parts * knobs.period_ms
        for lane in self.lanes:
            self.after(500 + lane * knobs.period_ms / len(self.lanes), lambda lane=lane: self._part(lane))  # type: ignore[misc]
        for count, what in (
            (knobs.vision_deaths, self._kill_vision),
            (knobs.camera_outages, self._pull_camera),
            (knobs.gate_deaths, self._kill_gate),
            (knobs.stalls, self._stall),
            (knobs.link_resets, self._reset_link),
            (knobs.gateway_hangs, self._hang_plc),
            (knobs.silent_acks, self._deafen),
            (knobs.journal_outages, self._break_journal),
            (knobs.clock_jumps, self._jump_clock),
            (knobs.belt_stops, lambda: self._belt_runs(0.0, 300, 1500)),
            (knobs.belt_doubles, lambda: self._belt_runs(2.0, 500, 1500)),
            (knobs.belt_reversals, lambda: self._belt_runs(-1.0, 100, 300)),
            (knobs.encoder_jumps, self._jump_encoder),
            (knobs.plc_restarts, self._restart_plc),
            (knobs.link_delays, self._delay_link),
        ):
            for _ in range(count):
                self.after(300 + self.random.random() * span_ms, what)
        self.after(self.random.random() * 800 if knobs.late_hello else 0, self._plc_turn)
        self.after(50, self._wake)
        end_of_faults_ns = self.now_ns + int((span_ms + 1000) * MS)
        self.at(end_of_faults_ns, self._heal)
        while self.heap:
            when_ns, _, what = heapq.heappop(self.heap)
            self.now_ns = max(self.now_ns, when_ns)
            what()
            if self.live_since_ns is not None:
                break
            if self.now_ns > end_of_faults_ns + LIVE_AGAIN_NS:
                holds = dict(self.arbiter.holds) if self.alive else "dead"
                raise Broken(f"the line does not run again: {holds}, session {self.plc.core.session}, permit {self.permit_heard}")
        self._feed(core.Drain())
        self._feed(core.Stop())
        self._check_end()
        return len(self.parts)

    def _heal(self) -> None:
        self.faulty = False
        self.knobs = Knobs.calm(self.knobs)
        self.stalled_until_ns = self.plc.hung_until_ns = self.plc.deaf_until_ns = self.links_down_until_ns = 0
        self.up_delay_ns = self.down_delay_ns = 0
        self._belt_goes(1.0)
        for camera in self.cameras:
            if not self.camera_up[camera]:
                self._plug_camera(camera)
        if self.journal_bad_since_ns is not None:
            self._mend_journal()
        if not self.alive:
            self._boot()
        elif not self.vision_up:
            self._start_vision()

    # -- belt and sensor

    def _part(self, lane: int) -> None:
        near = self.spaced and 0 <= self._belt() - self.last_at[lane] < self.arbiter.settings.line.window_counts
        if self.belt_speed <= 0 or near:
            self.after(POSITION_MS, lambda: self._part(lane))
            return
        self.last_at[lane] = self._belt()
        part = Part(len(self.parts), lane, self.random.random() >= self.knobs.bad, self.now_ns, self._belt())
        self.parts.append(part)
        self.on_lane[lane] += 1
        if self.knobs.challenges and self.on_lane[lane] % self.knobs.challenges == 0:
            part.good, part.challenge = False, True
        if self.knobs.plc_counts:
            self.plc.core.plc_count[lane] = self.on_lane[lane]
        edges = 0 if self.chance(self.knobs.missed_edge) else 2 if self.chance(self.knobs.double_edge) else 1
        if self.knobs.count != "frames":
            for i in range(edges):
                self.edges[lane] += 1
                number = self.edges[lane]
                part.numbers.append(number)
                counts = self._counts() + 8 * i
                if self.knobs.count == "conveyor":
                    self.at(self.now_ns + 8 * i * MS, lambda n=number, c=counts, t=self.now_ns + 8 * i * MS: self._edge(part, n, c, t))  # type: ignore[misc]
                else:
                    self.at(self.now_ns + 8 * i * MS, lambda n=number, c=counts, p=self.programs: self._plc_edge(part, n, c, p))  # type: ignore[misc]
        for camera, at in self.cameras.items():
            if at == lane:
                self.after(self.random.random() * 4, lambda camera=camera: self._expose(camera, part))  # type: ignore[misc]
        self.after(self.travel_ms / self._fastest, lambda: self._arrive(part))
        wobble = self.random.randint(-3, 3)
        self.after(self.knobs.period_ms + wobble, lambda: self._part(lane))

    @property
    def _fastest(self) -> float:
        return 2.0 if self.knobs.belt_doubles or self.belt_speed > 1 else 1.0

    def _belt(self) -> float:
        """How far the belt has gone, in counts."""
        return self.belt_counts + self.belt_speed * (self.now_ns - self.belt_ns) * COUNTS_PER_S / S

    def _counts(self) -> int:
        """The encoder."""
        return int(self._belt()) + self.encoder_off

    def _belt_goes(self, speed: float) -> None:
        self.belt_counts, self.belt_ns, self.belt_speed = self._belt(), self.now_ns, speed

    def _belt_runs(self, speed: float, least_ms: int, most_ms: int) -> None:
        if self.faulty:
            self._belt_goes(speed)
            self.after(self.random.randint(least_ms, most_ms), lambda: self._belt_goes(1.0))

    def _jump_encoder(self) -> None:
        if self.faulty:
            self.encoder_off += JUMP_COUNTS

    def _arrive(self, part: Part) -> None:
        """At the ejector once the belt has gone so far."""
        left = part.at_belt + self.travel_ms - self._belt()
        if left > 1:
            self.after(max(1.0, left / self._fastest), lambda: self._arrive(part))
        else:
            self._eject(part)

    def _edge(self, part: Part, number: int, counts: int, at_ns: int) -> None:
        self.shown[part.lane, number] = part
        self._tell(core.Triggered(number, part.lane, at_ns, counts))

    def _plc_edge(self, part: Part, number: int, counts: int, program: int) -> None:
        if program != self.programs:
            return  # what would have counted it was restarted
        self.at_plc[part.lane, number] = part
        if self.restarts:
            self.restarts[-1][1][part.lane, number] = part
        else:
            self._is_shown(part.lane, number, part)
        self._to_gate(self.plc.core.trigger(self._plc_now(), part.lane, number, counts, challenge=part.challenge))

    def _is_shown(self, lane: int, number: int, part: Part) -> None:
        self.shown[lane, number] = part
        (self.challenges.add if part.challenge else self.challenges.discard)((lane, number))

    def _restart_plc(self) -> None:
        """The PLC's program begins anew, and with it the numbers of its parts; the gateway's goes on."""
        if not self.faulty:
            return
        self.programs += 1
        self.restarts.append((self._plc_now() // 1000 + 1, {}))
        self.at_plc.clear()
        self.edges.update(dict.fromkeys(self.edges, 0))
        self.on_lane.update(dict.fromkeys(self.on_lane, 0))
        self._to_gate(self.plc.core.recount(self._plc_now()))
        self._look_at_permit()

    def _eject(self, part: Part) -> None:
        """The part is at the ejector."""
        self._look_at_permit()
        slots = [slot for (lane, number), slot in self.plc.core.slots.items() if lane == part.lane and self._of_plc(lane, number) is part]
        if self.fire:
            told = any(slot.purged or (slot.decided and not slot.passes) for slot in slots)
            passes = not told and self.permit_off_ns < part.at_ns
        else:
            passes = any(slot.passes for slot in slots)
        if not passes:
            return
        self.passed_physically += 1
        if not part.good:
            told_of = [(slot.part_seq, slot.decided, slot.passes) for slot in slots]
            raise Broken(f"bad part {part.number} passed the ejector ({self.knobs.profile}), slots {told_of}")
        if not self.faulty and self.permit_heard and self.live_since_ns is None:
            self.live_since_ns = self.now_ns

    def _look_at_permit(self) -> None:
        """The PLC looks in every cycle, on its own clock, whether or not the gateway's program moves."""
        before, self.permit_heard = self.permit_heard, self.plc.core.permit(self._plc_now())
        if not self.permit_heard:
            self.permit_off_ns = self.now_ns
            if before and self.beat_permits:
                self.lapsed = self.permit_of
            return
        self.permit_of = self.plc.core.epoch, self.plc.core.session
        if self.permit_of == self.lapsed:
            raise Broken("the lease ran out, and the permit comes back without a WELCOME")
        if self.now_ns - self.beat_said_ns > (LEASE_MS + 1) * MS:
            raise Broken(f"permit although what was heard last was said {(self.now_ns - self.beat_said_ns) / MS:.0f} ms ago")

    def _plc_now(self) -> int:
        """The gateway's own monotonic clock."""
        return self.plc_off_ns + int((self.now_ns - START_NS) * self.plc_rate) + START_NS

    def _of_plc(self, lane: int, number: int) -> Part | None:
        """The part that the gateway calls so."""
        return self.at_plc.get((lane, number)) if self.knobs.count == "plc" else self.named(self.plc.core.epoch, lane, number)

    def named(self, epoch: bytes, lane: int, number: int) -> Part | None:
        """The part that the ledger calls so."""
        if self.knobs.count == "frames":
            return self.names.get((epoch, lane, number))
        return self.shown.get((lane, number))

    # -- cameras and vision

    def _expose(self, camera: str, part: Part) -> None:
        if not self.vision_up or not self.camera_up[camera]:
            return
        self.camera_seq[camera] += 1
        seq = self.camera_seq[camera]
        shows, at_ns, at_counts = part, self.now_ns, self._counts() + self.random.randint(-4, 4)
        before = self.last_picture.get(camera)
        if before is not None and self.chance(self.knobs.stale):
            shows, at_ns, at_counts = before.part, before.at_ns, before.at_counts  # an old buffer comes again
        picture = Picture(camera, seq, shows, part, at_ns, at_counts)
        self.pictures[camera, self.generation, seq] = picture
        if self.chance(self.knobs.lost):
            if self.random.random() < 0.5:  # told by the source with the next one; otherwise the ledger must see the jump itself
                generation = self.generation
                self.after(1, lambda: self._from_vision(generation, core.Lost(camera, seq, at_ns, at_counts)))
            return
        # Only a buffer delivered in its turn comes again: without a part sensor a lost one under a new number looks new.
        heard = not self.chance(self.knobs.unheard)
        swapped = self.chance(self.knobs.swapped)
        if heard and not swapped:
            self.last_picture[camera] = picture
        complete = not self.chance(self.knobs.incomplete)
        generation = self.generation
        delay_ms = 1 + self.random.random() * 5
        if swapped:
            delay_ms += self.knobs.period_ms * 1.2
        if self.chance(self.knobs.ahead) and at_ns == self.now_ns:  # a camera's clock that is ahead
            at_ns += self.random.randint(1, 400) * MS
            picture.at_ns = at_ns
        seen = core.Seen(camera, seq, at_ns, at_counts, complete, None)
        if heard:
            self.after(delay_ms, lambda: self._from_vision(generation, seen))
            if self.chance(self.knobs.repeated):
                self.after(delay_ms + 2, lambda: self._from_vision(generation, seen))
        judged_ms = delay_ms + 10 + self.random.random() * 80
        if self.chance(self.knobs.slow):
            judged_ms += self.random.choice((300, 430, 480, 600, 3000)) + self.random.random() * 60
        self.after(judged_ms, lambda: self._from_vision(generation, self._judge(picture, complete)))
        if self.chance(self.knobs.repeated):
            self.after(judged_ms + self.random.random() * 3, lambda: self._from_vision(generation, self._judge(picture, complete)))

    def _judge(self, picture: Picture, complete: bool) -> core.Input:
        name, seq = picture.camera, picture.seq
        if self.chance(self.knobs.dropped):
            return core.Dropped(name, seq, 206)
        if not complete and self.random.random() < 0.5:
            return core.Judged(name, seq, "unjudged", 202, "", b"{}")
        if self.chance(self.knobs.unjudged):
            return core.Judged(name, seq, "unjudged", self.random.choice((205, 211, 302, 0, 999)), "", b"{}")
        text = json.dumps({"findings": [{"check": "c", "value": 1.0}], "camera": {"cam_id": name, "frame_id": seq}})
        if self.chance(self.knobs.nan):
            text = self.random.choice((text.replace("1.0", "NaN"), text.replace("1.0", "1e999"), text[:-1], "[]"))
            return core.Judged(name, seq, "pass", 0, "", text.encode())
        if picture.part.good or (picture.part.challenge and self.chance(self.knobs.blind_challenge)):
            return core.Judged(name, seq, "pass", 0, "", text.encode())
        return core.Judged(name, seq, "fail", 101, "", text.encode())

    def _from_vision(self, generation: int, message: core.Input) -> None:
        if generation == self.generation and self.vision_up:
            self._tell(message)

    def _start_vision(self) -> None:
        if not self.alive or self.vision_up:
            return
        self.generation += 1
        self.vision_up = True
        self.camera_seq = dict.fromkeys(self.cameras, 0)
        self.last_picture.clear()
        self._tell(core.Attached("ab" * 32, [["net", "cd" * 32]], [str(self.generation)]))
        self._tell(core.Begin())
        for camera, up in self.camera_up.items():
            if not up:
                self._tell(core.CameraState(camera, False, "still out"))

    def _kill_vision(self) -> None:
        if self.vision_up:
            self.vision_up = False
            self._tell(core.Detached("killed"))
            self.after(300 + self.random.random() * 1000, self._start_vision)

    def _pull_camera(self) -> None:
        camera = self.random.choice(list(self.cameras))
        if self.faulty and self.camera_up[camera]:
            self.camera_up[camera] = False
            self._tell(core.CameraState(camera, False, "pulled"))
            self.after(100 + self.random.random() * 2000, lambda: self._plug_camera(camera))

    def _plug_camera(self, camera: str) -> None:
        if not self.camera_up[camera]:
            self.camera_up[camera] = True
            self._tell(core.CameraState(camera, True, ""))

    # -- the gate's process

    def _boot(self) -> None:
        """A new daemon: what is on the disk is all that it knows."""
        self.epoch_number += 1
        self.unsynced.clear()
        epoch = protocol.epoch(self.utc_ns + self.epoch_number * S, self.random.randbytes(10))
        knobs = self.knobs
        line = self._line()
        guards = Guards(challenge_every_s=CHALLENGE_EVERY_S if knobs.challenges else 0.0)
        settings = core.Settings("site", "line", "cell", line, knobs.profile, LEASE_MS, HB_MS, "sim", guards=guards)
        chain = {"q": protocol.NO_HASH, "a": protocol.NO_HASH}
        heads: dict[bytes, dict[str, int]] = {before: {"q": 0, "a": 0} for before in self.epoch_of_disk}
        for record in self.disk:
            chain[record.stream] = record.hash
            heads[record.header.epoch][record.stream] = record.header.seq
        epochs = [EpochHead(before, heads[before], before in self.closed_epochs) for before in self.epoch_of_disk]
        self.known_heads = {e.epoch: e.last for e in epochs}
        self.chain = dict(chain)
        self.seqs = {"q": 0, "a": 0}
        self.outcomes: dict[tuple[int, int], Verdict] = {}
        self.tally = dict.fromkeys(Verdict, 0)
        self.votes: dict[tuple[int, int], dict[str, int]] = {}
        self.triggered: dict[tuple[int, int], int] = {}
        self.names: dict[tuple[bytes, int, int], Part] = getattr(self, "names", {})
        self.frames_seen: dict[str, tuple[int, int]] = {}
        self.last_verdict_sent: dict[bytes, int] = {}
        self.window.clear()
        self.peer_heard_ns.clear()
        self.epoch_of_disk.append(epoch)
        self.arbiter = self.make(settings, epoch=epoch, now_ns=self.now_ns, chain=chain, epochs=epochs)
        self.alive = True
        self.stalled_until_ns = 0
        self.journal_bad_since_ns = None
        self.state_run = self.gate_vision = False
        self.gate_began = False
        self.gate_cameras_down: set[str] = set()
        self.challenges: set[tuple[int, int]] = getattr(self, "challenges", set())
        self.challenge_failed = False
        self.challenged_ns: int | None = None
        self.counts_off: dict[bytes, tuple[int | None, bool]] = {}
        self.counted_from: dict[bytes, dict[int, int]] = {}
        self.trigged: dict[bytes, set[int]] = {}
        self.positions: list[tuple[int, int]] = []
        self.peak_counts: int | None = None
        self.trigger_counts: dict[tuple[int, int], int] = {}
        self.void: set[tuple[int, int]] = set()
        self.position_ns = 0
        self.inbox.clear()
        self.heap_of_vision.clear()
        self._feed(core.Utc(self.utc_ns - self.now_ns, "ok"))
        self.after(200 + self.random.random() * 300, self._start_vision)

    def _line(self) -> Line:
        knobs = self.knobs
        travel_counts = self.travel_ms if knobs.encoder else None
        return Line(
            self.cameras,
            knobs.count,
            WINDOW_COUNTS,
            self.travel_ms,
            ACTUATOR_MS,
            SCAN_MS,
            travel_counts,
            fire_lease_ms=LEASE_MS if self.fire else 0,
            commit_ms=self.commit_ms,
        )

    def _kill_gate(self) -> None:
        if not self.faulty or not self.alive:
            return
        self.alive = self.vision_up = False
        if self.random.random() < 0.5:
            self._commit()
        if self.knobs.lying_disk and self.disk:
            del self.disk[-self.random.randint(1, min(5, len(self.disk))) :]
        self._forget_link()
        self.after(300 + self.random.random() * 1500, self._boot_again)

    def _boot_again(self) -> None:
        if not self.alive:
            self._boot()

    def _stall(self) -> None:
        if self.faulty and self.alive:
            self.stalled_until_ns = self.now_ns + int((0.2 + self.random.random() * 2) * S)

    def _wake(self) -> None:
        """The daemon's loop: whatever waits, and a tick at the latest when it is due."""
        next_ms = TURN_MS
        if self.alive and self.now_ns >= self.stalled_until_ns:
            if self.knobs.encoder and self.now_ns - self.position_ns >= POSITION_MS * MS:
                self.position_ns = self.now_ns
                self._feed(core.Position(self._counts()))
            items, self.inbox = self.inbox, []
            while items:
                self._feed(*(items.pop(0) for _ in range(self._together(items))))
            self._feed(core.Tick())
            due_ns = self.arbiter.due_ns() - self.now_ns
            next_ms = min(POSITION_MS if self.knobs.encoder else TURN_MS, max(1.0, due_ns / MS))
            if not self.unsynced or self.random.random() < 0.5:
                self._commit()
        self.after(next_ms, self._wake)

    def _together(self, items: list[core.Input]) -> int:
        """How many of what waits the daemon takes in one step: vision's words, up to so many."""
        if not self.gathers:
            return 1
        others = (place for place, item in enumerate(items) if not isinstance(item, _OF_VISION))
        return max(1, min(next(others, len(items)), HEARD_AT_ONCE))

    def _tell(self, item: core.Input) -> None:
        if not self.alive:
            return
        if self.gathers and isinstance(item, _OF_VISION):
            if not self.heap_of_vision:
                self.after(self.gather.random() * 8, self._hear_heap)
            self.heap_of_vision.append(item)
            return
        if isinstance(item, (core.Attached, core.Detached)):
            self._hear_heap()
        self._hand(item)

    def _hear_heap(self) -> None:
        items, self.heap_of_vision = self.heap_of_vision, []
        if items and self.alive:
            self._hand(*items)

    def _hand(self, *items: core.Input) -> None:
        if self.now_ns < self.stalled_until_ns or self.inbox:
            self.inbox += items
        else:
            self._feed(*items)

    def _commit(self) -> None:
        if self.journal_bad_since_ns is None or not self.faulty:
            self.disk += self.unsynced
            verdicts = [record.header for record in self.unsynced if record.stream == "q"]
            if self.commit_ms and verdicts:
                self.after(self.gather.random() * 5, lambda: self._kept(verdicts[-1].epoch, verdicts[-1].seq))
            self.unsynced.clear()

    def _kept(self, epoch: bytes, seq: int) -> None:
        if self.alive and epoch == self.arbiter.epoch:
            self._tell(core.Durable(seq))

    def _break_journal(self) -> None:
        if self.alive and self.faulty and self.journal_bad_since_ns is None:
            self._tell(core.JournalState(False, "disk full"))
            self.after(500 + self.random.random() * 9000, self._mend_journal)

    def _mend_journal(self) -> None:
        if self.alive:
            self._tell(core.JournalState(True, ""))

    def _jump_clock(self) -> None:
        if self.faulty:
            self.utc_ns += self.random.choice((-3600, 3600, -1, 1)) * S
            self._tell(core.Utc(self.utc_ns, "unsynced"))

    # -- network and PLC

    def _terms(self) -> gateway.Terms:
        return gateway.Terms(
            "plc",
            "cell",
            tuple(range(self.knobs.lanes)),
            self.knobs.profile,
            self.travel_ms,
            SCAN_MS,
            ACTUATOR_MS,
            LEASE_MS,
            self.random.choice((1, 4, 64)),
            HB_MS,
        )

    def _identity(self) -> bytes:
        self.identities += 1
        return b"g%d" % self.identities

    def _plc_turn(self) -> None:
        if self.now_ns >= self.plc.hung_until_ns:
            waits, self.plc.waits = self.plc.waits, []
            for heard in waits:
                heard()
            self._to_gate(self.plc.core.tick(self._plc_now()))
        self._look_at_permit()
        if not self.faulty and self.counts_off.get(self.plc.identity, (None, False))[1]:
            self._forget_link()  # whose count is right nobody knows: somebody looks, and the gateway begins anew
        self.after(10 if self.fire else 20, self._plc_turn)

    def _to_gate(self, messages: list[Frames]) -> None:
        for frames in messages:
            if frames[0] == b"ACK" and self.now_ns < self.plc.deaf_until_ns:
                continue
            arrives_ns = max(
                self.now_ns + int((0.2 + self.random.random()) * MS) + self.up_delay_ns, self.links_down_until_ns, self.to_gate_at_ns
            )
            self.to_gate_at_ns = arrives_ns
            identity = self.plc.identity
            self.at(arrives_ns, lambda frames=frames, identity=identity: self._arrive_gate(identity, self._maybe_broken(frames)))  # type: ignore[misc]

    def _arrive_gate(self, identity: bytes, frames: Frames) -> None:
        if identity == self.plc.identity and self.alive:
            self._tell(core.Received(identity, "", frames))

    def _to_plc(self, identity: bytes, frames: Frames) -> None:
        if identity != self.plc.identity:
            self.inbox.append(core.Unreachable(identity))
            return
        arrives_ns = max(
            self.now_ns + int((0.2 + self.random.random()) * MS) + self.down_delay_ns, self.links_down_until_ns, self.to_plc_at_ns
        )
        self.to_plc_at_ns = arrives_ns
        said_ns = self.now_ns
        self.at(arrives_ns, lambda: self._arrive_plc(identity, said_ns, self._maybe_broken(frames)))

    def _arrive_plc(self, identity: bytes, said_ns: int, frames: Frames) -> None:
        if identity != self.plc.identity:
            return
        if self.now_ns < self.plc.hung_until_ns or self.plc.waits:
            self.plc.waits.append(lambda: self._hear_plc(identity, said_ns, frames))
        else:
            self._hear_plc(identity, said_ns, frames)

    def _hear_plc(self, identity: bytes, said_ns: int, frames: Frames) -> None:
        if identity != self.plc.identity:
            return
        self._look_at_permit()
        if frames[0] == b"HB":
            self.beat_said_ns, self.beat_permits = said_ns, frames[1][56] == Verdict.PASS
        self._to_gate(self.plc.core.receive(self._plc_now(), frames))
        self.plc.core.happenings.clear()
        self._look_at_permit()

    def _maybe_broken(self, frames: Frames) -> Frames:
        if not self.chance(self.knobs.corrupt):
            return frames
        broken = [bytearray(frame) for frame in frames]
        frame = self.random.choice([f for f in broken if f])
        frame[self.random.randrange(len(frame))] ^= 1 << self.random.randrange(8)
        return [bytes(frame) for frame in broken]

    def _forget_link(self) -> None:
        """The connection breaks: what was on the way is gone, and the gateway comes back under another identity."""
        self.plc.identity = self._identity()
        self.to_gate_at_ns = self.to_plc_at_ns = 0

    def _reset_link(self) -> None:
        if self.faulty:
            if self.random.random() < 0.5:
                self._forget_link()
            else:
                self.links_down_until_ns = self.now_ns + int(self.random.random() * 1.5 * S)

    def _delay_link(self) -> None:
        """The network is slow for a while, one way or both, by always the same."""
        if self.faulty:
            delay_ns, way = int((0.05 + self.random.random() * 1.2) * S), self.random.choice(("up", "down", "both"))
            self.up_delay_ns, self.down_delay_ns = delay_ns * (way != "down"), delay_ns * (way != "up")
            self.after(300 + self.random.random() * 4000, self._hasten_link)

    def _hasten_link(self) -> None:
        self.up_delay_ns = self.down_delay_ns = 0

    def _hang_plc(self) -> None:
        if self.faulty:
            self.plc.hung_until_ns = self.now_ns + int(self.random.random() * 2 * S)

    def _deafen(self) -> None:
        if self.faulty:
            self.plc.deaf_until_ns = self.now_ns + int(self.random.random() * 1.5 * S)

    # -- the core, and what must hold

    def _feed(self, *items: core.Input) -> None:
        if not self.alive:
            return
        parts_before = {lane: self.arbiter.ledger.last_part(lane) for lane in self.lanes}
        for item in items:
            self._notice(item)
        out = self.arbiter.step(self.now_ns, *items)
        self._name(items, parts_before)
        for entry in out:
            if isinstance(entry, Record):
                self._check_record(entry)
                self.unsynced.append(entry)
        if isinstance(items[0], core.Received):
            self._check_hello(items[0], out)
        for entry in out:
            if isinstance(entry, Send):
                self._check_send(entry)
                self._to_plc(entry.identity, entry.frames)
        self._check_state()

    def _notice(self, item: core.Input) -> None:
        """What the world knows of the gate's world, by itself."""
        if isinstance(item, core.Attached):
            self.gate_vision = True
            self.heard = int(item.reasons[0])  # the generation of vision that the gate hears, which may be behind
            self.gate_cameras_down.clear()
            self.frames_seen.clear()
        elif isinstance(item, core.Detached):
            self.gate_vision = False
        elif isinstance(item, core.Begin):
            self.gate_began = True
            self.challenged_ns = self.now_ns
        elif isinstance(item, core.Position):
            self._notice_position(item.counts)
        elif isinstance(item, core.Drain):
            self.gate_vision = False
        elif isinstance(item, core.CameraState):
            (self.gate_cameras_down.discard if item.up else self.gate_cameras_down.add)(item.camera)
        elif isinstance(item, core.JournalState):
            if item.healthy:
                self.journal_bad_since_ns = None
            elif self.journal_bad_since_ns is None:
                self.journal_bad_since_ns = self.now_ns
        elif isinstance(item, core.Triggered):
            self.triggered.setdefault((item.lane, item.part_seq), min(item.at_ns, self.now_ns))
            if item.at_counts is not None:
                self.trigger_counts.setdefault((item.lane, item.part_seq), item.at_counts)
        elif isinstance(item, core.Seen):
            if not item.complete:
                self.incomplete.add((item.camera, self.heard, item.seq))
        elif isinstance(item, core.Judged):
            self._notice_vote(item)
        elif isinstance(item, core.Received) and len(item.frames) == 3:
            try:
                _, body = protocol.said(item.frames)
            except protocol.Refused:
                return
            if item.frames[0] in (b"HB", b"ACK", b"EXEC", b"TRIG", b"HELLO"):
                self.peer_heard_ns[item.identity] = self.now_ns
            if item.frames[0] == b"ACK" and body.get("epoch") == protocol.epoch_text(self.arbiter.epoch):
                self.window.setdefault(item.identity, {}).pop(int(body["seq"]), None)
            if item.frames[0] == b"TRIG" and str(body.get("part_seq", "")).isdigit() and body.get("lane") in self.lanes:
                key = body["lane"], int(body["part_seq"])
                self._notice_anew(item.identity, *key, int(body["gw_mono_us"]))
                self.triggered.setdefault(key, self.now_ns)
                self.trigger_counts.setdefault(key, body["encoder"])
            if item.frames[0] == b"HB" and item.identity in self.counted_from and isinstance(body.get("plc_count"), dict):
                self._notice_counts(item.identity, body["plc_count"])

    def _notice_anew(self, identity: bytes, lane: int, number: int, at_us: int) -> None:
        """The first TRIG of a session may have any number; the one of a restarted PLC is of another part than before."""
        while len(self.restarts) > 1 and at_us >= self.restarts[1][0]:
            del self.restarts[0]
        if self.restarts and at_us >= self.restarts[0][0]:
            last = self.arbiter.ledger.last_part(lane)
            anew = number <= last and identity in self.arbiter.sessions
            if anew and lane in self.trigged.get(identity, set()):
                if not self.knobs.corrupt:
                    raise Broken(f"lane {lane}: TRIG {number} of a restarted PLC in a session of before")
                self.counts_off[identity] = self.now_ns, True  # its BYE was damaged: the TRIG is no order, and there is no permit
                return
            coming = self.restarts[0][1]
            for key in [key for key in coming if key[0] == lane]:
                self._is_shown(*key, coming.pop(key))
            for known in (self.triggered, self.trigger_counts, self.outcomes):
                for key in [key for key in known if key[0] == lane and (anew or key[1] > last)]:
                    del known[key]
            self.void = {key for key in self.void if key[0] != lane or not (anew or key[1] > last)}
        trigged = self.trigged.setdefault(identity, set())
        if lane not in trigged and identity in self.arbiter.sessions:
            self.counted_from.get(identity, {}).pop(lane, None)
        trigged.add(lane)

    def _notice_position(self, counts: int) -> None:
        """Where the belt is, is not sure after it went back or jumped: of the parts known until then none may pass."""
        last = self.positions[-1][1] if self.positions else counts
        self.peak_counts = max(counts, self.peak_counts or counts)
        if self.peak_counts - counts > WINDOW_COUNTS or counts - last > JUMP_COUNTS // 2:
            self.void |= self.triggered.keys() - self.outcomes.keys()
            self.peak_counts = counts
            self.positions.clear()
        self.positions = [(at_ns, at) for at_ns, at in self.positions if self.now_ns - at_ns < S] + [(self.now_ns, counts)]

    def _notice_counts(self, identity: bytes, told: dict[str, int]) -> None:
        """The PLC's count and the gate's differ for a second: nobody knows whose is right."""
        base, off = self.counted_from[identity], False
        for name, count in told.items():
            apart = count - self.arbiter.ledger.last_part(int(name))
            off |= base.setdefault(int(name), apart) != apart
        since_ns, miscounted = self.counts_off.get(identity, (None, False))
        since_ns = (since_ns or self.now_ns) if off else None
        self.counts_off[identity] = since_ns, miscounted or (since_ns is not None and self.now_ns - since_ns > S)

    def _notice_vote(self, item: core.Judged) -> None:
        """A PASS of vision is a vote for the part that the picture shows, if it says nothing that is not finite."""
        picture = self.pictures.get((item.camera, self.heard, item.seq))
        if (item.camera, self.heard, item.seq) in self.incomplete:
            return
        if picture is None or item.decision != "pass" or item.reason:
            return
        try:
            protocol.loads(item.body)
        except protocol.Refused:
            return
        self.votes.setdefault((picture.part.number, self.heard), {}).setdefault(item.camera, self.now_ns)

    def _name(self, items: Sequence[core.Input], before: dict[int, int]) -> None:
        """With `count: frames` the exposures are the parts: one number for each, the missing ones included."""
        if self.knobs.count != "frames" or not self.gate_vision:
            return
        numbers = dict(before)
        for item in items:
            if not isinstance(item, (core.Seen, core.Lost)):
                continue
            lane = self.cameras[item.camera]
            first, count = self.frames_seen.get(item.camera, (item.seq, 0))
            fresh = max(0, item.seq - (first + count) + 1)
            if not fresh:
                continue  # came twice
            numbers[lane] += fresh
            self.frames_seen[item.camera] = first, item.seq - first + 1
            for i in range(fresh):
                picture = self.pictures.get((item.camera, self.heard, item.seq - i))
                if picture is not None:
                    self.names[self.arbiter.epoch, lane, numbers[lane] - i] = picture.present
            self.triggered[lane, numbers[lane]] = min(item.at_ns, self.now_ns)
        for lane, number in numbers.items():
            if self.arbiter.ledger.last_part(lane) != number:
                made = self.arbiter.ledger.last_part(lane) - before[lane]
                raise Broken(f"{number - before[lane]} exposures of lane {lane} made {made} parts")

    def _check_record(self, record: Record) -> None:
        header = record.header
        if header.epoch != self.arbiter.epoch or header.seq != self.seqs[record.stream] + 1:
            raise Broken(f"{record.stream} {header.seq} after {self.seqs[record.stream]}")
        self.seqs[record.stream] = header.seq
        digest = protocol.hash_of(record.head, record.payload, self.chain[record.stream])
        if digest is None or digest != record.hash or protocol.parse(record.head, record.payload) != header:
            raise Broken(f"the chain breaks at {record.stream} {header.seq}")
        self.chain[record.stream] = digest
        if self.used.setdefault((header.epoch, record.stream, header.seq), digest) != digest:
            raise Broken(f"number {header.seq} of {record.stream} is used twice")
        if header.kind == Kind.VERDICT:
            self._check_verdict(record)

    def _check_verdict(self, record: Record) -> None:
        header = record.header
        key = header.lane, header.part_seq
        if key in self.outcomes:
            raise Broken(f"part {key} has two outcomes")
        verdict = Verdict(header.verdict)
        self.outcomes[key] = verdict
        self.tally[verdict] += 1
        body = protocol.loads(record.payload)
        if body["verdict"] != verdict.name or (verdict is Verdict.PASS) != (header.reason == 0):
            raise Broken(f"header and payload of part {key} differ, or a PASS has a reason")
        if (record.r_seq is None) != (verdict is Verdict.PASS):
            raise Broken(f"part {key} is {verdict.name} and r_seq {record.r_seq}")
        told = {name: int(value) for name, value in body["counters"].items()}
        if told["triggers"] != told["pass"] + told["reject"] + told["not_inspected"] + told["pending"]:
            raise Broken(f"an event tells an account that does not add up: {told}")
        if key in self.challenges:
            if header.reason == Reason.CHALLENGE:
                self.challenge_failed = True
            elif verdict is Verdict.REJECT_DEFECT:
                self.challenge_failed, self.challenged_ns = False, self.now_ns
        if verdict is not Verdict.PASS:
            return
        if key in self.challenges:
            raise Broken(f"challenge part {key} passed")
        if key in self.void:
            raise Broken(f"PASS for part {key}, which was on a belt that went back or jumped")
        place = self.trigger_counts.get(key)
        if self.knobs.encoder and place is not None and self.positions and self.positions[-1][1] - place > self.act_counts:
            raise Broken(f"PASS for part {key} {self.positions[-1][1] - place} counts after its trigger")
        part = self.named(self.arbiter.epoch, *key)
        if part is None:
            raise Broken(f"PASS for {key}, which is no part")
        votes = self.votes.get((part.number, self.heard), {})
        for camera, lane in self.cameras.items():
            if lane == header.lane and camera not in votes:
                raise Broken(f"PASS for part {key} ({part.number}) without a PASS of {camera}")
        at_ns = self.triggered.get(key)
        if at_ns is None or self.now_ns > at_ns + self.act_by_ns:
            raise Broken(f"PASS for part {key} {(self.now_ns - (at_ns or 0)) / MS:.0f} ms after its trigger")

    def _check_end(self) -> None:
        """Every number that the ledger has ever reached in this epoch has its outcome."""
        for lane in self.lanes:
            numbers = sorted(number for at, number in self.outcomes if at == lane)
            if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
                raise Broken(f"lane {lane}: numbers without outcome between {numbers[0]} and {numbers[-1]}")
            if numbers and self.arbiter.ledger.last_part(lane) != numbers[-1]:
                raise Broken(f"lane {lane}: the last part has no outcome")

    def _check_hello(self, item: core.Received, out: list[core.Output]) -> None:
        if not any(isinstance(entry, Send) and entry.frames[0] == b"WELCOME" for entry in out):
            return
        self.trigged[item.identity] = set()
        self.counted_from[item.identity] = {}
        self.counts_off.pop(item.identity, None)
        last = protocol.loads(item.frames[2]).get("last", {}).get("q")
        alarm = any(isinstance(e, Record) and b'"code":"JOURNAL_ROLLBACK"' in e.payload for e in out)
        if last is None:
            return
        epoch, seq = protocol.epoch_bytes(last["epoch"]), int(last["seq"])
        head = self.known_heads.get(epoch, {}).get("q", 0) if epoch != self.arbiter.epoch else self.seqs["q"]
        if seq > head and not alarm and self.arbiter.alarms.get("JOURNAL_ROLLBACK", 0) < core.ALARM_BURST:
            raise Broken(f"a gateway has seen {seq}, the journal holds {head}, and nobody says so")

    def _check_send(self, sent: Send) -> None:
        name, head, payload = sent.frames
        if name == b"VERDICT":
            header = protocol.parse(head, payload)
            mine = self.window.setdefault(sent.identity, {})
            if header.ttl_us:
                mine[header.seq] = self.now_ns
            self.last_verdict_sent[sent.identity] = max(self.last_verdict_sent.get(sent.identity, 0), header.seq)
            credit = self.plc.core.terms.credit
            if len(mine) > credit + 1:
                raise Broken(f"{len(mine)} verdicts are under way, the credit is {credit}")
            if self.commit_ms and header.verdict == Verdict.PASS and header.ttl_us and not self._is_kept(header.epoch, header.seq):
                raise Broken(f"PASS {header.seq} was sent before it was kept")
            if header.ttl_us > self.act_by_ns // 1000 + 20_000 + 1000 * self.commit_ms:
                raise Broken(f"verdict {header.seq} may be acted on for {header.ttl_us} µs")
            if self.used.get((header.epoch, "q", header.seq)) is None:
                raise Broken(f"verdict {header.seq} was sent and is no event")
        elif name == b"WELCOME":
            self.window[sent.identity] = {}  # what went out before it in the same step was the session's before
        elif name == b"HB":
            header = protocol.parse(head, payload)
            if header.verdict == Verdict.PASS:
                self._check_permit(sent.identity)

    def _is_kept(self, epoch: bytes, seq: int) -> bool:
        return any(record.stream == "q" and (record.header.epoch, record.header.seq) == (epoch, seq) for record in reversed(self.disk))

    def _check_permit(self, identity: bytes) -> None:
        bad_ns = self.journal_bad_since_ns
        faults = {
            "vision is gone, or the line has not begun": not (self.gate_vision and self.gate_began),
            f"cameras are down: {self.gate_cameras_down}": bool(self.gate_cameras_down),
            "the journal has failed for 5 s": bad_ns is not None and self.now_ns - bad_ns >= 5 * S,
            "the gateway is silent": self.now_ns - self.peer_heard_ns.get(identity, 0) > LEASE_MS * MS,
            "a verdict was not confirmed in time": any(
                self.now_ns - at_ns > self.act_by_ns + (40 + self.commit_ms) * MS for at_ns in self.window.get(identity, {}).values()
            ),
            "the PLC has counted otherwise": self.counts_off.get(identity, (None, False))[1],
            "a challenge part was not found bad": self.challenge_failed,
            "no challenge part was found bad for long": bool(self.knobs.challenges)
            and (self.challenged_ns is None or self.now_ns - self.challenged_ns > CHALLENGE_EVERY_S * S + 50 * MS),
            "the belt is too fast": self._too_fast(),
        }
        wrong = [text for text, is_so in faults.items() if is_so]
        if wrong:
            raise Broken(f"permit although {'; '.join(wrong)}")

    def _too_fast(self) -> bool:
        """In each of the last two fifths of a second, as far as the gate was told; where it stood still for longer nobody can say."""
        if not self.positions:
            return False
        now_ns, counts = self.positions[-1]
        for _ in range(2):
            before = [(at_ns, at) for at_ns, at in self.positions if now_ns - at_ns >= 210 * MS]
            if not before or now_ns - before[-1][0] > 300 * MS or (counts - before[-1][1]) * MS < 1.8 * (now_ns - before[-1][0]):
                return False
            now_ns, counts = before[-1]
        return True

    def _check_state(self) -> None:
        counters = self.arbiter.ledger.counters
        if counters.unexplained:
            raise Broken(f"{counters.unexplained} parts are unexplained")
        not_inspected = self.tally[Verdict.REJECT_NOT_INSPECTED]
        others = sum(self.tally.values()) - self.tally[Verdict.PASS] - not_inspected
        if (counters.passed, counters.not_inspected, counters.reject) != (self.tally[Verdict.PASS], not_inspected, others):
            raise Broken(f"{counters} is not what was told: {self.tally}")
        for gateway_session in self.arbiter.sessions.values():
            if len(gateway_session.queue) + len(gateway_session.sent) > LARGEST_SESSION:
                raise Broken("a session's queue has no bound")
        oldest_ns = self.arbiter.ledger.oldest_pending_ns()
        if oldest_ns is not None and self.now_ns - oldest_ns > self.act_by_ns + 100 * MS and self.now_ns >= self.stalled_until_ns:
            raise Broken(f"a part is open {(self.now_ns - oldest_ns) / MS:.0f} ms after its trigger")
        if counters.pending > 200:
            raise Broken(f"{counters.pending} parts are pending")


def run(seed: int, **made: Any) -> int:
    """One run; how many parts it saw."""
    return World(seed, **made).run()
