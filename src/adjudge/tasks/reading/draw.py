"""Draw rows at random, the same rows on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.tasks.reading.groups import by_unit
from adjudge.tasks.reading.same_text import text_key
from adjudge.types import Example


def take_rows(
    examples: Sequence[Example], n: int | None, seed: int, what: str = "rows", *, whole_groups: bool = True
) -> list[Example]:
    """Draw `n` rows without replacement; whole groups, until there are at least `n` rows.

    The rows (or groups) are shuffled with `random.Random(seed)` and the first ones are taken. A smaller draw with the
    same seed is therefore the beginning of a larger one. With `whole_groups=False` groups are ignored.

    When `n` is None or larger than the number of rows, all rows are returned in file order. A shortfall is reported
    once, calling the rows `what`. Raises DataError when `n` is negative.
    """
    if n is not None and n < 0:
        raise DataError(f"{n} {what} cannot be drawn.")
    if n is None or n >= len(examples):
        if n is not None and n > len(examples):
            first_key = (examples[0].id, text_key(examples[0].fields)) if examples else None
            _note_shortfall(n, len(examples), what, first_key)
        return list(examples)
    units = list(by_unit(examples).values()) if whole_groups else [[index] for index in range(len(examples))]
    random.Random(seed).shuffle(units)
    drawn: list[Example] = []
    for indices in units:
        if len(drawn) >= n:
            break
        drawn += [examples[index] for index in indices]
    return drawn


def take_shots(examples: Sequence[Example], words: Sequence[str], shots: int, seed: int) -> list[Example]:
    """Draw `shots` rows of each answer word without replacement, a row of each word in turn.

    The rows of each word are shuffled with `random.Random(seed)` and the first ones are taken. Fewer shots with the
    same seed are therefore the beginning of more. Groups are ignored. A word with fewer rows gives all of them, which
    is reported once.
    """
    drawn: list[list[Example]] = []
    for word in words:
        rows = [row for row in examples if row.gold == word]
        random.Random(seed).shuffle(rows)
        if 0 < len(rows) < shots:
            _note_shortfall(shots, len(rows), f"training rows of '{word}'", (rows[0].id, text_key(rows[0].fields)))
        drawn.append(rows[:shots])
    return [rows[shot] for shot in range(shots) for rows in drawn if shot < len(rows)]


@lru_cache(maxsize=256)  # one note for the same rows, however many methods and seeds of a comparison draw them
def _note_shortfall(requested: int, available: int, what: str, first_key: tuple[str, str] | None) -> None:
    note(f"{requested:,} {what} were requested and there are {available:,}: all of them are used.")
