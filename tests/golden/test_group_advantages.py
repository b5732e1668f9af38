"""Group advantages and the exact gradient: values by hand, and expectations by enumeration of all groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from adjudge.config import GrpoConfig
from adjudge.methods.grpo import token_weights
from adjudge.rl.advantages import group_relative, leave_one_out, per_token, tied, whiten
from adjudge.rl.kl import label_kl, reference_kl, with_other
from adjudge.rl.losses import expected_reward, label_objective, policy_loss

SCORES = torch.tensor([1.0, -1.0, -1.0, -1.0])
P = 0.6
"""Probability of the right one of two labels, in the tests by enumeration."""


def test_advantages_of_a_group_by_hand() -> None:
    # Mean −½, population deviation √3 / 2.
    torch.testing.assert_close(group_relative(SCORES, 4), torch.tensor([1.732051, *[-0.577350] * 3]))
    torch.testing.assert_close(group_relative(SCORES, 4, scale=False), torch.tensor([1.5, -0.5, -0.5, -0.5]))
    torch.testing.assert_close(leave_one_out(SCORES, 4), torch.tensor([2.0, *[-2 / 3] * 3]))


def test_whitening_one_group_of_one_token_answers_is_grpo() -> None:
    mask_B1 = torch.ones(4, 1, dtype=torch.bool)
    torch.testing.assert_close(whiten(SCORES[:, None], mask_B1)[:, 0], group_relative(SCORES, 4))


def test_two_answers_have_a_sign_only() -> None:
    scores = torch.tensor([0.3, 0.2, -5.0, 7.0, 1.0, 1.0])
    expected = torch.tensor([1.0, -1.0, -1.0, 1.0, 0.0, 0.0])
    torch.testing.assert_close(group_relative(scores, 2), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_unscaled_grpo_is_rloo_up_to_a_factor(samples: int) -> None:
    scores = torch.randn(4 * samples, generator=torch.Generator().manual_seed(samples))
    unscaled = group_relative(scores, samples, scale=False)
    torch.testing.assert_close(unscaled * samples / (samples - 1), leave_one_out(scores, samples))
    others = torch.stack(
        [torch.cat([group[:i], group[i + 1 :]]) for group in scores.split(samples) for i in range(samples)]
    )
    torch.testing.assert_close(leave_one_out(scores, samples), scores - others.mean(1))


def test_groups_do_not_mix() -> None:
    both = torch.cat([SCORES, SCORES + 10])
    for advantage in (group_relative(both, 4), leave_one_out(both, 4)):
        torch.testing.assert_close(advantage[:4], advantage[4:])


def test_a_tied_group_teaches_nothing() -> None:
    scores = torch.tensor([0.3, 0.3, 1.0, -1.0])
    assert tied(scores, 2).tolist() == [True, True, False, False]
    assert group_relative(scores, 2)[:2].tolist() == [0.0, 0.0]
    assert leave_one_out(scores, 2)[:2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("samples", [1, 3])
def test_what_is_no_group_is_refused(samples: int) -> None:
    with pytest.raises(ValueError, match="groups"):
        leave_one_out(SCORES, samples)


def aggregated(variant: str) -> float:
    """Return the loss of two answers of 1 and 3 tokens with advantages +1 and −1 at ratio 1."""
    mask_BR = torch.tensor([[True, False, False], [True, True, True]])
    weight_BR = token_weights(mask_BR, torch.tensor([1.0, -1.0]), 4, GrpoConfig(variant=variant, samples=2))
    advantage_BR = per_token(torch.tensor([1.0, -1.0]), mask_BR) * weight_BR
    zeros_BR = torch.zeros(2, 3)
    return policy_loss(zeros_BR, zeros_BR, advantage_BR, mask_BR, 0.2).loss.item()


def test_the_means_of_the_variants() -> None:
    """Per answer: 0. Over tokens: (−1 + 3) / 4. A constant length of 4: (−1 + 3) / (2 · 4)."""
    assert aggregated("grpo") == pytest.approx(0.0, abs=1e-6)
    assert aggregated("dapo") == pytest.approx(0.5)
    assert aggregated("dr-grpo") == pytest.approx(0.25)


def test_without_ties_and_with_equal_clips_dapo_is_the_mean_over_tokens() -> None:
    mask_BR = torch.tensor([[True, False, False], [True, True, True], [True, True, False], [True, False, False]])
    score_B = torch.tensor([1.0, -1.0, 0.5, 0.2])
    weight_BR = token_weights(mask_BR, score_B, 4, GrpoConfig(variant="dapo", samples=2))
    assert torch.equal(weight_BR, mask_BR.float())
    generator = torch.Generator().manual_seed(0)
    new_BR, old_BR = 0.5 * torch.randn(2, 4, 3, generator=generator)
    advantage_BR = per_token(group_relative(score_B, 2), mask_BR)
    dapo = policy_loss(new_BR, old_BR, advantage_BR * weight_BR, mask_BR, 0.2, clip_high=0.2).loss
    ratio_BR = (new_BR - old_BR).exp()
    surrogate_BR = torch.minimum(advantage_BR * ratio_BR, advantage_BR * ratio_BR.clamp(0.8, 1.2))
    torch.testing.assert_close(dapo, -surrogate_BR[mask_BR].mean())


def test_answers_of_one_length_have_one_mean_up_to_a_constant() -> None:
    mask_BR = torch.ones(4, 2, dtype=torch.bool)
    for variant, constant in (("grpo", 1.0), ("dapo", 1.0), ("dr-grpo", 2 / 5)):
        weight_BR = token_weights(mask_BR, SCORES, 5, GrpoConfig(variant=variant, samples=4))
        torch.testing.assert_close(weight_BR, torch.full((4, 2), constant))


def test_dapo_drops_tied_groups_and_takes_the_mean_over_the_rest() -> None:
    mask_BR = torch.ones(4, 2, dtype=torch.bool)
    config = GrpoConfig(variant="dapo", samples=2)
    weight_BR = token_weights(mask_BR, torch.tensor([1.0, 1.0, 1.0, -1.0]), 4, config)
    assert weight_BR.tolist() == [[0.0, 0.0], [0.0, 0.0], [2.0, 2.0], [2.0, 2.0]]
    none_BR = token_weights(mask_BR, torch.ones(4), 4, config)
    assert none_BR.abs().sum() == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip_high", "loss"),
    [(1.25, 1.0, None, -1.2), (1.25, 1.0, 0.28, -1.25), (1.3, 1.0, 0.28, -1.28), (0.7, -1.0, 0.28, 0.8)],
)
def test_the_upper_clip_may_be_wider(ratio: float, advantage: float, clip_high: float | None, loss: float) -> None:
    new, old, mask = torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    found = policy_loss(new, old, torch.tensor([[advantage]]), mask, 0.2, clip_high=clip_high)
    assert found.loss.item() == pytest.approx(loss)


def test_the_kl_in_the_loss_by_hand() -> None:
    mask = torch.tensor([[True, True, False]])
    kl = reference_kl(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[-0.2, 0.0, 1.0]]), mask)
    torch.testing.assert_close(kl, torch.tensor([[0.018731, 0.0, 0.0]]), atol=1e-6, rtol=0)


def exact_gradient(logits: Tensor, transform: str = "p") -> Tensor:
    leaf = logits.clone().requires_grad_()
    label_objective(leaf.log_softmax(-1)[None], torch.tensor([[1.0, -1.0]]), -3.0, transform).sum().backward()
    return leaf.grad


def test_the_exact_objective_by_hand() -> None:
    reward = torch.tensor([[1.0, -1.0]])
    logp = torch.tensor([[0.6, 0.4]]).log()
    assert expected_reward(logp, reward, -3.0).item() == pytest.approx(0.2, abs=1e-6)
    assert expected_reward(torch.tensor([[0.5, 0.3]]).log(), reward, -3.0).item() == pytest.approx(-0.4)
    torch.testing.assert_close(exact_gradient(logp[0]), torch.tensor([0.48, -0.48]))
    kl = label_kl(logp, torch.tensor([[0.5, 0.5]]).log()).item()
    assert kl == pytest.approx(0.020136, abs=2e-6)
    assert 0.05 * kl - 0.2 == pytest.approx(-0.198993, abs=1e-6)


def test_the_transforms_by_hand() -> None:
    """Of the right label, with p = 0.6: log gives SFT's (1 − p, p − 1), arcsin √(p (1 − p)) (1, −1)."""
    logits = torch.tensor([P, 1 - P]).log()
    torch.testing.assert_close(exact_gradient(logits, "log"), torch.tensor([0.4, -0.4]))
    root = math.sqrt(P * (1 - P))
    torch.testing.assert_close(exact_gradient(logits, "arcsin"), torch.tensor([root, -root]))


def test_all_other_answers_are_one_entry() -> None:
    torch.testing.assert_close(with_other(torch.tensor([[0.5, 0.3]]).log()).exp(), torch.tensor([[0.5, 0.3, 0.2]]))
    assert with_other(torch.tensor([[0.0, -torch.inf]])).isfinite().all()


def expected_gradient(samples: int, advantage_of: object) -> float:
    """Return the right label's entry of the mean gradient over all groups of answers, weighted by probability."""
    logits = torch.tensor([P, 1 - P]).log()
    total = torch.zeros(2)
    for answers in itertools.product((0, 1), repeat=samples):
        leaf = logits.clone().requires_grad_()
        logp = leaf.log_softmax(-1)[list(answers)][:, None]
        score = torch.tensor([1.0 if answer == 0 else -1.0 for answer in answers])
        mask = torch.ones(samples, 1, dtype=torch.bool)
        advantage = per_token(advantage_of(score, samples), mask)  # type: ignore[operator]
        policy_loss(logp, logp.detach(), advantage, mask, 0.2).loss.backward()
        probability = math.prod((P, 1 - P)[answer] for answer in answers)
        total -= probability * leaf.grad
    return total[0].item()


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_rloo_is_the_exact_gradient_on_average(samples: int) -> None:
    exact = exact_gradient(torch.tensor([P, 1 - P]).log())[0].item()
    assert exact == pytest.approx(0.48)
    assert expected_gradient(samples, leave_one_out) == pytest.approx(exact, abs=1e-5)
    reinforce = expected_gradient(samples, lambda score, _: score)
    assert reinforce == pytest.approx(exact, abs=1e-5)
    dr_grpo = expected_gradient(samples, lambda score, size: group_relative(score, size, scale=False))
    assert dr_grpo == pytest.approx((samples - 1) / samples * exact, abs=1e-5)


@pytest.mark.parametrize(("samples", "expected"), [(2, 0.24), (4, 0.38896), (8, 0.45162), (12, 0.46657)])
def test_grpo_tends_to_the_arcsin_transform(samples: int, expected: float) -> None:
    """√(p (1 − p)) = 0.489898 for many answers: the gradient of 2 arcsin √p."""
    assert expected_gradient(samples, group_relative) == pytest.approx(expected, abs=2e-4)


def test_rloo_of_two_is_a_weighted_contrast() -> None:
    """Its loss is −½ (r₁ − r₂)(log π₁ − log π₂). With r₁ − r₂ = β its gradient is DPO's at the reference."""
    score, beta = torch.tensor([0.7, -0.4]), 1.1
    advantage = leave_one_out(score, 2)
    torch.testing.assert_close(advantage, torch.tensor([1.1, -1.1]))
    logits, mask = torch.tensor([0.3, -0.2, 0.9]), torch.ones(2, 1, dtype=torch.bool)

    def gradient(loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        leaf = logits.clone().requires_grad_()
        loss_of(leaf.log_softmax(-1)[:2]).backward()
        return leaf.grad

    def rloo(logp: Tensor) -> Tensor:
        return policy_loss(logp[:, None], logp[:, None].detach(), per_token(advantage, mask), mask, 0.2).loss

    def dpo(logp: Tensor) -> Tensor:
        chosen, rejected = logp - logp.detach()
        return -logsigmoid(beta * (chosen - rejected))

    contrast = gradient(lambda logp: -0.5 * (score[0] - score[1]) * (logp[0] - logp[1]))
    torch.testing.assert_close(gradient(rloo), contrast)
    torch.testing.assert_close(gradient(dpo), contrast)
