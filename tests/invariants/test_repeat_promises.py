"""Test that a repeated run is equal bit for bit, on one machine, in float32 on the CPU.

Every method that trains is also run twice in `end_to_end/test_killed_runs.py`, with other global random states.
"""

import random

import pytest
import torch
from conftest import make_tokenizer
from fake_method import reviews
from running import EPOCHS_ALONE, PLAIN_PPO
from transformers import BertConfig, BertModel

from adjudge.config import load_config
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, environment_lines, rerun

SMALL = {
    "runtime.device": "cpu",
    "runtime.dtype": "float32",
    "runtime.threads": 1,
    "evaluation.resamples": 100,
    "data.train_rows": 12,
    "lora.dropout": 0.1,
    "sft.batch_size": 4,
    "ppo.batch_size": 4,
    "ppo.mini_batch_size": 2,
    "encoder.epochs": 1,
    **EPOCHS_ALONE,
    "seed": 3,
}


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """Folder of a random 1-layer BERT with dropout and the test tokenizer."""
    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    config = BertConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, pad_token_id=2
    )
    BertModel(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def disturb(seed):
    """What happened in the process before must not matter."""
    torch.manual_seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("method", ["few-shot", "multi-sft"])
def test_two_runs_with_one_seed_are_equal_bit_for_bit(method, tiny_llama, tiny_encoder, tmp_path):
    spec = reviews(tmp_path)
    specs = [spec, spec.model_copy(update={"name": "more"})] if method == "multi-sft" else [spec]
    values = {**SMALL, "method": method, "model": str(tiny_llama), "encoder.model": str(tiny_encoder)}
    disturb(1)
    execute(load_config(values=values), specs, tmp_path / "run")
    disturb(2)
    again = rerun(tmp_path / "run")
    parts = compare_runs(tmp_path / "run", again)
    assert [part for part in parts if not part.equal] == []
    assert environment_lines(tmp_path / "run", again) == []
    names = {part.name for part in parts}
    if method == "few-shot":
        assert {"rows", "demonstrations", "predictions", "scores"} <= names
    else:
        trained = {"metrics.jsonl", "adapter/adapter_model.safetensors"}
        assert {"rows", "predictions of more", *trained} <= names


@pytest.mark.parametrize("method", ["ppo", "multi-sft"])
def test_another_seed_gives_another_result(method, tiny_llama, tmp_path):
    """Else the test above would hold for a run that draws nothing."""
    spec = reviews(tmp_path)
    specs = [spec, spec.model_copy(update={"name": "more"})] if method == "multi-sft" else [spec]
    for seed in (3, 4):
        values = {**SMALL, **PLAIN_PPO, "method": method, "model": str(tiny_llama), "seed": seed}
        execute(load_config(values=values), specs, tmp_path / str(seed))
    found = {part.name: part for part in compare_runs(tmp_path / "3", tmp_path / "4")}
    value_head = ["adapter/value_head.safetensors"] if method == "ppo" else []
    for name in ["rows", "metrics.jsonl", "adapter/adapter_model.safetensors", *value_head]:
        assert not found[name].equal, name
