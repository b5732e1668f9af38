"""Rankings from comparisons: counts and orders by hand, with scripted oracles; isotonic curves against scikit-learn."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from adjudge.evaluation.ranked_judge import interpolated, scaled_share
from adjudge.evaluation.ranking import Pair, Ranker, Ranking, advance, allpair, heapsort, sliding, threshold


def counted(ranker: Ranker, items: Sequence[float], oracle: Callable[[float, float], float]) -> tuple[int, Ranking]:
    """Run a ranker alone; return how many comparisons it asked for, and its ranking."""
    asked, pairs = 0, next(ranker)
    while True:
        asked += len(pairs)
        try:
            pairs = ranker.send([oracle(items[first], items[second]) for first, second in pairs])
        except StopIteration as end:
            return asked, end.value


def larger(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def test_all_pairs_of_four() -> None:
    asked, ranking = counted(allpair(4), [3, 2, 1, 0], larger)
    assert asked == 6
    assert ranking.order == [0, 1, 2, 3]
    assert [3 * score for score in ranking.score] == pytest.approx([3, 2, 1, 0])


@pytest.mark.parametrize(("items", "comparisons"), [([2, 0, 3, 1], 6), ([0, 1, 2, 3], 7), (list(range(16)), 85)])
def test_heapsort(items: list[int], comparisons: int) -> None:
    asked, ranking = counted(heapsort(len(items)), items, larger)
    assert asked == comparisons <= 2 * len(items) * math.ceil(math.log2(len(items)))
    assert [items[index] for index in ranking.order] == sorted(items, reverse=True)


@pytest.mark.parametrize(
    ("passes", "comparisons", "order"), [(1, 3, [3, 0, 1, 2]), (2, 5, [3, 2, 0, 1]), (3, 6, [3, 2, 1, 0])]
)
def test_sliding(passes: int, comparisons: int, order: list[int]) -> None:
    asked, ranking = counted(sliding(4, passes), [0, 1, 2, 3], larger)
    assert (asked, ranking.order) == (comparisons, order)
    assert [ranking.score[item] for item in order] == pytest.approx([1, 2 / 3, 1 / 3, 0])


@pytest.mark.parametrize("ranker", [allpair, heapsort, lambda count: sliding(count, 5)])
def test_only_ties_keep_the_initial_order(ranker: Callable[[int], Ranker]) -> None:
    _, ranking = counted(ranker(5), [0] * 5, larger)
    assert ranking.order == [0, 1, 2, 3, 4]
    if ranker is allpair:
        assert ranking.score == [0.5] * 5  # (N - 1) / 2 wins each


@pytest.mark.parametrize("ranker", [allpair, heapsort, lambda count: sliding(count, 9)])
def test_a_transitive_oracle_ranks_alike_from_any_order(ranker: Callable[[int], Ranker]) -> None:
    for seed in range(20):
        items = random.Random(seed).sample(range(100), 7)
        _, ranking = counted(ranker(7), items, larger)
        assert [items[index] for index in ranking.order] == sorted(items, reverse=True)


def test_groups_advance_together_and_no_pair_is_asked_twice() -> None:
    groups = [[2, 0, 3, 1], [5], [], [1, 0], list(range(16))]
    rounds: list[list[tuple[int, Pair]]] = []

    def compare(wanted: list[tuple[int, Pair]]) -> list[float]:
        rounds.append(wanted)
        return [larger(groups[at][first], groups[at][second]) for at, (first, second) in wanted]

    rankings = advance([heapsort(len(group)) for group in groups], compare)
    for group, ranking in zip(groups, rankings, strict=True):
        assert [group[index] for index in ranking.order] == sorted(group, reverse=True)
    assert rankings[1].score == [0.5]
    assert {at for at, _ in rounds[0]} == {0, 3, 4}
    asked = [(at, frozenset(pair)) for wanted in rounds for at, pair in wanted]
    assert len(asked) == len(set(asked))


def test_thresholds_by_hand() -> None:
    assert threshold([0.1, 0.2, 0.6, 0.8], [False, False, True, True]) == pytest.approx(0.4)
    # Nothing is told apart: what most rows are.
    assert threshold([0.5, 0.5, 0.5], [True, True, False]) == 0
    assert threshold([0.5, 0.5, 0.5], [True, False, False]) == 2
    assert threshold([0.2, 0.7], [True, True]) == 0
    assert threshold([0.2, 0.7], [False, False]) == 2
    # One of nine is positive and stands highest: both recalls count the same, not the rows.
    assert threshold([0.9, *[0.1] * 8, 0.95], [True, *[False] * 9]) == pytest.approx(0.5)
    assert [scaled_share(score, 0.4) for score in (0, 0.2, 0.4, 0.7, 1)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert (scaled_share(0, 0), scaled_share(1, 0), scaled_share(1, 1)) == (0.5, 1, 0.5)
    assert 0 <= scaled_share(1, 2) <= 0.5


def test_the_curve_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    scores, golds = generator.integers(0, 25, 40) / 24, generator.uniform(0, 5, 40)
    model = IsotonicRegression(y_min=0, y_max=5, out_of_bounds="clip").fit(scores, golds)
    curve = list(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))
    asked = np.linspace(-0.1, 1.1, 49)
    assert [interpolated(curve, score) for score in asked] == pytest.approx(model.predict(asked).tolist())
    assert interpolated([(0.5, 2.5)], 0.1) == interpolated([(0.5, 2.5)], 0.5) == 2.5
