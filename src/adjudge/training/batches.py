"""The order in which training rows are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

Row = TypeVar("Row")


def epochs_of_batches(rows: Sequence[Row], batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[list[Row]]:
    """Yield batches, each epoch in a new random order drawn from `generator`; the last batch of an epoch may be smaller."""
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator).tolist()
        for start in range(0, len(order), batch_size):
            yield [rows[index] for index in order[start : start + batch_size]]


def batch_count(rows: int, batch_size: int, epochs: int) -> int:
    """How many batches `epochs_of_batches` yields."""
    return epochs * -(-rows // batch_size)


def chunks(count: int, size: int | None) -> list[slice]:
    """Slices of at most `size` that cover `count` rows; one slice when `size` is None."""
    size = size or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
