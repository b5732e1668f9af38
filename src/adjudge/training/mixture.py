"""Several tasks in one training set: how many rows each task gives.

A task's number of rows is its weight in training: every drawn row is used once per epoch, in batches of one task each
(see `adjudge.training.batches.Batches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adjudge.config import DataConfig
from adjudge.errors import ConfigError
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Value

TEMPERATURE = "temperature="
ROWS = "rows="
"""How a mixture begins that names the number of rows of each task, in the tasks' order."""


@dataclass(frozen=True, slots=True)
class TaskRows:
    """A task and the rows of it to train on."""

    spec: TaskSpec
    rows: Sequence[Example]


def sampling_labels(parts: Sequence[TaskRows], config: DataConfig) -> list[dict[str, Value | None]] | None:
    """Return the label of each row by its id, per task, where `data.sampling` balances them; else None."""
    if config.sampling == "all":
        return None
    return [{row.id: row.gold for row in part.rows} for part in parts]


def mixture_weights(sizes: Sequence[int], mixture: str) -> list[float]:
    """Return the relative weight of each task; only the ratios count.

    ``proportional`` is the task's size, ``equal`` is 1, and ``temperature=T`` is size^(1/T): proportional at T = 1, and
    close to equal for large T.
    Source: arXiv 1910.10683, section 3.5.2 (temperature-scaled mixing).
    """
    if mixture == "equal":
        return [1.0] * len(sizes)
    temperature = float(mixture.removeprefix(TEMPERATURE)) if mixture.startswith(TEMPERATURE) else 1.0
    return [size ** (1 / temperature) for size in sizes]


def rows_per_task(sizes: Sequence[int], mixture: str, total: int | None) -> list[int]:
    """Return how many rows each task gives to a mixture of `total` rows, without repeating a row.

    A task with fewer rows than its share gives all of them, and the others share the rest by their weights. With
    `total` None, return the largest mixture in exactly these shares (rounded). Numbers of rows that the mixture names
    are taken as they are. Raises ConfigError when they are not one per task, or more than a task has.
    """
    if mixture.startswith(ROWS):
        return _named_rows(sizes, mixture)
    weights = mixture_weights(sizes, mixture)
    if total is None:
        level = min(size / weight for size, weight in zip(sizes, weights, strict=True))
        return [min(size, round(level * weight)) for size, weight in zip(sizes, weights, strict=True)]
    return _round(_fill(sizes, weights, min(total, sum(sizes))), sizes)


def _named_rows(sizes: Sequence[int], mixture: str) -> list[int]:
    counts = [int(count) for count in mixture.removeprefix(ROWS).split(",")]
    if len(counts) != len(sizes):
        raise ConfigError(
            f"data.mixture={mixture} has {len(counts)} numbers for {len(sizes)} tasks: write one per task."
        )
    for count, size in zip(counts, sizes, strict=True):
        if count > size:
            raise ConfigError(f"data.mixture={mixture} asks for {count:,} rows of a task that has {size:,}.")
    return counts


def _fill(sizes: Sequence[int], weights: Sequence[float], total: int) -> list[float]:
    """Split `total` by weight, giving no task more than its size.

    Rows which a full task cannot give are shared among the tasks that still have rows.
    """
    shares = [0.0] * len(sizes)
    open_tasks, remaining = list(range(len(sizes))), float(total)
    while open_tasks:
        level = remaining / sum(weights[task] for task in open_tasks)
        full = [task for task in open_tasks if level * weights[task] >= sizes[task]]
        for task in full or open_tasks:
            shares[task] = float(sizes[task]) if full else level * weights[task]
        remaining -= sum(sizes[task] for task in full)
        open_tasks = [task for task in open_tasks if task not in full] if full else []
    return shares


def _round(shares: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """Return whole numbers with the same sum as `shares`.

    Shares are rounded down, then the largest remainders get one more; of equal remainders the first task comes first.
    """
    counts = [int(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda task: counts[task] - shares[task])
    missing = round(sum(shares)) - sum(counts)
    for task in [task for task in order if counts[task] < sizes[task]][:missing]:
        counts[task] += 1
    return counts
