"""`inspector setup`: asks an integrator what a line needs, and writes a configuration that passes `inspector check`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from inspector.records import ConfigError, ConfigErrors

if TYPE_CHECKING:
    from inspector.workshop.setup import Question


Ask: TypeAlias = Callable[[str, str | None], str | None]
"""From a question's text and its default to the answer, None where there is none."""

LEFT = 130
"""The exit code of who leaves by Ctrl-C or Ctrl-D, as of a shell's."""


def setup(
    out: Annotated[Path, typer.Argument(help="The configuration to write; for the service /etc/inspector/line.yaml.")],
    answers: Annotated[Path | None, typer.Option(metavar="YAML", help="Answers from a file: KEY: VALUE, one a line.")] = None,
    given: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One answer; may be given again.")] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Ask nothing: what is not answered has its default.")] = False,
    questions: Annotated[
        bool, typer.Option("--questions", help="Print the questions with their keys and defaults, and write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Ask for cameras, drawing, tolerances, timing and addresses; write a configuration that passes `check`, and keys where it needs them.

    Nothing that is there is overwritten. What was answered with --answers or --set is not asked again. Without either, answers may also be
    piped in, a line for each question in the order of --questions; an empty line, and the end, stand for the default.

    Example: inspector setup /etc/inspector/line.yaml

    Example: inspector setup line.yaml --defaults --set cameras=simulated --set drawing=dxf_templates/plate.dxf
    """
    from inspector.workshop import setup as wizard

    if questions:
        for question in wizard.QUESTIONS:
            typer.echo(f"{question.key}: {question.text}")
        return
    if out.exists():
        raise ConfigError("E_SETUP_EXISTS", "is there already and stays as it is; give another path, or move it away", file=str(out))
    said = _given(answers, given or [], wizard.KEYS)
    ask: Ask | None = None
    if not (defaults or as_json):
        ask = _ask if sys.stdin.isatty() else None if said else _read
    found: dict[str, Any] = {"out": str(out.absolute())}
    for question in wizard.QUESTIONS:
        if question.asked(found):
            found[question.key] = _answer(question, found, said.get(question.key), ask)
    text = wizard.written(found)
    digest = _proved(out, text)
    made = _keys(Path(found["keys"])) if "keys" in found else []
    _write(out, text)
    _tell(out, digest, made, as_json=as_json)


def _given(path: Path | None, pairs: list[str], known: tuple[str, ...]) -> dict[str, str]:
    """Answers of the file and of the command line, which wins; `ConfigError` for a key that nobody asks for."""
    from inspector.config.document import compose, nearest, text_of

    said: dict[str, str] = {}
    if path is not None:
        document = compose(str(path), text_of(path))
        if document.errors:
            raise ConfigErrors(document.in_order())
        if not isinstance(document.data, Mapping):
            raise ConfigError("E_SETUP_ANSWER", "KEY: VALUE lines are allowed", file=str(path))
        for key, value in document.data.items():
            said[str(key)] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError("E_SETUP_ANSWER", f"{pair!r}; KEY=VALUE is allowed", key="--set")
        said[key] = value
    for key in said:
        if key not in known:
            raise ConfigError("E_SETUP_ANSWER", f"no question {key}{nearest(key, known)}; known: {', '.join(known)}", key=key)
    return said


def _answer(question: Question, found: Mapping[str, Any], said: str | None, ask: Ask | None) -> Any:
    """The value of an answer: what was said, else what is answered (a person is asked again until it is allowed), else the default."""
    default = question.default(found)
    while True:
        text = said
        if text is None and ask is not None:
            text = ask(f"\n{question.text}\n{question.key}", default)
        if text is None:
            text = default
        if text is None:
            raise ConfigError("E_SETUP_ANSWER", f"must be answered: {question.text}", key=question.key)
        try:
            return question.read(text.strip(), found)
        except ValueError as error:
            if said is not None or ask is not _ask:
                raise ConfigError("E_SETUP_ANSWER", f"{text!r}; {error}", key=question.key) from error
            typer.echo(f"{text}: {error}", err=True)


def _ask(text: str, default: str | None) -> str:
    try:
        return str(typer.prompt(text, default=default))
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("\nleft: nothing is written", err=True)
        raise typer.Exit(LEFT) from None


def _read(text: str, default: str | None) -> str | None:
    """The next line of standard input; where it is empty or there is none, the default. Nothing is said, because nobody is there."""
    del text
    return sys.stdin.readline().strip() or default


def _proved(out: Path, text: str) -> str:
    """The digest of the recipe that the configuration makes. Raises what `inspector check` would, but for the keys."""
    from inspector.commands.check import looked_through

    return looked_through(out, text=text, keys=False)[1].digest


def _keys(folder: Path) -> list[str]:
    """Keys for the daemon and its first clients, where there are none yet: the files that were made."""
    from inspector.commands import keys
    from inspector.workshop.setup import CLIENTS

    return [] if (folder / "server.key").exists() else list(keys.make(folder, CLIENTS).values())


def _write(out: Path, text: str) -> None:
    """The file as it was proved, readable for the service's group; never over another one."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "w", encoding="utf-8") as file:
            file.write(text)
        inherited = out.parent.stat().st_gid  # /etc/inspector is the group's that the service runs as
        if os.geteuid() == 0:
            os.chown(out, -1, inherited)
    except OSError as error:
        raise ConfigError("E_SETUP_WRITE", str(error.strerror), file=str(out)) from error


def _tell(out: Path, digest: str, made: list[str], *, as_json: bool) -> None:
    service = out.absolute() == Path("/etc/inspector/line.yaml")
    start = "systemctl enable --now inspector inspector-desk" if service else f"inspector run {out}"
    if as_json:
        typer.echo(json.dumps({"config": str(out), "recipe": digest, "keys": made, "next": start}))
        return
    typer.echo(f"\nwritten: {out}, recipe {digest[:12]}; it passes `inspector check`")
    for path in made:
        typer.echo(f"key: {path}")
    typer.echo(f"next: look at it, then {start}")


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(setup)
