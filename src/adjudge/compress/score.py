"""How important is a group? Pure functions on weights and gradients.

taylor     the loss's change to first order when a weight becomes 0, |g·w|; with the diagonal Fisher
           |g·w − ½ Σ_j (g_j·w)²|
magnitude  |w|
random     a draw
saap       SAAP-style: the two forms of taylor fused, and layer budgets by how much the scores fluctuate

Sources: LLM-Pruner (arXiv 2305.11627), equations 3 to 6. SAAP (arXiv 2412.15127) as its abstract and summaries tell
it: the fusion with the maximum-likelihood σ in closed form, and fluctuation as the coefficient of variation over
batches, are ours. Shapes: ``G`` groups of one kind in one layer, ``N`` layers, ``B`` batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-12


def taylor_terms(weight: Tensor, gradient: Tensor, squares: Tensor | None = None) -> Tensor:
    """Return what each weight adds to the loss's change when it becomes 0, with its sign.

    `gradient` is summed over the rows, and so are `squares`, the squared gradients of single rows (the diagonal of the
    Fisher information, in place of the Hessian). Equations 3 to 5 of LLM-Pruner.
    """
    first = gradient * weight
    return first if squares is None else first - 0.5 * squares * weight**2


def fused(vector: Tensor, element: Tensor) -> Tensor:
    """Return both importances, each divided by its mean over all groups, halved and added.

    With σ² = mean(I), which is most likely under the homoscedastic model, Σ_m I_m / (2σ_m²) becomes this sum.
    """
    return 0.5 * (vector / vector.mean().clamp_min(SMALLEST) + element / element.mean().clamp_min(SMALLEST))


def fluctuation(scores_BG: Tensor) -> Tensor:
    """Return each group's coefficient of variation over the batches, ``[B, …] → […]``.

    That is the population standard deviation over the mean.
    """
    return scores_BG.std(0, correction=0) / (scores_BG.mean(0) + SMALLEST)


def removed_per_layer(fluctuation_N: Tensor, count: int, ratio: float, most: float = 0.9) -> list[int]:
    """Return how many of `count` groups each layer loses: in proportion to its fluctuation.

    The sum over layers is round(ratio · N · count). No layer loses more than the share `most`, or its last group; what
    it cannot give, the others do.
    """
    layers = len(fluctuation_N)
    limit = min(int(most * count), count - 1)
    total = min(round(ratio * layers * count), layers * limit)
    weights = fluctuation_N.double().clamp_min(SMALLEST)
    exact = torch.zeros(layers, dtype=torch.float64)
    open_layers = torch.ones(layers, dtype=torch.bool)
    while open_layers.any():
        rest = total - exact[~open_layers].sum()
        exact[open_layers] = rest * weights[open_layers] / weights[open_layers].sum()
        over = open_layers & (exact > limit)
        if not over.any():
            break
        exact[over] = limit
        open_layers &= ~over
    removed = exact.floor().long()
    # Largest remainders first; equal ones in the order of the layers.
    order = sorted(range(layers), key=lambda layer: -round(float(exact[layer] - removed[layer]), 9))
    for layer in [layer for layer in order if removed[layer] < limit][: total - int(removed.sum())]:
        removed[layer] += 1
    return [int(each) for each in removed]


def keep_best(score_G: Tensor, count: int) -> Tensor:
    """Return the indices, ascending, of the `count` highest scores; of equal scores, the first ones."""
    order = torch.sort(score_G, descending=True, stable=True).indices
    return order[:count].sort().values
