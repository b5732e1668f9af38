"""Fit the temperature of a judge's probabilities on rows that it has not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adjudge.errors import DataError
from adjudge.experiments.calibration_rows import CalibrationRows
from adjudge.experiments.rows import fingerprint
from adjudge.runs.calibration import FILE, write_calibration
from adjudge.runs.folder import Run
from adjudge.system.console import note, warn
from adjudge.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge

FEW = 50
"""Fewer rows than these get a warning: a temperature is one number, but a rough one then."""


def calibrate_trained(
    run: Run, specs: Sequence[TaskSpec], judges: Sequence[Judge], rows: Sequence[CalibrationRows]
) -> None:
    """Fit a temperature for each task at the end of a run's training, unless there is one already."""
    if rows and not (run.folder / FILE).is_file():
        write_calibration(run.folder, fit_temperatures(specs, judges, rows))


def fit_temperatures(
    specs: Sequence[TaskSpec], judges: Sequence[Judge], rows: Sequence[CalibrationRows]
) -> dict[str, Any]:
    """Judge the rows of each task and return what was fitted, by task.

    Raises DataError for a row without a gold answer.
    """
    from adjudge.evaluation.calibration import fitted_record
    from adjudge.tasks.scoring.probabilities import rated

    records = {}
    for spec, judge, (examples, source) in zip(specs, judges, rows, strict=True):
        predictions = judge.judge(examples, probabilities=True, title=f"calibrating on {spec.name}")
        rated_rows = rated(spec, predictions)
        if rated_rows is None:
            raise DataError(f"{spec.name}: some rows have no gold answer or no probabilities; calibration needs both.")
        if len(examples) < FEW:
            warn(f"{spec.name}: a temperature fitted on {len(examples)} rows is rough; take {FEW} or more.")
        if rated_rows.right_N.all():
            warn(f"{spec.name}: all {len(examples)} rows are judged right, so the temperature stays 1. Take more rows.")
        records[spec.name] = {**fitted_record(rated_rows), "rows_sha256": fingerprint(examples), "source": source}
        note(fitted_line(spec.name, records[spec.name]))
    return records


def fitted_line(task: str, record: Mapping[str, Any]) -> str:
    """Return ``glue/sst2: temperature 2.13 from 500 unused training rows; there ECE 0.081 → 0.022, …``."""
    error, loss = record["ece"], record["log_loss"]
    return (
        f"{task}: temperature {record['temperature']:.3g} from {record['rows']} {record['source']}; there ECE "
        f"{error['before']:.3f} → {error['after']:.3f}, log loss {loss['before']:.3f} → {loss['after']:.3f}"
    )
