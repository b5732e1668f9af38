"""Statistics of figures and methods: bootstrap intervals, paired tests, Holm's correction.

Shapes: ``N`` rows, ``U`` units, ``C`` values a metric keeps of a unit (see `adjudge.tasks.scoring.metrics`), ``K`` runs
(seeds) of one method on the same rows, ``S`` resamples.

Resampling draws *units*. A unit is a row, or a group of rows where a task's rows are in groups: the answers within a
group are not independent. All runs of a method on one unit stay together, so more seeds never pass for more data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adjudge.errors import DataError
from adjudge.tasks.reading.groups import is_grouped
from adjudge.tasks.scoring.metrics import BatchMetric, measure
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

Array = NDArray[Any]
Runs = Sequence[Sequence[Prediction]]
"""The predictions of each run of one method."""

LEVEL = 0.95
SHARES = frozenset(("accuracy", "exact_match", "group_exact", "gender_parity", "record_em"))
"""Metrics that are the share of units which are right."""
CHUNK_CELLS = 2_000_000
"""Resampled units held in memory at once (16 MB per array)."""


def align_runs(spec: TaskSpec, runs: Runs) -> list[list[Prediction]]:
    """Return the runs of one method, with the rows of each in the first run's order.

    Raises DataError when there is no run or no row, an id occurs twice, runs have different rows, or a row has
    different gold answers or groups.
    """
    if not runs or not runs[0]:
        raise DataError(f"{spec.name}: there are no predictions to compare.")
    return [_aligned(f"{spec.name}: two runs", runs[0], run) for run in runs]


def metric_interval(spec: TaskSpec, name: str, runs: Runs, resamples: int, seed: int) -> dict[str, float | None]:
    """Return a metric's ``value``, ``low`` and ``high`` over a method's aligned runs.

    See `bootstrap_interval`. Where all resamples are alike, they would claim certainty even from five rows. So a share
    (`SHARES`) of none or all of the units has the interval of `clopper_pearson`. Any other metric has none, and ``low``
    and ``high`` are None, when every row is judged right, every row wrong, or there is one unit.
    """
    kept_KCU, metric = _measure(spec, name, runs)
    value, low, high = bootstrap_interval(metric, kept_KCU, resamples, seed)
    if low == high and name in SHARES and value in (0.0, 1.0):
        units = kept_KCU.shape[2]
        low, high = clopper_pearson(units if value else 0, units)
    elif low == high and _is_all_alike(runs, kept_KCU):
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": low, "high": high}


def clopper_pearson(hits: int, units: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share: `hits` of `units`, at least one unit.

    Source: Clopper and Pearson (1934).
    """
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, units - hits + 1))
    high = 1.0 if hits == units else float(beta.ppf(1 - tail, hits + 1, units - hits))
    return low, high


def _is_all_alike(runs: Runs, kept_KCU: Array) -> bool:
    """Return whether there is one unit, or all rows are right, or all wrong."""
    right = {prediction.value == prediction.gold for run in runs for prediction in run}
    return kept_KCU.shape[2] == 1 or len(right) == 1


def bootstrap_interval(metric: BatchMetric, kept_KCU: Array, resamples: int, seed: int) -> tuple[float, float, float]:
    """Return (value, low, high): the metric's mean over runs and its bootstrap 95 % interval.

    `kept_KCU` holds the values kept of K runs on the same units. Units are drawn with replacement, for all runs
    together, and the interval's ends are percentiles. With groups of rows as units, this is the cluster bootstrap
    (Davison and Hinkley 1997, section 3.8).

    The interval covers the choice of units: how far other units of the same kind could move the value. The spread
    between seeds enters only through their mean. With a metric that is undefined in some resamples, the interval may
    not contain the value. Raises DataError when there are no units.
    Source: Efron (1979); Efron and Tibshirani (1993), chapter 13.
    """
    drawn_S = _resampled(metric, kept_KCU, resamples, seed).mean(0)
    value = _mean_over_runs(metric, kept_KCU[:, :, None])[0]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn_S, [tail, 100 - tail])
    return float(value), float(low), float(high)


def resampled(spec: TaskSpec, name: str, runs: Runs, resamples: int, seed: int) -> tuple[Array, Array]:
    """Return each run's value of a metric, ``[K]``, and its values in every resample, ``[K, S]``.

    All runs see the same draws of units, so differences between them can be taken draw by draw. Raises as `align_runs`.
    """
    kept_KCU, metric = _measure(spec, name, align_runs(spec, runs))
    value_K = np.array([metric(kept_CU[:, None])[0] for kept_CU in kept_KCU])
    return value_K, _resampled(metric, kept_KCU, resamples, seed)


def _resampled(metric: BatchMetric, kept_KCU: Array, resamples: int, seed: int) -> Array:
    """Return each run's value in every resample of the units, which all runs share, ``[K, S]``."""
    units = _units(kept_KCU)
    rng = np.random.default_rng(seed)
    drawn = []
    for count in _chunks(resamples, kept_KCU):
        index_SU = rng.integers(units, size=(count, units))
        drawn.append(np.stack([metric(kept_CU[:, index_SU]) for kept_CU in kept_KCU]))
    return np.concatenate(drawn, 1)


def mcnemar(correct_a_N: Array, correct_b_N: Array) -> float:
    """Return the exact two-sided p-value of McNemar's test on two judges of the same rows.

    Among the rows only one judge got right, the share of either judge is compared with ½ (binomial test). Needs
    independent rows, so it is valid for one run per judge. Source: McNemar (1947), in its exact form.
    """
    from scipy.stats import binom

    correct_a_N, correct_b_N = np.asarray(correct_a_N, dtype=bool), np.asarray(correct_b_N, dtype=bool)
    if correct_a_N.shape != correct_b_N.shape or correct_a_N.ndim != 1:
        raise ValueError(f"shapes {correct_a_N.shape} and {correct_b_N.shape}: both must be (N,), the same rows")
    only_a, only_b = int((correct_a_N & ~correct_b_N).sum()), int((correct_b_N & ~correct_a_N).sum())
    return min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_permutation(
    metric: BatchMetric, a_KCU: Array, b_KCU: Array, resamples: int, seed: int
) -> tuple[float, float]:
    """Return (difference a − b, two-sided p) of the metric's mean over runs.

    Under the null hypothesis the methods are alike, and swapping their answers to a unit changes nothing. So whole
    units, all runs together, change sides with probability ½:
    p = (1 + permutations at least as far from 0) / (1 + permutations).

    With different numbers of runs, each method's runs are repeated up to the least common multiple, which keeps every
    mean. Raises DataError when there are no units. Source: Phipson and Smyth (2010) for the added 1.
    """
    units = _units(a_KCU)
    if a_KCU.shape[1:] != b_KCU.shape[1:]:
        raise ValueError(f"shapes {a_KCU.shape} and {b_KCU.shape}: both must be (K, C, U), the same units")
    runs = math.lcm(len(a_KCU), len(b_KCU))
    pairs = list(
        zip(np.tile(a_KCU, (runs // len(a_KCU), 1, 1)), np.tile(b_KCU, (runs // len(b_KCU), 1, 1)), strict=True)
    )
    difference = (
        _mean_over_runs(metric, (a_CU[:, None] for a_CU, _ in pairs))
        - _mean_over_runs(metric, (b_CU[:, None] for _, b_CU in pairs))
    )[0]
    rng = np.random.default_rng(seed)
    as_far = 0
    for count in _chunks(resamples, a_KCU):
        swap_SU = rng.random((count, units)) < 0.5
        permuted_S = _mean_over_runs(
            metric, (np.where(swap_SU, b_CU[:, None], a_CU[:, None]) for a_CU, b_CU in pairs)
        ) - _mean_over_runs(metric, (np.where(swap_SU, a_CU[:, None], b_CU[:, None]) for a_CU, b_CU in pairs))
        # Sums in another order differ in the last bits: a difference equal except for these counts as equal.
        as_far += int((np.abs(permuted_S) >= abs(difference) - 1e-9).sum())
    return float(difference), (1 + as_far) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's correction (family-wise error), in the same order.

    The i-th smallest of m (from 0) is multiplied by m − i; the results never decrease and never exceed 1.
    Source: Holm (1979).
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def compare_methods(
    specs: Sequence[TaskSpec],
    runs: Mapping[tuple[str, str], Runs],
    *,
    resamples: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Test each pair of methods on the primary metric of each task.

    `runs` maps (task name, method) to the predictions of each run (seed). Returns one dict per pair, in the order of
    `specs` and `runs`: ``task, metric, a, b, difference`` (a − b), ``p, p_holm`` (Holm over the whole list), ``test``.

    ``test`` is "mcnemar" for accuracy with one run per method and rows without groups, else "paired permutation".
    McNemar's test is not used on the pooled rows of several seeds. A row judged by two seeds is not two independent
    rows, so pooling would count each row K times and make p far too small.
    Raises DataError when two methods judged different rows.
    """
    tests: list[dict[str, Any]] = []
    for spec in specs:
        aligned = {method: align_runs(spec, seeds) for (task, method), seeds in runs.items() if task == spec.name}
        for a, b in combinations(aligned, 2):
            tests.append(_compare(spec, (a, aligned[a]), (b, aligned[b]), resamples, seed))
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    return tests


def _compare(spec: TaskSpec, a: tuple[str, Runs], b: tuple[str, Runs], resamples: int, seed: int) -> dict[str, Any]:
    (name_a, runs_a), (name_b, runs_b) = a, b
    runs_b = [_aligned(f"{spec.name}: {name_a} and {name_b}", runs_a[0], run) for run in runs_b]
    a_KCU, metric = _measure(spec, spec.primary, runs_a)
    b_KCU, _ = _measure(spec, spec.primary, runs_b)
    if spec.primary == "accuracy" and len(a_KCU) == len(b_KCU) == 1 and not is_grouped(runs_a[0]):
        right_a_N, right_b_N = (gold_N == pred_N for gold_N, pred_N in (a_KCU[0], b_KCU[0]))
        test, difference, p = "mcnemar", float(right_a_N.mean() - right_b_N.mean()), mcnemar(right_a_N, right_b_N)
    else:
        test = "paired permutation"
        difference, p = paired_permutation(metric, a_KCU, b_KCU, resamples, seed)
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


def _measure(spec: TaskSpec, name: str, runs: Runs) -> tuple[Array, BatchMetric]:
    """Return kept_KCU, the values a metric keeps of aligned runs, and the metric."""
    measured = [measure(spec, name, run) for run in runs]
    return np.stack([run.kept_CU for run in measured]), measured[0].value


def _aligned(who: str, first: Sequence[Prediction], run: Sequence[Prediction]) -> list[Prediction]:
    """Return the rows of `run` in the order of `first`.

    Raises DataError unless both judged the same rows.
    """
    ids, others = (tuple(prediction.id for prediction in rows) for rows in (first, run))
    ordered = [run[index] for index in _order(who, ids, others)]
    if [prediction.gold for prediction in ordered] != [prediction.gold for prediction in first]:
        raise DataError(f"{who} have different gold answers for the same rows. Judge them on the same data.")
    if [prediction.group for prediction in ordered] != [prediction.group for prediction in first]:
        raise DataError(f"{who} have the same rows in different groups. Judge them on the same data.")
    return ordered


def _order(who: str, ids: tuple[str, ...], others: tuple[str, ...]) -> list[int]:
    """Return the positions of `ids` within `others`.

    Raises DataError unless both hold the same ids, each once.
    """
    positions = {other: index for index, other in enumerate(others)}
    if len(positions) != len(others) or len(set(ids)) != len(ids):
        duplicate = next(name for names in (ids, others) for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{who}: the row id '{duplicate}' occurs twice; ids must be unique.")
    if positions.keys() != set(ids):
        unmatched = sorted(positions.keys() ^ set(ids))
        raise DataError(
            f"{who} judged different rows ({len(unmatched)} are in one only, such as '{unmatched[0]}'). "
            "Judge the same rows."
        )
    return [positions[name] for name in ids]


def _units(kept_KCU: Array) -> int:
    """Return the number of units. Raises DataError when there are none."""
    if kept_KCU.ndim != 3:
        raise ValueError(f"shape {kept_KCU.shape}: must be (K, C, U)")
    if not kept_KCU.size:
        raise DataError("There are no rows to score.")
    return kept_KCU.shape[2]


def _mean_over_runs(metric: BatchMetric, kept_KCSU: Iterable[Array]) -> Array:
    values_KS = [metric(kept_CSU) for kept_CSU in kept_KCSU]
    return np.mean(values_KS, axis=0)


def _chunks(resamples: int, kept_KCU: Array) -> Iterator[int]:
    """Split `resamples` into chunks of at most CHUNK_CELLS units of two numbers each."""
    _, kept, units = kept_KCU.shape
    size = max(1, CHUNK_CELLS // (units * max(1, kept // 2)))
    for begin in range(0, resamples, size):
        yield min(size, resamples - begin)
