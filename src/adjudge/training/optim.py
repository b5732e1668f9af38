"""One optimizer and one learning-rate schedule for every method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from adjudge.config import OptimizerConfig
from adjudge.training.first_phase import FirstPhase

MIN_WARMUP_UPDATES = 6
"""The shortest warm-up: in a short run, a share of the updates is almost none. PPO over 240 rows takes 15 steps. With a
tenth of them as warm-up it reached the full rate in step 2 and collapsed onto one label by step 4
(docs/notes/warm-up.md)."""


def build_optimizer(
    groups: Sequence[dict[str, Any]], config: OptimizerConfig, total_updates: int, first: FirstPhase | None = None
) -> tuple[Optimizer, LambdaLR]:
    """Build optimizer and scheduler. A group may set its own ``lr`` and ``weight_decay``.

    ``adafactor`` has a fixed step size, as in arXiv 2410.11020. Call ``scheduler.step()`` once per step,
    `total_updates` times in all, those of the `first` phase included.
    """
    groups = [{"lr": config.lr, "weight_decay": config.weight_decay, **group} for group in groups]
    if config.name == "adafactor":
        from transformers import Adafactor

        optimizer: Optimizer = Adafactor(
            groups, lr=config.lr, scale_parameter=False, relative_step=False, warmup_init=False
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def factor(step: int) -> float:
        first_steps = first.steps(total_updates) if first is not None else 0
        if first is not None and step < first_steps:
            rate = first.rate(step, total_updates, partial(rate_factor, config=config))
            return rate / config.lr if config.lr else 0.0
        return rate_factor(step - first_steps, total_updates - first_steps, config)

    return optimizer, LambdaLR(optimizer, factor)


def rate_factor(update: int, total: int, config: OptimizerConfig) -> float:
    """Return the learning rate of an update (counted from 0) as a share of the peak rate.

    The rate rises over the warm-up, then follows the schedule. It is never 0 before the last update is done.
    """
    warmup = warmup_updates(total, config)
    if update < warmup:
        return (update + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    remaining = max(0.0, (total - update) / max(1, total - warmup))
    return remaining if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * remaining))


def warmup_updates(total: int, config: OptimizerConfig) -> int:
    """Return the number of warm-up updates: the configured share, but at least `MIN_WARMUP_UPDATES`.

    The minimum never exceeds half of the updates. A share of 0 means no warm-up at all.
    """
    if config.warmup_share == 0:
        return 0
    return max(math.ceil(config.warmup_share * total), min(MIN_WARMUP_UPDATES, total // 2))


def decay_matrices(model: nn.Module) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices with weight decay, vectors (biases, normalisation) without."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1]},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
