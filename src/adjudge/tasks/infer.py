"""Make a task from a user's table and the names of its columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.errors import DataError
from adjudge.system.console import warn
from adjudge.tasks.answer_kinds import chosen_labels, inferred_labels, kind_of, number_answer
from adjudge.tasks.gold_column import GoldColumn, read_gold
from adjudge.tasks.reading.bad_rows import OnBadRows
from adjudge.tasks.reading.text_files import plain_name
from adjudge.tasks.set_columns import set_answers
from adjudge.tasks.sets import NOTHING
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.table_format import table_format
from adjudge.tasks.validate import RESERVED, parse_task, unnamed_words

SETS = {"several": "words", "passes": "passes"}
"""Kinds of answers that are sets of labels, and how a task is then asked."""

_PATH = re.compile(r"[^\W\d]\w*(\.\w+)+")
"""A path into the objects of a JSONL file."""


def infer_task(
    data: str | Path,
    text: Sequence[str],
    label: str | Sequence[str],
    labels: Sequence[str] | Mapping[str, str] | None = None,
    dev: str | Path | None = None,
    instruction: str | None = None,
    kind: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    bad_rows: OnBadRows = "error",
    name: str | None = None,
) -> TaskSpec:
    """Make a task from a table (CSV, TSV, JSONL or Parquet).

    The `text` columns are judged; the `label` column holds the gold answers. Labels come from the rows of `data` and
    `dev`, in alphabetical order (numbers by value). So the second of two counts as positive: no/yes, neg/pos, 0/1. The
    answer word is the label with "_" written as a space, or the class's name where a Parquet file has it.

    `labels` fixes order and words. It is a list of ``raw`` or ``raw=Word``, or a mapping of raw label to word; raw
    labels with one word are one label. `kind` is "labels", "number", "ordered" (labels in the order of `labels`, or of
    their numbers, in which near is less wrong), or, where a row can have several labels, "several" (answered in words)
    or "passes" (asked label by label). The label column then has cells such as ``a|b``, or `label` names one column of
    yes and no per label. Without both, a column of numbers with decimals, or with more than 10 different whole numbers,
    becomes a number task between its smallest and largest value.

    `instruction` replaces the sentence that asks for the answer. `separator` and `encoding` say how the files are
    written, where they do not tell. With "drop", `bad_rows` do not count; the rows are loaded with the setting
    ``data.bad_rows``. Numbers with decimal commas are read as numbers. The task is called `name`, or after the file.

    Choices that may surprise are reported. Raises DataError for an unknown column (naming the nearest), an empty cell
    (with file, line and column), a column without labels, or a mismatch with `labels`. Raises TaskError for answer
    words which cannot be told apart, and ConfigError for an unknown `kind`.
    """
    paths = [Path(data), *([Path(dev)] if dev is not None else [])]
    label_columns = _label_columns(label, kind)
    for column in label_columns:
        _check_names(paths[0], text, column)
    label = label_columns[0] if len(label_columns) == 1 else "labels"
    form = table_format(separator, encoding)
    gold = None if kind in SETS else read_gold(paths, text, label, form, bad_rows)
    reads_numbers = gold is not None and labels is None and kind not in ("labels", "ordered")
    decimal = gold.read_decimal_commas() if gold is not None and reads_numbers else "."
    fields = _field_names(text)
    titles = [_human(name) for name in _short_names(text)]
    label_title = _human(_short_names([label])[0])
    question = f"the {label_title.lower()} of the {_and([title.lower() for title in titles])} below"
    tree: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_.-]+", "-", name or plain_name(paths[0]).stem).strip("-.") or "data",
        "title": f"{label_title} of {name or paths[0].name}",
        "description": f"Made from {name or paths[0].name}: column {label} judged from {_and(list(text))}.",
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
    if gold is None:
        tree |= set_answers(paths, text, label_columns, labels, form, bad_rows)
        tree |= {"several": SETS[str(kind)], "instruction": _set_question(tree["labels"].values(), question, kind)}
    else:
        tree |= _answers(paths[0], gold, labels, kind, question)
    if instruction is not None:
        tree["instruction"] = instruction
    spec = parse_task(tree, f"{paths[0]} (name labels and words with --labels raw=Word,…)")
    if missing := unnamed_words(spec):
        warn(f"the instruction does not name {', '.join(missing)}: the untrained model cannot know this answer.")
    return spec


def _label_columns(label: str | Sequence[str], kind: str | None) -> list[str]:
    """Return the names of the label columns. Raises DataError for several where a row has one label."""
    if isinstance(label, str):
        return [label]
    names = [*label] if isinstance(label, Sequence) else [label]
    if kind not in SETS or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f'label is {label!r}: write the name of one column, as in label="sentiment". Where a row can have several '
            "labels, a list names columns of yes and no: with kind='several' or kind='passes'."
        )
    if len(set(names)) < len(names):
        raise DataError(f"label is {label!r}: a column is named twice.")
    return names


def _set_question(words: Iterable[str], question: str, kind: str | None) -> str:
    quoted = [f'"{word}"' for word in dict.fromkeys(words)]
    if SETS[str(kind)] == "passes":
        return f'Judge {question}: answer "Yes" if the label that is named applies, and "No" if it does not.'
    return f'Judge {question}. Answer with all that apply of {_and(quoted)}, or "{NOTHING}".'


def _answers(
    path: Path, gold: GoldColumn, labels: Sequence[str] | Mapping[str, str] | None, kind: str | None, question: str
) -> dict[str, Any]:
    """Return the part of a task that says what is answered: labels or a number, metrics, instruction."""
    answer_kind = kind_of(gold, kind, labels)
    if answer_kind == "number":
        number = number_answer(gold)
        form = {0: "whole number", 1: "number with one decimal"}.get(
            number["decimals"], f"number with {number['decimals']} decimals"
        )
        return {
            "number": number,
            "metrics": ["pearson", "spearman", "mae"],
            "instruction": f"Judge {question}. Answer with a {form} from {number['low']:g} to {number['high']:g}.",
        }
    words = inferred_labels(path, gold, asked=kind is not None) if labels is None else chosen_labels(gold, labels)
    quoted = [f'"{word}"' for word in dict.fromkeys(words.values())]
    return {
        "labels": words,
        **({"ordered": True} if answer_kind == "ordered" else {}),
        "metrics": [*(["quadratic_kappa"] if answer_kind == "ordered" else []), "accuracy", "macro_f1"],
        "instruction": f"Judge {question}. Answer {_and(quoted, 'or')}.",
    }


def _check_names(path: Path, text: Sequence[str], label: str) -> None:
    if isinstance(text, str):
        raise DataError(f"text is {text!r}: write a list of column names, also for one: text={text.split(',')!r}.")
    if not all(isinstance(column, str) for column in text):
        raise DataError(f'text is {text!r}: write a list of column names, as in text=["review"].')
    if not isinstance(label, str):
        raise DataError(f'label is {label!r}: write the name of one column, as in label="sentiment".')
    if not text:
        raise DataError(f"{path}: name at least one column with text to judge.")
    for column in text:
        if list(text).count(column) > 1:
            raise DataError(f"{path}: the text column '{column}' is named twice.")
    if label in text:
        raise DataError(f"{path}: '{label}' cannot be both the text to judge and its label.")


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
    """Return what a prompt calls the columns.

    A path such as ``annotations.0.label`` is called by its last part that is a word. Paths whose last parts are equal
    keep all their parts.
    """
    words = [[part for part in column.split(".") if not part.isdecimal()] for column in columns]
    short = [parts[-1] if _PATH.fullmatch(column) else column for parts, column in zip(words, columns, strict=True)]
    long = [" ".join(parts) for parts in words]
    return [name if short.count(name) == 1 else whole for name, whole in zip(short, long, strict=True)]


def _human(column: str) -> str:
    """Return the column's name as words, without characters that are syntax in Jinja or the prompt."""
    words = " ".join(re.sub(r"[{}%#<>_\s]+", " ", column).split()) or "text"
    return words[0].upper() + words[1:]


def _and(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
