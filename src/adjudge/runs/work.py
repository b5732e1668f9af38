"""Whether a run folder holds work: something that a run trained or judged.

A run that failed before its first step leaves settings, a reason and perhaps the state before that step. None of this
is worth keeping, so the next run in the folder replaces it without being told to.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = ("adapter", "encoder", "regression")
"""Folders of a run with its trained weights."""
RESULTS = ("scores.json", "predictions", "tasks", "evaluations")
"""Files and folders of a run that only judging writes."""
TRIALS = "trials.jsonl"
"""What a search of instructions has judged so far."""
FIRST = "step-00000000"
"""The checkpoint of a run whose first step failed."""


def has_work(folder: Path) -> bool:
    """Return whether the run in `folder` did at least one step of training, or judged rows."""
    return has_trained(folder) or any((folder / name).exists() for name in RESULTS)


def has_trained(folder: Path) -> bool:
    """Return whether the run in `folder` did at least one step of training, or of a search."""
    return (
        steps_logged(folder) > 0
        or ((folder / TRIALS).is_file() and (folder / TRIALS).stat().st_size > 0)
        or any(path.name != FIRST for path in (folder / "checkpoints").glob("[!.]*"))
        or any((folder / name).exists() for name in WEIGHTS)
    )


def steps_logged(folder: Path) -> int:
    """Return the number of steps in the log of a run."""
    log = folder / "metrics.jsonl"
    if not log.is_file():
        return 0
    with log.open("rb") as file:
        return sum(1 for _ in file)
