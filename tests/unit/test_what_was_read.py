"""The note of what was read from a user's table, and the warnings of labels without rows."""

import pytest
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import DataError
from adjudge.experiments import what_was_read
from adjudge.experiments.what_was_read import WIDTH, lines_of, report_own_table, warn_of_absent_labels
from adjudge.models.sources.token_counts import longest_in_tokens
from adjudge.tasks import infer_task, load_split, load_task, spec_to_yaml


@pytest.fixture(autouse=True)
def _each_test_warns_anew():
    what_was_read._warn_once.cache_clear()


def table(folder, rows, name="rows.csv"):
    path = folder / name
    path.write_text("".join(["text,label\n", *(f"{text},{label}\n" for text, label in rows)]), encoding="utf-8")
    return path


def lines(spec, **values):
    return lines_of(spec, load_split(spec, "train"), load_split(spec, "dev"), load_config(values=values))


def words(folder, rows, model="no/such-model", **options):
    return " ".join(" ".join(lines(infer_task(table(folder, rows), ["text"], "label", **options), model=model)).split())


def test_labels_rows_and_duplicates_are_counted(tmp_path):
    rows = [(f"text {number}", "ab"[number % 4 == 0]) for number in range(40)]
    assert words(tmp_path, [*rows, ("TEXT  1", "a"), ("text 4", "b")]) == (
        "rows: 2 labels (column label), rows in train + dev: a 25 + 6, b 9 + 2 "
        "text: text; 42 rows: 34 to train on, 8 kept apart for dev; 2 duplicates."
    )


def test_a_number_and_many_labels(tmp_path):
    rows = [(f"text {number}", number % 60) for number in range(120)]
    assert words(tmp_path, rows).startswith("rows: a number from 0 to 59 (column label) text:")
    assert words(tmp_path, rows, kind="labels").startswith("rows: 60 labels (column label), 2 rows each text:")
    assert "60 labels (column label), 2 to 3 rows each" in words(tmp_path, [*rows, ("more", 7)], kind="labels")


def test_a_dev_file_is_named_as_one(tmp_path):
    dev = table(tmp_path, [("new", "a"), ("newer", "b")], "dev.csv")
    text = words(tmp_path, [(f"text {number}", "ab"[number % 2]) for number in range(6)], dev=dev)
    assert "a 3 + 1, b 3 + 1" in text and "8 rows: 6 to train on, 2 in the dev file" in text


def test_the_longest_text_is_counted_in_tokens_of_the_model(tmp_path, tiny_llama):
    spec = infer_task(
        table(tmp_path, [(f"text {'word ' * number}", "ab"[number % 2]) for number in range(30)]), ["text"], "label"
    )
    rows = load_split(spec, "train") + load_split(spec, "dev")
    longest = longest_in_tokens(str(tiny_llama), [row.fields["text"] for row in rows])
    assert longest is not None and longest > 29
    text = " ".join(" ".join(lines(spec, model=str(tiny_llama))).split())
    assert f"the longest text has {longest} tokens of {tiny_llama}." in text
    cut = " ".join(" ".join(lines(spec, model=str(tiny_llama), **{"prompt.max_tokens": 16})).split())
    assert "cut to fit prompts of 16 (prompt.max_tokens)." in cut


def test_no_tokens_are_counted_without_the_tokenizer(tmp_path):
    assert longest_in_tokens("no/such-model", ["a"]) is None
    assert longest_in_tokens(str(tmp_path), ["a"]) is None
    (tmp_path / "tokenizer.json").write_text("{")
    assert longest_in_tokens(str(tmp_path), ["a"]) is None


def test_lines_fit_a_terminal(tmp_path):
    rows = [(f"text {number}", f"a rather long label {number % 9}") for number in range(90)]
    spec = infer_task(table(tmp_path, rows), ["text"], "label")
    assert all(len(line) <= WIDTH for line in lines(spec, model="no/such-model"))


def test_labels_without_rows_and_contradictions_are_warned_of(tmp_path, capsys):
    dev = table(tmp_path, [("new", "a"), ("newer", "c"), ("text 1", "c")], "dev.csv")
    path = table(tmp_path, [(f"text {number}", "ab"[number % 2]) for number in range(6)])
    report_own_table(infer_task(path, ["text"], "label", dev=dev), load_config())
    text = " ".join(capsys.readouterr().err.split())
    assert "'c' has no training row: nothing is learned of it. Add rows with such labels." in text
    assert "'b' has no row to judge: no figure speaks of it" in text
    assert "2 rows have the text of another row and a different answer" in text


def test_a_label_with_one_text_is_not_judged(tmp_path, capsys):
    path = table(tmp_path, [*((f"text {number}", "a") for number in range(9)), ("rare", "b")])
    report_own_table(infer_task(path, ["text"], "label"), load_config())
    assert "'b' has no row to judge" in capsys.readouterr().err


def test_a_draw_that_misses_a_label_names_the_option(tmp_path, capsys):
    path = table(tmp_path, [(f"text {number}", "ab"[number % 2]) for number in range(20)])
    spec = infer_task(path, ["text"], "label")
    rows = [row for row in load_split(spec, "train") if row.gold == "a"]
    data = load_config(values={"data.train_rows": len(rows)}).data
    warn_of_absent_labels(spec, rows, load_split(spec, "dev"), data)
    warn_of_absent_labels(spec, rows, load_split(spec, "dev"), data)
    assert capsys.readouterr().err.split(": ", 1)[1].split("\n") == [
        "rows: 'b' has no training row: nothing is learned of it. Raise --train-rows, or add rows with such labels.",
        "",
    ]
    warn_of_absent_labels(spec, None, load_split(spec, "dev"), data)
    assert not capsys.readouterr().err


def test_only_tables_of_the_user_are_reported(capsys):
    report_own_table(load_task("glue/sst2"), load_config())
    assert not capsys.readouterr().err


def test_validate_says_what_a_task_file_reads(tmp_path):
    path = table(tmp_path, [(f"text {number}", "ab"[number % 2]) for number in range(20)])
    (tmp_path / "mine.yaml").write_text(spec_to_yaml(infer_task(path, ["text"], "label")), encoding="utf-8")
    result = CliRunner().invoke(app, ["tasks", "validate", str(tmp_path / "mine.yaml")])
    assert result.exit_code == 0 and "a valid task" in result.output
    assert "a 8 + 2, b 8 + 2" in result.stderr
    table(tmp_path, [("one", "a"), ("two", "z")])
    result = CliRunner().invoke(app, ["tasks", "validate", str(tmp_path / "mine.yaml")])
    assert isinstance(result.exception, DataError | SystemExit) and "'z' in column 'label' is not a label" in str(
        result.stderr + str(result.exception)
    )
