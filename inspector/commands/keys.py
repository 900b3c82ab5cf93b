"""`inspector keys`: CURVE keys for a daemon and its clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="CURVE keys for a daemon and its clients.", no_args_is_help=True)


@app.command()
def new(
    folder: Annotated[Path, typer.Argument(help="Where the keys are kept.")],
    client: Annotated[list[str] | None, typer.Option(help="NAME:ROLE of a client, role gate, scada or replay; may be given again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make the daemon's key (where there is none yet) and one for each client, and write the clients into the list.

    Example: inspector keys new /etc/inspector/keys --client plc-1:gate --client historian:replay
    """
    made = make(folder, client or [])
    typer.echo(json.dumps(made) if as_json else "\n".join(f"{name}: {path}" for name, path in made.items() if name != "clients"))


def make(folder: Path, clients: Sequence[str]) -> dict[str, str]:
    """The work of `new`: NAME:ROLE each; where the list of clients, the daemon's key and each client's are."""
    from inspector.gate.security import ROLES, SERVER_KEY, read_pair, write_pair
    from inspector.records import ConfigError, ConfigErrors

    wanted, wrong = [], []
    for text in clients:
        name, _, role = text.partition(":")
        if role not in ROLES or not name or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
            wrong.append(ConfigError("E_USAGE", f"{text!r}; NAME:ROLE is allowed, the role one of {', '.join(ROLES)}", key="--client"))
        wanted.append((name, role))
    if wrong:
        raise ConfigErrors(wrong)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError("E_KEY_OPEN", f"{error.strerror}", file=str(folder)) from error
    server = read_pair(folder / SERVER_KEY) if (folder / SERVER_KEY).exists() else write_pair(folder / SERVER_KEY)
    listed = folder / "clients"
    listed.touch(mode=0o644)
    made = {"clients": str(listed), "server": str(folder / SERVER_KEY)}
    for name, role in wanted:
        pair = write_pair(folder / f"{name}.key", server=server.public)
        with listed.open("a", encoding="ascii") as file:
            file.write(f"{pair.public.decode()} {role} {name}\n")
        made[name] = str(folder / f"{name}.key")
    return made


def add(root: typer.Typer) -> None:
    """Register the command."""
    root.add_typer(app, name="keys")
