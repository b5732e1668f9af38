"""Print notes, warnings and progress for the user, all to standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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

from adjudge.system.parallel import is_first

console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

QUIET_EVERY_S = 15.0
"""Seconds between the lines that a long task prints without a terminal, in place of a moving bar."""


_BARS = ContextVar("bars", default=True)
_BEGINNING = ContextVar("beginning", default="")


def note(text: str) -> None:
    """Print something the user should know. Of several processes, the first one prints."""
    if is_first():
        console.print(_with_beginning(text), markup=False)


def warn(text: str) -> None:
    """Print a warning: something may be wrong. Of several processes, the first one prints."""
    if is_first():
        console.print(_with_beginning(f"warning: {text}"), style="yellow", markup=False)


def begin_lines_with(beginning: str) -> None:
    """Print `beginning` before each line from now on, and draw no bars: processes share the terminal."""
    _BEGINNING.set(beginning)
    _BARS.set(False)


def _with_beginning(text: str) -> str:
    beginning = _BEGINNING.get()
    return "\n".join(beginning + line for line in text.splitlines()) if beginning else text


class Bar:
    """A progress bar; `advance` moves it and shows the latest figures beside it."""

    def __init__(self, title: str, total: int, progress: Progress | None) -> None:
        self._title, self._total, self._done, self._progress = title, total, 0, progress
        self._printed_at = self._started_at = time.monotonic()
        self._task = progress.add_task(title, total=total, figures="") if progress else None

    def advance(self, count: int = 1, **figures: float | str) -> None:
        """Move by `count` rows or steps."""
        self._done += count
        text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=count, figures=text)
        elif time.monotonic() - self._printed_at >= QUIET_EVERY_S:
            self._printed_at = time.monotonic()
            seconds = self._printed_at - self._started_at
            note(f"  {self._title}: {self._done} of {self._total} after {seconds:.0f} s  {text}".rstrip())


@contextmanager
def progress(title: str, total: int) -> Iterator[Bar]:
    """Yield a bar that moves in a terminal, and elsewhere prints one line every `QUIET_EVERY_S`."""
    if not console.is_terminal or not _BARS.get() or not is_first():
        yield Bar(title, total, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),  # may hold names of the user's tasks and files
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Bar(title, total, bar)


@contextmanager
def without_bars() -> Iterator[None]:
    """Draw no bars in this block: a terminal can show only one, and a server judges in several threads."""
    token = _BARS.set(False)
    try:
        yield
    finally:
        _BARS.reset(token)


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
