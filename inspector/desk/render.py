"""The pages as documents: the templates, and what each is given."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import cv2
import jinja2
import numpy as np
from fastapi import Query

from inspector.config import Config
from inspector.desk import charts, health, report, words
from inspector.desk.acts import ACTS, Acts
from inspector.desk.audit import Audit
from inspector.desk.disagreements import Disagreement, Disagreements
from inspector.desk.guard import LARGEST_BODY_BYTES, Refused
from inspector.desk.health import Health
from inspector.desk.history import Dimension, History
from inspector.desk.minutes import KEPT_MINUTES, MINUTE_NS
from inspector.desk.opinions import Opinion, Opinions
from inspector.desk.overlay import Overlay, overlay, places
from inspector.desk.recipes import Recipes
from inspector.desk.report import Window
from inspector.desk.sessions import Sessions, Who
from inspector.desk.state import KEPT_REJECTS, Board, Exposure, Part, Series
from inspector.desk.tally import Tally, Told
from inspector.desk.trial import Trial, Tried
from inspector.desk.users import Role
from inspector.interfaces import Clock
from inspector.outputs.archive import camera_of
from inspector.records import ConfigError

THUMB_PX = 360
KEPT_THUMBS = 128
LIVE_PER_S, WHOLE_PER_S = 2, 4
LIVE = {
    "line": "Line",
    "parts": "Parts",
    "rejects": "Rejects",
    "trends": "Trends",
    "cameras": "Cameras",
    "changeover": "Changeover",
}
"""Pages that renew themselves."""
PAGES = {**{k: v for k, v in LIVE.items() if k != "changeover"}, "quality": "Quality", "changeover": "Changeover", "report": "Reports"}
SPANS = {60: "last hour", 480: "last 8 hours", 1440: "last 24 hours"}
LONG_SPANS = {**SPANS, 10_080: "last 7 days"}
PIECES = {60: 20, 480: 32, 1440: 48, 10_080: 42}
WORST_KNOWN = 300
SHOWN_DISAGREEMENTS = 12


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes are given. `recipes` are those in force; `picture` gives a stored picture's file by its reference.

    `clock` measures, `utc` labels; `secure`: served with TLS.
    """

    config: Config
    board: Board
    recipes: Recipes
    picture: Callable[[str], bytes | None]
    hosts: Sequence[str]
    clock: Clock
    utc: Callable[[], int]
    stopping: Callable[[], bool]
    trial: Trial
    sessions: Sessions
    audit: Audit
    acts: Acts
    opinions: Opinions
    history: History
    tally: Tally
    disagreements: Disagreements
    health: Health
    secure: bool = False

    @property
    def station(self) -> str:
        """How the page calls itself."""
        return f"{self.config.site} · {self.config.line} · {self.config.station}"

    @property
    def lanes(self) -> dict[int, str]:
        """The names of each lane's cameras."""
        names: dict[int, list[str]] = {}
        for camera in self.config.cameras:
            names.setdefault(camera.lane, []).append(camera.id)
        return {lane: ", ".join(names[lane]) for lane in sorted(names)}

    def past(self, count: int, lane: int | None = None) -> Told:
        """The last minutes as the journal has them; where it cannot be read, what the page itself has seen."""
        told = self.tally.last(count, lane)
        if told is None:
            told = Told(self.board.minutes(count, lane), self.board.since_utc_ns, journal=False)
        begin_ns = told.minutes[0][0] * MINUTE_NS
        return told if told.since_ns is None or told.since_ns > begin_ns else replace(told, since_ns=None)

    def part(self, epoch: str, seq: int) -> Part:
        """A part of the page's memory, or of the journal. Raises `Refused` where neither has it."""
        found = self.board.part(epoch, seq)
        if found is None:
            try:
                found = self.history.part(epoch, seq)
            except ConfigError as error:
                raise Refused(404, "E_HTTP_404", f"this part is not in the page's memory, and {error.text}") from error
        if found is None:
            raise Refused(404, "E_HTTP_404", "neither the page's memory nor the journal has such a part")
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page may be asked for; only ever looked up, never used as a name of anything."""

    lane: Annotated[int | None, Query(ge=0, le=255)] = None
    minutes: Annotated[int, Query(ge=1, le=10_080)] = 60
    check: Annotated[str, Query(max_length=64)] = ""
    feature: Annotated[str, Query(max_length=64)] = ""
    recipe: Annotated[str, Query(max_length=64)] = ""
    limits: Annotated[str, Query(max_length=64)] = ""
    camera: Annotated[str, Query(max_length=64)] = ""

    def nearest(self, series: Sequence[Series]) -> Series | None:
        """The one that is asked for, or the first of those that are most like it."""

        def alike(s: Series) -> tuple[bool, ...]:
            named = (s.check, s.feature) == (self.check, self.feature)
            return named, s.camera == self.camera, s.recipe == self.recipe != "", s.limits == self.limits

        return max(series, key=alike, default=None)


class _Recent:
    """Texts that hold for a part of a second; one thread at a time writes, and who waits takes what it wrote."""

    def __init__(self, clock: Clock, per_s: int) -> None:
        self._clock, self._per_s, self._lock = clock, per_s, threading.Lock()
        self._tick, self._known = -1, dict[Hashable, str]()

    def text(self, key: Hashable, write: Callable[[], str]) -> str:
        """What is known by this key, or else is written."""
        with self._lock:
            tick = self._clock() * self._per_s // 1_000_000_000
            if self._tick != tick:
                self._tick, self._known = tick, {}
            if key not in self._known:
                self._known[key] = write()
            return self._known[key]


class Pages:
    """The templates and what they are given. What only looks is told by `who` what its reader may do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("inspector.desk", "pages"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "station": desk.station,
            "pages": PAGES | {"try": "Try"},
            "live_pages": LIVE,
            "spans": SPANS,
            "long_spans": LONG_SPANS,
            "lanes": desk.lanes,
            "words": words,
            "drifts": health.DRIFTS,
            "Role": Role,
            "logins": desk.sessions.logins,
        }
        self._live = {page: _Recent(desk.clock, LIVE_PER_S) for page in LIVE}
        self._whole = {page: _Recent(desk.clock, WHOLE_PER_S) for page in LIVE}
        self.thumb_of = lru_cache(KEPT_THUMBS)(self._thumb)

    def whole(self, page: str, asked: Asked, who: Who) -> str:
        """The page as a document; for a session that may only look (all, where there are no users) written `WHOLE_PER_S` times a second."""
        if who.role is not Role.VIEWER:
            return self._written(page, asked, who)  # who acts sees what came of it
        return self._whole[page].text((asked, who.csrf), lambda: self._written(page, asked, who))

    def _written(self, page: str, asked: Asked, who: Who) -> str:
        return self._templates.get_template(f"{page}.html").render(self._context(page, asked, who))

    def live(self, page: str, asked: Asked, who: Who) -> str:
        """The page's moving parts as JSON; worked out twice a second for all who look at the same and may do the same."""

        def write() -> str:
            base, template = self._templates.get_template("base.html"), self._templates.get_template(f"{page}.html")
            context = template.new_context(self._context(page, asked, who))
            blocks = {"title": base.blocks["title"], "banner": base.blocks["banner"], "live": template.blocks["live"]}
            return json.dumps({name: "".join(block(context)) for name, block in blocks.items()})

        return self._live[page].text((asked, who.role), write)

    def page(self, template: str, who: Who, **more: Any) -> str:
        """A page that does not move."""
        name = template.partition(".")[0]
        return self._templates.get_template(template).render({"page": name, "glance": self._glance(), "who": who} | more)

    def part(self, part: Part, who: Who) -> str:
        """The page of one part."""
        views = [(view.camera if view else "", drawn) for view in part.views or (None,) if (drawn := self._drawn(part, view)) is not None]
        opinions = self._desk.opinions
        classes = sorted({*opinions.classes(), *(d.class_name for d in part.defects)} - {""})
        return self.page("part.html", who, part=part, views=views, opinion=opinions.of(part), classes=classes)

    def _drawn(self, part: Part, view: Exposure | None) -> Overlay | None:
        """What lies over the part's picture, or over that of one of several cameras; None where it is not kept."""
        camera = camera_of(part.image_ref or "") if view is None else view.camera
        data = self.picture(part, "" if view is None else camera)
        size = None if data is None else size_of(data)
        return None if size is None else overlay(part, size, *self._desk.recipes.view(part.recipe_of(camera), camera), view)

    def disagreement(self, found: Disagreement, who: Who) -> str:
        """The page of a picture on which a recipe in shadow said something else: what each of the two saw in it."""
        size = size_of(found.data())
        view = self._desk.recipes.view
        sides = [(p, None if size is None else overlay(p, size, *view(p.recipe_name, found.camera))) for p in found.parts]
        return self.page("disagreement.html", who, found=found, sides=sides)

    def picture(self, part: Part, camera: str = "") -> bytes | None:
        """The picture of a part, of several cameras that of the one that decided or of `camera`: the archive's, or an opinion's copy."""
        reference = next((view.image_ref for view in part.views if view.camera == camera), None) if camera else part.image_ref
        data = None if reference is None else self._desk.picture(reference)
        if data is None and (not camera or reference == part.image_ref is not None):
            return self._desk.opinions.picture(part.epoch, part.seq)
        return data

    def trial(self, tried: Tried | None, who: Who) -> str:
        """The page on which pictures are tried, with a result or without."""
        return self.page("try.html", who, choices=self._desk.trial.choices(), tried=tried, largest=LARGEST_BODY_BYTES)

    def quality(self, asked: Asked, who: Who) -> str:
        """What the journal says of a time: share of rejects, and each measured dimension against its limits."""
        now, minutes = self._desk.utc(), min(LONG_SPANS, key=lambda m: abs(m - asked.minutes))
        piece = minutes * MINUTE_NS // PIECES[minutes]
        end = (now // piece + 1) * piece  # whole pieces, so that those which are past are known already
        counts = self._desk.history.counts(end - minutes * MINUTE_NS, end, PIECES[minutes], now_ns=now, lane=asked.lane)
        found = [d for d in self._desk.history.dimensions(end - minutes * MINUTE_NS, end) if asked.lane in (None, d.series.lane)]
        found.sort(key=_worst_first)
        wanted = asked.nearest([d.series for d in found])
        chosen = next((d for d in found if d.series == wanted), None)
        return self.page(
            "quality.html",
            who,
            asked=asked,
            minutes=minutes,
            shares=charts.shares(counts),
            parts=sum(c.parts for c in counts),
            found=found[:WORST_KNOWN],
            chosen=chosen,
            chart=charts.means(chosen) if chosen else None,
        )

    def report(self, window: Window, who: Who) -> str:
        """The report of a time."""
        now = self._desk.utc()
        found = report.of(self._desk.history, window, now)
        return self.page(
            "report.html",
            who,
            report=found,
            shifts=report.shifts(self._desk.config.desk.shifts, now),
            share=charts.shares(found.hours),
            reasons=charts.pareto(found.reasons.reasons),
            features=charts.pareto(charts.named(found.reasons.features)),
            dimensions=sorted(found.dimensions, key=_worst_first),
            most=report.MOST_DIMENSIONS,
            opinions=self._said_in(window),
            made=report.Window(now, now),
        )

    def report_pdf(self, window: Window) -> bytes:
        """The same on paper."""
        now = self._desk.utc()
        found = report.of(self._desk.history, window, now)
        from inspector.desk import paper  # a large library, which only who wants a PDF needs

        dimensions = sorted(found.dimensions, key=_worst_first)
        return paper.pdf(found, self._said_in(window), dimensions, station=self._desk.station, made_ns=now)

    def _said_in(self, window: Window) -> list[Opinion]:
        return [o for o in self._desk.opinions.last(WORST_KNOWN) if window.from_ns <= o.at_utc_ns < window.to_ns]

    def error(self, status: int, code: str, text: str, who: Who) -> str:
        """A page that says what is wrong."""
        return self.page("error.html", who, status=status, code=code, text=text)

    def thumb(self, part: Part) -> bytes:
        """A small JPEG of the part's picture."""
        if part.image_ref is None:
            raise Refused(404, "E_HTTP_404", "no picture of this part was kept")
        return self.thumb_of(part.image_ref)

    def small(self, data: bytes | None) -> bytes:
        """A small JPEG of a picture."""
        image = None if not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
        if image is None:
            raise Refused(404, "E_HTTP_404", "the picture is no longer kept")
        scale = THUMB_PX / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()

    def _thumb(self, reference: str) -> bytes:
        return self.small(self._desk.picture(reference))

    def _glance(self) -> Any:
        return self._desk.board.glance(self._desk.clock())

    def _context(self, page: str, asked: Asked, who: Who) -> dict[str, Any]:
        board, now = self._desk.board, self._desk.clock()
        context: dict[str, Any] = {"page": page, "asked": asked, "glance": board.glance(now), "who": who}
        if page == "line":
            newest = [(lane, cameras, board.parts(lane=lane, pictured=True, most=1)) for lane, cameras in self._desk.lanes.items()]
            return context | {
                "past": (past := self._desk.past(60)),
                "bars": charts.bars(past.minutes),
                "latest": [(lane, cameras, parts[0] if parts else None) for lane, cameras, parts in newest],
                "rejects": board.parts(rejects_only=True, most=8),
                "alarms": board.alarms(8),
            }
        if page == "parts":
            return context | {"parts": board.parts(lane=asked.lane, most=60)}
        if page == "rejects":
            past = self._desk.past(min(asked.minutes, KEPT_MINUTES), asked.lane)
            whole = charts.total(past.minutes)
            kept = board.parts(lane=asked.lane, rejects_only=True, most=KEPT_REJECTS)
            return context | {
                "places": [
                    found for name, contours in self._desk.recipes.contours.items() if (found := places(name, contours, kept)) is not None
                ],
                "past": past,
                "whole": whole,
                "reasons": charts.pareto(whole.reasons),
                "features": charts.pareto(charts.named(whole.features)),
                "parts": kept[:24],
            }
        if page == "trends":
            known = [key for key in board.dimensions() if key.lane == asked.lane or asked.lane is None]
            known = [key for key in known if key.lane == known[0].lane]
            chosen = asked.nearest(known)
            series = board.series(chosen) if chosen else ()
            return context | {"titles": charts.titles(known), "chosen": chosen, "chart": charts.control(series)}
        if page == "changeover":
            return context | self._changeover()
        return context | {"cameras": board.cameras(now), "alarms": board.alarms(20), "said": self._desk.health.said()}

    def _changeover(self) -> dict[str, Any]:
        config, said, orders = self._desk.recipes.config, self._desk.health.said(), self._desk.acts.orders()
        before = next((o.before for o in orders if o.name == "switch" and o.done), {})
        numbered = sorted(config.recipes.items(), key=lambda each: (each[1].number is None, each[1].number or 0, each[0]))
        in_use = {} if said is None else said.in_use
        shadowed = next((o for o in orders if o.name in ("shadow", "unshadow") and o.done), None)
        return {
            "recipes": [
                {
                    "name": name,
                    "number": recipe.number,
                    "drawing": None if recipe.template is None else recipe.template.drawing.name,
                    "checks": ", ".join(recipe.checks),
                    "cameras": [camera for camera, used in in_use.items() if used == name],
                }
                for name, recipe in numbered
            ],
            "known": said is not None,
            "in_use": {camera.id: (camera.lane, in_use.get(camera.id)) for camera in config.cameras},
            "back": [(c.lane, c.id, name) for c in config.cameras if (name := before.get(c.id)) and name != in_use.get(c.id)],
            "shadow": {} if said is None else said.shadow,
            "shadowed": shadowed.arguments.get("recipe") if shadowed else None,
            "disagreements": self._desk.disagreements.last(SHOWN_DISAGREEMENTS),
            "orders": orders[:8],
            "acts": ACTS,
            "busy": any(o.said is None for o in orders),
        }

    def last_acts(self, most: int) -> list[dict[str, Any]]:
        """The audit's last lines."""
        return self._desk.audit.last(most)


def _worst_first(dimension: Dimension) -> tuple[object, ...]:
    return (float("inf") if dimension.cpk is None else dimension.cpk, *dimension.series[:4])


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a stored picture, None when it does not decode."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    return None if image is None else (image.shape[1], image.shape[0])


def window_of(begin: str, hours: int, shifts_: Sequence[str], now_ns: int) -> report.Window:
    """What was asked for, or the shift that runs. Raises `ConfigError` E_USAGE."""
    if not begin:
        return report.shifts(shifts_, now_ns)[0]
    try:
        return report.window_at(begin, hours)
    except (ValueError, OverflowError) as error:
        raise ConfigError("E_USAGE", "no such time") from error
