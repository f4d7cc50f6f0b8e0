"""Says what a run is doing: a line a step on a terminal, nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text


class Report(Protocol):
    """Is told what a run does."""

    def __call__(self, step: str, *, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
        """Name the step that starts now; it also ends the one before.

        A step of known length is named again and again as it goes on, with `done` of `total` (in any unit that
        takes even time) and a `note`, such as the fold and the metric so far.
        """
        ...


def quiet(step: str, *, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
    """Say nothing."""
    del step, done, total, note


@contextmanager
def steps(console: Console | None = None) -> Iterator[Report]:
    """Give a function that shows the steps of a run.

    Writes to standard error, and only where that is a terminal.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield quiet
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        _Bar(),
        TextColumn("{task.fields[note]}"),
        _Time(),
    )
    with Progress(*columns, console=console) as progress:
        shown = _Steps(progress)
        yield shown
        shown.end()


class _Steps:
    """The steps of a rich progress, of which the last is running."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._running: tuple[str, TaskID] | None = None

    def __call__(self, step: str, *, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
        if self._running is None or self._running[0] != step:
            self.end()
            counted = total > 0.0
            task = self._progress.add_task(step, total=total or 1.0, counted=counted, note=note)
            self._running = (step, task)
        self._progress.update(self._running[1], completed=done, note=note)

    def end(self) -> None:
        """Mark the running step as done."""
        if self._running is not None:
            task = next(task for task in self._progress.tasks if task.id == self._running[1])
            self._progress.update(task.id, completed=task.total)


class _Bar(ProgressColumn):
    """A bar for the steps that know their length."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=24)

    def render(self, task: Task) -> RenderableType:
        return self._bar.render(task) if task.fields["counted"] else ""


class _Time(ProgressColumn):
    """The time that a step has taken, and what it will take on from the part that is done."""

    def render(self, task: Task) -> Text:
        spent = task.finished_time if task.finished else task.elapsed
        text = str(timedelta(seconds=int(spent or 0.0)))
        if task.fields["counted"] and not task.finished and task.completed > 0.0 and task.total is not None:
            left = (spent or 0.0) * (task.total - task.completed) / task.completed
            text += f", {timedelta(seconds=int(left))} to go"
        return Text(text, style="progress.elapsed")
