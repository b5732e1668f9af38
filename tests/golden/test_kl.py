"""KL rewards and the controller of beta against hand-computed cases."""

import json

import pytest
import torch

from adjudge.rl.kl import AdaptiveKL, token_rewards


def test_the_score_stands_at_the_last_real_token_and_the_penalty_at_each():
    logp = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -1.0, -1.5]])
    ref = torch.tensor([[-1.5, -1.0, -1.0], [-0.5, -1.5, -1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    reward = token_rewards(torch.tensor([1.0, -3.0]), logp, ref, mask, beta=0.5)
    # Row 0: −½·½, then −½·(−1) + 1; row 1: 0, −½·½, −½·(−½) − 3.
    assert reward.tolist() == [[-0.25, 1.5, 0.0], [0.0, -0.25, -2.75]]


def test_equal_policies_pay_nothing_and_rewards_sum_to_the_scores():
    logp = torch.tensor([[-1.0, -2.0]])
    assert token_rewards(torch.tensor([1.0]), logp, logp, torch.ones(1, 2, dtype=torch.bool), 0.2).tolist() == [
        [0.0, 1.0]
    ]


def test_padding_of_any_content_has_no_influence():
    mask = torch.tensor([[True, False]])
    reward = token_rewards(
        torch.tensor([1.0]), torch.tensor([[-1.0, float("nan")]]), torch.tensor([[-2.0, -1.0]]), mask, 0.1
    )
    torch.testing.assert_close(reward, torch.tensor([[0.9, 0.0]]))


def test_no_gradient_flows_through_rewards():
    logp = torch.zeros(1, 2, requires_grad=True)
    assert not token_rewards(torch.ones(1), logp, logp, torch.ones(1, 2, dtype=torch.bool), 0.2).requires_grad


def test_a_score_is_never_lost():
    with pytest.raises(ValueError, match="response 1 has no token"):
        token_rewards(torch.ones(2), torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[True], [False]]), 0.1)
    with pytest.raises(ValueError, match="scores for 2 responses"):
        token_rewards(torch.ones(1), torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool), 0.1)
    with pytest.raises(ValueError, match="padded on the right"):
        token_rewards(torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[False, True]]), 0.1)


def test_beta_moves_in_proportion_within_its_limits():
    control = AdaptiveKL(0.2, target=6.0, horizon=10_000)
    control.update(6.0, steps=16)
    assert control.beta == 0.2
    control.update(6.6, steps=1000)  # 10 % too much: 0.2 (1 + 0.1 · 0.1)
    assert control.beta == pytest.approx(0.202)
    control.update(60.0, steps=1000)  # clipped to 20 %
    assert control.beta == pytest.approx(0.202 * 1.02)
    control.update(0.0, steps=1000)
    assert control.beta == pytest.approx(0.202 * 1.02 * 0.98)


def test_beta_stays_positive_with_a_horizon_shorter_than_a_batch():
    control = AdaptiveKL(0.2, target=6.0, horizon=1)
    for _ in range(50):
        control.update(0.0, steps=16)
    assert 0 < control.beta < 0.2


def test_without_a_target_beta_is_fixed():
    control = AdaptiveKL(0.05, target=None, horizon=100)
    control.update(1e6, steps=100)
    assert control.beta == 0.05


def test_the_state_survives_json_exactly():
    control = AdaptiveKL(0.2, target=6.0, horizon=10_000)
    for kl in (0.1, 7.3, 5.9):
        control.update(kl, steps=16)
    resumed = AdaptiveKL(0.2, target=6.0, horizon=10_000)
    resumed.load_state_dict(json.loads(json.dumps(control.state_dict())))
    for one in (control, resumed):
        one.update(6.7, steps=16)
    assert control.beta == resumed.beta


def test_impossible_settings_and_a_kl_that_is_not_finite_are_refused():
    for wrong in ((-0.1, 6.0, 10), (0.1, 0.0, 10), (0.1, 6.0, 0)):
        with pytest.raises(ValueError, match="beta"):
            AdaptiveKL(*wrong)
    with pytest.raises(ValueError, match="nan"):
        AdaptiveKL(0.1, 6.0, 10).update(float("nan"), 1)
