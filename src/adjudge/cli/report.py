"""``adjudge report``: the HTML report, made again from the files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = "Examples:\n\n`adjudge report runs/sst2`\n\n`adjudge report runs/a runs/b --out both.html`"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report", epilog=EPILOG)(report)


def report(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Comparisons or run folders.")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="The report.", show_default="DIR/report.html")
    ] = None,
) -> None:
    """Make one self-contained HTML report from comparisons and run folders."""
    from adjudge.errors import RunError
    from adjudge.report.html import render_report

    for folder in folders:
        if not Path(folder).is_dir():
            raise RunError(f"{folder}: there is no such folder.")
    target = Path(out) if out is not None else Path(folders[0]) / "report.html"
    render_report([Path(folder) for folder in folders], target)
    typer.echo(str(target))
