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


def test_balanced_epochs_have_every_label_equally_often() -> None:
    """Of 20 rows 3 are rare: those repeat, and the others are drawn anew each epoch."""
    rows = [f"{'rare' if number < 3 else 'often'}{number:02}" for number in range(20)]
    labels = [row[:-2] for row in rows]

    def balanced(seed: int = 0) -> Batches[str]:
        return Batches([rows], 4, 3, torch.Generator().manual_seed(seed), len, padded=False, labels=[labels])

    found = list(balanced())
    assert len(found) == len(balanced()) == 3 * 5, "as many batches as without"
    epochs = [[row for _, batch in found[start : start + 5] for row in batch] for start in (0, 5, 10)]
    for epoch in epochs:
        assert len(epoch) == 20
        assert sum(row.startswith("rare") for row in epoch) == 10
        assert sorted(epoch.count(row) for row in rows[:3]) == [3, 3, 4]
        assert max(epoch.count(row) for row in rows[3:]) == 1
    assert len({frozenset(epoch) for epoch in epochs}) == 3, "other rows of the frequent label in each epoch"
    assert list(balanced()) == found != list(balanced(seed=1))


def test_a_balanced_order_resumes_in_the_middle_of_an_epoch() -> None:
    rows, labels = texts(11), ["a"] * 9 + ["b"] * 2

    def balanced(generator: torch.Generator) -> Batches[str]:
        return Batches([rows], 2, 3, generator, len, labels=[labels])

    whole = list(balanced(torch.Generator().manual_seed(3)))
    for stop in (1, 6, 9):
        generator = torch.Generator().manual_seed(3)
        stopped = balanced(generator)
        begun = [batch for _, batch in zip(range(stop), stopped, strict=False)]
        again = torch.Generator()
        again.set_state(generator.get_state())
        resumed = balanced(again)
        resumed.load_state_dict(stopped.state_dict())
        assert begun + list(resumed) == whole


def test_three_labels_of_a_number_of_rows_that_is_no_multiple() -> None:
    labels = ["a"] * 7 + ["b"] * 2 + ["c"]
    (epoch,) = [[row for _, batch in Batches([labels], 4, 1, torch.Generator(), len, labels=[labels]) for row in batch]]
    assert {label: epoch.count(label) for label in "abc"} == {"a": 4, "b": 3, "c": 3}
