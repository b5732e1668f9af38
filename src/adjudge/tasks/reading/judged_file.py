"""Take the rows of a user's file as rows of a task that is there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from adjudge.errors import DataError
from adjudge.tasks.reading.table import require_columns, stream_table
from adjudge.tasks.spec import Source, TableSource, TaskSpec


def on_file(spec: TaskSpec, path: str | Path, text: Sequence[str] = (), label: str | None = None) -> TaskSpec:
    """Return the task with all rows of a table (CSV, TSV, JSONL or Parquet) as its dev rows.

    Prompt, answer words and metrics stay the task's. A field is read from the task's column where the file has it, else
    from a column with the field's own name; `text` names the columns instead, in the order of the fields. `label` names
    the label column, if it is not the task's. It may hold the task's raw labels or its answer words.

    Raises DataError for a missing column, and for a task without gold answers when there is no `label`.
    """
    path = Path(path)
    columns, rows = stream_table(path)
    fields = _fields(spec, path, columns, text)
    label = label or spec.label
    if label is None:
        raise DataError(f"{spec.name} has no gold answers: name the column of {path} that has them with --label.")
    try:
        require_columns(path, columns, [*fields.values(), label, *([spec.group] if spec.group is not None else [])])
    except DataError as error:
        raise DataError(f"{error} --text and --label name the file's columns where they are not the task's.") from None
    if label in fields.values():
        raise DataError(f"{path}: '{label}' cannot be both the text to judge and its label.")
    file = str(path.resolve())
    table = spec.source.table or TableSource(train=file)
    return spec.model_copy(
        update={
            "fields": fields,
            "label": label,
            "labels": _labels(spec, (row.get(label, "").strip() for row in rows)),
            "source": Source(table=table.model_copy(update={"dev": file})),
        }
    )


def _fields(spec: TaskSpec, path: Path, columns: Sequence[str], text: Sequence[str]) -> dict[str, str]:
    if not text:
        return {
            field: field if column not in columns and field in columns else column
            for field, column in spec.fields.items()
        }
    if len(text) != len(spec.fields):
        raise DataError(
            f"{path}: {spec.name} judges {len(spec.fields)} texts ({', '.join(spec.fields)}), and --text names "
            f"{len(text)}. Name one column for each, in this order."
        )
    return dict(zip(spec.fields, text, strict=True))


def _labels(spec: TaskSpec, cells: Iterable[str]) -> Mapping[str, str] | None:
    """Return the task's labels, or its answer words in their place where the file holds these alone."""
    if spec.labels is None:
        return None
    values = set(cells)
    if values & set(spec.labels) or not values & set(spec.words):
        return spec.labels
    return {word: word for word in spec.words}
