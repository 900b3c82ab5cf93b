# mypy: ignore-errors
"""Named places in the daemon at which a test lets it die or sleep: before and after each function below, and each statement to SQLite.

Nothing of this is in the product: the functions are wrapped from outside when the process starts. The control file `failpoint` holds
`HOW NAME`; the first process that comes by takes it away and does it.
"""

import os
import signal
import sqlite3
import sys
import time
from importlib import import_module
from pathlib import Path

CONTROL = Path(os.environ.get("INSPECTOR_TEST_CONTROL", "/nonexistent")) / "failpoint"
SLEEP_S = 1.0

GATE = (
    "inspector.gate.arbiter:Arbiter.step", "inspector.gate.arbiter:Arbiter._verdict", "inspector.gate.arbiter:Arbiter._event",
    "inspector.gate.arbiter:Arbiter._cmd_hello", "inspector.gate.arbiter:Arbiter._heartbeats", "inspector.gate.ledger:Ledger.trigger",
    "inspector.gate.ledger:Ledger.judged", "inspector.gate.ledger:Ledger.close_due", "inspector.gate.session:Session.offer",
    "inspector.gate.session:Session.acknowledge", "inspector.gate.session:Session.tick", "inspector.gate.journal:Journal.begin",
    "inspector.gate.journal:Journal.commit", "inspector.gate.journal:Journal._connect", "inspector.gate.journal:Journal.retain",
    "inspector.gate.journal:Journal.anchor", "inspector.gate.journal:verify", "inspector.gate.replay:Server.step",
    "inspector.gate.replay:Server._chunk", "inspector.gate.sockets:send", "inspector.gate.sockets:receive",
    "inspector.runtime.gate:GateProcess._publish", "inspector.runtime.gate:GateProcess._hear_vision",
    "inspector.runtime.gate:GateProcess._commit", "inspector.runtime.daemon:Daemon._write_ready_file",
    "inspector.runtime.daemon:Daemon._turn",
)  # fmt: skip
"""Each is two points: NAME:before and NAME:after."""

STATEMENTS = ("BEGIN", "INSERT INTO event", "INSERT INTO epoch", "COMMIT")
"""Of the journal's connection; two points each."""

VISION = ("inspector.runtime.stages:_inspect", "inspector.runtime.stages:_reported", "inspector.runtime.stages:body_of")


def names() -> list[str]:
    """Every point."""
    return [
        f"{name}:{when}"
        for name in (*GATE, *(f"sqlite:{s.replace(' ', '_')}" for s in STATEMENTS), *VISION)
        for when in ("before", "after")
    ]


def strike(name):
    """Do what the control file asks for at this point, once."""
    try:
        how, wanted = CONTROL.read_text().split()
    except (FileNotFoundError, ValueError):
        return
    if wanted != name:
        return
    try:
        CONTROL.unlink()
    except FileNotFoundError:
        return
    CONTROL.with_name("failpoint.hit").write_text(str(time.monotonic_ns()))
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(SLEEP_S)


class Connection(sqlite3.Connection):
    """The journal's connection with its points."""

    def _at(self, statement, when):
        for start in STATEMENTS:
            if statement.startswith(start):
                strike(f"sqlite:{start.replace(' ', '_')}:{when}")

    def execute(self, statement, *rest):
        self._at(statement, "before")
        found = super().execute(statement, *rest)
        self._at(statement, "after")
        return found

    def executemany(self, statement, *rest):
        self._at(statement, "before")
        found = super().executemany(statement, *rest)
        self._at(statement, "after")
        return found


def _wrap(name):
    module_name, _, path = name.partition(":")
    owner = import_module(module_name)
    *classes, attribute = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    real = getattr(owner, attribute)

    def pointed(*arguments, **named):
        strike(f"{name}:before")
        found = real(*arguments, **named)
        strike(f"{name}:after")
        return found

    setattr(owner, attribute, pointed)


def install():
    """Wrap everything that this process will use."""
    words = " ".join(sys.orig_argv)
    if "inspector.runtime.vision" in words:
        for name in VISION:
            _wrap(name)
    elif "inspector" in words and " run " in words:
        for name in GATE:
            _wrap(name)
        connect = sqlite3.connect
        sqlite3.connect = lambda *rest, **named: connect(*rest, **({"factory": Connection} | named))
