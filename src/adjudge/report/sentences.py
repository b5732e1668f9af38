"""The sentences below a comparison's table: paired tests, warnings, cells that are missing.

Input is the mapping of table.json, as in `adjudge.report.summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.report.overlap import dropped_lines, overlap_lines
from adjudge.report.summary import (
    ALPHA,
    UNREADABLE_SHARE,
    Summary,
    collapsed_label,
    finite,
    most_frequent_gold,
    ranked,
    summarise,
)
from adjudge.report.text import decimal, p_text, visible
from adjudge.tasks.scoring.metrics import METRICS

TEST_TITLES = {"mcnemar": "McNemar"}
"""Names of tests as they are shown; a test without an entry is shown by its name in table.json."""


MOST_TESTS = 6
"""Largest number of paired tests that the terminal lists whole."""


def table_notes(table: Mapping[str, Any], *, short: bool = False) -> list[str]:
    """Return all sentences below the table, headlines and paired tests first.

    Forms that are not what a method's name says, searched settings, warnings, and failed and unfinished cells follow.
    With `short`, a long list of tests is reduced to those of each task's best method.
    """
    tests = verdict_lines(table)
    if short and len(tests) > MOST_TESTS:
        best = {task: summaries[0].method for task, summaries in _by_task(table).items() if summaries}
        kept = [test for test in table.get("tests") or () if best.get(str(test.get("task"))) in (test["a"], test["b"])]
        left_out = len(tests) - len(kept)
        tests = verdict_lines({**table, "tests": kept})
        tests += [f"{left_out} more paired tests are in table.md"] if left_out else []
    apart = list(dict.fromkeys(f"{form.get('setting')} is {form.get('is')}" for form in table.get("apart") or ()))
    return [
        *headline_lines(table),
        *tests,
        *apart,
        *tuned_lines(table),
        *warning_lines(table),
        *api_lines(table),
        *pair_lines(table),
        *beside_lines(table),
        *incomplete_lines(table),
    ]


def tuned_lines(table: Mapping[str, Any]) -> list[str]:
    """Return a sentence on how the settings were chosen, where they were searched for."""
    tuned = table.get("tuned")
    if not tuned:
        return []
    counts = {int(count) for count in tuned["trials"].values()}
    trials = f"{min(counts)} trials each" if len(counts) == 1 else f"{min(counts)} to {max(counts)} trials"
    return [
        f"settings of {', '.join(tuned['trials'])} were searched, {trials}, on {int(tuned['hold_out']):,} held-out "
        f"training rows of {tuned['task']}"
    ]


def headline_lines(table: Mapping[str, Any]) -> list[str]:
    """Return each task's headline with how sure it is, then what its commonest label alone would give."""
    lines = []
    by_task = _by_task(table)
    for task, best_first in by_task.items():
        tests = [test for test in table.get("tests") or () if str(test.get("task")) == task]
        rows = [row for row in table["rows"] if str(row["task"]) == task]
        majority = next((most for row in rows if (most := most_frequent_gold(row))), None)
        lead = f"{task}: " if len(by_task) > 1 else ""
        if len(best_first) > 1 and tests:
            lines.append(lead + " ".join(headline(best_first, tests, majority)).strip())
        if majority is not None:
            lines.append(f"{lead}always answering {majority[0]} would be right in {majority[1]:.3f} of the rows")
    return lines


def headline(
    best_first: Sequence[Summary], tests: Sequence[Mapping[str, Any]], majority: tuple[str, float] | None = None
) -> tuple[str, str]:
    """Return the main result of one task for a hurried reader: a sentence, and how sure it is.

    A method is called best only when the paired tests say so against every other, and only when its accuracy is above
    that of the commonest label alone (`majority`: the label and its share).
    """
    scored = [item for item in best_first if item.primary in item.metrics]
    if not scored:
        return "No result yet.", "No run of this task has been evaluated."
    best, *others = scored
    figure = best.metrics[best.primary]
    value = f"{best.primary} {figure.value:.3f}"
    lowest = figure.value if figure.low is None else figure.low
    if best.primary == "accuracy" and majority is not None and lowest <= majority[1]:
        return (
            f"No method beats always answering {majority[0]} ({majority[1]:.3f}).",
            f"The highest is {best.method} with {value}; its 95 % interval begins at {lowest:.3f}.",
        )
    if not others:
        interval = "" if figure.low is None else f"95 % interval {figure.low:.3f} to {figure.high:.3f}."
        return f"{best.method} reaches {value}.", interval
    p_of = {other.method: _pair_p(best, other, tests) for other in others if other.primary == best.primary}
    if len(p_of) < len(others) or None in p_of.values():
        return f"{best.method} has the highest {value}.", "Not every other method was tested against it."
    level = [other for other in others if (p_of[other.method] or 0.0) >= ALPHA]
    if not level:
        lead = abs(figure.value - others[0].metrics[best.primary].value)
        p = p_text(max(p or 0.0 for p in p_of.values()))
        return f"{best.method} is best: {value}.", f"It leads {others[0].method} by {lead:.3f}; all tests: {p} or less."
    tied = ", ".join(f"{other.method} {other.metrics[best.primary].value:.3f}" for other in level)
    return (
        f"A tie: {best.method} with {value}, and {tied}.",
        "No paired test tells them from the first (p ≥ 0.05 after Holm). More judged rows or seeds might: --folds 5, "
        "--seeds 0,1,2.",
    )


def _pair_p(best: Summary, other: Summary, tests: Sequence[Mapping[str, Any]]) -> float | None:
    pair = {best.method, other.method}
    test = next((t for t in tests if {t.get("a"), t.get("b")} == pair and t.get("metric") == best.primary), {})
    return finite(test.get("p_holm", test.get("p")))


def _by_task(table: Mapping[str, Any]) -> dict[str, list[Summary]]:
    """Return each task's methods, best first."""
    groups: dict[str, list[Summary]] = {}
    for item in summarise(table):
        groups.setdefault(item.task, []).append(item)
    return {task: ranked(items) for task, items in groups.items()}


def verdict_lines(table: Mapping[str, Any]) -> list[str]:
    """Return one sentence per paired test; with several tasks each names its task."""
    tests = list(table.get("tests") or ())
    tasks = {str(row["task"]) for row in table.get("rows", ())} | {str(test.get("task")) for test in tests}
    return [verdict_line(test, with_task=len(tasks) > 1) for test in tests]


def verdict_line(test: Mapping[str, Any], *, with_task: bool = False) -> str:
    """Return the sentence of one paired test, the method with the higher value first.

    For example ``ppo − sft on accuracy: +0.012, p = 0.21 after Holm (McNemar): not significant``. Without a corrected
    p-value it says "uncorrected".
    """
    corrected, plain = finite(test.get("p_holm")), finite(test.get("p"))
    p = corrected if corrected is not None else plain
    difference, a, b = finite(test.get("difference")), test.get("a"), test.get("b")
    if difference is not None and difference < 0:
        difference, a, b = -difference, b, a
    lead = "unknown" if difference is None else f"+{decimal(difference)}"
    name = f" ({TEST_TITLES.get(str(test['test']), str(test['test']))})" if test.get("test") else ""
    correction = " after Holm" if corrected is not None else ", uncorrected"
    if p is None:
        verdict = "not tested"
    else:
        verdict = f"{p_text(p)}{correction}{name}: {'significant' if p < ALPHA else 'not significant'}"
    task = f"{test.get('task')}: " if with_task else ""
    return f"{task}{a} − {b} on {test.get('metric')}: {lead}, {verdict}"


def warning_lines(table: Mapping[str, Any]) -> list[str]:
    """Return warnings: one-label results, unreadable answers, judged rows that were trained on or dropped."""
    rows = list(table.get("rows", ()))
    multi_task = len({str(row["task"]) for row in rows}) > 1
    lines = []
    for item in summarise(table):
        judge = f"{item.task}: {item.method}" if multi_task else item.method
        item_rows = [row for row in rows if (str(row["task"]), str(row["method"])) == (item.task, item.method)]
        one_label = _one_label_lines(judge, item, item_rows)
        lines += one_label or _never_found_lines(judge, item_rows)
        lines += _learned_little_lines(judge, item_rows)
        if item.unreadable_share >= UNREADABLE_SHARE:
            by_probability = all(name in METRICS and METRICS[name].needs_probabilities for name in item.metrics)
            effect = (
                "; its metrics take probabilities and do not count them" if by_probability else " and count as wrong"
            )
            lines.append(f"{judge}: {item.unreadable_text} of {item.n} answers are unreadable{effect}")
    return [*lines, *overlap_lines(table), *dropped_lines(table)]


UNFINISHED = {"length": "cut off at the limit of tokens", "filter": "stopped by a content filter", "empty": "empty"}
"""How answers over an API may end, besides by themselves."""


def api_lines(table: Mapping[str, Any]) -> list[str]:
    """Return notes on answers over an API: how many did not end, and that they cannot be had again."""
    rows = [row for row in table.get("rows", ()) if (row.get("judging") or {}).get("models") is not None]
    lines = []
    for row in rows:
        counts = [f"{row['judging'][end]:,} {how}" for end, how in UNFINISHED.items() if row["judging"].get(end)]
        if counts:
            lines.append(f"{row['method']} (seed {row.get('seed')}): answers {', '.join(counts)} count as unreadable")
    for name in dict.fromkeys(str(row["model"]) for row in rows):
        lines.append(
            f"{name} answered over an API: its answers cannot be had again, only replayed from writer.jsonl, and it "
            "may have seen the judged rows in its training"
        )
    return lines


def pair_lines(table: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each judge that compared pairs: how many got another answer in the other order."""
    lines = []
    for row in table.get("rows", ()):
        counts = row.get("judging") or {}
        if pairs := finite(counts.get("pairs")):
            conflicts, ties = (finite(counts.get(name)) or 0.0 for name in ("conflicts", "ties"))
            lines.append(
                f"{row['method']} (seed {row.get('seed')}): {conflicts / pairs:.0%} of {pairs:,.0f} compared pairs got "
                f"another answer in the other order; {ties / pairs:.0%} are ties"
            )
    return lines


def beside_lines(table: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the seconds of runs that were at work beside others (``--jobs``)."""
    rows = list(table.get("rows", ()))
    methods_of: dict[int, dict[str, None]] = {}
    for row in rows:
        if (jobs := int(finite(row.get("jobs")) or 1)) > 1:
            methods_of.setdefault(jobs, {})[str(row["method"])] = None
    alone = any("jobs" not in row for row in rows)
    return [
        f"the seconds{' of ' + ', '.join(methods) if alone or len(methods_of) > 1 else ''} are those of runs beside up "
        f"to {jobs - 1} {'other' if jobs == 2 else 'others'} (--jobs {jobs})"
        for jobs, methods in methods_of.items()
    ]


LITTLE = 0.05
"""A method has learned little when it judges hardly more of its last training rows right than one label would."""
FALLING = 0.8
"""The loss still fell at the end when its last quarter is below this share of the quarter before."""
FEW = 5
"""A label with fewer judged rows than this may be missed by chance."""


def _learned_little_lines(judge: str, rows: list[Mapping[str, Any]]) -> list[str]:
    """Return a warning for a method that seems to have been trained too little, by its worst seed."""
    fits = [row["fit"] for row in rows if row.get("fit")]
    most = most_frequent_gold(rows[0])
    rights = [right for fit in fits if (right := finite(fit.get("right"))) is not None]
    more = "more passes (epochs), more rows or a higher rate may help"
    if rights and most is not None and min(rights) <= most[1] + LITTLE:
        return [
            f"{judge} has learned little: at the end {min(rights):.2f} of its training rows were judged right, and one "
            f"label alone gives {most[1]:.2f}; {more}"
        ]
    falls = [(fit["loss_before"], fit["loss"]) for fit in fits if finite(fit.get("loss_before"))]
    for before, last in falls:
        if 0 < last < FALLING * before and last > 0.05:
            return [f"{judge}: its loss still fell at the end ({before:.2f} → {last:.2f}); {more}"]
    return []


def _never_found_lines(judge: str, rows: list[Mapping[str, Any]]) -> list[str]:
    """Return a warning that names the labels which no seed of a method ever finds."""
    per_label = [row.get("per_label") or {} for row in rows]
    missed = [
        word
        for word, figures in per_label[0].items()
        if (finite(figures.get("gold")) or 0) >= FEW and not any(finite(each[word].get("recall")) for each in per_label)
    ]
    return [f"{judge} never finds {', '.join(missed)}"] if missed else []


def _one_label_lines(judge: str, item: Summary, rows: list[Mapping[str, Any]]) -> list[str]:
    """Return one warning per label that some seed of a method gave for every row."""
    seeds_of: dict[str, list[str]] = {}
    for row in rows:
        word = collapsed_label(row)
        if word is not None:
            seeds_of.setdefault(word, []).append(str(row.get("seed")))
    most = most_frequent_gold(rows[0])
    every = "every row it answers readably" if item.unreadable else "every row"
    lines = []
    for word, seeds in seeds_of.items():
        which = "" if len(seeds) == len(rows) else f" (seed {', '.join(seeds)})"
        kind = "majority-label" if most is None or word == most[0] else "one-label"
        lines.append(f"{judge}{which} answers {word} for {every} (a {kind} result)")
    return lines


def incomplete_lines(table: Mapping[str, Any]) -> list[str]:
    """Return one sentence per failed cell, with its reason, and one with the number of unfinished cells."""
    failed = [
        f"{cell.get('task')}: {cell.get('method')} (seed {cell.get('seed')}{_fold_of(cell)}) failed: "
        f"{cell.get('reason')}"
        for cell in table.get("failed") or ()
    ]
    count = int(finite(table.get("unfinished")) or 0)
    return failed + ([f"{count} {'run is' if count == 1 else 'runs are'} not finished yet"] if count else [])


def _split_of(row: Mapping[str, Any]) -> str:
    """Return the name of the judged split; the rows of folds and held-out ones are of none."""
    return "" if row.get("folds") or row.get("hold_out") else str(row.get("split") or "")


def _fold_of(cell: Mapping[str, Any]) -> str:
    return f", fold {cell['fold']}" if cell.get("fold") is not None else ""


def rows_line(table: Mapping[str, Any]) -> str:
    """Return how many rows of which split were judged, and over how many seeds the figures are means."""
    rows = table.get("rows") or ()
    row_sets = dict.fromkeys(
        (str(row["task"]), _split_of(row), row.get("n"), row.get("groups"), row.get("folds"), row.get("hold_out"))
        for row in rows
    )
    parts = [
        f"{task} {split}".strip()
        + f": {int(n):,} {'held-out training rows' if held_out else 'rows'} judged"
        + (f" in {int(groups):,} groups" if groups else "")
        + (f", each once in {folds} folds" if folds else "")
        for task, split, n, groups, folds, held_out in row_sets
        if n
    ]
    seed_counts = {len(item.seeds) for item in summarise(table)}
    if len(seed_counts) == 1 and max(seed_counts) > 1:
        parts.append(f"means over {seed_counts.pop()} seeds")
    return visible("; ".join(parts) + ".") if parts else ""
