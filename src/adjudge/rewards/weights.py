"""Weights of labels: the user's, and those that make rare and frequent labels count the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adjudge.config import RewardConfig
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Value


def balanced_weights(golds: Sequence[Value | None]) -> dict[Value | None, float]:
    """Return rows / (labels × rows of the label) for each label among `golds`. The mean over rows is 1."""
    counts = Counter(golds)
    return {gold: len(golds) / (len(counts) * count) for gold, count in counts.items()}


def is_balanced(config: RewardConfig, spec: TaskSpec) -> bool:
    """Return whether one answer for all rows is to earn nothing.

    With rewards of +1 and −1 and `balanced_weights`, one of two labels for all rows earns 0 on average. Without, the
    label that is right most often is worth more than the other in every row, and the policy drifts towards it. Numbers
    drift to the one that is nearest to all, unless they are paid less what they earn on average (`MeanRewards`).
    """
    return config.is_plain and not spec.several if config.balance is None else config.balance
