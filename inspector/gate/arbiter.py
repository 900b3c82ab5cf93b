"""The one place where verdicts are made: `step(now, input) → outputs`, with no thread, socket, file or clock inside.

Every step first closes what is overdue, so that nothing that waited in a buffer (a process that was stopped, a late judgement) can still
become a PASS; then it takes its input; then it looks at the permit. Outputs are messages to gateways, events to journal and publish,
and rows for the journal. The heartbeat is made here and nowhere else: if this loop does not run, no gateway hears a permit.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from inspector.gate import protocol, session, told
from inspector.gate.guards import LATCHED, Guards, Watch
from inspector.gate.ledger import Closed, Counters, Crowded, Late, Ledger, Line, Mismatch, Note, Vote
from inspector.gate.protocol import Flag, Frames, Header, Kind, Refused
from inspector.gate.said import read as read_said
from inspector.gate.session import Order, Refusal, Session
from inspector.records import Decision, Reason, Verdict

JOURNAL_GRACE_NS: Final = 5_000_000_000
EXEC_LIMIT_NS: Final = 2_000_000_000
COUNT_LIMIT_NS: Final = 1_000_000_000
LOOK_EVERY_NS: Final = 1_000_000
"""How often sessions are looked after: what is sent again, what was never confirmed, who is silent."""
SESSION_DEAD_LEASES: Final = 10
LARGEST_FAULTS_PER_MINUTE: Final = 20
MINUTE_NS: Final = 60_000_000_000
SPEED_NS: Final = 200_000_000
UNWATCHED_NS: Final = 300_000_000
"""So long after the last look at the encoder the belt may be where it was by way of another place."""
TREMBLE_SHARE: Final = 10
"""A standing belt may tremble by this part of the window."""
SKEW_SHARE: Final = 4
"""By this part of the window the PLC and we may read the encoder differently."""
SECOND_NS: Final = 1_000_000_000
ALARM_BURST: Final = 50
ALARMS_PER_S: Final = 10
_REMEMBERED: Final = 4096
_RECIPES: Final = 8
_TOLD: Final = frozenset({"preparing", "in_force", "refused", "rolled_back"})
"""What gateways are told of a changeover."""
_CHANGES: Final[Mapping[str, tuple[str, str]]] = {
    "in_force": ("RECIPE", "info"),
    "refused": ("CONFIG_REFUSED", "warning"),
    "rolled_back": ("RECIPE_ROLLED_BACK", "critical"),
    "shadow": ("SHADOW", "info"),
    "shadow_ended": ("SHADOW", "info"),
}
"""The alarm that tells everybody else."""
_UNCONFIRMED: Final = "UNCONFIRMED"


class State(Enum):
    """Of the daemon; the OPC 40100-1 and PackML states it stands for are in PROTOCOL.md §5."""

    BOOT = "BOOT"
    SELFTEST = "SELFTEST"
    READY = "READY"
    RUN = "RUN"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the arbiter knows of its line; `journal_stops`: a journal that fails withdraws the permit."""

    site: str
    line_name: str
    station: str
    line: Line
    profile: str
    lease_ms: int
    hb_ms: int
    app_version: str
    journal_stops: bool = True
    guards: Guards = field(default_factory=Guards)


# --- what comes in -----------------------------------------------------------------------------------------------------


class Tick(NamedTuple):
    """Nothing but time has passed."""


class Attached(NamedTuple):
    """Vision is ready with this recipe; `models` are (name, sha256)."""

    recipe: str
    models: Sequence[Sequence[str]]
    reasons: Sequence[str]


class Reloaded(NamedTuple):
    """Vision has read its recipe again; `refused` says why it keeps the old one, empty when it does not."""

    recipe: str
    models: Sequence[Sequence[str]]
    reasons: Sequence[str]
    refused: str


class Changed(NamedTuple):
    """Something happened about a changeover, as `runtime.link.Changed` tells it."""

    what: str
    request: str
    recipe: str
    models: Sequence[Sequence[str]]
    reasons: Sequence[str]
    cameras: Mapping[str, Sequence[Any]]
    text: str = ""
    shadow: Mapping[str, Any] | None = None


class Detached(NamedTuple):
    """Vision is gone."""

    text: str


class Seen(NamedTuple):
    """An exposure arrived in vision, whole or not: the part exists from here on."""

    camera: str
    seq: int
    at_ns: int
    at_counts: int | None
    complete: bool
    uid: str | None


class Lost(NamedTuple):
    """The exposure `seq` never arrived in vision; time and position are those of the exposure that showed the gap."""

    camera: str
    seq: int
    at_ns: int
    at_counts: int | None


class Dropped(NamedTuple):
    """An exposure gave way before it was judged; `reason` is a `records.Reason`."""

    camera: str
    seq: int
    reason: int


class Judged(NamedTuple):
    """Vision's word on an exposure; `decision` is a `records.Decision` value.

    `body` is the JSON text of an object with the fields that vision adds to the event: findings, defects, camera (one entry of
    `cameras`), timing_ms, pose, image_ref, part_uid, recipe (PROTOCOL.md §4).
    """

    camera: str
    seq: int
    decision: str
    reason: int
    reason_text: str
    body: bytes


class CameraState(NamedTuple):
    """A camera went down, or came back."""

    camera: str
    up: bool
    text: str


class Triggered(NamedTuple):
    """The part sensor fired."""

    part_seq: int
    lane: int
    at_ns: int
    at_counts: int | None


class Position(NamedTuple):
    """The encoder stands here."""

    counts: int


class EncoderState(NamedTuple):
    """The encoder, or the part sensor, cannot be read (`trouble` says why), or can again (empty)."""

    trouble: str


class Utc(NamedTuple):
    """UTC minus monotonic time, and how far it can be trusted: ok, holdover or unsynced."""

    offset_ns: int
    clock_state: str


class Received(NamedTuple):
    """A message at the gate socket, without its identity frame; `user` is who CURVE says it is, empty without CURVE."""

    identity: bytes
    user: str
    frames: Frames


class Unreachable(NamedTuple):
    """A message to this identity could not be sent."""

    identity: bytes


class JournalState(NamedTuple):
    """Whether the journal is durable now; `text` says why not."""

    healthy: bool
    text: str


class Durable(NamedTuple):
    """Verdicts to this seq are on the disk; told where a PASS waits for that (`Line.commit_ms`)."""

    seq: int


class Begin(NamedTuple):
    """The line runs from now on."""


class Drain(NamedTuple):
    """No new parts; what is open is finished."""


class Stop(NamedTuple):
    """The end: close everything."""


class Ages(NamedTuple):
    """Milliseconds since each worker's last step, for the heartbeat."""

    ages_ms: Mapping[str, float]


class Allowed(NamedTuple):
    """Who may have a session from now on, by CURVE user; sessions of others end."""

    users: frozenset[str]


class Guarded(NamedTuple):
    """These limits hold from now on."""

    guards: Guards


class Reset(NamedTuple):
    """A person has looked at what latched the permit off: these of `guards.LATCHED`, or all of them where none is named."""

    names: Sequence[str]


class Challenge(NamedTuple):
    """The next part of this lane is one that is known to be bad."""

    lane: int


class Anchored(NamedTuple):
    """Where the journal's chains end, for gateways to keep: who changes the journal cannot change what they have."""

    line: str


class Report(NamedTuple):
    """Something that another part of the daemon has to say as an alarm."""

    code: str
    severity: str
    text: str


Input: TypeAlias = (
    Tick | Attached | Reloaded | Changed | Detached | Seen | Lost | Dropped | Judged | CameraState | Triggered | Position | Utc | Received
    | Unreachable | EncoderState | JournalState | Begin | Drain | Stop | Ages | Allowed | Guarded | Reset | Challenge | Anchored
    | Report | Durable
)  # fmt: skip
"""Everything that can happen."""


# --- what goes out -----------------------------------------------------------------------------------------------------


class Send(NamedTuple):
    """A message to a gateway."""

    identity: bytes
    frames: Frames


class Record(NamedTuple):
    """An event, to be journalled and then published; `r_seq` is its number in stream r, or None."""

    stream: str
    header: Header
    head: bytes
    payload: bytes
    hash: bytes
    r_seq: int | None
    deadline_ns: int


class Executed(NamedTuple):
    """What a gateway says became of a part."""

    seq: int
    lane: int
    part_seq: int
    outcome: str
    encoder: int | None


class Acked(NamedTuple):
    """A gateway has confirmed everything up to `seq`."""

    client: str
    seq: int


class Returned(NamedTuple):
    """A gateway gives back a copy of an event that this journal does not have."""

    client: str
    head: bytes
    payload: bytes


class Select(NamedTuple):
    """A gateway wants this recipe (name or number) for the cameras of these lanes; `request` comes back with `Changed`."""

    request: str
    recipe: str | int
    lanes: list[int]


Output: TypeAlias = Send | Record | Executed | Acked | Returned | Select
"""Everything that can come of it."""

OUTCOMES: Final = frozenset({"EJECTED_CONFIRMED", "EJECTED_UNCONFIRMED", "PASSED", "DEFAULT_REJECT", "BIN_FULL", "AIR_LOW", "TEST_OK"})
"""What EXEC can say."""
_OF_LANES: Final = frozenset({"BIN_FULL", "AIR_LOW", "TEST_OK"})
"""What it says of the gateway's lanes, with or without a part."""
_ANSWERED: Final = {
    "ack": "E_ACK", "state": "E_STATE", "order": "E_ORDER", "range": "E_RANGE", "field": "E_FIELD", "dup": "E_DUP", "unknown": "E_RANGE",
    "epoch": "E_EPOCH",
}  # fmt: skip
"""The code of REFUSE for a message that is none, by what is wrong with it; other faults are only counted."""


class EpochHead(NamedTuple):
    """What the journal holds of an epoch: the last seq of each stream, and whether it was closed."""

    epoch: bytes
    last: Mapping[str, int]
    closed: bool


class Status(NamedTuple):
    """What others may look at while the arbiter works: made anew at each change, never changed."""

    state: str
    permit: bool
    holds: tuple[str, ...]
    counters: Counters
    heads: Mapping[str, int]
    sessions: tuple[str, ...]


class _Done(NamedTuple):
    seq: int
    verdict: Verdict
    lane: int
    part_seq: int
    exec_by_ns: int


class Arbiter:
    """The state of one epoch. `step` is the only door; the attributes are for reading."""

    def __init__(
        self,
        settings: Settings,
        *,
        epoch: bytes,
        now_ns: int,
        chain: Mapping[str, bytes],
        epochs: Sequence[EpochHead] = (),
        utc_offset_ns: int = 0,
    ) -> None:
        self.settings, self.epoch = settings, epoch
        self.ledger = Ledger(settings.line)
        self.state = State.BOOT
        self.sessions: dict[bytes, Session] = {}
        self.heads = {"q": 0, "r": 0, "a": 0}
        self.faults: dict[str, int] = {}
        self.alarms: dict[str, int] = {}
        self.late = self.resent = self.unconfirmed = 0
        self._epoch_text = protocol.epoch_text(epoch)
        self._form = told.Form(
            site=settings.site, line_name=settings.line_name, station=settings.station, line=settings.line, epoch=self._epoch_text,
            app_version=settings.app_version,
        )  # fmt: skip
        self._chain = {"q": chain.get("q", protocol.NO_HASH), "a": chain.get("a", protocol.NO_HASH)}
        self._epochs = tuple(epochs)
        self._holds: dict[str, str] = {"state": "BOOT"}
        self._permits: dict[bytes, bool] = {}
        self._utc_offset_ns, self._clock_state = utc_offset_ns, "unsynced"
        self._recipe = ""
        self._recipes: dict[str, dict[str, Any]] = {}
        self._models: tuple[Mapping[str, str], ...] = ()
        self._models_of: dict[str, tuple[Mapping[str, str], ...]] = {}
        self._position: int | None = None
        self._wrap_counts = settings.line.wrap_counts
        self._belt: tuple[int, int] | None = None
        self._furthest: int | None = None
        self._furthest_ns = 0
        """When the belt was last seen there."""
        self._looked_ns: int | None = None
        self._came_by: deque[tuple[int, int]] = deque(maxlen=256)
        """When the belt was first seen where, newest last."""
        self._journal_bad_since_ns: int | None = None
        self._journal_text = ""
        self._durable = 0 if settings.line.commit_ms else None
        self._ages: Mapping[str, float] = {}
        self._anchor = ""
        self._done: OrderedDict[int, _Done] = OrderedDict()
        self._bad_frames: OrderedDict[bytes, list[int]] = OrderedDict()
        self._look_at_ns = now_ns
        self._tokens: dict[str, tuple[float, int]] = {}
        self._suppressed: dict[str, int] = {}
        self._session_count = 0
        self._allowed: frozenset[str] | None = None
        self._out: list[Output] = []
        self._watch = Watch(settings.guards)
        self._blind: dict[str, int] = {}
        self._challenged_ns: int | None = None
        self._began = self._attached = self._closed = False
        self._faulty: dict[int, str] = {}
        """By lane: what withholds the permit until TEST_OK whoever has the session (BIN_FULL, AIR_LOW, REJECT_PASSED), or until an ACK."""
        self._waits: set[Any] = set()
        self._unserved: set[int] = set()
        self._handlers: dict[type, Any] = {
            Tick: self._on_tick, Attached: self._on_attached, Reloaded: self._on_reloaded, Changed: self._on_changed,
            Detached: self._on_detached,
            Seen: self._on_seen, Lost: self._on_lost, Dropped: self._on_dropped, Judged: self._on_judged,
            CameraState: self._on_camera, Triggered: self._on_triggered, Position: self._on_position, Utc: self._on_utc,
            Received: self._on_received, Unreachable: self._on_unreachable, JournalState: self._on_journal, Begin: self._on_begin,
            Drain: self._on_drain, Stop: self._on_stop, Ages: self._on_ages,
            Allowed: self._on_allowed, Guarded: self._on_guarded, Reset: self._on_reset, Challenge: self._on_challenge,
            EncoderState: self._on_encoder, Anchored: self._on_anchored, Report: self._on_report, Durable: self._on_durable,
        }  # fmt: skip
        self._state_event(now_ns)

    # -- the door

    def step(self, now_ns: int, *items: Input) -> list[Output]:
        """What comes of `items` at this moment: what is to be sent stands before what is to be kept."""
        if self._closed:
            return []  # after the epoch's last event there is no other
        notes = self.ledger.close_due(now_ns, self._position)
        if notes:
            self._notes(now_ns, notes)
        for item in items:
            if not self._closed:
                self._handlers[type(item)](now_ns, item)
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_EVERY_NS
            self._sessions(now_ns)
        self._hold_for_world(now_ns)
        self._heartbeats(now_ns)
        out, self._out = self._out, []
        if len(out) < 2:
            return out
        return [o for o in out if type(o) is Send] + [o for o in out if type(o) is not Send]

    def due_ns(self) -> int:
        """When the next step must come at the latest."""
        due = max(self._look_at_ns, min((s.due_ns() for s in self.sessions.values()), default=1 << 62))
        part = self.ledger.due_ns()
        return due if part is None else min(due, part)

    def status(self) -> Status:
        """A picture of now."""
        return Status(
            self.state.value,
            self.permit,
            tuple(self._holds),
            self.ledger.counters,
            dict(self.heads),
            tuple(s.hello.client for s in self.sessions.values()),
        )

    @property
    def permit(self) -> bool:
        """Every lane has a gateway that may let parts pass."""
        served = {lane for identity, s in self.sessions.items() if self._permits.get(identity) for lane in s.hello.lanes}
        return not self._holds and all(lane in served for lane in self.ledger.lanes())

    @property
    def recipe(self) -> str:
        """The digest of the recipe in force, as vision last told it."""
        return self._recipe

    @property
    def holds(self) -> Mapping[str, str]:
        """What withholds the permit from every gateway, by name, with the reason in words."""
        return self._holds

    def withheld(self, now_ns: int) -> dict[str, str]:
        """What withholds the permit from one gateway only, by its name, and the lanes that no gateway serves; safe from any thread."""
        sessions = tuple(self.sessions.values())
        found: dict[str, str] = {}
        for gateway in sessions:
            lanes = gateway.hello.lanes
            faulty = [f"lane {lane}: {why}" for lane, why in self._faulty.copy().items() if lane in lanes and why != _UNCONFIRMED]
            late = gateway.unconfirmed or any(self._faulty.get(lane) == _UNCONFIRMED for lane in lanes)
            why = [
                *(["it is silent"] if not gateway.fresh(now_ns) else []),
                *(["its PLC has counted other parts than we have; a new HELLO begins anew"] if gateway.miscounted else []),
                *(["verdicts passed their deadline without its ACK"] if late else []),
                *([f"{', '.join(faulty)}; EXEC TEST_OK ends it"] if faulty else []),
            ]
            if why:
                found[gateway.hello.client] = "; ".join(why)
        served = {lane for gateway in sessions for lane in gateway.hello.lanes}
        return found | {f"lane {lane}": "no gateway serves it" for lane in self.ledger.lanes() if lane not in served}

    # -- vision

    def _on_tick(self, now_ns: int, item: Tick) -> None:
        pass

    def _on_ages(self, now_ns: int, item: Ages) -> None:
        self._ages = item.ages_ms

    def _on_allowed(self, now_ns: int, item: Allowed) -> None:
        self._allowed = item.users
        for identity, gateway in list(self.sessions.items()):
            if gateway.user not in item.users:
                self._out.append(Send(identity, protocol.command("REFUSE", {"code": "E_AUTH", "text": "no longer on the list"})))
                self._close(now_ns, identity)
                self._alarm(now_ns, "GATEWAY_LOST", "critical", f"{gateway.hello.client} is no longer on the list of clients")

    def _on_anchored(self, now_ns: int, item: Anchored) -> None:
        self._anchor = item.line

    def _on_durable(self, now_ns: int, item: Durable) -> None:
        self._durable = item.seq
        for identity, gateway in self.sessions.items():
            self._out += [Send(identity, frames) for frames in gateway.kept(now_ns, item.seq)]

    def _on_report(self, now_ns: int, item: Report) -> None:
        self._alarm(now_ns, item.code, item.severity, item.text)

    def _in_force(self, recipe: str, models: Sequence[Sequence[str]]) -> None:
        """This recipe judges from now on; what was judged by the ones before is still told with their models."""
        self._learn(recipe, models)
        self._recipe, self._models = recipe, self._models_of[recipe]

    def _learn(self, recipe: str, models: Sequence[Sequence[str]]) -> None:
        self._models_of.pop(recipe, None)
        self._models_of[recipe] = tuple({"name": name, "sha256": digest} for name, digest, *_ in models)
        while len(self._models_of) > _RECIPES:
            del self._models_of[next(iter(self._models_of))]

    def _on_attached(self, now_ns: int, item: Attached) -> None:
        if self._attached and item.recipe != self._recipe:
            text = f"vision was started again, and what it read is recipe {item.recipe[:12]}, not {self._recipe[:12]}: a file was changed"
            self._hold(now_ns, "recipe", text, "RECIPE_CHANGED")
        self._in_force(item.recipe, item.models)
        if self.state in (State.DRAINING, State.STOPPED):
            return
        again, self._attached = self._attached, True
        if again:
            self._rebase(now_ns, self.ledger.lanes(), "vision was gone: parts that nobody saw have no number")
        self.ledger.present()
        self._blind.clear()
        for name in [name for name in self._holds if name.startswith(("camera:", "blind:"))]:
            self._release(now_ns, name)
        self._become(now_ns, State.RUN if self._began else State.READY)

    def _on_reloaded(self, now_ns: int, item: Reloaded) -> None:
        self._in_force(item.recipe, item.models)
        if item.refused:
            self._alarm(now_ns, "CONFIG_REFUSED", "warning", f"the recipe in force stays: {item.refused}")
        else:
            self._alarm(now_ns, "CONFIG", "info", f"recipe {item.recipe[:12]} from here on")
            self._release(now_ns, "recipe")

    def _on_changed(self, now_ns: int, item: Changed) -> None:
        if item.what == "ready":
            self._learn(item.recipe, item.models)
            return
        if item.recipe != self._recipe:
            self._in_force(item.recipe, item.models)
        before, self._recipes = self._recipes, self._recipes_of(item.cameras)
        if item.what == "in_force":
            self._release(now_ns, "recipe")
        if item.what in _CHANGES:
            names = ", ".join(f"lane {lane}: {each['name']}" for lane, each in self._recipes.items())
            text, (code, severity) = item.text or names, _CHANGES[item.what]
            self._alarm(now_ns, code, severity, text, extra={"recipes": self._recipes, "config_sha256": item.recipe})
        for identity, gateway in self.sessions.items():
            if gateway.hello.recipes and (item.what in _TOLD or self._recipes != before):
                self._out.append(Send(identity, protocol.command("RECIPE", self._recipe_body(gateway, item))))

    def _recipes_of(self, cameras: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
        """By lane: the recipe that its cameras have, name and number; of cameras that differ the names, and no number."""
        found: dict[str, dict[str, Any]] = {}
        for camera, lane in self.settings.line.cameras.items():
            name, number = cameras.get(camera, ("", None))
            have = found.setdefault(str(lane), {"name": name, "number": number})
            if have["name"] != name:
                found[str(lane)] = {"name": f"{have['name']}+{name}", "number": None}
        return found

    def _recipe_body(self, gateway: Session, item: Changed) -> dict[str, Any]:
        asked_by, _, its_id = item.request.partition(".")
        state = item.what if item.what in _TOLD else "in_force"
        return {
            "state": state,
            "id": its_id if asked_by == str(gateway.number) else None,
            "recipes": {str(lane): self._recipes[str(lane)] for lane in gateway.hello.lanes if str(lane) in self._recipes},
            "config_sha256": item.recipe,
            "text": told.cut(item.text, 200),
        }

    def _on_detached(self, now_ns: int, item: Detached) -> None:
        if self.state is State.STOPPED:
            return
        self._notes(now_ns, self.ledger.absent(Reason.STAGE_DEAD, item.text))
        if self.state is not State.DRAINING:
            self._become(now_ns, State.ERROR)
            self._alarm(now_ns, "STAGE_DEAD", "critical", item.text)

    def _on_begin(self, now_ns: int, item: Begin) -> None:
        self._began = True
        self._challenged_ns = now_ns
        if self.state is State.READY:
            self._become(now_ns, State.RUN)

    def _on_drain(self, now_ns: int, item: Drain) -> None:
        if self.state in (State.DRAINING, State.STOPPED):
            return
        self.ledger.refuse(Reason.DRAINING, "the line is being stopped")
        self._become(now_ns, State.DRAINING)

    def _on_stop(self, now_ns: int, item: Stop) -> None:
        if self.state is State.STOPPED:
            return
        self._notes(now_ns, self.ledger.absent(Reason.DRAINING, "the daemon stops"))
        self._become(now_ns, State.STOPPED)
        self._heartbeats(now_ns, at_once=True)
        for stream in ("q", "a"):
            self._event(now_ns, stream, Kind.EPOCH_CLOSE, {"schema": "insp.epoch_close", "counters": told.texts(self.ledger.counters)})
        for identity in self.sessions:
            self._out.append(Send(identity, protocol.command("BYE", {"text": "the daemon stops"})))
        self.sessions.clear()
        self._permits.clear()
        self._closed = True

    def _on_seen(self, now_ns: int, item: Seen) -> None:
        camera, seq, at_ns, at_counts, complete, uid = item
        if self._wrap_counts is not None:
            at_counts = self._near(at_counts)
        self._notes(now_ns, self.ledger.seen(now_ns, camera, seq, at_ns, at_counts, complete=complete, uid=uid))

    def _on_lost(self, now_ns: int, item: Lost) -> None:
        self._notes(now_ns, self.ledger.lost(now_ns, item.camera, item.seq, item.at_ns, self._near(item.at_counts)))

    def _on_dropped(self, now_ns: int, item: Dropped) -> None:
        vote = Vote(Decision.UNJUDGED, item.reason, f"exposure {item.seq} of {item.camera} gave way")
        self._notes(now_ns, self.ledger.judged(now_ns, item.camera, item.seq, vote))

    def _on_judged(self, now_ns: int, item: Judged) -> None:
        camera, seq, decision, reason, text, body = item
        try:
            vote = Vote(_DECISIONS[decision], reason, text, read_said(body))
        except (Refused, KeyError, TypeError) as error:  # NaN, infinity, no JSON, no decision: it must not pass
            vote = Vote(Decision.UNJUDGED, Reason.NON_FINITE, f"{camera}: what vision says cannot be read: {error}")
        if camera in self.settings.line.cameras:
            self._see(now_ns, camera, text, blind=vote.reason in _BLIND)
        self._notes(now_ns, self.ledger.judged(now_ns, camera, seq, vote))

    def _see(self, now_ns: int, camera: str, text: str, *, blind: bool) -> None:
        """Too many pictures in a row that could not be judged hold the permit, and one that could gives it back."""
        if not blind:
            self._blind[camera] = 0
            if self._holds:
                self._release(now_ns, f"blind:{camera}")
            return
        times = self._blind[camera] = self._blind.get(camera, 0) + 1
        limit = self._watch.guards.blind_in_row
        if limit and times >= limit:
            self._hold(now_ns, f"blind:{camera}", f"{times} pictures in a row could not be judged: {text}", "BLIND")

    def _on_camera(self, now_ns: int, item: CameraState) -> None:
        if item.camera not in self.settings.line.cameras:
            return
        back = item.up and item.camera in self.ledger.down()
        self.ledger.camera(item.camera, up=item.up, text=item.text)
        if item.up:
            if back:
                self._rebase(
                    now_ns, (self.settings.line.cameras[item.camera],), f"{item.camera} was down: parts that it missed have no number"
                )
            self._see_again(now_ns, item.camera)
            self._release(now_ns, f"camera:{item.camera}")
        else:
            self._hold(now_ns, f"camera:{item.camera}", item.text, "CAMERA_DOWN")

    def _see_again(self, now_ns: int, camera: str) -> None:
        """What was wrong with the pictures may be mended: the next ones must show it, and on a line that stands none would come."""
        self._blind.pop(camera, None)
        self._release(now_ns, f"blind:{camera}")

    def _rebase(self, now_ns: int, lanes: Sequence[int], text: str) -> None:
        """Where exposures make the parts, those that were never made shift every number after them: gateways must count from a new base."""
        if self.settings.line.count != "frames":
            return
        for lane in lanes:
            self._notes(now_ns, self.ledger.distrust(lane, text))
            self._purge(now_ns, lane, text)
        for identity, gateway in list(self.sessions.items()):
            if not set(lanes).isdisjoint(gateway.hello.lanes):
                self._out.append(Send(identity, protocol.command("BYE", {"text": told.cut(text, 200)})))
                self._close(now_ns, identity)

    # -- belt

    def _on_triggered(self, now_ns: int, item: Triggered) -> None:
        counts = self._near(item.at_counts)
        self._notes(now_ns, self.ledger.trigger(now_ns, item.lane, item.part_seq, item.at_ns, counts, self._position))

    def _near(self, counts: int | None) -> int | None:
        """A count of vision or the PLC in the numbers of our own position, whoever has seen how many wraps of the counter."""
        wrap = self._wrap_counts
        if wrap is None or counts is None or self._position is None:
            return counts
        return self._position + (counts - self._position + wrap // 2) % wrap - wrap // 2

    def _was_beyond_ns(self, now_ns: int, counts: int | None) -> int:
        """Since when the belt has been seen beyond a place: what happened there was before, however new its message seems."""
        since_ns = now_ns
        if counts is not None:
            for seen_ns, place in reversed(self._came_by):
                if place <= counts + self.settings.line.window_counts // SKEW_SHARE:
                    break
                since_ns = seen_ns
        return since_ns

    def _on_encoder(self, now_ns: int, item: EncoderState) -> None:
        if not item.trouble:
            self._release(now_ns, "encoder")
            return
        self._position = self._belt = None
        self._came_by.clear()
        self._hold(now_ns, "encoder", item.trouble, "ENCODER_DOWN")
        self._distrust(now_ns, item.trouble)

    def _on_position(self, now_ns: int, item: Position) -> None:
        line = self.settings.line
        looked_ns, self._looked_ns = self._looked_ns, now_ns
        if looked_ns is not None and now_ns - looked_ns > UNWATCHED_NS and line.count != "frames":
            text = f"nobody looked where the belt was for {(now_ns - looked_ns) / 1e6:.0f} ms"
            self._notes(now_ns, self.ledger.unwatched(looked_ns, now_ns, text))
        before, self._belt = self._belt, (now_ns, item.counts)
        self._position = item.counts
        if not self._came_by or self._came_by[-1][1] != item.counts:
            self._came_by.append((now_ns, item.counts))
        furthest = item.counts if self._furthest is None else max(self._furthest, item.counts)
        back = item.counts < furthest - line.window_counts
        if item.counts < furthest - line.window_counts // TREMBLE_SHARE:
            self._notes(now_ns, self.ledger.slipped(self._furthest_ns, now_ns, furthest))
        if back or item.counts >= furthest:
            self._furthest_ns = now_ns
        self._furthest = item.counts if back else furthest
        if back:
            self.ledger.went_back(now_ns, furthest)
        if before is None:
            return
        moved, spent_ns = item.counts - before[1], now_ns - before[0]
        if back:
            text = f"the encoder went back from {furthest} to {item.counts} counts"
            self._alarm(now_ns, "ENCODER_REVERSED", "critical", text)
            self._distrust(now_ns, text)
            return
        if moved < 0:
            self._belt = before  # a tremble back is kept in mind until it is over
            return
        if line.travel_counts is None:
            return
        most = line.travel_counts * spent_ns / (line.travel_min_ms * 1e6)
        if moved > 4 * most + line.window_counts:
            text = f"the encoder jumped from {before[1]} to {item.counts} counts"
            self._alarm(now_ns, "ENCODER_JUMP", "critical", text)
            self._distrust(now_ns, text)
        elif spent_ns < SPEED_NS:
            self._belt = before  # too short to tell a speed
        elif moved > 1.1 * most + 1:
            self._hold(now_ns, "speed", f"the belt is {moved / most:.2f} times as fast as travel_min_ms allows", "E_TIMING")
        else:
            self._release(now_ns, "speed")

    def _distrust(self, now_ns: int, text: str) -> None:
        """Nothing that is on the belt may pass: where it is, is no longer sure."""
        for lane in self.ledger.lanes():
            self._notes(now_ns, self.ledger.distrust(lane, text))
            self._purge(now_ns, lane, text)

    def _on_utc(self, now_ns: int, item: Utc) -> None:
        jump_ns = item.offset_ns - self._utc_offset_ns
        known = self._utc_offset_ns
        self._utc_offset_ns, self._clock_state = item.offset_ns, item.clock_state
        if known and abs(jump_ns) > 100_000_000:
            self._alarm(now_ns, "CLOCK_JUMP", "warning", f"UTC moved by {jump_ns / 1e9:.3f} s; deadlines are not touched")

    # -- outcomes

    def _notes(self, now_ns: int, notes: Sequence[Note]) -> None:
        for note in notes:
            if isinstance(note, Closed):
                self._verdict(now_ns, note)
            elif isinstance(note, Late):
                self.late += 1
                body = {"decision": note.vote.decision.value, "reason": note.vote.reason, "camera": note.camera}
                text = note.vote.text or f"part {note.part_seq} was judged {note.vote.decision.name} after its deadline"
                self._alarm(now_ns, "LATE_RESULT", "info", text, lane=note.lane, part_seq=note.part_seq, flags=Flag.LATE, extra=body)
            elif isinstance(note, Crowded):
                self._alarm(now_ns, "TRIGGER_MISMATCH", "warning", note.text, lane=note.lane)
            else:
                self._mismatch(now_ns, note)

    def _mismatch(self, now_ns: int, note: Mismatch) -> None:
        """Exposures without parts are no news where the PLC counts and no gateway serves the lane: that is said once."""
        text = note.text
        if self.settings.line.count == "plc" and not any(note.lane in gateway.hello.lanes for gateway in self.sessions.values()):
            if note.lane in self._unserved:
                return
            self._unserved.add(note.lane)
            text += "; no gateway serves the lane, and nothing more is said of that"
        self._alarm(now_ns, "TRIGGER_MISMATCH", "critical", text, lane=note.lane)
        self._purge(now_ns, note.lane, text)

    def _verdict(self, now_ns: int, closed: Closed) -> None:
        part, verdict, reason, text = closed
        if part.challenge:
            if reason == Reason.CHALLENGE:
                self._hold(now_ns, "challenge", f"challenge part {part.part_seq} of lane {part.lane} was not found bad", "CHALLENGE_FAILED")
            elif verdict is Verdict.REJECT_DEFECT:
                self._challenged_ns = now_ns
                self._alarm(now_ns, "CHALLENGE", "info", f"challenge part {part.part_seq} of lane {part.lane} was found bad")
                self._release(now_ns, "challenge")
            else:
                what = f"challenge part {part.part_seq} of lane {part.lane} shows nothing, it must be shown again: {text}"
                self._alarm(now_ns, "CHALLENGE", "warning", what)
        ttl_us = max(0, (part.deadline_ns - now_ns) // 1000)
        passed = verdict is _PASS
        if not part.challenge and self.state is _RUN:  # what is rejected because nobody judges has its own reason
            self._guards(now_ns, passed)
        reject_seq = None
        if not passed:
            self.heads["r"] += 1
            reject_seq = self.heads["r"]
        body = told.Outcome(
            part, verdict, reason, text, ttl_us, reject_seq, self.ledger.counters, self._utc_offset_ns, self._clock_state, self._recipe,
            self._models_of,
        )  # fmt: skip
        record = self._event(
            now_ns, "q", Kind.VERDICT, body, flags=Flag.CHALLENGE if part.challenge else 0, part_seq=part.part_seq, ttl_us=ttl_us,
            verdict=verdict, lane=part.lane, reason=reason, r_seq=reject_seq, deadline_ns=part.deadline_ns,
        )  # fmt: skip
        seq = record.header.seq
        self._done[seq] = _Done(seq, verdict, part.lane, part.part_seq, part.deadline_ns + EXEC_LIMIT_NS)
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        for identity, gateway in self.sessions.items():
            if part.lane in gateway.hello.lanes:
                order = Order(seq, part.lane, part.part_seq, part.deadline_ns, record.head, record.payload, passes=passed)
                self._out += [Send(identity, frames) for frames in gateway.offer(now_ns, order)]
                if gateway.hello.executes:
                    self._waits.add(seq)

    def _purge(self, now_ns: int, lane: int, text: str) -> None:
        """Take back the PASS of every part of a lane that may still be on the belt; only ever towards reject."""
        on_belt = [done for done in self._done.values() if done.lane == lane and done.exec_by_ns - EXEC_LIMIT_NS > now_ns]
        if not on_belt:
            return
        numbers = [done.part_seq for done in on_belt]
        body = {
            "lane": lane,
            "from_part": str(min(numbers)),
            "to_part": str(max(numbers)),
            "reason": int(Reason.PURGE),
            "text": told.cut(text, 200),
        }
        for identity, gateway in self.sessions.items():
            if lane in gateway.hello.lanes:
                gateway.purge(lane, min(numbers), max(numbers))
                self._out.append(Send(identity, protocol.command("PURGE", body)))
        self._alarm(now_ns, "PURGE", "critical", text, lane=lane, extra={"from_part": body["from_part"], "to_part": body["to_part"]})

    def _guards(self, now_ns: int, passed: bool) -> None:
        trip = self._watch.outcome(passed)
        if trip is not None:
            extra = {"line_stop_request": True} if trip.name == "line_stop" else None
            self._hold(now_ns, trip.name, trip.text, trip.code, extra=extra)

    def _on_guarded(self, now_ns: int, item: Guarded) -> None:
        self._watch = Watch(item.guards)

    def _on_reset(self, now_ns: int, item: Reset) -> None:
        for name in LATCHED & (set(item.names) or LATCHED):
            self._watch.reset(name)
            self._release(now_ns, name)

    def _on_challenge(self, now_ns: int, item: Challenge) -> None:
        self.ledger.challenge(item.lane)

    # -- gateways

    def _on_received(self, now_ns: int, item: Received) -> None:
        identity, user, frames = item
        try:
            if len(frames) == 3 and frames[0] == b"RETURN":
                name, body = "RETURN", dict[str, Any]()
            else:
                name, body = protocol.said(frames)
            handler = self._commands.get(name)
            if handler is None:
                raise Refused("command", f"{name[:20]!r}")
            gateway = self.sessions.get(identity)
            if gateway is None and name not in ("HELLO", "PING"):
                raise Refused("state", f"{name} before HELLO")
            if gateway is not None and gateway.user != user:
                raise Refused("auth", "another user than at HELLO")
            handler(self, now_ns, item, gateway, body)
        except Refused as error:
            self._fault(now_ns, identity, error)
        except RecursionError:  # nested just so deep that it could be read, but not be said again
            self._fault(now_ns, identity, Refused("json", "nested too deeply"))

    def _fault(self, now_ns: int, identity: bytes, error: Refused) -> None:
        """Count a message that is none; a peer that sends many is sent away."""
        self.faults[error.why] = self.faults.get(error.why, 0) + 1
        times = self._bad_frames.setdefault(identity, [])
        times[:] = [*[at for at in times if now_ns - at < MINUTE_NS][-LARGEST_FAULTS_PER_MINUTE:], now_ns]
        self._bad_frames.move_to_end(identity)
        while len(self._bad_frames) > 1024:
            self._bad_frames.popitem(last=False)
        code = _ANSWERED.get(error.why)
        if code is not None:
            if len(times) < LARGEST_FAULTS_PER_MINUTE:
                self._out.append(Send(identity, protocol.command("REFUSE", {"code": code, "text": str(error)})))
            if error.why == "ack" and identity in self.sessions:
                self._alarm(now_ns, "E_ACK", "critical", f"{self.sessions[identity].hello.client}: {error}")
                self._close(now_ns, identity)
        if len(times) >= LARGEST_FAULTS_PER_MINUTE and identity in self.sessions:
            text = f"{len(times)} bad messages in a minute"
            self._out.append(Send(identity, protocol.command("REFUSE", {"code": "E_PROTO", "text": text})))
            self._alarm(now_ns, "E_PROTO", "warning", f"{self.sessions[identity].hello.client}: {text}")
            self._close(now_ns, identity)
            times.clear()

    def _on_unreachable(self, now_ns: int, item: Unreachable) -> None:
        gateway = self.sessions.get(item.identity)
        if gateway is not None:
            self._close(now_ns, item.identity)
            self._alarm(now_ns, "GATEWAY_LOST", "critical", f"{gateway.hello.client} cannot be reached")

    def _close(self, now_ns: int, identity: bytes) -> None:
        gateway = self.sessions.pop(identity)
        self._permits.pop(identity, None)
        if gateway.unconfirmed:
            for lane in gateway.hello.lanes:
                self._faulty.setdefault(lane, _UNCONFIRMED)
        undelivered = [o for o in (*gateway.sent, *gateway.queue) if not o.overdue and o.deadline_ns > now_ns]
        if undelivered:
            self._unconfirmed(now_ns, gateway, undelivered)

    def _cmd_hello(self, now_ns: int, item: Received, gateway: Session | None, body: Mapping[str, Any]) -> None:
        settings = self.settings
        line = settings.line
        try:
            if self._allowed is not None and item.user not in self._allowed:
                raise Refusal("E_AUTH", "not on the list of clients")
            said = session.hello(body, station=settings.station, lanes=self.ledger.lanes(), profile=settings.profile)
            fire = said.profile == "fire"
            faults = protocol.timing_faults(
                lease_ms=said.lease_ms,
                hb_ms=settings.hb_ms,
                travel_min_ms=said.travel_min_ms,
                actuator_ms=said.actuator_ms,
                scan_ms=said.scan_ms,
                fire=fire,
            )
            slower = line.deadline_ms > protocol.deadline_ms(
                travel_min_ms=said.travel_min_ms,
                actuator_ms=said.actuator_ms,
                scan_ms=said.scan_ms,
                fire_lease_ms=said.lease_ms if fire else 0,
            )
            if faults or slower:
                ours = f"I3: this line's deadline is {line.deadline_ms} ms after the trigger, later than the gateway can use"
                raise Refusal("E_TIMING", "; ".join([*faults, *([ours] if slower else [])]))
            for identity, other in list(self.sessions.items()):
                if identity != item.identity and set(other.hello.lanes) & set(said.lanes):
                    same = bool(item.user) and other.user == item.user
                    if other.fresh(now_ns) and not same:
                        raise Refusal("E_BUSY", f"{other.hello.client} serves lane {min(set(other.hello.lanes) & set(said.lanes))}")
                    self._out.append(Send(identity, protocol.command("BYE", {"text": "another session takes over"})))
                    self._close(now_ns, identity)
        except Refusal as refusal:
            self.faults[refusal.code] = self.faults.get(refusal.code, 0) + 1
            self._out.append(Send(item.identity, protocol.command("REFUSE", {"code": refusal.code, "text": refusal.text})))
            return
        left: deque[Order] = deque()
        if gateway is not None:
            left = gateway.leave(said.lanes)
            self._close(now_ns, item.identity)
        self._unserved.difference_update(said.lanes)
        if line.count == "plc":  # it may have been restarted, and then its next part has a number that was there before
            for lane in said.lanes:
                self._notes(now_ns, self.ledger.distrust(lane, f"{said.client} begins anew"))
        self._session_count += 1
        new = Session(
            item.identity, self._session_count, item.user, said, said.credit, now_ns, acked=self.heads["q"], last_sent=self.heads["q"],
            durable=self._durable, sent=left,
        )  # fmt: skip
        self.sessions[item.identity] = new
        for camera in [camera for camera, lane in line.cameras.items() if lane in said.lanes and f"blind:{camera}" in self._holds]:
            self._see_again(now_ns, camera)
        self._rollback(now_ns, said)
        welcome = {
            "epoch": self._epoch_text,
            "session": self._session_count,
            "stream_ids": protocol.STREAM_IDS,
            "heads": {stream: str(seq) for stream, seq in self.heads.items()},
            "epochs": [
                {"epoch": protocol.epoch_text(e.epoch), "last": {k: str(v) for k, v in e.last.items()}, "closed": e.closed}
                for e in self._epochs[-16:]
            ],
            "lease_ms": said.lease_ms,
            "hb_ms": settings.hb_ms,
            "deadline_ms": line.deadline_ms,
            "lanes": said.lanes,
            "count": line.count,
            "state": self.state.value,
            "models": self._models,
            "config_sha256": self._recipe,
            "recipes": {str(lane): self._recipes[str(lane)] for lane in said.lanes if str(lane) in self._recipes},
            "schema_sha256": protocol.SCHEMA_SHA256,
            "app_version": settings.app_version,
        }
        self._out.append(Send(item.identity, protocol.command("WELCOME", welcome)))
        self._alarm(now_ns, "GATEWAY", "info", f"{said.client} serves lanes {list(said.lanes)}")

    def _rollback(self, now_ns: int, said: session.Hello) -> None:
        """The gateway is a witness: has it seen more of an epoch than this journal holds?"""
        for stream, (epoch, seq) in said.last.items():
            if epoch == self.epoch:
                head: int | None = self.heads[stream]
            else:
                head = next((e.last.get(stream, 0) for e in self._epochs if e.epoch == epoch), None)
            if head is None or seq > head:
                known = "unknown" if head is None else f"known to {head}"
                text = f"{said.client} has seen {stream} {seq} of epoch {protocol.epoch_text(epoch)}, which is {known} here"
                self._alarm(now_ns, "JOURNAL_ROLLBACK", "critical", text)

    def _cmd_credit(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        credit = protocol.u64(body, "n")
        if not 1 <= credit <= session.LARGEST_CREDIT:
            raise Refused("range", f"credit {credit}, 1 … {session.LARGEST_CREDIT} is allowed")
        gateway.credit = credit

    def _cmd_ack(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        if body.get("epoch") != self._epoch_text:
            raise Refused("ack", f"ACK of epoch {str(body.get('epoch'))[:40]}")
        upto = protocol.u64(body, "upto")
        seq = None if body.get("seq") is None else protocol.u64(body, "seq")
        if seq is None and gateway.hello.profile == "fire":
            raise Refused("field", "seq: the verdict that has arrived; with profile fire every one counts")
        before = gateway.acked
        self._out += [Send(item.identity, frames) for frames in gateway.acknowledge(now_ns, upto, seq)]
        gateway.heard_ns = now_ns
        if gateway.acked > before:
            for lane in [lane for lane in gateway.hello.lanes if self._faulty.get(lane) == _UNCONFIRMED]:
                del self._faulty[lane]
            self._out.append(Acked(gateway.hello.client, gateway.acked))

    def _cmd_exec(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        gateway.heard_ns = now_ns
        outcome = body.get("outcome")
        if not isinstance(outcome, str) or outcome not in OUTCOMES:
            raise Refused("field", f"outcome: {str(outcome)[:40]!r}; one of {sorted(OUTCOMES)} is allowed")
        of_lanes = outcome in _OF_LANES
        if outcome == "TEST_OK":
            for lane in gateway.hello.lanes:
                self._faulty.pop(lane, None)
        elif of_lanes:
            self._faulty.update(dict.fromkeys(gateway.hello.lanes, outcome))
            self._alarm(now_ns, outcome, "critical", f"{gateway.hello.client} says so")
        if of_lanes and body.get("seq") is None:
            return
        if body.get("epoch") != self._epoch_text:
            raise Refused("epoch", "EXEC of another epoch")
        done = self._done.get(protocol.u64(body, "seq"))
        if done is None or done.part_seq != protocol.u64(body, "part_seq"):
            raise Refused("unknown", "EXEC of an unknown part")
        if done.lane not in gateway.hello.lanes:
            raise Refused("range", f"EXEC of a part of lane {done.lane}, which is not of this session")
        encoder = protocol.i64(body, "encoder")
        if done.exec_by_ns < 0:
            if of_lanes:
                return
            raise Refused("dup", "EXEC of this part came before")
        self._done[done.seq] = done._replace(exec_by_ns=-1)
        self._waits.discard(done.seq)
        self._out.append(Executed(done.seq, done.lane, done.part_seq, outcome, encoder))
        if outcome == "PASSED" and done.verdict is not Verdict.PASS:
            self._faulty[done.lane] = "REJECT_PASSED"
            text = f"part {done.part_seq} of lane {done.lane} was to be rejected and passed"
            self._alarm(now_ns, "REJECT_PASSED", "critical", text, lane=done.lane, part_seq=done.part_seq)
        elif outcome == "EJECTED_UNCONFIRMED":
            self._alarm(now_ns, "EJECT_UNCONFIRMED", "critical", "the ejector did not confirm", lane=done.lane, part_seq=done.part_seq)

    def _cmd_trig(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        gateway.heard_ns = now_ns
        if self.settings.line.count != "plc":
            raise Refused("state", f"parts are counted by {self.settings.line.count} here, not by TRIG")
        lane = body.get("lane", gateway.hello.lanes[0])
        if type(lane) is not int or lane not in gateway.hello.lanes:
            raise Refused("range", f"lane {str(lane)[:20]} is not of this session")
        part_seq = protocol.u64(body, "part_seq")
        if not 0 < part_seq < 1 << 63:
            raise Refused("range", "part_seq: 1 … 2**63 − 1 is allowed")
        counts = self._near(protocol.i64(body, "encoder"))
        at_ns = now_ns if body.get("gw_mono_us") is None else gateway.when(now_ns, 1000 * protocol.u64(body, "gw_mono_us"))
        at_ns = min(at_ns, self._was_beyond_ns(now_ns, counts))
        last = self.ledger.last_part(lane)
        if part_seq <= last:
            if lane in gateway.triggered:
                self._miscounted(now_ns, gateway, lane, f"TRIG {part_seq} after {last}")
                raise Refused("order", f"TRIG {part_seq} after {last}; a new HELLO begins anew")
            self._alarm(now_ns, "TRIGGER_MISMATCH", "warning", f"the PLC counts anew: TRIG {part_seq} after {last}", lane=lane)
            self._notes(now_ns, self.ledger.count_anew(lane))
        if lane not in gateway.triggered:
            gateway.counted_from.pop(lane, None)  # what came by before the session has no TRIG, and is counted with this one
        gateway.triggered.add(lane)
        self._notes(
            now_ns, self.ledger.trigger(now_ns, lane, part_seq, at_ns, counts, self._position, challenge=body.get("challenge") is True)
        )

    def _cmd_recipe(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        gateway.heard_ns = now_ns
        number, name, its_id, lanes = body.get("number"), body.get("name"), body.get("id"), body.get("lanes", list(gateway.hello.lanes))
        wanted = name if number is None else number
        good = type(number) is int and 1 <= number <= 65_535 if number is not None else isinstance(name, str) and 1 <= len(name) <= 32
        if not good or not isinstance(wanted, (int, str)):
            raise Refused("field", "number: 1 … 65535, or name: 1 to 32 characters is allowed")
        if not isinstance(lanes, list) or not lanes or not all(type(lane) is int and lane in gateway.hello.lanes for lane in lanes):
            raise Refused("range", f"lanes {str(lanes)[:40]} are not of this session")
        if its_id is not None and not (isinstance(its_id, str) and len(its_id) <= 64):
            raise Refused("field", "id: text of at most 64 characters is allowed")
        if not gateway.hello.recipes:
            gateway.hello = gateway.hello._replace(recipes=True)
        self._out.append(Select(f"{gateway.number}.{its_id or ''}", wanted, lanes))

    def _cmd_hb(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        gateway.heard_ns = now_ns
        if "mono_ns" in body:
            gateway.beats(now_ns, protocol.u64(body, "mono_ns"))
        counts = None if gateway.miscounted else body.get("plc_count")
        if type(counts) is int:
            counts = {str(gateway.hello.lanes[0]): counts}
        if counts is None:
            return
        if not isinstance(counts, dict):
            raise Refused("field", "plc_count: {lane: count} is allowed")
        off: list[str] = []
        for name, count in counts.items():
            lane = int(name) if name.isascii() and name.isdigit() and len(name) < 4 else -1
            if lane not in gateway.hello.lanes or type(count) is not int or abs(count) >= 1 << 63:
                raise Refused("field", "plc_count: {lane: count} is allowed")
            ours = self.ledger.last_part(lane)
            base = gateway.counted_from.setdefault(lane, count - ours)
            if count - ours != base:
                off.append(f"lane {lane}: the PLC counts {count - base}, we count {ours}")
        if not off:
            gateway.count_off_since_ns = None
        elif gateway.count_off_since_ns is None:
            gateway.count_off_since_ns = now_ns
        elif now_ns - gateway.count_off_since_ns > COUNT_LIMIT_NS:
            for lane in gateway.hello.lanes:
                self._miscounted(now_ns, gateway, lane, "; ".join(off))

    def _miscounted(self, now_ns: int, gateway: Session, lane: int, text: str) -> None:
        """Whose count is right nobody knows: no permit until a new HELLO gives a new base."""
        gateway.miscounted = True
        self._notes(now_ns, [Mismatch(lane, text), *self.ledger.distrust(lane, text)])

    def _cmd_ping(self, now_ns: int, item: Received, gateway: Session | None, body: Mapping[str, Any]) -> None:
        self._out.append(Send(item.identity, protocol.command("PONG", {})))

    def _cmd_bye(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        self._alarm(now_ns, "GATEWAY", "info", f"{gateway.hello.client} says goodbye")
        self._close(now_ns, item.identity)

    def _cmd_return(self, now_ns: int, item: Received, gateway: Session, body: Mapping[str, Any]) -> None:
        head, payload = item.frames[1:]
        if len(payload) > protocol.LARGEST_PAYLOAD_BYTES:
            raise Refused("size", f"{len(payload)} bytes")
        protocol.parse(head, payload)
        self._out.append(Returned(gateway.hello.client, head, payload))

    _commands: Final[Mapping[str, Any]] = {
        "HELLO": _cmd_hello,
        "CREDIT": _cmd_credit,
        "ACK": _cmd_ack,
        "EXEC": _cmd_exec,
        "TRIG": _cmd_trig,
        "RECIPE": _cmd_recipe,
        "HB": _cmd_hb,
        "PING": _cmd_ping,
        "BYE": _cmd_bye,
        "RETURN": _cmd_return,
    }

    def _sessions(self, now_ns: int) -> None:
        """Send again, notice what was never confirmed, and give up on gateways that are silent."""
        for identity, gateway in list(self.sessions.items()):
            frames, overdue = gateway.tick(now_ns)
            self.resent += len(frames)
            self._out += [Send(identity, message) for message in frames]
            if overdue:
                self._unconfirmed(now_ns, gateway, overdue)
            if now_ns - gateway.heard_ns > SESSION_DEAD_LEASES * gateway.hello.lease_ms * 1_000_000:
                self._out.append(Send(identity, protocol.command("BYE", {"text": "no heartbeat"})))
                self._close(now_ns, identity)
                self._alarm(now_ns, "GATEWAY_LOST", "critical", f"{gateway.hello.client} is silent")
        if self._waits:
            for seq in [seq for seq in self._waits if (done := self._done.get(seq)) is None or done.exec_by_ns <= now_ns]:
                self._waits.discard(seq)
                done = self._done.get(seq)
                if done is not None:
                    text = f"no EXEC for part {done.part_seq} of lane {done.lane}"
                    self._alarm(now_ns, "EJECT_UNCONFIRMED", "critical", text, lane=done.lane, part_seq=done.part_seq)

    def _unconfirmed(self, now_ns: int, gateway: Session, orders: Sequence[Order]) -> None:
        self.unconfirmed += len(orders)
        first = orders[0]
        text = f"{gateway.hello.client} did not confirm {len(orders)} verdicts, the first for part {first.part_seq} of lane {first.lane}"
        self._alarm(now_ns, "DELIVERY_UNCONFIRMED", "critical", text, lane=first.lane, part_seq=first.part_seq)

    # -- permit

    def _hold_for_world(self, now_ns: int) -> None:
        unexplained = self.ledger.unexplained()
        if unexplained:
            self._hold(now_ns, "ledger", f"{unexplained} parts without an outcome", "IMBALANCE")
        if "encoder" in self._holds:
            for lane in self.ledger.lanes():
                self._notes(now_ns, self.ledger.distrust(lane, self._holds["encoder"]))
        bad = self._journal_bad_since_ns
        if bad is not None and self.settings.journal_stops and now_ns - bad >= JOURNAL_GRACE_NS:
            self._hold(now_ns, "journal", self._journal_text, "JOURNAL_STOP")
        every_s = self._watch.guards.challenge_every_s
        if every_s and self._challenged_ns is not None and now_ns - self._challenged_ns > every_s * 1e9:
            self._hold(now_ns, "challenge_due", f"no challenge part for {every_s:g} s", "CHALLENGE_DUE")
        elif "challenge_due" in self._holds:
            self._release(now_ns, "challenge_due")

    def _on_journal(self, now_ns: int, item: JournalState) -> None:
        if item.healthy:
            if self._journal_bad_since_ns is not None:
                self._journal_bad_since_ns = None
                self._alarm(now_ns, "JOURNAL", "info", "durable again")
            self._release(now_ns, "journal")
        elif self._journal_bad_since_ns is None:
            self._journal_bad_since_ns, self._journal_text = now_ns, item.text
            self._alarm(now_ns, "JOURNAL", "critical", item.text)

    def _hold(self, now_ns: int, name: str, text: str, code: str, *, extra: Mapping[str, Any] | None = None) -> None:
        if name not in self._holds:
            self._holds[name] = text
            self._alarm(now_ns, code, "critical", text, extra=extra)
            self._heartbeats(now_ns, at_once=True)

    def _release(self, now_ns: int, name: str) -> None:
        if self._holds.pop(name, None) is not None:
            self._state_event(now_ns)

    def _become(self, now_ns: int, state: State) -> None:
        if state is self.state:
            return
        self.state = state
        if state is State.RUN:
            self._holds.pop("state", None)
        else:
            self._holds["state"] = state.value
        self._state_event(now_ns)
        self._hold_for_world(now_ns)  # what withholds the permit by now must do so in this very heartbeat
        self._heartbeats(now_ns, at_once=True)

    def _heartbeats(self, now_ns: int, *, at_once: bool = False) -> None:
        common = not self._holds
        for identity, gateway in self.sessions.items():
            permit = (
                common
                and gateway.fresh(now_ns)
                and not gateway.miscounted
                and not gateway.unconfirmed
                and (not self._faulty or self._faulty.keys().isdisjoint(gateway.hello.lanes))
            )
            dropped = self._permits.get(identity, False) and not permit
            self._permits[identity] = permit
            if now_ns < gateway.next_hb_ns and not dropped and not at_once:
                continue
            gateway.beat(now_ns, self.settings.hb_ms * 1_000_000)
            oldest = self.ledger.oldest_pending_ns()
            counters = self.ledger.counters
            body = {
                "mono_ns": str(now_ns),
                "echo": None if gateway.echo is None else str(gateway.echo),
                "head": {"q": str(self.heads["q"]), "a": str(self.heads["a"])},
                "state": self.state.value,
                "permit": int(permit),
                "holds": list(self._holds),
                "pending": counters.pending,
                "oldest_pending_ms": None if oldest is None else round((now_ns - oldest) / 1e6, 1),
                "plc_count": None,
                "our_count": {str(lane): self.ledger.last_part(lane) for lane in self.ledger.lanes()},
                "stages": {name: round(age, 1) for name, age in self._ages.items()},
            }
            if self._anchor:
                body["anchor"] = self._anchor
            payload = protocol.dumps(body)
            header = Header(
                Kind.HB, 0, self.epoch, 0, self.heads["q"], now_ns + self._utc_offset_ns, 0, protocol.STREAM_IDS["hb"],
                int(Verdict.PASS) if permit else 0, 0, 0,
            )  # fmt: skip
            self._out.append(Send(identity, [b"HB", protocol.pack(header, payload), payload]))

    # -- events

    def _state_event(self, now_ns: int) -> None:
        self._event(now_ns, "a", Kind.STATE, {"schema": "insp.state", "state": self.state.value, "holds": dict(self._holds)})

    def _alarm(
        self, now_ns: int, code: str, severity: str, text: str, *, lane: int | None = None, part_seq: int | None = None,
        flags: int = 0, extra: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.alarms[code] = self.alarms.get(code, 0) + 1
        tokens, at_ns = self._tokens.get(code, (float(ALARM_BURST), now_ns))
        tokens = min(float(ALARM_BURST), tokens + (now_ns - at_ns) / SECOND_NS * ALARMS_PER_S)
        if tokens < 1.0:
            self._tokens[code] = tokens, now_ns
            self._suppressed[code] = self._suppressed.get(code, 0) + 1
            return
        self._tokens[code] = tokens - 1.0, now_ns
        body = {
            "schema": "insp.alarm",
            "code": code,
            "severity": severity,
            "text": told.cut(text, 400),
            "lane": lane,
            "part_seq": None if part_seq is None else str(part_seq),
            "suppressed": self._suppressed.pop(code, 0),
            **(extra or {}),
        }
        self._event(now_ns, "a", Kind.ALARM, body, flags=flags, part_seq=part_seq or 0, lane=lane or 0)

    def _event(
        self, now_ns: int, stream: str, kind: Kind, body: Mapping[str, Any] | told.Outcome, *, flags: int = 0, part_seq: int = 0,
        ttl_us: int = 0, verdict: int = 0, lane: int = 0, reason: int = 0, r_seq: int | None = None, deadline_ns: int = 0,
    ) -> Record:  # fmt: skip
        seq = self.heads[stream] = self.heads[stream] + 1
        at_utc_ns = now_ns + self._utc_offset_ns
        header = Header(
            int(kind), int(flags), self.epoch, seq, part_seq, at_utc_ns, min(ttl_us, 0xFFFFFFFF), protocol.STREAM_IDS[stream],
            int(verdict), lane, reason,
        )  # fmt: skip
        previous = self._chain[stream]
        if isinstance(body, told.Outcome):
            text = self._form.verdict(now_ns, seq, body, previous)
        else:
            text = self._form.event(stream, seq, at_utc_ns, body, previous)
        payload, digest = protocol.seal(header, text, previous)
        self._chain[stream] = digest
        record = Record(stream, header, protocol.pack(header, payload), payload, digest, r_seq, deadline_ns)
        self._out.append(record)
        return record


_DECISIONS: Final = {decision.value: decision for decision in Decision}
_PASS: Final = Verdict.PASS
_RUN: Final = State.RUN
_BLIND: Final = frozenset({int(Reason.IMAGE_QUALITY), int(Reason.FRAME_INCOMPLETE)})
"""Names of their own: looking a member up in its class takes as long as a call."""
