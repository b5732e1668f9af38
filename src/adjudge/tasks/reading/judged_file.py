"""Take the rows of a user's file as rows of a task that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from adjudge.errors import DataError
from adjudge.tasks.reading.bad_rows import BadRows
from adjudge.tasks.reading.decimal_commas import has_decimal_commas
from adjudge.tasks.reading.table import require_columns, stream_table
from adjudge.tasks.spec import Source, TableSource, TaskSpec
from adjudge.tasks.table_format import TableFormat


def on_file(
    spec: TaskSpec,
    path: str | Path,
    text: Sequence[str] = (),
    label: str | None = None,
    form: TableFormat | None = None,
) -> TaskSpec:
    """Return the task with all rows of a table (CSV, TSV, JSONL or Parquet) as its dev rows.

    Prompt, answer words and metrics stay the task's. A field is read from the task's column where the file has it, else
    from a column with the field's own name; `text` names the columns instead, in the order of the fields. `label` names
    the label column, if it is not the task's. It may hold the task's raw labels or its answer words. `form` says how
    the file is separated and encoded, where it does not tell.

    Raises DataError for a missing column, and for a task without gold answers when there is no `label`.
    """
    path, form = Path(path), form or TableFormat()
    columns, rows = stream_table(path, form, BadRows(path, "drop"))  # bad rows are reported when they are loaded
    fields = _fields(spec, path, columns, text)
    if spec.several:
        return _sets_on_file(spec, path, columns, fields, label, form)
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
    cells = {row.get(label, "").strip() for row in rows}
    commas = spec.is_number and has_decimal_commas(cells, f"{path}: column '{label}'", columns.separator)
    read = {"dev": file, **form._asdict(), "decimal": "," if commas else "."}
    return spec.model_copy(
        update={
            "fields": fields,
            "label": label,
            "labels": _labels(spec, cells),
            "source": Source(table=table.model_copy(update=read)),
        }
    )


def _sets_on_file(
    spec: TaskSpec, path: Path, columns: Sequence[str], fields: Mapping[str, str], label: str | None, form: TableFormat
) -> TaskSpec:
    """Return the task of label sets with a file's rows; the label columns are the task's, or `label`."""
    gold_columns = spec.gold_columns if label is None else (label,)
    require_columns(path, columns, [*fields.values(), *gold_columns, *([spec.group] if spec.group is not None else [])])
    table = spec.source.table or TableSource(train=str(path.resolve()))
    read = {"dev": str(path.resolve()), **form._asdict()}
    update = {"fields": fields, "source": Source(table=table.model_copy(update=read))}
    spec = spec.model_copy(update=update)
    return spec if label is None else spec.model_copy(update={"label": label, "indicators": False})


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


def _labels(spec: TaskSpec, values: Set[str]) -> Mapping[str, str] | None:
    """Return the task's labels, or its answer words in their place where the file holds these alone."""
    if spec.labels is None:
        return None
    if values & set(spec.labels) or not values & set(spec.words):
        return spec.labels
    return {word: word for word in spec.words}
