"""What is pruned together in a Llama-like layer.

mlp    channel c: row c of gate_proj and up_proj, column c of down_proj
heads  key-value group g: its rows of k_proj and v_proj, the rows of q_proj of its query heads, their columns of o_proj

Query head h reads key-value head ``h // n_rep``, so the query heads of a group lie side by side.

Source: LLM-Pruner (arXiv 2305.11627), section 3.1. Shapes: ``G`` groups of one kind in one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adjudge.errors import ModelError

FAMILIES = ("llama", "qwen2")
KINDS = ("mlp", "heads")
NAMES = {"mlp": "MLP channels", "heads": "key-value groups"}


@dataclass(frozen=True, slots=True)
class Member:
    """A linear layer that has a part in every group of a kind."""

    name: str
    """Its name within a decoder layer."""
    dim: int
    """0: the parts are rows of its weight (outputs); 1: columns (inputs)."""
    size: int
    """Rows or columns per group."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The groups of one kind in every layer."""

    name: str
    count: int
    members: tuple[Member, ...]

    def fold(self, terms: Mapping[str, Tensor], *, elementwise: bool) -> Tensor:
        """Return each group's score, ``[G]``: the sum over its vectors, from a term per weight of each member.

        A vector is one row or column of a member. Its score is the sum of its absolute terms, or, vector-wise, the
        absolute sum of its terms.
        """
        scores = []
        for member in self.members:
            term = terms[member.name] if member.dim == 0 else terms[member.name].T
            vectors = term.abs().sum(1) if elementwise else term.sum(1).abs()
            scores.append(vectors.view(self.count, member.size).sum(1))
        return torch.stack(scores).sum(0)


def kinds_of(config: Any, names: Sequence[str]) -> list[Kind]:
    """Return the kinds of groups that a model has. Raises ModelError for an unknown family."""
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"Models of the family '{config.model_type}' cannot be pruned; those of {' and '.join(FAMILIES)} can."
        )
    head = head_size(config)
    repeated = head * (config.num_attention_heads // config.num_key_value_heads)
    members = {
        "mlp": (Member("mlp.gate_proj", 0, 1), Member("mlp.up_proj", 0, 1), Member("mlp.down_proj", 1, 1)),
        "heads": (
            Member("self_attn.k_proj", 0, head),
            Member("self_attn.v_proj", 0, head),
            Member("self_attn.q_proj", 0, repeated),
            Member("self_attn.o_proj", 1, repeated),
        ),
    }
    counts = {"mlp": config.intermediate_size, "heads": config.num_key_value_heads}
    return [Kind(name, counts[name], members[name]) for name in names]


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def layers_of(model: Any) -> Sequence[nn.Module]:
    """Return the decoder layers."""
    layers: Sequence[nn.Module] = model.get_decoder().layers
    return layers


def linear(layer: nn.Module, member: Member) -> nn.Linear:
    """Return a member's linear layer."""
    module = layer.get_submodule(member.name)
    assert isinstance(module, nn.Linear)
    return module


def positions(groups: Tensor, member: Member) -> Tensor:
    """Return the rows or columns of a member that belong to these groups, in the groups' order."""
    return (groups[:, None] * member.size + torch.arange(member.size, device=groups.device)).flatten()
