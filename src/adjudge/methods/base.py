"""A method: a way to turn training rows into judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.config import Config
from adjudge.evaluation.predict import Judge
from adjudge.models.chat_api import Outgoing
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a method: one judge per task, in their order."""

    judges: Sequence[Judge]
    rows: int = 0
    """Rows learned from, repetitions counted."""
    earlier_s: float = 0.0
    """Seconds of training before the run was resumed."""
    figures: Sequence[Mapping[str, Any]] = ()
    """What the method measured at its end, of each task, for training.json and scores.json; or nothing."""


@dataclass(frozen=True, slots=True)
class Method:
    """The two functions of a method. Its `Entry` in the registry can be read without importing it.

    `train` gets the run (its `config` holds every setting) and each task's training rows. It logs to the run, saves the
    trained model into the run folder, and returns the judges. `load` returns the judges of a finished run.
    """

    train: Callable[[Run, Sequence[TaskRows]], Trained]
    load: Callable[[Run, Sequence[TaskSpec]], Sequence[Judge]]
    outgoing: Callable[[Config, TaskSpec, Sequence[Example], Sequence[Example]], Outgoing] | None = None
    """Of a method with many questions per row: what training and judged rows would send to an API, at most."""
