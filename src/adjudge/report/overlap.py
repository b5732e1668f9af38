"""Warnings about judged rows: those also among the training rows, and bad ones that were dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def overlap_lines(table: Mapping[str, Any]) -> list[str]:
    """Return one sentence per task with such rows: the methods, and the largest count of their seeds."""
    rows = [row for row in table.get("rows") or () if row.get("overlap")]
    lines = []
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        task_rows = [row for row in rows if str(row["task"]) == task]
        most = max(task_rows, key=lambda row: int(row["overlap"]))
        share = f" ({100 * most['overlap'] / most['n']:.1f} %)" if most.get("n") else ""
        up_to = "up to " if len({row["overlap"] for row in task_rows}) > 1 else ""
        exact = ""
        if most.get("overlap_exact") is not None:
            exact = f", {most['overlap_exact']:,} of them letter for letter"
        methods = ", ".join(dict.fromkeys(str(row["method"]) for row in task_rows))
        lines.append(
            f"{task}: {up_to}{most['overlap']:,}{share} of the judged rows are among the training rows too{exact} "
            f"({methods}): the figures may flatter"
        )
    return lines


def dropped_lines(table: Mapping[str, Any]) -> list[str]:
    """Return one sentence per file of judged rows whose bad rows were dropped."""
    dropped: dict[str, int] = {}
    for row in table.get("rows") or ():
        dropped |= row.get("dropped_rows") or {}
    return [
        f"{count:,} bad row{'s' * (count != 1)} of {Path(file).name} dropped, so not judged (data.bad_rows=drop)"
        for file, count in dropped.items()
    ]
