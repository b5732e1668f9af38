"""Advantages and returns of finished responses.

Shapes: ``B`` responses, ``R`` response tokens, padded on the right. Masks are boolean with True = a real token.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITEN_EPSILON = 1e-8
"""Added to the variance, so that equal advantages become zeros and not infinities."""


def gae(reward_BR: Tensor, value_BR: Tensor, mask_BR: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over episodes that end with each row's last real token.

    ``delta_t = r_t + gamma V_{t+1} - V_t`` and ``A_t = delta_t + gamma lam A_{t+1}``, where value and advantage after the last
    real token are 0: a response that was cut by the token limit is a finished one, because its reward was given.
    Returns (advantage_BR, return_BR) in float32, without gradient, 0 at padding; the return is advantage + value, the target
    of the value loss. Whatever stands at padding, NaN included, has no influence.
    Raises ValueError when shapes differ or a row's real tokens are not at its start.

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
            # Padding carries reward 0 and value 0 and comes after every real token, so the recursion reaches the last real
            # token with 0 and 0 in hand: exactly the terminal state.
            delta_B = reward_BR[:, t] + gamma * next_value_B - value_BR[:, t]
            next_advantage_B = delta_B + gamma * lam * next_advantage_B
            next_value_B = value_BR[:, t]
            advantage_BR[:, t] = next_advantage_B
        return advantage_BR, advantage_BR + value_BR


def reward_to_go(reward_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Return the sum of each token's reward and all later ones of its response, float32 ``[B, R]``, 0 at padding.

    Equals the advantages of `gae` with gamma = lam = 1 and values of 0. Source: arXiv 2501.03262, section 3.
    """
    zeros_BR = torch.zeros_like(reward_BR)
    return gae(reward_BR, zeros_BR, mask_BR, gamma=1.0, lam=1.0)[0]


def whiten(x_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Shift and scale to mean 0 and (population) variance 1 over all real tokens of the batch; 0 at padding.

    Returns float32. Equal entries, or a single one, become 0.
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
