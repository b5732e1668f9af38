"""Test the command line as a user runs it: separate processes, real training, Ctrl-C."""

import csv
import json
import os
import shlex
import signal

import pytest
from fake_method import reviews, write_reviews
from processes import adjudge, start, wait_for

from adjudge.runs.folder import Run, read_json
from adjudge.tasks.catalogue import spec_to_yaml

SMALL = [
    "evaluation.resamples=100",
    "sft.epochs=1",
    "sft.min_steps=0",
    "ppo.min_steps=0",
    "ppo.update_epochs=2",
    "ppo.batch_size=2",
    "ppo.mini_batch_size=2",
    "runtime.dtype=float32",
    "runtime.threads=1",
]


@pytest.fixture(scope="module")
def small(tiny_llama):
    return ["--model", tiny_llama, "--train-rows", "8", *SMALL]


@pytest.fixture(scope="module")
def own(tmp_path_factory, small):
    file = write_reviews(tmp_path_factory.mktemp("own") / "reviews.csv")
    return ["--data", file, "--text", "text", "--label", "label", *small]


@pytest.fixture
def two_tasks(tmp_path, small):
    spec = reviews(tmp_path)
    files = [tmp_path / f"{name}.yaml" for name in ("one", "two")]
    for file in files:
        file.write_text(spec_to_yaml(spec.model_copy(update={"name": file.stem})))
    return ["--task", ",".join(map(str, files)), *small]


def test_compare_runs_each_cell_in_its_own_process_and_reuses_it(two_tasks, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "model").mkdir()
    methods = ["--methods", "zero-shot,encoder,multi-sft", "--encoder", tmp_path / "model"]
    first = adjudge("compare", *two_tasks, *methods, "--out", out, code=1, fresh=True)
    table = json.loads((out / "table.json").read_text())
    assert [(row["task"], row["method"], row["train_rows"]) for row in table["rows"]] == [
        *(("one", "zero-shot", 0), ("one", "multi-sft", 16), ("two", "zero-shot", 0), ("two", "multi-sft", 16))
    ]
    assert "--methods zero-shot,encoder,multi-sft" in table["command"]
    assert (out / "report.html").is_file()
    mixture = out / "multi-task/multi-sft/seed-0"
    assert read_json(mixture / "environment.json")["command"] == table["command"]
    assert (mixture / "adapter/adapter_model.safetensors").is_file()
    assert "multi-sft" in first.stdout
    # The reason of a failed cell comes from its process, and the other cells still run.
    assert "config.json" in first.stderr
    assert "config.json" in table["failed"][0]["reason"]
    second = adjudge("compare", *two_tasks, "--methods", "zero-shot,multi-sft", "--out", out)
    assert second.stderr.count("reusing ") == 3
    assert json.loads((out / "table.json").read_text())["rows"] == table["rows"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_comparison_stopped_while_its_libraries_load_ends_and_goes_on(own, tmp_path):
    command = ("compare", *own, "--methods", "sft", "--out", str(tmp_path / "the out"), "sft.epochs=1")
    with start(*command, fresh=True) as process:
        wait_for(lambda: "[1/1]" in process.stderr or not process.running, 120)
        process.signal(signal.SIGINT)
        stopped = process.wait(60)
    assert stopped.returncode == 130, stopped.stderr
    # The cell's folder is named if the run had begun in it.
    assert "interrupted; " in stopped.stderr or "interrupted. To continue:" in stopped.stderr
    words = shlex.split(stopped.stderr.splitlines()[-1])
    assert tuple(words[-len(command) :]) == tuple(map(str, command))
    assert "Traceback" not in stopped.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_comparison_stops_its_cell(how, own, tmp_path):
    cell = tmp_path / "out/reviews/sft/seed-0"
    with start("compare", *own, "--methods", "sft", "--out", tmp_path / "out", "sft.epochs=5000") as process:
        wait_for(lambda: (cell / "metrics.jsonl").is_file() or not process.running, 120)
        assert process.running, process.stderr
        process.signal(how)
        finished = process.wait(60)
    if how == signal.SIGINT:
        assert finished.returncode == 130
        assert "is incomplete" in finished.stderr
        assert "Traceback" not in finished.stderr
    wait_for(lambda: Run.open(cell).state != "running", 60)
    assert Run.open(cell).state == "interrupted"


def test_train_evaluate_and_predict_with_a_trained_adapter(own, tmp_path, tiny_llama):
    run = tmp_path / "sft"
    adjudge("train", "sft", *own, "--out", run)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), run / "adapter").peft_config
    adjudge("train", "ppo", *own, "--init", run, "--out", tmp_path / "ppo")
    assert Run.open(tmp_path / "ppo").scores()["train_rows"] == 8
    adjudge("evaluate", "--run", tmp_path / "ppo", "--decode", "labels")
    scores = json.loads((tmp_path / "ppo/evaluations/reviews-dev-labels/scores.json").read_text())
    assert (scores["decode"], scores["unreadable"]) == ("labels", 0)
    (tmp_path / "new.csv").write_text("id,text\n007,good film\n008,bad film\n")
    adjudge(
        "predict",
        "--run",
        tmp_path / "ppo",
        "--input",
        tmp_path / "new.csv",
        "--out",
        tmp_path / "out.csv",
        "--decode",
        "labels",
    )
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["007", "008"]
    for row in rows:
        assert float(row["p_good"]) + float(row["p_bad"]) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(("good", "bad"), key=lambda word: float(row[f"p_{word}"]))
        assert row["unreadable"] == "false"


def test_a_stream_says_why_a_stage_was_refused(two_tasks, tmp_path):
    out = tmp_path / "out"
    first, second = two_tasks[1].split(",")
    adjudge("train", "sft", "--task", first, *two_tasks[2:], "sft.batch_size=2", "--out", out / "single/one/seed-0")
    refused = adjudge("continual", "--tasks", f"{first},{second}", *two_tasks[2:], "--out", out, code=2)
    error = " ".join(refused.stderr.split()).rpartition("error: ")[2]
    assert "single/one/seed-0" in error and "sft.batch_size" in error and "exit code" not in error
    assert not (out / "matrix.json").exists()
