"""Find and load tasks: the built-in YAML files next to this module, and the user's own."""

from __future__ import annotations

import functools
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from adjudge.errors import TaskError, nearest
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.task_yaml import read_task_file, read_tree
from adjudge.tasks.validate import parse_task

_SUFFIXES = (".yaml", ".yml")


def list_tasks() -> list[str]:
    """Return the names of the built-in tasks, sorted: ``glue/sst2``, ``vader/movies``, …"""
    return sorted(_built_in())


def load_task(name_or_path: str | Path) -> TaskSpec:
    """Load a built-in task by name, or the user's own from a YAML file.

    Relative paths in ``source.table`` are relative to the YAML file; they are made absolute. Raises TaskError with the
    nearest name for an unknown task, or with every mistake of the file.
    """
    known = _built_in()
    if isinstance(name_or_path, str) and name_or_path in known:
        return _load_built_in(name_or_path).model_copy(deep=True)
    path = Path(name_or_path)
    if path.suffix.lower() not in _SUFFIXES and not path.is_file():
        raise TaskError(
            f"There is no task '{name_or_path}'.{nearest(str(name_or_path), sorted(known))} "
            "A task of your own is a .yaml file."
        )
    tree = read_task_file(path)
    return _with_absolute_table(parse_task(tree, str(path)), path.resolve().parent)


def spec_to_yaml(spec: TaskSpec) -> str:
    """Return the task as YAML, without default values; `load_task` reads it back as the same task."""
    tree: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True)
    tree.setdefault("label", spec.label)  # the default is not null, so null must be written out
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


@functools.cache
def _load_built_in(name: str) -> TaskSpec:
    return parse_task(read_tree(_built_in()[name].read_text(encoding="utf-8"), name), name)


def _with_absolute_table(spec: TaskSpec, folder: Path) -> TaskSpec:
    table = spec.source.table
    if table is None:
        return spec
    paths = {"train": table.train, "dev": table.dev, "test": table.test}
    absolute = {key: str(folder / path) for key, path in paths.items() if path is not None}
    source = spec.source.model_copy(update={"table": table.model_copy(update=absolute)})
    return spec.model_copy(update={"source": source})


def _built_in() -> dict[str, Traversable]:
    """Return the YAML file of each built-in task, by its name."""
    files = {}
    for group in resources.files("adjudge.tasks").iterdir():
        if group.is_dir():
            for file in group.iterdir():
                if file.name.endswith(".yaml"):
                    files[f"{group.name}/{file.name.removesuffix('.yaml')}"] = file
    return files
