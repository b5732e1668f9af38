"""Losses against hand-computed cases, torch.distributions, and finite differences."""

import math

import pytest
import torch

from adjudge.rl.losses import answer_loss, policy_loss, token_logp_and_entropy, value_loss

ALL = torch.ones(1, 4, dtype=torch.bool)


def _logp(ratios):
    """(new, old) log-probabilities whose ratios are the given ones; the new ones want a gradient."""
    old = torch.full((1, len(ratios)), -1.5)
    return (old + torch.tensor([ratios]).log()).requires_grad_(), old


def test_policy_loss_by_hand():
    # ratio 2 and A 1: clipped, −1.2.  ratio 2 and A −1: the worse counts, +2.
    # ratio ½ and A 1: the worse counts, −0.5.  ratio ½ and A −1: clipped, +0.8.
    new, old = _logp([2.0, 2.0, 0.5, 0.5])
    found = policy_loss(new, old, torch.tensor([[1.0, -1.0, 1.0, -1.0]]), ALL, clip=0.2)
    assert found.loss.item() == pytest.approx((-1.2 + 2.0 - 0.5 + 0.8) / 4)
    assert found.clip_fraction.item() == 1.0
    expected_kl = ((2 - 1 - math.log(2)) * 2 + (0.5 - 1 - math.log(0.5)) * 2) / 4
    assert found.approx_kl.item() == pytest.approx(expected_kl)


def test_the_gradient_is_zero_exactly_where_the_clip_binds():
    new, old = _logp([2.0, 2.0, 0.5, 0.5])
    policy_loss(new, old, torch.tensor([[1.0, -1.0, 1.0, -1.0]]), ALL, clip=0.2).loss.backward()
    # Elsewhere the derivative of −A ρ by log-probability is −A ρ, over 4 tokens.
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, 2.0, -0.5, 0.0]]) / 4)


def test_on_the_first_update_the_loss_is_the_policy_gradient():
    logp = torch.tensor([[-0.7, -1.1, -2.0, -0.2]], requires_grad=True)
    advantage = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    found = policy_loss(logp, logp.detach().clone(), advantage, ALL, clip=0.2)
    found.loss.backward()
    assert (found.clip_fraction.item(), found.approx_kl.item()) == (0.0, 0.0)
    torch.testing.assert_close(logp.grad, -advantage / 4)


def test_the_approximate_kl_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(8, generator=generator).log_softmax(-1) for _ in range(2))
    exact = (old.exp() * (old - new)).sum()
    # Under the old policy the mean of the estimate is its sum weighted with the old probabilities.
    per_token = torch.stack(
        [
            policy_loss(new[i].reshape(1, 1), old[i].reshape(1, 1), torch.zeros(1, 1), ALL[:, :1], 0.2).approx_kl
            for i in range(8)
        ]
    )
    torch.testing.assert_close((old.exp() * per_token).sum(), exact)
    assert (per_token >= 0).all()


def test_value_loss_by_hand():
    # Old value 0, return 1, clip 0.2.
    # V 0.1: inside, ½·0.81.        V 0.8: clipped to 0.2, which is worse, ½·0.64.
    # V −0.5: unclipped is worse, ½·2.25.  V 0.2: still inside, ½·0.64.
    value = torch.tensor([[0.1, 0.8, -0.5, 0.2]], requires_grad=True)
    found = value_loss(value, torch.zeros(1, 4), torch.ones(1, 4), ALL, clip=0.2)
    assert found.loss.item() == pytest.approx((0.81 + 0.64 + 2.25 + 0.64) / 8)
    found.loss.backward()
    assert value.grad[0, 1] == 0
    torch.testing.assert_close(value.grad[0, [0, 2]], torch.tensor([-0.9, -1.5]) / 4)


def test_explained_variance():
    returns = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    zero = torch.zeros(1, 4)
    assert value_loss(returns.clone(), zero, returns, ALL, 0.2).explained_variance.item() == pytest.approx(1)
    assert value_loss(torch.full((1, 4), 9.0), zero, returns, ALL, 0.2).explained_variance.item() == pytest.approx(0)
    # Residuals −3, −1, 1, 3 have variance 5, the returns 1.25: 1 − 4.
    assert value_loss(returns.flip(-1), zero, returns, ALL, 0.2).explained_variance.item() == pytest.approx(-3)
    assert value_loss(zero, zero, torch.ones(1, 4), ALL, 0.2).explained_variance.item() == 0


def test_answer_loss_by_hand():
    logp = torch.tensor([[-1.0, -3.0], [-2.0, -100.0]])
    assert answer_loss(logp, torch.tensor([[True, True], [True, False]])).item() == 2.0


def _batch(seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5).unsqueeze(0) < torch.tensor([5, 2, 1, 3]).unsqueeze(1)
    draws = [torch.randn(4, 5, generator=generator) for _ in range(4)]
    return mask, draws


@pytest.mark.parametrize("name", ["policy", "value", "answer"])
def test_micro_batches_add_up_to_the_whole_batch_loss_and_gradient(name):
    mask, (x, y, z, _) = _batch(3)
    losses = {
        "policy": lambda v, r, d: policy_loss(v, y[r], z[r], mask[r], 0.2, denominator=d).loss,
        "value": lambda v, r, d: value_loss(v, y[r], z[r], mask[r], 0.2, denominator=d).loss,
        "answer": lambda v, r, d: answer_loss(v, mask[r], denominator=d),
    }
    loss = losses[name]
    whole = x.clone().requires_grad_()
    total = loss(whole, slice(None), None)
    total.backward()
    parts = x.clone().requires_grad_()
    count = mask.sum()
    pieces = [loss(parts[rows], rows, count) for rows in (slice(0, 1), slice(1, 4))]
    for piece in pieces:
        piece.backward()
    torch.testing.assert_close(sum(pieces), total)
    torch.testing.assert_close(parts.grad, whole.grad)
    assert not whole.grad[~mask].any()


def test_losses_agree_with_finite_differences():
    mask, (x, y, z, _) = _batch(4)
    x = 0.2 * x  # ratios on both sides of the clip, away from its edges
    for loss in (lambda v: policy_loss(v, 0.2 * y, z, mask, 0.2).loss, lambda v: value_loss(v, y, z, mask, 0.2).loss):
        variable = x.clone().requires_grad_()
        loss(variable).backward()
        step = 1e-2
        for index in [(0, 0), (0, 3), (1, 1), (3, 2)]:
            up, down = x.clone(), x.clone()
            up[index] += step
            down[index] -= step
            slope = ((loss(up) - loss(down)) / (2 * step)).item()
            assert variable.grad[index].item() == pytest.approx(slope, abs=2e-3)


def test_garbage_at_padding_reaches_neither_loss_nor_gradient():
    mask, (x, y, z, w) = _batch(5)
    bad = x.masked_fill(~mask, float("inf")).requires_grad_()
    found = policy_loss(bad, y.masked_fill(~mask, float("-inf")), z.masked_fill(~mask, float("nan")), mask, 0.2)
    valued = value_loss(bad, y, w.masked_fill(~mask, float("nan")), mask, 0.2)
    (found.loss + valued.loss + answer_loss(bad, mask)).backward()
    assert torch.equal(found.loss.detach(), policy_loss(x, y, z, mask, 0.2).loss)
    assert bad.grad.isfinite().all()
    assert not bad.grad[~mask].any()
    for figure in (found.approx_kl, found.clip_fraction, valued.explained_variance):
        assert figure.isfinite()
        assert not figure.requires_grad


def test_a_loss_that_is_not_finite_is_not_hidden():
    new = torch.tensor([[float("nan")]])
    assert not policy_loss(new, torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[True]]), 0.2).loss.isfinite()


def test_log_probability_and_entropy_are_those_of_torch_distributions():
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(2, 3, 11, generator=generator)
    ids = torch.randint(11, (2, 3), generator=generator)
    logp, entropy = token_logp_and_entropy(logits, ids)
    expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(logp, expected.log_prob(ids))
    torch.testing.assert_close(entropy, expected.entropy())
    low_logp, _ = token_logp_and_entropy(logits.bfloat16(), ids)
    assert low_logp.dtype == torch.float32
    torch.testing.assert_close(
        low_logp, torch.distributions.Categorical(logits=logits.bfloat16().float()).log_prob(ids)
    )


def test_filtered_tokens_count_as_impossible():
    logits = torch.tensor([[[0.0, 0.0, float("-inf")]]], requires_grad=True)
    logp, entropy = token_logp_and_entropy(logits, torch.tensor([[1]]))
    assert logp.item() == pytest.approx(-math.log(2))
    assert entropy.item() == pytest.approx(math.log(2))
    logp.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[[-0.5, 0.5, 0.0]]]))
