"""``adjudge predict``: judge new rows with a finished run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli.doubt import AbstainShare, CostFile, MinConfidence
from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import (
    BaseModel,
    Encoding,
    JudgingSettings,
    ReplaceFile,
    RunDecode,
    SendRows,
    Separator,
    examples,
    given_settings,
)

EPILOG = examples(
    f"adjudge predict --run runs/vader-movies/{EXAMPLE}-seed0 --input new.csv --out judged.csv",
    "adjudge predict --run runs/reviews --input new.csv --out judged.csv --min-confidence 0.9",
    "adjudge predict --run runs/reviews --input new.csv --out judged.csv runtime.threads=2 evaluation.batch_size=8",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("predict", epilog=EPILOG)(predict)


def predict(
    ctx: typer.Context,
    run: Annotated[str, typer.Option(metavar="DIR", help="A finished run folder, or a comparison's.")],
    source: Annotated[
        str,
        typer.Option(
            "--input", metavar="FILE", help="Rows to judge: CSV, TSV, JSONL or Parquet with the task's columns."
        ),
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="File for the judged rows; its suffix names the format.")],
    overrides: JudgingSettings = None,
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
    min_confidence: MinConfidence = None,
    abstain_share: AbstainShare = None,
    costs: CostFile = None,
    separator: Separator = None,
    encoding: Encoding = None,
    model: BaseModel = None,
    decode: RunDecode = None,
    send_rows: SendRows = False,
    force: ReplaceFile = False,
) -> None:
    """Judge new rows with a finished run, and hold doubtful answers back if you ask for it.

    Keeps the input columns and adds the label, a probability per label, and whether the answer was unreadable.
    """
    from adjudge.errors import ConfigError
    from adjudge.evaluation.abstention import read_decision
    from adjudge.experiments.evaluate import load_judge, tasks_of
    from adjudge.experiments.pick_run import pick_run
    from adjudge.experiments.predict_file import check_out, judge_identity, predict_file
    from adjudge.methods.settings import model_of
    from adjudge.models.chat_api import is_api
    from adjudge.runs.calibration import temperature_of
    from adjudge.runs.tasks import pick_among
    from adjudge.system.console import note
    from adjudge.tasks.reading.table import check_table
    from adjudge.tasks.table_format import table_format

    form = table_format(separator, encoding)
    check_table(Path(source), form)
    check_out(Path(source), Path(out), force=force)
    folder = pick_run(Path(run), task, method, seed)
    settings = given_settings(ctx.params)
    spec = pick_among(folder, tasks_of(folder), task)
    decision = read_decision(spec, min_confidence, abstain_share, costs)
    if decision.costs is not None:
        decode = decode or "labels"  # probabilities alone decide
    temperature = temperature_of(folder, spec.name)
    if temperature is None and (decision.minimum or decision.costs):
        calibrate = f"adjudge calibrate --run {shlex.quote(str(folder))}"
        note(f"the probabilities are not calibrated, so they may be too sure; first: {calibrate}")
    opened, spec, judge = load_judge(folder, spec=spec, decode=decode, model=model, settings=settings)
    of_api = is_api(model_of(opened.config))  # whose answers the run's log keeps; all rows are announced at once
    if decision and of_api:
        raise ConfigError(
            "A model behind an API gives no probabilities to hold answers back by, or to weigh costs with."
        )
    # Rows are missing in the output only when the user of this file says so, whatever the run did with its own.
    bad_rows = settings.get("data.bad_rows", "error")
    options = {"form": form, "bad_rows": bad_rows, "temperature": temperature, "decision": decision}
    identity = judge_identity(opened, spec)
    predict_file(judge, spec, source, out, force=force, identity=identity, at_once=of_api, **options)
