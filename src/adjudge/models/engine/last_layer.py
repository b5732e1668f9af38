"""The last decoder layer, computed only for tokens whose hidden state is asked for: nobody reads what it makes of the others.

Its attention still sees every token's keys and values; what follows attention, three quarters of the layer, is spared.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn

from adjudge.models.engine.packing import Packing

LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Classes of transformers whose forward is exactly what is written here."""


def trim_last_layer(decoder: nn.Module) -> bool:
    """Let a packed pass through `decoder` end in the tokens that are asked for; whether its last layer is of a kind known here."""
    layers = getattr(decoder, "layers", None)
    if not layers or type(layers[-1]).__name__ not in LAYERS:
        return False
    layers[-1].forward = MethodType(_forward, layers[-1])
    return True


def _forward(self: Any, hidden_states: Tensor, *, packing: Packing | None = None, **named: Any) -> Any:
    if packing is None:
        return type(self).forward(self, hidden_states, **named)
    attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), packing=packing, **named)
    place_K = packing.wanted_K + hidden_states.shape[1] - len(packing.ids_M)
    picked = hidden_states[:, place_K] + attended[:, place_K]
    return picked + self.mlp(self.post_attention_layernorm(picked))
