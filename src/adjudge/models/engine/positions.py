"""How many positions a model has for the tokens of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

_CHANGING = ("dynamic", "longrope")
"""Kinds of rotary positions that change for all rows of a pass when one of them has more than the first so many."""
_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")
"""Names under which the configurations of transformers' families state it (MPT: the last)."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The number of positions that a model was made for."""

    count: int
    fixed: bool
    """True if there are no more: a longer row fails. Rotary positions are computed, so they go on."""
    why: str = ""
    """Why a model with rotary positions has no more, in brackets."""


def find_positions(model: nn.Module) -> Positions | None:
    """Return a model's positions, or None where its configuration states none (BLOOM, Mamba)."""
    config: Any = model.config
    config = config.get_text_config()
    if (first := _unchanged(config)) is not None:
        return Positions(first, fixed=True, why=" (beyond them they change with the longest row beside it)")
    for name in _NAMES:
        count = getattr(config, name, None)
        if isinstance(count, int) and count > 0:
            rotary = any("RotaryEmbedding" in type(module).__name__ for module in model.modules())
            return Positions(count, fixed=not rotary)
    return None


def _unchanged(config: Any) -> int | None:
    """Return up to how many positions rotary ones do not depend on other rows; None where they never do."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [each for each in (parameters, *parameters.values()) if isinstance(each, dict)]  # some: by kind of layer
    if not any(each.get("rope_type") in _CHANGING for each in kinds):
        return None
    given = [each.get("original_max_position_embeddings") for each in kinds]
    own = (getattr(config, name, None) for name in ("original_max_position_embeddings", "max_position_embeddings"))
    return next((count for count in (*given, *own) if isinstance(count, int)), None)
