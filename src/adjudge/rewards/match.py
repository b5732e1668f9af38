"""The reward of a label: right, wrong or unreadable."""

from __future__ import annotations

from adjudge.config import RewardConfig
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
