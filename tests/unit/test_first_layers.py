"""A policy cut to its first layers: its states are those of transformers' own hidden states."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from adjudge.config import load_config
from adjudge.errors import ModelError
from adjudge.models.engine.first_layers import keep_first_layers, layer_count
from adjudge.models.head import last_states
from adjudge.models.policy import load_policy

PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 20], [5, 6, 7, 30, 31, 32, 33]]


def policy_of(folder):
    return load_policy(load_config(values={"model": str(folder), "runtime.dtype": "float32"})).eval()


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2", "tiny_mpt"])
@torch.no_grad()
def test_the_states_are_those_of_transformers(family, request):
    folder = request.getfixturevalue(family)
    policy = policy_of(folder)
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = [own(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in PROMPTS]
    assert policy.layer_count == 2
    last = last_states(policy, PROMPTS)
    assert torch.allclose(last, torch.stack([states[-1][0, -1] for states in expected]), atol=1e-4)
    policy.keep_first_layers(1)
    first = torch.stack([states[1][0, -1] for states in expected])
    for _ in range(2):  # the second time, the common beginning is kept from the first
        assert torch.allclose(last_states(policy, PROMPTS), first, atol=1e-4)
    assert policy.layer_count == 1
    packed = policy.abilities
    assert torch.allclose(last_states(policy, PROMPTS[:1]), first[:1], atol=1e-4)
    assert policy.abilities == packed


def test_layers_of_unknown_kinds_are_an_error():
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    with pytest.raises(ModelError, match="mine: the states of a middle layer are not possible for Sequential"):
        layer_count(decoder, "mine")
    with pytest.raises(ModelError, match="layers are unknown"):
        keep_first_layers(decoder, 1, "mine")
