"""The folder a run or a comparison is written to when nobody names one.

runs/TASK/METHOD-seedN     a run
runs/compare-TASK          a comparison

Tables of the same name, or other columns of one table, make other tasks. Where runs of another task have the folder,
its name gets the first digits of a hash of the task: ``runs/reviews-3fa9c1``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from adjudge.errors import RunError
from adjudge.runs.tasks import joint_name, read_tasks
from adjudge.runs.work import has_work
from adjudge.system.console import note
from adjudge.system.files import is_locked
from adjudge.tasks.reading.kept_rows import placeless
from adjudge.tasks.spec import TaskSpec

ROOT = Path("runs")
DIGITS = 6


def default_folder(specs: Sequence[TaskSpec], method: str, seed: int, *, resume: bool = False) -> Path:
    """Return ``runs/TASK/METHOD-seedN``, apart from runs of other tasks with this name.

    A note says which they are. With `resume`, a run of another task is not avoided unless there is one of these tasks:
    resuming says what differs.
    """
    folder = _free_for(specs, joint_name([spec.name for spec in specs]), _runs_in, resume=resume)
    return folder / f"{method}-seed{seed}"


def comparison_folder(specs: Sequence[TaskSpec]) -> Path:
    """Return ``runs/compare-TASK``, apart from comparisons of other tasks with this name.

    A note says which they are.
    """
    return _free_for(specs, f"compare-{joint_name([spec.name for spec in specs])}", _cells_in)


def search_folder(spec: TaskSpec) -> Path:
    """Return ``runs/tune-TASK``, apart from searches on other tasks with this name; a note says which."""
    return _free_for([spec], f"tune-{joint_name([spec.name])}", _trials_in)


def audit_folder(spec: TaskSpec) -> Path:
    """Return ``runs/audit-TASK``; an audit of other rows there is refused by its runs."""
    return ROOT / f"audit-{joint_name([spec.name])}"


def _free_for(
    specs: Sequence[TaskSpec], name: str, runs_in: Callable[[Path], list[Path]], *, resume: bool = False
) -> Path:
    plain, apart = ROOT / name, ROOT / f"{name}-{_digits(specs)}"
    strangers = [difference for run in runs_in(plain) if (difference := _difference(run, specs))]
    if not strangers or (resume and not runs_in(apart)):
        return plain
    note(f"{plain} is of {strangers[0]}, so this goes to {apart}.")
    return apart


def _digits(specs: Sequence[TaskSpec]) -> str:
    return hashlib.sha256("\n".join(placeless(spec).model_dump_json() for spec in specs).encode()).hexdigest()[:DIGITS]


def _runs_in(folder: Path) -> list[Path]:
    return _used(folder.glob("*/config.yaml"))


def _cells_in(folder: Path) -> list[Path]:
    return _used(folder.glob("*/*/*/config.yaml"))


def _trials_in(folder: Path) -> list[Path]:
    return _used(folder.glob("*/trial-*/config.yaml"))


def _used(settings: Iterable[Path]) -> list[Path]:
    """Return the run folders with these settings that hold work, or in which a process works."""
    folders = sorted(path.parent for path in settings)
    return [folder for folder in folders if has_work(folder) or is_locked(folder)]


def _difference(run: Path, specs: Sequence[TaskSpec]) -> str:
    """Return in what the tasks of a run are not among `specs`; empty when all are."""
    try:
        tasks = read_tasks(run)
    except RunError:
        return "tasks of another version"
    specs = [placeless(spec) for spec in specs]
    for task in map(placeless, tasks):
        if task not in specs:
            return _what_differs(task, next((spec for spec in specs if spec.name == task.name), None))
    return ""


def _what_differs(task: TaskSpec, spec: TaskSpec | None) -> str:
    if spec is None:
        return f"another task ({task.name})"
    table = task.source.table
    if table != spec.source.table:
        return f"other data ({table.train if table is not None else task.name})"
    if task.label != spec.label:
        return f"another label column ({task.label})"
    if task.fields != spec.fields:
        return f"other text columns ({', '.join(task.fields.values())})"
    if task.is_number != spec.is_number:
        return "answers of another kind"
    return "another wording or other labels of this task"
