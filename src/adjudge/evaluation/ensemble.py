"""A weighted ensemble of judges of one label task, its weights fitted on held-out rows.

p(label | row) = Σ_k a_k p_k(label | row), with a on the simplex. The answer is the likeliest label.

Shapes: ``N`` rows, ``K`` experts.
Source: expectation maximisation for the weights of a fixed mixture (Dempster, Laird and Rubin 1977).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adjudge.system.memory import free_dropped
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge

Array = NDArray[Any]
LEAST_WEIGHT = 0.05
"""An expert of less weight is left out, and the weights of the others are fitted again."""
STEPS, TOLERANCE = 1000, 1e-6
"""The fit ends after so many steps, or once no weight changes by more."""


def em_step(weight_K: Array, gold_NK: Array) -> Array:
    """Return the weights after one step: each expert's mean responsibility for the rows.

    `gold_NK` has each expert's probability of each row's right answer. A row that all find impossible has no say.
    """
    joint_NK = weight_K * gold_NK
    total_N = joint_NK.sum(1)
    possible = total_N > 0
    if not possible.any():
        return weight_K
    share_NK: Array = joint_NK[possible] / total_N[possible, None]
    return share_NK.mean(0)


def fit_weights(gold_NK: Array, least: float = LEAST_WEIGHT) -> Array:
    """Return the weights that make the right answers likeliest, ``[K]``; 0 for an expert below `least`."""
    kept = np.ones(gold_NK.shape[1], dtype=bool)
    while True:
        weight_K = np.where(kept, 1 / kept.sum(), 0.0)
        for _ in range(STEPS):
            before, weight_K = weight_K, em_step(weight_K, gold_NK)
            if np.abs(weight_K - before).max() < TOLERANCE:
                break
        small = kept & (weight_K < least)
        if not small.any() or kept.sum() == 1:
            return weight_K
        kept[np.where(small, weight_K, np.inf).argmin()] = False  # one at a time: another may gain by it


def mix(spec: TaskSpec, weights: Sequence[float], parts: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """Return the ensemble's predictions from those of its experts, which have probabilities."""
    mixed = []
    for row in zip(*parts, strict=True):
        shares = {
            word: sum(weight * each.probabilities[word] for weight, each in zip(weights, row, strict=True))
            for word in spec.words
        }
        word = max(shares, key=lambda word: shares[word])
        first = row[0]
        example = Example(first.id, first.fields, first.gold, first.group, first.tags)
        mixed.append(Prediction.of(example, word, word, shares))
    return mixed


class EnsembleJudge:
    """Experts, each loaded when it is asked and dropped again, so that one of them is in memory at a time."""

    def __init__(self, spec: TaskSpec, experts: Mapping[str, Callable[[], Judge]], weights: Sequence[float]) -> None:
        """`experts` are loaded by their functions, by name; `weights` are theirs, in order."""
        self.spec, self.experts, self.weights = spec, experts, weights

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row by the weighted probabilities; see `Judge.judge`.

        Every prediction has its probabilities.
        """
        parts = [ask(load, examples, f"{title}, {name}") for name, load in self.experts.items()]
        return mix(self.spec, self.weights, parts)


def ask(load: Callable[[], Judge], examples: Sequence[Example], title: str) -> list[Prediction]:
    """Return an expert's predictions, with probabilities. Nothing of the expert stays in memory."""
    predictions = load().judge(examples, probabilities=True, title=title)
    free_dropped()
    return predictions


def gold_probabilities(parts: Sequence[Sequence[Prediction]]) -> Array:
    """Return each expert's probability of each row's right answer, ``[N, K]``. Every row has one."""
    return np.array([[each.probabilities[str(each.gold)] for each in row] for row in zip(*parts, strict=True)])
