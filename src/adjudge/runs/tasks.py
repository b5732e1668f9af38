"""The tasks of a run, and where the result of each lies.

A run over one task keeps it in task.yaml, and its result in the run folder itself. A run over several keeps them in
tasks.yaml, and the result of each in RUN/tasks/TASK, which reads like the run folder of one task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from adjudge.errors import RunError
from adjudge.runs.folder import Run
from adjudge.system.files import write_text
from adjudge.system.yaml_text import read_documents
from adjudge.tasks.reading.kept_rows import found_again
from adjudge.tasks.spec import TaskSpec

LONGEST_NAME = 100
"""Characters of a folder's name; file systems take about 255, but nobody can read a name that long."""


def write_task(run: Run, spec: TaskSpec) -> None:
    """Write a copy of the task, so the run folder is complete by itself."""
    from adjudge.tasks import spec_to_yaml

    write_text(run.folder / "task.yaml", spec_to_yaml(spec))


def write_tasks(run: Run, specs: Sequence[TaskSpec]) -> None:
    """Write the tasks of a run: one in task.yaml, several as YAML documents in tasks.yaml."""
    from adjudge.tasks import spec_to_yaml

    if len(specs) == 1:
        return write_task(run, specs[0])
    write_text(run.folder / "tasks.yaml", "---\n".join(spec_to_yaml(spec) for spec in specs))


def read_task(folder: Path) -> TaskSpec:
    """Return the task of a run over one task.

    Raises RunError when it has none or several, or one written by another version.
    """
    return pick_among(folder, read_tasks(folder), None)


def read_tasks(folder: Path) -> list[TaskSpec]:
    """Return the tasks of a run, one or several, in their order.

    Raises RunError when it has none, or some written by another version.
    """
    path = next((path for path in (folder / "task.yaml", folder / "tasks.yaml") if path.is_file()), None)
    if path is None:
        raise RunError(f"{folder} has no task.yaml; was it stopped while it was set up?")
    try:
        specs = [TaskSpec.model_validate(tree) for tree in read_documents(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path}: cannot be read as a task: {error}") from None
    if not specs:
        raise RunError(f"{path}: holds no task.")
    return [found_again(spec, folder) for spec in specs]


def same_task(one: TaskSpec, other: TaskSpec) -> bool:
    """Return whether two tasks ask the same.

    Where their rows lie, how rows could be generated, which fields are choices, and what a reader is told does not
    count. Nor does a procedure: a run that follows one has its steps among its settings.
    """
    apart = {"source", "generate", "procedure", "title", "description", "choices"}
    return one.model_dump(exclude=apart) == other.model_dump(exclude=apart)


def pick_task(folder: Path, name: str | None) -> TaskSpec:
    """Return the task of this name among those of a run, or None when it has only one.

    Raises RunError with a list of the tasks.
    """
    return pick_among(folder, read_tasks(folder), name)


def pick_among(folder: Path, specs: Sequence[TaskSpec], name: str | None) -> TaskSpec:
    """Return the task of this name among `specs`, those of `folder`; without a name, the only one.

    Raises RunError for a name that is not among them, and for several tasks without a name.
    """
    if name is None and len(specs) > 1:
        raise RunError(f"{folder} was trained on several tasks: say which with --task. {_listed(specs)}")
    if name is None:
        return specs[0]
    for spec in specs:
        if spec.name == name:
            return spec
    raise RunError(f"{folder} was not trained on {name}. {_listed(specs)}")


def folder_name(task: str) -> str:
    """Return a task's name as that of a folder: ``glue-cola``."""
    return task.replace("/", "-")


def task_folder(folder: Path, task: str) -> Path:
    """Return the folder for one task's result in a run over several tasks."""
    return folder / "tasks" / folder_name(task)


def result_folders(folder: Path) -> list[Path]:
    """Return the folders of a run's results, one per task: the run folder itself, or those of its tasks."""
    specs = read_tasks(folder)
    return [folder] if len(specs) == 1 else [task_folder(folder, spec.name) for spec in specs]


def joint_name(names: Sequence[str]) -> str:
    """Return the names of tasks as one folder name: ``glue-cola-glue-rte``.

    For many tasks, it holds their number and a hash.
    """
    joined = "-".join(map(folder_name, names))
    if len(joined) <= LONGEST_NAME:
        return joined
    return f"{len(names)}-tasks-{hashlib.sha256(','.join(names).encode()).hexdigest()[:8]}"


def task_record(training: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the content of training.json for one task: what all tasks share, and the task's own part."""
    task_part = training.get("tasks", {}).get(task, {})
    return {**{key: value for key, value in training.items() if key != "tasks"}, **task_part}


def _listed(specs: Sequence[TaskSpec]) -> str:
    return f"There is: {', '.join(spec.name for spec in specs)}."
