"""Several labels per row, from a table to a judged file, with tiny models."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from running import EPOCHS_ALONE, load_one, train_one
from specs import label_task
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.runs.folder import Run
from adjudge.tasks.sets import set_text
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

NAMES = ("good", "bad", "very")
METRICS = ("micro_f1", "macro_f1", "sample_f1", "exact_match")
WORDS = label_task(*NAMES, several="words", metrics=METRICS, instruction="Say what is in the text.")
PASSES = WORDS.model_copy(update={"several": "passes"})


@pytest.fixture(autouse=True)
def threads() -> Any:
    """Put back what `runtime.threads` sets for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows(count: int = 32) -> list[Example]:
    """Texts that hold the words of their labels."""
    sets = [[name for bit, name in enumerate(NAMES) if number >> bit & 1] for number in range(count)]
    return [
        Example(f"t:{number}", {"text": f"{' '.join(words)} film"}, set_text(words, NAMES))
        for number, words in enumerate(sets)
    ]


def new_run(folder: Path, method: str, model: Path, bert: Path) -> Run:
    values: dict[str, Any] = {
        **EPOCHS_ALONE,
        "method": method,
        "model": str(model),
        "linear.model": str(bert),
        "encoder.model": str(bert),
        "runtime.device": "cpu",
        "runtime.dtype": "float32",
        "runtime.threads": 1,
        "prompt.demonstrations": 2,
        "prompt.prior": "none",
        **{f"{name}.epochs": 1 for name in ("sft", "ppo", "exact", "encoder")},
        **{f"{name}.batch_size": 4 for name in ("sft", "ppo", "exact", "encoder")},
        "evaluation.resamples": 100,
        "checkpoint.every_s": None,
    }
    return Run.create(folder, load_config(values=values))


@pytest.mark.parametrize("spec", [WORDS, PASSES], ids=["words", "passes"])
@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "sft", "ppo", "exact", "encoder"])
def test_a_method_judges_sets_and_again_after_loading(
    method: str, spec: TaskSpec, tiny_llama: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = new_run(tmp_path / "run", method, tiny_llama, tiny_bert)
    judged = train_one(method, run, spec, rows(8)).judge(rows(4), probabilities=True)
    assert [row.id for row in judged] == ["t:0", "t:1", "t:2", "t:3"]
    assert [row.gold for row in judged] == ["none", "good", "bad", "good, bad"]
    assert all(row.value is None or spec.accepts(row.value) for row in judged)
    assert all(set(row.probabilities) == set(NAMES) and max(row.probabilities.values()) <= 1 for row in judged)
    assert load_one(method, Run.open(run.folder), spec).judge(rows(4), probabilities=True) == judged


def test_sets_of_many_labels_are_read_and_have_no_probabilities(
    tiny_llama: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    many = label_task(*NAMES, "film", "the", "a", "row", "t", several="words", metrics=METRICS)
    run = new_run(tmp_path / "run", "ppo", tiny_llama, tiny_bert)
    judged = train_one("ppo", run, many, rows(8)).judge(rows(4), probabilities=True)
    assert all(row.probabilities == {} and (row.value is None or many.accepts(row.value)) for row in judged)


@pytest.mark.parametrize("spec", [WORDS, PASSES], ids=["words", "passes"])
@pytest.mark.parametrize("method", ["tfidf", "linear"])
def test_a_floor_learns_each_label(
    method: str, spec: TaskSpec, tiny_llama: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = new_run(tmp_path / "run", method, tiny_llama, tiny_bert)
    judged = train_one(method, run, spec, rows()).judge(rows(8), probabilities=True)
    right = sum(row.value == row.gold for row in judged)
    assert right == 8 if method == "tfidf" else right >= 1
    assert all(set(row.probabilities) == set(NAMES) for row in judged)
    assert load_one(method, Run.open(run.folder), spec).judge(rows(8), probabilities=True) == judged
    plain = label_task(*NAMES)
    with pytest.raises(Exception, match="but the task mine wants good, bad, very"):
        load_one(method, Run.open(run.folder), plain)


def test_from_a_table_to_a_judged_file(tmp_path: Path) -> None:
    table = tmp_path / "films.csv"
    lines = [f"{row.fields['text']} {n},{'|'.join(str(row.gold).split(', '))}" for n, row in enumerate(rows(40))]
    table.write_text("text,tags\n" + "\n".join(line.replace("none", "") for line in lines) + "\n")
    own = ["--data", str(table), "--text", "text", "--label", "tags", "--kind", "several"]
    out = tmp_path / "run"
    call = ["train", "tfidf", *own, "--out", str(out), "evaluation.resamples=100"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "3 labels (column tags, several per row)" in " ".join(result.stderr.split())
    scores = json.loads((out / "scores.json").read_text())
    assert scores["metrics"]["micro_f1"]["value"] > 0.9 and set(scores["per_label"]) == set(NAMES)
    judged = tmp_path / "judged.csv"
    new = tmp_path / "new.csv"
    new.write_text("text\ngood very film 5\nfilm\n")
    call = ["predict", "--run", str(out), "--input", str(new), "--out", str(judged)]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    with judged.open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert [row["label"] for row in answers] == ["good, very", "none"]
    assert list(answers[0])[1:] == ["label", "p_bad", "p_good", "p_very", "unreadable"]
    assert CliRunner().invoke(app, [*call, "--force", "--min-confidence", "0.9"]).exit_code == 2
    report = CliRunner().invoke(app, ["report", str(out), "--out", str(tmp_path / "report.html")])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "report.html").read_text()
    assert "micro_f1" in page and "would be right in" not in page


def test_columns_of_yes_and_no_from_python(tmp_path: Path) -> None:
    table = [
        {"text": f"{row.fields['text']} {number}", **{name: int(name in str(row.gold)) for name in NAMES}}
        for number, row in enumerate(rows(40))
    ]
    run = adjudge.train(
        "tfidf", data=table, text="text", label=[*NAMES], kind="passes", out=tmp_path / "run", evaluation__resamples=100
    )
    assert [each.value for each in run.predict(["bad film", "film"])] == ["bad", "none"]
