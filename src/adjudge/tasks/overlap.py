"""Training rows whose texts are judged too, and training rows that contradict each other.

Two rows are the same when all their texts are: *exact*, letter for letter, or *normalised*, up to case and white space (`normal_text`).
A passage alone that rows share is no overlap: another question about it is another row. By hashing, in one pass over each side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adjudge.tasks.reading.rows import text_key
from adjudge.types import Example, Value

SHOWN = 3
"""Pairs of ids that are named."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Judged rows whose texts are among the training rows too; a row counts once, however often it was trained on."""

    judged: int
    """How many rows were looked at."""
    normalised: int
    exact: int
    """Those of the normalised ones that have a training row with the very same letters."""
    first: tuple[tuple[str, str], ...]
    """Ids (training row, judged row) of the first few."""

    @property
    def share(self) -> float:
        """Of the judged rows, 0 to 1."""
        return self.normalised / self.judged if self.judged else 0.0

    def sentence(self) -> str:
        """``16 (1.5 %) of the 1,043 judged rows are among the training rows too, 14 of them letter for letter (train.tsv:1 = …)``."""
        first = ", ".join(f"{train} = {judged}" for train, judged in self.first)
        more = ", …" if self.normalised > len(self.first) else ""
        return (
            f"{self.normalised:,} ({100 * self.share:.1f} %) of the {self.judged:,} judged rows are among the training rows too, "
            f"{self.exact:,} of them letter for letter ({first}{more})"
        )


def measure_overlap(train: Sequence[Example], judged: Sequence[Example]) -> Overlap:
    """Count the judged rows that are among the training rows."""
    exact, first = 0, list[tuple[str, str]]()
    normalised = 0
    for row, twins in _twins(train, judged):
        normalised += 1
        exact += any(dict(twin.fields) == dict(row.fields) for twin in twins)
        if len(first) < SHOWN:
            first.append((twins[0].id, row.id))
    return Overlap(len(judged), normalised, exact, tuple(first))


def find_overlap(train: Sequence[Example], dev: Sequence[Example]) -> list[tuple[str, str]]:
    """Ids (train, dev) of all pairs of rows whose texts are the same up to case and white space, in the order of `dev`."""
    return [(twin.id, row.id) for row, twins in _twins(train, dev) for twin in twins]


def without_overlap(train: Sequence[Example], judged: Sequence[Example]) -> list[Example]:
    """The training rows whose texts no judged row has, case and white space aside, in their order."""
    keys = {text_key(row.fields) for row in judged}
    return [row for row in train if text_key(row.fields) not in keys]


def count_contradictions(train: Sequence[Example]) -> int:
    """Labelled training rows whose texts occur again with another gold answer."""
    answers: dict[str, list[Value]] = {}
    for row in train:
        if row.gold is not None:
            answers.setdefault(text_key(row.fields), []).append(row.gold)
    return sum(len(golds) for golds in answers.values() if len(set(golds)) > 1)


def _twins(train: Sequence[Example], judged: Sequence[Example]) -> Iterator[tuple[Example, list[Example]]]:
    """Each judged row that has any, with the training rows that are the same."""
    wanted = {text_key(row.fields) for row in judged}
    found: dict[str, list[Example]] = {}
    for row in train:
        if (key := text_key(row.fields)) in wanted:
            found.setdefault(key, []).append(row)
    for row in judged:
        if twins := found.get(text_key(row.fields)):
            yield row, twins
