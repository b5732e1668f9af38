"""The official metrics of GLUE and SuperGLUE, over many resamples of the rows at once.

Shapes: ``S`` resamples, ``N`` rows, ``L`` labels. A label is its place in the task's words, 0 … L−1; a prediction of −1 is an
unreadable answer. **An unreadable answer always counts as wrong**: it is a class of its own that equals no gold answer; for
``f1`` it is the wrong one of positive and negative; for number tasks it becomes the end of the range farther from the gold.

Where a metric is undefined (a correlation with predictions that are all equal, F1 without a positive anywhere) it is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adjudge.errors import DataError, TaskError, nearest
from adjudge.tasks.spec import NumberAnswer, TaskSpec
from adjudge.types import Value

Array = NDArray[Any]
BatchMetric = Callable[[Array, Array], Array]
"""(gold_SN, pred_SN) → value_S."""

UNREADABLE = -1
"""The encoded prediction of an unreadable answer in a label task; lives only inside encoded arrays."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to sum up predictions. `function` takes (gold_SN, pred_SN, n_labels, positive) and returns value_S.

    `n_labels` and `positive` (the place of the positive label) are ignored by number metrics.
    """

    name: str
    title: str
    kind: Literal["labels", "number"]
    function: Callable[[Array, Array, int, int], Array]
    higher_is_better: bool = True


def metric_for(spec: TaskSpec, name: str) -> BatchMetric:
    """Return the metric with the task's number of labels and positive label filled in.

    Raises TaskError for an unknown metric, one of the other kind, or a positive label that is no label.
    """
    if name not in METRICS:
        raise TaskError(f"{spec.name}: there is no metric '{name}'.{nearest(name, METRICS)}")
    metric = METRICS[name]
    kind = "number" if spec.is_number else "labels"
    if metric.kind != kind:
        fitting = [other.name for other in METRICS.values() if other.kind == kind]
        raise TaskError(
            f"{spec.name}: the metric '{name}' does not fit a task whose answers are {kind}. Use: {', '.join(fitting)}."
        )
    positive = _positive(spec)
    return lambda gold_SN, pred_SN: metric.function(gold_SN, pred_SN, len(spec.words), positive)


def encode(spec: TaskSpec, golds: Sequence[Value | None], values: Sequence[Value | None]) -> tuple[Array, Array]:
    """Turn gold answers and predictions (None = unreadable) into (gold_N, pred_N): int64 labels or float64 numbers.

    Raises DataError for a missing gold answer, a value that is no answer of the task, or lists of different lengths.
    """
    if len(golds) != len(values):
        raise DataError(f"{spec.name}: {len(values)} predictions for {len(golds)} gold answers.")
    for row, gold in enumerate(golds):
        if gold is None:
            raise DataError(f"{spec.name}: row {row} has no gold answer, so it cannot be scored. Judge a labelled split.")
    number = spec.number
    if number is not None:
        gold_N = np.array([_number(spec, row, gold) for row, gold in enumerate(golds)], dtype=np.float64)
        pred_N = np.array(
            [
                _farther_end(gold, number) if value is None else _number(spec, row, value)
                for row, (gold, value) in enumerate(zip(gold_N.tolist(), values, strict=True))
            ],
            dtype=np.float64,
        )
        return gold_N, pred_N
    place = {word: index for index, word in enumerate(spec.words)}
    gold_N = np.array([_label(spec, place, row, gold) for row, gold in enumerate(golds)], dtype=np.int64)
    pred_N = np.array(
        [UNREADABLE if value is None else _label(spec, place, row, value) for row, value in enumerate(values)], dtype=np.int64
    )
    return gold_N, pred_N


def compute(spec: TaskSpec, name: str, golds: Sequence[Value | None], values: Sequence[Value | None]) -> float:
    """Return one metric of one set of predictions. Raises as `metric_for` and `encode`; DataError when there are no rows."""
    metric = metric_for(spec, name)
    gold_N, pred_N = encode(spec, golds, values)
    if not len(gold_N):
        raise DataError(f"{spec.name}: there are no rows to score.")
    return float(metric(gold_N[None], pred_N[None])[0])


def accuracy(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """Share of rows judged right."""
    return (gold_SN == pred_SN).mean(-1)


def f1(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """F1 of the positive label, 2 tp / (2 tp + fp + fn). An unreadable answer is a false positive or a false negative."""
    is_gold_SN = gold_SN == positive
    is_pred_SN = np.where(pred_SN == UNREADABLE, ~is_gold_SN, pred_SN == positive)
    both_S = (is_gold_SN & is_pred_SN).sum(-1)
    return _ratio(2.0 * both_S, is_gold_SN.sum(-1) + is_pred_SN.sum(-1))


def macro_f1(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """Mean of the labels' F1 over those labels that occur among the gold or predicted ones.

    Unreadable is no label to average over; such a row is a miss of its gold label.
    """
    confusion_SLP = _confusion(gold_SN, pred_SN, n_labels)
    hits_SL = np.diagonal(confusion_SLP, axis1=1, axis2=2)[:, :n_labels]
    seen_SL = confusion_SLP.sum(2) + confusion_SLP[:, :, :n_labels].sum(1)
    return _ratio(_ratio(2.0 * hits_SL, seen_SL).sum(-1), (seen_SL > 0).sum(-1))


def matthews(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """Matthews correlation, for any number of labels (Gorodkin's R_K, 2004); unreadable is one more predicted class."""
    confusion_SLP = _confusion(gold_SN, pred_SN, n_labels).astype(np.float64)  # products of counts overflow integers
    gold_SL, pred_SP = confusion_SLP.sum(2), confusion_SLP.sum(1)
    rows_S = gold_SL.sum(-1)
    right_S = np.diagonal(confusion_SLP, axis1=1, axis2=2).sum(-1)
    above_S = right_S * rows_S - (gold_SL * pred_SP[:, :n_labels]).sum(-1)
    return _ratio(above_S, np.sqrt((rows_S**2 - (gold_SL**2).sum(-1)) * (rows_S**2 - (pred_SP**2).sum(-1))))


def pearson(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """Linear correlation."""
    gold_SN, pred_SN = gold_SN.astype(np.float64), pred_SN.astype(np.float64)
    # Not "variance > 0": the mean of equal numbers is rounded, and what is left over would be correlated with.
    defined_S = (np.ptp(gold_SN, axis=-1) > 0) & (np.ptp(pred_SN, axis=-1) > 0)
    gold_SN, pred_SN = (x - x.mean(-1, keepdims=True) for x in (gold_SN, pred_SN))
    above_S = (gold_SN * pred_SN).sum(-1)
    below_S = np.sqrt((gold_SN**2).sum(-1)) * np.sqrt((pred_SN**2).sum(-1))
    return np.clip(_ratio(above_S, np.where(defined_S, below_S, 0.0)), -1.0, 1.0)


def spearman(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """Linear correlation of the ranks; ties share their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(gold_SN, axis=-1), rankdata(pred_SN, axis=-1), n_labels, positive)


def mae(gold_SN: Array, pred_SN: Array, n_labels: int, positive: int) -> Array:
    """Mean absolute error: smaller is better."""
    return np.abs(gold_SN - pred_SN).mean(-1)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "labels", accuracy),
        Metric("f1", "F1", "labels", f1),
        Metric("macro_f1", "Macro F1", "labels", macro_f1),
        Metric("matthews", "Matthews correlation", "labels", matthews),
        Metric("pearson", "Pearson correlation", "number", pearson),
        Metric("spearman", "Spearman correlation", "number", spearman),
        Metric("mae", "Mean absolute error", "number", mae, higher_is_better=False),
    )
}


def _confusion(gold_SN: Array, pred_SN: Array, n_labels: int) -> Array:
    """Counts (S, L gold, L + 1 predicted); the last column holds the unreadable ones."""
    n_pred = n_labels + 1
    pred_SN = np.where(pred_SN == UNREADABLE, n_labels, pred_SN)
    resamples = len(gold_SN)
    cell_SN = (np.arange(resamples)[:, None] * n_labels + gold_SN) * n_pred + pred_SN
    counts = np.bincount(cell_SN.ravel(), minlength=resamples * n_labels * n_pred)
    return counts.reshape(resamples, n_labels, n_pred)


def _ratio(above: Array, below: Array) -> Array:
    """Above / below, 0 where below is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(above), dtype=np.float64), where=below > 0)


def _positive(spec: TaskSpec) -> int:
    if spec.positive is None:
        return 1  # by convention the second label: "no, yes", "not equivalent, equivalent"
    if spec.positive not in spec.words:
        raise TaskError(
            f"{spec.name}: the positive label '{spec.positive}' is none of its words.{nearest(spec.positive, spec.words)}"
        )
    return spec.words.index(spec.positive)


def _label(spec: TaskSpec, place: dict[str, int], row: int, value: Value | None) -> int:
    if not isinstance(value, str) or value not in place:
        raise DataError(f"{spec.name}: row {row}: {value!r} is none of its answer words.{nearest(str(value), place)}")
    return place[value]


def _number(spec: TaskSpec, row: int, value: Value | None) -> float:
    if value is None or isinstance(value, str) or not math.isfinite(value):
        raise DataError(f"{spec.name}: row {row}: {value!r} is no number.")
    return float(value)


def _farther_end(gold: float, number: NumberAnswer) -> float:
    return number.low if gold - number.low >= number.high - gold else number.high
