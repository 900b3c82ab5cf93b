"""`inspector run`: the daemon, and its verdicts on the terminal by the way that any subscriber has."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

LAST_WORDS_S = 2.0


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

    printer = Printer(as_json=as_json)

    def end(counters: Mapping[str, int]) -> None:
        printer.finish()
        with suppress(BrokenPipeError):
            typer.echo(json.dumps(counters) if as_json else daemon.ledger_line(counters))

    ready = None if quiet else printer.start
    raise typer.Exit(daemon.run(config, for_s=for_s, allow_root=allow_root, on_ready=ready, on_end=end))


class Printer:
    """A thread that prints every verdict until the epoch is closed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, endpoints: Mapping[str, str], epoch: str) -> None:
        """Subscribe, and ask the replay socket for what was said before."""
        self._thread = threading.Thread(target=self._run, args=(dict(endpoints), epoch), name="printer", daemon=True)
        self._thread.start()

    def _run(self, endpoints: Mapping[str, str], epoch: str) -> None:
        from inspector.client import Message, Subscriber
        from inspector.gate.protocol import Kind

        with Subscriber(endpoints["events"], replay=endpoints["replay"], since=(epoch, 0)) as subscriber:
            while not self._stop.is_set():
                item = subscriber.receive(0.1)
                if not isinstance(item, Message):
                    continue
                if item.header.kind == Kind.EPOCH_CLOSE:
                    return
                try:
                    typer.echo(item.payload.decode() if self._as_json else verdict_line(item.event.body))
                except BrokenPipeError:
                    return  # nobody reads any more; the line runs on

    def finish(self) -> None:
        """Wait a moment for the last verdicts."""
        if self._thread is not None:
            self._thread.join(LAST_WORDS_S)
            self._stop.set()
            self._thread.join(LAST_WORDS_S)


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
