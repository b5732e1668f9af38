"""Weights of labels: the user's, and those that make rare and frequent labels count the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adjudge.config import RewardConfig
from adjudge.types import Value


def balanced_weights(golds: Sequence[Value | None]) -> dict[Value | None, float]:
    """Return rows / (labels × rows of the label) for each label among `golds`. The mean over rows is 1."""
    counts = Counter(golds)
    return {gold: len(golds) / (len(counts) * count) for gold, count in counts.items()}


def reward_weights(config: RewardConfig, golds: Sequence[Value | None]) -> dict[Value | None, float]:
    """Return the reward's factor per gold label; missing labels have 1. `golds` are the training rows'.

    With `balance`, and rewards of +1 and −1, one of two labels for all rows earns 0 on average.
    """
    named: dict[Value | None, float] = dict((config.weights or {}).items())
    if config.balance:
        return {gold: named.get(gold, 1.0) * weight for gold, weight in balanced_weights(golds).items()}
    return named
