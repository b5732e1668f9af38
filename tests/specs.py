"""Small tasks for tests that only need a set of answers."""

from __future__ import annotations

from typing import Any

from adjudge.tasks.spec import TaskSpec


def label_task(*words: str, **changes: Any) -> TaskSpec:
    """Return a task with one text field, answered with one of `words`.

    Its raw labels are "0", "1", … in the order of `words`; `changes` are other fields of the spec.
    """
    return _task(
        **{"labels": {str(index): word for index, word in enumerate(words)}, "metrics": ("accuracy",), **changes}
    )


def number_task(low: float, high: float, decimals: int = 1, **changes: Any) -> TaskSpec:
    """Return a task with one text field, answered with a number."""
    return _task(**{"number": {"low": low, "high": high, "decimals": decimals}, "metrics": ("pearson",), **changes})


def _task(**fields: Any) -> TaskSpec:
    plain = {
        "name": "mine",
        "title": "Mine",
        "fields": {"text": "text"},
        "instruction": "Judge.",
        "template": "{{ text }}",
        "source": {},
    }
    return TaskSpec.model_validate({**plain, **fields})
