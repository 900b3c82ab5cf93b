"""What codes mean, in the words of the person who stands at the line, and what to do about them."""

from __future__ import annotations

import datetime

from inspector.records import FIRST_CLASS_REASON, LAST_CLASS_REASON, Reason

REASONS: dict[int, tuple[str, str]] = {
    Reason.FRAME_LOST: ("picture lost", "Look at the camera's cable, switch and network card; parts are rejected unseen."),
    Reason.FRAME_INCOMPLETE: ("picture incomplete", "Packets were lost: look at the network card's buffers and the packet size."),
    Reason.CAMERA_DOWN: ("camera down", "Look at the camera's power and cable; it comes back by itself."),
    Reason.INFER_TIMEOUT: ("judged too slowly", "The PC is overloaded, or one picture is unusually hard."),
    Reason.INFER_ERROR: ("judging failed", "See the reason's text; if it stays, call the integrator."),
    Reason.QUEUE_OVERFLOW: ("too many parts at once", "Pictures come faster than they are judged: slow the line down."),
    Reason.MODEL_NOT_READY: ("model not ready", "Wait for the start to end; if it stays, look at the daemon's log."),
    Reason.DEADLINE: ("too late for the ejector", "The PC is overloaded: slow the line down, or look at what else runs there."),
    Reason.STAGE_DEAD: ("judging restarted", "The vision process died and is started again; parts are rejected meanwhile."),
    Reason.TRIGGER_MISMATCH: ("part and picture do not match", "Look at the part sensor and the encoder."),
    Reason.IMAGE_QUALITY: ("picture is no good", "Look at the light and the lens: dark, bright, blurred or frozen."),
    Reason.DRAINING: ("the daemon was stopping", "Nothing to do."),
    Reason.CONFIG_SWAP: ("the recipe was changing", "Nothing to do."),
    Reason.CLOCK_FAULT: ("clock fault", "Look at the time service of the PC."),
    Reason.NON_FINITE: ("a measurement is no number", "A model or a gauge failed; call the integrator if it stays."),
    Reason.STARTUP: ("the daemon was starting", "Nothing to do."),
    Reason.GREY_BAND: ("neither good nor bad", "Look at the part; the limits may need an engineer."),
    Reason.OUT_OF_DISTRIBUTION: ("unlike anything known", "Look at the part; is it the right recipe?"),
    Reason.CAMERAS_DISAGREE: ("cameras disagree", "Look at the part."),
    Reason.CHALLENGE: ("test part", "This part was meant to be rejected."),
    Reason.PURGE: ("rejected by order", "The gateway or a person rejected these parts."),
}

STATES = {
    "BOOT": "Starting",
    "SELFTEST": "Testing itself",
    "READY": "Ready, not running",
    "RUN": "Running",
    "DRAINING": "Stopping",
    "STOPPED": "Stopped",
    "ERROR": "Error",
}

HOLDS = {
    "state": "no part is judged",
    "camera": "camera {} is down",
    "blind": "camera {} shows nothing that can be judged",
    "journal": "the journal is not durable",
    "ledger": "parts without an outcome",
    "speed": "the belt is too fast",
    "encoder": "the encoder cannot be trusted",
    "challenge": "a test part was not found bad",
    "challenge_due": "a test part is due",
    "line_stop": "too many rejects",
    "too_good": "too few rejects",
    "recipe": "a file of the recipe was changed",
    "gateway": "lane {} has no gateway",
    "vision": "judging is down",
}

ALARMS = {
    "ADMIN": "Somebody at the PC has told the daemon something.",
    "AIR_LOW": "The ejector has no air; parts are withheld until it says otherwise.",
    "BIN_FULL": "Empty the reject bin.",
    "BLIND": "Look at light, lens and part position of this camera.",
    "CAMERA_DOWN": "Look at the camera's power, cable and switch; it comes back by itself.",
    "CHALLENGE": "",
    "CHALLENGE_DUE": "Put a test part on the belt.",
    "CHALLENGE_FAILED": "A test part was not found bad: stop, and call the quality engineer.",
    "CLIENTS": "The list of clients that may connect could not be read; the one before holds.",
    "CLOCK_JUMP": "Look at the time service of the PC; deadlines are not touched.",
    "CONFIG": "A new recipe is in force.",
    "CONFIG_REFUSED": "The recipe in force stays; `inspector check` says what is wrong with the new one.",
    "DELIVERY_UNCONFIRMED": "The gateway did not confirm in time: look at its network and load. These parts were rejected.",
    "EJECT_UNCONFIRMED": "Look at the ejector and its sensor: it is not certain that this part left the line.",
    "DURABLE_SLOW": "The disk is too slow for a PASS that waits for it: look at the disk of the PC, or call the integrator.",
    "ENCODER_DOWN": "Look at the encoder, its cable and driver; nothing passes until it can be read again.",
    "ENCODER_JUMP": "Look at the encoder and its cable; parts on the belt are rejected.",
    "ENCODER_REVERSED": "The belt ran backwards, or the encoder is wired wrongly; parts on the belt are rejected.",
    "E_ACK": "The gateway confirms what was never sent: call the controls engineer.",
    "E_PROTO": "Somebody sends what is no INSP/1: call the controls engineer.",
    "E_TIMING": "The belt is faster than the line was set up for: slow it down.",
    "GATEWAY": "",
    "GATEWAY_LOST": "The PLC's gateway is silent: look at its network; every part is rejected meanwhile.",
    "IMBALANCE": "Parts are unexplained: stop, and call the integrator.",
    "JOURNAL": "Look at the disk of the PC.",
    "JOURNAL_DAMAGED": "The journal was damaged and has begun anew; keep the old file, and call the integrator.",
    "JOURNAL_LOG": "Another program reads the journal file for too long: end it.",
    "JOURNAL_FULL": "Free the disk of the PC.",
    "JOURNAL_ROLLBACK": "The journal ends earlier than it once did: somebody put back an old one. Call the IT admin.",
    "JOURNAL_STOP": "Verdicts cannot be kept, so no part passes: look at the disk of the PC.",
    "LATE_RESULT": "Judged after its deadline; the part had been rejected. If there are many, slow the line down.",
    "LINE_STOP_REQUEST": "Too many rejects: look at the process; nothing passes until somebody resets it (inspector ctl).",
    "LINK": "Restart the daemon if it stays.",
    "PURGE": "Parts on the belt are rejected by order.",
    "PICTURE_DRIFT": "Clean the glass, or look at light and focus of this camera, before good parts are rejected.",
    "RECIPE": "",
    "RECIPE_ROLLED_BACK": "The new recipe failed after it had taken over, and the one before judges again: `recipe prove` says why.",
    "RECIPE_CHANGED": "A drawing, model or setting was changed: put it back and reload, or accept it (inspector ctl reset recipe).",
    "REJECT_PASSED": "A bad part was not ejected: stop, find it, and look at the ejector.",
    "REPLAY": "What tells missed events again was started again; the line is not touched. If it stays, call the integrator.",
    "SHADOW": "",
    "STAGE_DEAD": "Judging was started again; parts are rejected meanwhile. If it stays, call the integrator.",
    "STATE_VOLATILE": "The state folder lies in memory or in a container's layer, and the journal is gone with it: give state_dir a disk.",
    "TOO_GOOD": "No reject for unusually long: try a test part; nothing passes until somebody resets it (inspector ctl).",
    "ZAP": "The part of the daemon that says who may connect was started again. If it stays, call the integrator.",
    "TRIGGER_MISMATCH": "Look at the part sensor and the encoder; the PLC's count and ours differ.",
}
"""What each alarm asks of the person who reads it; empty where there is nothing to do."""

VERDICTS = {
    "PASS": "pass",
    "REJECT_DEFECT": "reject",
    "REJECT_NOT_INSPECTED": "not inspected",
    "REJECT_UNDECIDABLE": "undecidable",
    "REJECT_COMMANDED": "commanded",
}


def reason_name(reason: int, text: str) -> str:
    """A short name to count by: a class of the recipe goes by the check that stands first in the text, a code by its words."""
    if FIRST_CLASS_REASON <= reason <= LAST_CLASS_REASON:
        return text.split(":")[0].split(" ")[0] or f"class {reason - FIRST_CLASS_REASON}"
    return REASONS[reason][0] if reason in REASONS else f"reason {reason}"


def reason_help(reason: int) -> str:
    """What to do about it; empty for a defect of the part itself."""
    return REASONS.get(reason, ("", ""))[1]


def alarm_help(code: str) -> str:
    """What to do about an alarm."""
    return ALARMS.get(code, "")


def hold_name(name: str, text: str) -> str:
    """What holds the permit back, in words: `camera:gasket` is a camera that is down."""
    kind, _, which = name.partition(":")
    said = HOLDS[kind].format(which) if kind in HOLDS else name
    return f"{said}: {text}" if text else said


def state_name(state: str) -> str:
    """The daemon's state in words."""
    return STATES.get(state, state.capitalize())


def verdict_name(verdict: str) -> str:
    """The verdict in words; what is unknown is a reject."""
    return VERDICTS.get(verdict, "reject")


def clock(at_utc_ns: int | None) -> str:
    """The time of day here, to the tenth of a second: 14:03:07.2."""
    if not at_utc_ns:
        return "–"
    local = datetime.datetime.fromtimestamp(at_utc_ns / 1e9, datetime.UTC).astimezone()
    return f"{local:%H:%M:%S}.{local.microsecond // 100_000}"


def moment(at_utc_ns: int | None) -> str:
    """Day and time here, to the minute; only the time where it is today: 14:03, or 20.11. 14:03."""
    if not at_utc_ns:
        return "–"
    local = datetime.datetime.fromtimestamp(at_utc_ns / 1e9, datetime.UTC).astimezone()
    today = datetime.datetime.now(datetime.UTC).astimezone().date()
    return f"{local:%H:%M}" if local.date() == today else f"{local:%d.%m. %H:%M}"


def number(value: float | None, digits: int = 4) -> str:
    """A number of so many significant digits, with a real minus sign; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    return text.replace("-", "−")


def measured(value: float | None, unit: str) -> str:
    """A measured number: micrometres are the last that lengths in mm are told to."""
    return number(value) if value is None or unit != "mm" else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def unit_name(unit: str) -> str:
    """A unit as it is printed; what is merely counted has none."""
    return {"mm2": "mm²", "count": "", "ratio": ""}.get(unit, unit)


def limits(low: float | None, high: float | None) -> str:
    """What is allowed: `−0.2 … 0.2`, `≤ 0.5`, `≥ 0.6`."""
    if low is not None and low == high:
        return number(low)
    if low is not None and high is not None:
        return f"{number(low)} … {number(high)}"
    if high is not None:
        return f"≤ {number(high)}"
    return f"≥ {number(low)}" if low is not None else "any"


def age(seconds: float | None) -> str:
    """How long ago, coarsely."""
    if seconds is None:
        return "never"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
