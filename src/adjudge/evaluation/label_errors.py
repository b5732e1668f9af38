"""Find rows whose given label is probably wrong, from out-of-sample probabilities: confident learning.

Shapes: ``N`` rows, ``L`` labels.

Source: Northcutt, Jiang and Chuang, "Confident Learning" (JAIR 2021, arXiv 1911.00068), as the library cleanlab has it
(extra ``audit``): rows pruned by noise rate, ranked by self-confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjudge.errors import ConfigError, DataError
from adjudge.types import Prediction


@dataclass(frozen=True, slots=True)
class Doubt:
    """One row of the ranking."""

    prediction: Prediction
    score: float
    """The probability of the given label by a judge that did not learn from the row: the lower, the more doubtful."""
    likelier: str
    """The likeliest of the other labels."""
    suspicious: bool
    """True if confident learning takes the given label for an error."""


def rank_doubtful(words: Sequence[str], predictions: Sequence[Prediction]) -> list[Doubt]:
    """Return all rows, the most doubtful first; equal scores keep their order.

    Raises ConfigError without cleanlab. Raises DataError for a row without a probability of its given label, and for
    rows with fewer than two different labels.
    """
    given = {str(prediction.gold) for prediction in predictions}
    present = [word for word in words if word in given]
    if len(present) < 2:
        raise DataError(f"The rows have one label ({''.join(present) or 'none'}): there is nothing to confuse it with.")
    for prediction in predictions:
        if not prediction.probabilities or prediction.gold not in prediction.probabilities:
            raise DataError(f"Row {prediction.id} has no probability of its label. Use a method that gives them.")
    index_of = {word: index for index, word in enumerate(present)}
    gold_N = np.array([index_of[str(prediction.gold)] for prediction in predictions])
    # Labels that no row has cannot be the right ones by this algorithm: the others share their probability.
    probability_NL = np.array([[prediction.probabilities[word] for word in present] for prediction in predictions])
    probability_NL = np.maximum(probability_NL, 1e-12)
    probability_NL /= probability_NL.sum(1, keepdims=True)
    score_N, suspicious_N = _confident(gold_N, probability_NL)
    other_NL = probability_NL.copy()
    other_NL[np.arange(len(gold_N)), gold_N] = -1.0
    doubts = [
        Doubt(prediction, float(score), present[other], bool(suspicious))
        for prediction, score, other, suspicious in zip(
            predictions, score_N, other_NL.argmax(1), suspicious_N, strict=True
        )
    ]
    return sorted(doubts, key=lambda doubt: doubt.score)


def import_cleanlab() -> tuple[Any, Any]:
    """Return cleanlab's functions for issues and scores. Raises ConfigError without the library."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise ConfigError("An audit needs cleanlab: pip install 'adjudge[audit]'.") from None
    return find_label_issues, get_label_quality_scores


def _confident(gold_N: Any, probability_NL: Any) -> tuple[Any, Any]:
    find_label_issues, get_label_quality_scores = import_cleanlab()
    score_N = get_label_quality_scores(gold_N, probability_NL, method="self_confidence")
    return score_N, find_label_issues(gold_N, probability_NL, filter_by="prune_by_noise_rate", n_jobs=1)
