"""Figures per phenomenon, from the tags of a run's rows to the tables."""

import json

import pytest
from rich.console import Console
from sklearn.metrics import matthews_corrcoef
from specs import label_task, number_task
from test_report_tables import row

from adjudge.cli import show
from adjudge.errors import RunError
from adjudge.evaluation.diagnostics import diagnose
from adjudge.evaluation.score import score
from adjudge.report.collect import collect
from adjudge.report.markdown import comparison_markdown
from adjudge.report.phenomena import phenomena, phenomena_columns, phenomena_line
from adjudge.system.files import write_json
from adjudge.types import Prediction

TASK = label_task("No", "Yes", metrics=("matthews",))


def judged(*lines: tuple[str, str, dict]) -> list[Prediction]:
    words = {"Y": "Yes", "N": "No", "-": None}
    return [Prediction(str(i), {}, words[gold], "", words[got], tags=tags) for i, (gold, got, tags) in enumerate(lines)]


ROWS = judged(
    ("Y", "Y", {"Logic": "Negation", "Domain": "News"}),
    ("N", "N", {"Logic": "Negation;Double negation", "Knowledge": "Common sense"}),
    ("Y", "-", {"Logic": " Double negation ; Universal ", "Lexical Semantics": ""}),
    ("N", "Y", {"Logic": "Universal"}),
    ("Y", "Y", {"Knowledge": "Common sense"}),
    ("N", "N", {"Domain": "News"}),
)


def test_rows_are_scored_by_category_and_phenomenon():
    by_name = {(item["category"], item["phenomenon"]): item for item in diagnose(TASK, [ROWS], resamples=100)}
    assert {name: item["n"] for name, item in by_name.items()} == {
        ("Logic", None): 4,
        ("Logic", "Double negation"): 2,
        ("Logic", "Negation"): 2,
        ("Logic", "Universal"): 2,
        ("Knowledge", None): 2,
        ("Knowledge", "Common sense"): 2,
    }
    assert [name for _, name in by_name][:4] == [None, "Double negation", "Negation", "Universal"]
    logic = by_name["Logic", None]["metrics"]
    assert logic["accuracy"]["value"] == 0.5
    # Gold Y N Y N; answers Y N unreadable Y: the unreadable one is an answer of its own kind.
    assert logic["matthews"]["value"] == pytest.approx(matthews_corrcoef([1, 0, 1, 0], [1, 0, 2, 1]))
    assert by_name["Logic", "Negation"]["metrics"]["matthews"]["value"] == 1.0
    assert by_name["Logic", "Universal"]["metrics"]["accuracy"] == {
        "value": 0.0,
        "low": 0.0,
        "high": pytest.approx(0.8419, abs=1e-4),
    }


def test_scores_have_phenomena_only_for_rows_that_name_them():
    assert [item["n"] for item in score(TASK, ROWS, resamples=100)["diagnostics"]] == [4, 2, 2, 2, 2, 2]
    json.dumps(score(TASK, ROWS, resamples=100), allow_nan=False)
    assert "diagnostics" not in score(
        TASK, judged(("Y", "Y", {"Domain": "News"}), ("N", "N", {"idx": "1"})), resamples=100
    )
    numbers = [Prediction("1", {}, 1.0, "", 2.0, tags={"Logic": "Negation"})] * 2
    assert diagnose(number_task(0, 5), [numbers], resamples=100) == []


def test_several_seeds_are_averaged_on_the_same_rows():
    wrong = [Prediction(p.id, {}, p.gold, "", "No" if p.gold == "Yes" else "Yes", tags=p.tags) for p in ROWS]
    (one, *_), (both, *_) = (diagnose(TASK, runs, resamples=100) for runs in ([ROWS], [ROWS, wrong]))
    assert both["n"] == one["n"] == 4
    assert both["metrics"]["accuracy"]["value"] == pytest.approx((0.5 + 0) / 2)


def table(*seeds_of_methods, summary=()):
    rows = []
    for method, seeds in seeds_of_methods:
        rows += [
            row(method, 0.5, seed, task="glue/ax", diagnostics=diagnose(TASK, [ROWS], resamples=100))
            for seed in range(seeds)
        ]
    return {"rows": rows, "summary": list(summary)}


def test_columns_of_one_method_are_metrics_and_of_several_methods_matthews():
    head, lines = phenomena_columns(phenomena(table(("sft", 1)), "glue/ax"))
    assert head == ["phenomenon", "rows", "matthews", "accuracy"]
    assert lines[0][:2] == ["Logic, all", "4 (few)"]
    assert lines[2] == ["Logic: Negation", "2 (few)", lines[2][2], lines[2][3]]
    assert lines[2][2] == "1.000"  # no interval from a handful of rows
    head, lines = phenomena_columns(phenomena(table(("sft", 1), ("ppo", 1)), "glue/ax"))
    assert head == ["phenomenon", "rows", "sft", "ppo"]
    assert lines[2][2] == lines[2][3]
    assert phenomena(table(("sft", 1)), "glue/rte") == []


MANY = [Prediction(f"{n}/{p.id}", {}, p.gold, "", p.value, tags={"Logic": "Negation"}) for n in range(5) for p in ROWS]


def test_several_seeds_use_the_pooled_interval_or_none():
    mine = diagnose(TASK, [MANY], resamples=100)
    rows = [row("sft", 0.5, seed, task="glue/ax", diagnostics=mine) for seed in range(2)]
    (first, *_) = phenomena({"rows": rows}, "glue/ax")
    assert first.figures["sft"]["accuracy"].low is None
    pooled = {
        "task": "glue/ax",
        "method": "sft",
        "metrics": {},
        "diagnostics": diagnose(TASK, [MANY, MANY], resamples=100),
    }
    (first, *_) = phenomena({"rows": rows, "summary": [pooled]}, "glue/ax")
    assert first.figures["sft"]["accuracy"].low == mine[0]["metrics"]["accuracy"]["low"]


def test_few_rows_are_marked():
    scored_table = {"rows": [row("sft", 0.5, task="glue/ax", diagnostics=diagnose(TASK, [MANY], resamples=100))]}
    assert [item.few for item in phenomena(scored_table, "glue/ax")] == [False, False]
    assert "Few" not in phenomena_line("glue/ax", phenomena(scored_table, "glue/ax"))
    assert "Few: fewer than 30 rows" in phenomena_line("glue/ax", phenomena(table(("sft", 1)), "glue/ax"))


def test_table_md_and_the_terminal_show_phenomena(monkeypatch):
    text = comparison_markdown(table(("sft", 1), ("ppo", 1)))
    assert "| Logic: Double negation" in text
    assert "glue/ax: Matthews correlation on the rows that test a phenomenon" in text
    for scored_table, wanted in ((table(("sft", 1)), True), (table(("sft", 1), ("ppo", 1)), False)):
        console = Console(width=120, highlight=False, record=True)
        monkeypatch.setattr(show, "stdout", lambda: console)  # noqa: B023
        show.show_table(scored_table)
        assert ("Logic: Double negation" in console.export_text()) == wanted


def test_damaged_phenomena_are_named(tmp_path):
    scores = row("sft", 0.5, task="glue/ax", diagnostics=[{"category": "Logic"}])
    write_json(tmp_path / "table.json", {"rows": [scores]})
    with pytest.raises(RunError, match=r"table\.json: row 0: 'diagnostics' is not a list of objects"):
        collect([tmp_path])
