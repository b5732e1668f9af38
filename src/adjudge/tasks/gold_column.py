"""Read the label column of a user's tables: its values, how often and where each occurs."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.system.text import shorten
from adjudge.tasks.answer_words import label_key
from adjudge.tasks.reading.bad_rows import BadRows, OnBadRows, how_many
from adjudge.tasks.reading.class_names import class_names
from adjudge.tasks.reading.decimal_commas import has_decimal_commas, with_point
from adjudge.tasks.reading.rows import text_of
from adjudge.tasks.reading.table import require_columns, stream_table
from adjudge.tasks.reading.table_rows import TableRow
from adjudge.tasks.table_format import TableFormat

_LONGEST_LIST = 10_000
"""Characters up to which a cell is checked for being a list."""


class Location(NamedTuple):
    """A row of a file. It is formatted as ``file:line`` only when needed, since there may be millions."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(slots=True)
class GoldColumn:
    """The values of a label column over all files, in order of appearance.

    A value is a cell in the form of `label_key`, so labels that look alike are one value.
    """

    name: str
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Rows per value."""
    first: dict[str, Location] = field(default_factory=dict)
    """The first row of each value."""
    spellings: dict[str, set[str]] = field(default_factory=dict)
    """Cells that are spelled differently from their value, per value."""
    class_names: Sequence[str] | None = None
    """The names of classes 0, 1, 2, … where the file holds them (Parquet files written by `datasets`)."""
    separator: str | None = None
    """What separates the columns of the first file, if it is CSV or TSV."""
    bad_rows: OnBadRows = "error"
    """Whether rows with a wrong value are errors."""

    def read_decimal_commas(self) -> str:
        """Return the decimal mark of the values, and write numbers with decimal commas with points.

        Reports such numbers. Raises DataError where commas may also stand for thousands.
        """
        first = next(iter(self.first.values()), None)
        if not has_decimal_commas(self.counts, f"{first}: column '{self.name}'", self.separator):
            return "."
        changed = next(value for value in self.counts if with_point(value) != value)
        note(f"column '{self.name}' has decimal commas: {changed} is read as {with_point(changed)}.")
        counts, places = self.counts, self.first
        self.counts, self.first, self.spellings = {}, {}, {}
        for value, count in counts.items():
            point = with_point(value)
            self.counts[point] = self.counts.get(point, 0) + count
            self.first.setdefault(point, places[value])
        return ","

    def refuse(self, values: Sequence[str], problem: str) -> None:
        """Raise DataError for rows with wrong values, unless they are dropped.

        The error names the place of the first such row, and their number. `problem` says what is wrong with the first
        value.
        """
        if values and self.bad_rows == "error":
            raise DataError(f"{self.first[values[0]]}: {problem} {how_many(sum(self.counts[each] for each in values))}")


def read_gold(
    paths: Sequence[Path],
    text: Sequence[str],
    label: str,
    form: TableFormat | None = None,
    bad_rows: OnBadRows = "error",
) -> GoldColumn:
    """Read the label column of all files, written as `form` says.

    Raises DataError for a missing column, and, unless `bad_rows` is "drop", for an empty cell of a text or label column
    and a label that is a list.
    """
    column = GoldColumn(label, class_names=class_names(paths[0], label), bad_rows=bad_rows)
    keys: dict[str, str] = {}  # a million cells share a few labels
    for path in paths:
        bad = BadRows(path, bad_rows)
        columns, rows = stream_table(path, form, bad)
        require_columns(path, columns, [*text, label])
        column.separator = columns.separator if path is paths[0] else column.separator
        for row in rows:
            value = bad.attempt(row.line, _row_value, path, row, text, label, keys)
            if value is None:
                continue
            raw = row.get(label, "").strip()
            if value not in column.first:
                column.first[value] = Location(path, row.line)
            if value != raw:
                column.spellings.setdefault(value, set()).add(raw)
            column.counts[value] = column.counts.get(value, 0) + 1
            column.rows += 1
        if not column.rows:
            bad.stop()
        bad.end(quiet=True)
    return column


def _row_value(path: Path, row: TableRow, text: Sequence[str], label: str, keys: dict[str, str]) -> str:
    """Return the value of a row's label; `keys` maps each cell to its value.

    Raises DataError for a bad row.
    """
    for name in text:
        text_of(f"{path}:{row.line}", name, name, row.get(name, ""))
    raw = row.get(label, "").strip()
    if raw not in keys:
        keys[raw] = _value(Location(path, row.line), label, raw)
    return keys[raw]


def _value(where: Location, label: str, raw: str) -> str:
    """Return a cell as a value. Raises DataError when it is empty or a list."""
    value = label_key(raw)
    if not value:
        invisible = f" (it holds only {raw.encode('unicode_escape').decode('ascii')})" if raw else ""
        raise DataError(f"{where}: the label column '{label}' is empty{invisible}. Fill it in, or remove the row.")
    if kind := _kind_of_list(value):
        raise DataError(
            f"{where}: '{shorten(raw)}' in column '{label}' is {kind}, and a row has one label. "
            "Where a row has one, write it as text. Where a row can have several, write them as a|b, or make one "
            "column per label with yes and no, and give --kind several."
        )
    return value


def _kind_of_list(value: str) -> str:
    """Return "a list" or "an object" when a cell is one, as JSON or Python writes it; else empty text."""
    if len(value) > _LONGEST_LIST or (value[0], value[-1]) not in {("[", "]"), ("{", "}"), ("(", ")")}:
        return ""
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(parsed, list | tuple | set):
            return "a list"
        if isinstance(parsed, dict):
            return "an object"
    return ""
