"""A comparison's tables over several tasks, beside the suites' own: leads in print, and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from adjudge.report.published import published_columns
from adjudge.report.ranks import method_ranks, rank_columns, rank_lines
from adjudge.report.suites import suite_scores


class Across(NamedTuple):
    """A table over tasks with the sentences below it."""

    title: str
    head: list[str]
    lines: list[list[str]]
    notes: list[str]


def tables_across(table: Mapping[str, Any]) -> list[Across]:
    """Return a method's leads beside a paper's, suite by suite, and the methods' ranks over all tasks."""
    tables = []
    published: Mapping[str, Any] = table.get("published") or {}
    for scores in suite_scores(table) if published else []:
        if (columns := published_columns(scores, published)) is not None:
            tables.append(Across(f"{scores[0].suite}: the paper's gaps", *columns, [published["note"]]))
    if (ranks := method_ranks(table)) is not None:
        tables.append(Across("Ranks over tasks", *rank_columns(ranks), rank_lines(ranks)))
    return tables
