"""Pruning: the cut model is the model without its groups, an ordinary folder, and there whole or not at all."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.compress import prune as pruning_module
from adjudge.compress.cut import cut_groups, zero_groups
from adjudge.compress.groups import kinds_of, layers_of
from adjudge.compress.prune import Calibration, Pruning, load_for_pruning, parse_ratios, prune
from adjudge.config import RuntimeConfig
from adjudge.errors import ConfigError, ModelError, RunError

FAMILIES = ("tiny_llama", "tiny_qwen2")
ROWS = [[5, 6, 7, 8, 9, 30, 31], [10, 11, 12, 40], [50, 51, 52, 53, 54], [60, 61, 62, 90]]
IDS = torch.tensor([[5, 6, 7, 8, 9, 200, 201, 3]])
BOTH = {"mlp": 0.5, "heads": 0.5}


@pytest.fixture(params=FAMILIES)
def folder(request):
    return request.getfixturevalue(request.param)


def load(folder):
    return load_for_pruning(str(folder), RuntimeConfig(device="cpu"))


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def pruned(folder, out, ratios=BOTH, calibration=ROWS, **settings):
    model, tokenizer = load(folder)
    result = prune(model, tokenizer, str(folder), Pruning(ratios, **settings), Calibration(calibration), out)
    return result, model


@pytest.mark.parametrize("kind", ["mlp", "heads"])
def test_cutting_groups_is_zeroing_them(folder, kind):
    zeroed, cut = load(folder)[0], load(folder)[0]
    (groups,) = kinds_of(zeroed.config, [kind])
    draw = torch.Generator().manual_seed(1)
    orders = [torch.randperm(groups.count, generator=draw) for _ in layers_of(cut)]
    gone = groups.count // 2
    zero_groups(zeroed, groups, [order[:gone] for order in orders])
    cut_groups(cut, [groups], {kind: [order[gone:].sort().values for order in orders]})
    assert not torch.allclose(logits(zeroed), logits(load(folder)[0]), atol=1e-3)
    torch.testing.assert_close(logits(cut), logits(zeroed), atol=1e-5, rtol=1e-5)


def test_a_ratio_of_zero_changes_nothing(folder, tmp_path):
    result, _ = pruned(folder, tmp_path / "out", {"mlp": 0.0, "heads": 0.0})
    assert result.share == 0
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(load(folder)[0]))


@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "random", "saap"])
def test_plain_transformers_loads_the_result(folder, tmp_path, criterion):
    result, model = pruned(folder, tmp_path / "out", criterion=criterion)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(again), logits(model), atol=1e-5, rtol=1e-5)
    assert sum(weight.numel() for weight in again.parameters()) == result.parameters < result.parameters_before
    before = load(folder)[0].config
    assert again.config.intermediate_size == before.intermediate_size // 2
    assert again.config.num_key_value_heads == before.num_key_value_heads // 2
    assert again.config.num_attention_heads == before.num_attention_heads // 2
    assert again.config.tie_word_embeddings == before.tie_word_embeddings
    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert record["criterion"] == criterion and record["parameters"]["after"] == result.parameters
    assert [len(layer) for layer in record["kept"]["heads"]] == [before.num_key_value_heads // 2] * 2


def test_what_adds_nothing_goes_first_and_nothing_changes(folder, tmp_path):
    model, tokenizer = load(folder)
    (mlp,) = kinds_of(model.config, ["mlp"])
    gone = [torch.arange(0, mlp.count, 2), torch.arange(1, mlp.count, 2)]
    with torch.no_grad():
        for layer, channels in zip(layers_of(model), gone, strict=True):
            layer.mlp.down_proj.weight[:, channels] = 0
            layer.mlp.gate_proj.weight[channels] *= 50  # large weights do not save a channel that leads nowhere
    expected = logits(model)
    prune(model, tokenizer, str(folder), Pruning({"mlp": 0.5}), Calibration(ROWS), tmp_path / "out")
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    kept = json.loads((tmp_path / "out" / "pruning.json").read_text())["kept"]["mlp"]
    assert [set(layer) & set(channels.tolist()) for layer, channels in zip(kept, gone, strict=True)] == [set(), set()]


def test_query_heads_go_with_their_key_value_head(tiny_llama, tmp_path):
    model, tokenizer = load(tiny_llama)
    with torch.no_grad():
        for layer in layers_of(model):  # query heads 2 and 3 read key-value head 1, and lead nowhere
            layer.self_attn.o_proj.weight[:, 16:] = 0
    expected = logits(model)
    prune(model, tokenizer, str(tiny_llama), Pruning({"heads": 0.5}), Calibration(ROWS), tmp_path / "out")
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    assert json.loads((tmp_path / "out" / "pruning.json").read_text())["kept"]["heads"] == [[0], [0]]


def test_layers_of_unequal_widths_are_filled_with_zeros(tiny_llama, tmp_path):
    result, model = pruned(tiny_llama, tmp_path / "out", {"mlp": 0.4}, criterion="saap", padded=True)
    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    kept = [len(layer) for layer in record["kept"]["mlp"]]
    assert kept[0] != kept[1] and sum(kept) == 128 - round(0.4 * 128) and min(record["zeros"]["mlp"]) == 0
    assert result.widths["mlp"] == (64, max(kept))
    weights = load_file(tmp_path / "out" / "model.safetensors")
    for layer, zeros in enumerate(record["zeros"]["mlp"]):
        down = weights[f"model.layers.{layer}.mlp.down_proj.weight"]
        assert int((down == 0).all(0).sum()) == zeros
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model), atol=1e-5, rtol=1e-5
    )


def test_what_no_layer_can_give_is_told(tiny_llama, tmp_path, capsys):
    pruned(tiny_llama, tmp_path / "out", {"mlp": 0.97}, criterion="saap", padded=True)
    assert "mlp: no layer loses more than nine tenths, so 89.1% are removed, not 97.0%" in capsys.readouterr().err


def test_scaling_one_importance_changes_no_ranking_of_saap(tiny_llama, tmp_path, monkeypatch):
    pruned(tiny_llama, tmp_path / "a", {"mlp": 0.5}, criterion="saap")
    from adjudge.compress import importance

    real = importance.fused
    monkeypatch.setattr(importance, "fused", lambda vector, element: real(7 * vector, element))
    pruned(tiny_llama, tmp_path / "b", {"mlp": 0.5}, criterion="saap")
    kept = [json.loads((tmp_path / name / "pruning.json").read_text())["kept"] for name in "ab"]
    assert kept[0] == kept[1]


def test_the_seed_draws_what_is_random(tiny_llama, tmp_path):
    kept = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pruned(tiny_llama, tmp_path / name, calibration=[], criterion="random", seed=seed)
        kept.append(json.loads((tmp_path / name / "pruning.json").read_text())["kept"])
    assert kept[0] == kept[1] != kept[2]


def test_weights_in_bfloat16(tiny_llama, tmp_path):
    pruned(tiny_llama, tmp_path / "out", dtype="bfloat16")
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


def test_a_folder_that_computes_other_logits_does_not_appear(tiny_llama, tmp_path, monkeypatch):
    real = pruning_module.load_causal_lm

    def broken(name, runtime):
        model, tokenizer = real(name, runtime)
        with torch.no_grad():
            model.model.norm.weight *= 2
        return model, tokenizer

    model, tokenizer = load(tiny_llama)
    monkeypatch.setattr(pruning_module, "load_causal_lm", broken)
    with pytest.raises(ModelError, match="other logits than the one in memory"):
        prune(model, tokenizer, "x", Pruning({"mlp": 0.5}), Calibration(ROWS), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_model_with_a_gradient_that_is_not_finite(tiny_llama, tmp_path):
    model, tokenizer = load(tiny_llama)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        prune(model, tokenizer, "x", Pruning({"mlp": 0.5}), Calibration(ROWS), tmp_path / "out")


def test_heads_that_the_family_does_not_accept(tmp_path):
    from conftest import _ids, save_tiny
    from transformers import LlamaConfig

    config = LlamaConfig(
        **_ids(), hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4, head_dim=8
    )
    folder = save_tiny(config, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"cannot have 3 of its 4 key-value groups; transformers accepts 1, 2\."):
        pruned(folder, tmp_path / "out", {"heads": 0.25})


@pytest.mark.parametrize(
    ("text", "ratios"), [("0.25", {"mlp": 0.25, "heads": 0.25}), ("heads=0.5, mlp=0", {"heads": 0.5, "mlp": 0.0})]
)
def test_ratios(text, ratios):
    assert parse_ratios(text, ["mlp", "heads"]) == ratios


# The command line


def invoke(*arguments):
    return CliRunner().invoke(app, ["prune", *(str(argument) for argument in arguments)])


def refused(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return " ".join(result.stderr.split())


@pytest.fixture
def table(tmp_path):
    lines = [f"{('good', 'bad')[n % 2]} film {n},{('pos', 'neg')[n % 2]}" for n in range(20)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    return ["--data", tmp_path / "a.csv", "--text", "text", "--label", "label"]


def test_from_a_table_to_a_smaller_model(tiny_llama, tmp_path, table):
    out = tmp_path / "deep" / "small"
    result = invoke("--model", tiny_llama, "--ratio", "mlp=0.25,heads=0.5", *table, "--rows", 4, "--out", out)
    assert result.exit_code == 0, result.output
    assert "mlp: 64 → 48 per layer" in result.stderr and "heads: 2 → 1 per layer" in result.stderr
    record = json.loads((out / "pruning.json").read_text())
    assert record["calibration"]["rows"] == 4 and record["calibration"]["task"] == "a"
    assert "is there already" in refused("--model", tiny_llama, "--ratio", "0.1", *table, "--out", out)
    trained = CliRunner().invoke(
        app,
        ["evaluate", "--method", "zero-shot", "--model", str(out), *map(str, table), "--out", str(tmp_path / "run")],
    )
    assert trained.exit_code == 0, trained.output


def test_from_the_lines_of_a_file(tiny_llama, tmp_path):
    corpus = tmp_path / "texts.txt"
    corpus.write_text("The film is warm.\n\nThe plot is dull and slow.\n", encoding="utf-8")
    asked = ["--model", tiny_llama, "--ratio", "0.5", "--corpus", corpus, "--out", tmp_path / "out"]
    assert invoke(*asked).exit_code == 0
    assert json.loads((tmp_path / "out" / "pruning.json").read_text())["calibration"]["rows"] == 2
    assert "--corpus takes the place of" in refused(*asked[:-1], tmp_path / "other", "--task", "vader/movies")
    for content, message in ((b"\xff\xfe", "is not UTF-8 (byte 0)"), (b"\n \n", "has no line with text")):
        corpus.write_bytes(content)
        assert message in refused(*asked[:-1], tmp_path / "other")
    corpus.unlink()
    assert "there is no such file" in refused(*asked[:-1], tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratio", "0.9"], "leaves none of the 2 key-value groups of a layer; up to 0.5 leaves one"),
        (["--ratio", "1"], "'1' for mlp is no share from 0 to below 1"),
        (["--ratio", "a third"], "'a third' for mlp is no share"),
        (["--ratio", "mlp=0.5"], "names no ratio for heads"),
        (["--ratio", "mpl=0.5"], "'mpl' is not among --kinds mlp,heads"),
        (["--ratio", "0.5", "--kinds", "mlp,head"], "there is no 'head'; there are mlp, heads. Did you mean"),
        (["--ratio", "0.5", "--criterion", "tailor"], "There is no criterion 'tailor'"),
        (["--ratio", "0.5", "--padded"], "--padded is for layers of different budgets"),
        (["--ratio", "0.5", "--importance", "row"], "write element or vector"),
        (["--ratio", "0.5", "--criterion", "saap", "--second-order"], "--second-order is for --criterion taylor"),
        (["--ratio", "0.5", "--dtype", "int8"], "There is no dtype 'int8'"),
        (["--ratio", "0.5", "runtime.quantization=8bit"], "Quantized weights cannot be pruned"),
        (["--ratio", "0.5", "--model", "random:llama-tiny"], "has random weights"),
    ],
)
def test_bad_options(tiny_llama, tmp_path, table, options, message):
    model = [] if "--model" in options else ["--model", tiny_llama]
    assert message in refused(*options, *model, *table, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_family_that_is_not_known(tiny_mpt, tmp_path, table):
    message = refused("--model", tiny_mpt, "--ratio", "0.5", *table, "--out", tmp_path / "out")
    assert "Models of the family 'mpt' cannot be pruned; those of llama and qwen2 can." in message


def test_an_output_folder_that_is_there(tiny_llama, tmp_path):
    with pytest.raises(RunError, match="is there already"):
        pruned(tiny_llama, tmp_path)
