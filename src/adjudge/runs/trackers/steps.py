"""Figures for trackers, read from the logs of a run that may still be writing them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOGS = {"metrics.jsonl": "train", "validation.jsonl": "validation", "timings.jsonl": "seconds"}
"""Log to the first part of its figures' names."""

LOGGED_BY = ("step", "task", "seconds", "tokens", "rows_per_pass")
"""Fields of a record that are not figures by themselves."""


class StepReader:
    """Reads logs as they grow.

    A step may have a record in each log, and one per task; it is returned once.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {folder / name: prefix for name, prefix in LOGS.items()}
        self._offsets = dict.fromkeys(self._files, 0)
        self._steps: dict[int, dict[str, float]] = {}
        self._newest = 0

    def complete(self) -> list[tuple[int, dict[str, float]]]:
        """Return the new steps that have a later one, in order: nothing is added to them any more."""
        self._read()
        return [(step, self._steps.pop(step)) for step in sorted(self._steps) if step < self._newest]

    def rest(self) -> list[tuple[int, dict[str, float]]]:
        """Return all steps that were not returned yet, in order. For a run that has ended."""
        self._read()
        return [(step, self._steps.pop(step)) for step in sorted(self._steps)]

    def _read(self) -> None:
        # metrics.jsonl is the first, and it alone says which step is the newest: by the time it has the next step, the
        # other logs have all of this one.
        for path, prefix in self._files.items():
            for record in self._new_records(path):
                step = int(record["step"])
                self._steps.setdefault(step, {}).update(step_figures(prefix, record))
                if prefix == "train":
                    self._newest = max(self._newest, step)

    def _new_records(self, path: Path) -> Iterator[dict[str, Any]]:
        if not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(self._offsets[path])
            whole, newline, _ = file.read().rpartition(b"\n")  # the last line may be half written
        self._offsets[path] += len(whole) + len(newline)
        for line in whole.split(b"\n") if whole else ():
            yield json.loads(line.decode("utf-8", errors="replace"))


def step_figures(prefix: str, record: Mapping[str, Any]) -> dict[str, float]:
    """Return a log record's figures by name: ``train/loss``, with several tasks ``train/glue-rte/loss``."""
    if "task" in record:
        prefix = f"{prefix}/{str(record['task']).replace('/', '-')}"
    figures = {key: value for key, value in record.items() if key not in LOGGED_BY}
    seconds = record.get("seconds")
    if isinstance(seconds, Mapping):
        figures |= seconds
    elif seconds is not None:
        figures["step"] = seconds
    return dict(numbers(figures, prefix))


def score_figures(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of scores.json by name: ``eval/accuracy``, its interval's ends, and the counts."""
    figures: dict[str, Any] = {}
    for name, metric in scores.get("metrics", {}).items():
        figures |= {name: metric["value"], f"{name}_low": metric.get("low"), f"{name}_high": metric.get("high")}
    for task, result in scores.get("tasks", {}).items():
        figures |= {f"{task.replace('/', '-')}/{name}": m["value"] for name, m in result.get("metrics", {}).items()}
    kept = ("n", "unreadable", "train_rows", "seconds", "prompts_per_s", "peak_rss_gib")
    return dict(numbers(figures | {key: scores[key] for key in kept if key in scores}, "eval"))


def numbers(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a nested mapping, with names joined by slashes; skip texts, lists and None."""
    for key, value in tree.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            yield from numbers(value, name)
        elif isinstance(value, int | float):
            yield name, float(value)


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by their dotted keys, without those that are unset."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
