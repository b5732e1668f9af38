"""Every family that docs/reference/models.md names trains; what cannot is an error with its cause."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import make_tokenizer, save_tiny
from fake_method import write_reviews
from running import EPOCHS_ALONE

from adjudge.config import RuntimeConfig, load_config
from adjudge.errors import ConfigError, ModelError
from adjudge.experiments.execute import execute
from adjudge.models.encoder import Texts, load_encoder
from adjudge.models.policy import load_policy
from adjudge.tasks import infer_task

IDS = {"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.1}
LLAMA = {**WIDE, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", LLAMA),
    "Mistral": ("mistral", {**LLAMA, "sliding_window": 256}),
    "Mixtral": ("mixtral", {**LLAMA, "num_local_experts": 2}),
    "Qwen2": ("qwen2", LLAMA),
    "Qwen3": ("qwen3", {**LLAMA, "head_dim": 8}),
    "Gemma": ("gemma", {**LLAMA, "head_dim": 8}),
    "Gemma 2": ("gemma2", {**LLAMA, "head_dim": 8}),
    "Gemma 3": ("gemma3_text", {**LLAMA, "head_dim": 8}),
    "Phi-3": ("phi3", LLAMA),
    "Granite": ("granite", LLAMA),
    "OLMo 2": ("olmo2", LLAMA),
    "StableLM": ("stablelm", LLAMA),
    "StarCoder2": ("starcoder2", LLAMA),
    "Phi": ("phi", LLAMA),
    "GPT-2": ("gpt2", GPT),
    "GPT-BigCode": ("gpt_bigcode", GPT),
    "GPT-J": ("gptj", {**GPT, "rotary_dim": 4}),
    "GPT-NeoX": ("gpt_neox", {**WIDE, "intermediate_size": 64}),
    "OPT": ("opt", {**WIDE, "word_embed_proj_dim": 32, "ffn_dim": 64, "max_position_embeddings": 512}),
    "BLOOM": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "Falcon": ("falcon", WIDE),
    "MPT": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 512}),
}
DOCS = Path(__file__).parents[2] / "docs/reference/models.md"


def make(kind: str, settings: dict[str, Any], folder: Path) -> Path:
    return save_tiny(transformers.AutoConfig.for_model(kind, **IDS, **settings), folder)


def settings(model: Path, **more: Any):
    return load_config(
        values={
            **EPOCHS_ALONE,
            "method": "sft",
            "model": str(model),
            "data.train_rows": 4,
            "data.eval_rows": 4,
            "evaluation.resamples": 100,
            "runtime.device": "cpu",
            "runtime.dtype": "float32",
            "sft.epochs": 1,
            "lora.r": 2,
            **more,
        }
    )


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return infer_task(write_reviews(tmp_path_factory.mktemp("rows") / "rows.csv"), ["text"], "label")


@pytest.mark.parametrize("family", FAMILIES)
def test_family_trains_and_judges(family: str, reviews, tmp_path) -> None:
    scores = execute(settings(make(*FAMILIES[family], tmp_path / "model")), reviews, tmp_path / "run")
    assert scores["n"] == 4
    assert (tmp_path / "run/adapter/adapter_model.safetensors").is_file()


def test_documentation_names_these_families() -> None:
    line = next(line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| these train |"))
    assert [name.strip() for name in line.split("|")[2].split(",")] == list(FAMILIES)


@pytest.mark.parametrize("length", [5, 300])
@pytest.mark.parametrize("kind", ["mistral", "gemma3_text", "gpt2"])
def test_sampling_goes_on_from_a_packed_batch(kind: str, length: int, tmp_path) -> None:
    """Rows side by side are longer than a window, while no row is; and dropout is only on in training."""
    model = make(kind, GPT if kind == "gpt2" else {**LLAMA, "sliding_window": 400}, tmp_path / "model")
    policy = load_policy(settings(model)).eval()
    prompts = [list(range(5, 5 + length)), [3, 7, *range(9, 9 + length)], [4] * length]
    state = policy.prefill(prompts)
    hidden, _ = policy.extend(state, torch.tensor([[11], [12], [13]]))
    for row, (prompt, token) in enumerate(zip(prompts, (11, 12, 13), strict=True)):
        alone = policy.prefill([[*prompt, token]]).hidden_BD[0]
        torch.testing.assert_close(hidden[row, 0], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "mpt"])
def test_row_without_positions_is_an_error_that_names_it(kind: str, reviews, tmp_path) -> None:
    short = {"n_positions": 96} if kind == "gpt2" else {"max_seq_len": 96}
    family = dict(FAMILIES["GPT-2" if kind == "gpt2" else "MPT"][1])
    model = make(kind, {**family, **short}, tmp_path / "model")
    with pytest.raises(ConfigError) as caught:
        execute(settings(model), reviews, tmp_path / "run")
    message = str(caught.value)
    assert "rows.csv:" in message and "has only 96 positions" in message
    assert "Set prompt.max_tokens=" in message and "longest field" in message


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_rotary_positions_that_change_with_the_longest_row_run_out(kind: str, reviews, tmp_path) -> None:
    """Beyond the first so many, a row's figures would depend on the rows beside it."""
    rope: dict[str, Any] = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    own: dict[str, Any] = {"max_position_embeddings": 96}
    if kind == "phi3":
        own = {"max_position_embeddings": 512, "original_max_position_embeddings": 96}
        factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        rope = {**rope, **factors, "rope_type": "longrope", "original_max_position_embeddings": 96}
    model = make(kind, {**LLAMA, **own, "rope_parameters": rope}, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"has only 96 positions \(beyond them they change with the longest row"):
        execute(settings(model), reviews, tmp_path / "run")


def test_rotary_positions_go_on_with_a_warning(reviews, tmp_path, capsys) -> None:
    model = make("llama", {**LLAMA, "max_position_embeddings": 96}, tmp_path / "model")
    execute(settings(model), reviews, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "more than the 96 that" in said and "prompt.max_tokens=96 shortens them" in said


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "recurrent state"),
        ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}, "recurrent state"),
        ("bert", {**WIDE, "intermediate_size": 64}, r"is an encoder.*--encoder"),
        ("roberta", {**WIDE, "intermediate_size": 64}, r"is an encoder.*--encoder"),
        ("ctrl", {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "n_positions": 512}, r"lora\.targets"),
    ],
)
def test_what_cannot_train_names_the_cause(kind: str, more: dict[str, Any], message: str, reviews, tmp_path) -> None:
    model = make(kind, more, tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        execute(settings(model), reviews, tmp_path / "run")


def test_encoder_without_a_head_as_model_names_the_cause(tiny_bert, reviews, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"is an encoder"):
        execute(settings(tiny_bert), reviews, tmp_path / "run")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_causal_model_serves_as_encoder_without_a_pad_id(kind: str, side: str, tmp_path) -> None:
    folder = make(kind, GPT if kind == "gpt2" else LLAMA, tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.pad_token_id = None
    config.save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    shutil.rmtree(folder / "chat_template.jinja", ignore_errors=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    encoder = load_encoder(str(folder), RuntimeConfig(device="cpu"), 64, ("a", "b"))
    texts = [Texts("a film"), Texts("a film that is long and goes on and on")]
    together, alone = encoder.logits(texts), torch.cat([encoder.logits([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_long_text_raises_no_warning_of_indexing_errors(tiny_llama, caplog) -> None:
    policy = load_policy(settings(tiny_llama))
    with caplog.at_level("WARNING"):
        policy.tokenizer("film " * 2000)
    assert "indexing errors" not in caplog.text
