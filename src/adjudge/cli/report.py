"""``adjudge report``: render the HTML report again from a run's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli.options import examples

EPILOG = examples("adjudge report runs/sst2", "adjudge report runs/a runs/b --out both.html")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report", epilog=EPILOG)(report)


def report(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Folders of comparisons or runs.")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="File for the report.", show_default="DIR/report.html")
    ] = None,
) -> None:
    """Make one self-contained HTML report from comparisons and run folders.

    `compare`, `train` and `evaluate` write such a report themselves.
    """
    from adjudge.errors import RunError
    from adjudge.report.html import render_report

    for folder in folders:
        if not Path(folder).is_dir():
            raise RunError(f"{folder}: there is no such folder.")
    target = Path(out) if out is not None else Path(folders[0]) / "report.html"
    render_report([Path(folder) for folder in folders], target)
    typer.echo(str(target))
