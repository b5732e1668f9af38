"""The order in which training rows are used."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adjudge.training.batches import WINDOW, Batches, chunks


def batches(rows, size: int, epochs: int, seed: int = 0):
    return [batch for _, batch in Batches([rows], size, epochs, torch.Generator().manual_seed(seed), len)]


def texts(count: int) -> list[str]:
    return [f"{'x' * (place * 37 % 50)}{place}" for place in range(count)]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3))
def test_every_row_comes_once_an_epoch(count: int, size: int, epochs: int) -> None:
    rows = texts(count)
    found = batches(rows, size, epochs)
    assert len(found) == epochs * -(-count // size)
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
    [
        (5, 2, [(0, 2), (2, 4), (4, 5)]),
        (4, 2, [(0, 2), (2, 4)]),
        (3, None, [(0, 3)]),
        (3, 9, [(0, 3)]),
        (1, 1, [(0, 1)]),
    ],
)
def test_chunks_cover_all_rows(count: int, size: int | None, expected: list[tuple[int, int]]) -> None:
    assert [(part.start, part.stop) for part in chunks(count, size)] == expected


def test_without_padding_batches_are_random() -> None:
    rows = texts(4 * WINDOW)
    found = [batch for _, batch in Batches([rows], 4, 2, torch.Generator().manual_seed(0), len, padded=False)]
    assert sorted(row for batch in found[:WINDOW] for row in batch) == sorted(rows)
    spread = [max(map(len, batch)) - min(map(len, batch)) for batch in found]
    alike = [max(map(len, batch)) - min(map(len, batch)) for batch in batches(rows, 4, 2)]
    assert sum(spread) > 3 * sum(alike)


def mixed(parts, size: int, epochs: int, seed: int = 0, padded: bool = True):
    return list(Batches(parts, size, epochs, torch.Generator().manual_seed(seed), len, padded))


PARTS = [[f"a{text}" for text in texts(21)], [f"b{text}" for text in texts(8)], [f"c{text}" for text in texts(1)]]


@pytest.mark.parametrize("padded", [True, False])
def test_a_mixed_batch_is_of_one_task_and_every_row_comes_once_an_epoch(padded: bool) -> None:
    found = mixed(PARTS, 4, 2, padded=padded)
    each = sum(-(-len(part) // 4) for part in PARTS)
    assert len(found) == 2 * each == 2 * (6 + 2 + 1)
    assert all({row[0] for row in batch} == {"abc"[place]} for place, batch in found)
    for epoch in (found[:each], found[each:]):
        assert sorted(row for _, batch in epoch for row in batch) == sorted(row for part in PARTS for row in part)
        assert sorted(len(batch) for _, batch in epoch) == [1, 1, 4, 4, 4, 4, 4, 4, 4]


def test_tasks_take_turns_at_random_by_the_seed() -> None:
    parts = [[f"a{number}" for number in range(80)], [f"b{number}" for number in range(80)]]
    places = [place for place, _ in mixed(parts, 4, 1)]
    assert sorted(places) == [0] * 20 + [1] * 20
    assert places not in (sorted(places), sorted(places, reverse=True))
    assert mixed(parts, 4, 2, seed=3) == mixed(parts, 4, 2, seed=3)
    assert mixed(parts, 4, 1, seed=3) != mixed(parts, 4, 1, seed=4)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (64, 4), (5, 8)])
def test_the_order_of_one_task_is_that_of_two_draws_an_epoch(count: int, size: int) -> None:
    """Written out: an adapter of a seed must stay the same, however many tasks there could be."""
    rows, draws = texts(count), torch.Generator().manual_seed(7)
    expected = []
    for _ in range(3):
        shuffled = [rows[place] for place in torch.randperm(count, generator=draws).tolist()]
        cut = [shuffled[start : start + size] for start in range(0, count, size)]
        cut = [sorted(batch, key=len) for batch in cut]
        expected += [cut[place] for place in torch.randperm(len(cut), generator=draws).tolist()]
    assert [
        batch for _, batch in Batches([rows], size, 3, torch.Generator().manual_seed(7), len, padded=False)
    ] == expected
    assert mixed([rows], size, 3, seed=7, padded=False) == [(0, batch) for batch in expected]
