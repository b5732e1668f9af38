"""``adjudge compare``: the methods side by side, on the same rows, prompts and budget."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.show import show_table

EPILOG = (
    "Examples:\n\n`adjudge compare --train-rows 200 --eval-rows 200`\n\n"
    "`adjudge compare --task glue/sst2 --data-dir data --train-rows 1000 --seeds 0,1 --out runs/sst2`\n\n"
    "`adjudge compare --task glue/cola,glue/rte --data-dir data --train-rows 1000 --methods sft,ppo,multi-sft,multi-ppo`\n\n"
    "`adjudge compare --data reviews.csv --text review --label sentiment --methods zero-shot,sft`"
)


Methods = Annotated[
    str,
    typer.Option(
        metavar="NAME,…", help="The methods to compare; multi-sft and multi-ppo train one adapter on all tasks."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare", epilog=EPILOG)(compare)


def compare(
    ctx: typer.Context,
    overrides: options.Overrides = None,
    methods: Methods = "zero-shot,few-shot,sft,ppo,encoder",
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
    seeds: Annotated[
        str | None, typer.Option(metavar="N,…", help="One run a seed.", show_default="0", rich_help_panel=options.HOW)
    ] = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    init: options.Init = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the comparison.",
            show_default="runs/compare-TASK",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Compare methods: one table with 95 % intervals and paired tests, an HTML report, and a run folder a method and seed.

    Run again with the same --out, finished runs of the same settings and rows are reused, and one that was stopped goes on where it was.
    """
    from adjudge.errors import ConfigError
    from adjudge.experiments.compare import compare as run_comparison
    from adjudge.methods.registry import check_names, parse_name
    from adjudge.runs.tasks import joint_name
    from adjudge.system.console import warn

    chosen = check_names(options.split_list(methods, "--methods"))
    settings = options.build_config(ctx.params)
    seed_list = options.parse_seeds(seeds) if seeds is not None else [settings.seed]
    specs = options.chosen_tasks(ctx.params, settings)
    if mixture is not None and not any(parse_name(name)[1] for name in chosen):
        raise ConfigError(
            "--mixture is for methods that train on several tasks at once: --methods multi-sft,multi-ppo."
        )
    folder = Path(out) if out is not None else Path("runs") / f"compare-{joint_name([spec.name for spec in specs])}"
    command = shlex.join(["adjudge", *sys.argv[1:]])
    table = run_comparison(settings, specs, chosen, seed_list, folder, force=force, command=command)
    show_table(table)
    for name in ("table.md", "table.json", "report.html"):
        if (folder / name).is_file():
            typer.echo(str(folder / name))
    for failure in table["failed"]:
        warn(f"{failure['task']} {failure['method']} seed {failure['seed']} failed: {failure['reason']}")
    if table["failed"]:
        raise typer.Exit(1)
