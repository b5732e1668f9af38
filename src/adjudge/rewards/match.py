"""The reward of a label: right, wrong or unreadable."""

from __future__ import annotations

from adjudge.config import RewardConfig
from adjudge.tasks.scoring.sets import overlap
from adjudge.types import Judgement


def match_reward(judgement: Judgement, gold: str, config: RewardConfig) -> float:
    """Return `config.right`, `config.wrong` or `config.unreadable`. Source: arXiv 2410.11020 (+1, −1, −3).

    A pair of gold and answered label in `config.costs` has its own reward.
    """
    if judgement.value is None:
        return config.unreadable
    if config.costs and gold in config.costs and judgement.value in config.costs[gold]:
        return config.costs[gold][str(judgement.value)]
    return config.right if judgement.value == gold else config.wrong


def set_reward(judgement: Judgement, gold: str, config: RewardConfig) -> float:
    """Return the reward of a set of labels: between `config.wrong` and `config.right` by its likeness to the gold set.

    F1 is 2 |both| / (|gold| + |answer|), the Jaccard index |both| / |either|; of two empty sets both are 1.
    """
    if judgement.value is None or config.sets == "exact":
        return match_reward(judgement, gold, config)
    both, extra, missing = overlap(gold, str(judgement.value))
    twice = 2 if config.sets == "f1" else 1
    below = twice * both + extra + missing
    return config.wrong + (config.right - config.wrong) * (twice * both / below if below else 1.0)
