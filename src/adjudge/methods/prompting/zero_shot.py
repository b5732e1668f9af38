"""Zero-shot prompting: the untrained model, asked."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.base import Method, Trained
from adjudge.models.policy import load_policy
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[PromptedJudge]:
    """Return the untrained model, prompted with each task."""
    policy = load_policy(run.config)
    return [PromptedJudge(PromptedTask(policy, spec, run.config)) for spec in specs]


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Return the judges; nothing is trained."""
    return Trained(load_judges(run, [part.spec for part in parts]))


METHOD = Method(build_judges, load_judges)
