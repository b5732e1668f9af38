"""Read the user's own tables, with every cell as the text in the file.

- CSV: separated by commas; quotes are syntax (RFC 4180); a quoted cell may span lines.
- TSV: one line per row, separated by tabs; quotes are text, as in GLUE's files.
- JSONL: one object per line. A missing or null key is an empty cell, a number keeps its spelling, a list or object
  becomes its JSON.
- Parquet: numbers as Python writes them; null and NaN are empty cells.

Text is UTF-8; a byte-order mark is allowed. Blank lines are skipped in CSV and JSONL. CSV, TSV and JSONL may be
compressed with gzip: ``rows.csv.gz``.
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
from adjudge.tasks.reading.rows import as_text, check_columns, text_of, to_example, width_error
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.reading.split import split_table
from adjudge.tasks.reading.text_files import is_packed, json_lines, plain_name, tab_separated, text_lines
from adjudge.tasks.spec import TableSource, TaskSpec
from adjudge.types import Example

_MOST_CELL = min(sys.maxsize, 2**31 - 1)
"""Most characters of a CSV cell; `text_lines` limits the line before."""

_FEW_ROWS = 1_000_000
"""Rows that a Parquet file of any size may have."""

MOST_ABSENT = 10_000_000
"""Empty cells that may be added for missing keys, besides 20 for each existing cell.

Without a limit, a megabyte of different keys would fill the memory.
"""


class TableRow(dict[str, str]):
    """One row as column to text, with its line (or row of a Parquet file), counted from 1."""

    def __init__(self, cells: Mapping[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def read_table(path: str | Path) -> tuple[list[str], list[TableRow]]:
    """Return a table's columns in order and its rows, each with a text for every column.

    Raises DataError for a missing file, an unknown kind of file, invalid UTF-8, a row with the wrong number of columns,
    a repeated column name, a line which is not a JSON object, a damaged gzip, or a table without rows.
    """
    columns, stream = stream_table(path)
    rows = list(stream)
    absent = len(columns) * len(rows) - sum(map(len, rows))
    if absent > MOST_ABSENT and absent > 20 * sum(map(len, rows)):
        raise DataError(
            f"{path}: its {len(rows):,} objects have {len(columns):,} different keys, "
            "nearly all of them in few objects. The objects of a table must have the same keys."
        )
    if absent:
        rows = [TableRow({column: row.get(column, "") for column in columns}, row.line) for row in rows]
    return columns, rows


def stream_table(path: str | Path) -> tuple[list[str], Iterator[TableRow]]:
    """Return a table's columns and an iterator over its rows, without cells for missing keys.

    Raises DataError as `read_table`. Iterating over the rows may raise DataError too.
    """
    path = Path(path)
    readers = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    kind = plain_name(path).suffix.lower()
    if kind not in readers:
        raise DataError(f"{path}: '{kind}' is not a supported kind of table.{nearest(kind, readers)}")
    if is_packed(path) and kind == ".parquet":
        raise DataError(f"{path}: a Parquet file is already compressed inside. Unpack it.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    columns, rows = readers[kind](path)
    if twice := next((column for column, count in Counter(columns).items() if count > 1), None):
        raise DataError(f"{path}:1: the column '{shorten(twice)}' occurs twice. Rename one of them.")
    first = next(rows, None)
    if first is None:
        raise DataError(
            f"{path}: the file has columns ({_listed(columns)}) and no rows." if columns else f"{path}: has no rows."
        )
    return columns, chain([first], rows)


def require_columns(path: str | Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError for the first of `wanted` missing from `columns`.

    The message hints at another separator when the whole header is one column.
    """
    try:
        check_columns(Path(path), columns, wanted)
    except DataError as error:
        for name, mark in (("semicolons", ";"), ("tabs", "\t")):
            if len(columns) == 1 and mark in columns[0]:
                raise DataError(
                    f"{error} The file seems to be separated by {name}; a .csv must be separated by commas."
                ) from None
        raise


def load_table(spec: TaskSpec, source: TableSource, split: str) -> list[Example]:
    """Return the rows of one split, in file order; without a dev file, `split_table` makes the splits.

    Raises DataError for an unknown split, a row which does not fit the task, or too few rows to split.
    """
    if split not in ("train", "dev"):
        raise DataError(f"{spec.name} has no split '{split}'. There is: train, dev.")
    if source.dev is not None:
        return table_examples(spec, Path(source.dev if split == "dev" else source.train))
    examples = table_examples(spec, Path(source.train))
    train, dev = split_table(examples, source.dev_share, source.split_seed)
    if not train or not dev:
        raise DataError(
            f"{source.train}: {len(examples)} rows with {len({text_key(e.fields) for e in examples})} different texts "
            "are too few to split off dev rows, since no label has two. Add rows, or name a dev file."
        )
    return dev if split == "dev" else train


def table_examples(spec: TaskSpec, path: Path) -> list[Example]:
    """Return all rows of one table as labelled examples.

    Raises DataError for a missing column or a row which does not fit the task.
    """
    columns, rows = stream_table(path)
    wanted = list(spec.fields.values()) + [name for name in (spec.label, spec.group) if name is not None]
    require_columns(path, columns, wanted)
    return [to_example(spec, f"{path}:{row.line}", f"{path.name}:{row.line}", row, labelled=True) for row in rows]


def examples_for_prediction(spec: TaskSpec, rows: Sequence[Mapping[str, str]], source: str = "input") -> list[Example]:
    """Return the rows of any table as examples without gold answers.

    A field is read from the task's column when the table has it, else from a column with the field's own name. `source`
    names the table in ids and errors. Raises DataError for a missing column (naming the nearest) or an empty field.
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
        limit = csv.field_size_limit(_MOST_CELL)  # global to the process, and other readers run between two rows
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{begins}: is not valid CSV: {error}. Put a cell with a quote, comma or line break in quotes, "
                "and double the quotes in it."
            ) from None
        finally:
            csv.field_size_limit(limit)
        if cells:
            yield begins, cells
        begins = reader.line_num + 1


def _csv_width_error(path: Path, number: int, cells: list[str], columns: list[str]) -> DataError:
    if len(cells) < len(columns):
        problem = f"column '{shorten(columns[len(cells)])}' is missing"
    else:
        problem = (
            f"the cell after column '{shorten(columns[-1])}' belongs to no column: '{shorten(cells[len(columns)])}'"
        )
    return DataError(
        f"{path}:{number}: the row has {len(cells)} cells where {len(columns)} are expected ({_listed(columns)}); "
        f"{problem}. Put a cell with a comma in quotes."
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
    columns: dict[str, None] = {}  # the last line may have a new key, so the file is read twice
    for _, _, parsed in json_lines(path):
        columns |= dict.fromkeys(parsed)
    return list(columns), (TableRow(_json_cells(line, parsed), number) for number, line, parsed in json_lines(path))


def _json_cells(line: str, parsed: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of an object as text, numbers with the spelling they have in `line`."""
    if all(isinstance(value, str) for value in parsed.values()):
        return dict(parsed)
    spelled = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
    return {key: spelled[key] if isinstance(spelled[key], str) else as_text(value) for key, value in parsed.items()}


def _parquet(path: Path) -> tuple[list[str], Iterator[TableRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if file.metadata.num_rows > max(_FEW_ROWS, path.stat().st_size):
            raise DataError(f"{path}: claims {file.metadata.num_rows:,} rows, more than it has bytes.")
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
    """Return the columns of a `pyarrow.Table` and its rows as text.

    Single-precision numbers keep their short form: 3.8, not 3.799999952316284.
    """
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


def _listed(columns: Sequence[str]) -> str:
    """Return the columns for a message, at most the first 20."""
    shown = ", ".join(map(shorten, columns[:20]))
    return shown if len(columns) <= 20 else f"{shown}, … {len(columns):,} in all"
