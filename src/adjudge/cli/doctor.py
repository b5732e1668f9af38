"""``adjudge doctor``: report what this machine has, and what would run on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adjudge.cli.options import examples
from adjudge.cli.show import PAGE_COLUMNS, stdout

if TYPE_CHECKING:
    from adjudge.setup.doctor import Examination

EPILOG = examples("adjudge doctor", "adjudge doctor --data-dir data", "adjudge doctor --json")
COLOURS = {"ok": "green", "note": "yellow", "missing": "red"}


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor", epilog=EPILOG)(doctor)


def doctor(
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Report also which tasks have their files in this folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Report what this machine has, what would run on it, and what to do about the rest.

    Nothing is downloaded. The exit code is 1 when something necessary is missing.
    """
    import json

    from adjudge.setup.doctor import examine

    examination = examine(data_dir)
    if as_json:
        typer.echo(json.dumps(examination.as_json(), ensure_ascii=False, indent=2))
    else:
        _show(examination)
    if not examination.healthy:
        raise typer.Exit(1)


def _show(examination: Examination) -> None:
    from itertools import groupby
    from textwrap import fill

    from rich.table import Table
    from rich.text import Text

    console = stdout(PAGE_COLUMNS)
    machine = Table("this machine", "", "", box=None, pad_edge=False)
    for finding in examination.machine:
        machine.add_row(Text(finding.name), Text(finding.state, COLOURS[finding.state]), Text(finding.message))
    plans = Table("what would run", "", "", box=None, pad_edge=False)
    for (_, runs, message), alike in groupby(
        examination.plans, lambda plan: (plan.name.partition("/")[0], plan.runs, plan.message)
    ):
        names = [plan.name for plan in alike]
        name = names[0] if len(names) == 1 else f"{names[0].partition('/')[0]}, {len(names)} tasks"
        plans.add_row(Text(name), Text("yes", "green") if runs else Text("no", "yellow"), Text(message))
    console.print(machine)
    console.print()
    console.print(plans)
    advice = [finding for finding in examination.machine if finding.do]
    if advice:
        console.print("\nto do:")
    for finding in advice:
        line = f"  {finding.name}: {finding.do}"
        if not console.is_terminal:
            line = fill(line, console.width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        console.print(line, markup=False, soft_wrap=True)
