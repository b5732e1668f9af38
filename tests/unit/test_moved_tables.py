"""A user's table that was moved or deleted: where it is looked for, and what is said."""

import shutil

import pytest
from fake_method import by_first_word, install, reviews, write_reviews
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import DataError
from adjudge.experiments.evaluate import evaluate_run
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.runs.folder import read_json
from adjudge.system.files import sha256_of
from adjudge.tasks import load_split, load_task
from adjudge.tasks.reading.sources import split_files

TASK = """
name: mine
title: Mine
fields: {text: text}
instruction: Good or bad?
template: "{{ text }}"
labels: {good: good, bad: bad}
metrics: [accuracy]
source: {table: {train: rows/reviews.csv, dev: dev.csv}}
"""


@pytest.fixture
def task_file(tmp_path):
    """A task file with its two tables beside it."""
    (tmp_path / "tasks" / "rows").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(TASK)
    write_reviews(tmp_path / "tasks" / "rows" / "reviews.csv")
    write_reviews(tmp_path / "tasks" / "dev.csv", rows=8)
    return tmp_path / "tasks" / "mine.yaml"


def test_relative_tables_lie_beside_the_task_file_whatever_the_working_folder(task_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "dev.csv", rows=4)
    spec = load_task("tasks/mine.yaml")
    assert [len(load_split(spec, split)) for split in ("train", "dev")] == [40, 8]


def test_a_table_that_is_gone_is_found_by_name_in_the_data_folder(task_file, tmp_path, capsys):
    spec = load_task(task_file)
    shutil.move(task_file.parent / "rows" / "reviews.csv", tmp_path / "data" / "reviews.csv")
    assert len(load_split(spec, "train", tmp_path / "data")) == 40
    assert len(load_split(spec, "dev", tmp_path / "data")) == 8, "what is at its place is read there"
    assert split_files(spec, "train", tmp_path / "data") == [tmp_path / "data" / "reviews.csv"]
    said = capsys.readouterr().err
    assert f"{tmp_path / 'data' / 'reviews.csv'} is read in place of" in said
    assert said.count("read in place of") == 1


def test_every_place_that_was_looked_at_is_listed(task_file, tmp_path):
    spec = load_task(task_file)
    (task_file.parent / "dev.csv").unlink()
    with pytest.raises(DataError) as alone:
        load_split(spec, "dev")
    assert f"no file dev.csv. Looked at:\n  {(task_file.parent / 'dev.csv').resolve()}\n" in str(alone.value)
    assert "--data-dir" in str(alone.value)
    with pytest.raises(DataError) as both:
        load_split(spec, "dev", tmp_path / "data")
    assert f"\n  {tmp_path / 'data' / 'dev.csv'}\n" in str(both.value)
    assert split_files(spec, "dev") == []


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A complete run whose table was deleted, and a copy of the table in a folder."""
    install(monkeypatch, "sft", by_first_word)
    spec = reviews(tmp_path)
    execute(load_config(overrides=["method=sft", "evaluation.resamples=100"]), spec, tmp_path / "run")
    (tmp_path / "kept").mkdir()
    shutil.move(tmp_path / "reviews.csv", tmp_path / "kept" / "reviews.csv")
    return tmp_path / "run"


def test_repeating_a_run_names_the_file_that_is_gone_and_its_hash(finished, tmp_path):
    digest = sha256_of(tmp_path / "kept" / "reviews.csv")
    with pytest.raises(DataError) as gone:
        rerun(finished)
    for part in (str(tmp_path / "reviews.csv"), f"SHA-256 {digest}", "--data-dir"):
        assert part in str(gone.value)
    assert not (tmp_path / "run-rerun").exists()


def test_repeating_a_run_finds_its_file_by_name(finished, tmp_path, capsys):
    again = rerun(finished, data_dir=str(tmp_path / "kept"))
    assert all(part.equal for part in compare_runs(finished, again))
    files = read_json(again / "environment.json")["data"]["tasks"]["reviews"]["files"]
    assert list(files) == [str(tmp_path / "kept" / "reviews.csv")]
    assert "is not the run's file" not in capsys.readouterr().err


def test_another_file_of_that_name_is_reported(finished, tmp_path, capsys):
    write_reviews(tmp_path / "kept" / "reviews.csv", rows=44)
    rerun(finished, data_dir=str(tmp_path / "kept"))
    assert "reviews.csv is not the run's file: its SHA-256 was" in capsys.readouterr().err


def test_a_report_and_the_judge_need_no_table(finished, tmp_path):
    assert CliRunner().invoke(app, ["report", str(finished)]).exit_code == 0
    with pytest.raises(DataError, match=r"no file reviews\.csv"):
        evaluate_run(finished)
    assert evaluate_run(finished, data_dir=str(tmp_path / "kept"))[1]["n"] == 8
