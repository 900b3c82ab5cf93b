"""`inspector run`: the daemon, and its verdicts on the terminal by the way that any subscriber has."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from inspector.records import ConfigError

LAST_WORDS_S = 2.0
LOOK_S = 0.25
READ_AT_ONCE = 256


def run(
    config: Annotated[Path, typer.Argument(help="The configuration file.")],
    for_s: Annotated[float | None, typer.Option("--for", metavar="SECONDS", min=0.0, help="Drain and end after this long.")] = None,
    allow_root: Annotated[bool, typer.Option("--allow-root", help="Run although this is root.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ledger at the end, and no verdicts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line: every verdict, then the ledger.")] = False,
) -> None:
    """Inspect: take pictures, judge them, and give every part its verdict in time.

    SIGTERM drains, a second one leaves at once, SIGHUP reads the recipe again between two parts.

    Example: inspector run configs/line.example.yaml --for 60
    """
    from inspector.runtime import daemon

    printer = Printer(config, as_json=as_json)

    def end(counters: Mapping[str, int]) -> None:
        printer.finish()
        with suppress(BrokenPipeError):
            typer.echo(json.dumps(counters) if as_json else daemon.ledger_line(counters))

    ready = None if quiet else printer.start
    raise typer.Exit(daemon.run(config, for_s=for_s, allow_root=allow_root, on_ready=ready, on_end=end))


class Printer:
    """A thread that prints every verdict until the epoch is closed; what it was not told before the daemon ended, it reads in the journal.

    On a line with keys it reads all of them there: the sockets are for clients on the list, and the daemon is none.
    """

    def __init__(self, path: Path, *, as_json: bool) -> None:
        self._path, self._as_json = path, as_json
        self._epoch, self._last, self._closed = "", 0, False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, endpoints: Mapping[str, str], epoch: str) -> None:
        """Subscribe, and ask the replay socket for what was said before."""
        self._epoch = epoch
        self._thread = threading.Thread(target=self._run, args=(dict(endpoints), epoch), name="printer", daemon=True)
        self._thread.start()

    def _run(self, endpoints: Mapping[str, str], epoch: str) -> None:
        from inspector import config
        from inspector.client import Message, Subscriber
        from inspector.gate.protocol import Kind

        if config.read(self._path).security is not None:
            while not (self._closed or self._stop.wait(LOOK_S)):
                self._read()
            return
        with Subscriber(endpoints["events"], replay=endpoints["replay"], since=(epoch, 0)) as subscriber:
            while not self._stop.is_set():
                item = subscriber.receive(0.1)
                if not isinstance(item, Message):
                    continue
                self._closed = item.header.kind == Kind.EPOCH_CLOSE or not self._printed(item.payload)
                self._last = item.header.seq
                if self._closed:
                    return

    def _printed(self, payload: bytes) -> bool:
        """False when nobody reads any more; the line runs on."""
        try:
            typer.echo(payload.decode() if self._as_json else verdict_line(json.loads(payload)))
        except BrokenPipeError:
            return False
        return True

    def finish(self) -> None:
        """Wait a moment for the last verdicts."""
        if self._thread is not None:
            self._thread.join(LAST_WORDS_S)
            self._stop.set()
            self._thread.join(LAST_WORDS_S)
            if not self._closed:
                self._read()

    def _read(self) -> None:
        """What the journal has beyond the last one printed: a line that is over at once has ended before its first subscriber was there."""
        with suppress(ConfigError, ValueError, sqlite3.Error):  # a journal that cannot be read has said so itself
            self._read_on()

    def _read_on(self) -> None:
        from inspector import config
        from inspector.gate import protocol
        from inspector.gate.journal import Reader

        reader = Reader(config.read(self._path).state_dir / "journal.sqlite")
        try:
            while rows := reader.events("q", protocol.epoch_bytes(self._epoch), self._last + 1, self._last + READ_AT_ONCE, READ_AT_ONCE):
                for row in rows:
                    kind = protocol.parse(row.header, row.payload).kind
                    self._closed = kind == protocol.Kind.EPOCH_CLOSE or not self._printed(row.payload)
                    if self._closed:
                        return
                    self._last = row.seq
        finally:
            reader.close()


def verdict_line(body: Mapping[str, Any]) -> str:
    """One verdict for a person to read: lane, part, its own name, verdict, why, and how long after the exposure."""
    name = f" {body['part_uid']}" if body.get("part_uid") else ""
    why = f"  {body['reason']} {body['reason_text']}" if body["reason"] else ""
    spent_ms = (body.get("timing_ms") or {}).get("total")
    spent = "" if spent_ms is None else f"  {spent_ms:.1f} ms"
    return f"lane {body['lane']} part {body['part_seq']}{name}  {body['verdict']}{why}{spent}"


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(run)
