"""Slices: from a column of the rows to figures in scores.json, the table and the report."""

import json

import pytest
from fake_method import by_first_word, install
from specs import label_task
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import DataError
from adjudge.evaluation.slices import MOST, slice_scores
from adjudge.evaluation.statistics import metric_interval
from adjudge.experiments.execute import execute
from adjudge.report.markdown import comparison_markdown
from adjudge.runs.folder import Run
from adjudge.types import Prediction

TASK = label_task("No", "Yes", metrics=("accuracy",)).model_copy(update={"slices": ("topic",)})
QUICK = "evaluation.resamples=100"


@pytest.fixture(autouse=True)
def method(monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    install(monkeypatch, "zero-shot", lambda example: "good")


def judged(*lines):
    words = {"Y": "Yes", "N": "No", "-": None}
    return [
        Prediction(str(index), {}, words[gold], "", words[got], tags={"topic": topic}, group=group)
        for index, (gold, got, topic, group) in enumerate(lines)
    ]


def table(path, topics, rows=60):
    """Rows whose first word is the label, but of the last topic, where it never is."""
    lines = ["text,label,topic"]
    for number in range(rows):
        label, topic = ("good", "bad")[number % 2], topics[(number // 2) % len(topics)]
        said = {"good": "bad", "bad": "good"}[label] if topic == topics[-1] else label
        lines.append(f"{said} film {number},{label},{topic}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_are_scored_in_every_slice_they_name_and_the_rest_apart():
    rows = judged(
        ("Y", "Y", "sport", ""),
        ("N", "Y", "sport | film", ""),
        ("N", "N", "film|film|", ""),
        ("Y", "-", " ", ""),
    )
    scores = {item["slice"]: item for item in slice_scores(TASK, [rows], resamples=100)}
    assert list(scores) == ["film", "sport", None]
    assert [item["n"] for item in scores.values()] == [2, 2, 1]
    assert [item["metrics"]["accuracy"]["value"] for item in scores.values()] == [0.5, 0.5, 0.0]
    assert scores["film"]["metrics"]["accuracy"] == metric_interval(TASK, "accuracy", [rows[1:3]], 100, 0)
    assert scores["film"]["tag"] == "topic"


def test_rows_of_a_group_stay_together():
    rows = judged(("Y", "Y", "sport", "1"), ("N", "Y", "", "1"), ("N", "N", "film", "2"))
    scores = {item["slice"]: item["n"] for item in slice_scores(TASK, [rows], resamples=100)}
    assert scores == {"film": 1, "sport": 2}


def test_no_slices_no_figures_and_of_many_the_largest(capsys):
    rows = judged(("Y", "Y", "", ""), ("N", "N", "", ""))
    assert slice_scores(TASK, [rows], resamples=100) == []
    assert slice_scores(label_task("No", "Yes"), [rows], resamples=100) == []
    many = judged(*(("Y", "Y", f"id {n}|all", "") for n in range(MOST + 5)))
    scores = slice_scores(TASK, [many], resamples=100)
    assert len(scores) == MOST and scores[0] == {**scores[0], "slice": "all", "n": MOST + 5}
    assert f"'topic' has {MOST + 6} values" in " ".join(capsys.readouterr().err.split())


def test_a_comparison_shows_them_in_scores_table_and_report(tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.experiments.compare.CellProcesses", InProcess)
    own = ["--data", str(table(tmp_path / "r.csv", ["a|b", "<b>x|y"])), "--text", "text", "--label", "label"]
    out = tmp_path / "out"
    call = ["compare", *own, "--methods", "zero-shot,sft", "--out", str(out), QUICK, "data.slices=topic"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    scores = json.loads((out / "r" / "sft" / "seed-0" / "scores.json").read_text())
    figures = {item["slice"]: item["metrics"]["accuracy"]["value"] for item in scores["slices"]}
    assert figures == {"a": 1.0, "b": 1.0, "<b>x": 0.0, "y": 0.0}
    text = (out / "table.md").read_text()
    assert "topic: a " in text and "topic: \\<b>x" in text and "Slices were not tested" in text
    assert "topic: a" in result.output
    page = (out / "report.html").read_text()
    assert ">Slices<" in page and "topic: &lt;b&gt;x" in page and "topic: <b>" not in page
    saved = json.loads((out / "table.json").read_text())
    assert "(no value)" not in comparison_markdown(saved)
    assert {entry["slice"] for entry in saved["summary"][0]["slices"]} == set(figures)


def test_a_frame_keeps_the_column_and_a_program_reads_the_scores(tmp_path):
    rows = [
        {"text": f"{word} film {n}", "label": word, "where": ("web", None)[n % 3 == 0]}
        for n in range(30)
        for word in ("good", "bad")
    ]
    run = adjudge.train(
        "sft", data=rows, text="text", label="label", out=tmp_path / "run", data__slices="where",
        evaluation__resamples=100,
    )  # fmt: skip
    assert [item["slice"] for item in Run.open(run.folder).scores()["slices"]] == ["web", None]


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    path = table(tmp_path / "r.csv", ["a", "b"])
    call = ["train", "sft", "--data", str(path), "--text", "text", "--label", "label", "data.slices=topics"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 2
    assert "there is no column 'topics'. Did you mean 'topic'?" in " ".join(result.stderr.split())


def test_a_column_without_any_value_is_an_error(tmp_path):
    spec = adjudge.infer_task(table(tmp_path / "r.csv", [""]), ["text"], "label")
    spec = spec.model_copy(update={"slices": ("topic",), "tags": {"topic": "topic"}})
    with pytest.raises(DataError, match=r"has a value in the column 'topic' \(data.slices\)"):
        execute(load_config(overrides=["method=sft", QUICK]), spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class InProcess:
    """Runs cells in this process."""

    def __enter__(self):
        return execute

    def __exit__(self, *_):
        pass
