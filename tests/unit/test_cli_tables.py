"""The command line on tables as people have them: the options, and what a run keeps of them."""

import csv
import json

import pytest
from fake_method import by_first_word, install
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.cli.options import split_list
from adjudge.errors import ConfigError
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_task

QUICK = "evaluation.resamples=100"


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    install(monkeypatch, "sft", by_first_word)
    monkeypatch.chdir(tmp_path)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


def refused(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return " ".join(result.stderr.split())


def table(path, separator=",", encoding="utf-8", header=("text", "label"), extra=()):
    rows = [(f"{('good', 'bad')[n % 2]} café number {n}", ("good", "bad")[n % 2]) for n in range(20)]
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows, *extra])
    return path.name


def test_separator_and_encoding_are_kept_in_the_run(tmp_path):
    own = ["--data", table(tmp_path / "a.csv", "^", "cp1252"), "--text", "text", "--label", "label"]
    form = ["--separator", "^", "--encoding", "cp1252"]
    done("train", "sft", *own, *form, "--out", "run", QUICK)
    source = read_task(tmp_path / "run").source.table
    assert (source.separator, source.encoding) == ("^", "cp1252")
    assert "is complete; there is nothing to resume" in done(
        "train", "sft", *own, *form, "--out", "run", "--resume", QUICK
    )
    assert invoke("rerun", "run").exit_code == 0
    assert "not valid UTF-8" in refused("train", "sft", *own, "--separator", "^", "--out", "other", QUICK)


def test_predict_has_a_separator_and_an_encoding_of_its_own(tmp_path):
    own = ["--data", table(tmp_path / "a.csv"), "--text", "text", "--label", "label"]
    done("train", "sft", *own, "--out", "run", QUICK)
    table(tmp_path / "new.csv", ";", "latin-1", ("text", "note"))
    predict = ["predict", "--run", "run", "--input", "new.csv", "--out", "out.csv"]
    assert "--encoding cp1252" in refused(*predict)
    assert "new.csv is separated by semicolons" in done(*predict, "--encoding", "latin-1")
    done(*predict, "--encoding", "latin-1", "--separator", "semicolon", "--force")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file, delimiter=";"))[1]["label"] == "bad"
    assert "'semikolon' separates no columns" in refused(*predict, "--separator", "semikolon")
    assert "'utf-9' is no text encoding" in refused(*predict, "--encoding", "utf-9")
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv: is a folder" in refused("predict", "--run", "run", "--input", "folder.csv", "--out", "o.csv")


def test_a_finished_run_judges_files_of_other_forms(tmp_path):
    done(
        "train", "sft", "--data", table(tmp_path / "a.csv"), "--text", "text", "--label", "label", "--out", "run", QUICK
    )
    table(tmp_path / "new.csv", ";", "cp1252", extra=[("good", ""), ("", "bad")])
    judge = ["evaluate", "--run", "run", "--data", "new.csv", "--encoding", "cp1252", "--out", "judged"]
    assert "There are 2 bad rows in all" in refused(*judge)
    assert "2 bad rows are dropped" in done(*judge, "data.bad_rows=drop")
    scores = Run.open(tmp_path / "judged").scores()
    assert scores["n"] == 20 and scores["dropped_rows"] == {str(tmp_path / "new.csv"): 2}
    predict = ["predict", "--run", "run", "--input", "new.csv", "--encoding", "cp1252", "--out", "out.csv"]
    assert "new.csv:23: field 'text' is empty" in refused(*predict)
    assert "1 bad row is dropped" in done(*predict, "data.bad_rows=drop")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file, delimiter=";"))) == 22


def test_decimal_commas_in_a_file_to_judge(tmp_path, monkeypatch):
    install(monkeypatch, "sft", lambda example: 0.5)
    for name, mark in (("a.csv", "."), ("new.csv", ",")):
        rows = [f"text {n};{str(n / 2).replace('.', mark)}" for n in range(24)]
        (tmp_path / name).write_text("\n".join(["text;score", *rows]) + "\n")
    done("train", "sft", "--data", "a.csv", "--text", "text", "--label", "score", "--out", "run", QUICK)
    done("evaluate", "--run", "run", "--data", "new.csv", "--out", "judged")
    scores = Run.open(tmp_path / "judged").scores()
    assert scores["n"] == 24 and scores["metrics"]["mae"]["value"] == sum(abs(n / 2 - 0.5) for n in range(24)) / 24


def test_separator_without_a_table_is_refused(tmp_path):
    for option in ("--separator", "--encoding"):
        message = refused("train", "sft", "--task", "vader/movies", option, "x")
        assert f"{option} describes your own table: name the table with --data" in message
    assert "is a folder, and there is no table in it" in refused(
        "train", "sft", "--data", tmp_path, "--text", "text", "--label", "label"
    )


def test_a_table_without_named_columns_is_refused_with_its_columns(tmp_path):
    data = table(tmp_path / "a.csv", header=("review", "stars"))
    message = refused("train", "sft", "--data", data, "--text", "review")
    assert "--label COL" in message and "a.csv: review, stars." in message
    assert "there is no such file" in refused("train", "sft", "--data", tmp_path / "b.csv")


def test_commas_in_names_are_written_with_a_backslash(tmp_path):
    own = ["--data", table(tmp_path / "a.csv", header=("text, in full", "label"))]
    assert r"Write a comma in a name as '\,'" in refused(
        "train", "sft", *own, "--text", "text, in full", "--label", "label"
    )
    done("train", "sft", *own, "--text", r"text\, in full", "--label", "label", "--out", "run", QUICK)
    assert list(read_task(tmp_path / "run").fields.values()) == ["text, in full"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a,b", ["a", "b"]), (r"a\,b", ["a,b"]), (r" a\, b , c ", ["a, b", "c"]), (r"C:\x,y", [r"C:\x", "y"])],
)
def test_lists_are_split_at_plain_commas(text, parts):
    assert split_list(text, "--text") == parts


@pytest.mark.parametrize("text", ["", "a,,b", "a,", r",\,"])
def test_lists_with_an_empty_part(text):
    with pytest.raises(ConfigError, match="empty part"):
        split_list(text, "--text")


def test_a_label_with_a_comma(tmp_path):
    rows = [(f"{('good', 'bad')[n % 2]} {n}", ("good, really", "bad")[n % 2]) for n in range(20)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    own = ["--data", "a.csv", "--text", "text", "--label", "label", "--labels", r"bad,good\, really=good"]
    done("train", "sft", *own, "--out", "run", QUICK)
    assert read_task(tmp_path / "run").labels == {"bad": "bad", "good, really": "good"}


def test_nested_rows_from_training_to_prediction(tmp_path):
    rows = [{"data": {"text": f"{word} {n}"}, "by": [{"label": word}]} for n in range(10) for word in ("good", "bad")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done("train", "sft", "--data", "a.jsonl", "--text", "data.text", "--label", "by.0.label", "--out", "run", QUICK)
    done("predict", "--run", "run", "--input", "a.jsonl", "--out", "out.jsonl")
    judged = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in judged] == ["good", "bad"] * 10 and judged[0]["data"] == {"text": "good 0"}


def test_bad_rows_stop_a_run_or_are_dropped_and_counted(tmp_path):
    table(tmp_path / "train.csv", extra=[(" ", "good"), ("bad row",)])
    table(tmp_path / "dev.csv", extra=[("good text", ""), ("bad text", "other")])
    own = ["--data", "train.csv", "--dev", "dev.csv", "--text", "text", "--label", "label", "--labels", "good,bad"]
    message = refused("train", "sft", *own, "--out", "run", QUICK)
    assert "train.csv:22: field 'text' is empty" in message and "There are 2 bad rows in all (also: 23)" in message
    assert not (tmp_path / "run").exists()
    result = invoke("train", "sft", *own, "--out", "run", QUICK, "data.bad_rows=drop")
    assert result.exit_code == 0
    for place in ("train.csv:22: ", "train.csv:23: ", "dev.csv:22: ", "dev.csv:23: "):
        assert result.stderr.count(place) == 1
    scores = Run.open(tmp_path / "run").scores()
    assert scores["n"] == 20 and scores["dropped_rows"] == {str(tmp_path / "dev.csv"): 2}
    assert "2 bad rows of dev.csv dropped, so not judged" in " ".join(result.stdout.split())
    done("evaluate", "--run", "run", "--split", "train", "--out", "again")
    assert Run.open(tmp_path / "again").scores()["dropped_rows"] == {str(tmp_path / "train.csv"): 2}
