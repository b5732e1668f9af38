"""Losses that learn from pairs of answers, or from how often an answer wins.

Shapes: ``P`` pairs, ``B`` prompts, ``A`` answers to each prompt, ``T`` tokens of an answer.

A *ratio* is log π(y|x) − log π_ref(y|x), summed over the answer's tokens, in nats.
Every function returns one loss per pair or prompt, float32; the caller takes the mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo(chosen_P: Tensor, rejected_P: Tensor, beta: float) -> Tensor:
    """Return −log σ(β (chosen − rejected)) of the two ratios, ``[P]``: log 2 where they are equal.

    Source: arXiv 2305.18290. With the gold answer as chosen, the model's own as rejected and the policy of
    the iteration before as reference, it is SPIN's (arXiv 2401.01335).
    """
    return -logsigmoid(beta * (chosen_P.float() - rejected_P.float()))


def minor_dpo(chosen_P: Tensor, rejected_P: Tensor, beta: float) -> Tensor:
    """Return DPO's loss with the rejected ratio counted as 0 where it is below, ``[P]``.

    The rejected answer is then pushed down only while it is likelier than under the reference. A reconstruction of the
    gate described for arXiv 2408.09834.
    """
    return dpo(chosen_P, rejected_P.float().clamp(min=0), beta)


def tdpo(
    chosen_P: Tensor,
    rejected_P: Tensor,
    kl_chosen_P: Tensor,
    kl_rejected_P: Tensor,
    beta: float,
    alpha: float | None = None,
) -> Tensor:
    """Return the loss of token-level DPO, ``[P]``: TDPO1 without `alpha`, TDPO2 with it.

    The KLs are KL(π_ref ‖ π) over the vocabulary, summed over each answer's positions, with their gradient. TDPO2 sends
    no gradient through the chosen answer's. Source: arXiv 2404.11999.
    """
    if alpha is None:
        extra_P = kl_rejected_P.float() - kl_chosen_P.float()
    else:
        extra_P = alpha * (kl_rejected_P.float() - kl_chosen_P.float().detach())
    return -logsigmoid(beta * (chosen_P.float() - rejected_P.float() - extra_P))


def sppo(ratio_BA: Tensor, target_BA: Tensor, weight_BA: Tensor) -> Tensor:
    """Return the weighted squared distance of the ratios from their targets, ``[B]``.

    Only `ratio_BA` gets a gradient. Source: arXiv 2405.00675, where two answers weigh ½ each.
    """
    return (weight_BA.detach() * (ratio_BA.float() - target_BA.detach()).square()).sum(1)


def win_rate_among(right_BG: Tensor) -> Tensor:
    """Return how often each of a prompt's answers beats one drawn from the same answers, ``[B, G]``.

    A right answer beats a wrong one; of two that are both right, or both wrong, each wins half the time. The answer
    itself is among those it meets.
    """
    right_BG = right_BG.float()
    return 0.5 + 0.5 * (right_BG - right_BG.mean(1, keepdim=True))


def win_rate(right_BA: Tensor, share_right_B: Tensor) -> Tensor:
    """Return how often each answer beats one drawn from a policy, ``[B, A]``.

    The policy is right p = `share_right_B` of the time. A right answer wins 1 − p / 2 of the time, a wrong one
    (1 − p) / 2.
    """
    return 0.5 + 0.5 * (right_BA.float() - share_right_B.float()[:, None])


def log_normaliser(win_BA: Tensor, probability_BA: Tensor, eta: float) -> Tensor:
    """Return log Σ p exp(η P), ``[B]``: what makes π exp(η P) a distribution.

    The probabilities must sum to 1. Source: arXiv 2405.00675.
    """
    return torch.logsumexp(probability_BA.float().clamp(min=1e-30).log() + eta * win_BA.float(), dim=1)


def minor_weight(ratio_B: Tensor, beta: float) -> Tensor:
    """Return MinorSFT's weight of each row, 2 σ(−β ratio), ``[B]``, without gradient: 1 for β = 0.

    A row whose answer is likelier than under the reference counts less. Source: arXiv 2408.10642 (its gradient).
    """
    return 2 * torch.sigmoid(-beta * ratio_B.detach().float())


def pairwise(chosen_PT: Tensor, rejected_PT: Tensor, divergent_PT: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean of −log σ((chosen − rejected) / τ) over the tokens where a pair differs, ``[P]``.

    The two are a reward model's values after each token of the answers. A pair of equal answers has no such token: its
    loss is log 2, without gradient. Source: arXiv 2405.19763.
    """
    difference_PT = (chosen_PT.float() - rejected_PT.float()) * divergent_PT
    count_P = divergent_PT.sum(1)
    loss_P = -(logsigmoid(difference_PT / temperature) * divergent_PT).sum(1) / count_P.clamp(min=1)
    return torch.where(count_P > 0, loss_P, math.log(2))
