"""Few-shot prompting: the untrained model, shown worked examples and asked.

Differs from arXiv 2410.11020:

1. Demonstrations are balanced over the labels. ``prompt.demonstration_choice=first`` takes the first rows (the paper).
2. They are turns of the chat where the model has a chat template.
3. ``prompt.prior`` divides the label probabilities by those that the prompt gives whatever the row
   (`adjudge.evaluation.label_prior`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.label_prior import label_prior
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.base import Method, Trained
from adjudge.methods.registry import weighs_labels
from adjudge.models.policy import load_policy
from adjudge.prompts.demonstrations import choose_demonstrations, prior_rows
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.system.files import write_json, write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

DEMONSTRATIONS = "demonstrations.jsonl"
LABEL_PRIOR = "label_prior.json"


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Choose demonstrations among the training rows of one task, measure the label prior, and keep both in the run."""
    (part,) = parts
    prompt, seed = run.config.prompt, run.config.seed
    demonstrations = choose_demonstrations(part.rows, part.spec, prompt, seed)
    measured_on = prior_rows(part.rows, demonstrations, part.spec, prompt, seed)
    records = ({"id": row.id, "fields": dict(row.fields), "gold": row.gold} for row in demonstrations)
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    write_text(run.folder / DEMONSTRATIONS, lines)
    task = _task(run, part.spec, demonstrations)
    if measured_on:
        task.prior = label_prior(task, measured_on)
        rows = [row.id for row in measured_on]
        record = {"task": part.spec.name, "prior": prompt.prior, "rows": rows, "probabilities": task.prior}
        write_json(run.folder / LABEL_PRIOR, record)
    return Trained([PromptedJudge(task)])


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[PromptedJudge]:
    """Return a finished run's judges, with its demonstrations and prior. Raises RunError when these are missing."""
    path = run.folder / DEMONSTRATIONS
    if not path.is_file():  # without them it would silently be another method
        raise RunError(f"{path} is missing: the demonstrations of the run. Evaluate few-shot again with another --out.")
    demonstrations = [Example(**record) for record in read_jsonl(path)]
    judges = []
    for spec in specs:
        task = _task(run, spec, demonstrations)
        task.prior = _recorded_prior(run, spec)
        judges.append(PromptedJudge(task))
    return judges


def _task(run: Run, spec: TaskSpec, demonstrations: Sequence[Example]) -> PromptedTask:
    if weighs_labels(run.config) and run.config.evaluation.decode == "greedy" and not spec.is_number:
        raise ConfigError(
            f"prompt.prior={run.config.prompt.prior} weighs the probabilities of label words, so this judge answers "
            "with the likeliest word: a greedy answer would ignore the weights. Use --decode labels, or "
            "prompt.prior=none."
        )
    return PromptedTask(load_policy(run.config), spec, run.config, demonstrations)


def _recorded_prior(run: Run, spec: TaskSpec) -> dict[str, float] | None:
    """Return the label prior that the run measured. Raises RunError when it is missing or of another task."""
    if run.config.prompt.prior == "none" or spec.is_number:
        return None
    path = run.folder / LABEL_PRIOR
    if not path.is_file():
        raise RunError(f"{path} is missing: the label prior of the run. Evaluate few-shot again with another --out.")
    record = read_json(path)
    prior: dict[str, float] = record["probabilities"]
    if record["task"] != spec.name or set(prior) != set(spec.words):
        raise RunError(
            f"{path} is the label prior of {record['task']}'s prompt, not of {spec.name}'s. Evaluate few-shot on "
            f"{spec.name} itself, or set prompt.prior=none in the run that is to judge other tasks."
        )
    return prior


METHOD = Method(build_judges, load_judges)
