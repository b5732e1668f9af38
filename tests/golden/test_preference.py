"""Losses on pairs and win rates: values by hand, equivalences, and the exact gradient by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adjudge.rl.kl import full_kl
from adjudge.rl.losses import expected_reward
from adjudge.rl.preference import (
    dpo,
    log_normaliser,
    minor_dpo,
    minor_weight,
    pairwise,
    sppo,
    tdpo,
    win_rate,
    win_rate_among,
)

CHOSEN, REJECTED = torch.tensor([0.2]), torch.tensor([-0.1])


def close(value: Tensor, expected: float | Tensor, within: float = 1e-5) -> None:
    assert float(value) == pytest.approx(float(expected), abs=within)


def gradient(loss_of: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_(True)
    loss_of(at).sum().backward()
    assert at.grad is not None
    return at.grad


def test_dpo_by_hand() -> None:
    close(dpo(CHOSEN, REJECTED, 0.1), 0.678260)
    close(gradient(lambda chosen: dpo(chosen, REJECTED, 0.1), CHOSEN), -0.049250)
    close(gradient(lambda rejected: dpo(CHOSEN, rejected, 0.1), REJECTED), 0.049250)


def test_equal_answers_lose_log_two_and_teach_nothing() -> None:
    """A tie of SPIN, whose loss is DPO's: both ratios are those of one answer."""
    close(dpo(CHOSEN, CHOSEN, 0.1), 0.693147)
    close(gradient(lambda ratio: dpo(ratio, ratio, 0.1), CHOSEN), 0.0)


def test_large_ratios_stay_finite() -> None:
    far = torch.tensor([1e4])
    assert dpo(far, -far, 5.0).item() == 0
    assert dpo(-far, far, 5.0).item() == pytest.approx(1e5)
    assert torch.isfinite(gradient(lambda chosen: dpo(chosen, far, 5.0), -far)).all()


@pytest.mark.parametrize(("beta", "gained"), [(1.0, 0.753772), (0.1, 7.537718)])
def test_where_texts_say_nothing_the_commoner_label_gains_its_odds_over_beta(beta: float, gained: float) -> None:
    """With 68 rows of one label and 32 of another, the mean loss is least at a margin of log(68 / 32) / β nats."""
    sign = torch.tensor([1.0] * 68 + [-1.0] * 32)
    close(gradient(lambda margin: dpo(sign * margin, torch.zeros(100), beta).mean(), torch.tensor([gained])), 0.0)


def test_minor_dpo_by_hand() -> None:
    close(minor_dpo(CHOSEN, REJECTED, 0.1), 0.683197)
    close(minor_dpo(CHOSEN, torch.tensor([0.3]), 0.1), 0.698160)


def test_minor_dpo_is_dpo_while_the_rejected_answer_is_likelier_than_before() -> None:
    rejected = torch.tensor([0.3])
    close(minor_dpo(CHOSEN, rejected, 0.1) - dpo(CHOSEN, rejected, 0.1), 0.0)
    close(gradient(lambda ratio: minor_dpo(CHOSEN, ratio, 0.1), rejected), 0.1 * torch.sigmoid(torch.tensor(0.01)))
    assert gradient(lambda ratio: minor_dpo(CHOSEN, ratio, 0.1), REJECTED).item() == 0


def test_below_the_gate_minor_dpo_is_minor_sft() -> None:
    """Its gradient on the chosen answer is β m / 2 times that of MinorSFT's row, 2σ(−βρ) / m."""
    beta, tokens = 0.7, 2
    minor_sft = minor_weight(CHOSEN, beta) / tokens
    close(-gradient(lambda ratio: minor_dpo(ratio, REJECTED, beta), CHOSEN), float(beta * tokens / 2 * minor_sft))


def test_minor_sft_by_hand() -> None:
    logp, ref_logp = torch.tensor([-0.3, -0.2]), torch.tensor([-0.4, -0.3])
    weight = minor_weight((logp - ref_logp).sum(), 0.1)
    close(weight, 0.990000)
    close(weight * -logp.mean(), 0.247500)
    close(gradient(lambda logps: minor_weight((logps - ref_logp).sum(), 0.1) * -logps.mean(), logp)[0], -0.495000)


@pytest.mark.parametrize("ratio", [-30.0, 0.0, 2.3])
def test_without_beta_and_at_the_reference_minor_sft_is_sft(ratio: float) -> None:
    assert minor_weight(torch.tensor([ratio]), 0.0).item() == 1.0
    assert minor_weight(torch.zeros(1), 3.0).item() == 1.0


@pytest.mark.parametrize(("beta", "weight"), [(0.3, 0.67), (1.0, 0.18), (3.0, 0.002)])
def test_minor_sft_lets_learned_rows_go(beta: float, weight: float) -> None:
    close(minor_weight(torch.tensor([2.3]), beta), weight, within=5e-3)


REFERENCE = torch.tensor([0.5, 0.5]).log()
FIRST = torch.tensor([0.6, 0.4]).log()
SECOND = torch.tensor([0.7, 0.3]).log()


def two_token_pair() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ratios and sequential KLs of the chosen answer (0, 0) and the rejected one (1, 0)."""
    first, second = full_kl(REFERENCE, FIRST), full_kl(REFERENCE, SECOND)
    chosen = FIRST[0] + SECOND[0] - 2 * REFERENCE[0]
    rejected = FIRST[1] - REFERENCE[1]
    return chosen[None], rejected[None], (first + second)[None], first[None]


def test_tdpo_by_hand() -> None:
    close(full_kl(REFERENCE, FIRST), 0.020411)
    close(full_kl(REFERENCE, SECOND), 0.087177)
    chosen, rejected, kl_chosen, kl_rejected = two_token_pair()
    close(chosen - rejected, 0.741937)
    close(kl_chosen, 0.107588)
    close(dpo(chosen, rejected, 0.1), 0.656738)
    close(tdpo(chosen, rejected, kl_chosen, kl_rejected, 0.1), 0.652551)
    close(tdpo(chosen, rejected, kl_chosen, kl_rejected, 0.1, alpha=0.5), 0.654642)
    close(tdpo(chosen, rejected, kl_chosen, kl_rejected, 0.1, alpha=0.0), float(dpo(chosen, rejected, 0.1)))


def one_token(logit: Tensor, alpha: float | None, *, plain: bool = False) -> Tensor:
    """Return the loss of two answers of one token each, chosen with p = σ(logit), against a reference of ½."""
    logits = torch.stack([logit, torch.zeros(())])
    ratio = logits.log_softmax(0) - REFERENCE
    kl = full_kl(REFERENCE, logits)[None]
    return dpo(ratio[:1], ratio[1:], 0.1) if plain else tdpo(ratio[:1], ratio[1:], kl, kl, 0.1, alpha)


def test_with_one_token_tdpo1_is_dpo_and_tdpo2_pulls_to_the_reference() -> None:
    logit = torch.tensor(math.log(0.6 / 0.4))
    for alpha, plain, expected in ((None, True, -0.048986), (None, False, -0.048986), (0.5, False, -0.046537)):
        close(one_token(logit, alpha, plain=plain), 0.673079)
        close(gradient(lambda z, alpha=alpha, plain=plain: one_token(z, alpha, plain=plain), logit), expected)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_at_the_reference_tdpo_is_log_two_with_the_gradient_of_dpo(alpha: float | None) -> None:
    logit = torch.zeros(())
    close(one_token(logit, alpha), 0.693147)
    close(
        gradient(lambda z: one_token(z, alpha), logit), float(gradient(lambda z: one_token(z, None, plain=True), logit))
    )


def test_tdpo2_sends_no_gradient_through_the_chosen_kl() -> None:
    kl = torch.tensor([0.3])
    assert gradient(lambda kl_chosen: tdpo(CHOSEN, REJECTED, kl_chosen, kl, 0.1), kl).item() < 0
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient(lambda kl_chosen: tdpo(CHOSEN, REJECTED, kl_chosen, kl, 0.1, alpha=0.5), kl)


def test_filtered_tokens_do_not_spoil_the_kl() -> None:
    reference = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, -torch.inf]])
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, 0.0]])
    kl = full_kl(reference, logits)
    torch.testing.assert_close(kl, torch.tensor([0.0, math.log(1.5)]))
    assert torch.isfinite(gradient(lambda each: full_kl(reference, each), logits)).all()


def test_sppo_by_hand() -> None:
    ratios, half = torch.tensor([[0.2, -0.1]]), torch.full((1, 2), 0.5)
    close(sppo(ratios, 2 * (torch.tensor([[0.75, 0.25]]) - 0.5), half), 0.125)
    close(sppo(ratios, 2 * (torch.tensor([[1.0, 0.0]]) - 0.5), half), 0.725)
    # With η = 1000 and a win rate of 0.85 the first loss is near the 120,000 which users of its code report.
    close(sppo(torch.zeros(1, 2), torch.tensor([[350.0, -350.0]]), half), 122_500)


def test_win_rates_by_hand() -> None:
    right = torch.tensor([[True, False]])
    torch.testing.assert_close(win_rate(right, torch.tensor([0.6])), torch.tensor([[0.7, 0.2]]))
    # Of five answers two are right: a right one beats three, ties with two, and the like.
    among = win_rate_among(torch.tensor([[True, True, False, False, False]]))
    torch.testing.assert_close(among, torch.tensor([[0.8, 0.8, 0.3, 0.3, 0.3]]))


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_are_all_alike_win_half_the_time(right: bool) -> None:
    assert win_rate_among(torch.full((3, 5), right)).tolist() == [[0.5] * 5] * 3


def test_the_exact_step_of_sppo() -> None:
    probability, eta = torch.tensor([[0.6, 0.4]]), 2.0
    win = win_rate(torch.tensor([[1.0, 0.0]]), probability[:, 0])
    log_z = log_normaliser(win, probability, eta)
    close(log_z - eta / 2, 0.108513)
    renewed = (probability.log() + eta * win - log_z).exp()
    torch.testing.assert_close(renewed, torch.tensor([[0.803050, 0.196950]]), atol=1e-5, rtol=0)


def test_sppo_is_least_where_the_targets_are_met() -> None:
    target, weight = torch.tensor([[0.4, -0.6]]), torch.tensor([[0.3, 0.7]])
    assert sppo(target, target, weight).item() == 0
    assert gradient(lambda ratio: sppo(ratio, target, weight), target).tolist() == [[0.0, 0.0]]
    # Where every answer wins half the time, the loss pulls to the reference.
    assert gradient(lambda ratio: sppo(ratio, torch.zeros(1, 2), weight), target).sign().tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("eta", [1.0, 2.0, 20.0])
def test_at_the_reference_exact_sppo_has_the_exact_policy_gradient(eta: float) -> None:
    """Weighted by the policy over all labels, its gradient is −η times that of the expected reward of 0 and 1."""
    logits = torch.tensor([[0.3, -0.8, 1.1], [0.0, 2.0, -1.0]])
    right = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    old = logits.log_softmax(1)
    target = eta * (win_rate(right, (old.exp() * right).sum(1)) - 0.5)
    ours = gradient(lambda each: sppo(each.log_softmax(1) - old, target, old.exp()), logits)
    exact = gradient(lambda each: expected_reward(each.log_softmax(1), right, 0.0), logits)
    torch.testing.assert_close(ours, -eta * exact)


def test_two_sampled_answers_of_rloo_pull_as_dpo_does_at_the_reference() -> None:
    """RLOO with two answers is −½ (r₁ − r₂)(log π₁ − log π₂); at the reference DPO's gradient equals it for β."""
    beta = 0.3
    zeros = torch.zeros(2)
    rloo = gradient(lambda logp: -0.5 * beta * (logp[:1] - logp[1:]), zeros)
    torch.testing.assert_close(gradient(lambda logp: dpo(logp[:1], logp[1:], beta), zeros), rloo)


def test_the_labels_form_of_spin_is_the_mean_over_samples() -> None:
    """The mean over sampled opponents, ties included, is the sum over labels by their probability."""
    probability = torch.tensor([0.5, 0.3, 0.2])
    ratio = torch.tensor([0.4, -0.2, 0.1])
    sampled = torch.multinomial(probability, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    mean = dpo(ratio[0].expand(len(sampled)), ratio[sampled], 0.5).mean()
    exact = (probability * dpo(ratio[0].expand(3), ratio, 0.5)).sum()
    close(mean, float(exact), within=1e-3)
    close(exact, float((probability[1:] * dpo(ratio[0].expand(2), ratio[1:], 0.5)).sum() + 0.5 * math.log(2)))


def test_the_pairwise_loss_by_hand() -> None:
    chosen_PT, rejected_PT = torch.tensor([[0.5, 1.0]]), torch.tensor([[0.0, 0.2]])
    both = torch.ones(1, 2, dtype=torch.bool)
    close(pairwise(chosen_PT, rejected_PT, both), 0.422589)
    close(pairwise(chosen_PT, rejected_PT, torch.tensor([[False, True]])), 0.371101)
    close(pairwise(2 * chosen_PT, 2 * rejected_PT, both, temperature=2.0), 0.422589)


def test_equal_sequences_lose_log_two_and_teach_nothing() -> None:
    nowhere = torch.zeros(1, 2, dtype=torch.bool)
    values_PT = torch.tensor([[0.5, 1.0]])
    close(pairwise(values_PT, values_PT, nowhere), 0.693147)
    close(pairwise(values_PT, values_PT, ~nowhere), 0.693147)
    close(gradient(lambda values: pairwise(values, torch.zeros(1, 2), nowhere), values_PT).abs().sum(), 0.0)
    close(gradient(lambda values: pairwise(values, values, ~nowhere), values_PT).abs().sum(), 0.0)


@pytest.mark.parametrize("margin", [-3.0, 0.0, 0.7, 50.0])
def test_a_swapped_pair_loses_its_margin_more(margin: float) -> None:
    one, zero, here = torch.tensor([[margin]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    close(pairwise(zero, one, here), float(pairwise(one, zero, here)) + margin)
