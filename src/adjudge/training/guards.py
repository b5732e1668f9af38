"""Stop before harm: values that are not finite never reach the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adjudge.errors import NotFiniteError

_CURE = "A lower learning rate or runtime.dtype=float32 is the usual cure."


def check_finite(what: str, tensor: Tensor) -> None:
    """Raise NotFiniteError, naming `what`, when any entry is not finite."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise NotFiniteError(
            f"{what} is not finite ({bad} of {tensor.numel()} entries). The weights were not updated. {_CURE}"
        )


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> float:
    """Scale gradients down to `max_norm`, and return their norm before scaling. Call it before the step.

    Raises NotFiniteError when the norm is not finite, or when an earlier update left a weight that is not.
    """
    weights = list(parameters)
    norm = nn.utils.clip_grad_norm_(weights, max_norm if max_norm is not None else math.inf)
    check_finite("the gradient", norm)
    if not _is_finite(weights):
        raise NotFiniteError(f"a weight is not finite. {_CURE}")
    return float(norm)


def check_weights(module: nn.Module, what: str) -> None:
    """Raise NotFiniteError when a trained weight is not finite, before it is saved as a result."""
    if not _is_finite([parameter for parameter in module.parameters() if parameter.requires_grad]):
        raise NotFiniteError(f"{what} has weights that are not finite after the last update, and is not saved. {_CURE}")


def _is_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether every entry is finite. One bad entry makes its tensor's norm infinite or NaN."""
    with torch.no_grad():
        norms = [norm.float() for norm in torch._foreach_norm(list(tensors))]
        return bool(torch.isfinite(torch.stack(norms)).all())
