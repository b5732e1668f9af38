"""Ranks over tasks and the paper's gaps: the mathematics against published values, and where the tables stand."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats
from test_suites import BERT, rows

from adjudge.methods.published import PUBLISHED
from adjudge.report.across import tables_across
from adjudge.report.markdown import comparison_markdown
from adjudge.report.ranks import critical_difference, friedman, method_ranks, rank_lines
from adjudge.report.suites import suite_scores

SCORES = {
    "a": (0.76, 0.60, 0.95, 0.63, 0.88, 0.94),
    "b": (0.77, 0.59, 0.97, 0.66, 0.89, 0.93),
    "c": (0.75, 0.59, 0.96, 0.65, 0.87, 0.92),
}
"""Of three methods on six tasks; b and c share a rank on the second."""


def scored(scores: dict[str, tuple[float, ...]] = SCORES) -> dict[str, Any]:
    return {
        "rows": [
            row
            for method, values in scores.items()
            for row in rows({f"t{index}": {"auc": value} for index, value in enumerate(values)}, method)
        ]
    }


def test_ranks_are_means_over_tasks_and_equal_methods_share_them() -> None:
    ranks = method_ranks(scored())
    assert ranks is not None
    assert list(ranks.mean) == ["b", "a", "c"]
    assert ranks.mean["b"] == pytest.approx((1 + 2.5 + 1 + 1 + 1 + 2) / 6)
    assert ranks.mean["a"] == pytest.approx((2 + 1 + 3 + 3 + 2 + 1) / 6)
    assert ranks.wins == {"b": 4, "a": 2, "c": 0}
    assert ranks.critical_difference == pytest.approx(2.343 * (12 / 36) ** 0.5, abs=0.001)
    assert ranks.level_with_best == ["b", "a", "c"]


def test_friedman_is_iman_and_davenports_form_of_scipys_statistic() -> None:
    chi_square, _ = stats.friedmanchisquare(*SCORES.values())
    expected = stats.f.sf(5 * chi_square / (6 * 2 - chi_square), 2, 10)
    ranks = method_ranks(scored())
    assert ranks is not None and ranks.p == pytest.approx(expected)


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_differences_have_the_published_quantiles(methods: int, quantile: float) -> None:
    unit = (methods * (methods + 1) / 60) ** 0.5
    assert critical_difference(methods, 10) / unit == pytest.approx(quantile, abs=0.001)


def test_friedman_knows_both_extremes() -> None:
    assert friedman([[1.0, 2.0, 3.0]] * 6) == 0.0
    assert friedman([[2.0, 2.0, 2.0]] * 6) == 1.0
    assert friedman([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]] * 3) == pytest.approx(1.0)


@pytest.mark.parametrize("left", [{"tasks": 3, "methods": 4}, {"tasks": 8, "methods": 2}])
def test_too_few_tasks_or_methods_have_no_ranks(left: dict[str, int]) -> None:
    table = scored(dict.fromkeys("abcd"[: left["methods"]], (0.5,) * left["tasks"]))
    assert method_ranks(table) is None
    assert tables_across(table) == []


def test_a_task_without_one_method_is_left_out_and_named() -> None:
    table = scored()
    table["rows"] = [row for row in table["rows"] if (row["task"], row["method"]) != ("t3", "c")]
    ranks = method_ranks(table)
    assert ranks is not None and len(ranks.tasks) == 5
    assert rank_lines(ranks)[-1] == "Left out, since a method has no figure there: t3."


def test_the_papers_gaps_stand_beside_ours() -> None:
    lower = {task: {name: value - 0.05 for name, value in metrics.items()} for task, metrics in BERT.items()}
    table = {"rows": [*rows(BERT, "ppo"), *rows(lower, "sft"), *rows(lower, "tfidf")], "published": PUBLISHED}
    (gaps, ranks) = tables_across(table)
    assert gaps.head == ["PPO's lead in points over", "here", "in arXiv 2410.11020"]
    assert gaps.lines == [["sft", "+5.0", "+6.3"]]
    assert ranks.lines[0] == ["ppo", "1.00", "11"]
    text = comparison_markdown(table)
    assert "in arXiv 2410.11020" in text and "Nemenyi" in text
    incomplete = {"rows": [*rows(BERT, "ppo"), *rows({"glue/sst2": BERT["glue/sst2"]}, "sft")], "published": PUBLISHED}
    assert not [item for item in tables_across(incomplete) if "gaps" in item.title]


def test_an_average_has_the_interval_of_independent_tasks() -> None:
    figures = rows({"glue/sst2": {"accuracy": 0.9}, "glue/rte": {"accuracy": 0.6}})
    for row, half in zip(figures, (0.03, 0.04), strict=True):
        row["metrics"]["accuracy"] |= {
            "low": row["metrics"]["accuracy"]["value"] - half,
            "high": row["metrics"]["accuracy"]["value"] + half,
        }
    ((scores,),) = suite_scores({"rows": figures})
    assert scores.averages[0].half == pytest.approx(0.025)
    assert "± 0.025" in comparison_markdown({"rows": figures})
