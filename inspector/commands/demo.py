"""`inspector demo`: a line at work, without any hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PLAIN_COLUMNS = 160


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)


def demo(
    for_s: Annotated[float | None, typer.Option("--for", metavar="SECONDS", min=1.0, help="End after so many seconds of belt.")] = None,
    rate: Annotated[float | None, typer.Option(metavar="PARTS_PER_S", min=0.1, help="Parts a second, of all lanes together.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed, other parts.")] = None,
    config: Annotated[Path | None, typer.Option(help="Another configuration with a simulated belt; default: configs/demo.yaml.")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep journal, pictures, logs and truth in this new folder.")] = None,
    desk: Annotated[bool, typer.Option(help="Start the operator's page too.")] = True,
    parts: Annotated[
        int | None, typer.Option(min=1, help="No belt: judge so many parts as fast as the cores allow, and count what goes wrong by size.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="With --parts: processes; as many as there are cores when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only the account at the end, as one JSON object.")] = False,
) -> None:
    """Run a simulated line: a belt with known parts, four cameras, the daemon, a PLC that ejects, and the operator's page.

    Prints verdicts as they come; at the end (Ctrl-C, or --for) the ledger, what the PLC did, and a table against the truth. Exit code 0
    only when all accounts balance.

    Example: inspector demo --for 60 --rate 10
    Example: inspector demo --parts 5000 --seed 7
    """
    import json
    import os
    import tempfile
    from contextlib import ExitStack
    from dataclasses import asdict

    from rich.console import Console

    from inspector.records import ConfigError
    from inspector.workshop import demo as line_at_work
    from inspector.workshop import screen

    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_COLUMNS)
    aside = Console(stderr=True, highlight=False)
    path = config or line_at_work.folder_of_ours("configs", "demo.yaml")
    if parts is not None:
        from inspector.workshop import synth, trial
        from inspector.workshop.progress import shown as progress_of

        with synth.executor(workers or len(os.sched_getaffinity(0)), None) as pool, progress_of("judged", parts) as progress:
            tried = trial.put_on_trial(path.absolute(), parts, seed=seed, pool=pool, progress=progress)
        if as_json:
            classes = [asdict(each) | {"named": dict(each.named)} for each in trial.by_size(tried)]
            typer.echo(json.dumps(trial.summary(tried) | {"classes": classes}))
        else:
            screen.trial(console, tried)
        return
    if line_at_work.am_root():
        aside.print("running as root: fine for a demo, not for a line (`inspector run` refuses it)", style="yellow")
    with ExitStack() as stack:
        if state is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inspector-demo-", ignore_cleanup_errors=True)))
        else:
            folder = state.absolute()
            if folder.exists() and any(folder.iterdir()):
                raise ConfigError("E_DEMO_STATE", "is not empty; a demo needs a new folder", file=str(folder), key="--state")
            folder.mkdir(parents=True, exist_ok=True)
        variables = line_at_work.environment(folder, rate_parts_per_s=rate, seed=seed, base=os.environ)
        stop = stack.enter_context(line_at_work.Stop().listening())
        shown = ExitStack()
        show = (lambda line, verdict: None) if as_json else shown.enter_context(screen.screen(console))
        with shown:
            line = line_at_work.run(
                path,
                folder,
                for_s=for_s,
                variables=variables,
                stop=stop,
                with_desk=desk,
                show=show,
                say=aside.print,
            )
        outcomes = line.outcomes()
        rows = line_at_work.against_truth(line.verdicts, outcomes, line.truth)
        faults = line_at_work.faults_of_account(line.ledger(), line.verdicts, outcomes, line.repeated)
        if as_json:
            typer.echo(json.dumps(line_at_work.account_of(line, rows, faults)))
        else:
            screen.account(console, line, rows, faults)
    raise typer.Exit(70 if faults else 0)
