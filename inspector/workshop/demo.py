"""The demo line: the daemon, a PLC and the desk as processes of their own on a simulated belt, and verdicts held against the truth.

    daemon (gate + vision, cameras over the simulated belt) ── verdicts ──▶ PLC: passes or ejects every part
       └─ events ──▶ here: a line a verdict                  truth of the cameras, outcomes of the PLC ──▶ here: the table at the end

All settings come from one configuration; what the demo changes (state folder, free ports, rate, seed) it says in the environment, in the
configuration's own way, so that every process reads the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from inspector import config
from inspector.client import Message, Subscriber
from inspector.records import ConfigError, Reason

UNSEEN = "without exposure"
"""Parts of which no camera has told the truth: those still coming when the line is stopped."""

READY_S = 120.0
LEAVE_S = 20.0
REFUSED = 78
Part: TypeAlias = tuple[int, int]
"""(lane, part_seq)."""


@dataclass(frozen=True, slots=True)
class Given:
    """One verdict as it was published. `worst` is the finding furthest from the middle of its limits; `named` the checks that refused."""

    lane: int
    part_seq: int
    camera: str
    verdict: str
    reason: int
    reason_text: str
    worst: str
    named: tuple[str, ...]
    latency_ms: float
    margin_ms: float

    @property
    def part(self) -> Part:
        """Which part it is about."""
        return self.lane, self.part_seq


def given(body: Mapping[str, Any], cameras: Mapping[int, str]) -> Given:
    """The verdict in an event's JSON; `cameras` is lane → name."""
    findings = body["findings"]
    latency_ms = float(body["timing_ms"].get("trigger_to_verdict", 0.0))
    worst = max(findings, key=_excess, default=None)
    return Given(
        body["lane"],
        int(body["part_seq"]),
        cameras.get(body["lane"], ""),
        body["verdict"],
        body["reason"],
        body["reason_text"],
        "" if worst is None else _spoken(worst),
        tuple(sorted({f["check"] for f in findings if not f["ok"]})),
        latency_ms,
        float(body["eject"]["deadline_ms_from_trigger"]) - latency_ms,
    )


def _excess(finding: Mapping[str, Any]) -> float:
    """How far a value is from the middle of its limits, 1 at the limit; a value that is not ok is beyond everything that is."""
    value, low, high = finding["value"], finding["low"], finding["high"]
    if value is None:
        return 1e9
    if low is not None and high is not None:
        ratio = abs(value - (low + high) / 2) / max((high - low) / 2, 1e-12)
    elif high is not None:
        ratio = value / high if high > 0 else float(value > high)
    elif finding["unit"] == "ratio":  # 1 is perfect
        ratio = (1 - value) / max(1 - low, 1e-12)
    else:
        ratio = low / value if low is not None and value > 0 else 0.0
    return float(ratio) if finding["ok"] else 1e6 + float(ratio)


def _spoken(finding: Mapping[str, Any]) -> str:
    value = finding["value"]
    limits = "…".join("" if limit is None else f"{limit:g}" for limit in (finding["low"], finding["high"]))
    return f"{finding['check']} {finding['feature']} {'none' if value is None else format(value, '.3g')} {finding['unit']} [{limits}]"


# --- the account -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Row:
    """The parts of one kind. `found`: rejected for a defect; `unjudged`: rejected without a judgement; `passed`: let through by the PLC."""

    parts: int = 0
    found: int = 0
    unjudged: int = 0
    passed: int = 0
    named: Counter[str] = field(default_factory=Counter)


def against_truth(verdicts: Mapping[Part, Given], outcomes: Mapping[Part, Mapping[str, Any]], truth: Mapping[Part, Any]) -> dict[str, Row]:
    """Per kind of defect ("good" for none; a part with several counts for its first), what became of the parts that got a verdict."""
    rows: dict[str, Row] = {}
    for part, verdict in verdicts.items():
        known = truth.get(part)
        kind = UNSEEN if known is None else "good" if known["good"] else known["defects"][0]["kind"]
        row = rows.setdefault(kind, Row())
        row.parts += 1
        if outcomes.get(part, {}).get("outcome") == "PASSED":
            row.passed += 1
        elif verdict.verdict in ("PASS", "REJECT_DEFECT"):
            row.found += verdict.verdict == "REJECT_DEFECT"
            row.unjudged += verdict.verdict == "PASS"  # it came too late, or without a permit: ejected all the same
            row.named.update(verdict.named)
        else:
            row.unjudged += 1
            row.named[_reason_name(verdict.reason)] += 1
    return rows


def _reason_name(reason: int) -> str:
    try:
        return Reason(reason).name
    except ValueError:
        return f"reason {reason}"


def faults_of_account(
    ledger: Mapping[str, int], verdicts: Mapping[Part, Given], outcomes: Mapping[Part, Mapping[str, Any]], repeated: int
) -> list[str]:
    """What does not add up; empty when every part has one outcome and nothing was passed without a PASS."""
    faults = []
    if not ledger:
        return ["the daemon has not said its ledger"]
    total = ledger["pass"] + ledger["reject"] + ledger["not_inspected"] + ledger["pending"]
    if ledger["unexplained"] or ledger["pending"] or total != ledger["triggers"]:
        faults.append(f"the ledger does not balance: {ledger}")
    if len(verdicts) != ledger["triggers"] or repeated:
        faults.append(f"{ledger['triggers']} parts, but {len(verdicts)} of them have a verdict and {repeated} more than one")
    for part, outcome in outcomes.items():
        if outcome["outcome"] == "PASSED" and (part not in verdicts or verdicts[part].verdict != "PASS"):
            faults.append(f"the PLC let part {part[1]} of lane {part[0]} pass without a PASS")
    missing = verdicts.keys() - outcomes.keys()
    if missing:
        faults.append(f"{len(missing)} parts never came to the ejector, such as part {min(missing)[1]} of lane {min(missing)[0]}")
    return faults


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else float("nan")


def account_of(line: Line, rows: Mapping[str, Row], faults: Sequence[str]) -> dict[str, Any]:
    """The whole account as JSON."""
    latencies = [v.latency_ms for v in line.verdicts.values()]
    return {
        "ledger": line.ledger(),
        "plc": Counter(outcome["outcome"] for outcome in line.outcomes().values()),
        "latency_ms": {name: percentile(latencies, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("most", 1.0))},
        "least_margin_ms": min((v.margin_ms for v in line.verdicts.values()), default=None),
        "exposures": len(line.truth),
        "shown_again": line.again,
        "kinds": {kind: asdict(row) | {"named": dict(row.named)} for kind, row in rows.items()},
        "faults": list(faults),
    }


# --- the processes -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Line:
    """A line at work: what has been heard so far, and where its files are."""

    state: Path
    settings: config.Config
    desk: str = ""
    verdicts: dict[Part, Given] = field(default_factory=dict)
    truth: dict[Part, Any] = field(default_factory=dict)
    again: int = 0
    repeated: int = 0
    holes: int = 0
    ledger_line: str = ""
    _read: dict[Path, int] = field(default_factory=dict)

    @property
    def cameras(self) -> dict[int, str]:
        """Lane → camera."""
        return {camera.lane: camera.id for camera in self.settings.cameras}

    def hear(self, message: Message) -> Given | None:
        """Take note of a published verdict."""
        body = message.event.body
        if body.get("schema") != "insp.verdict":
            return None
        verdict = given(body, self.cameras)
        self.repeated += verdict.part in self.verdicts
        self.verdicts[verdict.part] = replace(verdict, worst="", reason_text="")  # what the account needs, for hours of parts
        return verdict

    def read_truth(self) -> None:
        """Read what the cameras have written since the last time."""
        for path in self.state.glob("*.jsonl"):
            if path.name == "plc.jsonl":
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    told = json.loads(line)
                    self.truth[told["lane"], told["part_seq"]] = _needed(told)
                    self.again += told["again"]

    def outcomes(self) -> dict[Part, Mapping[str, Any]]:
        """What the PLC did with each part."""
        path = self.state / "plc.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return {(told["lane"], told["part_seq"]): told for told in map(json.loads, lines)}

    def ledger(self) -> dict[str, int]:
        """The daemon's last line, as numbers."""
        pairs = (word.partition("=") for word in self.ledger_line.split())
        return {name: int(value) for name, _, value in pairs if value.isdecimal()}


def environment(state: Path, *, rate_parts_per_s: float | None, seed: int | None, base: Mapping[str, str]) -> dict[str, str]:
    """The settings that make a configuration a demo; what is set already stays."""
    ours = {
        "INSPECTOR__GATE__BIND": "tcp://127.0.0.1:0",
        "INSPECTOR__EVENTS__BIND": "tcp://127.0.0.1:0",
        "INSPECTOR__EVENTS__REPLAY_BIND": "tcp://127.0.0.1:0",
        "INSPECTOR__METRICS__GATE_BIND": "127.0.0.1:0",
        "INSPECTOR__METRICS__VISION_BIND": "127.0.0.1:0",
        "INSPECTOR__DESK__BIND": "127.0.0.1:0",
        **base,
        "INSPECTOR_STATE": str(state),
        "INSPECTOR__READY_FILE": str(state / "ready.json"),
    }
    if rate_parts_per_s is not None:
        ours["INSPECTOR__CONVEYOR__RATE_PARTS_PER_S"] = str(float(rate_parts_per_s))
    if seed is not None:
        ours["INSPECTOR__CONVEYOR__SEED"] = str(seed)
    return ours


def settings_of(path: Path, variables: Mapping[str, str]) -> config.Config:
    """The configuration as the processes will read it; refuses one that is no demo."""
    settings = config.read(path, environment=variables)
    if settings.conveyor.kind != "simulated":
        raise ConfigError("E_DEMO", f"the demo needs a simulated conveyor, not {settings.conveyor.kind!r}", file=str(path), key="conveyor")
    return settings


@contextmanager
def process(arguments: Sequence[str], *, name: str, state: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the line, out of reach of the terminal's Ctrl-C; its output goes to NAME.out and NAME.log. The context ends it."""
    with (state / f"{name}.out").open("wb") as out, (state / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=out, stderr=log, env=dict(variables), start_new_session=True
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stdin is not None:
            child.stdin.close()


class Stop:
    """Set by Ctrl-C and SIGTERM; asked in every turn."""

    def __init__(self) -> None:
        self.asked = 0

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals within the context; a second one is not for us any more."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def on_signal(number: int, _: Any) -> None:
            self.asked += 1
            if self.asked > 1:
                raise KeyboardInterrupt

        for number in before:
            signal.signal(number, on_signal)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    path: Path,
    state: Path,
    *,
    for_s: float | None,
    variables: Mapping[str, str],
    stop: Stop,
    with_desk: bool,
    show: Callable[[Line, Given | None], None],
    say: Callable[[str], None],
) -> Line:
    """Run the line until `stop` is asked or `for_s` seconds of belt have passed, then drain it; what it all came to.

    `show` is called with each verdict, and with None a few times a second. Raises `ConfigError` with the daemon's own words when it
    refuses to start, `RuntimeError` when it or the PLC fails.
    """
    line = Line(state, settings_of(path, variables))
    with ExitStack() as stack:
        daemon_arguments = ["-m", "inspector", "run", str(path), "--allow-root", "--quiet"]
        daemon = stack.enter_context(process(daemon_arguments, name="daemon", state=state, variables=variables))
        plc_arguments = ["-m", "inspector.workshop.plc", "--config", str(path)]
        plc_arguments += ["--ready", str(state / "ready.json"), "--out", str(state / "plc.jsonl")]
        plc = stack.enter_context(process(plc_arguments, name="plc", state=state, variables=variables))
        say("starting: models are proven, first pictures are drawn")
        ready = _ready(daemon, state, stop)
        if ready is None:
            return line
        ends = ready["endpoints"]
        subscriber = stack.enter_context(Subscriber(ends["events"], replay=ends["replay"], since=(ready["epoch"], 0)))
        if with_desk:
            desk_arguments = ["-m", "inspector", "desk", str(path)]
            stack.enter_context(process(desk_arguments, name="desk", state=state, variables=variables))
        until_ns = None if for_s is None else ready["begin_ns"] + round(for_s * 1e9)
        while not stop.asked and daemon.poll() is None and (until_ns is None or time.monotonic_ns() < until_ns):
            _turn(line, subscriber, show)
            if not line.desk and with_desk:
                line.desk = (state / "desk.out").read_text().strip()
            if plc.poll() is not None:
                raise RuntimeError(f"the PLC has ended with {plc.returncode}: {_tail(state / 'plc.log')}")
        say("draining: no further parts; what is open gets its verdict")
        daemon.terminate()
        leave_s = time.monotonic() + LEAVE_S
        while daemon.poll() is None and time.monotonic() < leave_s:
            _turn(line, subscriber, show)
        while _turn(line, subscriber, show):
            pass
        plc.terminate()
        plc.wait(LEAVE_S)
    line.read_truth()
    said = (state / "daemon.out").read_text().splitlines()
    line.ledger_line = next((text for text in reversed(said) if text.startswith("triggers=")), "")
    return line


def _turn(line: Line, subscriber: Subscriber, show: Callable[[Line, Given | None], None]) -> bool:
    """Wait a little for a message and show it; False when there was none."""
    item = subscriber.receive(0.25)
    line.read_truth()
    if isinstance(item, Message):
        verdict = line.hear(item)
        if verdict is not None:
            show(line, verdict)
    else:
        line.holes += item is not None
        show(line, None)
    return item is not None


def _ready(daemon: subprocess.Popen[bytes], state: Path, stop: Stop) -> Any:
    """The ready file's content, or None when it was stopped before."""
    until_s = time.monotonic() + READY_S
    while not (state / "ready.json").exists():
        if stop.asked:
            return None
        if daemon.poll() == REFUSED:
            raise ConfigError("E_DEMO", f"the daemon did not start: {_tail(state / 'daemon.log')}")
        if daemon.poll() is not None or time.monotonic() > until_s:
            raise RuntimeError(f"the daemon did not start: {_tail(state / 'daemon.log')}")
        time.sleep(0.05)
    return json.loads((state / "ready.json").read_text())


def _tail(path: Path) -> str:
    text = path.read_text(errors="replace").strip() if path.exists() else ""
    return "\n".join(text.splitlines()[-12:]) or "it said nothing"


def _needed(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a part's truth what the account and the screen need: nothing of a good one's pose."""
    if told["good"] and not told.get("fault"):
        return _GOOD
    defects = [{name: defect[name] for name in ("kind", "feature", "size_mm")} for defect in told["defects"]]
    return {"good": told["good"], "fault": told.get("fault"), "defects": defects}


_GOOD: Mapping[str, Any] = {"good": True, "fault": None, "defects": []}


def described(truth: Mapping[str, Any] | None) -> str:
    """What a part really was, in a few words."""
    if truth is None:
        return ""
    defects = ", ".join(
        f"{d['kind']} {d['feature']}".rstrip() + f" {d['size_mm'][0]:.2g}×{d['size_mm'][1]:.2g} mm" for d in truth["defects"]
    )
    return (defects or "good") + (f" [{truth['fault']}]" if truth.get("fault") else "")


def folder_of_ours(*parts: str) -> Path:
    """A path in the checkout that this package lies in, or in what is installed with it."""
    checkout = Path(__file__).resolve().parents[2]
    ours = checkout if (checkout / "configs").is_dir() else Path(sys.prefix, "share", "inspector")
    return ours.joinpath(*parts)


def am_root() -> bool:
    """True for a user who should not run a line."""
    return os.geteuid() == 0
