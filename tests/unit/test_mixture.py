"""How many rows of each task a mixture holds, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.training.mixture import mixture_weights, rows_per_task


@pytest.mark.parametrize(
    ("mixture", "sizes", "total", "expected"),
    [
        ("proportional", [600, 300, 100], 100, [60, 30, 10]),
        ("equal", [600, 300, 100], 90, [30, 30, 30]),
        ("temperature=2", [900, 100], 40, [30, 10]),  # square roots: 30 and 10
        ("temperature=1", [600, 300, 100], 100, [60, 30, 10]),
        ("temperature=1000000", [600, 300, 100], 90, [30, 30, 30]),
        # the shares of 3 rows are 1.5, 0.9 and 0.6, rounded down 1, 0 and 0; the other two rows go to the largest
        # remainders
        ("proportional", [5, 3, 2], 3, [1, 1, 1]),
        ("equal", [9, 9, 9], 4, [2, 1, 1]),  # equal remainders: the first task first
        # a task that has fewer rows than its share gives them all, and the others share the rest
        ("equal", [8551, 2490, 635], 3000, [1183, 1182, 635]),
        ("equal", [1000, 1000, 635], 2635, [1000, 1000, 635]),
        ("equal", [10, 20, 1000], 100, [10, 20, 70]),
        ("temperature=2", [100, 100, 900], 100, [20, 20, 60]),  # square roots: 10, 10 and 30
        # 4, 2 and 30 of 90 would be 10, 5 and 75; the second has 4 rows, and 4 and 30 of the other 86 are 10.1 and 75.9
        ("temperature=2", [16, 4, 900], 90, [10, 4, 76]),
        ("proportional", [3, 2], 1, [1, 0]),
        ("proportional", [3, 2], 5, [3, 2]),
        ("equal", [3, 2], 50, [3, 2]),
        ("equal", [7], 3, [3]),
    ],
)
def test_shares_by_hand(mixture, sizes, total, expected):
    assert rows_per_task(sizes, mixture, total) == expected


@pytest.mark.parametrize(
    ("mixture", "sizes", "expected"),
    [
        ("proportional", [8551, 2490, 635], [8551, 2490, 635]),
        ("equal", [8551, 2490, 635], [635, 635, 635]),
        ("temperature=2", [900, 100], [300, 100]),
        ("temperature=2.5", [50], [50]),
    ],
)
def test_without_a_number_as_many_as_the_shares_allow(mixture, sizes, expected):
    assert rows_per_task(sizes, mixture, None) == expected


SIZES = st.lists(st.integers(1, 400_000), min_size=1, max_size=12)
MIXTURES = st.sampled_from(["proportional", "equal", "temperature=2", "temperature=3.7"])


@given(SIZES, MIXTURES, st.integers(1, 500_000))
def test_no_row_twice_and_none_too_few(sizes, mixture, total):
    counts = rows_per_task(sizes, mixture, total)
    assert sum(counts) == min(total, sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    free = [place for place, (count, size) in enumerate(zip(counts, sizes, strict=True)) if count < size - 1]
    weights = mixture_weights(sizes, mixture)
    for a in free:  # where no task is short of rows, the counts are as the weights, but for rounding
        for b in free:
            level_a, level_b = counts[a] / weights[a], counts[b] / weights[b]
            assert abs(level_a - level_b) <= 1.001 / min(weights[a], weights[b])


@given(SIZES, st.integers(1, 5000))
def test_equal_shares_of_what_single_runs_take_are_the_same_numbers(sizes, each):
    """A mixture with the budget of its single-task twins has as many rows of each task as the twin."""
    twins = [min(each, size) for size in sizes]
    assert rows_per_task(sizes, "equal", sum(twins)) == twins


@pytest.mark.parametrize("good", ["proportional", "equal", "temperature=2", "temperature=1.5", "temperature=10"])
def test_mixtures_that_there_are(good):
    assert load_config(overrides=[f"data.mixture={good}"]).data.mixture == good


@pytest.mark.parametrize(
    "bad", ["even", "temperature", "temperature=0", "temperature=0.5", "temperature=-2", "temperature=x", "2"]
)
def test_mixtures_that_there_are_not(bad):
    with pytest.raises(
        ConfigError, match=r"data\.mixture.*proportional, equal, temperature=T with a T from 1, or rows=A,B"
    ):
        load_config(values={"data.mixture": bad})


def test_named_numbers_of_rows():
    assert rows_per_task([10, 5, 8], "rows=3,5,1", None) == [3, 5, 1]
    with pytest.raises(ConfigError, match="has 2 numbers for 3 tasks: write one per task"):
        rows_per_task([10, 5, 8], "rows=3,5", None)
    with pytest.raises(ConfigError, match="asks for 6 rows of a task that has 5"):
        rows_per_task([10, 5], "rows=3,6", None)
