"""``adjudge tasks --overlap``: count the dev rows that are among the training rows too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from adjudge.cli.show import stdout

if TYPE_CHECKING:
    from adjudge.types import Example

COLUMNS = (
    "task",
    "train rows",
    "dev rows",
    "dev rows in train",
    "share",
    "letter for letter",
    "train rows to drop",
    "contradictions",
)


def show_overlap(name: str | None, data_dir: str | None) -> None:
    """Print the counts of one task, with the ids of its rows, or of every task with files in `data_dir`.

    Raises ConfigError when neither is given, and DataError when the rows of the one task cannot be read.
    """
    from adjudge.errors import ConfigError
    from adjudge.tasks import find_overlap

    if name is None and data_dir is None:
        raise ConfigError(
            "--overlap needs rows: name a task, or give --data-dir DIR for all tasks with files in that folder."
        )
    if name is None:
        _show_all(str(data_dir))
        return
    train, dev = _rows(name, data_dir)
    _print([_counts(name, train, dev)])
    if pairs := find_overlap(train, dev):
        typer.echo("\ntrain row = dev row:\n" + "\n".join(f"  {train_id} = {dev_id}" for train_id, dev_id in pairs))


def _show_all(data_dir: str) -> None:
    from adjudge.errors import DataError
    from adjudge.tasks import list_tasks, load_task

    lines, skipped = [], []
    for name in list_tasks():
        source = load_task(name).source
        if source.files or source.hub:
            try:
                lines.append(_counts(name, *_rows(name, data_dir)))
            except DataError as error:
                skipped.append(f"{name} is skipped: {error}")
    _print(lines)
    for line in skipped:
        typer.echo(line, err=True)


def _rows(name: str, data_dir: str | None) -> tuple[list[Example], list[Example]]:
    from adjudge.tasks import load_split, load_task

    spec = load_task(name)
    return load_split(spec, "train", data_dir), load_split(spec, "dev", data_dir)


def _counts(name: str, train: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    from adjudge.tasks import count_contradictions, measure_overlap, without_overlap

    overlap = measure_overlap(train, dev)
    to_drop = len(train) - len(without_overlap(train, dev))
    return [
        name,
        f"{len(train):,}",
        f"{len(dev):,}",
        f"{overlap.normalised:,}",
        f"{100 * overlap.share:.1f} %",
        f"{overlap.exact:,}",
        f"{to_drop:,}",
        f"{count_contradictions(train):,}",
    ]


def _print(lines: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "task" else "right")
    for line in lines:
        table.add_row(*map(Text, line))
    stdout().print(table)
