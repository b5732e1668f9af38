"""One optimizer and one learning-rate schedule for every method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from adjudge.config import OptimizerConfig

MIN_WARMUP_UPDATES = 6
"""The shortest warm-up there is: a share of few updates is hardly any. PPO over 240 rows takes 15 steps, a tenth of which is 2; it
was at the full rate in its second step and had collapsed onto one label by its fourth (docs/notes/warm-up.md)."""


def build_optimizer(
    groups: Sequence[dict[str, Any]], config: OptimizerConfig, total_updates: int
) -> tuple[Optimizer, LambdaLR]:
    """Build optimizer and scheduler; a group may bring its own ``lr`` and ``weight_decay``.

    ``adafactor`` is used with a fixed step, as arXiv 2410.11020 does. Call ``scheduler.step()`` once an update, `total_updates` times.
    """
    groups = [{"lr": config.lr, "weight_decay": config.weight_decay, **group} for group in groups]
    if config.name == "adafactor":
        from transformers import Adafactor

        optimizer: Optimizer = Adafactor(
            groups, lr=config.lr, scale_parameter=False, relative_step=False, warmup_init=False
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return optimizer, LambdaLR(optimizer, lambda update: rate_factor(update, total_updates, config))


def rate_factor(update: int, total: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at an update (counted from 0): a rise over the warm-up, then the schedule, never 0 before the end."""
    warmup = warmup_updates(total, config)
    if update < warmup:
        return (update + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    left = max(0.0, (total - update) / max(1, total - warmup))
    return left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def warmup_updates(total: int, config: OptimizerConfig) -> int:
    """How many of `total` updates have a rising rate: the share, but at least `MIN_WARMUP_UPDATES`, which are at most half of them.

    A share of 0 is no warm-up at all. A share that asks for more than the minimum is taken as it is.
    """
    if config.warmup_share == 0:
        return 0
    return max(math.ceil(config.warmup_share * total), min(MIN_WARMUP_UPDATES, total // 2))


def decay_matrices(model: nn.Module) -> list[dict[str, Any]]:
    """Return two parameter groups: weight decay is for matrices, not for biases and normalisation weights (all vectors)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1]},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
