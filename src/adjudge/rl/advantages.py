"""Advantages and returns of finished responses.

Shapes: ``B`` responses, ``R`` response tokens, padded on the right, ``S`` steps of a response. Masks are boolean with
True = a real token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WHITEN_EPSILON = 1e-8
"""Added to the variance, so that equal advantages become 0 and not infinite."""
GROUP_EPSILON = 1e-6
"""Added to a group's standard deviation."""


def gae(reward_BR: Tensor, value_BR: Tensor, mask_BR: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return advantages and returns by generalised advantage estimation.

    ``delta_t = r_t + gamma V_{t+1} - V_t`` and ``A_t = delta_t + gamma lam A_{t+1}``. An episode ends with its row's
    last real token, where the next value and advantage are 0. A response cut by the token limit counts as finished,
    since it got its reward.

    Both tensors are float32 ``[B, R]``, without gradient, 0 at padding. The return is advantage + value, the target of
    the value loss. Entries at padding have no influence, even NaN. Raises ValueError when shapes differ or a row's real
    tokens are not at its start.

    Source: arXiv 1506.02438, equation 16.
    """
    _check(mask_BR, reward_BR, value_BR)
    real_BR = mask_BR.bool()
    with torch.no_grad():
        reward_BR = reward_BR.float().masked_fill(~real_BR, 0.0)
        value_BR = value_BR.float().masked_fill(~real_BR, 0.0)
        advantage_BR = torch.zeros_like(reward_BR)
        next_value_B = reward_BR.new_zeros(reward_BR.shape[0])
        next_advantage_B = torch.zeros_like(next_value_B)
        for t in reversed(range(reward_BR.shape[1])):
            # Padding comes after every real token, with reward 0 and value 0. So the recursion reaches the last real
            # token with value and advantage 0: exactly the terminal state.
            delta_B = reward_BR[:, t] + gamma * next_value_B - value_BR[:, t]
            next_advantage_B = delta_B + gamma * lam * next_advantage_B
            next_value_B = value_BR[:, t]
            advantage_BR[:, t] = next_advantage_B
        return advantage_BR, advantage_BR + value_BR


def step_advantages(score_B: Tensor, value_BS: Tensor, steps_B: Tensor, step_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Give each token the advantage of its step, float32 ``[B, R]``.

    It is the value of the next step's state minus that of the step's own. An answer has `steps_B` steps. `value_BS` are
    the values of the states in which they begin, `step_BR` is each token's step, counted from 0. After the last step
    comes the answer's score. 0 at padding.

    Source: arXiv 2410.01679; it is `gae` over steps with gamma 1 and lambda 0.
    """
    step_S = torch.arange(value_BS.shape[1], device=value_BS.device)
    reward_BS = score_B.float()[:, None] * (step_S == steps_B[:, None] - 1)
    advantage_BS, _ = gae(reward_BS, value_BS, step_S < steps_B[:, None], gamma=1.0, lam=0.0)
    return advantage_BS.gather(1, step_BR) * mask_BR


def reward_to_go(reward_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Return each token's sum of its own and all later rewards, float32 ``[B, R]``, 0 at padding.

    Equals the advantages of `gae` with gamma = lam = 1 and values of 0. Source: arXiv 2501.03262, section 3.
    """
    zeros_BR = torch.zeros_like(reward_BR)
    return gae(reward_BR, zeros_BR, mask_BR, gamma=1.0, lam=1.0)[0]


def leave_one_out(score_B: Tensor, samples: int) -> Tensor:
    """Return each answer's score minus the mean score of the prompt's other answers, float32 ``[B]``.

    Answers of one prompt are adjacent. Raises ValueError for fewer than two per prompt. Source: arXiv 2402.14740.
    """
    centred_B = group_relative(score_B, samples, scale=False)
    return centred_B * samples / (samples - 1)


def group_relative(score_B: Tensor, samples: int, *, scale: bool = True) -> Tensor:
    """Return each answer's score minus the mean score of its prompt's answers, float32 ``[B]``.

    With `scale`, divide by the group's population standard deviation; a group of equal scores becomes 0. Answers of one
    prompt are adjacent. Raises ValueError for fewer than two per prompt.
    Source: arXiv 2402.03300 (scaled), 2503.20783 (not scaled).
    """
    if samples < 2 or len(score_B) % samples:
        raise ValueError(f"{len(score_B)} scores are no groups of {samples}; a group has at least two answers")
    score_PG = score_B.float().reshape(-1, samples)
    centred_PG = score_PG - score_PG[:, :1]  # equal scores are then exactly 0, where their mean may be rounded
    centred_PG = centred_PG - centred_PG.mean(1, keepdim=True)
    if scale:
        deviation_PG = score_PG.std(1, correction=0, keepdim=True)
        centred_PG = torch.where(deviation_PG > GROUP_EPSILON, centred_PG / (deviation_PG + GROUP_EPSILON), 0.0)
    return centred_PG.flatten()


def relative_to_all(score_B: Tensor, samples: int, other_N: Tensor, prompt_N: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return each score minus its prompt's mean score, for sampled answers ``[B]`` and others ``[N]``.

    The mean is over a prompt's `samples` adjacent answers and all others of it; `prompt_N` are the others' prompts,
    counted from 0. Equal scores give 0. Raises ValueError for scores that are no groups.
    Source: the published code of arXiv 2506.03106.
    """
    if samples < 1 or len(score_B) % samples:
        raise ValueError(f"{len(score_B)} scores are no groups of {samples}")
    index_N = torch.as_tensor(prompt_N, dtype=torch.long)
    first_P = score_B.float()[::samples]
    score_PG = score_B.float().reshape(-1, samples) - first_P[:, None]  # as in `group_relative`
    other_N = other_N.float() - first_P[index_N]
    sum_P = score_PG.sum(1).index_add(0, index_N, other_N)
    mean_P = sum_P / torch.full_like(sum_P, samples).index_add(0, index_N, torch.ones_like(other_N))
    return (score_PG - mean_P[:, None]).flatten(), other_N - mean_P[index_N]


def tied(score_B: Tensor, samples: int) -> Tensor:
    """Return, per answer, whether all answers to its prompt got the same score, ``[B]``."""
    score_PG = score_B.reshape(-1, samples)
    return (score_PG == score_PG[:, :1]).all(1).repeat_interleave(samples)


def per_token(advantage_B: Tensor, mask_BR: Tensor) -> Tensor:
    """Give each token of an answer the answer's advantage: float32 ``[B, R]``, 0 at padding."""
    return advantage_B.float()[:, None] * mask_BR


def whiten(x_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Return `x_BR` shifted and scaled to mean 0 and variance 1 over the batch's real tokens.

    Uses the population variance. Returns float32, 0 at padding. Equal entries, or a single one, become 0.
    """
    real_BR = mask_BR.bool()
    count = real_BR.sum().clamp(min=1)
    x_BR = x_BR.float().masked_fill(~real_BR, 0.0)
    centred_BR = (x_BR - x_BR.sum() / count).masked_fill(~real_BR, 0.0)
    variance = centred_BR.square().sum() / count
    return centred_BR * torch.rsqrt(variance + WHITEN_EPSILON)


def _check(mask_BR: Tensor, *others_BR: Tensor) -> None:
    for other_BR in others_BR:
        if other_BR.shape != mask_BR.shape or mask_BR.ndim != 2:
            raise ValueError(
                f"shapes differ or are not (B, R): {tuple(other_BR.shape)} and mask {tuple(mask_BR.shape)}"
            )
    if bool((mask_BR[:, 1:].bool() & ~mask_BR[:, :-1].bool()).any()):
        raise ValueError("a row has a real token after padding: responses are padded on the right")
