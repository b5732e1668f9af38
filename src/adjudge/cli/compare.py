"""``adjudge compare``: the methods side by side, on the same rows, prompts and budget."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options, own_data
from adjudge.cli.method_names import EXAMPLE, JOINT, UNTRAINED
from adjudge.cli.show import show_comparison, show_estimates
from adjudge.methods.registry import COMPARED, MULTI

EPILOG = options.examples(
    "adjudge compare --train-rows 200 --eval-rows 200",
    "adjudge compare --task glue/sst2 --data-dir data --seeds 0,1 --out runs/sst2",
    f"adjudge compare --task glue/cola,glue/rte --methods {EXAMPLE},{MULTI}{EXAMPLE}",
    f"adjudge compare --data my.csv --text text --label label --methods {UNTRAINED[0]},{EXAMPLE}",
    f"adjudge compare --task vader/movies --methods {UNTRAINED[0]},{EXAMPLE} --jobs 2",
    f"adjudge compare --task vader/movies --methods {UNTRAINED[0]},{EXAMPLE} --launcher ray",
    f"adjudge compare --task vader/movies --methods {UNTRAINED[0]},{EXAMPLE} --dry-run",
    f"adjudge compare --task vader/movies --methods {EXAMPLE},encoder --tuned runs/tune",
    f"adjudge compare --data small.csv --text text --label label --folds 5 --methods {EXAMPLE}",
)

DEFAULT_METHODS = ",".join(COMPARED)

Methods = Annotated[
    str,
    typer.Option(
        metavar="NAME,…",
        help="Methods to compare; `adjudge methods` lists them. "
        f"With {MULTI} before its name, as in {MULTI}{EXAMPLE}, a method trains one adapter on all tasks.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare", epilog=EPILOG)(compare)


def compare(
    ctx: typer.Context,
    overrides: options.Overrides = None,
    methods: Methods = DEFAULT_METHODS,
    task: options.Tasks = None,
    mixture: options.Mixture = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    shots: options.Shots = None,
    eval_rows: options.EvalRows = None,
    split: options.Split = None,
    folds: options.Folds = None,
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
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Seeds; one run per seed.", show_default="0", rich_help_panel=options.HOW),
    ] = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    tuned: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Take each method's best settings from this search (adjudge tune).",
            rich_help_panel=options.HOW,
        ),
    ] = None,
    init: options.Init = None,
    reward_funcs: options.RewardFuncs = None,
    send_rows: options.SendRows = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the comparison.",
            show_default="runs/compare-TASK",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Runs side by side, each with its share of the CPU threads or a GPU of its own.",
            show_default="1; with --launcher ray as many as fit",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    launcher: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="local: processes of this machine. ray: the Ray cluster at RAY_ADDRESS, or one that is started here.",
            rich_help_panel=options.PLACE,
        ),
    ] = "local",
    dry_run: options.DryRun = False,
    report_to: options.ReportTo = None,
    force: options.Force = False,
) -> None:
    """Compare methods on the same rows, prompts and budget.

    Writes one table with 95 % intervals and paired tests, an HTML report, and one run folder per method and seed.

    With the same --out, finished runs of the same settings and rows are reused, and stopped runs continue.
    """
    from adjudge.errors import ConfigError
    from adjudge.experiments.compare import compare as run_comparison
    from adjudge.experiments.compare import dry_run as estimate_comparison
    from adjudge.experiments.side_by_side import check_jobs, check_launcher
    from adjudge.experiments.what_was_read import report_own_table
    from adjudge.methods.registry import check_names, parse_name
    from adjudge.methods.settings import refuse_functions, rewarded_names
    from adjudge.runs.default_folder import comparison_folder

    chosen = check_names(options.split_list(methods, "--methods"))
    if reward_funcs is not None and not any(parse_name(name)[0].name in rewarded_names() for name in chosen):
        raise refuse_functions(", ".join(chosen))
    settings = options.build_config(ctx.params)
    seed_list = options.parse_seeds(seeds) if seeds is not None else [settings.seed]
    specs = own_data.chosen_tasks(ctx.params, settings)
    if mixture is not None and not any(parse_name(name)[1] for name in chosen):
        raise ConfigError(f"--mixture is for methods that train on several tasks at once: --methods {','.join(JOINT)}.")
    searched = None
    if tuned is not None:
        from adjudge.config import change
        from adjudge.experiments.tune import tuned_settings

        best, searched = tuned_settings(tuned, chosen, specs)
        given = options.given_settings(ctx.params)
        settings = change(settings, {key: value for key, value in best.items() if key not in given})
    for spec in specs:
        report_own_table(spec, settings)
    check_jobs(jobs)
    check_launcher(launcher)
    folder = Path(out) if out is not None else comparison_folder(specs)
    if dry_run:
        show_estimates(estimate_comparison(settings, specs, chosen, seed_list, folder, force=force), jobs or 1)
        return
    command = shlex.join(["adjudge", *sys.argv[1:]])
    table = run_comparison(
        settings,
        specs,
        chosen,
        seed_list,
        folder,
        force=force,
        command=command,
        jobs=jobs,
        launcher=launcher,
        tuned=searched,
    )
    show_comparison(table, folder)
