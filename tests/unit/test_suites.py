"""Test the averages over GLUE and SuperGLUE: tasks, values, and names when a task is missing."""

import pytest

from adjudge.report.markdown import comparison_markdown
from adjudge.report.suites import suite_columns, suite_lines, suite_scores
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.scoring.suites import GLUE, SUITES

BERT = {
    "glue/cola": {"matthews": 0.605, "accuracy": 0.1},
    "glue/sst2": {"accuracy": 0.949, "macro_f1": 0.1},
    "glue/mrpc": {"f1": 0.893, "accuracy": 0.854},
    "glue/stsb": {"pearson": 0.876, "spearman": 0.865, "mae": 0.1},
    "glue/qqp": {"f1": 0.721, "accuracy": 0.893},
    "glue/mnli": {"accuracy": 0.867},
    "glue/mnli-mm": {"accuracy": 0.859},
    "glue/qnli": {"accuracy": 0.927},
    "glue/rte": {"accuracy": 0.701},
    "glue/wnli": {"accuracy": 0.651},
    "glue/ax": {"matthews": 0.396, "accuracy": 0.1},
}
"""BERT-large on GLUE's leaderboard, with a score of 80.5; unofficial metrics have wrong values on purpose."""

SUPER_BERT = {
    "superglue/boolq": {"accuracy": 0.774},
    "superglue/cb": {"accuracy": 0.836, "macro_f1": 0.757},
    "superglue/copa": {"accuracy": 0.706},
    "superglue/multirc": {"f1a": 0.700, "group_exact": 0.241},
    "superglue/record": {"record_f1": 0.720, "record_em": 0.713},
    "superglue/rte": {"accuracy": 0.717},
    "superglue/wic": {"accuracy": 0.696},
    "superglue/wsc": {"accuracy": 0.644},
    "superglue/axb": {"matthews": 0.230},
    "superglue/axg": {"gender_parity": 0.978, "accuracy": 0.517},
}
"""BERT-large in SuperGLUE's paper (arXiv 1905.00537, table 3), with an average of 69.0."""


def rows(figures, method="sft", seed=0):
    return [
        {
            "task": task,
            "method": method,
            "model": "small",
            "seed": seed,
            "split": "dev",
            "n": 100,
            "primary": next(iter(metrics)),
            "metrics": {name: {"value": value, "low": value, "high": value} for name, value in metrics.items()},
            "unreadable": 0,
        }
        for task, metrics in figures.items()
    ]


def without(figures, *tasks):
    return {task: metrics for task, metrics in figures.items() if task not in tasks}


def averages(table):
    return {(item.suite, item.method): item.averages for scored in suite_scores(table) for item in scored}


def test_averages_match_the_leaderboards():
    means = averages({"rows": [*rows(BERT), *rows(SUPER_BERT)]})
    whole, no_wnli = means["GLUE", "sft"]
    assert (whole.name, no_wnli.name) == ("GLUE average", "GLUE average without WNLI")
    assert round(100 * whole.value, 1) == 80.5
    assert no_wnli.value == pytest.approx((9 * whole.value - 0.651) / 8)
    (super_whole,) = means["SuperGLUE", "sft"]
    assert (super_whole.name, round(100 * super_whole.value, 1)) == ("SuperGLUE average", 69.0)


def test_score_of_a_task_is_the_mean_of_its_official_metrics():
    (scored,) = suite_scores({"rows": rows(BERT)})
    scores = scored[0].scores
    assert scores["MRPC"] == pytest.approx((0.893 + 0.854) / 2)
    assert scores["STS-B"] == pytest.approx((0.876 + 0.865) / 2)
    assert scores["MNLI"] == pytest.approx((0.867 + 0.859) / 2)
    assert scores["CoLA"] == 0.605
    assert "AX" not in scores


def test_suites_name_existing_tasks_and_metrics():
    for suite in SUITES:
        for member in suite.members:
            for task, metrics in member.parts.items():
                assert set(metrics) <= set(load_task(task).metrics), task
        assert set(suite.optional) <= {member.title for member in suite.members}
    parts = {part for member in GLUE.members for part in member.parts}
    assert {name for name in list_tasks() if name.startswith("glue/")} - parts == {"glue/ax"}


def test_mean_without_a_task_is_not_called_the_average():
    table = {"rows": rows(without(BERT, "glue/rte", "glue/mnli-mm"))}
    whole, no_wnli = averages(table)["GLUE", "sft"]
    assert whole.name == "mean of 7 of 9 GLUE tasks"
    assert no_wnli.name == "mean of 6 of 8 GLUE tasks without WNLI"
    assert whole.value == pytest.approx((0.605 + 0.949 + 0.8735 + 0.8705 + 0.807 + 0.927 + 0.651) / 7)
    (scored,) = suite_scores(table)
    assert scored[0].missing == ("glue/mnli-mm", "glue/rte")
    assert "sft: the mean is without glue/mnli-mm, glue/rte" in suite_lines(scored)
    text = comparison_markdown(table)
    assert "GLUE average" not in text
    assert "mean of the tasks that are there" in text and "(7 of 9)" in text


def test_average_without_wnli_is_complete_without_wnli():
    whole, no_wnli = averages({"rows": rows(without(BERT, "glue/wnli"))})["GLUE", "sft"]
    assert whole.name == "mean of 8 of 9 GLUE tasks"
    assert (no_wnli.name, no_wnli.complete) == ("GLUE average without WNLI", True)


def test_task_without_one_of_its_metrics_is_missing():
    partly = {**BERT, "glue/qqp": {"accuracy": 0.9}}
    (scored,) = suite_scores({"rows": rows(partly)})
    assert scored[0].scores["QQP"] is None
    assert scored[0].missing == ("glue/qqp (f1)",)


def test_unfinished_cells_are_missing_with_a_reason():
    table = {
        "rows": [*rows(BERT), *rows(without(BERT, "glue/rte", "glue/sst2"), "ppo")],
        "failed": [
            {"task": "glue/rte", "method": "ppo", "seed": 0, "reason": "out of memory"},
            {"task": "vader/movies", "method": "encoder", "seed": 0, "reason": "no"},
        ],
        "pending": [
            {"task": "glue/sst2", "method": "ppo", "seed": 0},
            {"task": "glue/rte", "method": "few-shot", "seed": 0},
        ],
    }
    (scored,) = suite_scores(table)
    assert [item.method for item in scored] == ["sft", "ppo", "few-shot"]
    assert scored[1].missing == ("glue/sst2 (not finished)", "glue/rte (failed)")
    assert scored[2].averages[0].value is None
    lines = suite_lines(scored)
    assert "ppo: the mean is without glue/sst2 (not finished), glue/rte (failed)" in lines
    assert "The methods' means are over different tasks and cannot be compared." in lines
    head, cells = suite_columns(scored)
    assert head == ["GLUE", "sft", "ppo", "few-shot"]
    assert cells[1] == ["SST-2", "0.949", "–", "–"]
    assert cells[-2] == ["mean of the tasks that are there", "0.805 (9 of 9)", "0.800 (7 of 9)", "–"]


def test_methods_on_the_same_tasks_get_no_warning():
    (scored,) = suite_scores({"rows": [*rows(BERT), *rows(BERT, "ppo")]})
    assert len(suite_lines(scored)) == 1
    assert suite_columns(scored)[1][-2:] == [
        ["GLUE average", "0.805", "0.805"],
        ["GLUE average without WNLI", "0.825", "0.825"],
    ]


def test_seeds_are_averaged_first():
    other = {task: {name: value - 0.2 for name, value in metrics.items()} for task, metrics in BERT.items()}
    whole, _ = averages({"rows": [*rows(BERT), *rows(other, seed=1)]})["GLUE", "sft"]
    assert whole.value == pytest.approx(0.8052 - 0.1, abs=1e-4)


@pytest.mark.parametrize("tasks", [("glue/sst2",), ("glue/mnli", "glue/mnli-mm"), ("glue/ax", "glue/mnli"), ()])
def test_fewer_than_two_tasks_have_no_average(tasks):
    table = {"rows": rows({task: BERT[task] for task in tasks})}
    assert suite_scores(table) == []
    assert "GLUE" not in comparison_markdown(table)


def test_table_md_is_exact():
    table = {"rows": [*rows({task: BERT[task] for task in ("glue/sst2", "glue/rte")}, "a|b")]}
    assert comparison_markdown(table).split("\n\n", 2)[2] == (
        "| GLUE                                          |           a\\|b |\n"
        "| --------------------------------------------- | -------------: |\n"
    ) + "".join(
        f"| {name:<45} | {text:>14} |\n"
        for name, text in [
            ("CoLA", "–"),
            ("SST-2", "0.949"),
            ("MRPC", "–"),
            ("STS-B", "–"),
            ("QQP", "–"),
            ("MNLI", "–"),
            ("QNLI", "–"),
            ("RTE", "0.701"),
            ("WNLI", "–"),
            ("mean of the tasks that are there", "0.825 (2 of 9)"),
            ("mean of the tasks that are there without WNLI", "0.825 (2 of 8)"),
        ]
    ) + (
        "\n- A task's score is the mean of its official metrics, on the rows judged here and not on the leaderboard's "
        "test rows.\n"
        "- a\\|b: the mean is without glue/cola, glue/mrpc, glue/stsb, glue/qqp, glue/mnli, glue/mnli-mm, glue/qnli, "
        "glue/wnli\n"
    )
