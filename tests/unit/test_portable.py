"""Judges that leave their run: the files beside the weights, loading them elsewhere, by adjudge and by peft."""

import csv
import json
import shutil

import pytest
import torch
from fake_method import write_reviews
from hub_cache import NEW, cache_model, no_network
from huggingface_hub import ModelCard, constants
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

import adjudge
from adjudge.config import load_config
from adjudge.errors import ModelError, RunError
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_tasks
from adjudge.ship.export import export_judge
from adjudge.tasks import given_examples, infer_task

TEXTS = ["good one here", "bad one there", "a third", "<|im_end|> good", "ünïcödé"]
BASE = "someone/judge-tiny"


def run_of(tmp_path, method, *overrides, name="run"):
    spec = infer_task(write_reviews(tmp_path / "reviews.csv"), ["text"], "label")
    settings = [
        "data.train_rows=8",
        "evaluation.resamples=100",
        "runtime.threads=1",
        "runtime.dtype=float32",
        *overrides,
    ]
    execute(load_config(overrides=[f"method={method}", *settings]), spec, tmp_path / name)
    return tmp_path / name


@pytest.fixture
def hub(tiny_llama, tmp_path, monkeypatch):
    """The hub client's cache with the base model, and no network."""
    cache_model(tmp_path / "hub", BASE, tiny_llama, NEW, "main")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    no_network(monkeypatch)
    return tmp_path / "hub"


@pytest.fixture
def trained(hub, tmp_path):
    return run_of(tmp_path, "sft", f"model={BASE}", "sft.epochs=1", "sft.min_steps=0", "sft.optimizer.lr=0.05")


def answers(judge):
    return [(each.value, each.text, each.probabilities) for each in judge.predict(TEXTS)]


def test_a_moved_adapter_answers_as_its_run_does(trained, tmp_path):
    before = answers(adjudge.open_run(trained))
    moved = shutil.move(trained / "adapter", tmp_path / "elsewhere")
    shutil.rmtree(trained)
    judge = adjudge.open_judge(moved)
    assert answers(judge) == before
    assert judge.task.words == ("bad", "good") and judge.config.model == f"{BASE}@{NEW}"


def test_a_moved_and_a_merged_judge_are_calibrated_as_their_run_is(hub, tmp_path):
    settings = ["sft.epochs=1", "sft.min_steps=0", "sft.optimizer.lr=0.05", "calibration.rows=8"]
    run = run_of(tmp_path, "sft", f"model={BASE}", *settings)
    inside = answers(adjudge.open_run(run))
    own = adjudge.open_run(run).judge.judge(given_examples(read_tasks(run)[0], TEXTS), probabilities=True)
    assert [value for value, *_ in inside] == [each.value for each in own]
    assert inside[0][2] != own[0].probabilities
    export_judge(run, "merged", tmp_path / "merged", max_changed=1)
    merged = answers(adjudge.open_judge(tmp_path / "merged"))
    assert [chances for *_, chances in merged] == [pytest.approx(chances, abs=1e-4) for *_, chances in inside]
    moved = shutil.move(run / "adapter", tmp_path / "elsewhere")
    shutil.rmtree(run)
    assert answers(adjudge.open_judge(moved)) == inside


def test_a_whole_run_folder_is_a_judge_too(trained):
    assert answers(adjudge.open_judge(trained)) == answers(adjudge.open_run(trained))


def test_peft_loads_base_adapter_and_tokenizer_from_the_moved_folder(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else the client tries again for a minute
    policy = adjudge.open_run(trained).judge.task.policy  # merged into the weights
    moved = str(shutil.copytree(trained / "adapter", tmp_path / "elsewhere"))
    model = AutoPeftModelForCausalLM.from_pretrained(moved)
    ids = AutoTokenizer.from_pretrained(moved)("good one", return_tensors="pt")["input_ids"]
    assert json.loads((trained / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == BASE
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, policy.lm(input_ids=ids).logits, atol=1e-4)


def test_a_judge_is_fetched_from_the_hub(trained, hub):
    cache_model(hub, "someone/judge", trained / "adapter", "3" * 40, "main")
    assert answers(adjudge.open_judge("someone/judge")) == answers(adjudge.open_run(trained))
    with pytest.raises(ModelError, match="someone/nothing is no folder here, and cannot be fetched"):
        adjudge.open_judge("someone/nothing")


def test_no_file_of_the_adapter_names_a_place_on_this_machine(trained, tmp_path):
    for path in (trained / "adapter").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_a_base_in_a_folder_is_named_without_its_place(tiny_llama, tmp_path):
    run = run_of(tmp_path, "sft", f"model={tiny_llama}", "sft.epochs=1", "sft.min_steps=0")
    record = json.loads((run / "adapter/judge.json").read_text())
    assert record["base"]["name"] == tiny_llama.name and record["base"]["sha256"]
    moved = shutil.copytree(run / "adapter", tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="llama"):
        adjudge.open_judge(moved).predict(TEXTS)
    assert answers(adjudge.open_judge(moved, model=str(tiny_llama))) == answers(adjudge.open_run(run))


@pytest.mark.parametrize(("method", "part"), [("encoder", "encoder"), ("tfidf", "regression")])
def test_other_trained_methods_leave_their_run_too(method, part, tiny_bert, tmp_path):
    own = [f"encoder.model={tiny_bert}", "encoder.epochs=1", "encoder.min_steps=0"] if method == "encoder" else []
    run = run_of(tmp_path, method, *own)
    before = answers(adjudge.open_run(run))
    moved = shutil.move(run / part, tmp_path / "elsewhere")
    shutil.rmtree(run)
    assert answers(adjudge.open_judge(moved)) == before


def test_a_base_of_the_methods_own_is_named_without_its_place_and_can_be_elsewhere(tiny_bert, tmp_path):
    run = run_of(tmp_path, "linear", f"linear.model={tiny_bert}")
    before = answers(adjudge.open_run(run))
    record = (run / "regression/judge.json").read_text()
    assert str(tmp_path) not in record and str(tiny_bert) not in record
    assert json.loads(record)["settings"]["linear"]["model"] == tiny_bert.name
    moved, base = shutil.move(run / "regression", tmp_path / "elsewhere"), shutil.copytree(tiny_bert, tmp_path / "base")
    shutil.rmtree(run)
    assert answers(adjudge.open_judge(moved, model=str(base))) == before


def test_a_trained_encoder_names_no_place_of_this_machine(tiny_bert, tmp_path):
    run = run_of(tmp_path, "encoder", f"encoder.model={tiny_bert}", "encoder.epochs=1", "encoder.min_steps=0")
    assert str(tiny_bert.parent) not in (run / "encoder/judge.json").read_text()


def test_the_card_says_what_it_judges_and_how_well(trained):
    card = ModelCard.load(trained / "adapter/README.md")
    assert card.data.base_model == BASE and card.data.library_name == "peft"
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    scores = adjudge.open_run(trained).scores
    assert results["accuracy"] == round(scores["metrics"]["accuracy"]["value"], 4)
    assert "8 training rows, seed 0" in card.text and scores["rows_sha256"] in card.text
    assert "`bad`, `good`" in card.text and "open_judge" in card.text


def test_predict_takes_a_moved_judge(trained, tmp_path):
    from typer.testing import CliRunner

    from adjudge.cli.main import app

    moved = shutil.copytree(trained / "adapter", tmp_path / "elsewhere")
    (tmp_path / "new.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
    options = ["--run", str(moved), "--input", str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(app, ["predict", *options])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        labels = [row["label"] or None for row in csv.DictReader(file)]
    assert labels == [value for value, *_ in answers(adjudge.open_run(trained))]


def test_a_damaged_or_newer_judge_is_refused(trained, tmp_path):
    moved = shutil.copytree(trained / "adapter", tmp_path / "elsewhere")
    record = json.loads((moved / "judge.json").read_text())
    for changed, message in (
        ({**record, "schema": 99}, "written by a newer adjudge"),
        ({**record, "settings": {"nonsense": 3}}, "cannot be read as a judge"),
        ({key: value for key, value in record.items() if key != "tasks"}, "cannot be read as a judge"),
    ):
        (moved / "judge.json").write_text(json.dumps(changed))
        with pytest.raises(RunError, match=message):
            adjudge.open_judge(moved)
    (moved / "judge.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        adjudge.open_judge(moved)
    (moved / "judge.json").unlink()
    with pytest.raises(RunError, match="no run folder"):
        adjudge.open_judge(moved)


def test_files_that_a_kill_left_half_written_are_swept(trained):
    (trained / "adapter/.judge.json.abc").write_text("{")
    (trained / "status.json").write_text('{"state": "running", "reason": ""}')
    (trained / "scores.json").unlink()
    spec = read_tasks(trained)[0]
    execute(Run.open(trained).config, spec, trained, resume=True)
    assert not (trained / "adapter/.judge.json.abc").exists() and (trained / "adapter/judge.json").is_file()


def test_a_run_that_trains_nothing_leaves_no_judge(tiny_llama, tmp_path):
    run = run_of(tmp_path, "zero-shot", f"model={tiny_llama}")
    assert not list(run.rglob("judge.json"))
