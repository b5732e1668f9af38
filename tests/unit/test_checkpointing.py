"""Activation checkpointing: the same figures and gradients from less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from policies import trained_looking
from torch import nn

from adjudge.errors import ModelError
from adjudge.models.engine.checkpointing import checkpoint_layers
from adjudge.models.policy import Policy
from adjudge.rollout.forward import token_figures
from adjudge.rollout.several import several_figures

PROMPTS = [[7, 8, 9, 10, *rest] for rest in ([11], [12, 13, 14, 15, 16, 17], [18, 19, 20], [21, 22])]
RESPONSES = [[30, 31, 32], [2], [33, 2], [34]]
FAMILIES = ("tiny_llama", "tiny_qwen2", "tiny_mpt")


def policy_of(folder: Path, checkpoints: bool) -> Policy:
    return trained_looking(folder, runtime__checkpoint_activations=checkpoints)


def figures(policy: Policy, figures_of: Callable[..., tuple[torch.Tensor, ...]]) -> tuple[list[torch.Tensor], int]:
    """Return log-probabilities, values and gradients, and the bytes kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    policy.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logp, value, _ = figures_of(policy, PROMPTS, RESPONSES, 1.0)
        size = sum(kept.values())
    (logp.sum() + value.square().sum()).backward()
    trained = [*policy.adapter_parameters(), *policy.value_head.parameters()]
    return [logp.detach(), value.detach(), *(parameter.grad.clone() for parameter in trained)], size


@pytest.mark.parametrize(
    ("family", "figures_of"),
    [
        *((family, token_figures) for family in FAMILIES),
        ("tiny_llama", several_figures),
        ("tiny_qwen2", several_figures),
    ],
)
def test_checkpointing_changes_nothing_but_memory(
    family: str, figures_of: Callable[..., tuple[torch.Tensor, ...]], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    again, fewer_bytes = figures(policy_of(folder, True), figures_of)
    kept, bytes_kept = figures(policy_of(folder, False), figures_of)
    for one, other in zip(again, kept, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)
    assert fewer_bytes < bytes_kept


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_with_a_cache_still_works(family: str, request: pytest.FixtureRequest) -> None:
    hidden = []
    for checkpoints in (True, False):
        policy = policy_of(request.getfixturevalue(family), checkpoints)
        state = policy.prefill(PROMPTS)
        hidden.append(policy.extend(state, torch.tensor([[40], [41], [42], [43]]))[0])
    torch.testing.assert_close(*hidden, atol=5e-5, rtol=0)


def test_model_without_known_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="checkpoint_activations"):
        checkpoint_layers(nn.Sequential(nn.Linear(2, 2)), "mine")
