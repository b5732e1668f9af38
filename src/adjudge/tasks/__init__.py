"""Tasks: their YAML files, their rows, their metrics."""

from adjudge.tasks.catalogue import list_tasks, load_task, spec_to_yaml
from adjudge.tasks.infer import infer_task
from adjudge.tasks.reading.draw import take_rows, take_shots
from adjudge.tasks.reading.folds import deal_folds, has_own_dev, rows_to_fold
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
from adjudge.tasks.reading.table import column_names, examples_for_prediction, read_table
from adjudge.tasks.slices import check_slices, with_slices
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.table_format import table_format
from adjudge.tasks.validate import validate_task

__all__ = [
    "Overlap",
    "TaskSpec",
    "check_slices",
    "column_names",
    "count_contradictions",
    "deal_folds",
    "examples_for_prediction",
    "find_overlap",
    "given_examples",
    "has_own_dev",
    "infer_task",
    "list_tasks",
    "load_split",
    "load_task",
    "measure_overlap",
    "on_file",
    "read_table",
    "rows_to_fold",
    "spec_to_yaml",
    "table_format",
    "take_rows",
    "take_shots",
    "validate_task",
    "with_slices",
    "without_overlap",
]
