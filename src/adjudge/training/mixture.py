"""Several tasks in one training set: how many rows of each.

The number of rows of a task stands for its weight in training: every row that is drawn is used once an epoch, in batches of one task
each (see `adjudge.training.batches.Batches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

TEMPERATURE = "temperature="


@dataclass(frozen=True, slots=True)
class TaskRows:
    """A task and its rows: the share of it that a mixture trains on."""

    spec: TaskSpec
    rows: Sequence[Example]


def mixture_weights(sizes: Sequence[int], mixture: str) -> list[float]:
    """What tasks of these sizes weigh against each other; only the ratios count.

    ``proportional``: the size; ``equal``: 1; ``temperature=T``: size^(1/T), which is proportional at 1 and nears equal as T grows.
    Source: arXiv 1910.10683, section 3.5.2 (temperature-scaled mixing).
    """
    if mixture == "equal":
        return [1.0] * len(sizes)
    temperature = float(mixture.removeprefix(TEMPERATURE)) if mixture.startswith(TEMPERATURE) else 1.0
    return [size ** (1 / temperature) for size in sizes]


def rows_per_task(sizes: Sequence[int], mixture: str, total: int | None) -> list[int]:
    """How many rows of each task make a mixture of `total` rows, none of them twice.

    A task that has fewer rows than its share gives all of them, and the others share the rest by their weights. With `total` None: as many
    rows as there can be in exactly these shares (rounded).
    """
    weights = mixture_weights(sizes, mixture)
    if total is None:
        level = min(size / weight for size, weight in zip(sizes, weights, strict=True))
        return [min(size, round(level * weight)) for size, weight in zip(sizes, weights, strict=True)]
    return _round(_fill(sizes, weights, min(total, sum(sizes))), sizes)


def _fill(sizes: Sequence[int], weights: Sequence[float], total: int) -> list[float]:
    """Shares of `total` by weight, none above its size: what a full task cannot take goes to those that are not full."""
    shares = [0.0] * len(sizes)
    open_tasks, left = list(range(len(sizes))), float(total)
    while open_tasks:
        level = left / sum(weights[task] for task in open_tasks)
        full = [task for task in open_tasks if level * weights[task] >= sizes[task]]
        for task in full or open_tasks:
            shares[task] = float(sizes[task]) if full else level * weights[task]
        left -= sum(sizes[task] for task in full)
        open_tasks = [task for task in open_tasks if task not in full] if full else []
    return shares


def _round(shares: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """Whole numbers with the same sum: rounded down, then one more for the largest remainders, the first task first."""
    counts = [int(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda task: counts[task] - shares[task])
    missing = round(sum(shares)) - sum(counts)
    for task in [task for task in order if counts[task] < sizes[task]][:missing]:
        counts[task] += 1
    return counts
