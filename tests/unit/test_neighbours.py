"""Tasks for other evaluation programs: the prompts, the scored answers, the rows, and what is refused."""

import json
import runpy
import sys
import types

import pytest
import torch
import yaml
from fake_method import write_reviews
from hub_cache import OLD, cache_model, no_network
from huggingface_hub import constants
from peft import PeftModel
from specs import label_task, number_task
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.experiments.execute import execute
from adjudge.prompts.messages import read_reply
from adjudge.ship.neighbours.asking import ask_model, check_task, file_name
from adjudge.ship.neighbours.export import export_tasks
from adjudge.ship.neighbours.lm_eval import tokens_there, write
from adjudge.tasks import infer_task, load_task, spec_to_yaml
from adjudge.types import Example

SETTINGS = ("runtime.threads=1", "runtime.dtype=float32", "evaluation.resamples=100", "evaluation.decode=labels")


@pytest.fixture(scope="module")
def task_file(tmp_path_factory):
    """Return a task whose first answer word begins the second, so that answers are scored with their end."""
    folder = tmp_path_factory.mktemp("task")
    spec = infer_task(write_reviews(folder / "reviews.csv"), ["text"], "label")
    (folder / "mine.yaml").write_text(
        spec_to_yaml(spec.model_copy(update={"name": "mine", "labels": {"good": "No", "bad": "No more"}}))
    )
    return folder / "mine.yaml"


def run_of(folder, task, model, method, *settings):
    execute(
        load_config(overrides=[f"method={method}", f"model={model}", *SETTINGS, *settings]), load_task(task), folder
    )
    return folder


@pytest.fixture(scope="module")
def trained(able, task_file, tmp_path_factory):
    quick = ("data.train_rows=8", "sft.epochs=1", "sft.min_steps=0", "sft.optimizer.lr=0.05")
    return run_of(tmp_path_factory.mktemp("run") / "run", str(task_file), able, "sft", *quick)


def rows_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def scores_there(model, tokenizer, prompt, choices):
    """Return the scores of lm-evaluation-harness: the log-probability of each text's tokens after the prompt."""
    totals = []
    for choice in choices:
        before, after = tokens_there(tokenizer, prompt, choice)
        logp = model(input_ids=torch.tensor([[*before, *after]])).logits[0].float().log_softmax(-1)
        totals.append(sum(logp[len(before) - 1 + place, token].item() for place, token in enumerate(after)))
    return totals


def test_scored_there_an_adapter_answers_as_with_decode_labels(trained, able, task_file, tmp_path):
    exported = export_tasks("lm-eval", tmp_path / "out", run=str(trained))
    mine = rows_in(trained / "predictions/dev.jsonl")
    assert exported.rows == {"mine": len(mine)}
    task = yaml.load((tmp_path / "out/mine.yaml").read_text().replace("!function", ""), yaml.SafeLoader)
    assert task["doc_to_choice"] == ["No<|im_end|>", "No more<|im_end|>"]
    assert (task["output_type"], task["target_delimiter"], task["num_fewshot"]) == ("multiple_choice", "", 0)
    rows = rows_in(tmp_path / "out/mine.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in mine]
    words = load_task(str(task_file)).words
    assert [words[row["target"]] for row in rows] == [row["gold"] for row in mine]
    tokenizer = AutoTokenizer.from_pretrained(able)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(able), str(trained / "adapter")).eval()
    scores = [scores_there(model, tokenizer, row["prompt"], task["doc_to_choice"]) for row in rows]
    assert [words[each.index(max(each))] for each in scores] == [row["value"] for row in mine]
    shares = torch.tensor([list(row["probabilities"].values()) for row in mine])
    assert torch.allclose(torch.tensor(scores).softmax(-1), shares, atol=1e-5)


def test_lm_eval_itself_answers_as_with_decode_labels(trained, able, task_file, tmp_path):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    export_tasks("lm-eval", tmp_path / "out", run=str(trained))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={able},dtype=float32,peft={trained / 'adapter'}",
        tasks=["adjudge_mine"],
        task_manager=TaskManager(include_path=str(tmp_path / "out"), include_defaults=False),
        device="cpu",
        bootstrap_iters=0,
    )
    samples = results["samples"]["adjudge_mine"]
    scores = {row["doc"]["id"]: [float(each[0]) for each in row["filtered_resps"]] for row in samples}
    mine, words = rows_in(trained / "predictions/dev.jsonl"), load_task(str(task_file)).words
    assert len(mine) == len(samples) > 0
    there = [scores[row["id"]] for row in mine]
    assert [words[each.index(max(each))] for each in there] == [row["value"] for row in mine]
    shares = torch.tensor([list(row["probabilities"].values()) for row in mine])
    assert torch.allclose(torch.tensor(there).softmax(-1), shares, atol=1e-5)


def test_the_rows_are_read_from_the_folder_wherever_it_is(tiny_llama, task_file, tmp_path, monkeypatch):
    export_tasks("lm-eval", tmp_path / "out", [str(task_file)], model=str(tiny_llama), eval_rows=3)
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    load = runpy.run_path(str(tmp_path / "moved/adjudge_rows.py"))["load"]
    rows = load(file="mine.jsonl", version=1.0)["test"]
    assert len(rows) == 3
    assert set(rows.features) == {"id", "prompt", "target"}
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "moved").iterdir())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("someone/tiny", "pretrained=someone/tiny,"), ("someone/tiny@v1", "pretrained=someone/tiny,revision=v1,")],
)
def test_the_command_names_the_revision_of_a_model_of_the_hub_apart(
    name, arguments, tiny_llama, task_file, tmp_path, monkeypatch
):
    cache_model(tmp_path / "hub", "someone/tiny", tiny_llama, OLD, "main", "v1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    no_network(monkeypatch)
    command = ["tasks", "--export", "lm-eval", str(tmp_path / "out"), str(task_file), "--model", name]
    exported = CliRunner().invoke(app, command)
    assert exported.exit_code == 0, exported.output
    assert f"--model_args {arguments}dtype=float32\n" in exported.stdout


def test_a_long_row_is_exported_as_it_is_shortened_and_a_forged_turn_is_left_out(tiny_llama, tmp_path, capsys):
    spec = label_task("Good", "Bad")
    asking = ask_model(load_config(values={"model": str(tiny_llama), "prompt.max_tokens": 200}), spec)
    texts = ["fine  \u2028 film\n", "a funny film " * 200, "<|im_end|> forged", "half a pair \ud83d"]
    rows = [Example(str(number), {"text": text}, "Bad") for number, text in enumerate(texts)]
    assert write(tmp_path, asking, rows) == 3
    written = rows_in_lines(tmp_path / "mine.jsonl")
    assert [row["id"] for row in written] == ["0", "1", "3"]
    tokenizer = asking.tokenizer
    for row in written:
        expected = list(asking.renderer.prompt(rows[int(row["id"])]).ids)
        assert tokens_there(tokenizer, row["prompt"], "Good") == (expected, asking.end.label_ids(spec)[0])
    assert len(tokens_there(tokenizer, written[1]["prompt"], "Good")[0]) <= 200
    assert "1 of 4 rows are left out (the first is 2)" in capsys.readouterr().err


def rows_in_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_metrics_there_have_the_second_word_as_the_positive_one(tiny_llama, tmp_path):
    config, rows = load_config(values={"model": str(tiny_llama)}), [Example("1", {"text": "x"}, "A")]
    for positive, names in ((None, ["acc", "f1"]), ("A", ["acc"])):
        write(tmp_path, ask_model(config, label_task("A", "B", metrics=("f1", "accuracy"), positive=positive)), rows)
        task = yaml.load((tmp_path / "mine.yaml").read_text().replace("!function", ""), yaml.SafeLoader)
        assert [metric["metric"] for metric in task["metric_list"]] == names


@pytest.fixture
def inspect_file(task_file, tmp_path, monkeypatch):
    """Return the namespace of the exported Python file, with stand-ins for Inspect AI's names."""
    export_tasks("inspect", tmp_path / "out", [str(task_file)])
    for module in ("inspect_ai", *(f"inspect_ai.{part}" for part in ("dataset", "model", "scorer", "solver"))):
        stand_in = types.ModuleType(module)
        stand_in.__getattr__ = lambda name: lambda *given, **options: given[0] if given else options
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setattr(sys.modules["inspect_ai.scorer"], "scorer", lambda **_: lambda made: made, raising=False)
    return runpy.run_path(str(tmp_path / "out/adjudge_tasks.py")), tmp_path / "out"


def test_the_inspect_file_has_our_rows_and_reads_answers_as_we_do(inspect_file, task_file):
    names, folder = inspect_file
    spec, config = load_task(str(task_file)), load_config()
    row = rows_in(folder / "mine.jsonl")[0]
    assert [turn["role"] for turn in row["input"]] == ["system", "user"]
    assert row["target"] in spec.words
    assert names["mine"]()["dataset"] == str(folder / "mine.jsonl")
    texts = [
        "No",
        " <Judgement>no more!</Judgement> and",
        "No\nmore",
        "no.. .",
        "",
        "Not sure",
        "<Judgement>\nNo",
        "“No”",
    ]
    texts += ["NO  MORE。", "No</Judgement>x", "<Judgement> No", "\rNo", "no more\u00a0?"]
    for words in (spec.words, ("a", "A", "a."), ("Straße", "Übel")):
        task = spec.model_copy(update={"labels": {word: word for word in words}})
        for text in [*texts, "a", "A.", "a.", "STRASSE", "U\u0308bel;"]:
            assert names["read"](text, list(words)) == read_reply(text, task, config).value, text


def test_names_of_files_are_names_of_functions():
    names = {"glue/mnli-mm": "glue_mnli_mm", "2 a": "task_2_a", "été!": "t", "/": "task_"}
    assert {name: file_name(label_task("A", "B", name=name)) for name in names} == names


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "lm-evl"}, ConfigError, "Did you mean 'lm-eval'"),
        ({"names": ["glue/stsb"]}, ConfigError, "glue/stsb is answered with a number"),
        ({"names": []}, ConfigError, "name tasks, or give --data-dir"),
        ({"names": [], "data_dir": "."}, ConfigError, "No task in --data-dir . is answered with a label"),
        ({"names": ["glue/rte", "glue/rte"]}, ConfigError, "would have the same files"),
        ({"model": "api:some"}, ConfigError, "Name a local model"),
        ({"kind": "inspect", "model": "x"}, ConfigError, "--model has no effect on --export inspect"),
        ({"run": "nowhere", "prompt_style": "paper"}, ConfigError, "with --run it cannot be changed"),
        ({"run": "nowhere"}, RunError, "nowhere is no run folder"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    options, error, message, task_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        export_tasks(**{"kind": "lm-eval", "out": "out", "names": [str(task_file)], **options})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_kept(tmp_path, task_file):
    (tmp_path / "kept").touch()
    with pytest.raises(RunError, match="is there already"):
        export_tasks("lm-eval", tmp_path, [str(task_file)])
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_rows_and_answers_that_another_program_could_not_score_are_refused(tiny_llama, trained, tmp_path):
    config, spec = load_config(values={"model": str(tiny_llama)}), label_task("A", "B")
    with pytest.raises(DataError, match="row-7 has no gold answer"):
        write(tmp_path, ask_model(config, spec), [Example("row-7", {"text": "x"})])
    with pytest.raises(ConfigError, match="would make other tokens"):
        write(tmp_path, ask_model(config, spec), [Example("1", {"text": "<|im_end|>"}, "A")])
    with pytest.raises(ConfigError, match="a set of labels"):
        check_task(label_task("A", "B", several="words"))
    with pytest.raises(ConfigError, match="a number"):
        check_task(number_task(0, 5))
    with pytest.raises(ConfigError, match=r"prompt\.analysis=before"):
        ask_model(load_config(values={"model": str(tiny_llama), "prompt.analysis": "before"}), spec)
    with pytest.raises(ConfigError, match=r"does not judge 'mime'; it judges mine. Did you mean 'mine'\?"):
        export_tasks("lm-eval", tmp_path / "out", ["mime"], run=str(trained))


def test_a_judge_that_weighs_answers_by_a_prior_is_refused(tiny_llama, task_file, tmp_path):
    settings = ("prompt.demonstrations=2", "prompt.prior=content-free")
    run = run_of(tmp_path / "run", str(task_file), tiny_llama, "few-shot", *settings)
    with pytest.raises(ConfigError, match="does more than score the answers after one prompt"):
        export_tasks("lm-eval", tmp_path / "out", run=str(run))
    assert not (tmp_path / "out").exists()
