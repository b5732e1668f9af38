"""The tasks there are: the built-in YAML files beside this module, and the user's own."""

from __future__ import annotations

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
    """Names of the built-in tasks, sorted: ``glue/sst2``, ``vader/movies``, …"""
    return sorted(_built_in())


def load_task(name_or_path: str | Path) -> TaskSpec:
    """Load a built-in task by name, or the user's own from a YAML file.

    A relative file in ``source.table`` is taken relative to the YAML file and becomes absolute. Raises TaskError: an unknown name
    with the nearest one, or every mistake of the file.
    """
    known = _built_in()
    if isinstance(name_or_path, str) and name_or_path in known:
        return parse_task(read_tree(known[name_or_path].read_text(encoding="utf-8"), name_or_path), name_or_path)
    path = Path(name_or_path)
    if path.suffix.lower() not in _SUFFIXES and not path.is_file():
        raise TaskError(
            f"There is no task '{name_or_path}'.{nearest(str(name_or_path), sorted(known))} Your own is a .yaml file."
        )
    tree = read_task_file(path)
    return _with_absolute_table(parse_task(tree, str(path)), path.resolve().parent)


def spec_to_yaml(spec: TaskSpec) -> str:
    """The task as YAML that `load_task` reads back as the same task (what is at its default is left out)."""
    tree: dict[str, Any] = spec.model_dump(mode="json", exclude_defaults=True)
    tree.setdefault("label", spec.label)  # its default is a name, so that null must be written out
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def _with_absolute_table(spec: TaskSpec, folder: Path) -> TaskSpec:
    table = spec.source.table
    if table is None:
        return spec
    moved = {
        key: str(folder / value) for key, value in (("train", table.train), ("dev", table.dev)) if value is not None
    }
    return spec.model_copy(update={"source": spec.source.model_copy(update={"table": table.model_copy(update=moved)})})


def _built_in() -> dict[str, Traversable]:
    found = {}
    for group in resources.files("adjudge.tasks").iterdir():
        if group.is_dir():
            for file in group.iterdir():
                if file.name.endswith(".yaml"):
                    found[f"{group.name}/{file.name.removesuffix('.yaml')}"] = file
    return found
