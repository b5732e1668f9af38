"""Sets of labels asked label by label: a row becomes one question with yes or no per label.

A method learns and judges these questions as it does any task of two labels, and never knows of the sets. Its judge
is wrapped: the labels answered with yes are the row's set. A row with one unreadable answer is unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adjudge.evaluation.predict import Judge
from adjudge.methods.base import Method, Trained
from adjudge.runs.folder import Run
from adjudge.tasks.passes import ask, asked_task, joined
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example, Prediction


class PassesJudge:
    """Judges every label of a row with the judge of single questions."""

    def __init__(self, judge: Judge, spec: TaskSpec) -> None:
        self.inner, self.spec = judge, spec

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row; with `probabilities` each label has that of yes. See `Judge.judge`."""
        questions = [question for example in examples for question in ask(self.spec, example)]
        answers = self.inner.judge(questions, probabilities=probabilities, title=title)
        count = len(self.spec.names)
        return [
            joined(self.spec, example, answers[row * count : (row + 1) * count]) for row, example in enumerate(examples)
        ]

    @property
    def spent(self) -> Any:
        """Return what a judge behind an API has spent; None for any other."""
        return getattr(self.inner, "spent", None)


def in_passes(method: Method) -> Method:
    """Return the method, which then also takes tasks with ``several: passes``."""

    def train(run: Run, parts: Sequence[TaskRows]) -> Trained:
        if not any(part.spec.several == "passes" for part in parts):
            return method.train(run, parts)
        trained = method.train(run, [_questions(part) for part in parts])
        return replace(trained, judges=_wrapped(trained.judges, [part.spec for part in parts]))

    def load(run: Run, specs: Sequence[TaskSpec]) -> Sequence[Judge]:
        return _wrapped(method.load(run, [asked_task(spec) for spec in specs]), specs)

    return replace(method, train=train, load=load)


def _questions(part: TaskRows) -> TaskRows:
    if part.spec.several != "passes":
        return part
    return TaskRows(asked_task(part.spec), [question for row in part.rows for question in ask(part.spec, row)])


def _wrapped(judges: Sequence[Judge], specs: Sequence[TaskSpec]) -> list[Judge]:
    return [asked_in_passes(judge, spec) for judge, spec in zip(judges, specs, strict=True)]


def asked_in_passes(judge: Judge, spec: TaskSpec) -> Judge:
    """Return the judge of a task, given that of its single questions; of any other task the same judge."""
    return PassesJudge(judge, spec) if spec.several == "passes" else judge
