"""How far something long has come: a bar on a terminal, a plain line for every tenth elsewhere; always on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


@contextmanager
def shown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives the function to call with how many of `total` are done."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(
            "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
        ) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    tenths = 0

    def line(done: int) -> None:
        nonlocal tenths
        if done * 10 // total > tenths:
            tenths = done * 10 // total
            console.print(f"{what} {done} of {total}", highlight=False)

    yield line
