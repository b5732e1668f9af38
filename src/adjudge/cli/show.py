"""What a verb says at its end, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_COLUMNS = 160


def show_scores(scores: Mapping[str, Any], folder: Path) -> None:
    """Print the table of one run (a line a task), what is to be known about it, and where its files are; write its report."""
    from adjudge.runs.folder import Run
    from adjudge.runs.tasks import result_folders

    rows = [Run.open(place).scores() for place in result_folders(folder)] if "tasks" in scores else [dict(scores)]
    show_table({"rows": rows, "tests": []})
    from adjudge.report.html import render_report

    report = render_report([folder], folder / "report.html")
    typer.echo(f"run folder: {folder}\nreport:     {report}")


def stdout() -> Console:
    """Standard output for tables; without a terminal as wide as a log line, so that nothing is folded at 80 columns."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else LOG_COLUMNS)


def show_table(table: Mapping[str, Any]) -> None:
    """Print the table and the sentences below it; the averages over a suite; of one method alone its figures per phenomenon."""
    from adjudge.report.phenomena import phenomena, phenomena_columns, phenomena_line
    from adjudge.report.sentences import table_notes
    from adjudge.report.suites import suite_columns, suite_lines, suite_scores
    from adjudge.report.terminal import results_table, text_table

    console = stdout()

    def show(shown: Table, lines: Iterable[str]) -> None:
        console.print(shown)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)

    show(results_table(table), table_notes(table))
    for scored in suite_scores(table):
        console.print()
        show(text_table(*suite_columns(scored)), suite_lines(scored))
    if len({str(row["method"]) for row in table["rows"]}) == 1:
        for task in dict.fromkeys(str(row["task"]) for row in table["rows"]):
            if found := phenomena(table, task):
                console.print()
                show(text_table(*phenomena_columns(found)), [phenomena_line(task, found)])
