"""Read the user's own tables, with every cell as the text in the file.

- CSV: separated by commas, or by what the header tells; quotes are syntax (RFC 4180); a quoted cell may span lines.
- TSV: one line per row, separated by tabs; quotes are text, as in GLUE's files.
- JSONL: one object per line. A missing or null key is an empty cell, a number keeps its spelling, a list or object
  becomes its JSON. A path such as ``data.text`` reaches into it.
- Parquet: numbers as Python writes them; null and NaN are empty cells.

Text is UTF-8 unless a byte-order mark or the user says otherwise. Blank lines are skipped in CSV and JSONL. CSV, TSV
and JSONL may be compressed with gzip: ``rows.csv.gz``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from adjudge.errors import DataError, nearest
from adjudge.tasks.reading.bad_rows import BadRows, KeptRows, OnBadRows, StopAtFirst
from adjudge.tasks.reading.decimal_commas import with_point
from adjudge.tasks.reading.rows import text_of, to_example
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.reading.split import split_table
from adjudge.tasks.reading.table_files import (
    listed,
    separator_hint,
    stream_csv,
    stream_jsonl,
    stream_parquet,
    stream_tsv,
)
from adjudge.tasks.reading.table_rows import Columns, TableRow
from adjudge.tasks.reading.text_files import is_packed, plain_name
from adjudge.tasks.spec import TableSource, TaskSpec
from adjudge.tasks.table_format import TableFormat
from adjudge.types import Example

MOST_ABSENT = 10_000_000
"""Empty cells that may be added for missing keys, besides 20 for each existing cell.

Without a limit, a megabyte of different keys would fill the memory.
"""

_READERS = {
    ".csv": stream_csv,
    ".tsv": stream_tsv,
    ".jsonl": stream_jsonl,
    ".ndjson": stream_jsonl,
    ".parquet": stream_parquet,
}

_LISTED_FILES = 3
"""Tables in a folder that a message lists."""


def read_table(
    path: str | Path, form: TableFormat | None = None, bad: BadRows | None = None
) -> tuple[Columns, list[TableRow]]:
    """Return a table's columns in order and its rows, each with a text for every column.

    `form` says how the text is separated and encoded; without it, the file tells. Bad rows are left out and noted in
    `bad`. Without it they are an error.

    Raises DataError for a missing file, an unknown kind of file, invalid UTF-8, a row with the wrong number of columns,
    a line which is not a JSON object, a damaged gzip, or a table without rows.
    """
    noted = BadRows(Path(path)) if bad is None else bad
    columns, stream = stream_table(path, form, noted)
    rows = list(stream)
    if bad is None:
        noted.end()
    cells = sum(len(row.cells) for row in rows)
    absent = len(columns) * len(rows) - cells
    if absent > MOST_ABSENT and absent > 20 * cells:
        raise DataError(
            f"{path}: its {len(rows):,} objects have {len(columns):,} different keys, "
            "nearly all of them in few objects. The objects of a table must have the same keys."
        )
    if any(row.places is not columns.places for row in rows):  # objects, which have cells of their own keys only
        rows = [TableRow([row.get(name, "") for name in columns], row.line, columns.places) for row in rows]
    return columns, rows


def stream_table(
    path: str | Path, form: TableFormat | None = None, bad: BadRows | None = None
) -> tuple[Columns, Iterator[TableRow]]:
    """Return a table's columns and an iterator over its rows, without cells for missing keys.

    Bad rows are noted in `bad`; without it, the iterator raises the first. Raises DataError as `read_table`, at once or
    while iterating.
    """
    path, form = Path(path), form or TableFormat()
    bad = StopAtFirst(path) if bad is None else bad
    reader = _READERS[check_table(path, form)]
    columns, rows = reader(path, form, bad)
    first = next(rows, None)
    if first is None:
        if len(bad):
            bad.stop()
        raise DataError(
            f"{path}: the file has columns ({listed(columns)}) and no rows." if columns else f"{path}: has no rows."
        )
    return columns, chain([first], rows)


def column_names(path: str | Path, form: TableFormat | None = None) -> str:
    """Return the names of a table's columns for a message. Raises DataError as `stream_table`."""
    return listed(stream_table(path, form)[0])


def check_table(path: Path, form: TableFormat) -> str:
    """Return the suffix that says how a table is read, without opening it.

    Raises DataError for a folder, a missing file, a kind that is not read, or a format which the kind does not have.
    """
    if path.is_dir():
        raise _folder_error(path)
    kind = plain_name(path).suffix.lower()
    if kind not in _READERS:
        raise DataError(f"{path}: '{kind}' is not a supported kind of table.{nearest(kind, _READERS)}")
    if is_packed(path) and kind == ".parquet":
        raise DataError(f"{path}: a Parquet file is already compressed inside. Unpack it.")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if form.separator is not None and kind not in (".csv", ".tsv"):
        raise DataError(f"{path}: --separator is for CSV and TSV files; leave it out for a {kind} file.")
    if form.encoding is not None and kind == ".parquet":
        raise DataError(f"{path}: --encoding is for text files; leave it out for a Parquet file.")
    return kind


def _folder_error(folder: Path) -> DataError:
    """Return the error for a folder in place of a table. It names the tables in the folder."""
    files = sorted(path for path in folder.iterdir() if plain_name(path).suffix.lower() in _READERS and path.is_file())
    if not files:
        return DataError(
            f"{folder}: is a folder, and there is no table in it. Name a file: CSV, TSV, JSONL or Parquet."
        )
    shown = ", ".join(map(str, files[:_LISTED_FILES])) + (", …" if len(files) > _LISTED_FILES else "")
    return DataError(f"{folder}: is a folder. Name one file in it: {shown}.")


def require_columns(path: str | Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError for the first of `wanted` that is missing from `columns`, or is there twice.

    The message hints at another separator when the whole header is one column.
    """
    columns = columns if isinstance(columns, Columns) else Columns(columns)
    try:
        columns.require(Path(path), wanted)
    except DataError as error:
        hint = separator_hint(columns, columns.separator) if len(columns) == 1 else ""
        raise DataError(f"{error}{hint}") from None


def load_table(spec: TaskSpec, source: TableSource, split: str, on_bad_rows: OnBadRows = "error") -> KeptRows:
    """Return the rows of one split, in file order; without a dev file, `split_table` makes the splits.

    Raises DataError for an unknown split, a row which does not fit the task, or too few rows to split.
    """
    known = {"train": source.train, "dev": source.dev or source.train, "test": source.test}
    path = known.get(split)
    if path is None:
        there = ", ".join(name for name, file in known.items() if file is not None)
        raise DataError(f"{spec.name} has no split '{split}'. There is: {there}.")
    examples = table_examples(spec, Path(path), source.form, source.decimal, on_bad_rows)
    if source.dev is not None or split == "test":
        return examples
    train, dev = split_table(examples, source.dev_share, source.split_seed)
    if not train or not dev:
        raise DataError(
            f"{source.train}: {len(examples)} rows with {len({text_key(e.fields) for e in examples})} different texts "
            "are too few to split off dev rows, since no label has two. Add rows, or name a dev file."
        )
    return KeptRows(dev if split == "dev" else train, examples.dropped)


def table_examples(
    spec: TaskSpec,
    path: Path,
    form: TableFormat | None = None,
    decimal: str = ".",
    on_bad_rows: OnBadRows = "error",
) -> KeptRows:
    """Return all rows of one table as labelled examples.

    `decimal` is the mark in the numbers of the label column. Raises DataError for a missing column or a row which does
    not fit the task. With "drop", such rows are listed and left out.
    """
    bad = BadRows(path, on_bad_rows)
    columns, rows = stream_table(path, form, bad)
    wanted = [*spec.fields.values(), *spec.gold_columns, *([spec.group] if spec.group is not None else [])]
    require_columns(path, columns, wanted)
    examples = KeptRows()
    for row in rows:
        cells: Mapping[str, str] = row
        if decimal == "," and spec.label is not None:
            cells = {name: row[name] for name in (*wanted, *spec.tags.values()) if name in row}
            cells[spec.label] = with_point(cells.get(spec.label, ""))
        example = bad.attempt(
            row.line, to_example, spec, f"{path}:{row.line}", f"{path.name}:{row.line}", cells, labelled=True
        )
        if example is not None:
            examples.append(example)
    if not examples and len(bad):
        bad.stop()
    bad.end()
    examples.dropped = {str(path): len(bad)} if len(bad) else {}
    return examples


def examples_for_prediction(
    spec: TaskSpec, rows: Sequence[Mapping[str, str]], source: str = "input", bad: BadRows | None = None
) -> list[Example]:
    """Return the rows of any table as examples without gold answers.

    A field is read from the task's column when the table has it, else from a column with the field's own name. `source`
    names the table in ids and errors. Raises DataError for a missing column (naming the nearest) or an empty field.
    With `bad`, rows with an empty field are noted there and left out.
    """
    if not rows:
        return []
    chosen = {
        field: column if _has(rows, column) else field
        for field, column in spec.fields.items()
        if _has(rows, column) or _has(rows, field)
    }
    for field, column in spec.fields.items():
        if field not in chosen:
            also = "" if field == column else f" or '{field}'"
            raise DataError(
                f"{source}: there is no column '{column}'{also}, which {spec.name} needs.{nearest(field, rows[0])}"
            )
    noted = StopAtFirst(Path(source)) if bad is None else bad
    examples = []
    for number, row in enumerate(rows, 1):
        line = row.line if isinstance(row, TableRow) else number
        fields = noted.attempt(line, _fields_of, spec, f"{source}:{line}", row, chosen)
        if fields is not None:
            group = row.get(spec.group, "").strip() if spec.group is not None else ""
            examples.append(Example(f"{Path(source).name}:{line}", fields, group=group))
    return examples


def _has(rows: Sequence[Mapping[str, str]], column: str) -> bool:
    """Return whether any row has the column; in nested objects the first row alone may lack it."""
    return column in rows[0] or (isinstance(rows[0], TableRow) and any(column in row for row in rows))


def _fields_of(spec: TaskSpec, where: str, row: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str]:
    return {
        field: text_of(where, field, column, row.get(column, ""), optional=field in spec.optional)
        for field, column in chosen.items()
    }
