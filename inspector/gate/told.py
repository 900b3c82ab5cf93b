"""The JSON text of what the gate tells. A verdict's, made for every part, fills a form that is prepared once for a start of the line.

Every text is open: it lacks the `hash` and the brace with which `protocol.seal` closes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from inspector.gate import protocol
from inspector.gate.ledger import Counters, Line, Part
from inspector.gate.said import NOTHING, Said
from inspector.records import Decision, Reason, Verdict

LARGEST_FINDINGS: Final = 64
LARGEST_DEFECTS: Final = 32
LARGEST_REASON_BYTES: Final = 200
RECIPES_KEPT: Final = 64
ROOM_BYTES: Final = protocol.LARGEST_PAYLOAD_BYTES - 80

_OPC: Final = {
    Verdict.PASS: (1, 1),
    Verdict.REJECT_DEFECT: (1, 2),
    Verdict.REJECT_COMMANDED: (1, 2),
    Verdict.REJECT_UNDECIDABLE: (1, 3),
    Verdict.REJECT_NOT_INSPECTED: (4, 0),
}
"""(ResultState, Evaluation) of OPC 40100-1."""
_ABORTED: Final = 3
_ABORTS: Final = frozenset({int(Reason.DRAINING), int(Reason.PURGE)})
_PASS: Final = Verdict.PASS
_WEIGHT: Final = {Decision.FAIL: 0, Decision.UNJUDGED: 1, Decision.PASS: 2}
_NAMES: Final = {verdict: verdict.name.encode() for verdict in Verdict}
_BOOL: Final = (b"false", b"true")
_CLOCKS: Final = {state: protocol.dumps(state) for state in ("ok", "holdover", "unsynced")}


class Outcome(NamedTuple):
    """What a verdict says of its part; `r_seq` is its number in stream r, `clock_state` ok, holdover or unsynced.

    `recipe` and `models` are those in force, for a part that no camera has judged; `models_of` knows the models of earlier recipes.
    """

    part: Part
    verdict: Verdict
    reason: int
    text: str
    ttl_us: int
    r_seq: int | None
    counters: Counters
    utc_offset_ns: int
    clock_state: str
    recipe: str
    models_of: Mapping[str, Sequence[Mapping[str, str]]]


def cut(text: str, most_bytes: int) -> str:
    """At most so many bytes of UTF-8."""
    if 4 * len(text) <= most_bytes:
        return text
    return text.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")


def texts(counters: Counters) -> dict[str, str]:
    """The counters as an event has them."""
    triggers, passed, reject, not_inspected, pending = counters
    return {
        "triggers": str(triggers), "pass": str(passed), "reject": str(reject), "not_inspected": str(not_inspected), "pending": str(pending)
    }  # fmt: skip


def _constant(value: object) -> bytes:
    return protocol.dumps(value).replace(b"%", b"%%")


def _whole(number: int | None) -> bytes:
    return b"null" if number is None else b"%d" % number


class Form:
    """The texts of one start (`epoch`, UUID text) of one line."""

    def __init__(self, *, site: str, line_name: str, station: str, line: Line, epoch: str, app_version: str) -> None:
        self._line = line
        self._place = {"site": site, "line": line_name, "station": station}
        self._epoch = epoch
        self._recipes: dict[tuple[str, tuple[str, int | None] | None], tuple[Sequence[Mapping[str, str]], bytes]] = {}
        self._verdict = (
            b'{"schema":"insp.verdict","ver":%b,"epoch":%b,"stream":"q","seq":"%%d","t_event_utc_ns":"%%d","site":%b,"line":%b,"station":%b,'
            b'"part_uid":%%b,"lane":%%d,"part_seq":"%%d","r_seq":%%b,'
            b'"trigger":{"source":%b,"encoder_count":%%b,"t_trigger_utc_ns":"%%d","clock_state":%%b},'
            b'"eject":{"encoder_target":%%b,"window_counts":%b,"deadline_ms_from_trigger":%b,"ttl_us":%%d},'
            b'"verdict":"%%b","reason":%%d,"reason_text":%%b,'
            b'"state":{"result_state":%%d,"evaluation":%%d,"is_simulated":%%b,"is_partial":%%b},'
            b'"findings":[%%b],"defects":[%%b],"cameras":[%%b],%%b,"calibration_id":null,"app_version":%b,'
            b'"timing_ms":%%b,"pose":%%b,'
            b'"counters":{"triggers":"%%d","pass":"%%d","reject":"%%d","not_inspected":"%%d","pending":"%%d"},'
            b'"durable_at_send":%%b,"late":false,"supersedes":null,"image_ref":%%b,"prev_hash":"%%b"%%b'
        ) % tuple(
            _constant(value)
            for value in (
                protocol.VERSION, epoch, site, line_name, station, line.count, line.window_counts, line.deadline_ms, app_version
            )
        )  # fmt: skip

    def event(self, stream: str, seq: int, at_utc_ns: int, body: Mapping[str, Any], previous: bytes) -> bytes:
        """The open text of an alarm, a state or the end of an epoch."""
        whole = {
            "schema": "",
            "ver": protocol.VERSION,
            "epoch": self._epoch,
            "stream": stream,
            "seq": str(seq),
            "t_event_utc_ns": str(at_utc_ns),
            **self._place,
            **body,
            "prev_hash": previous.hex(),
        }
        return protocol.dumps(whole)[:-1]

    def verdict(self, now_ns: int, seq: int, outcome: Outcome, previous: bytes) -> bytes:
        """The open text of a verdict, made to fit: what passed goes before what failed, and what is not required before what is."""
        part, verdict, reason, text, ttl_us, r_seq, counters, utc_offset_ns, clock_state, recipe_now, models_of = outcome
        findings = defects = b""
        cameras: list[bytes] = []
        several = len(part.votes) > 1
        for camera, vote in part.votes.items():
            said = NOTHING if vote is None else vote.said
            findings = _and(findings, said.findings)
            defects = _and(defects, said.defects)
            if said.camera:
                cameras.append(_view(said) if several else said.camera)
            elif camera in part.bound:
                cameras.append(protocol.dumps({"cam_id": camera, "frame_id": part.bound[camera], "complete": False}))
        _, _, _, timing, pose, image_ref, recipe, named = _decisive(part)
        recipe = recipe or recipe_now
        if verdict is _PASS:
            defects = b""
        result, evaluation = _OPC[verdict]
        if reason in _ABORTS:
            result = _ABORTED
        if findings.count(b"{") > LARGEST_FINDINGS or defects.count(b"{") > LARGEST_DEFECTS:
            findings, defects = b",".join(_each(findings)[:LARGEST_FINDINGS]), b",".join(_each(defects)[:LARGEST_DEFECTS])
        counts, travel = part.at_counts, self._line.travel_counts
        since_ms = protocol.dumps((now_ns - part.at_ns) // 1000 / 1000)
        timing = b'%b"trigger_to_verdict":%b}' % (timing[:-1] + b"," if timing else b"{", since_ms)
        whose = self._whose(recipe, named, models_of.get(recipe, ()))

        def write(findings: bytes, defects: bytes, *, more: bool = True, truncated: bytes = b"") -> bytes:
            return self._verdict % (
                seq, now_ns + utc_offset_ns, _text(part.uid) if more else b"null", part.lane, part.part_seq,
                b"null" if r_seq is None else b'"%d"' % r_seq, _whole(counts), part.at_ns + utc_offset_ns,
                _CLOCKS.get(clock_state) or _text(clock_state),
                _whole(None if counts is None or travel is None else counts + travel), ttl_us,
                _NAMES[verdict], reason, _text(cut(text, LARGEST_REASON_BYTES)),
                result, evaluation, _BOOL[part.challenge], _BOOL[None in part.votes.values()],
                findings, defects, b",".join(cameras) if more else b"",
                whose if more else self._whose(recipe, named, ()),
                timing if more else b"{}", pose if more and pose else b"null",
                *counters, _BOOL[verdict is _PASS and self._line.commit_ms > 0], _text(image_ref if more else None),
                previous.hex().encode(), truncated,
            )  # fmt: skip

        whole = write(findings, defects)
        if len(whole) <= ROOM_BYTES:
            return whole
        failed, places = [text for text in _each(findings) if _failed(text)], _each(defects)
        for most_findings, most_defects in ((LARGEST_FINDINGS, LARGEST_DEFECTS), (8, 8), (0, 0)):
            whole = write(b",".join(failed[:most_findings]), b",".join(places[:most_defects]), truncated=b',"truncated":true')
            if len(whole) <= ROOM_BYTES:
                return whole
        return write(b"", b"", more=False, truncated=b',"truncated":true')

    def _whose(self, recipe: str, named: tuple[str, int | None] | None, models: Sequence[Mapping[str, str]]) -> bytes:
        """By which networks and recipe a part was judged: the same text from part to part, and written once."""
        known = self._recipes.get((recipe, named))
        if known is not None and known[0] is models:
            return known[1]
        text = _fields({
            "model": {"name": models[0]["name"], "version": "", "sha256": models[0]["sha256"]} if models else None,
            "models": models,
            "config_sha256": recipe,
            "recipe": None if named is None else {"name": named[0], "number": named[1]},
        })  # fmt: skip
        if len(self._recipes) >= RECIPES_KEPT:
            self._recipes.clear()
        self._recipes[recipe, named] = models, text
        return text


def _decisive(part: Part) -> Said:
    """What the camera has said whose word the verdict is: of several the first that found a defect, or else could not judge."""
    said = [(_WEIGHT[vote.decision], vote.said.image_ref is None, vote.said) for vote in part.votes.values() if vote and vote.said.camera]
    return min(said, key=itemgetter(0, 1))[2] if said else NOTHING


def _view(said: Said) -> bytes:
    """One of several cameras, with its own picture and where the part is in that: the event's are those of the decisive one."""
    recipe = protocol.dumps(None if said.named is None else said.named[0])
    return b'%b,"image_ref":%b,"pose":%b,"recipe":%b}' % (said.camera[:-1], _text(said.image_ref), said.pose or b"null", recipe)


def _fields(body: Mapping[str, Any]) -> bytes:
    """Some members of an object, to stand among others."""
    return protocol.dumps(body)[1:-1]


def _and(some: bytes, more: bytes) -> bytes:
    return b"%b,%b" % (some, more) if some and more else some or more


def _each(members: bytes) -> list[bytes]:
    """The texts of an array's members."""
    return [protocol.dumps(each) for each in protocol.decode_json(b"[%b]" % members)]


def _failed(text: bytes) -> bool:
    finding = protocol.decode_json(text)
    return isinstance(finding, dict) and not finding.get("ok")


def _text(text: str | None) -> bytes:
    return b"null" if text is None else protocol.dumps(text) if text else b'""'
