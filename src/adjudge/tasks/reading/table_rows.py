"""The columns and rows of a table: cells by position, and by name where a name occurs once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.errors import DataError, nearest
from adjudge.system.text import shorten
from adjudge.tasks.reading.rows import as_text

MOST_PATHS = 1000
"""Paths into nested objects that are remembered. In a file with more of them, any path is believed."""

_DEEPEST = 8
"""Levels of nesting in which paths are looked for."""


class Columns(list[str]):
    """The names of a table's columns, in order. Names may be empty, and may repeat.

    `separator` is that of a CSV or TSV file. `paths` are some of the paths into the objects of a JSONL or Parquet file:
    ``data.text`` is the key ``text`` of the object in the column ``data``, and ``tags.0`` the first item of a list.
    """

    def __init__(self, names: Iterable[str], *, separator: str | None = None, paths: Iterable[str] = ()) -> None:
        super().__init__(names)
        self.separator, self.paths = separator, tuple(paths)
        counts = Counter(self)
        self.places = {name: index for index, name in enumerate(self) if counts[name] == 1}
        """The place of each column whose name occurs once."""

    def require(self, path: Path, wanted: Iterable[str]) -> None:
        """Raise DataError for the first of `wanted` that is missing or repeated, and name the nearest column."""
        for name in wanted:
            if name in self.places or (name not in self and self._is_path(name)):
                continue
            if name in self:
                raise DataError(f"{path}: the column '{shorten(name)}' occurs twice. Rename one of them.")
            hint = nearest(name, [*self.places, *self.paths])
            if any(column.startswith(f"{name},") for column in self):
                hint += r" Write a comma in a name as '\,'."
            raise DataError(f"{path}: there is no column '{shorten(name)}'.{hint}")

    def _is_path(self, name: str) -> bool:
        return name in self.paths or (len(self.paths) >= MOST_PATHS and name.partition(".")[0] in self.places)


class TableRow(Mapping[str, str]):
    """One row: its cells in column order, and its line (or row of a Parquet file), counted from 1.

    As a mapping it has the columns whose names occur once. It also finds cells by a path such as ``data.text``.
    """

    __slots__ = ("cells", "line", "places")

    def __init__(self, cells: Sequence[str], line: int, places: Mapping[str, int]) -> None:
        self.cells, self.line, self.places = tuple(cells), line, places

    def __getitem__(self, name: str) -> str:
        index = self.places.get(name)
        return self._at_path(name) if index is None else self.cells[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"TableRow(line {self.line}, {dict(self)})"

    def _at_path(self, name: str) -> str:
        """Return the cell at a path. Raises KeyError where the row has none."""
        column, *parts = name.split(".")
        index = self.places.get(column)
        if index is None or not parts or self.cells[index][:1] not in ("{", "["):
            raise KeyError(name)
        try:
            value = json.loads(self.cells[index], **SPELLED)
            for part in parts:
                value = value[int(part)] if isinstance(value, list) and part.isdecimal() else value[part]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise KeyError(name) from None
        if isinstance(value, dict | list):
            return spelled_json(value)
        return as_text(value)


class Spelled(str):
    """A number of a JSON file, as it was written there."""

    __slots__ = ()


SPELLED: dict[str, Any] = {"parse_int": Spelled, "parse_float": Spelled, "parse_constant": Spelled}
"""Options of `json.loads` that keep the spelling of numbers."""


def spelled_json(value: Any) -> str:
    """Return a value of JSON as text, with the spelling of its `Spelled` numbers."""
    if isinstance(value, Spelled):
        return str(value)
    if isinstance(value, dict):
        items = (f"{json.dumps(key, ensure_ascii=False)}: {spelled_json(each)}" for key, each in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(spelled_json, value))}]"
    return json.dumps(value, ensure_ascii=False)


def paths_in(column: str, value: Any, level: int = 1) -> Iterator[str]:
    """Yield the paths into a nested value, and their beginnings: ``data.text``, ``tags.0``."""
    children: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = ((str(index), item) for index, item in enumerate(value))
    for key, child in children:
        path = f"{column}.{key}"
        yield path
        if level < _DEEPEST:
            yield from paths_in(path, child, level + 1)
