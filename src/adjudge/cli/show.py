"""Results on standard output, at the end of a verb."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from adjudge.report.estimates import Estimated
    from adjudge.report.terminal import Fitted

LOG_COLUMNS = 160
"""Width of tables of results without a terminal."""
PAGE_COLUMNS = 80
"""Width of descriptions without a terminal."""


def show_scores(scores: Mapping[str, Any], folder: Path) -> None:
    """Print the table of one run (one line per task) and its notes, write its report, and name the files."""
    from adjudge.report.html import render_report
    from adjudge.runs.folder import Run
    from adjudge.runs.tasks import result_folders

    rows = [Run.open(part).scores() for part in result_folders(folder)] if "tasks" in scores else [dict(scores)]
    show_table({"rows": rows, "tests": []})
    report = render_report([folder], folder / "report.html")
    if "file" in scores:
        typer.echo(f"judged:     {scores['file']}, {scores['n']:,} rows")
    typer.echo(f"run folder: {folder}\nreport:     {report}")


def show_comparison(table: Mapping[str, Any], folder: Path) -> None:
    """Print the table of a comparison, its files, the next commands, and which runs failed.

    Raises typer.Exit(1) when one did.
    """
    from adjudge.system.console import warn

    show_table(table)
    for name in ("table.md", "table.json", "report.html"):
        if (folder / name).is_file():
            typer.echo(str(folder / name))
    for line in next_commands(table, folder):
        typer.echo(line)
    for failure in table["failed"]:
        fold = f" fold {failure['fold']}" if "fold" in failure else ""
        warn(f"{failure['task']} {failure['method']} seed {failure['seed']}{fold} failed: {failure['reason']}")
    if table["failed"]:
        raise typer.Exit(1)


def show_estimates(estimates: Sequence[Estimated], jobs: int = 1) -> None:
    """Print the table of a dry run. Raises typer.Exit(1) when a method could not be measured."""
    from adjudge.report.estimates import HEAD, estimate_lines, estimate_notes
    from adjudge.report.terminal import text_table

    console = stdout()
    if estimates:
        console.print(text_table(HEAD, estimate_lines(estimates)))
    for line in estimate_notes(estimates, jobs) if estimates else ["nothing is left to run"]:
        console.print(line, markup=False, soft_wrap=True)
    if any(each.problem for each in estimates):
        raise typer.Exit(1)


def stdout(columns: int = LOG_COLUMNS) -> Console:
    """Return standard output for tables; without a terminal it is so many columns wide."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else columns)


def show_table(table: Mapping[str, Any]) -> None:
    """Print the table with its sentences, then averages over a suite, and figures per slice.

    Those of probabilities and per phenomenon are printed for a single method; table.md has them for several.
    """
    from adjudge.report.across import tables_across
    from adjudge.report.certainty import certainties, certainty_columns, certainty_line
    from adjudge.report.columns import without_dashes
    from adjudge.report.phenomena import phenomena, phenomena_columns, phenomena_line
    from adjudge.report.sentences import table_notes
    from adjudge.report.slices import slices, slices_line
    from adjudge.report.suites import suite_columns, suite_lines, suite_scores
    from adjudge.report.terminal import results_table, text_table

    console = stdout()

    def show(drawn: Fitted, lines: Iterable[str]) -> None:
        console.print(drawn)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)

    show(results_table(table), table_notes(table, short=True))
    for scores in suite_scores(table):
        console.print()
        show(text_table(*without_dashes(*suite_columns(scores))), suite_lines(scores))
    for across in tables_across(table):
        console.print()
        show(text_table(across.head, across.lines), across.notes)
    tasks = list(dict.fromkeys(str(row["task"]) for row in table["rows"]))
    if len({str(row["method"]) for row in table["rows"]}) == 1:
        for task in tasks:
            if sure := certainties(table, task):
                console.print()
                show(text_table(*without_dashes(*certainty_columns(sure))), [certainty_line(task, sure, table)])
            if items := phenomena(table, task):
                console.print()
                show(text_table(*phenomena_columns(items)), [phenomena_line(task, items)])
    for task in tasks:
        if sliced := slices(table, task):
            console.print()
            show(text_table(*phenomena_columns(sliced, "slice")), [slices_line(task, sliced)])


def next_commands(table: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the commands that use a finished comparison: its best run judges a new file; another report."""
    from adjudge.report.summary import ranked, summarise

    rows = list(table["rows"])
    if len({str(row["task"]) for row in rows}) != 1:
        return []
    best = ranked(summarise(table))[0].method
    row = next(row for row in rows if row["method"] == best)
    run = folder / str((row.get("fold_runs") or [row["run"]])[0])
    command = ["adjudge", "predict", "--run", str(run), "--input", "new.csv", "--out", "judged.csv"]
    lines = ["", f"judge a new file with the first of the table, {best}:", f"  {shlex.join(command)}"]
    if row.get("folds"):
        lines.append("  (the run of its first fold, which learned from the others)")
    return lines
