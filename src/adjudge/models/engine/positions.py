"""How many positions a model has for the tokens of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
"""Names under which the configurations of transformers' families state it (MPT: the last)."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The number of positions that a model was made for."""

    count: int
    fixed: bool
    """True if there are no more: a longer row fails. Rotary positions are computed, so they go on."""


def find_positions(model: nn.Module) -> Positions | None:
    """Return a model's positions, or None where its configuration states none (BLOOM, Mamba)."""
    config: Any = model.config
    config = config.get_text_config()
    for name in _NAMES:
        count = getattr(config, name, None)
        if isinstance(count, int) and count > 0:
            rotary = any("RotaryEmbedding" in type(module).__name__ for module in model.modules())
            return Positions(count, fixed=not rotary)
    return None
