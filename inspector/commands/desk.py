"""`inspector desk`: the operator's page."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def desk(
    config: Annotated[Path, typer.Argument(help="The daemon's configuration file.")],
    ready: Annotated[
        Path | None, typer.Option("--ready", help="The daemon's ready file, which says at which ports it is; default: as configured.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="A client's key file, where the daemon has `security:`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say the address as a JSON object.")] = False,
) -> None:
    """Serve the operator's page: the line at a glance, parts with pictures and findings, rejects, quality, cameras, changeover, reports.

    It may be started and stopped at any time; the line does not notice. Open the address in a browser on this machine; from another one
    use a tunnel: ssh -L 8080:127.0.0.1:8080 HOST. To do more than look, somebody has to log in: `inspector desk-user`.

    Example: inspector desk configs/demo.yaml
    """
    from inspector import config as settings
    from inspector.records import ConfigError
    from inspector.runtime.endpoints import keys_of

    try:
        from inspector.desk.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigError("E_EXTRA", f"the desk needs {error.name}; pip install 'inspector[desk]'") from error

    def say(url: str) -> None:
        text = json.dumps({"url": url, "pid": os.getpid()}) if as_json else f"the desk is at {url}"
        typer.echo(text)

    found = settings.read(config)
    serve(found, config, ready=found.ready_file if ready is None else ready, keys=keys_of(found, keys), say=say)


users = typer.Typer(help="Who may log in at the operator's page, and what they may do there.", no_args_is_help=True)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The daemon's configuration file, with desk.users.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="a-z 0-9 . _ -")]


@users.command("set")
def set_(
    config: ConfigPath,
    name: Name,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="viewer, operator, engineer or admin; each may do what those before it may.")],
    stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of the input.")] = False,
) -> None:
    """Let somebody log in, or give them another role or password; it is asked for and never shown. Their open sessions end.

    Example: inspector desk-user set configs/line.example.yaml anna operator
    """
    from inspector.desk import users as kept

    path, state_dir = _places(config)
    found = kept.read(path) if path.exists() else {}
    kept.new(name, role, "x" * kept.LEAST_PASSWORD)  # a bad name or role is said before anybody types
    if stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True)
    user = kept.new(name, role, password)
    kept.write(path, {**found, name: user}, owner=state_dir)
    typer.echo(f"{name} may log in as {role}: {path}")


@users.command()
def remove(config: ConfigPath, name: Name) -> None:
    """Let somebody log in no more; their open sessions end.

    Example: inspector desk-user remove configs/line.example.yaml anna
    """
    from inspector.config.document import nearest
    from inspector.desk import users as kept
    from inspector.records import ConfigError

    path, _ = _places(config)
    found = kept.read(path)
    if found.pop(name, None) is None:
        raise ConfigError("E_USAGE", f"nobody is called {name[:40]!r}{nearest(name, found)}", file=str(path), key="NAME")
    kept.write(path, found)
    typer.echo(f"{name} may log in no more: {path}")


@users.command("list")
def list_(config: ConfigPath, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Say who may log in, and as what.

    Example: inspector desk-user list configs/line.example.yaml
    """
    from inspector.desk import users as kept

    found = {name: user.role.name.lower() for name, user in kept.read(_places(config)[0]).items()}
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {role}" for name, role in found.items()))


def _places(config: Path) -> tuple[Path, Path]:
    """The file of users, and the line's state folder. Raises `ConfigError` E_USERS_OPEN where the configuration names none."""
    from inspector import config as settings
    from inspector.records import ConfigError

    found = settings.read(config)
    if found.desk.users is None:
        raise ConfigError("E_USERS_OPEN", "it names no file of users; set desk.users", file=found.file, key="desk.users")
    return found.desk.users, found.state_dir


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(desk)
    app.add_typer(users, name="desk-user")
