"""A run done again: what is refused, and that every difference is found and said where it is."""

import json
import shutil

import pytest
import torch
import yaml
from fake_method import by_first_word, install, reviews, write_reviews
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.evaluate import evaluate_run
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, environment_lines, rerun
from adjudge.runs.folder import Run, read_json
from adjudge.system.files import write_json

WEIGHTS = "adapter/adapter_model.safetensors"


def train(run):
    """Two tensors, one of which holds a zero and a not-a-number."""
    tensors = {"a": torch.tensor([0.0, float("nan")]), "b": torch.arange(4, dtype=torch.bfloat16)}
    (run.folder / "adapter").mkdir()
    save_file(tensors, run.folder / WEIGHTS)
    run.log({"step": 2, "loss": 0.5, "seconds": id(run) % 1000})


def settings(*overrides):
    return load_config(overrides=["method=sft", "evaluation.resamples=100", *overrides])


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A run, and the same done again."""
    install(monkeypatch, "sft", by_first_word, before=train)
    execute(settings(), reviews(tmp_path), tmp_path / "run")
    return tmp_path / "run", rerun(tmp_path / "run")


def differing(one, other):
    """Of the parts that differ: name to what is said."""
    return {part.name: part.detail for part in compare_runs(one, other) if not part.equal}


def edit_lines(path, change):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_the_same_again_is_equal(pair):
    one, again = pair
    assert again == one.with_name("run-rerun")
    assert [(part.name, part.equal) for part in compare_runs(one, again)] == [
        (name, True) for name in ("rows", "metrics.jsonl", WEIGHTS, "predictions", "scores")
    ]
    config = Run.open(again).config
    assert str(config.prompt.date) == read_json(one / "environment.json")["started"][:10]  # for templates that write it
    assert config.model_copy(update={"prompt": Run.open(one).config.prompt}) == Run.open(one).config
    assert environment_lines(one, again) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found[0].update(loss=0.25), "step 2: loss 0.5 → 0.25 (1 of 2 records differ)"),
        (lambda found: found[1].update(rows=True), "step 1: rows 32 → true (1 of 2 records differ)"),
        (lambda found: found[1].update(rows=32.0), "step 1: rows 32 → 32.0 (1 of 2 records differ)"),
        (lambda found: found[1].update(more=None), "step 1: more nothing → null (1 of 2 records differ)"),
        (lambda found: found[0].update(seconds=-1), None),
        (lambda found: found.pop(), "2 records → 1"),
    ],
)
def test_a_record_that_differs_is_named(change, said, pair):
    edit_lines(pair[1] / "metrics.jsonl", change)
    assert differing(*pair) == ({} if said is None else {"metrics.jsonl": said})


def test_a_prediction_that_differs_is_named(pair):
    def change(found):
        found[2]["value"] = "good" if found[2]["value"] == "bad" else "bad"
        found[2]["text"] = "x" * 100
        found[4]["probabilities"] = {"good": 1.0}

    edit_lines(pair[1] / "predictions/dev.jsonl", change)
    rows = Run.open(pair[0]).predictions("dev")
    swapped = {"good": "bad", "bad": "good"}[rows[2].value]
    (said,) = differing(*pair).values()
    assert said == f"row {rows[2].id}: value {rows[2].value} → {swapped} (2 of 8 rows differ, 1 in the answer)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["b"][1:2].mul_(1.5), "b (1 of 2 tensors differ, by 0.5 at most)"),
        (lambda found: found["a"][:1].neg_(), "a (1 of 2 tensors differ, by nan at most)"),
        (lambda found: found.update(b=found["b"].float()), "b: bfloat16 [4] → float32 [4] (1 of 2 tensors differ)"),
        (
            lambda found: found.update(b=found["b"].reshape(2, 2)),
            "b: bfloat16 [4] → bfloat16 [2, 2] (1 of 2 tensors differ)",
        ),
        (lambda found: found.pop("a"), "only one has the tensor a"),
    ],
)
def test_a_bit_that_differs_in_a_tensor_is_found(change, said, pair):
    edit_tensors(pair[1] / WEIGHTS, change)
    assert differing(*pair) == {WEIGHTS: said}


def test_a_file_of_tensors_that_is_missing_or_damaged_is_named(pair):
    (pair[1] / WEIGHTS).write_bytes(b"broken")
    with pytest.raises(RunError, match=r"adapter_model\.safetensors: is damaged"):
        compare_runs(*pair)
    (pair[1] / WEIGHTS).unlink()
    assert differing(*pair) == {WEIGHTS: f"{pair[1]} has no such file"}


def test_a_score_and_rows_that_differ_are_named(pair):
    for name, key, value in (("scores.json", "unreadable", 3), ("training.json", "rows_sha256", "0" * 64)):
        tree = read_json(pair[1] / name)
        write_json(pair[1] / name, tree | {key: value})
    found = differing(*pair)
    assert found["scores"] == "unreadable 0 → 3"
    assert found["rows"].endswith(f"→ {'0' * 60}…")


def test_what_differs_between_the_machines_is_said(pair):
    tree = read_json(pair[1] / "environment.json")
    write_json(pair[1] / "environment.json", tree | {"threads": 99})
    assert environment_lines(*pair) == [f"threads {tree['threads']} → 99"]
    (pair[0] / "environment.json").unlink()
    assert environment_lines(*pair) == [
        f"{pair[0]} has no environment.json: it was made by an older version of adjudge."
    ]


def test_other_data_in_the_same_place_are_found(pair):
    write_reviews(pair[0].parent / "reviews.csv", 44)
    again = rerun(pair[0], pair[0].parent / "other")
    found = differing(pair[0], again)
    assert {"rows", "predictions", "metrics.jsonl"} <= set(found)


def test_each_task_of_several_is_compared(tmp_path, monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    spec = reviews(tmp_path)
    execute(settings(), [spec, spec.model_copy(update={"name": "a/more"})], tmp_path / "run")
    again = rerun(tmp_path / "run")
    assert differing(tmp_path / "run", again) == {}
    edit_lines(again / "tasks/a-more/predictions/dev.jsonl", lambda found: found[0].update(text="?"))
    assert list(differing(tmp_path / "run", again)) == ["predictions of a/more"]


def test_the_data_may_lie_elsewhere(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: "Yes")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/glue/RTE"
    folder.mkdir(parents=True)
    text = "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tA.\tC.\tnot_entailment\n"
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(text)
    from adjudge.tasks import load_task

    execute(settings("data.data_dir=data"), load_task("glue/rte"), tmp_path / "run")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    again = rerun(tmp_path / "run", data_dir="moved")
    assert differing(tmp_path / "run", again) == {}
    assert Run.open(again).config.data.data_dir == "moved"


def test_the_machine_may_be_another(pair, monkeypatch):
    """A run of a graphics card is repeated where there is none."""
    monkeypatch.chdir(pair[0])
    config = yaml.safe_load((pair[0] / "config.yaml").read_text())
    config["runtime"]["device"] = "cuda:1"
    (pair[0] / "config.yaml").write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["rerun", ".", "--force", "runtime.device=cpu"])
    assert result.exit_code == 0, result.output
    assert Run.open(pair[1]).config.runtime.device == "cpu"
    with pytest.raises(ConfigError, match=r"sft\.epochs: a repeated run may change only settings of the machine"):
        rerun(pair[0], force=True, settings={"sft.epochs": 3})


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_a_run_that_is_not_complete_is_refused(state, pair):
    Run.open(pair[0]).set_state(state)
    with pytest.raises(RunError, match=f"is {state}: only a complete run"):
        rerun(pair[0])


def test_what_is_no_run_of_its_own_and_a_folder_that_is_taken_are_refused(pair):
    folder, _ = evaluate_run(pair[0], split="train")
    with pytest.raises(RunError, match="an evaluation of another run"):
        rerun(folder)
    with pytest.raises(RunError, match="is the run to repeat"):
        rerun(pair[0], pair[0])
    with pytest.raises(RunError, match="--force"):
        rerun(pair[0])
    assert rerun(pair[0], force=True) == pair[1]


def test_the_verb_says_it_and_ends_with_0_or_1(pair, monkeypatch):
    monkeypatch.chdir(pair[0])
    shown = CliRunner().invoke(app, ["rerun", ".", "--out", "../third"])
    assert shown.exit_code == 0, shown.output
    assert "The environment is the same." in shown.stdout
    assert "all parts are equal" in shown.stdout
    write_json(pair[0] / "environment.json", read_json(pair[0] / "environment.json") | {"python": "2.7"})
    edit_lines(pair[0] / "metrics.jsonl", lambda found: found[1].update(rows=7))
    shown = CliRunner().invoke(app, ["rerun", ".", "--force"])
    assert shown.exit_code == 1, shown.output
    text = " ".join(shown.stdout.split())
    assert text.index("python 2.7 →") < text.index("metrics.jsonl differs step 1: rows 7 → 32 (1 of 2 records differ)")
    assert "1 of 5 parts are not equal" in text
    assert pair[1].name == "run-rerun"
