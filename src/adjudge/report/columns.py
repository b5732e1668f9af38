"""The comparison's table as text: header and cells, for table.md and the terminal.

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.report.summary import Summary, best_values, summarise
from adjudge.report.text import count_text, price_text, seconds_text

LEFT_ALIGNED = frozenset({"task", "method"})
"""Columns aligned at the left; all others are aligned at the right."""

MIXED_COLUMNS = ["primary metric", "other metrics"]
"""Metric columns of a table whose tasks have different metrics."""

AFTER_METRICS = ["unreadable", "training rows", "seconds (train / evaluate)"]
BUDGET = ["model calls", "tokens (read / written)", "gold labels", "price"]
"""Columns of what was counted in searches for a prompt and in judging over an API."""
PEAK, PEAK_GPU = "peak memory (GiB)", "peak memory (GiB, host / GPU)"


def table_columns(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the table. The task is a column only when there are several tasks.

    Tasks with the same metrics get one column per metric. With different metrics most of these columns would be empty:
    one column then names the primary metric beside its value, and the other metrics share a second one. A column that
    holds nothing but dashes is dropped.
    """
    summaries = summarise(table)
    multi_task = len({item.task for item in summaries}) > 1
    uneven_seeds = len({len(item.seeds) for item in summaries}) > 1
    mixed = multi_task and len({tuple(item.metric_names) for item in summaries}) > 1
    metrics = MIXED_COLUMNS if mixed else list(dict.fromkeys(name for item in summaries for name in item.metric_names))
    head = ["task"] * multi_task + ["method", *metrics, *AFTER_METRICS, *BUDGET]
    head.append(PEAK if all(item.peak_gpu_gib is None for item in summaries) else PEAK_GPU)
    lines = []
    for item in summaries:
        seeds = f" ({len(item.seeds)} {'seed' if len(item.seeds) == 1 else 'seeds'})" if uneven_seeds else ""
        lines.append(
            [item.task] * multi_task
            + [item.method + seeds]
            + (_mixed_cells(item) if mixed else [str(item.metrics.get(name, "–")) for name in metrics])
            + [
                item.unreadable_text,
                count_text(item.train_rows),
                f"{seconds_text(item.train_s)} / {seconds_text(item.evaluate_s)}",
                count_text(item.calls),
                f"{count_text(item.prompt_tokens)} / {count_text(item.generated_tokens)}",
                count_text(item.gold_labels),
                price_text(item.price),
                item.peak_text,
            ]
        )
    return without_dashes(head, lines)


def _mixed_cells(item: Summary) -> list[str]:
    first, *others = [f"{name} {item.metrics[name]}" for name in item.metric_names] or ["–"]
    return [first, "; ".join(others) or "–"]


def without_dashes(head: Sequence[str], lines: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells without the columns that hold nothing but dashes."""
    kept = [column for column in range(len(head)) if not lines or any(line[column].strip(" –/") for line in lines)]
    return [head[column] for column in kept], [[line[column] for column in kept] for line in lines]


def best_cells(table: Mapping[str, Any], head: Sequence[str]) -> set[tuple[int, int]]:
    """Return (row, column) of the best value of each metric column, task by task."""
    summaries = summarise(table)
    best: set[tuple[int, int]] = set()
    for task in {item.task for item in summaries}:
        rows = [(number, item) for number, item in enumerate(summaries) if item.task == task]
        mixed = MIXED_COLUMNS[0] in head
        column_of = {rows[0][1].primary: MIXED_COLUMNS[0]} if mixed else {name: name for name in head}
        for metric, value in best_values([item for _, item in rows], column_of).items():
            column = head.index(column_of[metric])
            best |= {
                (number, column)
                for number, item in rows
                if metric in item.metrics and item.metrics[metric].value == value
            }
    return best
