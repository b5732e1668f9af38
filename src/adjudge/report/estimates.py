"""The table of a dry run: what each method would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adjudge.report.text import count_text

HEAD = ["run", "runs", "train rows", "tokens", "judged", "time", "GiB"]


class Estimated(Protocol):
    """What one run of a method would take; see `adjudge.experiments.dry_run.Estimate`."""

    @property
    def task(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def runs(self) -> int: ...
    @property
    def train_rows(self) -> int: ...
    @property
    def judged_rows(self) -> int: ...
    @property
    def train_tokens(self) -> float | None: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def peak_rss_gib(self) -> float | None: ...
    @property
    def peak_gpu_gib(self) -> float | None: ...
    @property
    def measured(self) -> bool: ...
    @property
    def problem(self) -> str: ...


def estimate_lines(estimates: Sequence[Estimated]) -> list[list[str]]:
    """Return the cells below `HEAD`. Tasks are named where there are several."""
    several = len({each.task for each in estimates}) > 1
    return [
        [
            f"{each.task} {each.method}" if several else each.method,
            count_text(each.runs),
            count_text(each.train_rows),
            tokens_text(each.train_tokens),
            count_text(each.judged_rows),
            _time(each),
            " / ".join(f"{peak:.1f}" for peak in (each.peak_rss_gib, each.peak_gpu_gib) if peak is not None) or "–",
        ]
        for each in estimates
    ]


def _time(each: Estimated) -> str:
    if each.problem:
        return "failed"
    if each.seconds is None:
        return "seconds" if each.measured else "not measured"
    return duration_text(each.seconds)


def estimate_notes(estimates: Sequence[Estimated], jobs: int = 1) -> list[str]:
    """Return the sentences below the table."""
    total = sum(each.runs * (each.seconds or 0.0) for each in estimates)
    memory = "memory of the machine, then of the GPU" if any(each.peak_gpu_gib for each in estimates) else "memory"
    notes = [
        "estimates for one run each, from three measured batches; a longer batch takes more",
        f"tokens: of the training rows, every pass counted; GiB: peak {memory}",
        f"all runs, one after the other: {duration_text(total)}",
    ]
    if jobs > 1:
        notes.append(f"each was measured alone; with --jobs {jobs} the runs share the machine, and the memory adds up")
    return notes + [f"{each.task} {each.method} failed: {each.problem}" for each in estimates if each.problem]


def duration_text(seconds: float) -> str:
    """Return a rough duration: ``40 s``, ``12 min``, ``3 h 10 min``, ``2 d 4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def tokens_text(tokens: float | None) -> str:
    """Return a rough number of tokens: ``840``, ``12.3 k``, ``4.5 M``; a dash when it is unknown."""
    if tokens is None:
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:.1f}{unit}"
    return f"{tokens:.0f}"
