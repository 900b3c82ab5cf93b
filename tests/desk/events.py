"""Events as the daemon publishes them, for the tests of the page."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from inspector.config import Camera, Config, Kind, PartTemplate, RecipeSettings
from inspector.desk.acts import Acts
from inspector.desk.audit import Audit
from inspector.desk.disagreements import Disagreements
from inspector.desk.health import Health
from inspector.desk.history import History
from inspector.desk.opinions import Opinions
from inspector.desk.recipes import Recipes, View
from inspector.desk.render import Desk
from inspector.desk.sessions import Sessions
from inspector.desk.state import Board
from inspector.desk.tally import Tally
from inspector.desk.trial import Trial
from inspector.desk.users import Users
from inspector.gate import protocol
from inspector.gate.arbiter import Record
from inspector.gate.journal import Journal
from inspector.gate.protocol import Header
from inspector.records import Contour, Verdict

EPOCH = "01935c1e-0000-7000-8000-000000000001"
MINUTE_NS = 60_000_000_000
NOW_UTC_NS = 1_790_000_000_000_000_000 // MINUTE_NS * MINUTE_NS + 30_000_000_000
POSE = {
    "x_px": 100.0,
    "y_px": 300.0,
    "angle_rad": 0.0,
    "scale_px_per_mm": 5.0,
    "score_ratio": 0.95,
    "residual_mm": 0.01,
    "homography": None,
}


def finding(value: float | None, *, ok: bool = True, feature: str = "hole-1", check: str = "outline", unit: str = "mm") -> dict[str, Any]:
    return {"check": check, "feature": feature, "value": value, "low": -0.1, "high": 0.1, "unit": unit, "ok": ok, "at_mm": [12.0, 30.0]}


def verdict(seq: int, name: str = "PASS", **changes: Any) -> dict[str, Any]:
    """One `insp.verdict` of lane 0, camera cam0; `changes` replace whole fields."""
    event: dict[str, Any] = {
        "schema": "insp.verdict",
        "ver": "1.0",
        "epoch": EPOCH,
        "stream": "q",
        "seq": str(seq),
        "station": "station1",
        "lane": 0,
        "part_seq": str(seq),
        "part_uid": None,
        "trigger": {"source": "frames", "encoder_count": None, "t_trigger_utc_ns": str(NOW_UTC_NS), "clock_state": "ok"},
        "eject": {"ttl_us": 480_000},
        "verdict": name,
        "reason": {"PASS": 0, "REJECT_DEFECT": 101}.get(name, 208),
        "reason_text": "outline hole-1: 0.2 mm, allowed -0.1 to 0.1" if name == "REJECT_DEFECT" else "",
        "findings": [finding(0.2, ok=False) if name == "REJECT_DEFECT" else finding(0.01)],
        "defects": [],
        "cameras": [{"cam_id": "cam0", "frame_id": seq, "t_exposure_utc_ns": str(NOW_UTC_NS), "complete": True, "quality": 0.9}],
        "model": [{"name": "surface", "sha256": "0" * 64}],
        "config_sha256": "ab" * 32,
        "recipe": {"name": "plate", "number": None},
        "timing_ms": {"acq": 1.0, "queue": 2.0, "infer": 20.0, "decide": 0.1, "total": 25.0, "stages": {"locate": 9.0}},
        "counters": {"triggers": seq, "pass": seq, "reject": 0, "not_inspected": 0, "pending": 0},
        "pose": POSE,
        "image_ref": None,
        "late": False,
    }
    return event | changes


def heartbeat(**changes: Any) -> dict[str, Any]:
    return {"mono_ns": 1, "state": "RUN", "permit": 1, "pending": 0, "oldest_pending_ms": 0, "holds": [], "sessions": ["plc"]} | changes


def board(*cameras: tuple[str, int]) -> Board:
    return Board(cameras or (("cam0", 0),), utc=lambda: NOW_UTC_NS)


def config(*more: tuple[str, int]) -> Config:
    """A line with one camera, its drawing and two checks that need no network; `more` cameras by name and lane."""
    plate = PartTemplate(drawing=Path(__file__).parents[2] / "dxf_templates" / "plate.dxf", scale_px_per_mm=4.0)
    checks = {"outline": Kind(kind="outline"), "holes": Kind(kind="holes")}
    return Config(
        version=1,
        site="site",
        line="line",
        station="station",
        cameras=[Camera(id=name, lane=lane, recipe="plate", source=Kind(kind="replay")) for name, lane in (("cam0", 0), *more)],
        recipes={"plate": RecipeSettings(template=plate, checks=checks)},
    )


def png(height: int = 400, width: int = 600) -> bytes:
    image = np.full((height, width), 60, np.uint8)
    cv2.rectangle(image, (100, 100), (400, 300), 170, -1)
    return cv2.imencode(".png", image)[1].tobytes()


def contours() -> tuple[Contour, ...]:
    """A plate of 60 × 40 mm with one hole."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    hole = np.stack([12 + 4 * np.cos(turn), 30 - 4 * np.sin(turn)], axis=1)
    plate = np.array([[0.0, 0.0], [60.0, 0.0], [60.0, 40.0], [0.0, 40.0]])
    return (
        Contour("outer", "outer", "0", plate, True, -0.1, 0.1),
        Contour("hole-1", "hole", "0", hole, True, -0.1, 0.1, (12.0, 30.0, 4.0)),
    )


MINUTES_NS = 60 * 10**9


def desk(
    folder: Path,
    board: Board,
    *,
    clock: Callable[[], int] = time.monotonic_ns,
    picture: Callable[[str], bytes | None] = lambda reference: None,
    stopping: Callable[[], bool] = lambda: False,
    settings: Config | None = None,
    users: Users | None = None,
    put: Callable[..., dict[str, Any]] | None = None,
    **changes: Any,
) -> Desk:
    """A desk whose state is in `folder`, with the drawing of `contours` for the recipe plate."""
    settings = (config(("cam1", 1)) if settings is None else settings).model_copy(update={"state_dir": folder})
    audit, recipes = Audit(folder / "desk"), Recipes(settings, views={("plate", ""): View(contours())})
    history = History(folder / "journal.sqlite")
    known: dict[str, Any] = {
        "config": settings,
        "board": board,
        "recipes": recipes,
        "picture": picture,
        "hosts": ("127.0.0.1", "localhost"),
        "clock": clock,
        "utc": time.time_ns,
        "stopping": stopping,
        "trial": Trial(recipes, clock=clock),
        "sessions": Sessions(users, idle_ns=30 * MINUTES_NS, longest_ns=720 * MINUTES_NS, clock=clock),
        "audit": audit,
        "acts": Acts(recipes, audit) if put is None else Acts(recipes, audit, put=put),
        "opinions": Opinions(folder / "desk" / "opinions", lambda reference: None, utc=time.time_ns),
        "history": history,
        "tally": Tally(history, clock=clock, utc=time.time_ns),
        "disagreements": Disagreements(folder / "pictures", clock=clock),
        "health": Health(lambda: "", clock=clock),
    }
    return Desk(**(known | changes))


def csrf_of(page: str) -> str:
    """What a page's form must send back."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def journal(
    folder: Path,
    begin_ns: int,
    count: int,
    step_ns: int,
    *,
    drift_mm: float = 0.0,
    of: Callable[[int], tuple[int, str, float]] = lambda i: (0, "plate", 0.1),
) -> None:
    """A journal with so many parts: each tenth is rejected, each hundredth was not inspected; `hole-1` wanders by `drift_mm` a part.

    `of` gives a part's lane, its recipe, and the limit of `hole-1` in mm.
    """
    epoch = uuid.UUID(EPOCH).bytes
    kept = Journal.open(folder, utc_clock=lambda: begin_ns)
    kept.begin(epoch)
    previous, records, rejects = protocol.NO_HASH, [], 0
    for i in range(count):
        lane, recipe, limit = of(i)
        kind = Verdict.REJECT_NOT_INSPECTED if i % 100 == 50 else Verdict.REJECT_DEFECT if i % 10 == 3 else Verdict.PASS
        value = 0.01 * ((i * 7) % 5 - 2) / 2 + drift_mm * i
        found = [finding(0.3, ok=False)] if kind is Verdict.REJECT_DEFECT else [finding(value)] if kind is Verdict.PASS else []
        found = [each | {"low": -limit, "high": limit} for each in found]
        body = verdict(i + 1, kind.name, lane=lane, findings=found, image_ref="kept" if kind is Verdict.REJECT_DEFECT else None)
        body["trigger"]["t_trigger_utc_ns"] = str(begin_ns + i * step_ns)
        body["recipe"] = {"name": recipe, "number": None}
        header = Header(protocol.Kind.VERDICT, 0, epoch, i + 1, i + 1, begin_ns + i * step_ns, 0, 1, int(kind), lane, int(body["reason"]))
        payload, previous = protocol.seal(header, protocol.dumps(body)[:-1], previous)
        rejects += kind is not Verdict.PASS
        r_seq = None if kind is Verdict.PASS else rejects
        records.append(Record("q", header, protocol.pack(header, payload), payload, previous, r_seq, 0))
    kept.commit(records)
    kept.close(clean=True)
