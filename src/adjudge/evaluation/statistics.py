"""How sure a figure is, and whether two methods differ: bootstrap intervals, paired tests, Holm's correction.

Shapes: ``N`` rows, ``K`` runs (seeds) of one method on the same rows, ``S`` resamples. Everything here treats the *row* as the
unit that is sampled: runs of a method on one row stay together, so that more seeds never pass for more data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adjudge.errors import DataError
from adjudge.tasks.metrics import encode, metric_for
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

Array = NDArray[Any]
BatchMetric = Callable[[Array, Array], Array]
"""(gold_SN, pred_SN) → value_S, as `adjudge.tasks.metrics.metric_for` returns it."""

LEVEL = 0.95
CHUNK_CELLS = 2_000_000
"""Resampled rows held in memory at once (16 MB an array)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The runs of one method on the same rows, as arrays."""

    ids: tuple[str, ...]
    gold_N: Array
    pred_KN: Array


def encode_runs(spec: TaskSpec, runs: Sequence[Sequence[Prediction]]) -> Encoded:
    """Encode the runs of one method; rows in the first run's order, whatever the order of the others.

    Raises DataError when there is no run or no row, an id occurs twice, the runs judged different rows, the same row has
    different gold answers, or a row has none.
    """
    if not runs or not runs[0]:
        raise DataError(f"{spec.name}: there are no predictions to compare.")
    ids = tuple(prediction.id for prediction in runs[0])
    golds = [prediction.gold for prediction in runs[0]]
    pred_KN = []
    for run in runs:
        ordered = _in_order(spec.name, ids, run)
        if [prediction.gold for prediction in ordered] != golds:
            raise DataError(f"{spec.name}: the runs have different gold answers for the same rows. Judge them on the same data.")
        gold_N, pred_N = encode(spec, golds, [prediction.value for prediction in ordered])
        pred_KN.append(pred_N)
    return Encoded(ids, gold_N, np.stack(pred_KN))


def bootstrap_interval(metric: BatchMetric, gold_N: Array, pred_KN: Array, resamples: int, seed: int) -> tuple[float, float, float]:
    """Return (value, low, high): the metric, averaged over the runs, with its percentile bootstrap 95 % interval.

    `pred_KN` holds K runs on the same rows, or is one run (N,). Rows are drawn with replacement, for all runs together.
    The interval says how far other rows of the same kind could move the value; the spread between seeds is part of it only in
    so far as they are averaged. For a metric that is undefined in some resamples it may not contain the value.
    Raises DataError when there are no rows. Source: Efron (1979); Efron and Tibshirani (1993), chapter 13.
    """
    pred_KN = np.atleast_2d(pred_KN)
    rows = _rows(gold_N, pred_KN)
    value = _mean_over_runs(metric, gold_N[None], pred_KN[:, None])[0]
    rng = np.random.default_rng(seed)
    drawn = []
    for count in _chunks(resamples, rows):
        index_SN = rng.integers(rows, size=(count, rows))
        drawn.append(_mean_over_runs(metric, gold_N[index_SN], (pred_N[index_SN] for pred_N in pred_KN)))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(np.concatenate(drawn), [tail, 100 - tail])
    return float(value), float(low), float(high)


def mcnemar(correct_a_N: Array, correct_b_N: Array) -> float:
    """Return the exact two-sided p of McNemar's test: is it a fair coin which of two judges is right where one of them is?

    Of the rows that only one of them got right, the share of either is compared with ½ (binomial). Valid for one run each:
    its rows must be independent. Source: McNemar (1947), in its exact form.
    """
    from scipy.stats import binom

    correct_a_N, correct_b_N = np.asarray(correct_a_N, dtype=bool), np.asarray(correct_b_N, dtype=bool)
    if correct_a_N.shape != correct_b_N.shape or correct_a_N.ndim != 1:
        raise ValueError(f"shapes {correct_a_N.shape} and {correct_b_N.shape}: both must be (N,), the same rows")
    only_a, only_b = int((correct_a_N & ~correct_b_N).sum()), int((correct_b_N & ~correct_a_N).sum())
    return min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_permutation(
    metric: BatchMetric, gold_N: Array, pred_a_KN: Array, pred_b_KN: Array, resamples: int, seed: int
) -> tuple[float, float]:
    """Return (difference a − b of the metric's mean over runs, its two-sided p) by swapping the methods row by row.

    If the methods were alike, it would not matter which one judged a row which way. So the answers of whole rows, all runs of
    a row together, change sides with probability ½; p = (1 + permutations at least as far from 0) / (1 + permutations).
    Where the methods have different numbers of runs, each method's runs are repeated up to the least common multiple, which
    leaves every mean as it is. Raises DataError when there are no rows. Source: Phipson and Smyth (2010) for the added 1.
    """
    pred_a_KN, pred_b_KN = np.atleast_2d(pred_a_KN), np.atleast_2d(pred_b_KN)
    rows = _rows(gold_N, pred_a_KN)
    _rows(gold_N, pred_b_KN)
    runs = math.lcm(len(pred_a_KN), len(pred_b_KN))
    pairs = list(zip(np.tile(pred_a_KN, (runs // len(pred_a_KN), 1)), np.tile(pred_b_KN, (runs // len(pred_b_KN), 1)), strict=True))
    difference = (
        _mean_over_runs(metric, gold_N[None], (a_N[None] for a_N, _ in pairs))
        - _mean_over_runs(metric, gold_N[None], (b_N[None] for _, b_N in pairs))
    )[0]
    rng = np.random.default_rng(seed)
    as_far = 0
    for count in _chunks(resamples, rows):
        swap_SN = rng.random((count, rows)) < 0.5
        gold_SN = np.broadcast_to(gold_N, swap_SN.shape)
        permuted_S = _mean_over_runs(metric, gold_SN, (np.where(swap_SN, b_N, a_N) for a_N, b_N in pairs)) - _mean_over_runs(
            metric, gold_SN, (np.where(swap_SN, a_N, b_N) for a_N, b_N in pairs)
        )
        # Sums in another order differ in the last bits; what is equal but for these is as far.
        as_far += int((np.abs(permuted_S) >= abs(difference) - 1e-9).sum())
    return float(difference), (1 + as_far) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, in the order given: family-wise error by Holm (1979).

    The i-th smallest of m (from 0) is multiplied with m − i, is never below a smaller one, and never above 1.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def compare_methods(
    specs: Sequence[TaskSpec],
    runs: Mapping[tuple[str, str], Sequence[Sequence[Prediction]]],
    *,
    resamples: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Test each pair of methods on the primary metric of each task.

    `runs` maps (task name, method) to the predictions of each of its runs (seeds). Returns, in the order of `specs` and
    `runs`, one dict per pair: ``task, metric, a, b, difference`` (a − b), ``p, p_holm`` (Holm over the whole list), ``test``.

    ``test`` is "mcnemar" for accuracy with one run per method, else "paired permutation". McNemar is not used on the pooled
    rows of several seeds: the same row judged by two seeds is no second, independent row, so pooling would count each row K
    times and make p far too small. Raises DataError when two methods judged different rows.
    """
    tests: list[dict[str, Any]] = []
    for spec in specs:
        encoded = {method: encode_runs(spec, found) for (task, method), found in runs.items() if task == spec.name}
        for a, b in combinations(encoded, 2):
            tests.append(_compare(spec, (a, encoded[a]), (b, encoded[b]), resamples, seed))
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    return tests


def _compare(spec: TaskSpec, a: tuple[str, Encoded], b: tuple[str, Encoded], resamples: int, seed: int) -> dict[str, Any]:
    (name_a, runs_a), (name_b, runs_b) = a, b
    order = _order(f"{spec.name}: {name_a} and {name_b}", runs_a.ids, runs_b.ids)
    pred_b_KN = runs_b.pred_KN[:, order]
    if not np.array_equal(runs_a.gold_N, runs_b.gold_N[order]):
        raise DataError(f"{spec.name}: {name_a} and {name_b} have different gold answers for the same rows.")
    if spec.primary == "accuracy" and len(runs_a.pred_KN) == len(pred_b_KN) == 1:
        right_a_N, right_b_N = runs_a.pred_KN[0] == runs_a.gold_N, pred_b_KN[0] == runs_a.gold_N
        test, difference, p = "mcnemar", float(right_a_N.mean() - right_b_N.mean()), mcnemar(right_a_N, right_b_N)
    else:
        test = "paired permutation"
        metric = metric_for(spec, spec.primary)
        difference, p = paired_permutation(metric, runs_a.gold_N, runs_a.pred_KN, pred_b_KN, resamples, seed)
    return {
        "task": spec.name,
        "metric": spec.primary,
        "a": name_a,
        "b": name_b,
        "difference": difference,
        "p": p,
        "p_holm": p,
        "test": test,
    }


def _in_order(task: str, ids: tuple[str, ...], run: Sequence[Prediction]) -> list[Prediction]:
    return [run[place] for place in _order(f"{task}: two runs", ids, tuple(prediction.id for prediction in run))]


def _order(who: str, ids: tuple[str, ...], others: tuple[str, ...]) -> list[int]:
    """Places of `ids` within `others`. Raises DataError unless both hold the same ids, each once."""
    place = {other: index for index, other in enumerate(others)}
    if len(place) != len(others) or len(set(ids)) != len(ids):
        twice = next(name for names in (ids, others) for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{who}: the row id '{twice}' occurs twice; ids must be unique.")
    if place.keys() != set(ids):
        lone = sorted(place.keys() ^ set(ids))
        raise DataError(f"{who} judged different rows ({len(lone)} are in one only, such as '{lone[0]}'). Judge the same rows.")
    return [place[name] for name in ids]


def _rows(gold_N: Array, pred_KN: Array) -> int:
    if pred_KN.ndim != 2 or gold_N.shape != pred_KN.shape[1:]:
        raise ValueError(f"gold {gold_N.shape} and predictions {pred_KN.shape}: must be (N,) and (K, N)")
    if not gold_N.size or not len(pred_KN):
        raise DataError("There are no rows to score.")
    return len(gold_N)


def _mean_over_runs(metric: BatchMetric, gold_SN: Array, preds_SN: Any) -> Array:
    values_KS = [metric(gold_SN, pred_SN) for pred_SN in preds_SN]
    return np.mean(values_KS, axis=0)


def _chunks(resamples: int, rows: int) -> Iterator[int]:
    """Split `resamples` so that no chunk holds more than CHUNK_CELLS rows."""
    size = max(1, CHUNK_CELLS // rows)
    for begin in range(0, resamples, size):
        yield min(size, resamples - begin)
