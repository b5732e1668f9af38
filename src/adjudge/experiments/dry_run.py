"""Estimate what runs would take, from a few real batches of each method. Nothing is left behind.

Each method trains on a draw of its own rows, `BATCHES` batches long, and judges as many: in a process of its own, with
its run folder in a temporary place. The rest is multiplication: the real run has so many steps and rows more.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from adjudge.config import Config, LoopConfig, WarmStartConfig
from adjudge.errors import AdjudgeError
from adjudge.experiments.judging import ensure_model
from adjudge.experiments.process import CellProcesses
from adjudge.experiments.rows import RunRows, rows_for
from adjudge.experiments.sending import note_sending, outgoing
from adjudge.methods.registry import get_entry
from adjudge.methods.settings import model_key
from adjudge.runs.folder import read_jsonl
from adjudge.runs.names import shown_name
from adjudge.system.console import note, warn
from adjudge.tasks.spec import TaskSpec
from adjudge.training.first_phase import FirstPhase

BATCHES = 3
"""Measured batches: of training, of each of its phases, and of judging."""

Runner = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Planned:
    """Runs of one method on one task, or on one mixture, which differ by their seed or fold alone."""

    config: Config
    specs: tuple[TaskSpec, ...]
    runs: int = 1

    @property
    def method(self) -> str:
        """Return the method's shown name."""
        return shown_name(self.config.method, len(self.specs))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one run of a method would take. Figures that were not measured are None."""

    task: str
    method: str
    runs: int
    train_rows: int
    """Rows learned from, each once however many passes there are."""
    judged_rows: int
    train_tokens: float | None = None
    """Tokens of the training rows, every pass counted, without sampled answers."""
    seconds: float | None = None
    """None of a method that is done in seconds."""
    peak_rss_gib: float | None = None
    peak_gpu_gib: float | None = None
    measured: bool = True
    """False for a search, whose steps are not alike, and for what asks many questions per row."""
    problem: str = ""
    """Why it could not be measured."""


def estimate(planned: Planned, runner: Runner) -> Estimate:
    """Measure a few batches of a method, and return what a whole run would take.

    `runner` runs them as a comparison does.
    """
    config, specs = planned.config, planned.specs
    rows = rows_for(config, specs)
    eval_count, trained = sum(map(len, rows.eval_rows)), rows.train_count
    entry = get_entry(config.method)
    known = Estimate(config.task, planned.method, planned.runs, trained if entry.trains else 0, eval_count)
    going = outgoing(config, specs, [part.rows for part in rows.parts], rows.eval_rows)
    if going is not None:  # measuring would send rows
        note_sending(config, going)
        return known
    settings = loop_settings(config)
    if entry.trains and settings is None:
        return replace(known, measured=entry.in_seconds and model_key(config) != "model")
    note(f"measuring {BATCHES} batches of {config.task} {planned.method} …")
    with tempfile.TemporaryDirectory(prefix="adjudge-dry-run-") as temp_folder:
        folder = Path(temp_folder) / "run"
        try:
            ensure_model(config)
            scores = runner(measured_settings(config, rows), specs, folder)
        except AdjudgeError as error:
            warn(f"{config.task} {planned.method} cannot be measured: {error}")
            return replace(known, problem=str(error))
        steps = list(read_jsonl(folder / "timings.jsonl"))
        logs = list(read_jsonl(folder / "metrics.jsonl"))
    judging_s = scores["seconds"]["evaluate"] / max(1, scores["n"])
    seconds = sum(scores["seconds"].values()) - scores["seconds"]["evaluate"] + judging_s * eval_count
    peaks = {name: scores[name] for name in ("peak_rss_gib", "peak_gpu_gib") if name in scores}
    if settings is None:
        return replace(known, seconds=seconds, **peaks)
    step_s = [_total(step["seconds"]) for step in steps]
    seconds += training_seconds(config, settings, rows, step_s, judging_s) - sum(step_s)
    passes = settings.passes(_steps_per_pass(config, settings, rows))
    tokens = sum(step["tokens"] for step in steps) / max(1, _last_rows(logs)) * trained * passes
    return replace(known, seconds=seconds, train_tokens=tokens, **peaks)


def loop_settings(config: Config) -> LoopConfig | None:
    """Return the settings of the method's training loop; None for a method without one."""
    groups = (getattr(config, name) for name in get_entry(config.method).settings)
    return next((group for group in groups if isinstance(group, LoopConfig)), None)


def expected_length(config: Config) -> int:
    """Return a rank by which runs are begun: 0 for those that take longest."""
    settings = loop_settings(config)
    if settings is not None:
        return 0 if isinstance(settings, WarmStartConfig) else 1
    return 3 if get_entry(config.method).trains else 2


def measured_settings(config: Config, rows: RunRows) -> Config:
    """Return a run's settings with as few rows as are measured, one pass, and no validation or tracking."""
    update: dict[str, Any] = {
        "checkpoint": Config().checkpoint.model_copy(update={"every_s": None}),
        "tracking": Config().tracking,
    }
    data: dict[str, Any] = {}
    if config.data.folds is None and config.data.hold_out is None:
        data["eval_rows"] = min(BATCHES * config.evaluation.batch_size, *map(len, rows.eval_rows))
    settings = loop_settings(config)
    if settings is not None:
        name = next(key for key in get_entry(config.method).settings if getattr(config, key) is settings)
        warm = isinstance(settings, WarmStartConfig) and settings.warm_start != 0
        short: dict[str, Any] = {
            "epochs": 1,
            "min_steps": 0,
            **({"warm_start": 0.5, "warm_start_limit": 0.0} if warm else {}),
        }
        update[name] = settings.model_copy(update=short)
        batches = max(BATCHES, getattr(settings, "iterations", 1))  # each iteration needs a step
        data["shots"] = None
        data["train_rows"] = min((2 if warm else 1) * batches * settings.batch_size * len(rows.parts), rows.train_count)
    return config.model_copy(update={**update, "data": config.data.model_copy(update=data)})


def training_seconds(
    config: Config, settings: LoopConfig, rows: RunRows, step_s: Sequence[float], judging_s: float
) -> float:
    """Return the seconds of all steps of a run, from those of the measured ones, and of its validations.

    With a warm start, the first half of the measured steps are of its kind.
    """
    per_pass = _steps_per_pass(config, settings, rows)
    steps = per_pass * settings.passes(per_pass)
    warm_start = (settings.warm_start or 0.0) if isinstance(settings, WarmStartConfig) else 0.0
    first = FirstPhase(warm_start).planned(steps)
    half = FirstPhase(0.5 if first else 0.0).planned(len(step_s))
    measured = [(first, step_s[:half]), (steps - first, step_s[half:])]
    seconds = sum(count * median(part) for count, part in measured if part)
    if config.checkpoint.validate_every is not None:
        validated = math.ceil(steps / config.checkpoint.validate_every) * config.checkpoint.validation_rows
        seconds += validated * len(rows.parts) * judging_s
    return seconds


def planned_runs(runs: Iterable[tuple[Config, Sequence[TaskSpec]]]) -> list[Planned]:
    """Return runs grouped by task and method, in order; those of a group differ by seed or fold."""
    groups: dict[tuple[str, str], Planned] = {}
    for config, specs in runs:
        planned = Planned(config, tuple(specs))
        before = groups.get((config.task, planned.method))
        groups[config.task, planned.method] = planned if before is None else replace(before, runs=before.runs + 1)
    return list(groups.values())


def estimate_all(planned: Sequence[Planned]) -> list[Estimate]:
    """Return an estimate per method, each measured in a process of its own. Writes to no run folder."""
    with CellProcesses() as processes:
        return [estimate(each, processes) for each in planned]


def _steps_per_pass(config: Config, settings: LoopConfig, rows: RunRows) -> int:
    held_out = 0 if config.checkpoint.validate_every is None else config.checkpoint.validation_rows
    counts = [max(1, len(part.rows) - held_out) for part in rows.parts]
    return sum(math.ceil(count / settings.batch_size) for count in counts)


def _total(seconds: float | Mapping[str, float]) -> float:
    return sum(seconds.values()) if isinstance(seconds, Mapping) else seconds


def _last_rows(logs: Sequence[Mapping[str, Any]]) -> int:
    """Return how many rows the last step learned from: "rows", or "prompts" where answers were sampled."""
    return int(logs[-1].get("rows", logs[-1].get("prompts", 0))) if logs else 0
