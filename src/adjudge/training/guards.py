"""Stops before harm: nothing that is not finite reaches the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adjudge.errors import NotFiniteError


def check_finite(what: str, tensor: Tensor, step: int) -> None:
    """Raise NotFiniteError, naming `what` and the step, when any entry is not finite."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise NotFiniteError(
            f"Step {step}: {what} is not finite ({bad} of {tensor.numel()} entries). The weights were not updated. "
            "A lower learning rate or runtime.dtype=float32 is the usual cure."
        )


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None, step: int) -> float:
    """Scale gradients down to `max_norm` and return their norm before it. Raises NotFiniteError when that is not finite."""
    norm = nn.utils.clip_grad_norm_(list(parameters), max_norm if max_norm is not None else math.inf)
    check_finite("the gradient", norm, step)
    return float(norm)
