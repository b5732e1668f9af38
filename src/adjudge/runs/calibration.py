"""Temperatures of a run's judges: calibration.json in its folder, and ``calibration`` in judge.json.

Both map a task to what was fitted: ``temperature``, ``rows`` (how many), ``rows_sha256``, ``source`` (which), and
``log_loss`` and ``ece`` of those rows, ``before`` and ``after``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adjudge.errors import RunError
from adjudge.runs.folder import read_json
from adjudge.system.files import write_json

FILE = "calibration.json"
SCHEMA = 1
JUDGE = "judge.json"


def write_calibration(folder: Path, tasks: Mapping[str, Any]) -> None:
    """Write what was fitted for each task into the run folder."""
    write_json(folder / FILE, {"schema": SCHEMA, "tasks": dict(tasks)})


def read_calibration(folder: Path) -> dict[str, Any]:
    """Return what was fitted for each task of a run or of a judge that left its run; empty if nothing was.

    Raises RunError for a damaged file.
    """
    path, key = folder / FILE, "tasks"
    if not path.is_file():
        path, key = folder / JUDGE, "calibration"
    if not path.is_file():
        return {}
    record = read_json(path)
    tasks = record.get(key) if isinstance(record, dict) else None
    if tasks is None and key == "calibration":
        return {}
    if not isinstance(tasks, dict) or not all(_is_fitted(each) for each in tasks.values()):
        raise RunError(f"{path}: '{key}' holds no temperatures. The file is damaged; calibrate the run again.")
    return dict(tasks)


def temperature_of(folder: Path, task: str) -> float | None:
    """Return the temperature of a run's judge of a task; None where it is not calibrated. Raises RunError."""
    fitted = read_calibration(folder).get(task)
    return None if fitted is None else float(fitted["temperature"])


def _is_fitted(record: Any) -> bool:
    temperature = record.get("temperature") if isinstance(record, dict) else None
    return isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature > 0
