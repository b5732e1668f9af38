"""Exported judges: merged folders, GGUF files, ONNX files, and the check that counts changed answers."""

import json
import re
import shutil

import pytest
import torch
import yaml
from fake_method import write_reviews
from specs import label_task
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.evaluate import load_judge
from adjudge.experiments.execute import execute
from adjudge.ship.export import export_judge
from adjudge.ship.gguf_file import pretokenizer_of, write_gguf
from adjudge.ship.modelfile import modelfile
from adjudge.tasks import infer_task

TEXTS = ["good one here", "bad one there", "a third", "<|im_end|> good"]


@pytest.fixture(scope="module")
def trained_once(able, tmp_path_factory):
    quick = ("sft.epochs=2", "sft.min_steps=0", "sft.optimizer.lr=0.05")
    return run_of(tmp_path_factory.mktemp("trained"), "sft", f"model={able}", *quick)


@pytest.fixture
def trained(trained_once, tmp_path):
    """Return a copy of the run, which a test may change."""
    return shutil.copytree(trained_once, tmp_path / "run")


def run_of(tmp_path, method, *overrides):
    spec = infer_task(write_reviews(tmp_path / "reviews.csv"), ["text"], "label")
    settings = [
        "data.train_rows=8",
        "evaluation.resamples=100",
        "runtime.threads=1",
        "runtime.dtype=float32",
        *overrides,
    ]
    execute(load_config(overrides=[f"method={method}", *settings]), spec, tmp_path / "run")
    return tmp_path / "run"


def answers(judge):
    return [each.value for each in judge.predict(TEXTS)]


def test_a_merged_folder_answers_as_the_run_and_loads_by_itself(trained, tmp_path):
    exported = export_judge(trained, "merged", tmp_path / "merged")
    assert exported.rows == adjudge.open_run(trained).scores["n"] and exported.changed == 0
    assert answers(adjudge.open_judge(tmp_path / "merged")) == answers(adjudge.open_run(trained))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path / "merged")("good", return_tensors="pt")["input_ids"]
    policy = load_judge(trained)[2].task.policy
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, policy.lm(input_ids=ids).logits, atol=1e-4)


def test_a_run_of_a_graphics_card_is_exported_without_one(trained, tmp_path):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["runtime"]["device"] = "cuda:1"
    (trained / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--run", str(trained), "--format", "merged", "--out", str(tmp_path / "merged")]
    result = CliRunner().invoke(app, ["export", *options])
    assert result.exit_code == 2 and "cuda" in result.output
    result = CliRunner().invoke(app, ["export", *options, "runtime.device=cpu"])
    assert result.exit_code == 0, result.output
    with pytest.raises(ConfigError, match=r"sft\.epochs stays as it is"):
        export_judge(trained, "merged", tmp_path / "other", settings={"sft.epochs": 3})


def test_adapters_are_read_where_the_layers_are(trained, monkeypatch):
    """Left alone, peft takes the first graphics card."""
    asked = []
    monkeypatch.setattr("peft.peft_model.infer_device", lambda: asked.append("a card"))
    monkeypatch.setattr("peft.utils.save_and_load.infer_device", lambda: asked.append("a card"))
    adjudge.open_run(trained).predict(TEXTS[:1])
    assert asked == []


def test_a_moved_adapter_is_exported_without_a_comparison(trained, able, tmp_path, capsys):
    (trained / "adapter").rename(tmp_path / "moved")
    exported = export_judge(tmp_path / "moved", "merged", tmp_path / "merged", dtype="bfloat16", model=str(able))
    assert (exported.rows, exported.share) == (0, 0.0)
    assert "nothing was compared" in capsys.readouterr().err
    assert json.loads((tmp_path / "merged/config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_is_written_when_too_many_answers_change(trained, tmp_path, monkeypatch):
    path = trained / "predictions/dev.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["value"] = "other"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RunError, match=rf"{len(rows)} of {len(rows)} answers of the export differ.*100.0 %"):
        export_judge(trained, "merged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert export_judge(trained, "merged", tmp_path / "merged", max_changed=1).changed == len(rows)


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
def test_a_gguf_file_holds_the_same_network(family, request, tmp_path):
    folder = request.getfixturevalue(family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_gguf(model, tokenizer, tmp_path / "model.gguf", "float32")
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    ids = torch.randint(0, model.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(again(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)


def test_a_gguf_judge_carries_its_prompt(trained, tmp_path):
    exported = export_judge(trained, "gguf", tmp_path / "gguf", dtype="float32")
    assert exported.changed == 0 and exported.rows > 0
    text = (tmp_path / "gguf/Modelfile").read_text()
    assert "FROM ./model.gguf" in text and "PARAMETER stop </Judgement>" in text
    _, spec, judge = load_judge(trained)
    shown = judge.task.renderer.text(adjudge.load_split(spec, "dev")[0])
    text_of_row = adjudge.load_split(spec, "dev")[0].fields["text"]
    template = text.partition('TEMPLATE """')[2].partition('"""')[0]
    assert template.replace("{{ .Prompt }}", text_of_row.strip()) == shown


def test_an_export_for_other_programs_is_not_judged_with(trained, tmp_path):
    export_judge(trained, "gguf", tmp_path / "gguf", dtype="float32", max_changed=1)
    with pytest.raises(RunError, match=r"was exported as gguf, for other programs.*its adapter folder"):
        adjudge.open_judge(tmp_path / "gguf")


def test_a_run_that_was_not_judged_is_exported_and_calibrated(trained, tmp_path, capsys):
    for name in ("scores.json", "predictions"):
        path = trained / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert export_judge(trained, "merged", tmp_path / "merged").rows == 0
    assert "nothing was compared" in capsys.readouterr().err
    unseen = str(write_reviews(tmp_path / "unseen.csv", 30))
    adjudge.open_run(trained).calibrate(data=unseen, text="text", label="label")
    assert json.loads((trained / "adapter/judge.json").read_text())["calibration"]


def test_a_moved_adapter_leaves_no_place_of_this_machine(trained, able, tmp_path):
    moved = shutil.copytree(trained / "adapter", tmp_path / "moved")
    export_judge(moved, "merged", tmp_path / "merged", model=str(able))
    assert str(able.parent) not in (tmp_path / "merged/judge.json").read_text()


def test_a_modelfile_asks_label_by_label(able):
    spec = label_task("sport", "politics", several="passes", metrics=("micro_f1",))
    text = modelfile(load_config(), spec, AutoTokenizer.from_pretrained(able), "model.gguf")
    assert "Label: the-field-label" in text.splitlines()[1] and "{{ .Prompt }}" in text


def test_a_modelfile_lets_an_analysis_before_the_judgement_end(able):
    tokenizer, spec = AutoTokenizer.from_pretrained(able), adjudge.load_task("glue/sst2")
    plain, before = (
        modelfile(load_config(values=values), spec, tokenizer, "model.gguf")
        for values in ({}, {"prompt.analysis": "before"})
    )
    assert r'PARAMETER stop "\n"' in plain and r'PARAMETER stop "\n"' not in before
    assert int(re.search("num_predict ([0-9]+)", before)[1]) > 96 + 32


def test_a_modelfile_of_two_fields_takes_the_row_as_the_template_writes_it(able):
    tokenizer = AutoTokenizer.from_pretrained(able)
    text = modelfile(load_config(), adjudge.load_task("glue/rte"), tokenizer, "model.gguf")
    template = text.partition('TEMPLATE """')[2]
    assert template.count("{{ .Prompt }}") == 1 and "the-field" not in template and "the-field-" in text


def test_an_encoder_becomes_an_onnx_file(tiny_bert, tmp_path):
    run = run_of(tmp_path, "encoder", f"encoder.model={tiny_bert}", "encoder.epochs=1", "encoder.min_steps=0")
    exported = export_judge(run, "onnx", tmp_path / "onnx")
    assert exported.rows > 0 and exported.changed == 0
    assert {"model.onnx", "judge.json", "tokenizer.json", "config.json"} <= {p.name for p in exported.folder.iterdir()}


def test_wrong_requests_say_what_to_write(trained, tiny_bert, tmp_path):
    with pytest.raises(ConfigError, match=r"no format 'ggfu'; there are merged, gguf, onnx. Did you mean 'gguf'"):
        export_judge(trained, "ggfu", tmp_path / "x")
    with pytest.raises(ConfigError, match="format merged has no dtype 'q8_0'"):
        export_judge(trained, "merged", tmp_path / "x", dtype="q8_0")
    with pytest.raises(RunError, match="no fine-tuned encoder"):
        export_judge(trained, "onnx", tmp_path / "x")
    (tmp_path / "there").mkdir()
    with pytest.raises(RunError, match="is there already"):
        export_judge(trained, "merged", tmp_path / "there")
    with pytest.raises(RunError, match="no run folder"):
        export_judge(tmp_path / "nothing", "merged", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}], "smollm"),
        ([{"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}| ?[^\s]+"}}, {"type": "ByteLevel"}], "llama-bpe"),
        ([{"type": "Split", "pattern": {"Regex": r"\p{N}| ?[^\s]+"}}, {"type": "ByteLevel"}], "qwen2"),
        ([{"type": "ByteLevel", "use_regex": True}], "gpt-2"),
    ],
)
def test_ways_to_cut_a_text_have_llama_cpps_names(steps, name):
    assert pretokenizer_of({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}) == name


def test_an_unknown_way_to_cut_a_text_is_refused():
    with pytest.raises(RunError, match="may have no name for"):
        pretokenizer_of({"pre_tokenizer": {"type": "Whitespace"}})
