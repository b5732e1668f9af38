"""Rankings from comparisons of pairs, as pure functions: what to compare next, and the final ranking.

A ranker is a generator over the items ``0 … count - 1``, which stand in their initial order. It yields pairs to compare
and is sent each pair's outcome: the share of a win that the first item got (1 win, 0 loss, ½ tie). So the rankers of
many groups advance together, and the comparisons that they wait for are one batch.

Source: arXiv 2306.17563 (pairwise ranking prompting).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import NamedTuple

Pair = tuple[int, int]
TIE = 0.5


class Ranking(NamedTuple):
    """The items from the best to the worst, and each item's score from 0 to 1."""

    order: list[int]
    score: list[float]


Ranker = Generator[list[Pair], list[float], Ranking]


def allpair(count: int) -> Ranker:
    """Compare every pair once. An item's score is its share of wins, with a tie as half a win.

    Equal scores keep their initial order.
    """
    pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
    wins = [0.0] * count
    for (first, second), outcome in zip(pairs, (yield pairs) if pairs else [], strict=True):
        wins[first] += outcome
        wins[second] += 1 - outcome
    order = sorted(range(count), key=lambda item: -wins[item])
    return Ranking(order, [win / (count - 1) for win in wins] if count > 1 else [TIE] * count)


def heapsort(count: int) -> Ranker:
    """Sort by comparisons, about ``N log2 N`` pairs, one after the other.

    Of a tie the earlier item is the better one. Comparisons of a model need not be transitive; then the order is one of
    several.
    """
    heap = list(range(count))
    for root in range(count // 2 - 1, -1, -1):
        yield from _sift_down(heap, root, count)
    for end in range(count - 1, 0, -1):
        heap[0], heap[end] = heap[end], heap[0]
        yield from _sift_down(heap, 0, end)
    order = heap[::-1]
    return Ranking(order, _by_rank(order))


def _sift_down(heap: list[int], root: int, end: int) -> Generator[list[Pair], list[float], None]:
    """Move the item at `root` down the heap, whose root is the best of its items."""
    while (child := 2 * root + 1) < end:
        if child + 1 < end and (yield from _better(heap[child + 1], heap[child])):
            child += 1
        if not (yield from _better(heap[child], heap[root])):
            return
        heap[root], heap[child] = heap[child], heap[root]
        root = child


def _better(first: int, second: int) -> Generator[list[Pair], list[float], bool]:
    (outcome,) = yield [(first, second)]
    return outcome > TIE or (outcome == TIE and first < second)


def sliding(count: int, passes: int) -> Ranker:
    """Pass over the items from the last to the first, and swap neighbours of which the lower one wins.

    After K passes the first K are right. A tie keeps the order. Pass p stops where the earlier ones ended.
    """
    order = list(range(count))
    for top in range(min(passes, count - 1)):
        for index in range(count - 1, top, -1):
            if (yield [(order[index], order[index - 1])])[0] > TIE:
                order[index], order[index - 1] = order[index - 1], order[index]
    return Ranking(order, _by_rank(order))


def most_pairs(count: int, ranking: str, passes: int) -> int:
    """Return how many pairs of `count` items a ranker compares at most."""
    every = count * (count - 1) // 2
    if ranking != "sliding":
        return every  # heapsort needs no pair twice
    return sum(count - 1 - top for top in range(min(passes, max(0, count - 1))))


def advance(rankers: Sequence[Ranker], compare: Callable[[list[tuple[int, Pair]]], Sequence[float]]) -> list[Ranking]:
    """Run rankers together to their ends.

    `compare` gets pairs with the index of their ranker, and returns outcomes. No pair of a ranker is compared twice, in
    either direction.
    """
    rankings: dict[int, Ranking] = {}
    waiting: dict[int, list[Pair]] = {}
    known: dict[tuple[int, Pair], float] = {}

    def go_on(index: int, outcomes: list[float] | None) -> None:
        try:
            ranker = rankers[index]
            waiting[index] = next(ranker) if outcomes is None else ranker.send(outcomes)
        except StopIteration as end:
            waiting.pop(index, None)
            rankings[index] = end.value

    for index in range(len(rankers)):
        go_on(index, None)
    while waiting:
        wanted = [(index, pair) for index, pairs in waiting.items() for pair in pairs]
        todo = [each for each in dict.fromkeys(wanted) if each not in known]
        for (index, (first, second)), outcome in zip(todo, compare(todo) if todo else (), strict=True):
            known[index, (first, second)] = outcome
            known[index, (second, first)] = 1 - outcome
        for index, pairs in list(waiting.items()):
            go_on(index, [known[index, pair] for pair in pairs])
    return [rankings[index] for index in range(len(rankers))]


def _by_rank(order: Sequence[int]) -> list[float]:
    """Return scores that fall evenly from 1 for the first item to 0 for the last; ½ for a single one."""
    count = len(order)
    score = [TIE] * count
    for rank, item in enumerate(order if count > 1 else ()):
        score[item] = 1 - rank / (count - 1)
    return score


def threshold(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the threshold from which scores are called positive with the best mean recall of both sides.

    It lies midway between two scores; or outside all of them: 0 calls every row positive, 2 none. Of equally good ones
    it is the one with the most rows right, then the one in the widest gap.
    """
    ones, zeros = sum(positive), sum(not each for each in positive)
    distinct = sorted(set(scores))
    gaps = [(high - low, (low + high) / 2) for low, high in pairwise(distinct)]

    def quality(cut: tuple[float, float]) -> tuple[float, int, float]:
        right = [(score >= cut[1]) == is_one for score, is_one in zip(scores, positive, strict=True)]
        right_ones = sum(each and is_one for each, is_one in zip(right, positive, strict=True))
        recalls = right_ones / max(1, ones) + (sum(right) - right_ones) / max(1, zeros)
        return recalls, sum(right), cut[0]

    return max([(0.0, 0.0), *gaps, (0.0, 2.0)], key=quality)[1]
