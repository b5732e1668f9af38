"""``adjudge train METHOD``: train one method once and judge with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adjudge.cli import options, own_data
from adjudge.cli.completion import complete_method
from adjudge.cli.method_names import EXAMPLE, STARTERS, TRAINED, either
from adjudge.cli.show import show_estimates, show_scores

if TYPE_CHECKING:
    from adjudge.config import Config
    from adjudge.tasks.spec import TaskSpec

EPILOG = options.examples(
    f"adjudge train {EXAMPLE} --task glue/sst2 --data-dir data --train-rows 1000",
    f"adjudge train {EXAMPLE} --task glue/cola,glue/rte --mixture equal --data-dir data",
    f"adjudge train {STARTERS[0]} --init runs/vader-movies/{EXAMPLE}-seed0 lora.r=8",
    f"adjudge train {EXAMPLE} --report-to trackio tracking.project=movies",
    f"adjudge train {TRAINED[-1]} --data reviews.csv --text review --label sentiment",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train", epilog=EPILOG)(train)


def train(
    ctx: typer.Context,
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help=f"{either(TRAINED)}; `adjudge methods` describes them.",
            autocompletion=complete_method,
        ),
    ],
    overrides: options.Overrides = None,
    task: options.Tasks = None,
    mixture: options.Mixture = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    shots: options.Shots = None,
    eval_rows: options.EvalRows = None,
    split: options.Split = None,
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
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    init: options.Init = None,
    reward_funcs: options.RewardFuncs = None,
    send_rows: options.SendRows = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Run folder.", show_default="runs/TASK/METHOD-seedN", rich_help_panel=options.PLACE
        ),
    ] = None,
    resume: options.Resume = False,
    dry_run: options.DryRun = False,
    report_to: options.ReportTo = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Publish the judge in this private repository of the hub, as `adjudge push` does.",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Train METHOD on a task and judge the evaluation rows with it.

    The run folder gets the adapter, predictions, scores and a report.

    Methods that train an adapter take several tasks too: one adapter learns a mixture of their rows and judges all.

    Ctrl-C and SIGTERM write a checkpoint before the run stops. The same command with --resume continues it, also after
    a crash, and the result is that of a run without a stop.
    """
    from adjudge.errors import ConfigError
    from adjudge.experiments.execute import execute
    from adjudge.experiments.what_was_read import report_own_table
    from adjudge.methods.registry import entry_for, parse_name
    from adjudge.methods.settings import base_model, model_key, refuse_functions, rewarded_names
    from adjudge.runs.default_folder import default_folder
    from adjudge.runs.names import shown_name
    from adjudge.ship.push import check_push, push_trained
    from adjudge.system.console import note, warn
    from adjudge.system.parallel import is_first

    if resume and force:
        raise ConfigError("--resume continues a run, --force replaces it: give one of them.")
    entry, _ = parse_name(method)
    if not entry.trains:
        raise ConfigError(f"{method} is not trained. Use: adjudge evaluate --method {method}.")
    if init is not None and not entry.trains_adapter:
        raise ConfigError(f"--init is for {either(STARTERS)}; {method} starts from the model itself.")
    if reward_funcs is not None and entry.name not in rewarded_names():
        raise refuse_functions(method)
    settings = options.build_config(ctx.params)
    key = model_key(settings.model_copy(update={"method": entry.name}))
    if key != "model" and model is not None:
        source = f"takes its model from {options.option_for(key)}" if key else "has no model"
        warn(f"{entry.name} {source}; --model has no effect here.")
    specs = own_data.chosen_tasks(ctx.params, settings)
    names = [spec.name for spec in specs]
    entry = entry_for(method, len(specs))
    if len(specs) == 1 and mixture is not None:
        raise ConfigError("--mixture says how several tasks share the training rows; there is one task.")
    shown = shown_name(entry.name, len(specs))
    folder = Path(out) if out is not None else default_folder(specs, shown, settings.seed, resume=resume)
    if not dry_run:
        note(f"training {shown} on {', '.join(names)} → {folder}")
    for spec in specs:
        report_own_table(spec, settings)
    if dry_run:
        _show_dry_run(settings, specs)
        return
    if push_to_hub is not None:
        check_push(push_to_hub, base_model(settings))
    scores = execute(settings, specs, folder, force=force, resume=resume)
    if not is_first():
        return
    show_scores(scores, folder)
    which = f" --task {names[0]}" if len(specs) > 1 else ""
    typer.echo(f"judge new rows with: adjudge predict --run {folder}{which} --input FILE.csv --out FILE.csv")
    if push_to_hub is not None:
        typer.echo(push_trained(folder, push_to_hub))


def _show_dry_run(settings: Config, specs: Sequence[TaskSpec]) -> None:
    """Print what the run would take. Raises ConfigError under a launcher of several processes."""
    from adjudge.errors import ConfigError
    from adjudge.experiments.dry_run import estimate_all, planned_runs
    from adjudge.experiments.execute import run_settings
    from adjudge.system.parallel import world_size

    if world_size() > 1:
        raise ConfigError("--dry-run measures one process: start it without torchrun or accelerate.")
    show_estimates(estimate_all(planned_runs([(run_settings(settings, specs), specs)])))
