"""The leads that a paper reports of one method over others, beside what a comparison here measured.

A paper's figures are of another model on other rows: the table says whether the *gaps* are alike. They come with
table.json, as ``published``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.report.suites import SuiteScores


def published_columns(
    scores: Sequence[SuiteScores], published: Mapping[str, Any]
) -> tuple[list[str], list[list[str]]] | None:
    """Return header and cells of one suite: the method's lead over each other, here and in the paper.

    None without the method, and without another that the paper compares it with. Only averages over the same tasks are
    compared.
    """
    method_item = next((item for item in scores if item.method == published["method"]), None)
    if method_item is None or method_item.averages[0].value is None:
        return None
    lines = []
    for item in scores:
        lead = published["leads"].get(item.suite, {}).get(item.method)
        average = item.averages[0]
        if lead is not None and average.value is not None and average.tasks == method_item.averages[0].tasks:
            lines.append([item.method, f"{100 * (method_item.averages[0].value - average.value):+.1f}", f"{lead:+.1f}"])
    head = [f"{published['title']}'s lead in points over", "here", f"in {published['source']}"]
    return (head, lines) if lines else None
