"""Make rows as Python programs give them, of several libraries, with a record of what each cell must be read as."""

from __future__ import annotations

import datetime
import importlib.util
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import datasets
import numpy
import pandas
import pyarrow
from hostile_files import MARKS
from specs import label_task

from adjudge.errors import DataError
from adjudge.tasks import given_examples

MISSING = (None, float("nan"), numpy.float32("nan"), pandas.NA, pandas.NaT, Decimal("nan"), numpy.datetime64("NaT"))
NO_TEXT = ([], ["a"], ("a",), {"a": 1}, {1}, b"a", numpy.array(["a"]), numpy.array([numpy.nan]), object(), 1j, print)
KINDS: dict[str, Callable[[Random], Any]] = {
    "text": lambda rng: f"{rng.choice(('', 'a', ' ', *MARKS))} row {rng.random()}".encode("utf-8", "replace").decode(),
    "blank": lambda rng: rng.choice(("", " ", "\t\n", "\u00a0", "\u2003")),
    "whole number": lambda rng: rng.randint(-5, 5),
    "number": lambda rng: rng.choice((0.5, -0.0, 1e300, 1e-7, float("inf"))),
    "true or false": lambda rng: rng.random() < 0.5,
    "date": lambda rng: datetime.date(2026, 1, rng.randint(1, 28)),
}
POLARS = importlib.util.find_spec("polars") is not None


def same(rows: Any) -> Any:
    """Return the rows as they are."""
    return rows


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return rows as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def pandas_objects(rows: list[dict[str, Any]]) -> Any:
    """Return a pandas frame whose cells are the very objects."""
    cells = {name: pandas.Series(list(column), dtype=object) for name, column in columns_of(rows).items()}
    return pandas.DataFrame(cells)


def arrow(rows: list[dict[str, Any]]) -> Any:
    """Return an Arrow table."""
    return pyarrow.table(columns_of(rows))


def data_set(rows: list[dict[str, Any]]) -> Any:
    """Return a data set."""
    return datasets.Dataset(arrow(rows))


def polars_frame(rows: list[dict[str, Any]]) -> Any:
    """Return a polars frame."""
    import polars

    return polars.DataFrame(columns_of(rows))


MIXED = (same, iter, pandas_objects)
"""Containers whose columns hold anything."""
TYPED = (arrow, data_set, *((polars_frame,) if POLARS else ()))
"""Containers whose columns have one kind of value, or none."""


def fuzz_frames(count: int, rng: Random, report: Callable[[int], None] = lambda done: None) -> Counter[str]:
    """Read generated rows of every container, and count the outcomes.

    Fails when a cell is read as anything but its text, or when an error does not name the first wrong row.
    """
    spec = label_task("No", "Yes").model_copy(
        update={"fields": {"one": "one", "two": "column two"}, "template": "{{ one }} {{ two }}"}
    )
    counts: Counter[str] = Counter()
    for number in range(count):
        make = rng.choice((*MIXED, *TYPED))
        rows = [_row(rng, kinds) for kinds in [_kinds(rng, make in TYPED)] for _ in range(rng.randint(1, 6))]
        expected = [[_text(row["one"]), _text(row["column two"])] for row in rows]
        wrong = next((place for place, texts in enumerate(expected, 1) if not all(texts)), None)
        try:
            examples = given_examples(spec, make(rows))
        except DataError as error:
            assert wrong is not None and str(error).startswith(f"rows:{wrong}: field "), (rows, error)
            counts[f"{make.__name__}: DataError"] += 1
        else:
            assert wrong is None and [list(each.fields.values()) for each in examples] == expected, (rows, examples)
            counts[f"{make.__name__}: read"] += 1
        report(number + 1)
    return counts


def _kinds(rng: Random, typed: bool) -> dict[str, list[str] | None]:
    """Return the kinds of values of each column: one where the container wants that, else None for any."""
    kinds = [kind for kind in KINDS if kind != "blank"]
    return {name: [rng.choice(kinds)] if typed else None for name in ("one", "column two", "unused")}


def _row(rng: Random, kinds: dict[str, list[str] | None]) -> dict[str, Any]:
    return {name: _cell(rng, chosen) for name, chosen in kinds.items()}


def _cell(rng: Random, kinds: list[str] | None) -> Any:
    if rng.random() < 0.06:
        return None if kinds is not None else rng.choice(MISSING)
    if kinds is None and rng.random() < 0.04:
        return rng.choice(NO_TEXT)
    if kinds is None and rng.random() < 0.04:
        return KINDS["blank"](rng)
    return KINDS[rng.choice(kinds if kinds is not None else ["text", "whole number", "number", "date"])](rng)


def _text(cell: Any) -> str:
    """Return what a cell must be read as; empty text where an error is due."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float):
        return "" if cell != cell else repr(cell)
    if type(cell) in (int, datetime.date):
        return str(cell)
    return cell if isinstance(cell, str) and cell.strip() else ""
