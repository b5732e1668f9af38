"""Judge held-out training rows while training.

The best weights can then be kept without using the rows of the reported figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from adjudge.config import CheckpointConfig
from adjudge.errors import ConfigError
from adjudge.evaluation.predict import Judge
from adjudge.system.console import note
from adjudge.tasks import take_rows
from adjudge.tasks.scoring.metrics import METRICS, measure, needs_probabilities
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

Validate = Callable[[], Mapping[str, Any]]


def hold_out(
    parts: Sequence[TaskRows], config: CheckpointConfig, seed: int
) -> tuple[list[TaskRows], list[Sequence[Example]]]:
    """Split each task's rows into training rows and held-out rows; without `validate_every` hold out none.

    Held-out rows come from the training rows, so a method which validates has no more labelled rows than others. They
    are drawn by `seed`, in whole groups. Raises ConfigError when a task would keep fewer training rows than it holds
    out.
    """
    if config.validate_every is None:
        return list(parts), [[] for _ in parts]
    held = [take_rows(part.rows, config.validation_rows, seed) for part in parts]
    remaining = []
    for part, held_rows in zip(parts, held, strict=True):
        ids = {row.id for row in held_rows}
        rows = [row for row in part.rows if row.id not in ids]
        if len(rows) < len(held_rows):
            raise ConfigError(
                f"{part.spec.name}: checkpoint.validation_rows would hold out {len(held_rows)} of {len(part.rows)} "
                f"training rows, and leave {len(rows)} to train on. Hold out fewer, "
                "or leave checkpoint.validate_every unset."
            )
        remaining.append(TaskRows(part.spec, rows))
    note(f"{sum(map(len, held))} training rows are held out and judged every {config.validate_every} steps.")
    return remaining, [*held]


def validator(specs: Sequence[TaskSpec], judges: Sequence[Judge], held: Sequence[Sequence[Example]]) -> Validate | None:
    """Return a function which judges the held-out rows; None when no rows are held out.

    The function returns ``{"value": mean of the tasks' primary metrics, "tasks": {task: value}}``, None where
    undefined. Error metrics are negated, so higher is always better.
    """
    if not any(held):
        return None

    def validate() -> dict[str, Any]:
        values = {spec.name: _primary(spec, judge, rows) for spec, judge, rows in zip(specs, judges, held, strict=True)}
        known = [value for value in values.values() if value is not None]
        return {"value": fmean(known) if len(known) == len(values) else None, "tasks": values}

    return validate


def _primary(spec: TaskSpec, judge: Judge, rows: Sequence[Example]) -> float | None:
    probabilities = needs_probabilities(spec) and not spec.is_number
    measured = measure(spec, spec.primary, judge.judge(rows, probabilities=probabilities, title="held-out rows"))
    value = float(measured.value(measured.kept_CU[:, None, :])[0])
    if not math.isfinite(value):
        return None
    return value if METRICS[spec.primary].higher_is_better else -value
