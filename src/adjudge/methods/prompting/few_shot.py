"""Few-shot prompting: the untrained model, shown worked examples and asked.

Differs from arXiv 2410.11020:

1. Demonstrations are balanced over the labels. ``prompt.demonstration_choice=first`` takes the first rows (the paper).
2. They are turns of the chat where the model has a chat template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from adjudge.errors import RunError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.base import Method, Trained
from adjudge.models.policy import load_policy
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run, read_jsonl
from adjudge.system.files import write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

DEMONSTRATIONS = "demonstrations.jsonl"


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Choose demonstrations among the training rows of one task, and keep them in the run folder."""
    (part,) = parts
    demonstrations = choose_demonstrations(part.rows, part.spec, run.config.prompt)
    records = ({"id": row.id, "fields": dict(row.fields), "gold": row.gold} for row in demonstrations)
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    write_text(run.folder / DEMONSTRATIONS, lines)
    return Trained([_judge(run, part.spec, demonstrations)])


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[PromptedJudge]:
    """Return a finished run's judges, with its demonstrations. Raises RunError when these are missing."""
    path = run.folder / DEMONSTRATIONS
    if not path.is_file():  # without them it would silently be another method
        raise RunError(f"{path} is missing: the demonstrations of the run. Evaluate few-shot again with another --out.")
    demonstrations = [Example(**record) for record in read_jsonl(path)]
    return [_judge(run, spec, demonstrations) for spec in specs]


def _judge(run: Run, spec: TaskSpec, demonstrations: Sequence[Example]) -> PromptedJudge:
    return PromptedJudge(PromptedTask(load_policy(run.config), spec, run.config, demonstrations))


METHOD = Method(build_judges, load_judges)
