"""Rewards of a mixture of tasks on different scales, by hand.

Every task gets four answers of one token each. For STS-B they are 0, 2, 4 and 0 away from the gold number; for a label
task they are right, wrong, wrong and right.
"""

import pytest
import torch
from specs import label_task, number_task

from adjudge.config import RewardConfig
from adjudge.rewards.score import reward_scale, rewards
from adjudge.rl.advantages import gae, whiten
from adjudge.rl.kl import token_rewards
from adjudge.types import Judgement

CONFIG = RewardConfig()
LABELS, STSB, PERCENT = label_task("No", "Yes"), number_task(0, 5), number_task(0, 100)
MASK = torch.ones(4, 1, dtype=torch.bool)


def advantages(scores, beta=0.0, kl=0.0):
    """Return advantages and returns of one-token answers, with all values 0."""
    logp = torch.full((4, 1), kl)
    reward = token_rewards(torch.tensor(scores), logp, torch.zeros(4, 1), MASK, beta)
    advantage, returned = gae(reward, torch.zeros(4, 1), MASK, 1.0, 0.95)
    return whiten(advantage, MASK).squeeze(1).tolist(), returned.squeeze(1).tolist()


def scores(spec, values, golds, divided=True):
    rewarded = rewards([Judgement(str(value), value) for value in values], golds, spec, CONFIG)
    return [score / reward_scale(spec, CONFIG) for score in rewarded] if divided else rewarded


def test_rewards_of_three_tasks_on_one_scale():
    assert scores(STSB, [4.0, 2.0, 0.0, 4.0], [4.0] * 4, divided=False) == [2.5, 0.5, -1.5, 2.5]
    assert scores(STSB, [4.0, 2.0, 0.0, 4.0], [4.0] * 4) == pytest.approx([1.0, 0.2, -0.6, 1.0])
    assert scores(PERCENT, [80.0, 40.0, 0.0, 80.0], [80.0] * 4, divided=False) == [50.0, 10.0, -30.0, 50.0]
    assert scores(PERCENT, [80.0, 40.0, 0.0, 80.0], [80.0] * 4) == pytest.approx([1.0, 0.2, -0.6, 1.0])
    assert scores(LABELS, ["Yes", "No", "No", "Yes"], ["Yes"] * 4) == [1.0, -1.0, -1.0, 1.0]


def test_advantages_are_whitened_within_a_task():
    # STS-B: the mean is 0.4, the deviations are 0.6, −0.2, −1 and 0.6, and their mean square is 0.44
    deviation = 0.44**0.5
    numbers, _ = advantages(scores(STSB, [4.0, 2.0, 0.0, 4.0], [4.0] * 4))
    assert numbers == pytest.approx([0.6 / deviation, -0.2 / deviation, -1 / deviation, 0.6 / deviation], abs=1e-6)
    percent, _ = advantages(scores(PERCENT, [80.0, 40.0, 0.0, 80.0], [80.0] * 4, divided=False))
    assert percent == pytest.approx(numbers, abs=1e-6), "advantages do not depend on the task's scale, divided or not"
    labels, _ = advantages(scores(LABELS, ["Yes", "No", "No", "Yes"], ["Yes"] * 4))
    assert labels == pytest.approx([1.0, -1.0, -1.0, 1.0], abs=1e-6)


def test_penalty_and_value_loss_use_one_scale():
    """With beta 0.05 a log-ratio of 2 nats costs 0.1 where rewards reach 1 in each task, not 0.1 of 50."""
    for spec, values, golds in (
        (STSB, [4.0, 2.0, 0.0, 4.0], [4.0] * 4),
        (PERCENT, [80.0, 40.0, 0.0, 80.0], [80.0] * 4),
    ):
        _, returned = advantages(scores(spec, values, golds), beta=0.05, kl=2.0)
        assert returned == pytest.approx([0.9, 0.1, -0.7, 0.9], abs=1e-6)
    _, undivided = advantages(scores(PERCENT, [80.0, 40.0, 0.0, 80.0], [80.0] * 4, divided=False), beta=0.05, kl=2.0)
    assert undivided == pytest.approx([49.9, 9.9, -30.1, 49.9], abs=1e-4)
