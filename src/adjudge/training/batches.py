"""The order in which training rows are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch

Row = TypeVar("Row")

WINDOW = 8
"""Batches whose rows are sorted by length together, where padding is computed: little is padded, and the order stays random beyond that."""


class Batches(Generic[Row]):
    """Batches of the rows of several tasks, each with the place of its task among `parts`, for some epochs; can go on where it was.

    A batch holds rows of one task: its prompts share their instruction, which is then computed once, and what is averaged or whitened over
    a batch is so within a task. All batches of an epoch come in one random order, so that tasks take turns by their numbers of batches.
    Source: arXiv 1901.11504, algorithm 1.

    Rows are shuffled, sorted by `length` within windows of `WINDOW` batches and cut into batches; every row comes once an epoch, and one
    batch of a task in an epoch may be smaller. Where nothing is `padded` (a policy that packs) the batches are random instead: length goes
    with the label in some data, and batches of like length would then be batches of like labels.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Row]],
        batch_size: int,
        epochs: int,
        generator: torch.Generator,
        length: Callable[[Row], int],
        padded: bool = True,
    ) -> None:
        self._parts, self._batch_size, self._epochs = parts, batch_size, epochs
        self._generator, self._length, self._window = generator, length, WINDOW if padded else 1
        self._epoch = self._given = 0
        self._drawn_from: torch.Tensor | None = None
        """The generator's state before the epoch's order was drawn: the same order comes from it again."""

    def __len__(self) -> int:
        return sum(self._epochs * -(-len(rows) // self._batch_size) for rows in self._parts)

    def __iter__(self) -> Iterator[tuple[int, list[Row]]]:
        while self._epoch < self._epochs:
            batches = self._order()
            while self._given < len(batches):
                self._given += 1
                yield batches[self._given - 1]
            self._epoch, self._given, self._drawn_from = self._epoch + 1, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Where it is, the generator's own state aside: that may be drawn from by others too."""
        return {"epoch": self._epoch, "given": self._given, "drawn_from": self._drawn_from}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, in a new iteration."""
        self._epoch, self._given, self._drawn_from = state["epoch"], state["given"], state["drawn_from"]

    def _order(self) -> list[tuple[int, list[Row]]]:
        """The batches of the epoch; within one that was begun before, the generator is left as it is."""
        if self._drawn_from is None:
            self._drawn_from = self._generator.get_state()
            return self._draw()
        now = self._generator.get_state()
        self._generator.set_state(self._drawn_from)
        batches = self._draw()
        self._generator.set_state(now)
        return batches

    def _draw(self) -> list[tuple[int, list[Row]]]:
        batches: list[tuple[int, list[Row]]] = []
        for part, rows in enumerate(self._parts):
            shuffled = [rows[index] for index in torch.randperm(len(rows), generator=self._generator).tolist()]
            for start in range(0, len(shuffled), self._batch_size * self._window):
                near = sorted(shuffled[start : start + self._batch_size * self._window], key=self._length)
                batches += [
                    (part, near[place : place + self._batch_size]) for place in range(0, len(near), self._batch_size)
                ]
        return [batches[index] for index in torch.randperm(len(batches), generator=self._generator).tolist()]


def chunks(count: int, size: int | None) -> list[slice]:
    """Slices of at most `size` that cover `count` rows; one slice when `size` is None."""
    size = size or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
