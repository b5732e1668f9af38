"""Make a table of texts from labelled rows that a Python program gives.

Rows are a data frame of any library, a `datasets.Dataset`, a list of mappings, or a pair ``(X, y)`` of texts and labels
as scikit-learn takes them. `given_splits` also takes a mapping of splits, such as a `datasets.DatasetDict`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from adjudge.errors import DataError, nearest
from adjudge.system.console import note
from adjudge.tasks.reading.given_rows import SOURCE, cell_text, frame_of, refuse_uncomputed
from adjudge.tasks.reading.kept_rows import TextTable

TEXT, LABEL = "text", "label"
"""Names of the columns of a pair that has none of its own."""

DEV_NAMES = ("dev", "validation", "valid", "val", "eval")
"""Names of the split to judge, in a mapping of splits."""


class Given(NamedTuple):
    """Rows that were given, with the names of their columns to judge and of their label column."""

    table: TextTable
    text: list[str]
    label: str


def given_splits(data: Any, dev: Any = None) -> dict[str, Any]:
    """Return labelled rows by split: train, and dev and test where there are some.

    Of a mapping of splits (a `datasets.DatasetDict`) the rows to judge are those of validation, else those of test; a
    note says which. Raises DataError for a mapping without train, and for one beside a `dev` of its own.
    """
    if not isinstance(data, Mapping):
        return {"train": data} if dev is None else {"train": data, "dev": dev}
    if "train" not in data:
        raise DataError(
            f"A mapping of splits needs 'train'; it has {', '.join(map(str, data)) or 'none'}. "
            "Make a data frame of a mapping of columns."
        )
    known = [name for name in DEV_NAMES if name in data]
    if dev is not None:
        return {"train": data["train"], "dev": dev}
    splits = {"train": data["train"]}
    if known:
        splits["dev"] = data[known[0]]
    if "test" in data:
        splits["test" if known else "dev"] = data["test"]
    others = [str(name) for name in data if name not in ("train", "test", *known[:1])]
    held_out = "a fifth of train is kept apart to be judged"
    judged_phrase = f"{known[0]} is judged" if known else "test is judged" if "test" in data else held_out
    note(f"of the splits, train is learned from and {judged_phrase}{_rest(known, data, others)}.")
    return splits


def _rest(known: Sequence[str], data: Mapping[str, Any], others: Sequence[str]) -> str:
    test = "; test is for split='test' (--split test)" if known and "test" in data else ""
    return test + (f"; not used: {', '.join(others)}" if others else "")


def given_table(
    rows: Any,
    text: Sequence[str] = (),
    label: str | None = None,
    *,
    more: Sequence[str] = (),
    source: str = SOURCE,
) -> Given:
    """Return the columns `text`, `label` and `more` of labelled rows as texts.

    A pair ``(X, y)`` names its columns itself, where `text` and `label` do not. `source` begins every message. Raises
    DataError for rows without these columns, a pair of different lengths, and a cell that is not one text.
    """
    refuse_uncomputed(rows)
    if _is_pair(rows):
        return _from_pair(rows[0], rows[1], text, label, source)
    columns, names = _columns(rows, source)
    for given, what, option in ((text, "the text to judge", "text"), (label, "the right answer", "label")):
        if not given:
            raise DataError(
                f"{source}: say which column holds {what}: {option}='NAME'. There is: {', '.join(columns)}."
            )
    wanted = [*text, *([label] if label is not None else []), *more]
    for name in wanted:
        if name not in columns:
            raise DataError(f"{source}: there is no column '{name}'.{nearest(name, columns)}")
    cells = {
        name: (_answers if name == label else _texts)(columns[name], name, source) for name in dict.fromkeys(wanted)
    }
    return Given(TextTable(cells, {name: names[name] for name in cells if name in names}), list(text), label or LABEL)


def given_columns(rows: Any) -> list[str]:
    """Return the column names of labelled rows, or of a pair's texts; none where they have no names."""
    rows = rows[0] if _is_pair(rows) else rows
    frame = frame_of(rows)
    if frame is not None:
        return list(frame.names)
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, Mapping) for key in row))


def _is_pair(rows: Any) -> bool:
    return isinstance(rows, tuple) and len(rows) == 2 and not isinstance(rows[0], Mapping)


def given_texts(rows: Any, text: Sequence[str] = (), *, source: str = SOURCE) -> TextTable:
    """Return texts without answers as columns: bare texts, tuples of texts, mappings, or a frame.

    `text` names the columns, or picks them where they have names. Raises DataError as `given_table`.
    """
    refuse_uncomputed(rows)
    columns, names = _columns(rows, source, unnamed=text)
    if missing := [name for name in text if name not in columns]:
        raise DataError(f"{source}: there is no column '{missing[0]}'.{nearest(missing[0], columns)}")
    chosen = list(text) or list(columns)
    cells = {name: _texts(columns[name], name, source) for name in chosen}
    return TextTable(cells, {name: names[name] for name in chosen if name in names})


def _from_pair(rows: Any, answers: Any, text: Sequence[str], label: str | None, source: str) -> Given:
    """Return the table of a pair of texts and labels."""
    refuse_uncomputed(answers)
    table = given_texts(rows, text, source=source)
    if isinstance(answers, str | bytes | Mapping) or not isinstance(answers, Iterable):
        raise DataError(f"{source}: y is one label or number for each text, not a {type(answers).__name__}.")
    label = label or str(getattr(answers, "name", None) or LABEL)
    answers = _column_cells(answers)
    if len(answers) != len(table):
        raise DataError(f"{source}: X has {len(table):,} rows and y has {len(answers):,}. Give one label for each row.")
    if label in table.columns:
        raise DataError(f"{source}: '{label}' is a column of X and the name of y. Name y with label='NAME'.")
    columns = {**table.columns, label: _answers(answers, label, source)}
    return Given(TextTable(columns, table.class_names), list(table.columns), label)


def _columns(
    rows: Any, source: str, *, unnamed: Sequence[str] | None = None
) -> tuple[dict[str, Sequence[Any]], dict[str, list[str]]]:
    """Return the columns of rows, and the names of the classes of those that hold numbers of classes.

    In a pair (`unnamed` is a list) bare texts and tuples of texts are rows too, with these names.
    """
    if isinstance(rows, str | bytes | Mapping):
        raise DataError(f"{source}: give a data frame, a list of mappings, or a pair (texts, labels).")
    frame = frame_of(rows)
    if frame is not None:
        for name in frame.names:
            if frame.names.count(name) > 1:
                raise DataError(f"{source}: the column '{name}' occurs twice. Rename one of them.")
        return {name: _Lazy(frame.cells, index) for index, name in enumerate(frame.names)}, _class_names(rows)
    if not isinstance(rows, Iterable):
        raise DataError(f"{source}: give a data frame or a list of rows, not a {type(rows).__name__}.")
    cells = _column_cells(rows)
    if not cells:
        raise DataError(f"{source}: there are no rows.")
    if isinstance(cells[0], Mapping):
        return _from_mappings(cells, source), {}
    if unnamed is None:
        raise DataError(
            f"{source}:1: a labelled row is a mapping of columns, not a {type(cells[0]).__name__}. "
            "Give bare texts with their labels, as a pair: (texts, labels)."
        )
    return _from_bare(rows, cells, unnamed, source), {}


class _Lazy(Sequence[Any]):
    """The cells of a frame's column, read when they are first looked at."""

    def __init__(self, cells: Any, index: int) -> None:
        self._read, self._index = cells, index
        self._cells: Sequence[Any] | None = None

    def _all(self) -> Sequence[Any]:
        if self._cells is None:
            self._cells = self._read(self._index)
        return self._cells

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())


def _column_cells(column: Any) -> list[Any]:
    """Return the cells of a list, an array or a column."""
    return list(getattr(column, "array", column) if hasattr(column, "iloc") else column)


def _from_mappings(rows: Sequence[Any], source: str) -> dict[str, Sequence[Any]]:
    """Return the columns of mappings; a key that a row lacks is an empty cell."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{source}:{number}: a row is a mapping of columns, not a {type(row).__name__}.")
    keys = {str(key): key for row in rows for key in row}
    return {name: [row.get(key) for row in rows] for name, key in keys.items()}


def _from_bare(rows: Any, cells: Sequence[Any], names: Sequence[str], source: str) -> dict[str, Sequence[Any]]:
    """Return the columns of bare texts, or of rows of several texts each."""
    first = cells[0]
    if isinstance(first, str) or not (isinstance(first, list | tuple) or getattr(first, "ndim", None)):
        name = str(getattr(rows, "name", None) or TEXT)
        if len(names) > 1:
            raise DataError(f"{source}: X has one text in a row, and text names {len(names)} columns.")
        return {names[0] if names else name: cells}
    width = len(first)
    names = list(names) or ([TEXT] if width == 1 else [f"{TEXT}{number}" for number in range(1, width + 1)])
    for number, row in enumerate(cells, 1):
        if isinstance(row, str) or not hasattr(row, "__len__") or len(row) != len(names):
            size = f"{len(row)} texts" if hasattr(row, "__len__") and not isinstance(row, str) else "no list of texts"
            raise DataError(f"{source}:{number}: the row has {size} where {len(names)} are expected.")
    return {name: [row[index] for row in cells] for index, name in enumerate(names)}


def _class_names(rows: Any) -> dict[str, list[str]]:
    """Return the names of classes that a `datasets.Dataset` has for its columns of class numbers, or of lists of them.

    A list's feature holds that of its parts.
    """
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping):
        return {}
    named = {name: getattr(getattr(feature, "feature", feature), "names", None) for name, feature in features.items()}
    return {str(name): list(names) for name, names in named.items() if isinstance(names, list) and names}


def _answers(cells: Iterable[Any], column: str, source: str) -> list[str]:
    """Return right answers as texts; several labels of a row, in a list, as JSON."""
    texts = []
    for number, given in enumerate(cells, 1):
        where, cell = f"{source}:{number}", given.as_py() if hasattr(given, "as_py") else given
        several = isinstance(cell, list | tuple) or type(cell).__name__ in ("ndarray", "Series")
        parts = [cell_text(where, column, part) for part in cell] if several else []
        texts.append(json.dumps(parts) if several else cell_text(where, column, cell))
    return texts


def _texts(cells: Iterable[Any], column: str, source: str) -> list[str]:
    return [cell_text(f"{source}:{number}", column, cell) for number, cell in enumerate(cells, 1)]
