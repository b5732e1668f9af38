"""Nothing that is not finite reaches the optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from adjudge.errors import NotFiniteError
from adjudge.training.guards import check_finite, clip_gradients


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(NotFiniteError, match=r"the reward is not finite \(2 of 6 entries\)"):
        check_finite("the reward", torch.tensor([[1.0, bad, 3.0], [bad, 0.0, 1.0]]))


def test_finite_figures_pass() -> None:
    check_finite("the loss", torch.tensor(3e38))
    check_finite("the reward", torch.zeros(0))


def with_gradients(*gradients: list[float]) -> list[nn.Parameter]:
    found = []
    for gradient in gradients:
        weight = nn.Parameter(torch.zeros(len(gradient)))
        weight.grad = torch.tensor(gradient)
        found.append(weight)
    return found


@pytest.mark.parametrize("limit", [1.0, None])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_update(bad: float, limit: float | None) -> None:
    weights = with_gradients([1.0, 2.0], [bad])
    optimizer = torch.optim.SGD(weights, lr=1.0)
    with pytest.raises(NotFiniteError, match="the gradient"):
        clip_gradients(weights, limit)
        optimizer.step()
    assert all((weight == 0).all() for weight in weights)


def test_gradients_are_scaled_down_to_the_limit() -> None:
    weights = with_gradients([3.0], [0.0, 4.0])
    assert clip_gradients(weights, 1.0) == pytest.approx(5.0)
    torch.testing.assert_close(weights[0].grad, torch.tensor([0.6]), atol=1e-5, rtol=0)
    torch.testing.assert_close(weights[1].grad, torch.tensor([0.0, 0.8]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("limit", [10.0, None])
def test_small_gradients_and_no_limit_change_nothing(limit: float | None) -> None:
    weights = with_gradients([3.0], [0.0, 4.0])
    assert clip_gradients((weight for weight in weights), limit) == pytest.approx(5.0)
    assert weights[0].grad.tolist() == [3.0]
    assert weights[1].grad.tolist() == [0.0, 4.0]


def test_no_gradient_at_all_has_norm_zero() -> None:
    assert clip_gradients([nn.Parameter(torch.ones(2))], 1.0) == 0.0
    assert clip_gradients(with_gradients([0.0]), None) == 0.0
