"""The finished run whose reward model another run learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import RunError
from adjudge.models.sources.untrusted import ADAPTER_CONFIG, ADAPTER_WEIGHTS, EMBEDDING_SETTINGS, EMBEDDING_WEIGHTS
from adjudge.runs.base import check_same_model
from adjudge.runs.environment import FILE
from adjudge.runs.folder import Run, read_json
from adjudge.runs.start import model_hashes
from adjudge.runs.tasks import read_tasks, same_task, task_record
from adjudge.system.console import warn
from adjudge.tasks.spec import TaskSpec

REWARD_MODEL = "reward_model"
"""The key under which a run records its reward model."""

FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, EMBEDDING_SETTINGS, EMBEDDING_WEIGHTS, "value_head.safetensors")
"""The files of its adapter that decide on its rewards."""

LEAST_ACCURACY = 0.6
"""Smallest share of held-out pairs that a reward model must rate in the right order; 0.5 is chance."""


FEW_PAIRS = 20
"""Of fewer held-out pairs there is a warning: guessing rates 12 of 20 or more in the right order in 1 of 4 cases."""


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A run folder with a reward model, and its files' hashes, which must not change during the new run."""

    folder: Path
    files: dict[str, str]
    """File name to SHA-256."""
    pair_accuracy: dict[str, float]
    """Task to the share of held-out pairs whose right answer has the higher reward."""
    kind: str = "label"
    """What the answers of its pairs differ in: ``label``, or ``rationale`` (their analyses)."""
    rates_analyses: bool = False
    """True if it rates answers with an analysis before the judgement."""

    def recorded(self) -> dict[str, Any]:
        """Return what a run records of it."""
        record = {"folder": str(self.folder), "pair_accuracy": self.pair_accuracy, "sha256": self.files}
        return {REWARD_MODEL: record}


def reward_model_at(folder: Path, config: Config, specs: Sequence[TaskSpec]) -> RewardModel:
    """Return the reward model in a run folder, for a run of `config` on the tasks.

    Raises RunError when the folder holds no finished one, or one of another base, for another task, or which rates less
    than `LEAST_ACCURACY` of its held-out pairs in the right order.
    """
    run = Run.open(folder)
    training = read_json(folder / "training.json") if (folder / "training.json").is_file() else {}
    if run.state != "complete" or not training:
        raise RunError(f"reward.model: {folder} is {run.state}. Only a complete run of a reward model can be a reward.")
    records = [training, *training.get("tasks", {}).values()]
    if all("pair_accuracy" not in record for record in records):
        raise RunError(
            f"reward.model: {folder} is a run of {run.config.method}, which learns no reward. Name a run of "
            "adjudge train reward-model."
        )
    known = {spec.name: spec for spec in read_tasks(folder)}
    for spec in specs:
        if spec.name not in known:
            raise RunError(
                f"reward.model: {folder} rates answers to {', '.join(known)}, not to {spec.name}. Train one on it."
            )
        if not same_task(known[spec.name], spec):
            raise RunError(
                f"reward.model: {folder} was trained on another version of {spec.name}: its fields, labels or "
                "instruction differ. Train one on this task."
            )
    analysed = run.config.prompt.analysis == "before"
    if analysed and config.prompt.analysis != "before":
        raise RunError(
            f"reward.model: {folder} rates answers with an analysis before the judgement. Set prompt.analysis=before, "
            "or train one without."
        )
    records = [task_record(training, spec.name) for spec in specs]
    accuracies = {spec.name: record["pair_accuracy"] for spec, record in zip(specs, records, strict=True)}
    environment = read_json(folder / FILE) if (folder / FILE).is_file() else {}
    if environment.get("model"):
        check_same_model(folder, environment["model"], config.model)
    for name, accuracy in accuracies.items():
        if accuracy is None:
            raise RunError(
                f"reward.model: {folder} has no held-out pair of {name} to tell how good it is. Give it more rows."
            )
        if accuracy < LEAST_ACCURACY:
            raise RunError(
                f"reward.model: {folder} rates {accuracy:.2f} of its held-out pairs of {name} in the right order, and "
                f"0.5 is chance. Below {LEAST_ACCURACY} it serves no other run: give it more rows or epochs."
            )
    for spec, record in zip(specs, records, strict=True):
        if (pairs := record.get("held_out_pairs", FEW_PAIRS)) < FEW_PAIRS:
            warn(f"{folder}: its accuracy on {spec.name} rests on {pairs} held-out pairs: it may be chance.")
    files = {name: digest for name, digest in model_hashes(folder / "adapter").items() if name in FILES}
    return RewardModel(folder, files, accuracies, records[0].get("pair_kind", "label"), analysed)
