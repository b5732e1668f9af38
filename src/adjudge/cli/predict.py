"""``adjudge predict``: judge new rows with a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import BaseModel, Decode, Force, examples

EPILOG = examples(f"adjudge predict --run runs/vader-movies/{EXAMPLE}-seed0 --input new.csv --out judged.csv")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("predict", epilog=EPILOG)(predict)


def predict(
    run: Annotated[str, typer.Option(metavar="DIR", help="A finished run folder, or a comparison's.")],
    source: Annotated[
        str,
        typer.Option(
            "--input", metavar="FILE", help="Rows to judge: CSV, TSV, JSONL or Parquet with the task's columns."
        ),
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="File for the judged rows; its suffix names the format.")],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Task to judge, for a run over several tasks.", show_default="the run's task"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a comparison: this method's run.", show_default="the best method"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of a comparison: the run of this seed.", show_default="the first")
    ] = None,
    model: BaseModel = None,
    decode: Decode = None,
    force: Force = False,
) -> None:
    """Judge new rows with a finished run.

    Keeps the input columns and adds the label, a probability per label, and whether the answer was unreadable.
    """
    from adjudge.errors import DataError
    from adjudge.experiments.evaluate import load_judge
    from adjudge.experiments.pick_run import pick_run
    from adjudge.experiments.predict_file import check_out, predict_file
    from adjudge.runs.tasks import pick_task

    if not Path(source).is_file():
        raise DataError(f"{source}: there is no such file.")
    check_out(Path(source), Path(out), force=force)
    folder = pick_run(Path(run), task, method, seed)
    _, spec, judge = load_judge(
        folder, spec=None if task is None else pick_task(folder, task), decode=decode, model=model
    )
    predict_file(judge, spec, source, out, force=force)
