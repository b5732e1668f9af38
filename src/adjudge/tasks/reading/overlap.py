"""Find eval rows which are also training rows, and training rows which contradict each other.

Two rows are the same when all their texts are the same. *Exact* means letter for letter; *normalised* means up to case
and white space (`normal_text`). Sharing one field is not an overlap: another question about the same passage is
another row. Rows are compared by hashing, in one pass over each side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adjudge.tasks.reading.same_text import text_key
from adjudge.types import Example, Value

SHOWN = 3
"""Pairs of ids that are listed."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The number of eval rows whose texts also occur among the training rows.

    An eval row counts once, however many training rows it equals.
    """

    eval_rows: int
    """Number of eval rows compared."""
    normalised: int
    exact: int
    """Normalised matches with a training row that is the same letter for letter."""
    first: tuple[tuple[str, str], ...]
    """Ids (training row, eval row) of the first few pairs."""

    @property
    def share(self) -> float:
        """Normalised matches as a share of the eval rows, 0 to 1."""
        return self.normalised / self.eval_rows if self.eval_rows else 0.0

    def sentence(self) -> str:
        """Return a sentence for a warning or report.

        For example ``16 (1.5 %) of the 1,043 judged rows are among the training rows too, 14 of them letter for letter
        (train.tsv:1 = …)``.
        """
        pairs = ", ".join(f"{train} = {evaluated}" for train, evaluated in self.first)
        more = ", …" if self.normalised > len(self.first) else ""
        return (
            f"{self.normalised:,} ({100 * self.share:.1f} %) of the {self.eval_rows:,} judged rows are among the "
            f"training rows too, {self.exact:,} of them letter for letter ({pairs}{more})"
        )


def measure_overlap(train: Sequence[Example], eval_rows: Sequence[Example]) -> Overlap:
    """Count the eval rows which are also training rows."""
    exact = normalised = 0
    first: list[tuple[str, str]] = []
    for row, twins in _twins(train, eval_rows):
        normalised += 1
        exact += any(dict(twin.fields) == dict(row.fields) for twin in twins)
        if len(first) < SHOWN:
            first.append((twins[0].id, row.id))
    return Overlap(len(eval_rows), normalised, exact, tuple(first))


def find_overlap(train: Sequence[Example], dev: Sequence[Example]) -> list[tuple[str, str]]:
    """Return the ids (train, dev) of all pairs with the same normalised texts, in the order of `dev`."""
    return [(twin.id, row.id) for row, twins in _twins(train, dev) for twin in twins]


def without_overlap(train: Sequence[Example], eval_rows: Sequence[Example]) -> list[Example]:
    """Return the training rows whose normalised texts are not those of an eval row, in their order."""
    keys = {text_key(row.fields) for row in eval_rows}
    return [row for row in train if text_key(row.fields) not in keys]


def count_contradictions(train: Sequence[Example]) -> int:
    """Count the labelled training rows whose texts occur again with another gold answer."""
    answers: dict[str, list[Value]] = {}
    for row in train:
        if row.gold is not None:
            answers.setdefault(text_key(row.fields), []).append(row.gold)
    return sum(len(golds) for golds in answers.values() if len(set(golds)) > 1)


def _twins(train: Sequence[Example], eval_rows: Sequence[Example]) -> Iterator[tuple[Example, list[Example]]]:
    """Yield each eval row found among the training rows, with the training rows equal to it."""
    eval_keys = {text_key(row.fields) for row in eval_rows}
    twins_of: dict[str, list[Example]] = {}
    for row in train:
        if (key := text_key(row.fields)) in eval_keys:
            twins_of.setdefault(key, []).append(row)
    for row in eval_rows:
        if twins := twins_of.get(text_key(row.fields)):
            yield row, twins
