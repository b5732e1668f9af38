"""What a table says of judged rows that were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def overlap_lines(table: Mapping[str, Any]) -> list[str]:
    """One sentence a task that has such rows, with the methods it concerns; the largest count where their seeds drew other rows."""
    rows = [row for row in table.get("rows") or () if row.get("overlap")]
    lines = []
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        mine = [row for row in rows if str(row["task"]) == task]
        most = max(mine, key=lambda row: int(row["overlap"]))
        share = f" ({100 * most['overlap'] / most['n']:.1f} %)" if most.get("n") else ""
        up_to = "up to " if len({row["overlap"] for row in mine}) > 1 else ""
        exact = (
            f", {most['overlap_exact']:,} of them letter for letter" if most.get("overlap_exact") is not None else ""
        )
        methods = ", ".join(dict.fromkeys(str(row["method"]) for row in mine))
        lines.append(
            f"{task}: {up_to}{most['overlap']:,}{share} of the judged rows are among the training rows too{exact} ({methods}): "
            "the figures may flatter"
        )
    return lines
