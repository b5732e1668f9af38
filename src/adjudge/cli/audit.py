"""``adjudge audit``: find rows whose label is probably wrong."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options, own_data
from adjudge.cli.completion import complete_method
from adjudge.cli.method_names import EXAMPLE
from adjudge.methods.registry import AUDITING, AUDITING_SETTINGS

EPILOG = options.examples(
    "adjudge audit --data reviews.csv --text text --label label",
    f"adjudge audit --data reviews.csv --text text --label label --method {EXAMPLE} --all",
    "adjudge audit --task glue/sst2 --data-dir data --rows 1000 --plant 0.05",
)
WHAT = "The audit"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("audit", epilog=EPILOG)(audit)


def audit(
    ctx: typer.Context,
    overrides: options.Overrides = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Method that judges the rows it did not learn from; a trained one takes longer and sees more.",
            show_default=f"{AUDITING} on a middle layer and the encoder",
            autocompletion=complete_method,
            rich_help_panel=WHAT,
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Number of rows, drawn by the seed.", show_default="all", rich_help_panel=WHAT
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Folds, each judged by a run that learns from the others.",
            show_default="5",
            rich_help_panel=WHAT,
        ),
    ] = None,
    plant: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Change the labels of this share of the rows first, and count how many come first in the ranking.",
            rich_help_panel=WHAT,
        ),
    ] = 0.0,
    every_row: Annotated[
        bool,
        typer.Option("--all", help="Write the whole ranking, not the suspicious rows alone.", rich_help_panel=WHAT),
    ] = False,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    data: options.Data = None,
    dataset: own_data.Dataset = None,
    dataset_config: own_data.DatasetConfig = None,
    dev: options.Dev = None,
    instruction: options.Instruction = None,
    text: options.Text = None,
    label: options.Label = None,
    labels: options.Labels = None,
    kind: options.Kind = None,
    separator: options.Separator = None,
    encoding: options.Encoding = None,
    model: options.Model = None,
    encoder: options.Encoder = None,
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    send_rows: options.SendRows = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder for the audit.", show_default="runs/audit-TASK", rich_help_panel=options.PLACE
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """List the rows whose label is probably wrong, the most doubtful first.

    Every row is judged by a run that did not learn from it. Confident learning compares its probabilities with the
    given labels. Nothing is changed: look at the rows, then correct the file.

    Of a table all rows are audited, of a task with dev rows of its own the training rows.
    """
    from adjudge.experiments.audit import TABLE, audit_lines
    from adjudge.experiments.audit import audit as run_audit
    from adjudge.runs.default_folder import audit_folder

    settings = options.build_config(ctx.params, AUDITING_SETTINGS if method is None else None)
    spec = own_data.only_task(ctx.params, settings, "audit")
    folder = Path(out) if out is not None else audit_folder(spec)
    result = run_audit(
        settings,
        spec,
        AUDITING if method is None else method,
        folder,
        rows=rows,
        plant=plant,
        every_row=every_row,
        force=force,
        command=shlex.join(["adjudge", *sys.argv[1:]]),
    )
    for line in audit_lines(result):
        typer.echo(line)
    typer.echo(folder / TABLE)
