"""Small tasks for tests of what only needs to know which answers there are."""

from __future__ import annotations

from typing import Any

from adjudge.tasks.spec import TaskSpec


def label_task(*words: str, **changes: Any) -> TaskSpec:
    """Texts in one field, answered with one of `words` (raw labels "0", "1", … in that order); `changes` are fields of the spec."""
    return _task(
        **{"labels": {str(place): word for place, word in enumerate(words)}, "metrics": ("accuracy",), **changes}
    )


def number_task(low: float, high: float, decimals: int = 1, **changes: Any) -> TaskSpec:
    """Texts in one field, answered with a number."""
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
