"""Read the kinds of files that hold a user's table: CSV, TSV, JSONL, Parquet."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.system.text import shorten
from adjudge.tasks.reading.bad_rows import BadRows
from adjudge.tasks.reading.rows import as_text, width_error
from adjudge.tasks.reading.table_rows import (
    MOST_PATHS,
    SPELLED,
    Columns,
    TableRow,
    paths_in,
    spelled_json,
)
from adjudge.tasks.reading.text_files import parse_object, tab_separated, text_lines, told_encoding
from adjudge.tasks.table_format import SEPARATORS, TableFormat, separator_name, separator_option

_MOST_CELL = min(sys.maxsize, 2**31 - 1)
"""Most characters of a CSV cell; `text_lines` limits the line before."""

_FEW_ROWS = 1_000_000
"""Rows that a Parquet file of any size may have."""

_HEADER_LINES = 20
"""Lines of a header in which the separator is looked for; a quoted name may span some."""

_ADVICE = (
    "Name the encoding (--encoding cp1252 for files of Excel or Windows in Western Europe, latin-1, utf-16, …), "
    "or save the file as UTF-8."
)


def stream_csv(path: Path, form: TableFormat, bad: BadRows) -> tuple[Columns, Iterator[TableRow]]:
    """Return the columns of a CSV file and an iterator over its rows.

    Without a separator, the header tells it. Raises DataError for an empty file or one that cannot be decoded.
    """
    separator, text = _separated(path, form)
    lines = _csv_lines(path, separator, text, bad)
    try:
        columns = Columns(next(lines)[1], separator=separator)
    except StopIteration:
        raise DataError(f"{path}: the file is empty.") from None
    return columns, _csv_rows(path, columns, lines, _hint(path, form, columns), bad)


def stream_tsv(path: Path, form: TableFormat, bad: BadRows) -> tuple[Columns, Iterator[TableRow]]:
    """Return the columns of a TSV file and an iterator over its rows.

    Quotes are text. With another separator than tabs, the file is read as CSV. Raises DataError as `stream_csv`.
    """
    if form.separator not in (None, "\t"):
        return stream_csv(path, form, bad)
    _note_encoding(path, form)
    lines = tab_separated(path, form.encoding, _ADVICE)
    columns = Columns(next(lines).cells, separator="\t")

    def rows() -> Iterator[TableRow]:
        for line in lines:
            if len(line.cells) != len(columns):
                bad.add(line.number, width_error(path, line, columns))
            else:
                yield TableRow(line.cells, line.number, columns.places)

    return columns, rows()


def stream_jsonl(path: Path, form: TableFormat, bad: BadRows) -> tuple[Columns, Iterator[TableRow]]:
    """Return the keys of a JSONL file as columns, and an iterator over its rows.

    A row has the cells of its own keys, so its columns are some of the table's. Raises DataError for a file without
    objects.
    """
    _note_encoding(path, form)
    columns: dict[str, None] = {}  # the last line may have a new key, so the file is read twice
    paths: dict[str, None] = {}
    for _, _, parsed in _objects(path, form, bad):
        columns |= dict.fromkeys(parsed)
        if len(paths) < MOST_PATHS:
            for column, value in parsed.items():
                if isinstance(value, dict | list):
                    paths |= dict.fromkeys(paths_in(column, value))
    places: dict[tuple[str, ...], dict[str, int]] = {}  # most objects share their keys

    def rows() -> Iterator[TableRow]:
        for number, line, parsed in _objects(path, form, bad):
            keys = tuple(parsed)
            shared = places.setdefault(keys, {key: index for index, key in enumerate(keys)})
            cells = bad.attempt(number, _json_cells, path, number, line, parsed)
            if cells is not None:
                yield TableRow(cells, number, shared)

    return Columns(columns, paths=paths), rows()


def stream_parquet(path: Path, form: TableFormat, bad: BadRows) -> tuple[Columns, Iterator[TableRow]]:
    """Return the columns of a Parquet file and an iterator over its rows.

    Raises DataError for a damaged file.
    """
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


def arrow_rows(table: Any) -> tuple[Columns, list[TableRow]]:
    """Return the columns of a `pyarrow.Table` and its rows as text.

    Single-precision numbers keep their short form: 3.8, not 3.799999952316284.
    """
    import numpy
    import pyarrow

    texts = []
    paths: dict[str, None] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.to_pylist()
        if pyarrow.types.is_floating(column.type):  # pandas writes a missing number as NaN
            values = [None if value is None or math.isnan(value) else value for value in values]
        if pyarrow.types.is_float32(column.type):
            values = [None if value is None else numpy.float32(value) for value in values]
        if pyarrow.types.is_nested(column.type):
            for value in values[:MOST_PATHS]:
                paths |= dict.fromkeys(paths_in(str(name), value)) if len(paths) < MOST_PATHS else {}
        texts.append([as_text(value) for value in values])
    columns = Columns((str(name) for name in table.column_names), paths=paths)
    cells = zip(*texts, strict=True)
    return columns, [TableRow(row, number, columns.places) for number, row in enumerate(cells, 1)]


def listed(columns: Sequence[str]) -> str:
    """Return the columns for a message, at most the first 20."""
    shown = ", ".join(map(shorten, columns[:20]))
    return shown if len(columns) <= 20 else f"{shown}, … {len(columns):,} in all"


def separator_hint(columns: Sequence[str], used: str | None) -> str:
    """Return a hint at the separator which a header seems to have besides the one in use, or empty text."""
    for separator, name in SEPARATORS.items():
        if used is not None and separator != used and any(separator in column for column in columns):
            return f" The file seems to be separated by {name}: add --separator {separator_option(separator)}."
    return ""


def _separated(path: Path, form: TableFormat) -> tuple[str, Iterator[str]]:
    """Return the separator of a CSV file and its lines.

    Commas are looked for first: they are the usual ones, and names have other marks in them. Raises DataError when
    several others are in the header.
    """
    lines = text_lines(path, newline="", encoding=form.encoding, advice=_ADVICE)
    if form.separator is not None:
        _note_encoding(path, form)
        return form.separator, lines
    header: list[str] = []
    for line in lines:
        header.append(line)
        text = "".join(header)
        if (text.strip("\r\n") and text.count('"') % 2 == 0) or len(header) == _HEADER_LINES:
            break
    unquoted = re.sub(r'"(?:[^"]|"")*"', "", "".join(header))
    candidates = [separator for separator in SEPARATORS if separator in unquoted]
    if len(candidates) > 1 and "," not in candidates:
        names = " or by ".join(map(separator_name, candidates))
        raise DataError(
            f"{path}:1: the columns may be separated by {names}. Say which with --separator "
            f"{' or '.join(map(separator_option, candidates))}."
        )
    separator = candidates[0] if len(candidates) == 1 else ","
    _note_encoding(path, form, separator)
    return separator, chain(header, lines)


def _note_encoding(path: Path, form: TableFormat, separator: str = ",") -> None:
    """Report what the file told about itself, where it is not UTF-8 with commas."""
    encoding = told_encoding(path) if form.encoding is None else "utf-8"
    told = [f"separated by {separator_name(separator)} (--separator)"] if separator != "," else []
    told += [f"written in {encoding.upper()} (--encoding)"] if encoding != "utf-8" else []
    if told:
        _note_once(str(path), f"{path.name} is {' and '.join(told)}, as its header tells.")


@lru_cache(maxsize=256)  # once for a file, however many splits, methods and seeds read it
def _note_once(path: str, text: str) -> None:
    note(text)


def _csv_lines(path: Path, separator: str, text: Iterator[str], bad: BadRows) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number (from 1) and the cells of each row that is valid CSV, skipping blank lines."""
    consumed: list[str] = []  # the lines of the current row

    def remembered() -> Iterator[str]:
        for line in text:
            consumed.append(line)
            yield line

    reader = csv.reader(remembered(), strict=True, delimiter=separator)
    while True:
        begins = reader.line_num + 1
        consumed.clear()
        limit = csv.field_size_limit(_MOST_CELL)  # global to the process, and other readers run between two rows
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = DataError(
                f"{path}:{begins}: is not valid CSV: {error}. Put a cell with a quote, line break or "
                f"separator ({separator_name(separator)}) in quotes, and double the quotes in it."
            )
            # Behind a quote that stays open, the rest of a row would be taken for a row.
            is_open = "".join(consumed).count('"') % 2 == 1
            if is_open or begins == 1:
                raise problem from None
            bad.add(begins, problem)
            continue
        finally:
            csv.field_size_limit(limit)
        if cells:
            yield begins, cells


def _csv_rows(
    path: Path, columns: Columns, lines: Iterator[tuple[int, list[str]]], hint: str, bad: BadRows
) -> Iterator[TableRow]:
    for number, cells in lines:
        if len(cells) != len(columns):
            bad.add(number, _csv_width_error(path, number, cells, columns, hint))
        else:
            yield TableRow(cells, number, columns.places)


def _hint(path: Path, form: TableFormat, columns: Columns) -> str:
    """Return the advice for a row of a wrong width: a separator in place of the one that the header told."""
    if form.separator is not None:
        return ""
    if columns.separator != ",":
        return (
            f" {separator_name(str(columns.separator)).capitalize()} separate the columns, as the header tells; "
            "if that is wrong, add --separator comma."
        )
    return separator_hint(columns, ",")


def _csv_width_error(path: Path, number: int, cells: list[str], columns: Columns, hint: str) -> DataError:
    if len(cells) < len(columns):
        problem = f"column '{shorten(columns[len(cells)])}' is missing"
    else:
        problem = (
            f"the cell after column '{shorten(columns[-1])}' belongs to no column: '{shorten(cells[len(columns)])}'"
        )
    mark = separator_name(str(columns.separator)).removesuffix("s")
    return DataError(
        f"{path}:{number}: the row has {len(cells)} cells where {len(columns)} are expected ({listed(columns)}); "
        f"{problem}. Put a cell with a {mark} in quotes.{hint}"
    )


def _objects(path: Path, form: TableFormat, bad: BadRows) -> Iterator[tuple[int, str, dict[str, Any]]]:
    empty = True
    for number, line in enumerate(text_lines(path, encoding=form.encoding, advice=_ADVICE), 1):
        if not line.strip():
            continue
        empty = False
        parsed = bad.attempt(number, parse_object, path, number, line)
        if parsed is not None:
            yield number, line, parsed
    if empty:
        raise DataError(f"{path}: the file is empty.")


def _json_cells(path: Path, number: int, line: str, parsed: Mapping[str, Any]) -> list[str]:
    """Return the cells of an object as text, numbers with the spelling they have in `line`.

    Raises DataError when it is nested too deeply.
    """
    if all(isinstance(value, str) for value in parsed.values()):
        return list(parsed.values())
    try:
        spelled = json.loads(line, **SPELLED)
        return [spelled_json(value) if isinstance(value, dict | list) else as_text(value) for value in spelled.values()]
    except RecursionError:
        raise DataError(f"{path}:{number}: has lists or objects that are nested too deeply.") from None
