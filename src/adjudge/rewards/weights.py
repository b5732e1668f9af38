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


def balance_of(config: RewardConfig, spec: TaskSpec, golds: Sequence[Value | None]) -> dict[Value | None, float]:
    """Return `balanced_weights` of the training rows' golds if the settings balance rewards, else nothing.

    With rewards of +1 and −1, one of two labels for all rows then earns 0 on average. Without that, the label that is
    right most often is worth more than the other in every row, and the policy drifts towards it.
    """
    balance = config.is_plain and not (spec.is_number or spec.several) if config.balance is None else config.balance
    return balanced_weights(golds) if balance and golds else {}
