"""The reward that a reward model gives: what each label earns in each training row.

The model is frozen and rows have few labels, so it rates all of them once, before training, and is then not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement

LEARNED = "learned"
"""What the mean of this reward is called among a run's logged rewards."""


class LearnedReward:
    """The rewards of a task's labels, by row.

    A reward model learns differences between answers to one prompt. What it adds to all of them is arbitrary, so each
    row's mean is taken off; then all are divided by their standard deviation, if they are not all equal.
    """

    def __init__(self, spec: TaskSpec, ids: Sequence[str], rewards: Sequence[Sequence[float]]) -> None:
        self._words = spec.words
        centred = [[reward - fmean(row) for reward in row] for row in rewards]
        deviation = fmean([reward**2 for row in centred for reward in row] or [0.0]) ** 0.5
        self._of_row: Mapping[str, list[float]] = {
            row: [reward / deviation if deviation > 1e-8 else 0.0 for reward in each]
            for row, each in zip(ids, centred, strict=True)
        }

    def of(self, example: Example, judgement: Judgement) -> float | None:
        """Return the reward of an answer; None for an unreadable one."""
        if judgement.value is None:
            return None
        return self._of_row[example.id][self._words.index(str(judgement.value))]


def mixed_reward(learned: float, other: float, threshold: float) -> float:
    """Return the learned reward up to a threshold, plus another one, which alone counts beyond it.

    Source: arXiv 2405.19763 (RLLR-mixed), where the other is a reward model of rationales.
    """
    return min(learned, threshold) + other
