"""Stops before harm: nothing that is not finite reaches the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adjudge.errors import NotFiniteError

_CURE = "A lower learning rate or runtime.dtype=float32 is the usual cure."


def check_finite(what: str, tensor: Tensor, step: int) -> None:
    """Raise NotFiniteError, naming `what` and the step, when any entry is not finite."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise NotFiniteError(
            f"Step {step}: {what} is not finite ({bad} of {tensor.numel()} entries). The weights were not updated. {_CURE}"
        )


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None, step: int) -> float:
    """Scale gradients down to `max_norm` and return their norm before it. Call it right before the optimizer's step.

    Raises NotFiniteError when that norm is not finite, or a weight that would be updated is not: then an update before did it.
    """
    trained = list(parameters)
    norm = nn.utils.clip_grad_norm_(trained, max_norm if max_norm is not None else math.inf)
    check_finite("the gradient", norm, step)
    if not _finite(trained):
        raise NotFiniteError(f"Step {step}: a weight is not finite. {_CURE}")
    return float(norm)


def check_weights(module: nn.Module, what: str) -> None:
    """Raise NotFiniteError when a trained weight is not finite: before it is saved as a result."""
    if not _finite([parameter for parameter in module.parameters() if parameter.requires_grad]):
        raise NotFiniteError(f"{what} has weights that are not finite after the last update, and is not saved. {_CURE}")


def _finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every entry is finite; by the norms, which a single entry makes infinite or NaN (so does a norm beyond the dtype's range)."""
    with torch.no_grad():
        return bool(torch.isfinite(torch.stack([norm.float() for norm in torch._foreach_norm(list(tensors))])).all())
