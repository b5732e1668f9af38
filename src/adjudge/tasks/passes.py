"""A task with sets of labels as a task of single questions: does this label apply, yes or no?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adjudge.tasks.sets import members, set_text
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

NO, YES = "No", "Yes"
LABEL = "label"
"""The field with the label that is asked for."""


def asked_task(spec: TaskSpec) -> TaskSpec:
    """Return the task of single questions; any other task as it is."""
    if spec.several != "passes":
        return spec
    field = label_field(spec)
    return spec.model_copy(
        update={
            "fields": {**spec.fields, field: field},
            "template": f"{spec.template.rstrip()}\nLabel: {{{{ {field} }}}}",
            "labels": {NO: NO, YES: YES},
            "positive": YES,
            "several": None,
            "indicators": False,
            "label": "answer",
            "metrics": ("f1", "accuracy"),
        }
    )


def label_field(spec: TaskSpec) -> str:
    """Return a name for the field of the label which is no field of the task."""
    name = LABEL
    while name in spec.fields:
        name += "_"
    return name


def ask(spec: TaskSpec, row: Example) -> list[Example]:
    """Return one question per label, a group, in the order of the labels."""
    field = label_field(spec)
    right = None if row.gold is None else members(str(row.gold))
    return [
        replace(
            row,
            id=f"{row.id}#{number}",
            fields={**row.fields, field: name},
            gold=None if right is None else (YES if name in right else NO),
            group=row.group or row.id,
        )
        for number, name in enumerate(spec.names, 1)
    ]


def joined(spec: TaskSpec, row: Example, answers: Sequence[Prediction]) -> Prediction:
    """Return the answers to the questions of a row as the judgement of the row."""
    text = "; ".join(f"{name}: {answer.text}" for name, answer in zip(spec.names, answers, strict=True))
    chosen = {name for name, answer in zip(spec.names, answers, strict=True) if answer.value == YES}
    value = None if any(answer.value is None for answer in answers) else set_text(chosen, spec.names)
    shares = {
        name: answer.probabilities[YES]
        for name, answer in zip(spec.names, answers, strict=True)
        if answer.probabilities
    }
    return Prediction.of(row, text, value, shares)
