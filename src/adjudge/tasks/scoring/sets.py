"""Metrics of answers that are sets of labels: exact match, and F1 over labels, rows or both.

Shapes: ``U`` rows, ``L`` labels, ``S`` resamples. Of each row the metrics keep, per label, whether it is right, wrongly
there, and missing: ``[3 L, U]``. An unreadable answer counts as every label answered wrong. F1 of nothing answered
where nothing was right is 1 for a row, and 0 for a label without a row, which is left out of the macro mean.

Source: scikit-learn's ``accuracy_score`` and ``f1_score`` on indicator matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adjudge.errors import DataError
from adjudge.tasks.sets import members
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction, Value

Array = NDArray[Any]


def overlap(gold: str, answer: str) -> tuple[int, int, int]:
    """Return the number of labels in both sets, in the answer alone, and in the gold set alone."""
    right, given = set(members(gold)), set(members(answer))
    return len(right & given), len(given - right), len(right - given)


def indicators(spec: TaskSpec, values: Sequence[Value | None]) -> Array:
    """Return which label is in each answer, boolean ``[U, L]``.

    Raises DataError for a value that is no answer.
    """
    for row, value in enumerate(values):
        if not spec.accepts(value):
            raise DataError(f"{spec.name}: row {row}: {value!r} is not a set of {', '.join(spec.names)}.")
    return np.array([[name in members(str(value)) for name in spec.names] for value in values], dtype=bool)


def kept(spec: TaskSpec, predictions: Sequence[Prediction]) -> Array:
    """Return right, extra and missing labels of each row, ``[3 L, U]``.

    Raises DataError for a row without a gold answer.
    """
    gold_UL = indicators(spec, [prediction.gold for prediction in predictions])
    unreadable_U1 = np.array([[prediction.value is None] for prediction in predictions])
    given = [p.gold if p.value is None else p.value for p in predictions]
    given_UL = np.where(unreadable_U1, ~gold_UL, indicators(spec, given))
    parts = (gold_UL & given_UL, given_UL & ~gold_UL, gold_UL & ~given_UL)
    return np.concatenate([part.T for part in parts]).astype(np.int64)


def exact_match(right_SLU: Array, extra_SLU: Array, missing_SLU: Array) -> Array:
    """Return the share of rows with exactly the right labels."""
    return np.asarray(((extra_SLU + missing_SLU).sum(1) == 0).mean(-1))


def micro_f1(right_SLU: Array, extra_SLU: Array, missing_SLU: Array) -> Array:
    """Return F1 over all labels of all rows."""
    return _f1(right_SLU.sum((1, 2)), extra_SLU.sum((1, 2)), missing_SLU.sum((1, 2)), 0.0)


def macro_f1(right_SLU: Array, extra_SLU: Array, missing_SLU: Array) -> Array:
    """Return the mean F1 of the labels that occur among the gold answers or the answers."""
    right_SL, extra_SL, missing_SL = right_SLU.sum(2), extra_SLU.sum(2), missing_SLU.sum(2)
    seen_S = (right_SL + extra_SL + missing_SL > 0).sum(-1)
    return np.asarray(_f1(right_SL, extra_SL, missing_SL, 0.0).sum(-1) / np.maximum(seen_S, 1))


def sample_f1(right_SLU: Array, extra_SLU: Array, missing_SLU: Array) -> Array:
    """Return the mean F1 of the rows."""
    return np.asarray(_f1(right_SLU.sum(1), extra_SLU.sum(1), missing_SLU.sum(1), 1.0).mean(-1))


def value_of(
    function: Callable[[Array, Array, Array], Array],
) -> Callable[[Array], Array]:
    """Return the function from `kept` of drawn rows, ``[3 L, S, U]``, to the metric's values, ``[S]``."""

    def value(kept_CSU: Array) -> Array:
        right_LSU, extra_LSU, missing_LSU = np.split(kept_CSU, 3)
        return function(*(np.swapaxes(part, 0, 1) for part in (right_LSU, extra_LSU, missing_LSU)))

    return value


def _f1(right: Array, extra: Array, missing: Array, of_nothing: float) -> Array:
    below = 2 * right + extra + missing
    whole = np.full(np.shape(below), of_nothing, dtype=np.float64)
    return np.divide(2.0 * right, below, out=whole, where=below > 0)
