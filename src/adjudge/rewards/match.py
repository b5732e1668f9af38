"""The reward of a label: right, wrong or unreadable; of labels in an order, by the distance."""

from __future__ import annotations

from adjudge.config import RewardConfig
from adjudge.tasks.scoring.sets import overlap
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement


def match_reward(judgement: Judgement, gold: str, spec: TaskSpec, config: RewardConfig) -> float:
    """Return `config.right`, `config.wrong` or `config.unreadable`. Source: arXiv 2410.11020 (+1, −1, −3).

    A pair of gold and answered label in `config.costs` has its own reward. Of labels in an order, a wrong one pays
    right − (right − wrong) · d, where d is its distance from the gold label over the largest there is, or the square.
    """
    if judgement.value is None:
        return config.unreadable
    answer = str(judgement.value)
    if config.costs and gold in config.costs and answer in config.costs[gold]:
        return config.costs[gold][answer]
    if answer == gold or not spec.ordered or config.distance == "none":
        return config.right if answer == gold else config.wrong
    share = abs(spec.words.index(answer) - spec.words.index(gold)) / (len(spec.words) - 1)
    return config.right - (config.right - config.wrong) * (share**2 if config.distance == "quadratic" else share)


def set_reward(judgement: Judgement, gold: str, spec: TaskSpec, config: RewardConfig) -> float:
    """Return the reward of a set of labels by its likeness to the gold set.

    It lies between `config.wrong` and `config.right`. F1 is 2 |both| / (|gold| + |answer|), the Jaccard index |both| /
    |either|; of two empty sets both are 1.
    """
    if judgement.value is None or config.sets == "exact":
        return match_reward(judgement, gold, spec, config)
    both, extra, missing = overlap(gold, str(judgement.value))
    twice = 2 if config.sets == "f1" else 1
    below = twice * both + extra + missing
    return config.wrong + (config.right - config.wrong) * (twice * both / below if below else 1.0)
