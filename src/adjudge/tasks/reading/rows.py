"""From the cells of a file to checked examples; drawing rows; telling equal texts apart from different ones."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.errors import DataError, nearest
from adjudge.system.console import note
from adjudge.system.text import shorten
from adjudge.tasks.reading.text_files import Line, kind_of
from adjudge.tasks.scoring.groups import by_unit
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Value

LABELLED = ("train", "dev")
"""Splits in which every row needs its gold answer (unless the task has none); in others it may be missing."""

_SAID: set[tuple[int, str, int, str, str]] = set()
"""Shortfalls that were said in this process."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of any source before it is checked: its place for errors ("file:line"), its id, its cells.

    A cell is text, or, in a JSONL file, what JSON holds.
    """

    where: str
    id: str
    cells: Mapping[str, Any]


def as_text(value: Any) -> str:
    """A value of JSON or Parquet as the text of a cell: nothing for null, true and false in lower case, lists and objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def width_error(path: Path, line: Line, columns: Sequence[str]) -> DataError:
    """The error for a row whose number of cells is not the number of columns; names the fields that lack or what is too many."""
    have, want = len(line.cells), len(columns)
    if have < want:
        what = f"field '{columns[have]}' is missing"
    else:
        what = f"the cell after field '{columns[-1]}' belongs to no field: '{shorten(line.cells[want])}'"
    return DataError(
        f"{path}:{line.number}: the row has {have} column{'s' * (have != 1)} where {want} are expected "
        f"({', '.join(columns)}); {what}. Columns are separated by tabs."
    )


def check_columns(path: Path, columns: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise DataError, with the nearest column there is, for the first of `wanted` that is not among `columns`."""
    there = list(columns)
    for column in wanted:
        if column not in there:
            raise DataError(f"{path}: there is no column '{column}'.{nearest(column, there)}")


def text_cells(spec: TaskSpec, row: Row, *, labelled: bool) -> dict[str, str]:
    """The cells of `row` that the task reads, as text. Raises DataError for a field that is missing, null, a list or an object."""
    gold = [spec.label] if spec.label is not None else []
    cells = {}
    for column in (*spec.fields.values(), *gold, *spec.tags.values(), *([spec.group] if spec.group else [])):
        value = row.cells.get(column)
        if value is not None:
            if isinstance(value, list | dict):
                raise DataError(f"{row.where}: field '{column}' is {kind_of(value)} and not text.")
            cells[column] = as_text(value)
        elif column in spec.fields.values() or (labelled and column in gold):
            raise DataError(f"{row.where}: there is no field '{column}'.{nearest(column, row.cells)}")
    return cells


def to_example(spec: TaskSpec, where: str, name: str, cells: Mapping[str, str], *, labelled: bool) -> Example:
    """Check one row, given as column to text, and turn it into an example with id `name`.

    `where` ("file:line") begins every error. Without `labelled`, a missing or empty gold answer is None.
    Raises DataError for an empty field, an unknown label, or a number that is none or out of range.
    """
    fields = {
        field: text_of(where, field, column, cells.get(column, ""), optional=field in spec.optional)
        for field, column in spec.fields.items()
    }
    raw = cells.get(spec.label, "").strip() if spec.label is not None else ""
    gold = None if spec.label is None or (not raw and not labelled) else gold_of(spec, where, raw)
    tags = {tag: cells[column].strip() for tag, column in spec.tags.items() if column in cells}
    return Example(name, fields, gold, cells.get(spec.group, "").strip() if spec.group else "", tags)


def text_of(where: str, field: str, column: str, text: str, *, optional: bool = False) -> str:
    """Return a field's text. Raises DataError when nothing but white space is in it, unless that is allowed."""
    if not text.strip() and not optional:
        also = "" if field == column else f" (column '{column}')"
        raise DataError(f"{where}: field '{field}'{also} is empty. Fill it in, or take the row out.")
    return text


def gold_of(spec: TaskSpec, where: str, raw: str) -> Value:
    """Turn a raw gold answer into the answer word or number. Raises DataError that names the column."""
    if not raw:
        raise DataError(f"{where}: the label column '{spec.label}' is empty. Fill it in, or take the row out.")
    if spec.number is None:
        labels = spec.labels or {}
        if raw not in labels:
            raise DataError(
                f"{where}: '{shorten(raw)}' in column '{spec.label}' is no label of {spec.name}.{nearest(raw, labels)}"
            )
        return labels[raw]
    number = parse_number(raw)
    if number is None:
        raise DataError(f"{where}: '{shorten(raw)}' in column '{spec.label}' is not a number.")
    if not spec.number.low <= number <= spec.number.high:
        raise DataError(
            f"{where}: {raw} in column '{spec.label}' is outside the range of {spec.name}, "
            f"{spec.number.low:g} to {spec.number.high:g}."
        )
    return number


def parse_number(raw: str) -> float | None:
    """Read a finite decimal number; None when the text is none."""
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in raw else None


def normal_text(text: str) -> str:
    """The text with case folded and white space collapsed: texts with equal normal text count as the same."""
    return " ".join(text.split()).casefold()


def text_key(fields: Mapping[str, str]) -> str:
    """One string for all texts of a row; equal for rows whose texts are the same up to case and white space."""
    return "\x1f".join(f"{name}\x1e{normal_text(fields[name])}" for name in sorted(fields))


def hash_share(text: str, seed: int | None = None) -> float:
    """A number in [0, 1) that depends on the text alone (and the seed): SHA-256, so the same on every machine."""
    salted = text if seed is None else f"{seed}\x1d{text}"
    return int.from_bytes(hashlib.sha256(salted.encode("utf-8", "surrogatepass")).digest()[:7], "big") / 2**56


def take_rows(
    examples: Sequence[Example], n: int | None, seed: int, what: str = "rows", *, whole_groups: bool = True
) -> list[Example]:
    """Draw `n` rows without replacement; where rows are in groups, whole groups until there are at least `n` rows.

    The rows (groups) are shuffled by `random.Random(seed)` (the same on every machine and Python version) and the first are taken,
    so a smaller draw with the same seed is the beginning of a larger one. With `n` None, or when there are fewer than asked, all
    rows come in file order; the shortfall is said once, `what` being the kind of rows. Without `whole_groups` groups do not
    count. Raises DataError when `n` is negative.
    """
    if n is not None and n < 0:
        raise DataError(f"{n} {what} cannot be drawn.")
    if n is None or n >= len(examples):
        if n is not None and n > len(examples):
            _say_shortfall(n, examples, what)
        return list(examples)
    units = list(by_unit(examples).values()) if whole_groups else [[place] for place in range(len(examples))]
    random.Random(seed).shuffle(units)
    drawn: list[Example] = []
    for places in units:
        if len(drawn) >= n:
            break
        drawn += [examples[place] for place in places]
    return drawn


def _say_shortfall(n: int, examples: Sequence[Example], what: str) -> None:
    """Say it once for the same rows, however many methods and seeds draw them."""
    said = (
        n,
        what,
        len(examples),
        examples[0].id if examples else "",
        text_key(examples[0].fields) if examples else "",
    )
    if said not in _SAID:
        _SAID.add(said)
        note(f"{n:,} {what} were asked for and there are {len(examples):,}: all of them are used.")
