"""The questions of `inspector setup`, and the configuration that their answers make. Pure: nobody is asked here and nothing is written.

An answer is text, as a person types it and as a script gives it; `Question.read` makes a value of it or says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.gate.security import CREDENTIAL, CREDENTIALS

Answers = Mapping[str, Any]
LARGEST_LEASE_MS = 300
LARGEST_HB_MS = 100
SERVICE_KEYS = "/etc/inspector/keys"
SERVICE_KEY = f"${{{CREDENTIALS}:-{SERVICE_KEYS}}}/{CREDENTIAL}"
CLIENTS = ("plc:gate", "desk:scada")


@dataclass(frozen=True, slots=True)
class Question:
    """`text` asks and explains; `default` may depend on what was answered before, and None means that there is none.

    `read` gives the value of an answer, or raises `ValueError` with what is allowed. A question whose `asked` is false is passed over.
    """

    key: str
    text: str
    default: Callable[[Answers], str | None]
    read: Callable[[str, Answers], Any]
    asked: Callable[[Answers], bool] = lambda _: True


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera as it was named: its id, and the lines of its `source:`."""

    id: str
    source: Mapping[str, Any]


def _name(text: str, _: Answers) -> str:
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", text):
        raise ValueError("lower case letters, digits, - and _ are allowed, 1 to 32 of them")
    return text


def _number(low: float, high: float, unit: str) -> Callable[[str, Answers], float]:
    def read(text: str, _: Answers) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g} {unit} is allowed")
        return int(value) if value.is_integer() else value

    return read


def _choice(*allowed: str) -> Callable[[str, Answers], str]:
    def read(text: str, _: Answers) -> str:
        if text not in allowed:
            raise ValueError(f"allowed: {', '.join(allowed)}")
        return text

    return read


def _cameras(text: str, _: Answers) -> list[Camera]:
    """`ID=WHAT` or `WHAT`, separated by spaces."""
    cameras: list[Camera] = []
    for number, word in enumerate(text.split()):
        name, __, what = word.partition("=") if re.match(r"[a-z0-9_-]{1,32}=", word) else (f"cam{number}", "=", word)
        cameras.append(Camera(name, _source(what)))
    if not cameras or len({camera.id for camera in cameras}) < len(cameras):
        raise ValueError("at least one camera, each with a name of its own")
    return cameras


def _source(what: str) -> dict[str, Any]:
    if what == "simulated":
        return {"kind": "simulated"}
    if re.match(r"(rtsp|rtsps|http|https)://", what):
        return {"kind": "opencv", "url": what}
    if found := re.fullmatch(r"(?:/dev/video|usb:)(\d+)", what):
        return {"kind": "opencv", "device": int(found[1])}
    if found := re.fullmatch(r"(serial|address|device):(\S+)", what):
        return {"kind": "aravis", found[1]: found[2], "trigger": "hardware"}
    raise ValueError(
        f"{what!r}: serial:NUMBER or address:IP (GigE Vision, USB3 Vision), rtsp://…, http://…, /dev/video0, or simulated is allowed"
    )


def _drawing(text: str, _: Answers) -> Path:
    path = Path(text).absolute()
    if not path.is_file() or path.suffix.lower() != ".dxf":
        raise ValueError("the path of a DXF file is allowed")
    return path


def _seen(text: str, _: Answers) -> Any:
    """A calibration's path, one scale, or a range of scales; None for any."""
    if text == "any":
        return None
    if text.endswith((".yaml", ".yml")):
        if not Path(text).is_file():
            raise ValueError(f"{text} is not there; `inspector calibrate` writes it")
        return Path(text).absolute()
    try:
        scales = [float(word) for word in text.split()]
    except ValueError:
        scales = []
    if not 1 <= len(scales) <= 2 or scales != sorted(scales) or min(scales) <= 0:
        raise ValueError("px per mm (7.8), a range of it (5 9), a calibration (cam0.yaml) or any is allowed")
    return scales[0] if len(scales) == 1 else scales


def _encoder(text: str, _: Answers) -> str | None:
    if text == "none":
        return None
    if not text.startswith("/"):
        raise ValueError("none, or the path of a counter such as /sys/bus/counter/devices/counter0/count0/count, is allowed")
    return text


def _travel(text: str, answers: Answers) -> float:
    value = _number(1, 600_000, "ms")(text, answers)
    least = answers["actuator_ms"] + answers["scan_ms"] + 100
    if value < least:
        raise ValueError(f"at least {least:g} ms: what PLC and ejector need, 40 ms of network, and some time to judge")
    return value


def _address(text: str, _: Answers) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]+\]", text):
        raise ValueError("an address of this machine is allowed; 127.0.0.1 keeps everything on it")
    return text


def _port(how_many: int, **others: int) -> Callable[[str, Answers], float]:
    """The first of so many ports in a row; `others` are the answers that have ports already, and how many."""
    number = _number(1024, 65535 - how_many + 1, "(a free port)")

    def read(text: str, answers: Answers) -> float:
        value = number(text, answers)
        for key, many in others.items():
            first = answers[key]
            if first - how_many < value < first + many:
                raise ValueError(f"{key} has {first} to {first + many - 1}; others are allowed")
        return value

    return read


def local(answers: Answers) -> bool:
    """Nothing can be reached from other machines."""
    return answers["address"] in ("127.0.0.1", "localhost", "[::1]")


def simulated(answers: Answers) -> bool:
    """A line for trying: no camera is real."""
    return all(camera.source["kind"] == "simulated" for camera in answers["cameras"])


def real(answers: Answers) -> bool:
    """At least one camera is none of paint."""
    return not simulated(answers)


def _counting(answers: Answers) -> str:
    return "frames" if all(camera.source["kind"] == "aravis" for camera in answers["cameras"]) else "plc"


def _default(text: str | None) -> Callable[[Answers], str | None]:
    return lambda _: text


QUESTIONS: Sequence[Question] = (
    Question("site", "The plant. Site, line and station are the topic of every event: insp1/SITE/LINE/STATION.", _default("plant"), _name),
    Question("line", "The line.", _default("line1"), _name),
    Question("station", "The station on the line.", _default("station1"), _name),
    Question("state_dir", "Where the journal and the pictures are kept: a folder of its own on a local disk.",
             _default("/var/lib/inspector"), lambda text, _: str(Path(text).absolute())),
    Question("cameras", "The cameras, separated by spaces: serial:NUMBER or address:IP (GigE Vision, USB3 Vision; `inspector camera list` "
             "shows them), rtsp://…, /dev/video0, or simulated for trying; NAME=… gives one a name.", _default(None), _cameras),
    Question("drawing", "The part's drawing, a DXF file; its side file (same name, .yaml) may hold tolerances and zones.",
             _default(None), _drawing),
    Question("tolerance_mm", "How far an edge may lie from the drawing, where the side file says nothing.",
             _default("0.15"), _number(0.001, 100, "mm")),
    Question("seen", "What the cameras see: px per mm (7.8), a range of it (5 9), a calibration that `inspector calibrate` wrote "
             "(cam0.yaml), or any, which is slower to find.", lambda answers: "5 9" if simulated(answers) else "any", _seen),
    Question("count", "Who counts the parts: plc (its TRIG messages) or frames (each exposure is a part; the cameras must number them).",
             _counting, _choice("plc", "frames"), real),
    Question("encoder", "The belt's encoder: the path of its counter, or none.", _default("none"), _encoder, real),
    Question("actuator_ms", "From the output's switching to the part's leaving.", _default("40"), _number(0, 10_000, "ms")),
    Question("scan_ms", "The PLC's cycle.", _default("10"), _number(0, 1_000, "ms")),
    Question("travel_min_ms", "The shortest time from a part's trigger to the ejector: belt at its fastest. Every verdict leaves before.",
             _default("600"), _travel),
    Question("address", "The address at which the PLC's gateway and SCADA reach this machine; 127.0.0.1 when they run on it. Any other "
             "needs keys, which are made now.", _default("127.0.0.1"), _address),
    Question("port", "The first of three ports in a row: events, gate, replay.", _default("5561"), _port(3)),
    Question("metrics_port", "The first of two ports in a row for Prometheus, on this machine only.", _default("9400"), _port(2, port=3)),
    Question("desk_port", "The port of the operator's page, on this machine only.", _default("8080"),
             _port(1, port=3, metrics_port=2)),
    Question("keys", "The folder of the keys.", lambda answers: str(Path(answers["out"]).parent / "keys"),
             lambda text, _: str(Path(text).absolute()), lambda answers: not local(answers)),
)  # fmt: skip
KEYS = tuple(question.key for question in QUESTIONS)


def timing(answers: Answers) -> tuple[int, int]:
    """Lease and heartbeat, ms: the longest that PROTOCOL.md §1 allows (I1, I2), and no longer than is usual."""
    lease_ms = int(min(LARGEST_LEASE_MS, answers["travel_min_ms"] - answers["scan_ms"] - answers["actuator_ms"]))
    return lease_ms, min(LARGEST_HB_MS, lease_ms // 3)


def written(answers: Answers) -> str:
    """The configuration, commented, for all answers by key, and `out`, the path that it is for."""
    lease_ms, hb_ms = timing(answers)
    recipe = re.sub(r"[^a-z0-9_-]", "-", answers["drawing"].stem.lower())[:32]
    count = "conveyor" if simulated(answers) else answers["count"]
    lanes = list(range(len(answers["cameras"]))) if count in ("frames", "conveyor") else [0]
    host, port = answers["address"], answers["port"]
    parts = [
        _HEAD.format(path=answers["out"]),
        _section("", site=answers["site"], line=answers["line"], station=answers["station"], state_dir=answers["state_dir"]),
        "\n# Where the belt is.\n" + _section("conveyor", **_conveyor(answers, lanes)),
        _PROMISE
        + _section(
            "gate", bind=f"tcp://{host}:{port + 1}", count=count, travel_min_ms=answers["travel_min_ms"],
            actuator_ms=answers["actuator_ms"], scan_ms=answers["scan_ms"], lease_ms=lease_ms, hb_ms=hb_ms,
        ),
        "\n" + _section("events", bind=f"tcp://{host}:{port}", replay_bind=f"tcp://{host}:{port + 2}"),
    ]  # fmt: skip
    if not local(answers):
        # The service hands the daemon its keys as credentials (deploy/inspector.service); elsewhere they are files.
        server = SERVICE_KEY if answers["keys"] == SERVICE_KEYS else f"{answers['keys']}/server.key"
        parts.append(
            "\n# Who is not on the list is refused.\n" + _section("security", server_key=server, clients=f"{answers['keys']}/clients")
        )
    metrics = answers["metrics_port"]
    parts.append("\n" + _section("metrics", gate_bind=f"127.0.0.1:{metrics}", vision_bind=f"127.0.0.1:{metrics + 1}"))
    parts.append("\n" + _section("desk", bind=f"127.0.0.1:{answers['desk_port']}"))
    parts.append("\ncameras:\n")
    for number, camera in enumerate(answers["cameras"]):
        lane = number if len(lanes) > 1 else 0
        source = dict(camera.source)
        if source["kind"] == "simulated":
            source |= {"drawing": str(answers["drawing"]), "lane": lane}
            if isinstance(answers["seen"], (int, float)):
                source["mm_per_px"] = 1.0 / answers["seen"]  # its part is as large as the recipe expects it
        words = ", ".join(f"{key}: {_scalar(value)}" for key, value in source.items())
        parts.append(f"  - {{id: {camera.id}, lane: {lane}, recipe: {recipe}, source: {{{words}}}}}\n")
    parts.append(f"\nrecipes:\n  {recipe}:\n    template:\n      drawing: {_scalar(str(answers['drawing']))}\n")
    parts.append(f"      tolerance_mm: {answers['tolerance_mm']}   # where the side file says nothing\n")
    if isinstance(answers["seen"], Path):
        parts.append(f"      calibration: {_scalar(str(answers['seen']))}\n")
    elif answers["seen"] is not None:
        parts.append(f"      scale_px_per_mm: {answers['seen']}\n")
    parts.append("    checks:   # surface, classify and others look for defects with networks: inspector check names the kinds\n")
    parts.append("      outline: {kind: outline}\n      holes: {kind: holes}\n")
    return "".join(parts)


_HEAD = """\
# Written by `inspector setup`; it is yours now. configs/line.example.yaml explains every key, and these that are not here too.
# After a change: inspector check {path}
version: 1
"""
_PROMISE = """
# The promise to the PLC: each part gets PASS in time, or it is rejected. lease + scan + actuator ≤ travel_min, hb ≤ lease / 3.
"""


def _conveyor(answers: Answers, lanes: Sequence[int]) -> dict[str, Any]:
    if simulated(answers):
        return {"kind": "simulated", "rate_parts_per_s": 2.0, "lanes": list(lanes), "counts_per_s": 1000.0, "seed": 1}
    return {"kind": "encoder", "count": answers["encoder"]} if answers["encoder"] else {"kind": "timed", "counts_per_s": 1000.0}


def _section(name: str, **values: Any) -> str:
    indent = "  " if name else ""
    lines = [f"{indent}{key}: {_scalar(value)}\n" for key, value in values.items()]
    return "".join([f"{name}:\n" if name else "", *lines])


def _scalar(value: Any) -> str:
    """A value as YAML; text that could be read as something else stands in quotes."""
    if not isinstance(value, str):
        return str(value)
    plain = re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*", value) and value.lower() not in (
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
        "y",
        "n",
    )
    return value if plain else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
