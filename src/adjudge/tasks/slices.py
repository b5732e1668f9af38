"""Columns of a task's rows whose values are scored apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adjudge.errors import DataError, nearest
from adjudge.tasks.reading.table import require_columns, stream_table
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example


def with_slices(spec: TaskSpec, columns: Sequence[str]) -> TaskSpec:
    """Return the task whose rows keep these columns as tags, each with its values as slices.

    A tag of the task is named by itself. Raises DataError for a column which the user's table does not have.
    """
    if not columns:
        return spec
    new = [name for name in columns if name not in spec.tags]
    if (table := spec.source.table) is not None:
        for path in filter(None, (table.train, table.dev)):
            require_columns(path, stream_table(Path(path), table.form)[0], new)
    tags = {**spec.tags, **{name: name for name in new}}
    return spec.model_copy(update={"tags": tags, "slices": tuple(dict.fromkeys((*spec.slices, *columns)))})


def check_slices(spec: TaskSpec, rows: Sequence[Example]) -> None:
    """Raise DataError when no row has a value of a slice's column."""
    for name in spec.slices:
        if rows and not any(row.tags.get(name) for row in rows):
            known = sorted({tag for row in rows for tag, value in row.tags.items() if value})
            raise DataError(
                f"{spec.name}: no row that is judged has a value in the column '{name}' (data.slices)."
                f"{nearest(name, known) if known else ''}"
            )
