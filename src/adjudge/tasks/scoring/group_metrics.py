"""Metrics that give one score to a group of rows."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.errors import DataError
from adjudge.types import Prediction


def all_right(where: str, rows: Sequence[Prediction], positive: str) -> float:
    """Return 1 when every row of the group is judged correctly, else 0.

    Source: the exact match of a question in MultiRC (NAACL 2018, N18-1023).
    """
    return float(all(row.value == row.gold for row in rows))


def same_answer(where: str, rows: Sequence[Prediction], positive: str) -> float:
    """Return 1 when both rows of a minimal pair get the same answer, right or wrong, else 0.

    A pair with an unreadable answer scores 0: otherwise a judge that never answers would reach perfect parity.
    Raises DataError when the group does not have two rows.

    Source: gender parity in SuperGLUE (arXiv 1905.00537).
    """
    if len(rows) != 2:
        names = ", ".join(row.id for row in rows[:3])
        raise DataError(
            f"{where} has {len(rows)} row{'s' * (len(rows) != 1)} ({names}): a minimal pair has two. Judge both rows."
        )
    return float(rows[0].value is not None and rows[0].value == rows[1].value)
