"""Precision of intermediate results."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a 16-bit tensor in float32, any other as it is: sums are not rounded to fewer bits."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
