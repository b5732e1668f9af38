"""The text on which a model is pruned: a task's training rows with answers, or a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adjudge.compress.prune import Calibration
from adjudge.config import Config
from adjudge.errors import DataError
from adjudge.experiments.rows import fingerprint, training_rows
from adjudge.models.engine.forward import Engine
from adjudge.models.policy import Policy
from adjudge.rollout.prompted import PromptedTask, taught_rows
from adjudge.system.files import read_lines
from adjudge.tasks import take_rows
from adjudge.tasks.spec import TaskSpec


def task_rows(model: Any, tokenizer: Any, config: Config, spec: TaskSpec, count: int) -> Calibration:
    """Return `count` training rows of a task, each as prompt and answer.

    Raises what reading the rows raises. The model is not fused: its layers are to be cut.
    """
    examples = take_rows(training_rows(config, spec, ()), count, config.seed, whole_groups=False)
    policy = Policy(model, tokenizer, config.model, Engine(model, config.model))
    taught = taught_rows(PromptedTask(policy, spec, config), examples)
    return Calibration(
        [[*row.given, *row.taught] for row in taught],
        {"task": spec.name, "rows_sha256": fingerprint(examples), "what": "training rows with their answers"},
    )


def corpus_rows(tokenizer: Any, path: str | Path, count: int, most_tokens: int) -> Calibration:
    """Return the first `count` lines of a text file, cut after `most_tokens` tokens. Raises DataError."""
    path = Path(path)
    lines, sha256 = read_lines(path)
    rows = [tokenizer(line, truncation=True, max_length=most_tokens)["input_ids"] for line in lines[:count]]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise DataError(f"{path}: has no line with text. Write one text per line.")
    about = {"corpus": path.name, "corpus_sha256": sha256, "what": "lines of a file"}
    return Calibration(rows, about)
