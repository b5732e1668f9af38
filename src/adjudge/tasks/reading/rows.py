"""Turn the cells of a row into a checked example."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.errors import DataError, nearest
from adjudge.system.text import shorten
from adjudge.tasks.answer_words import label_key
from adjudge.tasks.reading.text_files import Line, kind_of
from adjudge.tasks.sets import set_of_cell, set_of_indicators
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Value

LABELLED = ("train", "dev")
"""Splits in which every row needs its gold answer, unless the task has none. In other splits it may be missing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of any source before it is checked.

    `where` is its location for errors ("file:line"). A cell is text, or any JSON value when it came from a JSONL file.
    """

    where: str
    id: str
    cells: Mapping[str, Any]


def as_text(value: Any) -> str:
    """Return a value of JSON or Parquet as the text of a cell.

    Null becomes empty text, booleans are in lower case, lists and objects are written as JSON.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def width_error(path: Path, line: Line, columns: Sequence[str]) -> DataError:
    """Return the error for a row with too few or too many cells, naming the missing field or extra cell."""
    have, want = len(line.cells), len(columns)
    if have < want:
        problem = f"field '{columns[have]}' is missing"
    else:
        problem = f"the cell after field '{columns[-1]}' belongs to no field: '{shorten(line.cells[want])}'"
    return DataError(
        f"{path}:{line.number}: the row has {have} column{'s' * (have != 1)} where {want} are expected "
        f"({', '.join(columns)}); {problem}. Columns are separated by tabs."
    )


def check_columns(path: Path, columns: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise DataError for the first of `wanted` that is missing from `columns`, or is there twice."""
    available = list(columns)
    for column in wanted:
        if column not in available:
            raise DataError(f"{path}: there is no column '{column}'.{nearest(column, available)}")
        if available.count(column) > 1:
            raise DataError(f"{path}: the column '{column}' occurs twice. Rename one of them.")


def text_cells(spec: TaskSpec, row: Row, *, labelled: bool) -> dict[str, str]:
    """Return the cells of `row` used by the task, as text.

    Raises DataError when a field is missing, null, a list or an object. Only with `labelled` must the gold answer be
    there too.
    """
    gold = spec.gold_columns
    group = [spec.group] if spec.group is not None else []
    cells = {}
    for column in (*spec.fields.values(), *gold, *spec.tags.values(), *group):
        value = row.cells.get(column)
        if value is not None:
            if isinstance(value, list | dict):
                raise DataError(f"{row.where}: field '{column}' is {kind_of(value)}, not text.")
            cells[column] = as_text(value)
        elif column in spec.fields.values() or (labelled and column in gold):
            raise DataError(f"{row.where}: there is no field '{column}'.{nearest(column, row.cells)}")
    return cells


def to_example(spec: TaskSpec, where: str, name: str, cells: Mapping[str, str], *, labelled: bool) -> Example:
    """Check one row and return it as an example with the id `name`.

    `cells` maps column to text; `where` ("file:line") begins every error. Without `labelled`, a missing or empty gold
    answer becomes None. Raises DataError for an empty field, an unknown label, or a number which is invalid or out of
    range.
    """
    fields = {
        field: text_of(where, field, column, cells.get(column, ""), optional=field in spec.optional)
        for field, column in spec.fields.items()
    }
    gold = _gold(spec, where, cells, labelled=labelled)
    tags = {tag: cells[column].strip() for tag, column in spec.tags.items() if column in cells}
    group = cells.get(spec.group, "").strip() if spec.group is not None else ""
    return Example(name, fields, gold, group, tags)


def _gold(spec: TaskSpec, where: str, cells: Mapping[str, str], *, labelled: bool) -> Value | None:
    raws = [cells.get(column, "").strip() for column in spec.gold_columns]
    if not raws or not (labelled or any(raws)):
        return None
    if spec.indicators:
        return set_of_indicators(where, cells, spec.labels or {}, spec.names)
    return gold_of(spec, where, raws[0])


def text_of(where: str, field: str, column: str, text: str, *, optional: bool = False) -> str:
    """Return a field's text. Raises DataError when it is blank, unless the field is optional."""
    if not text.strip() and not optional:
        also = "" if field == column else f" (column '{column}')"
        raise DataError(f"{where}: field '{field}'{also} is empty. Fill it in, or remove the row.")
    return text


def gold_of(spec: TaskSpec, where: str, raw: str) -> Value:
    """Return the answer word or number of a raw gold answer.

    Raises DataError, naming the column, when it is empty, not a label, not a number, or out of range.
    """
    if spec.several:
        return set_of_cell(where, str(spec.label), raw, spec.labels or {}, spec.names)
    if not raw:
        raise DataError(f"{where}: the label column '{spec.label}' is empty. Fill it in, or remove the row.")
    if spec.number is None:
        labels = spec.labels or {}
        word = labels.get(raw) or _word_of_equal_label(labels, raw)
        if word is None:
            raise DataError(
                f"{where}: '{shorten(raw)}' in column '{spec.label}' is not a label of {spec.name}."
                f"{nearest(raw, labels)}"
            )
        return word
    number = parse_number(raw)
    if number is None:
        hint = " Numbers have a decimal point." if parse_number(raw.replace(",", ".")) is not None else ""
        raise DataError(f"{where}: '{shorten(raw)}' in column '{spec.label}' is not a number.{hint}")
    if not spec.number.low <= number <= spec.number.high:
        raise DataError(
            f"{where}: {raw} in column '{spec.label}' is outside the range of {spec.name}, "
            f"{spec.number.low:g} to {spec.number.high:g}."
        )
    return number


def _word_of_equal_label(labels: Mapping[str, str], raw: str) -> str | None:
    """Return the answer word of the label that looks like `raw`, or is the same number; None without one."""
    key = label_key(raw)
    return labels.get(key) or next((word for label, word in labels.items() if label_key(label) == key), None)


def parse_number(raw: str) -> float | None:
    """Return the finite decimal number which the text holds, or None."""
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in raw else None
