"""Smoothed targets and temporal ensembling: values by hand."""

from __future__ import annotations

import pytest
import torch

from adjudge.rl.noisy_labels import accumulated, ensemble_kl, mean_prediction, risen, smoothed_loss, trusted

LOGP = torch.tensor([[1.0, 0.0]]).log_softmax(1)


def close(values: torch.Tensor, *expected: float) -> None:
    assert values.flatten().tolist() == pytest.approx(expected, abs=5e-5)


def test_smoothing_by_hand() -> None:
    first = torch.tensor([0])
    close(smoothed_loss(LOGP, first, 0.15), 0.3883)
    close(smoothed_loss(LOGP, first, 0.0), 0.3133)
    close(smoothed_loss(LOGP, torch.tensor([1]), 0.0), 1.3133)


def test_the_target_of_a_smoothed_label_is_where_its_loss_is_least() -> None:
    """With ε = 0.3 and three labels the target is (0.8, 0.1, 0.1): there the gradient of the logits is 0."""
    logits = torch.tensor([[0.8, 0.1, 0.1]]).log().requires_grad_(True)
    smoothed_loss(logits.log_softmax(1), torch.tensor([0]), 0.3).sum().backward()
    assert logits.grad is not None
    close(logits.grad, 0, 0, 0)


def test_two_predictions_by_hand() -> None:
    first, second = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    sums = accumulated(torch.zeros(1, 2), first, 0.8)
    close(mean_prediction(sums, 0.8, 1), 0.9, 0.1)
    mean = mean_prediction(accumulated(sums, second, 0.8), 0.8, 2)
    close(mean, 0.6778, 0.3222)
    close(ensemble_kl(mean, second.log()), 0.0646)


def test_kl_of_equal_and_of_certain_predictions() -> None:
    half = torch.tensor([[0.5, 0.5]])
    close(ensemble_kl(half, half.log()), 0)
    close(ensemble_kl(torch.tensor([[1.0, 0.0]]), half.log()), 0.6931)


def test_the_mean_is_not_taught() -> None:
    mean, logp = torch.tensor([[0.7, 0.3]], requires_grad=True), LOGP.clone().requires_grad_(True)
    ensemble_kl(mean, logp).sum().backward()
    assert mean.grad is None and logp.grad is not None
    close(logp.grad, -0.7, -0.3)


@pytest.mark.parametrize(("count", "share"), [(0, 0.0), (1, 0.01742), (5, 0.2865), (10, 1.0), (25, 1.0)])
def test_the_weight_rises(count: int, share: float) -> None:
    assert risen(10.0, count, 10) == pytest.approx(10 * share, abs=1e-3)


def test_rows_above_the_threshold_are_trusted() -> None:
    own = torch.cat([torch.linspace(0.5, 0.99, 50), torch.linspace(0.1, 0.6, 10)])
    label = torch.tensor([0] * 50 + [1] * 10)
    mean = torch.where(label[:, None] == torch.tensor([0, 1]), own[:, None], 1 - own[:, None])
    kept = trusted(mean, label, 0.8)
    assert kept[:50].tolist() == (own[:50] > 0.8).tolist() and int(kept[:50].sum()) == 19
    assert kept[50:].tolist() == [False] * 5 + [True] * 5  # none of ten passes: the likelier half stays
    assert bool(trusted(mean, label, 0.0).all())
