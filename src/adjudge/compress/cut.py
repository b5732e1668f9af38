"""Cut groups out of a model, so that it stays an ordinary model of its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adjudge.compress.groups import NAMES, Kind, head_size, layers_of, linear, positions
from adjudge.errors import ConfigError
from adjudge.models.sources.loading import LOAD_ERRORS


def settings_after(config: Any, widths: Mapping[str, int]) -> dict[str, int]:
    """Return the settings of the model's configuration that change, for new numbers of groups per kind."""
    after: dict[str, int] = {}
    if "mlp" in widths:
        after["intermediate_size"] = widths["mlp"]
    if "heads" in widths:
        repeats = config.num_attention_heads // config.num_key_value_heads
        after |= {
            "num_key_value_heads": widths["heads"],
            "num_attention_heads": widths["heads"] * repeats,
            "head_dim": head_size(config),
        }
    return after


def check_settings(config: Any, widths: Mapping[str, int]) -> None:
    """Raise ConfigError when the family's configuration refuses the new numbers of groups."""
    if not _accepts(config, widths):
        heads = range(1, config.num_key_value_heads)
        allowed = [count for count in heads if _accepts(config, {"heads": count})]
        listed = ", ".join(map(str, allowed)) or "none"
        raise ConfigError(
            f"A {config.model_type} model of width {config.hidden_size} cannot have {widths.get('heads')} of its "
            f"{config.num_key_value_heads} {NAMES['heads']}; transformers accepts {listed}. Name another ratio for "
            "heads, as in --ratio mlp=0.25,heads=0.5, or prune --kinds mlp only."
        )


def _accepts(config: Any, widths: Mapping[str, int]) -> bool:
    try:
        type(config).from_dict({**config.to_dict(), **settings_after(config, widths)})
    except LOAD_ERRORS:
        return False
    return True


@torch.no_grad()
def zero_groups(model: Any, kind: Kind, removed: Sequence[Tensor]) -> None:
    """Set groups' weights and biases to zero, per layer: the layer computes as if they were not there."""
    for layer, groups in zip(layers_of(model), removed, strict=True):
        for member in kind.members:
            module, index = linear(layer, member), positions(groups, member)
            if member.dim == 0:
                module.weight[index] = 0
                if module.bias is not None:
                    module.bias[index] = 0
            else:
                module.weight[:, index] = 0


@torch.no_grad()
def cut_groups(model: Any, kinds: Sequence[Kind], kept: Mapping[str, Sequence[Tensor]]) -> None:
    """Keep only these groups: per kind the kept indices of every layer, as many in each.

    Changes the model's configuration too.
    """
    widths = {kind.name: len(kept[kind.name][0]) for kind in kinds}
    for kind in kinds:
        for layer, groups in zip(layers_of(model), kept[kind.name], strict=True):
            for member in kind.members:
                _cut(linear(layer, member), member.dim, positions(groups, member))
    for name, value in settings_after(model.config, widths).items():
        setattr(model.config, name, value)


def _cut(module: nn.Linear, dim: int, index: Tensor) -> None:
    index = index.to(module.weight.device)
    module.weight = nn.Parameter(module.weight.index_select(dim, index).contiguous(), requires_grad=False)
    if dim == 0:
        module.out_features = len(index)
        if module.bias is not None:
            module.bias = nn.Parameter(module.bias[index].clone(), requires_grad=False)
    else:
        module.in_features = len(index)
