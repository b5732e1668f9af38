"""What a method is: something that turns a task's training rows into a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.models.policy import load_policy
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example


@dataclass(frozen=True, slots=True)
class Method:
    """One way to obtain a judge. What can be said of it without importing it stands in its `Entry` in the registry.

    `build` gets the run (its `config` holds every setting), the task and the training rows; it logs to the run, saves what
    it trained into the run folder, and returns the judge. `load` brings the judge of a finished run back.
    """

    name: str
    build: Callable[[Run, TaskSpec, Sequence[Example]], Judge]
    load: Callable[[Run, TaskSpec], Judge]
    mix: Callable[[Run, Sequence[TaskRows]], Sequence[Judge]] | None = None
    """Trains one adapter on several tasks and returns a judge a task, in their order; None where the method cannot."""


def adapter_method(name: str, train: Callable[[Run, Sequence[TaskRows]], Sequence[Judge]]) -> Method:
    """A method that trains an adapter on the rows of one task or of several, the same way."""
    return Method(
        name, build=lambda run, spec, rows: train(run, [TaskRows(spec, rows)])[0], load=load_trained, mix=train
    )


def load_trained(run: Run, spec: TaskSpec) -> PromptedJudge:
    """The judge of a finished run that trained an adapter."""
    policy = load_policy(run.config)
    policy.load_adapter(run.folder / "adapter", train=False)
    policy.merge()
    return PromptedJudge(policy, spec, run.config)
