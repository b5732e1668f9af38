"""Groups joined by refinements, and the shaped loss of these: values by hand, and equivalences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adjudge.rl.advantages import group_relative, relative_to_all
from adjudge.rl.losses import policy_loss, shaped_loss

ONE = torch.ones(1, 1, dtype=torch.bool)


def loss_and_gradient(p: float, advantage: float, shaping: float) -> tuple[float, float]:
    """Return the loss of one token of probability p, and its gradient in the log-probability."""
    logp = torch.tensor([[p]]).log().requires_grad_(True)
    loss = shaped_loss(logp, torch.tensor([[advantage]]), ONE, shaping, denominator=1)
    loss.backward()
    assert logp.grad is not None
    return loss.item(), logp.grad.item()


def test_a_group_by_hand() -> None:
    """Sampled answers earn 0, 0 and 1, a refinement of probability 0.05 earns 1."""
    own, other = relative_to_all(torch.tensor([0.0, 0.0, 1.0]), 3, torch.tensor([1.0]), [0])
    assert own.tolist() == [-0.5, -0.5, 0.5] and other.tolist() == [0.5]
    loss, gradient = loss_and_gradient(0.05, float(other), 0.1)
    assert loss == pytest.approx(-0.166667, abs=1e-6) and gradient == pytest.approx(-0.111111, abs=1e-6)
    zeros, mask = torch.zeros(3, 1), torch.ones(3, 1, dtype=torch.bool)
    sampled = policy_loss(zeros, zeros, own[:, None], mask, 0.2, denominator=1).loss
    assert float(sampled) + loss == pytest.approx(0.333333, abs=1e-6)


def test_without_others_it_is_dr_grpo() -> None:
    scores = torch.randn(12, generator=torch.Generator().manual_seed(0))
    own, other = relative_to_all(scores, 4, torch.zeros(0), [])
    assert torch.equal(own, group_relative(scores, 4, scale=False)) and len(other) == 0


def test_groups_may_have_others_or_none() -> None:
    own, other = relative_to_all(torch.tensor([1.0, 0.0, 0.0, 0.0]), 2, torch.tensor([1.0, 0.0, 1.0]), [1, 1, 1])
    assert own.tolist() == pytest.approx([0.5, -0.5, -0.4, -0.4]) and other.tolist() == pytest.approx([0.6, -0.4, 0.6])


@pytest.mark.parametrize("score", [-3.0, 0.0, 0.3, 1 / 7])
@pytest.mark.parametrize("samples", [2, 6, 7])
def test_equal_rewards_teach_nothing_at_all(score: float, samples: int) -> None:
    """Not even what rounding leaves of their mean: AdamW makes a whole step of the smallest gradient."""
    own, other = relative_to_all(torch.full((2 * samples,), score), samples, torch.tensor([score]), [1])
    assert not own.any() and not other.any()
    assert not group_relative(torch.full((2 * samples,), score), samples, scale=False).any()
    assert loss_and_gradient(0.3, 0.0, 0.1) == (0, 0)


@pytest.mark.parametrize("p", [1e-4, 0.05, 0.5, 0.99])
def test_the_shape_in_its_limits(p: float) -> None:
    """A large shaping leaves the plain probability; a small probability is divided by the shaping."""
    assert 1e6 * loss_and_gradient(p, 1.0, 1e6)[0] == pytest.approx(-p, rel=1e-4)
    assert 0.1 * loss_and_gradient(1e-7, 1.0, 0.1)[0] / 1e-7 == pytest.approx(-1, abs=1e-5)


def test_the_gradient_is_largest_at_the_shaping() -> None:
    gradients = [-loss_and_gradient(p, 1.0, 0.1)[1] for p in (0.001, 0.05, 0.1, 0.2, 0.999)]
    assert max(gradients) == gradients[2] == pytest.approx(0.25, abs=1e-6)
    assert gradients[0] < 0.01 and gradients[-1] < 0.1


def test_padding_counts_for_nothing() -> None:
    mask = torch.tensor([[True, False]])
    logp = torch.tensor([[math.log(0.05), math.nan]], requires_grad=True)
    loss = shaped_loss(logp, torch.tensor([[0.5, math.inf]]), mask, 0.1)
    loss.backward()
    gradient: Tensor | None = logp.grad
    assert loss.item() == pytest.approx(-0.166667, abs=1e-6) and gradient is not None
    assert gradient[0].tolist() == pytest.approx([-0.111111, 0.0], abs=1e-6)


def test_scores_that_are_no_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="3 scores are no groups of 2"):
        relative_to_all(torch.zeros(3), 2, torch.zeros(0), [])
