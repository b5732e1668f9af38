"""What methods that show demonstrations share: their judges, label priors, and what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from safetensors.torch import load, save

from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.api_judge import ApiJudge, api_judge
from adjudge.evaluation.averaging import AveragedJudge
from adjudge.evaluation.label_prior import label_prior
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.methods.settings import weighs_labels
from adjudge.models.chat_api import is_api
from adjudge.models.encoder import load_encoder
from adjudge.models.policy import Policy, load_policy
from adjudge.prompts.demonstrations import demonstration_orders, prior_rows
from adjudge.prompts.nearest import NearestRenderer, Neighbours, embedding
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.system.console import note
from adjudge.system.files import write_bytes, write_json, write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example, Explained

DEMONSTRATIONS = "demonstrations.jsonl"
VECTORS = "demonstrations.safetensors"
LABEL_PRIORS = "label_priors.json"

ENCODER, MAX_TOKENS = "minilm-l6", 256
"""The bundled sentence encoder, and the longest text that it reads."""


def shown_judge(run: Run, part: TaskRows, demonstrations: Sequence[Example], policy: Policy | None = None) -> Judge:
    """Return the judge of a new run that shows these rows, with its label priors; keep both in the run.

    `policy` is the run's model, where it is loaded already.
    """
    spec, prompt, seed = part.spec, run.config.prompt, run.config.seed
    measured_on = prior_rows(part.rows, demonstrations, spec, prompt, seed)
    lines = "".join(f"{json.dumps(_record(row), ensure_ascii=False)}\n" for row in demonstrations)
    write_text(run.folder / DEMONSTRATIONS, lines)
    if is_api(run.config.model):
        return _api_judge(run, spec, demonstrations, new=True)
    tasks = _tasks(run, policy or load_policy(run.config), spec, demonstrations, new=True)
    if weighs_labels(run.config) and not (spec.is_number or spec.several):
        note(f"{spec.name}: label words are weighed, so the answer is the likeliest of them (decode=labels)")
    if measured_on:
        if prompt.prior == "training-rows" and len(measured_on) < prompt.prior_rows:
            note(f"{spec.name}: the label prior is measured on {len(measured_on)} training rows; there are no more")
        for task in tasks:
            task.prior = label_prior(task, measured_on)
        rows = [row.id for row in measured_on]
        record = {"task": spec.name, "prior": prompt.prior, "rows": rows, "orders": [task.prior for task in tasks]}
        write_json(run.folder / LABEL_PRIORS, record)
    return _judge(tasks)


def _record(row: Example) -> dict[str, Any]:
    record = {"id": row.id, "fields": dict(row.fields), "gold": row.gold}
    return {**record, "explanation": row.explanation} if isinstance(row, Explained) else record


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return a finished run's judges, with its demonstrations and priors.

    Raises RunError when these are missing.
    """
    path = run.folder / DEMONSTRATIONS
    if not path.is_file():  # without them it would silently be another method
        raise RunError(
            f"{path} is missing: the demonstrations of the run. Evaluate {run.config.method} again with another --out."
        )
    demonstrations = [(Explained if "explanation" in record else Example)(**record) for record in read_jsonl(path)]
    if is_api(run.config.model):
        return [_api_judge(run, spec, demonstrations) for spec in specs]
    policy = load_policy(run.config)
    judges: list[Judge] = []
    for spec in specs:
        tasks = _tasks(run, policy, spec, demonstrations)
        for task, prior in zip(tasks, _recorded_priors(run, spec), strict=False):
            task.prior = prior
        judges.append(_judge(tasks))
    return judges


def _tasks(
    run: Run, policy: Policy, spec: TaskSpec, demonstrations: Sequence[Example], *, new: bool = False
) -> list[PromptedTask]:
    """Return the task with each order of the demonstrations.

    Raises ConfigError for greedy decoding where label probabilities are weighed.
    """
    config = run.config
    if not (spec.is_number or spec.several) and weighs_labels(config) and config.evaluation.decode == "greedy":
        raise ConfigError(
            f"This judge weighs the probabilities of label words (prompt.prior={config.prompt.prior}, "
            f"prompt.demonstration_orders={config.prompt.demonstration_orders}) and answers with the likeliest; a "
            "greedy answer would ignore the weights. Leave --decode greedy out, or evaluate it again with "
            "prompt.prior=none prompt.demonstration_orders=1."
        )
    orders = demonstration_orders(config.prompt, config.seed)
    if spec.is_number or spec.several:  # its answers are read, so there is nothing to average
        orders = orders[:1]
    if config.prompt.demonstration_choice != "nearest" or not demonstrations:
        return [PromptedTask(policy, spec, config, [demonstrations[index] for index in order]) for order in orders]
    neighbours = _neighbours(run, spec, demonstrations, new=new)
    renderers = [NearestRenderer(policy.tokenizer, spec, config.prompt, neighbours, order) for order in orders]
    return [PromptedTask(policy, spec, config, renderer=renderer) for renderer in renderers]


def _api_judge(run: Run, spec: TaskSpec, demonstrations: Sequence[Example], *, new: bool = False) -> ApiJudge:
    """Return the judge of a model behind an API, which is shown the same rows in the same order."""
    if run.config.prompt.demonstration_choice == "nearest" and demonstrations:
        return api_judge(run.config, spec, run.folder, _neighbours(run, spec, demonstrations, new=new).of)
    return api_judge(run.config, spec, run.folder, lambda rows: [demonstrations] * len(rows))


def _neighbours(run: Run, spec: TaskSpec, rows: Sequence[Example], *, new: bool) -> Neighbours:
    """Return the finder of each row's nearest demonstrations.

    Writes their vectors for a `new` run, and else reads them. Raises RunError when they are missing, or the
    demonstrations have other fields than the task.
    """
    config = run.config
    path = run.folder / VECTORS
    embed = embedding(load_encoder(ENCODER, config.runtime, MAX_TOKENS, ()), spec, config.evaluation.batch_size)
    if new:
        note(f"{spec.name}: the vectors of {len(rows):,} training rows, to show each row its nearest …")
        write_bytes(path, save({"vectors": embed(rows)}))
    if not path.is_file():
        raise RunError(f"{path} is missing: where the run's demonstrations lie. Evaluate {run.config.method} again.")
    if rows and set(rows[0].fields) != set(spec.fields):
        raise RunError(
            f"{run.folder} shows rows with {', '.join(rows[0].fields)}; nearness to a row of {spec.name} "
            f"({', '.join(spec.fields)}) is not defined. Evaluate {run.config.method} on {spec.name} itself."
        )
    return Neighbours(rows, load(path.read_bytes())["vectors"], embed, config.prompt.demonstrations)


def _judge(tasks: Sequence[PromptedTask]) -> PromptedJudge:
    return AveragedJudge(tasks) if len(tasks) > 1 else PromptedJudge(tasks[0])


def _recorded_priors(run: Run, spec: TaskSpec) -> list[dict[str, float]]:
    """Return the label priors that the run measured, by order; none without.

    Raises RunError when they are missing or of another task.
    """
    prompt = run.config.prompt
    if prompt.prior == "none" or spec.is_number or spec.several:
        return []
    path = run.folder / LABEL_PRIORS
    if not path.is_file():
        raise RunError(
            f"{path} is missing: the label priors of the run. Evaluate {run.config.method} again with another --out."
        )
    record = read_json(path)
    priors: list[dict[str, float]] = record["orders"]
    if record["task"] != spec.name or any(set(prior) != set(spec.words) for prior in priors):
        raise RunError(
            f"{path} has the label priors of {record['task']}'s prompt, not of {spec.name}'s. Evaluate "
            f"{run.config.method} on {spec.name} itself, or set prompt.prior=none in the run that is to judge other "
            "tasks."
        )
    if len(priors) != prompt.demonstration_orders:
        raise RunError(
            f"{path} has {len(priors)} label priors, and prompt.demonstration_orders is {prompt.demonstration_orders}. "
            f"Evaluate {run.config.method} again with another --out."
        )
    return priors
