"""Train and load one method on one task, and read what a run logged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adjudge.config.methods import own_group
from adjudge.methods.registry import get_entry
from adjudge.runs.folder import Run, read_jsonl
from adjudge.runs.start import starting_point
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

EPOCHS_ALONE: dict[str, Any] = {
    f"{name}.min_steps": 0
    for name in (
        "sft",
        "ppo",
        "reinforce",
        "rloo",
        "grpo",
        "critique_grpo",
        "exact",
        "dpo",
        "tdpo",
        "spin",
        "sppo",
        "swie",
        "reward_model",
        "head",
        "encoder",
    )
}
"""Runs as short as their epochs, however few rows they have."""

PLAIN_PPO: dict[str, Any] = {
    "ppo.epochs": 1,
    "ppo.warm_start": 0.0,
    "ppo.samples": 1,
    "ppo.values": "critic",
    "ppo.reward.balance": False,
    "ppo.min_steps": 0,
}
"""PPO without our additions: one answer per prompt, a critic, and rewards from the first step on."""


def tiny_run(method: str, model: Path, **values: Any) -> dict[str, Any]:
    """Return the settings of a run that takes seconds; `values` are more of them, with ``__`` for the dots."""
    return {
        **EPOCHS_ALONE,
        "method": method,
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "data.train_rows": 20,
        "data.eval_rows": 8,
        "evaluation.resamples": 100,
        f"{own_group(method)}.batch_size": 4,
        **{key.replace("__", "."): value for key, value in values.items()},
    }


def train_one(name: str, run: Run, spec: TaskSpec, rows: Sequence[Example]) -> Any:
    """Train a method on the rows of one task, and return the judge."""
    run.start = starting_point(run.config)
    return get_entry(name).load().train(run, [TaskRows(spec, rows)]).judges[0]


def load_one(name: str, run: Run, spec: TaskSpec) -> Any:
    """Return the judge of a finished run for one task."""
    return get_entry(name).load().load(run, [spec])[0]


def logged(run: Run) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl, in order."""
    return list(read_jsonl(run.folder / "metrics.jsonl"))
