"""The reward that a reward model gives: what each label earns in each training row.

The model is frozen and rows have few labels, so it rates all of them once, before training, and is then not needed.
Only analyses before the judgement are rated while they are sampled (`adjudge.rollout.answer_ratings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Protocol

from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement

LEARNED = "learned"
"""What the mean of this reward is called among a run's logged rewards."""


class Ratings(Protocol):
    """What a reward model gives answers."""

    @property
    def rates_labels(self) -> bool:
        """True if it rates which label is right, False if it rates analyses."""

    def of_answers(
        self, examples: Sequence[Example], judgements: Sequence[Judgement], openings: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """Return the reward of each answer; None for an unreadable one.

        `openings` are the analyses, as token ids.
        """


class LearnedReward:
    """The rewards of a task's labels, by row.

    A reward model learns differences between answers to one prompt. What it adds to all of them is arbitrary, so each
    row's mean is taken off; then all are divided by their standard deviation, if they are not all equal.
    """

    rates_labels = True

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

    def of_answers(
        self, examples: Sequence[Example], judgements: Sequence[Judgement], openings: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """Return the reward of each answer by its row and label; None for an unreadable one."""
        return [self.of(*answer) for answer in zip(examples, judgements, strict=True)]


def mixed_reward(label: float, other: float, threshold: float) -> float:
    """Return the reward of the label up to a threshold, plus another one, which alone counts beyond it.

    Source: arXiv 2405.19763 (RLLR-mixed), where the other is a reward model of rationales.
    """
    return min(label, threshold) + other
