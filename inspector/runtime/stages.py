"""What the threads of vision do, as plain functions over the little that each keeps: a test calls them in any order, without a thread.

`capture` makes a part known before anything can happen to its picture; `inspect` judges what waits and says so. What cannot be said to
the gate (it does not read, the line is full) is safe unsaid: the gate rejects at the part's deadline what it has not heard of.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Protocol

from inspector.gate import protocol
from inspector.geometry import raster
from inspector.interfaces import Clock, FillsAhead, Source, fills_ahead
from inspector.judge import LONGEST_TEXT_BYTES, judge
from inspector.neural import crew
from inspector.outputs.archive import Archive, encode, stored
from inspector.outputs.metrics import Histogram
from inspector.records import Decision, DeviceError, Evidence, Finding, Frame, Inspection, Pose, Reason, Recipe, Stamp
from inspector.runtime.changeover import Shadow
from inspector.runtime.changeover_board import Board
from inspector.runtime.link import Dropped, Judged, Lost, Noted, Seen, ToGate
from inspector.runtime.quality import PictureHealth, Qualities
from inspector.runtime.quarantine import MOST_CRASHES, Quarantine, digest_of
from inspector.runtime.ring import Lent, Ring


class Tell(Protocol):
    """Say it to the gate; False when it could not be said."""

    def __call__(self, *messages: ToGate) -> bool:
        """One packet, where there is more than one message."""
        ...


LARGEST_GAP = 1_000
SETTLING_FRAMES = 3
MOST_FINDINGS, MOST_DEFECTS = 64, 32
BATCH_SHARE, LEFT_SHARE = 0.25, 0.5
"""Of the time to judge: what a batch may take, and what a picture that is left is always enough."""
STEADY: Final = 8
"""So many batches make the running mean of what a picture takes."""


@dataclass(slots=True)
class Capturing:
    """What `capture` keeps of one camera. `counts`: seen, lost, incomplete, dropped, repeated, untold."""

    camera: str
    source: Source | FillsAhead
    ring: Ring
    tell: Tell
    clock: Clock
    last_seq: int = 0
    offset: int | None = 0
    settling: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def renew(self, source: Source | FillsAhead, ring: Ring) -> None:
        """The camera was built anew: its exposures go on from the last number, and the first few do not count as whole."""
        self.source, self.ring, self.offset, self.settling = source, ring, None, SETTLING_FRAMES
        ring.reclaim()


def capture(state: Capturing, timeout_s: float = 0.2) -> None:
    """Read one picture, if one comes in time, and make its part known; tell which exposures are missing and who had to give way.

    Raises what the source raises: `DeviceError` (build it anew), `EndOfPictures`.
    """
    source = state.source
    if fills_ahead(source):
        slot, stamp = _filled(source, state.ring, timeout_s)
    else:
        slot, into = None, state.ring.slot(timeout_s)
        stamp = None if into is None else source.read(into, timeout_s)
    if stamp is not None and not _known(state, stamp, slot) and slot is not None:
        state.ring.keep(slot)


def _filled(source: FillsAhead, ring: Ring, timeout_s: float) -> tuple[int | None, Stamp | None]:
    """The slot that the driver has filled, after it was given all that it may have."""
    while (more := ring.give(timeout_s)) is not None:
        source.give(*more)
    return source.take(timeout_s) or (None, None)


def _known(state: Capturing, stamp: Stamp, slot: int | None) -> bool:
    """Make the picture's part known and hand the picture over; False when it stays where it is, because nobody will judge it."""
    if state.offset is None:
        state.offset = state.last_seq + 1 - stamp.seq
    if state.offset or state.settling:
        stamp = stamp._replace(seq=stamp.seq + state.offset, complete=stamp.complete and not state.settling)
    camera, counts, last_seq = state.camera, state.counts, state.last_seq
    if stamp.seq <= last_seq:
        counts["repeated"] += 1
        return False
    if last_seq and stamp.seq != last_seq + 1:
        if stamp.seq - last_seq > LARGEST_GAP:
            raise DeviceError(f"camera {camera}: the exposure number jumped from {last_seq} to {stamp.seq}")
        for missing in range(last_seq + 1, stamp.seq):
            if not _tell(state, Lost(camera, missing, stamp.at_ns, stamp.at_counts)):
                return False
            state.last_seq = missing
            counts["lost"] += 1
    if not _tell(state, Seen(camera, stamp.seq, stamp.at_ns, stamp.at_counts, stamp.complete, stamp.uid)):
        return False  # the next exposure will show the gap, and this one counts as lost
    state.last_seq = stamp.seq
    if state.settling:
        state.settling -= 1
    counts["seen"] += 1
    if not stamp.complete:
        counts["incomplete"] += 1
    dropped = state.ring.commit(stamp, state.clock(), slot)
    if dropped is not None:
        state.counts["dropped"] += 1
        _tell(state, Dropped(state.camera, dropped.seq, Reason.QUEUE_OVERFLOW))
    return True


def _tell(state: Capturing, message: ToGate) -> bool:
    said = state.tell(message)
    state.counts["untold"] += not said
    return said


@dataclass(slots=True)
class Inspecting:
    """What all inspecting threads share. The `board` says which recipe judges an exposure; `lanes` are the cameras' lanes.

    A picture that cannot be told within `to_judge_ns` of its exposure (0: no limit) gives way to those behind it: in an overload, what is
    judged would else be late too. `took_ns` is what a picture of a camera takes, a running mean.
    `counts` by (camera, decision); `gave_way` by camera; `latency` from exposure to told, `waited` in the ring, `spent` by stage; `untold`
    results.
    """

    board: Board
    rings: dict[str, Ring]
    bell: threading.Condition
    tell: Tell
    archive: Archive | None
    clock: Clock
    utc_ns: Clock
    batch: int
    lanes: Mapping[str, int] = field(default_factory=dict)
    shadow: Callable[[], Shadow | None] = lambda: None
    quality: Qualities | None = None
    quarantine: Quarantine | None = None
    to_judge_ns: int = 0
    took_ns: dict[str, float] = field(default_factory=dict)
    gave_way: Counter[str] = field(default_factory=Counter)
    health: dict[str, PictureHealth] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    untold: int = 0
    latency: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    waited: Histogram = field(default_factory=Histogram)
    spent: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))


def inspect(state: Inspecting, timeout_s: float = 0.2) -> int:
    """Judge what the camera that waits longest has, at most a batch, and tell the gate; returns how many it took. Waits a little for work.

    While no picture waits it helps the other threads with theirs.
    """
    with state.bell:
        ring = _oldest(state.rings)
        if ring is None:
            if not state.bell.wait_for(lambda: crew.wants_help() or _oldest(state.rings) is not None, timeout_s):
                return 0
            ring = _oldest(state.rings)
        lent = ring.borrow(_batch(state, ring.oldest.camera)) if ring is not None else []
    if ring is None:
        crew.lend_a_hand()
        return 0
    try:
        _inspect(state, lent)
    finally:
        ring.give_back(*lent)
    return len(lent)


def _oldest(rings: Mapping[str, Ring]) -> Ring | None:
    """Where the picture that waits longest is (hold the bell)."""
    oldest = None
    for ring in rings.values():
        if ring.waits and (oldest is None or ring.oldest_ns < oldest.oldest_ns):
            oldest = ring
    return oldest


def _batch(state: Inspecting, camera: str) -> int:
    """How many pictures may be judged together: the first one is not told before the last."""
    took_ns = state.took_ns.get(camera, 0.0)
    if not state.to_judge_ns or not took_ns:
        return state.batch
    return max(1, min(state.batch, int(BATCH_SHARE * state.to_judge_ns / took_ns)))


def _in_time(state: Inspecting, camera: str, lent: list[Lent], now_ns: int) -> list[Lent]:
    """Those that can still be told in time; the others give way."""
    if not state.to_judge_ns:
        return lent
    needs_ns = min(len(lent) * state.took_ns.get(camera, 0.0), LEFT_SHARE * state.to_judge_ns)
    latest_ns = now_ns + needs_ns - state.to_judge_ns
    late = [each.frame.stamp.seq for each in lent if each.frame.stamp.at_ns < latest_ns]
    if not late:
        return lent
    told = state.tell(*[Dropped(camera, seq, Reason.QUEUE_OVERFLOW) for seq in late])
    with state.lock:
        state.gave_way[camera] += len(late)
        state.untold += 0 if told else len(late)
    return [each for each in lent if each.frame.stamp.at_ns >= latest_ns]


def _learn(state: Inspecting, camera: str, took_ns: float) -> None:
    """So long a picture took; a single long one (the process was stopped) is not believed, nor is the first, for which all is cold."""
    if camera not in state.took_ns:
        state.took_ns[camera] = 0.0
        return
    before_ns = state.took_ns[camera] or took_ns
    state.took_ns[camera] = before_ns + (min(took_ns, 2 * before_ns) - before_ns) / STEADY


def _inspect(state: Inspecting, lent: list[Lent]) -> None:
    start_ns = state.clock()
    camera = lent[0].frame.stamp.camera
    lent = _in_time(state, camera, lent, start_ns)
    if not lent:
        return
    health = state.health.get(camera) or state.health.setdefault(camera, PictureHealth())
    looked = [health.look(each.frame.stamp, each.frame.image) if each.frame.stamp.complete else (0.0, None) for each in lent]
    turns = [state.board.of(each.frame.stamp) for each in lent]
    inspections: dict[int, Inspection] = {}
    for recipe in {recipe.digest: recipe for recipe, _ in turns}.values():
        good = [n for n, turn in enumerate(turns) if turn[0] is recipe and looked[n][1] is None]
        inspections.update(zip(good, _judged(state, [lent[n].frame for n in good], recipe), strict=True))
    end_ns = state.clock()
    if inspections:
        _learn(state, camera, (end_ns - start_ns) / len(inspections))
    reports = []
    for n, (each, (quality, trouble), (recipe, part)) in enumerate(zip(lent, looked, turns, strict=True)):
        if trouble is None:
            inspection = inspections[n]
        else:
            inspection = Inspection(each.frame.stamp, Decision.UNJUDGED, trouble[0], trouble[1], (), None, recipe.digest, {})
        reports.append(_reported(state, each, inspection, _Case(recipe, part, trouble is None, quality, start_ns, end_ns)))
    told = state.tell(*[report.said for report in reports])
    _count(state, camera, reports, told=told)
    for report in reports:
        _account(state, report)


def _judged(state: Inspecting, frames: list[Frame], recipe: Recipe) -> list[Inspection]:
    """`judge`, with those alone, or not at all, that have ended this process before."""
    quarantine = state.quarantine
    if quarantine is None:
        return judge(frames, recipe, state.clock)
    digests = [digest_of(frame.image) for frame in frames]
    if not any(quarantine.suspicious(digest) for digest in digests):
        with quarantine.judging(digests):
            return judge(frames, recipe, state.clock)
    inspections = []
    for frame, digest in zip(frames, digests, strict=True):
        if quarantine.poisonous(digest):
            text = f"this picture ({digest.hex()[:12]}) has ended the process that judged it {MOST_CRASHES} times: it is not judged again"
            inspections.append(Inspection(frame.stamp, Decision.UNJUDGED, Reason.INFER_ERROR, text, (), None, recipe.digest, {}))
            continue
        with quarantine.judging([digest]):
            inspections += judge([frame], recipe, state.clock)
    return inspections


class _Case(NamedTuple):
    """How a picture was judged: by which recipe, as a picture of which part, whether the recipe was asked at all, and when."""

    recipe: Recipe
    part: int | None
    judged: bool
    quality: float
    start_ns: int
    end_ns: int


def _unjudged(stamp: Stamp, error: Exception, digest: str) -> Inspection:
    text = f"{type(error).__name__}: {error}".encode()[:LONGEST_TEXT_BYTES].decode(errors="ignore")
    return Inspection(stamp, Decision.UNJUDGED, Reason.INFER_ERROR, text, (), None, digest, {})


class _Report(NamedTuple):
    """A judgement on its way: what is said of it, and what it is to be kept and counted by."""

    said: Judged
    lent: Lent
    inspection: Inspection
    case: _Case
    reference: str | None
    at_utc_ns: int
    at_ns: int


def _reported(state: Inspecting, lent: Lent, inspection: Inspection, case: _Case) -> _Report:
    stamp, now_ns, keeps = inspection.stamp, state.clock(), state.archive
    reference = keeps.wanted(lent.frame, inspection.decision, case.part) if keeps else None
    timing: dict[str, float | Mapping[str, float]] = {  # milliseconds, to the microsecond
        "acq": (lent.committed_ns - stamp.at_ns) // 1000 / 1000,
        "queue": (case.start_ns - lent.committed_ns) // 1000 / 1000,
        "infer": (case.end_ns - case.start_ns) // 1000 / 1000,
        "decide": (now_ns - case.end_ns) // 1000 / 1000,
        "total": (now_ns - stamp.at_ns) // 1000 / 1000,
        "stages": {stage: spent_ns // 1000 / 1000 for stage, spent_ns in inspection.spent_ns.items()},
    }
    utc_ns = state.utc_ns() - now_ns + stamp.at_ns
    plan = case.recipe.plans[stamp.camera]
    lanes = list(state.lanes.values())
    shared = lanes.count(state.lanes.get(stamp.camera, -1)) > 1
    body = partial(
        body_of, quality=case.quality, utc_ns=utc_ns, timing_ms=timing, image_ref=reference, named=(plan.recipe, plan.number), shared=shared
    )
    try:
        told = body(inspection)
    except Exception as error:  # noqa: BLE001 - a check has said what cannot be told
        inspection = _unjudged(stamp, error, inspection.recipe)
        told = body(inspection)
    said = Judged(stamp.camera, stamp.seq, inspection.decision._value_, inspection.reason, inspection.reason_text, told)
    return _Report(said, lent, inspection, case, reference, utc_ns, now_ns)


def _count(state: Inspecting, camera: str, reports: Sequence[_Report], *, told: bool) -> None:
    """Count what the gate has heard of one camera's pictures."""
    by_stage: dict[str, list[float]] = {}
    for report in reports:
        for stage, spent_ns in report.inspection.spent_ns.items():
            by_stage.setdefault(stage, []).append(spent_ns / 1e9)
    with state.lock:
        state.untold += 0 if told else len(reports)
        for report in reports:
            state.counts[camera, report.said.decision] += 1
        histograms = [(state.spent[stage], spent_s) for stage, spent_s in by_stage.items()]
        latency = state.latency[camera]
    latency.observe(*[(report.at_ns - report.inspection.stamp.at_ns) / 1e9 for report in reports])
    state.waited.observe(*[(report.case.start_ns - report.lent.committed_ns) / 1e9 for report in reports])
    for histogram, spent_s in histograms:
        histogram.observe(*spent_s)


def _account(state: Inspecting, report: _Report) -> None:
    """After the gate has heard it: what is to be kept is kept, and who watches pictures is shown it."""
    _, lent, inspection, case, reference, utc_ns, _ = report
    stamp, keeps = inspection.stamp, state.archive
    state.board.judged(inspection)
    if keeps and (reference or case.part is not None):
        lane = state.lanes.get(stamp.camera, 0)
        record = encode(stored(inspection, case.recipe, at_utc_ns=utc_ns, lane=lane, judged=case.judged))
        if reference:
            keeps.put(reference, lent.frame, record)
        elif case.part is not None:
            keeps.hold(lent.frame, record, case.part)
    if case.judged and (shadow := state.shadow()) is not None:
        shadow.offer(lent.frame, inspection, case.recipe, utc_ns)
    if case.judged and state.quality is not None:
        quality = state.quality.of(stamp.camera, case.recipe.plans[stamp.camera].recipe)
        for severity, text in quality.see(lent.frame.image):
            state.tell(Noted("PICTURE_DRIFT", severity, f"camera {stamp.camera}: {text}"))


def body_of(
    inspection: Inspection,
    *,
    quality: float,
    utc_ns: int,
    timing_ms: Mapping[str, float | Mapping[str, float]],
    image_ref: str | None,
    named: tuple[str, int | None] = ("", None),
    shared: bool = False,
) -> bytes:
    """What vision adds to the event, as JSON text: numbers finite or null, what is wrong before what is right where there is too much.

    Where several cameras look at the same part (`shared`), each finding and each defect says whose it is.
    """
    stamp, pose = inspection.stamp, inspection.pose
    whose = stamp.camera if shared else ""
    findings = inspection.findings
    if len(findings) > MOST_FINDINGS:
        findings = tuple(sorted(findings, key=lambda finding: finding.ok))[:MOST_FINDINGS]
    bad = [(finding, finding.evidence) for finding in inspection.findings if finding.evidence and not finding.ok]
    whose_it_is = {"cam_id": whose} if whose else {}
    return _BODY % (
        b",".join([_finding(finding, whose) for finding in findings]),
        protocol.dumps([_defect(finding, evidence, pose, stamp) | whose_it_is for finding, evidence in bad[:MOST_DEFECTS]])
        if bad
        else b"[]",
        _constant(stamp.camera),
        stamp.seq,
        utc_ns,
        _TRUTH[stamp.complete],
        quality,
        protocol.dumps(timing_ms),
        b"null" if pose is None else protocol.dumps(_pose(pose)),
        b"null" if image_ref is None else protocol.dumps(image_ref),
        b"null" if stamp.uid is None else protocol.dumps(stamp.uid),
        _constant(inspection.recipe),
        _constant(named[0]),
        b"null" if named[1] is None else b"%d" % named[1],
    )


_BODY: Final = (
    b'{"findings":[%b],"defects":%b,"camera":{"cam_id":%b,"frame_id":%d,"t_exposure_utc_ns":"%d","exposure_us":null,"complete":%b,'
    b'"quality":%.4f},"timing_ms":%b,"pose":%b,"image_ref":%b,"part_uid":%b,"recipe":%b,"recipe_name":%b,"recipe_number":%b}'
)
"""Made for every picture: a form that is filled takes a third of the time of a dictionary that is written."""
_TRUTH: Final = (b"false", b"true")


@lru_cache(maxsize=1024)
def _constant(text: str) -> bytes:
    return protocol.dumps(text)


def _number(value: float | None) -> float | None:
    """Six significant digits are more than any gauge has; what is not finite is null."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _written(value: float | None) -> bytes:
    """The same as text."""
    return b"null" if value is None or not math.isfinite(value) else b"%.6g" % value


def _finding(finding: Finding, whose: str) -> bytes:
    check, feature, value, low, high, unit, place, _ = finding
    at_mm = b"null" if place is None else b"[%b,%b]" % (_written(place[0]), _written(place[1]))
    return _finding_form(check, feature, low, high, unit, whose) % (_written(value), _TRUTH[finding.ok], at_mm)


@lru_cache(maxsize=1024)
def _finding_form(check: str, feature: str, low: float | None, high: float | None, unit: str, whose: str) -> bytes:
    """What a finding says of every part, with room for its value, whether that is within the limits, and its place."""
    texts = [protocol.dumps(text).replace(b"%", b"%%") for text in (check, feature, unit)]
    named = b'{"check":%b,"feature":%b,"value":%%b,"low":%b,"high":%b,"unit":%b,"ok":%%b,"at_mm":%%b%b}'
    cam_id = b',"cam_id":%b' % protocol.dumps(whose) if whose else b""
    return named % (texts[0], texts[1], _written(low), _written(high), texts[2], cam_id)


def _defect(finding: Finding, evidence: Evidence, pose: Pose | None, stamp: Stamp) -> dict[str, Any]:
    x, y, width, height = evidence.bbox_px
    box_mm = None
    if stamp.web is not None:
        left, bottom = stamp.web.place(x, y)
        box_mm = [_number(value) for value in (left, bottom, width * stamp.web.mm_per_column, height * stamp.web.mm_per_row)]
    elif pose is not None:
        corners = raster.to_drawing([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], pose)
        (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
        box_mm = [_number(float(value)) for value in (left, bottom, right - left, top - bottom)]
    return {
        "class": evidence.class_name,
        "score": _ratio(evidence.score),
        "threshold": _ratio(evidence.threshold),
        "bbox_px": [_number(float(value)) for value in evidence.bbox_px],
        "bbox_mm": box_mm,
        "area_mm2": _number(evidence.area_mm2),
    }


def _ratio(value: float) -> float:
    return round(min(1.0, max(0.0, float(value))), 4) if math.isfinite(value) else 0.0


def _pose(pose: Pose) -> dict[str, Any]:
    return {
        "x_px": _number(pose.x_px),
        "y_px": _number(pose.y_px),
        "angle_rad": _number(pose.angle_rad),
        "scale_px_per_mm": _number(pose.scale_px_per_mm),
        "score_ratio": _number(pose.score_ratio),
        "residual_mm": _number(pose.residual_mm),
        "ambiguous": pose.ambiguous,
    } | ({} if pose.homography is None else {"homography": [_number(value) for value in pose.homography]})
