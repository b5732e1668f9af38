"""Training rows of a classification or regression head: their targets, loss, and an encoder's texts.

Shapes: ``B`` rows, ``L`` labels (1 for a number task).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from adjudge.errors import DataError
from adjudge.models.encoder import Encoder, Texts, texts_of
from adjudge.rewards.weights import balanced_weights
from adjudge.system.console import note
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A training row's texts, and the target of the head."""

    texts: Texts
    target: float
    tokens: int
    id: str


def target_of(row: Example, task: TaskSpec) -> float:
    """Return the index of the gold word, or the gold number scaled to 0..1. Raises DataError."""
    if task.number is not None:
        if not isinstance(row.gold, (int, float)):
            raise DataError(
                f"{row.id}: the gold answer {row.gold!r} is not a number, but {task.name} is a number task."
            )
        return (row.gold - task.number.low) / (task.number.high - task.number.low)
    if row.gold not in task.words:
        raise DataError(f"{row.id}: the gold answer {row.gold!r} is none of {', '.join(task.words)}.")
    return task.words.index(str(row.gold))


def class_weights(rows: Sequence[Example], task: TaskSpec) -> Tensor:
    """Return the balanced weight of each label, float32 ``[L]``; 1 for a label without rows."""
    weights = balanced_weights([row.gold for row in rows])
    return torch.tensor([weights.get(word, 1.0) for word in task.words])


def weight_of(targets: Sequence[float], weight_L: Tensor | None) -> float:
    """Return what rows count in their batch's mean loss: their number, or the sum of their weights."""
    return float(len(targets)) if weight_L is None else sum(float(weight_L[int(target)]) for target in targets)


def head_loss(
    logits_BL: Tensor, targets: Sequence[float], weight_L: Tensor | None, share: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the rows' part of their batch's loss, and its figures.

    The part is the rows' mean loss times their `share` of the batch. The loss is the cross-entropy of the labels,
    weighted by `weight_L`, or with one output the squared error of the number. ``right`` counts the rows whose label is
    the likeliest.
    """
    target_B = torch.tensor(list(targets), device=logits_BL.device)
    if logits_BL.shape[-1] == 1:
        loss = F.mse_loss(logits_BL.squeeze(-1), target_B) * share
        return loss, {"loss": loss.detach()}
    weight_L = None if weight_L is None else weight_L.to(logits_BL)
    loss = F.cross_entropy(logits_BL, target_B.long(), weight_L) * share  # with weights: the weighted mean
    right = logits_BL.detach().argmax(-1) == target_B
    return loss, {"loss": loss.detach(), "right": right.float().sum()}


def labelled_rows(encoder: Encoder, rows: Sequence[Example], targets: Sequence[float]) -> list[LabelledRow]:
    """Return rows ready for the encoder. Texts longer than its limit are shortened, with a note."""
    texts = [texts_of(row.fields) for row in rows]
    lengths = encoder.lengths(texts)
    longer = sum(length > encoder.max_tokens for length in lengths)
    if longer:
        note(f"{longer} of {len(rows)} training rows are longer than {encoder.max_tokens} tokens and were shortened.")
    return [
        LabelledRow(text, target, min(length, encoder.max_tokens), row.id)
        for text, target, length, row in zip(texts, targets, lengths, rows, strict=True)
    ]
