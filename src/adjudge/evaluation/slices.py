"""Scores per slice: on the rows that share a tag of the user's, such as a topic, a source or a length.

A tag's cell may name several slices, separated by SEPARATOR; a row then counts in each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from adjudge.evaluation.statistics import Runs, metric_interval
from adjudge.system.console import warn
from adjudge.tasks.reading.groups import by_unit
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

SEPARATOR = "|"
MOST = 50
"""Slices of one tag that are scored: the largest. A column with more different values is hardly a tag."""


def slice_scores(spec: TaskSpec, runs: Runs, *, resamples: int, seed: int = 0) -> list[dict[str, Any]]:
    """Score one method's aligned runs on the rows of each slice, with every metric of the task.

    Returns one dict per slice, tag by tag in the order of ``spec.slices``, then by name: ``tag, slice, n, metrics``
    {name: {value, low, high}}, means over the runs. Rows without a value are the slice None, the last of its tag. Rows
    of one group stay together: the group is in every slice of its rows. Empty for a task without slices.
    """
    scores = []
    for tag in spec.slices:
        rows_of = _rows_by_slice(runs[0], tag)
        if not any(rows_of):  # None is the rows without a value
            continue
        for name in _largest(spec, tag, rows_of):
            part = [[run[index] for index in rows_of[name]] for run in runs]
            metrics = {metric: metric_interval(spec, metric, part, resamples, seed) for metric in spec.metrics}
            scores.append({"tag": tag, "slice": name, "n": len(rows_of[name]), "metrics": metrics})
    return scores


def names_in(cell: str) -> list[str]:
    """Return the slices that a cell names, each once."""
    return list(dict.fromkeys(name.strip() for name in cell.split(SEPARATOR) if name.strip()))


def _rows_by_slice(rows: Sequence[Prediction], tag: str) -> dict[str | None, list[int]]:
    rows_of: dict[str | None, list[int]] = {}
    for indices in by_unit(rows).values():
        names = {name for index in indices for name in names_in(rows[index].tags.get(tag, ""))}
        for name in names or (None,):
            rows_of.setdefault(name, []).extend(indices)
    return rows_of


def _largest(spec: TaskSpec, tag: str, rows_of: dict[str | None, list[int]]) -> list[str | None]:
    sizes = Counter({name: len(indices) for name, indices in rows_of.items() if name is not None})
    if len(sizes) > MOST:
        warn(f"{spec.name}: '{tag}' has {len(sizes):,} values; the {MOST} most frequent ones are scored as slices.")
    names = sorted(name for name, _ in sizes.most_common(MOST))
    return [*names, *([None] if None in rows_of else [])]
