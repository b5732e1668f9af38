"""Answers that are sets of labels: how a set is written, read from a cell, and listed.

A set is one text, its words in the task's order: ``joy, anger``. The set without a label is ``none``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations

from adjudge.errors import DataError, nearest
from adjudge.system.text import shorten
from adjudge.tasks.answer_words import label_key

NOTHING = "none"
"""The answer that no label applies."""
JOINT = ", "
MARK = "|"
"""What separates the labels in a cell."""
MOST_LISTED = 6
"""Of up to this many labels all sets are listed, 64 of 6; of more, sets can only be sampled and read."""

_YES = frozenset(("1", "1.0", "yes", "true", "y", "x", "t"))
_NO = frozenset(("", "0", "0.0", "no", "false", "n", "f"))


def set_text(chosen: Collection[str], words: Sequence[str]) -> str:
    """Return the answer that holds the `chosen` ones of `words`."""
    return JOINT.join(word for word in words if word in chosen) or NOTHING


def members(answer: str) -> tuple[str, ...]:
    """Return the words of an answer."""
    return () if answer == NOTHING else tuple(answer.split(JOINT))


def is_set(answer: object, words: Sequence[str]) -> bool:
    """Return whether a value is an answer of these words, as `set_text` writes it."""
    return isinstance(answer, str) and set_text(members(answer), words) == answer


def listed_sets(words: Sequence[str]) -> tuple[str, ...]:
    """Return every answer, small sets first; of too many words only some.

    These are the empty set, the single words, and all words together.
    """
    sizes: Iterable[int] = range(len(words) + 1) if len(words) <= MOST_LISTED else (0, 1, len(words))
    return tuple(set_text(chosen, words) for size in sizes for chosen in combinations(words, size))


def marginals(shares: Mapping[str, float], words: Sequence[str]) -> dict[str, float]:
    """Return the probability that each word applies, from the probabilities of all sets."""
    return {word: min(1.0, sum(share for answer, share in shares.items() if word in members(answer))) for word in words}


def parts_of(cell: str) -> list[str]:
    """Return the labels that a cell names: ``a|b``, or a list as JSON writes it, ``["a", "b"]`` or ``[0, 2]``."""
    if cell.lstrip().startswith("["):
        with suppress(ValueError):
            listed = json.loads(cell)
            if all(isinstance(part, str | int) for part in listed):
                return [str(part).strip() for part in listed]
    return [part.strip() for part in cell.split(MARK) if part.strip()]


def set_of_cell(where: str, column: str, cell: str, labels: Mapping[str, str], words: Sequence[str]) -> str:
    """Return the answer of a cell such as ``a|b``. Raises DataError for a part that is no label."""
    parts = [part if part in labels else label_key(part) for part in parts_of(cell)]
    for part in parts:
        if part not in labels:
            raise DataError(
                f"{where}: '{shorten(part)}' in column '{column}' is not a label.{nearest(part, labels)} "
                f"Several labels are separated by {MARK}; an empty cell has none."
            )
    return set_text({labels[part] for part in parts}, words)


def set_of_indicators(where: str, cells: Mapping[str, str], labels: Mapping[str, str], words: Sequence[str]) -> str:
    """Return the answer of a row with one column of yes and no per label.

    Raises DataError for a cell with anything else.
    """
    chosen = set()
    for column, word in labels.items():
        cell = cells.get(column, "").strip().casefold()
        if cell not in _YES | _NO:
            raise DataError(f"{where}: '{shorten(cell)}' in column '{column}' is neither yes nor no (1 or 0).")
        if cell in _YES:
            chosen.add(word)
    return set_text(chosen, words)
