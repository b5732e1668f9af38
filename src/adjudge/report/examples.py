"""The rows that the report's example browser carries: every method's answer to a row side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.collect import RunRecord
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

EXAMPLES = 2000
"""Most rows of one task that go into the file; a report of all rows of a large set would not open."""

NEAR_SHARE = 0.1
"""A number counts as right in the browser when it is within this share of the task's range of the gold number."""

RIGHT, WRONG, UNREADABLE, UNLABELLED = "right", "wrong", "unreadable", "unlabelled"


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Chosen rows of one task, as plain values for JSON, and how many there are in all."""

    data: Mapping[str, Any]
    shown: int
    total: int
    errors_left_out: int
    """Rows that some method got wrong and that are not carried."""
    near: float | None
    """Number tasks: the distance up to which an answer counts as right."""


def outcome(prediction: Prediction, near: float | None = None) -> str:
    """``right``, ``wrong``, ``unreadable`` or ``unlabelled``; with `near`, a number within it of the gold one is right."""
    if prediction.value is None:
        return UNREADABLE
    if prediction.gold is None:
        return UNLABELLED
    if isinstance(prediction.gold, int | float) and isinstance(prediction.value, int | float):
        return RIGHT if abs(prediction.value - prediction.gold) <= (near or 0.0) + 1e-9 else WRONG
    return RIGHT if prediction.value == prediction.gold else WRONG


def near_of(spec: TaskSpec | None) -> float | None:
    """The distance up to which a number counts as right in the browser; None for label tasks."""
    return round((spec.number.high - spec.number.low) * NEAR_SHARE, 6) if spec and spec.number else None


def example_set(
    task: str, spec: TaskSpec | None, runs: Sequence[RunRecord], limit: int = EXAMPLES
) -> ExampleSet | None:
    """Choose up to `limit` rows: the errors of the best run first, then those of the next; evenly spaced right ones after that.

    Returns None when no run of the task has predictions.
    """
    runs = [run for run in runs if run.predictions]
    if not runs:
        return None
    near = near_of(spec)
    judged = [{p.id: p for p in run.predictions} for run in runs]
    rows: dict[str, Prediction] = {}
    for answers in judged:
        for name, prediction in answers.items():
            rows.setdefault(name, prediction)
    errors = [[n for n, p in answers.items() if outcome(p, near) in {WRONG, UNREADABLE}] for answers in judged]
    chosen: dict[str, None] = {}
    for mine in sorted(errors, key=len):
        fresh = [name for name in mine if name not in chosen]
        chosen |= dict.fromkeys(_evenly(fresh, limit - len(chosen)))
    wrong = {name for mine in errors for name in mine}
    chosen |= dict.fromkeys(_evenly([name for name in rows if name not in wrong], limit - len(chosen)))
    kept = [name for name in rows if name in chosen]
    words = list(spec.words) if spec else []
    words = list(dict.fromkeys([*words, *(str(rows[name].gold) for name in kept if isinstance(rows[name].gold, str))]))
    names = list(dict.fromkeys(field for name in kept for field in rows[name].fields))
    data = {
        "task": task,
        "near": near,
        "fields": names,
        "words": words,
        "judges": [{"method": run.method, "seed": run.seed} for run in runs],
        "rows": [
            {
                "id": name,
                "fields": [rows[name].fields.get(field) for field in names],
                "gold": _plain(rows[name].gold),
                "answers": [_answer(answers.get(name), near) for answers in judged],
            }
            for name in kept
        ],
    }
    return ExampleSet(data, len(kept), len(rows), len(wrong - chosen.keys()), near)


def _answer(prediction: Prediction | None, near: float | None) -> list[Any] | None:
    """[outcome, text as generated, value, probabilities]; None when the run did not judge this row."""
    if prediction is None:
        return None
    probabilities = {str(word): round(float(p), 4) for word, p in prediction.probabilities.items() if math.isfinite(p)}
    return [outcome(prediction, near), prediction.text, _plain(prediction.value), probabilities or None]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _evenly(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names, evenly spaced over the whole; all of them when there are fewer."""
    if count <= 0:
        return []
    if len(names) <= count:
        return list(names)
    return [names[(2 * number + 1) * len(names) // (2 * count)] for number in range(count)]
