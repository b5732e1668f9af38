"""Tables in a terminal of 80 columns: every word and number whole, whatever the names and however many columns."""

import re

import pytest
from rich.console import Console
from test_report_tables import MIXED, figures, row

from adjudge.report.terminal import results_table, text_table

LONG = "a-task-with-a-name-that-is-really-rather-long"


def drawn(table, width=80):
    console = Console(width=width)
    with console.capture() as shown:
        console.print(table)
    text = shown.get()
    assert max(map(len, text.splitlines())) <= width
    return text


def words(text):
    return set(re.findall(r"[^\s\[\](),;─]+", text))


def results(tasks=("glue/sst2",), methods=("zero-shot", "sft"), names=("accuracy",)):
    return {
        "rows": [
            row(method, 0.5, task=task, metrics=figures(**{name: 0.5 + n / 100 for n, name in enumerate(names)}))
            for task in tasks
            for method in methods
        ]
    }


@pytest.mark.parametrize(
    "table",
    [
        MIXED,
        results(methods=[f"method-{n}" for n in range(20)]),
        results(names=("accuracy", "macro_f1", "matthews", "mean_absolute_error", "quadratic_kappa")),
        results(tasks=(LONG, "customer-satisfaction-survey"), methods=("zero-shot", "multi-reinforce (another-run)")),
    ],
)
@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_word_of_the_results_is_broken(table, width):
    assert words(drawn(results_table(table), 400)) - {"task"} <= words(drawn(results_table(table), width))


def test_a_table_that_fits_is_one_table():
    text = drawn(results_table(results()))
    assert text.count("method") == 1
    assert "0.500 [0.400, 0.600]" in text


def test_each_task_gets_a_table_of_its_own_when_one_is_too_wide():
    text = drawn(results_table(results(tasks=(LONG, "other"), names=("accuracy", "macro_f1"))))
    assert re.findall(r"^(\S+)\nmethod|^(\S+)\n +train", text, re.MULTILINE)
    assert text.count("unreadable") == 2


def test_a_best_value_stays_bold_in_every_layout():
    table = results(tasks=(LONG, "other"), names=("accuracy", "macro_f1"))
    table["rows"][1]["metrics"]["accuracy"]["value"] = 0.9
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(results_table(table))
    assert "0.900" in re.findall(r"\x1b\[1m *(0\.\d+)", shown.get())


@pytest.mark.parametrize("width", [60, 80])
def test_many_columns_become_several_tables_with_the_first_column_repeated(width):
    head = ["label", "rows", *[f"multi-reinforce-{n}" for n in range(8)]]
    lines = [["very dissatisfied", "1,234", *["0.812 (0.750, 0.889)"] * 8], ["neutral", "5", *["–"] * 8]]
    text = drawn(text_table(head, lines), width)
    assert words(" ".join([*head, *lines[0], *lines[1]])) <= words(text)
    assert text.count("very dissatisfied") == text.count("label") > 1


def test_a_name_wider_than_the_terminal_is_cut_with_an_ellipsis():
    text = drawn(text_table(["label", "rows"], [["x" * 100, "12"]]), 40)
    assert "…" in text and "12" in text
