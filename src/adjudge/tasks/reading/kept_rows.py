"""Rows that a Python program gave, kept in a file of the run.

They are found again when the run is resumed, repeated or moved. The file's name holds the hash of its rows
(``rows-3fa9c1d2.parquet``), so equal rows have equal names everywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adjudge.errors import AdjudgeError, DataError
from adjudge.system.files import sha256_of, write_bytes
from adjudge.tasks.reading.class_names import features_metadata
from adjudge.tasks.spec import TaskSpec

KEPT = re.compile(r"rows-[0-9a-f]{8}\.parquet")
"""The name of such a file."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """Columns of texts, all with as many cells. An empty text is a cell without a value."""

    columns: Mapping[str, Sequence[str]]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the classes 0, 1, 2, … of a column that holds their numbers."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def sha256(self) -> str:
        """Return the hash of columns, cells and class names, which no version of a library changes."""
        digest = hashlib.sha256(json.dumps([list(self.columns), self.class_names], sort_keys=True).encode("ascii"))
        for cells in self.columns.values():
            for cell in cells:
                digest.update(json.dumps(cell).encode("ascii"))
        return digest.hexdigest()


def write_rows(table: TextTable, folder: Path) -> Path:
    """Write a table into `folder`, whole or not at all, and return the file, which is named by its rows.

    Raises DataError for a text that no file can hold.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        arrow = pyarrow.table({name: pyarrow.array(cells, pyarrow.string()) for name, cells in table.columns.items()})
    except (pyarrow.ArrowException, UnicodeError) as error:
        raise DataError(f"rows: a text cannot be written as UTF-8 ({error}). Replace the broken characters.") from None
    arrow = arrow.replace_schema_metadata(features_metadata(table.class_names))
    path = folder / f"rows-{table.sha256()[:8]}.parquet"
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(arrow, buffer)
    write_bytes(path, buffer.getvalue())
    return path


def keep_rows(spec: TaskSpec, folder: Path, splits: Sequence[str] = ("train", "dev", "test")) -> TaskSpec:
    """Copy a task's kept rows of some splits into its run's folder; return the task that reads them there.

    Kept rows of other tasks, which an earlier run left in the folder, are removed. A task without kept rows is returned
    as it is.
    """
    places = {}
    for split, file in _kept_files(spec).items():
        if split in splits:
            target = (folder / file.name).resolve()
            if not target.is_file() or sha256_of(target) != sha256_of(file):
                write_bytes(target, file.read_bytes())
            places[split] = str(target)
    if not places:
        return spec
    for path in folder.glob("rows-*.parquet"):
        if KEPT.fullmatch(path.name) and str(path.resolve()) not in places.values():
            path.unlink()
    return with_table(spec, places)


def found_again(spec: TaskSpec, folder: Path) -> TaskSpec:
    """Return the task with its kept rows in the run's folder, unless they are where they were written."""
    return with_table(spec, {split: str(place_of(file, folder)) for split, file in _kept_files(spec).items()})


def place_of(path: Path, folder: Path) -> Path:
    """Return where a run's file is now: kept rows move with the run's folder, other files stay in place."""
    beside = folder / path.name
    return beside.resolve() if KEPT.fullmatch(path.name) and not path.is_file() and beside.is_file() else path


def placeless(spec: TaskSpec) -> TaskSpec:
    """Return the task with its kept rows by their names alone.

    Tasks of equal rows are then equal, wherever these lie. Used to compare tasks, not to read them.
    """
    return with_table(spec, {split: file.name for split, file in _kept_files(spec).items()})


@contextmanager
def written_rows(tables: Mapping[str, TextTable]) -> Iterator[dict[str, Path]]:
    """Write tables into a temporary folder and yield the file of each.

    An error names the rows, not the file. A run copies the files into its folder (`keep_rows`).
    """
    folder = Path(tempfile.mkdtemp(prefix="adjudge-"))
    files: dict[str, Path] = {}
    try:
        for name, table in tables.items():
            files[name] = write_rows(table, folder)
        yield files
    except AdjudgeError as error:
        text = _by_name(str(error), files)
        if text == str(error):
            raise
        raise type(error)(text) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _by_name(text: str, files: Mapping[str, Path]) -> str:
    """Return a message in which the files are called by their names: ``rows:3``, ``rows of dev:3``."""
    for name, file in files.items():
        called = "rows" if name == "train" else f"rows of {name}"
        for shown in (str(file.resolve()), str(file)):
            text = text.replace(shown, called)
    return text


def _kept_files(spec: TaskSpec) -> dict[str, Path]:
    """Return the task's files of kept rows, by their splits."""
    table = spec.source.table
    files = {} if table is None else {"train": table.train, "dev": table.dev, "test": table.test}
    return {split: Path(file) for split, file in files.items() if file and KEPT.fullmatch(Path(file).name)}


def with_table(spec: TaskSpec, changes: Mapping[str, Any]) -> TaskSpec:
    """Return the task with other values of its table, such as ``test``; unchanged if it has no table."""
    table = spec.source.table
    if table is None or not changes:
        return spec
    changed = spec.source.model_copy(update={"table": table.model_copy(update=dict(changes))})
    return spec.model_copy(update={"source": changed})
