"""The user's own tables: CSV, TSV, JSONL and Parquet, every cell as the text that was written.

CSV: separated by commas, quotes are syntax (RFC 4180), a quoted cell may span lines. TSV: one line is one row, tabs separate,
quotes are text, as in GLUE's files. JSONL: one object a line; a key that is absent or null is an empty cell, a number keeps its
spelling, a list or object is its JSON. Parquet: numbers as Python writes them, null and NaN are empty cells. Text is UTF-8, a
byte-order mark is allowed. Lines with nothing on them hold no row in CSV and JSONL. CSV, TSV and JSONL may be packed: ``rows.csv.gz``.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from adjudge.errors import DataError, nearest
from adjudge.system.text import shorten
from adjudge.tasks.reading.rows import (
    as_text,
    check_columns,
    hash_share,
    text_key,
    text_of,
    to_example,
    width_error,
)
from adjudge.tasks.reading.text_files import is_packed, json_lines, plain_name, tab_separated, text_lines
from adjudge.tasks.spec import TableSource, TaskSpec
from adjudge.types import Example

_MOST_CELL = min(sys.maxsize, 2**31 - 1)
"""Characters of a cell of CSV; a line is bounded before."""

_FEW_ROWS = 1_000_000
"""Rows that a Parquet file may have however small it is."""

MOST_ABSENT = 10_000_000
"""Empty cells that are made for keys an object lacks, beside 20 for every cell there is: else a megabyte of keys would fill the memory."""


class TableRow(dict[str, str]):
    """One row: column to text, and the line (row of a Parquet file) it came from, counted from 1."""

    def __init__(self, cells: Mapping[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def read_table(path: str | Path) -> tuple[list[str], list[TableRow]]:
    """Read a table: its columns in order, and its rows, each with a text for every column.

    Raises DataError: no such file, an unknown kind of file, invalid UTF-8, a row with the wrong number of columns, a column name
    that occurs twice, a line that is no JSON object, a damaged gzip, no rows.
    """
    columns, found = stream_table(path)
    rows = list(found)
    absent = len(columns) * len(rows) - sum(map(len, rows))
    if absent > MOST_ABSENT and absent > 20 * sum(map(len, rows)):
        raise DataError(
            f"{path}: its {len(rows):,} objects have {len(columns):,} different keys, nearly all of them in few objects. "
            "The objects of a table have the same keys."
        )
    if absent:
        rows = [TableRow({column: row.get(column, "") for column in columns}, row.line) for row in rows]
    return columns, rows


def stream_table(path: str | Path) -> tuple[list[str], Iterator[TableRow]]:
    """As `read_table`, one row at a time; a key that an object lacks is lacking. The rows raise DataError too."""
    path = Path(path)
    readers = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    kind = plain_name(path).suffix.lower()
    if kind not in readers:
        raise DataError(f"{path}: '{kind}' is no kind of table that can be read.{nearest(kind, readers)}")
    if is_packed(path) and kind == ".parquet":
        raise DataError(f"{path}: a Parquet file is packed inside already. Unpack it.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    columns, rows = readers[kind](path)
    if twice := next((column for column, count in Counter(columns).items() if count > 1), None):
        raise DataError(f"{path}:1: the column '{shorten(twice)}' occurs twice. Rename one of them.")
    first = next(rows, None)
    if first is None:
        raise DataError(
            f"{path}: the file has columns ({_named(columns)}) and no rows." if columns else f"{path}: has no rows."
        )
    return columns, chain([first], rows)


def require_columns(path: str | Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError for the first of `wanted` that is no column; guesses when a CSV is separated by something else."""
    try:
        check_columns(Path(path), columns, wanted)
    except DataError as error:
        for name, mark in (("semicolons", ";"), ("tabs", "\t")):
            if len(columns) == 1 and mark in columns[0]:
                raise DataError(
                    f"{error} The file seems to be separated by {name}; a .csv is separated by commas."
                ) from None
        raise


def load_table(spec: TaskSpec, source: TableSource, split: str) -> list[Example]:
    """Read the rows of one split, in file order; without a dev file they are told apart by `split_table`. Raises DataError."""
    if split not in ("train", "dev"):
        raise DataError(f"{spec.name} has no split '{split}'. There is: train, dev.")
    own_dev = split == "dev" and source.dev is not None
    examples = table_examples(spec, Path(source.dev if own_dev and source.dev else source.train))
    if source.dev is not None:
        return examples
    train, dev = split_table(examples, source.dev_share, source.split_seed)
    if not train or not dev:
        raise DataError(
            f"{source.train}: {len(examples)} rows with {len({text_key(e.fields) for e in examples})} different texts are too few "
            "to split off dev rows. Add rows, or name a dev file."
        )
    return dev if split == "dev" else train


def table_examples(spec: TaskSpec, path: Path) -> list[Example]:
    """All rows of one table as labelled examples. Raises DataError."""
    columns, rows = stream_table(path)
    wanted = list(spec.fields.values()) + [name for name in (spec.label, spec.group) if name is not None]
    require_columns(path, columns, wanted)
    return [to_example(spec, f"{path}:{row.line}", f"{path.name}:{row.line}", row, labelled=True) for row in rows]


def split_table(examples: Sequence[Example], dev_share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split off dev rows: the texts with the smallest hashes, until `dev_share` of the rows is reached; at least one text.

    Rows with equal texts, and rows of one group, fall into the same split. File order is kept in both.
    """
    keys = _split_keys(examples)
    sizes = Counter(keys)
    target = max(1, round(dev_share * len(examples)))
    chosen: set[str] = set()
    for key in sorted(sizes, key=lambda text: (hash_share(text, seed), text)):
        if target <= 0:
            break
        chosen.add(key)
        target -= sizes[key]
    train, dev = (
        [row for row, key in zip(examples, keys, strict=True) if (key in chosen) == wanted] for wanted in (False, True)
    )
    return train, dev


def _split_keys(examples: Sequence[Example]) -> list[str]:
    """A text for each row, equal for rows that must share a split: those of equal texts or one group, and so on from them."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above.setdefault(key, key) != key:
            key = above[key]
        return key

    first: dict[str, str] = {}
    texts = [text_key(example.fields) for example in examples]
    for example, text in zip(examples, texts, strict=True):
        if example.group:
            low, high = sorted((top(text), top(first.setdefault(example.group, text))))
            above[high] = low
    return [top(text) for text in texts]


def examples_for_prediction(spec: TaskSpec, rows: Sequence[Mapping[str, str]], source: str = "input") -> list[Example]:
    """Turn the rows of any table into examples without gold answers.

    A field is taken from the source's column when the table has it, else from a column with the field's own name. `source` names
    the table in ids and errors. Raises DataError for a missing column (with the nearest) or an empty field.
    """
    if not rows:
        return []
    columns = list(rows[0])
    chosen = {}
    for field, column in spec.fields.items():
        if column not in columns and field not in columns:
            also = "" if field == column else f" or '{field}'"
            raise DataError(
                f"{source}: there is no column '{column}'{also}, which {spec.name} needs.{nearest(field, columns)}"
            )
        chosen[field] = column if column in columns else field
    examples = []
    for number, row in enumerate(rows, 1):
        where = f"{source}:{row.line if isinstance(row, TableRow) else number}"
        fields = {
            field: text_of(where, field, column, row.get(column, ""), optional=field in spec.optional)
            for field, column in chosen.items()
        }
        examples.append(Example(f"{Path(where).name}", fields))
    return examples


def _csv(path: Path) -> tuple[list[str], Iterator[TableRow]]:
    lines = _csv_lines(path)
    try:
        columns = next(lines)[1]
    except StopIteration:
        raise DataError(f"{path}: the file is empty.") from None
    return columns, _csv_rows(path, columns, lines)


def _csv_rows(path: Path, columns: list[str], lines: Iterator[tuple[int, list[str]]]) -> Iterator[TableRow]:
    for number, cells in lines:
        if len(cells) != len(columns):
            raise _csv_width_error(path, number, cells, columns)
        yield TableRow(dict(zip(columns, cells, strict=True)), number)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text_lines(path, newline=""), strict=True)
    begins = 1
    while True:
        limit = csv.field_size_limit(_MOST_CELL)  # of the process: others' readers run between two rows
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{begins}: is not valid CSV: {error}. A cell with a quote, comma or line break in it is put in quotes, and "
                "quotes in it are doubled."
            ) from None
        finally:
            csv.field_size_limit(limit)
        if cells:
            yield begins, cells
        begins = reader.line_num + 1


def _csv_width_error(path: Path, number: int, cells: list[str], columns: list[str]) -> DataError:
    if len(cells) < len(columns):
        what = f"column '{shorten(columns[len(cells)])}' is missing"
    else:
        what = f"the cell after column '{shorten(columns[-1])}' belongs to no column: '{shorten(cells[len(columns)])}'"
    return DataError(
        f"{path}:{number}: the row has {len(cells)} cells where {len(columns)} are expected ({_named(columns)}); {what}. "
        "A cell with a comma in it is put in quotes."
    )


def _tsv(path: Path) -> tuple[list[str], Iterator[TableRow]]:
    lines = tab_separated(path)
    columns = list(next(lines).cells)

    def rows() -> Iterator[TableRow]:
        for line in lines:
            if len(line.cells) != len(columns):
                raise width_error(path, line, columns)
            yield TableRow(dict(zip(columns, line.cells, strict=True)), line.number)

    return columns, rows()


def _jsonl(path: Path) -> tuple[list[str], Iterator[TableRow]]:
    columns: dict[str, None] = {}  # the last line may have a key of its own, so the file is gone through twice
    for _, _, plain in json_lines(path):
        columns |= dict.fromkeys(plain)
    return list(columns), (TableRow(_json_cells(line, plain), number) for number, line, plain in json_lines(path))


def _json_cells(line: str, plain: Mapping[str, Any]) -> dict[str, str]:
    if all(isinstance(value, str) for value in plain.values()):
        return dict(plain)
    spelled = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
    return {key: spelled[key] if isinstance(spelled[key], str) else as_text(value) for key, value in plain.items()}


def _parquet(path: Path) -> tuple[list[str], Iterator[TableRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if file.metadata.num_rows > max(_FEW_ROWS, path.stat().st_size):
            raise DataError(f"{path}: says that it has {file.metadata.num_rows:,} rows, more than bytes.")
        columns, rows = arrow_rows(file.read())
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        OverflowError,
        LookupError,
        TypeError,
        RecursionError,
    ) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {shorten(str(error))}") from None
    return columns, iter(rows)


def arrow_rows(table: Any) -> tuple[list[str], list[TableRow]]:
    """The columns of a `pyarrow.Table` and its rows as text. Single precision numbers are written as short as they came (3.8)."""
    import numpy
    import pyarrow

    texts = []
    for column in table.columns:
        values = column.to_pylist()
        if pyarrow.types.is_floating(column.type):  # pandas writes a missing number as NaN
            values = [None if value is None or math.isnan(value) else value for value in values]
        if pyarrow.types.is_float32(column.type):
            values = [None if value is None else numpy.float32(value) for value in values]
        texts.append([as_text(value) for value in values])
    columns = [str(name) for name in table.column_names]
    rows = zip(*texts, strict=True)
    return columns, [TableRow(dict(zip(columns, row, strict=True)), number) for number, row in enumerate(rows, 1)]


def _named(columns: Sequence[str]) -> str:
    """The columns for a message, the first of many."""
    shown = ", ".join(map(shorten, columns[:20]))
    return shown if len(columns) <= 20 else f"{shown}, … {len(columns):,} in all"
