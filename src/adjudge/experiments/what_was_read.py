"""Say in a few lines what was read from a user's own table, before anything is trained or judged."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from adjudge.config import Config
from adjudge.config.groups import DataConfig
from adjudge.methods.registry import get_entry
from adjudge.models.sources.token_counts import longest_in_tokens
from adjudge.system.console import note, warn
from adjudge.tasks import count_contradictions, load_split
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.sets import members
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Value

WIDTH = 80
"""Columns that a note fits."""

_LISTED = 12
"""Labels that are listed, each with its rows."""


def report_own_table(spec: TaskSpec, config: Config) -> None:
    """Print what was read, when the task's rows come from a table of the user.

    Raises DataError as reading does.
    """
    if spec.source.table is None:
        return
    train, dev = (load_split(spec, split, config.data.data_dir, config.data.bad_rows) for split in ("train", "dev"))
    for line in lines_of(spec, train, dev, config):
        note(line)
    if contradictions := count_contradictions([*train, *dev]):
        warn(f"{contradictions:,} rows have the text of another row and a different answer.")
    warn_of_absent_labels(spec, train if get_entry(config.method).trains else None, dev)


def lines_of(spec: TaskSpec, train: Sequence[Example], dev: Sequence[Example], config: Config) -> list[str]:
    """Return the lines of the note, each at most `WIDTH` columns wide.

    They name the kind of task, labels with their rows, fields, rows per split, duplicates, and the longest text.
    """
    table = spec.source.table
    kept = "kept apart for dev" if table is not None and table.dev is None else "in the dev file"
    rows = [*train, *dev]
    duplicates = len(rows) - len({text_key(row.fields) for row in rows})
    facts = [
        f"text: {', '.join(spec.fields.values())}",
        f"{len(rows):,} rows: {len(train):,} to train on, {len(dev):,} {kept}",
        f"{duplicates:,} {'duplicate' if duplicates == 1 else 'duplicates'}",
    ]
    longest = longest_in_tokens(config.model, ["\n".join(row.fields.values()) for row in rows])
    if longest is not None:
        limit = config.prompt.max_tokens
        cut = f", cut to fit prompts of {limit:,} (prompt.max_tokens)" if longest >= limit else ""
        facts.append(f"the longest text has {longest:,} tokens of {config.model}{cut}")
    return [
        *_wrapped(f"{spec.name}: {_answers(spec, train, dev)}", indent="    "),
        *_wrapped("; ".join(facts) + ".", indent="    ", first="  "),
    ]


def warn_of_absent_labels(
    spec: TaskSpec, train: Sequence[Example] | None, dev: Sequence[Example] | None, drawn: DataConfig | None = None
) -> None:
    """Warn of labels with no row to learn from, and of those with no row to judge.

    `train` is None when nothing is learned, `dev` when nothing is judged. `drawn` is how the rows were
    drawn; None means that they are all rows.
    """
    for rows, without, effect, option, limit in (
        (train, "no training row", "nothing is learned of it", "--train-rows", drawn and drawn.train_rows),
        (dev, "no row to judge", "no figure speaks of it", "--eval-rows", drawn and drawn.eval_rows),
    ):
        if spec.is_number or rows is None:
            continue
        present = {name for row in rows for name in _named(spec, row)}
        if absent := [word for word in spec.names if word not in present]:
            listed = ", ".join(f"'{word}'" for word in absent[:_LISTED]) + (", …" if len(absent) > _LISTED else "")
            have = "has" if len(absent) == 1 else "have"
            remedy = f"Raise {option}, or add rows" if limit is not None else "Add rows"
            _warn_once(f"{spec.name}: {listed} {have} {without}: {effect}. {remedy} with such labels.")


@lru_cache(maxsize=256)  # a verb reports what it read, and its run reports what it drew
def _warn_once(text: str) -> None:
    warn(text)


def _answers(spec: TaskSpec, train: Sequence[Example], dev: Sequence[Example]) -> str:
    """Return the kind of task, with the rows of each label in both splits."""
    if spec.number is not None:
        return f"a number from {spec.number.low:g} to {spec.number.high:g} (column {spec.label})"
    counts = [Counter(name for row in rows for name in _named(spec, row)) for rows in (train, dev)]
    listed = [f"{word} {counts[0][word]:,} + {counts[1][word]:,}" for word in spec.names]
    several = ", several per row" if spec.several else ""
    column = f"column{'s' * (len(spec.gold_columns) != 1)} {', '.join(spec.gold_columns)}{several}"
    if len(listed) > _LISTED:
        totals = [counts[0][word] + counts[1][word] for word in spec.names]
        span = f"{min(totals):,} to {max(totals):,}" if min(totals) < max(totals) else f"{totals[0]:,}"
        return f"{len(listed)} labels ({column}), {span} rows each"
    return f"{len(listed)} labels ({column}), rows in train + dev: {', '.join(listed)}"


def _named(spec: TaskSpec, row: Example) -> Sequence[Value | None]:
    return members(str(row.gold)) if spec.several and row.gold is not None else [row.gold]


def _wrapped(text: str, *, indent: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
