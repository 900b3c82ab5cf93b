"""`inspector events`: what the daemon tells, one event a line."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

SILENT_S = 3.0


class Stream(StrEnum):
    """Which stream."""

    q = "q"
    r = "r"
    a = "a"


def _events(
    endpoint: Annotated[str, typer.Argument(help="The events socket, tcp://HOST:PORT.")],
    stream: Annotated[Stream, typer.Option(help="q every verdict, r rejects only, a alarms and state.")] = Stream.q,
    count: Annotated[int, typer.Option(min=0, help="Stop after so many events; 0: never.")] = 0,
    replay: Annotated[str | None, typer.Option(help="The replay socket; events that were lost are asked for there.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A client's key file, where the daemon has security.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print events as they come; on standard error what was lost for good (`last` null: nobody knows how much), and that nothing is heard.

    Example: inspector events tcp://127.0.0.1:5561 --stream r --count 10 --json
    """
    from inspector.client import Message, Subscriber, read_keys
    from inspector.config import refuse_unreachable

    for name, address in (("ENDPOINT", endpoint), ("--replay", replay)):
        try:
            if address is not None:
                refuse_unreachable(address)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=name) from error

    left = count or -1
    with Subscriber(endpoint, stream=stream.value, replay=replay, keys=read_keys(keys) if keys else None) as subscriber:
        silent = False
        while left:
            item = subscriber.receive(0.5)
            if silent is not (subscriber.silent_s > SILENT_S):
                silent = not silent
                if silent:
                    keyed = ", and is this key on its list" if keys else ""
                    typer.echo(f"no heartbeat from {endpoint} for {SILENT_S:g} s: is the daemon there{keyed}?", err=True)
            if isinstance(item, Message):
                body = item.event.body
                typer.echo(item.payload.decode() if as_json else _line(item.header.seq, body))
                left -= 1
            elif item is not None:
                text = {"hole": item.stream, "epoch": item.epoch, "first": item.first, "last": item.last, "why": item.why}
                typer.echo(json.dumps(text), err=True)


def _line(seq: int, body: object) -> str:
    """One event for a person to read."""
    assert isinstance(body, dict)
    schema = body.get("schema")
    if schema == "insp.verdict":
        bad = next((f for f in body.get("findings") or () if not f.get("ok")), None)
        what = f" {bad['check']} {bad['feature']} {bad['value']} {bad['unit']}" if bad else ""
        why = f" {body['reason']} {body['reason_text']}" if body["reason"] else ""
        return f"{seq:>8} lane {body['lane']} part {body['part_seq']} {body['verdict']}{why}{what}"
    if schema == "insp.alarm":
        return f"{seq:>8} {body['severity']} {body['code']} {body['text']}"
    return f"{seq:>8} {schema} {body.get('state', '')}"


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command("events")(_events)
