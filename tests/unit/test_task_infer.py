"""Making a task from a table and the names of its columns."""

import pytest
from jinja2.sandbox import SandboxedEnvironment

from adjudge.errors import DataError, TaskError
from adjudge.tasks import infer_task, load_split, load_task, spec_to_yaml


def table(folder, labels, name="reviews.csv", header="review,sentiment"):
    path = folder / name
    path.write_text(
        "\n".join([header, *(f"text {n},{label}" for n, label in enumerate(labels))]) + "\n", encoding="utf-8"
    )
    return path


def test_labels_are_inferred_in_alphabetical_order(tmp_path):
    spec = infer_task(str(table(tmp_path, ["pos", "neg", "pos"])), ["review"], "sentiment")
    assert spec.name == "reviews"
    assert spec.labels == {"neg": "neg", "pos": "pos"}
    assert spec.metrics == ("accuracy", "macro_f1")
    assert spec.instruction == 'Judge the sentiment of the review below. Answer "neg" or "pos".'
    assert SandboxedEnvironment().from_string(spec.template).render(review="Fine.") == "Review: Fine."
    rows = load_split(spec, "train") + load_split(spec, "dev")
    assert sorted((e.id, e.gold) for e in rows) == [
        ("reviews.csv:2", "pos"),
        ("reviews.csv:3", "neg"),
        ("reviews.csv:4", "pos"),
    ]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["1", "0"], {"0": "0", "1": "1"}),
        (["10", "9", "-1"], {"-1": "-1", "9": "9", "10": "10"}),
        (["not_entailment", "entailment"], {"entailment": "entailment", "not_entailment": "not entailment"}),
        (["True", "False"], {"False": "False", "True": "True"}),
        (["b", "A", "c"], {"A": "A", "b": "b", "c": "c"}),
        (["no", "Yes"], {"no": "no", "Yes": "Yes"}),
        (["007", "7"], {"007": "007", "7": "7"}),
    ],
)
def test_order_and_words_of_inferred_labels(tmp_path, cells, labels):
    spec = infer_task(table(tmp_path, cells * 2), ["review"], "sentiment")
    assert list(spec.labels.items()) == list(labels.items())


@pytest.mark.parametrize("labels", [["pos", "neg=Bad"], {"pos": "pos", "neg": "Bad"}])
def test_given_labels_fix_order_and_words(tmp_path, labels):
    spec = infer_task(table(tmp_path, ["neg", "pos", "neg"]), ["review"], "sentiment", labels)
    assert list(spec.labels.items()) == [("pos", "pos"), ("neg", "Bad")]


def test_a_label_with_an_equals_sign_in_it(tmp_path):
    path = table(tmp_path, ["a=b", "c", "a=b"])
    assert infer_task(path, ["review"], "sentiment", ["c", "a=b"]).labels == {"c": "c", "a=b": "a=b"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["pos"], r"reviews\.csv:2: 'neg' in column 'sentiment' is not among --labels \(pos\)"),
        (["pos", "neg", "netral"], r"--labels names 'netral', which is not in column 'sentiment'"),
        (["pos", "nge"], r"'nge'.*Did you mean 'neg'"),
        (["pos", "neg", "pos=Good"], r"names 'pos' twice"),
    ],
)
def test_wrong_labels(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        infer_task(table(tmp_path, ["neg", "pos"]), ["review"], "sentiment", labels)


@pytest.mark.parametrize("labels", [["neg=Same", "pos=same."], ["neg=", "pos"], ["neg=<b>", "pos"]])
def test_ambiguous_answer_words_are_refused(tmp_path, labels):
    with pytest.raises(TaskError, match=r"--labels raw=Word.*\n.*labels\."):
        infer_task(table(tmp_path, ["neg", "pos"]), ["review"], "sentiment", labels)


@pytest.mark.parametrize(
    ("cells", "answer"),
    [
        ([f"{n / 4}" for n in range(21)], (0.0, 5.0, 1)),
        ([f"{n}" for n in range(0, 110, 10)], (0.0, 100.0, 0)),
        ([f"{n / 100:.2f}" for n in range(1, 97)], (0.01, 0.96, 2)),
        ([f"{-3.875 + n / 7}" for n in range(50)], (-3.9, 3.2, 1)),
        ([f"{n}e3" for n in range(11)], (0.0, 10_000.0, 0)),
        (["0.7", "0.1", *(f"0.{n}5" for n in range(1, 10))], (0.1, 0.95, 2)),
    ],
)
def test_many_numbers_make_a_number_task(tmp_path, cells, answer):
    spec = infer_task(table(tmp_path, cells), ["review"], "sentiment")
    assert spec.labels is None
    assert (spec.number.low, spec.number.high, spec.number.decimals) == answer
    assert spec.metrics == ("pearson", "spearman", "mae")
    assert {e.gold for split in ("train", "dev") for e in load_split(spec, split)} == {float(raw) for raw in cells}
    form = {0: "whole number", 1: "one decimal", 2: "2 decimals"}[answer[2]]
    assert form in spec.instruction


def test_few_numbers_are_labels_and_listed_labels_win(tmp_path):
    stars = [str(n) for n in range(1, 11)]
    assert not infer_task(table(tmp_path, stars * 2), ["review"], "sentiment").is_number
    more = [str(n) for n in range(12)]
    assert infer_task(table(tmp_path, more), ["review"], "sentiment").is_number
    assert infer_task(table(tmp_path, more), ["review"], "sentiment", more).words == tuple(more)


def test_non_numeric_cell_in_a_number_column(tmp_path):
    with pytest.raises(
        DataError, match=r"reviews\.csv:22: 'n/a' in column 'sentiment' is not a number, but the others are"
    ):
        infer_task(table(tmp_path, [*(str(n) for n in range(20)), "n/a"]), ["review"], "sentiment")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["same", "same"], "every row has 'same'"),
        ([f"title {n}" for n in range(20)], "20 different values in 20 rows, so it does not seem to hold labels"),
        (["pos", " ", "neg"], r"reviews\.csv:3: the label column 'sentiment' is empty"),
    ],
)
def test_columns_without_usable_labels(tmp_path, cells, message):
    with pytest.raises(DataError, match=message):
        infer_task(table(tmp_path, cells), ["review"], "sentiment")


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        (["reviw"], "sentiment", "no column 'reviw'. Did you mean 'review'"),
        (["review"], "sentimant", "no column 'sentimant'. Did you mean 'sentiment'"),
        (["review", "review"], "sentiment", "'review' is named twice"),
        (["sentiment"], "sentiment", "cannot be both"),
        ([], "sentiment", "at least one column"),
    ],
)
def test_wrong_columns(tmp_path, text, label, message):
    with pytest.raises(DataError, match=message):
        infer_task(table(tmp_path, ["a", "b"]), text, label)


def test_empty_text_is_reported(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("review,sentiment\nfine,pos\n,neg\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv:3: field 'review' is empty"):
        infer_task(path, ["review"], "sentiment")


def test_labels_of_dev_are_included_and_paths_are_absolute(tmp_path, monkeypatch):
    table(tmp_path, ["a", "b"])
    table(tmp_path, ["c"], name="more.csv")
    monkeypatch.chdir(tmp_path)
    spec = infer_task("reviews.csv", ["review"], "sentiment", dev="more.csv")
    assert spec.words == ("a", "b", "c")
    saved = tmp_path / "run" / "task.yaml"
    saved.parent.mkdir()
    saved.write_text(spec_to_yaml(spec), encoding="utf-8")
    monkeypatch.chdir("/")
    assert load_task(saved) == spec
    assert [e.gold for e in load_split(load_task(saved), "dev")] == ["c"]


@pytest.mark.parametrize(
    "column", ["in", "self", "2nd text", "{{ evil }}", "Überschrift", "日本", "a b", "a_b", "{% raw"]
)
def test_odd_column_names(tmp_path, column):
    path = table(tmp_path, ["x", "y", "x"], header=f"{column},sentiment")
    spec = infer_task(path, [column], "sentiment")
    field = next(iter(spec.fields))
    assert field.isidentifier() and field.isascii()
    assert SandboxedEnvironment().from_string(spec.template).render({field: "TEXT"}).endswith(": TEXT")
    assert "{" not in spec.instruction


def test_similar_column_names_get_different_fields(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a b,a_b,l\none,two,x\nthree,four,y\n", encoding="utf-8")
    spec = infer_task(path, ["a b", "a_b"], "l")
    assert list(spec.fields.values()) == ["a b", "a_b"]
    assert len(spec.fields) == 2


def test_an_instruction_in_the_users_words(tmp_path, capsys):
    path = tmp_path / "stays.csv"
    path.write_text("text,stars\nfine,1\nbad,0\n", encoding="utf-8")
    asked = 'Would the guest come again? Answer "Yes" or "No".'
    spec = infer_task(path, ["text"], "stars", {"0": "No", "1": "Yes"}, instruction=asked)
    assert spec.instruction == asked and not capsys.readouterr().err
    infer_task(path, ["text"], "stars", {"0": "No", "1": "Yes"}, instruction="Would the guest come again? Yes?")
    assert "the instruction does not name No: the untrained model cannot know" in " ".join(
        capsys.readouterr().err.split()
    )
