"""Activation checkpointing (``runtime.checkpoint_activations``): less memory, more time.

Each decoder layer keeps only its input and is run again in the backward pass. A pass that writes to a cache is not
checkpointed: its second run would write twice.
Source: arXiv 1604.06174, section 4.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adjudge.errors import ModelError
from adjudge.models.engine.sharding import hold_weights
from adjudge.models.layers import decoder_layers


def checkpoint_layers(decoder: nn.Module, name: str) -> None:
    """Checkpoint every layer of `decoder`. Raises ModelError when it has no layers of a known kind."""
    layers = decoder_layers(decoder)
    if not layers:
        raise ModelError(
            f"{name}: runtime.checkpoint_activations is not possible for {type(decoder).__name__}; leave it unset."
        )
    for layer in layers:
        layer.forward = MethodType(_checkpointed, layer)  # type: ignore[method-assign]


def _checkpointed(self: Any, *args: Any, **named: Any) -> Any:
    forward = type(self).forward
    cache = named.get("cache", named.get("past_key_values"))  # the second is its name before transformers 5.24
    if not torch.is_grad_enabled() or cache is not None:
        return forward(self, *args, **named)

    def run(*inputs: Any) -> Any:
        hold_weights(self)  # the second time it runs without its hooks
        return forward(self, *inputs, **named)

    return checkpoint(run, *args, use_reentrant=False)
