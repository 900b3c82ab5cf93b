"""What a person can have the daemon do from the page: asked through its admin socket, one at a time, and written down before and after.

A changeover takes as long as its proof, so an act is ordered here, done by a worker, and its outcome is shown when there is one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from inspector.desk.audit import Audit
from inspector.desk.recipes import Recipes
from inspector.desk.users import Role
from inspector.records import ConfigError
from inspector.runtime.admin import ask, socket_of

QUICK_S, RELOADED_S = 10.0, 130.0
STEP_S = 0.1
KEPT_ACTS = 20


@dataclass(frozen=True, slots=True)
class Act:
    """One kind of act: who may order it, the admin command behind it, and in words what it does; `why`: a reason must be given."""

    role: Role
    command: str
    title: str
    text: str
    why: bool = False


ACTS: Mapping[str, Act] = {
    "switch": Act(
        Role.OPERATOR,
        "recipe",
        "Change over",
        "The recipe is prepared and proved aside and takes over between two parts. If it fails, the present one stays.",
    ),
    "shadow": Act(
        Role.ENGINEER,
        "recipe",
        "Judge in shadow",
        "It judges beside the present recipe and counts for nothing; where they disagree, it is counted and the picture kept.",
    ),
    "unshadow": Act(Role.ENGINEER, "recipe", "End the shadow", "No recipe judges beside the present one any more."),
    "challenge": Act(
        Role.OPERATOR,
        "challenge",
        "Send a test part",
        "The next part of this lane must be a bad one that you put there: if it is not found bad, nothing passes until another one is.",
    ),
    "reset": Act(
        Role.OPERATOR,
        "reset",
        "Reset",
        "You have looked at why the guards stopped the line. They count anew, and parts may pass if nothing else withholds it.",
        why=True,
    ),
    "accept": Act(
        Role.ENGINEER,
        "reset",
        "Accept the changed file",
        "A drawing, model or setting in use was changed. You have looked at it, and parts may pass again.",
        why=True,
    ),
    "reload": Act(
        Role.ENGINEER,
        "reload",
        "Read the configuration again",
        "Recipes and guards are read again and take over between two parts; what is refused leaves the old ones in force.",
        why=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Order:
    """An act that somebody ordered; `said` None: under way. `before` is each camera's recipe as it was."""

    number: int
    name: str
    what: str
    who: str
    address: str
    at_utc_ns: int
    arguments: Mapping[str, Any]
    timeout_s: float
    before: Mapping[str, str]
    done: bool | None = None
    said: str | None = None


Ask = Callable[..., dict[str, Any]]


class Acts:
    """The orders: `order` is called by requests, `step` by one worker."""

    def __init__(self, recipes: Recipes, audit: Audit, *, put: Ask = ask, utc: Callable[[], int] = time.time_ns) -> None:
        self._recipes, self._audit, self._ask, self._utc = recipes, audit, put, utc
        self._queue: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._orders: deque[Order] = deque(maxlen=KEPT_ACTS)
        self._count = 0

    def order(
        self,
        name: str,
        who: str,
        address: str,
        *,
        recipe: str | None = None,
        lane: int | None = None,
        why: str = "",
        before: Mapping[str, str] | None = None,
    ) -> Order:
        """Have this done. Raises `ConfigError`: E_USAGE for what is not allowed, E_BUSY while another act is under way."""
        act = ACTS[name]
        arguments = self.check(name, recipe, lane)
        if act.why and len(why.strip()) < 3:
            raise ConfigError("E_USAGE", "say in a few words why")
        timeout_s = {"recipe": 2 * self._recipes.config.changeover.prepare_s + QUICK_S, "reload": RELOADED_S}.get(act.command, QUICK_S)
        what = " ".join([act.title, *([recipe] if recipe else []), *([] if lane is None else [f"(lane {lane})"])])
        with self._lock:
            if any(o.said is None for o in self._orders):
                raise ConfigError("E_BUSY", "another act is under way; wait until it has ended")
            order = Order(self._count + 1, name, what, who, address, self._utc(), arguments, timeout_s, before or {})
            self._audit.say(who, address, name, **arguments, why=why.strip(), outcome="ordered")
            self._count += 1
            self._orders.append(order)
        self._queue.put(order)
        return order

    def check(self, name: str, recipe: str | None, lane: int | None) -> dict[str, Any]:
        """The arguments of the admin command. Raises `ConfigError` E_USAGE for a recipe or lane that is none."""
        lanes = {camera.lane for camera in self._recipes.config.cameras}
        if lane is not None and lane not in lanes:
            raise ConfigError("E_USAGE", "there is no such lane")
        if name in ("switch", "shadow"):
            if recipe not in self._recipes.config.recipes:
                raise ConfigError("E_USAGE", "there is no such recipe")
            return {"do": name, "recipe": recipe, "lanes": [] if lane is None else [lane]}
        if name == "unshadow":
            return {"do": "shadow", "recipe": None}
        if name == "challenge":
            return {"lane": min(lanes) if lane is None else lane}
        return {"reset": {"names": ["line_stop", "too_good"]}, "accept": {"names": ["recipe"]}}.get(name, {})

    def wait(self, order: Order, within_s: float) -> Order:
        """The order as it is then, with its outcome if there is one by then."""
        with self._lock:
            self._lock.wait_for(lambda: self._now(order).said is not None, within_s)
            return self._now(order)

    def _now(self, order: Order) -> Order:
        return next((o for o in self._orders if o.number == order.number), order)

    def orders(self) -> tuple[Order, ...]:
        """The newest first."""
        with self._lock:
            return tuple(self._orders)[::-1]

    def step(self) -> None:
        """Do what is ordered, or wait a little for an order."""
        try:
            order = self._queue.get(timeout=STEP_S)
        except queue.Empty:
            return
        act = ACTS[order.name]
        try:
            told = self._ask(socket_of(self._recipes.config), act.command, timeout_s=order.timeout_s, **order.arguments)
            done, said = True, _said(order.name, told)
        except ConfigError as error:
            done, said = False, f"{error.code}: {error.text}"
        with self._lock:
            self._orders = deque((replace(o, done=done, said=said) if o.number == order.number else o for o in self._orders), KEPT_ACTS)
            self._lock.notify_all()
        with suppress(ConfigError):  # that it was ordered is written down, and what came of it is in the journal
            self._audit.say(order.who, order.address, order.name, **order.arguments, outcome="done" if done else "refused", said=said)


def _said(name: str, told: Mapping[str, Any]) -> str:
    if name in ("switch", "shadow", "unshadow"):
        now = ", ".join(f"{camera}: {found['name']}" for camera, found in told["cameras"].items())
        return f"rolled back: {told['text']}; {now}" if told["what"] == "rolled_back" else f"in force: {now}"
    if name == "challenge":
        return f"the next part of lane {told['lane']} must be found bad"
    if name == "reload":
        return f"recipe {str(told['recipe'])[:12]} is in force"
    holds = told.get("holds") or {}
    return f"still withheld by {', '.join(holds)}" if holds else "nothing withholds the permit any more"
