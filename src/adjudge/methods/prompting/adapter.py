"""An adapter from elsewhere: a model with LoRA layers that peft or trl trained.

It is asked as zero-shot asks a bare model. Nothing is trained. The base model is ``model``, the adapter's folder
``adapter.folder``. Its configuration is checked first (`adjudge.models.sources.foreign_adapter`): only plain LoRA
layers are loaded.

Source: arXiv 2106.09685 (LoRA), as peft saves it.
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.errors import ConfigError
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.methods.base import Method, Trained
from adjudge.models.policy import load_policy
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.runs.given_adapter import GivenAdapter, check_recorded, given_adapter, report_base
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Return the judges; nothing is trained. Raises RunError and ModelError."""
    adapter = _adapter_of(run)
    judges = _judges(run, [part.spec for part in parts], adapter)
    return Trained(judges, figures=[adapter.recorded() for _ in parts])


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return the judges of a finished run. Raises RunError when the adapter is gone or has changed."""
    adapter = _adapter_of(run)
    check_recorded(run.folder, adapter)
    return _judges(run, specs, adapter)


def _adapter_of(run: Run) -> GivenAdapter:
    if run.config.adapter.folder is None:
        raise ConfigError("adapter needs adapter.folder: name the adapter's folder.")
    return given_adapter(run.config.adapter.folder)


def _judges(run: Run, specs: Sequence[TaskSpec], adapter: GivenAdapter) -> list[Judge]:
    report_base(adapter, run.config.model)
    policy = load_policy(run.config)
    policy.load_foreign_adapter(adapter.foreign)
    policy.merge()
    return [PromptedJudge(PromptedTask(policy, spec, run.config)) for spec in specs]


METHOD = Method(build_judges, load_judges)
