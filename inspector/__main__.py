"""The command line: every `commands/*.py` adds its commands here, and every way to fail has its exit code.

0 done · 64 wrong usage · 70 our bug · 75 no room on the disk to begin, which may pass · 78 a configuration, an input or a device refused.
Nobody sees a traceback, unless INSPECTOR_TRACE=1.
"""

from __future__ import annotations

import json
import os
import pkgutil
import select
import sys
import threading
import traceback
from importlib import import_module
from typing import Annotated

import typer

from inspector import __version__, commands
from inspector.records import ConfigError, DeviceError

ORDER = ("run", "check", "demo", "events", "desk", "template", "match", "camera", "calibrate", "model", "synth", "journal", "bench")
"""How the groups follow each other in the help; what is not named here comes after, by name."""

OK, USAGE, BUG, REFUSED = 0, 64, 70, 78
CODES = {"E_USAGE": USAGE, "E_STATE_FULL": 75}
"""Of refusals that are no 78; 75 is EX_TEMPFAIL of sysexits.h, and a service manager tries again."""
DRIVERS = "opencv-"
"""Threads whose names begin so may be inside a driver that aborts the process when the interpreter ends under it."""


def _versions() -> dict[str, str]:
    """What a verdict may depend on besides the recipe, read without loading the heavy libraries."""
    import platform
    import sqlite3
    from importlib.metadata import version

    import zmq

    return {
        "inspector": __version__,
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "sqlite": sqlite3.sqlite_version,
        "onnxruntime": version("onnxruntime"),
        "opencv": version("opencv-python-headless"),
        "numpy": version("numpy"),
    }


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is, and of what it is made.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: one JSON object.")] = False,
) -> None:
    """Inspect parts on a line against their drawings, and make the bad ones leave it.

    Start with `inspector demo`, or with `inspector check CONFIG` and `inspector run CONFIG`.
    """
    if version:
        versions = _versions()
        typer.echo(json.dumps(versions) if as_json else "\n".join(f"{name} {number}" for name, number in versions.items()))
        raise typer.Exit
    if as_json:
        raise typer.BadParameter("--json stands after a command, or with --version")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def application() -> typer.Typer:
    """The root command with every group of `inspector/commands` in it."""
    app = typer.Typer(
        name="inspector",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    found = sorted(module.name for module in pkgutil.iter_modules(commands.__path__) if not module.name.startswith("_"))
    for name in sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        import_module(f"inspector.commands.{name}").add(app)
    return app


def _run() -> str | int | None:
    try:
        application()(prog_name="inspector")
    except SystemExit as end:  # typer's own: 2 is wrong usage there
        return USAGE if end.code == 2 else end.code
    except (ConfigError, DeviceError) as error:
        print(error, file=sys.stderr)
        return CODES.get(error.code, REFUSED) if isinstance(error, ConfigError) else REFUSED
    except Exception as error:  # noqa: BLE001 - the last one who can speak to the user
        if isinstance(error, BrokenPipeError) and _unread():
            return OK
        if os.environ.get("INSPECTOR_TRACE") == "1":
            traceback.print_exc()
        print(f"our bug: {type(error).__name__}: {error} (INSPECTOR_TRACE=1 shows where; please report it)", file=sys.stderr)
        return BUG
    return OK


def _unread() -> bool:
    """Nobody reads standard output any more; a pipe that broke elsewhere is another matter."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # what is always told: the other end is gone
    return bool(poll.poll(0))


def main() -> None:
    """Run the command line and leave with its exit code; a reader who has seen enough (`| head`) is no error."""
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if any(thread.name.startswith(DRIVERS) for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1 if code else OK)
    sys.exit(code)


if __name__ == "__main__":
    main()
