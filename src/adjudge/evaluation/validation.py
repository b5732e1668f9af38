"""Judging held-out training rows while training, so that the best weights can be kept without a look at the rows that are reported."""

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
    """The rows that are left to train on, and those of each task that are held out; none where `validate_every` is unset.

    They come out of the training rows, so that a method that validates has no more labelled rows than one that does not. Drawn by the
    seed, whole groups. Raises ConfigError when a task would keep fewer rows to train on than are held out.
    """
    if config.validate_every is None:
        return list(parts), [[] for _ in parts]
    held = [take_rows(part.rows, config.validation_rows, seed) for part in parts]
    left = []
    for part, out in zip(parts, held, strict=True):
        ids = {row.id for row in out}
        rows = [row for row in part.rows if row.id not in ids]
        if len(rows) < len(out):
            raise ConfigError(
                f"{part.spec.name}: of {len(part.rows)} training rows checkpoint.validation_rows would hold out {len(out)} and leave "
                f"{len(rows)} to train on. Hold out fewer, or leave checkpoint.validate_every unset."
            )
        left.append(TaskRows(part.spec, rows))
    note(f"{sum(map(len, held))} training rows are held out, to be judged every {config.validate_every} steps.")
    return left, [*held]


def validator(specs: Sequence[TaskSpec], judges: Sequence[Judge], held: Sequence[Sequence[Example]]) -> Validate | None:
    """What judges the held-out rows: returns ``{"value": mean of the tasks' primary metrics, "tasks": {task: value}}``, None undefined.

    Higher is better: of a metric that is an error the value has a minus. None where no rows are held out.
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
    found = measure(spec, spec.primary, judge.judge(rows, probabilities=probabilities, title="held-out rows"))
    value = float(found.value(found.kept_CU[:, None, :])[0])
    if not math.isfinite(value):
        return None
    return value if METRICS[spec.primary].higher_is_better else -value
