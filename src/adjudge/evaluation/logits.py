"""Predictions from logits: of an encoder's head, a policy's, or of a linear model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adjudge.tasks.sets import marginals
from adjudge.tasks.spec import NumberAnswer, TaskSpec
from adjudge.types import Example, Prediction


def predictions_of(
    examples: Sequence[Example], logits_NL: Tensor, task: TaskSpec, *, probabilities: bool
) -> list[Prediction]:
    """Return each row's likeliest word, or its number clipped to the task's range, from logits ``[N, L]``.

    A number task has one output, the number scaled to 0..1. Numbers are not rounded; ``text`` shows them with the
    task's decimals. With `probabilities`, each prediction of a label task carries the softmax of its logits.
    """
    if task.number is not None:
        shown = shown_number(logits_NL, task.number)
        return [Prediction.of(row, text, value) for row, (text, value) in zip(examples, shown, strict=True)]
    words = task.words
    predictions = []
    for example, row, best in zip(examples, logits_NL.softmax(-1).tolist(), logits_NL.argmax(-1).tolist(), strict=True):
        shares = dict(zip(words, row, strict=True)) if probabilities else {}
        shares = marginals(shares, task.names) if task.several and shares else shares
        predictions.append(Prediction.of(example, words[best], words[best], shares))
    return predictions


def shown_number(logits_N1: Tensor, number: NumberAnswer) -> list[tuple[str, float]]:
    """Return each row's number, clipped to the range: as text with the task's decimals, and not rounded."""
    low, high = number.low, number.high
    values: list[float] = (low + (high - low) * logits_N1.squeeze(-1).cpu().double().clamp(0, 1)).tolist()
    return [(f"{value:.{number.decimals}f}", value) for value in values]
