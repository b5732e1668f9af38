"""The order in which training rows are used."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch

Row = TypeVar("Row")

WINDOW = 8
"""Number of padded batches whose rows are sorted by length together. This saves padding and keeps the order mostly
random."""


class Batches(Generic[Row]):
    """Resumable batches of the rows of several tasks, each with the index of its task among `parts`.

    A batch holds rows of one task. Its prompts share their instruction, which is then computed once, and batch means
    and whitening stay within a task. All batches of an epoch come in one random order, so tasks take turns in
    proportion to their numbers of batches. Source: arXiv 1901.11504, algorithm 1.

    Rows are shuffled, sorted by `length` within windows of `WINDOW` batches, and cut into batches. Every row comes once
    per epoch, and one batch per task and epoch may be smaller.

    `labels` gives the label of each row, per task. An epoch then has as many rows as without, and each label as many as
    the others, up to one: rows of rare labels repeat, and part of the rows of frequent ones is drawn anew each epoch.

    With `padded` False (a policy that packs) rows are not sorted. In some data the length goes with the label, so
    batches of similar length would be batches of similar labels.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Row]],
        batch_size: int,
        epochs: int,
        generator: torch.Generator,
        length: Callable[[Row], int],
        padded: bool = True,
        labels: Sequence[Sequence[Hashable]] | None = None,
    ) -> None:
        self._labels = labels
        self._parts, self._batch_size, self._epochs = parts, batch_size, epochs
        self._generator, self._length, self._window = generator, length, WINDOW if padded else 1
        self._epoch = self._yielded = 0
        self._drawn_from: torch.Tensor | None = None
        """The generator's state before the epoch's order was drawn, kept to draw the same order again."""

    def __len__(self) -> int:
        return sum(self._epochs * -(-len(rows) // self._batch_size) for rows in self._parts)

    def __iter__(self) -> Iterator[tuple[int, list[Row]]]:
        while self._epoch < self._epochs:
            batches = self._order()
            while self._yielded < len(batches):
                self._yielded += 1
                yield batches[self._yielded - 1]
            self._epoch, self._yielded, self._drawn_from = self._epoch + 1, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, without the generator: others may draw from it too."""
        return {"epoch": self._epoch, "given": self._yielded, "drawn_from": self._drawn_from}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the position of a `state_dict`; the next iteration goes on from there."""
        self._epoch, self._yielded, self._drawn_from = state["epoch"], state["given"], state["drawn_from"]

    def _order(self) -> list[tuple[int, list[Row]]]:
        """Return the epoch's batches. Drawing a begun epoch again leaves the generator unchanged."""
        if self._drawn_from is None:
            self._drawn_from = self._generator.get_state()
            return self._draw()
        current = self._generator.get_state()
        self._generator.set_state(self._drawn_from)
        batches = self._draw()
        self._generator.set_state(current)
        return batches

    def _draw(self) -> list[tuple[int, list[Row]]]:
        batches: list[tuple[int, list[Row]]] = []
        for part, rows in enumerate(self._parts):
            drawn = range(len(rows)) if self._labels is None else self._balanced(self._labels[part])
            shuffled = [rows[drawn[index]] for index in self._permutation(len(rows))]
            for start in range(0, len(shuffled), self._batch_size * self._window):
                window = sorted(shuffled[start : start + self._batch_size * self._window], key=self._length)
                batches += [
                    (part, window[first : first + self._batch_size])
                    for first in range(0, len(window), self._batch_size)
                ]
        return [batches[index] for index in self._permutation(len(batches))]

    def _balanced(self, labels: Sequence[Hashable]) -> list[int]:
        """Draw as many rows as there are labels, with each distinct label equally often."""
        by_label: dict[Hashable, list[int]] = {}
        for index, label in enumerate(labels):
            by_label.setdefault(label, []).append(index)
        drawn: list[int] = []
        for label_index, indices in enumerate(by_label.values()):
            count = len(labels) // len(by_label) + (label_index < len(labels) % len(by_label))
            drawn += indices * (count // len(indices))
            drawn += [indices[index] for index in self._permutation(len(indices))[: count % len(indices)]]
        return drawn

    def _permutation(self, count: int) -> list[int]:
        permutation: list[int] = torch.randperm(count, generator=self._generator).tolist()
        return permutation


def chunks(count: int, size: int | None) -> list[slice]:
    """Return slices of at most `size` which cover `count` rows; one slice when `size` is None."""
    size = size or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
