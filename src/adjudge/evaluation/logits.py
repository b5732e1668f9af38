"""Predictions from logits: of an encoder's head, or of a linear model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adjudge.tasks.sets import marginals
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction


def predictions_of(
    examples: Sequence[Example], logits_NL: Tensor, task: TaskSpec, *, probabilities: bool
) -> list[Prediction]:
    """Return each row's likeliest word, or its number clipped to the task's range, from logits ``[N, L]``.

    A number task has one output, the number scaled to 0..1. Numbers are not rounded; ``text`` shows them with the
    task's decimals. With `probabilities`, each prediction of a label task carries the softmax of its logits.
    """
    if task.number is not None:
        low, high, decimals = task.number.low, task.number.high, task.number.decimals
        values = (low + (high - low) * logits_NL.squeeze(-1).double().clamp(0, 1)).tolist()
        return [Prediction.of(row, f"{value:.{decimals}f}", value) for row, value in zip(examples, values, strict=True)]
    words = task.words
    predictions = []
    for example, row, best in zip(examples, logits_NL.softmax(-1).tolist(), logits_NL.argmax(-1).tolist(), strict=True):
        shares = dict(zip(words, row, strict=True)) if probabilities else {}
        shares = marginals(shares, task.names) if task.several and shares else shares
        predictions.append(Prediction.of(example, words[best], words[best], shares))
    return predictions
