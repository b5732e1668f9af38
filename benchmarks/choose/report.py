"""The table of an experiment: each arm's figure, and how it differs from the arms it is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from adjudge.evaluation.statistics import align_runs, bootstrap_interval, holm, paired_permutation
from adjudge.report.markdown import aligned
from adjudge.report.text import decimal, p_text
from adjudge.runs.folder import Run, read_jsonl
from adjudge.tasks.scoring.metrics import measure
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction, Value
from benchmarks.choose.plans import COSTS, PLANS, Arm, Plan

if TYPE_CHECKING:
    from benchmarks.choose.run import Job

RESAMPLES = 2000
SPENT = ("calls", "prompt_tokens", "generated_tokens", "gold_labels")
"""What is counted of the budget of a method that asks models."""


def report(name: str, jobs: Sequence[Job]) -> str:
    """Return the experiment's tables as Markdown: one per task, p-values after Holm over the whole experiment."""
    plan = PLANS[name]
    lines, tests = [f"## {plan.what}", ""], []
    by_task: dict[str, list[Job]] = {}
    for job in jobs:
        if job.is_finished:
            by_task.setdefault(job.spec.name, []).append(job)
    tables = []
    for finished in by_task.values():
        table = _Table(plan, finished)
        tables.append(table)
        tests += table.tests
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    for table in tables:
        lines += [*table.lines(), ""]
    means = _means(plan, tables)
    return "\n".join([*lines, *means])


class _Table:
    """The arms of one task, with their figures and tests."""

    def __init__(self, plan: Plan, jobs: Sequence[Job]) -> None:
        self.plan, self.spec = plan, jobs[0].spec
        self.rows = int(jobs[0].values["data.train_rows"])
        runs = {arm.name: [Run.open(job.folder) for job in jobs if job.arm.name == arm.name] for arm in plan.arms}
        self.arms = [arm for arm in plan.arms if runs[arm.of or arm.name]]
        self.scores = {arm.name: [run.scores() for run in runs[arm.of or arm.name]] for arm in self.arms}
        self.answers = {
            arm.name: [decided(arm, self.spec, run.predictions("dev")) for run in runs[arm.of or arm.name]]
            for arm in self.arms
        }
        self.tokens = {arm.name: fmean(_sampled_tokens(run) for run in runs[arm.of or arm.name]) for arm in self.arms}
        self.budgets = [part for part in SPENT if any(map(bool, (_spent(each, part) for each in self.scores.values())))]
        kept = {name: _kept(plan, self.spec, answers) for name, answers in self.answers.items()}
        self.figures = {
            name: bootstrap_interval(metric, kept_KCU, RESAMPLES, 0) for name, (kept_KCU, metric) in kept.items()
        }
        self.tests: list[dict[str, Any]] = []
        for number, other in enumerate(plan.against):
            for arm in self.arms:
                if other in kept and arm.name not in plan.against[: number + 1]:
                    difference, p = paired_permutation(
                        kept[arm.name][1], kept[arm.name][0], kept[other][0], RESAMPLES, 0
                    )
                    self.tests.append({"a": arm.name, "b": other, "difference": difference, "p": p, "p_holm": p})

    def lines(self) -> list[str]:
        """Return the table as lines of Markdown."""
        name = "mean cost" if self.plan.measure == "cost" else self.spec.primary
        head = [self.spec.name, name, *(f"against {other}" for other in self.plan.against)]
        rows = []
        for arm in self.arms:
            value, low, high = self.figures[arm.name]
            row = [arm.name, f"{decimal(value)} [{decimal(low)}, {decimal(high)}]"]
            for other in self.plan.against:
                test = next((test for test in self.tests if (test["a"], test["b"]) == (arm.name, other)), None)
                row.append("" if test is None else f"{test['difference']:+.3f}, {p_text(test['p_holm'])}")
            scores = self.scores[arm.name]
            one_label = sum(_one_label(answers) for answers in self.answers[arm.name])
            unreadable = fmean(score["unreadable"] for score in scores)
            seconds = fmean(score["seconds"]["train"] for score in scores)
            tokens = [f"{self.tokens[arm.name]:,.0f}"] if any(self.tokens.values()) else []
            budget = [_spent(scores, part) for part in self.budgets]
            rows.append(
                [*row, f"{one_label} of {len(scores)}", f"{unreadable:.1f}", *tokens, *budget, f"{seconds:.0f}"]
            )
        head += ["one label", "unreadable", *(["sampled tokens"] if any(self.tokens.values()) else [])]
        head += [*(part.replace("_", " ") for part in self.budgets), "train s"]
        count = len(next(iter(self.answers.values()))[0])
        return [f"{self.rows} training rows, {count} judged.", "", *aligned(head, rows, left={head[0]})]


def _spent(scores: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the mean of a figure of the runs' budgets, their judging included; empty where nothing was counted."""
    counted = [[part.get(name, 0) for part in (score.get("budget"), score.get("judging")) if part] for score in scores]
    return f"{fmean(map(sum, counted)):,.0f}" if any(map(any, counted)) else ""


def _sampled_tokens(run: Run) -> int:
    """Return the number of tokens that a run sampled while it trained."""
    records = read_jsonl(run.folder / "metrics.jsonl") if (run.folder / "metrics.jsonl").is_file() else ()
    return sum(record.get("sampled_tokens", 0) for record in records)


def _means(plan: Plan, tables: Sequence[_Table]) -> list[str]:
    """Return a line with each arm's mean over the tasks, where there are several."""
    if len(tables) < 2:
        return []
    shared = [arm.name for arm in plan.arms if all(arm.name in table.figures for table in tables)]
    figures = (f"{name} {fmean(table.figures[name][0] for table in tables):.3f}" for name in shared)
    return [f"Mean over {len(tables)} tasks: {', '.join(figures)}.", ""]


def decided(arm: Arm, spec: TaskSpec, predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the answers after an arm's decision rule. All but ``answer`` need the labels' probabilities.

    ``prior``: the label whose probability, divided by its mean over these rows, is highest. ``cost``: the label with
    the least expected cost. ``oracle``: the threshold with the least cost on these very rows, which no one has before.
    """
    rules: Mapping[str, Callable[[Sequence[Prediction]], Sequence[Value]]] = {
        "prior": _without_prior,
        "cost": lambda rows: [_least_cost(spec, row.probabilities) for row in rows],
        "oracle": lambda rows: _best_threshold(spec, rows),
    }
    if arm.decision == "answer":
        return list(predictions)
    answers = rules[arm.decision](predictions)
    return [replace(row, value=answer) for row, answer in zip(predictions, answers, strict=True)]


def _without_prior(rows: Sequence[Prediction]) -> list[Value]:
    words = list(rows[0].probabilities)
    prior = {word: fmean(row.probabilities[word] for row in rows) for word in words}
    return [max(words, key=lambda word: row.probabilities[word] / prior[word]) for row in rows]


def cost(gold: Value | None, answer: Value | None) -> float:
    """Return what an answer costs, 0 or more; an unreadable one as much as the dearest mistake."""
    if answer == gold:
        return 0.0
    costs = COSTS[str(gold)]
    return -costs[str(answer)] if str(answer) in costs else -min(min(each.values()) for each in COSTS.values())


def _least_cost(spec: TaskSpec, probabilities: Mapping[str, float]) -> str:
    def expected(answer: str) -> float:
        return sum(probability * cost(gold, answer) for gold, probability in probabilities.items())

    return min(spec.words, key=expected)


def _best_threshold(spec: TaskSpec, rows: Sequence[Prediction]) -> list[Value]:
    first, second = spec.words
    candidates = [0.0, *sorted(row.probabilities[first] for row in rows), 1.1]

    def answers(threshold: float) -> list[Value]:
        return [first if row.probabilities[first] >= threshold else second for row in rows]

    def total(threshold: float) -> float:
        return sum(cost(row.gold, answer) for row, answer in zip(rows, answers(threshold), strict=True))

    return answers(min(candidates, key=total))


def _kept(plan: Plan, spec: TaskSpec, runs: Sequence[Sequence[Prediction]]) -> tuple[Any, Callable[[Any], Any]]:
    """Return the numbers that the figure is computed from, ``[K, C, U]``, and its function."""
    runs = align_runs(spec, runs)
    if plan.measure == "cost":
        costs = np.array([[[cost(row.gold, row.value) for row in run]] for run in runs])
        return costs, lambda kept_CSU: kept_CSU[0].mean(-1)
    measured = [measure(spec, spec.primary, run) for run in runs]
    return np.stack([run.kept_CU for run in measured]), measured[0].value


def _one_label(predictions: Sequence[Prediction]) -> bool:
    return len({row.value for row in predictions if row.value is not None}) <= 1
