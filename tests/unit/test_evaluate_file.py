"""A finished run judges every row of a file with its own task, from the command line and from Python."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from fake_method import by_first_word, install
from specs import label_task
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.experiments.evaluate import evaluate_run, evaluate_tasks
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run, read_json
from adjudge.runs.tasks import read_task
from adjudge.tasks import infer_task, load_split, on_file
from adjudge.tasks.spec import TaskSpec

LABELS = ("good", "bad", "mixed")


def write(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n")
    return path


def film_rows(count: int, labels: tuple[str, ...] = LABELS, start: int = 0) -> list[tuple[str, str]]:
    return [
        (f"{labels[number % len(labels)]} film number {number}", labels[number % len(labels)])
        for number in range(start, start + count)
    ]


def train(folder: Path, method: str, spec: TaskSpec, *overrides: str) -> Path:
    execute(load_config(overrides=[f"method={method}", "evaluation.resamples=100", *overrides]), spec, folder)
    return folder


@pytest.fixture
def task(tmp_path):
    return infer_task(write(tmp_path / "films.csv", film_rows(60)), ["text"], "label", instruction="Good, bad, mixed?")


@pytest.fixture
def run(task, tmp_path, monkeypatch):
    """A finished run that knows three labels; it was judged on 4 of its own rows."""
    install(monkeypatch, "sft", by_first_word)
    return train(tmp_path / "run", "sft", task, "data.eval_rows=4")


@pytest.fixture
def dev(tmp_path):
    """A file without a row of the third label."""
    (tmp_path / "more").mkdir()
    return write(tmp_path / "more/dev.csv", film_rows(20, LABELS[:2], 100))


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_row_is_judged_with_the_labels_and_the_prompt_of_the_run(run, dev, task):
    before = (run / "scores.json").read_bytes()
    folder, scores = evaluate_run(run, data=dev)
    judged = read_task(folder)
    assert (judged.name, judged.words, judged.instruction) == (task.name, ("bad", "good", "mixed"), task.instruction)
    assert (judged.template, judged.metrics) == (task.template, task.metrics)
    assert [row.id for row in Run.open(folder).predictions("dev")] == [f"dev.csv:{line}" for line in range(2, 22)]
    assert (scores["n"], scores["file"], scores["per_label"]["mixed"]["gold"]) == (20, str(dev.resolve()), 0)
    assert scores["metrics"]["accuracy"]["value"] == 1
    assert "trained_on" not in scores
    assert (run / "scores.json").read_bytes() == before
    recorded = read_json(folder / "environment.json")["data"]["tasks"][task.name]["files"]
    assert recorded[str(dev.resolve())] == hashlib.sha256(dev.read_bytes()).hexdigest()


@pytest.mark.parametrize("decode", ["greedy", "labels"])
def test_a_file_of_one_label_is_judged(decode, run, tmp_path):
    file = write(tmp_path / "bad.csv", film_rows(5, ("bad",), 200))
    _, scores = evaluate_run(run, data=file, decode=decode)
    assert (scores["n"], scores["metrics"]["accuracy"]["value"]) == (5, 1)


def test_an_unknown_label_is_an_error_with_its_line_and_writes_nothing(run, tmp_path):
    file = write(tmp_path / "new.csv", [*film_rows(3), ("a film", "unseen"), *film_rows(3, start=9)])
    with pytest.raises(DataError, match=r"new\.csv:5: 'unseen' in column 'label' is not a label of films"):
        evaluate_run(run, data=file)
    assert not (run / "evaluations").exists()


def test_columns_of_other_names_are_named(run, tmp_path):
    file = write(tmp_path / "new.csv", film_rows(6), "review,sentiment")
    with pytest.raises(DataError, match=r"no column 'text'.*--text and --label name the file's columns"):
        evaluate_run(run, data=file)
    folder, scores = evaluate_run(run, data=file, text=["review"], label="sentiment")
    assert scores["n"] == 6
    assert read_task(folder).fields == {"text": "review"}
    for text, label, message in [
        (["review", "sentiment"], "sentiment", r"judges 1 texts \(text\), and --text names 2"),
        (["sentiment"], "sentiment", "both the text to judge and its label"),
        (["revew"], "sentiment", "Did you mean 'review'"),
    ]:
        with pytest.raises(DataError, match=message):
            evaluate_run(run, data=file, text=text, label=label)


def test_two_files_of_one_name_have_two_folders(run, dev, tmp_path):
    other = write(tmp_path / "dev.csv", film_rows(3))
    folders = {evaluate_run(run, data=file)[0] for file in (dev, other)}
    assert len(folders) == 2
    assert {folder.name.startswith("films-dev-") for folder in folders} == {True}
    assert evaluate_run(run, data=dev, eval_rows=3)[1]["n"] == 3


def test_rows_that_were_trained_on_are_counted(run, dev, task, capfd):
    train_rows = len(load_split(task, "train"))
    _, scores = evaluate_run(run, data=task.source.table.train)
    assert (scores["n"], scores["overlap"]) == (60, train_rows)
    assert "among the training rows" in capfd.readouterr().err
    assert evaluate_run(run, data=dev)[1]["overlap"] == 0
    Path(task.source.table.train).unlink()
    assert evaluate_run(run, data=dev)[1]["overlap"] is None
    assert "its training rows are gone" in capfd.readouterr().err


def test_the_labels_of_a_file_may_be_the_answer_words(tmp_path):
    spec = label_task("Bad", "Good").model_copy(update={"labels": {"0": "Bad", "1": "Good"}})
    raw = on_file(spec, write(tmp_path / "raw.csv", [("a", "1"), ("b", "0")]))
    words = on_file(spec, write(tmp_path / "words.csv", [("a", "Good"), ("b", "Good")]))
    assert [row.gold for row in load_split(raw, "dev")] == ["Good", "Bad"]
    assert [row.gold for row in load_split(words, "dev")] == ["Good", "Good"]
    assert words.words == spec.words
    mixed = on_file(spec, write(tmp_path / "mixed.csv", [("a", "1"), ("b", "Good")]))
    with pytest.raises(DataError, match=r"mixed\.csv:3: 'Good' in column 'label' is not a label"):
        load_split(mixed, "dev")


def test_a_task_without_gold_answers_needs_the_name_of_a_column(tmp_path):
    spec = label_task("Bad", "Good").model_copy(update={"label": None})
    file = write(tmp_path / "gold.csv", [("a", "Good")])
    with pytest.raises(DataError, match="--label"):
        on_file(spec, file)
    assert load_split(on_file(spec, file, label="label"), "dev")[0].gold == "Good"


def test_a_number_run_judges_a_file(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: 2.0)
    rows = [(f"film {number}", str(number / 4)) for number in range(40)]
    run = train(tmp_path / "run", "sft", infer_task(write(tmp_path / "rated.csv", rows), ["text"], "label"))
    _, scores = evaluate_run(run, data=write(tmp_path / "new.csv", [("a", "1"), ("b", "3")]))
    assert (scores["n"], scores["metrics"]["mae"]["value"]) == (2, 1)
    with pytest.raises(DataError, match=r"far\.csv:2: 99 in column 'label' is outside the range"):
        evaluate_run(run, data=write(tmp_path / "far.csv", [("a", "99")]))


def test_the_floor_on_words_judges_a_file_that_lacks_a_label(task, dev, tmp_path):
    run = train(tmp_path / "run", "tfidf", task)
    folder, scores = evaluate_run(run, data=dev, decode="labels")
    assert (scores["n"], scores["metrics"]["accuracy"]["value"]) == (20, 1)
    assert set(Run.open(folder).predictions("dev")[0].probabilities) == set(LABELS)


def test_the_encoder_judges_a_file_that_lacks_a_label(task, dev, tiny_bert, tmp_path):
    fast = (f"encoder.model={tiny_bert}", "encoder.epochs=1", "encoder.min_steps=1", "runtime.device=cpu")
    run = train(tmp_path / "run", "encoder", task, *fast, "data.train_rows=6", "data.eval_rows=2")
    folder, scores = evaluate_run(run, data=dev, decode="labels")
    assert scores["n"] == 20
    assert list(scores["per_label"]) == ["bad", "good", "mixed"]
    assert set(Run.open(folder).predictions("dev")[0].probabilities) == set(LABELS)


def test_a_run_over_several_tasks_judges_a_file_with_one_of_them(tmp_path, monkeypatch, dev):
    install(monkeypatch, "sft", by_first_word)
    specs = [
        infer_task(write(tmp_path / f"{name}.csv", film_rows(40)), ["text"], "label") for name in ("books", "films")
    ]
    execute(load_config(overrides=["method=sft", "evaluation.resamples=100"]), specs, tmp_path / "run")
    with pytest.raises(RunError, match=r"which with --task\. There is: books, films"):
        evaluate_tasks(tmp_path / "run", data=dev)
    ((_, scores),) = evaluate_tasks(tmp_path / "run", spec=specs[1], data=dev)
    assert (scores["task"], scores["n"]) == ("films", 20)
    assert adjudge.open_run(tmp_path / "run").evaluate("books", data=dev)["task"] == "books"
    result = invoke("evaluate", "--run", tmp_path / "run", "--data", dev, "--task", "movies")
    assert result.exit_code == 2
    assert "was not trained on movies" in result.stderr


def test_the_command_says_which_file_was_judged(run, dev):
    result = invoke("evaluate", "--run", run, "--data", dev)
    assert result.exit_code == 0, result.output
    assert f"judged:     {dev.resolve()}, 20 rows" in result.stdout
    (report,) = run.glob("evaluations/films-dev-*/report.html")
    assert str(dev.resolve()) in report.read_text()
    named = invoke("evaluate", "--run", run, "--data", dev, "--text", "text", "--label", "label")
    assert named.exit_code == 0, named.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "good,bad"], "--labels was fixed when"),
        (["--instruction", "Good or bad?"], "--instruction was fixed when"),
        (["--dev", "more.csv"], "every row of --data is judged"),
        (["--split", "train"], "A file is judged whole"),
        (["--text", "text,label"], "--text names 2"),
    ],
)
def test_what_the_run_fixed_cannot_be_given_with_a_file(options, message, run, dev):
    result = invoke("evaluate", "--run", run, "--data", dev, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (run / "evaluations").exists()


def test_python_judges_a_file_like_the_command(run, dev, task, tmp_path, capfd):
    opened = adjudge.open_run(run)
    scores = opened.evaluate(data=dev, text="text", label="label")
    assert (scores["n"], scores["file"]) == (20, str(dev.resolve()))
    with pytest.raises(ConfigError, match="A file is judged whole"):
        opened.evaluate(task.model_copy(update={"name": "other"}), data=dev)
    rows = [{"text": "good film", "label": "good"}, {"text": "bad film", "label": "bad"}]
    assert opened.evaluate(data=rows, text="text", label="label")["n"] == 2
    capfd.readouterr()
    opened.evaluate(infer_task(dev, ["text"], "label"))
    message = " ".join(capfd.readouterr().err.split())
    assert "nothing can be judged mixed" in message and "data=FILE" in message


def test_settings_of_the_machine_may_differ_from_the_run(run):
    folder, _ = evaluate_run(run, settings={"runtime.dtype": "float32", "evaluation.resamples": 120})
    assert folder.parent == run / "evaluations"
    assert folder.name == "films-dev-greedy-4-resamples=120-dtype=float32"
    assert Run.open(folder).config.runtime.dtype == "float32"
    assert Run.open(run).config.runtime.dtype == "auto"
    result = invoke("evaluate", "--run", run, "--split", "train", "runtime.threads=1")
    assert result.exit_code == 0, result.output
    assert json.loads(next(run.glob("evaluations/*threads=1/scores.json")).read_text())["split"] == "train"
    adjudge.open_run(run).evaluate(split="train", evaluation__batch_size=3)
    assert next(run.glob("evaluations/films-train-*batch_size=3"))
