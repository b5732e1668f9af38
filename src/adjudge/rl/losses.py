"""The losses of PPO and SFT, and the log-probabilities they use.

Shapes: ``B`` responses, ``R`` response tokens, ``V`` vocabulary. Masks are boolean with True = a real token.

Every loss is a mean over real tokens: the masked sum divided by `denominator`, by default the number of real tokens in
the tensors. When `denominator` is the number of real tokens of the *whole* batch, the losses of its micro-batches add
up to the loss of the batch. So do the gradients and the other means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """`loss` carries the gradient; the other scalars are detached float32 tensors."""

    loss: Tensor
    clip_fraction: Tensor
    """Share of real tokens whose ratio lies outside the clip range."""
    approx_kl: Tensor
    """Mean of (ratio − 1) − log ratio, in nats per token: never negative, unbiased for KL(old policy || policy)."""


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """`loss` carries the gradient; the other scalars are detached float32 tensors."""

    loss: Tensor
    explained_variance: Tensor
    """1 − Var(return − value) / Var(return) over the real tokens given; 0 when the return is constant. Not additive."""


def policy_loss(
    logp_BR: Tensor,
    old_logp_BR: Tensor,
    advantage_BR: Tensor,
    mask_BR: Tensor,
    clip: float,
    *,
    clip_high: float | None = None,
    denominator: float | Tensor | None = None,
) -> PolicyLoss:
    """Return PPO's clipped surrogate, negated so that smaller is better.

    The loss is the mean of max(−A ρ, −A clamp(ρ, 1 − clip, 1 + clip_high)) with ρ = exp(logp − old_logp), all in
    float32. `clip_high` None is `clip`. Only `logp_BR` gets a gradient.

    Source: arXiv 1707.06347, equation 7; `clip_high`: arXiv 2503.14476, section 3.1. The KL estimate is the third of
    J. Schulman, "Approximating KL divergence" (2020).
    """
    real_BR = mask_BR.bool()
    count = _denominator(real_BR, denominator)
    # Set padding to 0 before exp: an infinity there would become NaN in the backward pass despite the mask.
    log_ratio_BR = (logp_BR.float() - old_logp_BR.float().detach()).masked_fill(~real_BR, 0.0)
    advantage_BR = advantage_BR.float().detach().masked_fill(~real_BR, 0.0)
    ratio_BR = log_ratio_BR.exp()
    highest = 1 + (clip if clip_high is None else clip_high)
    loss_BR = torch.maximum(-advantage_BR * ratio_BR, -advantage_BR * ratio_BR.clamp(1 - clip, highest))
    loss = loss_BR.sum() / count
    with torch.no_grad():
        outside_BR = ((ratio_BR < 1 - clip) | (ratio_BR > highest)).float()
        kl_BR = torch.expm1(log_ratio_BR) - log_ratio_BR
        return PolicyLoss(
            loss=loss,
            clip_fraction=outside_BR.sum() / count,
            approx_kl=kl_BR.sum() / count,
        )


def shaped_loss(
    logp_BR: Tensor,
    advantage_BR: Tensor,
    mask_BR: Tensor,
    shaping: float,
    *,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Return the loss of another policy's answers: the mean of −A p / (p + shaping), p = exp(logp).

    Its gradient, −A shaping p / (p + shaping)² ∇logp, is largest at p = shaping, and small where a token is likely
    already, or hopeless. Only `logp_BR` gets one. Source: the published code of arXiv 2506.03106.
    """
    real_BR = mask_BR.bool()
    shaped_BR = torch.sigmoid(logp_BR.float().masked_fill(~real_BR, 0.0) - math.log(shaping))
    advantage_BR = advantage_BR.float().detach().masked_fill(~real_BR, 0.0)
    return -(advantage_BR * shaped_BR).sum() / _denominator(real_BR, denominator)


def value_loss(
    value_BR: Tensor,
    old_value_BR: Tensor,
    return_BR: Tensor,
    mask_BR: Tensor,
    clip: float,
    *,
    denominator: float | Tensor | None = None,
) -> ValueLoss:
    """Return half the squared error of the values, with their change since sampling clipped.

    The loss is the mean of ½ max(unclipped, clipped), with unclipped = (V − return)² and
    clipped = (V_old + clamp(V − V_old, ± clip) − return)². Only `value_BR` gets a gradient, and none where the value
    has moved more than `clip` towards the return.

    Source: the first implementations of PPO (arXiv 1707.06347); the paper itself has only the unclipped term.
    """
    real_BR = mask_BR.bool()
    count = _denominator(real_BR, denominator)
    value_BR = value_BR.float().masked_fill(~real_BR, 0.0)
    old_BR = old_value_BR.float().detach().masked_fill(~real_BR, 0.0)
    return_BR = return_BR.float().detach().masked_fill(~real_BR, 0.0)
    unclipped_BR = (value_BR - return_BR).square()
    clipped_BR = (old_BR + (value_BR - old_BR).clamp(-clip, clip) - return_BR).square()
    loss = 0.5 * torch.maximum(unclipped_BR, clipped_BR).sum() / count
    with torch.no_grad():
        return ValueLoss(
            loss=loss,
            explained_variance=_explained_variance(value_BR.detach()[real_BR], return_BR[real_BR]),
        )


def label_objective(logp_BL: Tensor, reward_BL: Tensor, unreadable: float | Tensor, transform: str) -> Tensor:
    """Return what the exact policy gradient raises, with the gradient of `logp_BL`: float32 ``[B]``.

    ``p`` is the expected reward. ``arcsin`` and ``log`` are Σ w f(p) with f(p) = 2 arcsin √p or log p. The weight w is
    1 for the label with the highest reward and 0 for the one with the lowest. With one right label ``log`` is the
    likelihood which SFT raises.

    Source: arXiv 1706.05374, equation 2; the transforms: arXiv 2510.13651.
    """
    if transform == "p":
        return expected_reward(logp_BL, reward_BL, unreadable)
    lowest_B1, highest_B1 = reward_BL.amin(1, keepdim=True), reward_BL.amax(1, keepdim=True)
    weight_BL = (reward_BL - lowest_B1) / (highest_B1 - lowest_B1).clamp(min=1e-12)
    if transform == "log":
        return (weight_BL * logp_BL.float()).sum(1)
    probability_BL = logp_BL.float().exp().clamp(max=1 - 1e-6)
    return (weight_BL * 2 * probability_BL.sqrt().asin()).sum(1)


def expected_reward(logp_BL: Tensor, reward_BL: Tensor, unreadable: float | Tensor) -> Tensor:
    """Return the exact expected reward per prompt, float32 ``[B]``: the best possible critic.

    `logp_BL` are the log-probabilities of the labels with their ends; all other answers pay `unreadable`, a number
    or ``[B]``. Carries the gradient of `logp_BL`. Source: arXiv 1706.05374 (expected policy gradients), equation 2, for
    finitely many actions.
    """
    probability_BL = logp_BL.float().exp()
    other_B = (1 - probability_BL.sum(1)).clamp(min=0)
    return (probability_BL * reward_BL).sum(1) + other_B * unreadable


def answer_loss(logp_BR: Tensor, mask_BR: Tensor, *, denominator: float | Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of the taught tokens, in nats per token: the loss of SFT."""
    real_BR = mask_BR.bool()
    return -logp_BR.float().masked_fill(~real_BR, 0.0).sum() / _denominator(real_BR, denominator)


def token_logp_and_entropy(logits_BRV: Tensor, ids_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Return each chosen token's log-probability, and the entropy of its distribution, in nats.

    Logits of any dtype are converted to float32, and −inf (a filtered token) is probability 0. The log-probability
    carries the gradient; the entropy is detached. `logits_BRV[b, t]` is the output at the token before `ids_BR[b, t]`.
    """
    logits_BRV = logits_BRV.float()
    chosen_BR = logits_BRV.gather(-1, ids_BR.unsqueeze(-1)).squeeze(-1)
    sum_BR = logits_BRV.logsumexp(-1)
    return chosen_BR - sum_BR, entropy((logits_BRV - sum_BR.unsqueeze(-1)).detach())


@torch.no_grad()
def entropy(logp: Tensor) -> Tensor:
    """Return the entropy in nats of log-probabilities, ``[…, V] → […]``, without gradient.

    −inf is probability 0.
    """
    return -(logp.exp() * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(-1)


def _denominator(real_BR: Tensor, denominator: float | Tensor | None) -> Tensor:
    if denominator is None:
        return real_BR.sum().float().clamp(min=1)
    return torch.as_tensor(denominator, dtype=torch.float32, device=real_BR.device)


def _explained_variance(value_N: Tensor, return_N: Tensor) -> Tensor:
    if return_N.numel() == 0:
        return torch.zeros((), device=return_N.device)
    variance = return_N.var(correction=0)
    explained = 1 - (return_N - value_N).var(correction=0) / variance
    return torch.where(variance > 0, explained, torch.zeros_like(explained))
