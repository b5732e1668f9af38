"""An encoder's training rows: their texts and the targets of its head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adjudge.errors import DataError
from adjudge.models.encoder import Encoder, Texts, texts_of
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
