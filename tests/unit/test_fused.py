"""Test that fused layers give the libraries' outputs and gradients with less memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Gemma2Config, GPT2Config, LlamaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from adjudge.models.engine.fused import fuse
from adjudge.models.sources.loading import lora_targets
from adjudge.models.sources.random_models import build_random

ATTENTION = {"random:llama-tiny": "sdpa", "random:qwen2.5-tiny": "sdpa", "random:mpt-tiny": "eager"}
LLAMA = "random:llama-tiny"
ALL = pytest.mark.parametrize("name", ATTENTION)
IDS = torch.randint(2048, (2, 7), generator=torch.Generator().manual_seed(3))


def spread(model: nn.Module, seed: int = 1) -> None:
    """Add small random numbers where a fresh model has 0 or 1 (`lora_B`, biases, norms).

    A lost term then changes the result.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding" in name:
                parameter.normal_(0.0, 0.1, generator=generator)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype), alpha=0.1)


def base(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return build_random(name, dtype, "cpu", ATTENTION[name])


def adapt(lm: nn.Module, *, fused: bool, **settings) -> PeftModel:
    """Add LoRA layers to `lm`, equal for equal arguments; move biases and norms away from 0 and 1."""
    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 8, "target_modules": lora_targets(lm), "task_type": "CAUSAL_LM"} | settings
    model = get_peft_model(lm, LoraConfig(**options))
    spread(model)
    if fused:
        fuse(model)
    return model.eval()


def pair(name: str, dtype: torch.dtype = torch.float32, **settings) -> tuple[PeftModel, PeftModel]:
    """Return the same model twice: as the libraries run it, and fused."""
    first, second = (adapt(base(name, dtype), fused=fused, **settings) for fused in (False, True))
    assert any("forward" in vars(module) for module in second.modules())
    return first, second


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    return model(input_ids=ids).logits


@contextmanager
def embedded(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the input embeddings (MPT takes none as an argument) as leaves that get a gradient."""
    embeds: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        embeds.append(output.detach().requires_grad_())
        return embeds[-1]

    handle = model.get_input_embeddings().register_forward_hook(hook)
    yield embeds
    handle.remove()


def run(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits, and the gradients of a loss at the input embeddings and the trained parameters."""
    model.zero_grad()
    with embedded(model) as embeds:
        out = model(input_ids=IDS).logits
    nn.functional.cross_entropy(out.float().flatten(0, 1), IDS.flip(1).flatten()).backward()
    return out.detach(), {"embeds": embeds[0].grad} | {
        key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad
    }


def assert_same_gradients(gradients: dict[str, Tensor], expected: dict[str, Tensor], share: float = 1e-5) -> None:
    """Compare entries up to `share` of their tensor's largest entry; no expected tensor is all zero."""
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        assert value.abs().max() > 0, key
        assert gradients[key].dtype == value.dtype, key
        assert (gradients[key] - value).abs().max() <= share * value.abs().max(), key


def replaced_forwards(model: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules() if "forward" in vars(module))


@ALL
def test_logits_and_gradients_equal_the_libraries(name: str) -> None:
    plain, fused = pair(name)
    expected, expected_gradients = run(plain)
    out, gradients = run(fused)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert len(gradients) == 1 + 2 * 2 * len(lora_targets(base(name)))  # two layers, two matrices each
    assert_same_gradients(gradients, expected_gradients)
    torch.testing.assert_close(logits(fused), logits(plain), atol=1e-5, rtol=0)


@ALL
def test_token_by_token_with_a_cache(name: str) -> None:
    plain, fused = pair(name)
    with torch.inference_mode():
        answers = [
            model.generate(
                input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False, pad_token_id=0
            )
            for model in (plain, fused)
        ]
    assert torch.equal(*answers)
    assert answers[0].shape == (2, 12)


def test_every_known_layer_is_replaced() -> None:
    _, fused = pair(LLAMA)
    assert replaced_forwards(fused) == {"LlamaRMSNorm": 5, "LlamaMLP": 2, "Linear": 14}
    _, fused = pair("random:mpt-tiny")
    assert replaced_forwards(fused) == {"Linear": 8}


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj"], ["gate_proj", "up_proj"], ["down_proj"], ["gate_proj", "up_proj", "down_proj"]]
)
def test_adapters_on_some_layers_only(targets: list[str]) -> None:
    plain, fused = pair(LLAMA, target_modules=targets)
    expected, expected_gradients = run(plain)
    out, gradients = run(fused)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert_same_gradients(gradients, expected_gradients)
    torch.testing.assert_close(logits(fused), logits(plain), atol=1e-5, rtol=0)


def test_fusing_before_and_after_adapters_are_added() -> None:
    lm = base(LLAMA)
    spread(lm)
    expected = logits(lm)
    fuse(lm)
    torch.testing.assert_close(logits(lm), expected, atol=1e-5, rtol=0)
    assert replaced_forwards(lm) == {"LlamaRMSNorm": 5, "LlamaMLP": 2}
    early = adapt(copy.deepcopy(lm), fused=False)  # adapters, and no second call
    late = adapt(lm, fused=True)
    torch.testing.assert_close(logits(late), logits(early), atol=1e-5, rtol=0)
    assert_same_gradients(run(late)[1], run(early)[1])


@pytest.mark.parametrize("name", ["random:llama-tiny", "random:mpt-tiny"])
def test_gradient_checkpointing(name: str) -> None:
    plain, fused = pair(name)
    expected = run(plain)[1]
    fused.gradient_checkpointing_enable({"use_reentrant": False})
    fused.train()
    assert_same_gradients(run(fused)[1], expected)


@ALL
def test_bfloat16_is_as_close_to_float32_as_the_libraries(name: str) -> None:
    """Within 2% (logits) and 3% (gradients) of the same weights in float32, by the Euclidean norm."""

    def error(out: Tensor, truth: Tensor) -> float:
        return float((out.double() - truth.double()).norm() / truth.double().norm())

    def all_of(gradients: dict[str, Tensor]) -> Tensor:
        return torch.cat([value.float().flatten() / truth[1][key].norm() for key, value in gradients.items()])

    plain, fused = pair(name, torch.bfloat16)
    truth = run(copy.deepcopy(plain).float())
    (out, gradients), (expected, expected_gradients) = run(fused), run(plain)
    assert out.dtype == torch.bfloat16
    assert {key: value.dtype for key, value in gradients.items()} == {
        key: value.dtype for key, value in expected_gradients.items()
    }
    for ours, theirs, limit in (
        (error(out, truth[0]), error(expected, truth[0]), 0.02),
        (error(all_of(gradients), all_of(truth[1])), error(all_of(expected_gradients), all_of(truth[1])), 0.03),
    ):
        assert 0 < ours < limit
        assert ours <= 1.5 * theirs


@ALL
def test_dropout_draws_the_same_random_numbers(name: str) -> None:
    plain, fused = pair(name, lora_dropout=0.3)
    results = []
    for model in (plain, fused):
        model.train()
        torch.manual_seed(9)
        results.append(run(model))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=0)
    assert_same_gradients(results[1][1], results[0][1])
    if "mpt" in name:  # LoRA layers alone: peft's own forward ran
        assert torch.equal(results[1][0], results[0][0])
    torch.manual_seed(10)
    assert (run(fused)[0] - results[0][0]).abs().max() > 1e-3  # it does drop
    torch.testing.assert_close(logits(fused.eval()), logits(plain.eval()), atol=1e-5, rtol=0)
    assert (logits(fused) - results[0][0]).abs().max() > 1e-3


@ALL
def test_adapters_off_gives_the_base_network(name: str) -> None:
    plain, fused = pair(name)
    before = logits(fused)
    network = copy.deepcopy(plain).unload()
    expected = logits(network)
    assert (before - expected).abs().max() > 1e-3
    with fused.disable_adapter():
        torch.testing.assert_close(logits(fused), expected, atol=1e-5, rtol=0)
        if "mpt" in name:
            assert torch.equal(logits(fused), expected)
        else:  # equal to the last bit to the network's fused norms and MLPs without adapters
            fuse(network)
            assert torch.equal(logits(fused), logits(network))
    assert torch.equal(logits(fused), before)


@ALL
def test_two_adapters(name: str) -> None:
    plain, fused = pair(name)
    for model in (plain, fused):
        targets = model.peft_config["default"].target_modules
        torch.manual_seed(1)
        model.add_adapter("reference", LoraConfig(r=2, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM"))
        generator = torch.Generator().manual_seed(2)
        for key, parameter in model.named_parameters():
            if "lora_B.reference" in key:
                parameter.data.normal_(0.0, 0.1, generator=generator)
    fuse(fused)
    first = logits(fused)
    torch.testing.assert_close(first, logits(plain), atol=1e-5, rtol=0)
    for model in (plain, fused):
        model.set_adapter("reference")
    second = logits(fused)
    torch.testing.assert_close(second, logits(plain), atol=1e-5, rtol=0)
    assert (second - first).abs().max() > 1e-3
    assert_same_gradients(run(fused)[1], run(plain)[1])
    for model in (plain, fused):
        model.base_model.set_adapter(["default", "reference"])  # both at once: peft's own forward
    both = logits(fused)
    torch.testing.assert_close(both, logits(plain), atol=1e-5, rtol=0)
    assert min((both - first).abs().max(), (both - second).abs().max()) > 1e-3
    fused.set_adapter("default")
    assert torch.equal(logits(fused), first)


@ALL
def test_merging_into_the_weights_and_unmerging(name: str) -> None:
    plain, fused = pair(name)
    before, network = logits(plain), logits(copy.deepcopy(plain).unload())
    fused.merge_adapter()
    torch.testing.assert_close(logits(fused), before, atol=1e-5, rtol=0)
    fused.unmerge_adapter()
    torch.testing.assert_close(logits(fused), before, atol=1e-5, rtol=0)
    fused.merge_adapter()
    with fused.disable_adapter():  # peft takes a merged adapter out of the weights here
        torch.testing.assert_close(logits(fused), network, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(fused), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(fused.merge_and_unload()), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_other_kinds_of_adapters(settings: dict) -> None:
    plain, fused = pair("random:qwen2.5-tiny", **settings)
    expected, expected_gradients = run(plain)
    out, gradients = run(fused)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    assert_same_gradients(gradients, expected_gradients)


def test_trained_base_weights_get_their_gradient() -> None:
    plain, fused = pair(LLAMA)
    for model in (plain, fused):
        for key, parameter in model.named_parameters():
            parameter.requires_grad_("embed_tokens" not in key and "lm_head" not in key)
    gradients, expected = run(fused)[1], run(plain)[1]
    assert sum("norm" in key for key in expected) == 5
    assert sum("base_layer" in key for key in expected) == 14
    assert_same_gradients(gradients, expected)


def test_adapter_named_for_each_row() -> None:
    plain, fused = pair(LLAMA)
    names = ["__base__", "default"]
    with torch.no_grad():
        out, expected = (model(input_ids=IDS, adapter_names=names).logits for model in (fused, plain))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1], logits(fused)[1], atol=1e-5, rtol=0)
    assert (out[0] - logits(fused)[0]).abs().max() > 1e-3


def test_unknown_layers_stay_unchanged() -> None:
    gpt2 = GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    lm = AutoModelForCausalLM.from_config(gpt2)
    model = adapt(lm, fused=False, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    expected = logits(model, IDS % 64)
    fuse(model)
    assert not replaced_forwards(model)
    assert torch.equal(logits(model, IDS % 64), expected)

    shape = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    lm = AutoModelForCausalLM.from_config(Gemma2Config(**shape, **heads))
    fuse(lm)
    assert not replaced_forwards(lm)  # its norm multiplies by 1 + weight, its MLP has another activation
    model = adapt(lm, fused=False)
    expected = logits(model, IDS % 64)
    fuse(model)
    assert replaced_forwards(model) == {"Linear": 7}
    torch.testing.assert_close(logits(model, IDS % 64), expected, atol=1e-5, rtol=0)

    lm = AutoModelForCausalLM.from_config(LlamaConfig(**shape, **heads, hidden_act="gelu"))
    fuse(lm)
    assert replaced_forwards(lm) == {"LlamaRMSNorm": 3}


@pytest.mark.parametrize("name", ["random:llama-tiny", "random:mpt-tiny"])
def test_fused_model_saves_loads_and_copies_like_any_other(name: str, tmp_path) -> None:
    plain, fused = pair(name)
    mine, theirs = fused.state_dict(), plain.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert [key for key, _ in fused.named_modules()] == [key for key, _ in plain.named_modules()]

    fused.save_pretrained(str(tmp_path))
    lm = copy.deepcopy(fused).unload()  # with biases and norms as spread
    loaded = PeftModel.from_pretrained(lm, str(tmp_path)).eval()
    torch.testing.assert_close(logits(loaded), logits(plain), atol=1e-5, rtol=0)

    before, twin = logits(fused), copy.deepcopy(fused)
    for parameter in fused.parameters():
        parameter.data.zero_()
    assert torch.equal(logits(twin), before)  # its layers read their own weights
    twin.load_state_dict(fused.state_dict())
    assert logits(twin).abs().max() == 0


@pytest.mark.parametrize(
    ("name", "dtype", "share"),
    [
        ("random:llama-tiny", torch.float32, 0.8),
        ("random:llama-tiny", torch.bfloat16, 0.5),
        ("random:qwen2.5-tiny", torch.bfloat16, 0.5),
        ("random:mpt-tiny", torch.bfloat16, 0.85),
    ],
)
def test_fewer_bytes_are_kept_for_the_backward_pass(name: str, dtype: torch.dtype, share: float) -> None:
    def kept(model: nn.Module) -> int:
        """Return the bytes kept besides the parameters; a storage counts once."""
        known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        held: dict[int, Tensor] = {}  # holds them, so that no address is used twice

        def pack(tensor: Tensor) -> Tensor:
            held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
            return tensor

        decoder = getattr(model.get_base_model(), model.get_base_model().base_model_prefix)  # logits cost both the same
        with embedded(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = decoder(input_ids=IDS.repeat(2, 9), use_cache=False).last_hidden_state
        assert out.requires_grad
        return sum(tensor.untyped_storage().nbytes() for address, tensor in held.items() if address not in known)

    plain, fused = pair(name, dtype)
    theirs, ours = kept(plain), kept(fused)
    assert 0 < ours < share * theirs
