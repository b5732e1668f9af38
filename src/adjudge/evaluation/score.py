"""The scores of one run's predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from adjudge.errors import DataError
from adjudge.evaluation.calibration import probability_scores
from adjudge.evaluation.diagnostics import diagnose
from adjudge.evaluation.slices import slice_scores
from adjudge.evaluation.statistics import metric_interval
from adjudge.tasks.reading.groups import by_unit, is_grouped
from adjudge.tasks.sets import members
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction, Value


def score(
    spec: TaskSpec,
    predictions: Sequence[Prediction],
    *,
    resamples: int,
    seed: int = 0,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Score one run's predictions with every metric of the task.

    Returns plain values for JSON:

    - ``n`` (rows), ``unreadable`` (rows), and ``groups`` (a count) where rows are in groups;
    - ``primary``, the name of the primary metric, and ``metrics`` {name: {value, low, high}} with bootstrap 95 %
      intervals;
    - label tasks: ``per_label`` {word: {recall, precision, f1, gold, predicted}}; None where there is nothing to
      divide by;
    - label tasks: ``majority`` {word, share, one_label}: the word predicted most often (None when nothing was
      readable), its share of all rows, and whether every readable prediction is this word, a constant judge;
    - ``probabilities`` where every row has label probabilities (see `adjudge.evaluation.calibration`); with a
      `temperature`, before and after it;
    - ``diagnostics`` where rows name the phenomena they test (see `adjudge.evaluation.diagnostics.diagnose`);
    - ``slices`` where the task has some (see `adjudge.evaluation.slices.slice_scores`).

    Raises DataError when there are no predictions, or for one without a gold answer.
    """
    if not predictions:
        raise DataError(f"{spec.name}: there are no predictions to score.")
    for prediction in predictions:
        if prediction.gold is None:
            raise DataError(
                f"{spec.name}: row {prediction.id} has no gold answer, so it cannot be scored. Judge a labelled split."
            )
    scores: dict[str, Any] = {
        "n": len(predictions),
        **({"groups": len(by_unit(predictions))} if is_grouped(predictions) else {}),
        "primary": spec.primary,
        "metrics": {name: metric_interval(spec, name, [predictions], resamples, seed) for name in spec.metrics},
        "unreadable": sum(p.value is None for p in predictions),
    }
    if not spec.is_number:
        scores["per_label"] = _per_label(spec, predictions)
        scores["majority"] = _majority(predictions)
    if probabilities := probability_scores(spec, [predictions], [temperature], resamples=resamples, seed=seed):
        scores["probabilities"] = probabilities
    if phenomena := diagnose(spec, [predictions], resamples=resamples, seed=seed):
        scores["diagnostics"] = phenomena
    if slices := slice_scores(spec, [predictions], resamples=resamples, seed=seed):
        scores["slices"] = slices
    return scores


def _per_label(spec: TaskSpec, predictions: Sequence[Prediction]) -> dict[str, dict[str, float | int | None]]:
    def named(value: Value | None) -> Sequence[Value | None]:
        return members(str(value)) if spec.several and value is not None else [value]

    gold = Counter(name for p in predictions for name in named(p.gold))
    predicted = Counter(name for p in predictions for name in named(p.value))
    right = Counter(name for p in predictions for name in named(p.gold) if name in named(p.value))
    return {
        word: {
            "recall": right[word] / gold[word] if gold[word] else None,
            "precision": right[word] / predicted[word] if predicted[word] else None,
            "f1": 2 * right[word] / (gold[word] + predicted[word]) if gold[word] + predicted[word] else None,
            "gold": gold[word],
            "predicted": predicted[word],
        }
        for word in spec.names
    }


def _majority(predictions: Sequence[Prediction]) -> dict[str, Any]:
    counts = Counter(p.value for p in predictions if p.value is not None)
    if not counts:
        return {"word": None, "share": 0.0, "one_label": False}
    word, count = counts.most_common(1)[0]
    return {"word": word, "share": count / len(predictions), "one_label": len(counts) == 1}
