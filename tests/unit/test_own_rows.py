"""Labelled rows of a Python program: trained on, compared, judged, and found again in the run."""

from __future__ import annotations

import shutil
from contextlib import nullcontext

import datasets
import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from fake_method import reviews

import adjudge
from adjudge.errors import ConfigError, DataError, RunError, TaskError
from adjudge.experiments.execute import execute
from adjudge.experiments.own_rows import own_task
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.runs.folder import read_json
from adjudge.system.files import sha256_of, write_json
from adjudge.tasks import load_split

TEXTS = [f"{'good' if number % 2 else 'bad'} film number {number}" for number in range(24)]
ANSWERS = ["pos" if number % 2 else "neg" for number in range(24)]
COLUMNS = {"review": TEXTS, "sentiment": ANSWERS, "meta": [[1]] * 24}
QUICK = {"evaluation__resamples": 100}


def polars_frame(columns):
    return pytest.importorskip("polars").DataFrame(columns)


FRAMES = {
    "pandas": pandas.DataFrame,
    "polars": polars_frame,
    "arrow": pyarrow.table,
    "datasets": datasets.Dataset.from_dict,
    "list of mappings": lambda columns: [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ],
    "generator": lambda columns: (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)),
    "splits": lambda columns: datasets.DatasetDict(train=datasets.Dataset.from_dict(columns)),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows_of(data, *, split="train", **options):
    """Return fields and answers of the task of these rows, in order, and the task."""
    options = {"text": "review", "label": "sentiment"} | options
    with own_task(data, **options) as spec:
        return [(*row.fields.values(), row.gold) for row in load_split(spec, split)], spec


def frame(**changes):
    return pandas.DataFrame({**COLUMNS, **changes})


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_rows_of_every_kind_make_the_same_task(make, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"review": TEXTS, "sentiment": ANSWERS}), tmp_path / "file.parquet")
    expected, file_task = rows_of(tmp_path / "file.parquet")
    rows, spec = rows_of(make(COLUMNS))
    assert rows == expected and len(rows) > 12
    assert (spec.words, spec.template) == (file_task.words, file_task.template)
    assert spec.name == rows_of(pandas.DataFrame(COLUMNS))[1].name, "equal rows have one name"
    assert spec.name != rows_of(pandas.DataFrame(COLUMNS)[:20])[1].name


PAIRS = {
    "lists": (TEXTS, ANSWERS),
    "arrays": (numpy.array(TEXTS), numpy.array(ANSWERS, dtype=object)),
    "one column": (numpy.array(TEXTS).reshape(-1, 1), ANSWERS),
    "columns": (pandas.Series(TEXTS, index=range(50, 74)), pandas.Series(ANSWERS)),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_pair_of_texts_and_answers(pair):
    rows, spec = rows_of(pair, text=None, label=None)
    assert set(rows) <= set(zip(TEXTS, ANSWERS, strict=True)) and len(rows) > 12
    assert (dict(spec.fields), spec.label) == ({"text": "text"}, "label")
    assert rows_of(pair, text="review", label="sentiment")[1].fields == {"review": "review"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: list(zip(TEXTS, reversed(TEXTS), strict=True)),
        lambda: numpy.array([TEXTS, TEXTS[::-1]]).T,
        lambda: [{"text1": one, "text2": two} for one, two in zip(TEXTS, reversed(TEXTS), strict=True)],
        lambda: pandas.DataFrame({"text1": TEXTS, "text2": TEXTS[::-1]}),
    ],
)
def test_a_pair_with_several_texts_in_a_row(make):
    rows, spec = rows_of((make(), ANSWERS), text=None, label=None)
    assert dict(spec.fields) == {"text1": "text1", "text2": "text2"}
    assert set(rows) <= set(zip(TEXTS, reversed(TEXTS), ANSWERS, strict=True))


def test_numbers_are_judged_as_numbers():
    _, spec = rows_of((TEXTS, numpy.linspace(0, 5, 24)), text=None, label=None)
    assert spec.number is not None and (spec.number.low, spec.number.high) == (0, 5)
    _, spec = rows_of((TEXTS, [number % 2 for number in range(24)]), text=None, label=None)
    assert spec.words == ("0", "1")


def classed(count=24, **columns):
    features = datasets.Features(
        {"review": datasets.Value("string"), "stars": datasets.ClassLabel(names=["worse", "better"])}
    )
    given = {"review": TEXTS[:count], "stars": [number % 2 for number in range(count)]} | columns
    return datasets.Dataset.from_dict(given, features=features)


def test_classes_have_the_names_and_the_order_of_the_data_set():
    rows, spec = rows_of(classed(), label="stars")
    assert spec.labels == {"0": "worse", "1": "better"}
    assert dict(row for row in rows)["good film number 1"] == "better"


@pytest.mark.parametrize("as_list", [datasets.List, lambda feature: [feature]])
def test_lists_of_classes_are_sets_of_labels(as_list):
    names = datasets.ClassLabel(names=["joy", "anger", "love"])
    features = datasets.Features({"review": datasets.Value("string"), "moods": as_list(names)})
    moods = [[0, 2], [1], [], [2, 1]] * 6
    given = datasets.Dataset.from_dict({"review": TEXTS[:24], "moods": moods}, features=features)
    rows, spec = rows_of(given, label="moods", kind="several")
    assert spec.names == ("joy", "anger", "love")
    assert {gold for _, gold in rows} <= {"joy, love", "anger", "none", "anger, love"} and len(set(rows)) > 4


def test_the_splits_of_a_data_set():
    other = classed(4, review=["a good one", "a bad one", "c", "d"])
    splits = datasets.DatasetDict(train=classed(), validation=other, test=classed(2, review=["t1", "t2"]))
    for split, texts in (("dev", other["review"]), ("test", ["t1", "t2"]), ("train", TEXTS)):
        assert [row[0] for row in rows_of(splits, label="stars", split=split)[0]] == list(texts)
    without = datasets.DatasetDict(train=classed(), test=other)
    assert [row[0] for row in rows_of(without, label="stars", split="dev")[0]] == list(other["review"])
    with pytest.raises(DataError, match=r"has no split 'test'\. There is: train, dev"):
        rows_of(without, label="stars", split="test")
    with pytest.raises(DataError, match="needs 'train'; it has test"):
        rows_of({"test": other}, label="stars")


def test_rows_to_judge_of_their_own():
    rows, _ = rows_of(frame(), dev=frame()[:4], split="dev")
    assert [row[0] for row in rows] == TEXTS[:4]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (frame(), {"text": None}, r"rows: say which column holds the text to judge: text='NAME'\. There is: review,"),
        (frame(), {"label": None}, r"rows: say which column holds the right answer: label='NAME'"),
        (frame(), {"text": "reviews"}, r"rows: there is no column 'reviews'\. Did you mean 'review'\?"),
        (frame(), {"text": "meta"}, r"rows:1: field 'meta' is a list, not text"),
        (frame(sentiment=[None, *ANSWERS[1:]]), {}, r"rows:1: the label column 'sentiment' is empty"),
        (frame(review=[*TEXTS[:5], pandas.NA, *TEXTS[6:]]), {}, r"rows:6: field 'review' is empty"),
        (frame(sentiment=["pos"] * 24), {}, r"^rows: .*"),
        (frame(), {"dev": frame(review=[None, *TEXTS[1:]])}, r"rows of dev:1: field 'review' is empty"),
        (frame(), {"dev": "dev.csv"}, r"dev is a file, so data is a file too"),
        (frame()[:0], {}, r"rows: .*no rows"),
        ([], {}, r"rows: there are no rows"),
        (TEXTS, {}, r"rows:1: a labelled row is a mapping of columns, not a str.*\(texts, labels\)"),
        ("missing.csv", {"text": None}, r"missing\.csv: name its columns"),
        ((TEXTS, ANSWERS[:-1]), {}, r"rows: X has 24 rows and y has 23"),
        ((TEXTS, "pos"), {}, r"rows: y is one label or number for each text, not a str"),
        (([["a", "b"], ["c"]], ["x", "y"]), {"text": None}, r"rows:2: the row has 1 texts where 2 are expected"),
        ((TEXTS, ANSWERS), {"text": ["a", "b"]}, r"rows: X has one text in a row, and text names 2 columns"),
        ((frame(), ANSWERS), {"label": "review"}, r"'review' is a column of X and the name of y"),
        ([{"review": "a", "sentiment": "b"}, "c"], {}, r"rows:2: a row is a mapping of columns, not a str"),
        ({"review": TEXTS}, {}, r"A mapping of splits needs 'train'; it has review"),
        ([{"review": text} for text in TEXTS], {}, r"rows: there is no column 'sentiment'"),
        (([{"review": "\ud800"}, {"review": "b"}], ["x", "y"]), {}, r"rows: a text cannot be written as UTF-8"),
    ],
)
def test_rows_that_make_no_task_are_refused(data, options, message):
    with pytest.raises(DataError, match=message) as caught:
        rows_of(data, **options)
    assert "/adjudge-" not in str(caught.value), "a temporary file means nothing to the reader"


def test_a_key_that_a_mapping_lacks_is_an_empty_cell():
    rows = [{"review": text, "sentiment": answer} for text, answer in zip(TEXTS, ANSWERS, strict=True)]
    del rows[2]["review"]
    with pytest.raises(DataError, match=r"rows:3: field 'review' is empty"):
        rows_of(rows)
    with own_task(rows, text="review", label="sentiment", bad_rows="drop") as spec:
        read = [*load_split(spec, "train", bad_rows="drop"), *load_split(spec, "dev", bad_rows="drop")]
    assert {row.fields["review"] for row in read} == {*TEXTS} - {TEXTS[2]}


@pytest.fixture
def run():
    return adjudge.train("tfidf", data=frame(), text="review", label="sentiment", **QUICK)


def test_the_rows_lie_in_the_run_whose_name_they_make(run, tmp_path):
    (kept,) = run.folder.glob("rows-*.parquet")
    assert run.folder.resolve() == tmp_path / "runs" / kept.stem / "tfidf-seed0"
    table = pyarrow.parquet.read_table(kept).to_pydict()
    assert table == {"review": TEXTS, "sentiment": ANSWERS}, "only the columns of the task"
    files = read_json(run.folder / "environment.json")["data"]["tasks"][kept.stem]["files"]
    assert files == {str(kept.resolve()): sha256_of(kept)}
    other = adjudge.train("linear", data=frame(), text="review", label="sentiment", **QUICK)
    assert other.folder == run.folder.with_name("linear-seed0")
    with pytest.raises(RunError, match="already holds this run, complete"):
        adjudge.train("tfidf", data=frame(), text="review", label="sentiment", **QUICK)
    with pytest.raises(RunError, match="already holds this run, complete"):
        adjudge.train("tfidf", data=kept, text="review", label="sentiment", **QUICK)


def test_a_stopped_run_goes_on_with_its_rows_and_refuses_others(run):
    options = {"text": "review", "label": "sentiment", "out": run.folder, **QUICK}
    before = (run.folder / "predictions" / "dev.jsonl").read_text()
    (run.folder / "scores.json").unlink()
    write_json(run.folder / "status.json", {"state": "interrupted", "reason": "test"})
    with pytest.raises(RunError, match="holds a run of another configuration"):
        adjudge.train("tfidf", data=frame()[:20], resume=True, **options)
    assert len(list(run.folder.glob("rows-*.parquet"))) == 1
    again = adjudge.train("tfidf", data=frame(), resume=True, **options)
    assert again.scores["n"] > 0 and (run.folder / "predictions" / "dev.jsonl").read_text() == before


def test_a_replaced_run_keeps_only_its_own_rows(run):
    options = {"text": "review", "label": "sentiment", "out": run.folder, **QUICK}
    again = adjudge.train("tfidf", data=frame()[:20], force=True, **options)
    (kept,) = again.folder.glob("rows-*.parquet")
    assert again.task.name == kept.stem
    assert adjudge.train("tfidf", data=kept, force=True, **options).task.name == kept.stem


def test_a_run_that_was_moved_or_changed_still_finds_its_rows(run, tmp_path):
    expected = run.scores
    shutil.move(run.folder, tmp_path / "moved")
    moved = adjudge.open_run(tmp_path / "moved")
    assert moved.evaluate()["metrics"] == expected["metrics"]
    repeated = rerun(tmp_path / "moved")
    assert all(part.equal for part in compare_runs(tmp_path / "moved", repeated))
    assert list(repeated.glob("rows-*.parquet")), "a repetition is complete in itself"


def test_rows_are_judged_with_a_finished_run(run):
    scores = run.evaluate(data=frame()[:10])
    assert scores["n"] == 10 and scores["overlap"] > 0
    assert scores["file"].startswith(str((run.folder / "evaluations").resolve()))
    assert run.evaluate(data=(TEXTS[:6], ANSWERS[:6]))["n"] == 6
    renamed = frame().rename(columns={"review": "x", "sentiment": "y"})
    assert run.evaluate(data=renamed, text="x", label="y")["n"] == 24
    with pytest.raises(DataError, match=r"rows: there is no column 'review'"):
        run.evaluate(data=renamed)
    with pytest.raises(DataError, match="give the one to judge"):
        run.evaluate(data={"train": frame()})


def test_a_comparison_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.experiments.compare.CellProcesses", lambda: nullcontext(execute))
    options = {"data": frame(), "text": "review", "label": "sentiment", "methods": ["tfidf"], **QUICK}
    comparison = adjudge.compare(**options, folds=2)
    assert [row["method"] for row in comparison.table["rows"]] == ["tfidf"]
    assert comparison.folder.name == f"compare-{comparison.best().task.name}"
    assert comparison.best().predict(["good film"])[0].value == "pos"
    for task in comparison.folder.rglob("task.yaml"):
        assert str(tmp_path) in task.read_text() and "/adjudge-" not in task.read_text()
    table = comparison.table
    assert adjudge.compare(**options, folds=2).table["rows"] == table["rows"], "finished runs are reused"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "vader/movies", "data": frame()}, "task and data both say which rows"),
        ({}, "Name a task, or give rows of your own"),
        ({"task": "vader/movies", "label": "x"}, "label describes rows of your own"),
        ({"data": frame(), "text": "review", "label": "sentiment", "kind": "word"}, "--kind is 'word'"),
    ],
)
def test_rows_are_named_once(options, message):
    with pytest.raises(ConfigError, match=message):
        adjudge.train("tfidf", **options)


def test_the_rows_of_a_task_are_read_by_its_name_or_file(tmp_path):
    from adjudge.tasks.catalogue import spec_to_yaml

    spec = reviews(tmp_path)
    (tmp_path / "task.yaml").write_text(spec_to_yaml(spec))
    rows = adjudge.load_split(spec)
    assert rows and rows == adjudge.load_split(tmp_path / "task.yaml", "train") == adjudge.load_split(spec, "train")
    with pytest.raises(TaskError, match="nothing"):
        adjudge.load_split("nothing")
