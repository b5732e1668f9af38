"""Read several labels per row of a user's table: from cells such as ``a|b``, or a column per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.errors import DataError
from adjudge.tasks.answer_kinds import chosen_labels, inferred_labels
from adjudge.tasks.answer_words import label_key
from adjudge.tasks.gold_column import GoldColumn, Location
from adjudge.tasks.reading.bad_rows import BadRows, OnBadRows
from adjudge.tasks.reading.class_names import class_names
from adjudge.tasks.reading.rows import text_of
from adjudge.tasks.reading.table import require_columns, stream_table
from adjudge.tasks.sets import parts_of, set_of_indicators
from adjudge.tasks.table_format import TableFormat

METRICS = ("micro_f1", "macro_f1", "sample_f1", "exact_match")


def set_answers(
    paths: Sequence[Path],
    text: Sequence[str],
    label: Sequence[str],
    labels: Sequence[str] | Mapping[str, str] | None,
    form: TableFormat,
    bad_rows: OnBadRows,
) -> dict[str, Any]:
    """Return the part of a task that says what its labels are, without mode and instruction.

    One column in `label` holds cells such as ``a|b``, or lists; several are a column of yes and no per label, in this
    order. Class numbers get their names where the file has them.
    Raises DataError for a missing column, a cell that cannot be read, and fewer than two labels.
    """
    named = class_names(paths[0], label[0]) if len(label) == 1 else None
    column = GoldColumn(",".join(label), class_names=named, bad_rows=bad_rows)
    for path in paths:
        bad = BadRows(path, bad_rows)
        columns, rows = stream_table(path, form, bad)
        require_columns(path, columns, [*text, *label])
        for row in rows:
            parts = bad.attempt(row.line, _parts, path, row, text, label)
            for part in parts or ():
                column.first.setdefault(part, Location(path, row.line))
                column.counts[part] = column.counts.get(part, 0) + 1
            column.rows += parts is not None
        bad.end(quiet=True)
    if len(label) == 1 and len(column.counts) < 2 and labels is None:
        there = f"'{next(iter(column.counts))}' alone" if column.counts else "no label"
        raise DataError(f"{paths[0]}: column '{label[0]}' has {there}: at least two labels are needed.")
    if len(label) > 1:
        words = {name: name.replace("_", " ").strip() for name in label}
        if labels is not None:
            for name in label:
                column.first.setdefault(name, Location(paths[0], 1))
                column.counts.setdefault(name, 0)
            words = chosen_labels(column, labels)
        return {"labels": words, "label": None, "indicators": True, "metrics": list(METRICS)}
    words = inferred_labels(paths[0], column, asked=True) if labels is None else chosen_labels(column, labels)
    return {"labels": words, "label": label[0], "metrics": list(METRICS)}


def _parts(path: Path, row: Mapping[str, str], text: Sequence[str], label: Sequence[str]) -> list[str]:
    """Return the labels of a row.

    Raises DataError for an empty text, a cell that is neither yes nor no, and a label that a cell names twice.
    """
    where = f"{path}:{getattr(row, 'line', '')}"
    for name in text:
        text_of(where, name, name, row.get(name, ""))
    if len(label) > 1:
        set_of_indicators(where, row, {name: name for name in label}, label)
        return [name for name in label if set_of_indicators(where, row, {name: name}, [name]) == name]
    cell = row.get(label[0], "")
    parts = [label_key(part) for part in parts_of(cell)]
    if len(set(parts)) < len(parts):
        raise DataError(f"{where}: '{cell}' in column '{label[0]}' names a label twice.")
    return parts
