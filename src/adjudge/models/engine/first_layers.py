"""A decoder cut to its first layers: what it then returns are the states after the last of them.

The final norm is left out, as in the ``hidden_states`` of transformers, where only the last ones are normed.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from adjudge.errors import ModelError
from adjudge.models.layers import is_decoder_layer


def layer_count(decoder: nn.Module, name: str) -> int:
    """Return the number of layers. Raises ModelError when they are of unknown kinds."""
    return len(_layers(decoder, name)[1])


def keep_first_layers(decoder: nn.Module, count: int, name: str) -> None:
    """Drop every layer after the first `count`, and the final norm.

    `count` is less than the number of layers. Raises ModelError for layers of unknown kinds.
    """
    owner, layers, attribute = _layers(decoder, name)
    norms = [child for child, module in list(owner.named_children()) if "norm" in type(module).__name__.lower()]
    if len(norms) != 1:
        raise _unknown(decoder, name)
    setattr(owner, attribute, layers[:count])
    setattr(owner, norms[0], nn.Identity())
    config: Any = getattr(decoder, "config", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        config.layer_types = list(kinds)[:count]
    config.num_hidden_layers = count  # a cache has as many


def _layers(decoder: nn.Module, name: str) -> tuple[nn.Module, nn.ModuleList, str]:
    """Return the list of layers, the module that owns it, and its name there."""
    matches = [
        (owner, module, attribute)
        for owner in decoder.modules()
        for attribute, module in owner.named_children()
        if isinstance(module, nn.ModuleList) and len(module) and all(map(is_decoder_layer, module))
    ]
    if len(matches) != 1:
        raise _unknown(decoder, name)
    return matches[0]


def _unknown(decoder: nn.Module, name: str) -> ModelError:
    return ModelError(
        f"{name}: the states of a middle layer are not possible for {type(decoder).__name__}, whose layers are unknown."
    )
