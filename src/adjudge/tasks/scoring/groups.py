"""Rows that are scored together, and metrics that give one score to a group of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

from adjudge.errors import DataError
from adjudge.types import Prediction


class Grouped(Protocol):
    """An example or a prediction."""

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...


_Row = TypeVar("_Row", bound=Grouped)


def is_grouped(rows: Sequence[_Row]) -> bool:
    """Whether any row belongs to a group."""
    return any(row.group for row in rows)


def by_unit(rows: Sequence[_Row]) -> dict[Hashable, list[int]]:
    """Places of the rows of each group, in order of first appearance; a row without a group is a unit of its own."""
    units: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        units.setdefault(row.group or place, []).append(place)
    return units


def all_right(where: str, rows: Sequence[Prediction], positive: str) -> float:
    """1 when every row of the group is judged right, else 0: MultiRC's exact match of a question (NAACL 2018, N18-1023)."""
    return float(all(row.value == row.gold for row in rows))


def same_answer(where: str, rows: Sequence[Prediction], positive: str) -> float:
    """1 when both rows of a minimal pair get the same answer, right or wrong, else 0: gender parity (SuperGLUE, arXiv 1905.00537).

    An unreadable answer is no answer that could be the same: a pair with one, or with two, is not at parity. Else a judge
    that never answers would be at perfect parity. Raises DataError when the group is no pair.
    """
    if len(rows) != 2:
        names = ", ".join(row.id for row in rows[:3])
        raise DataError(
            f"{where} has {len(rows)} row{'s' * (len(rows) != 1)} ({names}): a minimal pair has two. Judge both rows."
        )
    return float(rows[0].value is not None and rows[0].value == rows[1].value)
