"""Models with random weights: their shapes, their tokenizer, and the code that refuses them."""

import json
import math

import pytest
import torch
from fake_method import reviews
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from adjudge import api
from adjudge.config import Config, RuntimeConfig, load_config
from adjudge.errors import ModelError
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.models.encoder import load_encoder
from adjudge.models.policy import load_policy
from adjudge.models.sources.loading import load_causal_lm, load_tokenizer, lora_targets
from adjudge.models.sources.random_models import SHAPES, build_random, cut_tokenizer, random_config
from adjudge.runs.folder import Run
from adjudge.runs.tasks import write_task
from adjudge.system.files import write_json

CPU = RuntimeConfig(device="cpu", dtype="float32")
TINY = {"random:llama-tiny": "sdpa", "random:qwen2.5-tiny": "sdpa", "random:mpt-tiny": "eager"}
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MPT = ["Wqkv", "out_proj", "up_proj", "down_proj"]
TEXTS = [
    "A warm, funny surprise.",
    "naïve café — 1,204 €",
    "🎬👍🏽 très bien 👩‍🚒",
    "你好,世界\t\n  done",
    "<|im_start|> ok",
]
USELESS = "has random weights: right for timing .*useless for answers. Name a real model"

pytestmark = pytest.mark.usefixtures("smollm2")  # random models borrow its tokenizer


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("random:llama-2-7b", 6.738e9),
        ("random:qwen2.5-7b", 7.616e9),
        ("random:qwen2.5-1.5b", 1.544e9),
        ("random:mpt-7b", 6.649e9),
        ("random:llama-3.2-1b", 1.236e9),
        ("random:smollm2-135m", 134.5e6),
        ("random:smollm2-360m", 361.8e6),
    ],
)
def test_size_has_the_published_number_of_parameters(name, published):
    model = build_random(name, torch.bfloat16, "meta", "eager")
    assert math.isclose(sum(parameter.numel() for parameter in model.parameters()), published, rel_tol=1e-3)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_shape_of_the_bundled_model_matches_its_config(smollm2):
    bundled = json.loads((smollm2 / "config.json").read_text(encoding="utf-8"))
    config = random_config("random:smollm2-135m").to_dict()
    ignored = {"_model_name_or_path", "architectures", "dtype", "transformers_version", "unk_token_id", "pad_token_id"}
    different = {key for key, value in bundled.items() if key not in ignored and config.get(key) != value}
    assert different <= {"rms_norm_eps"}  # 1e-5, which the bundled model's file rounds to float32
    assert math.isclose(bundled["rms_norm_eps"], config["rms_norm_eps"], rel_tol=1e-6)


@pytest.mark.parametrize(("name", "attention"), TINY.items())
def test_tiny_model_loads_frozen_finite_and_equal_twice(name, attention):
    torch.manual_seed(5)
    model, tokenizer = load_causal_lm(name, CPU)
    torch.manual_seed(6)
    again, _ = load_causal_lm(name, CPU)
    first, second = model.state_dict(), again.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert 1e5 < sum(parameter.numel() for parameter in model.parameters()) < 1e6
    assert model.config._attn_implementation == attention
    assert lora_targets(model) == (MPT if "mpt" in name else LLAMA)
    logits = model(ids_of(tokenizer, TEXTS[0])).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.01
    # Rotary frequencies are computed, not drawn: a usual model with the same weights gives these logits.
    usual = AutoModelForCausalLM.from_config(
        random_config(name), dtype=torch.float32, attn_implementation=TINY[name]
    ).eval()
    usual.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits, usual(ids_of(tokenizer, TEXTS[0])).logits, rtol=0, atol=0)


def test_scaled_rotary_frequencies_survive(monkeypatch):
    monkeypatch.setitem(SHAPES, "random:scaled", type(SHAPES["random:llama-tiny"])("llama", scaled_settings()))
    model = build_random("random:scaled", torch.bfloat16, "cpu", "sdpa")
    usual = AutoModelForCausalLM.from_config(random_config("random:scaled"), dtype=torch.bfloat16)
    assert torch.equal(model.model.rotary_emb.inv_freq, usual.model.rotary_emb.inv_freq)
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def scaled_settings():
    scaling = SHAPES["random:llama-3.2-1b"].settings["rope_parameters"]
    return {**SHAPES["random:llama-tiny"].settings, "rope_parameters": scaling, "max_position_embeddings": 131_072}


def test_tied_embeddings_are_one_tensor_and_untied_embeddings_two():
    tied = build_random("random:llama-tiny", torch.float32, "cpu", "sdpa")
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    untied = build_random("random:qwen2.5-tiny", torch.float32, "cpu", "sdpa")
    assert not torch.equal(untied.lm_head.weight, untied.model.embed_tokens.weight)


def test_weights_have_the_configured_range():
    model = build_random("random:qwen2.5-tiny", torch.float32, "cpu", "sdpa")
    assert math.isclose(model.model.embed_tokens.weight.detach().std(), 0.1, rel_tol=0.02)
    assert set(model.model.layers[0].self_attn.q_proj.bias.tolist()) == {0.0}
    assert set(model.model.norm.weight.tolist()) == {1.0}
    first, second = (model.model.layers[index].mlp.up_proj.weight for index in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_random_model_has_the_requested_precision(dtype):
    model, _ = load_causal_lm("random:llama-tiny", RuntimeConfig(device="cpu", dtype=dtype))
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_model_and_tokenizer_have_the_same_end_token():
    model, tokenizer = load_causal_lm("random:mpt-tiny", CPU)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert (tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id) == (end, end, end)


@pytest.mark.parametrize(("name", "dtype"), [*zip(TINY, ("bfloat16", "float32", "bfloat16"), strict=True)])
def test_policy_trains_with_a_shared_prefix(name, dtype):
    config = load_config(values={"model": name, "runtime.dtype": dtype, "runtime.device": "cpu"})
    policy = load_policy(config, adapter=True)
    assert policy.abilities.shares_prefix
    head = policy.tokenizer("Is it Positive or Negative? ").input_ids
    prompts = [[*head, *policy.tokenizer(text).input_ids] for text in TEXTS]
    hidden = policy.hidden(policy.batch(prompts, [[7, 8] for _ in prompts]))
    assert hidden.shape == (2 * len(TEXTS), 64)
    policy.logits(hidden).logsumexp(-1).sum().backward()
    grads = [parameter.grad for parameter in policy.adapter_parameters()]
    assert any(grad is not None and bool((grad != 0).any()) for grad in grads)


def test_random_model_loads_from_python():
    assert (
        api.load_policy("random:llama-tiny", runtime__device="cpu", runtime__dtype="float32").name
        == "random:llama-tiny"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random:llama-2-7B", "Did you mean 'random:llama-2-7b'"),
        ("random:qwen2.5", "no random model 'random:qwen2.5'"),
        ("random:", "no random model 'random:'"),
    ],
)
def test_unknown_random_model_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ModelError, match=message):
        load_causal_lm(name, CPU)
    with pytest.raises(ModelError, match=message):
        load_tokenizer(name, "", {})


@pytest.fixture(scope="module")
def whole(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.mark.parametrize("size", [2048, 32_000])
def test_cut_tokenizer_decodes_every_text_to_itself(size, whole):
    cut = cut_tokenizer(whole, size)
    assert len(cut) == size
    for text in TEXTS:
        ids = cut(text).input_ids
        assert max(ids) < size
        assert cut.decode(ids, clean_up_tokenization_spaces=False) == text
        assert len(ids) >= len(whole(text).input_ids)


def test_cut_tokenizer_gives_the_same_ids_if_no_token_is_lost(whole):
    cut = cut_tokenizer(whole, 32_000)
    text = "Is the sentiment of the movie review Positive or Negative?"
    ids = whole(text).input_ids
    assert max(ids) < 32_000, "this text no longer tests anything"
    assert cut(text).input_ids == ids


def test_cut_tokenizer_keeps_turns_and_special_tokens(whole, tmp_path):
    cut = cut_tokenizer(whole, 2048)
    turns = [{"role": "user", "content": "Yes or No?"}]
    options = {"add_generation_prompt": True, "tokenize": False}
    assert cut.apply_chat_template(turns, **options) == whole.apply_chat_template(turns, **options)
    assert cut.special_tokens_map == whole.special_tokens_map
    assert cut("<|im_end|>").input_ids == whole("<|im_end|>").input_ids
    assert cut("a<|im_end|>", split_special_tokens=True).input_ids[-1] != cut.eos_token_id
    spans = cut("naïve 🎬", return_offsets_mapping=True)["offset_mapping"]
    assert (spans[0][0], spans[-1][1]) == (0, len("naïve 🎬"))
    cut.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXTS[2]).input_ids == cut(TEXTS[2]).input_ids


def test_tokenizer_that_fits_is_unchanged_and_too_small_a_size_is_refused(whole):
    assert cut_tokenizer(whole, 49_152) is whole
    assert cut_tokenizer(whole, 152_064) is whole
    with pytest.raises(ValueError, match="no room"):
        cut_tokenizer(whole, 100)


def test_token_beyond_the_tokenizer_decodes_to_nothing(whole):
    """A random Qwen may draw such a token: its vocabulary is larger than the tokenizer's."""
    assert whole.decode([whole("Yes").input_ids[0], 150_000]) == "Yes"


@pytest.fixture
def spec(tmp_path):
    return reviews(tmp_path)


@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "sft", "ppo"])
def test_run_is_refused_before_its_folder_is_made(method, spec, tmp_path):
    config = Config(model="random:llama-2-7b", method=method)
    with pytest.raises(ModelError, match=f"random:llama-2-7b {USELESS}"):
        execute(config, spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_random_encoder_is_refused(spec, tmp_path):
    config = load_config(values={"method": "encoder", "encoder.model": "random:llama-tiny"})
    with pytest.raises(ModelError, match=USELESS):
        execute(config, spec, tmp_path / "out")
    with pytest.raises(ModelError, match=USELESS):
        load_encoder("random:llama-tiny", CPU, 64, ["a", "b"])


def test_comparison_is_refused_before_its_first_cell(spec, tmp_path):
    def runner(*_, **__):
        pytest.fail("a cell was run")

    with pytest.raises(ModelError, match=USELESS):
        compare(Config(model="random:llama-tiny"), [spec], ["zero-shot"], [0], tmp_path / "out", runner=runner)
    assert not (tmp_path / "out").exists()


def test_python_api_refuses_random_models(spec, tmp_path):
    with pytest.raises(ModelError, match=USELESS):
        api.train("sft", spec, model="random:llama-tiny", out=tmp_path / "out")
    with pytest.raises(ModelError, match=USELESS):
        api.evaluate("zero-shot", spec, model="random:llama-tiny", out=tmp_path / "out")


@pytest.mark.parametrize("use", [load_judge, evaluate_run])
def test_run_folder_with_a_random_model_neither_predicts_nor_evaluates(use, spec, tmp_path):
    """No run leaves such a folder, but it can be written by hand."""
    with Run.create(tmp_path / "out", Config(method="zero-shot", model="random:llama-tiny")) as run:
        write_json(
            run.folder / "training.json", {"train_rows": 0, "seconds": {"setup": 0.0, "train": 0.0}, "overlap": 0}
        )
        write_task(run, spec)
    with pytest.raises(ModelError, match=USELESS):
        use(tmp_path / "out")
