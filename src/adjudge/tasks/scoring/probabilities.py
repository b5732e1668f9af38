"""Score and scale the probabilities of label words: calibration error, Brier score, log loss, AUROC.

Shapes: ``N`` rows, ``L`` labels, ``S`` resamples, ``B`` bins. A resample is the weight of each row, weight_SN: how
often it was drawn. So rows are sorted and binned once, not once per resample.

Confidence is the probability of the likeliest label, and a row is right when this label is the gold one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adjudge.tasks.scoring.metrics import positive_index
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

Array = NDArray[Any]

BINS = 15
"""Bins of equal width, as in arXiv 1706.04599."""

FLOOR = 1e-38
"""Stands for a probability of 0, whose logarithm is not finite: about the smallest float32."""


@dataclass(frozen=True, slots=True)
class Rated:
    """The probabilities of rows and their gold labels, as indices into the task's words."""

    p_NL: Array
    gold_N: Array

    @property
    def confidence_N(self) -> Array:
        """Return the probability of each row's likeliest label."""
        return np.asarray(self.p_NL.max(1))

    @property
    def right_N(self) -> Array:
        """Return whether each row's likeliest label is the gold one."""
        return np.asarray(self.p_NL.argmax(1) == self.gold_N)

    def scaled(self, temperature: float) -> Rated:
        """Return the rows with their probabilities divided by a temperature, see `scaled_NL`."""
        return Rated(scaled_NL(self.p_NL, temperature), self.gold_N)


def rated(spec: TaskSpec, predictions: Sequence[Prediction]) -> Rated | None:
    """Return the rows' probabilities and gold labels; None when a row lacks either, or there is no row."""
    words = spec.words
    if not words or not predictions:
        return None
    if any(p.gold not in words or p.probabilities.keys() != set(words) for p in predictions):
        return None
    p_NL = np.array([[p.probabilities[word] for word in words] for p in predictions], dtype=np.float64)
    return Rated(p_NL, np.array([words.index(str(p.gold)) for p in predictions]))


def scaled_NL(p_NL: Array, temperature: float) -> Array:
    """Return softmax(log p / temperature): a temperature above 1 makes it less sure, below 1 surer.

    The likeliest label stays the same.
    """
    logits_NL = log_p(p_NL) / temperature
    shares_NL = np.exp(logits_NL - logits_NL.max(1, keepdims=True))
    return np.asarray(shares_NL / shares_NL.sum(1, keepdims=True))


def scaled_probabilities(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Return one row's probabilities divided by a temperature, see `scaled_NL`."""
    scaled_L = scaled_NL(np.array([list(probabilities.values())], dtype=np.float64), temperature)[0]
    return dict(zip(probabilities, scaled_L.tolist(), strict=True))


def log_p(p_NL: Array) -> Array:
    """Return the logarithm of probabilities; `FLOOR` stands for 0."""
    return np.asarray(np.log(np.maximum(p_NL, FLOOR)))


Statistic = Callable[[Array], Array]
"""weight_SN → value_S."""


def ece(rows: Rated) -> Statistic:
    """Return the expected calibration error over `BINS` bins.

    It is the mean distance of confidence and share of right rows. A bin holds the rows with a confidence in (low,
    high], and counts by its number of rows. With few rows the figure is too large, since chance alone keeps share and
    confidence apart (`ece_by_chance`). Source: arXiv 1706.04599.
    """
    gap_NB = _bins(rows)
    gap_NB *= (rows.right_N - rows.confidence_N)[:, None]
    return lambda weight_SN: np.abs(weight_SN @ gap_NB).sum(1) / weight_SN.sum(1)


def ece_by_chance(rows: Rated, draws: int = 200, seed: int = 0) -> float:
    """Return the mean `ece` of a perfectly calibrated judge with these confidences, on as many rows."""
    right_SN = np.random.default_rng(seed).random((draws, len(rows.gold_N))) < rows.confidence_N
    gap_SB = (right_SN - rows.confidence_N) @ _bins(rows)
    return float(np.abs(gap_SB).sum(1).mean() / len(rows.gold_N))


def brier(rows: Rated) -> Statistic:
    """Return the Brier score: mean over rows of Σ (probability − 1 or 0)² over all labels, 0 to 2.

    For two labels it is twice scikit-learn's binary score. Source: Brier (1950).
    """
    gold_NL = np.eye(rows.p_NL.shape[1])[rows.gold_N]
    return _mean_of(((rows.p_NL - gold_NL) ** 2).sum(1))


def log_loss(rows: Rated) -> Statistic:
    """Return the mean of −log of the gold label's probability, in nats."""
    return _mean_of(-log_p(rows.p_NL)[np.arange(len(rows.gold_N)), rows.gold_N])


def auroc(rows: Rated, positive: int) -> Statistic:
    """Return how often a row of a label has a higher probability of it than another row; ties count half.

    Two labels: for the `positive` one. More: the mean over the labels, each against the rest; labels without rows, or
    with all of them, are left out. NaN where no label remains. Source: Hanley and McNeil (1982).
    """
    labels = range(rows.p_NL.shape[1]) if rows.p_NL.shape[1] > 2 else [positive]
    areas = [_area(rows.p_NL[:, label], rows.gold_N == label) for label in labels]

    def value(weight_SN: Array) -> Array:
        area_LS = np.stack([area(weight_SN) for area in areas])
        known_LS = ~np.isnan(area_LS)
        count_S = known_LS.sum(0)
        sum_S = np.where(known_LS, area_LS, 0.0).sum(0)
        return np.asarray(np.divide(sum_S, count_S, out=np.full(len(sum_S), np.nan), where=count_S > 0))

    return value


def statistics_of(spec: TaskSpec, rows: Rated) -> dict[str, Statistic]:
    """Return the scores of probabilities, by name."""
    return {
        "ece": ece(rows),
        "brier": brier(rows),
        "log_loss": log_loss(rows),
        "auroc": auroc(rows, positive_index(spec)),
    }


@dataclass(frozen=True, slots=True)
class Bin:
    """The rows in a stretch of confidence: how sure they are on average, and how many of them are right."""

    confidence: float
    right: float
    rows: int


def reliability(rows: Rated) -> list[Bin]:
    """Return the bins of `ece` that hold rows, from the least to the most confident."""
    member_NB = _bins(rows)
    count_B = member_NB.sum(0)
    return [
        Bin(
            float(rows.confidence_N @ member_NB[:, index] / count),
            float(rows.right_N @ member_NB[:, index] / count),
            int(count),
        )
        for index, count in enumerate(count_B)
        if count
    ]


def risk_coverage(rows: Rated) -> tuple[Array, Array]:
    """Return (coverage, risk) when rows are answered surest first.

    Coverage is the share of rows that is answered, and risk the share of wrong ones in it. Rows of equal confidence are
    answered together. Source: arXiv 1705.08500.
    """
    order_N = np.argsort(-rows.confidence_N, kind="stable")
    confidence_N, wrong_N = rows.confidence_N[order_N], ~rows.right_N[order_N]
    last = np.flatnonzero(np.append(np.diff(confidence_N) != 0, True))
    answered = last + 1
    return answered / len(order_N), np.cumsum(wrong_N)[last] / answered


def _bins(rows: Rated) -> Array:
    """Return which bin holds which row, 1 or 0, ``[N, B]``."""
    bin_N = np.clip(np.ceil(rows.confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    return np.eye(BINS)[bin_N]


def _mean_of(value_N: Array) -> Statistic:
    return lambda weight_SN: (weight_SN @ value_N) / weight_SN.sum(1)


def _area(score_N: Array, is_label_N: Array) -> Statistic:
    """Return the area under the ROC curve of one label; NaN without rows of it, or without others."""
    order_N = np.argsort(score_N, kind="stable")
    is_label_N = is_label_N[order_N]
    begins = np.flatnonzero(np.append(True, np.diff(score_N[order_N]) != 0))  # of each run of equal scores

    def area(weight_SN: Array) -> Array:
        sorted_SN = weight_SN[:, order_N].astype(np.float64)
        label_SG = np.add.reduceat(sorted_SN * is_label_N, begins, axis=1)
        other_SG = np.add.reduceat(sorted_SN * ~is_label_N, begins, axis=1)
        below_SG = np.cumsum(other_SG, axis=1) - other_SG / 2
        pairs_S = label_SG.sum(1) * other_SG.sum(1)
        above_S = (label_SG * below_SG).sum(1)
        return np.asarray(np.divide(above_S, pairs_S, out=np.full(len(pairs_S), np.nan), where=pairs_S > 0))

    return area
