"""Test a base that is divided over processes, pass by pass: each world is two or three processes (gloo, on the CPU)."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, GPT2Config, LlamaConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from worlds import printed, run_world

from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.models.policy import Policy, load_policy
from adjudge.system import parallel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 10], [5, 6, 7, 11, 12, 13]]
RESPONSES = [[20, 21], [22], [23, 24, 25]]


def policy_of(model: Path, *, divided: bool, **runtime: Any) -> Policy:
    """Return a policy whose adapter is not at zero, and the same in every process."""
    values = {f"runtime.{name}": value for name, value in runtime.items()}
    config = load_config(
        values={"model": str(model), "runtime.dtype": "float32", "runtime.shard_base": divided, "lora.r": 4, **values}
    )
    policy = load_policy(config, adapter=True)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.adapter_parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
    return policy


def own_and_divided(model: Path, **runtime: Any) -> Iterator[Policy]:
    """Yield a policy that this process has whole, and then one whose base is divided."""
    yield policy_of(model, divided=False, **runtime)
    policy = policy_of(model, divided=True, **runtime)
    assert policy.sharded is not None
    yield policy


def gradients(policy: Policy, passes: int = 1) -> list[Tensor]:
    """Return the gradients of the adapter after passes over all rows, and the logits."""
    policy.train()
    for parameter in policy.adapter_parameters():
        parameter.grad = None
    outputs = []
    for _ in range(passes):
        logits = policy.logits(policy.hidden(policy.batch(PROMPTS, RESPONSES)))
        logits.log_softmax(-1)[:, 20].sum().backward()
        outputs = [logits.detach()]
    policy.eval()
    return [
        *outputs,
        *(parameter.grad.clone() for parameter in policy.adapter_parameters() if parameter.grad is not None),
    ]


def close(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def same_figures(model: Path, runtime: dict[str, Any]) -> None:
    with parallel.joined():
        whole, divided = own_and_divided(model, **runtime)
        close(gradients(whole), gradients(divided))
        with whole.reference(), divided.reference(), torch.no_grad():
            first, second = (policy.hidden(policy.batch(PROMPTS, RESPONSES)) for policy in (whole, divided))
        close([first], [second])
        assert not divided.replays


def other_layouts(model: Path) -> None:
    """Passes that share a prefix through a cache, whose backward pass comes back to a layer after all others."""
    with parallel.joined():
        whole, divided = own_and_divided(model)
        for policy in (whole, divided):
            policy.use(replace(policy.abilities, packs=False, trims_last_layer=False))
        close(gradients(whole), gradients(divided))
        for policy in (whole, divided):
            policy.use(replace(policy.abilities, packs=True, trims_last_layer=True))
        close(gradients(whole), gradients(divided))
        figures = []
        for policy in (whole, divided):
            policy.train()
            hidden, state = policy.extend(policy.prefill(PROMPTS, grad=True), torch.tensor([[20], [21], [22]]))
            _, state = policy.extend(state, torch.tensor([[23], [24], [25]]))
            parameters = policy.adapter_parameters()
            found = torch.autograd.grad(hidden.sum() + state.hidden_BD.sum(), parameters)
            figures.append([hidden.detach(), *found])
        close(*figures)


def uneven_passes(model: Path) -> None:
    """Each process runs as many passes as it likes, of the kinds it likes."""
    with parallel.joined():
        whole, divided = own_and_divided(model)
        alone = parallel.on_first(lambda: [tensor.tolist() for tensor in gradients(divided)])
        close([torch.tensor(each) for each in alone], gradients(whole))
        mine = parallel.agreed(lambda: gradients(divided, passes=1 + 2 * parallel.rank()))
        close(mine[1][1:], [3 * each for each in mine[0][1:]])
        if parallel.is_first():  # sampling here, a backward pass there
            state = divided.prefill(PROMPTS)
            for token in range(20, 25):
                _, state = divided.extend(state, torch.full((3, 1), token))
        else:
            close(gradients(divided), gradients(whole))
        parallel.gathered(None)


def half_the_bytes(model: Path) -> None:
    with parallel.joined():
        policy = policy_of(model, divided=True)
        sharded, network = policy.sharded, policy.engine.model
        assert sharded is not None
        adapters = sum(parameter.nbytes for parameter in policy.adapter_parameters())
        gradients(policy)
        base = [parameter for parameter in network.parameters() if not parameter.requires_grad]
        shown = sum(parameter.nbytes for parameter in base)
        assert sharded.whole_bytes == shown
        assert sharded.held_bytes < 0.51 * shown
        gc.collect()
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if isinstance(tensor, torch.Tensor)
        }
        allowed = sharded.held_bytes + sharded.largest_bytes + 3 * adapters + 200_000
        assert sum(storages.values()) < allowed, "no process has all of the base"
        assert allowed < 0.8 * shown
        assert any(parameter.isnan().all() for parameter in base), "a weight that is not here is no number"


def refused(model: Path, message: str) -> None:
    with parallel.joined(), pytest.raises(ModelError, match=message):
        policy_of(model, divided=True)


def used_too_late(model: Path) -> None:
    with parallel.joined():
        policy = policy_of(model, divided=True)
    with pytest.raises(ModelError, match="load it again, in one process"):
        policy.hidden(policy.batch(PROMPTS, RESPONSES))


def check(action: Callable[..., None], *arguments: Any, folder: Path, size: int = 2) -> None:
    assert run_world(size, action, *arguments, folder=folder / "world") == [0] * size, printed(folder / "world")


def saved(config: Any, tokenizer_of: Path, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(folder))
    PreTrainedTokenizerFast.from_pretrained(str(tokenizer_of)).save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("runtime", [{}, {"checkpoint_activations": True}], ids=["plain", "checkpointed"])
def test_logits_gradients_and_reference_are_those_of_the_whole_base(
    runtime: dict[str, Any], tiny_llama: Path, tmp_path: Path
) -> None:
    check(same_figures, tiny_llama, runtime, folder=tmp_path)


def test_every_layout_of_a_pass_gives_the_same_gradient(able: Path, tmp_path: Path) -> None:
    check(other_layouts, able, folder=tmp_path)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_may_run_different_passes(size: int, able: Path, tmp_path: Path) -> None:
    check(uneven_passes, able, folder=tmp_path, size=size)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_families_with_layers_of_another_kind(kind: str, able: Path, tmp_path: Path) -> None:
    small: Any = {
        "gpt2": GPT2Config(
            vocab_size=600, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=0, eos_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        ),
        "gemma2": Gemma2Config(
            vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, sliding_window=64,
        ),
    }[kind]  # fmt: skip
    check(same_figures, saved(small, able, tmp_path / kind), {}, folder=tmp_path)


def test_each_process_holds_about_half_of_the_base(able: Path, tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=600, hidden_size=128, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    check(half_the_bytes, saved(config, able, tmp_path / "model"), folder=tmp_path)


def test_after_the_processes_have_left_the_base_cannot_be_used(tiny_llama: Path, tmp_path: Path) -> None:
    check(used_too_late, tiny_llama, folder=tmp_path)


def test_one_process_has_the_whole_base_whatever_the_setting(tiny_llama: Path) -> None:
    assert policy_of(tiny_llama, divided=True).sharded is None


def test_quantised_weights_are_not_divided() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.quantization=4bit cannot be divided"):
        load_config(values={"runtime.quantization": "4bit", "runtime.shard_base": True})
