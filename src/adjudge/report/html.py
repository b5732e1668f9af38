"""The report: one self-contained HTML file made from run folders.

Nothing is fetched when it is opened (a content policy in the page forbids it too). Texts from data and models are escaped, or
carried as JSON and shown with ``textContent``. No library draws the charts; `plots` and `curves` lay them out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

import adjudge
from adjudge.report import tables
from adjudge.report.collect import Collection, RunRecord, collect
from adjudge.report.curves import PANEL_HEIGHT, PANEL_WIDTH, Panel, panels, recall_panel
from adjudge.report.examples import ExampleSet, example_set
from adjudge.report.phenomena import Phenomenon, phenomena, phenomena_line
from adjudge.report.plots import (
    SCATTER,
    Confusion,
    IntervalChart,
    Scatter,
    colour_of,
    confusion,
    interval_chart,
    scatter,
)
from adjudge.report.suites import suite_columns, suite_lines, suite_scores
from adjudge.report.tables import Summary
from adjudge.system.files import write_text
from adjudge.tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class TaskView:
    """Everything the page shows of one task."""

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
    """Metric to its best value, where there are several methods."""
    charts: tuple[IntervalChart, ...]
    tests: tuple[Mapping[str, Any], ...]
    panels: tuple[Panel, ...]
    recalls: tuple[Panel, ...]
    confusions: tuple[Confusion, ...]
    scatters: tuple[Scatter, ...]
    unfinished: tuple[RunRecord, ...]
    phenomena: tuple[Phenomenon, ...]
    phenomena_note: str


def render_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the report on comparison folders and single run folders to `out` and return `out`.

    Raises RunError when a folder is no run and no comparison, or a file in it is damaged; runs that are not complete are listed.
    """
    found = collect(folders)
    views = [task_view(found, task, f"task-{number}") for number, task in enumerate(found.tasks, 1)]
    sets = [
        s for view in views if (s := example_set(view.name, view.spec, [r for r in found.runs if r.task == view.name]))
    ]
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=_title(views),
            version=adjudge.__version__,
            found=found,
            views=views,
            incomplete=tables.incomplete_lines(found.table),
            suites=[
                (*suite_columns(scored), suite_lines(scored), len(scored[0].averages))
                for scored in suite_scores(found.table)
            ],
            methods=found.methods,
            colour=lambda method: colour_of(method, found.methods),
            example_sets=sets,
            examples_json=script_json(_browser_data(sets, found)),
            panels_json=script_json([_panel_data(panel) for view in views for panel in (*view.panels, *view.recalls)]),
            style=_asset("style.css"),
            script=_asset("script.js"),
            panel_size=(PANEL_WIDTH, PANEL_HEIGHT),
            scatter_size=SCATTER,
        )
    )
    out = Path(out)
    write_text(out, page)
    return out


def task_view(found: Collection, task: str, anchor: str) -> TaskView:
    """Gather the table, charts, curves and matrices of one task."""
    spec = found.spec(task)
    runs = [run for run in found.runs if run.task == task]
    rows = [row for row in found.table["rows"] if str(row["task"]) == task]
    tests = [test for test in found.table.get("tests") or () if str(test.get("task")) == task]
    table = {**found.table, "rows": rows, "tests": tests}
    summaries = tables.summarise(table)
    ranked = tables.ranked(summaries)
    metrics = list(
        dict.fromkeys(name for item in ranked for name in sorted(item.metrics, key=lambda n: n != item.primary))
    )
    tested = phenomena(table, task)
    always = next((most for row in rows if (most := tables.most_frequent_gold(row))), None)
    methods = found.methods
    charts = [interval_chart(m, ranked, rows, methods, always if m == "accuracy" else None) for m in metrics]
    return TaskView(
        name=task,
        anchor=anchor,
        title=spec.title if spec else task,
        spec=spec,
        headline=headline(ranked, tests),
        facts=tuple(_facts(rows, runs)),
        warnings=tuple(tables.warning_lines(table)),
        summaries=tuple(summaries),
        metrics=tuple(metrics),
        best=_best(summaries, metrics),
        charts=tuple(chart for chart in charts if chart),
        tests=tuple(tests),
        panels=tuple(
            panels([(_run_name(run, runs), colour_of(run.method, methods), run.metrics) for run in runs if run.metrics])
        ),
        recalls=tuple(
            p for run in runs if (p := recall_panel(f"Recall per label: {_run_name(run, runs)}", run.metrics))
        ),
        confusions=tuple(_confusions(found, spec, runs)),
        scatters=tuple(_scatters(found, spec, runs)),
        unfinished=tuple(run for run in runs if not run.finished or run.state not in {"complete", "unknown"}),
        phenomena=tuple(tested),
        phenomena_note=phenomena_line(task, tested),
    )


def headline(ranked: Sequence[Summary], tests: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What a hurried reader takes away from one task: a sentence, and how sure it is. `ranked`: best first."""
    scored = [item for item in ranked if item.primary in item.metrics]
    if not scored:
        return "No result yet.", "No run of this task has been evaluated."
    best = scored[0]
    figure = best.metrics[best.primary]
    value = f"{best.primary} {figure.value:.3f}"
    if len(scored) == 1:
        interval = "" if figure.low is None else f"95 % interval {figure.low:.3f} to {figure.high:.3f}."
        return f"{best.method} reaches {value}.", interval
    second = scored[1]
    lead = abs(figure.value - second.metrics[second.primary].value) if second.primary == best.primary else None
    sentence = f"{best.method} judges best: {value}."
    pair = {best.method, second.method}
    test = next((t for t in tests if {t.get("a"), t.get("b")} == pair and t.get("metric") == best.primary), None)
    p = None if test is None else test.get("p_holm", test.get("p"))
    if lead is None:
        return sentence, ""
    if not isinstance(p, int | float):
        return sentence, f"It leads {second.method} by {lead:.3f}; no paired test of the two was recorded."
    if p < tables.ALPHA:
        return sentence, f"Its lead of {lead:.3f} over {second.method} is significant ({tables.p_text(p)} after Holm)."
    return sentence, f"Its lead of {lead:.3f} over {second.method} is not significant ({tables.p_text(p)} after Holm)."


def script_json(value: Any) -> Markup:
    """JSON that can stand in a script element: no ``<``, ``>``, ``&`` and nothing but ASCII, so that no text ends the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def filter_link(**filters: Any) -> str:
    """The fragment that sets the example browser's filters, e.g. ``#method=ppo&outcome=wrong``."""
    pairs = [
        f"{name}={quote(str(value).encode('utf-8', 'replace'), safe='')}"
        for name, value in filters.items()
        if value is not None
    ]
    return "#" + "&".join(pairs)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("adjudge.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals |= {"filter_link": filter_link, "tables": tables}
    environment.tests["significant"] = lambda p: isinstance(p, int | float) and p < tables.ALPHA
    return environment


def _shown(value: Any) -> Any:
    """What a template prints: text with its control and bidi characters made visible; markup of our own as it is."""
    return tables.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    return Markup(
        resources.files("adjudge.report").joinpath("templates", name).read_text(encoding="utf-8")
    )  # our own file


def _title(views: Sequence[TaskView]) -> str:
    if not views:
        return "No runs"
    return views[0].title if len(views) == 1 else f"{len(views)} tasks compared"


def _run_name(run: RunRecord, runs: Sequence[RunRecord]) -> str:
    several = len({other.seed for other in runs if other.method == run.method}) > 1
    return f"{run.method}, seed {run.seed}" if several else run.method


def _facts(rows: Sequence[Mapping[str, Any]], runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    def listed(values: Sequence[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))

    trained = [row["train_rows"] for row in rows if row.get("train_rows")]
    facts = [
        ("task", listed([row["task"] for row in rows] or [run.task for run in runs])),
        ("model", listed([row.get("model") for row in rows] or [run.model for run in runs])),
        ("rows judged", listed([tables.count_text(row["n"]) for row in rows if row.get("n")])),
        ("split", listed([row.get("split") for row in rows])),
        ("training rows", listed([tables.count_text(count) for count in trained])),
        ("seeds", listed(sorted({row["seed"] for row in rows if row.get("seed") is not None}))),
    ]
    return [(name, text) for name, text in facts if text]


def _best(summaries: Sequence[Summary], metrics: Sequence[str]) -> dict[str, float]:
    best = {}
    for name in metrics:
        values = [item.metrics[name].value for item in summaries if name in item.metrics]
        if len(values) > 1:
            best[name] = min(values) if name in tables.LOWER_IS_BETTER else max(values)
    return best


def _by_method(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    grouped: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.predictions:
            grouped.setdefault(run.method, []).append(run)
    return grouped


def _confusions(found: Collection, spec: TaskSpec | None, runs: Sequence[RunRecord]) -> list[Confusion]:
    if _is_number_task(spec, runs):
        return []
    words = spec.words if spec else ()
    made = [
        confusion(method, colour_of(method, found.methods), words, [p for run in mine for p in run.predictions])
        for method, mine in _by_method(runs).items()
    ]
    return [matrix for matrix in made if matrix]


def _scatters(found: Collection, spec: TaskSpec | None, runs: Sequence[RunRecord]) -> list[Scatter]:
    if not _is_number_task(spec, runs):
        return []
    ends = (spec.number.low, spec.number.high) if spec and spec.number else None
    made = [
        scatter(method, colour_of(method, found.methods), ends, [p for run in mine for p in run.predictions])
        for method, mine in _by_method(runs).items()
    ]
    return [plot for plot in made if plot]


def _is_number_task(spec: TaskSpec | None, runs: Sequence[RunRecord]) -> bool:
    if spec is not None:
        return spec.is_number
    return any(isinstance(p.gold, int | float) for run in runs for p in run.predictions)


def _panel_data(panel: Panel) -> dict[str, Any]:
    def short(values: Sequence[float]) -> list[float]:
        return [float(f"{value:.4g}") for value in values]

    curves = [{"name": c.name, "colour": c.colour, "x": short(c.xs), "y": short(c.ys)} for c in panel.curves]
    return {"x": panel.x_range, "y": panel.y_range, "axis": panel.axis, "curves": curves}


def _browser_data(sets: Sequence[ExampleSet], found: Collection) -> dict[str, Any]:
    colours = {method: colour_of(method, found.methods) for method in found.methods}
    return {"colours": colours, "tasks": [item.data for item in sets]}
