"""Read the label column of a user's tables: its values, how often and where each occurs."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from adjudge.errors import DataError
from adjudge.system.text import shorten
from adjudge.tasks.answer_words import label_key
from adjudge.tasks.reading.class_names import class_names
from adjudge.tasks.reading.rows import text_of
from adjudge.tasks.reading.table import require_columns, stream_table

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


def read_gold(paths: Sequence[Path], text: Sequence[str], label: str) -> GoldColumn:
    """Read the label column of all files.

    Raises DataError for a missing column, an empty cell of a text or label column, and a label that is a list.
    """
    column = GoldColumn(label, class_names=class_names(paths[0], label))
    keys: dict[str, str] = {}  # a million cells share a few labels
    for path in paths:
        columns, rows = stream_table(path)
        require_columns(path, columns, [*text, label])
        for row in rows:
            for name in text:
                text_of(f"{path}:{row.line}", name, name, row.get(name, ""))
            raw = row.get(label, "").strip()
            if (value := keys.get(raw)) is None:
                value = keys[raw] = _value(Location(path, row.line), label, raw)
                column.first.setdefault(value, Location(path, row.line))
                if value != raw:
                    column.spellings.setdefault(value, set()).add(raw)
            column.counts[value] = column.counts.get(value, 0) + 1
            column.rows += 1
    return column


def _value(where: Location, label: str, raw: str) -> str:
    """Return a cell as a value. Raises DataError when it is empty or a list."""
    value = label_key(raw)
    if not value:
        invisible = f" (it holds only {raw.encode('unicode_escape').decode('ascii')})" if raw else ""
        raise DataError(f"{where}: the label column '{label}' is empty{invisible}. Fill it in, or remove the row.")
    if kind := _kind_of_list(value):
        raise DataError(
            f"{where}: '{shorten(raw)}' in column '{label}' is {kind}, and a row has one label. "
            "Where a row has one, write it as text. Where a row can have several, make one column per label with yes "
            "and no, and train a judge on each."
        )
    return value


def _kind_of_list(value: str) -> str:
    """Return "a list" or "an object" when a cell is one, written as JSON or as Python does; else empty text."""
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
