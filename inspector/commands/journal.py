"""`inspector journal`: prove a journal, and write it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Prove a journal, and write it out.", no_args_is_help=True)

JournalPath = Annotated[Path, typer.Argument(help="journal.sqlite, or the state folder that holds it.")]


def _file(path: Path) -> Path:
    from inspector.records import ConfigError

    file = path / "journal.sqlite" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError("E_DB_FORMAT", f"{file}: there is no journal; a journal.sqlite or its folder is allowed", key="PATH")
    return file


@app.command()
def verify(
    path: JournalPath,
    running: Annotated[bool, typer.Option(help="Its daemon runs: check what is in it now by short reads, in nobody's way.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check every event and every link of the hash chain; exit 0 when all hold, 78 when any does not.

    Example: inspector journal verify state/journal.sqlite
    """
    from inspector.gate.journal import count, verify, verify_running

    file = _file(path)
    problems = list(verify_running(file) if running else verify(file))
    if as_json:
        typer.echo(json.dumps({"journal": str(path), "events": count(file), "ok": not problems, "problems": problems}))
    else:
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"{count(file)} events, " + ("every link holds" if not problems else f"{len(problems)} problems"))
    if problems:
        raise typer.Exit(78)


@app.command()
def export(
    path: JournalPath,
    out: Annotated[Path, typer.Option(help="The file to write: .csv, or .parquet (needs pyarrow).")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write one line for each part, each event proved on the way; where one does not hold nothing is written, and the exit code is 78.

    Example: inspector journal export state --out parts.csv
    """
    from inspector.records import ConfigError

    file = _file(path)
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError("E_USAGE", f"{out.name}: .csv or .parquet is allowed", key="--out")
    try:
        if out.exists() and not out.is_file():  # a pipe has the lines as they come
            written = _write(file, out, out.suffix)
        else:
            target = out.resolve()
            part = target.with_name(f"{target.name}.part")
            try:
                written = _write(file, part, out.suffix)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError("E_OUT", f"{out}: {error.strerror}", key="--out") from error
    typer.echo(json.dumps({"out": str(out), "parts": written}) if as_json else f"{written} parts written to {out}")


def _write(file: Path, out: Path, suffix: str) -> int:
    """How many parts were written."""
    from importlib import import_module

    from inspector.gate.journal import export_csv, parts
    from inspector.records import ConfigError

    if suffix == ".csv":
        with out.open("w", newline="", encoding="utf-8") as stream:
            return export_csv(file, stream)
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("E_EXTRA", "Parquet needs pyarrow (pip install pyarrow); .csv needs nothing", key="--out") from error
    table = pyarrow.Table.from_pylist(list(parts(file)))
    parquet.write_table(table, out)
    return int(table.num_rows)


def add(root: typer.Typer) -> None:
    """Register the commands."""
    root.add_typer(app, name="journal")
