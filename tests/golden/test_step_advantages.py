"""Advantages of the steps of an answer: values by hand, and the equivalences of VinePPO."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from adjudge.rl.advantages import gae, step_advantages
from adjudge.rl.losses import expected_reward

P = 0.6
"""Probability of the right one of two labels."""


def advantages(score: float, values: list[float], lengths: list[int]) -> Tensor:
    """Return the advantages of one answer whose steps have these values and numbers of tokens."""
    step_BR = torch.tensor([[step for step, length in enumerate(lengths) for _ in range(length)]])
    mask_BR = torch.ones_like(step_BR, dtype=torch.bool)
    return step_advantages(
        torch.tensor([score]), torch.tensor([values]), torch.tensor([len(values)]), step_BR, mask_BR
    )[0]


def test_by_hand() -> None:
    """K = 9: three continuations of the prompt and six of the first step are right, and so is the answer."""
    torch.testing.assert_close(advantages(1.0, [3 / 9, 6 / 9], [1, 1]), torch.tensor([0.333333, 0.333333]))


def test_every_token_of_a_step_has_the_advantage_of_the_step() -> None:
    found = advantages(-1.0, [0.5, 0.25, -0.5], [3, 1, 2])
    torch.testing.assert_close(found, torch.tensor([-0.25, -0.25, -0.25, -0.75, -0.5, -0.5]))


@pytest.mark.parametrize("values", [[3 / 9, 6 / 9], [0.2], [0.1, -2.0, 0.7, 0.4]])
def test_the_steps_sum_to_the_score_minus_the_first_value(values: list[float]) -> None:
    assert advantages(1.0, values, [1] * len(values)).sum().item() == pytest.approx(1 - values[0], abs=1e-6)


def test_one_step_is_reinforce_with_an_independent_baseline() -> None:
    assert advantages(1.0, [0.25], [4]).tolist() == [0.75] * 4


def test_it_is_gae_over_steps_without_lambda() -> None:
    values = [0.1, -2.0, 0.7]
    reward = torch.tensor([[0.0, 0.0, 1.0]])
    expected, _ = gae(reward, torch.tensor([values]), torch.ones(1, 3, dtype=torch.bool), 1.0, 0.0)
    torch.testing.assert_close(advantages(1.0, values, [1, 1, 1]), expected[0])


def test_answers_of_unlike_numbers_of_steps_and_tokens() -> None:
    value_BS = torch.tensor([[0.5, 0.0], [0.25, 0.75]])
    step_BR = torch.tensor([[0, 0, 0], [0, 0, 1]])
    mask_BR = torch.tensor([[True, False, False], [True, True, True]])
    found = step_advantages(torch.tensor([1.0, 0.0]), value_BS, torch.tensor([1, 2]), step_BR, mask_BR)
    assert found.tolist() == [[0.5, 0.0, 0.0], [0.5, 0.5, -0.75]]


def test_a_step_without_tokens_is_nobodys() -> None:
    """An empty analysis: the judgement alone has tokens, and its step begins at the second value."""
    mask_BR = torch.ones(1, 2, dtype=torch.bool)
    step_BR = torch.ones(1, 2, dtype=torch.long)
    found = step_advantages(torch.ones(1), torch.tensor([[0.1, 0.4]]), torch.tensor([2]), step_BR, mask_BR)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.6]]))


def test_the_mean_over_continuations_is_the_exact_baseline() -> None:
    """One label token, rewards 0 and 1: over all K-tuples of continuations, E V = Σ p r."""
    exact = expected_reward(torch.tensor([[P, 1 - P]]).log(), torch.tensor([[1.0, 0.0]]), 0.0)
    for count in (1, 3, 5):
        mean = 0.0
        for drawn in itertools.product([0, 1], repeat=count):
            chance = torch.tensor([P if label == 0 else 1 - P for label in drawn]).prod()
            value = sum(label == 0 for label in drawn) / count
            mean += float(chance * advantages(1.0, [value], [1])[0])
        assert mean == pytest.approx(1 - float(exact[0]), abs=1e-5)
