"""What a model keeps of earlier tasks while it learns later ones.

``R[i, j]`` is the figure on task j after stage i; row 0 is the untrained model, and stage i trains on task i. The
formulas of arXiv 2504.01241 could not be established; these are the usual ones of continual learning.

Shapes: ``T`` tasks, ``S`` resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adjudge.evaluation.statistics import LEVEL, resampled
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

Array = NDArray[Any]
FIGURES = ("acc", "bwt", "forgetting", "fwt", "learning")


def figures(R: Array) -> dict[str, Array]:
    """Return the five figures of matrices ``[…, T + 1, T]``; NaN where there are too few stages.

    acc         mean_j R[T, j]
    bwt         mean over j < T of R[T, j] − R[j, j]
    forgetting  mean over j < T of max over j ≤ i < T of R[i, j], minus R[T, j]
    fwt         mean over j ≥ 2 of R[j − 1, j] − R[0, j]
    learning    sum over j of R[j, j] − R[0, j]

    Sources: arXiv 1706.08840 (acc, bwt, fwt), arXiv 1801.10112 (forgetting).
    """
    tasks = R.shape[-1]
    undefined = np.full(R.shape[:-2], np.nan)
    if R.shape[-2] != tasks + 1:
        return {"acc": R[..., -1, :].mean(-1), **dict.fromkeys(FIGURES[1:], undefined)}
    last, just_learned = R[..., tasks, :], np.stack([R[..., j + 1, j] for j in range(tasks)], -1)
    result = {"acc": last.mean(-1), "learning": (just_learned - R[..., 0, :]).sum(-1)}
    if tasks == 1:
        return {**result, **dict.fromkeys(("bwt", "forgetting", "fwt"), undefined)}
    best = np.stack([R[..., j + 1 : tasks, j].max(-1) for j in range(tasks - 1)], -1)
    before = np.stack([R[..., j, j] for j in range(1, tasks)], -1)
    return {
        **result,
        "bwt": (last - just_learned)[..., :-1].mean(-1),
        "forgetting": (best - last[..., :-1]).mean(-1),
        "fwt": (before - R[..., 0, 1:]).mean(-1),
    }


def summary(
    specs: Sequence[TaskSpec],
    judged: Sequence[Mapping[str, Sequence[Prediction]]],
    resamples: int,
    metric: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return matrix, figures and their 95 % intervals.

    `judged` has the predictions of every task by name, before the first stage and after each. The figure of a task is
    its primary metric, or `metric`. Intervals are percentiles of the bootstrap over each task's rows; the stages of a
    resample share them. Values that are undefined are None.
    """
    values, drawn = [], []
    for spec in specs:
        name = metric or spec.primary
        value_K, value_KS = resampled(spec, name, [stage[spec.name] for stage in judged], resamples, seed)
        values.append(value_K)
        drawn.append(value_KS)
    R, R_S = np.stack(values, -1), np.moveaxis(np.stack(drawn, -1), 1, 0)
    tail = 100 * (1 - LEVEL) / 2
    result = figures(R)
    ends = {name: np.nanpercentile(each, [tail, 100 - tail]) for name, each in figures(R_S).items() if _known(each)}
    return {
        "R": [[_number(value) for value in row] for row in R],
        **{name: _number(result[name]) for name in FIGURES},
        "intervals": {name: [_number(end) for end in ends[name]] if name in ends else None for name in FIGURES},
    }


def _known(values: Array) -> bool:
    return not np.isnan(values).all()


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
