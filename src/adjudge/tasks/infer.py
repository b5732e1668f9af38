"""Make a task from a user's table and the names of its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from pathlib import Path
from typing import Any, NamedTuple

from adjudge.errors import DataError, nearest
from adjudge.system.console import note, warn
from adjudge.system.text import shorten
from adjudge.tasks.reading.bad_rows import BadRows, OnBadRows
from adjudge.tasks.reading.decimal_commas import has_decimal_commas, with_point
from adjudge.tasks.reading.rows import parse_number, text_of
from adjudge.tasks.reading.table import require_columns, stream_table
from adjudge.tasks.reading.table_rows import TableRow
from adjudge.tasks.reading.text_files import plain_name
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.table_format import TableFormat, table_format
from adjudge.tasks.validate import RESERVED, parse_task, unnamed_words

MANY = 10
"""A column of numbers with more distinct values than this makes a number task."""
MOST_LABELS = 100
"""A column with more distinct texts than this does not hold labels, unless they are listed."""
_STEPS = 20
"""A number answer gets the fewest decimals with at least this many steps between its ends."""

_PATH = re.compile(r"[^\W\d]\w*(\.\w+)+")
"""A path into the objects of a JSONL file."""


def infer_task(
    data: str | Path,
    text: Sequence[str],
    label: str,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    dev: str | Path | None = None,
    instruction: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    bad_rows: OnBadRows = "error",
) -> TaskSpec:
    """Make a task from a table (CSV, TSV, JSONL or Parquet).

    The `text` columns are judged; the `label` column holds the gold answers. Labels come from the rows of `data` and
    `dev`, in alphabetical order (numbers by value). So the second of two counts as positive: no/yes, neg/pos, 0/1. The
    answer word is the label with "_" written as a space.

    `labels` fixes order and words. It is a list of ``raw`` or ``raw=Word``, or a mapping of raw label to word. Without
    it, a column of numbers with more than `MANY` distinct values becomes a number task between its smallest and largest
    value.

    `instruction` replaces the sentence that asks for the answer. `separator` and `encoding` say how the files are
    written, where they do not tell. With "drop", `bad_rows` do not count; the rows are loaded with the setting
    ``data.bad_rows``. Numbers with decimal commas are reported and read as numbers.

    Raises DataError for an unknown column (naming the nearest), an empty cell (with file, line and column), a column
    without labels, or a mismatch with `labels`. Raises TaskError for answer words which cannot be told apart.
    """
    paths = [Path(data), *([Path(dev)] if dev is not None else [])]
    _check_names(paths[0], text, label)
    form = table_format(separator, encoding)
    gold, decimal = _gold_cells(paths, text, label, form, bad_rows, numbers=labels is None)
    fields = _field_names(text)
    titles = [_human(name) for name in _short_names(text)]
    question = (
        f"the {_human(_short_names([label])[0]).lower()} of the {_and([title.lower() for title in titles])} below"
    )
    tree: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", plain_name(paths[0]).stem).strip("-.") or "data",
        "title": f"{_human(_short_names([label])[0])} of {paths[0].name}",
        "description": f"Made from {paths[0].name}: column {label} judged from {_and(list(text))}.",
        "fields": fields,
        "template": "\n".join(f"{title}: {{{{ {field} }}}}" for title, field in zip(titles, fields, strict=True)),
        "label": label,
        "source": {
            "table": {
                "train": str(paths[0].resolve()),
                "dev": str(paths[1].resolve()) if dev is not None else None,
                "separator": form.separator,
                "encoding": form.encoding,
                "decimal": decimal,
            }
        },
    }
    if labels is None and _is_number_column(gold):
        number = _number_answer(gold, label, bad_rows)
        form = {0: "whole number", 1: "number with one decimal"}.get(
            number["decimals"], f"number with {number['decimals']} decimals"
        )
        tree["number"] = number
        tree["metrics"] = ["pearson", "spearman", "mae"]
        tree["instruction"] = f"Judge {question}. Answer with a {form} from {number['low']:g} to {number['high']:g}."
    else:
        words = (
            _chosen_labels(gold, label, labels, bad_rows)
            if labels is not None
            else _inferred_labels(paths[0], gold, label)
        )
        tree["labels"] = words
        tree["metrics"] = ["accuracy", "macro_f1"]
        quoted = [f'"{word}"' for word in words.values()]
        tree["instruction"] = f"Judge {question}. Answer {_and(quoted, 'or')}."
    if instruction is not None:
        tree["instruction"] = instruction
    spec = parse_task(tree, f"{paths[0]} (name labels and words with --labels raw=Word,…)")
    if missing := unnamed_words(spec):
        warn(f"the instruction does not name {', '.join(missing)}: the untrained model cannot know this answer.")
    return spec


def _check_names(path: Path, text: Sequence[str], label: str) -> None:
    if not text:
        raise DataError(f"{path}: name at least one column with text to judge.")
    for column in text:
        if list(text).count(column) > 1:
            raise DataError(f"{path}: the text column '{column}' is named twice.")
    if label in text:
        raise DataError(f"{path}: '{label}' cannot be both the text to judge and its label.")


class _Location(NamedTuple):
    """A row of a file. It is formatted as ``file:line`` only when needed, since there may be millions."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def _gold_cells(
    paths: Sequence[Path], text: Sequence[str], label: str, form: TableFormat, bad_rows: OnBadRows, *, numbers: bool
) -> tuple[list[tuple[_Location, str]], str]:
    """Return the label column's cells as (location, text) for all files, and the decimal mark in them.

    With `numbers`, a column of numbers with decimal commas has points instead. Raises DataError when a cell of a text
    or label column is empty, unless `bad_rows` is "drop".
    """
    cells = []
    separators = []
    shared: dict[str, str] = {}  # a million cells share a few labels, so keep one string per label
    for path in paths:
        bad = BadRows(path, bad_rows)
        columns, rows = stream_table(path, form, bad)
        require_columns(path, columns, [*text, label])
        separators.append(columns.separator)
        for row in rows:
            raw = bad.attempt(row.line, _gold_cell, path, row, text, label)
            if raw is not None:
                cells.append((_Location(path, row.line), shared.setdefault(raw, raw)))
        bad.end(quiet=True)
    if not numbers or not has_decimal_commas(shared, f"{paths[0]}: column '{label}'", separators[0]):
        return cells, "."
    first = next(raw for raw in shared if with_point(raw) != raw)
    note(f"{paths[0].name}: column '{label}' has decimal commas; {first} is read as {with_point(first)}.")
    return [(where, with_point(raw)) for where, raw in cells], ","


def _gold_cell(path: Path, row: TableRow, text: Sequence[str], label: str) -> str:
    """Return the label cell of a row. Raises DataError when it or a text is empty."""
    for column in text:
        text_of(f"{path}:{row.line}", column, column, row.get(column, ""))
    raw = row.get(label, "").strip()
    if not raw:
        raise DataError(f"{path}:{row.line}: the label column '{label}' is empty. Fill it in, or remove the row.")
    return raw


def _is_number_column(gold: Sequence[tuple[_Location, str]]) -> bool:
    values = {raw for _, raw in gold}
    numbers = {parse_number(raw) for raw in values} - {None}
    return len(numbers) > MANY and len(numbers) >= 0.9 * len(values)


def _number_answer(gold: Sequence[tuple[_Location, str]], label: str, bad_rows: OnBadRows) -> dict[str, Any]:
    values = []
    bad: dict[Path, BadRows] = {}
    for where, raw in gold:
        if parse_number(raw) is None:
            problem = f"{where}: '{shorten(raw)}' in column '{label}' is not a number, but the others are."
            bad.setdefault(where.path, BadRows(where.path, bad_rows)).add(where.line, DataError(problem))
        else:
            values.append(Decimal(raw))
    for each in bad.values():
        each.end(quiet=True)
    with localcontext() as context:
        context.prec = 700  # enough digits for every float, so quantize cannot fail
        low, high = min(values), max(values)
        most_decimals = max(max(0, -int(value.normalize().as_tuple().exponent)) for value in values)
        decimals = 0
        while decimals < min(most_decimals, 6) and Decimal(1).scaleb(-decimals) * _STEPS > high - low:
            decimals += 1
        step = Decimal(1).scaleb(-decimals)
        ends = low.quantize(step, ROUND_FLOOR), high.quantize(step, ROUND_CEILING)
    return {"low": float(ends[0]), "high": float(ends[1]), "decimals": decimals}


def _inferred_labels(path: Path, gold: Sequence[tuple[_Location, str]], label: str) -> dict[str, str]:
    values = {raw for _, raw in gold}
    if len(values) < 2:
        raise DataError(f"{path}: every row has '{values.pop()}' in column '{label}': all answers would be the same.")
    if len(values) > MOST_LABELS or (len(values) > MANY and 2 * len(values) > len(gold)):
        raise DataError(
            f"{path}: column '{label}' has {len(values):,} different values in {len(gold):,} rows, "
            "so it does not seem to hold labels. Name another label column, or list the labels with --labels."
        )
    numbers = {raw: parse_number(raw) for raw in values}
    if None in numbers.values():
        order = sorted(values, key=lambda raw: (raw.casefold(), raw))
    else:
        order = sorted(values, key=lambda raw: (float(raw), raw))
    return {raw: " ".join(raw.replace("_", " ").split()) or raw for raw in order}


def _chosen_labels(
    gold: Sequence[tuple[_Location, str]],
    label: str,
    labels: Sequence[str] | Mapping[str, str],
    bad_rows: OnBadRows,
) -> dict[str, str]:
    values = list(dict.fromkeys(raw for _, raw in gold))
    chosen: dict[str, str] = {}
    items = labels.items() if isinstance(labels, Mapping) else (_split_item(item, values) for item in labels)
    for raw, word in items:
        if raw in chosen:
            raise DataError(f"--labels names '{raw}' twice.")
        if raw not in values:
            raise DataError(f"--labels names '{raw}', which is not in column '{label}'.{nearest(raw, values)}")
        chosen[raw] = word
    bad: dict[Path, BadRows] = {}
    for where, raw in gold:
        if raw not in chosen:
            problem = f"{where}: '{shorten(raw)}' in column '{label}' is not among --labels ({', '.join(chosen)})."
            bad.setdefault(where.path, BadRows(where.path, bad_rows)).add(where.line, DataError(problem))
    for each in bad.values():
        each.end(quiet=True)
    return chosen


def _split_item(item: str, values: Sequence[str]) -> tuple[str, str]:
    if item.strip() in values:
        return item.strip(), item.strip()
    raw, equals, word = item.partition("=")
    return raw.strip(), word.strip() if equals else raw.strip()


def _field_names(columns: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for number, column in enumerate(columns, 1):
        name = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_").lower() or f"text{number}"
        if name[0].isdigit():
            name = f"text_{name}"
        if name in RESERVED:
            name += "_"
        fields[name if name not in fields else f"{name}_{number}"] = column
    return fields


def _short_names(columns: Sequence[str]) -> list[str]:
    """Return what a prompt calls the columns: of paths such as ``annotations.0.label`` the last part that is a word.

    Paths whose last parts are equal keep all their parts.
    """
    short = [
        next(part for part in reversed(column.split(".")) if not part.isdecimal())
        if _PATH.fullmatch(column)
        else column
        for column in columns
    ]
    return [
        name if short.count(name) == 1 else column.replace(".", " ")
        for name, column in zip(short, columns, strict=True)
    ]


def _human(column: str) -> str:
    """Return the column's name as words, without characters that are syntax in Jinja or the prompt."""
    words = " ".join(re.sub(r"[{}%#<>_\s]+", " ", column).split()) or "text"
    return words[0].upper() + words[1:]


def _and(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
