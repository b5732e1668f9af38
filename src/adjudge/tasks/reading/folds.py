"""Deal a task's rows into folds for cross-validation.

Shapes: ``F`` folds. scikit-learn's StratifiedGroupKFold deals alike, but takes 6 s for 10,000 rows.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from adjudge.errors import ConfigError
from adjudge.tasks.reading.bad_rows import OnBadRows
from adjudge.tasks.reading.groups import keys_together
from adjudge.tasks.reading.located import located
from adjudge.tasks.reading.sources import load_split
from adjudge.tasks.reading.table import table_examples
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

MOST_BINS = 10
"""Number tasks are stratified over at most this many ranges with equally many rows."""


def has_own_dev(spec: TaskSpec) -> bool:
    """True if the task's dev rows are apart from its training rows, not split off the same table."""
    return spec.source.table is None or spec.source.table.dev is not None


def rows_to_fold(spec: TaskSpec, data_dir: str | None = None, bad_rows: OnBadRows = "error") -> list[Example]:
    """Return the rows that folds are made of.

    They are a table whole, or the training rows of a task with its own dev rows. Raises what `load_split` raises.
    """
    table = located(spec, data_dir, split="train").table
    if table is None or has_own_dev(spec):
        return load_split(spec, "train", data_dir, bad_rows)
    return table_examples(spec, Path(table.train), table.form, table.decimal, bad_rows)


def deal_folds(spec: TaskSpec, examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """Return the fold of each row, 1 to `folds`, with the labels (or ranges of numbers) spread evenly.

    Rows with equal texts, and rows of one group, share a fold: no fold's training rows hold a text it judges. The same
    rows, folds and seed give the same folds. Raises ConfigError when a label occurs in fewer texts than there are
    folds.
    """
    keys = keys_together(examples)
    _check_enough(spec, examples, keys, folds)
    units: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        units.setdefault(key, []).append(index)
    order = list(units)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda key: -len(units[key]))  # the single rows come last and even out the large units
    strata = _strata(examples, folds)
    total = Counter(strata)
    rows_F, rows_of_stratum_F = [0] * folds, [Counter[int]() for _ in range(folds)]
    fold_of = [0] * len(examples)
    for key in order:
        counts = Counter(strata[index] for index in units[key])
        shares_F = [sum(rows_of_stratum[s] / total[s] for s in counts) for rows_of_stratum in rows_of_stratum_F]
        least = min(range(folds), key=lambda fold: (shares_F[fold], rows_F[fold]))
        rows_F[least] += len(units[key])
        rows_of_stratum_F[least].update(counts)
        for index in units[key]:
            fold_of[index] = least + 1
    return fold_of


def _check_enough(spec: TaskSpec, examples: Sequence[Example], keys: Sequence[str], folds: int) -> None:
    kind = "groups" if any(example.group for example in examples) else "different texts"
    if len(set(keys)) < folds:
        raise ConfigError(f"{spec.name} has {len(set(keys))} {kind}, too few for {folds} folds.")
    if spec.is_number or spec.several:  # a set of labels may occur once
        return
    counts = Counter(gold for gold, _ in {(example.gold, key) for example, key in zip(examples, keys, strict=True)})
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < folds:
        use = f"Use --folds {count} or fewer, or add rows" if count > 1 else "Add rows, or join it with another label"
        raise ConfigError(
            f"{spec.name}: the label '{label}' has {count} {kind}, too few for {folds} folds: each fold needs one. "
            f"{use}."
        )


def _strata(examples: Sequence[Example], folds: int) -> list[int]:
    """Return the stratum of each row: its label, or the range its number is in."""
    golds = [example.gold for example in examples]
    if not all(isinstance(gold, int | float) for gold in golds):
        numbers = {gold: number for number, gold in enumerate(dict.fromkeys(golds))}
        return [numbers[gold] for gold in golds]
    bins = max(1, min(MOST_BINS, len(golds) // folds))
    order = sorted(range(len(golds)), key=lambda index: (golds[index], index))
    strata = [0] * len(golds)
    for rank, index in enumerate(order):
        strata[index] = math.floor(rank * bins / len(golds))
    return strata
