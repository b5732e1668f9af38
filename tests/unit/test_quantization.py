"""Quantized weights: an error names the missing library; with it, adapters are trained on top of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from adjudge.config import LoraConfig, RuntimeConfig, load_config
from adjudge.errors import ModelError
from adjudge.models.policy import load_policy
from adjudge.models.sources import loading
from adjudge.rollout.forward import token_figures


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_missing_library_is_named(kind: str, monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"bitsandbytes.*adjudge\[quantization\]"):
        loading.quantized(RuntimeConfig(quantization=kind), torch.device("cpu"))


def test_unset_gives_no_options() -> None:
    assert loading.quantized(RuntimeConfig(), torch.device("cpu")) == {}


def test_random_weights_are_not_quantized() -> None:
    with pytest.raises(ModelError, match="real weights"):
        load_policy(load_config(values={"model": "random:llama-tiny", "runtime.quantization": "4bit"}))


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_adapters_learn_on_quantized_weights(kind: str, tiny_llama: Path) -> None:
    values = {
        "model": str(tiny_llama),
        "runtime.quantization": kind,
        "runtime.device": "cpu",
        "runtime.dtype": "float32",
    }
    policy = load_policy(load_config(values=values))
    policy.add_adapter(LoraConfig(r=4))
    logp, _, _ = token_figures(policy, [[5, 6, 7], [5, 6, 8, 9]], [[10], [11, 2]], 1.0)
    logp.sum().backward()
    gradients = [parameter.grad for parameter in policy.adapter_parameters() if parameter.grad is not None]
    assert gradients and any((gradient != 0).any() for gradient in gradients)
    policy.merge()  # leaves quantized weights as they are
    assert hasattr(policy.lm, "peft_config")
