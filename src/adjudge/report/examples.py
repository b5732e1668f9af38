"""The rows in the report's example browser: every method's answer to a row, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.collect import RunRecord
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

EXAMPLES = 2000
"""Maximum number of rows of one task in the file; a browser would not open a report with all rows of a large set."""

NEAR_SHARE = 0.1
"""A number counts as right in the browser within this share of the task's range around the gold number."""

Row = tuple[str, tuple[tuple[str, str], ...], Any]
"""A row's id, fields and gold answer."""

RIGHT, WRONG, UNREADABLE, UNLABELLED = "right", "wrong", "unreadable", "unlabelled"


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Chosen rows of one task as plain values for JSON, and the number of all rows."""

    data: Mapping[str, Any]
    shown: int
    total: int
    errors_left_out: int
    """Rows which some method got wrong and which are not in the file."""
    near: float | None
    """For number tasks: the distance up to which an answer counts as right."""


def outcome(prediction: Prediction, near: float | None = None) -> str:
    """Return ``right``, ``wrong``, ``unreadable`` or ``unlabelled``.

    With `near`, a number within this distance of the gold number is right.
    """
    if prediction.value is None:
        return UNREADABLE
    if prediction.gold is None:
        return UNLABELLED
    if isinstance(prediction.gold, int | float) and isinstance(prediction.value, int | float):
        return RIGHT if abs(prediction.value - prediction.gold) <= (near or 0.0) + 1e-9 else WRONG
    return RIGHT if prediction.value == prediction.gold else WRONG


def near_of(spec: TaskSpec | None) -> float | None:
    """Return the distance up to which a number counts as right in the browser; None for label tasks."""
    return round((spec.number.high - spec.number.low) * NEAR_SHARE, 6) if spec and spec.number else None


def example_set(
    task: str, spec: TaskSpec | None, runs: Sequence[RunRecord], limit: int = EXAMPLES
) -> ExampleSet | None:
    """Choose up to `limit` rows of a task; None when no run has predictions.

    The errors of the best run come first, then those of the next one. Rows that all runs got right fill the rest,
    evenly spaced.
    """
    runs = [run for run in runs if run.predictions]
    if not runs:
        return None
    near = near_of(spec)
    predictions = [{_row_of(p): p for p in run.predictions} for run in runs]
    rows: dict[Row, Prediction] = {}
    for by_row in predictions:
        for row, prediction in by_row.items():
            rows.setdefault(row, prediction)
    errors = [[row for row, p in by_row.items() if outcome(p, near) in {WRONG, UNREADABLE}] for by_row in predictions]
    chosen = _choose(list(rows), errors, limit)
    kept = [row for row in rows if row in chosen]
    fields = list(dict.fromkeys(field for row in kept for field in rows[row].fields))
    data = {
        "task": task,
        "near": near,
        "fields": fields,
        "words": _words(spec, [rows[row] for row in kept]),
        "judges": [{"method": run.method, "seed": run.seed} for run in runs],
        "rows": [
            {
                "id": rows[row].id,
                "fields": [rows[row].fields.get(field) for field in fields],
                "gold": _plain(rows[row].gold),
                "answers": [_answer(by_row.get(row), near) for by_row in predictions],
            }
            for row in kept
        ],
    }
    missing_errors = {row for run_errors in errors for row in run_errors} - chosen
    return ExampleSet(data, len(kept), len(rows), len(missing_errors), near)


def _row_of(prediction: Prediction) -> Row:
    """Return what tells rows apart: files of one name in several folders have the same ids."""
    return prediction.id, tuple(prediction.fields.items()), prediction.gold


def _choose(rows: Sequence[Row], errors: Sequence[Sequence[Row]], limit: int) -> set[Row]:
    """Choose up to `limit` rows: `errors` run by run (the run with fewest first), then right rows."""
    chosen: set[Row] = set()
    for run_errors in sorted(errors, key=len):
        fresh = [row for row in run_errors if row not in chosen]
        chosen.update(_evenly(fresh, limit - len(chosen)))
    wrong = {row for run_errors in errors for row in run_errors}
    chosen.update(_evenly([row for row in rows if row not in wrong], limit - len(chosen)))
    return chosen


def _words(spec: TaskSpec | None, rows: Sequence[Prediction]) -> list[str]:
    """Return the task's label words, then gold labels of the rows that are not among them."""
    words = spec.words if spec else ()
    return list(dict.fromkeys([*words, *(str(row.gold) for row in rows if isinstance(row.gold, str))]))


def _answer(prediction: Prediction | None, near: float | None) -> list[Any] | None:
    """Return [outcome, generated text, value, probabilities]; None for a row the run did not judge."""
    if prediction is None:
        return None
    probabilities = {str(word): round(float(p), 4) for word, p in prediction.probabilities.items() if math.isfinite(p)}
    return [outcome(prediction, near), prediction.text, _plain(prediction.value), probabilities or None]


def _plain(value: Any) -> Any:
    """Return the value, or None for a number JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _evenly(rows: Sequence[Row], count: int) -> list[Row]:
    """Return `count` of the rows, evenly spaced over the whole; all of them when there are fewer."""
    if count <= 0:
        return []
    if len(rows) <= count:
        return list(rows)
    return [rows[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)]
