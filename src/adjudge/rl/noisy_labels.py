"""Losses for labels that may be wrong: smoothed targets, and predictions averaged over time.

Shapes: ``B`` rows, ``L`` labels. Probabilities of a row sum to 1. Source of all: arXiv 2202.04538 (SuperGen).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def smoothed_loss(logp_BL: Tensor, label_B: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy to smoothed labels, ``[B]``, in nats.

    The targets are 1 − ε + ε / L for the label and ε / L for the others; ε is `smoothing`.
    """
    logp_BL = logp_BL.float()
    chosen_B = logp_BL.gather(1, label_B[:, None]).squeeze(1)
    return -(1 - smoothing) * chosen_B - smoothing * logp_BL.mean(1)


def ensemble_kl(mean_BL: Tensor, logp_BL: Tensor) -> Tensor:
    """Return KL(mean prediction ‖ prediction), ``[B]``, in nats. Only `logp_BL` gets a gradient."""
    mean_BL = mean_BL.detach().float()
    return (torch.xlogy(mean_BL, mean_BL) - mean_BL * logp_BL.float()).sum(1)


def accumulated(sum_BL: Tensor, probability_BL: Tensor, momentum: float) -> Tensor:
    """Return the running sum after another prediction: α · sum + (1 − α) · probability. It begins at 0."""
    return momentum * sum_BL + (1 - momentum) * probability_BL


def mean_prediction(sum_BL: Tensor, momentum: float, count: int) -> Tensor:
    """Return the mean of `count` predictions from their running sum: its bias towards 0 is taken out."""
    return sum_BL / (1 - momentum**count)


def risen(weight: float, count: int, ramp: int) -> float:
    """Return the weight after `count` predictions: λ exp(−5 (1 − count / ramp)²).

    It is λ from `ramp` predictions on, and 0 before the first; λ is `weight`.
    """
    return weight * math.exp(-5 * (1 - min(count / ramp, 1.0)) ** 2) if count else 0.0


def trusted(mean_BL: Tensor, label_B: Tensor, threshold: float, fewest: int = 16) -> Tensor:
    """Return the rows whose label's mean probability is above the threshold, ``[B]`` boolean.

    A label with fewer than `fewest` such rows keeps the likelier half of its rows, rounded up, if that is more.
    """
    own_B = mean_BL.gather(1, label_B[:, None]).squeeze(1)
    kept_B = own_B > threshold
    for label in label_B.unique().tolist():
        index_K = (label_B == label).nonzero().squeeze(1)
        half = -(-len(index_K) // 2)
        if int(kept_B[index_K].sum()) < min(fewest, half):
            best = own_B[index_K].argsort(descending=True, stable=True)[:half]
            kept_B = kept_B.index_fill(0, index_K[best], True)
    return kept_B
