"""A comparison's figures per task and method: the data behind the tables and charts.

Input is the mapping of table.json. ``rows`` holds the scores of one cell each (task, method, seed), and ``tests`` the
paired tests. With several seeds, ``summary`` has one entry per task and method, with pooled intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.report.text import decimal
from adjudge.tasks.scoring.metrics import METRICS

ALPHA = 0.05
"""Significance level of the paired tests (after Holm's correction); intervals are 95 % ones."""

UNREADABLE_SHARE = 0.05
"""Share of unreadable answers from which a method gets a warning."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value and, where known, the ends of its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return decimal(self.value)
        return f"{decimal(self.value)} [{decimal(self.low)}, {decimal(self.high)}]"


@dataclass(frozen=True, slots=True)
class Summary:
    """A method on a task, over its seeds. Figures that were not recorded are None."""

    task: str
    method: str
    model: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Figure]
    primary: str
    unreadable: float
    """Unreadable answers; with several seeds their mean."""
    n: int
    train_rows: float | None
    train_s: float | None
    evaluate_s: float | None
    prompts_per_s: float | None
    peak_rss_gib: float | None
    peak_gpu_gib: float | None = None
    calls: float | None = None
    """Counted calls of a model, in a search for a prompt and in judging over an API; means over seeds, as below."""
    prompt_tokens: float | None = None
    generated_tokens: float | None = None
    gold_labels: float | None = None
    """Gold answers that a search for a prompt saw, each as often as it was seen."""
    price: float | None = None

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics, the primary one first."""
        return sorted(self.metrics, key=lambda name: name != self.primary)

    @property
    def unreadable_share(self) -> float:
        """Share of unreadable answers among the judged rows, 0 to 1."""
        return self.unreadable / self.n if self.n else 0.0

    @property
    def peak_text(self) -> str:
        """Peak memory in GiB, as in ``1.50``; of a run on a GPU ``1.50 / 12.30``, the machine's and the GPU's."""
        peaks = [self.peak_rss_gib, *([] if self.peak_gpu_gib is None else [self.peak_gpu_gib])]
        return " / ".join("–" if peak is None else f"{peak:.2f}" for peak in peaks)

    @property
    def unreadable_text(self) -> str:
        """Count and share of unreadable answers, as in ``3 (0.3 %)``."""
        count = f"{self.unreadable:.0f}" if float(self.unreadable).is_integer() else f"{self.unreadable:.1f}"
        return f"{count} ({100 * self.unreadable_share:.1f} %)"


def summarise(table: Mapping[str, Any]) -> list[Summary]:
    """Return one `Summary` per task and method, in the order of first appearance.

    Values are means over seeds. With one seed, the interval is the row's own. With several, it is the pooled one of
    ``table["summary"]``; without a pooled one there is none, because the ends of intervals cannot be averaged.
    """
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in table.get("rows", ()):
        cells.setdefault((str(row["task"]), str(row["method"])), []).append(row)
    pooled = {(str(entry["task"]), str(entry["method"])): entry for entry in table.get("summary") or ()}
    return [_summary(task, method, rows, pooled.get((task, method))) for (task, method), rows in cells.items()]


def _summary(task: str, method: str, rows: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None) -> Summary:
    names = dict.fromkeys(name for row in rows for name in row.get("metrics", {}))
    pooled_metrics = (pooled or {}).get("metrics", {})
    metrics: dict[str, Figure] = {}
    for name in names:
        per_seed = [row["metrics"][name] for row in rows if name in row.get("metrics", {})]
        metrics[name] = mean_figure(per_seed, pooled_metrics.get(name))
    seconds = [row.get("seconds") or {} for row in rows]
    return Summary(
        task=task,
        method=method,
        model=", ".join(dict.fromkeys(str(row["model"]) for row in rows if row.get("model"))),
        seeds=tuple(sorted({int(row["seed"]) for row in rows if row.get("seed") is not None})),
        metrics=metrics,
        primary=str(rows[0].get("primary") or next(iter(names), "")),
        unreadable=_mean(row.get("unreadable") for row in rows) or 0.0,
        n=int(rows[0].get("n") or 0),
        train_rows=_mean(row.get("train_rows") for row in rows),
        train_s=_mean(item.get("train") for item in seconds),
        evaluate_s=_mean(item.get("evaluate") for item in seconds),
        prompts_per_s=_mean(row.get("prompts_per_s") for row in rows),
        peak_rss_gib=_largest(row.get("peak_rss_gib") for row in rows),
        peak_gpu_gib=_largest(row.get("peak_gpu_gib") for row in rows),
        **{name: _mean(_spent(row, name) for row in rows) for name in SPENT},
    )


SPENT = ("calls", "prompt_tokens", "generated_tokens", "gold_labels", "price")
"""What was counted of a run's budget: before judging (`budget` in its scores) and in `judging`."""


def _spent(row: Mapping[str, Any], name: str) -> float | None:
    """Return a figure of a run's budget, its judging included; None where nothing was counted."""
    parts = [value for part in ("budget", "judging") if (value := finite((row.get(part) or {}).get(name))) is not None]
    return sum(parts) if parts else None


def _largest(values: Iterable[Any]) -> float | None:
    return max((value for each in values if (value := finite(each)) is not None), default=None)


def mean_figure(per_seed: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None) -> Figure:
    """Return a metric over seeds: the pooled figure, the only seed's, or the mean without an interval."""
    figures = [pooled] if pooled is not None else per_seed
    if len(figures) == 1:
        return Figure(float(figures[0]["value"]), finite(figures[0].get("low")), finite(figures[0].get("high")))
    return Figure(_mean(float(figure["value"]) for figure in figures) or 0.0)


def ranked(summaries: Iterable[Summary]) -> list[Summary]:
    """Sort the summaries of one task by their primary metric, best first; those without it come last."""

    def key(item: Summary) -> float:
        figure = item.metrics.get(item.primary)
        if figure is None:
            return math.inf
        return figure.value if _lower_is_better(item.primary) else -figure.value

    return sorted(summaries, key=key)


def best_values(summaries: Sequence[Summary], metrics: Iterable[str]) -> dict[str, float]:
    """Return the best value of each metric that at least two of the `summaries` (of one task) have."""
    best = {}
    for name in metrics:
        values = [item.metrics[name].value for item in summaries if name in item.metrics]
        if len(values) > 1:
            best[name] = min(values) if _lower_is_better(name) else max(values)
    return best


def collapsed_label(row: Mapping[str, Any]) -> str | None:
    """Return the one label a run gave for every row it answered readably; None when it used several."""
    majority = row.get("majority") or {}
    return str(majority["word"]) if majority.get("one_label") and majority.get("word") is not None else None


def most_frequent_gold(row: Mapping[str, Any]) -> tuple[str, float] | None:
    """Return the most frequent gold label and its share of the rows.

    None without counts, and for sets of labels. The share is the accuracy of a judge which always answers this label.
    """
    if any(name in METRICS and METRICS[name].kind == "sets" for name in row.get("metrics") or ()):
        return None
    counts = {str(word): finite(item.get("gold")) or 0.0 for word, item in (row.get("per_label") or {}).items()}
    total = sum(counts.values())
    if not total:
        return None
    word = max(counts, key=lambda name: counts[name])
    return word, counts[word] / total


def finite(value: Any) -> float | None:
    """Return a finite number as a float, and None for everything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _lower_is_better(metric: str) -> bool:
    """True for a known error metric. A metric this version does not know counts as higher-is-better."""
    return metric in METRICS and not METRICS[metric].higher_is_better


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [number for number in map(finite, values) if number is not None]
    return sum(numbers) / len(numbers) if numbers else None
