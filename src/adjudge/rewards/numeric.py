"""The reward of a number: the closer to the gold answer, the higher."""

from __future__ import annotations

from adjudge.tasks.spec import NumberAnswer
from adjudge.types import Judgement


def numeric_reward(judgement: Judgement, gold: float, number: NumberAnswer) -> float:
    """Return range / 2 − |predicted − gold|, or −range / 2 (as for the farthest number) when unreadable.

    Source: arXiv 2410.11020 (STS-B, range 5: 2.5 − |p − g|, unreadable −2.5).
    """
    half = (number.high - number.low) / 2
    if judgement.value is None:
        return -half
    return half - abs(float(judgement.value) - gold)
