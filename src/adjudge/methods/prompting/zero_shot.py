"""Zero-shot prompting: the untrained model, asked; here or behind an API."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.evaluation.api_judge import api_judge
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.methods.base import Method, Trained
from adjudge.models.chat_api import is_api
from adjudge.models.policy import load_policy
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return the untrained model, prompted with each task."""
    if is_api(run.config.model):
        return [api_judge(run.config, spec, run.folder) for spec in specs]
    policy = load_policy(run.config)
    return [PromptedJudge(PromptedTask(policy, spec, run.config)) for spec in specs]


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Return the judges; nothing is trained."""
    return Trained(load_judges(run, [part.spec for part in parts]))


METHOD = Method(build_judges, load_judges)
