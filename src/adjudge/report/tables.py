"""A comparison as text: table.md, the terminal's table, and sentences on which differences are significant.

Input is always the mapping of table.json: ``rows`` (the scores of one cell each: task, method, seed), ``tests``, and, where
several seeds were run, ``summary`` (one entry a task and method, with pooled intervals).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adjudge.report.overlap import overlap_lines
from adjudge.tasks.scoring.metrics import METRICS

if TYPE_CHECKING:
    from rich.table import Table

ALPHA = 0.05
"""A difference with a corrected p below this is called significant; intervals are 95 % ones."""

UNREADABLE_SHARE = 0.05
"""From this share of unreadable answers on, a method gets a warning."""

LEFT = frozenset({"task", "method"})
"""Columns whose cells begin at the left."""

MIXED = ["primary metric", "other metrics"]
"""Columns of a table whose tasks have different metrics."""

LOWER_IS_BETTER = frozenset({"mae", "mse", "rmse", "loss"})

TEST_NAMES = {"mcnemar": "McNemar", "permutation": "paired permutation", "paired_permutation": "paired permutation"}


def decimal(value: float) -> str:
    """Three digits behind the point, with a true minus sign; never ``−0.000``."""
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text.replace("-", "−")


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric: its value and the ends of its 95 % interval, where one is known."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return decimal(self.value)
        return f"{decimal(self.value)} [{decimal(self.low)}, {decimal(self.high)}]"


@dataclass(frozen=True, slots=True)
class Summary:
    """One method on one task, over its seeds. Times are seconds, memory is GiB; None where it was not recorded."""

    task: str
    method: str
    model: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Figure]
    primary: str
    unreadable: float
    n: int
    train_rows: float | None
    train_s: float | None
    evaluate_s: float | None
    prompts_per_s: float | None
    peak_rss_gib: float | None

    @property
    def unreadable_share(self) -> float:
        """Unreadable answers over judged rows, 0 to 1."""
        return self.unreadable / self.n if self.n else 0.0


def summarise(table: Mapping[str, Any]) -> list[Summary]:
    """One `Summary` a task and method, in the order of first appearance.

    Means over seeds. With one seed the interval is the row's own; with several it is the pooled one of ``table["summary"]``,
    and where that is missing there is none: the ends of intervals cannot be averaged.
    """
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in table.get("rows", ()):
        cells.setdefault((str(row["task"]), str(row["method"])), []).append(row)
    pooled = {(str(entry["task"]), str(entry["method"])): entry for entry in table.get("summary") or ()}
    return [_summary(task, method, rows, pooled.get((task, method))) for (task, method), rows in cells.items()]


def _summary(task: str, method: str, rows: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None) -> Summary:
    names = dict.fromkeys(name for row in rows for name in row.get("metrics", {}))
    metrics: dict[str, Figure] = {}
    for name in names:
        found = [row["metrics"][name] for row in rows if name in row.get("metrics", {})]
        metrics[name] = mean_figure(found, (pooled or {}).get("metrics", {}).get(name))
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
        peak_rss_gib=max(
            (v for v in (_number(row.get("peak_rss_gib")) for row in rows) if v is not None), default=None
        ),
    )


def mean_figure(found: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any] | None) -> Figure:
    """The figure over seeds: the pooled one, else that of the only seed, else the mean without an interval (ends cannot be averaged)."""
    if pooled is not None:
        found = [pooled]
    if len(found) == 1:
        return Figure(float(found[0]["value"]), _number(found[0].get("low")), _number(found[0].get("high")))
    return Figure(_mean(float(item["value"]) for item in found) or 0.0)


def ranked(summaries: Iterable[Summary]) -> list[Summary]:
    """The summaries of one task, best primary metric first."""

    def key(item: Summary) -> float:
        figure = item.metrics.get(item.primary)
        if figure is None:
            return math.inf
        return figure.value if item.primary in LOWER_IS_BETTER else -figure.value

    return sorted(summaries, key=key)


def columns_of(table: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table, as text. The task is a column only when there are several.

    Tasks with the same metrics have a column for each. Of tasks with different ones most columns would be empty: then the primary
    metric is named beside its value, and the others share a column.
    """
    summaries = summarise(table)
    several = len({item.task for item in summaries}) > 1
    uneven = len({len(item.seeds) for item in summaries}) > 1
    mixed = several and len({tuple(_primary_first(item)) for item in summaries}) > 1
    metrics = MIXED if mixed else list(dict.fromkeys(name for item in summaries for name in _primary_first(item)))
    head = ["task"] * several + [
        "method",
        *metrics,
        "unreadable",
        "training rows",
        "seconds (train / evaluate)",
        "peak memory (GiB)",
    ]
    lines = []
    for item in summaries:
        seeds = f" ({len(item.seeds)} {'seed' if len(item.seeds) == 1 else 'seeds'})" if uneven else ""
        lines.append(
            [item.task] * several
            + [item.method + seeds]
            + (
                _mixed_cells(item)
                if mixed
                else [str(item.metrics[name]) if name in item.metrics else "–" for name in metrics]
            )
            + [
                unreadable_text(item),
                count_text(item.train_rows),
                f"{seconds_text(item.train_s)} / {seconds_text(item.evaluate_s)}",
            ]
            + ["–" if item.peak_rss_gib is None else f"{item.peak_rss_gib:.2f}"]
        )
    return head, lines


def _mixed_cells(item: Summary) -> list[str]:
    first, *others = [f"{name} {item.metrics[name]}" for name in _primary_first(item)] or ["–"]
    return [first, "; ".join(others) or "–"]


def rich_table(table: Mapping[str, Any]) -> Table:
    """The same table for the terminal; names and words are shown as they are, never read as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    head, lines = columns_of(table)
    shown = Table(
        box=box.SIMPLE_HEAD,
        caption=Text(rows_text(table)),
        caption_justify="left",
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    best = _best_cells(table, head)
    short = {
        "training rows": "train\nrows",
        "seconds (train / evaluate)": "train /\neval. (s)",
        "peak memory (GiB)": "peak\nGiB",
    }
    metrics = head[head.index("method") + 1 : head.index("unreadable")]
    for name in head:
        left = name in LEFT
        shown.add_column(
            Text(short.get(name) or visible(name)),
            justify="left" if left else "right",
            no_wrap=name in {"task", "method"},
        )
    for number, line in enumerate(lines):
        cells = []
        for column, (name, text) in enumerate(zip(head, line, strict=True)):
            # With several metrics what is in brackets goes to a second line, so that the table fits a terminal of 80 columns.
            broken = visible(text).replace("; ", "\n") if name in MIXED else visible(text)
            if len(metrics) > 1 and name in {"method", "unreadable", *metrics}:
                broken = broken.replace(" [", "\n[").replace(" (", "\n(")
            cells.append(Text(broken, style="bold" if (number, column) in best else ""))
        shown.add_row(*cells)
    return shown


def rich_lines(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Any header and cells for the terminal, the first column at the left, the others at the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(head):
        shown.add_column(Text(visible(name)), justify="right" if place else "left")
    for line in lines:
        shown.add_row(*(Text(visible(text)) for text in line))
    return shown


def _best_cells(table: Mapping[str, Any], head: Sequence[str]) -> set[tuple[int, int]]:
    """Row and column of the best value of each metric that has a column, a task."""
    summaries = summarise(table)
    best: set[tuple[int, int]] = set()
    for task in {item.task for item in summaries}:
        mine = [(number, item) for number, item in enumerate(summaries) if item.task == task]
        shown = {mine[0][1].primary: MIXED[0]} if MIXED[0] in head else {name: name for name in head}
        for name, column in shown.items():
            values = {number: item.metrics[name].value for number, item in mine if name in item.metrics}
            if len(values) > 1:
                wanted = min(values.values()) if name in LOWER_IS_BETTER else max(values.values())
                best |= {(number, head.index(column)) for number, value in values.items() if value == wanted}
    return best


def significance_lines(table: Mapping[str, Any]) -> list[str]:
    """Sentences below the table: one a paired test, then the warnings, then what is not finished."""
    return [*test_lines(table), *warning_lines(table), *incomplete_lines(table)]


def test_lines(table: Mapping[str, Any]) -> list[str]:
    """One sentence a paired test, e.g. ``ppo − sft on accuracy: +0.012, p = 0.21 after Holm (McNemar): not significant``."""
    tests = list(table.get("tests") or ())
    several = len({str(row["task"]) for row in table.get("rows", ())} | {str(test.get("task")) for test in tests}) > 1
    return [test_line(test, with_task=several) for test in tests]


def test_line(test: Mapping[str, Any], *, with_task: bool = False) -> str:
    """The sentence of one paired test, the method with the higher value first. A test without a corrected p says so."""
    corrected, plain = _number(test.get("p_holm")), _number(test.get("p"))
    p = corrected if corrected is not None else plain
    difference, a, b = _number(test.get("difference")), test.get("a"), test.get("b")
    if difference is not None and difference < 0:
        difference, a, b = -difference, b, a
    figures = "unknown" if difference is None else f"+{decimal(difference)}"
    how = f" ({TEST_NAMES.get(str(test['test']), str(test['test']))})" if test.get("test") else ""
    after = " after Holm" if corrected is not None else ", uncorrected"
    verdict = (
        "not tested" if p is None else f"{p_text(p)}{after}{how}: {'significant' if p < ALPHA else 'not significant'}"
    )
    task = f"{test.get('task')}: " if with_task else ""
    return f"{task}{a} − {b} on {test.get('metric')}: {figures}, {verdict}"


def warning_lines(table: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting a figure: majority-label results, unreadable answers, rows that were trained on."""
    rows = list(table.get("rows", ()))
    several_tasks = len({str(row["task"]) for row in rows}) > 1
    said = []
    for item in summarise(table):
        who = f"{item.task}: {item.method}" if several_tasks else item.method
        mine = [row for row in rows if (str(row["task"]), str(row["method"])) == (item.task, item.method)]
        collapsed: dict[str, list[str]] = {}
        for row in mine:
            word = collapsed_label(row)
            if word is not None:
                collapsed.setdefault(word, []).append(str(row.get("seed")))
        for word, seeds in collapsed.items():
            of = "" if len(seeds) == len(mine) else f" (seed {', '.join(seeds)})"
            most = most_frequent_gold(mine[0])
            kind = "majority-label" if most is None or word == most[0] else "one-label"
            every = "every row" if not item.unreadable else "every row it answers readably"
            said.append(f"{who}{of} answers {word} for {every} (a {kind} result)")
        if item.unreadable_share >= UNREADABLE_SHARE:
            ranks = all(name in METRICS and METRICS[name].needs_probabilities for name in item.metrics)
            count = "; its metrics take probabilities and do not count them" if ranks else " and count as wrong"
            said.append(f"{who}: {unreadable_text(item)} of {item.n} answers are unreadable{count}")
    return [*said, *overlap_lines(table)]


def collapsed_label(row: Mapping[str, Any]) -> str | None:
    """The one label that a run answered for every row it answered readably, or None when it used several."""
    majority = row.get("majority") or {}
    return str(majority["word"]) if majority.get("one_label") and majority.get("word") is not None else None


def most_frequent_gold(row: Mapping[str, Any]) -> tuple[str, float] | None:
    """The most frequent gold label of the judged rows and its share: what a judge reaches that always answers it."""
    counts = {str(word): _number(item.get("gold")) or 0.0 for word, item in (row.get("per_label") or {}).items()}
    total = sum(counts.values())
    if not total:
        return None
    word = max(counts, key=lambda name: counts[name])
    return word, counts[word] / total


def incomplete_lines(table: Mapping[str, Any]) -> list[str]:
    """What a comparison did not get done: cells that failed, with the reason, and cells that were not run to their end."""
    failed = [
        f"{i.get('task')}: {i.get('method')} (seed {i.get('seed')}) failed: {i.get('reason')}"
        for i in table.get("failed") or ()
    ]
    left = int(_number(table.get("unfinished")) or 0)
    return failed + ([f"{left} {'cell is' if left == 1 else 'cells are'} not finished yet"] if left else [])


def p_text(p: float) -> str:
    """``p = 0.21``, ``p = 0.004``, ``p < 0.001``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def unreadable_text(item: Summary) -> str:
    """``3 (0.3 %)``; over several seeds the mean number."""
    count = f"{item.unreadable:.0f}" if float(item.unreadable).is_integer() else f"{item.unreadable:.1f}"
    return f"{count} ({100 * item.unreadable_share:.1f} %)"


def seconds_text(seconds: float | None) -> str:
    """Seconds with a digit behind the point below ten; a dash when there was nothing to time."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f}" if 0 < seconds < 9.95 else f"{seconds:,.0f}"


def count_text(count: float | None) -> str:
    """A number of rows: ``1,000``; a dash when unknown."""
    return "–" if count is None else f"{count:,.0f}"


def visible(text: str) -> str:
    """Text with control, bidi and surrogate characters written out (``⟦U+202E⟧``), so that it cannot disturb what is around it."""
    return "".join(
        f"⟦U+{ord(char):04X}⟧" if unicodedata.category(char) in {"Cc", "Cs"} or char in _BIDI else char for char in text
    )


_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def _primary_first(item: Summary) -> list[str]:
    return sorted(item.metrics, key=lambda name: name != item.primary)


def rows_text(table: Mapping[str, Any]) -> str:
    """How many rows of which split were judged, and over how many seeds the figures are means."""
    rows = table.get("rows") or ()
    judged = dict.fromkeys(
        (str(row["task"]), str(row.get("split") or ""), row.get("n"), row.get("groups")) for row in rows
    )
    parts = [
        f"{task} {split}".strip() + f": {int(n):,} rows judged" + (f" in {int(groups):,} groups" if groups else "")
        for task, split, n, groups in judged
        if n
    ]
    seeds = {len(item.seeds) for item in summarise(table)}
    if len(seeds) == 1 and max(seeds) > 1:
        parts.append(f"means over {seeds.pop()} seeds")
    return visible("; ".join(parts) + ".") if parts else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [number for number in map(_number, values) if number is not None]
    return sum(numbers) / len(numbers) if numbers else None
