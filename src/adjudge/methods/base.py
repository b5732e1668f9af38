"""A method: a way to turn training rows into judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adjudge.evaluation.predict import Judge
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a method: one judge per task, in the order of the tasks."""

    judges: Sequence[Judge]
    rows: int = 0
    """Number of rows learned from, repetitions counted."""
    earlier_s: float = 0.0
    """Seconds of training before the run was resumed."""


@dataclass(frozen=True, slots=True)
class Method:
    """The two functions of a method. Its `Entry` in the registry holds what is known without importing it.

    `train` gets the run, whose `config` holds every setting, and each task with its training rows. It logs to the run,
    saves the trained weights into the run folder, and returns the judges. `load` returns the judges of a finished run.
    """

    train: Callable[[Run, Sequence[TaskRows]], Trained]
    load: Callable[[Run, Sequence[TaskSpec]], Sequence[Judge]]
