"""The order in which training rows are used."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adjudge.training.batches import WINDOW, batch_count, chunks, epochs_of_batches


def batches(rows, size: int, epochs: int, seed: int = 0):
    return list(epochs_of_batches(rows, size, epochs, torch.Generator().manual_seed(seed), len))


def texts(count: int) -> list[str]:
    return [f"{'x' * (place * 37 % 50)}{place}" for place in range(count)]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3))
def test_every_row_comes_once_an_epoch(count: int, size: int, epochs: int) -> None:
    rows = texts(count)
    found = batches(rows, size, epochs)
    assert len(found) == batch_count(count, size, epochs)
    each = len(found) // epochs
    for epoch in range(epochs):
        part = found[epoch * each : (epoch + 1) * each]
        assert sorted(row for batch in part for row in batch) == sorted(rows)
        assert sorted(map(len, part)) == sorted([size] * (count // size) + ([count % size] if count % size else []))


def test_the_seed_decides_the_order_and_epochs_differ() -> None:
    rows = texts(40)
    assert batches(rows, 4, 2, seed=5) == batches(rows, 4, 2, seed=5)
    assert batches(rows, 4, 2, seed=5) != batches(rows, 4, 2, seed=6)
    found = batches(rows, 4, 2)
    assert found[:10] != found[10:]


def test_rows_of_a_batch_are_alike_in_length() -> None:
    rows = texts(4 * WINDOW)  # one window: then a batch holds neighbours in the order of length
    lengths = sorted(map(len, rows))
    for batch in batches(rows, 4, 1):
        found = sorted(map(len, batch))
        assert found in [lengths[place : place + 4] for place in range(0, len(lengths), 4)]


def test_batches_do_not_come_in_the_order_of_length() -> None:
    means = [sum(map(len, batch)) for batch in batches(texts(4 * WINDOW), 4, 1)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


def test_rows_are_not_touched_and_none_is_no_batch() -> None:
    rows = texts(10)
    before = list(rows)
    batches(rows, 3, 2)
    assert rows == before
    assert batches([], 4, 3) == []


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(5, 2, [(0, 2), (2, 4), (4, 5)]), (4, 2, [(0, 2), (2, 4)]), (3, None, [(0, 3)]), (3, 9, [(0, 3)]), (1, 1, [(0, 1)])],
)
def test_chunks_cover_all_rows(count: int, size: int | None, expected: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in chunks(count, size)] == expected


def test_without_padding_batches_are_random() -> None:
    rows = texts(4 * WINDOW)
    found = list(epochs_of_batches(rows, 4, 2, torch.Generator().manual_seed(0), len, padded=False))
    assert sorted(row for batch in found[:WINDOW] for row in batch) == sorted(rows)
    spread = [max(map(len, batch)) - min(map(len, batch)) for batch in found]
    alike = [max(map(len, batch)) - min(map(len, batch)) for batch in batches(rows, 4, 2)]
    assert sum(spread) > 3 * sum(alike)
