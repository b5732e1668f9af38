"""``adjudge calibrate``: make the probabilities of a finished run believable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import (
    ROWS,
    BaseModel,
    DataDir,
    Encoding,
    JudgingSettings,
    Label,
    Separator,
    Text,
    examples,
    given_settings,
    split_list,
)

EPILOG = examples(
    f"adjudge calibrate --run runs/vader-movies/{EXAMPLE}-seed0",
    f"adjudge calibrate --run runs/reviews/{EXAMPLE}-seed0 --data unseen.csv",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("calibrate", epilog=EPILOG)(calibrate)


def calibrate(
    ctx: typer.Context,
    run: Annotated[str, typer.Option(metavar="DIR", help="A finished run folder, or a comparison's.")],
    overrides: JudgingSettings = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="Number of training rows to calibrate with, none of which the run learned from.",
            show_default="500, or all there are",
            rich_help_panel=ROWS,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Task to calibrate, for a run over several tasks.", show_default="all of them"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a comparison: this method's run.", show_default="the best method"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of a comparison: the run of this seed.", show_default="the first")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Labelled rows to calibrate with, in place of training rows.", rich_help_panel=ROWS
        ),
    ] = None,
    text: Text = None,
    label: Label = None,
    separator: Separator = None,
    encoding: Encoding = None,
    data_dir: DataDir = None,
    model: BaseModel = None,
) -> None:
    """Fit the temperature of a finished run's probabilities, and store it with its judge.

    The answers stay the same. predict and serve then give calibrated probabilities, and exports carry the temperature.
    Rows are training rows that the run did not learn from, or those of --data.
    """
    from adjudge.errors import ConfigError
    from adjudge.experiments.calibrate import ROWS as DEFAULT
    from adjudge.experiments.calibrate import calibrate_run
    from adjudge.experiments.evaluate import tasks_of
    from adjudge.experiments.pick_run import pick_run
    from adjudge.runs.tasks import pick_among
    from adjudge.tasks.table_format import table_format

    if data is None and (text is not None or label is not None):
        raise ConfigError("--text and --label name columns of a file: name the file with --data.")
    if data is not None and rows is not None:
        raise ConfigError("All rows of --data are taken: leave --rows out.")
    folder = pick_run(Path(run), task, method, seed)
    calibrate_run(
        folder,
        spec=None if task is None else pick_among(folder, tasks_of(folder), task),
        data=data,
        text=() if text is None else split_list(text, "--text"),
        label=label,
        form=table_format(separator, encoding),
        rows=DEFAULT if rows is None else rows,
        data_dir=data_dir,
        model=model,
        settings=given_settings(ctx.params),
    )
    typer.echo(f"the probabilities of {folder} are calibrated; its answers stay the same")
