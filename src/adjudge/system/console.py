"""Speaking to the person at the terminal: notes, warnings, progress. All of it goes to standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

QUIET_EVERY_S = 15.0
"""Without a terminal a long task prints one line this often instead of a moving bar."""


def note(text: str) -> None:
    """Say something the user should know."""
    console.print(text, markup=False)


def warn(text: str) -> None:
    """Say something that may be wrong."""
    console.print(f"warning: {text}", style="yellow", markup=False)


class Bar:
    """One progress bar; `advance` moves it and shows the latest figures beside it."""

    def __init__(self, title: str, total: int, progress: Progress | None) -> None:
        self._title, self._total, self._done, self._progress = title, total, 0, progress
        self._said = self._began = time.monotonic()
        self._task = progress.add_task(title, total=total, figures="") if progress else None

    def advance(self, count: int = 1, **figures: float | str) -> None:
        """Move by `count` rows or steps."""
        self._done += count
        text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=count, figures=text)
        elif time.monotonic() - self._said >= QUIET_EVERY_S:
            self._said = time.monotonic()
            note(
                f"  {self._title}: {self._done} of {self._total} after {self._said - self._began:.0f} s  {text}".rstrip()
            )


@contextmanager
def progress(title: str, total: int) -> Iterator[Bar]:
    """A progress bar in a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        yield Bar(title, total, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),  # names of the user's own tasks and files stand in it
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        yield Bar(title, total, shown)


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
