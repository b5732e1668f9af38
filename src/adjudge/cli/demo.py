"""``adjudge demo``: from nothing to a report, in one command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.show import show_comparison

EPILOG = options.examples("adjudge demo", "adjudge demo --budget smoke")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("demo", epilog=EPILOG)(demo)


def demo(
    overrides: options.Overrides = None,
    budget: Annotated[
        str, typer.Option(metavar="full|smoke", help="smoke: a tiny one that only shows that everything works.")
    ] = "full",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the comparison.",
            show_default="runs/demo, runs/demo-smoke",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Runs at a time, each with its share of the cores.", show_default="2"),
    ] = None,
) -> None:
    """Fetch a small model and rated movie sentences, compare seven methods on them, and write a report.

    Given again, it reuses finished runs and continues stopped ones.
    """
    from adjudge.setup.demo import demo as run_demo

    command = shlex.join(["adjudge", *sys.argv[1:]])
    table, folder = run_demo(
        budget, Path(out) if out is not None else None, overrides or (), jobs=jobs, command=command
    )
    show_comparison(table, folder)
