"""The reward of a number: the closer to the gold answer, the higher."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from adjudge.tasks.spec import NumberAnswer
from adjudge.types import Judgement, Value


def numeric_reward(judgement: Judgement, gold: float, number: NumberAnswer) -> float:
    """Return range / 2 − |predicted − gold|, or −range / 2 (as for the farthest number) when unreadable.

    Source: arXiv 2410.11020 (STS-B, range 5: 2.5 − |p − g|, unreadable −2.5).
    """
    half = (number.high - number.low) / 2
    if judgement.value is None:
        return -half
    return half - abs(float(judgement.value) - gold)


class MeanRewards:
    """What each number would earn on average if it were the answer to every training row.

    Less that, one number for all rows earns 0, whichever it is. With a certain gold answer the best answer stays the
    same: a step towards it earns its size, and the average changes by no more.
    """

    def __init__(self, golds: Sequence[Value | None], number: NumberAnswer) -> None:
        self._golds = [float(gold) for gold in golds if gold is not None]
        self._number = number
        self._known: dict[float, float] = {}

    def of(self, judgement: Judgement) -> float:
        """Return the mean reward of the answer; 0 for an unreadable one."""
        if judgement.value is None:
            return 0.0
        value = float(judgement.value)
        if value not in self._known:
            self._known[value] = fmean(numeric_reward(judgement, gold, self._number) for gold in self._golds)
        return self._known[value]
