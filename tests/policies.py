"""A policy for tests in which everything that is trained matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adjudge.config import LoraConfig, load_config
from adjudge.models.policy import Policy, load_policy


def trained_looking(folder: Path, **values: Any) -> Policy:
    """A float32 policy whose adapter and value head are not at zero; `values` are settings, ``__`` for the dot."""
    settings = {name.replace("__", "."): value for name, value in values.items()}
    policy = load_policy(
        load_config(values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu", **settings})
    )
    policy.add_adapter(LoraConfig(r=4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*policy.adapter_parameters(), *policy.value_head.parameters()]:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy.eval()
