import json
import shutil
import socket
import urllib.request

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AddedToken, AutoTokenizer, GPT2Config, GPTNeoXConfig, OPTConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError
from adjudge.models.plain_text import PlainText
from adjudge.models.sources.loading import load_causal_lm, lora_targets

CPU = RuntimeConfig(device="cpu", dtype="float32")
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TINY = {"vocab_size": 50}


@pytest.fixture
def copied(tiny_llama, tmp_path):
    """Return a copy of the tiny model, which a test may damage."""
    return shutil.copytree(tiny_llama, tmp_path / "copy")


@pytest.mark.parametrize("kind", ["tiny_llama", "tiny_qwen2", "tiny_mpt"])
def test_folder_loads_frozen_and_in_eval_mode(kind, request):
    model, tokenizer = load_causal_lm(str(request.getfixturevalue(kind)), CPU)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.float32
    ids = tokenizer("Positive", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], 400)
    assert model.config._attn_implementation == ("eager" if kind == "tiny_mpt" else "sdpa")


def test_model_has_the_requested_precision(tiny_llama):
    model, _ = load_causal_lm(str(tiny_llama), RuntimeConfig(device="cpu", dtype="bfloat16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", "Did you mean 'smollm2-135m'"),
        ("no/such/folder", "neither bundled, nor a folder here, nor a hub id"),
        ("../owner", "neither bundled, nor a folder here"),
        ("xyz", "There is: smollm2-135m, minilm-l6"),
    ],
)
def test_unknown_name_is_refused(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_causal_lm(name, CPU)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_causal_lm(str(tmp_path), CPU)


def test_hub_id_without_a_network_fails_at_once_and_suggests_a_bundled_model(monkeypatch):
    def no_network(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(ModelError, match=r"hub cannot be reached.*smollm2-135m"):
        load_causal_lm("nobody-here/no-such-model-0", CPU)


def test_missing_weights_are_an_error(copied):
    weights = load_file(copied / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 parameters.*layers\.1\.mlp\.up_proj\.weight"):
        load_causal_lm(str(copied), CPU)


def test_truncated_weight_file_is_an_error(copied):
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(str(copied), CPU)


def test_pickled_weights_are_not_read(copied):
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_causal_lm(str(copied), CPU)


def test_code_of_a_model_does_not_run(copied, tmp_path):
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "brand-new", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(str(copied), CPU)
    assert not (tmp_path / "ran").exists()


def test_tokenizer_larger_than_the_vocabulary_is_an_error(copied):
    tokenizer = AutoTokenizer.from_pretrained(copied)
    tokenizer.add_tokens([f"<extra_{index}>" for index in range(5)])
    tokenizer.save_pretrained(copied)
    with pytest.raises(ModelError, match="405 tokens, its model only 400"):
        load_causal_lm(str(copied), CPU)


def with_token(folder, content, **options):
    """Add a special token to the model's tokenizer, which gets the first id without an embedding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(content, special=True)])
    for name, value in options.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)


def test_special_token_that_nothing_writes_needs_no_embedding(copied):
    with_token(copied, "<image_soft_token>")
    model, tokenizer = load_causal_lm(str(copied), CPU)
    assert tokenizer.convert_tokens_to_ids("<image_soft_token>") == 400 == model.get_input_embeddings().num_embeddings
    ids = PlainText(tokenizer).ids(["Judge ", "an <image_soft_token> here"])
    assert max(ids) < 400 and tokenizer.decode(ids) == "Judge an <image_soft_token> here"


@pytest.mark.parametrize(
    ("content", "options"),
    [
        *(("<new>", {f"{name}_token": "<new>"}) for name in ("pad", "bos", "eos", "unk")),
        ("<new>", {"chat_template": "<new>{{ messages[0]['content'] }}"}),
        ("→", {}),
    ],
)
def test_special_token_that_may_be_written_needs_an_embedding(copied, content, options):
    with_token(copied, content, **options)
    with pytest.raises(ModelError, match="401 tokens, its model only 400"):
        load_causal_lm(str(copied), CPU)


def test_slow_tokenizer_is_an_error(tiny_llama, monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(ModelError, match="not a fast one"):
        load_causal_lm(str(tiny_llama), CPU)


def test_tokenizer_without_a_pad_token_pads_with_its_end_token(copied):
    tokenizer = AutoTokenizer.from_pretrained(copied)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(copied)
    assert load_causal_lm(str(copied), CPU)[1].pad_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("tiny_llama", LLAMA), ("tiny_qwen2", LLAMA), ("tiny_mpt", ["Wqkv", "out_proj", "up_proj", "down_proj"])],
)
def test_targets_are_all_linear_layers_but_the_head(kind, targets, request):
    assert lora_targets(load_causal_lm(str(request.getfixturevalue(kind)), CPU)[0]) == targets


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (GPT2Config(**TINY, n_embd=8, n_layer=1, n_head=2), {"c_attn", "c_proj", "c_fc"}),
        (
            GPTNeoXConfig(**TINY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8),
            {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
        ),
        (
            OPTConfig(
                **TINY, hidden_size=8, word_embed_proj_dim=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8
            ),
            {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
        ),
    ],
)
def test_targets_of_other_families(config, targets):
    assert set(lora_targets(AutoModelForCausalLM.from_config(config))) == targets


def test_configured_targets_must_exist(tiny_llama):
    model, _ = load_causal_lm(str(tiny_llama), CPU)
    assert lora_targets(model, ("q_proj", "layers.1.mlp.up_proj")) == ["q_proj", "layers.1.mlp.up_proj"]
    with pytest.raises(ModelError, match=r"lora\.targets.*'q_porj'.*Did you mean 'q_proj'"):
        lora_targets(model, ("q_porj",))
    with pytest.raises(ModelError, match=r"lora\.targets is empty"):
        lora_targets(model, ())
