"""The sentences below a comparison's table: paired tests, warnings, cells that are missing.

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adjudge.report.overlap import overlap_lines
from adjudge.report.summary import (
    ALPHA,
    UNREADABLE_SHARE,
    Summary,
    collapsed_label,
    finite,
    most_frequent_gold,
    summarise,
)
from adjudge.report.text import decimal, p_text, visible
from adjudge.tasks.scoring.metrics import METRICS

TEST_TITLES = {"mcnemar": "McNemar"}
"""Names of tests as they are shown; a test without an entry is shown by its name in table.json."""


def table_notes(table: Mapping[str, Any]) -> list[str]:
    """Return all sentences below the table: paired tests, warnings, failed and unfinished cells."""
    return [*verdict_lines(table), *warning_lines(table), *incomplete_lines(table)]


def verdict_lines(table: Mapping[str, Any]) -> list[str]:
    """Return one sentence per paired test; with several tasks each names its task."""
    tests = list(table.get("tests") or ())
    tasks = {str(row["task"]) for row in table.get("rows", ())} | {str(test.get("task")) for test in tests}
    return [verdict_line(test, with_task=len(tasks) > 1) for test in tests]


def verdict_line(test: Mapping[str, Any], *, with_task: bool = False) -> str:
    """Return the sentence of one paired test, the method with the higher value first.

    For example ``ppo − sft on accuracy: +0.012, p = 0.21 after Holm (McNemar): not significant``. Without a corrected
    p-value it says "uncorrected".
    """
    corrected, plain = finite(test.get("p_holm")), finite(test.get("p"))
    p = corrected if corrected is not None else plain
    difference, a, b = finite(test.get("difference")), test.get("a"), test.get("b")
    if difference is not None and difference < 0:
        difference, a, b = -difference, b, a
    lead = "unknown" if difference is None else f"+{decimal(difference)}"
    name = f" ({TEST_TITLES.get(str(test['test']), str(test['test']))})" if test.get("test") else ""
    correction = " after Holm" if corrected is not None else ", uncorrected"
    if p is None:
        verdict = "not tested"
    else:
        verdict = f"{p_text(p)}{correction}{name}: {'significant' if p < ALPHA else 'not significant'}"
    task = f"{test.get('task')}: " if with_task else ""
    return f"{task}{a} − {b} on {test.get('metric')}: {lead}, {verdict}"


def warning_lines(table: Mapping[str, Any]) -> list[str]:
    """Return warnings: one-label results, unreadable answers, judged rows that were trained on."""
    rows = list(table.get("rows", ()))
    multi_task = len({str(row["task"]) for row in rows}) > 1
    lines = []
    for item in summarise(table):
        judge = f"{item.task}: {item.method}" if multi_task else item.method
        item_rows = [row for row in rows if (str(row["task"]), str(row["method"])) == (item.task, item.method)]
        lines += _one_label_lines(judge, item, item_rows)
        if item.unreadable_share >= UNREADABLE_SHARE:
            by_probability = all(name in METRICS and METRICS[name].needs_probabilities for name in item.metrics)
            effect = (
                "; its metrics take probabilities and do not count them" if by_probability else " and count as wrong"
            )
            lines.append(f"{judge}: {item.unreadable_text} of {item.n} answers are unreadable{effect}")
    return [*lines, *overlap_lines(table)]


def _one_label_lines(judge: str, item: Summary, rows: list[Mapping[str, Any]]) -> list[str]:
    """Return one warning per label that some seed of a method gave for every row."""
    seeds_of: dict[str, list[str]] = {}
    for row in rows:
        word = collapsed_label(row)
        if word is not None:
            seeds_of.setdefault(word, []).append(str(row.get("seed")))
    most = most_frequent_gold(rows[0])
    every = "every row it answers readably" if item.unreadable else "every row"
    lines = []
    for word, seeds in seeds_of.items():
        which = "" if len(seeds) == len(rows) else f" (seed {', '.join(seeds)})"
        kind = "majority-label" if most is None or word == most[0] else "one-label"
        lines.append(f"{judge}{which} answers {word} for {every} (a {kind} result)")
    return lines


def incomplete_lines(table: Mapping[str, Any]) -> list[str]:
    """Return one sentence per failed cell, with its reason, and one with the number of unfinished cells."""
    failed = [
        f"{cell.get('task')}: {cell.get('method')} (seed {cell.get('seed')}) failed: {cell.get('reason')}"
        for cell in table.get("failed") or ()
    ]
    count = int(finite(table.get("unfinished")) or 0)
    return failed + ([f"{count} {'cell is' if count == 1 else 'cells are'} not finished yet"] if count else [])


def rows_line(table: Mapping[str, Any]) -> str:
    """Return how many rows of which split were judged, and over how many seeds the figures are means."""
    rows = table.get("rows") or ()
    row_sets = dict.fromkeys(
        (str(row["task"]), str(row.get("split") or ""), row.get("n"), row.get("groups")) for row in rows
    )
    parts = [
        f"{task} {split}".strip() + f": {int(n):,} rows judged" + (f" in {int(groups):,} groups" if groups else "")
        for task, split, n, groups in row_sets
        if n
    ]
    seed_counts = {len(item.seeds) for item in summarise(table)}
    if len(seed_counts) == 1 and max(seed_counts) > 1:
        parts.append(f"means over {seed_counts.pop()} seeds")
    return visible("; ".join(parts) + ".") if parts else ""
