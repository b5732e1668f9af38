"""The matrix of a stream of tasks: for the terminal, as Markdown, as a page with heat maps and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.report.colours import colour_rules
from adjudge.report.curves import PANEL_HEIGHT, PANEL_WIDTH, stage_panel
from adjudge.report.html import asset, environment
from adjudge.report.markdown import aligned
from adjudge.report.terminal import Fitted, text_table
from adjudge.report.text import decimal
from adjudge.system.files import write_text
from adjudge.version import __version__

FIGURES = {
    "acc": "ACC: mean over the tasks after the last stage",
    "bwt": "BWT: the last stage minus the task's own, earlier tasks",
    "forgetting": "forgetting: the best so far minus the last stage, earlier tasks",
    "fwt": "FWT: before its own stage minus untrained, later tasks",
    "learning": "learning: its own stage minus untrained, summed",
}
"""The figures of matrix.json, each with its meaning."""


def stream_title(stream: Mapping[str, Any]) -> str:
    """Return ``sft, replay=0.1, seed 0: glue/sst2 → glue/cola``."""
    arrow = " → " if stream["strategy"] != "multi" else ", "
    strategy = str(stream["strategy"]).replace("l3", "L3-style")
    return f"{stream['method']}, {strategy}, seed {stream['seed']}: {arrow.join(stream['tasks'])}"


def matrix_cells(stream: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines of the matrix: a line per stage, a column per task with its metric."""
    head = ["after", *(f"{task} {stream['metrics'][task]}" for task in stream["tasks"])]
    lines = []
    for stage, row, unreadable in zip(stream["stages"], stream["R"], stream["unreadable"], strict=True):
        cells = [
            decimal(value) + (f" ({100 * share:.0f} % unreadable)" if share >= 0.005 else "")
            for value, share in zip(row, unreadable, strict=True)
        ]
        lines.append([str(stage), *cells])
    return head, lines


def figure_lines(stream: Mapping[str, Any]) -> list[str]:
    """Return the figures with their intervals, one per line; those that need more stages are left out."""
    lines = []
    for name, meaning in FIGURES.items():
        if stream[name] is not None:
            ends = stream["intervals"][name]
            interval = f" [{decimal(ends[0])}, {decimal(ends[1])}]" if ends else ""
            lines.append(f"{meaning}: {decimal(stream[name])}{interval}")
    if len(set(stream["metrics"].values())) > 1:
        lines.append("The tasks have different metrics, so their mean has no unit; by accuracy alone:")
        lines += (
            [f"  {line}" for line in figure_lines({**stream, **stream["by_accuracy"], "metrics": {}})]
            if stream["by_accuracy"]
            else ["  not defined for tasks with numbers."]
        )
    return lines


def transfer_lines(stream: Mapping[str, Any]) -> list[str]:
    """Return what each stage of an L3-style stream took from its base, a line each; none for others."""
    lines = []
    for stage in stream.get("l3", ()):
        cosines, begins = stage["similarity"], stage["warm_start"] or "the untrained model"
        if cosines:
            nearest = max(cosines, key=lambda name: cosines[name])
            begins += f" (nearest: {nearest}, cosine {decimal(cosines[nearest])})"
        experts = [f"{name} {decimal(weight)}" for name, weight in stage["weights"].items() if weight]
        lines.append(f"L3-style, {stage['task']}: from {begins}; judged by {', '.join(experts)}")
    return lines


def matrix_table(stream: Mapping[str, Any]) -> Fitted:
    """Return the matrix for the terminal."""
    return text_table(*matrix_cells(stream))


def stream_markdown(matrix: Mapping[str, Any]) -> str:
    """Return matrix.md for the mapping of matrix.json."""
    parts = []
    for stream in matrix["runs"]:
        head, lines = matrix_cells(stream)
        figures = [f"- {line.strip()}" for line in (*figure_lines(stream), *transfer_lines(stream))]
        parts += [f"## {stream_title(stream)}", "", *aligned(head, lines, left=head[:1]), "", *figures, ""]
    return "\n".join(parts)


def render_stream(matrix: Mapping[str, Any], out: Path) -> Path:
    """Write the page of a stream to `out`, and return `out`. Opening it fetches nothing."""
    views = [_view(stream) for stream in matrix["runs"]]
    page = (
        environment()
        .get_template("stream.html.j2")
        .render(
            title="Tasks in a stream",
            version=__version__,
            command=matrix.get("command", ""),
            views=views,
            style=asset("style.css") + colour_rules(max(8, len(matrix["tasks"]))) + "\n",
            panel_size=(PANEL_WIDTH, PANEL_HEIGHT),
        )
    )
    write_text(out, page)
    return out


def _view(stream: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one stream."""
    head, lines = matrix_cells(stream)
    return {
        "title": stream_title(stream),
        "head": head,
        "rows": [
            (line[0], [(text, _heat(stream["R"], stage, column)) for column, text in enumerate(line[1:])])
            for stage, line in enumerate(lines)
        ],
        "figures": [*figure_lines(stream), *transfer_lines(stream)],
        "panel": stage_panel("After each stage", stream["tasks"], stream["R"]),
    }


def _heat(R: Sequence[Sequence[float | None]], stage: int, column: int) -> int:
    """Return a cell's shade in percent: where its value lies between the least and the most of its task."""
    known = [each for row in R if (each := row[column]) is not None]
    value = R[stage][column]
    if value is None or max(known) == min(known):
        return 0
    return round(55 * (value - min(known)) / (max(known) - min(known)))
