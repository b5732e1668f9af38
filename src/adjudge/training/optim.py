"""One optimizer and one learning-rate schedule for every method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from adjudge.config import OptimizerConfig


def build_optimizer(groups: Sequence[dict[str, Any]], config: OptimizerConfig, total_updates: int) -> tuple[Optimizer, LambdaLR]:
    """Build optimizer and scheduler; a group may bring its own ``lr`` and ``weight_decay``.

    ``adafactor`` is used with a fixed step, as arXiv 2410.11020 does. Call ``scheduler.step()`` once an update, `total_updates` times.
    """
    groups = [{"lr": config.lr, "weight_decay": config.weight_decay, **group} for group in groups]
    if config.name == "adafactor":
        from transformers import Adafactor

        optimizer: Optimizer = Adafactor(groups, lr=config.lr, scale_parameter=False, relative_step=False, warmup_init=False)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return optimizer, LambdaLR(optimizer, lambda update: rate_factor(update, total_updates, config))


def rate_factor(update: int, total: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at an update (counted from 0): a rise over the warm-up, then the schedule, never 0 before the end."""
    warmup = math.ceil(config.warmup_share * total)
    if update < warmup:
        return (update + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    left = max(0.0, (total - update) / max(1, total - warmup))
    return left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
