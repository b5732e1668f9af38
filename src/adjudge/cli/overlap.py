"""What ``adjudge tasks --overlap`` prints: rows that are in training and among the dev rows too."""

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
    "train rows that go",
    "contradictions",
)


def show_overlap(name: str | None, data_dir: str | None) -> None:
    """Print the counts of one task, with the ids of its rows, or of every task that is read from `data_dir`.

    Raises ConfigError when neither is given, and what reading the rows of the one task raises.
    """
    from adjudge.errors import ConfigError
    from adjudge.tasks import find_overlap

    if name is None and data_dir is None:
        raise ConfigError(
            "--overlap needs rows: name a task, or give --data-dir DIR for all tasks that are read from a folder."
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

    lines, lacking = [], []
    for name in list_tasks():
        source = load_task(name).source
        if source.files or source.hub:
            try:
                lines.append(_counts(name, *_rows(name, data_dir)))
            except DataError as error:
                lacking.append(f"{name} is left out: {error}")
    _print(lines)
    for line in lacking:
        typer.echo(line, err=True)


def _rows(name: str, data_dir: str | None) -> tuple[list[Example], list[Example]]:
    from adjudge.tasks import load_split, load_task

    spec = load_task(name)
    return load_split(spec, "train", data_dir), load_split(spec, "dev", data_dir)


def _counts(name: str, train: Sequence[Example], dev: Sequence[Example]) -> list[str]:
    from adjudge.tasks import count_contradictions, measure_overlap, without_overlap

    found = measure_overlap(train, dev)
    counts = (found.exact, len(train) - len(without_overlap(train, dev)), count_contradictions(train))
    share = f"{100 * found.share:.1f} %"
    return [
        name,
        f"{len(train):,}",
        f"{len(dev):,}",
        f"{found.normalised:,}",
        share,
        *(f"{count:,}" for count in counts),
    ]


def _print(lines: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column == "task" else "right")
    for line in lines:
        shown.add_row(*map(Text, line))
    stdout().print(shown)
