"""Says what a run is doing: a line a step on a terminal, nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

Report = Callable[[str], None]


def quiet(step: str) -> None:
    """Say nothing."""
    del step


@contextmanager
def steps(console: Console | None = None) -> Iterator[Report]:
    """Give a function that names the step that starts now; it also ends the one before.

    Writes to standard error, and only where that is a terminal.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield quiet
        return
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        running: list[TaskID] = []

        def report(step: str) -> None:
            for task in running:
                progress.update(task, completed=1)
            running[:] = [progress.add_task(step, total=1)]

        yield report
        for task in running:
            progress.update(task, completed=1)
