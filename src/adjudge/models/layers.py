"""Which modules of a causal LM are its decoder layers, whatever its family.

They are those that transformers can checkpoint.
"""

from __future__ import annotations

from torch import nn


def is_decoder_layer(module: nn.Module) -> bool:
    """Return whether a module is a decoder layer of transformers."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return a model's decoder layers from the first to the last; none where they are of unknown kinds."""
    return [module for module in model.modules() if is_decoder_layer(module)]
