"""Tasks: their YAML files, their rows, their metrics."""

from adjudge.tasks.catalogue import list_tasks, load_task, spec_to_yaml
from adjudge.tasks.infer import infer_task
from adjudge.tasks.reading.draw import take_rows
from adjudge.tasks.reading.given_rows import given_examples
from adjudge.tasks.reading.judged_file import on_file
from adjudge.tasks.reading.overlap import (
    Overlap,
    count_contradictions,
    find_overlap,
    measure_overlap,
    without_overlap,
)
from adjudge.tasks.reading.sources import load_split
from adjudge.tasks.reading.table import examples_for_prediction, read_table
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.validate import validate_task

__all__ = [
    "Overlap",
    "TaskSpec",
    "count_contradictions",
    "examples_for_prediction",
    "find_overlap",
    "given_examples",
    "infer_task",
    "list_tasks",
    "load_split",
    "load_task",
    "measure_overlap",
    "on_file",
    "read_table",
    "spec_to_yaml",
    "take_rows",
    "validate_task",
    "without_overlap",
]
