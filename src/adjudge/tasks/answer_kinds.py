"""Decide what the answers of a label column are: labels with their words, or a number in a range."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal, get_args

from adjudge.errors import ConfigError, DataError, nearest
from adjudge.system.console import note, warn
from adjudge.system.text import shorten
from adjudge.tasks.answer_words import folded, label_key, look
from adjudge.tasks.gold_column import GoldColumn
from adjudge.tasks.reading.rows import parse_number

Kind = Literal["labels", "ordered", "number"]

MANY = 10
"""A column of whole numbers with more distinct values than this makes a number task."""
MANY_LABELS = 50
"""More labels than this are pointed out: the prompt names all of them."""
MOST_LABELS = 100
"""A column with more distinct texts than this does not hold labels, unless they are asked for."""
_STEPS = 20
"""A number answer gets the fewest decimals with at least this many steps between its ends."""
_MISSING = frozenset(("nan", "null", "none", "n/a", "na", "#n/a", "nil", "nat", "missing"))
"""Words that often stand for a missing label."""
_FAR = 3.0
"""Quartile ranges between the middle half and a value that is far from the others."""


def kind_of(column: GoldColumn, kind: str | None, labels: object) -> Kind:
    """Return the kind of the answers: as `kind` says, else from the values.

    Numbers with decimals, and more than `MANY` whole numbers, are numbers. A choice that may surprise is reported.
    Raises ConfigError for an unknown kind, or for `labels` of a number.
    """
    if kind is not None and kind not in get_args(Kind):
        raise ConfigError(f"--kind is '{kind}'.{nearest(kind, [*get_args(Kind), 'several', 'passes'])}")
    if labels is not None:
        if kind == "number":
            raise ConfigError("--labels lists labels, and --kind number makes the answer a number: give one of them.")
        return "ordered" if kind == "ordered" else "labels"
    if kind is not None:
        if kind == "ordered":
            _check_order(column)
        return "ordered" if kind == "ordered" else "number" if kind == "number" else "labels"
    if column.class_names is not None:
        return "labels"
    numbers = [number for raw in column.counts if (number := parse_number(raw)) is not None]
    fractions = any(not number.is_integer() for number in numbers)
    if not _are_numbers(column, numbers, fractions):
        if numbers and len(numbers) == len(column.counts) > 2:
            note(
                f"column '{column.name}': {len(numbers)} whole numbers are read as {len(numbers)} labels. "
                "--kind number judges them as a number, --kind ordered as labels in their order."
            )
        return "labels"
    form = "different numbers, some with decimals, are" if fractions else "different whole numbers are"
    note(f"column '{column.name}': {len(numbers):,} {form} read as a number. If they name classes: --kind labels.")
    return "number"


def _check_order(column: GoldColumn) -> None:
    """Raise ConfigError where nothing tells the order of the labels."""
    if column.class_names is None and any(parse_number(raw) is None for raw in column.counts):
        listed = ",".join(shorten(raw) for raw in list(column.counts)[:6])
        raise ConfigError(
            f"--kind ordered needs the order of the labels in column '{column.name}': list them from one end to the "
            f"other, as in --labels {listed}."
        )


def _are_numbers(column: GoldColumn, numbers: Sequence[float], fractions: bool) -> bool:
    if len(numbers) > MANY:
        return len(numbers) >= 0.9 * len(column.counts)
    return fractions and len(numbers) > 1 and 2 * len(numbers) > len(column.counts)


def number_answer(column: GoldColumn) -> dict[str, Any]:
    """Return the range and decimals of the numbers, as a task's `number`.

    Warns when few values set the range. Raises DataError for a value that is no number, with file and line, and when
    all are equal.
    """
    wrong = [raw for raw in column.counts if parse_number(raw) is None]
    numbers = {Decimal(raw): raw for raw in column.counts if raw not in set(wrong)}
    if wrong:
        others = ", but the others are" if numbers else ""
        problem = (
            f"'{shorten(wrong[0])}' in column '{column.name}' is not a number{others}. "
            "Remove the row, or judge the values as labels with --kind labels."
        )
        if not numbers:
            raise DataError(f"{column.first[wrong[0]]}: {problem}")
        column.refuse(wrong, problem)
    low, high = min(numbers), max(numbers)
    if low == high:
        raise DataError(f"{column.first[numbers[low]].path}: {_one_value(column)}")
    with localcontext() as context:
        context.prec = 700  # enough digits for every float, so quantize cannot fail
        most_decimals = max(max(0, -int(value.normalize().as_tuple().exponent)) for value in numbers)
        decimals = 0
        while decimals < min(most_decimals, 6) and Decimal(1).scaleb(-decimals) * _STEPS > high - low:
            decimals += 1
        step = Decimal(1).scaleb(-decimals)
        ends = low.quantize(step, ROUND_FLOOR), high.quantize(step, ROUND_CEILING)
    _warn_of_outliers(column, {float(value): raw for value, raw in numbers.items()})
    return {"low": float(ends[0]), "high": float(ends[1]), "decimals": decimals}


def _warn_of_outliers(column: GoldColumn, numbers: Mapping[float, str]) -> None:
    """Warn when the range is more than twice that of nearly all values."""
    values = sorted(value for value, raw in numbers.items() for _ in range(column.counts[raw]))
    first, _, third = quantiles(values, n=4, method="inclusive")
    margin = _FAR * (third - first)
    inside = [value for value in values if first - margin <= value <= third + margin]
    outside = len(values) - len(inside)
    if not outside or outside > 0.05 * len(values) or values[-1] - values[0] <= 2 * (inside[-1] - inside[0]):
        return
    far = values[-1] if values[-1] > inside[-1] else values[0]
    warn(
        f"{column.first[numbers[far]]}: {far:g} in column '{column.name}' is far from the others "
        f"({inside[0]:g} to {inside[-1]:g}) and sets the range of the answers. Mend or remove it if it is a mistake."
    )


def inferred_labels(path: Path, column: GoldColumn, *, asked: bool) -> dict[str, str]:
    """Return raw label to answer word, in alphabetical order, numbers by value; reports what may surprise.

    With `asked`, the user said that they are labels, however many. Raises DataError for a column without usable
    labels, and for one label in several spellings, with the option that joins them.
    """
    values = list(column.counts)
    if len(values) < 2:
        raise DataError(f"{path}: {_one_value(column)}")
    many = len(values) > MOST_LABELS or (len(values) > MANY and 2 * len(values) > column.rows)
    if many and not asked and column.class_names is None:
        raise DataError(
            f"{path}: column '{column.name}' has {len(values):,} different values in {column.rows:,} rows, "
            "so it does not seem to hold labels. Name another label column, or list the labels with --labels; "
            "--kind labels takes them all, --kind number reads numbers."
        )
    if column.class_names is not None:
        return _named_classes(column, column.class_names)
    if any(parse_number(raw) is None for raw in values):
        values.sort(key=lambda raw: (raw.casefold(), raw))
    else:
        values.sort(key=lambda raw: (float(raw), raw))
    words = {raw: _word(raw) for raw in values}
    _refuse_spellings(path, column, words)
    _report_spellings(column)
    _report(column, words)
    return words


def _one_value(column: GoldColumn) -> str:
    value = shorten(next(iter(column.counts)))
    return f"every row has '{value}' in column '{column.name}': all answers would be the same."


def _word(raw: str) -> str:
    return " ".join(raw.replace("_", " ").split()) or raw


def _named_classes(column: GoldColumn, names: Sequence[str]) -> dict[str, str]:
    """Return the words of class numbers, in the order of the classes.

    Raises DataError for a number without a name, unless such rows are dropped.
    """
    index_of = {str(index): name for index, name in enumerate(names)}
    unknown = [raw for raw in column.counts if raw not in index_of and raw not in names]
    if unknown:
        problem = (
            f"{shorten(unknown[0])} in column '{column.name}' is no class: the file names 0 to {len(names) - 1} "
            f"({shorten(', '.join(names))}). -1 means that a row has no label."
        )
        column.refuse(unknown, problem)
    return {raw: _word(name) for index, name in index_of.items() for raw in (index, name) if raw in column.counts}


def _refuse_spellings(path: Path, column: GoldColumn, words: Mapping[str, str]) -> None:
    """Raise DataError when answer words differ only in case or final punctuation.

    The error names the option that joins them.
    """
    same: dict[str, list[str]] = {}
    for raw, word in words.items():
        same.setdefault(folded(word), []).append(raw)
    groups = [raws for core, raws in same.items() if core and len(raws) > 1]
    if not groups:
        return
    listed = "; ".join(", ".join(f"{shorten(raw)} ({column.counts[raw]:,})" for raw in raws) for raws in groups)
    pairs = {raw: words[max(raws, key=lambda each: column.counts[each])] for raws in same.values() for raw in raws}
    raise DataError(
        f"{path}: column '{column.name}' spells one label in several ways, with rows: {listed}. "
        f"If they are one label, join them with\n  {_labels_option(pairs)}\n"
        "If not, give each a word of its own there."
    )


def _labels_option(pairs: Mapping[str, str]) -> str:
    """Return the option that gives these words, as it is typed; or a mapping of Python where it cannot be."""
    if any(mark in text for pair in pairs.items() for text in pair for mark in ",="):
        return f"labels={dict(pairs)!r} (in Python)"
    return f"--labels {shlex.quote(','.join(f'{raw}={word}' for raw, word in pairs.items()))}"


def _report_spellings(column: GoldColumn) -> None:
    """Report cells that are read as a label of another spelling, with their invisible marks escaped."""
    pairs = [(raw, sorted(spellings)) for raw, spellings in column.spellings.items()]
    for raw, spellings in pairs[:3]:
        shown = ", ".join(spelling.encode("unicode_escape").decode("ascii") for spelling in spellings)
        note(f"column '{column.name}': {shorten(shown)} is read as '{shorten(raw)}'.")
    if len(pairs) > 3:
        note(f"  … and so are cells of {len(pairs) - 3} more labels.")


def _report(column: GoldColumn, words: Mapping[str, str]) -> None:
    """Report labels that may not be what was meant: many, alike, several in one cell, missing ones."""
    name = column.name
    first: dict[str, str] = {}
    for raw in words:
        if (other := first.setdefault(look(raw), raw)) != raw:
            warn(
                f"{column.first[raw]}: {raw!a} in column '{name}' looks like {other!a}, and is read as another "
                f"label. If they are one: --labels {shorten(other)}=X,{shorten(raw)}=X, with all others."
            )
        if raw.casefold() in _MISSING:
            warn(
                f"{column.first[raw]}: '{raw}' in column '{name}' is read as a label ({column.counts[raw]:,} rows). "
                "Remove these rows if it means that there is none."
            )
    for mark in ";|,":
        joined = [raw for raw in words if mark in raw and _joins(raw, mark, words)]
        if joined:
            warn(
                f"{column.first[joined[0]]}: '{shorten(joined[0])}' in column '{name}' seems to hold several labels; "
                "each such combination is read as a label of its own. Where a row can have several labels, separate "
                "them with | and give --kind several."
            )
            break
    if len(words) > MANY_LABELS:
        note(
            f"column '{name}': {len(words)} labels, and the prompt names all of them. "
            "--labels a=X,b=X joins several into one."
        )


def _joins(raw: str, mark: str, words: Iterable[str]) -> bool:
    """Return whether a value is made of parts, at least one of them a label or part of another one."""
    parts = {part.strip() for part in raw.split(mark)}
    if len(parts) < 2 or "" in parts:
        return False
    return any(
        part == other or (mark in other and part in {piece.strip() for piece in other.split(mark)})
        for other in words
        if other != raw
        for part in parts
    )


def chosen_labels(column: GoldColumn, labels: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return raw label to answer word, as the user lists them.

    Raises DataError for a label that is listed twice, not in the column, or not listed, and for `labels` of another
    form.
    """
    values = list(column.counts)
    chosen: dict[str, str] = {}
    for given, word in _pairs(labels, values):
        raw = _value_of(column, given)
        if raw in chosen:
            raise DataError(f"--labels names '{given}' twice.")
        if raw not in column.counts:
            raise DataError(
                f"--labels names '{given}', which is not in column '{column.name}'.{nearest(given, values)}"
            )
        chosen[raw] = word
    wrong = [raw for raw in values if raw not in chosen]
    if wrong:
        column.refuse(
            wrong, f"'{shorten(wrong[0])}' in column '{column.name}' is not among --labels ({', '.join(chosen)})."
        )
    _report_spellings(column)
    return chosen


def _value_of(column: GoldColumn, given: str) -> str:
    """Return the column's value for a listed label: itself, its other spelling, or its class number."""
    if given in column.counts:
        return given
    if column.class_names and given in column.class_names:
        return str(column.class_names.index(given))
    return label_key(given)


def _pairs(labels: Sequence[str] | Mapping[str, str], values: Sequence[str]) -> list[tuple[str, str]]:
    """Return the listed labels as (raw, word). Raises DataError when they are not written as texts."""
    if isinstance(labels, str) or not isinstance(labels, Sequence | Mapping):
        raise DataError(
            f'labels is {labels!r}: write a list, as in ["0=Bad", "1=Good"], or a mapping, as in '
            '{"0": "Bad", "1": "Good"}.'
        )
    items = list(labels.items()) if isinstance(labels, Mapping) else [(item, "") for item in labels]
    if wrong := [text for pair in items for text in pair if not isinstance(text, str)]:
        texts = {str(raw): str(word) for raw, word in items} if isinstance(labels, Mapping) else [*map(str, labels)]
        raise DataError(f"labels has {wrong[0]!r}, which is no text. Write the cells of the file: labels={texts!r}.")
    return items if isinstance(labels, Mapping) else [_split_item(item, values) for item, _ in items]


def _split_item(item: str, values: Sequence[str]) -> tuple[str, str]:
    if item.strip() in values:
        return item.strip(), item.strip()
    raw, equals, word = item.partition("=")
    return raw.strip(), word.strip() if equals else raw.strip()
