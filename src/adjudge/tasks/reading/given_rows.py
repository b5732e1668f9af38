"""Read rows that a Python program gives: texts, mappings, a column, or a data frame of any library.

Frames of pandas are read column by column; all others (polars, Arrow, `datasets`, DuckDB, …) through the Arrow
PyCapsule interface. Only the columns of the task's fields are looked at. For every library alike, a cell without a
value (None, NaN, pandas' NA and NaT) is an empty cell, and a number or a date is judged as its text.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from adjudge.errors import DataError, nearest
from adjudge.tasks.reading.rows import as_text, text_of
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

SOURCE = "rows"
"""The name of given rows in ids and errors; they are counted from 1."""

_PLAIN = (numbers.Real, Decimal, datetime.date, datetime.time, datetime.timedelta)
"""Kinds of values, besides texts, that have one obvious text."""


class Frame(NamedTuple):
    """The columns of a data frame: their names in order, and the cells of the column at an index."""

    names: Sequence[str]
    cells: Callable[[int], Sequence[Any]]


def given_examples(spec: TaskSpec, rows: Any) -> list[Example]:
    """Return given rows as examples without gold answers, in order.

    `rows` are texts or a column (for a task with one field), mappings of field or column to text, or a data frame.
    Raises DataError, with the row and the field, for a missing column or field, an empty cell, and a value that is not
    text, such as a list.
    """
    if isinstance(rows, str | bytes):
        raise DataError("Give a list of rows, even for one: predict([row]).")
    if isinstance(rows, Mapping):
        raise DataError(
            "Give a list of rows, even for one: predict([row]). Of a mapping of splits, give one split; "
            "make a data frame of a mapping of columns."
        )
    refuse_uncomputed(rows)
    frame = frame_of(rows)
    if frame is not None:
        return _from_frame(spec, frame)
    if not isinstance(rows, Iterable):
        raise DataError(f"Give a list of rows or a data frame, not a {type(rows).__name__}.")
    is_column = hasattr(rows, "dtype") or hasattr(rows, "type")
    cells: Iterable[Any] = getattr(rows, "array", rows)  # of a pandas Series: its numbers keep their precision
    return [_from_row(spec, number, cell, is_column=is_column) for number, cell in enumerate(cells, 1)]


def refuse_uncomputed(rows: Any) -> None:
    """Raise DataError for a frame that holds no rows yet."""
    if any(hasattr(rows, method) for method in ("collect", "compute", "toPandas")):
        raise DataError(
            f"A {type(rows).__name__} holds no rows yet: compute it first (.collect(), .compute() or .toPandas())."
        )


def is_missing(value: Any) -> bool:
    """Return whether a cell has no value: None, NaN, NaT, or pandas' NA."""
    if value is None or type(value).__name__ == "NAType":
        return True
    if not isinstance(value, numbers.Number) and type(value).__name__ not in ("NaTType", "datetime64", "timedelta64"):
        return False
    try:
        return bool(value != value)  # noqa: PLR0124  (true of NaN and NaT alone)
    except ArithmeticError:  # a signalling NaN of `decimal` refuses to be compared
        return True


def frame_of(rows: Any) -> Frame | None:
    """Return a data frame's columns, or None for rows of another kind.

    Raises DataError for a frame that Arrow cannot hold.
    """
    if hasattr(rows, "iloc"):  # pandas: its columns of mixed objects do not fit into Arrow
        if not hasattr(rows, "columns"):
            return None
        return Frame([str(name) for name in rows.columns], lambda index: list(rows.iloc[:, index].array))
    if hasattr(rows, "with_format") and hasattr(rows, "column_names") and hasattr(rows, "num_rows"):
        rows = rows.with_format("arrow")[:]  # a `datasets.Dataset`: its selected rows, in their order
    if not hasattr(rows, "__arrow_c_stream__") or not (hasattr(rows, "columns") or hasattr(rows, "schema")):
        return None
    import pyarrow

    try:
        table = pyarrow.table(rows)
    except Exception as error:  # every library raises its own
        raise DataError(
            f"This {type(rows).__name__} cannot be read as an Arrow table ({error}). Select the columns with text."
        ) from None
    return Frame([str(name) for name in table.column_names], lambda index: _arrow_cells(table.column(index)))


def _arrow_cells(column: Any) -> list[Any]:
    import numpy
    import pyarrow

    cells: list[Any] = column.to_pylist()
    if pyarrow.types.is_float32(column.type):  # their short form: 3.8, not 3.799999952316284
        return [None if cell is None else numpy.float32(cell) for cell in cells]
    return cells


def _from_frame(spec: TaskSpec, frame: Frame) -> list[Example]:
    columns: dict[str, Sequence[Any]] = {}
    names: dict[str, str] = {}
    for field, column in spec.fields.items():
        name = names[field] = _column_of(spec, field, column, frame.names, f"{SOURCE}: there is no column")
        if frame.names.count(name) > 1:
            raise DataError(f"{SOURCE}: the column '{name}' occurs twice. Rename one of them.")
        columns[field] = frame.cells(frame.names.index(name))
    count = len(next(iter(columns.values())))
    return [
        _example(spec, number, {field: columns[field][number - 1] for field in columns}, names)
        for number in range(1, count + 1)
    ]


def _from_row(spec: TaskSpec, number: int, row: Any, *, is_column: bool) -> Example:
    row = row.as_py() if hasattr(row, "as_py") else row  # a value of Arrow
    if isinstance(row, Mapping):
        keys = {str(key): key for key in row}
        names = {
            field: _column_of(spec, field, column, keys, f"{SOURCE}:{number}: there is no")
            for field, column in spec.fields.items()
        }
        return _example(spec, number, {field: row[keys[name]] for field, name in names.items()}, names)
    if not (is_column or isinstance(row, str) or is_missing(row)):
        raise DataError(f"{SOURCE}:{number}: a row is a text or a mapping of fields, not a {type(row).__name__}.")
    if len(spec.fields) != 1:
        raise DataError(
            f"{SOURCE}:{number}: {spec.name} has the fields {', '.join(spec.fields)}: give mappings or a data frame, "
            "not bare texts."
        )
    (field,) = spec.fields
    return _example(spec, number, {field: row}, {field: field})


def _column_of(spec: TaskSpec, field: str, column: str, names: Iterable[str], lead: str) -> str:
    """Return the name by which a field is found: that of the task's column, else its own.

    Raises DataError when neither is there.
    """
    known = list(names)
    for name in (column, field):
        if name in known:
            return name
    also = "" if field == column else f" or '{field}'"
    raise DataError(f"{lead} '{column}'{also}, which {spec.name} needs.{nearest(field, known)}")


def _example(spec: TaskSpec, number: int, cells: Mapping[str, Any], names: Mapping[str, str]) -> Example:
    where = f"{SOURCE}:{number}"
    fields = {
        field: text_of(where, field, names[field], cell_text(where, field, cell), optional=field in spec.optional)
        for field, cell in cells.items()
    }
    return Example(where, fields)


def cell_text(where: str, field: str, cell: Any) -> str:
    """Return the text of a cell, empty for a missing value.

    Raises DataError for a value that is not one text.
    """
    cell = cell.as_py() if hasattr(cell, "as_py") else cell
    if isinstance(cell, str):
        return str.__str__(cell)  # of an enumeration's member: its text, not its name
    if is_missing(cell):
        return ""
    if type(cell).__name__ in ("bool", "bool_"):  # numpy's are no numbers
        return as_text(bool(cell))
    if isinstance(cell, _PLAIN) or type(cell).__name__ in ("datetime64", "timedelta64"):
        return str(cell)
    raise DataError(
        f"{where}: field '{field}' is a {type(cell).__name__}, not text. Make one text of it, or remove the row."
    )
