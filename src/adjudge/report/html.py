"""The report: one self-contained HTML file made from run folders.

Opening it fetches nothing; a content policy in the page forbids it too. Texts from data and models are escaped, or
carried as JSON and shown with ``textContent``. Charts are laid out by `plots` and `curves`, without a chart library.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from adjudge.report.across import tables_across
from adjudge.report.certainty import (
    CHART,
    TITLES,
    Certainty,
    Reliability,
    RiskChart,
    certainties,
    certainty_charts,
    certainty_line,
)
from adjudge.report.collect import Collection, RunRecord, collect
from adjudge.report.colours import colour_rules, method_colour
from adjudge.report.columns import without_dashes
from adjudge.report.curves import PANEL_HEIGHT, PANEL_WIDTH, Panel, panels, recall_panel
from adjudge.report.examples import ExampleSet, example_set
from adjudge.report.labels import LabelFigures, label_figures
from adjudge.report.phenomena import Phenomenon, phenomena, phenomena_line
from adjudge.report.plots import (
    LABELS_SHOWN,
    SCATTER,
    Confusion,
    IntervalChart,
    Scatter,
    confusion,
    interval_chart,
    scatter,
)
from adjudge.report.sentences import beside_lines, headline, incomplete_lines, verdict_line, warning_lines
from adjudge.report.slices import slices, slices_line
from adjudge.report.suites import suite_columns, suite_lines, suite_scores
from adjudge.report.summary import (
    ALPHA,
    UNREADABLE_SHARE,
    Summary,
    best_values,
    most_frequent_gold,
    ranked,
    summarise,
)
from adjudge.report.text import count_text, decimal, price_text, seconds_text, visible
from adjudge.system.files import write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction
from adjudge.version import __version__


@dataclass(frozen=True, slots=True)
class TaskView:
    """Contents of the page for one task."""

    name: str
    anchor: str
    title: str
    spec: TaskSpec | None
    headline: tuple[str, str]
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    summaries: tuple[Summary, ...]
    metrics: tuple[str, ...]
    best: Mapping[str, float]
    """Best value of each metric; metrics of a single method are missing."""
    charts: tuple[IntervalChart, ...]
    tests: tuple[Mapping[str, Any], ...]
    panels: tuple[Panel, ...]
    recalls: tuple[Panel, ...]
    confusions: tuple[Confusion, ...]
    labels: Mapping[str, Sequence[LabelFigures]]
    """Figures per label, by method."""
    scatters: tuple[Scatter, ...]
    unfinished: tuple[RunRecord, ...]
    phenomena: tuple[Phenomenon, ...]
    phenomena_note: str
    slices: tuple[Phenomenon, ...]
    slices_note: str
    certainties: tuple[Certainty, ...]
    certainty_note: str
    reliabilities: tuple[Reliability, ...]
    risk: RiskChart | None

    @property
    def several_seeds(self) -> bool:
        """True when some method has figures of more than one seed."""
        return any(len(item.seeds) > 1 for item in self.summaries)

    def has_figure(self, method: str) -> bool:
        """True when the method has a value of the task's primary metric."""
        return any(self.metrics and self.metrics[0] in item.metrics for item in self.summaries if item.method == method)

    def tests_phenomena(self, method: str) -> bool:
        """True when the method has figures per phenomenon or slice."""
        return any(method in item.figures for item in (*self.phenomena, *self.slices))


def render_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the report on comparison folders and single run folders to `out`, and return `out`.

    Incomplete runs are listed. Raises RunError when a folder is neither a run nor a comparison, or a file is damaged.
    """
    collection = collect(folders)
    views = [task_view(collection, task, f"task-{number}") for number, task in enumerate(collection.tasks, 1)]
    example_sets = [examples for view in views if (examples := _examples(collection, view))]
    all_panels = [panel for view in views for panel in (*view.panels, *view.recalls)]
    colours = max([len(collection.methods), *(curve.colour + 1 for panel in all_panels for curve in panel.curves)])
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=_title(views),
            version=__version__,
            collection=collection,
            views=views,
            incomplete=incomplete_lines(collection.table),
            suites=[
                (*without_dashes(*suite_columns(scores)), suite_lines(scores), len(scores[0].averages))
                for scores in suite_scores(collection.table)
            ],
            across=tables_across(collection.table),
            methods=collection.methods,
            scored_methods=[m for m in collection.methods if any(view.has_figure(m) for view in views)],
            colour=lambda method: method_colour(method, collection.methods),
            example_sets=example_sets,
            examples_json=script_json(_browser_data(example_sets, collection)),
            panels_json=script_json([_panel_data(panel) for panel in all_panels]),
            style=asset("style.css") + Markup(colour_rules(colours) + "\n"),
            script=asset("script.js"),
            panel_size=(PANEL_WIDTH, PANEL_HEIGHT),
            scatter_size=SCATTER,
            chart_size=CHART,
            score_titles=TITLES,
        )
    )
    out = Path(out)
    write_text(out, page)
    return out


def task_view(collection: Collection, task: str, anchor: str) -> TaskView:
    """Gather the table, charts, curves and matrices of one task."""
    spec = collection.spec(task)
    methods = collection.methods
    runs = [run for run in collection.runs if run.task == task]
    rows = [row for row in collection.table["rows"] if str(row["task"]) == task]
    tests = [test for test in collection.table.get("tests") or () if str(test.get("task")) == task]
    table = {**collection.table, "rows": rows, "tests": tests}
    summaries = summarise(table)
    best_first = ranked(summaries)
    metrics = list(dict.fromkeys(name for item in best_first for name in item.metric_names))
    phenomenon_items = phenomena(table, task)
    sliced = slices(table, task)
    sure = certainties(table, task)
    reliabilities, risk = certainty_charts(methods, spec, runs)
    majority = next((most for row in rows if (most := most_frequent_gold(row))), None)
    charts = [interval_chart(m, best_first, rows, methods, majority if m == "accuracy" else None) for m in metrics]
    logs = [(_run_name(run, runs), method_colour(run.method, methods), run.metrics) for run in runs if run.metrics]
    recalls = [
        recall_panel(f"Recall per label: {_run_name(run, runs)}", run.metrics) for run in runs if run.fold in (None, 1)
    ]
    return TaskView(
        name=task,
        anchor=anchor,
        title=spec.title if spec else task,
        spec=spec,
        headline=headline(best_first, tests, majority),
        facts=tuple(_facts(rows, runs)),
        warnings=(*warning_lines(table), *beside_lines(table)),
        summaries=tuple(summaries),
        metrics=tuple(metrics),
        best=best_values(summaries, metrics),
        charts=tuple(chart for chart in charts if chart),
        tests=tuple(tests),
        panels=tuple(panels(logs)),
        recalls=tuple(panel for panel in recalls if panel),
        confusions=tuple(_confusions(methods, spec, runs)),
        labels=label_figures(table, task),
        scatters=tuple(_scatters(methods, spec, runs)),
        unfinished=tuple(run for run in runs if not run.finished or run.state != "complete"),
        phenomena=tuple(phenomenon_items),
        phenomena_note=phenomena_line(task, phenomenon_items),
        slices=tuple(sliced),
        slices_note=slices_line(task, sliced),
        certainties=tuple(sure),
        certainty_note=certainty_line(task, sure, collection.table),
        reliabilities=tuple(reliabilities),
        risk=risk,
    )


def script_json(value: Any) -> Markup:
    """Return JSON for a script element.

    It is ASCII without ``<``, ``>`` and ``&``, so no text can end the element.
    """
    dumped = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def filter_link(**filters: Any) -> str:
    """Return the fragment that sets the example browser's filters, e.g. ``#method=sft&outcome=wrong``."""
    pairs = [
        f"{name}={quote(str(value).encode('utf-8', 'replace'), safe='')}"
        for name, value in filters.items()
        if value is not None
    ]
    return "#" + "&".join(pairs)


@functools.cache
def environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("adjudge.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals |= {
        "ALPHA": ALPHA,
        "LABELS_SHOWN": LABELS_SHOWN,
        "UNREADABLE_SHARE": UNREADABLE_SHARE,
        "count_text": count_text,
        "price_text": price_text,
        "decimal": decimal,
        "filter_link": filter_link,
        "gib_text": lambda gib: f"{gib:.2f}",
        "seconds_text": seconds_text,
        "verdict_line": verdict_line,
    }
    environment.tests["tests_phenomena_of"] = lambda method, view: view.tests_phenomena(method)
    environment.tests["significant"] = lambda p: isinstance(p, int | float) and p < ALPHA
    return environment


def _shown(value: Any) -> Any:
    """Make control and bidi characters visible in a template's texts; keep our own markup."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def asset(name: str) -> Markup:
    """Read one of our own files in templates/ as trusted markup."""
    return Markup(resources.files("adjudge.report").joinpath("templates", name).read_text(encoding="utf-8"))


def _title(views: Sequence[TaskView]) -> str:
    if not views:
        return "No runs"
    return views[0].title if len(views) == 1 else f"{len(views)} tasks compared"


def _run_name(run: RunRecord, runs: Sequence[RunRecord]) -> str:
    several_seeds = len({other.seed for other in runs if other.method == run.method}) > 1
    fold = "" if run.fold is None else f", fold {run.fold}"
    return f"{run.method}, seed {run.seed}{fold}" if several_seeds else f"{run.method}{fold}"


def _examples(collection: Collection, view: TaskView) -> ExampleSet | None:
    return example_set(view.name, view.spec, [run for run in collection.runs if run.task == view.name])


def _facts(rows: Sequence[Mapping[str, Any]], runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Return (name, text) of the facts below the headline: model, rows, split, seeds."""

    def listed(values: Sequence[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))

    facts = [
        ("task", listed([row["task"] for row in rows] or [run.task for run in runs])),
        ("model", listed([row.get("model") for row in rows] or [run.model for run in runs])),
        ("rows judged", listed([count_text(row["n"]) for row in rows if row.get("n")])),
        ("split", listed([_split_of(row) for row in rows if not row.get("file")])),
        ("judged file", listed([row.get("file") for row in rows])),
        ("training rows", listed([count_text(row["train_rows"]) for row in rows if row.get("train_rows")])),
        ("seeds", listed(sorted({row["seed"] for row in rows if row.get("seed") is not None}))),
    ]
    return [(name, fact) for name, fact in facts if fact]


def _predictions_by_method(runs: Sequence[RunRecord]) -> dict[str, list[Prediction]]:
    """Return the predictions of each method, all seeds together."""
    grouped: dict[str, list[Prediction]] = {}
    for run in runs:
        if run.predictions:
            grouped.setdefault(run.method, []).extend(run.predictions)
    return grouped


def _confusions(methods: Sequence[str], spec: TaskSpec | None, runs: Sequence[RunRecord]) -> list[Confusion]:
    if _is_number_task(spec, runs) or (spec is not None and spec.several):
        return []
    words = spec.words if spec else ()
    matrices = [
        confusion(method, method_colour(method, methods), words, predictions)
        for method, predictions in _predictions_by_method(runs).items()
    ]
    return [matrix for matrix in matrices if matrix]


def _scatters(methods: Sequence[str], spec: TaskSpec | None, runs: Sequence[RunRecord]) -> list[Scatter]:
    if not _is_number_task(spec, runs):
        return []
    ends = (spec.number.low, spec.number.high) if spec and spec.number else None
    plots = [
        scatter(method, method_colour(method, methods), ends, predictions)
        for method, predictions in _predictions_by_method(runs).items()
    ]
    return [plot for plot in plots if plot]


def _is_number_task(spec: TaskSpec | None, runs: Sequence[RunRecord]) -> bool:
    if spec is not None:
        return spec.is_number
    return any(isinstance(p.gold, int | float) for run in runs for p in run.predictions)


def _panel_data(panel: Panel) -> dict[str, Any]:
    """Return what the page needs to read values off a chart: ranges, axis, and the points of its curves."""

    def short(values: Sequence[float]) -> list[float]:
        return [float(f"{value:.4g}") for value in values]

    curves = [{"name": c.name, "colour": c.colour, "x": short(c.xs), "y": short(c.ys)} for c in panel.curves]
    return {"x": panel.x_range, "y": panel.y_range, "axis": panel.axis, "curves": curves}


def _browser_data(example_sets: Sequence[ExampleSet], collection: Collection) -> dict[str, Any]:
    colours = {method: method_colour(method, collection.methods) for method in collection.methods}
    return {"colours": colours, "tasks": [examples.data for examples in example_sets]}


def _split_of(row: Mapping[str, Any]) -> str | None:
    if row.get("hold_out"):
        return "held-out training rows"
    return f"{row['folds']} folds" if row.get("folds") else row.get("split")
