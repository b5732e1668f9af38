"""Rewards per token with a KL penalty to the reference policy, and the controller of its weight.

Shapes: ``B`` responses, ``R`` response tokens, padded on the right. Masks are boolean with True = a real token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

MAX_ERROR = 0.2
"""Limit of the proportional error: one unusual batch cannot change beta by much."""
SMALLEST_MASS = 1e-6
"""Smaller probabilities of a label, or of all other answers, count as this."""


@torch.no_grad()
def token_rewards(score_B: Tensor, logp_BR: Tensor, ref_logp_BR: Tensor, mask_BR: Tensor, beta: float) -> Tensor:
    """Return each token's reward: −beta (logp − ref_logp), plus the score at the last real token.

    Returns float32 ``[B, R]``, without gradient, 0 at padding. Raises ValueError when a response has no token (its
    score would be lost), or when scores and responses differ in number.

    Source: arXiv 1909.08593, equation 2, spread over the tokens; arXiv 2410.11020.
    """
    real_BR = mask_BR.bool()
    if score_B.shape != real_BR.shape[:1]:
        raise ValueError(f"{tuple(score_B.shape)} scores for {real_BR.shape[0]} responses")
    length_B = real_BR.sum(-1)
    if bool((length_B == 0).any()):
        raise ValueError(
            f"response {int((length_B == 0).nonzero()[0])} has no token, so there is nothing its score can reward"
        )
    if bool((real_BR[:, 1:] & ~real_BR[:, :-1]).any()):
        raise ValueError("a row has a real token after padding: responses are padded on the right")
    penalty_BR = (logp_BR.float() - ref_logp_BR.float()).masked_fill(~real_BR, 0.0)
    # 0 - x and not -x, so that padding and equal policies give 0.0, never -0.0. With beta 0, 0 * inf would be NaN.
    reward_BR = 0.0 - beta * penalty_BR if beta else torch.zeros_like(penalty_BR)
    return reward_BR.scatter_add(1, (length_B - 1).unsqueeze(-1), score_B.float().unsqueeze(-1))


def kl_per_response(logp_BR: Tensor, ref_logp_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Return each response's KL estimate, its sum of logp − ref_logp, in nats, ``[B]``."""
    return ((logp_BR - ref_logp_BR) * mask_BR).sum(1)


def reference_kl(logp_BR: Tensor, ref_logp_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Return an estimate of each token's KL to the reference, with gradient: ``[B, R]``.

    It is never negative, and 0 at padding: exp(d) − d − 1 with d = ref_logp − logp.
    Source: arXiv 2402.03300, equation 4.
    """
    difference_BR = (ref_logp_BR.float().detach() - logp_BR.float()).masked_fill(~mask_BR.bool(), 0.0)
    return torch.expm1(difference_BR) - difference_BR


def full_kl(ref_logits: Tensor, logits: Tensor) -> Tensor:
    """Return KL(π_ref ‖ π) over the whole vocabulary, in nats, ``[…, V] → […]``.

    Only `logits` get a gradient. −inf (a filtered token) is probability 0; filtered by π_ref, it adds nothing.
    Source: arXiv 2404.11999, its sequential KL at one position.
    """
    smallest = torch.finfo(torch.float32).min
    ref_logp = ref_logits.detach().float().log_softmax(-1).clamp(min=smallest)
    logp = logits.float().log_softmax(-1).clamp(min=smallest)
    return (ref_logp.exp() * (ref_logp - logp)).sum(-1)


def label_kl(logp_BL: Tensor, ref_logp_BL: Tensor) -> Tensor:
    """Return the exact KL over the labels and one entry for all other answers, ``[B]``.

    In nats, with the gradient of `logp_BL`. A mass below 1e-6 counts as 1e-6.
    """
    logp_BA, ref_logp_BA = with_other(logp_BL), with_other(ref_logp_BL.detach())
    return (logp_BA.exp() * (logp_BA - ref_logp_BA)).sum(1)


def with_other(logp_BL: Tensor) -> Tensor:
    """Append the log-probability of all answers that are no label: ``[B, L] → [B, L + 1]``."""
    other_B = (1 - logp_BL.float().exp().sum(1)).clamp(min=SMALLEST_MASS)
    return torch.cat([logp_BL.float().clamp(min=math.log(SMALLEST_MASS)), other_B.log()[:, None]], dim=1)


class AdaptiveKL:
    """A proportional controller of the KL coefficient `beta`.

    It moves beta so that the KL per response approaches `target` nats. With `target` None, beta is fixed.
    Source: arXiv 1909.08593, section 2.2 (there the gain is batch size / horizon = 0.1).
    """

    def __init__(self, init: float, target: float | None, horizon: float) -> None:
        if init < 0 or horizon <= 0 or (target is not None and target <= 0):
            raise ValueError(f"beta {init} must be at least 0, target {target} and horizon {horizon} above 0")
        self.beta = float(init)
        self._target = target
        self._horizon = horizon

    def update(self, kl: float, steps: int) -> None:
        """Update beta after a batch of `steps` prompts with a mean KL per response of `kl` nats.

        beta ← beta (1 + clip((kl − target) / target, ±0.2) · min(steps / horizon, 1)). Raises ValueError when `kl` is
        not finite.
        """
        if not math.isfinite(kl):
            raise ValueError(f"the KL to the reference is {kl}")
        if self._target is None:
            return
        error = min(max(kl / self._target - 1, -MAX_ERROR), MAX_ERROR)
        # A batch larger than the horizon must not turn beta negative, which would reward leaving the reference.
        self.beta *= 1 + error * min(steps / self._horizon, 1.0)

    def state_dict(self) -> dict[str, float]:
        """Return beta, which JSON stores exactly."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.beta = float(state["beta"])
