"""The last decoder layer, run only for tokens whose hidden state is requested.

Its attention still sees every token's keys and values. What follows attention, three quarters of the layer, is saved.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn

from adjudge.models.engine.packing import Packing

LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Classes of transformers with exactly the forward that `_forward` computes."""


def trim_last_layer(decoder: Any) -> bool:
    """Let packed passes end in the requested tokens; return False if the last layer is of an unknown kind."""
    layers = getattr(decoder, "layers", None)
    if not layers or type(layers[-1]).__name__ not in LAYERS:
        return False
    layers[-1].forward = MethodType(_forward, layers[-1])
    return True


def restore_last_layer(decoder: Any) -> None:
    """Undo `trim_last_layer`."""
    layer: nn.Module = decoder.layers[-1]
    layer.__dict__.pop("forward", None)


def _forward(self: Any, hidden_states: Tensor, *, packing: Packing | None = None, **named: Any) -> Any:
    if packing is None:
        return type(self).forward(self, hidden_states, **named)
    attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), packing=packing, **named)
    index_K = packing.wanted_K + hidden_states.shape[1] - len(packing.ids_M)
    picked = hidden_states.index_select(1, index_K) + attended.index_select(1, index_K)
    return picked + self.mlp(self.post_attention_layernorm(picked))
