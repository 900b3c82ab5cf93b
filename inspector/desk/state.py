"""What the page knows of the line: fed with the daemon's messages, asked for the state of things at a moment.

`Board` keeps a bounded window of everything and is safe to use from several threads. It believes nothing that is old: without a heartbeat
for 1.5 s (INSP/1) the whole line is stale. What a message lacks stays None; a message that is none of ours is counted and left out.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from inspector.desk.minutes import MINUTE_NS, Minute, Minutes
from inspector.desk.words import hold_name, reason_name
from inspector.records import Reason

STALE_AFTER_NS = 1_500_000_000
RATE_WINDOW_NS = 30_000_000_000
KEPT_PARTS = 2_000
KEPT_REJECTS = 1_000
KEPT_ALARMS = 200
KEPT_VALUES = 400
MOST_SERIES = 512
LATENCY_WINDOW = 500
NEWEST = 100
"""So many of the last parts say which recipes run."""

LOST_PICTURES = frozenset({Reason.FRAME_LOST, Reason.FRAME_INCOMPLETE})
PASS = "PASS"
NOT_INSPECTED = "REJECT_NOT_INSPECTED"


@dataclass(frozen=True, slots=True)
class Measured:
    """One finding as the event tells it. `low` and `high` are inclusive, None is open; `at_mm` is the place in the drawing.

    `camera` is whose it is where several look at the same part, and empty where that goes without saying.
    """

    check: str
    feature: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    ok: bool
    at_mm: tuple[float, float] | None
    camera: str = ""

    @property
    def name(self) -> str:
        """How a person calls it: `outline: hole-3`."""
        return f"{self.check}: {self.feature}" if self.feature else self.check

    def of(self, classes: Collection[str]) -> str:
        """Its name to count by: the second scratch (`scratch-2`) is a scratch, the second hole is itself."""
        kind, dash, number = self.feature.rpartition("-")
        return f"{self.check}: {kind}" if dash and number.isdigit() and kind in classes else self.name


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect's place: `bbox_px` is (x, y, w, h) in the picture that was judged, the camera's straightened where it is calibrated."""

    class_name: str
    score: float | None
    threshold: float | None
    bbox_px: tuple[float, ...] | None
    area_mm2: float | None
    camera: str = ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One camera's share in a part. Its picture, pose and recipe are here where several look at the same part, otherwise the part's."""

    camera: str
    frame_id: int | None
    complete: bool
    quality_ratio: float | None
    exposure_us: float | None
    image_ref: str | None = None
    pose: Mapping[str, Any] | None = None
    recipe_name: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One verdict. (`epoch`, `seq`) names it.

    `total_ms` runs from the trigger to the verdict, `margin_ms` is what was left to the deadline when the verdict was sent. `recipe` is the
    digest of all cameras' recipes, `recipe_name` the one that judged this part, empty where nobody did. Of several cameras, `image_ref`,
    `pose` and `recipe_name` are those of the one that decided; `views` has each one's own.
    """

    epoch: str
    seq: int
    part_seq: int
    lane: int
    verdict: str
    reason: int = 0
    reason_text: str = ""
    uid: str | None = None
    at_utc_ns: int = 0
    total_ms: float | None = None
    margin_ms: float | None = None
    stages_ms: tuple[tuple[str, float], ...] = ()
    findings: tuple[Measured, ...] = ()
    defects: tuple[Defect, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    pose: Mapping[str, Any] | None = None
    image_ref: str | None = None
    recipe: str = ""
    recipe_name: str = ""
    models: tuple[str, ...] = ()
    late: bool = False

    @property
    def passed(self) -> bool:
        """Anything but PASS is a reject."""
        return self.verdict == PASS

    @property
    def inspected(self) -> bool:
        """Somebody looked at it; a part that is rejected unseen says something about the line, not about the part."""
        return self.verdict != NOT_INSPECTED

    @property
    def views(self) -> tuple[Exposure, ...]:
        """The cameras with a picture of their own, the one that decided first; none where one camera looks at the part."""
        return tuple(sorted((e for e in self.exposures if e.image_ref is not None), key=lambda e: e.image_ref != self.image_ref))

    def recipe_of(self, camera: str) -> str:
        """The recipe by which this camera has judged the part."""
        return next((e.recipe_name for e in self.exposures if e.camera == camera and e.recipe_name), self.recipe_name)

    @property
    def failed(self) -> tuple[Measured, ...]:
        """The findings that are not within their limits."""
        return tuple(f for f in self.findings if not f.ok)

    @property
    def failing(self) -> tuple[str, ...]:
        """What of it failed, to count by, each once: its findings' names, or the classes of its defects where no finding says more."""
        classes = {d.class_name for d in self.defects}
        return tuple(dict.fromkeys([f.of(classes) for f in self.failed] or [d.class_name for d in self.defects]))


class Series(NamedTuple):
    """What belongs on one chart: a dimension as one recipe judges it on one lane. Other limits (an edited recipe) are another series."""

    lane: int
    recipe: str
    check: str
    feature: str
    low: float | None
    high: float | None
    unit: str
    camera: str = ""
    """Which of several that look at the same part."""

    @classmethod
    def of(cls, part: Part, found: Measured) -> Series:
        """Where a finding of a part belongs."""
        recipe = part.recipe_of(found.camera)
        return cls(part.lane, recipe, found.check, found.feature, found.low, found.high, found.unit, found.camera)

    @property
    def name(self) -> str:
        """As findings are called: `outline: hole-3`, and `outline: hole-3, side` where several cameras measure it."""
        name = f"{self.check}: {self.feature}" if self.feature else self.check
        return f"{name}, {self.camera}" if self.camera else name

    @property
    def limits(self) -> str:
        """Both, as a link says them: `-0.1..0.1`."""
        return "..".join("" if limit is None else f"{limit:.9g}" for limit in (self.low, self.high))

    @property
    def query(self) -> dict[str, object]:
        """What a link to its chart says."""
        asked = {"lane": self.lane, "recipe": self.recipe, "check": self.check, "feature": self.feature, "limits": self.limits}
        return asked | ({"camera": self.camera} if self.camera else {})


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should know: `severity` is critical, warning or info; a change of the line's state is "state"."""

    at_utc_ns: int
    code: str
    severity: str
    text: str


@dataclass(frozen=True, slots=True)
class Counters:
    """The ledger of this epoch; every trigger has exactly one outcome, so `unexplained` is 0 or something is broken."""

    triggers: int = 0
    passed: int = 0
    rejected: int = 0
    not_inspected: int = 0
    pending: int = 0

    @property
    def unexplained(self) -> int:
        """Triggers without an outcome."""
        return self.triggers - self.passed - self.rejected - self.not_inspected - self.pending


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 99th percentile, least and greatest of some numbers."""

    median: float
    p99: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Glance:
    """The line at one moment. `stale`: nothing here is known to be true now."""

    stale: bool
    heard_s: float | None
    state: str
    permit: bool
    why: tuple[str, ...]
    counters: Counters
    rate_per_min: float
    latency_ms: Spread | None
    margin_ms: Spread | None
    gateways: tuple[str, ...]
    oldest_pending_ms: float | None
    stages_ms: tuple[tuple[str, float], ...]
    epoch: str
    misread: int
    lost: int

    @property
    def running(self) -> bool:
        """Parts are judged and may pass."""
        return not self.stale and self.permit and self.state == "RUN"


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """How one camera does, from the parts of its lane that the page has seen."""

    camera: str
    lane: int
    up: bool | None
    said: str
    last_utc_ns: int | None
    rate_per_min: float
    seen: int
    lost: int
    not_inspected: int
    quality_ratio: float | None
    total_ms: Spread | None


def spread(values: Iterable[float]) -> Spread | None:
    """Nearest-rank percentiles; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    last = len(ordered) - 1
    return Spread(ordered[last // 2], ordered[-(-99 * last // 100)], ordered[0], ordered[-1])


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        return None
    numbers = tuple(_number(v) for v in value)
    return None if None in numbers else tuple(n for n in numbers if n is not None)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list | tuple) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _measured(found: Mapping[str, Any]) -> Measured:
    at = _numbers(found.get("at_mm"), 2)
    return Measured(
        _text(found.get("check")),
        _text(found.get("feature")),
        _number(found.get("value")),
        _number(found.get("low")),
        _number(found.get("high")),
        _text(found.get("unit")),
        found.get("ok") is True,
        None if at is None else (at[0], at[1]),
        _text(found.get("cam_id")),
    )


def _exposure(camera: Mapping[str, Any]) -> Exposure:
    frame = camera.get("frame_id")
    return Exposure(
        _text(camera.get("cam_id")),
        int(frame) if isinstance(frame, int | str) and str(frame).isdigit() else None,
        camera.get("complete") is not False,
        _number(camera.get("quality")),
        _number(camera.get("exposure_us")),
        camera["image_ref"] if isinstance(camera.get("image_ref"), str) else None,
        camera["pose"] if isinstance(camera.get("pose"), Mapping) else None,
        _text(camera.get("recipe")),
    )


def part_of(event: Mapping[str, Any]) -> Part:
    """The part that an `insp.verdict` event tells of; `ValueError` when its identity or verdict cannot be read."""
    timing, eject, trigger = _mapping(event.get("timing_ms")), _mapping(event.get("eject")), _mapping(event.get("trigger"))
    total, ttl = _number(timing.get("trigger_to_verdict", timing.get("total"))), _number(eject.get("ttl_us"))
    models = _mappings(event.get("models")) or [_mapping(event.get("model"))]
    if not isinstance(event.get("verdict"), str):
        raise ValueError("an event without verdict")
    try:
        return Part(
            epoch=str(event["epoch"]),
            seq=int(event["seq"]),
            part_seq=int(event["part_seq"]),
            uid=event["part_uid"] if isinstance(event.get("part_uid"), str) else None,
            lane=int(event["lane"]),
            verdict=event["verdict"],
            reason=int(event.get("reason") or 0),
            reason_text=_text(event.get("reason_text")),
            at_utc_ns=int(trigger.get("t_trigger_utc_ns") or 0),
            total_ms=total,
            margin_ms=None if ttl is None else ttl / 1e3,
            stages_ms=tuple((str(k), n) for k, v in _mapping(timing.get("stages")).items() if (n := _number(v)) is not None),
            findings=tuple(_measured(f) for f in _mappings(event.get("findings"))),
            defects=tuple(
                Defect(
                    _text(d.get("class")),
                    _number(d.get("score")),
                    _number(d.get("threshold")),
                    _numbers(d.get("bbox_px"), 4),
                    _number(d.get("area_mm2")),
                    _text(d.get("cam_id")),
                )
                for d in _mappings(event.get("defects"))
            ),
            exposures=tuple(_exposure(c) for c in _mappings(event.get("cameras"))),
            pose=event["pose"] if isinstance(event.get("pose"), Mapping) else None,
            image_ref=event["image_ref"] if isinstance(event.get("image_ref"), str) else None,
            recipe=_text(event.get("config_sha256")),
            recipe_name=_text(_mapping(event.get("recipe")).get("name")),
            models=tuple(_text(m.get("name")) for m in models if m.get("name")),
            late=event.get("late") is True,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a verdict event: {error!r}") from error


def _holds_of(said: Any) -> dict[str, str]:
    """What holds the permit back: name → text (empty where only the name is told)."""
    if isinstance(said, Mapping):
        return {str(name)[:64]: _text(text)[:200] for name, text in said.items()}
    return {_text(name)[:64]: "" for name in said} if isinstance(said, list | tuple) else {}


def _counters_of(said: Mapping[str, Any]) -> Counters:
    def number(name: str) -> int:
        return int(said.get(name) or 0)

    return Counters(number("triggers"), number("pass"), number("reject"), number("not_inspected"), number("pending"))


class Board:
    """Everything that the page shows. Messages go in by `verdict`, `alarm`, `state`, `beat`; `at_ns` is monotonic."""

    def __init__(self, cameras: Sequence[tuple[str, int]], *, utc: Callable[[], int]) -> None:
        """`cameras` are (name, lane); `utc` gives UTC nanoseconds."""
        self._cameras = tuple(cameras)
        self._utc = utc
        self._lock = threading.Lock()
        self._parts: OrderedDict[tuple[str, int], Part] = OrderedDict()
        self._rejects: OrderedDict[tuple[str, int], Part] = OrderedDict()
        self._received: deque[tuple[int, int]] = deque(maxlen=20_000)
        self._alarms: deque[Alarm] = deque(maxlen=KEPT_ALARMS)
        self._minutes = Minutes()
        self._since_utc_ns = utc()
        self._series: OrderedDict[Series, deque[tuple[Part, Measured]]] = OrderedDict()
        self._holds: dict[str, str] = {}
        self._hold_texts: dict[str, str] = {}
        self._camera_counts: dict[int, list[int]] = {}
        self._beat_ns: int | None = None
        self._beat: Mapping[str, Any] = {}
        self._counters = Counters()
        self._epoch = ""
        self._misread = self._lost = 0
        self._changes = 0

    @property
    def changes(self) -> int:
        """Grows with every message: who has shown this number already need not look again."""
        return self._changes

    def verdict(self, event: Mapping[str, Any], at_ns: int, *, historical: bool = False) -> None:
        """A verdict event. One that comes twice (a replay after a gap) counts once; `historical` ones leave counters and rate alone."""
        try:
            part = part_of(event)
            counters = _counters_of(_mapping(event.get("counters")))
        except (ValueError, TypeError, OverflowError):
            self.misread()
            return
        with self._lock:
            self._changes += 1
            if not historical:
                if part.epoch != self._epoch or counters.triggers >= self._counters.triggers:
                    self._counters = counters
                self._epoch = part.epoch
                self._received.append((at_ns, part.lane))
            key = (part.epoch, part.seq)
            if key in self._parts or key in self._rejects:
                return
            _keep(self._parts, key, part, KEPT_PARTS)
            if not part.passed:
                _keep(self._rejects, key, part, KEPT_REJECTS)
            self._count(part)
            self._measure(part)

    def _count(self, part: Part) -> None:
        seen = self._camera_counts.setdefault(part.lane, [0, 0, 0])
        seen[0] += 1
        seen[1] += part.reason in LOST_PICTURES
        seen[2] += not part.inspected
        number = part.at_utc_ns // MINUTE_NS
        minute = self._minutes.of(number, part.lane)
        self._since_utc_ns = min(self._since_utc_ns, part.at_utc_ns)
        if part.passed:
            minute.passed += 1
            return
        if part.inspected:
            minute.rejected += 1
        else:
            minute.not_inspected += 1
        self._minutes.why(number, part.lane, reason_name(part.reason, part.reason_text), part.recipe_name, part.failing)

    def _measure(self, part: Part) -> None:
        for finding in part.findings:
            if finding.value is None:
                continue
            key = Series.of(part, finding)
            series = self._series.get(key)
            if series is None:
                series = _keep(self._series, key, deque(maxlen=KEPT_VALUES), MOST_SERIES)
            self._series.move_to_end(key)  # those of a recipe that no longer runs go first
            series.append((part, finding))

    def alarm(self, event: Mapping[str, Any]) -> None:
        """An `insp.alarm` event."""
        self._tell(event, _text(event.get("code")) or "ALARM", _text(event.get("severity")) or "critical", _text(event.get("text")))

    def state(self, event: Mapping[str, Any]) -> None:
        """An `insp.state` event: the line's state has changed, or what holds the permit back."""
        holds = _holds_of(event.get("holds"))
        self._tell(event, _text(event.get("state")) or "STATE", "state", "; ".join(hold_name(*hold) for hold in holds.items()))
        with self._lock:
            self._hold_texts = {name: text for name, text in holds.items() if text}

    def _tell(self, event: Mapping[str, Any], code: str, severity: str, text: str) -> None:
        at = event.get("t_event_utc_ns")
        at_utc_ns = int(at) if isinstance(at, str | int) and str(at).isdecimal() else self._utc()
        with self._lock:
            self._changes += 1
            self._alarms.append(Alarm(at_utc_ns, code[:64], severity, text[:400]))

    def beat(self, heartbeat: Mapping[str, Any], at_ns: int) -> None:
        """A heartbeat, received at `at_ns`."""
        with self._lock:
            self._changes += 1
            self._beat_ns, self._beat = at_ns, heartbeat
            self._holds = _holds_of(heartbeat.get("holds"))
            if isinstance(heartbeat.get("epoch"), str):
                self._epoch = heartbeat["epoch"]
            if isinstance(heartbeat.get("counters"), Mapping):
                with suppress(ValueError, TypeError, OverflowError):
                    self._counters = _counters_of(heartbeat["counters"])

    def misread(self) -> None:
        """A message came that could not be read."""
        with self._lock:
            self._misread += 1

    def hole(self, count: int) -> None:
        """So many events or more are lost for good (below the journal's retention)."""
        with self._lock:
            self._lost += count

    def glance(self, now_ns: int) -> Glance:
        """The line now."""
        with self._lock:
            trouble = (
                next((a.text for a in reversed(self._alarms) if a.code == "STAGE_DEAD"), "") if self._beat.get("state") == "ERROR" else ""
            )
            heard = None if self._beat_ns is None else (now_ns - self._beat_ns) / 1e9
            beat, recent = self._beat, [p for p in list(self._parts.values())[-LATENCY_WINDOW:] if p.inspected]
            return Glance(
                stale=self._beat_ns is None or now_ns - self._beat_ns > STALE_AFTER_NS,
                heard_s=heard,
                state=_text(beat.get("state")) or "unknown",
                permit=beat.get("permit") in (1, True),
                why=tuple(
                    hold_name(name, trouble if name == "state" else text or self._hold_texts.get(name, ""))
                    for name, text in self._holds.items()
                ),
                counters=self._counters,
                rate_per_min=self._rate(now_ns, None),
                latency_ms=spread(p.total_ms for p in recent if p.total_ms is not None),
                margin_ms=spread(p.margin_ms for p in recent if p.margin_ms is not None),
                gateways=tuple(_text(name)[:64] for name in sessions) if isinstance(sessions := beat.get("sessions"), list) else (),
                oldest_pending_ms=_number(beat.get("oldest_pending_ms")),
                stages_ms=tuple((str(k), n) for k, v in sorted(_mapping(beat.get("stages")).items()) if (n := _number(v)) is not None),
                epoch=self._epoch,
                misread=self._misread,
                lost=self._lost,
            )

    def _rate(self, now_ns: int, lane: int | None) -> float:
        since = [at for at, of in self._received if at > now_ns - RATE_WINDOW_NS and (lane is None or of == lane)]
        return len(since) * MINUTE_NS / RATE_WINDOW_NS

    def parts(self, *, lane: int | None = None, rejects_only: bool = False, pictured: bool = False, most: int = 50) -> tuple[Part, ...]:
        """The newest parts, newest first; `pictured`: only those whose picture is kept."""
        with self._lock:
            pool = self._rejects if rejects_only else self._parts
            chosen = (p for p in reversed(pool.values()) if (lane is None or p.lane == lane) and not (pictured and p.image_ref is None))
            return tuple(part for part, _ in zip(chosen, range(most), strict=False))

    def part(self, epoch: str, seq: int) -> Part | None:
        """One part, while it is in the window."""
        with self._lock:
            return self._parts.get((epoch, seq)) or self._rejects.get((epoch, seq))

    def alarms(self, most: int = 20) -> tuple[Alarm, ...]:
        """The newest alarms and changes of state, newest first."""
        with self._lock:
            return tuple(reversed(self._alarms))[:most]

    def minutes(self, count: int, lane: int | None = None) -> tuple[tuple[int, Minute], ...]:
        """The last `count` minutes of one lane or of all, as far as the page has heard of them (see `Minutes.last`)."""
        with self._lock:
            return self._minutes.last(self._utc(), count, lane)

    @property
    def since_utc_ns(self) -> int:
        """How far back that is: the page's start, or the oldest part that it was told again."""
        return self._since_utc_ns

    def dimensions(self) -> tuple[Series, ...]:
        """All that was measured at least twice: by lane, recipes that run first, lengths before counts and scores, newest limits first."""
        with self._lock:
            known = {key: values[-1][0].at_utc_ns for key, values in self._series.items() if len(values) > 1}
            runs = {(part.lane, part.recipe_name) for part in list(self._parts.values())[-NEWEST:]}

        def order(key: Series) -> tuple[Any, ...]:
            kind = (key.lane, (key.lane, key.recipe) not in runs, key.recipe, key.unit != "mm")
            return (*kind, _natural(key.check), _natural(key.feature), -known[key])

        return tuple(sorted(known, key=order))

    def series(self, series: Series) -> tuple[tuple[Part, Measured], ...]:
        """The newest values of one dimension, oldest first."""
        with self._lock:
            return tuple(self._series.get(series, ()))

    def cameras(self, now_ns: int) -> tuple[CameraHealth, ...]:
        """How each camera of the configuration does."""
        with self._lock:
            newest = list(self._parts.values())[-LATENCY_WINDOW * max(1, len(self._cameras)) :]
            return tuple(self._health(name, lane, [p for p in newest if p.lane == lane], now_ns) for name, lane in self._cameras)

    def _health(self, name: str, lane: int, parts: Sequence[Part], now_ns: int) -> CameraHealth:
        shown = [(p, e) for p in parts for e in p.exposures if e.camera == name]
        hold = next((h for h in (f"camera:{name}", f"blind:{name}") if h in self._holds), None)
        heard = self._beat_ns is not None and now_ns - self._beat_ns <= STALE_AFTER_NS
        seen, lost, not_inspected = self._camera_counts.get(lane, (0, 0, 0))
        return CameraHealth(
            name,
            lane,
            hold is None if heard else None,
            hold_name(hold, self._holds[hold] or self._hold_texts.get(hold, "")) if hold else "",
            shown[-1][0].at_utc_ns if shown else None,
            self._rate(now_ns, lane),
            seen,
            lost,
            not_inspected,
            shown[-1][1].quality_ratio if shown else None,
            spread(p.total_ms for p, _ in shown if p.total_ms is not None),
        )


def _keep(into: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> Any:
    """Put, and let the oldest go."""
    into[key] = value
    while len(into) > most:
        into.popitem(last=False)
    return value


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts hole-10 after hole-9."""
    return [(int(piece), "") if piece.isascii() and piece.isdigit() else (-1, piece) for piece in re.split(r"([0-9]+)", text)]
