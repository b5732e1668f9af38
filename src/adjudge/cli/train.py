"""``adjudge train METHOD``: train one method once and judge with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.show import show_scores

EPILOG = (
    "Examples:\n\n`adjudge train sft --task glue/sst2 --data-dir data --train-rows 1000`\n\n"
    "`adjudge train sft --task glue/cola,glue/rte,glue/stsb --mixture equal --data-dir data --train-rows 3000`\n\n"
    "`adjudge train ppo --init runs/vader-movies/sft-seed0 ppo.clip=0.1`\n\n"
    "`adjudge train encoder --data reviews.csv --text review --label sentiment`"
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train", epilog=EPILOG)(train)


def train(
    ctx: typer.Context,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="sft, ppo or encoder.")],
    overrides: options.Overrides = None,
    task: options.Tasks = None,
    mixture: options.Mixture = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    eval_rows: options.EvalRows = None,
    split: options.Split = None,
    data: options.Data = None,
    dev: options.Dev = None,
    text: options.Text = None,
    label: options.Label = None,
    labels: options.Labels = None,
    model: options.Model = None,
    encoder: options.Encoder = None,
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    init: options.Init = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Run folder.", show_default="runs/TASK/METHOD-seedN", rich_help_panel=options.PLACE
        ),
    ] = None,
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Train METHOD on a task, judge the evaluation rows, and leave adapter, predictions, scores and report in a run folder.

    sft and ppo take several tasks too: one adapter is trained on a mixture of their rows and judges each.

    Ctrl-C and SIGTERM write a checkpoint first. The same command with --resume goes on, also after a crash, with the same result.
    """
    from adjudge.errors import ConfigError
    from adjudge.experiments.execute import execute
    from adjudge.methods.registry import entry_for, parse_name, shown_name
    from adjudge.runs.tasks import default_folder
    from adjudge.system.console import note, warn

    if resume and force:
        raise ConfigError("--resume goes on with a run, --force replaces it: give one of them.")
    entry, _ = parse_name(method)
    if not entry.trains:
        raise ConfigError(f"{method} is not trained. Use: adjudge evaluate --method {method}.")
    if entry.model != "model" and model is not None:
        warn(f"{entry.name} takes its model from {entry.model}; --model has no effect here.")
    settings = options.build_config(ctx.params)
    specs = options.chosen_tasks(ctx.params, settings)
    names = [spec.name for spec in specs]
    entry = entry_for(method, len(specs))
    if len(specs) == 1 and mixture is not None:
        raise ConfigError("--mixture says how several tasks share the training rows; there is one task.")
    settings = settings.model_copy(update={"method": entry.name, "task": ",".join(names)})
    shown = shown_name(entry.name, len(specs))
    folder = Path(out) if out is not None else default_folder(names, shown, settings.seed)
    note(f"training {shown} on {', '.join(names)} → {folder}")
    scores = execute(settings, specs, folder, force=force, resume=resume)
    show_scores(scores, folder)
    which = f" --task {names[0]}" if len(specs) > 1 else ""
    typer.echo(f"judge new rows with: adjudge predict --run {folder}{which} --input FILE.csv --out FILE.csv")
