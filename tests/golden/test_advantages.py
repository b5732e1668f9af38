"""GAE against cases worked out by hand and against the definition as a double sum."""

import pytest
import torch

from adjudge.rl.advantages import gae, whiten


def _from_the_definition(reward, value, length, gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l}, in Python floats, for one row."""
    advantage = []
    for t in range(length):
        total = 0.0
        for step in range(length - t):
            following = value[t + step + 1] if t + step + 1 < length else 0.0
            delta = reward[t + step] + gamma * following - value[t + step]
            total += (gamma * lam) ** step * delta
        advantage.append(total)
    return advantage


def test_by_hand():
    # One response of three tokens, reward 1 at the end, values ½, ¼, ½; gamma ½, lambda ½, so gamma·lambda = ¼.
    # delta_2 = 1 − ½ = ½;                A_2 = ½
    # delta_1 = 0 + ½·½ − ¼ = 0;          A_1 = 0 + ¼·½ = ⅛
    # delta_0 = 0 + ½·¼ − ½ = −⅜;         A_0 = −⅜ + ¼·⅛ = −11/32
    advantage, returns = gae(
        torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.25, 0.5]]), torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5
    )
    assert advantage.tolist() == [[-11 / 32, 1 / 8, 1 / 2]]
    assert returns.tolist() == [[-11 / 32 + 1 / 2, 1 / 8 + 1 / 4, 1.0]]


def test_lambda_one_is_the_return_minus_the_value_and_lambda_zero_is_the_one_step_error():
    reward = torch.tensor([[-0.1, -0.2, 1.0]])
    value = torch.tensor([[0.3, 0.2, 0.1]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    _, returns = gae(reward, value, mask, 1.0, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[0.7, 0.8, 1.0]]))
    advantage, _ = gae(reward, value, mask, 1.0, 0.0)
    torch.testing.assert_close(advantage, torch.tensor([[-0.1 + 0.2 - 0.3, -0.2 + 0.1 - 0.2, 1.0 - 0.1]]))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (0.0, 0.5)])
def test_random_rows_of_different_lengths_follow_the_definition(gamma, lam):
    generator = torch.Generator().manual_seed(1)
    lengths = [7, 1, 4, 0]
    mask = torch.arange(7).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    reward, value = torch.randn(4, 7, generator=generator), torch.randn(4, 7, generator=generator)
    advantage, returns = gae(reward, value, mask, gamma, lam)
    for row, length in enumerate(lengths):
        expected = torch.tensor(_from_the_definition(reward[row].tolist(), value[row].tolist(), length, gamma, lam))
        torch.testing.assert_close(advantage[row, :length], expected.reshape(-1))
        torch.testing.assert_close(returns[row, :length], expected.reshape(-1) + value[row, :length])
        assert not advantage[row, length:].any()
        assert not returns[row, length:].any()


def test_what_stands_at_padding_has_no_influence():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    reward, value = torch.tensor([[0.1, 1.0, 0.0], [-1.0, 0.0, 0.0]]), torch.tensor([[0.2, 0.4, 0.0], [0.5, 0.0, 0.0]])
    clean = gae(reward, value, mask, 1.0, 0.95)
    dirty = gae(reward.masked_fill(~mask, float("nan")), value.masked_fill(~mask, float("inf")), mask, 1.0, 0.95)
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)


def test_half_precision_values_are_worked_with_in_float32_and_without_gradient():
    value = torch.rand(2, 3).bfloat16().requires_grad_()
    advantage, returns = gae(torch.rand(2, 3).bfloat16(), value, torch.ones(2, 3, dtype=torch.bool), 1.0, 0.95)
    assert advantage.dtype == returns.dtype == torch.float32
    assert not advantage.requires_grad
    assert not returns.requires_grad


def test_left_padding_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="padded on the right"):
        gae(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[False, True]]), 1.0, 1.0)
    with pytest.raises(ValueError, match="shapes"):
        gae(torch.zeros(1, 2), torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 1.0, 1.0)


def test_no_tokens_at_all():
    advantage, returns = gae(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool), 1.0, 0.95)
    assert advantage.shape == returns.shape == (2, 0)


def test_whitened_entries_have_mean_0_and_population_variance_1_over_real_tokens_only():
    # 1, 3, 5: mean 3, population variance 8/3.
    whitened = whiten(torch.tensor([[1.0, 3.0], [5.0, 99.0]]), torch.tensor([[True, True], [True, False]]))
    by = (8 / 3) ** 0.5
    torch.testing.assert_close(whitened, torch.tensor([[-2 / by, 0.0], [2 / by, 0.0]]))


def test_whitening_equal_single_or_no_entries_gives_zeros():
    mask = torch.tensor([[True, True, False]])
    assert whiten(torch.tensor([[0.5, 0.5, float("nan")]]), mask).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(torch.tensor([[7.0, 1.0]]), torch.tensor([[True, False]])).tolist() == [[0.0, 0.0]]
    assert whiten(torch.tensor([[7.0]]), torch.tensor([[False]])).tolist() == [[0.0]]
