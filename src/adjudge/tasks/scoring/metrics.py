"""Compute the official metrics of GLUE and SuperGLUE, for many resamples at once.

Shapes: ``S`` resamples, ``N`` rows, ``L`` labels, ``P`` = L + 1 answers (the last is unreadable), ``U`` units, ``C``
numbers kept per unit. A resample draws units: single rows, or groups of rows which are scored together (such as the
answer options of a question). A metric defines the numbers it keeps of each unit, kept_CU, and the value of the units
of a resample, kept_CSU → value_S.

A label is encoded as its index in the task's words, 0 … L−1; a prediction of −1 is an unreadable answer.

**An unreadable answer always counts as wrong.** It is a class of its own, different from every gold answer. For ``f1``
it is whichever of positive and negative is wrong. For number tasks it becomes the end of the range farther from the
gold, and for ``quadratic_kappa`` the first or the last label, whichever is farther.

An undefined metric is 0, such as a correlation with predictions that are all equal, or F1 without any positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adjudge.errors import DataError, TaskError, nearest
from adjudge.tasks.reading.groups import by_unit, is_grouped
from adjudge.tasks.scoring import sets
from adjudge.tasks.scoring.group_metrics import all_right, same_answer
from adjudge.tasks.scoring.record import best_candidate_em, best_candidate_f1
from adjudge.tasks.spec import NumberAnswer, TaskSpec
from adjudge.types import Prediction, Value

Array = NDArray[Any]
BatchMetric = Callable[[Array], Array]
"""kept_CSU → value_S."""

UNREADABLE = -1
"""The encoded prediction of an unreadable answer in a label task; used only inside encoded arrays."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The numbers a metric keeps of one run's predictions, and the function from drawn units to a value."""

    kept_CU: Array
    value: BatchMetric


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to score predictions."""

    name: str
    title: str
    kind: Literal["labels", "number", "sets"]
    measure: Callable[[TaskSpec, Sequence[Prediction]], Measured]
    higher_is_better: bool = True
    ordered: bool = False
    """True if it is for labels in an order (`TaskSpec.ordered`)."""
    grouped: bool = False
    """True if it scores groups of rows; then every row must belong to a group."""
    needs_probabilities: bool = False
    """True if it uses the probabilities of the label words, so a judge must always compute them."""


def measure(spec: TaskSpec, name: str, predictions: Sequence[Prediction]) -> Measured:
    """Return the numbers that the metric keeps of one run's predictions.

    Units are in order of first appearance.

    Raises TaskError for an unknown metric, a metric of the other kind, or an unknown positive label. Raises DataError
    when there are no rows, for a missing gold answer, for a value which is not an answer of the task, and when a row
    lacks something that a metric of groups needs.
    """
    if name not in METRICS:
        raise TaskError(f"{spec.name}: there is no metric '{name}'.{nearest(name, METRICS)}")
    metric = METRICS[name]
    kind = "number" if spec.is_number else "sets" if spec.several else "labels"
    if metric.kind != kind and (name, kind) != ("macro_f1", "sets"):
        fitting = fitting_metrics(kind)
        raise TaskError(
            f"{spec.name}: the metric '{name}' does not fit a task whose answers are {kind}. Use: {', '.join(fitting)}."
        )
    if not predictions:
        raise DataError(f"{spec.name}: there are no rows to score.")
    ungrouped = next((prediction for prediction in predictions if not prediction.group), None)
    if metric.grouped and ungrouped is not None:
        raise DataError(
            f"{spec.name}: '{name}' scores groups of rows, but row {ungrouped.id} belongs to no group. "
            "Name the column that groups the rows as the task's 'group', or use another metric."
        )
    return metric.measure(spec, predictions)


def fitting_metrics(kind: str) -> list[str]:
    """Return the names of the metrics that fit answers of a kind: labels, number, or sets of labels."""
    return [
        metric.name for metric in METRICS.values() if metric.kind == kind or (metric.name, kind) == ("macro_f1", "sets")
    ]


def needs_probabilities(spec: TaskSpec) -> bool:
    """Return whether a metric of the task uses the probabilities of the label words."""
    return any(METRICS[name].needs_probabilities for name in spec.metrics if name in METRICS)


def encode(spec: TaskSpec, golds: Sequence[Value | None], values: Sequence[Value | None]) -> tuple[Array, Array]:
    """Return gold answers and predictions (None = unreadable) as (gold_N, pred_N).

    Both hold int64 labels or float64 numbers.

    Raises DataError for lists of different lengths, a missing gold answer, or a value which is not an answer of the
    task.
    """
    if len(golds) != len(values):
        raise DataError(f"{spec.name}: {len(values)} predictions for {len(golds)} gold answers.")
    for row, gold in enumerate(golds):
        if gold is None:
            raise DataError(
                f"{spec.name}: row {row} has no gold answer, so it cannot be scored. Judge a labelled split."
            )
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
    index_of = {word: index for index, word in enumerate(spec.words)}
    gold_N = np.array([_label(spec, index_of, row, gold) for row, gold in enumerate(golds)], dtype=np.int64)
    pred_N = np.array(
        [UNREADABLE if value is None else _label(spec, index_of, row, value) for row, value in enumerate(values)],
        dtype=np.int64,
    )
    return gold_N, pred_N


def accuracy(confusion_SLP: Array, positive: int) -> Array:
    """Return the share of rows judged correctly."""
    return _right(confusion_SLP) / confusion_SLP.sum((1, 2))


def f1(confusion_SLP: Array, positive: int) -> Array:
    """Return the F1 of the positive label, 2 tp / (2 tp + fp + fn).

    An unreadable answer is a false positive or a false negative.
    """
    is_gold_S = confusion_SLP[:, positive].sum(-1)
    unreadable_SL = confusion_SLP[:, :, -1]
    is_pred_S = confusion_SLP[:, :, positive].sum(-1) + unreadable_SL.sum(-1) - unreadable_SL[:, positive]
    return _ratio(2.0 * confusion_SLP[:, positive, positive], is_gold_S + is_pred_S)


def macro_f1(confusion_SLP: Array, positive: int) -> Array:
    """Return the mean F1 of the labels which occur among the gold or predicted answers.

    Unreadable is not a label to average over; an unreadable answer is a miss of its gold label.
    """
    hits_SL = np.diagonal(confusion_SLP, axis1=1, axis2=2)
    seen_SL = confusion_SLP.sum(2) + confusion_SLP[:, :, :-1].sum(1)
    return _ratio(_ratio(2.0 * hits_SL, seen_SL).sum(-1), (seen_SL > 0).sum(-1))


def matthews(confusion_SLP: Array, positive: int) -> Array:
    """Return the Matthews correlation for any number of labels; unreadable is one more predicted class.

    Source: the coefficient R_K (Gorodkin, 2004).
    """
    confusion_SLP = confusion_SLP.astype(np.float64)  # products of counts overflow integers
    gold_SL, pred_SP = confusion_SLP.sum(2), confusion_SLP.sum(1)
    rows_S = gold_SL.sum(-1)
    above_S = _right(confusion_SLP) * rows_S - (gold_SL * pred_SP[:, :-1]).sum(-1)
    return _ratio(above_S, np.sqrt((rows_S**2 - (gold_SL**2).sum(-1)) * (rows_S**2 - (pred_SP**2).sum(-1))))


def quadratic_kappa(confusion_SLP: Array, positive: int) -> Array:
    """Return Cohen's kappa of ordered labels, each mistake weighted by the square of its distance.

    An unreadable answer is the first or the last label, whichever is farther from the gold. Source: Cohen (1968).
    """
    labels = confusion_SLP.shape[1]
    index_L = np.arange(labels)
    confusion_SLL = confusion_SLP[:, :, :-1].astype(np.float64)
    farther_L = np.where(index_L >= labels - 1 - index_L, 0, labels - 1)
    confusion_SLL[:, index_L, farther_L] += confusion_SLP[:, :, -1]
    weight_LL = (index_L[:, None] - index_L) ** 2
    by_chance_SLL = confusion_SLL.sum(2)[:, :, None] * confusion_SLL.sum(1)[:, None, :]
    rows_S = confusion_SLL.sum((1, 2))
    mistakes_S, chance_S = ((weight_LL * part).sum((1, 2)) for part in (confusion_SLL, by_chance_SLL))
    return np.where(chance_S > 0, 1.0 - _ratio(mistakes_S * rows_S, chance_S), 0.0)


def pearson(gold_SN: Array, pred_SN: Array) -> Array:
    """Return the linear correlation."""
    gold_SN, pred_SN = gold_SN.astype(np.float64), pred_SN.astype(np.float64)
    # Not "variance > 0": the mean of equal numbers is rounded, and the differences would count as variance.
    defined_S = (np.ptp(gold_SN, axis=-1) > 0) & (np.ptp(pred_SN, axis=-1) > 0)
    gold_SN, pred_SN = (x - x.mean(-1, keepdims=True) for x in (gold_SN, pred_SN))
    above_S = (gold_SN * pred_SN).sum(-1)
    below_S = np.sqrt((gold_SN**2).sum(-1)) * np.sqrt((pred_SN**2).sum(-1))
    return np.clip(_ratio(above_S, np.where(defined_S, below_S, 0.0)), -1.0, 1.0)


def spearman(gold_SN: Array, pred_SN: Array) -> Array:
    """Return the linear correlation of the ranks; ties share their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(gold_SN, axis=-1), rankdata(pred_SN, axis=-1))


def mae(gold_SN: Array, pred_SN: Array) -> Array:
    """Return the mean absolute error; smaller is better."""
    return np.abs(gold_SN - pred_SN).mean(-1)


def _of_labels(function: Callable[[Array, int], Array]) -> Callable[[TaskSpec, Sequence[Prediction]], Measured]:
    """Return the `measure` of a metric of confusion counts.

    `function` maps (confusion_SLP, index of the positive label) to value_S.
    """

    def measured(spec: TaskSpec, predictions: Sequence[Prediction]) -> Measured:
        if spec.several:
            return _of_sets(sets.macro_f1)(spec, predictions)
        gold_N, pred_N = _encoded(spec, predictions)
        labels, positive = len(spec.words), positive_index(spec)
        if not is_grouped(predictions):
            # Keep the row itself, not its counts: two numbers instead of L · P.
            return Measured(
                np.stack([gold_N, pred_N]),
                lambda kept_CSU: function(_confusion(kept_CSU[0], kept_CSU[1], labels), positive),
            )
        units = by_unit(predictions).values()
        unit_N = np.empty(len(predictions), dtype=np.int64)
        for unit, rows in enumerate(units):
            unit_N[rows] = unit
        counts_ULP = _counts(unit_N, gold_N, pred_N, labels, len(units))
        return Measured(
            counts_ULP.reshape(len(units), -1).T,
            lambda kept_CSU: function(kept_CSU.sum(2).T.reshape(-1, labels, labels + 1), positive),
        )

    return measured


def _of_numbers(function: Callable[[Array, Array], Array]) -> Callable[[TaskSpec, Sequence[Prediction]], Measured]:
    """Return the `measure` of a metric of numbers; `function` maps (gold_SN, pred_SN) to value_S.

    Rows are not grouped: a rank or a mean cannot be split into parts per group.
    """

    def measured(spec: TaskSpec, predictions: Sequence[Prediction]) -> Measured:
        if is_grouped(predictions):
            raise TaskError(f"{spec.name}: its answers are numbers and its rows are in groups: no metric fits both.")
        return Measured(np.stack(_encoded(spec, predictions)), lambda kept_CSU: function(kept_CSU[0], kept_CSU[1]))

    return measured


def _of_sets(
    function: Callable[[Array, Array, Array], Array],
) -> Callable[[TaskSpec, Sequence[Prediction]], Measured]:
    """Return the `measure` of a metric of sets of labels."""
    return lambda spec, predictions: Measured(sets.kept(spec, predictions), sets.value_of(function))


def _of_groups(
    function: Callable[[str, Sequence[Prediction], str], float],
) -> Callable[[TaskSpec, Sequence[Prediction]], Measured]:
    """Return the `measure` of a mean over groups.

    `function` maps (beginning of errors, rows of the group, positive word) to a score.
    """

    def measured(spec: TaskSpec, predictions: Sequence[Prediction]) -> Measured:
        _encoded(spec, predictions)  # for its errors: a missing gold answer, an unknown answer
        positive = spec.words[positive_index(spec)]
        scores = [
            function(f"{spec.name}: group '{predictions[rows[0]].group}'", [predictions[row] for row in rows], positive)
            for rows in by_unit(predictions).values()
        ]
        return Measured(np.array([scores], dtype=np.float64), lambda kept_CSU: kept_CSU[0].mean(-1))

    return measured


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", "labels", _of_labels(accuracy)),
        Metric("f1", "F1", "labels", _of_labels(f1)),
        Metric("macro_f1", "Macro F1", "labels", _of_labels(macro_f1)),
        Metric("exact_match", "Exact match", "sets", _of_sets(sets.exact_match)),
        Metric("micro_f1", "Micro F1", "sets", _of_sets(sets.micro_f1)),
        Metric("sample_f1", "Sample F1", "sets", _of_sets(sets.sample_f1)),
        Metric("matthews", "Matthews correlation", "labels", _of_labels(matthews)),
        Metric("quadratic_kappa", "Quadratic weighted kappa", "labels", _of_labels(quadratic_kappa), ordered=True),
        Metric("pearson", "Pearson correlation", "number", _of_numbers(pearson)),
        Metric("spearman", "Spearman correlation", "number", _of_numbers(spearman)),
        Metric("mae", "Mean absolute error", "number", _of_numbers(mae), higher_is_better=False),
        Metric("f1a", "F1 over all answer options", "labels", _of_labels(f1), grouped=True),
        Metric("group_exact", "Exact match of groups", "labels", _of_groups(all_right), grouped=True),
        Metric("gender_parity", "Gender parity", "labels", _of_groups(same_answer), grouped=True),
        Metric(
            "record_f1",
            "Token F1 of the best candidate",
            "labels",
            _of_groups(best_candidate_f1),
            grouped=True,
            needs_probabilities=True,
        ),
        Metric(
            "record_em",
            "Exact match of the best candidate",
            "labels",
            _of_groups(best_candidate_em),
            grouped=True,
            needs_probabilities=True,
        ),
    )
}


def _encoded(spec: TaskSpec, predictions: Sequence[Prediction]) -> tuple[Array, Array]:
    return encode(
        spec, [prediction.gold for prediction in predictions], [prediction.value for prediction in predictions]
    )


def _confusion(gold_SN: Array, pred_SN: Array, labels: int) -> Array:
    """Counts (S, L gold, P predicted); the last column holds the unreadable ones."""
    return _counts(np.arange(len(gold_SN))[:, None], gold_SN, pred_SN, labels, len(gold_SN))


def _counts(bin_index: Array, gold: Array, pred: Array, labels: int, bins: int) -> Array:
    """Count rows per bin, gold label and predicted answer: (bins, L, P).

    `bin_index` is the bin of each row.
    """
    cell = (bin_index * labels + gold) * (labels + 1) + np.where(pred == UNREADABLE, labels, pred)
    return np.bincount(cell.ravel(), minlength=bins * labels * (labels + 1)).reshape(bins, labels, labels + 1)


def _right(confusion_SLP: Array) -> Array:
    return np.diagonal(confusion_SLP, axis1=1, axis2=2).sum(-1)


def _ratio(above: Array, below: Array) -> Array:
    """Return above / below, and 0 where below is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(above), dtype=np.float64), where=below > 0)


def positive_index(spec: TaskSpec) -> int:
    """Return the index of the positive label. Raises TaskError for a label that is not the task's."""
    if spec.positive is None:
        return 1  # by convention the second label: "no, yes", "not equivalent, equivalent"
    if spec.positive not in spec.words:
        raise TaskError(
            f"{spec.name}: the positive label '{spec.positive}' is not one of its words."
            f"{nearest(spec.positive, spec.words)}"
        )
    return spec.words.index(spec.positive)


def _label(spec: TaskSpec, index_of: dict[str, int], row: int, value: Value | None) -> int:
    if not isinstance(value, str) or value not in index_of:
        near = nearest(str(value), index_of)
        raise DataError(f"{spec.name}: row {row}: {value!r} is not one of its answer words.{near}")
    return index_of[value]


def _number(spec: TaskSpec, row: int, value: Value | None) -> float:
    if value is None or isinstance(value, str) or not math.isfinite(value):
        raise DataError(f"{spec.name}: row {row}: {value!r} is not a number.")
    return float(value)


def _farther_end(gold: float, number: NumberAnswer) -> float:
    return number.low if gold - number.low >= number.high - gold else number.high
